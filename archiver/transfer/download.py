"""One backup from its URL to a receipt.

Parts come over several connections and are written where they belong. What comes in order passes
the file's meter on its way; what does not, and what an earlier run left, is read back from the
store behind it, and must have the CRC-64 that it was fetched with.
"""

from collections import deque
from copy import copy
from typing import Final

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup
from fastcrc import crc64

from archiver import events
from archiver.concurrency import in_thread, task_group
from archiver.errors import (
    ArchiverError,
    CorruptFile,
    IntegrityError,
    ObjectChanged,
    SourceError,
    StoreError,
)
from archiver.model import Backup, Footer, Part, Pin, Receipt
from archiver.rdb.meter import FileMeter
from archiver.stores.base import Staging
from archiver.transfer.connection_share import ENOUGH
from archiver.transfer.http.response import Answer
from archiver.transfer.origin import Origin
from archiver.transfer.part import Cursor, PartFetcher, Shared
from archiver.transfer.parts import fitting_part_size, fold_crc64, plan_parts
from archiver.transfer.receipt import Cost, agrees, vouch

# How long a part's bytes may be in place before they are noted (seconds): what a kill costs.
NOTE_SECONDS = 0.5
# Times that one part is fetched again when the whole has not the declared CRC.
MOST_MENDINGS = 5
# How often the rate of a file's connections is looked at (seconds).
LOOK_SECONDS = 0.25
# Bytes of one file that wait in memory, where a store cannot take less than a part.
MOST_IN_MEMORY = 24 * 2**20
# Times that a file is begun.
MOST_STARTS = 3
# Times a part may read back differently than it was fetched before the disk is to blame.
MOST_REWRITES = 2


class _MaybeOnTheWay(CorruptFile):
    """Wrong as a whole, and nothing can be read back to find which part is."""


class _MaybeTorn(SourceError):
    """Came in pieces, and nothing says that they are of one object."""


class _Unpinned(ArchiverError):
    """The source gives neither ETag nor CRC-64: pieces cannot be told from those of another."""


async def carry(shared: Shared, origin: Origin, staging: Staging) -> Receipt:
    """One file into ``staging``, from the start if need be. Raises as Engine.transfer says."""
    in_one, starts = False, 0
    while True:
        try:
            return await FileTransfer(shared, origin, staging, in_one=in_one).run()
        except _Unpinned:
            in_one = True
        except (ObjectChanged, _MaybeOnTheWay, _MaybeTorn):
            starts += 1
            if starts == MOST_STARTS:
                raise
        # What is staged belongs to an object that is no more, or was damaged on its way.
        await in_thread(staging.restart)


def _measuring(backup: Backup, state: str) -> FileMeter:
    """A meter that goes on. Raises ObjectChanged, which begins anew, for a state that is none."""
    try:
        return FileMeter.resume(backup.size, state)
    except ValueError as error:
        raise ObjectChanged(f"{backup}: {error}") from None


def _is_pinned(pin: Pin) -> bool:
    """Whether one object of the source can be told from another of the same size."""
    return pin.etag is not None or pin.crc64 is not None


