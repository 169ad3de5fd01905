"""Repairing from another archive.

What it holds is measured against everything written there, as a verify does. When the two
archives' records differ, the one is believed whose checksum the measured bytes have; and the
bytes are taken only if some witness here speaks for them, or none is left. They come in parts, as
in a copy, so that memory does not grow with the file, whatever either archive is kept in.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from archiver import events as pull_events
from archiver.archive import layout
from archiver.archive.archive import TOOL, Archive
from archiver.archive.contents import view_month
from archiver.archive.inventory import Inventory
from archiver.archive.measure import measure, new_block
from archiver.archive.reading import MonthSums, read_record
from archiver.archive.record import Record
from archiver.archive.replacing import (
    Witnesses,
    measure_present,
    prepare_replacement,
    restarting_if_refused,
)
from archiver.archive.sealing import SumsRepair, plan_seal
from archiver.archive.sums import given_by
from archiver.commands.repair.other_archive import elsewhere, sums_if_any
from archiver.commands.repair.receipts import receipt_of
from archiver.commands.repair.run import Supplied, WrongSet, not_written
from archiver.commands.verify import events
from archiver.commands.verify.findings import Fault
from archiver.commands.verify.judge import judge
from archiver.commands.verify.statements import Claims
from archiver.concurrency import entered, in_thread
from archiver.errors import (
    ArchiverError,
    BackupFailed,
    BadDocument,
    CorruptFile,
    IntegrityError,
    ObjectMissing,
    StoreError,
    UnreadableObject,
)
from archiver.model import Measured, Pin, Stored
from archiver.stores.scope import scope_of
from archiver.times import format_iso
from archiver.transfer.download import download_file
from archiver.transfer.engine import TransferOptions, shared_resources
from archiver.transfer.from_store import StoreOrigin


@dataclass(frozen=True, slots=True)
class _TheirMonth:
    """What the other archive has of a month, by the keys that it has here: the SHA-256 that
    SHA256SUMS gives, and the keys of the records there. Where a set lies in two folders, as after a
    copy by hand, what both have counts as the likelier one has it. ``doubted`` are sets that it may
    name more files of, in a line that cannot be read."""

    sums: Mapping[str, str]
    records: Mapping[str, str]
    doubted: frozenset[str]


class ArchiveSupplier:
    """Takes what is wrong from ``other``, as its records, SHA256SUMS and bytes agree there."""

    def __init__(self, other: Archive, transfer: TransferOptions | None = None) -> None:
        self._other: Final = other
        self._transfer: Final = transfer or TransferOptions()

    async def supply(
        self, archive: Archive, wrong: Mapping[str, WrongSet], observer: events.Observer
    ) -> Supplied:
        """See Supplier. Raises UsageError, UnsupportedFormat, StoreError."""
        await self._other.expect()
        failed: list[events.NotRepaired] = []
        confirmed = set[str]()
        block = await in_thread(new_block)
        there = Inventory(self._other.store)
        by_instance: dict[str, dict[str, list[WrongSet]]] = {}
        for key, one in wrong.items():
            months = by_instance.setdefault(scope_of(key), {})
            months.setdefault(layout.month_of(key), []).append(one)

        async def mend(instance_id: str) -> None:
            for month, some in by_instance[instance_id].items():
                mending = _MonthMending(
                    archive, self._other, there, month, some, block, self._transfer, observer
                )
                confirmed.update(await mending.run())
                failed.extend(mending.not_repaired)

        busy = await archive.for_each(by_instance, mend, observer)
        failed += not_written(wrong, busy, observer)
        return Supplied(frozenset(confirmed), tuple(failed))


class _MonthMending:
    """What is wrong in one month."""

    def __init__(
        self,
        archive: Archive,
        other: Archive,
        there: Inventory,
        month: str,
        wrong: Sequence[WrongSet],
        block: memoryview,
        transfer: TransferOptions,
        observer: events.Observer,
    ) -> None:
        self._archive: Final = archive
        self._store: Final = archive.store
        self._witnesses: Final = Witnesses(archive.store)
        self._other: Final = other
        self._there: Final = there
        self._month: Final = month
        self._wrong: Final = {one.key: one for one in wrong}
        self._block: Final = block
        self._tell: Final = observer
        self._shared: Final = shared_resources(transfer, 1, self._carried)
        self.not_repaired: Final[list[events.NotRepaired]] = []

    async def run(self) -> set[str]:
        """Everything that can be put right of it; the stems that were."""
        our_sums = await sums_if_any(self._store, self._month)
        try:
            with elsewhere():
                theirs = await self._their_month()
        except ArchiverError as error:
            if error.ends_run:
                raise
            for one in self._wrong.values():
                for key in one.subjects:
                    self._not_repaired(key, error)
            return set()
        stems = {stem for one in self._wrong.values() for stem in one.stems}
        differing = {
            layout.stem_of(key)
            for key in theirs.records
            if self._is_doubted(key) and await self._differs(key, theirs)
        }
        confirmed = await self._mend_all(stems | differing, theirs, our_sums)
        await self._seal(our_sums, theirs, confirmed, (stems | differing) - confirmed)
        return confirmed

    def _is_doubted(self, record_key: str) -> bool:
        """Whether a set, or the month, may lack files that nothing here names."""
        keys = (layout.set_of(record_key), self._month)
        return any(key in self._wrong and self._wrong[key].whole for key in keys)

    async def _differs(self, record_key: str, theirs: _TheirMonth) -> bool:
        """Whether a record is missing here, or names other bytes than the other archive does."""
        try:
            ours = await read_record(self._store, record_key)
        except (BadDocument, UnreadableObject):
            return True
        if ours is None:
            return True
        said = theirs.sums.get(ours.object_key)
        if said is None:
            with suppress(BackupFailed, BadDocument, UnreadableObject), elsewhere():
                own = await read_record(self._other.store, theirs.records[record_key])
                said = own.sha256 if own is not None else None
        return said not in (None, ours.sha256)

    async def _their_month(self) -> _TheirMonth:
        """What the other archive has of our month. Raises what hides it there, StoreError."""
        ours, lists = Inventory(self._store), self._other.store
        sums, records = dict[str, str](), dict[str, str]()
        wanted = [key for key in self._wrong if key != self._month]
        theirs = {key: await self._there.sets_like(key) for key in wanted}
        months = {self._month, *(layout.month_of(one) for some in theirs.values() for one in some)}
        views = {month: await view_month(lists, month, {}) for month in sorted(months)}
        listed = {month: view.listed for month, view in views.items()}
        taken = {one for some in theirs.values() for one in some}
        for one in listed[self._month].sets:
            if one not in taken:
                [ours_of_it, *_] = await ours.sets_like(one)
                theirs.setdefault(ours_of_it, [one])
        said = {month: MonthSums.of(await sums_if_any(lists, month)).by_set for month in listed}
        for our_key, some in theirs.items():
            for one in reversed(some):  # of what is told twice, the first one counts
                month = layout.month_of(one)
                lines = said[month].get(one, {})
                sums |= {layout.moved(key, our_key): sha256 for key, sha256 in lines.items()}
                entries = listed[month].sets.get(one, {})
                records |= {
                    layout.moved(key, our_key): key for key in filter(layout.is_record, entries)
                }
        doubted = {one.key for view in views.values() for one in view.sets if one.doubt is not None}
        return _TheirMonth(
            sums,
            records,
            frozenset(our for our, some in theirs.items() if not doubted.isdisjoint(some)),
        )

    async def _mend_all(
        self, stems: set[str], theirs: _TheirMonth, our_sums: Mapping[str, str]
    ) -> set[str]:
        """Those that were put right."""
        confirmed = set[str]()
        for stem in sorted(stems):
            wrong = self._wrong_set(stem)
            try:
                await self._mend(stem, wrong, theirs, our_sums)
                confirmed.add(stem)
            except ArchiverError as error:
                if error.ends_run:
                    raise
                self._not_repaired(wrong.key_of(stem), error)
        return confirmed

    def _wrong_set(self, stem: str) -> WrongSet:
        set_key = layout.set_of(layout.record_key(stem))
        return self._wrong.get(set_key, WrongSet(set_key))

    async def _mend(
        self,
        stem: str,
        wrong: WrongSet,
        their_month: _TheirMonth,
        our_sums: Mapping[str, str],
    ) -> None:
        """One object and its record. Raises IntegrityError, BackupFailed, StoreError."""
        record_key = layout.record_key(stem)
        with elsewhere():
            theirs = await read_record(
                self._other.store, their_month.records.get(record_key, record_key)
            )
        if theirs is None:
            lacking = BackupFailed(f"{stem}: {self._other.store} does not have it")
            raise wrong.absent(stem, lacking)
        object_key = layout.moved(theirs.object_key, wrong.key)
        measured = await self._measure_theirs(theirs, their_month.sums.get(object_key))
        ours = await self._our_record(stem)
        await self._compare(stem, ours, measured, our_sums.get(object_key))
        # Ours may have the right SHA-256, and something else that the bytes contradict.
        trusted = theirs if ours is None or judge(Claims(ours), measured) else ours
        key = f"{stem}.{measured.kind}"
        document = self._document(trusted, key, wrong.stems.get(stem))
        await self._clear(record_key)
        if await self._is_right(key, measured):
            if trusted is theirs or wrong.stems.get(stem) != {Fault.SUMS}:
                await self._store.put(record_key, document)
        else:
            await self._copy(theirs, trusted, measured, stem, document)
        self._tell(events.Repaired(key, str(self._other.store)))

    async def _clear(self, *keys: str) -> None:
        """Make room for files of this archive where something else has their names."""
        for key in keys:
            kept = await self._store.clear(key)
            if kept is not None:
                self._tell(pull_events.Cleared(key, kept))

    async def _measure_theirs(self, theirs: Record, sums: str | None) -> Measured:
        self._tell(events.ToRead(1, theirs.size))
        with elsewhere():
            measured = await measure(
                self._other.store, theirs.object_key, theirs.size, self._block, self._advanced,
                is_log=theirs.is_log,
            )  # fmt: skip
        if wrong := judge(Claims(theirs, sums), measured):
            raise IntegrityError(f"{theirs.key}: wrong in {self._other.store}, too: {wrong[0]}")
        return measured

    async def _our_record(self, stem: str) -> Record | None:
        """Our record, if it can be believed."""
        try:
            return await read_record(self._store, layout.record_key(stem))
        except (BadDocument, UnreadableObject):
            return None

    async def _compare(
        self, stem: str, ours: Record | None, measured: Measured, sums: str | None
    ) -> None:
        """Refuse bytes that everybody here speaks against. Raises IntegrityError."""
        said: dict[str, bool] = {}
        if ours is not None:
            said["the record"] = ours.sha256 == measured.sha256
        if sums is not None:
            said["SHA256SUMS"] = measured.sha256 in given_by(sums)
        known = await self._witnesses.seen_in(self._month)
        seen = known.get(f"{stem}.{measured.kind}")
        if seen is not None and seen.sha256 is not None:
            said["an earlier verify"] = seen.sha256 == measured.sha256
        declared = Claims(ours).crc64_declared if ours is not None else None
        if said.keys() == {"the record"} and declared is not None:
            # Alone: other bytes can be made to have it.
            said["the CRC-64 of the source"] = declared == measured.crc64
        if said and not any(said.values()):
            raise IntegrityError(
                f"{stem}: {self._other.store} has other bytes, which agree there, and "
                f"{' and '.join(said)} here say otherwise",
                hint="find out which archive was tampered with",
            )

    async def _is_right(self, key: str, measured: Measured) -> bool:
        """Whether our object has those bytes, so that its record alone is wanted."""
        if await self._store.size(key) != measured.size:
            return False
        try:
            own = await measure(
                self._store, key, measured.size, self._block, self._advanced,
                is_log=False,  # its SHA-256 is what counts
            )  # fmt: skip
        except (ObjectMissing, StoreError):
            return False
        return own.sha256 == measured.sha256

    def _document(self, trusted: Record, key: str, faults: Collection[Fault] | None) -> bytes:
        """The record to be written: as it was, and that it was repaired."""
        why = sorted(faults or {Fault.MISSING})
        repair = {
            "at": format_iso(datetime.now(UTC)),
            "from": str(self._other.store),
            "why": [str(fault) for fault in why],
            "tool": TOOL,
        }
        document: dict[str, Any] = dict(trusted.document)
        document["object"] = key.rpartition("/")[2]
        document["repairs"] = [*document.get("repairs", []), repair]
        return f"{json.dumps(document, indent=2)}\n".encode("ascii")

    async def _copy(
        self, theirs: Record, trusted: Record, measured: Measured, stem: str, document: bytes
    ) -> None:
        """Their object into our place, and the record after it.

        Raises CorruptFile when it is not what was measured, SourceUnavailable when it cannot be
        read any more, StoreError of our own store.
        """
        receipt = receipt_of(trusted, measured)
        pin = Pin(measured.size, None, measured.crc64)
        origin = StoreOrigin(
            theirs.backup, self._other.store, theirs.object_key, pin, receipt.provenance
        )
        self._tell(events.ToRead(1, measured.size))

        def documents(_: Stored) -> list[tuple[str, bytes]]:
            return [(layout.record_key(stem), document)]

        async with entered(self._store.stage(stem, measured.size)) as staging:
            begun = staging.resumable
            if begun is not None and begun.pin.crc64 != measured.crc64:
                await in_thread(staging.restart)  # parts of another object
            present = await measure_present(self._store, staging, is_log=theirs.is_log)
            async with restarting_if_refused(staging):
                carried = await download_file(self._shared, origin, staging)
                if carried.sha256 != measured.sha256:
                    raise CorruptFile(f"{theirs.object_key}: it changed while it was copied")
                kept = await prepare_replacement(self._witnesses, stem, staging, present, receipt)
            for key, at in kept:
                self._tell(pull_events.KeptAside(key, at))
            commit = staging.commit(receipt, documents)
            [stored] = await in_thread(self._store.finish, [commit])
        for key, at in stored.cleared:
            self._tell(pull_events.Cleared(key, at))

    def _carried(self, event: pull_events.Event) -> None:
        """Of what a transfer tells, what a verify has words for."""
        if isinstance(event, pull_events.Advanced):
            self._tell(events.Advanced(event.fetched))
        elif isinstance(event, pull_events.Retrying | pull_events.Mending):
            self._tell(event)

    async def _seal(
        self,
        our_sums: Mapping[str, str],
        theirs: _TheirMonth,
        confirmed: set[str],
        failed: set[str],
    ) -> None:
        """Write SHA256SUMS: what there is of it goes on naming what it names. It gets the lines of
        sets of which all is here that either archive names, but for what it names itself; and
        nothing that is here failed."""
        key, their_sums = layout.sums_key(self._month), theirs.sums
        view = await view_month(self._store, self._month, {})
        names = {one for one in our_sums.keys() | their_sums.keys() if layout.is_object(one)}
        missing = names - view.there
        others: dict[str, str] = {}
        if view.listed.sums is not None:  # without it, nothing is named that is not here
            others = {
                one: their_sums[one]
                for one in missing & their_sums.keys()
                if not self._wrong.keys().isdisjoint((layout.set_of(one), self._month))
                and len(given_by(their_sums[one])) == 1
            }
        gone = {layout.stem_of(one) for one in missing & (our_sums.keys() | others.keys())}
        lacking = {layout.set_of(one) for one in missing - our_sums.keys() - others.keys()}
        lacking |= theirs.doubted
        lacking |= {layout.set_of(layout.record_key(stem)) for stem in failed - gone}
        objects = filter(layout.is_object, view.there)
        knows_all = bool(their_sums) and their_sums.keys() >= set(objects)
        plan = await plan_seal(
            self._store,
            view,
            {layout.set_of(one) for one in names} - lacking,
            confirmed=confirmed,
            repair=SumsRepair(their_sums, others, knows_all=knows_all),
        )
        try:
            await plan.write(self._store, view)
        except (IntegrityError, UnreadableObject) as error:
            self._not_repaired(key, error)
            return
        if plan.data is not None:
            self._tell(events.Repaired(key, str(self._other.store)))
        for place, why in plan.failed.items():
            if not self.not_repaired:  # it follows from what was not
                self._not_repaired(place, why)

    def _not_repaired(self, key: str, error: ArchiverError) -> None:
        event = events.NotRepaired(key, error)
        self.not_repaired.append(event)
        self._tell(event)

    @property
    def _advanced(self) -> Callable[[int], None]:
        return lambda size: self._tell(events.Advanced(size))
