"""Locks in a directory, which a crash does not leave behind: one for the only writer of each
instance, and one for what concerns the whole archive (:mod:`archiver.stores.scope`).

The kernel releases a flock when its process dies. Some network file systems grant it to everybody
(huggingface_hub #4228) or not at all, so the holder also writes who it is and keeps changing the
file. Where flock is not reliable, another process first watches for a change, then writes its own
name, and checks after a while that it still stands there. No clocks are compared.

A lock belongs to a file, and others find it by its path. Once the path names another file, or none,
two processes may each hold what they take for the lock. So the path is checked after every flock,
and while the lock is held. For the same reason the file stays, empty, when its lock is released:
``.locks`` has one for each instance that was ever written. In a copy of the archive these lock
nobody out: a flock is not copied, and a name in the file counts only while its holder may be alive.
"""

import errno
import fcntl
import json
import os
import secrets
import stat
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from archiver.errors import ArchiveBusy, LockLost, StoreError
from archiver.retry import RETRIES
from archiver.stores.heartbeat import beating
from archiver.stores.holder import (
    Holder,
    busy,
    is_dead,
    is_lent,
    lost,
    ourselves,
    parse,
    ran_under_this_kernel,
)
from archiver.stores.loans import AFTER_DEATH_SECONDS, LOAN_SECONDS, Loan, boot_clock
from archiver.stores.local.disk import FILE_MODE, store_errors, write_all
from archiver.stores.local.layout import LOCK, LOCKS
from archiver.stores.local.mounts import file_system_kind
from archiver.stores.scope import WHOLE

