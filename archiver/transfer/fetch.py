"""Ranges of an object over HTTP. The sole place where data comes through aiohttp's client.

A signed URL's signature covers the verb, Content-MD5, Content-Type and every ``x-oss-*`` header:
only GET with Range and If-Match is sent, never HEAD (OSS, *Add signatures to URLs*).
"""

import re
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Final, NoReturn, Protocol

import aiohttp
from yarl import URL

from archiver.errors import (
    ArchiverError,
    BackupGone,
    IntegrityError,
    ObjectChanged,
    SourceError,
    SourceUnavailable,
    Throttled,
    UrlRefused,
)
from archiver.model import Pin
from archiver.secret import SignedUrl
from archiver.transfer.pace import LeastRate, Pulse
from archiver.wait import wait_asked

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})")
_CODE = re.compile(rb"<Code>([\w.]{1,80})</Code>")
_EC = re.compile(rb"<EC>([\w-]{1,40})</EC>")
_PAGES = ("text/html", "application/xml", "text/xml")
_MOST_ERROR_BYTES = 16 * 1024
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


class Body(Protocol):
    """An open answer whose bytes are read into the caller's blocks."""

    @property
    def answer(self) -> Answer: ...

    async def readinto(self, block: memoryview) -> int:
        """Fill ``block`` as far as the body goes; 0 at its end. Raises SourceError."""
        ...


class Fetcher(Protocol):
    """Opens byte ranges of objects."""

    def open(
        self, url: SignedUrl, start: int, stop: int, pin: Pin | None
    ) -> AbstractAsyncContextManager[Body]:
        """Ask for bytes ``start`` to ``stop`` (excluded) of the object that ``pin`` names.

        The answer may begin before ``start``, at byte 0, where a server ignores ranges.
        Raises UrlRefused on 403, BackupGone on 404, ObjectChanged when it is not the pinned
        object, IntegrityError or SourceError for an answer that cannot be right, and retryable
        errors for what may work the next time.
        """
        ...


class HttpFetcher:
    """A Fetcher over one aiohttp session, made by :func:`open_fetcher`."""

    def __init__(self, session: aiohttp.ClientSession, least: LeastRate) -> None:
        self._session: Final = session
        self._least: Final = least

    @asynccontextmanager
    async def open(
        self, url: SignedUrl, start: int, stop: int, pin: Pin | None
    ) -> AsyncGenerator[Body, None]:
        headers = {"Accept-Encoding": "identity"}
        if stop > start:  # an empty object has no satisfiable range
            headers["Range"] = f"bytes={start}-{stop - 1}"
        if pin is not None and pin.etag is not None and not pin.etag.startswith("W/"):
            headers["If-Match"] = pin.etag
        try:
            response = await self._session.get(
                URL(url.reveal(), encoded=True), headers=headers, allow_redirects=False
            )
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            _unavailable(url, error)
        try:
            if response.status not in (200, 206):
                raise await _refusal(url, response)
            answer = read_answer(url, response.status, response.headers, start, stop)
            if pin is not None:
                _check_pin(url, pin, answer.pin)
            yield _HttpBody(url, response, answer, self._least)
        finally:
            # A body left unread cannot be followed by another request on its connection.
            response.close()


@asynccontextmanager
async def open_fetcher(
    connections: int, least: LeastRate | None = None
) -> AsyncGenerator[HttpFetcher, None]:
    """A fetcher with a session of its own, for ``connections`` at once."""
    least = least or LeastRate()
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=least.window),
        auto_decompress=False,
        read_bufsize=256 * 1024,
        skip_auto_headers=("Content-Type",),
    )
    async with session:
        yield HttpFetcher(session, least)


