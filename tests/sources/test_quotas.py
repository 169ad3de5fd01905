"""Token buckets, with a clock of the test's."""

import asyncio
from collections.abc import Callable

import pytest

from archiver.sources.alibaba.quotas import Quotas


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0
        self.during: Callable[[], None] | None = None

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        await asyncio.sleep(0)
        during, self.during = self.during, None
        self.now += seconds / 2 if during else seconds
        if during:
            during()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def quotas_of(clock: Clock, rate: int) -> Quotas:
    return Quotas(rate, clock=clock, sleep=clock.sleep)


async def taken(quotas: Quotas, clock: Clock, count: int, action: str = "List") -> list[float]:
    """When each of so many calls was allowed, in seconds from now."""
    begun = clock.now
    moments = []
    for _ in range(count):
        await quotas.take("r", action)
        moments.append(clock.now - begun)
    return moments


async def test_never_more_than_the_rate_within_any_minute(clock: Clock) -> None:
    quotas = quotas_of(clock, 5)
    moments = []
    for pause in (0, 1, 7, 0, 0, 30, 0, 0, 0, 0, 0, 3) * 4:
        clock.now += pause
        await quotas.take("r", "List")
        moments.append(clock.now)
    assert all(later - earlier >= 60 for earlier, later in zip(moments, moments[5:], strict=False))


async def test_the_rate_itself_costs_no_wait(clock: Clock) -> None:
    quotas = quotas_of(clock, 200)
    moments = await taken(quotas, clock, 401)
    assert (moments[199], moments[200], moments[399], moments[400]) == (0, 60, 60, 120)


async def test_regions_and_actions_have_their_own(clock: Clock) -> None:
    quotas = quotas_of(clock, 1)
    for region, action in (("a", "List"), ("b", "List"), ("a", "Policy")):
        await quotas.take(region, action)
    assert clock.now == 1000
    await quotas.take("a", "List")
    assert clock.now == 1060


async def test_waiters_are_served_in_turn(clock: Clock) -> None:
    quotas = quotas_of(clock, 1)
    served: list[int] = []

    async def wait(number: int) -> None:
        await quotas.take("r", "List")
        served.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(wait(number))
    assert served == list(range(5))
    assert clock.now == 1240


async def test_one_that_gives_up_waiting_takes_nothing(clock: Clock) -> None:
    async def never(_: float) -> None:
        await asyncio.sleep(3600)

    quotas = Quotas(1, clock=clock, sleep=never)
    await quotas.take("r", "List")
    waiting = asyncio.create_task(quotas.take("r", "List"))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    clock.now += 60
    await quotas.take("r", "List")


async def test_a_throttled_action_is_called_half_as_often_for_a_while(clock: Clock) -> None:
    quotas = quotas_of(clock, 8)
    quotas.throttled("r", "List", None)
    for _ in range(6):
        quotas.throttled("r", "List", None)  # those that were under way at the same time
    assert (await taken(quotas, clock, 5))[-1] == 60
    assert await taken(quotas, clock, 8, "Policy") == [0] * 8
    clock.now = 1700
    assert await taken(quotas, clock, 8) == [0] * 8


async def test_throttled_again_and_again_it_is_still_called(clock: Clock) -> None:
    quotas = quotas_of(clock, 8)
    for _ in range(20):
        quotas.throttled("r", "List", None)
        clock.now += 10
    assert await taken(quotas, clock, 3) == [0, 60, 120]


@pytest.mark.parametrize(("asked", "waited"), [(42.0, 42.0), (1e9, 300.0), (None, 0.0)])
async def test_the_wait_that_is_asked_for_holds_for_all(
    clock: Clock, asked: float | None, waited: float
) -> None:
    quotas = quotas_of(clock, 8)
    quotas.throttled("r", "List", asked)
    assert await taken(quotas, clock, 2) == [waited, waited]


async def test_throttled_while_one_waits(clock: Clock) -> None:
    """Its wait is looked at again."""
    quotas = quotas_of(clock, 1)
    await quotas.take("r", "List")
    clock.during = lambda: quotas.throttled("r", "List", 100.0)
    await quotas.take("r", "List")
    assert clock.now == 1000 + 30 + 100
