"""One part into its place, in as many tries and over as many connections as it takes."""

import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from fastcrc import crc64

from archiver import events
from archiver.concurrency import in_thread, task_group
from archiver.errors import ArchiverError, SourceUnavailable
from archiver.model import Part, Pin
from archiver.rdb.meter import FileMeter
from archiver.retry import Attempts, Outage, RetryPolicy
from archiver.stores.base import Staging
from archiver.transfer.buffer_pool import Blocks
from archiver.transfer.connection_share import Lanes
from archiver.transfer.http.client import Body
from archiver.transfer.http.response import Answer
from archiver.transfer.limits import Hedge, RateLimit, Waits
from archiver.transfer.origin import AT_THE_SOURCE, Origin, Way
from archiver.transfer.receipt import Cost

# Bytes that a try must bring to forgive the failures before it: a drip never ends otherwise.
LEAST_PROGRESS = 64 * 1024


@dataclass(frozen=True, slots=True)
class Shared:
    """What all transfers of a run have in common; sizes in bytes."""

    blocks: Blocks
    limit: RateLimit
    hedge: Hedge
    retry: RetryPolicy
    lanes: Lanes
    part_size: int
    observer: events.Observer
    outage: Outage = field(default_factory=Outage)

    def attempts(self, subject: str) -> Attempts:
        """The tries at one thing, each wait told to the observer."""

        def waiting(error: ArchiverError, attempt: int, wait: float) -> None:
            self.observer(events.Retrying(subject, error, attempt, wait))

        def lasting(error: ArchiverError, seconds: float) -> None:
            self.observer(events.WaitingForSource(error, seconds))

        return Attempts(self.retry, waiting, outage=self.outage, on_outage=lasting)


@dataclass(slots=True)
class Cursor:
    """How far a part has come: the next byte's offset, and the CRC-64/XZ of those before.

    ``meter`` has measured the file up to here, when this part is the one it needs next.
    """

    part: Part
    position: int
    meter: FileMeter | None
    crc: int = 0
    answered: bool = False

    @property
    def left(self) -> int:
        """Bytes that are still to come."""
        return self.part.stop - self.position

    @property
    def done(self) -> bool:
        return self.answered and self.left == 0


class PartFetcher:
    """Fetches the parts of one file, any number at once.

    ``pin`` is None until ``settle`` was awaited: it is given the first answer and that part's
    cursor, whose part it may change.
    """

    def __init__(
        self,
        shared: Shared,
        origin: Origin,
        staging: Staging,
        cost: Cost,
        settle: Callable[[Answer, Cursor], Awaitable[Pin]],
    ) -> None:
        self.pin: Pin | None = None
        # Bytes of each part that are in place, by its index.
        self.received: Final[dict[int, int]] = {}
        # Bytes that came, and what its connections waited for them.
        self.came = 0
        self.waits: Final = Waits()
        # The parts that are on their way.
        self.under_way: Final[dict[int, Cursor]] = {}
        self._shared: Final = shared
        self._origin: Final = origin
        self._staging: Final = staging
        self._cost: Final = cost
        self._settle: Final = settle

    async def fetch(self, first: Cursor) -> Cursor:
        """One part, to its last byte; the cursor that got there. Raises what no try can mend.

        A second connection overtakes a first one that is much slower than usual. They write the
        same bytes to the same place, each trusting its own: what both have written to must be
        read back, so the cursor has no meter then.
        """
        index = first.part.index
        self.received[index] = first.position - first.part.start
        self.under_way[index] = first
        arrived: list[Cursor] = []
        async with task_group() as race:

            async def run(chase: Callable[[Cursor], Awaitable[Cursor]]) -> None:
                arrived.append(await chase(first))
                race.cancel_scope.cancel()

            race.start_soon(run, self._pursue)
            race.start_soon(run, self._overtake)
        del self.under_way[index]
        return arrived[0]

    async def _pursue(self, cursor: Cursor) -> Cursor:
        """On with it, try after try; bytes that came stay."""
        attempts = self._shared.attempts(str(self._origin.backup))
        began = time.monotonic()
        while not cursor.done:
            way = await self._origin.way()
            try:
                await self._read(way, cursor, attempts)
            except AT_THE_SOURCE as error:
                self._cost.attempts += 1
                await way.recover(error, attempts)
        self._shared.hedge.finished(cursor.part.size, time.monotonic() - began)
        return cursor

    async def _overtake(self, first: Cursor) -> Cursor:
        """Wait until ``first`` is slow, and pass it. Where that fails, ``first`` is still there."""
        while True:
            await self._shared.hedge.due(first)
            second = Cursor(first.part, first.position, None, first.crc, answered=True)
            first.meter = None
            self._shared.observer(events.Hedged(self._origin.backup, second.position))
            with contextlib.suppress(*AT_THE_SOURCE):
                attempts = self._shared.attempts(str(self._origin.backup))
                await self._read(await self._origin.way(), second, attempts)
                return second

    async def _read(self, way: Way, cursor: Cursor, attempts: Attempts) -> None:
        """Open what the cursor misses, and read on as far as it goes."""
        blocks, limit = self._shared.blocks, self._shared.limit
        async with (
            blocks.lend() as lent,
            way.open(cursor.position, cursor.part.stop, self.pin) as body,
        ):
            self._cost.provenance = way.provenance
            await self._answered(body.answer, cursor)
            block = lent[: limit.most_at_once(len(lent))]
            await self._skip(body, block, cursor.position - body.answer.start)
            came = 0
            while not cursor.done:
                wanted = block[: cursor.left]
                await limit.take(len(wanted))
                with self.waits.one():
                    size = await body.readinto(wanted)
                self.came += size
                if size == 0:
                    raise SourceUnavailable(f"{way.provenance.origin}: the answer ended early")
                await self._put(cursor, wanted[:size])
                way.worked()
                self._shared.outage.ended()
                came += size
                if came >= LEAST_PROGRESS:
                    attempts.progressed()

    async def _answered(self, answer: Answer, cursor: Cursor) -> None:
        if self.pin is None:
            self.pin = await self._settle(answer, cursor)
        cursor.answered = True

    async def _put(self, cursor: Cursor, data: memoryview) -> None:
        meter = cursor.meter

        def write_and_measure() -> int:
            self._staging.write(cursor.position, data)
            if meter is not None:
                meter.feed(data)
            return int(crc64.xz(data, cursor.crc))

        cursor.crc = await in_thread(write_and_measure)
        cursor.position += len(data)
        self._cost.fetched += len(data)
        index, size = cursor.part.index, cursor.position - cursor.part.start
        self.received[index] = max(self.received[index], size)
        network = self._cost.provenance.network
        position = sum(self.received.values())
        self._shared.observer(events.Advanced(self._origin.backup, position, len(data), network))

    async def _skip(self, body: Body, block: memoryview, size: int) -> None:
        """Let pass what a server that ignores ranges sends before the part."""
        while size > 0:
            await self._shared.limit.take(min(size, len(block)))
            passed = await body.readinto(block[:size])
            if passed == 0:
                raise SourceUnavailable(f"{self._origin.backup}: the answer ended early")
            self._cost.fetched += passed
            size -= passed
