"""Durable steps on a local file system, each complete: what returns has happened.

An OSError becomes a StoreError here, and only here.
"""

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from archiver.documents import MAX_BYTES
from archiver.errors import (
    DoesNotFit,
    NoDocument,
    NoSpace,
    PlaceTaken,
    StoreError,
    UnreadableObject,
    UsageError,
)

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700

_HINTS = {
    errno.EROFS: "mount it read-write, or name another place",
    errno.EEXIST: "a file is in the way where a directory should be",
    errno.ENOTDIR: "a file is in the way where a directory should be",
    errno.EISDIR: "a directory is in the way where a file should be",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "the machine is out of open files",
    errno.EFBIG: "the file is larger than this file system or limit (ulimit -f) allows",
    errno.EIO: "the disk reports an error; check it before you trust it",
}

# What some network file systems say to the fsync of a folder: that they have none.
_HAVE_NO_SYNC = frozenset((errno.EINVAL, errno.ENOSYS, errno.ENOTSUP))
# What keeps one file from being read, and says nothing of the others.
_OF_ONE_FILE = frozenset(
    (
        errno.EACCES, errno.EAGAIN, errno.EBADMSG, errno.EILSEQ, errno.EIO, errno.ELOOP,
        errno.ENAMETOOLONG, errno.ENODATA, errno.ENODEV, errno.ENOKEY, errno.ENXIO,
        errno.EOVERFLOW, errno.EPERM, errno.EREMOTEIO, errno.EUCLEAN,
    )
)  # fmt: skip
_TAKEN = frozenset(
    (errno.EEXIST, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR, errno.ENOTEMPTY)
)
# What is opened may be anything: a FIFO must not be waited for, a terminal not become ours.
_TO_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_PIECE_BYTES = 64 * 1024
_TO_MAKE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
LINK = "a symbolic link"
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: LINK,
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

StrPath: TypeAlias = str | os.PathLike[str]


# By the number of a file system: what its folders are not asked to do any more, in a line.
_unsynced: Final[dict[int, str]] = {}


def what_is_not_synced() -> list[str]:
    """A line for each file system that has not synced a folder since this process began."""
    return list(_unsynced.values())


@contextmanager
def store_errors(path: StrPath, call: str = "") -> Iterator[None]:
    """Translate what the file system says of ``path``; ``call`` is what it says it to."""
    try:
        yield
    except OSError as error:
        what = f"{path}: {call and f'{call}: '}{error.strerror or error}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(what, hint="free some space; what is fetched so far is kept") from error
        kind = PlaceTaken if error.errno in _TAKEN else StoreError
        if error.errno == errno.EFBIG:
            kind = DoesNotFit
        raise kind(what, hint=_HINTS.get(error.errno or 0)) from error


@contextmanager
def reading_errors(path: StrPath) -> Iterator[None]:
    """Translate what the file system says when ``path`` is read: most of it is of this file."""
    try:
        yield
    except OSError as error:
        if error.errno not in _OF_ONE_FILE:
            with store_errors(path):
                raise
        what = f"{path}: {error.strerror or error}"
        raise UnreadableObject(what, hint=_HINTS.get(error.errno)) from error
    except ValueError as error:
        # A NUL, or half of a surrogate pair: nothing has such a name.
        raise UnreadableObject(f"{str(path)!a:.200}: {error}") from None


def nearest(folder: Path, name: str, is_meant: Callable[[bytes], bool]) -> Path | None:
    """The folder itself, or else the nearest above it, that has a document called ``name`` that is
    meant. One that is not there has none; what is in a folder that begins with a dot is no part of
    those above it."""
    for place in (folder, *folder.parents):
        with contextlib.suppress(NoDocument, UnreadableObject, StoreError):
            data = read_document(place / name)
            if data is not None and is_meant(data):
                return place
        if place.name.startswith("."):
            return None
    return None


def absolute(path: StrPath) -> Path:
    """A place as people name it, ``~`` their home folder. Raises UsageError."""
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError:
        raise UsageError(
            f"{path}: nobody knows whose home folder that is", hint="set HOME, or name all of it"
        ) from None
    except FileNotFoundError:
        raise UsageError(
            f"{path}: the current folder is gone", hint="go to one that is there"
        ) from None


def kind_at(path: StrPath) -> str | None:
    """What is at ``path`` and is no file, in words; None for a file, or nothing."""
    with reading_errors(path):
        try:
            mode = os.lstat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None
    return kind_of(mode)


