"""How far the sweeps go: tests that try a fault in every place, or at every moment.

    make test                a few places each; of a table of cases, each row and column
    make faults              every place; takes long
    make faults BUDGET=300   as many as that many seconds allow, in the order of a seed that is
                             printed: FAULTS_SEED=… takes the same order again

What a budget does not reach is skipped, and the summary counts it.
"""

import itertools
import math
import os
import random
import time
from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

import pytest

FULL: Final = os.environ.get("FAULTS") == "full"
BUDGET: Final = float(os.environ.get("FAULTS_BUDGET") or 0) if FULL else 0.0
# Workers of one run are started by it, and take over what it sets: they have to draw alike.
SEED: Final = int(os.environ.setdefault("FAULTS_SEED", str(random.randrange(10**9))))
_UNTIL: Final = float(os.environ.setdefault("FAULTS_UNTIL", str(time.time() + BUDGET)))
# A test that goes through many places has this part of the budget.
_SHARE: Final = 0.1

_T = TypeVar("_T")
_U = TypeVar("_U")


def extent(few: int, many: int, *, on_budget: int | None = None) -> int:
    """How many to try: ``few`` in the usual suite, ``many`` in full, and on a budget so many, or
    a number between."""
    if not FULL:
        return few
    if BUDGET:
        return round(math.sqrt(few * many)) if on_budget is None else on_budget
    return many


def within_share(places: Iterable[_T]) -> Iterator[_T]:
    """One after the other; on a budget, until a test has had its share of it."""
    until = time.monotonic() + BUDGET * _SHARE
    for place in places:
        yield place
        if BUDGET and time.monotonic() > until:
            return


def strides(dense: int) -> Iterator[int]:
    """Numbers from 1 on without end: all up to ``dense``, then ever farther apart."""
    number = 1
    while True:
        yield number
        number += 1 + number // dense


def pairs(rows: Iterable[_T], columns: Iterable[_U]) -> list[tuple[_T, _U]]:
    """Every row with every column in full; in the usual suite every row with one of the columns,
    which take turns."""
    if FULL:
        return list(itertools.product(rows, columns))
    return list(zip(rows, itertools.cycle(columns), strict=False))


def shuffled(places: Iterable[_T]) -> list[_T]:
    """All of them; on a budget in random order, so that those that come first are a sample."""
    found = list(places)
    if BUDGET:
        random.Random(SEED).shuffle(found)
    return found


def pytest_report_header() -> list[str]:
    return [f"sweeps: FAULTS_SEED={SEED}, {BUDGET:g} seconds"] if BUDGET else []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = shuffled(items)


def pytest_runtest_setup() -> None:
    if BUDGET and time.time() > _UNTIL:
        pytest.skip("the budget is spent")
