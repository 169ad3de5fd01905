"""One file of a set on the drill's stage: restored, parsed, loaded, judged, and removed."""

import contextlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from archiver import events, rdb
from archiver.archive.archive import Archive
from archiver.archive.record import Record
from archiver.commands.drill.assertions import Assertion, AssertionResult
from archiver.commands.drill.census import Census
from archiver.commands.drill.counting import difference, loaded_databases, parsed_databases
from archiver.commands.drill.judgement import Judgement, comparable, judge_file
from archiver.commands.drill.outcome import Cause
from archiver.commands.drill.server import Limits, Loading
from archiver.commands.drill.servers import ServerProgram
from archiver.commands.drill.trial import Phase, Trial, run_trial
from archiver.commands.restore.files import Copied
from archiver.commands.restore.inspection import inspect_file
from archiver.commands.restore.run import check_space, lay_out
from archiver.concurrency import in_thread
from archiver.documents import Fields
from archiver.errors import ArchiverError, IntegrityError, UnsafeInput
from archiver.ids import safe
from archiver.model import Footer, Kind
from archiver.report import evidence
from archiver.report.evidence import Difference, FileEvidence, Outcome
from archiver.stores.local import disk

# The phases of the evidence, by the steps of a trial.
_STEPS: Final = {
    "start": Phase.START,
    "load": Phase.LOAD,
    "census": Phase.CENSUS,
    "assertions": Phase.ASSERTIONS,
}


# By which two clocks of one machine may differ though nobody set one of them.
_NO_JUMP: Final = timedelta(seconds=1)
# What is done to each file, as people are told.
_WORK: Final = ("restoring", "checking", "loading", "counting")


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of one file.

    ``seconds`` by phase, those reached. ``results`` of the assertions are empty when it did not
    load. ``exit_code`` is what its failure stands for, 0 for a pass. ``as_root``: a server was
    root.
    """

    file: FileEvidence
    seconds: dict[str, float]
    results: tuple[AssertionResult, ...]
    processes_gone: bool
    directories_gone: bool
    exit_code: int
    as_root: bool = False


@dataclass(frozen=True, slots=True)
class Stage:
    """What every file of a drill is tried with."""

    archive: Archive
    programs: Sequence[ServerProgram]
    limits: Limits
    tolerance: float
    sample_above: int | None
    clock: Callable[[], float]
    observer: events.WorkObserver = events.ignore

    async def try_file(
        self, record: Record, scratch: Path, assertions: Sequence[Assertion]
    ) -> Tried:
        """Restore ``record`` into ``scratch``, load it, and leave nothing of it there.

        What goes wrong is a finding, also a full disk or a store that does not answer.
        """
        try:
            return await self._try(record, scratch, assertions)
        finally:
            await in_thread(_remove, record, scratch)
            self.observer(events.FileLeft(record.object_key, record.size))

    def _at(self, record: Record, step: str, position: int, total: int, unit: str = "B") -> None:
        self.observer(
            events.FileWorkedOn(
                record.object_key,
                record.size,
                step,
                _WORK.index(step) + 1,
                len(_WORK),
                position,
                total,
                unit,
            )
        )

    async def _try(self, record: Record, scratch: Path, assertions: Sequence[Assertion]) -> Tried:
        try:
            copied = await self._restore(record, scratch)
        except IntegrityError as error:
            return _untouched(record, Outcome.FAIL, error)
        except ArchiverError as error:
            return _untouched(record, Outcome.UNTRIED, error)
        try:
            inspection = await inspect_file(
                copied.path,
                is_log=record.is_log,
                progress=lambda at: self._at(record, "checking", at, record.size),
            )
            if record.is_log and inspection.is_log_cut_short:
                await in_thread(_cut_back, copied.path, inspection)
            began, ticks = datetime.now(UTC), self.clock()
            trial = await self._load(record, copied, scratch, assertions)
            spent = timedelta(seconds=max(0.0, self.clock() - ticks))
        except ArchiverError as error:
            return _untouched(record, Outcome.UNTRIED, error)
        census = trial.decisive.census
        found = None
        if census is not None and inspection.contents is not None and comparable(inspection):
            began, census = _by_both_clocks(began, spent, census)
            found = difference(inspection.contents, census, began, self.tolerance)
        judged = judge_file(inspection, trial, found, is_log=record.is_log)
        return Tried(
            file=_file(record, copied, inspection, trial, found, judged),
            seconds=_seconds(copied, trial),
            results=trial.decisive.assertions if census is not None else (),
            processes_gone=all(one.teardown.process_gone for one in trial.attempts),
            directories_gone=all(
                one.teardown.directory_removed and one.teardown.socket_gone
                for one in trial.attempts
            ),
            exit_code=0 if judged.outcome is Outcome.PASS else 3 if judged.is_damage else 1,
            as_root=any(one.as_root for one in trial.attempts),
        )

    async def _restore(self, record: Record, scratch: Path) -> Copied:
        await in_thread(check_space, scratch, record.size)
        self._at(record, "restoring", 0, record.size)
        copied = await lay_out(
            self.archive,
            record,
            scratch,
            progress=lambda at: self._at(record, "restoring", at, record.size),
        )
        await in_thread(_let_read, copied.path)
        return copied

    async def _load(
        self, record: Record, copied: Copied, scratch: Path, assertions: Sequence[Assertion]
    ) -> Trial:
        def loaded(loading: Loading) -> None:
            total = max(loading.total_bytes, loading.loaded_bytes)
            self._at(record, "loading", loading.loaded_bytes, total)

        self._at(record, "loading", 0, record.size)
        return await run_trial(
            copied.path,
            self.programs,
            kind=copied.kind,
            assertions=assertions,
            limits=self.limits,
            sample_above=self.sample_above,
            directory=scratch,
            progress=loaded,
            counted=lambda seen, of: self._at(record, "counting", seen, of, "keys"),
            clock=self.clock,
        )


def _by_both_clocks(began: datetime, spent: timedelta, census: Census) -> tuple[datetime, Census]:
    """When the load began, and the census with the time of its end. Where the clock was set back
    meanwhile, the server may have expired keys by what it was before or by what it is now."""
    back = began + spent - datetime.now(UTC)
    if back <= _NO_JUMP:
        return began, census
    return began - back, replace(census, ended=max(census.ended, began + spent))


def _remove(record: Record, scratch: Path) -> None:
    """The node's folder, with whatever came of it: scratch holds one file at a time."""
    with contextlib.suppress(UnsafeInput):
        shutil.rmtree(scratch / safe(record.node_id), ignore_errors=True)


