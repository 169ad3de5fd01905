"""The quarantine of a directory archive: files that were in the way, replaced, or wrong.

A rename replaces a file or a link, but not a folder. And what is in the way and cannot be read may
be somebody's, or of use to those who can read it. So it is moved to quarantine as it is, under a
name of its own.
"""

import errno
import json
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

from archiver.documents import MAX_BYTES
from archiver.stores.local import disk
from archiver.stores.local.layout import REPLACED, TEMPORARY, flatten
from archiver.stores.local.reading import copy_file, reading_errors

# The suffixes of documents; SHA256SUMS has none. An object is replaced only by a verified one.
_DOCUMENTS = (".json", "")
_MAX_NAME = 200
# The errors of file systems that have no hard links, or no more for this file.
_CANNOT_LINK = (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EXDEV, errno.ENOSYS)


def clear(path: Path, root: Path, quarantine: Path) -> Path | None:
    """Move what is at ``path``, in the archive ``root``, to quarantine if it is not a file, or is a
    document that cannot be read; its path there, or None when nothing was in the way. Blocks.
    Raises StoreError."""
    return move_to_quarantine(path, root, quarantine) if _is_in_the_way(path) else None


def move_to_quarantine(path: Path, root: Path, quarantine: Path) -> Path:
    """Move what is at ``path`` to quarantine, whatever it is; its path there. Blocks. Raises
    StoreError."""
    disk.make_durable_directories(quarantine)
    flat = flatten(path.relative_to(root).as_posix())
    target = quarantine / f"{flat[-_MAX_NAME:]}.{secrets.token_hex(4)}.cleared"
    with reading_errors(path):
        # A folder is moved with its contents. A rename works for files of any owner.
        path.rename(target)
    disk.sync_directory(target.parent)
    disk.sync_directory(path.parent)
    return target


def copy_to_quarantine(root: str, key: str, quarantine: str) -> str:
    """Give an object a second name in quarantine, or copy it where that is impossible; its path
    there. Blocks. Raises StoreError."""
    path = f"{root}/{key}"
    disk.make_durable_directories(quarantine)
    with disk.store_errors(path):
        target = _free_name(key, quarantine, os.lstat(path))
        if not os.path.lexists(target):
            _link_or_copy(path, target)
    return target


def write_note(
    path: str, key: str, size: int, why: str, temporary: str, check: Callable[[], None]
) -> None:
    """Write why a file is in quarantine. Raises StoreError, and what ``check`` does."""
    text = json.dumps({"key": key, "size": size, "why": why}, indent=2) + "\n"
    disk.put_file(path, text.encode(), temporary, check)


def _is_in_the_way(path: Path) -> bool:
    with disk.store_errors(path):
        try:
            status = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return False
    if not stat.S_ISREG(status.st_mode):
        return True
    if path.suffix not in _DOCUMENTS:
        return False
    return status.st_size > MAX_BYTES or not _is_readable(path)


def _is_readable(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.pread(descriptor, 1, 0)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _free_name(key: str, quarantine: str, status: os.stat_result) -> str:
    """A path that does not exist, or one that this very file has already. Raises OSError."""
    flat = flatten(key)
    number = 0
    while True:
        suffix = f"-{number}" if number else ""
        path = f"{quarantine}/{flat}-{status.st_ino}{suffix}{REPLACED}"
        try:
            if os.path.samestat(os.lstat(path), status):
                return path
        except FileNotFoundError:
            return path
        number += 1


def _link_or_copy(path: str, target: str) -> None:
    """Give a file a second name, or make a durable copy without hard links. Raises OSError,
    StoreError."""
    try:
        os.link(path, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _CANNOT_LINK:
            raise
        copy_file(path, target, f"{target}{TEMPORARY}")
    disk.sync_directory(os.path.dirname(target))
