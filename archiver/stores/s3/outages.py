"""How long to wait for a bucket that does not respond. All requests to it share one budget."""

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
from archiver.stores.s3.errors import transient_failure

# How long to wait for a bucket that has never responded: its endpoint may be wrong.
FIRST_RESPONSE_SECONDS = RETRIES.unreachable_bucket.total
# For callers that retry by themselves.
ONE_TRY: Final = RetryPolicy(attempts=1)
# Failed tries after which an outage is reported.
_REPORTED_AFTER: Final = 3
# Key in the context of a request: when its first try failed.
_FIRST_FAILURE: Final = "archiver-first-failure"


class OutageBudget:
    """Decides whether a failed request is sent again, and waits before that.

    ``on_wait`` is called once for each outage that lasts, with its reason, in a thread that waits
    for its end. A wait ends when the work is cancelled. What cleans up after a cancellation sends
    each request once, and none during an outage.
    """

    def __init__(
        self,
        policy: RetryPolicy | None = None,
        on_wait: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.policy: Final = policy or RETRIES.s3_call.policy()
        self._on_wait: Final = on_wait
        self._clock: Final = clock
        self._outage: Final = Outage(clock)
        self._has_responded = False
        self._was_reported = False

    def before_send(self, request: Any, **_: object) -> None:  # noqa: ANN401
        """Handler of botocore's ``before-send`` event. Raises EndpointConnectionError."""
        if self._outage.is_on and thread_is_cancelled():
            raise EndpointConnectionError(endpoint_url=request.url, error="not sent")

    def needs_retry(
        self,
        attempts: int,
        response: tuple[Any, Mapping[str, Any]] | None,
        caught_exception: Exception | None,
        request_dict: dict[str, Any],
        **_: object,
    ) -> float | None:
        """Handler of botocore's ``needs-retry`` event: 0 to send the request again, after the wait;
        None not to."""
        reason = transient_failure(response, caught_exception)
        if reason is None:
            if response is not None:
                self._record_response()
            return None
        self._has_responded = self._has_responded or response is not None
        since = request_dict["context"].setdefault(_FIRST_FAILURE, self._clock())
        error = _NoResponse(reason, retry_after=_requested_wait(response))
        return 0.0 if self.wait_to_retry(error, attempts, self._clock() - since) else None

    def wait_to_retry(self, error: StoreError, failed: int, elapsed: float) -> bool:
        """Wait for the next try after ``failed`` of them, the first ``elapsed`` seconds ago. False
        when there is none: the budget is spent, or the work is cancelled."""
        limit = math.inf if self._has_responded else FIRST_RESPONSE_SECONDS
        policy = replace(self.policy, give_up_after=min(self.policy.give_up_after, limit))
        elapsed = max(elapsed, self._outage.record_failure())
        wait = policy.wait(failed, error, random.random, elapsed)
        if wait is None or thread_is_cancelled():
            return False
        if failed == _REPORTED_AFTER:
            self.report(error.message)
        return pause(wait)

    def report(self, reason: str) -> None:
        """Call ``on_wait``, unless it was called since the bucket last responded."""
        if not self._was_reported:
            self._was_reported = True
            self._on_wait(reason)

    def _record_response(self) -> None:
        self._has_responded, self._was_reported = True, False
        self._outage.ended()


class _NoResponse(StoreError):
    """A failure that a retry may mend. It only carries the reason to the retry policy."""

    retryable = True


def _requested_wait(response: tuple[Any, Mapping[str, Any]] | None) -> float | None:
    """The wait in seconds that a response asks for, if any."""
    return None if response is None else retry_after_seconds(response[0].headers)