class _HttpBody:
    def __init__(
        self,
        url: SignedUrl,
        response: aiohttp.ClientResponse,
        answer: Answer,
        least: LeastRate,
    ) -> None:
        self.answer: Final = answer
        self._url: Final = url
        self._content: Final = response.content
        self._pulse: Final = Pulse(least)
        self._rest = memoryview(b"")

    async def readinto(self, block: memoryview) -> int:
        filled = 0
        while filled < len(block):
            if not self._rest:
                self._rest = memoryview(await self._more())
                if not self._rest:
                    break
            size = min(len(self._rest), len(block) - filled)
            block[filled : filled + size] = self._rest[:size]
            self._rest = self._rest[size:]
            filled += size
        return filled

    async def _more(self) -> bytes:
        began = time.monotonic()
        try:
            chunk = await self._content.readany()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            _unavailable(self._url, error)
        self._pulse.beat(time.monotonic() - began, len(chunk))
        return chunk


def read_answer(
    url: SignedUrl, status: int, headers: Mapping[str, str], start: int, stop: int
) -> Answer:
    """Hold a 200 or 206 against what was asked for. Raises SourceError, IntegrityError."""
    if headers.get("Content-Encoding", "identity").lower() not in ("", "identity"):
        raise SourceError(
            f"{url}: something on the way changes the encoding of what it passes on",
            hint="bypass the proxy",
        )
    try:
        length = int(headers["Content-Length"])
        crc = headers.get("x-oss-hash-crc64ecma")
        declared = None if crc is None else int(crc)
    except (KeyError, ValueError):
        raise SourceError(f"{url}: an answer {status} without a readable length or CRC") from None
    etag = headers.get("ETag") or None
    if status == 200:
        # Also OSS's answer to a range beyond the end: the whole object from its first byte.
        if start >= length > 0 or (length < stop and _is_page(headers)):
            raise SourceUnavailable(f"{url}: not the file but another answer of {length} bytes")
        return Answer(0, Pin(length, etag, declared), whole=True)
    span = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
    if span is None:
        raise SourceError(f"{url}: a partial answer without a readable Content-Range")
    first, last, total = int(span[1]), int(span[2]), int(span[3])
    if first != start or last != min(stop, total) - 1 or length != last - first + 1:
        raise IntegrityError(
            f"{url}: asked for bytes {start}-{stop - 1}, answered {first}-{last}/{total} "
            f"in {length} bytes"
        )
    return Answer(first, Pin(total, etag, declared), whole=False)


def _check_pin(url: SignedUrl, pin: Pin, seen: Pin) -> None:
    changed = (
        seen.total != pin.total
        or (seen.etag is not None and pin.etag is not None and seen.etag != pin.etag)
        or (seen.crc64 is not None and pin.crc64 is not None and seen.crc64 != pin.crc64)
    )
    if changed:
        raise ObjectChanged(f"{url}: the object changed while it was being fetched")


def _is_page(headers: Mapping[str, str]) -> bool:
    return headers.get("Content-Type", "").partition(";")[0].strip().lower() in _PAGES


async def _refusal(url: SignedUrl, response: aiohttp.ClientResponse) -> ArchiverError:
    """The typed error for a status other than 200 and 206."""
    try:
        page = await response.content.read(_MOST_ERROR_BYTES)
    except (aiohttp.ClientError, TimeoutError, OSError):
        page = b""
    status = response.status
    code, ec = _CODE.search(page), _EC.search(page)
    detail = " ".join(
        [str(status), *(found[1].decode("ascii", "replace") for found in (code, ec) if found)]
    )
    asked = wait_asked(response.headers)
    if 300 <= status < 400:
        return SourceError(f"{url}: {detail}: a redirect, which is not followed")
    if status in _REFUSALS:
        return _REFUSALS[status](f"{url}: {detail}", retry_after=asked)
    return (SourceUnavailable if status >= 500 else SourceError)(
        f"{url}: {detail}", retry_after=asked
    )


def _unavailable(url: SignedUrl, error: Exception) -> NoReturn:
    # The library's own message may quote the whole URL: keep its kind only, and no chain.
    why = type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        why = f"{why}: {error.strerror}"
    raise SourceUnavailable(f"{url}: {why}") from None
