"""One writer per archive in a bucket, by an object that its holder keeps changing.

No clocks are compared: who finds a lease watches whether it changes, and counts no time in which
the store did not answer: then nobody could change it. A holder that could not renew it sends
nothing that writes, neither for the first time nor again, until it has looked whether it is still
its own. A dead holder is known at once where its processes can be seen
(:mod:`archiver.stores.holder`). Where the store has conditional puts they decide who gets it;
elsewhere two that come at the very same moment may both go on until the next beat of one of them,
and do some work twice.
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
from archiver.errors import ArchiveBusy, ArchiverError, StoreError
from archiver.retry import RETRIES
from archiver.stores.holder import Holder, is_dead, ourselves, parse, words
from archiver.stores.s3.bucket import Bucket, Garbled, Refused
from archiver.stores.s3.dialect import Conditions, Dialect
from archiver.stores.s3.layout import LOCK_KEY

BEAT_SECONDS = RETRIES.lease_beat.wait
# Beats without a sign of life after which a holder counts as gone; it must stop before that.
_BEATS_TO_TAKE, _BEATS_TO_LOSE = 3.0, 2.5
_LOOK_SECONDS = 2.0
# A look that takes longer than this had to wait for the store.
_OUTAGE_SECONDS = 5.0
# How long two that write at the same moment wait to see who came last.
_SETTLE_SECONDS = 0.2
_MOST_SENDINGS = RETRIES.s3_send.attempts


class Lease:
    """A lease that is held; its beat runs in a thread, over connections of its own."""

    def __init__(self, bucket: Bucket, dialect: Dialect, beat: float) -> None:
        self._bucket = bucket
        self._patience: Final = bucket.patience
        self._dialect = dialect
        self._beat: Final = beat
        self._name: Final = secrets.token_hex(8)
        self._beats = 0
        self._stop: Final = threading.Event()
        self._lost: ArchiveBusy | None = None
        self._seen_at = 0.0

    def check(self) -> None:
        """Blocks while it is not known whose the lease is, since the store does not answer. Raises
        ArchiveBusy when somebody else has taken it, StoreError when that lasts."""
        lasting = self._patience.policy.give_up_after
        # A machine that slept knows soon: its beat looks.
        soon = _now() + min(lasting, self._may_be_silent)
        until = max(soon, self._seen_at + self._may_be_silent + lasting)
        while self._lost is None and (silent := _now() - self._seen_at) > self._may_be_silent:
            self._patience.tell(f"the lease could not be renewed for {silent:.0f} s")
            if _now() >= until or not pause(min(self._beat / 4, until - _now())):
                raise StoreError(
                    f"{self._bucket}: the lease could not be renewed for {silent:.0f} s",
                    hint="the store does not answer; run the command again to go on",
                )
        if self._lost is not None:
            raise self._lost

    @property
    def _may_be_silent(self) -> float:
        return _BEATS_TO_LOSE * self._beat

    def take(self, seen: str | None) -> Holder | None:
        """Write our name over what was seen (its ETag, None for nothing). None when that held,
        else who has it.

        Whatever the store answers, or when nothing comes, what is there decides: the answer to what
        was done may be lost, and a name of ours there is ours, of this beat or an earlier one.
        """
        began = _now()
        self._beats += 1
        ours = ourselves(self._name, self._beats)
        data, unmoved = json.dumps(ours).encode(), 0
        for _ in range(_MOST_SENDINGS):
            failure = self._put(data, seen)
            if self._dialect.conditions is Conditions.NONE and self._beats == 1:
                self._stop.wait(_SETTLE_SECONDS)
            holder, etag = _look(self._bucket) or ({}, None)
            if holder == ours:
                self._seen_at = began
                return None
            if etag is None and seen is not None:
                if self._beats > 1:
                    return {}  # another may have had it, and have given it back
                seen = None  # who had it gave it back meanwhile: some stores answer with 404
                continue
            if failure is not None:
                raise failure
            if holder.get("name") == self._name:
                unmoved += etag == seen
                if unmoved > 1:
                    # A right condition is refused, and nobody else is here: it is not asked again.
                    self._dialect = replace(self._dialect, conditions=Conditions.NONE)
                seen = etag
            elif holder and etag != seen:
                return holder
        return {}

    def _put(self, data: bytes, seen: str | None) -> StoreError | None:
        """Why it may not have been written."""
        given = self._bucket.options.for_notes() | self._dialect.checksum(data)
        given |= self._dialect.if_match(seen) if seen else self._dialect.if_absent()
        try:
            self._bucket.put(LOCK_KEY, data, **given)
        except (Refused, Garbled):
            return None
        except StoreError as error:
            return error
        return None

    def keep_beating(self) -> None:
        """Until told to stop, or somebody else has it. After a failure it comes soon again: others
        wait for it."""
        self._bucket, wait = self._bucket.apart(), self._beat
        while not self._stop.wait(wait):
            wait = min(self._beat, _LOOK_SECONDS)
            try:
                # First a look: who was away for long must not write over who came meanwhile.
                holder, etag = _look(self._bucket) or ({}, None)
                if holder.get("name") == self._name:
                    other = self.take(etag)
                    if other is None:
                        wait = self._beat
                        continue
                    holder = other
            except ArchiverError:
                continue  # check() tells when that has lasted too long
            self._lost = _busy(self._bucket, holder)
            return

    def stop(self) -> None:
        self._stop.set()

    def leave(self) -> None:
        """Give it back, if it is still ours; where nothing may be deleted, by saying so."""
        found = _look(self._bucket)
        if found is None or found[0].get("name") != self._name:
            return
        if self._bucket.delete_if_allowed(LOCK_KEY):
            return
        # Nobody can have come: nothing was deleted. Still it is written over ours alone.
        data = json.dumps({"released": True, "name": self._name}).encode()
        given = self._bucket.options.for_notes() | self._dialect.checksum(data)
        given |= self._dialect.if_match(found[1])
        self._bucket.put(LOCK_KEY, data, **given)


@contextmanager
def hold(
    bucket: Bucket,
    dialect: Dialect,
    beat: float = BEAT_SECONDS,
    stop: threading.Event | None = None,
) -> Generator[Lease, None, None]:
    """Be the only writer. Blocks for up to three beats to see whether a holder is alive; less when
    ``stop`` is set: then it raises.

    Raises ArchiveBusy, StoreError, StoreForbidden.
    """
    lease = Lease(bucket, dialect, beat)
    seen = _free_etag(bucket, beat, stop or threading.Event())
    try:
        other = lease.take(seen)
    except ArchiverError:
        _leave(lease)  # it may be ours by now
        raise
    if other is not None:
        raise _busy(bucket, other)
    beating = threading.Thread(target=lease.keep_beating, daemon=True)
    beating.start()
    try:
        yield lease
    finally:
        lease.stop()
        beating.join()
        _leave(lease)


def _now() -> float:
    """Seconds that also pass while this machine sleeps: others beat on meanwhile."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


