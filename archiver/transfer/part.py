"""Downloads one part of a file, in as many attempts and over as many connections as it takes."""

import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from fastcrc import crc64

from archiver import events
from archiver.concurrency import in_thread, task_group
from archiver.errors import SourceUnavailable
from archiver.model import Part, Pin
from archiver.rdb.meter import FileMeter
from archiver.retry import Attempts
from archiver.stores.base import Staging
from archiver.transfer.http.client import Body
from archiver.transfer.http.response import ObjectResponse
from archiver.transfer.limits import WaitTime
from archiver.transfer.origin import SOURCE_ERRORS, Origin, Route
from archiver.transfer.receipt import TransferStats
from archiver.transfer.resources import SharedResources

# Bytes that an attempt must deliver to reset the count of failures: a source that delivers a few
# bytes each time would otherwise be retried for ever.
MIN_PROGRESS_BYTES = 64 * 1024


@dataclass(slots=True)
class Cursor:
    """How far the download of a part has come: the offset of the next byte, and the CRC-64/XZ of
    the part's bytes before it.

    ``meter`` has measured the file up to here, if this part is the one that the meter needs next.
    """

    part: Part
    position: int
    meter: FileMeter | None
    crc: int = 0
    answered: bool = False

    @property
    def left(self) -> int:
        """Bytes that are still missing."""
        return self.part.stop - self.position

    @property
    def is_done(self) -> bool:
        return self.answered and self.left == 0


class PartFetcher:
    """Downloads the parts of one file, any number of them at once.

    ``pin`` is None until the first response. Then ``on_first_response`` gets that response and
    the part's cursor, whose part it may replace, and returns the pin.
    """

    def __init__(
        self,
        shared: SharedResources,
        origin: Origin,
        staging: Staging,
        stats: TransferStats,
        on_first_response: Callable[[ObjectResponse, Cursor], Awaitable[Pin]],
    ) -> None:
        self.pin: Pin | None = None
        # Bytes of each part that are staged, by the part's index.
        self.staged: Final[dict[int, int]] = {}
        # Bytes that arrived over all connections, and how long those waited for them.
        self.bytes_received = 0
        self.wait_time: Final = WaitTime()
        # The parts that are being downloaded, by index.
        self.in_progress: Final[dict[int, Cursor]] = {}
        self._shared: Final = shared
        self._origin: Final = origin
        self._staging: Final = staging
        self._stats: Final = stats
        self._on_first_response: Final = on_first_response

    async def fetch(self, first: Cursor) -> Cursor:
        """Download one part to its last byte; returns the cursor that got there.

        Raises what no further attempt can fix. A second connection overtakes one that is much
        slower than usual. Both write the same bytes to the same place and each trusts only its
        own, so what both have written to must be read back: the cursor has no meter then.
        """
        index = first.part.index
        self.staged[index] = first.position - first.part.start
        self.in_progress[index] = first
        finished: list[Cursor] = []
        async with task_group() as race:

            async def run(fetch: Callable[[Cursor], Awaitable[Cursor]]) -> None:
                finished.append(await fetch(first))
                race.cancel_scope.cancel()

            race.start_soon(run, self._fetch_with_retries)
            race.start_soon(run, self._overtake)
        del self.in_progress[index]
        return finished[0]

    async def _fetch_with_retries(self, cursor: Cursor) -> Cursor:
        """Download the rest of the part; bytes that arrived are kept between attempts."""
        attempts = self._shared.attempts(self._origin.backup)
        began = time.monotonic()
        while not cursor.is_done:
            route = await self._origin.route()
            try:
                await self._read(route, cursor, attempts)
            except SOURCE_ERRORS as error:
                self._stats.attempts += 1
                await route.recover(error, attempts)
        self._shared.hedge.finished(cursor.part.size, time.monotonic() - began)
        return cursor

    async def _overtake(self, first: Cursor) -> Cursor:
        """Wait until ``first`` is slow, then download the rest over a second connection. If that
        fails, ``first`` is still there."""
        while True:
            await self._shared.hedge.until_due(first)
            second = Cursor(first.part, first.position, None, first.crc, answered=True)
            first.meter = None
            self._shared.observer(events.Hedged(self._origin.backup, second.position))
            with contextlib.suppress(*SOURCE_ERRORS):
                attempts = self._shared.attempts(self._origin.backup)
                await self._read(await self._origin.route(), second, attempts)
                return second

    async def _read(self, route: Route, cursor: Cursor, attempts: Attempts) -> None:
        """Request what the cursor misses, and read as far as the response goes."""
        buffers, limit = self._shared.buffers, self._shared.limit
        async with (
            buffers.lend() as lent,
            route.open(cursor.position, cursor.part.stop, self.pin) as body,
        ):
            self._stats.provenance = route.provenance
            await self._accept(body.response, cursor)
            buffer = lent[: limit.max_read(len(lent))]
            await self._skip(body, buffer, cursor.position - body.response.start)
            received = 0
            while not cursor.is_done:
                wanted = buffer[: cursor.left]
                await limit.take(len(wanted))
                with self.wait_time.waiting():
                    size = await body.readinto(wanted)
                self.bytes_received += size
                if size == 0:
                    raise SourceUnavailable(f"{route.provenance.origin}: the response ended early")
                await self._stage(cursor, wanted[:size])
                route.succeeded()
                self._shared.outage.ended()
                received += size
                if received >= MIN_PROGRESS_BYTES:
                    attempts.progressed()

    async def _accept(self, response: ObjectResponse, cursor: Cursor) -> None:
        if self.pin is None:
            self.pin = await self._on_first_response(response, cursor)
        cursor.answered = True

    async def _stage(self, cursor: Cursor, data: memoryview) -> None:
        meter = cursor.meter

        def write_and_measure() -> int:
            self._staging.write(cursor.position, data)
            if meter is not None:
                meter.feed(data)
            return int(crc64.xz(data, cursor.crc))

        cursor.crc = await in_thread(write_and_measure)
        cursor.position += len(data)
        self._stats.fetched += len(data)
        index, size = cursor.part.index, cursor.position - cursor.part.start
        self.staged[index] = max(self.staged[index], size)
        network = self._stats.provenance.network
        position = sum(self.staged.values())
        self._shared.observer(events.Advanced(self._origin.backup, position, len(data), network))

    async def _skip(self, body: Body, buffer: memoryview, size: int) -> None:
        """Discard the bytes that a server which ignores ranges sends before the part."""
        while size > 0:
            await self._shared.limit.take(min(size, len(buffer)))
            skipped = await body.readinto(buffer[:size])
            if skipped == 0:
                raise SourceUnavailable(f"{self._origin.backup}: the response ended early")
            self._stats.fetched += skipped
            size -= skipped
