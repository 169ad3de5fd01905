"""Durable steps on a local file system, each complete: what returns has happened.

An OSError becomes a StoreError here, and only here.
"""

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from archiver.errors import NoSpace, ObjectMissing, StoreError

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700

_HINTS = {
    errno.EROFS: "mount it read-write, or name another place",
    errno.EEXIST: "a file is in the way where a directory should be",
    errno.ENOTDIR: "a file is in the way where a directory should be",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "the machine is out of open files",
    errno.EFBIG: "the file is larger than this file system or limit (ulimit -f) allows",
    errno.EIO: "the disk reports an error; check it before you trust it",
}


StrPath: TypeAlias = str | os.PathLike[str]


@contextmanager
def store_errors(path: StrPath) -> Iterator[None]:
    """Translate what the file system says of ``path``."""
    try:
        yield
    except OSError as error:
        what = f"{path}: {error.strerror or error}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(what, hint="free some space; what is fetched so far is kept") from error
        raise StoreError(what, hint=_HINTS.get(error.errno or 0)) from error


@dataclass(frozen=True, slots=True)
class UnsyncedFile:
    """An open file whose bytes are not durable yet."""

    path: StrPath
    descriptor: int

    def sync(self) -> None:
        """Make them durable."""
        with store_errors(self.path):
            os.fsync(self.descriptor)


@dataclass(frozen=True, slots=True)
class UnsyncedFolder:
    """A folder whose names are not durable yet."""

    path: StrPath

    def sync(self) -> None:
        """Make them durable."""
        with store_errors(self.path):
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def make_directories(path: StrPath) -> list[UnsyncedFolder]:
    """Create ``path`` and its missing parents; the folders in which that made names."""
    parent = os.path.dirname(path) or os.curdir
    above: list[UnsyncedFolder] = []
    with store_errors(path):
        try:
            made = _makes_directory(path)
        except (FileNotFoundError, NotADirectoryError):  # the folder that is at fault is named
            if parent == path:  # where we are is there no more
                raise
            above = make_directories(parent)
            made = _makes_directory(path)
    return [*above, UnsyncedFolder(parent)] if made else above


def _makes_directory(path: StrPath) -> bool:
    """Create a directory; whether it was not there. Raises OSError."""
    try:
        os.mkdir(path, DIRECTORY_MODE)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
        return False
    return True


def make_durable_directories(path: StrPath) -> None:
    """Create ``path`` and its missing parents, and make their names durable."""
    for folder in make_directories(path):
        folder.sync()


def sync_directory(path: StrPath) -> None:
    """Make the names in a directory durable."""
    UnsyncedFolder(path).sync()


def write_all(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of ``data`` at ``offset``, however many calls that takes. Raises OSError."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        if written == 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        view, offset = view[written:], offset + written


def read_all(descriptor: int, block: memoryview, offset: int) -> int:
    """Fill ``block`` from ``offset`` on; fewer bytes only at the end of the file."""
    filled = 0
    while filled < len(block):
        size = os.preadv(descriptor, [block[filled:]], offset + filled)
        if size == 0:
            break
        filled += size
    return filled


def put_file(path: StrPath, data: bytes, temporary: StrPath) -> None:
    """Write a small file, durable and whole or not at all: temporary, fsync, rename, fsync."""
    folder = os.path.dirname(path) or os.curdir
    make_durable_directories(folder)
    with written(temporary, data) as file:
        file.sync()
    rename(temporary, path)
    sync_directory(folder)


def open_file(path: StrPath) -> int:
    """A descriptor for reading a regular file. Raises StoreError, ObjectMissing."""
    with store_errors(path):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            raise ObjectMissing(f"{path}: there is no such object") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise StoreError(f"{path}: this is no regular file")
    return descriptor


def copy_file(path: StrPath, target: StrPath, temporary: StrPath) -> None:
    """A second file of the same bytes, durable when it has its name. Raises StoreError."""
    source = open_file(path)
    try:
        with store_errors(target), open(temporary, "wb") as copied:
            shutil.copyfileobj(open(source, "rb", closefd=False), copied)  # noqa: SIM115
            copied.flush()
            os.fsync(copied.fileno())
    finally:
        os.close(source)
    rename(temporary, target)


@contextmanager
def written(path: StrPath, data: bytes) -> Generator[UnsyncedFile, None, None]:
    """Write a small file; while in this context it can be synced. Its name is not durable yet."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with store_errors(path):
        try:
            descriptor = os.open(path, flags, FILE_MODE)
        except FileExistsError:
            # Not written to: it may have another name elsewhere (cp -al).
            os.unlink(path)
            descriptor = os.open(path, flags, FILE_MODE)
    try:
        with store_errors(path):
            write_all(descriptor, data, 0)
        yield UnsyncedFile(path, descriptor)
    finally:
        os.close(descriptor)


def rename(path: StrPath, target: StrPath) -> None:
    """Give a file its final name, in place of what had it; durable once its folder is synced."""
    with store_errors(target):
        os.replace(path, target)


def unlink_if_there(path: StrPath) -> None:
    """Remove a file. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
