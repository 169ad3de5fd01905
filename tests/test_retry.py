"""When to retry."""

import dataclasses
import re
from pathlib import Path

import pytest

from archiver.errors import ArchiverError, IntegrityError, NoSpace, SourceUnavailable, Throttled
from archiver.retry import RETRIES, UNLIMITED, Attempts, Outage, RetryPolicy, RetryRule

POLICY = RetryPolicy(attempts=4, first_wait=1.0, max_wait=5.0, max_retry_after=60.0)

ARCHIVER = Path(__file__).parent.parent / "archiver"
ROWS: dict[str, RetryRule] = {
    field.name: getattr(RETRIES, field.name) for field in dataclasses.fields(RETRIES)
}


@pytest.mark.parametrize("row", ROWS)
def test_every_row_of_the_table_decides_something(row: str) -> None:
    """A number that no module reads would say what is not so."""
    code = "".join(path.read_text() for path in ARCHIVER.rglob("*.py"))
    used = set(re.findall(rf"RETRIES\.{row}\.(\w+)", code))
    used |= {"attempts", "wait", "max_wait", "total"} if "policy" in used else set()
    given = {
        field.name
        for field in dataclasses.fields(RetryRule)
        if field.name not in ("what", "option")
        and getattr(ROWS[row], field.name) != field.default
        and (row, field.name) != ("archive_lock", "total")  # whose default is not to wait
        and (field.name, getattr(ROWS[row], field.name)) != ("attempts", 1)  # never retried
    }
    assert used
    assert given <= used


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_every_row_of_the_table_ends(row: RetryRule) -> None:
    """What is retried has a limit, or is the beat of something that is held."""
    is_bounded = min(row.attempts, row.total, row.timeout) < UNLIMITED
    assert is_bounded or (row.wait > 0 and row.max_wait == 0)


@pytest.mark.parametrize("option", sorted({row.option for row in ROWS.values() if row.option}))
def test_options_of_the_table_are_options(option: str) -> None:
    assert any(f'"{option}"' in path.read_text() for path in (ARCHIVER / "cli").glob("*.py"))


def test_backoff_grows_to_its_limit() -> None:
    error = SourceUnavailable("x")
    waits = [POLICY.wait(n, error, lambda: 1.0) for n in (1, 2, 3, 4)]
    assert waits == [1.0, 2.0, 4.0, None]
    assert RetryPolicy(attempts=9).wait(8, error, lambda: 1.0) == 30.0
    assert POLICY.wait(1, error, lambda: 0.25) == 0.25


@pytest.mark.parametrize(("asked", "wait"), [(10.0, 10.5), (0.0, 0.5), (61.0, None)])
def test_the_servers_word(asked: float, wait: float | None) -> None:
    assert POLICY.wait(1, Throttled("x", retry_after=asked), lambda: 0.5) == wait


@pytest.mark.parametrize("error", [IntegrityError("x"), NoSpace("x"), ArchiverError("x")])
def test_what_is_not_tried_again(error: ArchiverError) -> None:
    assert POLICY.wait(1, error, lambda: 1.0) is None


async def test_progress_forgives() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    told: list[int] = []
    attempts = Attempts(POLICY, lambda _, n, __: told.append(n), sleep, lambda: 1.0)
    for _ in range(10):
        await attempts.failed(SourceUnavailable("x"))
        attempts.progressed()
    assert told == [1] * 10
    for _ in range(3):
        await attempts.failed(SourceUnavailable("x"))
    with pytest.raises(SourceUnavailable):
        await attempts.failed(SourceUnavailable("x"))
    assert slept[-3:] == [1.0, 2.0, 4.0]


