"""Lists all keys below a prefix, or fails: a listing that was cut off looks like a complete one.

Requests use version 2 of the API. A store that knows only version 1 answers in that format, without
a continuation token; then the following pages are requested in version 1.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from archiver.stores.s3 import responses
from archiver.stores.s3.responses import InvalidResponse

# Sends a request, given botocore's name of the operation and its parameters; the parsed response.
Request = Callable[[str, Mapping[str, str]], Mapping[str, Any]]
# Pages in a row that have no keys and a next page.
_MAX_EMPTY_PAGES: Final = 100
# A key of an archive, URL-encoded with its slashes.
_ENCODED: Final = re.compile(r"[\w.-]+%2F\d{4}%2F\d\d%2F\d{8}T\d{6}Z-.+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Page:
    """``sizes`` and ``etags`` by key; ``token`` for the next page in version 2, ``marker`` in
    version 1; ``has_count``: it has a KeyCount, which only version 2 has."""

    sizes: Mapping[str, int]
    etags: Mapping[str, str]
    is_truncated: bool
    token: str
    marker: str
    has_count: bool


def list_keys(request: Request, bucket: str, prefix: str) -> Iterator[tuple[str, int, str]]:
    """Keys below ``prefix``, their sizes in bytes and their ETags (empty where the store gives
    none), page by page. Raises InvalidResponse."""
    operation, given = "list_objects_v2", {"Prefix": prefix}
    previous: Mapping[str, int] = {}
    first_keys, tokens, empty_pages = set[str](), set[str](), 0
    while True:
        page = _parse(request(operation, given), bucket, prefix)
        new = {key: size for key, size in page.sizes.items() if _is_new(key, size, previous)}
        first = next(iter(new), None)
        empty_pages = 0 if page.sizes else empty_pages + 1
        # The last page may hold only the key that its marker named.
        is_repeated = not new and len(page.sizes) > (0 if page.is_truncated else 1)
        if first in first_keys or is_repeated or empty_pages > _MAX_EMPTY_PAGES:
            raise InvalidResponse("the listing does not advance: the same page came again")
        if first is not None:
            first_keys.add(first)
        for key, size in new.items():
            yield key, size, page.etags.get(key, "")
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
        previous, given = page.sizes, {"Prefix": prefix, **continuation}


def _is_new(key: str, size: int, previous: Mapping[str, int]) -> bool:
    """Whether the page before did not have this key. Some stores repeat the key of a marker. Raises
    InvalidResponse when its size differs."""
    if previous.get(key, size) != size:
        raise InvalidResponse(f"the listing has {key!r} twice, with two sizes")
    return key not in previous


def _parse(response: Mapping[str, Any], bucket: str, prefix: str) -> _Page:
    responses.check_echoed(response, {"Name": bucket, "Prefix": prefix})
    sizes: dict[str, int] = {}
    etags: dict[str, str] = {}
    for found in response.get("Contents") or ():
        key, size = responses.text(found, "Key"), responses.number(found, "Size")
        if not key.startswith(prefix):
            raise InvalidResponse(f"the listing of {prefix!r} has {key[:200]!r}")
        if "EncodingType" not in response and _ENCODED.fullmatch(key):
            raise InvalidResponse("the listing has URL-encoded keys without an EncodingType")
        if sizes.setdefault(key, size) != size:
            raise InvalidResponse(f"the listing has {key[:200]!r} twice, with two sizes")
        if isinstance(etag := found.get("ETag"), str):
            etags[key] = responses.bare(etag)
    count = response.get("KeyCount")
    if count is not None and count > len(sizes) + len(response.get("CommonPrefixes") or ()):
        raise InvalidResponse(f"the listing has a KeyCount of {count:,} and {len(sizes):,} keys")
    is_truncated = responses.is_truncated(response, required=True)
    last = next(reversed(sizes), "")
    return _Page(
        sizes,
        etags,
        is_truncated,
        token=str(response.get("NextContinuationToken") or ""),
        marker=str(response.get("NextMarker") or last),
        has_count="KeyCount" in response[responses.RAW],
    )
