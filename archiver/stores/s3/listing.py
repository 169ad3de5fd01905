"""The keys below a prefix, all of them, or an error: a listing that was cut looks like a whole one.

Version 2 of the API is asked for. A store that knows only version 1 answers in that form, without
a token to go on with, and is asked on in it.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from archiver.stores.s3 import answers
from archiver.stores.s3.answers import NoAnswer

# The operation, in botocore's words, and its parameters.
Ask = Callable[[str, Mapping[str, str]], Mapping[str, Any]]
# Pages in a row that name nothing and say that more follows.
_MOST_EMPTY: Final = 100
# A key of an archive, URL-encoded with its slashes.
_ENCODED: Final = re.compile(r"[\w.-]+%2F\d{4}%2F\d\d%2F\d{8}T\d{6}Z-.+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Page:
    """``sizes`` by key; ``token`` of version 2, ``marker`` of version 1; ``counted`` is whether it
    has a KeyCount, which only version 2 has."""

    sizes: Mapping[str, int]
    more: bool
    token: str
    marker: str
    counted: bool


def keys_below(ask: Ask, bucket: str, prefix: str) -> Iterator[tuple[str, int]]:
    """Keys and sizes, page by page. Raises NoAnswer."""
    operation, given = "list_objects_v2", {"Prefix": prefix}
    before: Mapping[str, int] = {}
    first_keys, tokens, empty = set[str](), set[str](), 0
    while True:
        page = _read(ask(operation, given), bucket, prefix)
        new = {key: size for key, size in page.sizes.items() if _is_new(key, size, before)}
        first = next(iter(new), None)
        empty = 0 if page.sizes else empty + 1
        # The last page may be the one key that its marker named.
        repeats = not new and len(page.sizes) > (0 if page.more else 1)
        if first in first_keys or repeats or empty > _MOST_EMPTY:
            raise NoAnswer("a listing does not go on: the same page came again")
        if first is not None:
            first_keys.add(first)
        yield from new.items()
        if not page.more:
            return
        if page.token and operation == "list_objects_v2":
            going_on = {"ContinuationToken": page.token}
        elif page.marker and not page.counted:
            operation, going_on = "list_objects", {"Marker": page.marker}
        else:
            raise NoAnswer("a listing is cut: more follows, and there is no token to ask for it")
        token = page.token or page.marker
        if token in tokens:
            raise NoAnswer("a listing does not go on: the same token came again")
        tokens.add(token)
        before, given = page.sizes, {"Prefix": prefix, **going_on}


def _is_new(key: str, size: int, before: Mapping[str, int]) -> bool:
    """Whether a key was not on the page before, as where a marker counts as after itself."""
    if before.get(key, size) != size:
        raise NoAnswer(f"a listing names {key!r} twice, with two sizes")
    return key not in before


def _read(answer: Mapping[str, Any], bucket: str, prefix: str) -> _Page:
    answers.check_echo(answer, {"Name": bucket, "Prefix": prefix})
    sizes: dict[str, int] = {}
    for found in answer.get("Contents") or ():
        key, size = answers.text(found, "Key"), answers.number(found, "Size")
        if not key.startswith(prefix):
            raise NoAnswer(f"a listing of {prefix!r} names {key[:200]!r}")
        if "EncodingType" not in answer and _ENCODED.fullmatch(key):
            raise NoAnswer("a listing has URL-encoded keys, and does not say so")
        if sizes.setdefault(key, size) != size:
            raise NoAnswer(f"a listing names {key[:200]!r} twice, with two sizes")
    said = answer[answers.SAID]
    counted = answer.get("KeyCount")
    if counted is not None and counted > len(sizes) + len(answer.get("CommonPrefixes") or ()):
        raise NoAnswer(f"a listing counts {counted:,} keys, and names {len(sizes):,}")
    more = answers.is_truncated(answer, must_say=True)
    last = next(reversed(sizes), "")
    return _Page(
        sizes,
        more,
        token=str(answer.get("NextContinuationToken") or ""),
        marker=str(answer.get("NextMarker") or last),
        counted="KeyCount" in said,
    )
