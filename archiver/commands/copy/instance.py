"""One instance of a copy, from its records to its sealed sets.

1. Its records are listed, a set at a time, and each is looked for in the target.
2. At the first that is to be copied the instance's lock is taken, and the target is looked at
   again.
3. What is to be copied goes to the workers, with its record as it is.
4. When all of it has ended, the sets that the source's SHA256SUMS names are named in the target's,
   the months that were written to get their catalogues, and the lock is released.
"""

import functools
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Final

import anyio
from anyio.streams.memory import MemoryObjectSendStream

from archiver import events
from archiver.archive import layout
from archiver.archive.archive import Archive
from archiver.archive.catalogue import Described
from archiver.archive.completeness import SetNodes, parts_of_backups
from archiver.archive.contents import (
    MonthView,
    Recorded,
    SetFiles,
    Unrecorded,
    described,
    record_of,
    walk,
)
from archiver.archive.indexing import Indexing
from archiver.archive.inventory import Compared, Difference, Inventory, expecting
from archiver.archive.reading import unsealed
from archiver.archive.record import Record
from archiver.archive.replacing import (
    Witnesses,
    measure_present,
    prepare_replacement,
    restarting_if_refused,
)
from archiver.archive.sealing import SealPlan, plan_seal
from archiver.archive.verified import forget
from archiver.commands.copy.selection import CopyOptions, Selection, are_one_set, identity
from archiver.commands.summary import Summary
from archiver.commands.writer import InstanceWriter, Locks
from archiver.concurrency import Turns, entered, in_thread
from archiver.errors import ArchiverError, BackupFailed, CorruptFile, IntegrityError, NoSpace
from archiver.model import Kind, Pin, Provenance, Receipt, Stored
from archiver.stores.base import Staging
from archiver.stores.commit import Commit
from archiver.transfer.download import download_file
from archiver.transfer.engine import shared_resources
from archiver.transfer.from_store import StoreOrigin
from archiver.transfer.receipt import TransferStats, receipt_for
from archiver.transfer.resources import SharedResources

# Instances that are listed, and compared with the target, at once.
_LISTED_AT_ONCE: Final = 4
# Months that are listed together, and held, when an instance is closed.
_CLOSED_AT_ONCE: Final = 16


@dataclass(slots=True)
class Shared:
    """What the instances of a run have in common. ``full``: the target is; what is under way may
    still fit, and nothing new is begun."""

    source: Archive
    target: Archive
    options: CopyOptions
    notify: events.Observer
    index: Indexing
    transfer: SharedResources = field(init=False)
    summary: Summary = field(default_factory=Summary)
    turns: Turns = field(default_factory=lambda: Turns(_LISTED_AT_ONCE))
    locks: Locks = field(default_factory=Locks)
    full: NoSpace | None = None

    def __post_init__(self) -> None:
        options = self.options
        self.transfer = shared_resources(options.transfer, options.workers, self.observer)

    def observer(self, event: events.Event) -> None:
        if isinstance(event, events.Advanced):
            event = replace(event, network=None)
        self.summary(event)
        self.notify(event)


def _promised(record: Record) -> tuple[Pin, Provenance]:
    """What its object must be, and where it came from."""
    return Pin(record.size, None, int(record.document["crc64ecma"])), record.provenance


@dataclass(slots=True)
class _Origin:
    """What the source has of a set. ``named`` are the keys that its SHA256SUMS names, and those
    that are lost; ``recorded`` are keys of records: those that are there, and those of the objects
    that are. ``is_doubted``: it cannot be known what SHA256SUMS names, or it, a record and the
    target name different bytes."""

    named: set[str] = field(default_factory=set)
    recorded: set[str] = field(default_factory=set)
    is_doubted: bool = False

    @property
    def is_full(self) -> bool:
        """Whether it is a set of dumps, or may be."""
        return not self.named or any(not key.endswith(f".{Kind.AOF}") for key in self.named)


@dataclass(frozen=True, slots=True)
class Planned:
    """A backup of an instance that is to be copied: its record, the set for it, whether the target
    may know which bytes it should have, and the objects that lie there, by key."""

    instance: "InstanceCopy"
    record: Record
    set_key: str
    known: bool
    present: Mapping[str, int]

    @property
    def stem(self) -> str:
        """The key, without suffix, that its files get."""
        return layout.stem(self.set_key, self.record)


