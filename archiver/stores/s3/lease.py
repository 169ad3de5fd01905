"""One writer per archive in a bucket, by an object that its holder keeps changing.

No clocks are compared: who finds a lock watches whether it changes. On the host that left it, a
holder that is dead is known at once. Where the store has conditional puts they decide who gets
it; elsewhere two that come at the very same moment may both go on, and do the same work twice.
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

from archiver.errors import ArchiveBusy, StoreError
from archiver.stores.s3.bucket import Bucket, Garbled, Refused
from archiver.stores.s3.dialect import Dialect

LOCK_KEY = ".staging/lock"
BEAT_SECONDS = 10.0
_LOOK_SECONDS = 2.0
# How long two that write at the same moment wait to see who came last.
_SETTLE_SECONDS = 0.2
_MOST_SENDINGS = 4
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Lease:
    """A lock that is held; its beat runs in a thread."""

    def __init__(self, bucket: Bucket, dialect: Dialect) -> None:
        self._bucket: Final = bucket
        self._dialect: Final = dialect
        self._name: Final = secrets.token_hex(8)
        self._etag: str | None = None
        self._beats = 0
        self._stop: Final = threading.Event()
        self._lost: ArchiveBusy | None = None

    def check(self) -> None:
        """Raises ArchiveBusy when somebody else has taken the lock meanwhile."""
        if self._lost is not None:
            raise self._lost

    def take(self, seen: str | None) -> bool:
        """Write our name over what was seen (its ETag, None for nothing); whether that held."""
        self._beats += 1
        holder = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": _started(os.getpid()),
            "boot": _boot(),
            "name": self._name,
            "beat": self._beats,
        }
        data = json.dumps(holder).encode()
        given = self._dialect.checksum(data)
        if self._dialect.conditions:
            given |= {"IfMatch": seen} if seen else {"IfNoneMatch": "*"}
        for _ in range(_MOST_SENDINGS):
            # Refused, it may be ours all the same: the answer to an earlier try was lost.
            with suppress(Refused, Garbled):
                self._bucket.put(LOCK_KEY, data, **given)
            if not self._dialect.conditions:
                time.sleep(_SETTLE_SECONDS)
            found = _look(self._bucket)
            if found is not None and found[0] == holder:
                self._etag = found[1]
                return True
            if found is not None and found[0]:
                return False
        return False

    def keep_beating(self, beat: float) -> None:
        while not self._stop.wait(beat):
            try:
                if not self.take(self._etag):
                    found = _look(self._bucket)
                    self._lost = _busy(self._bucket, found[0] if found else {})
                    return
            except StoreError:
                continue  # the store does not answer: those who need it will say so

    def stop(self) -> None:
        self._stop.set()

    def leave(self) -> None:
        """Take the lock away, if it is still ours."""
        found = _look(self._bucket)
        if found is not None and found[0].get("name") == self._name:
            self._bucket.delete(LOCK_KEY)


@contextmanager
def hold(
    bucket: Bucket, dialect: Dialect, beat: float = BEAT_SECONDS
) -> Generator[Lease, None, None]:
    """Be the only writer. Blocks for up to three beats to see whether a holder is alive.

    Raises ArchiveBusy, StoreError.
    """
    lease = Lease(bucket, dialect)
    seen = _wait_for_silence(bucket, beat)
    if not lease.take(seen):
        found = _look(bucket)
        raise _busy(bucket, found[0] if found else {})
    beating = threading.Thread(target=lease.keep_beating, args=(beat,), daemon=True)
    beating.start()
    try:
        yield lease
    finally:
        lease.stop()
        beating.join()
        with suppress(StoreError):
            lease.leave()


def _wait_for_silence(bucket: Bucket, beat: float) -> str | None:
    """The ETag of a lock whose holder is gone; None when there is no lock."""
    first = _look(bucket)
    if first is None:
        return None
    if _is_dead(first[0]):
        return first[1]
    until = time.monotonic() + 3 * beat
    while time.monotonic() < until:
        time.sleep(min(_LOOK_SECONDS, beat / 2))
        now = _look(bucket)
        if now is None:
            return None
        if now[0] != first[0]:
            raise _busy(bucket, now[0])
    return first[1]


def _look(bucket: Bucket) -> tuple[dict[str, Any], str] | None:
    found = bucket.get(LOCK_KEY)
    if found is None:
        return None
    data, etag = found
    try:
        holder = json.loads(data)
    except ValueError:
        holder = None
    return (holder if isinstance(holder, dict) else {}), etag


def _is_dead(holder: dict[str, Any]) -> bool:
    """Known for sure: of this host since it started, and no such process runs."""
    if holder.get("host") != socket.gethostname() or not _boot():
        return False
    if holder.get("boot") != _boot():
        return True
    return bool(_started(int(holder.get("pid") or 0)) != holder.get("started"))


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


def _busy(bucket: Bucket, holder: dict[str, Any]) -> ArchiveBusy:
    who = f"process {holder.get('pid', '?')} on {holder.get('host', 'another host')}"
    return ArchiveBusy(f"{bucket}: {who} is writing to this archive", hint="wait for it to end")
