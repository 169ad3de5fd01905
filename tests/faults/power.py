"""A run of the tool, cut by a power failure at every moment: record, generate the states, judge.

The run is recorded under strace. What each state may lack follows from the model in ``posix.py``.
It is judged by what it holds (``facts.py``), by what was promised before the cut, and by what a run
of the tool makes of it.

durable     what was told, or noted, or was there at exit, is there; what was right stays right
lost        bytes that a repair is to replace are there until the right ones are
converge    the next run ends with 0, every backup is there and right
left        it leaves nothing in .staging, and in .quarantine only what was refused
second      what is repaired and damaged once more is repaired once more
again       it fetches no part that a journal noted, and a second run fetches nothing
ready       an object that is there without its record gets it with the vendor gone
"""

import asyncio
import copy
import io
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final

from archiver.cli import main
from archiver.emulator import Emulator
from tests.conftest import KEY_ID, KEY_SECRET
from tests.faults.cuts import cuts
from tests.faults.facts import (
    ARCHIVE,
    QUARANTINE,
    STAGING,
    Facts,
    Truth,
    archive_of,
    inspect,
    own,
    set_of,
    stem_of,
)
from tests.faults.posix import FileSystem, Tree
from tests.faults.promises import Promises
from tests.faults.syscalls import Replay, lay_out, read_tree, under_strace

CHECKOUT: Final = Path(__file__).parents[2]
PART = 64 * 1024


@dataclass(frozen=True, slots=True)
class Served:
    """An emulator, and the event loop in another thread that it runs on."""

    emulator: Emulator
    loop: asyncio.AbstractEventLoop

    @property
    def endpoint(self) -> str:
        return self.emulator.endpoint

    def bytes_served(self) -> int:
        """Bytes of objects so far. They are counted when they were sent: a client may be done
        before."""

        async def answered() -> int:
            while self.emulator._running:
                await asyncio.wait(self.emulator._running)
            return self.emulator.tally.object_bytes

        return asyncio.run_coroutine_threadsafe(answered(), self.loop).result(60)