def kind_of(mode: int) -> str | None:
    """What a file of this mode is, in words; None for a plain one (pure)."""
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "something else")


def folder_obstacle(path: StrPath) -> str | None:
    """What is at ``path`` and is no folder, in words; None for a folder, or nothing."""
    with reading_errors(path):
        try:
            mode = os.lstat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None
    return None if stat.S_ISDIR(mode) else kind_of(mode) or "a file"


def open_file(path: StrPath) -> int | None:
    """A descriptor to read a file; None when there is nothing.

    Raises NoDocument for what is no file, UnreadableObject, StoreError.
    """
    if kind := kind_at(path):  # to open some devices is to do something
        raise _no_document(path, f"{kind} is in its place")
    with reading_errors(path):
        try:
            descriptor = os.open(path, _TO_READ)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
    raise _no_document(path, "something else is in its place")


def read_document(path: StrPath, most: int = MAX_BYTES) -> bytes | None:
    """A small file, whole; None when there is none. Raises as :func:`open_file`, and NoDocument
    when it has more than ``most`` bytes."""
    descriptor = open_file(path)
    if descriptor is None:
        return None
    try:
        with reading_errors(path):
            size = os.fstat(descriptor).st_size
            data = b"" if size > most else _read(descriptor, size, most)
    finally:
        os.close(descriptor)
    if size > most or len(data) > most:
        raise _no_document(path, f"it has {max(size, len(data)):,} bytes, far too many for it")
    return data


def _read(descriptor: int, size: int, most: int) -> bytes:
    """All there is of a file of about ``size`` bytes, which may grow meanwhile; of more than
    ``most`` bytes, one more. Raises OSError."""
    data = os.read(descriptor, size + 1)
    while len(data) <= most and (piece := os.read(descriptor, _PIECE_BYTES)):
        data += piece
    return data


def _no_document(path: StrPath, what: str) -> NoDocument:
    return NoDocument(str(path), what, hint="move it out of the archive, or let repair do so")


@dataclass(frozen=True, slots=True)
class UnsyncedFile:
    """An open file whose bytes are not durable yet."""

    path: StrPath
    descriptor: int

    def sync(self) -> None:
        """Make them durable."""
        sync_file(self.descriptor, self.path)


@dataclass(frozen=True, slots=True)
class UnsyncedFolder:
    """A folder whose names are not durable yet."""

    path: StrPath

    def sync(self) -> None:
        """Make them durable."""
        with store_errors(self.path):
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            sync_folder(descriptor, self.path)
        finally:
            os.close(descriptor)


def sync_file(descriptor: int, path: StrPath) -> None:
    """Make the bytes of an open file durable, or say that they are not. Raises StoreError."""
    with store_errors(path, "fsync"):
        os.fsync(descriptor)


def sync_folder(descriptor: int, path: StrPath) -> None:
    """Make the names in an open folder durable, where its file system can be asked for that. Raises
    StoreError."""
    with store_errors(path, "fsync"):
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in _HAVE_NO_SYNC:
                raise
            file_system = os.fstat(descriptor).st_dev
            _unsynced.setdefault(
                file_system,
                f"{os.fsdecode(path)}: this file system does not sync folders ({error.strerror}): "
                "a power cut may take the names of files that were just written",
            )


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


def copy_file(path: StrPath, target: StrPath, temporary: StrPath) -> None:
    """A second file of the same bytes, durable when it has its name. Raises StoreError."""
    source = open_file(path)
    if source is None:
        raise StoreError(f"{path}: it is gone")
    try:
        with store_errors(target):
            unlink_if_there(temporary)
            made = os.open(
                temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE
            )
            with open(made, "wb") as copied:
                shutil.copyfileobj(open(source, "rb", closefd=False), copied)  # noqa: SIM115
                copied.flush()
                sync_file(copied.fileno(), temporary)
            os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            unlink_if_there(temporary)
        raise
    finally:
        os.close(source)


@contextmanager
def written(path: StrPath, data: bytes) -> Generator[UnsyncedFile, None, None]:
    """Write a small file; while in this context it can be synced. Its name is not durable yet."""
    with store_errors(path):
        try:
            descriptor = os.open(path, _TO_MAKE, FILE_MODE)
        except FileExistsError:
            # Not written to: it may have another name elsewhere (cp -al).
            os.unlink(path)
            descriptor = os.open(path, _TO_MAKE, FILE_MODE)
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
