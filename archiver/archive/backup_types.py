"""Whether a file is a dump or a log of commands, by what its source said, not by its suffix.

A dump may be encrypted, and then begins with anything; a log may be empty, encrypted, cut off in
its first word, or begin as a dump does.
"""

from collections.abc import Iterable
from contextlib import suppress

from archiver.archive.catalogue import CatalogueEntry, Described
from archiver.archive.contents import SetFiles
from archiver.archive.reading import decode_record
from archiver.archive.record import Record
from archiver.errors import ArchiverError
from archiver.model import BackupType, Kind


def backup_type(record: Described) -> BackupType | None:
    """Dump or log: as the source said. Where it said neither, as the bytes are; None where these
    tell nothing either (pure)."""
    if record.type is not None:
        return record.type
    suffix = record.object_key.rpartition(".")[2]
    by_bytes = {Kind.RDB: BackupType.FULL, Kind.AOF: BackupType.INCREMENTAL}
    return by_bytes.get(Kind(suffix)) if suffix in set(Kind) else None


def logs_among(one: SetFiles) -> frozenset[str]:
    """The records of a set that say that their file is a log, by its catalogue and the documents
    that were read ahead (pure).

    Not one that cannot be read or contradicts itself: whoever looks closer at its set is told.
    """
    found = set[str]()
    for key in one.records:
        data, record = one.documents.get(key), one.known.entries.get(key)
        if record is None and isinstance(data, bytes):
            with suppress(ArchiverError):
                record = CatalogueEntry.of(decode_record(key, data))
        if record is not None and backup_type(record) is BackupType.INCREMENTAL:
            found.add(key)
    return frozenset(found)


def unrestorable(records: Iterable[Record]) -> Iterable[str]:
    """What keeps a set of dumps from being restored, though its files are as recorded."""
    by_node: dict[str, list[BackupType | None]] = {}
    for record in records:
        of_it = backup_type(record)
        by_node.setdefault(record.node_id, []).append(of_it)
        if of_it is None:
            yield f"{record.object_key}: neither its source nor its bytes say what it is"
        elif of_it is BackupType.FULL and record.size == 0:
            yield f"{record.object_key} is empty, and a dump never is"
    for node, types in sorted(by_node.items()):
        if set(types) == {BackupType.INCREMENTAL}:
            yield f"node {node} has a log of commands, but no dump"
