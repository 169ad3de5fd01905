"""What is retried, how often and for how long: one table, and the policy that applies its rows."""

import email.utils
import math
import random
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import anyio

from archiver.errors import ArchiverError

# Called before each wait with the error, the number of failed attempts, and the wait in seconds.
OnRetry = Callable[[ArchiverError, int, float], None]
# Called once an outage with the error, and the most seconds that its end is waited for.
OnOutage = Callable[[ArchiverError, float], None]

UNLIMITED: Final = sys.maxsize

# An outage is reported once this many attempts have failed, or it has lasted for so long. One
# attempt more often succeeds; a longer silence would puzzle whoever watches.
_REPORTED_ATTEMPTS: Final = 3
_REPORTED_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class RetryRule:
    """A row of :data:`RETRIES`. Times are in seconds.

    ``attempts`` counts the first one, too. ``wait`` is the pause after the first failure (at most:
    it is drawn at random), which doubles up to ``max_wait``; ``timeout`` ends one attempt, and
    ``total`` all of them together. ``option`` is the command-line option that sets ``total``.
    """

    what: str
    attempts: int = UNLIMITED
    wait: float = 0.0
    max_wait: float = 0.0
    timeout: float = math.inf
    total: float = math.inf
    option: str | None = None

    def policy(self, total: float | None = None) -> "RetryPolicy":
        """The policy of this row; ``total`` (seconds) is what its option was set to."""
        attempts = None if self.attempts == UNLIMITED else self.attempts
        give_up_after = self.total if total is None else total
        return RetryPolicy(attempts, self.wait, self.max_wait, give_up_after=give_up_after)


# What the API, downloads and buckets have in common.
_WAIT, _MAX_WAIT, _TOTAL = 0.5, 30.0, 300.0
_OPTION: Final = "--retry-for"


