"""When to try again, as data; the same for the API and for the bytes."""

import email.utils
import math
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import anyio

from archiver.errors import ArchiverError

# Told of every wait: the error, which try failed (from 1), and the wait in seconds.
OnRetry = Callable[[ArchiverError, int, float], None]
# Told once an outage: the error, and the longest in seconds that is waited for its end.
OnOutage = Callable[[ArchiverError, float], None]

# What one try more mends is no outage; and whoever waits so long for a try has a right to know.
_TRIES_OF_AN_OUTAGE: Final = 3
_SECONDS_OF_AN_OUTAGE: Final = 5.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential back-off with full jitter (times in seconds).

    It is given up when nothing has come for ``lasting``, or after ``attempts`` tries in a row
    without progress, where they are counted at all. A wait asked for by the server is kept to, up
    to ``longest_asked``; a longer one is not worth holding a worker for.
    """

    attempts: int | None = None
    first: float = 0.5
    longest: float = 30.0
    longest_asked: float = 300.0
    lasting: float = 300.0

    def wait(
        self, failed: int, error: ArchiverError, draw: Callable[[], float], elapsed: float = 0.0
    ) -> float | None:
        """Seconds until the next try after ``failed`` failures in a row, the first of them
        ``elapsed`` ago; None to give up."""
        enough = self.attempts is not None and failed >= self.attempts
        if not error.retryable or enough or elapsed >= self.lasting:
            return None
        doublings = min(failed - 1, 30)
        backoff = min(self.longest, self.first * 2.0**doublings) * draw()
        asked = error.retry_after
        if asked is None:
            return min(backoff, self.lasting - elapsed)  # a last try at the very end
        # Jitter on top of the asked wait: workers told the same must not come back at once.
        return asked + backoff if asked <= min(self.longest_asked, self.lasting) else None


class Outage:
    """How long nothing has come from a source, whoever asked it.

    Each failure alone would be given its whole time again: with a thousand backups to fetch, a
    source that is gone would be waited for a thousand times.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock: Final = clock
        self._since: float | None = None
        self._failed = 0
        self._was_told = False

    @property
    def is_on(self) -> bool:
        return self._since is not None

    def goes_on(self) -> float:
        """Another failure; the seconds since the first of them."""
        now = self.clock()
        self._since = now if self._since is None else self._since
        self._failed += 1
        return now - self._since

    @property
    def lasts(self) -> bool:
        """Whether it is more than one try that failed."""
        if self._since is None:
            return False
        seconds = self.clock() - self._since
        return self._failed >= _TRIES_OF_AN_OUTAGE or seconds >= _SECONDS_OF_AN_OUTAGE

    def is_news(self) -> bool:
        """Whether it lasts, and nobody was told yet: from now on somebody was."""
        if self._was_told:
            return False
        self._was_told = self.lasts
        return self._was_told

    def ended(self) -> None:
        """Something came."""
        self._since = None
        self._failed = 0
        self._was_told = False


def _nobody_is_told(_: ArchiverError, __: float) -> None:
    pass


class Attempts:
    """The tries at one piece of work; progress forgives earlier failures."""

    def __init__(
        self,
        policy: RetryPolicy,
        on_retry: OnRetry,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
        draw: Callable[[], float] = random.random,
        outage: Outage | None = None,
        on_outage: OnOutage = _nobody_is_told,
    ) -> None:
        self._policy: Final = policy
        self._on_retry: Final = on_retry
        self._on_outage: Final = on_outage
        self._sleep: Final = sleep
        self._draw: Final = draw
        self._of_all: Final = outage or Outage()
        self._own: Final = Outage(self._of_all.clock)
        self._failed = 0
        self.total = 1

    def progressed(self) -> None:
        self._failed = 0
        self._own.ended()
        self._of_all.ended()

    async def failed(self, error: ArchiverError, lasting: float = math.inf) -> None:
        """Wait before the next try, or raise the error when there is no next try. ``lasting``
        seconds are enough for this error."""
        self._failed += 1
        elapsed = max(self._own.goes_on(), self._of_all.goes_on()) if error.retryable else 0.0
        policy = replace(self._policy, lasting=min(self._policy.lasting, lasting))
        wait = policy.wait(self._failed, error, self._draw, elapsed)
        if wait is None:
            raise error
        self.total += 1
        self._on_retry(error, self._failed, wait)
        # Both: with many at work, three failures at once are not yet a third try.
        if self._own.lasts and self._of_all.is_news():
            self._on_outage(error, policy.lasting)
        await self._sleep(wait)


def wait_asked(headers: Mapping[str, str], now: Callable[[], float] = time.time) -> float | None:
    """Seconds, from Retry-After in both its forms (RFC 9110 §10.2.3), or x-acs-retry-after (ms)."""
    named = {name.lower(): value for name, value in headers.items()}
    try:
        if (milliseconds := named.get("x-acs-retry-after")) is not None:
            return _sane(float(milliseconds) / 1000)
        if (after := named.get("retry-after")) is None:
            return None
        if after.strip().isdigit():
            return _sane(float(after))
        return _sane(email.utils.parsedate_to_datetime(after).timestamp() - now())
    except (ValueError, TypeError, OverflowError):
        return None


def _sane(seconds: float) -> float | None:
    return max(0.0, seconds) if math.isfinite(seconds) else None
