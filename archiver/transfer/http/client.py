"""Ranges and whole objects over HTTP, by threads that wait for their sockets."""

import asyncio
import os
import ssl
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from typing import Final, ParamSpec, Protocol, TypeVar

from archiver.concurrency import interruptible
from archiver.errors import ArchiverError, SourceError, SourceUnavailable, SourceUnreachable
from archiver.model import Pin
from archiver.proxies import Proxies
from archiver.secret import SignedUrl
from archiver.transfer.burst import MOST_AHEAD, Burst, Read
from archiver.transfer.http.connection import Head, Wire
from archiver.transfer.http.pool import Wires
from archiver.transfer.http.response import (
    FAULTS,
    HEADERS,
    MOST_ERROR_BYTES,
    Answer,
    address,
    check_pin,
    naming,
    read_answer,
    refusal,
    unavailable,
)
from archiver.transfer.limits import LeastRate

P = ParamSpec("P")
T = TypeVar("T")


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

    async def burst(
        self, urls: Sequence[SignedUrl], seconds: float, work: Callable[[Iterator[Read]], T]
    ) -> T:
        """Call ``work`` in a thread, with a read of each object as a whole, in order: of those
        that could be asked for within so many seconds, at least one."""
        ...


class _Interruptible(Protocol):
    def interrupt(self) -> None: ...


class HttpFetcher:
    """A Fetcher over connections that are kept, read by threads; made by :func:`open_fetcher`."""

    def __init__(self, threads: Executor, least: LeastRate, ahead: int, proxies: Proxies) -> None:
        self._threads: Final = threads
        self._ahead: Final = ahead
        self._is_slow = True  # until a burst was quick
        self._wires: Final = Wires(least, proxies)

    @asynccontextmanager
    async def open(
        self, url: SignedUrl, start: int, stop: int, pin: Pin | None
    ) -> AsyncGenerator[Body, None]:
        headers = dict(HEADERS)
        if stop > start:  # an empty object has no satisfiable range
            headers["Range"] = f"bytes={start}-{stop - 1}"
        if pin is not None and pin.etag is not None and not pin.etag.startswith("W/"):
            headers["If-Match"] = pin.etag
        wire, head = await self._ask(url, headers)
        body = _HttpBody(self, url, wire, head)
        try:
            if head.status not in (200, 206):
                raise await body.refusal()
            asked = naming(url, wire)
            body.answer = read_answer(asked, head.status, head.fields, start, stop)
            if pin is not None:
                check_pin(asked, pin, body.answer)
            body.left = int(head.fields["content-length"])
            yield body
        finally:
            if body.left == 0 and head.keeps_alive:
                self._wires.keep(wire)
            else:
                # A body left unread cannot be followed by another answer.
                wire.close()

    async def _ask(self, url: SignedUrl, headers: Mapping[str, str]) -> tuple[Wire, Head]:
        """Send a request on a kept connection, or on a new one when there is none that works."""
        place, target = address(url)
        while (wire := self._wires.idle(place)) is not None:
            try:
                return wire, await self.run(wire, wire.ask, target, headers)
            except FAULTS:
                wire.close()  # the server had closed it meanwhile
            except BaseException:
                wire.close()
                raise
        wire = self._wires.new(place)
        kind: type[SourceUnavailable] = SourceUnreachable
        try:
            await self.run(wire, wire.connect)
            kind = SourceUnavailable
            return wire, await self.run(wire, wire.ask, target, headers)
        except FAULTS as error:
            wire.close()
            if isinstance(error, ConnectionResetError | ssl.SSLError):
                kind = SourceUnavailable  # whoever hangs up was there
            unavailable(naming(url, wire), error, kind)
        except BaseException:
            wire.close()
            raise

    async def burst(
        self, urls: Sequence[SignedUrl], seconds: float, work: Callable[[Iterator[Read]], T]
    ) -> T:
        burst = Burst(self._wires, urls, most=self._ahead, seconds=seconds, is_slow=self._is_slow)

        def read_all() -> T:
            with closing(burst.reads()) as reads:
                return work(reads)

        try:
            return await self.run(burst, read_all)
        finally:
            self._is_slow = burst.is_slow

    async def run(
        self, wire: _Interruptible, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a blocking call of ``wire`` in a thread. A cancellation wakes it, and waits: the
        thread must not write into a block that somebody else was lent meanwhile."""
        loop = asyncio.get_running_loop()
        begun = loop.run_in_executor(self._threads, lambda: work(*args, **kwargs))
        return await interruptible(begun, wire.interrupt)

    def close(self) -> None:
        """Close the connections that are kept."""
        self._wires.close()


@asynccontextmanager
async def open_fetcher(
    threads: int,
    least: LeastRate | None = None,
    ahead: int = MOST_AHEAD,
    proxies: Proxies | None = None,
) -> AsyncGenerator[HttpFetcher, None]:
    """A fetcher with threads of its own, one for each connection at work, or for each burst of
    requests with at most ``ahead`` connections. ``proxies`` None are those of the environment."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="fetch")
    fetcher = HttpFetcher(pool, least or LeastRate(), ahead, proxies or Proxies.of(os.environ))
    try:
        yield fetcher
    finally:
        fetcher.close()
        # Nothing runs in them any more: every call was waited for.
        pool.shutdown(wait=False)


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
        except FAULTS as error:
            unavailable(naming(self._url, self._wire), error)
        self.left -= size
        return size

    async def refusal(self) -> ArchiverError:
        """The typed error for a status other than 200 and 206."""
        page = memoryview(bytearray(MOST_ERROR_BYTES))
        length = self._head.fields.get("content-length", "")
        size = min(int(length), len(page)) if length.isdigit() else 0
        try:
            await self._fetcher.run(self._wire, self._wire.read, page, size)
        except (*FAULTS, SourceError):
            size = 0
        return refusal(naming(self._url, self._wire), self._head, bytes(page[:size]))
