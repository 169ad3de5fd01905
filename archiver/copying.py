"""From one archive to another, whatever each is kept in.

The records are copied as they are: what a backup is, and where it came from, does not change with
the place. What is read is held against its record, what is written is checked as in a pull.
"""

from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from archiver import events
from archiver.archive import layout
from archiver.archive.archive import Archive
from archiver.archive.inventory import Difference, Inventory
from archiver.archive.reading import read_record, read_sums
from archiver.archive.record import Record
from archiver.crew import crew
from archiver.errors import (
    ArchiverError,
    BadDocument,
    CorruptFile,
    IntegrityError,
    UnreadableObject,
    UsageError,
)
from archiver.model import Backup, Network, Pin, Provenance, Receipt, Status, Stored
from archiver.stores.base import Staging
from archiver.summary import Summary
from archiver.threads import entered, in_thread
from archiver.timerange import TimeRange
from archiver.transfer.engine import TransferOptions, share
from archiver.transfer.file import carry
from archiver.transfer.stored import StoreOrigin


@dataclass(frozen=True, slots=True)
class Selection:
    """Which backups of an archive; empty ``instances`` or ``sets`` (folders) mean all."""

    instances: tuple[str, ...] = ()
    sets: frozenset[str] = frozenset()
    range: TimeRange | None = None

    @property
    def prefixes(self) -> list[str]:
        """Where to look. Raises UnsafeInput."""
        if self.sets:
            return [f"{folder.strip('/')}/" for folder in sorted(self.sets)]
        return [f"{layout.safe(instance)}/" for instance in self.instances] or [""]

    def wants(self, record: Record) -> bool:
        return (not self.instances or record.instance_id in self.instances) and (
            self.range is None or self.range.start <= record.started_at <= self.range.end
        )


