"""Making room where an object or a document of an archive is to lie.

A rename puts a file in the place of another one, and of a link. It does not of a folder; and what
is there and cannot be read may be somebody's, or worth something to who can read it. It is moved
into the quarantine, as it is, under a name of its own.
"""

import os
import secrets
import stat
from pathlib import Path

from archiver.documents import MAX_BYTES
from archiver.stores.local import disk

# What the names of documents end in, such as SHA256SUMS. An object gives way to no other one
# before that is proven.
_DOCUMENTS = (".json", "")
# Key parts never hold it, and it is plain in every shell.
_SEPARATOR = "~"
_MOST_NAME = 200


def clear(path: Path, quarantine: Path) -> Path | None:
    """Move what is at ``path`` into ``quarantine`` if it is no file, or a document that cannot be
    read; where it is then, or None. Blocks. Raises StoreError."""
    return move_away(path, quarantine) if _is_in_the_way(path) else None


def move_away(path: Path, quarantine: Path) -> Path:
    """Move what is at ``path`` into ``quarantine``, whatever it is; where it is then. Blocks.
    Raises StoreError."""
    disk.make_durable_directories(quarantine)
    archive = quarantine.parent
    flat = path.relative_to(archive).as_posix().replace("/", _SEPARATOR)
    kept = quarantine / f"{flat[-_MOST_NAME:]}.{secrets.token_hex(4)}.cleared"
    with disk.reading_errors(path):
        # A folder, too, keeps what is in it; and whose file it is does not matter to a rename.
        path.rename(kept)
    disk.sync_directory(kept.parent)
    disk.sync_directory(path.parent)
    return kept


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
    return status.st_size > MAX_BYTES or not _can_be_read(path)


def _can_be_read(path: Path) -> bool:
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
