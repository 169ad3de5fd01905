"""Upper and lower bounds on transfer rates: rate limit, stall detection and hedged requests."""

import statistics
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

import anyio

from archiver.errors import Stalled
from archiver.retry import RETRIES

# How often (seconds) a fetch is compared with those that finished before it, and how many of
# those are remembered.
_CHECK_SECONDS = 1.0
_RATES_KEPT = 32
_TIMES_SLOWER = 4
# With nothing to compare with: checks in a row during which no byte arrived.
_SILENT_CHECKS = 4
# Smaller fetches say too little about the rate of a connection.
_MIN_SAMPLE_BYTES = 256 * 1024
# Bytes that hedging may fetch twice: this many, and a twentieth of what was fetched.
_HEDGE_BYTES = 64 * 2**20
_HEDGE_SHARE = 20


class RateLimit:
    """Limits all that take from it to ``rate`` bytes per second together; None for no limit."""

    def __init__(
        self,
        rate: int | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self.rate = rate
        self._clock: Final = clock
        self._sleep: Final = sleep
        self._free_at = 0.0

    def max_read(self, buffer_size: int) -> int:
        """The most bytes to read in one go: at most what a quarter of a second allows, so that a
        low limit does not come in bursts."""
        if self.rate is None:
            return buffer_size
        return max(1024, min(buffer_size, self.rate // 4))

    async def take(self, size: int) -> None:
        """Wait until ``size`` more bytes are within the limit."""
        if self.rate is None:
            return
        now = self._clock()
        starts = max(now, self._free_at)
        self._free_at = starts + size / self.rate
        if starts > now:
            await self._sleep(starts - now)


@dataclass(frozen=True, slots=True)
class MinimumRate:
    """The bytes per second that a connection must deliver, over each ``window`` of seconds spent
    waiting for it."""

    bytes_per_second: int = 8 * 1024
    window: float = RETRIES.stalled_connection.timeout


class StallDetector:
    """Checks the rate of one connection. Only time spent waiting for the network counts, so that
    the source is not blamed for a rate limit or a slow disk of ours."""

    def __init__(self, minimum: MinimumRate) -> None:
        self._minimum: Final = minimum
        self._waited = 0.0
        self._bytes = 0

    def record(self, waited: float, size: int) -> None:
        """Count ``size`` bytes that arrived after ``waited`` seconds. Raises Stalled when a whole
        window was slower than the minimum."""
        self._waited += waited
        self._bytes += size
        if self._waited < self._minimum.window:
            return
        rate = self._bytes / self._waited
        if rate < self._minimum.bytes_per_second:
            raise Stalled(f"{rate:.0f} bytes/s over {self._waited:.0f} s is too slow")
        self._waited, self._bytes = 0.0, 0


class WaitTime:
    """Adds up the seconds that several connections spend waiting for the network."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock: Final = clock
        self._waiting = 0
        self._seconds = 0.0
        self._until = 0.0

    @property
    def seconds(self) -> float:
        """The sum up to now, including waits that have not ended."""
        now = self._clock()
        self._seconds += self._waiting * (now - self._until)
        self._until = now
        return self._seconds

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time in this context as one connection's wait."""
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def _count(self, more: int) -> None:
        _ = self.seconds
        self._waiting += more


class WatchedFetch(Protocol):
    """A fetch that hedging can watch; ``position`` in bytes."""

    position: int
    answered: bool

    @property
    def left(self) -> int: ...


class Hedge:
    """Decides when a fetch is so much slower than others that a second connection should
    overtake it.

    This matters most at the end of a run, where one bad connection holds up everything; the
    minimum rate alone would let it continue. Only a small share of all bytes may be fetched twice,
    so that a server which is slow for everybody is not asked for everything again.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
        *,
        enabled: bool = True,
    ) -> None:
        self._clock: Final = clock
        self._sleep: Final = sleep
        self._enabled: Final = enabled
        self._rates: Final[deque[float]] = deque(maxlen=_RATES_KEPT)
        self._finished_bytes = 0
        self._hedged_bytes = 0

    def finished(self, size: int, seconds: float) -> None:
        """Record that a part of ``size`` bytes arrived over one connection."""
        self._finished_bytes += size
        if size >= _MIN_SAMPLE_BYTES:
            self._rates.append(size / max(seconds, 1e-6))

    async def until_due(self, fetch: WatchedFetch) -> None:
        """Return when ``fetch`` should be overtaken; never return when it should not."""
        silent = 0
        while True:
            began, before = self._clock(), fetch.position
            answered = fetch.answered
            await self._sleep(_CHECK_SECONDS)
            rate = (fetch.position - before) / max(self._clock() - began, 1e-6)
            silent = silent + 1 if answered and rate == 0 else 0
            slow = silent >= _SILENT_CHECKS if not self._rates else self._is_slow(rate, fetch.left)
            if answered and slow and self._is_within_budget(fetch.left):
                self._hedged_bytes += fetch.left
                return

    def _is_slow(self, rate: float, left: int) -> bool:
        usual = statistics.median(self._rates)
        return rate < usual / _TIMES_SLOWER and left > 2 * _CHECK_SECONDS * rate

    def _is_within_budget(self, size: int) -> bool:
        budget = _HEDGE_BYTES + self._finished_bytes // _HEDGE_SHARE
        return self._enabled and self._hedged_bytes + size <= budget