class Clock:
    """Seconds that pass when somebody sleeps, and at no other time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


def attempts(clock: Clock, outage: Outage | None = None, lasting: float = 300.0) -> Attempts:
    policy = RetryPolicy(give_up_after=lasting)
    return Attempts(policy, lambda *_: None, clock.sleep, lambda: 1.0, outage or Outage(clock))


async def until_given_up(tries: Attempts) -> int:
    for failed in range(1, 1000):
        try:
            await tries.failed(SourceUnavailable("x"))
        except SourceUnavailable:
            return failed
    raise AssertionError


async def test_an_outage_of_minutes_is_waited_out() -> None:
    clock = Clock()
    assert await until_given_up(attempts(clock)) > 10
    assert clock.now == 300.0  # to the second: a last try at the very end
    assert max(clock.waits) == 30.0


async def test_no_patience_is_one_try() -> None:
    clock = Clock()
    assert await until_given_up(attempts(clock, lasting=0.0)) == 1
    assert clock.waits == []


async def test_a_server_that_asks_for_more_than_there_is() -> None:
    assert (
        RetryPolicy(give_up_after=10.0).wait(1, Throttled("x", retry_after=11.0), lambda: 0.0)
        is None
    )
    assert (
        RetryPolicy(give_up_after=11.0).wait(1, Throttled("x", retry_after=11.0), lambda: 0.0)
        == 11.0
    )


async def test_an_outage_is_waited_for_once_not_once_for_each() -> None:
    clock = Clock()
    outage = Outage(clock)
    assert await until_given_up(attempts(clock, outage)) > 10
    for _ in range(3):
        assert await until_given_up(attempts(clock, outage)) == 1
    outage.ended()
    assert await until_given_up(attempts(clock, outage)) > 10


async def test_what_others_get_does_not_mend_what_one_does_not() -> None:
    """One object that always fails is given up, however well the others do."""
    clock = Clock()
    outage = Outage(clock)
    tries = attempts(clock, outage)
    for _ in range(1000):
        outage.ended()
        try:
            await tries.failed(SourceUnavailable("x"))
        except SourceUnavailable:
            break
    assert clock.now == 300.0


async def test_what_is_not_tried_again_is_not_an_outage() -> None:
    clock = Clock()
    outage = Outage(clock)
    with pytest.raises(IntegrityError):
        await attempts(clock, outage).failed(IntegrityError("x"))
    clock.now += 1000.0
    await attempts(clock, outage).failed(SourceUnavailable("x"))


async def test_an_outage_is_reported_once() -> None:
    clock, told = Clock(), list[float]()
    outage = Outage(clock)

    def tries() -> Attempts:
        return Attempts(
            RetryPolicy(), lambda *_: None, clock.sleep, lambda: 0.0, outage,
            lambda _, seconds: told.append(seconds),
        )  # fmt: skip

    first, second = tries(), tries()
    for _ in range(2):
        await first.failed(SourceUnavailable("x"))
        await second.failed(SourceUnavailable("x"))
    assert not told  # four failures, and no third try
    for _ in range(3):
        await first.failed(SourceUnavailable("x"))
        await second.failed(SourceUnavailable("x"))
    assert told == [300.0]
    first.progressed()
    for _ in range(3):
        await first.failed(SourceUnavailable("x"))
    assert told == [300.0] * 2


async def test_what_one_does_not_get_is_not_an_outage() -> None:
    clock, told = Clock(), list[float]()
    outage = Outage(clock)
    tries = Attempts(
        RetryPolicy(), lambda *_: None, clock.sleep, lambda: 1.0, outage,
        lambda _, seconds: told.append(seconds),
    )  # fmt: skip
    for _ in range(5):
        await tries.failed(SourceUnavailable("x"))
        outage.ended()  # others get theirs
    assert not told


async def test_a_long_wait_is_reported_before_the_third_try() -> None:
    clock, told = Clock(), list[float]()
    tries = Attempts(
        RetryPolicy(), lambda *_: None, clock.sleep, lambda: 1.0, Outage(clock),
        lambda _, seconds: told.append(seconds),
    )  # fmt: skip
    await tries.failed(SourceUnavailable("x"))
    clock.now += 60.0
    await tries.failed(SourceUnavailable("x"))
    assert told == [300.0]
