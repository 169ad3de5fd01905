"""Differences between the parser's counts and the server's: what time explains, and what not."""

from array import array
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from archiver import rdb
from archiver.commands.drill.census import Census, DatabaseCensus, TypeCount
from archiver.commands.drill.file_evidence import difference

BEGAN = datetime(2026, 11, 24, tzinfo=UTC)
ENDED = BEGAN + timedelta(seconds=10)


def ms(seconds: float) -> int:
    return int((BEGAN.timestamp() + seconds) * 1000)


def expiries(dies: tuple[float, ...]) -> rdb.Expiries:
    times = sorted(ms(seconds) for seconds in dies)
    return rdb.Expiries(1, array("q", times), array("q", range(1, len(times) + 1)))


def parsed(
    strings: int,
    hashes: int = 0,
    *,
    dies: tuple[float, ...] = (),
    fields: tuple[float, ...] = (),
) -> rdb.Contents:
    """A dump of so many keys, some of which, or first fields of which, die so many seconds after
    the load began."""
    keys = {"string": strings, "hash": hashes}
    database = rdb.Database(0, keys, expiries(dies), expiries(fields), None)
    return rdb.Contents(True, {}, (database,), {}, 0, 0, 0)


def counted(
    strings: int, hashes: int = 0, *, expiring: int = 0, sampled: bool = False, number: int = 0
) -> Census:
    types = (TypeCount("string", strings, expiring), TypeCount("hash", hashes, 0))
    keys = strings + hashes
    database = DatabaseCensus(number, keys, types, keys, sampled, consistent=True)
    return Census(BEGAN, ENDED, (database,), 1, 0, 0)


@pytest.mark.parametrize(
    ("contents", "census", "change", "unexplained"),
    [
        (parsed(100), counted(100), None, False),
        (parsed(100), counted(99), -1, True),
        (parsed(100), counted(101), 1, True),
        # One dead before the load, one while it was counted, one that lives on.
        (parsed(100, dies=(-1, 5, 99)), counted(98, expiring=1), -2, False),
        (parsed(100, dies=(-1, 5, 99)), counted(99, expiring=2), -1, False),
        (parsed(100, dies=(-1, 5, 99)), counted(97, expiring=1), -3, True),
        (parsed(100, dies=(-1, 5, 99)), counted(100, expiring=3), 0, True),  # the dead one is here
        (parsed(100, dies=(-1,)), counted(99), -1, False),
        (parsed(100, dies=(-1,)), counted(100), 0, True),  # it is here, and stays for ever
        (parsed(100, dies=(99,)), counted(100, expiring=0), 0, True),  # it lost its time to live
        (parsed(100), counted(100, expiring=1), 0, True),
        # A type that became another, in equal numbers.
        (parsed(50, 50), counted(51, 49), 0, True),
        (parsed(50, 50), counted(51, 49, sampled=True), None, False),
        # Hashes whose first field is over may be gone, and nothing else.
        (parsed(50, 50, fields=(-1, 5)), counted(50, 48), -2, False),
        (parsed(50, 50, fields=(-1, 5)), counted(50, 47), -3, True),
        (parsed(50, 50, fields=(-1, 99)), counted(50, 48), -2, True),
        (parsed(50, 50, fields=(-1, 5)), counted(48, 50), -2, True),
        (parsed(50, 50, fields=(-1, 5)), counted(49, 48), -3, True),
        (parsed(50, 50, fields=(-1, 5)), counted(50, 48, sampled=True), -2, False),
        (parsed(50, 50, fields=(-1, 99)), counted(50, 48, sampled=True), -2, True),
        (parsed(50, 50, dies=(-1,), fields=(-1,)), counted(49, 49), -2, False),
        (parsed(5), counted(5, number=1), 0, True),  # in another database
        (parsed(0), counted(0), None, False),
        (parsed(0), counted(1), 1, True),
    ],
)
def test_what_time_explains(
    contents: rdb.Contents, census: Census, change: int | None, unexplained: bool
) -> None:
    found = difference(contents, census, BEGAN, 0.0)
    assert (found is not None and found.beyond_tolerance) is unexplained
    if change is None:
        assert found is None
    else:
        assert found is not None
        assert found.keys == change


def test_functions_do_not_expire() -> None:
    contents = replace(parsed(100), functions=2)
    assert difference(contents, replace(counted(100), libraries=2), BEGAN, 0.0) is None
    assert difference(contents, replace(counted(100), libraries=None), BEGAN, 0.0) is None
    found = difference(contents, replace(counted(100), libraries=1), BEGAN, 0.5)
    assert found is not None
    assert (found.keys, found.beyond_tolerance) == (0, True)
    assert found.explanation == "keys: 1 of 2 libraries of functions"


def test_the_tolerance() -> None:
    assert not difference(parsed(1000), counted(990), BEGAN, 0.01).beyond_tolerance  # type: ignore[union-attr]
    assert difference(parsed(1000), counted(989), BEGAN, 0.01).beyond_tolerance  # type: ignore[union-attr]
