"""Repairing from another archive.

What it holds is measured against everything written there, as a verify does. When the two
archives' records differ, the one is believed whose checksum the measured bytes have; and the
bytes are taken only if some witness here confirms them, or no witness is left. They are copied in
parts, so that memory does not grow with the file, whatever either archive is kept in.
"""

import functools
import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

from archiver import events as pull_events
from archiver.archive import layout
from archiver.archive.archive import TOOL, Archive
from archiver.archive.contents import MonthView, view_month
from archiver.archive.inventory import Inventory
from archiver.archive.measure import measure, new_block
from archiver.archive.reading import read_record
from archiver.archive.record import Record
from archiver.archive.replacing import (
    Witnesses,
    measure_present,
    prepare_replacement,
    restarting_if_refused,
)
from archiver.archive.sealing import SumsRepair, plan_seal
from archiver.archive.sums import given_by
from archiver.commands.repair.other_archive import (
    OtherArchive,
    OtherMonth,
    readable_lines,
    reading_other,
    receipt_of,
)
from archiver.commands.repair.run import Supplied, WrongSet, not_written
from archiver.commands.verify import events
from archiver.commands.verify.findings import NAMED_ALONE, Fault
from archiver.commands.verify.judge import judge
from archiver.commands.verify.statements import Statements
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


class ArchiveSupplier:
    """Supplies the bytes of ``other``, if its records, SHA256SUMS and bytes agree."""

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
        other = OtherArchive(self._other.store)
        by_instance: dict[str, dict[str, list[WrongSet]]] = {}
        for key, one in wrong.items():
            months = by_instance.setdefault(scope_of(key), {})
            months.setdefault(layout.month_of(key), []).append(one)

        async def repair_instance(instance_id: str) -> None:
            for month, some in by_instance[instance_id].items():
                repair = _MonthRepair(archive, other, month, some, block, self._transfer, observer)
                confirmed.update(await repair.run())
                failed.extend(repair.not_repaired)

        busy = await archive.for_each(by_instance, repair_instance, observer)
        failed += not_written(wrong, busy, observer)
        return Supplied(frozenset(confirmed), tuple(failed))


