"""The file system under a path: what it is, and one sync for all of it."""

import ctypes
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

from archiver.errors import StoreError
from archiver.stores import disk
from archiver.stores.commit import Unsynced

# Where syncfs(2) is known to wait for the disk and to tell of writes that failed.
_SYNCS_AS_A_WHOLE = frozenset({"ext4", "xfs", "tmpfs"})
# From this release on, it tells of any that failed since the descriptor was opened (syncfs(2)).
_SINCE_LINUX = (5, 8)
# Things to sync from which on that is sooner done than one by one; and how long it may take for
# each (seconds) before others' writes must be what it waits for.
_MANY = 16
_PATIENCE = 0.02
# More small files at once gained nothing, and took more descriptors (benchmarks/README.md).
_TOGETHER = 32


def kind_of(path: Path) -> str | None:
    """The kind of the file system that ``path`` is on, as ``ext4`` or ``nfs4``, by /proc/mounts."""
    try:
        mounts = Path("/proc/mounts").read_bytes().split(b"\n")
    except OSError:
        return None
    # A mount that is missed here would pass for a part of the file system it is mounted in.
    kinds = {
        _unescaped(line.split(b" ")[1]): line.split(b" ")[2].decode() for line in mounts if line
    }
    real = path.resolve()
    return next((kinds[str(at)] for at in (real, *real.parents) if str(at) in kinds), None)


def _unescaped(name: bytes) -> str:
    """A path as /proc/mounts has it: blanks, backslashes and others are octal numbers there."""
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


class Sync(Protocol):
    """A way to make durable what was written; ``commit.drive`` calls it."""

    @property
    def together(self) -> int:
        """How many small files are best synced at once."""
        ...

    def __call__(self, unsynced: Sequence[Unsynced]) -> None: ...


class SyncEach:
    """One thing after the other."""

    together: Final = 1

    def __call__(self, unsynced: Sequence[Unsynced]) -> None:
        for one in unsynced:
            one.sync()


class SyncWhole:
    """All that was written below ``root`` since its ``descriptor`` was opened, in one go.

    A writer that fills this file system beside us is waited for, too: once that took long, what
    there is to sync is synced one by one.
    """

    together: Final = _TOGETHER

    def __init__(self, root: Path, descriptor: int) -> None:
        self._root: Final = root
        self._descriptor: Final = descriptor
        self._each: Final = SyncEach()
        self._alone = True
        # The kernel tells a descriptor of a failure once: of two threads that wrote, one.
        self._syncing: Final = threading.Lock()
        self._failed: StoreError | None = None

    def __call__(self, unsynced: Sequence[Unsynced]) -> None:
        if len(unsynced) < _MANY or not self._alone:
            self._each(unsynced)
            return
        with self._syncing:
            if self._failed is not None:
                raise self._failed
            began = time.monotonic()
            try:
                with disk.store_errors(self._root):
                    _syncfs(self._descriptor)
            except StoreError as error:
                self._failed = error
                raise
            self._alone = time.monotonic() - began < _PATIENCE * len(unsynced)


@contextmanager
def syncing(root: Path) -> Iterator[Sync]:
    """The best way for what is written below ``root`` while in this context."""
    if not syncs_as_a_whole(root):
        yield SyncEach()
        return
    with disk.store_errors(root):
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield SyncWhole(root, descriptor)
    finally:
        os.close(descriptor)


def _syncfs(descriptor: int) -> None:
    """syncfs(2), which the standard library lacks; lets go of the interpreter lock."""
    if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
