"""Where the files of a set are restored to, and whether they fit there.

DIR/<node>/dump.rdb                                  a dump, or
DIR/<node>/appendonlydir/appendonly.aof.1.base.aof   a log, with appendonly.aof.manifest beside it
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from archiver.archive.record import Record
from archiver.commands.restore.part import part_size
from archiver.errors import NoSpace
from archiver.ids import safe
from archiver.model import Kind
from archiver.stores.local import disk
from archiver.words import size

LOG_DIRECTORY: Final = "appendonlydir"
LOG_NAME: Final = "appendonly.aof"
MANIFEST_NAME: Final = f"{LOG_NAME}.manifest"
_LOG_BASE: Final = f"{LOG_NAME}.1.base.aof"
MANIFEST: Final = f"file {_LOG_BASE} seq 1 type b\n".encode()
_DUMP: Final = "dump.rdb"


def file_path(record: Record, directory: Path) -> Path:
    """Return the path for a file below ``directory``. Raises UnsafeInput for an unsafe node id."""
    node = directory / safe(record.node_id)
    # A log with an RDB preamble must be loaded as a log: loaded as a dump, its commands are lost.
    is_log = record.is_log or record.object_key.endswith(f".{Kind.AOF}")
    return node / LOG_DIRECTORY / _LOG_BASE if is_log else node / _DUMP


def is_log_path(path: Path) -> bool:
    """Whether this is the path of a restored log."""
    return path.parent.name == LOG_DIRECTORY


def node_directory(path: Path) -> Path:
    """Return the node's directory, which a server takes as --dir, for the path of its file."""
    return path.parent.parent if is_log_path(path) else path.parent


def check_space(directory: Path, wanted: int) -> None:
    """Check that ``wanted`` bytes fit below ``directory``, which need not exist. Blocks.

    Raises NoSpace, StoreError.
    """
    existing = directory
    with disk.store_errors(directory):
        while not existing.exists() and existing != existing.parent:
            existing = existing.parent
        space = os.statvfs(existing)
    free = space.f_bavail * space.f_frsize
    if wanted > free:
        raise NoSpace(
            f"{directory}: not enough space: {size(wanted)} are needed, {size(free)} are free",
            hint="free some space, or choose another directory",
        )


def bytes_to_copy(directory: Path, records: Sequence[Record]) -> int:
    """Return the bytes that are still to be written below ``directory``. Blocks."""
    with disk.store_errors(directory):
        return sum(
            max(0, record.size - part_size(path))
            for record in records
            if not (path := file_path(record, directory)).exists()
        )


def missing_directories(paths: Sequence[Path]) -> list[Path]:
    """Return the parent directories that do not exist yet, the innermost first. Blocks."""
    parents = {parent for path in paths for parent in path.parents}
    return sorted((one for one in parents if not one.exists()), key=lambda one: -len(one.parts))


def remove_empty(directories: Sequence[Path]) -> None:
    """Remove those of the directories that are empty, in this order. Blocks."""
    for one in directories:
        with suppress(OSError):  # another process may have put something there
            one.rmdir()
