"""One backup from its URL to a receipt.

Parts come over several connections and are written where they belong. What comes in order passes
the file's meter on its way; what does not, and what an earlier run left, is read back from the
store behind it, and must have the CRC-64 that it was fetched with.
"""

from collections import deque
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import anyio
from anyio import to_thread
from fastcrc import crc64

from archiver import events
from archiver.crew import crew
from archiver.errors import (
    ArchiverError,
    BackupFailed,
    IntegrityError,
    SourceError,
    SourceUnavailable,
    StoreError,
    UrlRefused,
)
from archiver.model import Network, Part, Pin, Provenance, Receipt, Transfer
from archiver.retry import Attempts, RetryPolicy
from archiver.secret import SignedUrl
from archiver.stores.base import Staging
from archiver.transfer.buffers import Blocks
from archiver.transfer.fetch import Answer, Body, Fetcher
from archiver.transfer.meter import FileMeter
from archiver.transfer.pace import RateLimit
from archiver.transfer.parts import fitting_part_size, fold_crc64, plan_parts
from archiver.transfer.route import Location, Relist, Route
from archiver.transfer.vouch import agrees, vouch

# What may go wrong between us and the object's server; a store's errors pass by.
AT_THE_SOURCE = (SourceError, IntegrityError, BackupFailed)
# Bytes that a try must bring to forgive the failures before it: a drip never ends otherwise.
LEAST_PROGRESS = 64 * 1024
# Times that one part is fetched again when the whole has not the declared CRC.
MOST_MENDINGS = 5
# Times a part may read back differently than it was fetched before the disk is to blame.
MOST_REWRITES = 2


@dataclass(frozen=True, slots=True)
class Shared:
    """What all transfers of a run have in common; sizes in bytes."""

    fetcher: Fetcher
    route: Route
    relist: Relist
    blocks: Blocks
    limit: RateLimit
    retry: RetryPolicy
    connections: int
    part_size: int
    observer: events.Observer


@dataclass(slots=True)
class _Cursor:
    """How far a part has come: the next byte's offset, and the CRC-64/XZ of those before.

    ``meter`` is the file's, when this part is the one it needs next.
    """

    part: Part
    position: int
    meter: FileMeter | None
    crc: int = 0
    answered: bool = False

    @property
    def done(self) -> bool:
        return self.answered and self.position == self.part.stop


@dataclass(slots=True)
class _Tally:
    """What one transfer cost."""

    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    attempts: int = 1
    fetched: int = 0
    wanted: int = 0
    provenance: Provenance = field(default_factory=lambda: Provenance("", Network.PUBLIC))


