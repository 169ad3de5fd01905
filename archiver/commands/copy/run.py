"""From one archive to another, whatever each is kept in.

The records are copied as they are: what a backup is, and where it came from, does not change with
the place. What is read is held against its record, what is written is checked as in a pull.
"""

from collections.abc import AsyncGenerator, Awaitable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Final

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from archiver import events
from archiver.archive import layout
from archiver.archive.acknowledged import Copied, bring_along, differing
from archiver.archive.archive import Archive, check_apart
from archiver.archive.catalogue import Described
from archiver.archive.contents import (
    Recorded,
    Unrecorded,
    described,
    instances,
    record_of,
    walk,
)
from archiver.archive.indexing import Indexing
from archiver.archive.inventory import Compared, Difference, Inventory
from archiver.archive.reading import at_odds, read_sums, unsealed
from archiver.archive.record import Record
from archiver.archive.replacing import (
    Witnesses,
    dropping_refused,
    make_way,
    measure_present,
)
from archiver.archive.verified import forget
from archiver.commands.summary import Summary
from archiver.commands.writer import MOST_INSTANCES, InstanceWriter
from archiver.concurrency import Turns, entered, in_thread, task_group
from archiver.errors import (
    ArchiveBusy,
    ArchiverError,
    BackupFailed,
    BadDocument,
    CorruptFile,
    IntegrityError,
    NoSpace,
    StoreError,
    UnreadableObject,
)
from archiver.ids import safe
from archiver.logs import OF_RUNS, logged
from archiver.model import Pin, Provenance, Receipt, Stored
from archiver.stores.base import Staging
from archiver.stores.commit import Commit
from archiver.stores.scope import WHOLE
from archiver.times import TimeRange
from archiver.transfer.download import download_file
from archiver.transfer.engine import TransferOptions, shared_resources
from archiver.transfer.from_store import StoreOrigin
from archiver.transfer.receipt import TransferStats, receipt_for

# A disk that is not mounted looks like this, too: it is no success.
NOTHING_SELECTED = "there is no backup that was asked for"


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
            return sorted({f"{folder.strip('/')}/" for folder in self.sets})
        instances = dict.fromkeys(self.instances)
        return [f"{safe(instance)}/" for instance in instances] or [""]

    @property
    def folders(self) -> frozenset[str]:
        """The sets, as their folders are called."""
        return frozenset(folder.strip("/") for folder in self.sets)

    @property
    def months(self) -> list[str]:
        """The same for an archive that may have named its folders otherwise."""
        if self.sets:
            months = {folder.strip("/").rpartition("/")[0] for folder in self.sets}
            return [f"{month}/" for month in sorted(months)]
        return self.prefixes

    def wants(self, key: str) -> bool:
        """Whether a record, by its key, is of a set that is meant."""
        folder = key.rpartition("/")[0]
        return (
            (not self.instances or key.partition("/")[0] in self.instances)
            and (not self.sets or _set_of(folder) in {_set_of(one) for one in self.sets})
            and layout.began_in(folder, self.range)
        )

    def reaches(self, folder: str) -> bool:
        """Whether a folder is a set that is meant, or may have one in it."""
        if layout.set_start(folder) is not None:
            return self.wants(f"{folder}/")
        return (
            (not self.instances or folder.partition("/")[0] in self.instances)
            and (
                not self.sets
                or any(f"{one.strip('/')}/".startswith(f"{folder}/") for one in self.sets)
            )
            and layout.began_in(folder, self.range)
        )


@dataclass(frozen=True, slots=True)
class CopyOptions:
    """What to copy, how many files at once, and how. ``replace`` takes what the source has where
    the target's record names other bytes; these are kept aside."""

    selection: Selection = field(default_factory=Selection)
    replace: bool = False
    workers: int = 4
    transfer: TransferOptions = field(default_factory=TransferOptions)


