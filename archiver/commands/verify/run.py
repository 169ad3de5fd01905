"""Verify an archive: read back what is stored, and compare it with all that was written about it.

1. The evidence of drills, and what else the archive keeps beside its backups.
2. Month by month: which files are due; set by set: records, SHA256SUMS, what is missing or extra.
3. A bounded queue of files; each worker reads one from end to end, and judges.
4. A second look at what a pull at work may have left for a moment.
5. The results, kept in the archive.

Nothing needs the archive's lock, and nothing but the results is written.
"""

from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, TypeVar

import anyio
from anyio.streams.memory import MemoryObjectSendStream

from archiver import received
from archiver.archive import layout, verified
from archiver.archive.acknowledged import Acknowledged
from archiver.archive.archive import Archive
from archiver.archive.catalogue import Catalogue
from archiver.archive.completeness import Missing, SetNodes, missing_nodes
from archiver.archive.contents import Month, Overview, SetFiles, view_month
from archiver.archive.neighbours import listed_set
from archiver.archive.record import Record
from archiver.archive.verified import Result
from archiver.commands.verify import events
from archiver.commands.verify.evidence import check_acknowledged, check_evidence
from archiver.commands.verify.findings import Fault, Finding
from archiver.commands.verify.model import VerifyOptions, VerifySummary
from archiver.commands.verify.reader import Due, Reader
from archiver.commands.verify.results import Results
from archiver.commands.verify.survey import (
    PASSING,
    MonthSurvey,
    SetSurvey,
    check_catalogue,
    check_sums,
    look_at,
    look_at_all,
    months,
    survey,
)
from archiver.commands.verify.words import OF_VERIFY
from archiver.concurrency import shielded, task_group
from archiver.errors import ArchiverError, BadDocument, NewerDocument, NoSuchBackup
from archiver.events import Acknowledged as Acknowledgement
from archiver.ids import safe
from archiver.logs import logged
from archiver.model import NodesExpected, SourceName
from archiver.stores.base import Entry

T = TypeVar("T")

# Sets whose documents are read at once, and held until they were looked at.
_SETS_AT_ONCE: Final = 500
# Months, and entries of their listings, that are held while their documents are read.
_MONTHS_AT_ONCE: Final = 32
_ENTRIES_AT_ONCE: Final = 4000


async def verify(
    archive: Archive,
    options: VerifyOptions | None = None,
    observer: events.Observer = events.ignore,
) -> VerifySummary:
    """Find what is missing, extra, changed or contradictory in an archive.

    What is wrong is in the summary's ``findings``. Raises UsageError where there is no archive,
    NoSuchBackup where there is nothing of an instance that was asked for, UnsupportedFormat,
    DamagedArchive, and StoreError when the store cannot be listed.
    """
    await archive.expect()
    run = _Run(archive, options or VerifyOptions(), logged(observer, OF_VERIFY))
    await run.check_evidence()
    try:
        await run.check_backups()
        await run.look_again()
    finally:
        await shielded(run.keep())
    return run.summary


@dataclass(frozen=True, slots=True)
class _Chosen:
    """A month, and what of it is meant: its sets, sorted, and the objects that are to be read.
    ``known`` is what earlier verifies saw of it, ``faults`` what is wrong outside of its sets."""

    listed: Month
    overview: Overview
    known: Mapping[str, Result]
    faults: Sequence[Finding]
    sets: Sequence[SetFiles]
    picked: frozenset[str]