class FileTransfer:
    """The walk of one file; used once."""

    def __init__(self, shared: Shared, transfer: Transfer, staging: Staging) -> None:
        self._shared: Final = shared
        self._backup: Final = transfer.backup
        self._staging: Final = staging
        self._location: Final = Location(
            transfer.backup, shared.route, shared.relist, shared.observer
        )
        self._tally: Final = _Tally()
        self._settled: Final = anyio.Event()
        self._pin: Pin | None = None
        self._meter = FileMeter(transfer.backup.size)
        # A part's CRC-64/XZ; None while only its bytes are known to be here.
        self._crcs: dict[int, int | None] = {}
        self._received: dict[int, int] = {}
        self._plan(fitting_part_size(transfer.backup.size, shared.part_size))
        if staging.resumable is not None:
            self._resume()

    async def run(self) -> Receipt:
        """Fetch, check, and vouch. Raises as Engine.transfer says."""
        self._shared.observer(events.Started(self._backup, sum(self._received.values())))
        if not self._queue and self._pin is None:
            await self._ask_pin()
        await self._fetch_all()
        if not agrees(self._meter, self._crc(), self._declared):
            await self._mend()
            await self._measure_all()
        return self._receipt()

    def _plan(self, part_size: int) -> None:
        self._part_size = part_size
        self._parts = plan_parts(self._backup.size, part_size)
        self._in_place = [anyio.Event() for _ in self._parts]
        self._queue = deque(self._parts)
        self._tally.wanted = self._backup.size

    def _resume(self) -> None:
        """Take over what is here. The reader will check it before it counts."""
        resumable = self._staging.resumable
        if resumable is None:
            return
        crcs: Mapping[int, int | None] = resumable.crcs
        if resumable.pin is None:
            crcs = dict.fromkeys(part.index for part in self._parts)
        else:
            self._plan(resumable.part_size)
        for index, crc in crcs.items():
            self._crcs[index] = crc
            self._received[index] = self._parts[index].size
            self._in_place[index].set()
        self._queue = deque(part for part in self._parts if part.index not in self._crcs)
        self._tally.wanted = sum(part.size for part in self._queue)
        self._pin = resumable.pin
        if resumable.provenance is not None:
            self._tally.provenance = resumable.provenance
        if self._pin is not None:
            self._settled.set()

    async def _fetch_all(self) -> None:
        """Fetch what is missing, while what does not come in order is measured behind it."""
        async with crew() as group:
            if self._queue:
                group.start_soon(self._lane)
            # The first answer settles what the object is; then the other lanes set out.
            await self._settled.wait()
            for _ in range(min(self._shared.connections - 1, len(self._queue))):
                group.start_soon(self._lane)
            await self._measure_all()

    async def _lane(self) -> None:
        while self._queue:
            await self._fetch(self._queue.popleft())

    async def _fetch(self, part: Part) -> None:
        """One part into its place, in as many tries as it takes; bytes that came stay."""
        next_in_order = self._meter.position == part.start
        cursor = _Cursor(part, part.start, self._meter if next_in_order else None)
        attempts = self._attempts()
        while not cursor.done:
            network, url = await self._location.url()
            try:
                await self._read(network, url, cursor, attempts)
            except AT_THE_SOURCE as error:
                await self._recover(url, error, attempts)
        part = cursor.part
        await self._staging.keep(part, cursor.crc)
        self._crcs[part.index] = cursor.crc
        self._in_place[part.index].set()

    async def _read(
        self, network: Network, url: SignedUrl, cursor: _Cursor, attempts: Attempts
    ) -> None:
        """Open what the cursor misses, and read on as far as it goes."""
        fetcher, blocks, limit = self._shared.fetcher, self._shared.blocks, self._shared.limit
        async with (
            blocks.lend() as lent,
            fetcher.open(url, cursor.position, cursor.part.stop, self._pin) as body,
        ):
            self._tally.provenance = Provenance(str(url), network)
            if self._pin is None:
                await self._settle(body.answer, cursor)
            cursor.answered = True
            block = lent[: limit.most_at_once(len(lent))]
            await self._skip(body, block, cursor.position - body.answer.start)
            came = 0
            while not cursor.done:
                wanted = block[: cursor.part.stop - cursor.position]
                await limit.take(len(wanted))
                size = await body.readinto(wanted)
                if size == 0:
                    raise SourceUnavailable(f"{url}: the answer ended early")
                await self._put(cursor, wanted[:size])
                self._location.worked(url)
                came += size
                if came >= LEAST_PROGRESS:
                    attempts.progressed()

    async def _put(self, cursor: _Cursor, data: memoryview) -> None:
        def write_and_measure() -> int:
            self._staging.write(cursor.position, data)
            if cursor.meter is not None:
                cursor.meter.feed(data)
            return int(crc64.xz(data, cursor.crc))

        cursor.crc = await to_thread.run_sync(write_and_measure)
        cursor.position += len(data)
        self._tally.fetched += len(data)
        self._received[cursor.part.index] = cursor.position - cursor.part.start
        position = sum(self._received.values())
        self._shared.observer(
            events.Advanced(self._backup, position, len(data), self._tally.provenance.network)
        )

    async def _skip(self, body: Body, block: memoryview, size: int) -> None:
        """Let pass what a server that ignores ranges sends before the part."""
        while size > 0:
            await self._shared.limit.take(min(size, len(block)))
            passed = await body.readinto(block[:size])
            if passed == 0:
                raise SourceUnavailable(f"{self._backup}: the answer ended early")
            self._tally.fetched += passed
            size -= passed

    async def _settle(self, answer: Answer, cursor: _Cursor) -> None:
        """Take the first answer as what the object is, from here on."""
        pin, size = answer.pin, self._backup.size
        if pin.total != size:
            raise IntegrityError(
                f"{self._backup}: the object has {pin.total:,} bytes, the API says {size:,}"
            )
        if answer.whole and cursor.part.stop < size:
            # Ranges are ignored on the way: one part, one connection, front to back.
            self._plan(size)
            cursor.part = self._queue.popleft()
        await self._staging.begin(pin, self._tally.provenance, self._part_size)
        self._pin = pin
        self._settled.set()

    async def _ask_pin(self) -> None:
        """All bytes are here and no note of what they are: ask with the least of requests."""
        attempts = self._attempts()
        probe = Part(0, 0, min(1, self._backup.size))
        while self._pin is None:
            network, url = await self._location.url()
            try:
                async with self._shared.fetcher.open(url, probe.start, probe.stop, None) as body:
                    self._pin = body.answer.pin
                    self._tally.provenance = Provenance(str(url), network)
            except AT_THE_SOURCE as error:
                await self._recover(url, error, attempts)
        self._settled.set()

    async def _recover(self, url: SignedUrl, error: ArchiverError, attempts: Attempts) -> None:
        """Make another try possible, or raise the error."""
        self._tally.attempts += 1
        if error.by_object_store:
            self._location.proved(url)
        elif self._location.gave_up(url, error):
            return  # the other network from here on
        if isinstance(error, UrlRefused):
            await self._location.refused(url, error)
        else:
            await attempts.failed(error)

    async def _measure_all(self) -> None:
        """Bring the meter to the end: what did not pass it on its way in is read back."""
        for part in self._parts:
            await self._in_place[part.index].wait()
            if self._meter.position == part.start and part.size > 0:
                self._meter = await self._measured(part, self._meter)

    async def _measured(self, part: Part, before: FileMeter) -> FileMeter:
        """The meter after ``part``, once that reads back as it was fetched."""
        for _ in range(MOST_REWRITES + 1):
            meter = copy(before)
            async with self._shared.blocks.lend() as block:
                crc = await to_thread.run_sync(self._measure, part, meter, block)
            if self._crcs[part.index] in (None, crc):
                self._crcs[part.index] = crc
                return meter
            self._meter = copy(before)  # the part is fetched again, and passes this one or not
            await self._fetch(part)
            if self._meter.position == part.stop:
                return self._meter
        raise StoreError(
            f"{self._backup}: bytes {part.start}-{part.stop - 1} read back differently than they "
            "were written",
            hint="check the disk before you trust it",
        )

    def _measure(self, part: Part, meter: FileMeter, block: memoryview) -> int:
        """Feed one part to the meter, in a worker thread; its CRC-64/XZ."""
        crc, position = 0, part.start
        while position < part.stop:
            size = self._staging.read(position, block[: part.stop - position])
            if size == 0:
                break  # shorter than noted: the checksum will tell
            crc = int(crc64.xz(block[:size], crc))
            meter.feed(block[:size])
            position += size
        return crc

    def _crc(self) -> int:
        """CRC-64/XZ of the whole, folded from its parts."""
        return fold_crc64((self._crcs[part.index] or 0, part.size) for part in self._parts)

    @property
    def _declared(self) -> int | None:
        return self._pin.crc64 if self._pin is not None else None

    async def _mend(self) -> None:
        """Fetch parts again, in order, until the whole agrees.

        Nothing says which part is wrong. One that comes twice with the same CRC is right, as no
        two faults on the way are alike; until then it is asked for again.
        """
        self._shared.observer(events.Mending(self._backup))
        try:
            await self._fetch_doubtful()
        finally:
            self._meter = FileMeter(self._backup.size)

    async def _fetch_doubtful(self) -> None:
        for part in self._parts:
            seen = {self._crcs[part.index]}
            for _ in range(MOST_MENDINGS):
                await self._fetch(part)
                if self._crc() == self._declared:
                    return
                if self._crcs[part.index] in seen:
                    break
                seen.add(self._crcs[part.index])

    def _receipt(self) -> Receipt:
        """What proves that this is the file at the source. Raises CorruptFile."""
        meter, crc, pin = self._meter, self._crc(), self._pin
        if pin is None or meter.position != self._backup.size:
            raise RuntimeError("a receipt is asked for before the file was measured")
        kind, rdb = vouch(self._backup, meter, crc, pin.crc64)
        return Receipt(
            size=meter.position,
            sha256=meter.sha256(),
            crc64=crc,
            crc64_declared=pin.crc64,
            etag=pin.etag,
            kind=kind,
            rdb=rdb,
            provenance=self._tally.provenance,
            part_size=self._part_size,
            started_at=self._tally.started_at,
            finished_at=datetime.now(UTC),
            attempts=self._tally.attempts,
            bytes_fetched=self._tally.fetched,
            bytes_fetched_again=max(0, self._tally.fetched - self._tally.wanted),
        )

    def _attempts(self) -> Attempts:
        def waiting(error: ArchiverError, attempt: int, wait: float) -> None:
            self._shared.observer(events.Retrying(str(self._backup), error, attempt, wait))

        return Attempts(self._shared.retry, waiting)