@dataclass(frozen=True, slots=True)
class CopyOptions:
    """What to copy, how many files at once, and how."""

    selection: Selection = field(default_factory=Selection)
    workers: int = 4
    transfer: TransferOptions = field(default_factory=TransferOptions)


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A backup that the two archives do not have alike; ``key`` is its object's, or that of a
    record that cannot be used. ``error`` says why that is so."""

    key: str
    what: str
    error: ArchiverError | None = None

    @property
    def exit_code(self) -> int:
        """3, or 6 when a store did not give what there is to compare."""
        return IntegrityError.exit_code if self.error is None else self.error.exit_code


async def copy(
    source: Archive,
    target: Archive,
    options: CopyOptions | None = None,
    observer: events.Observer = events.ignore,
) -> Summary:
    """Bring to ``target`` every backup of ``source`` that it does not hold, or holds damaged.

    What fails for one backup is in the summary's ``failures``, and the others go on. Raises
    StoreError, ArchiveBusy and UnsupportedFormat, which end the run.
    """
    run = _Copying(source, target, options or CopyOptions(), observer)
    async with target.writing() as swept:
        for leftover in swept:
            observer(events.Swept(leftover.key, leftover.why))
        await run.all()
    return run.summary


async def mismatches(
    source: Archive, target: Archive, selection: Selection
) -> AsyncGenerator[Mismatch, None]:
    """What one archive has and the other has not, or has otherwise; nothing is written.

    Raises StoreError.
    """
    here, there = Inventory(source.store), Inventory(target.store)
    told = set[str]()  # stems of the target
    async for record in _selected(source, selection):
        if isinstance(record, Mismatch):
            yield record
            continue
        if (found := await _difference(source, here, record)) is not None:
            yield found
        if (found := await _difference(target, there, record)) is not None:
            told.add(layout.stem_of(found.key))
            yield found
    async for record in _selected(target, selection):
        if isinstance(record, Mismatch):
            if layout.stem_of(record.key) not in told:
                yield record
        elif await here.lacks(record):
            yield Mismatch(record.object_key, f"{Difference.MISSING} in {source.store}")


async def _difference(archive: Archive, inventory: Inventory, record: Record) -> Mismatch | None:
    """How an archive holds what ``record`` describes, unless it holds the same."""
    try:
        difference = await inventory.compare(record)
    except UnreadableObject as error:
        return Mismatch(record.object_key, f"{Difference.DAMAGED} in {archive.store}", error)
    if difference is Difference.NONE:
        return None
    return Mismatch(record.object_key, f"{difference} in {archive.store}")


async def _selected(
    archive: Archive, selection: Selection
) -> AsyncGenerator[Record | Mismatch, None]:
    """The records that are asked for, and those that may be and cannot be used."""
    for prefix in selection.prefixes:
        async for key in archive.record_keys(prefix):
            try:
                record = await read_record(archive.store, key)
            except (BadDocument, UnreadableObject) as error:
                why = error.fault if isinstance(error, BadDocument) else error.message
                yield Mismatch(key, f"{Difference.DAMAGED} in {archive.store}: {why}", error)
                continue
            if record is not None and selection.wants(record):
                yield record


def _described(record: Record) -> Backup:
    """The backup that a record is about."""
    api: Mapping[str, object] = record.document["api"]
    return Backup(
        instance_id=record.instance_id,
        backup_id=record.backup_id,
        node_id=record.node_id,
        job_id=record.job_id,
        status=Status.SUCCESS,
        type=str(api.get("BackupType", "")),
        mode=str(api.get("BackupMode", "")),
        started_at=record.started_at,
        ended_at=None,
        size=record.size,
        expires_at=None,
        urls={},
        fields=api,
    )


def _promised(record: Record) -> tuple[Pin, Provenance]:
    """What its object must be, and where it came from."""
    source = record.document["source"]
    return (
        Pin(record.size, None, int(record.document["crc64ecma"])),
        Provenance(source["origin"], Network(source["network"])),
    )


class _Copying:
    def __init__(
        self, source: Archive, target: Archive, options: CopyOptions, observer: events.Observer
    ) -> None:
        self.summary: Final = Summary()
        self._source: Final = source
        self._target: Final = target
        self._options: Final = options
        self._tell: Final = observer
        self._touched: Final[set[str]] = set()
        self._shared: Final = share(options.transfer, options.workers, self._observer)

    async def all(self) -> None:
        """The plan into the queue, the queue into workers, and the sets sealed at the end."""
        send, receive = anyio.create_memory_object_stream[Record](self._options.workers)
        async with crew() as group:
            for _ in range(self._options.workers):
                group.start_soon(self._work, receive.clone())
            receive.close()
            async with send:
                await self._enqueue(send)
        for folder in sorted(self._touched):
            try:
                await self._seal(folder)
            except ArchiverError as error:
                if error.ends_run:
                    raise
                self._observer(events.Failed(folder, error))

    async def _enqueue(self, send: MemoryObjectSendStream[Record]) -> None:
        inventory = Inventory(self._target.store)
        for prefix in self._options.selection.prefixes:
            found = False
            async for key in self._source.record_keys(prefix):
                found = True
                record = await self._planned(inventory, key)
                if record is None:
                    continue
                try:
                    await send.send(record)
                except anyio.BrokenResourceError:
                    return  # no worker is left: what ended the last one is what will be raised
            if prefix and not found:
                nothing = UsageError(f"{self._source.store}: there is nothing below {prefix}")
                self._observer(events.Failed(prefix, nothing))

    async def _planned(self, inventory: Inventory, key: str) -> Record | None:
        """The record under a key, if what it describes is to be copied."""
        try:
            record = await read_record(self._source.store, key)
            if record is None or not self._options.selection.wants(record):
                return None
            backup, difference = _described(record), await inventory.compare(record)
        except ArchiverError as error:
            if error.ends_run:
                raise
            self._observer(events.Failed(key, error))
            return None
        if difference is Difference.NONE:
            self._observer(events.Held(backup))
            if not await inventory.is_sealed(record):
                self._touched.add(record.folder)
            return None
        if difference is not Difference.MISSING:
            self._observer(events.Damaged(backup, difference))
            await self._clear([record.key, *await inventory.in_the_way(record)])
        self._observer(events.Planned(backup))
        return record

    async def _clear(self, keys: Iterable[str]) -> None:
        """Make room for files of the target where something else has their names."""
        for key in keys:
            kept = await self._target.store.clear(key)
            if kept is not None:
                self._observer(events.Cleared(key, kept))

    async def _work(self, queue: MemoryObjectReceiveStream[Record]) -> None:
        async with queue:
            async for record in queue:
                try:
                    await self._copy(record)
                except ArchiverError as error:
                    if error.ends_run:
                        raise
                    self._observer(events.Failed(record.key, error, _described(record)))

    async def _copy(self, record: Record) -> None:
        """One backup: read, compared with its record, written, and recorded as it was."""
        backup, (pin, provenance) = _described(record), _promised(record)
        stem = record.key.removesuffix(layout.RECORD_SUFFIX)
        reading = StoreOrigin(backup, self._source.store, record.object_key, pin, provenance)
        async with entered(self._target.store.stage(stem, record.size)) as staging:
            receipt = await self._checked(reading, staging, record)

            def documents(stored: Stored) -> list[tuple[str, bytes]]:
                return [(record.key, record.renamed(stored.key).encode())]

            commit = staging.commit(receipt, documents)
            [stored] = await in_thread(self._target.store.finish, [commit])
        self._touched.add(record.folder)
        self._observer(
            events.Archived(
                backup, stored.key, receipt.size, receipt.sha256, provenance.network,
                receipt.bytes_fetched, receipt.bytes_fetched_again, receipt.is_vouched_for,
                receipt.kind, (receipt.finished_at - receipt.started_at).total_seconds(),
            )
        )  # fmt: skip

    async def _checked(self, reading: StoreOrigin, staging: Staging, record: Record) -> Receipt:
        """The bytes that the record is about. Raises CorruptFile, and leaves nothing of others."""
        wrong: CorruptFile | None = None
        try:
            receipt = await carry(self._shared, reading, staging)
        except CorruptFile as error:
            wrong = error
        else:
            if receipt.sha256 == record.sha256:
                return receipt
            wrong = CorruptFile(
                f"{record.object_key}: SHA-256 is {receipt.sha256}, recorded {record.sha256}",
                hint="verify the archive that it is copied from",
            )
        await in_thread(staging.restart)
        raise wrong

    async def _seal(self, folder: str) -> None:
        """SHA256SUMS, where the source has it and the target now has all that it names."""
        names = await read_sums(self._source.store, folder)
        if names is None:
            return
        there = {entry.key async for entry in self._target.store.entries(f"{folder}/")}
        if all(f"{folder}/{name}" in there for name in names):
            files = await self._target.seal(folder)
            if files:
                self._observer(events.SetCompleted(folder, files))

    def _observer(self, event: events.Event) -> None:
        if isinstance(event, events.Advanced):
            event = replace(event, network=None)
        self.summary(event)
        self._tell(event)
