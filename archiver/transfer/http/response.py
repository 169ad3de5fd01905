"""What an object's server answers, held against what was asked for.

A signed URL's signature covers the verb, Content-MD5, Content-Type and every ``x-oss-*`` header:
only GET with Range and If-Match is sent, never HEAD (OSS, *Add signatures to URLs*).
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
from archiver.network import TRUST_OTHERS
from archiver.proxies import denial, via
from archiver.retry import wait_asked
from archiver.secret import SignedUrl
from archiver.transfer.http.connection import Head, NotHttp, Place, Wire
from archiver.version import __version__

HEADERS: Final[Mapping[str, str]] = {
    "Accept": "*/*",
    "Accept-Encoding": "identity",
    "User-Agent": f"archiver/{__version__}",
}
FAULTS = (OSError, NotHttp, UnicodeError)
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})")
_CODE = re.compile(rb"<Code>([\w.]{1,80})</Code>")
_EC = re.compile(rb"<EC>([\w-]{1,40})</EC>")
_PAGES = ("text/html", "application/xml", "text/xml")
MOST_ERROR_BYTES = 16 * 1024
_REFUSALS: Final[Mapping[int, type[ArchiverError]]] = {
    403: UrlRefused,
    404: BackupGone,
    408: SourceUnavailable,
    412: ObjectChanged,
    429: Throttled,
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What an object's server said: the first byte that the body holds, and the whole's pin.

    ``whole`` is a 200: the body is the whole object, whatever was asked for.
    """

    start: int
    pin: Pin
    whole: bool


def address(url: SignedUrl) -> tuple[Place, str]:
    """Where to connect, and the target to ask for there."""
    split = urlsplit(url.reveal())
    default = 443 if split.scheme == "https" else 80
    place = Place(split.scheme, split.hostname or "", split.port or default)
    return place, f"{split.path or '/'}{'?' if split.query else ''}{split.query}"


def naming(url: SignedUrl, wire: Wire) -> str:
    """What was asked for and which way, for errors."""
    return f"{url}{via(wire.proxy)}"


def read_answer(
    asked: str, status: int, headers: Mapping[str, str], start: int, stop: int
) -> Answer:
    """Hold a 200 or 206 against what was asked for, which ``asked`` names in errors. Raises
    SourceError, IntegrityError."""
    if headers.get("content-encoding", "identity").lower() not in ("", "identity"):
        raise SourceError(
            f"{asked}: something on the way changes the encoding of what it passes on",
            hint="bypass the proxy",
        )
    try:
        length = int(headers["content-length"])
        crc = headers.get("x-oss-hash-crc64ecma")
        declared = None if crc is None else int(crc)
    except (KeyError, ValueError):
        raise SourceError(f"{asked}: an answer {status} without a readable length or CRC") from None
    etag = headers.get("etag") or None
    if status == 200:
        # Also OSS's answer to a range beyond the end: the whole object from its first byte.
        if length < stop and _is_page(headers):
            raise SourceUnavailable(f"{asked}: not the file but another answer of {length} bytes")
        return Answer(0, Pin(length, etag, declared), whole=True)
    span = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
    if span is None:
        raise SourceError(f"{asked}: a partial answer without a readable Content-Range")
    first, last, total = int(span[1]), int(span[2]), int(span[3])
    if first != start or last != min(stop, total) - 1 or length != last - first + 1:
        raise IntegrityError(
            f"{asked}: asked for bytes {start}-{stop - 1}, answered {first}-{last}/{total} "
            f"in {length} bytes"
        )
    return Answer(first, Pin(total, etag, declared), whole=False)


def check_pin(asked: str, pin: Pin, answer: Answer) -> None:
    seen = answer.pin
    named_otherwise = (
        seen.etag is not None and pin.etag is not None and seen.etag != pin.etag
    ) or (seen.crc64 is not None and pin.crc64 is not None and seen.crc64 != pin.crc64)
    if seen.total != pin.total and answer.whole and not named_otherwise:
        # Nothing says that this is the object at all: a proxy's page, perhaps.
        raise SourceUnavailable(f"{asked}: not the file but another answer of {seen.total} bytes")
    if seen.total != pin.total or named_otherwise:
        raise ObjectChanged(f"{asked}: the object changed while it was being fetched")


def _is_page(headers: Mapping[str, str]) -> bool:
    return headers.get("content-type", "").partition(";")[0].strip().lower() in _PAGES


def refusal(asked: str, head: Head, page: bytes) -> ArchiverError:
    status = head.status
    if status == 407:
        return denial(f"{asked}: a proxy")
    code, ec = _CODE.search(page), _EC.search(page)
    detail = " ".join(
        [str(status), *(found[1].decode("ascii", "replace") for found in (code, ec) if found)]
    )
    wait = wait_asked(head.fields)
    if 300 <= status < 400:
        return SourceError(f"{asked}: {detail}: a redirect, which is not followed")
    kind = _REFUSALS.get(status, SourceUnavailable if status >= 500 else SourceError)
    error = kind(f"{asked}: {detail}", retry_after=wait)
    error.by_object_store = code is not None
    return error


def unavailable(
    asked: str, error: Exception, kind: type[SourceUnavailable] = SourceUnavailable
) -> NoReturn:
    """Raises ``kind``, or UntrustedSource."""
    if isinstance(error, ssl.SSLCertVerificationError):
        raise UntrustedSource(
            f"{asked}: its certificate is not good: {error.verify_message}", hint=TRUST_OTHERS
        ) from None
    why = str(error) if isinstance(error, NotHttp) else type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        why = f"{why}: {error.strerror}"
    raise kind(f"{asked}: {why}") from None
