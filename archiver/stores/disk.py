"""Durable steps on a local file system, each complete: what returns has happened.

An OSError becomes a StoreError here, and only here.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from archiver.errors import NoSpace, StoreError

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700

_HINTS = {
    errno.EROFS: "mount it read-write, or name another place",
    errno.EEXIST: "a file is in the way where a directory should be",
    errno.ENOTDIR: "a file is in the way where a directory should be",
    errno.EMFILE: "raise the limit of open files (ulimit -n), or lower --workers",
    errno.ENFILE: "the machine is out of open files",
    errno.EFBIG: "the file is larger than this file system or limit (ulimit -f) allows",
    errno.EIO: "the disk reports an error; check it before you trust it",
}


@contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """Translate what the file system says of ``path``."""
    try:
        yield
    except OSError as error:
        what = f"{path}: {error.strerror or error}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(what, hint="free some space; what is fetched so far is kept") from error
        raise StoreError(what, hint=_HINTS.get(error.errno or 0)) from error


def make_directories(path: Path) -> None:
    """Create ``path`` and its missing parents, and make their names durable."""
    if path.is_dir():
        return
    make_directories(path.parent)
    with store_errors(path):
        path.mkdir(DIRECTORY_MODE, exist_ok=True)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    with store_errors(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


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


def put_file(path: Path, data: bytes, temporary: Path) -> None:
    """Write a small file, durable and whole or not at all: temporary, fsync, rename, fsync."""
    make_directories(path.parent)
    rename(write_file(temporary, data), path)
    sync_directory(path.parent)


def write_file(path: Path, data: bytes) -> Path:
    """Write a small file and sync its contents; its name is not durable yet. Returns ``path``."""
    with store_errors(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, FILE_MODE)
        try:
            write_all(descriptor, data, 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    return path


def rename(path: Path, target: Path) -> None:
    """Give a file its final name, in place of what had it; durable once its folder is synced."""
    with store_errors(target):
        path.replace(target)
