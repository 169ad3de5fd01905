"""Makes many files and folders durable with one call, where the file system allows it."""

import ctypes
import math
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from archiver.errors import StoreError
from archiver.stores.commit import MANY, Sync, Unsynced, sync_each
from archiver.stores.local import disk
from archiver.stores.local.mounts import file_system_kind

# Where syncfs(2) is known to wait for the disk and to report writes that failed.
_RELIABLE_SYNCFS = frozenset({"ext4", "xfs", "tmpfs"})
# syncfs(2) reports data that could not be written since the descriptor was opened from 5.8 on, and
# names that could not (the result of sync_fs) only since 5.17.
_SINCE_LINUX = (5, 17)
# syncfs waits for the writes of other processes, too. When a call takes longer than this for each
# file, they are many, and files are synced one by one for a while: at least 30 s, and ten times as
# long as the call took.
_SECONDS_PER_FILE = 0.02
_PAUSE_SECONDS = 30.0
_PAUSE_FACTOR = 10


def is_syncfs_reliable(path: Path) -> bool:
    """Whether one call makes everything durable on the file system that ``path`` is on."""
    system = os.uname()
    release = re.match(r"(\d+)\.(\d+)", system.release)
    return (
        system.sysname == "Linux"
        and release is not None
        and (int(release[1]), int(release[2])) >= _SINCE_LINUX
        and file_system_kind(path) in _RELIABLE_SYNCFS
    )


class FileSystemSync:
    """Syncs many files at once by syncing their file system, and few of them one by one.

    ``descriptor`` is of the folder ``root``, and was opened before the files were written.
    """

    def __init__(self, root: Path, descriptor: int) -> None:
        self._root: Final = root
        self._descriptor: Final = descriptor
        self._not_before = -math.inf
        # The kernel reports a failure once to a descriptor: to one of two threads that wrote.
        self._syncing: Final = threading.Lock()
        self._failed: StoreError | None = None

    def __call__(self, unsynced: Sequence[Unsynced]) -> None:
        if len(unsynced) < MANY or time.monotonic() < self._not_before:
            sync_each(unsynced)
            return
        with self._syncing:
            if self._failed is not None:
                raise self._failed
            started = time.monotonic()
            try:
                with disk.store_errors(self._root):
                    _sync_file_system(self._descriptor, self._root)
            except StoreError as error:
                self._failed = error
                raise
            ended = time.monotonic()
            took = ended - started
            if took > _SECONDS_PER_FILE * len(unsynced):
                self._not_before = ended + max(_PAUSE_SECONDS, _PAUSE_FACTOR * took)


def sync_file_system(folder: Path) -> None:
    """Make everything durable that was written to the file system of ``folder``. Raises
    StoreError."""
    with disk.store_errors(folder):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _sync_file_system(descriptor, folder)
        finally:
            os.close(descriptor)


@contextmanager
def fastest_sync(folder: Path) -> Iterator[Sync]:
    """The fastest reliable sync for what is written to the file system of ``folder`` while in this
    context."""
    if not is_syncfs_reliable(folder):
        yield sync_each
        return
    with disk.store_errors(folder):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield FileSystemSync(folder, descriptor)
    finally:
        os.close(descriptor)


def _sync_file_system(descriptor: int, folder: Path) -> None:
    """Sync the file system of the open ``folder``. Raises OSError, StoreError."""
    _syncfs(descriptor)
    # When an error has stopped an ext4 (errors=remount-ro), syncfs reported success until long
    # after 5.17 (sync_filesystem, ext4_sync_fs). fsync reports it, in a tenth of the time.
    disk.sync_folder(descriptor, folder)


def _syncfs(descriptor: int) -> None:
    """syncfs(2), which the standard library lacks. Releases the interpreter lock. Raises
    OSError."""
    if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
