"""Leases in a bucket: one for the only writer of each instance of an archive, and one for what
concerns the whole archive (:mod:`archiver.stores.scope`). A lease is an object that its holder
keeps changing.

No clocks are compared. Whoever finds a lease watches whether it changes, and does not count the
time in which the store did not respond, since nobody could change it then. A holder that could not
renew its lease sends no request that writes, and no retry of one, until it has seen that the lease
is still its own. A dead holder is recognised at once if its processes can be seen
(:mod:`archiver.stores.holder`).

Conditional puts decide who gets a lease. In a store without them, each process waits after its
first put for as long as another one may take that saw no lease either: the last put decides. If one
takes longer still, both continue until the next beat of one of them, and do some work twice.

A beat takes three requests, one after the other, and the next one begins ten seconds after the
begin of the last, or as soon as that has ended. So where each request takes L seconds, a holder has
gone unconfirmed for at most max(10, 3 L) + 2 L: from before its last put to the end of the next
beat. That is within 25 s, after which it stops, while L is up to 5 s, where a request of a beat
times out. It holds for each of many leases only while they are all renewed at once.

A lease is deleted when it is released. Where nothing may be deleted it stays, marked as released:
then there is one such object for each instance that was ever written.
"""

import json
import secrets
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Final

from archiver.concurrency import pause
from archiver.errors import ArchiveBusy, ArchiverError, LockLost, StoreError, StoreForbidden
from archiver.retry import RETRIES
from archiver.stores.heartbeat import beating
from archiver.stores.holder import Holder, busy, is_dead, is_lent, lost, ourselves, parse, words
from archiver.stores.loans import AFTER_DEATH_SECONDS, LOAN_SECONDS, Loan, boot_clock
from archiver.stores.s3.bucket import Bucket
from archiver.stores.s3.capabilities import Capabilities, ConditionalPuts
from archiver.stores.s3.errors import ConditionFailed, DamagedInTransit
from archiver.stores.s3.layout import lease_key
from archiver.stores.scope import WHOLE

BEAT_SECONDS = RETRIES.lease_beat.wait
# After how many beats without a change a lease may be taken over. Its holder must stop before that.
_BEATS_TO_TAKE, _BEATS_TO_LOSE = 3.0, 2.5
# A lease that was confirmed within so many beats may be deleted: the request takes less time than
# what is left until others may take it.
_BEATS_TO_RELEASE = 1.5
_LOOK_SECONDS = 2.0
# A read of the lease that takes longer than this had to wait for the store.
_OUTAGE_SECONDS = 5.0
# How long a process waits to see whether another one wrote the lease at the same moment: so many
# times what its own put took, since the other one's look and put may take three times as long, but
# so many beats at least, and not longer than until the next beat, which tells as well.
_SETTLE_PUTS, _SETTLE_BEATS, _SETTLE_MOST_BEATS = 6.0, 0.2, 1.0
_MAX_TRIES = RETRIES.s3_send.attempts


