"""How fast bytes may come, and how slow they must not."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import anyio

from archiver.errors import Stalled


class RateLimit:
    """At most ``rate`` bytes per second over everything that takes from it; None for no limit."""

    def __init__(
        self,
        rate: int | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self._rate: Final = rate
        self._clock: Final = clock
        self._sleep: Final = sleep
        self._free_at = 0.0

    def most_at_once(self, block: int) -> int:
        """Bytes to read in one go: a quarter second's worth, so that a slow limit is smooth."""
        return block if self._rate is None else max(1024, min(block, self._rate // 4))

    async def take(self, size: int) -> None:
        """Wait until ``size`` bytes are within the rate."""
        if self._rate is None:
            return
        now = self._clock()
        starts = max(now, self._free_at)
        self._free_at = starts + size / self._rate
        if starts > now:
            await self._sleep(starts - now)


@dataclass(frozen=True, slots=True)
class LeastRate:
    """Bytes per second that a connection must bring, over each ``window`` of seconds waited."""

    bytes_per_second: int = 8 * 1024
    window: float = 30.0


class Pulse:
    """Watches one connection. Only time spent waiting for the network counts, so that our own
    limits and a slow disk are not blamed on the source."""

    def __init__(self, least: LeastRate) -> None:
        self._least: Final = least
        self._waited = 0.0
        self._bytes = 0

    def beat(self, waited: float, size: int) -> None:
        """``size`` bytes came after ``waited`` seconds. Raises Stalled."""
        self._waited += waited
        self._bytes += size
        if self._waited < self._least.window:
            return
        rate = self._bytes / self._waited
        if rate < self._least.bytes_per_second:
            raise Stalled(f"{rate:.0f} bytes/s over {self._waited:.0f} s is too slow")
        self._waited, self._bytes = 0.0, 0
