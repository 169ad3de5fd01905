"""Drills one set: its files, its assertions, its RTO and RPO, and the verdict.

Its files are tried by this process or another, the rest is done here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Final

from archiver.archive.archive import Archive
from archiver.archive.backupsets import BackupSet, read_set
from archiver.archive.folders import Folder, Folders
from archiver.commands.drill.events import (
    FileTried,
    FromTheFuture,
    Observer,
    ServerIsRoot,
    SetJudged,
)
from archiver.commands.drill.files import DrilledFile, failed_file
from archiver.commands.drill.judgement import combine, judge_set
from archiver.commands.drill.options import DrillOptions
from archiver.commands.drill.set_trial import SetJob, TriedSet
from archiver.errors import ArchiverError
from archiver.events import FileLeft
from archiver.jobs import Crew
from archiver.report import evidence
from archiver.report.evidence import Comparison, Nodes, Phases, SetEvidence
from archiver.report.verdict import largest_gap, measure_rpo, measure_rto, recovery_seconds
from archiver.report.words import loaded_keys

# The clocks of two machines that a time server sets differ by less.
CLOCK_SECONDS: Final = 60.0


class SetDrill:
    """Drills sets. ``exit_codes`` collects those of their failures."""

    def __init__(
        self,
        archive: Archive,
        options: DrillOptions,
        folders: Folders,
        last_keys: Mapping[str, tuple[str, int]],
        began: datetime,
        crew: Crew[SetJob, TriedSet],
        observer: Observer,
    ) -> None:
        """``last_keys`` has the last drill of each instance: its id, and the number of keys."""
        self.exit_codes: Final = set[int]()
        self._archive: Final = archive
        self._options: Final = options
        self._folders: Final = folders
        self._last_keys: Final = last_keys
        self._began: Final = began
        self._crew: Final = crew
        self._observer: Final = observer
        self._reported_root = False

    async def drill(self, folder: Folder, number: int, count: int) -> SetEvidence:
        """Drill one set, the ``number``-th of ``count``."""
        backup_set = await read_set(self._archive, folder, self._folders)
        tried = await self._try_files(SetJob(backup_set, number, count))
        rpo = await self._rpo(backup_set)
        found = self._judge(backup_set, tried, rpo)
        self.exit_codes.update(one.exit_code for one in tried.files.values())
        self.exit_codes.update(one.exit_code for one in backup_set.damage)
        self._observer(SetJudged(found))
        return found

    async def _try_files(self, job: SetJob) -> TriedSet:
        [tried] = (await self._crew.do({job.backup_set.key: job})).values()
        if isinstance(tried, ArchiverError):  # it kills the process that tries it
            files = {}
            for record in job.backup_set.records:
                files[record.key] = file = failed_file(record, tried)
                self._observer(FileTried(file.evidence))
                self._observer(FileLeft(record.object_key, record.size))
            return TriedSet(files, is_proven=False)
        if not self._reported_root and any(file.as_root for file in tried.files.values()):
            self._reported_root = True
            self._observer(ServerIsRoot())
        return tried

    def _judge(
        self,
        backup_set: BackupSet,
        tried: TriedSet,
        rpo: evidence.Rpo,
    ) -> SetEvidence:
        """Return the evidence of the set, with its verdict."""
        results = tried.files
        files = tuple(one.evidence for one in results.values())
        assertions = self._assertions(backup_set, results)
        comparison = self._comparison(backup_set, files)
        verdict, why = judge_set(
            backup_set, files, assertions, comparison, allow_empty=self._options.allow_empty
        )
        is_compared = comparison is not None or self._options.max_change is None
        if verdict is evidence.Verdict.PASS and not is_compared:
            why = f"{why}; there is no earlier drill to compare with"
        phases = _sum_phases([one.seconds for one in results.values()])
        present, missing = backup_set.nodes, backup_set.missing
        return SetEvidence(
            key=backup_set.key,
            instance_id=backup_set.folder.instance_id,
            started_at=backup_set.folder.started_at,
            nodes=Nodes(len(present) + len(missing), present, missing),
            verdict=verdict,
            why=why,
            phases=phases,
            rto=measure_rto(recovery_seconds(phases), self._options.rto_seconds),
            rpo=rpo,
            files=files,
            comparison=comparison,
            assertions=assertions,
            teardown=evidence.Teardown(
                processes_gone=all(one.processes_gone for one in results.values()),
                directories_gone=tried.is_removed
                and all(one.directories_gone for one in results.values()),
                proven=tried.is_proven,
            ),
        )

    def _comparison(
        self, backup_set: BackupSet, files: Sequence[evidence.FileEvidence]
    ) -> Comparison | None:
        """Compare the keys with the instance's last drill, if there is one and all files loaded."""
        last = self._last_keys.get(backup_set.folder.instance_id)
        if last is None or not files or any(file.loaded is None for file in files):
            return None
        return _compare(*last, loaded_keys(files), self._options.max_change)

    def _assertions(
        self, backup_set: BackupSet, files: Mapping[str, DrilledFile]
    ) -> tuple[evidence.Assertion, ...]:
        results = [files[record.key].results for record in backup_set.chosen()]
        # A node without a file counts as one that did not load.
        results += [()] * len(backup_set.missing)
        return tuple(
            combine(
                assertion,
                # A server that failed may have evaluated only some of the assertions.
                [next(iter(one[number:]), None) for one in results],
                show_values=self._options.show_values,
            )
            for number, assertion in enumerate(self._options.assertions)
        )

    async def _rpo(self, drilled: BackupSet) -> evidence.Rpo:
        """Measure the RPO by the listing; read the records of the newest sets only."""
        folder = drilled.folder
        complete = [
            one for one in self._folders.looking_complete(folder.instance_id) if one.is_full
        ]
        if not drilled.is_complete:
            complete = [one for one in complete if one.key != folder.key]
        while (
            complete
            and not (await read_set(self._archive, complete[-1], self._folders)).is_complete
        ):
            complete.pop()
        ahead = self._seconds_ahead(folder)
        if complete and complete[-1].key != folder.key:
            ahead |= self._seconds_ahead(complete[-1])
        for key, seconds in ahead.items():
            self._observer(FromTheFuture(key, seconds))
        starts = [one.started_at for one in complete]
        since = max(0.0, self._began.timestamp() - self._options.rpo_window_seconds)
        # If the newest set is from the future, a clock is wrong and its age is unknown.
        newest = None
        if complete and complete[-1].key not in ahead:
            newest = max(0.0, (self._began - starts[-1]).total_seconds())
        return measure_rpo(
            age_seconds=max(0.0, (self._began - folder.started_at).total_seconds()),
            newest_age_seconds=newest,
            largest_gap=largest_gap(starts, datetime.fromtimestamp(since, UTC)),
            target_seconds=self._options.rpo_seconds,
        )

    def _seconds_ahead(self, folder: Folder) -> dict[str, float]:
        """Return how many seconds after this drill the set started, by its key, if it did."""
        seconds = (folder.started_at - self._began).total_seconds()
        return {folder.key: seconds} if seconds > CLOCK_SECONDS else {}


def _sum_phases(seconds: Sequence[Mapping[str, float]]) -> Phases:
    """Sum the phases of the files, which are restored one after the other.

    The nodes of a real cluster would recover in parallel. A phase that one of the files did not
    reach is None.
    """
    sums: dict[str, float | None] = {}
    for name in (one.name for one in fields(Phases)):
        values = [one.get(name) for one in seconds]
        known = [value for value in values if value is not None]
        sums[name] = sum(known) if known and len(known) == len(values) else None
    return Phases(**sums)


def _compare(last_id: str, then: int, now: int, max_change: float | None) -> Comparison:
    """Compare the number of keys with that in the drill ``last_id``."""
    change = now - then
    fraction = change / then if then else None
    within = max_change is None or abs(change) <= max_change * then
    return Comparison(last_id, then, now, change, fraction, within)
