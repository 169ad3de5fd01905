"""Verifies an archive: reads back what is stored, and compares it with what is written about it.

1. Check the evidence of drills, and what else the archive has beside its backups.
2. Month by month, choose the files to read; set by set, check the records and SHA256SUMS, and find
   what is missing or extra.
3. Workers take files from a bounded queue, read them from beginning to end, and judge them.
4. Check again what a running pull may have caused for a moment.
5. Store the results in the archive.

It does not take the archive's lock, and writes nothing but the results.
"""

from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, TypeVar

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from archiver import received
from archiver.archive import layout, verified
from archiver.archive.acknowledged import Acknowledged
from archiver.archive.archive import Archive
from archiver.archive.completeness import Missing, SetNodes, missing_nodes
from archiver.archive.contents import Month, Overview, SetFiles, instances, view_month
from archiver.archive.neighbours import listed_set
from archiver.archive.record import Record
from archiver.archive.verified import Result
from archiver.commands.verify import events
from archiver.commands.verify.evidence import check_acknowledged, check_evidence
from archiver.commands.verify.findings import Fault, Finding
from archiver.commands.verify.model import VerifyOptions, VerifySummary
from archiver.commands.verify.reader import OpenReader, Reading
from archiver.commands.verify.results import Results
from archiver.commands.verify.statements import Statements
from archiver.commands.verify.survey import (
    TRANSIENT,
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
from archiver.jobs import Crew, OpenCrew, here
from archiver.logs import logged
from archiver.model import NodesExpected, SourceName
from archiver.stores.base import Entry

T = TypeVar("T")
Due = tuple[str, Statements]  # a file to read: its month, and what is written about it

# How many sets are in memory with their documents.
_SETS_AT_ONCE: Final = 500
# How many months, and entries of their listings, are in memory while their documents are read.
_MONTHS_AT_ONCE: Final = 32
_ENTRIES_AT_ONCE: Final = 4000
# Files that one task of another process reads have so many bytes, if they are small.
_BATCH_BYTES: Final = 16 * 2**20


async def verify(
    archive: Archive,
    options: VerifyOptions | None = None,
    observer: events.Observer = events.ignore,
    open_crew: OpenCrew = here,
) -> VerifySummary:
    """Find what is missing, extra, changed or contradictory in an archive. ``open_crew`` reads its
    files: by default in this process.

    The summary has the ``findings``. Raises UsageError if there is no archive, NoSuchBackup if it
    has nothing of a wanted instance, UnsupportedFormat, DamagedArchive, and StoreError if the store
    cannot be listed.
    """
    await archive.expect()
    run = _Run(archive, options or VerifyOptions(), logged(observer, OF_VERIFY))
    await run.check_evidence()
    try:
        await run.check_backups(open_crew)
        await run.look_again()
    finally:
        await shielded(run.keep())
    # Only now: what contradicts a catalogue is reported last, and rewriting it would hide that.
    await shielded(run.write_catalogues())
    return run.summary


@dataclass(frozen=True, slots=True)
class _Chosen:
    """A month with its wanted sets, sorted, and the keys of the objects to read (``picked``).
    ``known`` are the results of earlier verifies, ``faults`` what is wrong outside of its sets."""

    listed: Month
    overview: Overview
    known: Mapping[str, Result]
    faults: Sequence[Finding]
    sets: Sequence[SetFiles]
    picked: frozenset[str]


class _Run:
    def __init__(self, archive: Archive, options: VerifyOptions, observer: events.Observer) -> None:
        self._archive: Final = archive
        self.summary: Final = VerifySummary()
        self._acknowledged: Final = Acknowledged(archive)
        self._store: Final = archive.store
        self._options: Final = options
        self._observer: Final = observer
        self._results: Final = Results(archive.store, observer, options.keep_every)
        self._reported: Final[set[tuple[str, Fault, str | None]]] = set()
        self._transient: Final[dict[str, list[Finding]]] = {}
        self._incomplete: Final[dict[str, Missing]] = {}
        self._sets: list[SetNodes] = []
        # Folders that cannot be read: what is below them does not count as gone.
        self._hidden: Final[list[str]] = []
        self._months: Final[set[int]] = set()  # as hashes, to save memory
        self._sources: Final[set[SourceName]] = set()
        self._without_sums: Final[set[str]] = set()
        self._stale: Final[set[str]] = set()  # months whose catalogue must be written anew
        # Months whose catalogue alone tells what SHA256SUMS named.
        self._remembered: Final[set[str]] = set()
        self._since: datetime | None = None
        if options.since_verified is not None:
            self._since = datetime.now(UTC) - options.since_verified

    async def check_evidence(self) -> None:
        """Check what is below ``drills/``, ``verified/`` and ``acknowledged/``."""
        if self._options.sets or self._options.shard.index != 0:
            return
        await check_evidence(self._store, self._options.anchors, self._report, self._note)
        await check_acknowledged(self._acknowledged, self._store, self._report, self._note)

    async def check_backups(self, open_crew: OpenCrew) -> None:
        """Check all backups: the listing fills the queue, the workers empty it."""
        opened = open_crew(OpenReader(self._archive), self._options.workers, self._observer)
        async with opened as crew, task_group() as group:
            most = crew.at_once * crew.batch_size
            send, receive = anyio.create_memory_object_stream[Due](most)
            for _ in range(crew.at_once):
                group.start_soon(self._read, receive.clone(), crew)
            receive.close()
            async with send:
                # Without workers: the error that ended them is raised by the group.
                with suppress(anyio.BrokenResourceError):
                    await self._list(send)

    async def _read(
        self, queue: MemoryObjectReceiveStream[Due], crew: Crew[Statements, Reading]
    ) -> None:
        """Have files read, as one of several workers, until the queue ends."""
        async with queue:
            async for first in queue:
                due = {first[1].record.key: first}
                while len(due) < crew.batch_size and _is_small(due.values()):
                    try:
                        month, statements = queue.receive_nowait()
                    except (anyio.WouldBlock, anyio.EndOfStream):
                        break
                    due[statements.record.key] = month, statements
                done = await crew.do({name: statements for name, (_, statements) in due.items()})
                for name, (month, statements) in due.items():
                    await self._take(month, statements.key, done[name])

    async def _take(self, month: str, key: str, reading: Reading | ArchiverError) -> None:
        """Report what came of reading a file, and note it."""
        if isinstance(reading, ArchiverError):
            reading = Reading((Finding(key, Fault.UNREADABLE, reading.message, cure=reading.hint),))
        self.summary.read += reading.files
        self.summary.bytes_read += reading.size
        for finding in reading.findings:
            self._report(finding)
        if reading.findings:
            await self._results.wrong(month, key, reading.findings[0].fault)
        elif (right := reading.right) is not None:
            self._observer(events.Verified(key, right.size, right.sha256))
            named = right.is_named
            await self._results.right(month, key, right.size, right.sha256, named=named)

    async def look_again(self) -> None:
        """Check again what a running pull may have caused for a moment."""
        months = sorted({layout.month_of(key) for key in (*self._transient, *self._incomplete)})
        for month in months:
            await self._look_again_at(month)

    async def _look_again_at(self, month: str) -> None:
        listed = (await view_month(self._store, month, {})).listed
        overview = await look_at(self._store, listed)
        results = await self._store.read_many([verified.results_key(month)])
        known, _ = self._known(month, results)
        seen = _by_set(known)
        for set_key in [key for key in self._transient if layout.month_of(key) == month]:
            if set_key == month:
                again = [*check_sums(listed, overview, known), *check_catalogue(listed, overview)]
            else:
                one = SetFiles(
                    set_key, listed.sets.get(set_key, {}), seen.get(set_key, {}), overview
                )
                again = (await survey(self._store, one)).findings
            still = {finding.identity for finding in again}
            for finding in self._transient[set_key]:
                if finding.identity in still:
                    await self._report_unless_acknowledged(finding)
        for set_key in [key for key in self._incomplete if layout.month_of(key) == month]:
            lacks = self._incomplete[set_key]
            now = listed_set(set_key, listed.sets.get(set_key, {}))
            if now is None or not lacks.is_made_up_by(now.nodes):
                finding = Finding(set_key, Fault.INCOMPLETE, lacks.why)
                await self._report_unless_acknowledged(finding)

    async def keep(self) -> None:
        """Write the results that are not written yet."""
        await self._results.keep()
        self.summary.results_not_kept = self._results.not_kept

    async def write_catalogues(self) -> None:
        """Write stale catalogues."""
        await self._results.index(self._stale - self._remembered)
        self.summary.results_not_kept = self._results.not_kept

    async def _list(self, send: MemoryObjectSendStream[Due]) -> None:
        named = [safe(name) for name in self._options.instances]
        for prefix in await self._prefixes(named):
            is_empty = True
            async for some in _in_batches(months(self._store, prefix)):
                is_empty = False
                looks = await look_at_all(self._store, [month.listed for month in some])
                await self._survey_months(some, looks, send)
            self._find_incomplete()
            gone = await self._survey_gone(prefix, send)
            if prefix[:-1] in named and is_empty and not gone:
                raise NoSuchBackup(f"{self._store} has no backup of {prefix[:-1]}")

    async def _prefixes(self, named: Sequence[str]) -> list[str]:
        """Where to look: instances of the shard, or everything. An archive without any instance has
        no empty shards: that there is nothing to verify is not a success."""
        shard = self._options.shard
        there = named or sorted({key.partition("/")[0] for key in self._options.sets})
        if not there and not shard.is_all:
            there = await instances(self._store)
        own = shard.own(there)
        self.summary.empty_shard = bool(there) and not own
        return [""] if not there else [f"{name}/" for name in own]

    async def _survey_gone(self, prefix: str, send: MemoryObjectSendStream[Due]) -> bool:
        """Survey months that an earlier verify saw, and of which nothing is left; return whether
        there are any."""
        gone = list[MonthSurvey]()
        async for entry in self._store.entries(f"{verified.PREFIX}{prefix}"):
            month = verified.month_of(entry.key)
            if month is not None and hash(month) not in self._months:
                gone.append(MonthSurvey(month))
        for some in _in_groups(gone, _MONTHS_AT_ONCE):
            await self._survey_months(some, [Overview()] * len(some), send)
        return bool(gone)

    async def _survey_months(
        self,
        some: Sequence[MonthSurvey],
        overviews: Sequence[Overview],
        send: MemoryObjectSendStream[Due],
    ) -> None:
        """Survey some months, one after the other; their documents are read many at once."""
        keys = [verified.results_key(month.prefix) for month in some if month.is_month]
        results = await self._store.read_many(keys)
        chosen = [
            self._choose(month, overview, results)
            for month, overview in zip(some, overviews, strict=True)
        ]
        async with aclosing(self._with_documents(chosen)) as sets:
            for one in chosen:
                await self._survey_month(one, sets, send)

    def _choose(
        self,
        month: MonthSurvey,
        overview: Overview,
        results: Mapping[str, bytes | ArchiverError | None],
    ) -> _Chosen:
        """Choose the sets of a month, and which of their files are to be read."""
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
            SetFiles(one, listed.sets.get(one, {}), seen.get(one, {}), overview)
            for one in sorted(wanted)
        ]
        return _Chosen(listed, overview, known, faults, sets, picked)

    async def _survey_month(
        self,
        month: _Chosen,
        sets: AsyncGenerator[SetFiles, None],
        send: MemoryObjectSendStream[Due],
    ) -> None:
        """Survey a month, whose ``sets`` come next, and send those of its files on that are to be
        read."""
        listed = month.listed
        instance_id = listed.key.partition("/")[0]
        if self._sets and not self._sets[0].key.startswith(f"{instance_id}/"):
            self._find_incomplete()
        for fault in month.faults:
            self._report(fault)
        has_documents = listed.sums is not None or month.overview.catalogue.lacks_sums
        if month.sets or (has_documents and self._options.reaches(listed.key)):
            self._check_month_documents(listed, month.overview, month.known)
        expected: dict[str, NodesExpected | None] = {}
        for _ in month.sets:
            one = await anext(sets)
            expected[one.key] = await self._survey_set(one, month.picked, send)
        for set_key, entries in sorted(listed.sets.items()):
            if (nodes := listed_set(set_key, entries)) is not None:
                self._sets.append(replace(nodes, expected=expected.get(set_key)))

    def _check_month_documents(
        self, listed: Month, overview: Overview, known: Mapping[str, Result]
    ) -> None:
        """Check a month's SHA256SUMS as a whole, and its catalogue."""
        for finding in check_sums(listed, overview, known):
            if finding.is_unfinished:
                self._transient.setdefault(listed.key, []).append(finding)
            else:
                self._report(finding)
        if listed.sums is None:
            self._without_sums.add(listed.key)
        if overview.is_witness:
            self._remembered.add(listed.key)
        self._check_names(listed, overview)
        for finding in check_catalogue(listed, overview):
            self._stale.add(listed.key)
            self._transient.setdefault(listed.key, []).append(finding)

    def _is_hidden(self, set_key: str) -> bool:
        return any(f"{set_key}/".startswith(f"{key}/") for key in self._hidden)

    def _note_source(self, record: Record) -> None:
        """Note once that a source is not known here, so that the fields that it sent cannot be
        compared with the rest of its records."""
        source = record.source
        if source not in self._sources and received.reader(source) is None:
            name = f"{source.kind}, {source.action}"
            text = f"its source ({name}) is not known: the fields that it sent are not compared"
            self._note(record.key, text)
        self._sources.add(source)

    def _check_names(self, month: Month, overview: Overview) -> None:
        """Note records that the catalogue names and that are gone: somebody removed them, or edited
        the catalogue. Those that SHA256SUMS names are findings."""
        catalogue = overview.catalogue
        found = {layout.record_key(layout.stem_of(key)) for key in overview.named}
        gone = sorted(catalogue.named - month.entries.keys() - found)
        if gone:
            more = f" and {len(gone) - 1:,} more" if len(gone) > 1 else ""
            self._note(layout.index_key(month.key), f"it names {gone[0]}{more}, which is not there")
        if gone or (month.index is not None and not catalogue.named):
            self._stale.add(month.key)

    async def _with_documents(self, months: Sequence[_Chosen]) -> AsyncGenerator[SetFiles, None]:
        """Yield the sets of these months with their documents, which are read many at once, except
        those of sets that are as catalogued and of which no file is to be read."""
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
        """Choose the objects of a month to read, by the listing and earlier results."""
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
        """Whether an earlier verify found an object right recently, and not wrong since."""
        if self._since is None or result is None or result.at is None or result.wrong_at:
            return False
        return self._since <= result.at <= datetime.now(UTC) and result.size == size

    async def _survey_set(
        self, one: SetFiles, picked: frozenset[str], send: MemoryObjectSendStream[Due]
    ) -> NodesExpected | None:
        """Survey a set, and send those of its files on that are to be read; return how many nodes
        it should have, if known. Without documents, the catalogue is believed."""
        if one.is_as_catalogued and not one.documents:
            self._count_catalogued(one)
            return one.expected
        found = await survey(self._store, one)
        self._note_catalogue(one, found)
        for finding in found.findings:
            if finding.fault is Fault.SUMS and layout.month_of(one.key) in self._without_sums:
                continue  # reported for the month
            if finding.fault in TRANSIENT:
                self._transient.setdefault(one.key, []).append(finding)
            else:
                self._report(finding)
        suspects = {finding.stem for finding in found.findings}
        for statements in found.files:
            key, entry = statements.key, one.entries.get(statements.key)
            size = None if entry is None else entry.size
            self.summary.files += 1
            self.summary.size += statements.record.size
            doubtful = size != statements.record.size or statements.disagree
            if key in picked or doubtful or layout.stem_of(key) in suspects:
                self._observer(events.ToRead(1, size or statements.record.size))
                await send.send((layout.month_of(one.key), statements))
            elif self._is_recent(one.results.get(key), size):
                self.summary.recent += 1
                self.summary.bytes_recent += statements.record.size
        numbers = (statements.record.nodes_expected for statements in found.files)
        return next((number for number in numbers if number is not None), None)

    def _count_catalogued(self, one: SetFiles) -> None:
        for entry in one.catalogued:
            self.summary.files += 1
            self.summary.size += entry.size
            if self._is_recent(one.results.get(entry.object_key), entry.size):
                self.summary.recent += 1
                self.summary.bytes_recent += entry.size

    def _note_catalogue(self, one: SetFiles, found: SetSurvey) -> None:
        """Note whether the catalogue of a set's month is to be written again."""
        for statements in found.files:
            self._note_source(statements.record)
        known = one.known
        if any(statements.record.key not in known for statements in found.files) or any(
            finding.fault is Fault.CATALOGUE for finding in found.findings
        ):
            self._stale.add(layout.month_of(one.key))

    def _known(
        self, month: str, results: Mapping[str, bytes | ArchiverError | None]
    ) -> tuple[dict[str, Result], Finding | None]:
        """Decode the results of earlier verifies of a month; the finding if that fails."""
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

    def _find_incomplete(self) -> None:
        """Find the sets of the instance that lack nodes which the sets around them have."""
        sets, self._sets = self._sets, []
        for set_key, lacks in missing_nodes(sets).items():
            reported = {
                layout.node_of(finding.key)
                for finding in self._transient.get(set_key, ())
                if finding.fault in (Fault.MISSING, Fault.UNRECORDED)
            }
            is_reported = bool(lacks.nodes) and reported.issuperset(lacks.nodes)
            if self._options.wants(set_key) and not is_reported:
                self._incomplete[set_key] = lacks

    async def _report_unless_acknowledged(self, finding: Finding) -> None:
        """Report a finding, unless it is an incomplete set that somebody has acknowledged."""
        one = None
        if finding.fault is Fault.INCOMPLETE:
            one = await self._acknowledged.of(finding.key)
        if one is None:
            self._report(finding)
        elif finding.identity not in self._reported:
            self._reported.add(finding.identity)
            known = Acknowledgement(finding.key, finding.text, one.at, one.by, one.reason)
            self.summary.acknowledged.append(known)
            self._observer(known)

    def _note(self, key: str, text: str) -> None:
        note = events.Noted(key, text)
        self.summary.notes.append(note)
        self._observer(note)

    def _report(self, finding: Finding) -> None:
        """Report a finding, once."""
        if finding.identity not in self._reported:
            self._reported.add(finding.identity)
            self.summary.findings.append(finding)
            self._observer(events.Found(finding))


def _is_small(due: Iterable[Due]) -> bool:
    """Whether these are read so quickly that another may be read with them."""
    return sum(statements.record.size for _, statements in due) < _BATCH_BYTES


def _by_set(known: Mapping[str, Result]) -> dict[str, dict[str, Result]]:
    """Group the results of a month by set."""
    found: dict[str, dict[str, Result]] = {}
    for key, result in known.items():
        found.setdefault(layout.set_of(key), {})[key] = result
    return found


async def _in_batches(
    months: AsyncGenerator[MonthSurvey, None],
) -> AsyncGenerator[list[MonthSurvey], None]:
    """Group months whose documents are read at once: a few, or one with many entries."""
    some, entries = list[MonthSurvey](), 0
    async with aclosing(months):
        async for month in months:
            some.append(month)
            entries += max(len(month.entries), month.listed.weight)
            if len(some) == _MONTHS_AT_ONCE or entries >= _ENTRIES_AT_ONCE:
                yield some
                some, entries = [], 0
    if some:
        yield some


def _in_groups(items: Sequence[T], most: int) -> Iterator[Sequence[T]]:
    for first in range(0, len(items), most):
        yield items[first : first + most]