class InstanceCopy:
    """The part of a run that is about one instance."""

    def __init__(
        self,
        shared: Shared,
        instance_id: str,
        prefixes: Sequence[str],
        send: MemoryObjectSendStream[Planned],
    ) -> None:
        self._id: Final = instance_id
        self._shared: Final = shared
        self._source: Final = shared.source
        self._target: Final = shared.target
        self._options: Final = shared.options
        self._observer: Final = shared.observer
        self._prefixes: Final = prefixes
        self._send: Final = send
        self.writer: Final = InstanceWriter(
            shared.target, instance_id, shared.turns, shared.locks, shared.observer
        )
        self._inventory: Final = Inventory(shared.target.store)
        self._witnesses: Final = Witnesses(shared.source.store)
        self._target_says: Final = Witnesses(shared.target.store)
        # By month, a cluster's sets that may lack lines in SHA256SUMS. Of a standard instance, the
        # months.
        self._touched: Final[dict[str, set[str]]] = {}
        # By the set's identity, and by its key in the source: several folders may be one set.
        self._origins: Final[dict[tuple[str, str], dict[str, _Origin]]] = {}
        # By their keys without suffix, files that the target is to take as they are here.
        self._replaced: Final[set[str]] = set()
        # The keys without suffix of what was handed to workers.
        self._begun: Final[set[str]] = set()
        # The set that was last said to have no SHA256SUMS.
        self._noted = ""

    async def run(self) -> None:
        """All of it. Raises what ends the run. Where its lock or its documents find the target
        full, what is under way for others may still fit."""
        try:
            await self._run()
        except NoSpace as error:
            self._shared.full = self._shared.full or error

    async def _run(self) -> None:
        writer = self.writer
        with writer.while_held():
            async with writer.turn():
                for prefix in self._prefixes:
                    await self._enqueue(prefix)
        await writer.nothing_under_way()
        if self._shared.full is None and not writer.is_busy:
            with writer.while_held():
                await self._close()
        self._shared.index.forget(self._id)
        await writer.release()

    async def _close(self) -> None:
        index = self._shared.index
        months = sorted({*self._touched, *index.months_of(self._id)})
        for number, month in enumerate(months):
            try:
                if self.writer.is_writer and number % _CLOSED_AT_ONCE == 0:
                    await index.look_at(months[number : number + _CLOSED_AT_ONCE])
                for set_key, dropped in (await index.check(month)).items():
                    self._observer(events.Failed(set_key, dropped))
                await self._seal(month, self._touched.get(month, set()))
                if self.writer.is_writer:
                    await index.keep(month)
            except ArchiverError as error:
                if error.ends_run:
                    raise
                self._observer(events.Failed(layout.sums_key(month), error))
            index.look_again(month)  # what is known of it is let go of

    async def _enqueue(self, prefix: str) -> None:
        selection = self._options.selection
        found = set[tuple[str, str]]()
        walked = walk(self._source.store, prefix, selection.reaches)
        async with aclosing(expecting(walked, self._inventory)) as expected:
            async for one in expected:
                found.add(identity(layout.set_of(one.key)))
                if isinstance(one, Unrecorded):
                    self._observer(events.Failed(one.key, one.error))
                    self._note_lost(one)
                    continue
                planned = await self._planned(one)
                if self._shared.full is not None or self.writer.is_busy:
                    return
                if planned is not None:
                    self.writer.under_way += 1
                    try:
                        await self._send.send(planned)
                    except anyio.BrokenResourceError:
                        self.writer.ended_one()  # no worker is left: its error is raised
        for failed in await nothing_of(self._source, selection, prefix, found):
            self._observer(failed)

    async def _planned(self, one: Recorded) -> Planned | None:
        """The record under a key, if what it describes is to be copied, and the set for it."""
        key, store = one.key, self._source.store
        try:
            known = await described(store, one.files, key)
            found = None if known is None else await self._found(known)
            if known is None or found is None or self._is_held(known, one, found):
                return None
            record = known if isinstance(known, Record) else await record_of(store, one.files, key)
            if record is None:
                return None
            return await self._to_be_copied(record, one, *found)
        except ArchiverError as error:
            if error.ends_run:
                raise
            self._observer(events.Failed(key, error))
            self._note_origin(one.files)
            return None

    def _is_held(self, known: Described, one: Recorded, found: tuple[str, Compared]) -> bool:
        """Whether there is nothing to be done about a record, which is reported then."""
        set_key, compared = found
        self._note_unsealed(known, one)
        if compared.difference is not Difference.NONE:
            return False
        if (odds := one.files.at_odds(known)) is not None:
            self._observer(events.Failed(known.key, odds))
            self._origin(one.files.key).is_doubted = True
            return True
        if compared.found_wrong is not None:
            self._observer(events.FoundWrong(known, compared.found_wrong))
        self._observer(events.Held(known))
        if not compared.is_named:
            self._touch(set_key, one.files, is_standard=known.is_standard)
        return True

    def _touch(self, set_key: str, origin: SetFiles, *, is_standard: bool) -> None:
        """Note that a set may lack lines in SHA256SUMS."""
        of_month = self._touched.setdefault(layout.month_of(set_key), set())
        if not is_standard:
            of_month.add(set_key)
            self._note_origin(origin)

    def _origin(self, set_key: str) -> _Origin:
        return self._origins.setdefault(identity(set_key), {}).setdefault(set_key, _Origin())

    def _note_origin(self, origin: SetFiles) -> None:
        """Note what the source has of a set, and what its SHA256SUMS names of it."""
        noted = self._origin(origin.key)
        noted.named.update(origin.sums or ())
        noted.recorded.update(
            layout.record_key(layout.stem_of(key))
            for key in origin.entries
            if layout.is_record(key) or layout.is_object(key)
        )
        # A line of the set may be in what cannot be read.
        noted.is_doubted |= origin.sums_fault is not None or origin.lost_line is not None

    def _note_lost(self, lost: Unrecorded) -> None:
        """Note what the source had of a set, or that it cannot be known what it has."""
        noted = self._origin(layout.set_of(lost.key))
        if not layout.is_object(lost.key):
            noted.is_doubted = True
        elif lost.was_recorded:
            noted.named.add(lost.key)

    async def _to_be_copied(
        self, record: Record, one: Recorded, set_key: str, compared: Compared
    ) -> Planned | None:
        difference, backup = compared.difference, record.backup
        odds = one.files.at_odds(record)
        if odds is not None and not await self._why_doubted(record):
            self._observer(events.Failed(record.key, odds, backup))
        if difference is Difference.OTHER and not self._options.replace:
            self._observer(events.Failed(record.key, self._at_odds(record, set_key), backup))
            self._origin(record.set_key).is_doubted = True
            return None
        stem = layout.stem(set_key, record)
        if difference is Difference.DAMAGED:
            why = await self._inventory.in_its_place(stem) or compared.why or difference
            self._observer(events.Damaged(backup, why, "copying it again"))
        if difference is not Difference.MISSING:
            await self._clear([layout.record_key(stem)])
        self._observer(events.Planned(backup))
        self._touch(set_key, one.files, is_standard=record.is_standard)
        self._begun.add(stem)
        known, present = await self._inventory.knows(stem), await self._inventory.present(stem)
        return Planned(self, record, set_key, known, present)

    async def _found(self, record: Described) -> tuple[str, Compared] | None:
        """The set for it in the target, and how that holds it: seen as the one writer, if there
        is something to write. None where another process is."""
        found = await self._compared(record)
        is_begun = layout.stem(found[0], record) in self._begun
        if not self._is_to_be_copied(found[1]) or (self.writer.is_writer and not is_begun):
            return found
        if is_begun:  # from another folder of the source: it comes first
            await self.writer.nothing_under_way()
        if not await self.writer.begin_out_of_turn():
            return None
        # Another writer, or a worker, may have written it meanwhile.
        self._inventory.look_again()
        self._target_says.look_again()
        return await self._compared(record)

    async def _compared(self, record: Described) -> tuple[str, Compared]:
        """The set for it in the target, and how that holds it."""
        set_key = await self._inventory.set_for(record)
        compared = await self._inventory.compare(record, set_key)
        if compared.difference is not Difference.NONE:
            return set_key, compared
        if await self._is_outvoted(record, set_key):
            return set_key, Compared(Difference.OTHER)
        is_named = await self._inventory.is_in_sums(record, set_key)
        return set_key, replace(compared, is_named=is_named)

    def _is_to_be_copied(self, compared: Compared) -> bool:
        if compared.difference is Difference.OTHER:
            return self._options.replace
        return compared.difference is not Difference.NONE

    async def _is_outvoted(self, record: Described, set_key: str) -> bool:
        """Whether the target has the same record, and is to take it for right: a run that
        replaced it ended before its SHA256SUMS followed."""
        if not self._options.replace:
            return False
        said = await self._target_says.of(layout.stem(set_key, record), record)
        return any(sha256 != record.sha256 for sha256 in said.values())

    def _at_odds(self, record: Record, set_key: str) -> IntegrityError:
        return IntegrityError(
            f"{self._source.store}: {record.key} and {self._target.store}: "
            f"{layout.moved(record.key, set_key)} name different bytes of the same backup; it was "
            "not copied",
            hint="verify both; copy --replace copies what the first has, and keeps the other's in "
            ".quarantine/",
        )

    async def _clear(self, keys: Iterable[str]) -> None:
        """Make room for files of the target where something else has their names."""
        for key in keys:
            kept = await self._target.store.clear(key)
            if kept is not None:
                self._observer(events.Cleared(key, kept))

    async def copy(self, one: Planned) -> None:
        """One backup: read, compared with its record, written, and recorded as it was."""
        record, stem, known = one.record, one.stem, one.known
        store = self._target.store
        async with entered(store.stage(stem, record.size, one.present)) as staging:
            commit = await self._commit(record, stem, staging, known=known)
            [stored] = await in_thread(store.finish, [commit])
        self._shared.index.wrote(stored)
        if self._options.replace and known:
            self._replaced.add(stem)
        for key, kept in stored.cleared:
            self._observer(events.Cleared(key, kept))
        self._observer(events.Archived.of(record.backup, stored))

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
        opening = functools.partial(self._source.store.open, record.object_key)
        reading = StoreOrigin(record.backup, opening, pin, provenance)
        begun = staging.resumable
        if begun is not None and begun.pin.crc64 != pin.crc64:
            await in_thread(staging.restart)  # parts of another object
        async with restarting_if_refused(staging):
            try:
                receipt = await download_file(self._shared.transfer, reading, staging)
            except CorruptFile:
                # It says what that means of a vendor, who may have meant those bytes.
                raise self._damaged(record) from None
            if receipt.sha256 != record.sha256:
                raise self._damaged(record)
            self._check_dump(record, receipt)
            kept = list[tuple[str, str]]()
            if known or staging.existing:
                kept = await prepare_replacement(
                    self._target_says, stem, staging, present, receipt,
                    forced=self._options.replace,
                )  # fmt: skip
        for key, at in kept:
            self._observer(events.KeptAside(key, at))
        return staging.commit(receipt, documents)

    def _note_unsealed(self, record: Described, one: Recorded) -> None:
        """Say once of a set that SHA256SUMS does not name all of it where it comes from."""
        if record.object_key in (one.files.sums or {}) or one.files.doubt is not None:
            return  # told of its month, or there is nothing to tell
        if one.files.sums is not None:
            why = f"{record.object_key} has a record, but no line in SHA256SUMS"
            self._observer(events.SetUnsealed(record.set_key, why))
        elif record.set_key != self._noted:
            self._noted = record.set_key
            why = unsealed(is_of_cluster=not record.is_standard)
            self._observer(events.SetUnsealed(record.set_key, why))

    def _check_dump(self, record: Record, receipt: Receipt) -> None:
        """Raises IntegrityError where a record says of the file's own version and checksum what is
        not so: somebody edited it, and what is copied must be right in all it says."""
        rdb = record.document["rdb"]
        said = f"version {rdb['version']}, footer {rdb['footer']}"
        found = f"version {receipt.rdb.version}, footer {receipt.rdb.footer}"
        if said != found:
            raise IntegrityError(
                f"{self._source.store}: {record.key} says that the file has {said}, but it has "
                f"{found}",
                hint="verify the archive that it is copied from, and repair it",
            )

    def _damaged(self, record: Record) -> CorruptFile:
        store = self._source.store
        return CorruptFile(
            f"{record.object_key} is damaged in {store}: it does not match the checksums in its "
            "record",
            hint=f"run archiver verify on {store}; --repair-from mends it",
        )

    async def _why_doubted(self, record: Record) -> str | None:
        """Which witnesses in the source contradict a record that nothing else confirms: it may have
        been changed, together with its object. None if nothing contradicts it."""
        said = await self._witnesses.of(layout.stem_of(record.key), record)
        against = [who for who, sha256 in said.items() if sha256 != record.sha256]
        if not against or len(said) - len(against) >= 2:
            return None
        return f"{' and '.join(against)} there {'disagree' if len(against) > 1 else 'disagrees'}"

    async def _seal(self, month: str, sets: Collection[str]) -> None:
        """Name in SHA256SUMS the sets that the source's names, once the target has all that it
        names of them, and those of a standard instance. What was replaced takes its line along, and
        what verifies saw of the bytes before counts no more."""
        store = self._target.store
        replaced = {stem for stem in self._replaced if layout.month_of(stem) == month}
        await forget(store, replaced)
        index = self._shared.index
        plan, view = await self._plan_seal(month, sets, replaced)
        if plan.is_due and not self.writer.is_writer:
            if not await self.writer.begin():
                return
            index.look_again(month)
            plan, view = await self._plan_seal(month, sets, replaced)
        await plan.write(store, view)
        for set_key, error in plan.failed.items():
            self._observer(events.Failed(set_key, error))
        for set_key in sorted(plan.files):
            self._observer(events.SetCompleted(set_key, plan.files[set_key]))

    async def _plan_seal(
        self, month: str, sets: Collection[str], replaced: Collection[str]
    ) -> tuple[SealPlan, MonthView]:
        index = self._shared.index
        view = await index.view(month)
        whole = self._whole(month, sets, view.there)
        plan = await plan_seal(
            self._target.store,
            view,
            whole,
            confirmed=replaced,
            written=index.records(month),
            known=index.known(view),
        )
        return plan, view

    def _whole(self, month: str, sets: Collection[str], there: frozenset[str]) -> set[str]:
        """Those of the sets in a month that are whole; where each shard has a set of its own, only
        if those of the others are."""
        found = {one for one in sets if self._is_whole(one, there)}
        of_source = [
            SetNodes(key, start, frozenset(map(layout.node_of, origin.named)), origin.is_full)
            for alike in self._origins.values()
            for key, origin in alike.items()
            if layout.month_of(key) == month and (start := layout.set_start(key)) is not None
        ]
        for parts in parts_of_backups(of_source).values():
            if not all(self._is_whole(one, there) for one in parts):
                found -= set(parts)
        return found

    def _is_whole(self, set_key: str, there: frozenset[str]) -> bool:
        """Whether each record that the source has of a set, and all that its SHA256SUMS names of
        it, is there; that the object of each is, too, :func:`plan_seal` checks. False for a set
        that SHA256SUMS does not name, or may name in a line that cannot be read."""
        alike = self._origins.get(identity(set_key), {})
        origins = [one for key, one in alike.items() if are_one_set(key, set_key)]
        files = {layout.moved(key, set_key) for one in origins for key in one.named}
        records = {layout.record_key(layout.stem_of(key)) for key in files}
        records |= {layout.moved(key, set_key) for one in origins for key in one.recorded}
        is_known = any(one.named for one in origins)
        is_known &= not any(one.is_doubted for one in origins)
        return is_known and files | records <= there


async def nothing_of(
    source: Archive, selection: Selection, prefix: str, found: Collection[tuple[str, str]]
) -> list[events.Failed]:
    """What was asked for by its name below a prefix, and of which the source has nothing; ``found``
    are the sets that were met there. Raises StoreError."""
    failures: list[events.Failed] = []
    for name in selection.named(prefix):
        if name == prefix and found:
            continue
        if name != prefix and identity(name) in found:
            continue
        entries = source.store.entries(prefix)
        async with aclosing(entries):
            if await anext((e async for e in entries if _is_of(e.key, name)), None) is None:
                nothing = BackupFailed(f"{source.store} has no backup of {name.strip('/')}")
                failures.append(events.Failed(name, nothing))
    return failures


def _is_of(key: str, name: str) -> bool:
    """Whether a record is one of an instance (``<instance>/``), or of a set."""
    return layout.is_record(key) and (key.startswith(name) or layout.set_of(key) == name)
