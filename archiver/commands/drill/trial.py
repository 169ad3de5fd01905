"""Tries to restore one file: choose a server, start it, load, judge, count, assert, tear down."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from archiver.commands.drill.assertions import Assertion, AssertionResult, check
from archiver.commands.drill.census import Census, take_census
from archiver.commands.drill.client import ErrorReply, NoReply
from archiver.commands.drill.outcome import Cause, Outcome, Verdict
from archiver.commands.drill.process import Listening
from archiver.commands.drill.programs import (
    DumpFile,
    NoServer,
    ServerProgram,
    choose,
    no_programs,
    read_dump_file,
)
from archiver.commands.drill.server import Limits, Loading, Server, running
from archiver.commands.drill.teardown import TearDown
from archiver.errors import UsageError
from archiver.model import Kind
from archiver.times import Stopwatch

# Causes that another server may not have: it may know the version or the module, or check values
# less strictly.
_TRY_NEXT_SERVER = frozenset(
    {
        Cause.VERSION,
        Cause.FOREIGN,
        Cause.MODULE,
        Cause.COMMAND,
        Cause.CONTENT,
        Cause.CRASH,
        Cause.CONFIGURATION,
        Cause.ACCESS,
        Cause.EXITED,
    }
)
# The attempt whose outcome comes first here decides the trial: it says most about the file.
_DECISIVE_ORDER = (
    Outcome.LOADED,
    Outcome.REFUSED,
    Outcome.UNLOADABLE,
    Outcome.OUT_OF_MEMORY,
    Outcome.TIMED_OUT,
    Outcome.COULD_NOT_START,
)
_LOG_LINES = 40


class Phase(StrEnum):
    """A step of an attempt, as the evidence calls it, in order."""

    START = "start"
    LOAD = "load"
    CENSUS = "census"
    ASSERTIONS = "assertions"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One server that tried to load the file.

    ``seconds`` has the duration of each phase that was reached. ``log`` is the end of its log,
    which may contain key names. If it did not load the file, ``census`` is None and ``assertions``
    is empty. ``as_root``: the server ran as root.
    """

    program: ServerProgram
    verdict: Verdict
    listening: Listening | None
    census: Census | None
    assertions: tuple[AssertionResult, ...]
    teardown: TearDown
    seconds: Mapping[str, float]
    log: str
    as_root: bool = False


@dataclass(frozen=True, slots=True)
class Trial:
    """All attempts to load one file. ``decisive`` is the one that decides the outcome."""

    dump: DumpFile
    attempts: tuple[Attempt, ...]

    @property
    def decisive(self) -> Attempt:
        return min(self.attempts, key=lambda one: _DECISIVE_ORDER.index(one.verdict.outcome))


async def run_trial(
    path: Path,
    programs: Sequence[ServerProgram],
    *,
    kind: Kind | None = None,
    assertions: Sequence[Assertion] = (),
    limits: Limits | None = None,
    sample_above: int | None = None,
    directory: Path | None = None,
    progress: Callable[[Loading], None] | None = None,
    counted: Callable[[int, int], None] = lambda *_: None,
    clock: Callable[[], float] = time.monotonic,
) -> Trial:
    """Load one file, with one server after the other until one succeeds.

    A file that does not load is a result, not an error. ``kind`` is that of
    :func:`~archiver.commands.drill.programs.read_dump_file`, ``directory`` and ``limits`` are those
    of :func:`~archiver.commands.drill.server.running`, ``sample_above`` and ``counted`` those of
    :func:`~archiver.commands.drill.census.take_census`. ``progress`` is told how far loading is.

    Raises:
        NoServer: There are no ``programs``.
        UsageError: The file cannot be read, or redis-py is not installed.
        StoreError: ``directory`` cannot be used.
    """
    try:
        dump = await read_dump_file(path, kind)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    attempts = []
    for program in _order(programs, dump):
        loader = _Loader(dump, program, tuple(assertions), sample_above, progress, counted, clock)
        attempts.append(await loader.attempt(limits or Limits(), directory))
        if attempts[-1].verdict.cause not in _TRY_NEXT_SERVER:
            break
    return Trial(dump, tuple(attempts))


def _order(programs: Sequence[ServerProgram], dump: DumpFile) -> list[ServerProgram]:
    if not programs:
        raise no_programs()
    try:
        return choose(programs, dump.magic, dump.version)
    except NoServer:
        # Our table of versions may be out of date, so let a server say that it cannot.
        return [max(programs, key=lambda one: (one.flavour.upper() == dump.magic, one.version))]


@dataclass(frozen=True, slots=True)
class _Loader:
    """Loads a file with one server."""

    dump: DumpFile
    program: ServerProgram
    assertions: tuple[Assertion, ...]
    sample_above: int | None
    progress: Callable[[Loading], None] | None
    counted: Callable[[int, int], None]
    clock: Callable[[], float]

    async def attempt(self, limits: Limits, directory: Path | None) -> Attempt:
        watch = Stopwatch(self.clock)
        listening, census, results = None, None, list[AssertionResult]()
        async with running(
            self.program, self.dump, limits=limits, directory=directory, clock=self.clock
        ) as server:
            verdict = await self._load(server, watch)
            if verdict.outcome is Outcome.LOADED:
                listening = await server.listening()
                try:
                    with watch.measure(Phase.CENSUS):
                        census = await take_census(
                            server, sample_above=self.sample_above, progress=self.counted
                        )
                    with watch.measure(Phase.ASSERTIONS):
                        for assertion in self.assertions:
                            results.append(await check(assertion, server))
                except (NoReply, ErrorReply) as error:
                    verdict = await self._judge_failure(server, error)
        teardown = server.teardown
        assert teardown is not None, "running() sets it"  # noqa: S101
        return Attempt(
            program=self.program,
            verdict=verdict,
            listening=listening,
            census=census,
            assertions=tuple(results),
            teardown=teardown,
            seconds=watch.seconds,
            log="\n".join(server.log.splitlines()[-_LOG_LINES:]),
            as_root=server.is_root,
        )

    async def _load(self, server: Server, watch: Stopwatch) -> Verdict:
        with watch.measure(Phase.START):
            answered = await server.answer()
        if answered:
            with watch.measure(Phase.LOAD):
                await server.load(self.progress)
        return await server.judge()

    async def _judge_failure(self, server: Server, error: Exception) -> Verdict:
        """The verdict on a server that loaded the file and then failed to answer."""
        verdict = await server.judge()
        if verdict.outcome is not Outcome.LOADED:
            return verdict
        reason = f"loaded, but then failed: {str(error) or 'no answer'}"
        if isinstance(error, ErrorReply):  # it stays LOADED, but does not pass without a census
            return replace(verdict, reason=reason)
        return Verdict(Outcome.TIMED_OUT, Cause.DEADLINE, reason, facts=verdict.facts)