def _let_read(path: Path) -> None:
    """For a server that is nobody. All others are kept out by the directory above."""
    with disk.store_errors(path):
        path.chmod(0o644)


def _cut_back(path: Path, inspection: rdb.Inspection) -> None:
    """Do to the copy of a log that ends within a command what a server does (aof-load-truncated).

    The servers here are told not to: that they changed a file is never to be overlooked.
    """
    if inspection.log is not None:
        with disk.store_errors(path):
            os.truncate(path, inspection.log.good_until)


def _untouched(record: Record, outcome: Outcome, error: ArchiverError) -> Tried:
    """A file that no server has seen."""
    return Tried(
        file=_recorded(record, outcome, str(error)),
        seconds={},
        results=(),
        processes_gone=True,
        directories_gone=True,
        exit_code=error.exit_code,
    )


def _recorded(record: Record, outcome: Outcome, reason: str) -> FileEvidence:
    """The evidence as far as the record goes."""
    suffix = record.object_key.rpartition(".")[2]
    return FileEvidence(
        node_id=record.node_id,
        backup_id=record.backup_id,
        object_key=record.object_key,
        kind=Kind(suffix) if suffix in set(Kind) else Kind.UNKNOWN,
        size=record.size,
        sha256=record.sha256,
        crc64ecma=str(record.document["crc64ecma"]),
        verified=False,
        origin=_origin(record),
        rdb=evidence.RdbFacts(None, None, None, None, Footer.NONE),
        parsed=None,
        server=None,
        outcome=outcome,
        reason=reason,
        loaded=None,
        keys_loaded=None,
        keys_expired=None,
        difference=None,
        peak_memory_bytes=None,
        modules_needed=(),
    )


def _file(
    record: Record,
    copied: Copied,
    inspection: rdb.Inspection,
    trial: Trial,
    found: Difference | None,
    judged: Judgement,
) -> FileEvidence:
    """The evidence of a file that a server was tried with."""
    attempt = trial.decisive
    facts, census, contents = attempt.verdict.facts, attempt.census, inspection.contents
    program = attempt.program
    needed = set(contents.modules) if contents is not None else set()
    if attempt.verdict.cause is Cause.MODULE:
        needed |= set(attempt.verdict.names)
    return replace(
        _recorded(record, judged.outcome, judged.reason),
        kind=copied.kind,
        verified=True,
        rdb=_facts(inspection),
        parsed=parsed_databases(contents) if contents and comparable(inspection) else None,
        server=evidence.Server(
            program.flavour.value, ".".join(map(str, program.version)), program.path.name
        ),
        loaded=None if census is None else loaded_databases(census),
        keys_loaded=facts.keys_loaded if facts else None,
        keys_expired=facts.keys_expired if facts else None,
        difference=found,
        peak_memory_bytes=None if census is None else census.memory_peak,
        # What it loaded, it did not lack.
        modules_needed=() if census is not None else tuple(sorted(needed)),
    )


def _facts(inspection: rdb.Inspection) -> evidence.RdbFacts:
    aux = inspection.contents.aux if inspection.contents is not None else {}
    created = aux.get("ctime", "")
    moment = None
    if created.isdigit():
        with contextlib.suppress(ValueError, OverflowError, OSError):  # a year that none is
            moment = datetime.fromtimestamp(int(created), UTC)
    return evidence.RdbFacts(
        magic=inspection.magic,
        version=inspection.version,
        redis_ver=aux.get("redis-ver") or aux.get("valkey-ver"),
        ctime=moment,
        footer=inspection.footer,
    )


def _origin(record: Record) -> evidence.Origin:
    """Where the archive had it from."""
    provenance = record.provenance
    fetched_at = Fields(record.key, record.document).within("transfer").moment("finished_at")
    url = evidence.without_secrets(provenance.origin)
    return evidence.Origin(provenance.network, url, fetched_at)


def _seconds(copied: Copied, trial: Trial) -> dict[str, float]:
    """Where the time went: of the server that counts, but for what it took to end them all."""
    spent = {"read": copied.reading, "verify": copied.checking, "lay_out": copied.settling}
    attempt = trial.decisive
    by_phase = {timing.phase: timing.seconds for timing in attempt.timings}
    loaded = attempt.census is not None
    for name, phase in _STEPS.items():
        if phase in by_phase and (loaded or name == "start"):
            spent[name] = by_phase[phase]
    spent["tear_down"] = sum(one.teardown.seconds for one in trial.attempts)
    return spent
