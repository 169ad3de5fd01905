"""How fast bytes may come, and how slow they must not."""

import statistics
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

import anyio

from archiver.errors import Stalled

# A fetch is looked at this often (seconds), and compared with so many that finished before it.
_WATCH_SECONDS = 1.0
_RATES_KEPT = 32
_TIMES_SLOWER = 4
# Where there is nothing to compare with: looks in a row that saw no byte come.
_SILENCES = 4
# Bytes from which on a fetch tells something about the connection's rate.
_LEAST_TELLING = 256 * 1024
# Bytes that may be fetched twice to overtake: so many, and a twentieth of what came.
_SPARE = 64 * 2**20
_SHARE = 20


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


class Waits:
    """The seconds that several wait for the network, added up, also while they wait."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock: Final = clock
        self._waiting = 0
        self._seconds = 0.0
        self._until = 0.0

    @property
    def seconds(self) -> float:
        """All of them up to now."""
        now = self._clock()
        self._seconds += self._waiting * (now - self._until)
        self._until = now
        return self._seconds

    @contextmanager
    def one(self) -> Iterator[None]:
        """While in this context, one more waits."""
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def _count(self, more: int) -> None:
        _ = self.seconds
        self._waiting += more


class Progress(Protocol):
    """A fetch that can be watched; ``position`` in bytes."""

    position: int
    answered: bool

    @property
    def left(self) -> int: ...


class Hedge:
    """Says when a fetch is so much slower than others that a second connection should overtake it.

    Seen at the tail of a run above all, where one bad connection holds up everything; LeastRate
    would let it drip on. What is fetched twice for this is a small share of the whole, so that a
    server which is slow to everybody is not asked for everything again.
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
        self._finished = 0
        self._hedged = 0

    def finished(self, size: int, seconds: float) -> None:
        """A part of ``size`` bytes came over one connection."""
        self._finished += size
        if size >= _LEAST_TELLING:
            self._rates.append(size / max(seconds, 1e-6))

    async def due(self, fetch: Progress) -> None:
        """Return when ``fetch`` should be overtaken; wait for ever when it should not."""
        silent = 0
        while True:
            began, before = self._clock(), fetch.position
            answered = fetch.answered
            await self._sleep(_WATCH_SECONDS)
            rate = (fetch.position - before) / max(self._clock() - began, 1e-6)
            silent = silent + 1 if answered and rate == 0 else 0
            slow = silent >= _SILENCES if not self._rates else self._is_slow(rate, fetch.left)
            if answered and slow and self._may(fetch.left):
                self._hedged += fetch.left
                return

    def _is_slow(self, rate: float, left: int) -> bool:
        usual = statistics.median(self._rates)
        return rate < usual / _TIMES_SLOWER and left > 2 * _WATCH_SECONDS * rate

    def _may(self, size: int) -> bool:
        return self._enabled and self._hedged + size <= _SPARE + self._finished // _SHARE
