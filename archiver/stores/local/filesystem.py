"""The file system under a path: what it is, and one sync for all of it."""

import ctypes
import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from archiver.errors import StoreError
from archiver.stores.commit import Unsynced
from archiver.stores.local import disk

# Where syncfs(2) is known to wait for the disk and to tell of writes that failed.
_SYNCS_AS_A_WHOLE = frozenset({"ext4", "xfs", "tmpfs"})
# It tells of data that could not be written since the descriptor was opened from 5.8 on
# (syncfs(2)), and of names that could not (what sync_fs returns) only since 5.17.
_SINCE_LINUX = (5, 17)
# A way to make durable what was written, as ``commit.drive`` calls it.
Sync = Callable[[Sequence[Unsynced]], None]
# Things to sync from which on that is sooner done than one by one; how long it may take for each
# (seconds) before others' writes must be what it waits for; and for how long it is left then, at
# least, and in times of what it took.
_MANY = 16
_PATIENCE = 0.02
_PAUSE_SECONDS = 30.0
_PAUSE_TIMES = 10
# Threads that sync things one by one, when they are many: the disk takes some at a time.
_THREADS = 8


def kind_of(path: Path) -> str | None:
    """The kind of the file system that ``path`` is on, as ``ext4`` or ``nfs4``.

    By its device in /proc/self/mountinfo; by its name, where a device is not listed (btrfs).
    """
    real = path.resolve()
    upwards = (real, *real.parents)
    try:
        mounts = Path("/proc/self/mountinfo").read_bytes().split(b"\n")
        device = next(at for at in upwards if at.exists()).stat().st_dev
    except OSError:
        return None
    wanted = b"%d:%d" % (os.major(device), os.minor(device))
    kinds: dict[str, str] = {}
    for fields in (line.split(b" ") for line in mounts if line):
        kind = fields[fields.index(b"-") + 1].decode()
        if fields[2] == wanted:
            return kind
        # A mount that is missed here would pass for a part of the file system it is mounted in.
        kinds[unescaped(fields[4])] = kind
    return next((kinds[str(at)] for at in upwards if str(at) in kinds), None)


def unescaped(name: bytes) -> str:
    """A path as mountinfo and fstab have it: blanks and others are octal numbers there."""
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), name))


def syncs_as_a_whole(path: Path) -> bool:
    """Whether one call can be trusted to make all of this file system durable."""
    system = os.uname()
    release = re.match(r"(\d+)\.(\d+)", system.release)
    return (
        system.sysname == "Linux"
        and release is not None
        and (int(release[1]), int(release[2])) >= _SINCE_LINUX
        and kind_of(path) in _SYNCS_AS_A_WHOLE
    )


def sync_each(unsynced: Sequence[Unsynced]) -> None:
    """One by one; when they are many, some at a time."""
    if len(unsynced) < _MANY:
        for one in unsynced:
            one.sync()
        return
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="sync") as threads:
        for _ in threads.map(lambda one: one.sync(), unsynced):
            pass  # raises what it raised


class SyncWhole:
    """All of the file system of ``descriptor``, which is open since before it was written to.

    A writer that fills this file system beside us is waited for, too: when that took long, what
    there is to sync is synced one by one for a while.
    """

    def __init__(self, root: Path, descriptor: int) -> None:
        self._root: Final = root
        self._descriptor: Final = descriptor
        self._not_before = -math.inf
        # The kernel tells a descriptor of a failure once: of two threads that wrote, one.
        self._syncing: Final = threading.Lock()
        self._failed: StoreError | None = None

    def __call__(self, unsynced: Sequence[Unsynced]) -> None:
        if len(unsynced) < _MANY or time.monotonic() < self._not_before:
            sync_each(unsynced)
            return
        with self._syncing:
            if self._failed is not None:
                raise self._failed
            began = time.monotonic()
            try:
                with disk.store_errors(self._root):
                    _sync_whole(self._descriptor, self._root)
            except StoreError as error:
                self._failed = error
                raise
            ended = time.monotonic()
            took = ended - began
            if took > _PATIENCE * len(unsynced):
                self._not_before = ended + max(_PAUSE_SECONDS, _PAUSE_TIMES * took)


def sync_file_system(folder: Path) -> None:
    """Make all durable that was written to the file system of ``folder``. Raises StoreError."""
    with disk.store_errors(folder):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _sync_whole(descriptor, folder)
        finally:
            os.close(descriptor)


@contextmanager
def syncing(folder: Path) -> Iterator[Sync]:
    """The best way for what is written on the file system of ``folder`` while in this context."""
    if not syncs_as_a_whole(folder):
        yield sync_each
        return
    with disk.store_errors(folder):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield SyncWhole(folder, descriptor)
    finally:
        os.close(descriptor)


def _sync_whole(descriptor: int, folder: Path) -> None:
    """``descriptor`` is of ``folder``. Raises OSError, StoreError."""
    _syncfs(descriptor)
    # Where an error had stopped an ext4 (errors=remount-ro), syncfs said for long after 5.17 that
    # there is nothing to sync (sync_filesystem, ext4_sync_fs). fsync tells; a tenth of the time.
    disk.sync_folder(descriptor, folder)


def _syncfs(descriptor: int) -> None:
    """syncfs(2), which the standard library lacks; lets go of the interpreter lock. Raises
    OSError."""
    if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
