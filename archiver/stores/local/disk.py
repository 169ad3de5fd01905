"""Durable writes to a local file system. Each step is complete when its function returns.

Every OSError of a write becomes a StoreError here.
"""

import contextlib
import errno
import os
import pwd
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from archiver.errors import (
    DoesNotFit,
    InstanceForbidden,
    NoSpace,
    PlaceTaken,
    StoreError,
    StoreForbidden,
    UsageError,
)
from archiver.retry import RETRIES
from archiver.stores.local.layout import LOCKS
from archiver.stores.scope import is_of_instance

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
HINTS: Final = {
    errno.EROFS: "mount it read-write, or use another directory",
    errno.EEXIST: "a file is in the way where a directory should be",
    errno.ENOTDIR: "a file is in the way where a directory should be",
    errno.EISDIR: "a directory is in the way where a file should be",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "the machine is out of open files",
    errno.EFBIG: "the file is larger than this file system or limit (ulimit -f) allows",
    errno.EIO: "the disk reports an error; check it before you trust it",
}
# The errors of some network file systems that cannot sync folders.
_CANNOT_SYNC = frozenset((errno.EINVAL, errno.ENOSYS, errno.ENOTSUP))
_TAKEN = frozenset(
    (errno.EEXIST, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR, errno.ENOTEMPTY)
)
FREE_SPACE: Final = "free some space, then run the command again"
# What the modes of files, or their attributes, do not allow.
DENIED: Final = frozenset((errno.EACCES, errno.EPERM))
DENIED_HINT: Final = "run this as its owner, or change that with chown or chmod"
TO_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC

StrPath: TypeAlias = str | os.PathLike[str]

# By device number, a warning about a file system that does not sync folders.
_unsynced: Final[dict[int, str]] = {}


def what_is_not_synced() -> list[str]:
    """A warning for each file system that did not sync a folder since this process started."""
    return list(_unsynced.values())


@contextmanager
def store_errors(path: StrPath, call: str = "") -> Iterator[None]:
    """Translate an OSError about ``path`` to StoreError; ``call`` names the call that failed."""
    try:
        yield
    except OSError as error:
        what = f"{path}: {call and f'{call}: '}{error.strerror or error}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(what, hint=FREE_SPACE) from error
        if error.errno in DENIED:
            place = what_denies(path)
            forbidden = InstanceForbidden if _is_of_instance(place) else StoreForbidden
            raise forbidden(f"{what}: {owned(place, path)}", hint=DENIED_HINT) from error
        kind = PlaceTaken if error.errno in _TAKEN else StoreError
        if error.errno == errno.EFBIG:
            kind = DoesNotFit
        raise kind(what, hint=HINTS.get(error.errno or 0)) from error


def what_denies(path: StrPath) -> Path:
    """What keeps this user from ``path``: the file or folder itself, or the nearest one above it
    that can be seen."""
    place = Path(path)
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    is_folder = os.path.isdir(place)
    wanted = os.R_OK | os.W_OK | (os.X_OK if is_folder else 0)
    is_allowed = place == Path(path) and os.access(place, wanted, effective_ids=True)
    return place.parent if is_allowed else place


def owned(place: Path, path: StrPath) -> str:
    """Who owns ``place``, which keeps this user from ``path``, and its mode."""
    try:
        status = place.lstat()
    except OSError:
        return f"{place} cannot be seen"
    try:
        owner = pwd.getpwuid(status.st_uid).pw_name
    except KeyError:
        owner = str(status.st_uid)
    what = "it" if place == Path(path) else str(place)
    return f"{what} belongs to {owner} (mode {status.st_mode & 0o7777:04o})"


def _is_of_instance(place: Path) -> bool:
    """Whether a file or folder belongs to one instance of an archive. The archive is the folder
    above it that has the locks, since nothing is written for an instance without its lock."""
    slash = "/" if os.path.isdir(place) else ""
    roots = (folder for folder in place.parents if os.path.lexists(folder / LOCKS))
    return any(is_of_instance(f"{place.relative_to(root)}{slash}") for root in roots)


def absolute(path: StrPath) -> Path:
    """The absolute path of what a user typed; ``~`` is the home folder. Raises UsageError."""
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError:
        raise UsageError(
            f"{path}: this home folder is unknown", hint="set HOME, or use an absolute path"
        ) from None
    except FileNotFoundError:
        raise UsageError(
            f"{path}: the current folder was removed", hint="change to one that exists"
        ) from None


@dataclass(frozen=True, slots=True)
class UnsyncedFile:
    """An open file whose bytes are not durable yet; ``version`` is known of one that was just
    written whole."""

    path: StrPath
    descriptor: int
    version: str = ""

    def sync(self) -> None:
        """Make the bytes durable. Raises StoreError."""
        sync_file(self.descriptor, self.path)


