"""Small objects, downloaded whole, one after the other, by one thread.

Requests are sent ahead of their turn, so that the round trips of some pass while others are read.
Where bodies arrive slowly only one request is sent at a time: responses that share a slow line
would only delay each other.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from itertools import islice
from typing import Final

from archiver.errors import ArchiverError, SourceUnavailable
from archiver.retry import RETRIES
from archiver.secret import SignedUrl
from archiver.transfer.http.connection import Endpoint, HttpConnection
from archiver.transfer.http.head import ResponseHead
from archiver.transfer.http.pool import ConnectionPool
from archiver.transfer.http.response import (
    REQUEST_HEADERS,
    TRANSPORT_ERRORS,
    ObjectResponse,
    check_response,
    describe_request,
    endpoint_and_target,
    raise_unavailable,
)

# The most requests that are sent before the response to the first of them is read.
MAX_REQUESTS_AHEAD = 16
# While bodies arrive within this time (seconds) after their head, requests are sent ahead.
_FAST_BODY_SECONDS = 0.25
# Seconds from a request to the head of its response.
_HEAD_SECONDS = RETRIES.small_file.timeout
_MIN_HEAD_WAIT_SECONDS = 0.05

# Fills a buffer with the object, which must have that size, within the given seconds. Blocks, and
# raises as Fetcher.open does.
ReadObject = Callable[[memoryview, float], ObjectResponse]


class Burst:
    """GET requests for ``urls``, in order, over at most ``max_ahead`` connections, or over one
    while ``is_slow``.

    After ``seconds``, or after a request that got no response at all, no more requests are sent.
    All methods but ``interrupt`` block and belong to one thread.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        urls: Sequence[SignedUrl],
        *,
        max_ahead: int = MAX_REQUESTS_AHEAD,
        seconds: float = math.inf,
        is_slow: bool = False,
    ) -> None:
        self.is_slow = is_slow
        self._pool: Final = pool
        self._urls: Final = urls
        self._max_ahead: Final = max_ahead
        self._seconds: Final = seconds
        self._pending: Final[deque[_PendingRequest]] = deque()
        self._reading: _PendingRequest | None = None
        # Endpoints that could not be connected to, and why: each new attempt would take as long.
        self._connect_failures: Final[dict[Endpoint, Exception]] = {}
        self._is_interrupted = False

    def reads(self) -> Generator[ReadObject, None, None]:
        """Yield a read function for each URL that was requested, at least one.

        Close the generator, also when it was not exhausted.
        """
        rest, until, is_silent = iter(self._urls), time.monotonic() + self._seconds, False
        try:
            while True:
                if self._reading is None or (time.monotonic() < until and not is_silent):
                    ahead = 1 if self.is_slow else self._max_ahead
                    for url in islice(rest, max(0, ahead - len(self._pending))):
                        self._request(url)
                        if time.monotonic() >= until:
                            break  # responses to those that were sent may be waiting
                if not self._pending:
                    return
                # It is in both places for a moment, so that an interruption finds it in one.
                self._reading = self._pending[0]
                self._pending.popleft()
                yield self._reading.read
                self._release(self._reading)
                is_silent = is_silent or self._reading.was_silent
                if self._reading.body_seconds is not None:
                    self.is_slow = self._reading.body_seconds > _FAST_BODY_SECONDS
        finally:
            while self._pending:
                self._pending.popleft().connection.close()
            if self._reading is not None and not self._reading.is_released:
                self._release(self._reading)

    def interrupt(self) -> None:
        """Wake the thread that reads and end its reads; called by another thread."""
        self._is_interrupted = True
        for request in [*self._pending, self._reading]:
            if request is not None:
                request.connection.interrupt()

    def _request(self, url: SignedUrl) -> None:
        endpoint, target = endpoint_and_target(url)
        connection = self._pool.take_idle(endpoint) or self._pool.new(endpoint)
        request = _PendingRequest(url, target, connection, self._connect_failures)
        # An interruption either came before this and is seen below, or finds the connection.
        self._pending.append(request)
        if self._is_interrupted:
            request.connection.interrupt()
        try:
            request.send()
        except (*TRANSPORT_ERRORS, ArchiverError) as error:
            request.failure = error

    def _release(self, request: "_PendingRequest") -> None:
        if request.is_reusable and request.connection.is_connected:
            self._pool.give_back(request.connection)
        else:
            request.connection.close()
        request.is_released = True


class _PendingRequest:
    """A request that was sent. Its connection ``is_reusable`` once the response was read."""

    def __init__(
        self,
        url: SignedUrl,
        target: str,
        connection: HttpConnection,
        connect_failures: dict[Endpoint, Exception],
    ) -> None:
        self.connection: Final = connection
        self.failure: Exception | None = None
        self.is_reusable = False
        self.is_released = False
        self.was_silent = False
        self.body_seconds: float | None = None  # from the head to the end of the body
        self._sent_at = 0.0
        self._url: Final = url
        self._target: Final = target
        self._was_kept: Final = connection.is_connected
        self._connect_failures: Final = connect_failures

    def send(self) -> None:
        if not self.connection.is_connected:
            self._connect()
        self.connection.send(self._target, REQUEST_HEADERS)
        self._sent_at = time.monotonic()

    def _connect(self) -> None:
        endpoint = self.connection.endpoint
        if endpoint in self._connect_failures:
            raise self._connect_failures[endpoint]
        try:
            self.connection.connect()
        except (*TRANSPORT_ERRORS, ArchiverError) as error:
            self._connect_failures[endpoint] = error
            raise

    def read(self, data: memoryview, seconds: float) -> ObjectResponse:
        """A ReadObject function."""
        until = time.monotonic() + seconds
        request = describe_request(self._url, self.connection)
        try:
            head = self._read_head(until)
            began = time.monotonic()
            if head.status != 200:
                raise SourceUnavailable(f"{request}: {head.status}")
            response = check_response(request, head.status, head.fields, 0, len(data))
            if response.pin.total != len(data):
                raise SourceUnavailable(f"{request}: the response has another length")
            _fill(self.connection, data, until)
            self.body_seconds = time.monotonic() - began
        except TRANSPORT_ERRORS as error:
            raise_unavailable(request, error)
        self.is_reusable = head.keeps_alive
        return response

    def _read_head(self, until: float) -> ResponseHead:
        """Read the head of the response. A server may close a kept connection at any time; the
        request is then sent once more, over a new one."""
        try:
            if self.failure is not None:
                raise self.failure
            return self._wait_for_head(until)
        except TRANSPORT_ERRORS:
            if not self._was_kept or self.was_silent:
                raise
        self.connection.close()
        self.send()
        return self._wait_for_head(until)

    def _wait_for_head(self, until: float) -> ResponseHead:
        # Other responses were read since: what has arrived is looked at, however late it is.
        latest = max(self._sent_at + _HEAD_SECONDS, time.monotonic() + _MIN_HEAD_WAIT_SECONDS)
        try:
            return self.connection.read_head(min(until, latest))
        except TimeoutError:
            self.was_silent = True
            raise


def _fill(connection: HttpConnection, data: memoryview, until: float) -> None:
    filled = 0
    while filled < len(data):
        filled += connection.read(data[filled:], len(data) - filled, until)
