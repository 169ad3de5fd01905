"""Drills one file of a set: restore, inspect, load, judge, remove."""

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from archiver import events, rdb
from archiver.archive.archive import Archive
from archiver.archive.record import Record
from archiver.commands.drill.assertions import Assertion, AssertionResult
from archiver.commands.drill.census import Census
from archiver.commands.drill.file_evidence import (
    difference,
    phase_seconds,
    tested_file,
    untested_file,
)
from archiver.commands.drill.judgement import comparable, judge_file
from archiver.commands.drill.programs import ServerProgram
from archiver.commands.drill.server import Limits, Loading
from archiver.commands.drill.trial import Trial, run_trial
from archiver.commands.restore.files import CopiedFile
from archiver.commands.restore.inspection import inspect_file
from archiver.commands.restore.target import check_space
from archiver.commands.restore.writer import restore_file
from archiver.concurrency import in_thread
from archiver.errors import ArchiverError, IntegrityError, UnsafeInput
from archiver.ids import safe
from archiver.report.evidence import FileEvidence, Outcome
from archiver.stores.local import disk

# Two clocks of a machine may differ by this much although nobody set one of them.
_CLOCK_TOLERANCE: Final = timedelta(seconds=1)
# The steps of a file that the progress shows.
_STEPS: Final = ("restoring", "checking", "loading", "counting")


@dataclass(frozen=True, slots=True)
class DrilledFile:
    """The result of drilling one file.

    ``seconds`` has the duration of each phase that was reached. ``results`` of the assertions are
    empty if the file did not load. ``exit_code`` is 0 for a pass. ``as_root``: a server ran as
    root.
    """

    evidence: FileEvidence
    seconds: dict[str, float]
    results: tuple[AssertionResult, ...]
    processes_gone: bool
    directories_gone: bool
    exit_code: int
    as_root: bool = False


@dataclass(frozen=True, slots=True)
class FileDrill:
    """What all files of a drill have in common."""

    archive: Archive
    programs: Sequence[ServerProgram]
    limits: Limits
    tolerance: float
    sample_above: int | None
    clock: Callable[[], float]
    observer: events.WorkObserver = events.ignore

    async def try_file(
        self, record: Record, scratch: Path, assertions: Sequence[Assertion]
    ) -> DrilledFile:
        """Restore a file to ``scratch``, load it, and leave nothing of it there.

        All failures are results, even a full disk or a store that does not answer.
        """
        try:
            return await self._try(record, scratch, assertions)
        finally:
            await in_thread(_remove, record, scratch)
            self.observer(events.FileLeft(record.object_key, record.size))

    async def _try(
        self, record: Record, scratch: Path, assertions: Sequence[Assertion]
    ) -> DrilledFile:
        try:
            copied = await self._restore(record, scratch)
            inspection = await self._inspect(record, copied)
            began, ticks = datetime.now(UTC), self.clock()
            trial = await self._load(record, copied, scratch, assertions)
            elapsed = timedelta(seconds=max(0.0, self.clock() - ticks))
        except ArchiverError as error:
            return failed_file(record, error)
        # Compare the counts of our own parser with those of the server, and judge.
        census = trial.decisive.census
        found = None
        if census is not None and inspection.contents is not None and comparable(inspection):
            began, census = _allow_for_clock_change(began, elapsed, census)
            found = difference(inspection.contents, census, began, self.tolerance)
        judged = judge_file(inspection, trial, found, is_log=record.is_log)
        return DrilledFile(
            evidence=tested_file(record, copied, inspection, trial, found, judged),
            seconds=phase_seconds(copied, trial),
            results=trial.decisive.assertions if census is not None else (),
            processes_gone=all(one.teardown.process_gone for one in trial.attempts),
            directories_gone=all(
                one.teardown.directory_removed and one.teardown.socket_gone
                for one in trial.attempts
            ),
            exit_code=0 if judged.outcome is Outcome.PASS else 3 if judged.is_damage else 1,
            as_root=any(one.as_root for one in trial.attempts),
        )

    async def _restore(self, record: Record, scratch: Path) -> CopiedFile:
        await in_thread(check_space, scratch, record.size)
        self._report(record, "restoring", 0, record.size)
        copied = await restore_file(
            self.archive,
            record,
            scratch,
            progress=lambda at: self._report(record, "restoring", at, record.size),
        )
        await in_thread(_make_readable, copied.path)
        return copied

    async def _inspect(self, record: Record, copied: CopiedFile) -> rdb.Inspection:
        """Parse the file; truncate a log that ends within a command."""
        inspection = await inspect_file(
            copied.path,
            is_log=record.is_log,
            progress=lambda at: self._report(record, "checking", at, record.size),
        )
        if record.is_log and inspection.is_log_cut_short:
            await in_thread(_cut_back, copied.path, inspection)
        return inspection

    async def _load(
        self, record: Record, copied: CopiedFile, scratch: Path, assertions: Sequence[Assertion]
    ) -> Trial:
        def loaded(loading: Loading) -> None:
            total = max(loading.total_bytes, loading.loaded_bytes)
            self._report(record, "loading", loading.loaded_bytes, total)

        self._report(record, "loading", 0, record.size)
        return await run_trial(
            copied.path,
            self.programs,
            kind=copied.kind,
            assertions=assertions,
            limits=self.limits,
            sample_above=self.sample_above,
            directory=scratch,
            progress=loaded,
            counted=lambda seen, total: self._report(record, "counting", seen, total, "keys"),
            clock=self.clock,
        )

    def _report(
        self, record: Record, step: str, position: int, total: int, unit: str = "B"
    ) -> None:
        number, count = _STEPS.index(step) + 1, len(_STEPS)
        key, size = record.object_key, record.size
        self.observer(events.FileWorkedOn(key, size, step, number, count, position, total, unit))


def _allow_for_clock_change(
    began: datetime, elapsed: timedelta, census: Census
) -> tuple[datetime, Census]:
    """Return the start of the load, and the census with its end, by the wall clock.

    If the clock was set back during the load, the server may have expired keys by the old or by the
    new time, so the returned interval includes both.
    """
    back = began + elapsed - datetime.now(UTC)
    if back <= _CLOCK_TOLERANCE:
        return began, census
    return began - back, replace(census, ended=max(census.ended, began + elapsed))


def _remove(record: Record, scratch: Path) -> None:
    """Remove the node's directory, because ``scratch`` holds one file at a time."""
    with suppress(UnsafeInput):
        shutil.rmtree(scratch / safe(record.node_id), ignore_errors=True)


def _make_readable(path: Path) -> None:
    """Let nobody's server read the file. The directory above is closed to all other users."""
    with disk.store_errors(path):
        path.chmod(0o644)


def _cut_back(path: Path, inspection: rdb.Inspection) -> None:
    """Truncate the copy of a log that ends within a command, as a server would.

    The drill's servers are configured not to do it (aof-load-truncated), so that a change of the
    file by a server is always noticed.
    """
    if inspection.log is not None:
        with disk.store_errors(path):
            os.truncate(path, inspection.log.good_until)


def failed_file(record: Record, error: ArchiverError) -> DrilledFile:
    """The result for a file that no server has tried to load: it fails if it is damaged."""
    outcome = Outcome.FAIL if isinstance(error, IntegrityError) else Outcome.UNTRIED
    return DrilledFile(
        evidence=untested_file(record, outcome, str(error)),
        seconds={},
        results=(),
        processes_gone=True,
        directories_gone=True,
        exit_code=error.exit_code,
    )
