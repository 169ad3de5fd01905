"""The backup sets of an archive with their records read: which can be restored whole.

A set is complete when

1. SHA256SUMS names it, which a pull sees to once every file that was listed for it is here,
2. every file of it that SHA256SUMS names has its object and its record, which contradicts neither
   itself nor them,
3. no node is missing, by the sets around it (:mod:`archiver.archive.completeness`), and none has
   a log of commands alone, an empty file for a dump, or a file of which nothing says what it is.

Old clusters have a folder for each shard: the set is all of them, by its first folder.

A standard instance's set is one file, and complete without a line in SHA256SUMS, too: the record
proves the bytes. A file that SHA256SUMS or an earlier verify names and that has no record is
damage, and so is whatever contradicts itself. An object that nothing names is still to be recorded,
by a pull that is at work or by the next one: the set is not complete.
"""

from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from archiver.archive import layout
from archiver.archive.archive import Archive
from archiver.archive.contents import record_of
from archiver.archive.folders import (
    MOST_AHEAD,
    Folder,
    Folders,
    backup_type,
    confirm_logs,
    list_folders,
    read_folders,
)
from archiver.archive.reading import check_object, unsealed
from archiver.archive.record import Record
from archiver.errors import (
    EXIT_OK,
    ArchiverError,
    IntegrityError,
    NoSuchBackup,
    UnreadableObject,
    UsageError,
)
from archiver.model import BackupType
from archiver.times import format_iso


@dataclass(frozen=True, slots=True)
class Damage:
    """What is wrong with the file of a node, or with more of a set (``""``), in a line.
    ``exit_code`` is 6 for what the store does not give, else 3."""

    node_id: str
    why: str
    exit_code: int = IntegrityError.exit_code

    @classmethod
    def of(cls, node_id: str, error: ArchiverError) -> Self:
        """What an error says of a node's file. Of what the store does not give, which may be
        intact, it says what to do as well."""
        is_unread = isinstance(error, UnreadableObject)
        return cls(node_id, str(error) if is_unread else error.message, error.exit_code)


def exit_code_of(damage: Iterable[Damage]) -> int:
    """0 without any damage, 6 when the store gives none of it, else 3 (pure)."""
    codes = {one.exit_code for one in damage}
    integrity = IntegrityError.exit_code
    return integrity if integrity in codes else max(codes, default=EXIT_OK)


@dataclass(frozen=True, slots=True)
class BackupSet:
    """A set with its records read.

    ``missing`` are nodes that it should have. ``gaps`` say in a line each what has not come, and
    ``damage`` what contradicts itself or is gone. ``notes`` say what a complete set could have
    besides.
    """

    folder: Folder
    records: tuple[Record, ...]
    missing: tuple[str, ...]
    gaps: tuple[str, ...]
    damage: tuple[Damage, ...]
    notes: tuple[str, ...] = ()

    @property
    def damaged(self) -> tuple[str, ...]:
        return tuple(one.why for one in self.damage)

    @property
    def state(self) -> str:
        if self.damage:
            return "damaged"
        return "complete" if self.is_complete else "not complete"

    @property
    def fault(self) -> str:
        """What its damage comes to: ``is damaged``, or ``cannot be read``, and may be intact."""
        is_wrong = exit_code_of(self.damage) == IntegrityError.exit_code
        return "is damaged" if is_wrong else "cannot be read"

    @property
    def key(self) -> str:
        return self.folder.key

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(sorted({record.node_id for record in self.records}))

    @property
    def is_complete(self) -> bool:
        return bool(self.records) and not (self.gaps or self.damage)

    @property
    def why_not(self) -> str:
        """Why it is not complete, in one line."""
        return "; ".join((*self.damaged, *self.gaps)) or "it holds no backup"

    def chosen(self) -> tuple[Record, ...]:
        """The file to restore of each node: its newest dump, or without one its newest log."""
        found: dict[str, Record] = {}
        for record in sorted(self.records, key=_rank):
            found[record.node_id] = record
        return tuple(found[node] for node in sorted(found))


async def read_set(archive: Archive, folder: Folder, folders: Folders) -> BackupSet:
    """Read a set's records and SHA256SUMS, and compare them with one another and its objects.

    A set of which each shard has a folder is read whole, whichever of them ``folder`` is. Raises
    StoreError.
    """
    parts = [await _read_folder(archive, one, folders) for one in folders.parts(folder)]
    return parts[0] if len(parts) == 1 else _joined(parts)


def _joined(parts: Sequence[BackupSet]) -> BackupSet:
    """One set of all that is in the folders of its shards."""
    records = tuple(record for one in parts for record in one.records)
    gaps = [gap for one in parts for gap in one.gaps]
    if len({record.mode for record in records} - {None}) > 1:
        # They began within an hour, and are not of one backup all the same.
        gaps.append("its shards are of a manual and an automated backup")
    return BackupSet(
        parts[0].folder,
        records,
        tuple(sorted({node for one in parts for node in one.missing})),
        tuple(dict.fromkeys(gaps)),
        tuple(damage for one in parts for damage in one.damage),
        tuple(dict.fromkeys(note for one in parts for note in one.notes)),
    )


