"""One writer per archive in a bucket, by an object that its holder keeps changing.

No clocks are compared: who finds a lease watches whether it changes. On the host that left it, a
holder that is dead is known at once. Where the store has conditional puts they decide who gets it;
elsewhere two that come at the very same moment may both go on until the next beat of one of them,
and do some work twice.
"""

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from archiver.errors import ArchiveBusy, ArchiverError
from archiver.stores.holder import parse_holder
from archiver.stores.s3.bucket import Bucket, Garbled, Refused
from archiver.stores.s3.dialect import Dialect
from archiver.stores.s3.layout import LOCK_KEY

BEAT_SECONDS = 10.0
# Beats without a sign of life after which a holder counts as gone; it must stop before that.
_BEATS_TO_TAKE, _BEATS_TO_LOSE = 3.0, 2.5
_LOOK_SECONDS = 2.0
# How long two that write at the same moment wait to see who came last.
_SETTLE_SECONDS = 0.2
_MOST_SENDINGS = 4
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
Holder = dict[str, Any]


class Lease:
    """A lease that is held; its beat runs in a thread, over connections of its own."""

    def __init__(self, bucket: Bucket, dialect: Dialect, beat: float) -> None:
        self._bucket: Final = bucket
        self._dialect: Final = dialect
        self._beat: Final = beat
        self._name: Final = secrets.token_hex(8)
        self._etag: str | None = None
        self._beats = 0
        self._stop: Final = threading.Event()
        self._lost: ArchiveBusy | None = None
        self._seen_at = 0.0

    def check(self) -> None:
        """Raises ArchiveBusy when somebody else has taken the lease meanwhile, or may have."""
        if self._lost is not None:
            raise self._lost
        if time.monotonic() - self._seen_at > _BEATS_TO_LOSE * self._beat:
            raise ArchiveBusy(
                f"{self._bucket}: the lease could not be renewed for "
                f"{time.monotonic() - self._seen_at:.0f} s",
                hint="the store does not answer; run the command again to go on",
            )

    def take(self, seen: str | None) -> Holder | None:
        """Write our name over what was seen (its ETag, None for nothing). None when that held,
        else who has it."""
        began = time.monotonic()
        self._beats += 1
        ours = _ourselves(self._name, self._beats)
        data = json.dumps(ours).encode()
        given = self._bucket.options.for_notes() | self._dialect.checksum(data)
        if self._dialect.conditions:
            given |= {"IfMatch": seen} if seen else {"IfNoneMatch": "*"}
        for _ in range(_MOST_SENDINGS):
            # Refused, it may be ours all the same: the answer to an earlier try was lost.
            with suppress(Refused, Garbled):
                self._bucket.put(LOCK_KEY, data, **given)
            if not self._dialect.conditions and self._beats == 1:
                time.sleep(_SETTLE_SECONDS)
            found = _look(self._bucket)
            if found is not None and found[0] == ours:
                self._etag, self._seen_at = found[1], began
                return None
            if found is not None and found[0]:
                return found[0]
        return {}

    def keep_beating(self) -> None:
        """Until told to stop, or somebody else has it."""
        while not self._stop.wait(self._beat):
            try:
                found = _look(self._bucket)
                # First a look: who was away for long must not write over who came meanwhile.
                holder = found[0] if found is not None else {}
                if holder.get("name") == self._name:
                    other = self.take(self._etag)
                    if other is None:
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
        self._bucket.delete_if_allowed(LOCK_KEY)
        if self._bucket.head(LOCK_KEY) is not None:
            data = json.dumps({"released": True, "name": self._name}).encode()
            self._bucket.put(
                LOCK_KEY,
                data,
                **self._bucket.options.for_notes(),
                **self._dialect.checksum(data),
            )


@contextmanager
def hold(
    bucket: Bucket, dialect: Dialect, beat: float = BEAT_SECONDS
) -> Generator[Lease, None, None]:
    """Be the only writer. Blocks for up to three beats to see whether a holder is alive.

    Raises ArchiveBusy, StoreError, StoreForbidden.
    """
    bucket = bucket.apart()
    lease = Lease(bucket, dialect, beat)
    other = lease.take(_free_etag(bucket, beat))
    if other is not None:
        raise _busy(bucket, other)
    beating = threading.Thread(target=lease.keep_beating, daemon=True)
    beating.start()
    try:
        yield lease
    finally:
        lease.stop()
        beating.join()
        with suppress(ArchiverError, Refused, Garbled):
            lease.leave()


def _free_etag(bucket: Bucket, beat: float) -> str | None:
    """The ETag of a lease that nobody holds any more; None when there is none."""
    first = _look(bucket)
    if first is None:
        return None
    if _is_over(first[0]):
        return first[1]
    until = time.monotonic() + _BEATS_TO_TAKE * beat
    while time.monotonic() < until:
        time.sleep(min(_LOOK_SECONDS, beat / 2))
        now = _look(bucket)
        if now is None:
            return None
        if now[0] != first[0]:
            if _is_over(now[0]):
                return now[1]
            raise _busy(bucket, now[0])
    return first[1]


def _look(bucket: Bucket) -> tuple[Holder, str] | None:
    found = bucket.get(LOCK_KEY)
    if found is None:
        return None
    data, etag = found
    return parse_holder(data) or {}, etag


def _ourselves(name: str, beat: int) -> Holder:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        "boot": _boot(),
        "name": name,
        "beat": beat,
    }


def _is_over(holder: Holder) -> bool:
    """Given back; or known for sure to be of this host and dead."""
    if holder.get("released"):
        return True
    if holder.get("host") != socket.gethostname() or not _boot():
        return False
    if holder.get("boot") != _boot():
        return True
    pid = holder.get("pid")
    return isinstance(pid, int) and _started(pid) != holder.get("started")


def _started(pid: int) -> str:
    """When a process of this host started, as the kernel counts it; empty when there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def _boot() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def _busy(bucket: Bucket, holder: Holder) -> ArchiveBusy:
    who = f"process {holder.get('pid', '?')} on {holder.get('host', 'another host')}"
    return ArchiveBusy(f"{bucket}: {who} is writing to this archive", hint="wait for it to end")
