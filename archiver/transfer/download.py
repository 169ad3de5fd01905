"""Downloads one backup, from its URL to a receipt.

Parts arrive over several connections and are written to their final offsets. The first bytes that
arrive are checked against what the API listed, and the complete file against the checksum that
the source declares.
"""

from typing import Final

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from archiver import events
from archiver.concurrency import in_thread, task_group
from archiver.errors import ArchiverError, CorruptFile, IntegrityError, ObjectChanged, SourceError
from archiver.model import Footer, Part, Pin, Receipt
from archiver.retry import RETRIES
from archiver.stores.base import Staging
from archiver.transfer.http.response import ObjectResponse
from archiver.transfer.measuring import Measuring
from archiver.transfer.origin import Origin
from archiver.transfer.part import Cursor, PartFetcher
from archiver.transfer.parts import FileParts, fitting_part_size
from archiver.transfer.receipt import (
    TransferStats,
    matches_checksum,
    verify_download,
    with_listed_crc,
)
from archiver.transfer.resources import SharedResources

# How often (seconds) the received bytes of unfinished parts are journalled: a kill costs the rest.
JOURNAL_SECONDS = 0.5
# How often (seconds) the rate of a file's connections is checked.
RATE_CHECK_SECONDS = 0.25
# Bytes per second over one connection from which on a second one costs more than it helps.
FAST_CONNECTION = 32 * 2**20
# Bytes of one file that are held in memory, where a store takes nothing less than a part.
MAX_IN_MEMORY = 24 * 2**20


class _CorruptInTransit(CorruptFile):
    """The whole file is wrong, and nothing can be read back to find out which part is."""


class _PossiblyMixed(SourceError):
    """The file arrived in pieces, and nothing proves that they are of the same object."""


class _Unpinned(ArchiverError):
    """The source gives neither ETag nor CRC-64, so pieces of two objects cannot be told apart."""


async def download_file(shared: SharedResources, origin: Origin, staging: Staging) -> Receipt:
    """Download one file into ``staging``, starting over if need be. Raises as Engine.transfer."""
    in_one_piece, failed = False, 0
    while True:
        try:
            return await FileDownload(shared, origin, staging, in_one_piece=in_one_piece).run()
        except _Unpinned:
            in_one_piece = True
        except (ObjectChanged, _CorruptInTransit, _PossiblyMixed):
            failed += 1
            if failed == RETRIES.whole_file.attempts:
                raise
        # What is staged belongs to an object that was replaced, or was damaged in transit.
        await in_thread(staging.restart)


def _is_pinned(pin: Pin) -> bool:
    """Whether the object can be told from another one of the same size."""
    return pin.etag is not None or pin.crc64 is not None


