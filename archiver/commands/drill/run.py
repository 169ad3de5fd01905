"""``drill``: restores backup sets, loads them into real servers, and stores the evidence.

    drilled = await drill(Archive(LocalStore("backups")), await find())

It connects to nothing but the archive's store, because a recovery must work without the vendor.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from archiver.archive.acknowledged import Acknowledged
from archiver.archive.archive import Archive
from archiver.archive.contents import instances
from archiver.archive.folders import Folder, confirm_logs, list_folders
from archiver.commands.drill.conclusion import draft_evidence
from archiver.commands.drill.events import (
    ArchiveNotWritable,
    ChainFault,
    ChainUnreadable,
    Chosen,
    ClockSetBack,
    EvidenceIncomplete,
    NotCompared,
    Observer,
)
from archiver.commands.drill.history import History
from archiver.commands.drill.ledger import FiledEvidence, Ledger
from archiver.commands.drill.options import DrillOptions, Wanted
from archiver.commands.drill.programs import ServerProgram, no_programs
from archiver.commands.drill.selection import choose_sets
from archiver.commands.drill.set_trial import OpenSetTrial, sweep
from archiver.commands.drill.sets import CLOCK_SECONDS, SetDrill
from archiver.commands.drill.words import OF_DRILLS
from archiver.concurrency import for_each, shielded
from archiver.errors import ArchiverError, worst_exit_code
from archiver.jobs import OpenCrew, here
from archiver.logs import logged
from archiver.report import evidence
from archiver.report.chain import Finding
from archiver.report.evidence import Evidence, SetEvidence
from archiver.shards import EmptyShard


@dataclass(frozen=True, slots=True)
class Drilled:
    """The result of a drill.

    ``faults`` are those in the evidence of earlier drills; ``unreadable`` is the error if that
    evidence could not be read.
    """

    filed: FiledEvidence
    faults: tuple[Finding, ...]
    unreadable: ArchiverError | None = None

    @property
    def evidence(self) -> Evidence:
        return self.filed.evidence

    @property
    def exit_code(self) -> int:
        """0 if the drill passed, and the evidence of earlier drills is unchanged."""
        codes = {self.evidence.conclusion.exit_code, *(one.exit_code for one in self.faults)}
        codes.add(self.filed.exit_code)
        codes |= set() if self.unreadable is None else {self.unreadable.exit_code}
        return worst_exit_code(codes)


async def drill(
    archive: Archive,
    programs: Sequence[ServerProgram],
    options: DrillOptions | None = None,
    *,
    evidence_directory: Path | None = None,
    open_crew: OpenCrew = here,
    observer: Observer = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
) -> Drilled:
    """Choose sets, restore and load each, judge it, and write the evidence. ``open_crew`` restores
    and loads them: by default this process, one after the other.

    A set that does not pass is a result, not an error. Raises NoSuchBackup, EmptyShard, UsageError
    if there is no archive or no server, or no set can have a given name, StoreError, and
    EvidenceNotKept, which contains the evidence, if that could not be written anywhere.
    """
    options = options or DrillOptions()
    observer = logged(observer, OF_DRILLS)
    began, ticks = datetime.now(UTC), clock()
    await archive.expect()
    if not programs:
        raise no_programs()
    wanted, listed = await _of_shard(archive, options.wanted)
    ledger = await _prepared(archive, evidence_directory, options, observer)
    faults, unreadable = await _check_history(ledger.history, observer)
    folders = await list_folders(archive, listed)
    folders = await confirm_logs(archive, folders, wanted.at)
    selection, chosen = choose_sets(folders.first_parts(wanted.sets), wanted)
    observer(Chosen(tuple(one.key for one in chosen), selection.available))
    instances = {one.instance_id for one in chosen}
    last_keys = await _last_keys(ledger.history, instances, options, unreadable, observer)
    acknowledged = await _acknowledged(archive, options, selection.instances)
    await sweep(options.scratch, observer)
    sets: dict[str, SetEvidence] = {}
    trial = OpenSetTrial(archive, tuple(programs), options, clock)
    try:
        async with open_crew(trial, None, observer) as crew:
            drilling = SetDrill(archive, options, folders, last_keys, began, crew, observer)

            async def drill_one(numbered: tuple[int, Folder]) -> None:
                number, one = numbered
                sets[one.key] = await drilling.drill(one, number, len(chosen))

            await for_each(enumerate(chosen, 1), drill_one, crew.at_once)
    finally:
        if open_crew is not here:  # what processes left that died meanwhile, or were ended
            await shielded(sweep(options.scratch, observer))
    # The monotonic clock measures the end, so that a drill cannot end before it began.
    finished = began + timedelta(seconds=max(0.0, clock() - ticks))
    _check_clock(finished, observer)
    code = worst_exit_code(drilling.exit_codes) or 1
    draft = draft_evidence(
        archive,
        options,
        selection,
        [sets[one.key] for one in chosen],
        acknowledged,
        began,
        finished,
        failure_exit_code=code,
    )
    filed = await ledger.file(draft)
    if filed.problem is not None:
        observer(EvidenceIncomplete(filed.problem, filed.stores))
    return Drilled(filed, tuple(faults), unreadable)


async def _of_shard(archive: Archive, wanted: Wanted) -> tuple[Wanted, tuple[str, ...]]:
    """Return what is wanted of the shard, and the instances to list, or none to list all. Raises
    EmptyShard, unless there is no instance at all."""
    shard = wanted.shard
    if shard.is_all:
        return wanted, wanted.instances
    of_sets = (key.partition("/")[0] for key in wanted.sets)
    there = [*wanted.instances, *of_sets] or await instances(archive.store)
    own = shard.own(there)
    sets = tuple(key for key in wanted.sets if key.partition("/")[0] in own)
    if there and (not own or (wanted.sets and not sets)):
        raise EmptyShard(shard.empty("among those to drill"))
    return replace(wanted, instances=shard.own(wanted.instances), sets=sets), own


async def _prepared(
    archive: Archive, directory: Path | None, options: DrillOptions, observer: Observer
) -> Ledger:
    """Return the ledger for the evidence. That the archive cannot be written does not stop the
    drill, but is reported before it."""
    ledger = Ledger(archive, directory, options.lock_wait, observer)
    if refusal := await ledger.prepare():
        observer(ArchiveNotWritable(str(refusal), directory))
    return ledger


async def _check_history(
    history: History, observer: Observer
) -> tuple[list[Finding], ArchiverError | None]:
    """Return the faults in the evidence of earlier drills, or why it cannot be read."""
    try:
        faults = await history.faults()
    except ArchiverError as error:
        observer(ChainUnreadable(str(error)))
        return [], error
    for finding in faults:
        observer(ChainFault(finding))
    return faults, None


async def _last_keys(
    history: History,
    instances: set[str],
    options: DrillOptions,
    unreadable: ArchiverError | None,
    observer: Observer,
) -> dict[str, tuple[str, int]]:
    """Return for each instance the last drill that it passed: its id, and the number of keys."""
    found = {} if unreadable is not None else await history.last_keys(instances)
    others = instances - found.keys()
    if others and options.max_change is not None:
        why = str(unreadable) if unreadable is not None else await history.why_no_last()
        for instance in sorted(others):
            observer(NotCompared(instance, why))
    return found


async def _acknowledged(
    archive: Archive, options: DrillOptions, instances: Sequence[str]
) -> tuple[evidence.Acknowledged, ...]:
    """Return the notes on these instances, or on all, that are still valid."""
    known = await Acknowledged(archive).read()
    found = []
    for one in sorted(known.by_key.values(), key=lambda one: (one.at, one.subject)):
        is_wanted = not instances or any(map(one.is_about, instances))
        if is_wanted and await known.of(one.subject) is not None:
            by = None if options.withhold_identity else one.by
            found.append(evidence.Acknowledged(one.subject, one.at, by, one.reason))
    return tuple(found)


def _check_clock(finished: datetime, observer: Observer) -> None:
    """Report that the wall clock was set back during the drill."""
    back = (finished - datetime.now(UTC)).total_seconds()
    if back > CLOCK_SECONDS:
        observer(ClockSetBack(back))