class _MonthRepair:
    """Repairs what is wrong in one month."""

    def __init__(
        self,
        archive: Archive,
        other: OtherArchive,
        month: str,
        wrong: Sequence[WrongSet],
        block: memoryview,
        transfer: TransferOptions,
        observer: events.Observer,
    ) -> None:
        self._store: Final = archive.store
        self._witnesses: Final = Witnesses(archive.store)
        self._other: Final = other
        self._month: Final = month
        self._wrong: Final = {one.key: one for one in wrong}
        self._block: Final = block
        self._observer: Final = observer
        self._shared: Final = shared_resources(transfer, 1, self._observe_transfer)
        self.not_repaired: Final[list[events.NotRepaired]] = []

    async def run(self) -> set[str]:
        """Repair all that can be repaired; return the stems that were."""
        our_sums = await readable_lines(self._store, self._month)
        sets = [key for key in self._wrong if key != self._month]
        try:
            with reading_other():
                theirs = await self._other.month(Inventory(self._store), self._month, sets)
        except ArchiverError as error:
            if error.ends_run:
                raise
            for one in self._wrong.values():
                for key in one.subjects:
                    self._not_repaired(key, error)
            return set()
        stems = {stem for one in self._wrong.values() for stem in one.stems}
        stems |= {
            layout.stem_of(key)
            for key in theirs.records
            if self._may_lack_files(layout.set_of(key)) and await self._differs(key, theirs)
        }
        confirmed = await self._repair_all(stems, theirs, our_sums)
        await self._write_sums(our_sums, theirs, confirmed, stems - confirmed)
        return confirmed

    def _may_lack_files(self, set_key: str) -> bool:
        """Whether a set, or the month, may lack files that nothing here names."""
        return any(key in self._wrong and self._wrong[key].whole for key in (set_key, self._month))

    async def _differs(self, record_key: str, theirs: OtherMonth) -> bool:
        """Whether a record is missing here, or names other bytes than the other archive does."""
        ours = await self._our_record(record_key)
        if ours is None:
            return True
        their_sha256 = theirs.sums.get(ours.object_key)
        if their_sha256 is None:
            with suppress(BackupFailed, BadDocument, UnreadableObject), reading_other():
                own = await read_record(self._other.store, theirs.records[record_key])
                their_sha256 = own.sha256 if own is not None else None
        return their_sha256 not in (None, ours.sha256)

    async def _repair_all(
        self, stems: set[str], theirs: OtherMonth, our_sums: Mapping[str, str]
    ) -> set[str]:
        """Repair these backups; return the stems of those that were."""
        confirmed = set[str]()
        for stem in sorted(stems):
            set_key = layout.set_of(layout.record_key(stem))
            wrong = self._wrong.get(set_key, WrongSet(set_key))
            try:
                await self._repair(stem, wrong, theirs, our_sums)
                confirmed.add(stem)
            except ArchiverError as error:
                if error.ends_run:
                    raise
                self._not_repaired(wrong.key_of(stem), error)
        return confirmed

    async def _repair(
        self, stem: str, wrong: WrongSet, their_month: OtherMonth, our_sums: Mapping[str, str]
    ) -> None:
        """Repair one object and its record. Raises IntegrityError, BackupFailed, StoreError."""
        record_key = layout.record_key(stem)
        with reading_other():
            theirs = await read_record(
                self._other.store, their_month.records.get(record_key, record_key)
            )
        if theirs is None:
            raise wrong.absent(stem, BackupFailed(f"{stem}: {self._other.store} does not have it"))
        object_key = layout.moved(theirs.object_key, wrong.key)
        measured = await self._measure_theirs(theirs, their_month.sums.get(object_key))
        ours = await self._our_record(record_key)
        await self._check_witnesses(stem, ours, measured, our_sums.get(object_key))
        # Ours may have the right SHA-256, and something else that the bytes contradict.
        trusted = theirs if ours is None or judge(Statements(ours), measured) else ours
        key = f"{stem}.{measured.kind}"
        document = self._document(trusted, key, wrong.stems.get(stem))
        kept = await self._store.clear(record_key)
        if kept is not None:
            self._observer(pull_events.Cleared(record_key, kept))
        if await self._is_right(key, measured):
            if trusted is theirs or wrong.stems.get(stem) != {Fault.SUMS}:
                await self._store.put(record_key, document)
        else:
            await self._copy(theirs, trusted, measured, stem, document)
        self._observer(events.Repaired(key, str(self._other.store)))

    async def _measure_theirs(self, theirs: Record, sums: str | None) -> Measured:
        self._observer(events.ToRead(1, theirs.size))
        with reading_other():
            measured = await measure(
                self._other.store, theirs.object_key, theirs.size, self._block, self._advanced,
                is_log=theirs.is_log,
            )  # fmt: skip
        if wrong := judge(Statements(theirs, sums), measured):
            raise IntegrityError(f"{theirs.key}: wrong in {self._other.store}, too: {wrong[0]}")
        return measured

    async def _our_record(self, key: str) -> Record | None:
        """Our record, if it can be believed."""
        try:
            return await read_record(self._store, key)
        except (BadDocument, UnreadableObject):
            return None

    async def _check_witnesses(
        self, stem: str, ours: Record | None, measured: Measured, sums: str | None
    ) -> None:
        """Raise IntegrityError for bytes that all witnesses here contradict."""
        agrees: dict[str, bool] = {}
        if ours is not None:
            agrees["the record"] = ours.sha256 == measured.sha256
        if sums is not None:
            agrees["SHA256SUMS"] = measured.sha256 in given_by(sums)
        verified = (await self._witnesses.seen_in(self._month)).get(f"{stem}.{measured.kind}")
        if verified is not None and verified.sha256 is not None:
            agrees["an earlier verify"] = verified.sha256 == measured.sha256
        declared = Statements(ours).crc64_declared if ours is not None else None
        if agrees.keys() == {"the record"} and declared is not None:
            # Only without other witnesses: other bytes can be made to have this CRC-64.
            agrees["the CRC-64 of the source"] = declared == measured.crc64
        if agrees and not any(agrees.values()):
            raise IntegrityError(
                f"{stem}: the bytes in {self._other.store} agree with its record there, and "
                f"contradict {' and '.join(agrees)} here",
                hint="find out which archive was tampered with",
            )

    async def _is_right(self, key: str, measured: Measured) -> bool:
        """Whether our object has these bytes already, so that only its record is missing."""
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
        """The record to write: the trusted one, with a note about this repair."""
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
        """Copy their object, and then write the record.

        Raises CorruptFile when the object changed since it was measured, SourceUnavailable when it
        cannot be read any more, StoreError of our own store.
        """
        receipt = receipt_of(trusted, measured)
        pin = Pin(measured.size, None, measured.crc64)
        opening = functools.partial(self._other.store.open, theirs.object_key)
        origin = StoreOrigin(theirs.backup, opening, pin, receipt.provenance)
        self._observer(events.ToRead(1, measured.size))

        def documents(_: Stored) -> list[tuple[str, bytes]]:
            return [(layout.record_key(stem), document)]

        async with entered(self._store.stage(stem, measured.size)) as staging:
            partial = staging.resumable
            if partial is not None and partial.pin.crc64 != measured.crc64:
                await in_thread(staging.restart)  # parts of another object
            present = await measure_present(self._store, staging, is_log=theirs.is_log)
            async with restarting_if_refused(staging):
                copied = await download_file(self._shared, origin, staging)
                if copied.sha256 != measured.sha256:
                    raise CorruptFile(f"{theirs.object_key}: it changed while it was copied")
                kept = await prepare_replacement(self._witnesses, stem, staging, present, receipt)
            for key, at in kept:
                self._observer(pull_events.KeptAside(key, at))
            commit = staging.commit(receipt, documents)
            [stored] = await in_thread(self._store.finish, [commit])
        for key, at in stored.cleared:
            self._observer(pull_events.Cleared(key, at))

    def _observe_transfer(self, event: pull_events.Event) -> None:
        """Report those events of a transfer that a verify has words for."""
        if isinstance(event, pull_events.Advanced):
            self._observer(events.Advanced(event.fetched))
        elif isinstance(event, pull_events.Retrying | pull_events.Mending):
            self._observer(event)

    async def _write_sums(
        self,
        our_sums: Mapping[str, str],
        theirs: OtherMonth,
        confirmed: set[str],
        failed: set[str],
    ) -> None:
        """Write SHA256SUMS, which keeps its names. It gets the lines of sets of which all that
        either archive names is here, or lost and named here, and nothing here failed."""
        view = await view_month(self._store, self._month, {})
        names = set(filter(layout.is_object, our_sums.keys() | theirs.sums.keys()))
        missing = (names | theirs.lost_lines) - view.there
        others = self._lines_to_add(view, theirs.sums, missing)
        unnamed = missing - our_sums.keys() - others.keys()
        lost = {layout.stem_of(key) for key in missing - unnamed}
        incomplete = {*map(layout.set_of, unnamed), *theirs.unclear}
        not_repaired = {layout.set_of(layout.record_key(stem)) for stem in failed - lost}
        objects = set(filter(layout.is_object, view.there))
        knows_all = bool(theirs.sums) and objects <= theirs.sums.keys()
        plan = await plan_seal(
            self._store,
            view,
            set(map(layout.set_of, names)) - incomplete - not_repaired,
            confirmed=confirmed,
            repair=SumsRepair(theirs.sums, others, knows_all=knows_all, not_repaired=not_repaired),
        )
        key = layout.sums_key(self._month)
        try:
            await plan.write(self._store, view)
        except (IntegrityError, UnreadableObject) as error:
            self._not_repaired(key, error)
            return
        if plan.data is not None:
            self._observer(events.Repaired(key, str(self._other.store)))
        if not self.not_repaired:  # otherwise these follow from those
            for place, why in plan.failed.items():
                self._not_repaired(place, why)
        if key not in plan.failed:
            self._report_unnamed(unnamed, failed | confirmed, theirs)
            self._report_unclear(view, plan.lines or our_sums, theirs)

    def _lines_to_add(
        self, view: MonthView, their_sums: Mapping[str, str], missing: Collection[str]
    ) -> dict[str, str]:
        """Lines of the other archive for files that are not here. Without a SHA256SUMS of our own
        there are none: nothing here names such a file then."""
        if view.listed.sums is None:
            return {}
        return {
            key: their_sums[key]
            for key in missing & their_sums.keys()
            if not self._wrong.keys().isdisjoint((layout.set_of(key), self._month))
            and len(given_by(their_sums[key])) == 1
        }

    def _report_unnamed(
        self, unnamed: Collection[str], known: Collection[str], theirs: OtherMonth
    ) -> None:
        """Report files that only the other archive's SHA256SUMS names and that neither archive has,
        except the stems that are ``known`` to be repaired, or were reported."""
        for key in sorted(unnamed):
            if self._may_lack_files(layout.set_of(key)) and layout.stem_of(key) not in known:
                names = "named" if key in theirs.lost_lines else "names"
                text = f"{key}: SHA256SUMS of {self._other.store} {names} it, and neither has it"
                self._not_repaired(key, IntegrityError(text, hint=NAMED_ALONE))

    def _report_unclear(
        self, view: MonthView, lines: Mapping[str, str], theirs: OtherMonth
    ) -> None:
        """Report sets that have files without ``lines``, because a damaged line of the other
        archive may name more files of them; except those of which a file was reported."""
        reported = {layout.set_of(one.key) for one in self.not_repaired}
        for set_key, why in theirs.unclear.items():
            files = filter(layout.is_object, view.listed.sets.get(set_key, {}))
            if set_key in reported:
                continue
            if self._may_lack_files(set_key) and not lines.keys() >= set(files):
                text = f"{set_key}: SHA256SUMS does not name all of it: {self._other.store}: {why}"
                self._not_repaired(set_key, BackupFailed(text))

    def _not_repaired(self, key: str, error: ArchiverError) -> None:
        event = events.NotRepaired(key, error)
        self.not_repaired.append(event)
        self._observer(event)

    def _advanced(self, size: int) -> None:
        self._observer(events.Advanced(size))