@contextmanager
def serving(vendor: Path) -> Iterator[Served]:
    """An emulator with an event loop in a thread of its own."""
    ready, loop = threading.Event(), asyncio.new_event_loop()
    emulator = Emulator(vendor, access_key_id=KEY_ID, access_key_secret=KEY_SECRET)
    ended = asyncio.Event()

    async def serve() -> None:
        async with emulator:
            ready.set()
            await ended.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        if not ready.wait(30):
            raise RuntimeError("the emulator did not start")
        yield Served(emulator, loop)
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of a command."""

    code: int
    out: str
    err: str


def command(*arguments: str) -> Ended:
    """The command line, in this process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    # It leaves them ignored, and what is started later would inherit that.
    before = {
        each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main(arguments, prog_name="archiver")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    return Ended(code, out.getvalue(), err.getvalue())


@dataclass(frozen=True, slots=True)
class Step:
    """A command to record: its arguments, and the exit codes that it may have (-9: killed);
    ``prepare`` is called before."""

    arguments: tuple[str, ...]
    codes: tuple[int, ...] = (0,)
    module: tuple[str, ...] = ("archiver",)
    prepare: Callable[[], object] | None = None


# The commands to go on with, given the archive.
Again = Callable[[Path], Sequence[tuple[str, ...]]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """``before`` is the archive's files before; ``again`` are commands that are to end with 0
    after a cut, run twice; ``damage_again`` breaks the archive once more, to be repaired again;
    of the objects in ``otherwise`` the source serves others first, which a run may still find.
    ``promises`` are kinds of promises and of syncs without which nothing would be tried."""

    name: str
    wanted: frozenset[str]
    steps: tuple[Step, ...]
    again: Again
    before: Mapping[str, bytes] = field(default_factory=dict)
    damage_again: Callable[[Path], None] | None = None
    otherwise: frozenset[str] = frozenset()
    promises: frozenset[str] = frozenset()


@dataclass(slots=True)
class Limits:
    """How much is tried: changes lost or kept alone and random choices at each moment, and states
    that a run goes on with."""

    alone: int
    at_random: int
    gone_on_with: int
    seed: int


@dataclass(slots=True)
class Judged:
    """What came of a scenario: the first violation of each kind, and what was counted."""

    moments: int = 0
    states: int = 0
    gone_on_with: int = 0
    promises: Counter[str] = field(default_factory=Counter)
    violations: dict[str, str] = field(default_factory=dict)
    found: Counter[str] = field(default_factory=Counter)

    def add(self, where: str, wrong: Iterable[str]) -> None:
        for one in wrong:
            kind = one.partition(":")[0]
            self.found[kind] += 1
            self.violations.setdefault(kind, f"{where}: {one}")


@dataclass(frozen=True, slots=True)
class State:
    """A distinct state, and the moment that it was first seen at."""

    where: str
    files: Mapping[str, bytes]
    tree: Tree
    twins: frozenset[frozenset[str]]
    facts: Facts


class Rig:
    """Records scenarios in ``folder`` and judges them; ``vendor`` serves what is true, ``empty``
    has the same instances and no backups."""

    def __init__(self, folder: Path, vendor: Served, empty: Served, truth: Truth) -> None:
        self.folder: Final = folder
        self.vendor: Final = vendor
        self.empty: Final = empty
        self.truth: Final = truth

    def judge(self, scenario: Scenario, limits: Limits) -> Judged:
        judged, dice = Judged(), random.Random(limits.seed)
        watched = self.folder / scenario.name
        before = {f"{ARCHIVE}/{key}": data for key, data in scenario.before.items()}
        lay_out(watched, with_folders(before))
        states: dict[int, State] = {}
        for system, where, promises in self._moments(scenario, watched, judged):
            judged.promises[where.rpartition(" ")[2]] += 1
            judged.moments += 1
            for kept in cuts(system, dice, limits.alone, limits.at_random):
                tree = system.after_cut(kept)
                twins = system.twins(kept)
                digest = hash((frozenset(tree.items()), twins))
                if digest not in states:
                    states[digest] = state = self._state(scenario, where, tree, twins)
                    judged.add(where, state.facts.wrong)
                    judged.add(where, self._lost(scenario, state))
                state = states[digest]
                judged.add(where, promises.broken(state.files, state.facts))
        judged.states = len(states)
        shutil.rmtree(watched)
        if judged.violations:
            return judged  # whatever a run makes of it
        for state in _as_different_as_can_be(
            states.values(), self.truth, dice, limits.gone_on_with
        ):
            judged.gone_on_with += 1
            judged.add(state.where, self._goes_on(scenario, state))
        return judged

    def run(
        self, module: Sequence[str], through: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """A module of this checkout as a program, with its arguments."""
        return subprocess.run(
            [*through, sys.executable, "-m", *module],
            cwd=self.folder, check=False, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        )  # fmt: skip

    def cut_in_the_middle(self, scenario: Scenario) -> dict[str, bytes]:
        """The files of an archive whose first run was cut when it had noted most parts of a file
        that is not there yet, and nothing was lost."""
        watched, best, most = self.folder / scenario.name, dict[str, bytes](), 0
        lay_out(watched, {})
        for system, _, _ in self._moments(scenario, watched, Judged()):
            files = archive_of(system.visible())
            noted = inspect(files, self.truth, {}).noted
            if sum(map(len, noted.values())) >= max(most, 1):
                best, most = files, sum(map(len, noted.values()))
        shutil.rmtree(watched)
        if not most:
            raise ValueError("no part was ever noted")
        return best

    def _moments(
        self, scenario: Scenario, watched: Path, judged: Judged
    ) -> Iterator[tuple[FileSystem, str, Promises]]:
        system = FileSystem(read_tree(watched))
        facts = inspect(archive_of(system.visible()), self.truth, scenario.before)
        promises = Promises(self.truth, facts, scenario.otherwise)
        judged.promises = promises.counts
        for number, step in enumerate(scenario.steps):
            trace = watched.with_suffix(f".trace{number}")
            killed = self._run(step, watched, trace) < 0
            happened = killed and self._in_flight_happened(system, watched, trace)
            replay = Replay(system, watched, cwd=self.folder, in_flight_happened=happened)
            for count, moment in enumerate(replay.moments(trace)):
                promises.add(moment, system)
                yield system, f"{scenario.name} {number}.{count} {moment.call}", promises
            if system.visible() != read_tree(watched):
                raise ValueError(f"{step.arguments}: the trace does not lead to what is there")
            if not killed:
                promises.exited(system)
            yield system, f"{scenario.name} {number} exit", promises
            trace.unlink()

    def _in_flight_happened(self, system: FileSystem, watched: Path, trace: Path) -> bool:
        """Whether calls that a kill cut short had their effect."""
        tried = copy.deepcopy(system)
        replay = Replay(tried, watched, cwd=self.folder, in_flight_happened=False)
        for _ in replay.moments(trace):
            pass
        return tried.visible() != read_tree(watched)

    def _run(self, step: Step, watched: Path, trace: Path) -> int:
        if step.prepare is not None:
            step.prepare()
        arguments = [one.replace("ARCHIVE", str(watched / ARCHIVE)) for one in step.arguments]
        done = self.run((*step.module, *arguments), under_strace(trace))
        if done.returncode not in step.codes:
            raise ValueError(f"{arguments} ended with {done.returncode}: {done.stderr[-2000:]}")
        return done.returncode

    def _state(
        self, scenario: Scenario, where: str, tree: Tree, twins: frozenset[frozenset[str]]
    ) -> State:
        files = archive_of(tree)
        facts = inspect(files, self.truth, scenario.before, scenario.otherwise)
        return State(where, files, tree, twins, facts)

    def _lost(self, scenario: Scenario, state: State) -> Iterator[str]:
        """Bytes of an object that was damaged, or whatever it was, and that is not right yet."""
        there = set(state.files.values())
        for key in self.truth.objects:
            data = scenario.before.get(key)
            if data is not None and key not in state.facts.right and data not in there:
                yield f"lost: {key}: its bytes are gone, and the right ones are not there"

    # -- going on

    def _goes_on(self, scenario: Scenario, state: State) -> Iterator[str]:
        folder = self.folder / "cut"
        if scenario.wanted & state.facts.right - state.facts.recorded - scenario.before.keys():
            lay_out(folder, state.tree, state.twins)
            yield from self._is_ready(scenario, folder / ARCHIVE, state)
            shutil.rmtree(folder)
        lay_out(folder, state.tree, state.twins)
        yield from self._converges(scenario, folder / ARCHIVE, state)
        shutil.rmtree(folder)

    def _is_ready(self, scenario: Scenario, archive: Path, state: State) -> Iterator[str]:
        instances = sorted({key.partition("/")[0] for key in scenario.wanted})
        ended = command(*pull_arguments(instances, archive), "--endpoint", self.empty.endpoint)
        if ended.code:
            yield f"ready: a pull from an empty vendor ends with {ended.code}: {ended.err}"
        after = self._look(scenario, archive)
        for key in sorted(state.facts.right - after.recorded - scenario.before.keys()):
            yield f"ready: {key} was there, and is not recorded with the vendor gone"

    def _converges(self, scenario: Scenario, archive: Path, state: State) -> Iterator[str]:
        most_first = state.facts.lacks(self.truth, scenario.wanted)
        if scenario.otherwise:
            list(self._runs(scenario, archive))  # it may find what was served before
            most_first = sum(map(len, self.truth.objects.values()))
        for run, most in (("first", most_first), ("second", 0)):
            served = self.vendor.bytes_served()
            yield from self._runs(scenario, archive)
            served = self.vendor.bytes_served() - served
            if served > most:
                yield f"again: a {run} run fetched {served} bytes, and {most} were not there"
        yield from self._is_whole(scenario, archive)
        if scenario.damage_again is not None:
            scenario.damage_again(archive)
            wrong = [*self._runs(scenario, archive), *self._is_whole(scenario, archive)]
            yield from (f"second: damaged again and repaired: {one}" for one in wrong)

    def _runs(self, scenario: Scenario, archive: Path) -> Iterator[str]:
        for arguments in scenario.again(archive):
            ended = command(*arguments)
            if ended.code:
                yield f"converge: {arguments[0]} ends with {ended.code}: {ended.err.strip()}"

    def _is_whole(self, scenario: Scenario, archive: Path) -> Iterator[str]:
        facts = self._look(scenario, archive)
        yield from (f"converge: afterwards {one}" for one in facts.wrong)
        for key in sorted(scenario.wanted - facts.recorded):
            yield f"converge: {key} is not {'recorded' if key in facts.right else 'there'}"
        for key in sorted({set_of(key) for key in scenario.wanted} - facts.sealed):
            yield f"converge: SHA256SUMS does not name all of {key}"
        stems = [stem_of(key) for key in scenario.otherwise]
        # What was refused is for people to look at: a cut may keep it from being cleared away.
        refused = {
            own(QUARANTINE, stem) + suffix for stem in stems for suffix in (".data", ".json")
        }
        for place in (STAGING, QUARANTINE):
            for path in sorted((archive / place).rglob("*")):
                name = path.relative_to(archive).as_posix()
                if not any(f"{one}/".startswith(f"{name}/") for one in refused):
                    yield f"left: {name}"

    def _look(self, scenario: Scenario, archive: Path) -> Facts:
        files = {key: data for key, data in read_tree(archive).items() if data is not None}
        return inspect(files, self.truth, {})


def pull_arguments(instances: Iterable[str], place: str | Path) -> tuple[str, ...]:
    named = [word for one in instances for word in ("--instance", one)]
    return (
        "pull", *named, "--to", str(place), "--json", "-q", "--no-progress", "--network", "public",
        "--part-size", str(PART), "--connections", "2", "--workers", "2",
    )  # fmt: skip


def with_folders(files: Mapping[str, bytes]) -> dict[str, bytes | None]:
    """A tree of these files."""
    tree: dict[str, bytes | None] = dict(files)
    for path in files:
        for above in list(Path(path).parents)[:-1]:
            tree[above.as_posix()] = None
    return tree


def _as_different_as_can_be(
    states: Iterable[State], truth: Truth, dice: random.Random, most: int
) -> list[State]:
    """So many states: of each combination of files of one backup, rare ones first, one state; then
    any others."""
    states = list(states)
    dice.shuffle(states)
    parts_of = lru_cache(None)(lambda path: _part_of(path, truth))
    having: dict[object, list[State]] = {}
    shapes: dict[int, set[object]] = {}
    for state in states:
        by_backup: dict[str, set[tuple[str, str]]] = {}
        for path, data in state.files.items():
            stem, role = parts_of(path)
            right = data == truth.objects.get(f"{stem}.rdb")
            how = "right" if right else "some" if data else "empty"
            by_backup.setdefault(stem, set()).add((role, how))
        shapes[id(state)] = {frozenset(files) for files in by_backup.values()}
        for shape in shapes[id(state)]:
            having.setdefault(shape, []).append(state)
    chosen: dict[int, State] = {}
    seen = set[object]()
    for shape in sorted(having, key=lambda shape: len(having[shape])):
        if shape not in seen:
            state = having[shape][0]
            chosen[id(state)] = state
            seen |= shapes[id(state)]
    rest = [state for state in states if id(state) not in chosen]
    return [*chosen.values(), *rest][:most]


def _part_of(path: str, truth: Truth) -> tuple[str, str]:
    """The stem of the backup that a file is of, and what it is there."""
    flat = path.replace("/", "~")
    for key in truth.objects:
        stem = stem_of(key)
        if (name := stem.replace("/", "~")) in flat:
            return stem, flat.replace(name, "")
    return "", re.sub(r"[0-9a-f]{16}", "", flat)