BEAT_SECONDS = RETRIES.lock_beat.wait
_LOOK_SECONDS = 1.0
# How often the file may be replaced between its opening and its lock.
_MAX_OPENINGS = RETRIES.lock_opening.attempts
_MAX_BYTES = 4096
_LOCAL_FILE_SYSTEMS = frozenset(
    ("bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "ramfs", "tmpfs", "xfs", "zfs")
)


def lock_path(root: Path, scope: str) -> Path:
    """The lock file of a scope of the archive in ``root``."""
    return root / LOCKS / scope if scope else root / LOCK


class Held:
    """A lock that is held.

    ``is_new``: there was no lock file. ``was_left``: its last holder did not release it, so what
    that wrote can be seen but may not be durable. ``is_certain``: the kernel grants the lock to one
    process only. ``is_brief``: it is held for a moment only. ``is_lent``: other processes may write
    under it.
    """

    is_new = False
    was_left = True
    is_certain = False
    is_brief = False
    is_lent = False

    def __init__(self, descriptor: int, path: Path) -> None:
        self.path: Final = path
        self._beats = 0
        self._beaten_at = boot_clock()
        self._descriptor: Final = descriptor
        self._status: Final = os.fstat(descriptor)
        self._name: Final = secrets.token_hex(8)
        self._lost: LockLost | None = None
        self._writing: Final = threading.Lock()

    def check(self) -> None:
        """Raises LockLost when this process may no longer be the only writer. Blocks."""
        self._look()
        if self._lost is None and not self.is_certain and not self.is_ours():
            self._lost = lost(*_guarded(self.path), self.holder())
        if self._lost is not None:
            raise self._lost

    def loan(self) -> Loan:
        """What is lent to workers. Others take the lock of a holder that stopped after four beats
        without a change, where the kernel does not tell. Raises as :meth:`check` does."""
        self.check()
        age = boot_clock() - self._beaten_at
        left = LOAN_SECONDS if self.is_certain else 3 * BEAT_SECONDS - age
        return Loan(self._name, min(LOAN_SECONDS, left))

    def text(self) -> bytes:
        """What is in the file. Raises StoreError."""
        return _text(self._descriptor, self.path)

    def holder(self) -> Holder:
        """Who wrote the file; no fields where that cannot be read. Raises StoreError."""
        return _holder(self._descriptor, self.path)

    def busy(self) -> ArchiveBusy:
        """The error that names who wrote the file. Raises StoreError."""
        return busy(*_guarded(self.path), self.holder())

    def is_ours(self) -> bool:
        """Whether our name is in the file. Raises StoreError."""
        with self._writing:
            return self.holder().get("name") == self._name

    def release(self) -> None:
        """Empty the file, unless somebody else's name is in it. Raises StoreError."""
        with store_errors(self.path):
            if self.is_ours():
                os.ftruncate(self._descriptor, 0)

    def write(self, beat: int) -> None:
        began = boot_clock()
        ours = ourselves(self._name, beat, briefly=self.is_brief, lent=self.is_lent)
        text = json.dumps(ours).encode()
        with self._writing:  # nobody may read a half-written name
            write_all(self._descriptor, text, 0)
            os.ftruncate(self._descriptor, len(text))
        self._beaten_at = began

    @contextmanager
    def unlocked(self) -> Generator[None, None, None]:
        """Let others lock the file while its last holder is watched: one that is watched is not
        known to be writing. Raises ArchiveBusy when another process has had the lock meanwhile, and
        did not release it."""
        before = self.text()
        with suppress(OSError):  # where the file system has no locks, there is none
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        yield
        with store_errors(self.path):
            _flock(self._descriptor, self.path)
        self._look()
        if self._lost is not None:
            raise self._lost
        if self.text() not in (before, b""):
            raise self.busy()

    def beat(self, every: float) -> float | None:
        """Change the file, which shows others that its holder is alive. Returns the seconds until
        the next beat, which are ``every``; None once the lock is lost."""
        self._beats += 1
        # A full disk is reported by those who write data. The lock is still held.
        with suppress(OSError, StoreError):
            self._look()
            if not self.is_ours():
                self._lost = lost(*_guarded(self.path), self.holder())
            elif self._lost is None:
                self.write(self._beats)
        return every if self._lost is None else None

    def _look(self) -> None:
        """Check that the path still names our file. If not, another process may hold the lock."""
        if self._lost is None and not _is_named(self._status, self.path):
            self._lost = LockLost(
                f"{self.path}: this lock was removed or replaced while this process held it: "
                "another process may be writing to this archive",
                hint="find out what removed it or moved the directory, then run the command again",
            )


@contextmanager
def hold(
    path: Path,
    beat: float = BEAT_SECONDS,
    stop: threading.Event | None = None,
    *,
    watch: bool = True,
    briefly: bool = False,
    lent: bool = False,
) -> Generator[Held, None, None]:
    """Hold the lock at ``path``, for a moment only if ``briefly``. Raises ArchiveBusy, StoreError.

    Blocks for up to four beats when the last holder ran on another machine and did not release it:
    that may be alive, and without ``watch`` it counts as alive. So do its workers, if it is dead
    and had lent it, for some seconds. Blocks for one and a half beats
    where flock is not reliable. Once ``stop`` is set it raises instead.
    """
    stop = stop or threading.Event()
    is_new = not os.path.lexists(path)
    descriptor, granted = _opened(path)
    try:
        held = Held(descriptor, path)
        held.is_new, held.was_left = is_new, is_new or os.fstat(descriptor).st_size > 0
        held.is_certain, held.is_brief = granted and flock_is_reliable(path), briefly
        held.is_lent = lent
        try:
            _take(held, beat, stop, watch=watch)
            # Who watches has seen no change since the name was written.
            with beating(lambda: held.beat(beat), beat if held.is_certain else 0.0):
                yield held
        except BaseException:
            with suppress(OSError, StoreError):  # what is raised here already tells more
                held.release()
            raise
        held.release()
    finally:
        os.close(descriptor)


def _opened(path: Path) -> tuple[int, bool]:
    """A descriptor of the locked file at ``path``, and whether the kernel granted the lock."""
    for _ in range(_MAX_OPENINGS):
        with store_errors(path):
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(path, flags, FILE_MODE)
        try:
            _check_regular(descriptor, path)
            with store_errors(path):
                granted = _flock(descriptor, path)
            if _is_named(os.fstat(descriptor), path):
                return descriptor, granted
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # it was removed before the lock: others lock a new file
    raise ArchiveBusy(f"{path}: something keeps removing this file", hint="find out what does")


def _check_regular(descriptor: int, path: Path) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise StoreError(f"{path}: not a regular file", hint="remove it")


def _is_named(ours: os.stat_result, path: Path) -> bool:
    """Whether ``path`` names the very file whose status is ``ours``. Raises StoreError."""
    with store_errors(path):
        try:
            return os.path.samestat(os.lstat(path), ours)
        except (FileNotFoundError, NotADirectoryError):
            return False


def _take(held: Held, beat: float, stop: threading.Event, *, watch: bool) -> None:
    """Write our name into the file once no other holder may be alive. Raises ArchiveBusy,
    StoreError."""
    before = held.holder()
    # Where the kernel grants the lock to everybody, an unreadable name may be a live holder's.
    is_free = not before if held.is_certain else not held.text()
    is_over = is_free or is_dead(before) or (held.is_certain and ran_under_this_kernel(before))
    if not is_over:
        if not watch:
            raise held.busy()
        # Longer than a new holder takes to check its name and to beat for the first time.
        with held.unlocked():
            _wait_until_gone(held, 4 * beat, stop)
    elif is_lent(before) and (not watch or stop.wait(AFTER_DEATH_SECONDS)):
        raise held.busy()
    with store_errors(held.path):
        held.write(0)
    # Another process may have written its name at the same time: one of them stays.
    if not held.is_certain and (stop.wait(1.5 * beat) or not held.is_ours()):
        raise held.busy()


def _wait_until_gone(held: Held, seconds: float, stop: threading.Event) -> None:
    """Watch the file for so many seconds. Raises ArchiveBusy when it changes."""
    before = held.text()
    looks = max(4, round(seconds / _LOOK_SECONDS))
    for _ in range(looks):
        if stop.wait(seconds / looks):
            raise held.busy()
        now = held.text()
        if not now:
            return  # it was released
        if now != before:
            raise held.busy()


def _flock(descriptor: int, path: Path) -> bool:
    """Lock the file; False where the file system has no locks. Raises ArchiveBusy, OSError."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise busy(*_guarded(path), _holder(descriptor, path)) from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
        return False
    return True


def name_in(path: Path) -> object:
    """The name that a holder wrote into the lock at ``path``; None where nobody did. Raises
    StoreError."""
    with store_errors(path):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            return None
    try:
        return _holder(descriptor, path).get("name")
    finally:
        os.close(descriptor)


def flock_is_reliable(path: Path) -> bool:
    """Whether ``path`` is on a local file system."""
    return file_system_kind(path) in _LOCAL_FILE_SYSTEMS


def _guarded(path: Path) -> tuple[Path, str]:
    """The archive and the scope that the lock at ``path`` guards."""
    if path.parent.name == LOCKS:
        return path.parent.parent, path.name
    return path.parent, WHOLE


def _text(descriptor: int, path: Path) -> bytes:
    with store_errors(path):
        return os.pread(descriptor, _MAX_BYTES, 0)


def _holder(descriptor: int, path: Path) -> Holder:
    holder = parse(_text(descriptor, path))
    return holder if {"pid", "host"} <= holder.keys() else {}