class FileTransfer:
    """The walk of one file; used once. ``in_one``: in one piece, over one connection."""

    def __init__(
        self, shared: Shared, origin: Origin, staging: Staging, *, in_one: bool = False
    ) -> None:
        self._shared: Final = shared
        self._backup: Final = origin.backup
        self._staging: Final = staging
        self._cost: Final = Cost(self._backup.size)
        self._settled: Final = anyio.Event()
        self._fetcher: Final = PartFetcher(shared, origin, staging, self._cost, self._settle)
        self._lanes = 0
        self._is_slow = False
        self._meter = self._new_meter()
        self._in_one: Final = in_one
        # A part's CRC-64/XZ.
        self._crcs: dict[int, int] = {}
        # Bytes of each part that a later run finds.
        self._kept: Final[dict[int, int]] = {}
        # Of parts that an earlier run began: bytes that are here, and their CRC-64/XZ.
        self._begun: dict[int, tuple[int, int]] = {}
        size = self._backup.size
        self._plan(max(1, size) if in_one else fitting_part_size(size, shared.part_size))
        if staging.resumable is not None:
            self._resume()

    async def run(self) -> Receipt:
        """Fetch, check, and vouch. Raises as Engine.transfer says."""
        here = sum(self._fetcher.received.values())
        self._shared.observer(events.Started(self._backup, here))
        is_done = False
        try:
            receipt = await self._carry()
            is_done = True
        finally:
            if not is_done and (kept := sum(self._kept.values())):
                self._shared.observer(events.Kept(self._backup, kept))
        return receipt

    async def _carry(self) -> Receipt:
        await self._fetch_all()
        # Where lanes end as they are cancelled, their crew may be left as if all was done.
        await anyio.lowlevel.checkpoint_if_cancelled()
        if not agrees(self._backup, self._meter, self._crc(), self._pin.crc64):
            self._shared.observer(events.Mending(self._backup))
            if not self._staging.mends_in_place:
                raise _MaybeOnTheWay(
                    f"{self._backup}: its checksum is wrong, however often fetched"
                )
            await self._mend()
            await self._measure_all()
        self._check_one_object()
        return vouch(self._backup, self._pin, self._meter, self._crc(), self._part_size, self._cost)

    def _check_one_object(self) -> None:
        """Raises _MaybeTorn where pieces may be of two objects, one after the other."""
        if (
            (len(self._parts) > 1 or self._cost.attempts > 1)
            and not _is_pinned(self._pin)
            and self._meter.verdict(is_log=self._backup.is_log)[1].footer is not Footer.OK
        ):
            raise _MaybeTorn(
                f"{self._backup}: it came in pieces, and the source gives neither ETag nor CRC-64 "
                "to tell whether they are of one object",
                hint="pull it into a directory, over a line that does not break off",
            )

    def _new_meter(self) -> FileMeter:
        return FileMeter(self._backup.size, portable=not self._staging.reads_back)

    def _plan(self, part_size: int) -> None:
        self._part_size = part_size
        self._parts = plan_parts(self._backup.size, part_size)
        self._in_place = [anyio.Event() for _ in self._parts]
        self._measured_to_end = [anyio.Event() for _ in self._parts]
        self._queue = deque(self._parts)
        self._cost.wanted = self._backup.size

    def _resume(self) -> None:
        """Take over what is here. It is read back before it counts."""
        resumable = self._staging.resumable
        if resumable is None:
            return
        if not _is_pinned(resumable.pin):
            raise _Unpinned(f"{self._backup}: the source names neither ETag nor CRC-64")
        self._plan(resumable.part_size)
        self._fetcher.pin = resumable.pin
        self._settled.set()
        if resumable.state is not None:
            self._meter = _measuring(self._backup, resumable.state)
        for index, crc in resumable.crcs.items():
            self._crcs[index] = crc
            self._fetcher.received[index] = self._parts[index].size
            self._in_place[index].set()
        self._queue = deque(part for part in self._parts if part.index not in self._crcs)
        self._begun = dict(resumable.begun)
        for index, (size, _) in self._begun.items():
            self._fetcher.received[index] = size
        self._kept.update(self._fetcher.received)
        self._cost.wanted = self._backup.size - sum(self._fetcher.received.values())
        self._cost.provenance = resumable.provenance

    async def _fetch_all(self) -> None:
        """Fetch what is missing, while what does not come in order is measured behind it."""
        async with task_group() as watches:
            watches.start_soon(self._note)
            async with task_group() as group:
                if self._queue:
                    self._open_lane(group)
                # The first answer settles what the object is; then other lanes may set out.
                await self._settled.wait()
                widening = anyio.CancelScope()
                # One of them: it ends with the others where one fails, and opens no more.
                group.start_soon(self._widen, group, widening)
                await self._measure_all()
                widening.cancel()
            watches.cancel_scope.cancel()

    async def _widen(self, group: TaskGroup, scope: anyio.CancelScope) -> None:
        """Open more lanes while those that are open are slow, or too few to keep us busy."""
        fetcher = self._fetcher
        with scope:
            while True:
                while self._queue and self._lanes < self._most_lanes and self._wants_another:
                    self._open_lane(group)
                came, waited = fetcher.came, fetcher.waits.seconds
                await anyio.sleep(LOOK_SECONDS)
                # Only while they waited: more of them would not make a disk faster.
                self._is_slow = fetcher.came - came < ENOUGH * (fetcher.waits.seconds - waited)

    @property
    def _wants_another(self) -> bool:
        return self._wants_lanes or self._shared.lanes.has_room

    @property
    def _wants_lanes(self) -> bool:
        """However crowded it is: what is not read back costs nothing more over several."""
        return self._is_slow or not self._staging.reads_back

    def _open_lane(self, group: TaskGroup) -> None:
        self._lanes += 1
        self._shared.lanes.opened()
        group.start_soon(self._lane)

    @property
    def _most_lanes(self) -> int:
        """Parts at once: where they wait in memory to be sent, only as many as fit there."""
        if self._staging.mends_in_place:
            return self._shared.lanes.each
        return max(1, min(self._shared.lanes.each, MOST_IN_MEMORY // self._part_size))

    async def _note(self) -> None:
        """Now and then, keep what came of the parts that are on their way."""
        while True:
            await anyio.sleep(NOTE_SECONDS)
            for cursor in list(self._fetcher.under_way.values()):
                came = cursor.position - cursor.part.start
                if 0 < came < cursor.part.size:
                    await in_thread(self._staging.keep, cursor.part, cursor.crc, came)
                    if self._staging.mends_in_place:
                        self._note_kept(cursor.part, came)

    async def _lane(self) -> None:
        try:
            while self._queue:
                part = await self._fetch(self._queue.popleft())
                if not self._staging.reads_back:
                    await self._measured_to_end[part.index].wait()
                await self._keep(part)
                if self._lanes > 1 and self._shared.lanes.is_crowded and not self._wants_lanes:
                    break
        finally:
            self._lanes -= 1
            self._shared.lanes.closed()

    async def _keep(self, part: Part) -> None:
        await in_thread(self._staging.keep, part, self._crcs[part.index])
        self._note_kept(part, part.size)

    def _note_kept(self, part: Part, size: int) -> None:
        """Of a file of one part nothing is kept: it has no journal."""
        if len(self._parts) > 1:
            self._kept[part.index] = max(size, self._kept.get(part.index, 0))

    async def _fetch(self, part: Part) -> Part:
        """One part into its place. As it came: the first answer may change what the parts are."""
        size, crc = self._begun.pop(part.index, (0, 0))
        in_order = size == 0 and self._meter.position == part.start
        first = Cursor(part, part.start + size, copy(self._meter) if in_order else None, crc)
        cursor = await self._fetcher.fetch(first)
        self._crcs[cursor.part.index] = cursor.crc
        if cursor.meter is not None:
            self._meter = cursor.meter
            await self._tell_measured(cursor.part, cursor.meter)
        self._in_place[cursor.part.index].set()
        return cursor.part

    async def _settle(self, answer: Answer, cursor: Cursor) -> Pin:
        """Take the first answer as what the object is, from here on."""
        pin, size = answer.pin, self._backup.size
        if pin.total != size:
            raise IntegrityError(
                f"{self._backup}: the object has {pin.total:,} bytes, the API says {size:,}"
            )
        if answer.whole and cursor.part.stop < size:
            # Ranges are ignored on the way: one part, one connection, front to back.
            if not self._staging.mends_in_place and size > MOST_IN_MEMORY:
                raise SourceError(
                    f"{self._backup}: ranges are ignored on the way, and the file is too large "
                    "to be held in memory",
                    hint="pull into a directory, then copy",
                )
            self._plan(size)
            cursor.part = self._queue.popleft()
        fits = self._staging.mends_in_place or size <= MOST_IN_MEMORY
        if not _is_pinned(pin) and cursor.part.size < size and fits:
            raise _Unpinned(f"{self._backup}: the source names neither ETag nor CRC-64")
        await in_thread(self._staging.begin, pin, self._cost.provenance, self._part_size)
        self._settled.set()
        return pin

    async def _measure_all(self) -> None:
        """Bring the meter to the end: what did not pass it on its way in is read back."""
        for part in self._parts:
            await self._in_place[part.index].wait()
            if self._meter.position == part.start and part.size > 0:
                self._meter = await self._measured(part, self._meter)
                await self._tell_measured(part, self._meter)
            self._measured_to_end[part.index].set()

    async def _tell_measured(self, part: Part, meter: FileMeter) -> None:
        if not self._staging.reads_back:
            await in_thread(self._staging.measured, part, meter.state())

    async def _measured(self, part: Part, before: FileMeter) -> FileMeter:
        """The meter after ``part``, once that reads back as it was fetched."""
        for _ in range(MOST_REWRITES + 1):
            meter = copy(before)
            async with self._shared.blocks.lend() as block:
                crc = await in_thread(self._measure, part, meter, block)
            if self._crcs[part.index] == crc:
                return meter
            await self._fetch(part)
            if self._staging.reads_back:
                await self._keep(part)
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
        return fold_crc64((self._crcs[part.index], part.size) for part in self._parts)

    @property
    def _pin(self) -> Pin:
        if self._fetcher.pin is None:
            raise RuntimeError("a transfer goes on before its first answer")
        return self._fetcher.pin

    async def _mend(self) -> None:
        """Fetch parts again, in order, until the whole agrees.

        Nothing says which part is wrong. One that comes twice with the same CRC is right, as no
        two faults on the way are alike; until then it is asked for again.
        """
        try:
            await self._fetch_doubtful()
        finally:
            self._meter = self._new_meter()

    async def _fetch_doubtful(self) -> None:
        for part in self._parts:
            seen = {self._crcs[part.index]}
            for _ in range(MOST_MENDINGS):
                await self._keep(await self._fetch(part))
                if self._crc() == self._pin.crc64:
                    return
                if self._crcs[part.index] in seen:
                    break
                seen.add(self._crcs[part.index])
