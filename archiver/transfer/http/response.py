"""Checks a response of an object server against the request, and translates its errors.

The signature of a signed URL covers the verb, Content-MD5, Content-Type and every ``x-oss-*``
header, so only GET with Range and If-Match is sent, never HEAD (OSS, *Add signatures to URLs*).
"""

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NoReturn
from urllib.parse import urlsplit

from archiver.errors import (
    ArchiverError,
    BackupGone,
    IntegrityError,
    ObjectChanged,
    SourceError,
    SourceUnavailable,
    Throttled,
    UntrustedSource,
    UrlRefused,
)
from archiver.model import Pin
from archiver.network import TRUST_HINT, failure_in_words
from archiver.proxies import denial, via
from archiver.retry import retry_after_seconds
from archiver.secret import SignedUrl
from archiver.transfer.http.connection import Endpoint, HttpConnection
from archiver.transfer.http.head import MalformedResponse, ResponseHead
from archiver.version import __version__

REQUEST_HEADERS: Final[Mapping[str, str]] = {
    "Accept": "*/*",
    "Accept-Encoding": "identity",
    "User-Agent": f"archiver/{__version__}",
}
# What the methods of a connection raise for a failure on the way to the server.
TRANSPORT_ERRORS = (OSError, MalformedResponse, UnicodeError)
MAX_ERROR_BYTES = 16 * 1024
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})")
_CODE = re.compile(rb"<Code>([\w.]{1,80})</Code>")
_EC = re.compile(rb"<EC>([\w-]{1,40})</EC>")
_PAGE_TYPES = ("text/html", "application/xml", "text/xml")
_ERROR_OF_STATUS: Final[Mapping[int, type[ArchiverError]]] = {
    403: UrlRefused,
    404: BackupGone,
    408: SourceUnavailable,
    412: ObjectChanged,
    429: Throttled,
}


@dataclass(frozen=True, slots=True)
class ObjectResponse:
    """A response that was checked: the offset of the body's first byte, and the object's pin.

    ``is_whole`` for status 200: the body is the whole object, whatever range was requested.
    """

    start: int
    pin: Pin
    is_whole: bool


def endpoint_and_target(url: SignedUrl) -> tuple[Endpoint, str]:
    """The endpoint to connect to, and the target to request there."""
    split = urlsplit(url.reveal())
    default = 443 if split.scheme == "https" else 80
    endpoint = Endpoint(split.scheme, split.hostname or "", split.port or default)
    return endpoint, f"{split.path or '/'}{'?' if split.query else ''}{split.query}"


def describe_request(url: SignedUrl, connection: HttpConnection) -> str:
    """The URL without its query, and the proxy if there is one; for errors."""
    return f"{url}{via(connection.proxy)}"


def check_response(
    request: str, status: int, headers: Mapping[str, str], start: int, stop: int
) -> ObjectResponse:
    """Check a 200 or 206 response to a request for bytes ``start`` to ``stop`` (excluded).

    ``request`` describes the request in errors. Raises SourceError, IntegrityError.
    """
    if headers.get("content-encoding", "identity").lower() not in ("", "identity"):
        raise SourceError(
            f"{request}: a proxy or gateway changes the encoding of the response",
            hint="bypass the proxy",
        )
    try:
        length = int(headers["content-length"])
        crc = headers.get("x-oss-hash-crc64ecma")
        declared = None if crc is None else int(crc)
    except (KeyError, ValueError):
        raise SourceError(f"{request}: response {status} has no valid length or CRC-64") from None
    etag = headers.get("etag") or None
    if status == 200:
        # OSS also responds so to a range beyond the end: the whole object from its first byte.
        if length < stop and _is_page(headers):
            raise SourceUnavailable(f"{request}: a page of {length} bytes came instead of the file")
        return ObjectResponse(0, Pin(length, etag, declared), is_whole=True)
    span = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
    if span is None:
        raise SourceError(f"{request}: a partial response without a valid Content-Range")
    first, last, total = int(span[1]), int(span[2]), int(span[3])
    if first != start or last != min(stop, total) - 1 or length != last - first + 1:
        raise IntegrityError(
            f"{request}: requested bytes {start}-{stop - 1}, received {first}-{last}/{total} "
            f"in {length} bytes"
        )
    return ObjectResponse(first, Pin(total, etag, declared), is_whole=False)


def check_pin(request: str, pin: Pin, response: ObjectResponse) -> None:
    """Check that a response is of the pinned object. Raises ObjectChanged, or SourceUnavailable
    when the response may come from something other than the object store."""
    seen = response.pin
    is_other = (seen.etag is not None and pin.etag is not None and seen.etag != pin.etag) or (
        seen.crc64 is not None and pin.crc64 is not None and seen.crc64 != pin.crc64
    )
    if seen.total != pin.total and response.is_whole and not is_other:
        # Nothing identifies this as the object: it may be a proxy's page.
        raise SourceUnavailable(
            f"{request}: a response of {seen.total} bytes came instead of the file"
        )
    if seen.total != pin.total or is_other:
        raise ObjectChanged(f"{request}: the object changed during the download")


def _is_page(headers: Mapping[str, str]) -> bool:
    return headers.get("content-type", "").partition(";")[0].strip().lower() in _PAGE_TYPES


def status_error(request: str, head: ResponseHead, page: bytes) -> ArchiverError:
    """The error for a status other than 200 and 206; ``page`` is the start of the body."""
    status = head.status
    if status == 407:
        return denial(f"{request}: a proxy")
    code, ec = _CODE.search(page), _EC.search(page)
    detail = " ".join(
        [str(status), *(found[1].decode("ascii", "replace") for found in (code, ec) if found)]
    )
    wait = retry_after_seconds(head.fields)
    if 300 <= status < 400:
        return SourceError(f"{request}: {detail}: redirects are not followed")
    kind = _ERROR_OF_STATUS.get(status, SourceUnavailable if status >= 500 else SourceError)
    error = kind(f"{request}: {detail}", retry_after=wait)
    error.by_object_store = code is not None
    return error


def raise_unavailable(
    request: str, error: Exception, kind: type[SourceUnavailable] = SourceUnavailable
) -> NoReturn:
    """Translate one of TRANSPORT_ERRORS: raises ``kind``, or UntrustedSource."""
    if isinstance(error, ssl.SSLCertVerificationError):
        raise UntrustedSource(
            f"{request}: the certificate is not trusted: {error.verify_message}", hint=TRUST_HINT
        ) from None
    why = str(error) if isinstance(error, MalformedResponse) else failure_in_words(error)
    raise kind(f"{request}: {why}") from None
