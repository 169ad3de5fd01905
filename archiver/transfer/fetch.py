"""Ranges of an object over HTTP.

A signed URL's signature covers the verb, Content-MD5, Content-Type and every ``x-oss-*`` header:
only GET with Range and If-Match is sent, never HEAD (OSS, *Add signatures to URLs*).
"""

import asyncio
import contextlib
import re
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Final, NoReturn, ParamSpec, Protocol, TypeVar
from urllib.parse import urlsplit

import anyio
import h11

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
from archiver.transfer.pace import LeastRate
from archiver.transfer.wire import Head, Place, Wire
from archiver.version import __version__
from archiver.wait import wait_asked

P = ParamSpec("P")
T = TypeVar("T")

_HEADERS: Final[Mapping[str, str]] = {
    "Accept": "*/*",
    "Accept-Encoding": "identity",
    "User-Agent": f"archiver/{__version__}",
}
_FAULTS = (OSError, h11.RemoteProtocolError, UnicodeError)
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

    async def whole(
        self,
        url: SignedUrl,
        data: memoryview,
        seconds: float,
        work: Callable[[Callable[[], Answer]], T],
    ) -> T:
        """Call ``work`` in a thread, with a function that fills ``data`` with the object, which
        must have that size, within ``seconds``. That raises as ``open`` does."""
        ...


