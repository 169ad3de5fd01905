"""Lists all keys below a prefix, or fails: a listing that was cut off looks like a complete one.

Requests use version 2 of the API. A store that knows only version 1 answers in that format, without
a continuation token; then the following pages are requested in version 1.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from archiver.stores.s3 import responses
from archiver.stores.s3.responses import InvalidResponse

# Sends a request, given botocore's name of the operation and its parameters; the parsed response.
Request = Callable[[str, Mapping[str, str]], Mapping[str, Any]]
# Pages in a row that have no keys and a next page.
_MAX_EMPTY_PAGES: Final = 100
# A key of an archive, URL-encoded with its slashes.
_ENCODED: Final = re.compile(r"[\w.-]+%2F\d{4}%2F\d\d%2F\d{8}T\d{6}Z-.+", re.IGNORECASE)


class Listed(NamedTuple):
    """An object in a listing: its size in bytes, its ETag (empty where the store gives none), and
    when it was written, in nanoseconds since 1970 (None where the store does not say)."""

    key: str
    size: int
    etag: str
    modified: int | None


@dataclass(frozen=True, slots=True)
class _Page:
    """``objects`` by key; ``token`` for the next page in version 2, ``marker`` in version 1;
    ``has_count``: it has a KeyCount, which only version 2 has."""

    objects: Mapping[str, Listed]
    is_truncated: bool
    token: str
    marker: str
    has_count: bool


def list_keys(request: Request, bucket: str, prefix: str) -> Iterator[Listed]:
    """The objects below ``prefix``, page by page. Raises InvalidResponse."""
    operation, given = "list_objects_v2", {"Prefix": prefix}
    previous: Mapping[str, Listed] = {}
    first_keys, tokens, empty_pages = set[str](), set[str](), 0
    while True:
        page = _parse(request(operation, given), bucket, prefix)
        new = [one for one in page.objects.values() if _is_new(one, previous)]
        first = new[0].key if new else None
        empty_pages = 0 if page.objects else empty_pages + 1
        # The last page may hold only the key that its marker named.
        is_repeated = not new and len(page.objects) > (0 if page.is_truncated else 1)
        if first in first_keys or is_repeated or empty_pages > _MAX_EMPTY_PAGES:
            raise InvalidResponse("the listing does not advance: the same page came again")
        if first is not None:
            first_keys.add(first)
        yield from new
        if not page.is_truncated:
            return
        if page.token and operation == "list_objects_v2":
            continuation = {"ContinuationToken": page.token}
        elif page.marker and not page.has_count:
            operation, continuation = "list_objects", {"Marker": page.marker}
        else:
            raise InvalidResponse("the listing is truncated and has no continuation token")
        token = page.token or page.marker
        if token in tokens:
            raise InvalidResponse("the listing does not advance: the same token came again")
        tokens.add(token)
        previous, given = page.objects, {"Prefix": prefix, **continuation}


def _is_new(one: Listed, previous: Mapping[str, Listed]) -> bool:
    """Whether the page before did not have this key. Some stores repeat the key of a marker. Raises
    InvalidResponse when its size differs."""
    if previous.get(one.key, one).size != one.size:
        raise InvalidResponse(f"the listing has {one.key!r} twice, with two sizes")
    return one.key not in previous


def _parse(response: Mapping[str, Any], bucket: str, prefix: str) -> _Page:
    responses.check_echoed(response, {"Name": bucket, "Prefix": prefix})
    objects: dict[str, Listed] = {}
    for found in response.get("Contents") or ():
        key, size = responses.text(found, "Key"), responses.number(found, "Size")
        if not key.startswith(prefix):
            raise InvalidResponse(f"the listing of {prefix!r} has {key[:200]!r}")
        if "EncodingType" not in response and _ENCODED.fullmatch(key):
            raise InvalidResponse("the listing has URL-encoded keys without an EncodingType")
        etag, written = found.get("ETag"), found.get("LastModified")
        one = Listed(
            key,
            size,
            responses.bare(etag) if isinstance(etag, str) else "",
            round(written.timestamp()) * 10**9 if isinstance(written, datetime) else None,
        )
        if objects.setdefault(key, one).size != size:
            raise InvalidResponse(f"the listing has {key[:200]!r} twice, with two sizes")
    count = response.get("KeyCount")
    if count is not None and count > len(objects) + len(response.get("CommonPrefixes") or ()):
        raise InvalidResponse(f"the listing has a KeyCount of {count:,} and {len(objects):,} keys")
    is_truncated = responses.is_truncated(response, required=True)
    last = next(reversed(objects), "")
    return _Page(
        objects,
        is_truncated,
        token=str(response.get("NextContinuationToken") or ""),
        marker=str(response.get("NextMarker") or last),
        has_count="KeyCount" in response[responses.RAW],
    )
