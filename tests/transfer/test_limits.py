"""Not too fast, and not too slow; by a clock of the test's own."""

import pytest

from archiver.errors import Stalled
from archiver.transfer.limits import MinimumRate, RateLimit, StallDetector
from archiver.transfer.resources import BufferPool


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
    assert RateLimit(None).max_read(1000) == 1000
    assert RateLimit(8000).max_read(10**6) == 2000
    assert RateLimit(1).max_read(10**6) == 1024


def test_a_drip_is_a_stall() -> None:
    detector = StallDetector(MinimumRate(bytes_per_second=100, window=10))
    for _ in range(9):
        detector.record(1.0, 1)
    with pytest.raises(Stalled):
        detector.record(1.0, 1)


def test_bytes_that_were_ready_do_not_count_as_waiting() -> None:
    detector = StallDetector(MinimumRate(bytes_per_second=100, window=10))
    for _ in range(1000):
        detector.record(0.0, 1)
    detector.record(9.9, 1)
    detector.record(0.2, 10)


async def test_blocks_are_lent_again_and_never_more() -> None:
    pool = BufferPool(3000, 1000)
    async with pool.lend() as first, pool.lend() as second, pool.lend() as third:
        assert {len(first), len(second), len(third)} == {1000}
        assert pool._available.value == 0
    async with pool.lend():
        assert len(pool._free) == 2
