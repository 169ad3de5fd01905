"""The temporary file beside the target, ``.<name>.part``, which only one process may write to."""

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from archiver.errors import NoDocument, StoreError, UsageError
from archiver.stores.local import disk, reading

_SUFFIX: Final = ".part"


class OpenFile:
    """An open file. All methods block, and raise StoreError."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path: Final = path
        self._descriptor: Final = descriptor
        self.size: Final = os.fstat(descriptor).st_size  # when it was opened

    def read(self, offset: int, block: memoryview) -> int:
        """Read into ``block`` from ``offset``; return the number of bytes."""
        with disk.store_errors(self._path):
            return reading.read_all(self._descriptor, block, offset)


class PartFile(OpenFile):
    """A locked, open ``.part`` file."""

    def __init__(self, target: Path, path: Path, descriptor: int) -> None:
        super().__init__(path, descriptor)
        self._target: Final = target

    def truncate(self) -> None:
        """Remove what an earlier run wrote."""
        with disk.store_errors(self._path):
            os.ftruncate(self._descriptor, 0)

    def write(self, data: memoryview, offset: int) -> None:
        """Write all of ``data`` at ``offset``."""
        with disk.store_errors(self._path):
            disk.write_all(self._descriptor, data, offset)

    def sync(self) -> None:
        """Make the data durable."""
        disk.sync_file(self._descriptor, self._path)

    def commit(self) -> None:
        """Rename it to the target, durably. Raises UsageError if the target exists by now."""
        with disk.store_errors(self._path):
            if not _is_name_of(self._path, self._descriptor):
                raise StoreError(
                    f"{self._path}: removed or replaced by another process during the copy",
                    hint="find out what else writes to that directory, then run it again",
                )
            if os.path.lexists(self._target):
                raise already_exists(self._target)
        disk.rename(self._path, self._target)
        disk.sync_directory(self._target.parent)

    def discard(self) -> None:
        """Remove it, unless another file has its name by now."""
        with disk.store_errors(self._path):
            if _is_name_of(self._path, self._descriptor):
                self._path.unlink()


@contextmanager
def open_part(target: Path) -> Generator[PartFile | None, None, None]:
    """Open and lock the ``.part`` file of ``target``; None if ``target`` exists.

    Raises StoreError, also when another process is writing it.
    """
    disk.make_durable_directories(target.parent)
    path = _path(target)
    descriptor = None if os.path.lexists(target) else _locked(path)
    if descriptor is None:
        yield None
        return
    try:
        part = PartFile(target, path, descriptor)
        if os.path.lexists(target):
            # Another process finished its copy before we got the lock.
            part.discard()
            yield None
            return
        yield part
    finally:
        os.close(descriptor)


def part_size(target: Path) -> int:
    """Return the size of the target's ``.part`` file, 0 if there is none. Blocks."""
    with disk.store_errors(target):
        try:
            return _path(target).lstat().st_size
        except FileNotFoundError:
            return 0


def write_new(path: Path, data: bytes) -> None:
    """Write a small file durably; a file that exists must have the same content. Blocks.

    Raises UsageError, StoreError.
    """
    with disk.store_errors(path):
        try:
            existing = reading.read_document(path, len(data))
        except NoDocument:
            raise already_exists(path) from None
    if existing not in (None, data):
        raise already_exists(path)
    overwrite(path, data)


def overwrite(path: Path, data: bytes) -> None:
    """Write a small file durably and atomically, replacing what is there. Blocks.

    Raises StoreError.
    """
    disk.put_file(path, data, _path(path))


def already_exists(path: Path) -> UsageError:
    """The error for a file with other content under a name that we need."""
    return UsageError(
        f"{path}: exists with different content; not overwritten",
        hint="move it away, or choose another directory",
    )


def _path(target: Path) -> Path:
    return target.with_name(f".{target.name}{_SUFFIX}")


def _locked(path: Path) -> int:
    """Open and lock ``path``, and create it if needed. Raises StoreError.

    The lock is on the inode. Between our open and our lock, another process may have renamed the
    file to its final name, where nobody may write to it any more. So check after locking that the
    path still refers to the same file.
    """
    while True:
        with disk.store_errors(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, disk.FILE_MODE)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_name_of(path, descriptor):
                    return descriptor
            except BlockingIOError:
                os.close(descriptor)
                raise StoreError(f"{path}: another process is writing it") from None
            except BaseException:
                os.close(descriptor)
                raise
        os.close(descriptor)


def _is_name_of(path: Path, descriptor: int) -> bool:
    """Whether ``path`` refers to the open file. Raises OSError."""
    try:
        named = path.lstat()
    except FileNotFoundError:
        return False
    return os.path.samestat(named, os.fstat(descriptor))