async def _read_folder(archive: Archive, folder: Folder, folders: Folders) -> BackupSet:
    if (why := folder.unreadable) is not None:
        return BackupSet(folder, (), (), (), (Damage.of("", why),))
    if not folder.files.documents:
        [folder] = await read_folders(archive, [folder])
    records, damage = await _records(archive, folder)
    doubts = _doubts(folder, records, damage)
    gaps, notes = (doubts, []) if folder.is_of_cluster else ([], doubts)
    lost = folder.lost
    for key, one in lost.items():
        if await _has_come(archive, key):
            gaps.append(f"{one.key} appeared just now")
        elif not one.was_recorded:
            gaps.append(f"{one.error.message} yet")
        else:
            damage.append(Damage.of(layout.node_of(one.key), one.error))
    await folders.confirm_around(archive, folder)
    missing = set(folders.missing_nodes(folder))
    missing |= {layout.node_of(one.key) for one in lost.values() if layout.is_object(one.key)}
    gaps = [*folders.why_missing(folder), *gaps]
    present = {record.node_id for record in records}
    if folder.is_full:
        gaps += _unrestorable(records)
        present = {r.node_id for r in records if backup_type(r) is not BackupType.INCREMENTAL}
        missing |= {record.node_id for record in records} - present
    return BackupSet(
        folder,
        tuple(records),
        tuple(sorted(missing - present)),
        tuple(gaps),
        tuple(damage),
        tuple(notes),
    )


def _doubts(folder: Folder, records: Sequence[Record], damage: list[Damage]) -> list[str]:
    """What SHA256SUMS lacks of a set, in a line each; what is wrong goes to ``damage``. A standard
    instance needs no SHA256SUMS that can be read: the record proves the bytes."""
    damage += [
        Damage(record.node_id, odds.message)
        for record in records
        if (odds := folder.files.at_odds(record)) is not None
    ]
    sums, notes = folder.files.sums, list[str]()
    if (doubt := folder.files.doubt) is not None:
        if folder.is_of_cluster:
            damage.append(Damage.of("", doubt))
            return []
        notes = [doubt.message]
    if sums is None:
        return notes or [unsealed(is_of_cluster=folder.is_of_cluster)]
    # A file that came after the others: a pull will write it down when it is done.
    late = [record.object_key for record in records if record.object_key not in sums]
    return notes or [f"{key} has a record, but no line in SHA256SUMS" for key in late]


def _unrestorable(records: Sequence[Record]) -> Iterable[str]:
    """Why a set of dumps cannot be restored, though its files are as recorded."""
    by_node: dict[str, set[BackupType | None]] = {}
    for record in records:
        type_ = backup_type(record)
        by_node.setdefault(record.node_id, set()).add(type_)
        if type_ is None:
            yield f"{record.object_key}: neither its source nor its bytes say what it is"
        elif type_ is BackupType.FULL and record.size == 0:
            yield f"{record.object_key} is empty, and a dump never is"
    for node, types in sorted(by_node.items()):
        if types == {BackupType.INCREMENTAL}:
            yield f"node {node} has a log of commands, but no dump"


async def _has_come(archive: Archive, record_key: str) -> bool:
    """Whether a pull at work has recorded a file since it was listed."""
    try:
        return await archive.store.size(record_key) is not None
    except UnreadableObject:
        return False


async def _records(archive: Archive, folder: Folder) -> tuple[list[Record], list[Damage]]:
    """The records of a set that can be used, and what is damaged."""
    records, damage = list[Record](), list[Damage]()
    for key in folder.record_keys:
        try:
            record = await record_of(archive.store, folder.files, key)
            if record is None:
                continue
            records.append(record)
            await check_object(archive.store, record, folder.files.entries)
        except (IntegrityError, UnreadableObject) as error:
            damage.append(Damage.of(layout.node_of(key), error))
    return records, damage


async def newest_first(
    archive: Archive, instance_id: str, at: datetime | None = None
) -> AsyncGenerator[BackupSet, None]:
    """The instance's sets of dumps that began at ``at`` or before, the newest first.

    Raises NoSuchBackup when there is none.
    """
    folders = await list_folders(archive, [instance_id])
    if not folders:
        raise NoSuchBackup(f"{archive.store} has no backup of {instance_id}")
    fitting = [one for one in folders if at is None or one.started_at <= at]
    if not any(one.is_full for one in fitting):
        fitting = list(await confirm_logs(archive, fitting))
    if not any(one.is_full for one in fitting):
        first = folders[0].started_at
        raise NoSuchBackup(
            f"{archive.store}: no backup of {instance_id} began at or before {format_iso(at)}"
            if at is not None
            else f"{archive.store}: {instance_id} has logs of commands and no dump",
            hint=f"the first one began at {format_iso(first)}",
        )
    fitting = [one for one in reversed(fitting) if one.is_full or one.is_catalogued_log]
    done, ahead = 0, 1  # the newest one is often enough
    read = set[str]()
    while done < len(fitting):
        for folder in await read_folders(archive, fitting[done : done + ahead]):
            if folder.is_full and folder.key not in read:
                read.update(one.key for one in folders.parts(folder))
                yield await read_set(archive, folder, folders)
        done, ahead = done + ahead, min(2 * ahead, MOST_AHEAD)


async def named_set(archive: Archive, key: str) -> BackupSet:
    """The set with this key. Raises NoSuchBackup when there is none, UsageError."""
    key = key.strip("/")
    check_set_key(key)
    folders = await list_folders(archive, [key.partition("/")[0]])
    for folder in folders:
        if folder.key == key:
            return await read_set(archive, folder, folders)
    for folder in folders:
        if folder.unreadable is not None and folder.may_tell_of(key):
            raise folder.unreadable
    raise NoSuchBackup(f"{archive.store}: there is no backup set {key!r}")


def check_set_key(key: str) -> None:
    """Raises UsageError for a text that cannot be the key of a set."""
    if layout.set_start(key) is None:
        raise UsageError(
            f"{key!r} is not a backup set",
            hint="a set is named by its key, like r-bp1/2026/11/20261124T021500Z-1187423",
        )


def _rank(record: Record) -> tuple[bool, datetime, str]:
    is_log = backup_type(record) is BackupType.INCREMENTAL
    return not is_log, record.started_at, record.key
