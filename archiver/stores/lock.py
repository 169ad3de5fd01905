"""One writer per directory, by a lock that a crash does not leave behind.

The kernel's flock is let go when its process dies. Some network file systems grant it to
everybody (huggingface_hub #4228) or not at all, so the holder also writes who it is and keeps
changing the file. Where flock cannot be relied on, somebody who comes watches for a change first,
writes its name, and looks after a while whether that still stands. No clocks are compared.
"""

import errno
import fcntl
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from archiver.errors import ArchiveBusy
from archiver.stores.disk import FILE_MODE, store_errors, write_all
from archiver.stores.filesystem import kind_of
from archiver.stores.holder import parse_holder

BEAT_SECONDS = 5.0
_MOST_BYTES = 4096
_LOCAL_FILE_SYSTEMS = frozenset(
    ("bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "ramfs", "tmpfs", "xfs", "zfs")
)


class Held:
    """A lock that is held."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor: Final = descriptor
        self._path: Final = path
        self._name: Final = secrets.token_hex(8)
        self._taken_by: dict[str, Any] | None = None

    def check(self) -> None:
        """Raises ArchiveBusy when somebody else has taken the lock meanwhile."""
        if self._taken_by is not None:
            raise _busy(self._path, self._taken_by)

    def is_ours(self) -> bool:
        return _holder(self._descriptor).get("name") == self._name

    def write(self, beat: int) -> None:
        holder = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "boot": _boot(),
            "name": self._name,
            "beat": beat,
        }
        text = json.dumps(holder).encode()
        write_all(self._descriptor, text, 0)
        os.ftruncate(self._descriptor, len(text))

    def keep_beating(self, beat: float, stop: threading.Event) -> None:
        """Change the file until told to stop, or until it has another's name."""
        count = 0
        while not stop.wait(beat):
            count += 1
            try:
                if not self.is_ours():
                    self._taken_by = _holder(self._descriptor)
                    return
                self.write(count)
            except OSError:
                # A full disk shows where data is written; the lock holds all the same.
                continue


@contextmanager
def hold(path: Path, beat: float = BEAT_SECONDS) -> Generator[Held, None, None]:
    """Hold the lock at ``path``. Raises ArchiveBusy.

    Blocks for up to six beats where flock cannot be relied on, or another host held it last.
    """
    with store_errors(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, FILE_MODE)
    try:
        held = Held(descriptor, path)
        _take(held, descriptor, path, beat)
        stop = threading.Event()
        beating = threading.Thread(target=held.keep_beating, args=(beat, stop), daemon=True)
        beating.start()
        try:
            yield held
        finally:
            stop.set()
            beating.join()
            with store_errors(path):
                if held.is_ours():
                    os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _take(held: Held, descriptor: int, path: Path, beat: float) -> None:
    certain = _flock(descriptor, path) and flock_is_reliable(path)
    before = _holder(descriptor)
    if before and (not certain or before.get("boot") != _boot()):
        # Longer than it takes a newcomer to look after its name and to beat for the first time.
        time.sleep(4 * beat)
        if _holder(descriptor) != before:
            raise _busy(path, before)
    with store_errors(path):
        held.write(0)
    if not certain:
        # Somebody who came at the same time has written, too: one name stands.
        time.sleep(1.5 * beat)
        if not held.is_ours():
            raise _busy(path, _holder(descriptor))


def _flock(descriptor: int, path: Path) -> bool:
    """Whether the kernel granted its lock; False where it has none to give."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _busy(path, _holder(descriptor)) from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
        return False
    return True


def flock_is_reliable(path: Path) -> bool:
    """Whether ``path`` is on a file system of this machine's own."""
    return kind_of(path) in _LOCAL_FILE_SYSTEMS


def _busy(path: Path, holder: dict[str, Any]) -> ArchiveBusy:
    who = f"process {holder['pid']} on {holder['host']}" if holder else "another process"
    return ArchiveBusy(
        f"{path.parent}: {who} is writing to this archive", hint="wait until it is done"
    )


def _holder(descriptor: int) -> dict[str, Any]:
    holder = parse_holder(os.pread(descriptor, _MOST_BYTES, 0)) or {}
    return holder if {"pid", "host"} <= holder.keys() else {}


def _boot() -> str:
    """What tells this running kernel from all others."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return socket.gethostname()
