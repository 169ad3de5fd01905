"""One writer per directory, by a lock that a crash does not leave behind.

The kernel's flock is let go when its process dies. Some network file systems grant it to
everybody (huggingface_hub #4228), so the holder also writes who it is and keeps changing the
file: somebody who gets the flock but finds another host's name watches for a change first. No
clocks are compared.
"""

import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from archiver.errors import ArchiveBusy
from archiver.stores.disk import FILE_MODE, store_errors, write_all

BEAT_SECONDS = 5.0
_MOST_BYTES = 4096


@contextmanager
def hold(path: Path, beat: float = BEAT_SECONDS) -> Generator[None, None, None]:
    """Hold the lock at ``path``; blocks, up to two and a half beats. Raises ArchiveBusy."""
    with store_errors(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, FILE_MODE)
    try:
        _take(descriptor, path, beat)
        stop = threading.Event()
        beating = threading.Thread(target=_beat, args=(descriptor, beat, stop), daemon=True)
        beating.start()
        try:
            yield
        finally:
            stop.set()
            beating.join()
            with store_errors(path):
                os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _take(descriptor: int, path: Path, beat: float) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _busy(path, _holder(descriptor)) from None
    except OSError as error:
        # A file system without locks: the watch below is all there is.
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
    before = _holder(descriptor)
    if before and before.get("boot") != _boot():
        time.sleep(2.5 * beat)
        if _holder(descriptor) != before:
            raise _busy(path, before)
    with store_errors(path):
        _write(descriptor, 0)


def _busy(path: Path, holder: dict[str, Any]) -> ArchiveBusy:
    who = f"process {holder['pid']} on {holder['host']}" if holder else "another process"
    return ArchiveBusy(
        f"{path.parent}: {who} is writing to this archive", hint="wait until it is done"
    )


def _holder(descriptor: int) -> dict[str, Any]:
    try:
        holder = json.loads(os.pread(descriptor, _MOST_BYTES, 0))
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) and {"pid", "host"} <= holder.keys() else {}


def _beat(descriptor: int, beat: float, stop: threading.Event) -> None:
    count = 0
    while not stop.wait(beat):
        count += 1
        try:
            _write(descriptor, count)
        except OSError:
            # A full disk shows where data is written; the flock holds all the same.
            continue


def _write(descriptor: int, count: int) -> None:
    holder = {"host": socket.gethostname(), "pid": os.getpid(), "boot": _boot(), "beat": count}
    text = json.dumps(holder).encode()
    write_all(descriptor, text, 0)
    os.ftruncate(descriptor, len(text))


def _boot() -> str:
    """What tells this running kernel from all others."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return socket.gethostname()