class Lease:
    """A lease of this process. A thread renews it at each beat, over connections of its own."""

    def __init__(
        self,
        bucket: Bucket,
        capabilities: Capabilities,
        beat: float,
        scope: str = WHOLE,
        *,
        briefly: bool = False,
        lent: bool = False,
        stop: threading.Event | None = None,
    ) -> None:
        self._bucket = bucket
        self._briefly: Final = briefly
        self._lent: Final = lent
        self._scope: Final = scope
        self._key: Final = lease_key(scope)
        self._outages: Final = bucket.outages
        self._capabilities = capabilities
        self._beat: Final = beat
        self._name: Final = secrets.token_hex(8)
        self._beats = 0
        self._stop: Final = stop or threading.Event()
        self._lost: LockLost | None = None
        self._seen_at = 0.0

    def check(self) -> None:
        """Return when the lease is known to be ours. Blocks while the store does not respond.

        Raises LockLost when another process has taken it, StoreError when the store does not
        respond for too long.
        """
        lasting = self._outages.policy.give_up_after
        # After a sleep of the machine the next beat soon tells.
        soon = boot_clock() + min(lasting, self._may_be_silent)
        until = max(soon, self._seen_at + self._may_be_silent + lasting)
        while self._lost is None and (silent := boot_clock() - self._seen_at) > self._may_be_silent:
            self._outages.report(f"the lease could not be renewed for {silent:.0f} s")
            if boot_clock() >= until or not pause(min(self._beat / 4, until - boot_clock())):
                raise self._not_renewed(silent)
        if self._lost is not None:
            raise self._lost

    def loan(self) -> Loan:
        """What is lent to workers: for no time at all while the store does not respond, which is
        not waited for here. Raises as :meth:`check` does."""
        if self._lost is not None:
            raise self._lost
        silent = boot_clock() - self._seen_at
        if silent > self._may_be_silent + self._outages.policy.give_up_after:
            raise self._not_renewed(silent)
        return Loan(self._name, max(0.0, min(LOAN_SECONDS, self._may_be_silent - silent)))

    def _not_renewed(self, silent: float) -> StoreError:
        return StoreError(
            f"{self._bucket}: the lease could not be renewed for {silent:.0f} s",
            hint="the store does not respond; run the command again to resume",
        )

    @property
    def _may_be_silent(self) -> float:
        return _BEATS_TO_LOSE * self._beat

    def take(self, seen: str | None) -> Holder | None:
        """Write our name into the lease. Returns None when we have it, else its holder.

        ``seen`` is the ETag of the lease to replace, None when there was none.

        What is there afterwards decides, whatever the store responds: a response may be lost, and
        our own name there may be of this beat or an earlier one.
        """
        began = boot_clock()
        self._beats += 1
        ours = ourselves(self._name, self._beats, briefly=self._briefly, lent=self._lent)
        data, unmoved = json.dumps(ours).encode(), 0
        for _ in range(_MAX_TRIES):
            failure = self._put(data, seen)
            if self._capabilities.conditional_puts is ConditionalPuts.NONE and self._beats == 1:
                self._settle(boot_clock() - began)
            holder, etag = _look(self._bucket, self._key) or ({}, None)
            if holder == ours:
                self._seen_at = began
                return None
            if etag is None and seen is not None:
                if self._beats > 1:
                    return {}  # another process may have taken and released it
                seen = None  # its holder released it meanwhile, and some stores respond with 404
                continue
            if failure is not None:
                raise failure
            if holder.get("name") == self._name:
                unmoved += etag == seen
                if unmoved > 1:
                    # Nobody else writes here, so the store refuses right conditions: use none.
                    self._capabilities = replace(
                        self._capabilities, conditional_puts=ConditionalPuts.NONE
                    )
                seen = etag
            elif holder and etag != seen:
                return holder
        return {}

    def _settle(self, took: float) -> None:
        """Wait until nobody writes the lease any more who saw it as free when we did."""
        least, most = _SETTLE_BEATS * self._beat, _SETTLE_MOST_BEATS * self._beat
        self._stop.wait(min(most, max(least, _SETTLE_PUTS * took)))

    def until_next_beat(self) -> float:
        """The seconds until the next beat is due: it counts from the begin of the last."""
        return max(0.0, self._seen_at + self._beat - boot_clock())

    def _put(self, data: bytes, seen: str | None) -> StoreError | None:
        """Write the lease. Returns the error after which it is unknown whether that worked."""
        given = self._bucket.options.for_notes() | self._capabilities.checksum_parameters(data)
        given |= self._capabilities.if_match(seen) if seen else self._capabilities.if_absent()
        try:
            self._bucket.put(self._key, data, **given)
        except (ConditionFailed, DamagedInTransit):
            return None
        except StoreForbidden:
            raise
        except StoreError as error:
            return error
        return None

    def use_own_connections(self) -> None:
        """From now on use other connections than those that data is sent over."""
        self._bucket = self._bucket.with_own_connections()

    def renew(self) -> float | None:
        """One beat. Returns the seconds until the next, which comes sooner after a failure; None
        when another process has the lease."""
        try:
            # Read first: after a long sleep another process may have the lease.
            holder, etag = _look(self._bucket, self._key) or ({}, None)
            if holder.get("name") == self._name:
                other = self.take(etag)
                if other is None:
                    return self._beat
                holder = other
        except ArchiverError:
            return min(self._beat, _LOOK_SECONDS)  # check() raises when that lasts too long
        self._lost = lost(self._bucket, self._scope, holder)
        return None

    def stop(self) -> None:
        """Keep a take in progress from waiting."""
        self._stop.set()

    def release(self) -> None:
        """Release the lease, if it is still ours. Where nothing may be deleted, it is marked as
        released."""
        if (etag := self._own_etag()) is None:
            return
        # A deletion has no condition, so it must arrive before anybody may take the lease.
        is_fresh = boot_clock() - self._seen_at < _BEATS_TO_RELEASE * self._beat
        if not is_fresh and self.take(etag) is not None:
            return
        if self._bucket.delete_if_allowed(self._key):
            return
        # Where only the response was lost, another process may have taken it since.
        if (etag := self._own_etag()) is None:
            return
        data = json.dumps({"released": True, "name": self._name}).encode()
        given = self._bucket.options.for_notes() | self._capabilities.checksum_parameters(data)
        given |= self._capabilities.if_match(etag)
        self._bucket.put(self._key, data, **given)

    def _own_etag(self) -> str | None:
        """The ETag of the lease while our name is in it."""
        holder, etag = _look(self._bucket, self._key) or ({}, None)
        return etag if holder.get("name") == self._name else None


