"""Byte ranges and whole objects over HTTP, downloaded by threads that block on their sockets."""

import asyncio
import contextvars
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
from archiver.transfer.http.burst import MAX_REQUESTS_AHEAD, Burst, ReadObject
from archiver.transfer.http.connection import HttpConnection
from archiver.transfer.http.head import ResponseHead
from archiver.transfer.http.pool import ConnectionPool
from archiver.transfer.http.response import (
    MAX_ERROR_BYTES,
    REQUEST_HEADERS,
    TRANSPORT_ERRORS,
    ObjectResponse,
    check_pin,
    check_response,
    describe_request,
    endpoint_and_target,
    raise_unavailable,
    status_error,
)
from archiver.transfer.limits import MinimumRate

P = ParamSpec("P")
T = TypeVar("T")


class Body(Protocol):
    """A response whose body is read into the caller's buffers."""

    @property
    def response(self) -> ObjectResponse: ...

    async def readinto(self, buffer: memoryview) -> int:
        """Fill ``buffer`` as far as the body goes; returns 0 at its end. Raises SourceError."""
        ...


class Fetcher(Protocol):
    """Opens byte ranges of objects."""

    def open(
        self, url: SignedUrl, start: int, stop: int, pin: Pin | None
    ) -> AbstractAsyncContextManager[Body]:
        """Request bytes ``start`` to ``stop`` (excluded) of the object that ``pin`` identifies.

        The body may begin at byte 0 instead of ``start`` where a server ignores ranges.
        Raises UrlRefused on 403, BackupGone on 404, ObjectChanged when it is not the pinned
        object, IntegrityError or SourceError for an invalid response, and retryable errors for
        failures that the next attempt may not meet.
        """
        ...

    async def burst(
        self, urls: Sequence[SignedUrl], seconds: float, work: Callable[[Iterator[ReadObject]], T]
    ) -> T:
        """Call ``work`` in a thread with one read function for each object, in order.

        Covers the objects that could be requested within ``seconds``, and at least one.
        """
        ...


class _Interruptible(Protocol):
    def interrupt(self) -> None: ...


class HttpFetcher:
    """A Fetcher over a connection pool; made by :func:`open_fetcher`."""

    def __init__(
        self, threads: Executor, minimum: MinimumRate, max_ahead: int, proxies: Proxies
    ) -> None:
        self._threads: Final = threads
        self._max_ahead: Final = max_ahead
        self._is_slow = True  # until a burst was fast
        self._pool: Final = ConnectionPool(minimum, proxies)

    @asynccontextmanager
    async def open(
        self, url: SignedUrl, start: int, stop: int, pin: Pin | None
    ) -> AsyncGenerator[Body, None]:
        headers = dict(REQUEST_HEADERS)
        if stop > start:  # an empty object has no satisfiable range
            headers["Range"] = f"bytes={start}-{stop - 1}"
        if pin is not None and pin.etag is not None and not pin.etag.startswith("W/"):
            headers["If-Match"] = pin.etag
        connection, head = await self._request(url, headers)
        body = _HttpBody(self, url, connection, head)
        try:
            if head.status not in (200, 206):
                raise await body.status_error()
            request = describe_request(url, connection)
            body.response = check_response(request, head.status, head.fields, start, stop)
            if pin is not None:
                check_pin(request, pin, body.response)
            body.left = int(head.fields["content-length"])
            yield body
        finally:
            if body.left == 0 and head.keeps_alive:
                self._pool.give_back(connection)
            else:
                # After an unread body the connection cannot be used for another request.
                connection.close()

    async def _request(
        self, url: SignedUrl, headers: Mapping[str, str]
    ) -> tuple[HttpConnection, ResponseHead]:
        """Send a request over a kept connection, or over a new one when none of those works."""
        endpoint, target = endpoint_and_target(url)
        while (connection := self._pool.take_idle(endpoint)) is not None:
            try:
                return connection, await self.run(connection, connection.request, target, headers)
            except TRANSPORT_ERRORS:
                connection.close()  # the server had closed it
            except BaseException:
                connection.close()
                raise
        connection = self._pool.new(endpoint)
        kind: type[SourceUnavailable] = SourceUnreachable
        try:
            await self.run(connection, connection.connect)
            kind = SourceUnavailable
            return connection, await self.run(connection, connection.request, target, headers)
        except TRANSPORT_ERRORS as error:
            connection.close()
            if isinstance(error, ConnectionResetError | ssl.SSLError):
                kind = SourceUnavailable  # there is a server: it closed the connection
            raise_unavailable(describe_request(url, connection), error, kind)
        except BaseException:
            connection.close()
            raise

    async def burst(
        self, urls: Sequence[SignedUrl], seconds: float, work: Callable[[Iterator[ReadObject]], T]
    ) -> T:
        burst = Burst(
            self._pool, urls, max_ahead=self._max_ahead, seconds=seconds, is_slow=self._is_slow
        )

        def read_all() -> T:
            with closing(burst.reads()) as reads:
                return work(reads)

        try:
            return await self.run(burst, read_all)
        finally:
            self._is_slow = burst.is_slow

    async def run(
        self, owner: _Interruptible, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a blocking method of ``owner`` in a thread and return its result.

        A cancellation interrupts the thread and waits for its end: it must not write into a
        buffer that was lent to another transfer meanwhile.
        """
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        future = loop.run_in_executor(self._threads, lambda: context.run(work, *args, **kwargs))
        return await interruptible(future, owner.interrupt)

    def close(self) -> None:
        """Close the kept connections."""
        self._pool.close()


@asynccontextmanager
async def open_fetcher(
    threads: int,
    minimum: MinimumRate | None = None,
    max_ahead: int = MAX_REQUESTS_AHEAD,
    proxies: Proxies | None = None,
) -> AsyncGenerator[HttpFetcher, None]:
    """A fetcher with its own ``threads``.

    Each connection at work occupies one thread, and so does each burst, which uses at most
    ``max_ahead`` connections. Without ``proxies`` those of the environment are used.
    """
    executor = ThreadPoolExecutor(threads, thread_name_prefix="fetch")
    proxies = proxies or Proxies.from_environment(os.environ)
    fetcher = HttpFetcher(executor, minimum or MinimumRate(), max_ahead, proxies)
    try:
        yield fetcher
    finally:
        fetcher.close()
        # The threads are idle: every call was waited for.
        executor.shutdown(wait=False)


class _HttpBody:
    """A response body; ``left`` bytes of it were not read yet."""

    response: ObjectResponse

    def __init__(
        self, fetcher: HttpFetcher, url: SignedUrl, connection: HttpConnection, head: ResponseHead
    ) -> None:
        self.left = -1
        self._fetcher: Final = fetcher
        self._url: Final = url
        self._connection: Final = connection
        self._head: Final = head

    async def readinto(self, buffer: memoryview) -> int:
        if self.left == 0:
            return 0
        connection = self._connection
        try:
            size = await self._fetcher.run(connection, connection.read, buffer, self.left)
        except TRANSPORT_ERRORS as error:
            raise_unavailable(describe_request(self._url, connection), error)
        self.left -= size
        return size

    async def status_error(self) -> ArchiverError:
        """The error for a status other than 200 and 206."""
        connection = self._connection
        page = memoryview(bytearray(MAX_ERROR_BYTES))
        length = self._head.fields.get("content-length", "")
        size = min(int(length), len(page)) if length.isdigit() else 0
        try:
            await self._fetcher.run(connection, connection.read, page, size)
        except (*TRANSPORT_ERRORS, SourceError):
            size = 0
        return status_error(describe_request(self._url, connection), self._head, bytes(page[:size]))
