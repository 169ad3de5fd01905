"""Whether a file is a dump or a log of commands, by what its source said, not by its suffix.

A dump may be encrypted, and then begins with anything; a log may be empty, encrypted, cut off in
its first word, or begin as a dump does.
"""

from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from archiver.archive import layout
from archiver.archive.archive import Archive
from archiver.archive.consistency import contradictions
from archiver.archive.record import Record
from archiver.concurrency import task_group
from archiver.errors import ArchiverError
from archiver.model import BackupType, Kind

# Records read at once: far stores take their time to answer.
_READERS: Final = 16


def backup_type(record: Record) -> BackupType | None:
    """Dump or log: as the source said. Where it said neither, as the bytes are; None where these
    tell nothing either (pure)."""
    if record.type is not None:
        return record.type
    suffix = record.object_key.rpartition(".")[2]
    by_bytes = {Kind.RDB: BackupType.FULL, Kind.AOF: BackupType.INCREMENTAL}
    return by_bytes.get(Kind(suffix)) if suffix in set(Kind) else None


async def logs_among(archive: Archive, keys: Iterable[str]) -> set[str]:
    """The records among ``keys`` that say that their file is a log.

    Not one that cannot be read or contradicts itself: whoever looks closer at its set is told.
    """
    found = set[str]()
    waiting = iter([key for key in keys if layout.is_record(key)])

    async def read() -> None:
        for key in waiting:
            with suppress(ArchiverError):
                record = Record.decode(key, await archive.store.read(key) or b"")
                if backup_type(record) is BackupType.INCREMENTAL and not contradictions(record):
                    found.add(key)

    async with task_group() as tasks:
        for _ in range(_READERS):
            tasks.start_soon(read)
    return found


def unrestorable(records: Iterable[Record]) -> Iterable[str]:
    """What keeps a set of dumps from being restored, though its files are as recorded."""
    by_node: dict[str, list[BackupType | None]] = {}
    for record in records:
        of_it = backup_type(record)
        by_node.setdefault(record.node_id, []).append(of_it)
        if of_it is None:
            yield f"{record.object_key}: neither its source nor its bytes say what it is"
        elif of_it is BackupType.FULL and record.size == 0:
            yield f"{record.object_key} is empty, and no dump is"
    for node, types in sorted(by_node.items()):
        if set(types) == {BackupType.INCREMENTAL}:
            yield f"node {node} has a log of commands in it, and no dump"