def _leave(lease: Lease) -> None:
    with suppress(ArchiverError, Refused, Garbled):
        lease.leave()


def _free_etag(bucket: Bucket, beat: float, stop: threading.Event) -> str | None:
    """The ETag of a lease that nobody holds any more; None when there is none.

    The time that a slow store takes is not counted; all of it is no more than an outage may last.
    """
    first = _look(bucket)
    if first is None:
        return None
    if _is_over(first[0]):
        return first[1]
    began, uncounted = time.monotonic(), 0.0
    while time.monotonic() - began - uncounted < _BEATS_TO_TAKE * beat:
        if stop.wait(min(_LOOK_SECONDS, beat / 2)):
            raise _busy(bucket, first[0])
        asked = time.monotonic()
        now = _look(bucket)
        took = time.monotonic() - asked
        if now is None:
            return None
        if now != first:  # what cannot be read changes, too, while its holder lives
            if _is_over(now[0]):
                return now[1]
            raise _busy(bucket, now[0])
        if took > min(_OUTAGE_SECONDS, beat / 2):
            uncounted = _uncounted(bucket, now[0], uncounted, took)
    return first[1]


def _uncounted(bucket: Bucket, holder: Holder, before: float, took: float) -> float:
    """Seconds, with those of one more slow look. Raises ArchiveBusy when they are too many."""
    if not before:
        bucket.patience.tell(f"it took {took:.0f} s to show who has the lease")
    if before + took > bucket.patience.policy.give_up_after:
        raise ArchiveBusy(
            f"{bucket}: {words(holder)} has the lease, and the bucket answers too slowly to tell "
            "whether it lives",
            hint="run the command again when the bucket answers sooner",
        )
    return before + took


def _look(bucket: Bucket) -> tuple[Holder, str] | None:
    found = bucket.get(LOCK_KEY)
    return None if found is None else (parse(found[0]), found[1])


def _is_over(holder: Holder) -> bool:
    """Given back, or known for sure to be dead."""
    return bool(holder.get("released")) or is_dead(holder)


def _busy(bucket: Bucket, holder: Holder) -> ArchiveBusy:
    return ArchiveBusy(
        f"{bucket}: {words(holder)} is writing to this archive",
        hint="wait until it is done, as --lock-wait 30m does",
    )
