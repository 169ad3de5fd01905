"""Whatever happens to an archive: nothing good is lost, and nothing bad is called good.

    python -m pytest tests/stateful                          a fixed set of sequences
    FAULTS=full python -m pytest -s tests/stateful           new ones for minutes, from a seed that
                                                             is printed; the two below change that
    STATEFUL_SEED=7 STATEFUL_SECONDS=60

A sequence that fails is made shorter, and printed as a ``Case`` for ``regressions.py``.
"""

import itertools
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.stateful.regressions import CASES, Case, open_case
from tests.stateful.steps import drawn, every_damage, shortened
from tests.stateful.world import Told, told
from tests.sweeps import BUDGET, FULL, SEED, shuffled, within_share

SEEDS = range(16)
SECONDS = float(os.environ.get("STATEFUL_SECONDS", BUDGET / 10 or 300))
# Runs of a sequence to make it shorter.
_TRIES = 60
_IN_MEMORY = Path("/dev/shm")


class Place:
    """Carries out sequences, each in an empty directory; in memory, where that can be."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def run(self, steps: tuple[str, ...]) -> Told:
        root = Path(tempfile.mkdtemp(dir=self._directory))
        try:
            return await told(steps, root)
        finally:
            shutil.rmtree(root, ignore_errors=True)

    async def failure(self, steps: tuple[str, ...]) -> str | None:
        """What a sequence violates that is not known, in the shortest way found; with its words."""
        result = await self.run(steps)
        new = [one for one in result.violations if open_case(one, steps) is None]
        if len(new) < len(result.violations) or not new:
            return None
        rule = new[0].rule

        async def fails(less: tuple[str, ...]) -> bool:
            return any(one.rule == rule for one in (await self.run(less)).violations)

        shortest = await shortened(steps[: len(result.steps)], fails, _TRIES)
        last = await self.run(shortest)
        return _report(shortest, last if last.violations else result)


@pytest.fixture
def place() -> Iterator[Place]:
    directory = tempfile.mkdtemp(dir=_IN_MEMORY if _IN_MEMORY.is_dir() else None)
    yield Place(Path(directory))
    shutil.rmtree(directory, ignore_errors=True)


def _case(case: Case) -> object:
    open_mark = pytest.mark.xfail(strict=True, raises=AssertionError, reason=str(case.still))
    return pytest.param(case, id=case.name, marks=[open_mark] if case.still else [])


@pytest.mark.parametrize("case", [_case(case) for case in CASES])
async def test_a_sequence_that_went_wrong_once(place: Place, case: Case) -> None:
    result = await place.run(case.steps)
    assert not result.violations, _report(case.steps, result)


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_drawn_sequence(place: Place, seed: int) -> None:
    assert (failure := await place.failure(drawn(seed))) is None, failure


@pytest.mark.skipif(not FULL, reason="takes minutes: make faults")
async def test_every_damage_and_new_sequences(place: Place) -> None:
    first = int(os.environ.get("STATEFUL_SEED", SEED))
    print(f"\nSTATEFUL_SEED={first}", flush=True)
    failures, tried = list[str](), 0
    async for failure in _failures(place, first):
        tried += 1
        if failure is not None:
            failures.append(failure)
            print(failure, flush=True)
    print(f"{tried} sequences, from seed {first} on", flush=True)
    assert not failures, "\n\n".join(failures)


async def _failures(place: Place, first: int) -> AsyncIterator[str | None]:
    for steps in within_share(shuffled(every_damage(first))):
        yield await place.failure(steps)
    seeds, until = itertools.count(first), time.monotonic() + SECONDS
    while time.monotonic() < until:
        yield await place.failure(drawn(next(seeds)))


def _report(steps: tuple[str, ...], result: Told) -> str:
    lines = "\n".join(f'        "{step}",' for step in steps)
    case = f'Case(\n    "",\n    (\n{lines}\n    ),\n)'
    return "\n".join((*map(str, result.violations), *result.steps, case))