class _Run:
    def __init__(self, archive: Archive, options: VerifyOptions, observer: events.Observer) -> None:
        self.summary: Final = VerifySummary()
        self._acknowledged: Final = Acknowledged(archive)
        self._store: Final = archive.store
        self._options: Final = options
        self._tell: Final = observer
        self._results: Final = Results(archive.store, observer, options.keep_every)
        self._reader: Final = Reader(
            archive.store, self._results, self.summary, self._found, observer
        )
        self._told: Final[set[tuple[str, Fault, str | None]]] = set()
        self._passing: Final[dict[str, list[Finding]]] = {}
        self._short: Final[dict[str, Missing]] = {}
        self._sets: list[SetNodes] = []
        # Keys that hide what is below them: of that, nobody knows whether it is gone.
        self._hidden: Final[list[str]] = []
        self._months: Final[set[int]] = set()
        self._sources: Final[set[SourceName]] = set()
        # Months without a SHA256SUMS.
        self._without_sums: Final[set[str]] = set()
        # Months whose catalogue does not know all that is there.
        self._stale: Final[set[str]] = set()
        self._since: datetime | None = None
        if options.since_verified is not None:
            self._since = datetime.now(UTC) - options.since_verified

    async def check_evidence(self) -> None:
        """What was kept of drills, of earlier verifies and of what somebody has taken note of."""
        if self._options.sets:
            return
        await check_evidence(self._store, self._options.anchors, self._found, self._noted)
        await check_acknowledged(self._acknowledged, self._store, self._found, self._noted)

    async def check_backups(self) -> None:
        """The listing into the queue, the queue into workers."""
        send, receive = anyio.create_memory_object_stream[Due](self._options.workers)
        async with task_group() as group:
            for _ in range(self._options.workers):
                group.start_soon(self._reader.work, receive.clone())
            receive.close()
            async with send:
                # No worker is left: what ended the last one is what will be raised.
                with suppress(anyio.BrokenResourceError):
                    await self._list(send)

    async def look_again(self) -> None:
        """Whether what a pull at work leaves for a moment is still so."""
        months = sorted({layout.month_of(key) for key in (*self._passing, *self._short)})
        for month in months:
            await self._look_again_at(month)

    async def _look_again_at(self, month: str) -> None:
        listed = (await view_month(self._store, month, {})).listed
        overview = await look_at(self._store, listed)
        results = await self._store.read_many([verified.results_key(month)])
        known, _ = self._known(month, results)
        seen = _by_set(known)
        for set_key in [key for key in self._passing if layout.month_of(key) == month]:
            if set_key == month:
                again = [*check_sums(listed, overview, known), *check_catalogue(listed, overview)]
            else:
                one = overview.files(set_key, listed.sets.get(set_key, {}), seen.get(set_key, {}))
                again = (await survey(self._store, one)).findings
            still = {finding.identity for finding in again}
            for finding in self._passing[set_key]:
                if finding.identity in still:
                    await self._found_unless_acknowledged(finding)
        for set_key in [key for key in self._short if layout.month_of(key) == month]:
            lacks = self._short[set_key]
            now = listed_set(set_key, listed.sets.get(set_key, {}))
            if now is None or not lacks.is_made_up_by(now.nodes):
                finding = Finding(set_key, Fault.INCOMPLETE, lacks.why)
                await self._found_unless_acknowledged(finding)

    async def keep(self) -> None:
        """Write the results that are not written yet, and catalogues that are not as they should
        be."""
        await self._results.keep()
        await self._results.index(self._stale)
        self.summary.results_not_kept = self._results.not_kept

    async def _list(self, send: MemoryObjectSendStream[Due]) -> None:
        names = {key.partition("/")[0] for key in self._options.sets}
        instances = [safe(name) for name in self._options.instances] or sorted(names)
        for prefix in [f"{name}/" for name in instances] or [""]:
            is_empty = True
            async for some in _in_batches(months(self._store, prefix)):
                is_empty = False
                looks = await look_at_all(self._store, [month.listed for month in some])
                await self._take_all(some, looks, send)
            self._close_instance()
            gone = await self._take_gone(prefix, send)
            if prefix and not self._options.sets and is_empty and not gone:
                raise NoSuchBackup(f"{self._store} has no backup of {prefix[:-1]}")

    async def _take_gone(self, prefix: str, send: MemoryObjectSendStream[Due]) -> bool:
        """Months that an earlier verify saw, and of which nothing is left."""
        gone = list[MonthSurvey]()
        async for entry in self._store.entries(f"{verified.PREFIX}{prefix}"):
            month = verified.month_of(entry.key)
            if month is not None and hash(month) not in self._months:
                gone.append(MonthSurvey(month))
        for some in _in_groups(gone, _MONTHS_AT_ONCE):
            await self._take_all(some, [Overview()] * len(some), send)
        return bool(gone)

    async def _take_all(
        self,
        some: Sequence[MonthSurvey],
        overviews: Sequence[Overview],
        send: MemoryObjectSendStream[Due],
    ) -> None:
        """Survey some months, one after the other; the documents of all of them are read many at
        once."""
        keys = [verified.results_key(month.prefix) for month in some if month.is_month]
        results = await self._store.read_many(keys)
        chosen = [
            self._choose(month, overview, results)
            for month, overview in zip(some, overviews, strict=True)
        ]
        async with aclosing(self._with_documents(chosen)) as sets:
            for one in chosen:
                await self._take(one, sets, send)

    def _choose(
        self,
        month: MonthSurvey,
        overview: Overview,
        results: Mapping[str, bytes | ArchiverError | None],
    ) -> _Chosen:
        """Which sets of a month are meant, and which of their files are to be read."""
        self._months.add(hash(month.prefix))
        known, fault = self._known(month.prefix, results) if month.is_month else ({}, None)
        strays = month.strays()
        self._hidden.extend(
            one.key for one in strays if one.fault in (Fault.HIDDEN, Fault.UNREADABLE)
        )
        faults = [] if fault is None else [fault]
        faults += [one for one in strays if self._options.reaches(one.key)]
        listed, seen = month.listed, _by_set(known)
        gone = {*seen, *overview.sets_in_sums} - listed.sets.keys()
        wanted = {one for one in listed.sets if self._options.wants(one)}
        wanted |= {one for one in gone if self._options.wants(one) and not self._is_hidden(one)}
        picked = self._pick(
            [listed.sets[one] for one in sorted(wanted & listed.sets.keys())], known
        )
        sets = [
            overview.files(one, listed.sets.get(one, {}), seen.get(one, {}))
            for one in sorted(wanted)
        ]
        return _Chosen(listed, overview, known, faults, sets, picked)

    async def _take(
        self,
        month: _Chosen,
        sets: AsyncGenerator[SetFiles, None],
        send: MemoryObjectSendStream[Due],
    ) -> None:
        """Survey a month, the next of whose ``sets`` come one after the other, and send its files
        on that are due."""
        listed = month.listed
        instance_id = listed.key.partition("/")[0]
        if self._sets and not self._sets[0].key.startswith(f"{instance_id}/"):
            self._close_instance()
        for fault in month.faults:
            self._found(fault)
        if month.sets or (listed.sums is not None and self._options.reaches(listed.key)):
            self._check_month(listed, month.overview, month.known)
        expected: dict[str, NodesExpected | None] = {}
        for _ in month.sets:
            one = await anext(sets)
            expected[one.key] = await self._take_set(one, month.picked, send)
        for set_key, entries in sorted(listed.sets.items()):
            if (nodes := listed_set(set_key, entries)) is not None:
                self._sets.append(replace(nodes, expected=expected.get(set_key)))

    def _check_month(self, listed: Month, overview: Overview, known: Mapping[str, Result]) -> None:
        """What is wrong with a month's SHA256SUMS as a whole, and with its catalogue."""
        for finding in check_sums(listed, overview, known):
            if finding.is_unfinished:
                self._passing.setdefault(listed.key, []).append(finding)
            else:
                self._found(finding)
        if listed.sums is None:
            self._without_sums.add(listed.key)
        self._compare_names(listed, overview.catalogue)
        for finding in check_catalogue(listed, overview):
            self._stale.add(listed.key)
            self._passing.setdefault(listed.key, []).append(finding)

    def _is_hidden(self, set_key: str) -> bool:
        return any(f"{set_key}/".startswith(f"{key}/") for key in self._hidden)

    def _note_source(self, record: Record) -> None:
        """Say once of a source that nobody here can read what it sent: the records of its backups
        are checked by the rest of them alone."""
        source = record.source
        if source not in self._sources and received.reader(source) is None:
            name = f"{source.kind}, {source.action}"
            text = f"its source ({name}) is not known, so what that sent is not compared with it"
            self._noted(record.key, text)
        self._sources.add(source)

    def _compare_names(self, month: Month, catalogue: Catalogue) -> None:
        """A catalogue may name records that are gone: by hand, or it was edited."""
        gone = sorted(catalogue.named - month.entries.keys())
        if gone:
            more = f" and {len(gone) - 1:,} more" if len(gone) > 1 else ""
            self._noted(
                layout.index_key(month.key), f"it names {gone[0]}{more}, which is not there"
            )
        if gone or (month.index is not None and not catalogue.sets):
            self._stale.add(month.key)

    async def _with_documents(self, months: Sequence[_Chosen]) -> AsyncGenerator[SetFiles, None]:
        """The sets of these months with their documents, read many at once; none of a set of which
        the catalogue knows all, and no file is to be read."""
        sets = [(one, month.picked) for month in months for one in month.sets]
        for some in _in_groups(sets, _SETS_AT_ONCE):
            keys = [
                key
                for one, picked in some
                if not (one.is_as_catalogued and picked.isdisjoint(one.entries))
                for key in one.records
            ]
            documents = await self._store.read_many(keys)
            for one, _ in some:
                there = {key: documents[key] for key in one.entries.keys() & documents.keys()}
                yield replace(one, documents=there) if there else one

    def _pick(
        self, sets: Iterable[Mapping[str, Entry]], known: Mapping[str, Result]
    ) -> frozenset[str]:
        """The objects of a month to read, by what the listing and earlier results say."""
        objects = {
            key: entry.size
            for entries in sets
            for key, entry in entries.items()
            if layout.is_object(key)
        }
        due = [key for key, size in objects.items() if not self._is_recent(known.get(key), size)]
        self.summary.strata += bool(objects)
        sample = self._options.sample
        return sample.pick(due) if sample is not None else frozenset(due)

    def _is_recent(self, result: Result | None, size: int | None) -> bool:
        """Whether an earlier verify found it right, not long ago, and nothing wrong since."""
        if self._since is None or result is None or result.at is None or result.wrong_at:
            return False
        return self._since <= result.at <= datetime.now(UTC) and result.size == size

    async def _take_set(
        self, one: SetFiles, picked: frozenset[str], send: MemoryObjectSendStream[Due]
    ) -> NodesExpected | None:
        """Survey a set and send on what of it is to be read. Of one that is as catalogued, and that
        is not to be read, its catalogue is believed. How many nodes it should have, if known."""
        known = one.seen
        if one.is_as_catalogued and not one.documents:
            self._count_catalogued(one)
            return one.expected
        found = await survey(self._store, one)
        self._note_catalogue(one, found)
        for finding in found.findings:
            if finding.fault is Fault.SUMS and layout.month_of(one.key) in self._without_sums:
                continue  # it is told of the month
            if finding.fault in PASSING:
                self._passing.setdefault(one.key, []).append(finding)
            else:
                self._found(finding)
        suspects = {finding.stem for finding in found.findings}
        for statements in found.files:
            key, entry = statements.key, one.entries.get(statements.key)
            size = None if entry is None else entry.size
            self.summary.files += 1
            self.summary.size += statements.record.size
            doubtful = size != statements.record.size or statements.disagree
            if key in picked or doubtful or layout.stem_of(key) in suspects:
                self._tell(events.ToRead(1, size or statements.record.size))
                await send.send((layout.month_of(one.key), statements))
            elif self._is_recent(known.get(key), size):
                self.summary.recent += 1
                self.summary.bytes_recent += statements.record.size
        said = (statements.record.nodes_expected for statements in found.files)
        return next((number for number in said if number is not None), None)

    def _count_catalogued(self, one: SetFiles) -> None:
        for entry in one.known.entries.values():
            self.summary.files += 1
            self.summary.size += entry.size
            if self._is_recent(one.seen.get(entry.object_key), entry.size):
                self.summary.recent += 1
                self.summary.bytes_recent += entry.size

    def _note_catalogue(self, one: SetFiles, found: SetSurvey) -> None:
        """Note whether the catalogue of a set's month is to be written again."""
        for statements in found.files:
            self._note_source(statements.record)
        known = one.known.entries
        if any(statements.record.key not in known for statements in found.files) or any(
            finding.fault is Fault.CATALOGUE for finding in found.findings
        ):
            self._stale.add(layout.month_of(one.key))

    def _known(
        self, month: str, results: Mapping[str, bytes | ArchiverError | None]
    ) -> tuple[dict[str, Result], Finding | None]:
        """What earlier verifies saw of a month, by their results as they were read; or why that
        cannot be told."""
        key = verified.results_key(month)
        data = results.get(key)
        try:
            if isinstance(data, ArchiverError):
                raise data
            return ({} if data is None else verified.decode(key, month, data)), None
        except BadDocument as error:
            fault = Fault.NEWER if isinstance(error, NewerDocument) else Fault.BAD_RESULTS
            return {}, Finding(key, fault, error.fault)
        except ArchiverError as error:
            return {}, Finding(key, Fault.UNREADABLE, error.message)

    def _close_instance(self) -> None:
        """Which sets of the instance lack nodes, by those around them."""
        sets, self._sets = self._sets, []
        for set_key, lacks in missing_nodes(sets).items():
            told = {
                layout.node_of(finding.key)
                for finding in self._passing.get(set_key, ())
                if finding.fault in (Fault.MISSING, Fault.UNRECORDED)
            }
            is_told = bool(lacks.nodes) and told.issuperset(lacks.nodes)
            if self._options.wants(set_key) and not is_told:
                self._short[set_key] = lacks

    async def _found_unless_acknowledged(self, finding: Finding) -> None:
        """Somebody may know that a set is incomplete. Damage is nobody's to acknowledge."""
        one = None
        if finding.fault is Fault.INCOMPLETE:
            one = await self._acknowledged.of(finding.key)
        if one is None:
            self._found(finding)
        elif finding.identity not in self._told:
            self._told.add(finding.identity)
            known = Acknowledgement(finding.key, finding.text, one.at, one.by, one.reason)
            self.summary.acknowledged.append(known)
            self._tell(known)

    def _noted(self, key: str, text: str) -> None:
        note = events.Noted(key, text)
        self.summary.notes.append(note)
        self._tell(note)

    def _found(self, finding: Finding) -> None:
        """Take a finding, and tell of it once."""
        if finding.identity not in self._told:
            self._told.add(finding.identity)
            self.summary.findings.append(finding)
            self._tell(events.Found(finding))


def _by_set(known: Mapping[str, Result]) -> dict[str, dict[str, Result]]:
    """What earlier verifies saw of a month, by set."""
    found: dict[str, dict[str, Result]] = {}
    for key, result in known.items():
        found.setdefault(layout.set_of(key), {})[key] = result
    return found


async def _in_batches(
    months: AsyncGenerator[MonthSurvey, None],
) -> AsyncGenerator[list[MonthSurvey], None]:
    """Months whose documents are read at once: a few, or one that has many entries."""
    some, entries = list[MonthSurvey](), 0
    async with aclosing(months):
        async for month in months:
            some.append(month)
            entries += len(month.entries)
            if len(some) == _MONTHS_AT_ONCE or entries >= _ENTRIES_AT_ONCE:
                yield some
                some, entries = [], 0
    if some:
        yield some


def _in_groups(items: Sequence[T], most: int) -> Iterator[Sequence[T]]:
    for first in range(0, len(items), most):
        yield items[first : first + most]