@dataclass(frozen=True, slots=True)
class RetryTable:
    """All decisions about retries. The modules that carry them out take their numbers here, those
    with a ``wait`` and a ``total`` by :meth:`RetryRule.policy`."""

    connect: RetryRule = RetryRule(
        "connecting to a host; a further address is tried every ``wait`` seconds (RFC 8305)",
        wait=0.25,
        timeout=10.0,
    )
    # The vendor's API
    api_call: RetryRule = RetryRule(
        "a call of the API, after an error that may be temporary",
        wait=_WAIT,
        max_wait=_MAX_WAIT,
        timeout=60.0,
        total=_TOTAL,
        option=_OPTION,
    )
    unreachable_api: RetryRule = RetryRule(
        "a call of the API at an endpoint that never responded: it may be a wrong one", total=30.0
    )
    changing_listing: RetryRule = RetryRule(
        "reading a listing again, until two readings in a row are the same", attempts=20
    )
    # Backups on demand
    backup_begun: RetryRule = RetryRule(
        "looking for the job of a backup, after the answer to CreateBackup was lost or named none",
        wait=1.0,
        max_wait=5.0,
        total=60.0,
    )
    backup_job: RetryRule = RetryRule(
        "looking how far the job of a backup is",
        wait=1.0,
        max_wait=15.0,
        total=7200.0,
        option="--timeout",
    )
    backup_listed: RetryRule = RetryRule(
        "looking for a backup in the listing, after its job has ended", total=600.0
    )
    # Credentials
    sts_call: RetryRule = RetryRule("a call of STS", attempts=1, timeout=20.0)
    metadata_service: RetryRule = RetryRule(
        "a request to the metadata service of ECS, which only ECS instances have",
        attempts=1,
        timeout=5.0,
    )
    credentials_uri: RetryRule = RetryRule(
        "a request to the credentials URI", attempts=1, timeout=10.0
    )
    renewed_credentials: RetryRule = RetryRule(
        "asking for new credentials while the old ones are still valid", wait=60.0
    )
    # Downloads
    intranet_probe: RetryRule = RetryRule(
        "probing an intranet host, once a run", attempts=1, timeout=2.0
    )
    http_request: RetryRule = RetryRule(
        "a request for a part, up to the head of its response", timeout=15.0
    )
    stalled_connection: RetryRule = RetryRule(
        "receiving a part over a connection slower than the minimum rate", timeout=30.0
    )
    part: RetryRule = RetryRule(
        "downloading a part, after an error that may be temporary; progress resets the time",
        wait=_WAIT,
        max_wait=_MAX_WAIT,
        total=_TOTAL,
        option=_OPTION,
    )
    refused_url: RetryRule = RetryRule(
        "downloading with a newly listed URL, after a 403 and without a byte in between", attempts=5
    )
    corrupt_part: RetryRule = RetryRule(
        "downloading one part again, after the whole file had the wrong CRC-64", attempts=5
    )
    part_reads_back_wrong: RetryRule = RetryRule(
        "writing a part that reads back with another CRC-64 than it arrived with", attempts=3
    )
    whole_file: RetryRule = RetryRule(
        "downloading a file from its start, after its object changed or it stayed corrupt",
        attempts=3,
    )
    small_file: RetryRule = RetryRule(
        "downloading a small file in a burst (timeout: up to the head); then it is treated as a "
        "part",
        attempts=1,
        timeout=3.0,
        total=10.0,
    )
    # Engines
    lost_worker: RetryRule = RetryRule(
        "a task whose worker died; from the second time on alone on its worker", attempts=3
    )
    unheard: RetryRule = RetryRule(
        "giving work to workers again that heard nothing of the coordinator; progress resets the "
        "time",
        total=_TOTAL,
    )
    cluster: RetryRule = RetryRule("connecting to the scheduler of a cluster", timeout=10.0)
    no_worker: RetryRule = RetryRule("waiting for a worker where a cluster has none", total=60.0)
    # Buckets
    s3_call: RetryRule = RetryRule(
        "a request to a bucket, after an error that may be temporary",
        wait=_WAIT,
        max_wait=10.0,  # a lease is held meanwhile, and others wait for it
        timeout=20.0,
        total=_TOTAL,
        option=_OPTION,
    )
    unreachable_bucket: RetryRule = RetryRule(
        "a request to a bucket at an endpoint that never responded", total=30.0
    )
    s3_read: RetryRule = RetryRule(
        "reading an object again from where its body broke off", attempts=6
    )
    s3_send: RetryRule = RetryRule(
        "sending something again that arrived damaged, or that another write got in the way of",
        attempts=4,
    )
    s3_probe: RetryRule = RetryRule(
        "probing what a bucket supports, while another run probes it, too", attempts=3
    )
    # Locks
    lease_beat: RetryRule = RetryRule("renewing the lease of a bucket", wait=10.0)
    lock_beat: RetryRule = RetryRule("renewing the lock of a directory", wait=5.0)
    lock_opening: RetryRule = RetryRule(
        "opening a lock file that its holder removes meanwhile", attempts=100
    )
    archive_lock: RetryRule = RetryRule(
        "looking whether another writer is done; not at all unless the option is given",
        wait=1.0,
        total=0.0,
        option="--lock-wait",
    )
    temporary_file: RetryRule = RetryRule(
        "writing a file again whose temporary was removed by the sweep of another run", attempts=3
    )
    # Verification
    verify_results: RetryRule = RetryRule("writing a month's results", attempts=3)