@contextmanager
def hold(
    bucket: Bucket,
    capabilities: Capabilities,
    beat: float = BEAT_SECONDS,
    stop: threading.Event | None = None,
    scope: str = WHOLE,
    *,
    watch: bool = True,
    briefly: bool = False,
    lent: bool = False,
) -> Generator[Lease, None, None]:
    """Be the only writer of a scope while in this context, for a moment only if ``briefly``.

    Blocks for up to three beats to see whether another holder is alive; without ``watch`` it counts
    as alive. So do the workers of a dead one that had lent it, for some seconds. Once ``stop`` is
    set it raises instead. Raises ArchiveBusy, StoreError, StoreForbidden.
    """
    stop = stop or threading.Event()
    lease = Lease(bucket, capabilities, beat, scope, briefly=briefly, lent=lent, stop=stop)
    seen = _free_etag(bucket, beat, stop, scope, watch=watch)
    try:
        if (other := lease.take(seen)) is not None:
            raise busy(bucket, scope, other)
        lease.use_own_connections()
        with beating(lease.renew, lease.until_next_beat()):
            yield lease
    finally:
        lease.stop()
        _release(lease)  # also when it was not taken: it may have been written


def _release(lease: Lease) -> None:
    with suppress(ArchiverError, ConditionFailed, DamagedInTransit):
        lease.release()


def _free_etag(
    bucket: Bucket, beat: float, stop: threading.Event, scope: str, *, watch: bool = True
) -> str | None:
    """The ETag of a lease whose holder is gone; None when there is no lease. Without ``watch`` a
    holder that may be alive is not gone.

    The time that a slow store takes is not counted, up to the length of an outage. Raises
    ArchiveBusy when the holder is alive.
    """
    first = _look(bucket, lease_key(scope))
    if first is None:
        return None
    if _is_over(first[0]):
        _wait_for_workers(bucket, scope, first[0], stop if watch else None)
        return first[1]
    if not watch:
        raise busy(bucket, scope, first[0])
    began, uncounted = time.monotonic(), 0.0
    while time.monotonic() - began - uncounted < _BEATS_TO_TAKE * beat:
        if stop.wait(min(_LOOK_SECONDS, beat / 2)):
            raise busy(bucket, scope, first[0])
        requested = time.monotonic()
        now = _look(bucket, lease_key(scope))
        took = time.monotonic() - requested
        if now is None:
            return None
        if now != first:  # a live holder changes even a lease that we cannot parse
            if _is_over(now[0]) and not is_lent(now[0]):
                return now[1]
            raise busy(bucket, scope, now[0])
        if took > min(_OUTAGE_SECONDS, beat / 2):
            uncounted = _uncounted(bucket, now[0], uncounted, took)
    return first[1]


def _wait_for_workers(
    bucket: Bucket, scope: str, dead: Holder, stop: threading.Event | None
) -> None:
    """Wait until the workers of a dead holder have stopped. Raises ArchiveBusy where that is not to
    be waited for, or was stopped."""
    if is_lent(dead) and (stop is None or stop.wait(AFTER_DEATH_SECONDS)):
        raise busy(bucket, scope, dead)


def _uncounted(bucket: Bucket, holder: Holder, before: float, took: float) -> float:
    """The uncounted seconds, with those of one more slow read. Raises ArchiveBusy when they exceed
    the outage budget."""
    if not before:
        bucket.outages.report(f"it took {took:.0f} s to read the lease")
    if before + took > bucket.outages.policy.give_up_after:
        raise ArchiveBusy(
            f"{bucket}: {words(holder)} has the lease, and the bucket responds too slowly to tell "
            "whether it is alive",
            hint="run the command again when the bucket responds faster",
        )
    return before + took


def _look(bucket: Bucket, key: str) -> tuple[Holder, str] | None:
    found = bucket.get(key)
    return None if found is None else (parse(found[0]), found[1])


def name_in(bucket: Bucket, scope: str) -> object:
    """The name that a holder wrote into a lease; None where nobody did. Raises StoreError."""
    found = _look(bucket, lease_key(scope))
    return None if found is None else found[0].get("name")


def _is_over(holder: Holder) -> bool:
    """Whether its holder released it, or is known to be dead."""
    return bool(holder.get("released")) or is_dead(holder)
