"""When to try again."""

import pytest

from archiver.errors import ArchiverError, IntegrityError, NoSpace, SourceUnavailable, Throttled
from archiver.retry import Attempts, RetryPolicy

POLICY = RetryPolicy(attempts=4, first=1.0, longest=5.0, longest_asked=60.0)


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
