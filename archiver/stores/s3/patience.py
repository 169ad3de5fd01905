"""How long a bucket that does not answer is waited for; the same for all that is asked of it."""

import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from botocore.exceptions import EndpointConnectionError

from archiver.concurrency import pause, thread_is_cancelled
from archiver.errors import StoreError
from archiver.retry import RETRIES, Outage, RetryPolicy, retry_after_seconds
from archiver.stores.s3.errors import outage

# Seconds that a bucket is waited for which has not answered once: the endpoint may well be wrong.
FIRST_SECONDS = RETRIES.unreachable_bucket.total
# Between two tries: the archive is leased meanwhile, and others wait for it.
_LONGEST_SECONDS: Final = RETRIES.s3_call.max_wait
# For what has somebody behind it who tries again himself.
ONE_TRY: Final = RetryPolicy(attempts=1)
# Tries after which an outage is one that lasts.
_TOLD_AT: Final = 3
# In the context of a request: since when it has had no answer.
_SINCE: Final = "archiver-since"


class Patience:
    """``on_wait`` is told once of each outage that lasts, in a thread that waits for its end: what
    is wrong.

    A wait ends when the work is cancelled; what cleans up after that asks once, and not at all
    while nothing answers.
    """

    def __init__(
        self,
        policy: RetryPolicy | None = None,
        on_wait: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.policy: Final = policy or RetryPolicy()
        self._on_wait: Final = on_wait
        self._clock: Final = clock
        self._outage: Final = Outage(clock)
        self._was_reached = False
        self._was_told = False

    def before_send(self, request: Any, **_: object) -> None:  # noqa: ANN401
        """For botocore's ``before-send``. Raises EndpointConnectionError."""
        if self._outage.is_on and thread_is_cancelled():
            raise EndpointConnectionError(endpoint_url=request.url, error="not asked")

    def needs_retry(
        self,
        attempts: int,
        response: tuple[Any, Mapping[str, Any]] | None,
        caught_exception: Exception | None,
        request_dict: dict[str, Any],
        **_: object,
    ) -> float | None:
        """For botocore's ``needs-retry``: 0 once it was waited, None for no next try."""
        why = outage(response, caught_exception)
        if why is None:
            if response is not None:
                self._answered()
            return None
        self._was_reached = self._was_reached or response is not None
        since = request_dict["context"].setdefault(_SINCE, self._clock())
        error = _Unanswered(why, retry_after=_asked(response))
        return 0.0 if self.waits(error, attempts, self._clock() - since) else None

    def waits(self, error: StoreError, failed: int, elapsed: float) -> bool:
        """Wait for the next try after ``failed`` of them, the first ``elapsed`` seconds ago;
        False when there is none."""
        first = math.inf if self._was_reached else FIRST_SECONDS
        policy = replace(
            self.policy,
            max_wait=min(self.policy.max_wait, _LONGEST_SECONDS),
            give_up_after=min(self.policy.give_up_after, first),
        )
        elapsed = max(elapsed, self._outage.record_failure())
        wait = policy.wait(failed, error, random.random, elapsed)
        if wait is None or thread_is_cancelled():
            return False
        if failed == _TOLD_AT:
            self.tell(error.message)
        return pause(wait)

    def tell(self, why: str) -> None:
        """Say what is waited for; once, until the bucket answers."""
        if not self._was_told:
            self._was_told = True
            self._on_wait(why)

    def _answered(self) -> None:
        self._was_reached, self._was_told = True, False
        self._outage.ended()


class _Unanswered(StoreError):
    """What the next try may have an answer to; seen by nobody but who waits for that."""

    retryable = True


def _asked(response: tuple[Any, Mapping[str, Any]] | None) -> float | None:
    """The wait that an answer asks for, if it does."""
    return None if response is None else retry_after_seconds(response[0].headers)
