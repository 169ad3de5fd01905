"""Not too fast, and not too slow; by a clock of the test's own."""

import pytest

from archiver.errors import Stalled
from archiver.transfer.buffer_pool import Blocks
from archiver.transfer.limits import LeastRate, Pulse, RateLimit


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


async def test_the_rate_holds() -> None:
    clock = Clock()
    limit = RateLimit(1000, clock, clock.sleep)
    for _ in range(20):
        await limit.take(500)
    assert clock.now - 100.0 == pytest.approx(9.5)


async def test_idle_time_is_not_saved_up() -> None:
    clock = Clock()
    limit = RateLimit(1000, clock, clock.sleep)
    await limit.take(10)
    clock.now += 3600
    await limit.take(1000)
    await limit.take(1000)
    assert clock.now - 3700.0 == pytest.approx(1.0)


async def test_no_limit() -> None:
    await RateLimit(None).take(10**12)
    assert RateLimit(None).most_at_once(1000) == 1000
    assert RateLimit(8000).most_at_once(10**6) == 2000
    assert RateLimit(1).most_at_once(10**6) == 1024


def test_a_drip_is_a_stall() -> None:
    pulse = Pulse(LeastRate(bytes_per_second=100, window=10))
    for _ in range(9):
        pulse.beat(1.0, 1)
    with pytest.raises(Stalled):
        pulse.beat(1.0, 1)


def test_bytes_that_were_ready_are_no_wait() -> None:
    pulse = Pulse(LeastRate(bytes_per_second=100, window=10))
    for _ in range(1000):
        pulse.beat(0.0, 1)
    pulse.beat(9.9, 1)
    pulse.beat(0.2, 10)


async def test_blocks_are_lent_again_and_never_more() -> None:
    blocks = Blocks(3000, 1000)
    async with blocks.lend() as first, blocks.lend() as second, blocks.lend() as third:
        assert {len(first), len(second), len(third)} == {1000}
        assert blocks._room.value == 0
    async with blocks.lend():
        assert len(blocks._free) == 2