class HttpFetcher:
    """A Fetcher over connections that are kept, read by threads; made by :func:`open_fetcher`."""

    def __init__(self, threads: Executor, least: LeastRate) -> None:
        self._threads: Final = threads
        self._least: Final = least
        self._idle: Final[dict[Place, list[Wire]]] = {}
        self._tls: ssl.SSLContext | None = None

    @asynccontextmanager
    async def open(
        self, url: SignedUrl, start: int, stop: int, pin: Pin | None
    ) -> AsyncGenerator[Body, None]:
        headers = dict(_HEADERS)
        if stop > start:  # an empty object has no satisfiable range
            headers["Range"] = f"bytes={start}-{stop - 1}"
        if pin is not None and pin.etag is not None and not pin.etag.startswith("W/"):
            headers["If-Match"] = pin.etag
        wire, head = await self._ask(url, headers)
        body = _HttpBody(self, url, wire, head)
        try:
            if head.status not in (200, 206):
                raise await body.refusal()
            body.answer = read_answer(url, head.status, head.fields, start, stop)
            if pin is not None:
                _check_pin(url, pin, body.answer)
            body.left = int(head.fields["content-length"])
            yield body
        finally:
            if body.left == 0 and head.keeps_alive:
                self._idle.setdefault(wire.place, []).append(wire)
            else:
                # A body left unread cannot be followed by another answer.
                wire.close()

    async def _ask(self, url: SignedUrl, headers: Mapping[str, str]) -> tuple[Wire, Head]:
        """Send a request on a kept connection, or on a new one when there is none that works."""
        place, target = _address(url)
        while idle := self._idle.get(place):
            wire = idle.pop()
            try:
                return wire, await self.run(wire, wire.ask, target, headers)
            except _FAULTS:
                wire.close()  # the server had closed it meanwhile
            except BaseException:
                wire.close()
                raise
        wire = self._new_wire(place)
        try:
            await self.run(wire, wire.connect)
            return wire, await self.run(wire, wire.ask, target, headers)
        except _FAULTS as error:
            wire.close()
            _unavailable(url, error)
        except BaseException:
            wire.close()
            raise

    async def run(self, wire: Wire, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking call of ``wire`` in a thread. A cancellation wakes it, and waits: the
        thread must not write into a block that somebody else was lent meanwhile."""
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._threads, lambda: work(*args, **kwargs))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            wire.interrupt()
            with anyio.CancelScope(shield=True):
                await asyncio.wait([future])
            future.exception()  # looked at, so that nobody complains that it was not
            raise

    async def whole(
        self,
        url: SignedUrl,
        data: memoryview,
        seconds: float,
        work: Callable[[Callable[[], Answer]], T],
    ) -> T:
        place, target = _address(url)
        idle = self._idle.setdefault(place, [])
        wire = idle.pop() if idle else self._new_wire(place)
        reusable = True  # until something is asked for and left unread

        def read() -> Answer:
            nonlocal reusable
            reusable = False
            try:
                head = _ask_whole(wire, target)
                if head.status != 200:
                    raise SourceUnavailable(f"{url}: {head.status}")
                answer = read_answer(url, head.status, head.fields, 0, len(data))
                if answer.pin.total != len(data):
                    raise SourceUnavailable(f"{url}: an answer of another length")
                _fill(wire, data, time.monotonic() + seconds)
            except _FAULTS as error:
                _unavailable(url, error)
            reusable = head.keeps_alive
            return answer

        try:
            return await self.run(wire, work, read)
        finally:
            if reusable and wire.connected:
                idle.append(wire)
            else:
                wire.close()

    def _new_wire(self, place: Place) -> Wire:
        return Wire(place, self._least, self._context() if place.scheme == "https" else None)

    def close(self) -> None:
        """Close the connections that are kept."""
        for wires in self._idle.values():
            for wire in wires:
                wire.close()

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls


@asynccontextmanager
async def open_fetcher(
    connections: int, least: LeastRate | None = None
) -> AsyncGenerator[HttpFetcher, None]:
    """A fetcher with threads of its own, for ``connections`` at once."""
    threads = ThreadPoolExecutor(connections, thread_name_prefix="fetch")
    fetcher = HttpFetcher(threads, least or LeastRate())
    try:
        yield fetcher
    finally:
        fetcher.close()
        # Nothing runs in them any more: every call was waited for.
        threads.shutdown(wait=False)


class _HttpBody:
    """A body of which ``left`` bytes are still to come."""

    answer: Answer

    def __init__(self, fetcher: HttpFetcher, url: SignedUrl, wire: Wire, head: Head) -> None:
        self.left = -1
        self._fetcher: Final = fetcher
        self._url: Final = url
        self._wire: Final = wire
        self._head: Final = head

    async def readinto(self, block: memoryview) -> int:
        if self.left == 0:
            return 0
        try:
            size = await self._fetcher.run(self._wire, self._wire.read, block, self.left)
        except _FAULTS as error:
            _unavailable(self._url, error)
        self.left -= size
        return size

    async def refusal(self) -> ArchiverError:
        """The typed error for a status other than 200 and 206."""
        page = memoryview(bytearray(_MOST_ERROR_BYTES))
        length = self._head.fields.get("content-length", "")
        size = min(int(length), len(page)) if length.isdigit() else 0
        try:
            await self._fetcher.run(self._wire, self._wire.read, page, size)
        except (*_FAULTS, SourceError):
            size = 0
        return _refusal(self._url, self._head, bytes(page[:size]))


def _ask_whole(wire: Wire, target: str) -> Head:
    """Ask on a connection that is kept, and anew if the server has closed it meanwhile."""
    if wire.connected:
        with contextlib.suppress(*_FAULTS):
            return wire.ask(target, _HEADERS)
        wire.close()
    wire.connect()
    return wire.ask(target, _HEADERS)


def _fill(wire: Wire, data: memoryview, until: float) -> None:
    filled = 0
    while filled < len(data):
        filled += wire.read(data[filled:], len(data) - filled)
        if time.monotonic() > until:
            raise TimeoutError


def _address(url: SignedUrl) -> tuple[Place, str]:
    """Where to connect, and the target to ask for there."""
    split = urlsplit(url.reveal())
    default = 443 if split.scheme == "https" else 80
    place = Place(split.scheme, split.hostname or "", split.port or default)
    return place, f"{split.path or '/'}{'?' if split.query else ''}{split.query}"


def read_answer(
    url: SignedUrl, status: int, headers: Mapping[str, str], start: int, stop: int
) -> Answer:
    """Hold a 200 or 206 against what was asked for. Raises SourceError, IntegrityError."""
    if headers.get("content-encoding", "identity").lower() not in ("", "identity"):
        raise SourceError(
            f"{url}: something on the way changes the encoding of what it passes on",
            hint="bypass the proxy",
        )
    try:
        length = int(headers["content-length"])
        crc = headers.get("x-oss-hash-crc64ecma")
        declared = None if crc is None else int(crc)
    except (KeyError, ValueError):
        raise SourceError(f"{url}: an answer {status} without a readable length or CRC") from None
    etag = headers.get("etag") or None
    if status == 200:
        # Also OSS's answer to a range beyond the end: the whole object from its first byte.
        if length < stop and _is_page(headers):
            raise SourceUnavailable(f"{url}: not the file but another answer of {length} bytes")
        return Answer(0, Pin(length, etag, declared), whole=True)
    span = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
    if span is None:
        raise SourceError(f"{url}: a partial answer without a readable Content-Range")
    first, last, total = int(span[1]), int(span[2]), int(span[3])
    if first != start or last != min(stop, total) - 1 or length != last - first + 1:
        raise IntegrityError(
            f"{url}: asked for bytes {start}-{stop - 1}, answered {first}-{last}/{total} "
            f"in {length} bytes"
        )
    return Answer(first, Pin(total, etag, declared), whole=False)


def _check_pin(url: SignedUrl, pin: Pin, answer: Answer) -> None:
    seen = answer.pin
    named_otherwise = (
        seen.etag is not None and pin.etag is not None and seen.etag != pin.etag
    ) or (seen.crc64 is not None and pin.crc64 is not None and seen.crc64 != pin.crc64)
    if seen.total != pin.total and answer.whole and not named_otherwise:
        # Nothing says that this is the object at all: a proxy's page, perhaps.
        raise SourceUnavailable(f"{url}: not the file but another answer of {seen.total} bytes")
    if seen.total != pin.total or named_otherwise:
        raise ObjectChanged(f"{url}: the object changed while it was being fetched")


def _is_page(headers: Mapping[str, str]) -> bool:
    return headers.get("content-type", "").partition(";")[0].strip().lower() in _PAGES


def _refusal(url: SignedUrl, head: Head, page: bytes) -> ArchiverError:
    status = head.status
    code, ec = _CODE.search(page), _EC.search(page)
    detail = " ".join(
        [str(status), *(found[1].decode("ascii", "replace") for found in (code, ec) if found)]
    )
    asked = wait_asked(head.fields)
    if 300 <= status < 400:
        return SourceError(f"{url}: {detail}: a redirect, which is not followed")
    kind = _REFUSALS.get(status, SourceUnavailable if status >= 500 else SourceError)
    error = kind(f"{url}: {detail}", retry_after=asked)
    error.by_object_store = code is not None
    return error


def _unavailable(url: SignedUrl, error: Exception) -> NoReturn:
    if isinstance(error, ssl.SSLCertVerificationError):
        raise SourceError(
            f"{url}: its certificate is not good: {error.verify_message}",
            hint="SSL_CERT_FILE names other authorities to trust",
        ) from None
    why = type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        why = f"{why}: {error.strerror}"
    raise SourceUnavailable(f"{url}: {why}") from None
