"""The walk of one file: choose, start, load, judge, count, check, tear down."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from archiver.commands.drill.assertions import Assertion, AssertionResult, check
from archiver.commands.drill.census import Census, take
from archiver.commands.drill.client import Refusal, Silence
from archiver.commands.drill.dump import Subject, look
from archiver.commands.drill.outcome import Cause, Outcome, Verdict
from archiver.commands.drill.reachable import Listening
from archiver.commands.drill.server import Limits, Loading, Server, running
from archiver.commands.drill.servers import Ability, NoServer, ServerProgram, able_to_load, choose
from archiver.commands.drill.teardown import TearDown
from archiver.errors import UsageError
from archiver.model import Kind

# What another server may see otherwise: a version, a module, a stricter or laxer check of values.
_WORTH_ANOTHER = frozenset(
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
# When none has loaded it, the word that says most of the file comes first.
_TELLING = (
    Outcome.LOADED,
    Outcome.REFUSED,
    Outcome.UNLOADABLE,
    Outcome.OUT_OF_MEMORY,
    Outcome.TIMED_OUT,
    Outcome.COULD_NOT_START,
)
_LOG_LINES = 40


class Phase(StrEnum):
    """A step of the procedure, in order."""

    CHOOSE = "choose"
    START = "start"
    LOAD = "load"
    JUDGE = "judge"
    CENSUS = "census"
    ASSERTIONS = "assertions"
    TEAR_DOWN = "tear down"


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a step took."""

    phase: Phase
    seconds: float


@dataclass(frozen=True, slots=True)
class Attempt:
    """One server with the file. ``log`` is the end of what it wrote: key names may be in it.

    ``census`` is None, and ``assertions`` are empty, when it did not load. ``as_root``: the server
    was root, as this process is, and could not be made nobody.
    """

    program: ServerProgram
    ability: Ability
    verdict: Verdict
    listening: Listening | None
    census: Census | None
    assertions: tuple[AssertionResult, ...]
    teardown: TearDown
    timings: tuple[Timing, ...]
    log: str
    as_root: bool = False


@dataclass(frozen=True, slots=True)
class Trial:
    """Everything that was found out about one file. ``decisive`` is the attempt that counts."""

    subject: Subject
    attempts: tuple[Attempt, ...]
    timings: tuple[Timing, ...]

    @property
    def decisive(self) -> Attempt:
        return min(self.attempts, key=lambda one: _TELLING.index(one.verdict.outcome))

    @property
    def outcome(self) -> Outcome:
        return self.decisive.verdict.outcome

    @property
    def passed(self) -> bool:
        """Loaded, counted, every assertion holds, out of reach, and nothing left behind."""
        attempt = self.decisive
        return (
            attempt.verdict.outcome is Outcome.LOADED
            and attempt.census is not None
            and all(result.holds for result in attempt.assertions)
            and attempt.listening is not None
            and attempt.listening.ports == ()
            and all(one.teardown.clean for one in self.attempts)
        )


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
    """Try to restore one file, with one server after the other until one can.

    A file that does not load is a finding, not an error. ``kind`` as for
    :func:`~archiver.commands.drill.dump.look`, ``directory`` and ``limits`` as for
    :func:`~archiver.commands.drill.server.running`, ``sample_above`` as for
    :func:`~archiver.commands.drill.census.take`; ``progress`` is called while a server loads, and
    ``counted`` while its keys are counted, as there.

    Raises:
        NoServer: There is no server program at all.
        UsageError: The file cannot be read, or redis-py is not installed.
        StoreError: There is no place, or no right, to work in ``directory``.
    """
    watch = _Watch(clock)
    with watch.of(Phase.CHOOSE):
        try:
            subject = await look(path, kind)
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}") from error
        order = _order(programs, subject)
    attempts = []
    for program in order:
        work = _Work(subject, program, tuple(assertions), sample_above, progress, counted, clock)
        attempts.append(await work.attempt(limits or Limits(), directory))
        if attempts[-1].verdict.cause not in _WORTH_ANOTHER:
            break
    return Trial(subject, tuple(attempts), tuple(watch.timings))


def _order(programs: Sequence[ServerProgram], subject: Subject) -> list[ServerProgram]:
    try:
        return choose(programs, subject.magic, subject.version)
    except NoServer:
        if not programs:
            raise
        # That no server here knows the version is for a server to say: our table may be old.
        return [max(programs, key=lambda one: (one.flavour.upper() == subject.magic, one.version))]


@dataclass(frozen=True, slots=True)
class _Work:
    """One attempt to make."""

    subject: Subject
    program: ServerProgram
    assertions: tuple[Assertion, ...]
    sample_above: int | None
    progress: Callable[[Loading], None] | None
    counted: Callable[[int, int], None]
    clock: Callable[[], float]

    async def attempt(self, limits: Limits, directory: Path | None) -> Attempt:
        watch = _Watch(self.clock)
        listening, census, results = None, None, list[AssertionResult]()
        async with running(
            self.program, self.subject, limits=limits, directory=directory, clock=self.clock
        ) as server:
            verdict = await self._load(server, watch)
            if verdict.outcome is Outcome.LOADED:
                listening = await server.listening()
                try:
                    with watch.of(Phase.CENSUS):
                        census = await take(
                            server, sample_above=self.sample_above, progress=self.counted
                        )
                    with watch.of(Phase.ASSERTIONS):
                        for assertion in self.assertions:
                            results.append(await check(assertion, server))
                except (Silence, Refusal) as error:
                    verdict = await self._fallen(server, error)
        torn = server.teardown
        assert torn is not None, "running() sets it"  # noqa: S101
        watch.timings.append(Timing(Phase.TEAR_DOWN, torn.seconds))
        return Attempt(
            program=self.program,
            ability=able_to_load(self.program, self.subject.magic, self.subject.version),
            verdict=verdict,
            listening=listening,
            census=census,
            assertions=tuple(results),
            teardown=torn,
            timings=tuple(watch.timings),
            log="\n".join(server.log.splitlines()[-_LOG_LINES:]),
            as_root=server.is_root,
        )

    async def _load(self, server: Server, watch: "_Watch") -> Verdict:
        with watch.of(Phase.START):
            answered = await server.answer()
        if answered:
            with watch.of(Phase.LOAD):
                await server.load(self.progress)
        with watch.of(Phase.JUDGE):
            return await server.judge()

    async def _fallen(self, server: Server, error: Exception) -> Verdict:
        """It had loaded, and then did not serve: no restore that anybody could use."""
        verdict = await server.judge()
        if verdict.outcome is not Outcome.LOADED:
            return verdict
        reason = f"loaded, but then: {str(error) or 'no answer'}"
        if isinstance(error, Refusal):  # to be counted; without a census it does not pass
            return replace(verdict, reason=reason)
        return Verdict(Outcome.TIMED_OUT, Cause.DEADLINE, reason, facts=verdict.facts)


class _Watch:
    """Times the steps, those that fail too."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.timings: list[Timing] = []
        self._clock = clock

    @contextmanager
    def of(self, phase: Phase) -> Iterator[None]:
        began = self._clock()
        try:
            yield
        finally:
            self.timings.append(Timing(phase, max(0.0, self._clock() - began)))