@dataclass(frozen=True, slots=True)
class UnsyncedFolder:
    """A folder in which names were created or removed that are not durable yet."""

    path: StrPath

    def sync(self) -> None:
        """Make the names durable. Raises StoreError."""
        with store_errors(self.path):
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            sync_folder(descriptor, self.path)
        finally:
            os.close(descriptor)


def sync_file(descriptor: int, path: StrPath) -> None:
    """Make the bytes of an open file durable. Raises StoreError."""
    with store_errors(path, "fsync"):
        os.fsync(descriptor)


def sync_folder(descriptor: int, path: StrPath) -> None:
    """Make the names in an open folder durable. A file system that cannot do that is added to the
    warnings. Raises StoreError."""
    with store_errors(path, "fsync"):
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in _CANNOT_SYNC:
                raise
            file_system = os.fstat(descriptor).st_dev
            _unsynced.setdefault(
                file_system,
                f"{os.fsdecode(path)}: this file system does not sync folders ({error.strerror}): "
                "a power failure may remove the names of files that were just written",
            )


def make_directories(path: StrPath) -> list[UnsyncedFolder]:
    """Create ``path`` and its missing parents; the folders in which that created names. Raises
    StoreError."""
    if os.path.isdir(path):
        return []
    parent = os.path.dirname(path) or os.curdir
    above: list[UnsyncedFolder] = []
    with store_errors(path):
        try:
            made = _makes_directory(path)
        except (FileNotFoundError, NotADirectoryError):
            if parent == path:  # the current folder was removed
                raise
            above = make_directories(parent)  # names the folder that is at fault
            made = _makes_directory(path)
    return [*above, UnsyncedFolder(parent)] if made else above


def _makes_directory(path: StrPath) -> bool:
    """Create a directory; False when it exists. Raises OSError."""
    try:
        os.mkdir(path, DIRECTORY_MODE)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
        return False
    return True


def make_durable_directories(path: StrPath) -> None:
    """Create ``path`` and its missing parents, and make their names durable. Raises StoreError."""
    for folder in make_directories(path):
        folder.sync()


def sync_directory(path: StrPath) -> None:
    """Make the names in a directory durable. Raises StoreError."""
    UnsyncedFolder(path).sync()


def write_all(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of ``data`` at ``offset``, in as many calls as that takes. Raises OSError."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        if written == 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        view, offset = view[written:], offset + written


def version_of(status: os.stat_result) -> str:
    """What changes when a file is written again: the time of its last change, and its inode, since
    two files that change places keep their times."""
    return f"{status.st_mtime_ns:x}-{status.st_ino:x}"


def put_file(
    path: StrPath,
    data: bytes,
    temporary: StrPath,
    check: Callable[[], None] = lambda: None,
    tries: int = RETRIES.temporary_file.attempts,
) -> str:
    """Write a small file durably and as a whole, or not at all: temporary, fsync, rename, fsync.
    Returns its version.

    ``check`` raises when it may not be written any more. Raises StoreError, also when the temporary
    file is removed before its rename ``tries`` times in a row: a sweep cannot tell what a killed
    writer without a lock left from what another one is about to rename.
    """
    folder = os.path.dirname(path) or os.curdir
    make_durable_directories(folder)
    with written(temporary, data) as file:
        file.sync()
        version = version_of(os.fstat(file.descriptor))
    check()
    try:
        rename(temporary, path)
    except StoreError as error:
        if tries == 1 or not isinstance(error.__cause__, FileNotFoundError):
            raise
        return put_file(path, data, temporary, check, tries - 1)
    sync_directory(folder)
    return version


@contextmanager
def written(path: StrPath, data: bytes) -> Generator[UnsyncedFile, None, None]:
    """Write a small file, which can be synced while in this context. Its name is not durable yet.
    Raises StoreError."""
    with store_errors(path):
        try:
            descriptor = os.open(path, TO_CREATE, FILE_MODE)
        except FileExistsError:
            # Do not write to it: it may have another name elsewhere (cp -al).
            os.unlink(path)
            descriptor = os.open(path, TO_CREATE, FILE_MODE)
    try:
        with store_errors(path):
            write_all(descriptor, data, 0)
            version = version_of(os.fstat(descriptor))
        yield UnsyncedFile(path, descriptor, version)
    finally:
        os.close(descriptor)


def rename(path: StrPath, target: StrPath) -> None:
    """Give a file its final name, replacing what has it. Durable once its folder is synced. Raises
    StoreError."""
    with store_errors(target):
        os.replace(path, target)


def unlink_if_there(path: StrPath) -> None:
    """Remove a file, if it exists. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