RETRIES: Final = RetryTable()


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential back-off with full jitter (times in seconds).

    Attempts end when none has succeeded for ``give_up_after``, or after ``attempts`` failures in
    a row without progress (None: they are not counted). A wait that the server asks for is
    respected up to ``max_retry_after``; a longer one is not worth blocking a worker for.
    """

    attempts: int | None = None
    first_wait: float = _WAIT
    max_wait: float = _MAX_WAIT
    max_retry_after: float = 300.0
    give_up_after: float = _TOTAL

    def wait(
        self, failed: int, error: ArchiverError, draw: Callable[[], float], elapsed: float = 0.0
    ) -> float | None:
        """Seconds until the next attempt after ``failed`` failures in a row, the first of them
        ``elapsed`` seconds ago; None to give up. ``draw`` returns a random number below 1."""
        is_last = self.attempts is not None and failed >= self.attempts
        if not error.retryable or is_last or elapsed >= self.give_up_after:
            return None
        doublings = min(failed - 1, 30)
        backoff = min(self.max_wait, self.first_wait * 2.0**doublings) * draw()
        asked = error.retry_after
        if asked is None:
            # The last attempt is made exactly at the end.
            return min(backoff, self.give_up_after - elapsed)
        # Jitter is added: workers that were told the same must not come back at the same time.
        return asked + backoff if asked <= min(self.max_retry_after, self.give_up_after) else None


class Outage:
    """Measures for how long a source has not delivered anything, to any of its users.

    Without it each failure would be retried for its whole time: a thousand backups would wait for
    a source that is gone a thousand times.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock: Final = clock
        self._since: float | None = None
        self._failed = 0
        self._was_reported = False

    @property
    def is_on(self) -> bool:
        return self._since is not None

    def record_failure(self) -> float:
        """Count a failure; returns the seconds since the first of them."""
        now = self.clock()
        self._since = now if self._since is None else self._since
        self._failed += 1
        return now - self._since

    @property
    def is_lasting(self) -> bool:
        """Whether it has gone on for long enough to be reported."""
        if self._since is None:
            return False
        seconds = self.clock() - self._since
        return self._failed >= _REPORTED_ATTEMPTS or seconds >= _REPORTED_SECONDS

    def take_report(self) -> bool:
        """Whether it is to be reported now: true once an outage."""
        if self._was_reported:
            return False
        self._was_reported = self.is_lasting
        return self._was_reported

    def ended(self) -> None:
        """Start anew: something arrived."""
        self._since = None
        self._failed = 0
        self._was_reported = False


def _ignore_outage(_: ArchiverError, __: float) -> None:
    pass


class Attempts:
    """Counts the attempts at one piece of work and waits between them."""

    def __init__(
        self,
        policy: RetryPolicy,
        on_retry: OnRetry,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
        draw: Callable[[], float] = random.random,
        outage: Outage | None = None,
        on_outage: OnOutage = _ignore_outage,
    ) -> None:
        self._policy: Final = policy
        self._on_retry: Final = on_retry
        self._on_outage: Final = on_outage
        self._sleep: Final = sleep
        self._draw: Final = draw
        self._shared_outage: Final = outage or Outage()
        self._own_outage: Final = Outage(self._shared_outage.clock)
        self._failed = 0

    def progressed(self) -> None:
        """Forget earlier failures: something arrived."""
        self._failed = 0
        self._own_outage.ended()
        self._shared_outage.ended()

    async def failed(self, error: ArchiverError, give_up_after: float = math.inf) -> None:
        """Wait before the next attempt; raise the error when there is none. ``give_up_after``
        may shorten the policy's for this error."""
        self._failed += 1
        elapsed = 0.0
        if error.retryable:
            own, shared = self._own_outage.record_failure(), self._shared_outage.record_failure()
            elapsed = max(own, shared)
        give_up_after = min(self._policy.give_up_after, give_up_after)
        policy = replace(self._policy, give_up_after=give_up_after)
        wait = policy.wait(self._failed, error, self._draw, elapsed)
        if wait is None:
            raise error
        self._on_retry(error, self._failed, wait)
        # Both must last: with many workers, three failures may be the first of each.
        if self._own_outage.is_lasting and self._shared_outage.take_report():
            self._on_outage(error, policy.give_up_after)
        await self._sleep(wait)


def retry_after_seconds(
    headers: Mapping[str, str], now: Callable[[], float] = time.time
) -> float | None:
    """The wait in seconds that response headers ask for; None if they do not.

    Reads Retry-After in both its forms (RFC 9110 §10.2.3), and x-acs-retry-after, which is in
    milliseconds.
    """
    named = {name.lower(): value for name, value in headers.items()}
    try:
        if (milliseconds := named.get("x-acs-retry-after")) is not None:
            return _checked(float(milliseconds) / 1000)
        if (after := named.get("retry-after")) is None:
            return None
        if after.strip().isdigit():
            return _checked(float(after))
        return _checked(email.utils.parsedate_to_datetime(after).timestamp() - now())
    except (ValueError, TypeError, OverflowError):
        return None


def _checked(seconds: float) -> float | None:
    return max(0.0, seconds) if math.isfinite(seconds) else None
