"""One writer per directory, by a lock that a crash does not leave behind.

The kernel's flock is let go when its process dies. Some network file systems grant it to
everybody (huggingface_hub #4228) or not at all, so the holder also writes who it is and keeps
changing the file. Where flock cannot be relied on, somebody who comes watches for a change first,
writes its name, and looks after a while whether that still stands. No clocks are compared.

A lock is of a file, and others look for it by its path: once that names another file, or none, two
may hold what each takes for the lock. So it is looked at after every flock, and while it is held.
"""

import errno
import fcntl
import json
import os
import secrets
import stat
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from archiver.errors import ArchiveBusy, StoreError
from archiver.retry import RETRIES
from archiver.stores.holder import (
    Holder,
    is_dead,
    ourselves,
    parse,
    ran_under_this_kernel,
    words,
)
from archiver.stores.local.disk import FILE_MODE, store_errors, write_all
from archiver.stores.local.filesystem import kind_of

BEAT_SECONDS = RETRIES.lock_beat.wait
_LOOK_SECONDS = 1.0
# Times that the file may be another one each time that we have it.
_MAX_OPENINGS = RETRIES.lock_opening.attempts
_MOST_BYTES = 4096
_LOCAL_FILE_SYSTEMS = frozenset(
    ("bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "ramfs", "tmpfs", "xfs", "zfs")
)


class Held:
    """A lock that is held. ``was_left``: nobody let go of it before, so that what the last writer
    did may not be durable, though it can be seen. ``is_certain``: the kernel's word is enough."""

    was_left = True
    is_certain = False

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor: Final = descriptor
        self._path: Final = path
        self._name: Final = secrets.token_hex(8)
        self._lost: ArchiveBusy | None = None
        self._writing: Final = threading.Lock()

    def check(self) -> None:
        """Raises ArchiveBusy when we may no longer be the only writer. Blocks."""
        self._look()
        if self._lost is None and not self.is_certain and not self.is_ours():
            self._lost = _busy(self._path, _holder(self._descriptor, self._path))
        if self._lost is not None:
            raise self._lost

    def is_ours(self) -> bool:
        with self._writing:
            return _holder(self._descriptor, self._path).get("name") == self._name

    def write(self, beat: int) -> None:
        text = json.dumps(ourselves(self._name, beat)).encode()
        with self._writing:  # half of it would be nobody's
            write_all(self._descriptor, text, 0)
            os.ftruncate(self._descriptor, len(text))

    def keep_beating(self, beat: float, stop: threading.Event) -> None:
        """Change the file until told to stop, or until it has another's name."""
        count = 0
        while self._lost is None and not stop.wait(beat):
            count += 1
            try:
                self._look()
                if not self.is_ours():
                    self._lost = _busy(self._path, _holder(self._descriptor, self._path))
                elif self._lost is None:
                    self.write(count)
            except (OSError, StoreError):
                # A full disk shows where data is written; the lock holds all the same.
                continue

    def _look(self) -> None:
        """See whether the path still names our file; once it did not, somebody may have come."""
        if self._lost is None and not _is_named(self._descriptor, self._path):
            self._lost = ArchiveBusy(
                f"{self._path}: this lock was removed, or replaced, while this process held it: "
                "another one may be writing to this archive",
                hint="find out what removes it, or moved the directory; then run the command again",
            )


@contextmanager
def hold(
    path: Path, beat: float = BEAT_SECONDS, stop: threading.Event | None = None
) -> Generator[Held, None, None]:
    """Hold the lock at ``path``. Raises ArchiveBusy.

    Blocks for up to six beats where flock cannot be relied on, or the last holder ran elsewhere and
    did not let go; less when ``stop`` is set: then it raises.
    """
    stop = stop or threading.Event()
    is_new = not os.path.lexists(path)
    descriptor, granted = _opened(path)
    try:
        held = Held(descriptor, path)
        held.was_left = is_new or os.fstat(descriptor).st_size > 0
        held.is_certain = granted and flock_is_reliable(path)
        _take(held, descriptor, path, beat, certain=held.is_certain, stop=stop)
        ended = threading.Event()
        beating = threading.Thread(target=held.keep_beating, args=(beat, ended), daemon=True)
        beating.start()
        try:
            yield held
        finally:
            ended.set()
            beating.join()
            with store_errors(path):
                if held.is_ours():
                    os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _opened(path: Path) -> tuple[int, bool]:
    """The file that ``path`` names while we have its lock, and whether the kernel granted that."""
    for _ in range(_MAX_OPENINGS):
        with store_errors(path):
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(path, flags, FILE_MODE)
        try:
            _check_regular(descriptor, path)
            with store_errors(path):
                granted = _flock(descriptor, path)
            if _is_named(descriptor, path):
                return descriptor, granted
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # it was removed between the two: that lock locks nobody out
    raise ArchiveBusy(f"{path}: something keeps removing this file", hint="find out what does")


def _check_regular(descriptor: int, path: Path) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise StoreError(f"{path}: this is no regular file", hint="remove it")


def _is_named(descriptor: int, path: Path) -> bool:
    """Whether ``path`` names this very file. Raises StoreError when that cannot be seen."""
    with store_errors(path):
        try:
            named = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        ours = os.fstat(descriptor)
    return (named.st_dev, named.st_ino) == (ours.st_dev, ours.st_ino)


def _take(
    held: Held, descriptor: int, path: Path, beat: float, *, certain: bool, stop: threading.Event
) -> None:
    before = _holder(descriptor, path)
    # What cannot be read may be a living holder's, where the kernel gives its lock to everybody.
    is_free = not _text(descriptor, path) if not certain else not before
    is_over = is_free or is_dead(before) or (certain and ran_under_this_kernel(before))
    if not is_over:
        # Longer than it takes a newcomer to look after its name and to beat for the first time.
        _see_that_it_is_gone(descriptor, path, 4 * beat, stop)
    with store_errors(path):
        held.write(0)
    if not certain:
        # Somebody who came at the same time has written, too: one name stands.
        if stop.wait(1.5 * beat):
            raise _busy(path, {})
        if not held.is_ours():
            raise _busy(path, _holder(descriptor, path))


def _see_that_it_is_gone(
    descriptor: int, path: Path, seconds: float, stop: threading.Event
) -> None:
    """Watch for a sign of life for so long. Raises ArchiveBusy at one."""
    before = _text(descriptor, path)
    looks = max(4, round(seconds / _LOOK_SECONDS))
    for _ in range(looks):
        if stop.wait(seconds / looks):
            raise _busy(path, _holder(descriptor, path))
        now = _text(descriptor, path)
        if not now:
            return  # it let go
        if now != before:
            raise _busy(path, _holder(descriptor, path))


def _flock(descriptor: int, path: Path) -> bool:
    """Whether the kernel granted its lock; False where it has none to give."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _busy(path, _holder(descriptor, path)) from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
        return False
    return True


def flock_is_reliable(path: Path) -> bool:
    """Whether ``path`` is on a file system of this machine's own."""
    return kind_of(path) in _LOCAL_FILE_SYSTEMS


def _busy(path: Path, holder: Holder) -> ArchiveBusy:
    return ArchiveBusy(
        f"{path.parent}: {words(holder)} is writing to this archive",
        hint="wait until it is done, as --lock-wait 30m does",
    )


def _text(descriptor: int, path: Path) -> bytes:
    with store_errors(path):
        return os.pread(descriptor, _MOST_BYTES, 0)


def _holder(descriptor: int, path: Path) -> Holder:
    holder = parse(_text(descriptor, path))
    return holder if {"pid", "host"} <= holder.keys() else {}
