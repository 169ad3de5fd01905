"""How often the vendor's API may be called.

The vendor counts calls by region, action and account. For the actions that list it does not say how
many it takes; 200 a minute is documented for similar ones.
"""

import math
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from typing import Final

import anyio

from archiver.retry import RETRIES

RATE: Final = 200  # calls a minute, where nothing else is asked for

_WINDOW: Final = 60.0
# Other programs of the account use up its quota, too: a throttled action is called half as often,
# for so many seconds.
_LOWERED_FOR: Final = 600.0
# Calls that are under way together are throttled together, and count once.
_LOWERED_ONCE_IN: Final = 10.0


class Quotas:
    """One token bucket for each region and action; all users of the API in a process share it.

    A call takes a token, which returns a minute later: never more than ``rate`` calls within any
    minute, and no wait before the first ``rate``. Those who wait are served in turn. ``clock``
    returns seconds.
    """

    def __init__(
        self,
        rate: int = RATE,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self._clock: Final = clock
        self._sleep: Final = sleep
        self._buckets: Final = defaultdict[tuple[str, str], _Bucket](lambda: _Bucket(rate))

    async def take(self, region: str, action: str) -> None:
        """Return when the action may be called once."""
        bucket = self._buckets[region, action]
        async with bucket.turn:
            # Somebody may be throttled meanwhile, so the wait is looked at again.
            while (wait := bucket.wait(self._clock())) > 0:
                await self._sleep(wait)
            bucket.taken.append(self._clock())

    def throttled(self, region: str, action: str, seconds: float | None) -> None:
        """Lower the rate for a while: the vendor refused a call, and asked to wait for so many
        seconds, or None."""
        self._buckets[region, action].lower(self._clock(), seconds or 0.0)


class _Bucket:
    """The calls of one action in one region; times are those of the clock."""

    def __init__(self, rate: int) -> None:
        self.turn: Final = anyio.Lock()
        self.taken: Final[deque[float]] = deque()
        self._full: Final = rate
        self._rate = rate
        self._lowered_at = -math.inf
        self._closed_until = -math.inf

    def wait(self, now: float) -> float:
        """Seconds until a call may be made; 0.0 if it may be made now."""
        while self.taken and self.taken[0] <= now - _WINDOW:
            self.taken.popleft()
        if now - self._lowered_at >= _LOWERED_FOR:
            self._rate = self._full
        closed = self._closed_until - now
        if len(self.taken) < self._rate:
            return max(0.0, closed)
        return max(closed, self.taken[-self._rate] + _WINDOW - now)

    def lower(self, now: float, seconds: float) -> None:
        # As long as a call itself would be waited for.
        longest = RETRIES.api_call.policy().max_retry_after
        self._closed_until = max(self._closed_until, now + min(seconds, longest))
        if now - self._lowered_at >= _LOWERED_ONCE_IN:
            self._rate = max(1, self._rate // 2)
            self._lowered_at = now
