"""When to try again, as data; the same for the API and for the bytes."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import anyio

from archiver.errors import ArchiverError

# Told of every wait: the error, which try failed (from 1), and the wait in seconds.
OnRetry = Callable[[ArchiverError, int, float], None]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential back-off with full jitter (times in seconds).

    ``attempts`` counts tries in a row without progress. A wait asked for by the server is kept
    to, up to ``longest_asked``; a longer one is not worth holding a worker for.
    """

    attempts: int = 6
    first: float = 0.5
    longest: float = 30.0
    longest_asked: float = 300.0

    def wait(self, failed: int, error: ArchiverError, draw: Callable[[], float]) -> float | None:
        """Seconds until the next try after ``failed`` failures in a row; None to give up."""
        if not error.retryable or failed >= self.attempts:
            return None
        backoff = min(self.longest, self.first * 2.0 ** (failed - 1)) * draw()
        asked = error.retry_after
        if asked is None:
            return backoff
        # Jitter on top of the asked wait: workers told the same must not come back at once.
        return asked + backoff if asked <= self.longest_asked else None


class Attempts:
    """The tries at one piece of work; progress forgives earlier failures."""

    def __init__(
        self,
        policy: RetryPolicy,
        on_retry: OnRetry,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._policy: Final = policy
        self._on_retry: Final = on_retry
        self._sleep: Final = sleep
        self._draw: Final = draw
        self._failed = 0
        self.total = 1

    def progressed(self) -> None:
        self._failed = 0

    async def failed(self, error: ArchiverError) -> None:
        """Wait before the next try, or raise the error when there is no next try."""
        self._failed += 1
        wait = self._policy.wait(self._failed, error, self._draw)
        if wait is None:
            raise error
        self.total += 1
        self._on_retry(error, self._failed, wait)
        await self._sleep(wait)