# What tells a backup's file in two archives: instance, job, name.
_File = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A backup that the two archives do not have alike; ``key`` is its object's, or that of a
    document or folder that cannot be used. ``what`` says how and where, ``why`` what is wrong
    there, and ``error`` the same to who acts on it."""

    key: str
    what: str
    why: str | None = None
    error: ArchiverError | None = None

    def __str__(self) -> str:
        return f"{self.what}: {self.key}{f': {self.why}' if self.why else ''}"

    @property
    def exit_code(self) -> int:
        """3, or 6 when a store did not give what there is to compare."""
        is_unseen = self.error is not None and self.error.exit_code == StoreError.exit_code
        return StoreError.exit_code if is_unseen else IntegrityError.exit_code


async def copy(
    source: Archive,
    target: Archive,
    options: CopyOptions | None = None,
    observer: events.Observer = events.ignore,
) -> Summary:
    """Bring to ``target`` every backup of ``source`` that it does not hold, or holds damaged.

    What fails for one backup is in the summary's ``failures``, and the others go on; so does an
    instance that another process writes to in the target, as ArchiveBusy. Raises StoreError,
    UnsupportedFormat, and ArchiveBusy when a lock was lost, which end the run; and before anything
    is written UsageError where the two are one archive, or one lies in the other.
    """
    observer = logged(observer, OF_RUNS)
    await check_apart(source, target)
    run = _Copying(source, target, options or CopyOptions(), observer)
    if not await target.check_place() and await run.is_for_nothing():
        return run.summary
    await target.begin(run.observer)
    await run.all()
    await target.tidy(run.observer)
    return run.summary


async def mismatches(
    source: Archive, target: Archive, selection: Selection
) -> AsyncGenerator[Mismatch, None]:
    """What one archive has and the other has not, or has otherwise; nothing is written.

    Raises StoreError, and UsageError where they are one archive, or one lies in the other.
    """
    await check_apart(source, target)
    told_here, told = set[_File](), set[_File]()
    both = (
        _of_source(source, target, selection, told_here, told),
        _of_target(source, target, selection, told_here, told),
    )
    last = None
    for found in both:
        async for one in found:
            if one.key != last or one.why is not None:  # of SHA256SUMS once a set
                yield one
            last = one.key
    async for other in differing(source, target, selection.instances, selection.folders):
        yield (
            Mismatch(other.key, f"{Difference.MISSING} in {target.store}")
            if other.bad is None
            else _unusable(other.at, other.key, other.bad)
        )


async def _of_source(
    source: Archive, target: Archive, selection: Selection, told_here: set[_File], told: set[_File]
) -> AsyncGenerator[Mismatch, None]:
    """What is wrong in ``source``, and what of it the target has not, or otherwise."""
    here, there = Inventory(source.store), Inventory(target.store)
    async for one in _selected(source, selection, selection.prefixes):
        if isinstance(one, Mismatch):
            told_here.add(_file_of(one.key))
            yield one
            continue
        record = one.record
        if found := await _difference(source, here.compare(record, record.folder), record):
            yield found
        if found := await _difference(target, there.compared(record), record):
            told.add(_file_of(found.key))
            yield found
        elif found := await _unsealed(target, there, one):
            yield found


async def _of_target(
    source: Archive, target: Archive, selection: Selection, told_here: set[_File], told: set[_File]
) -> AsyncGenerator[Mismatch, None]:
    """What is wrong in ``target``, and what of it the source has not, where that was not told."""
    here = Inventory(source.store)
    async for one in _selected(target, selection, selection.months):
        if isinstance(one, Mismatch):
            if _file_of(one.key) not in told:
                yield one
        elif _file_of(one.record.object_key) not in told_here:
            found = await _difference(source, here.lacking(one.record), one.record)
            if found := found or await _unsealed(source, here, one):
                yield found


async def _difference(
    archive: Archive, finding: Awaitable[Compared], record: Described
) -> Mismatch | None:
    """The difference that is found, if it is one; or why it cannot be."""
    key, where = record.object_key, archive.store
    try:
        found = await finding
    except ArchiverError as error:
        if error.ends_run:
            raise
        return _unusable(archive, key, error)
    if found.difference is Difference.NONE:
        return None
    return Mismatch(key, f"{found.difference} in {where}", found.why)


async def _unsealed(archive: Archive, inventory: Inventory, one: "_Usable") -> Mismatch | None:
    """Where the other archive's SHA256SUMS has a line for it, whether this one's has; what a line
    says is compared with the record of its own archive."""
    name, where = one.record.name, f"{Difference.MISSING} in {archive.store}"
    if name not in (one.sums or {}):
        return None
    try:
        sums = await inventory.sums(await inventory.folder_for(one.record))
    except (BadDocument, UnreadableObject):
        return None  # named with its set
    if sums is None:
        return Mismatch(layout.sums_key(one.record.folder), where)
    if name in sums:
        return None
    return Mismatch(one.record.object_key, where, "its line in SHA256SUMS is not there")


def _file_of(key: str) -> _File:
    """What tells a backup's file in two archives: either names its set's folder by itself."""
    return *_set_of(key.rpartition("/")[0]), layout.stem_of(key).rpartition("/")[2]


async def selects_nothing(archive: Archive, selection: Selection) -> bool:
    """Whether an archive has no backup that was asked for. Raises StoreError."""
    async with aclosing(_selected(archive, selection, selection.prefixes)) as records:
        return await anext(records, None) is None


@dataclass(frozen=True, slots=True)
class _Usable:
    """A record that can be used, and what SHA256SUMS says in its set, if that can be."""

    record: Described
    sums: Mapping[str, str] | None


async def _selected(
    archive: Archive, selection: Selection, prefixes: Sequence[str]
) -> AsyncGenerator[_Usable | Mismatch, None]:
    """The records that are asked for, those of them that cannot be used, and what has none."""
    for prefix in prefixes:
        async for one in walk(archive.store, prefix, selection.reaches):
            if isinstance(one, Unrecorded):
                yield _unusable(archive, one.key, one.error)
                continue
            try:
                record = await described(archive.store, one.files, one.key)
            except (BadDocument, UnreadableObject) as error:
                yield _unusable(archive, one.key, error)
                continue
            if record is None:
                continue
            if (odds := at_odds(record, one.sums)) is not None:
                yield _unusable(archive, record.object_key, odds)
            yield _Usable(record, one.sums if odds is None else None)


def _unusable(archive: Archive, key: str, error: ArchiverError) -> Mismatch:
    why = error.message
    for place in (f"{archive.store}/", f"{archive.store}: ", f"{key}: ", f"{key} "):
        why = why.removeprefix(place)
    return Mismatch(key, f"{Difference.DAMAGED} in {archive.store}", why, error)


def _set_of(folder: str) -> tuple[str, str]:
    """What a backup set is told by, whichever of its nodes named the folder."""
    parts = folder.strip("/").split("/")
    return parts[0], parts[-1].partition("-")[2]


def _promised(record: Record) -> tuple[Pin, Provenance]:
    """What its object must be, and where it came from."""
    return Pin(record.size, None, int(record.document["crc64ecma"])), record.provenance


@dataclass(frozen=True, slots=True)
class _Planned:
    """A backup of an instance that is to be copied: its record, the folder for it, and whether the
    target may know which bytes it should have."""

    instance: "_InstanceCopy"
    record: Record
    folder: str
    known: bool


class _Copying:
    """A run: the instances into the plan, the plan into the queue, the queue into workers."""

    def __init__(
        self, source: Archive, target: Archive, options: CopyOptions, observer: events.Observer
    ) -> None:
        self.summary: Final = Summary()
        self.source: Final = source
        self.target: Final = target
        self.options: Final = options
        self.turns: Final = Turns()
        self._tell: Final = observer
        # The target is full: what is under way may still fit, and nothing new is begun.
        self.full: NoSpace | None = None
        self.index: Final = Indexing(target.store)
        self.shared: Final = shared_resources(options.transfer, options.workers, self.observer)

    async def all(self) -> None:
        """Each instance from its records to its sealed sets; then what was acknowledged."""
        send, receive = anyio.create_memory_object_stream[_Planned](self.options.workers)
        async with task_group() as group:
            for _ in range(self.options.workers):
                group.start_soon(self._work, receive.clone())
            receive.close()
            async with send:
                await self._instances(send)
        if self.full is not None:
            raise self.full
        self._tell_if_nothing()
        await self._bring_acknowledgements()

    async def _instances(self, send: MemoryObjectSendStream[_Planned]) -> None:
        free = anyio.Semaphore(MOST_INSTANCES)

        async def run(instance_id: str, prefixes: Sequence[str]) -> None:
            try:
                await _InstanceCopy(self, instance_id, prefixes, send).run()
            finally:
                free.release()

        async with task_group() as group:
            for instance_id, prefixes in (await self._prefixes()).items():
                await free.acquire()
                if self.full is not None:
                    return
                group.start_soon(run, instance_id, prefixes)

    async def _prefixes(self) -> dict[str, list[str]]:
        """Where to look for each instance that is meant."""
        chosen = self.options.selection.prefixes
        if chosen == [""]:
            chosen = [f"{one}/" for one in await instances(self.source.store)]
        found: dict[str, list[str]] = {}
        for prefix in chosen:
            found.setdefault(prefix.partition("/")[0], []).append(prefix)
        return found

    async def _work(self, queue: MemoryObjectReceiveStream[_Planned]) -> None:
        async with queue:
            async for one in queue:
                try:
                    if self.full is None:
                        await one.instance.copy(one)
                except NoSpace as error:
                    self.full = error
                except ArchiverError as error:
                    if error.ends_run:
                        raise
                    self.observer(events.Failed(one.record.key, error, one.record.backup))
                finally:
                    one.instance.ended_one()

    async def _bring_acknowledgements(self) -> None:
        """What somebody has taken note of goes along with what it is about."""
        chosen = self.options.selection
        given = self.source, self.target, chosen.instances, chosen.folders
        async with aclosing(differing(*given)) as found:
            lacking = [one async for one in found]
        if all(one.bad is not None for one in lacking):
            self._tell_acknowledgements(lacking)
            return
        try:
            async with (
                self.target.writing(WHOLE, self.observer),
                aclosing(bring_along(*given, self.observer)) as brought,
            ):
                async for one in brought:
                    self._tell_acknowledgements([one])
        except ArchiveBusy as busy:
            self.observer(events.Failed(layout.ACKNOWLEDGED, busy))

    def _tell_acknowledgements(self, copied: Iterable[Copied]) -> None:
        for one in copied:
            if one.bad is None:
                self.observer(events.AcknowledgementCopied(one.key))
            else:
                self.observer(events.Failed(one.key, one.bad))

    def _tell_if_nothing(self) -> None:
        if not (self.summary.held or self.summary.planned or self.summary.failures):
            nothing = BackupFailed(f"{self.source.store}: {NOTHING_SELECTED}; nothing was copied")
            self.observer(events.Failed(str(self.source.store), nothing))

    async def is_for_nothing(self) -> bool:
        """Whether there is no record to copy; then what there is instead is told.

        By one look: a record that comes after it is for the next run, since this one has no lock
        to write with.
        """
        selection = self.options.selection
        failures: list[events.Failed] = []
        for prefix in selection.prefixes:
            found = False
            async with aclosing(walk(self.source.store, prefix, selection.reaches)) as walked:
                async for one in walked:
                    if isinstance(one, Recorded):
                        return False
                    found = True
                    failures.append(events.Failed(one.key, one.error))
            if prefix and not found and await self.has_nothing(prefix):
                failures.append(self.nothing_below(prefix))
        for failed in failures:
            self.observer(failed)
        self._tell_if_nothing()
        return True

    def nothing_below(self, prefix: str) -> events.Failed:
        nothing = BackupFailed(f"{self.source.store}: there is nothing below {prefix}")
        return events.Failed(prefix, nothing)

    async def has_nothing(self, prefix: str) -> bool:
        async with aclosing(self.source.record_keys(prefix)) as keys:
            return await anext(keys, None) is None

    def observer(self, event: events.Event) -> None:
        if isinstance(event, events.Advanced):
            event = replace(event, network=None)
        self.summary(event)
        self._tell(event)


class _InstanceCopy:
    """The part of a run that is about one instance, from its records to its sealed sets. Its lock
    is taken at the first that is to be copied."""

    def __init__(
        self,
        run: _Copying,
        instance_id: str,
        prefixes: Sequence[str],
        send: MemoryObjectSendStream[_Planned],
    ) -> None:
        self._id: Final = instance_id
        self._run: Final = run
        self._source: Final = run.source
        self._target: Final = run.target
        self._options: Final = run.options
        self._observer: Final = run.observer
        self._shared: Final = run.shared
        self._prefixes: Final = prefixes
        self._send: Final = send
        self._writer: Final = InstanceWriter(run.target, instance_id, run.turns, run.observer)
        self._inventory: Final = Inventory(run.target.store)
        self._witnesses: Final = Witnesses(run.source.store)
        self._target_says: Final = Witnesses(run.target.store)
        # Folders that something was copied to, and those it came from.
        self._touched: Final[dict[str, str]] = {}
        # By their keys without suffix, files that the target was told to take as they are here.
        self._replaced: Final[set[str]] = set()
        # The set that was last said to have no SHA256SUMS.
        self._noted = ""

    async def run(self) -> None:
        """All of it. Raises what ends the run."""
        async with self._writer:
            async with self._writer.turn():
                for prefix in self._prefixes:
                    await self._enqueue(prefix)
            await self._writer.nothing_under_way()
            if self._run.full is not None or self._writer.is_busy:
                return
            for folder, origin in sorted(self._touched.items()):
                try:
                    await self._seal(folder, origin)
                except ArchiverError as error:
                    if error.ends_run:
                        raise
                    self._observer(events.Failed(folder, error))
            if self._writer.is_writer:
                await self._run.index.keep(self._id)

    def ended_one(self) -> None:
        """A backup that was enqueued has been copied, or not."""
        self._writer.ended_one()

    async def _enqueue(self, prefix: str) -> None:
        is_asked_for = prefix in self._options.selection.prefixes
        found = False
        walked = walk(self._source.store, prefix, self._options.selection.reaches)
        async with aclosing(walked):
            async for one in walked:
                found = True
                if isinstance(one, Unrecorded):
                    self._observer(events.Failed(one.key, one.error))
                    continue
                planned = await self._planned(one)
                if self._run.full is not None or self._writer.is_busy:
                    return
                if planned is not None:
                    self._writer.under_way += 1
                    try:
                        await self._send.send(planned)
                    except anyio.BrokenResourceError:
                        self.ended_one()  # no worker is left: what ended the last one is raised
        if is_asked_for and not found and await self._run.has_nothing(prefix):
            self._observer(self._run.nothing_below(prefix))

    async def _planned(self, one: Recorded) -> _Planned | None:
        """The record under a key, if what it describes is to be copied, and the folder for it."""
        key, inventory = one.key, self._inventory
        try:
            record = await record_of(self._source.store, one.files, key)
            found = None if record is None else await self._found(record)
        except ArchiverError as error:
            if error.ends_run:
                raise
            self._observer(events.Failed(key, error))
            return None
        if record is None or found is None:
            return None
        folder, compared = found
        difference, backup = compared.difference, record.backup
        self._note_unsealed(record, one)
        odds = at_odds(record, one.sums)
        if odds is not None and (
            difference is Difference.NONE or not await self._why_doubted(record)
        ):
            self._observer(events.Failed(key, odds, backup))
        if difference is Difference.NONE and odds is not None:
            return None
        if difference is Difference.NONE:
            self._observer(events.Held(backup))
            if not await inventory.is_in_sums(record, folder):
                self._touched[folder] = record.folder
            return None
        if difference is Difference.OTHER and not self._options.replace:
            self._observer(events.Failed(key, self._at_odds(record, folder), backup))
            return None
        if difference is not Difference.MISSING:
            stem = f"{folder}/{layout.stem_of(record.key).rpartition('/')[2]}"
            why = await inventory.in_its_place(stem) or compared.why or difference
            self._observer(events.Damaged(backup, why))
            await self._clear([layout.record_key(stem)])
        self._observer(events.Planned(backup))
        known = await inventory.knows(f"{folder}/{layout.stem_of(record.key).rpartition('/')[2]}")
        return _Planned(self, record, folder, known)

    async def _found(self, record: Record) -> tuple[str, Compared] | None:
        """The folder for it in the target, and how that holds it: seen as the one writer, if there
        is something to write. None where another process is."""
        found = await self._compared(record)
        if self._writer.is_writer or not self._is_to_be_copied(found[1]):
            return found
        if not await self._writer.begin_out_of_turn():
            return None
        # Another writer may have brought it meanwhile.
        self._inventory.look_again()
        self._target_says.look_again()
        return await self._compared(record)

    async def _compared(self, record: Record) -> tuple[str, Compared]:
        """The folder for it in the target, and how that holds it."""
        folder = await self._inventory.folder_for(record)
        compared = await self._inventory.compare(record, folder)
        if compared.difference is Difference.NONE and await self._is_outvoted(record, folder):
            return folder, Compared(Difference.OTHER)
        return folder, compared

    def _is_to_be_copied(self, compared: Compared) -> bool:
        if compared.difference is Difference.OTHER:
            return self._options.replace
        return compared.difference is not Difference.NONE

    async def _is_outvoted(self, record: Record, folder: str) -> bool:
        """Whether the target has the same record, and is to be told that it is right: a run that
        replaced it ended before its SHA256SUMS followed."""
        if not self._options.replace:
            return False
        stem = f"{folder}/{layout.stem_of(record.key).rpartition('/')[2]}"
        said = await self._target_says.of(stem, record)
        return any(sha256 != record.sha256 for sha256 in said.values())

    def _at_odds(self, record: Record, folder: str) -> IntegrityError:
        name = record.key.rpartition("/")[2]
        return IntegrityError(
            f"{self._source.store}: {record.key} and {self._target.store}: {folder}/{name} name "
            "other bytes of the same backup; nothing is copied",
            hint="verify both; copy --replace takes what the first has, and keeps the other aside",
        )

    async def _clear(self, keys: Iterable[str]) -> None:
        """Make room for files of the target where something else has their names."""
        for key in keys:
            kept = await self._target.store.clear(key)
            if kept is not None:
                self._observer(events.Cleared(key, kept))

    async def copy(self, one: _Planned) -> None:
        """One backup: read, compared with its record, written, and recorded as it was."""
        record, folder, known = one.record, one.folder, one.known
        backup, (_, provenance) = record.backup, _promised(record)
        stem = f"{folder}/{record.key.rpartition('/')[2].removesuffix(layout.RECORD_SUFFIX)}"
        store = self._target.store
        async with entered(store.stage(stem, record.size)) as staging:
            commit = await self._commit(record, stem, staging, known=known)
            [stored] = await in_thread(store.finish, [commit])
        receipt = stored.receipt
        self._touched[folder] = record.folder
        self._run.index.wrote([(layout.record_key(stem), record.renamed(stored.key).encode())])
        if self._options.replace and known:
            self._replaced.add(stem)
        for key, kept in stored.cleared:
            self._observer(events.Cleared(key, kept))
        self._observer(
            events.Archived(
                backup, stored.key, receipt.size, receipt.sha256, provenance.network,
                receipt.bytes_fetched, receipt.bytes_fetched_again, receipt.is_vouched_for,
                receipt.kind, (receipt.finished_at - receipt.started_at).total_seconds(),
            )
        )  # fmt: skip

    async def _commit(self, record: Record, stem: str, staging: Staging, *, known: bool) -> Commit:
        """An object that lies there unrecorded, if it has the record's bytes; or what is read."""
        pin, provenance = _promised(record)
        if (doubt := await self._why_doubted(record)) is not None:
            raise IntegrityError(
                f"{self._source.store}: {record.key} says that SHA-256 is {record.sha256}, and "
                f"{doubt}",
                hint="verify the archive that it is copied from, and repair it",
            )

        def documents(stored: Stored) -> list[tuple[str, bytes]]:
            return [(layout.record_key(stem), record.renamed(stored.key).encode())]

        present = await measure_present(self._target.store, staging, is_log=record.is_log)
        for key, measured in present.items():
            alike = measured.sha256 == record.sha256 and measured.crc64 == pin.crc64
            if alike and key == f"{stem}.{measured.kind}":
                receipt = receipt_for(
                    measured, pin, record.size, TransferStats(0, provenance=provenance)
                )
                self._check_dump(record, receipt)
                return staging.record(key, receipt, documents)
        reading = StoreOrigin(record.backup, self._source.store, record.object_key, pin, provenance)
        begun = staging.resumable
        if begun is not None and begun.pin.crc64 != pin.crc64:
            await in_thread(staging.restart)  # parts of another object
        async with dropping_refused(staging):
            try:
                receipt = await download_file(self._shared, reading, staging)
            except CorruptFile:
                # It says what that means of a vendor, who may have meant those bytes.
                raise self._damaged(record) from None
            if receipt.sha256 != record.sha256:
                raise self._damaged(record)
            self._check_dump(record, receipt)
            kept = list[tuple[str, str]]()
            if known or staging.existing:
                kept = await make_way(
                    self._target.store, stem, staging, present, receipt,
                    forced=self._options.replace,
                )  # fmt: skip
        for key, at in kept:
            self._observer(events.KeptAside(key, at))
        return staging.commit(receipt, documents)

    def _note_unsealed(self, record: Record, one: Recorded) -> None:
        """Say once of a set that SHA256SUMS is not whole where it comes from."""
        name = record.name
        if one.is_unsealed and record.folder != self._noted:
            self._noted = record.folder
            why = unsealed(is_of_cluster=record.node_id != record.instance_id)
            self._observer(events.SetUnsealed(record.folder, why))
        elif one.sums is not None and name not in one.sums:
            why = f"{name} is recorded and not in SHA256SUMS"
            self._observer(events.SetUnsealed(record.folder, why))

    def _check_dump(self, record: Record, receipt: Receipt) -> None:
        """Raises IntegrityError where a record says of the file's own version and checksum what is
        not so: somebody edited it, and what is copied must be right in all it says."""
        rdb = record.document["rdb"]
        said = f"version {rdb['version']}, footer {rdb['footer']}"
        found = f"version {receipt.rdb.version}, footer {receipt.rdb.footer}"
        if said != found:
            raise IntegrityError(
                f"{self._source.store}: {record.key} says that the file has {said}, and it has "
                f"{found}",
                hint="verify the archive that it is copied from, and repair it",
            )

    def _damaged(self, record: Record) -> CorruptFile:
        store = self._source.store
        return CorruptFile(
            f"{record.object_key} is damaged in {store}: it has not the checksums of its record",
            hint=f"run archiver verify on {store}; --repair-from mends it",
        )

    async def _why_doubted(self, record: Record) -> str | None:
        """Who in the source speaks against a record that nothing but itself speaks for: it may have
        been changed, together with its object."""
        said = await self._witnesses.of(layout.stem_of(record.key), record)
        against = [who for who, sha256 in said.items() if sha256 != record.sha256]
        if not against or len(said) - len(against) >= 2:
            return None
        return f"{' and '.join(against)} there {'say' if len(against) > 1 else 'says'} otherwise"

    async def _seal(self, folder: str, origin: str) -> None:
        """SHA256SUMS, where the source has it and the target now has all that it names. What was
        replaced takes its line along, and what verifies saw of the bytes before counts no more."""
        try:
            names = await read_sums(self._source.store, origin) or {}
        except (BadDocument, UnreadableObject):  # told of when the set was listed
            names = {}
        there = {entry.key async for entry in self._target.store.entries(f"{folder}/")}
        nodes = {layout.node_of(key) for key in there if layout.is_record(key)}
        is_standard = nodes == {folder.partition("/")[0]}
        ours = [name for name in names if layout.is_object_name(name)]
        is_whole = bool(ours) and all(f"{folder}/{name}" in there for name in ours)
        replaced = {stem for stem in self._replaced if stem.rpartition("/")[0] == folder}
        await forget(self._target.store, replaced)
        if not (is_standard or is_whole or (replaced and layout.sums_key(folder) in there)):
            return
        if not self._writer.is_writer and not await self._target.is_to_be_sealed(folder):
            return
        if await self._writer.begin():
            files = await self._target.seal(folder, confirmed=replaced)
            if files:
                self._observer(events.SetCompleted(folder, files))
