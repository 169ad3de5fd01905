"""Reads and copies files that may be anything: damaged, huge, links, devices, or missing."""

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from archiver.documents import MAX_BYTES
from archiver.errors import NoDocument, StoreError, UnreadableObject
from archiver.stores.local.disk import (
    DENIED,
    DENIED_HINT,
    FILE_MODE,
    HINTS,
    TO_CREATE,
    StrPath,
    owned,
    store_errors,
    sync_file,
    unlink_if_there,
    what_denies,
)

# Errors that concern one file, and say nothing about the others.
_OF_ONE_FILE = frozenset(
    (
        errno.EACCES, errno.EAGAIN, errno.EBADMSG, errno.EILSEQ, errno.EIO, errno.ELOOP,
        errno.ENAMETOOLONG, errno.ENODATA, errno.ENODEV, errno.ENOKEY, errno.ENXIO,
        errno.EOVERFLOW, errno.EPERM, errno.EREMOTEIO, errno.EUCLEAN,
    )
)  # fmt: skip
# Neither wait for a FIFO, nor become the owner of a terminal.
_TO_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_BLOCK_BYTES = 64 * 1024
LINK = "a symbolic link"
FOLDER = "a folder"
_KINDS = {
    stat.S_IFDIR: FOLDER,
    stat.S_IFLNK: LINK,
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@contextmanager
def reading_errors(path: StrPath) -> Iterator[None]:
    """Translate an OSError of reading ``path``: to UnreadableObject if it concerns only this file,
    else to StoreError."""
    try:
        yield
    except OSError as error:
        if error.errno not in _OF_ONE_FILE:
            with store_errors(path):
                raise
        what, hint = f"{path}: {error.strerror or error}", HINTS.get(error.errno)
        if error.errno in DENIED:
            what, hint = f"{what}: {owned(what_denies(path), path)}", DENIED_HINT
        raise UnreadableObject(what, hint=hint) from error
    except ValueError:  # a NUL, or half of a surrogate pair
        raise UnreadableObject(f"{str(path)!a:.200}: no file can have this name") from None


def nearest(folder: Path, name: str, is_wanted: Callable[[bytes], bool]) -> Path | None:
    """The folder itself, or else the nearest one above it, that has a document ``name`` with wanted
    contents; None when none has.

    What cannot be read does not count. A folder that begins with a dot does not belong to those
    above it.
    """
    for place in (folder, *folder.parents):
        with contextlib.suppress(NoDocument, UnreadableObject, StoreError):
            data = read_document(place / name)
            if data is not None and is_wanted(data):
                return place
        if place.name.startswith("."):
            return None
    return None


def kind_at(path: StrPath) -> str | None:
    """What is at ``path``, in words, if it is not a file; None for a file, or nothing."""
    with reading_errors(path):
        try:
            mode = os.lstat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None
    return kind_of(mode)


def what_is_at(path: StrPath) -> str | None:
    """What is at ``path``, or where its links lead, in words; None for nothing."""
    with reading_errors(path):
        try:
            mode = os.stat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None
    return kind_of(mode) or "a file"


def kind_of(mode: int) -> str | None:
    """What has this mode, in words; None for a regular file (pure)."""
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "something else")


def folder_obstacle(path: StrPath) -> str | None:
    """What is at ``path``, in words, if it is not a folder; None for a folder, or nothing."""
    with reading_errors(path):
        try:
            mode = os.lstat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None
    return None if stat.S_ISDIR(mode) else kind_of(mode) or "a file"


def open_file(path: StrPath) -> int | None:
    """A descriptor for reading a file; None when there is nothing.

    Raises NoDocument for what is not a file, UnreadableObject, StoreError.
    """
    if kind := kind_at(path):  # opening some devices has an effect
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


def read_document(path: StrPath, max_bytes: int = MAX_BYTES) -> bytes | None:
    """The contents of a small file; None when there is none. Raises as :func:`open_file`, and
    NoDocument when it has more than ``max_bytes``."""
    descriptor = open_file(path)
    if descriptor is None:
        return None
    try:
        with reading_errors(path):
            size = os.fstat(descriptor).st_size
            data = b"" if size > max_bytes else _read(descriptor, size, max_bytes)
    finally:
        os.close(descriptor)
    if size > max_bytes or len(data) > max_bytes:
        fault = f"it has {max(size, len(data)):,} bytes, far too many for a document"
        raise _no_document(path, fault)
    return data


def read_all(descriptor: int, block: memoryview, offset: int) -> int:
    """Fill ``block`` from ``offset`` on; the number of bytes, less only at the end of the file.
    Raises OSError."""
    filled = 0
    while filled < len(block):
        size = os.preadv(descriptor, [block[filled:]], offset + filled)
        if size == 0:
            break
        filled += size
    return filled


def copy_file(
    path: StrPath, target: StrPath, temporary: StrPath, check: Callable[[], None] = lambda: None
) -> None:
    """Copy a file to ``target``; its bytes are durable before it has that name. ``check`` raises
    when nothing may be written there any more: a copy takes long. Raises as :func:`open_file`, and
    StoreError when it does not exist or cannot be copied."""
    source = open_file(path)
    if source is None:
        raise StoreError(f"{path}: the file does not exist any more")
    try:
        with store_errors(target):
            unlink_if_there(temporary)
            made = os.open(temporary, TO_CREATE, FILE_MODE)
            with open(made, "wb") as copied:
                shutil.copyfileobj(open(source, "rb", closefd=False), copied)  # noqa: SIM115
                copied.flush()
                sync_file(copied.fileno(), temporary)
            check()
            os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            unlink_if_there(temporary)
        raise
    finally:
        os.close(source)


def _read(descriptor: int, size: int, max_bytes: int) -> bytes:
    """All of a file of about ``size`` bytes, which may grow meanwhile; more than ``max_bytes`` only
    if it has more. Raises OSError."""
    data = os.read(descriptor, size + 1)
    while len(data) <= max_bytes and (block := os.read(descriptor, _BLOCK_BYTES)):
        data += block
    return data


def _no_document(path: StrPath, fault: str) -> NoDocument:
    return NoDocument(str(path), fault, hint="move it out of the archive, or let repair do so")