class FileDownload:
    """One attempt at a file; used once. ``in_one_piece``: as one part, over one connection."""

    def __init__(
        self,
        shared: SharedResources,
        origin: Origin,
        staging: Staging,
        *,
        in_one_piece: bool = False,
    ) -> None:
        self._shared: Final = shared
        self._backup: Final = origin.backup
        self._size: Final = origin.size
        self._staging: Final = staging
        size = origin.size
        self._stats: Final = TransferStats(size)
        self._has_begun: Final = anyio.Event()
        self._fetcher: Final = PartFetcher(shared, origin, staging, self._stats, self._begin)
        self._connections = 0
        self._is_slow = False
        part_size = max(1, size) if in_one_piece else fitting_part_size(size, shared.part_size)
        self._parts: Final = FileParts(size, part_size)
        self._measuring: Final = Measuring(
            origin, staging, self._parts, shared.buffers, self._refetch
        )
        if staging.resumable is not None:
            self._resume()

    async def run(self) -> Receipt:
        """Download and verify the file. Raises as Engine.transfer."""
        resumed = sum(self._fetcher.staged.values())
        self._shared.observer(events.Started(self._backup, resumed, self._size))
        is_done = False
        try:
            receipt = await self._download()
            is_done = True
        finally:
            if not is_done and (kept := self._parts.kept_bytes):
                self._shared.observer(events.Kept(self._backup, kept))
        return receipt

    async def _download(self) -> Receipt:
        await self._fetch_all()
        # A task group whose tasks end as they are cancelled may be left as if all was done.
        await anyio.lowlevel.checkpoint_if_cancelled()
        crc, meter = self._parts.crc64(), self._measuring.meter
        is_right = matches_checksum(self._backup, meter, crc, self._pin.crc64)
        if not is_right:
            self._shared.observer(events.Mending(self._backup))
            if not self._staging.can_rewrite_parts:
                raise _CorruptInTransit(
                    f"{self._backup}: its checksum is wrong, however often it is downloaded"
                )
            await self._refetch_until_match()
            await self._measuring.measure_all()
        self._check_single_object()
        return verify_download(
            self._backup,
            self._pin,
            self._measuring.meter,
            self._parts.crc64(),
            self._parts.part_size,
            self._stats,
            is_second=not is_right,
        )

    def _check_single_object(self) -> None:
        """Raises _PossiblyMixed where pieces may be of two objects, one after the other."""
        verdict = self._measuring.meter.verdict(is_log=self._backup.is_log)[1]
        if (
            (len(self._parts.all) > 1 or self._stats.attempts > 1)
            and not _is_pinned(self._pin)
            and verdict.footer is not Footer.OK
        ):
            raise _PossiblyMixed(
                f"{self._backup}: it arrived in pieces, and the source gives neither ETag nor "
                "CRC-64 to tell whether they are of one object",
                hint="pull it into a directory, over a connection that does not break",
            )

    def _resume(self) -> None:
        """Take over what an earlier run staged. It is read back before it counts."""
        resumable = self._staging.resumable
        if resumable is None:
            return
        if not _is_pinned(resumable.pin):
            raise _Unpinned(f"{self._backup}: the source gives neither ETag nor CRC-64")
        self._fetcher.pin = resumable.pin
        self._has_begun.set()
        if resumable.state is not None:
            self._measuring.resume(resumable.state)
        self._fetcher.staged.update(self._parts.resume(resumable))
        self._stats.needed = self._size - sum(self._fetcher.staged.values())
        self._stats.provenance = resumable.provenance

    async def _fetch_all(self) -> None:
        """Download what is missing, and measure behind it what does not arrive in order."""
        async with task_group() as background:
            background.start_soon(self._journal)
            async with task_group() as group:
                if self._parts.queue:
                    self._start_connection(group)
                # The first response settles what the object is; more connections may follow then.
                await self._has_begun.wait()
                adding = anyio.CancelScope()
                # In the same group: it must end, and add no more, when a connection fails.
                group.start_soon(self._add_connections, group, adding)
                await self._measuring.measure_all()
                adding.cancel()
            background.cancel_scope.cancel()

    async def _add_connections(self, group: TaskGroup, scope: anyio.CancelScope) -> None:
        """Start more connections while those at work are slow, or too few to use this machine."""
        fetcher = self._fetcher
        with scope:
            while True:
                while (
                    self._parts.queue
                    and self._connections < self._max_connections
                    and (self._profits_from_more or self._shared.connections.has_room)
                ):
                    self._start_connection(group)
                received, waited = fetcher.bytes_received, fetcher.wait_time.seconds
                await anyio.sleep(RATE_CHECK_SECONDS)
                # Only time spent waiting counts: more connections do not make a disk faster.
                waited = fetcher.wait_time.seconds - waited
                self._is_slow = fetcher.bytes_received - received < FAST_CONNECTION * waited

    @property
    def _profits_from_more(self) -> bool:
        """Whether more connections help even if the budget is used up: where nothing is read back
        they cost nothing."""
        return self._is_slow or not self._staging.can_read_back

    def _start_connection(self, group: TaskGroup) -> None:
        self._connections += 1
        self._shared.connections.opened()
        group.start_soon(self._fetch_queued)

    @property
    def _max_connections(self) -> int:
        """How many parts are downloaded at once. Where parts wait in memory to be sent to the
        store, only as many as fit there."""
        per_file = self._shared.connections.per_file
        if self._staging.can_rewrite_parts:
            return per_file
        return max(1, min(per_file, MAX_IN_MEMORY // self._parts.part_size))

    async def _journal(self) -> None:
        """Journal from time to time how much of the unfinished parts has arrived."""
        while True:
            await anyio.sleep(JOURNAL_SECONDS)
            for cursor in list(self._fetcher.in_progress.values()):
                received = cursor.position - cursor.part.start
                if 0 < received < cursor.part.size:
                    await in_thread(self._staging.save_part, cursor.part, cursor.crc, received)
                    if self._staging.can_rewrite_parts:
                        self._parts.mark_kept(cursor.part, received)

    async def _fetch_queued(self) -> None:
        """Download parts over one connection until none is queued, or the connection is one too
        many."""
        try:
            while self._parts.queue:
                part = await self._fetch(self._parts.queue.popleft())
                if not self._staging.can_read_back:
                    await self._parts.until_measured(part)
                await self._keep(part)
                is_exceeded = self._shared.connections.is_exceeded
                if self._connections > 1 and is_exceeded and not self._profits_from_more:
                    break
        finally:
            self._connections -= 1
            self._shared.connections.closed()

    async def _keep(self, part: Part) -> None:
        await in_thread(self._staging.save_part, part, self._parts.crcs[part.index])
        self._parts.mark_kept(part, part.size)

    async def _refetch(self, part: Part) -> None:
        await self._fetch(part)
        if self._staging.can_read_back:
            await self._keep(part)

    async def _fetch(self, part: Part) -> Part:
        """Download one part; returns it as it was downloaded, since the first response may change
        what the parts are."""
        staged, crc = self._parts.take_begun(part)
        meter = self._measuring.meter_for(part, staged)
        cursor = await self._fetcher.fetch(Cursor(part, part.start + staged, meter, crc))
        self._parts.crcs[cursor.part.index] = cursor.crc
        if cursor.meter is not None:
            await self._measuring.advance(cursor.part, cursor.meter)
        self._parts.mark_staged(cursor.part, cursor.crc)
        return cursor.part

    async def _begin(self, response: ObjectResponse, cursor: Cursor) -> Pin:
        """Check the first response and begin to stage the object that it describes."""
        pin, size = with_listed_crc(self._backup, response.pin), self._size
        if pin.total != size:
            raise IntegrityError(
                f"{self._backup}: the object has {pin.total:,} bytes, the source said {size:,}",
                hint="it may not be whole, so it is not archived; run the command again later, "
                "when the source may list it right, or take in a copy of it with archiver adopt",
            )
        can_stage_whole = self._staging.can_rewrite_parts or size <= MAX_IN_MEMORY
        if response.is_whole and cursor.part.stop < size:
            # The server ignores ranges: one part, one connection, front to back.
            if not can_stage_whole:
                raise SourceError(
                    f"{self._backup}: the server ignores ranges, and the file is too large to be "
                    "held in memory",
                    hint="pull into a directory, then copy",
                )
            self._parts.plan(size)
            cursor.part = self._parts.queue.popleft()
        if not _is_pinned(pin) and cursor.part.size < size and can_stage_whole:
            raise _Unpinned(f"{self._backup}: the source gives neither ETag nor CRC-64")
        part_size = self._parts.part_size
        await in_thread(self._staging.begin, pin, self._stats.provenance, part_size)
        self._has_begun.set()
        return pin

    @property
    def _pin(self) -> Pin:
        if self._fetcher.pin is None:
            raise RuntimeError("the download continued before its first response")
        return self._fetcher.pin

    async def _refetch_until_match(self) -> None:
        """Download parts again, in order, until the file's CRC-64 is the declared one.

        Nothing says which part is wrong. A part that arrives twice with the same CRC-64 counts as
        right, since two errors in transit are hardly the same; until then it is requested again.
        """
        try:
            for part in self._parts.all:
                seen = {self._parts.crcs[part.index]}
                for _ in range(RETRIES.corrupt_part.attempts):
                    await self._keep(await self._fetch(part))
                    if self._parts.crc64() == self._pin.crc64:
                        return
                    if self._parts.crcs[part.index] in seen:
                        break
                    seen.add(self._parts.crcs[part.index])
        finally:
            self._measuring.restart()
