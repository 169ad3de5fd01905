"""The backup sets of an archive, and which of them can be restored whole. Reads, never writes.

A listing alone gives every set's folder, time and nodes; the records are read of the few that are
looked at closer. A set is complete when

1. SHA256SUMS names it, which a pull sees to once every file that was listed for it is here,
2. every file of it that SHA256SUMS names has its object and its record, which contradicts neither
   itself nor them,
3. no node is missing, by the sets around it (:mod:`archiver.archive.completeness`), and none has
   a log of commands alone, or an empty file for a dump.

A standard instance's set is one file, and complete without a line in SHA256SUMS, too: the record
proves the bytes. A file that SHA256SUMS or an earlier verify names and that has no record is
damage, and so is whatever contradicts itself. An object that nothing names is still to be recorded,
by a pull that is at work or by the next one: the set is not complete.

What a file is, a dump or a log, follows from what its source said, not from its suffix: a dump may
be encrypted, a log be empty or begin as a dump does. What nothing tells is taken for a dump, and
does not count as complete.
"""

from bisect import bisect_left, bisect_right
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, overload

from archiver.archive import completeness, layout
from archiver.archive.archive import Archive
from archiver.archive.backup_types import backup_type, logs_among, unrestorable
from archiver.archive.catalogue import NOTHING_KNOWN
from archiver.archive.contents import SetFiles, Unrecorded, record_of, sets_below
from archiver.archive.reading import MonthSums, at_odds, check_object, salvaged_sums, unsealed
from archiver.archive.record import Record
from archiver.errors import (
    EXIT_OK,
    ArchiverError,
    IntegrityError,
    NoSuchBackup,
    UnreadableObject,
    UsageError,
)
from archiver.ids import safe
from archiver.model import BackupType, Kind, NodesExpected
from archiver.times import format_iso

# Sets whose records are read at once.
_MOST_AHEAD: Final = 32


@dataclass(frozen=True, slots=True)
class Folder:
    """A set as a listing shows it, by its ``files``.

    ``logs`` are the keys of the records that say that their file is a log of commands; ``expected``
    is how many nodes it should have, where that is known. ``hides`` says why nobody sees what is in
    it: it may be a set, a folder with any number of sets, or a month's SHA256SUMS, which named any
    number. The first of these began at ``started_at`` or later.
    """

    key: str
    instance_id: str
    started_at: datetime
    files: SetFiles
    logs: frozenset[str] = frozenset()
    expected: NodesExpected | None = None
    hides: ArchiverError | None = None

    def may_tell_of(self, set_key: str) -> bool:
        """Whether a set lies in it, or it is the SHA256SUMS that may have named it."""
        within = layout.month_of(self.key) if layout.is_of_a_month(self.key) else self.key
        return set_key.startswith(f"{within}/")

    @property
    def record_keys(self) -> tuple[str, ...]:
        return tuple(sorted(self.files.records))

    @property
    def lost(self) -> dict[str, Unrecorded]:
        """Files that are or were in it and have no record, by the keys of their records."""
        return self.files.unrecorded()

    @property
    def nodes(self) -> frozenset[str]:
        """The nodes of its records, by their keys, and of what has lost its own. Of a set of dumps
        those that have one."""
        left_out = self.logs if self.is_full else frozenset[str]()
        keys = [*self.record_keys, *self._lost_objects]
        found = frozenset(layout.node_of(key) for key in keys if key not in left_out)
        # Nodes have a folder: what is called like that beside it was put there.
        return found - {self.instance_id} or found

    @property
    def _lost_objects(self) -> list[str]:
        return [one.key for one in self.lost.values() if layout.is_object(one.key)]

    @property
    def is_sealed(self) -> bool:
        return self.files.sums is not None

    @property
    def is_full(self) -> bool:
        """Whether it is one of dumps, or was, or may be. A set of logs (NeedAof) is none to fall
        back on: it is one when every record in it says so, and the suffix of what has none."""
        keys, lost = self.record_keys, self._lost_objects
        return (
            not (keys or lost)
            or any(key not in self.logs for key in keys)
            or any(not key.endswith(f".{Kind.AOF}") for key in lost)
        )

    @property
    def is_catalogued_log(self) -> bool:
        """Whether it is one of logs by the word of its catalogue, which is derived."""
        return not self.is_full and not self.logs.isdisjoint(self.files.known.entries)

    @property
    def is_of_cluster(self) -> bool:
        return bool(self.nodes - {self.instance_id})

    @property
    def may_be_whole(self) -> bool:
        """Whether nothing in it by itself, as listed, speaks against that."""
        is_proven = (self.is_sealed and self.files.doubt is None) or not self.is_of_cluster
        return is_proven and bool(self.record_keys) and not self.lost


@dataclass(frozen=True, slots=True)
class Damage:
    """What is wrong with the file of a node, or with more of a set (``""``), in a line.
    ``exit_code`` is 6 for what the store does not give, else 3."""

    node_id: str
    why: str
    exit_code: int = IntegrityError.exit_code


def exit_code_of(damage: Iterable[Damage]) -> int:
    """0 without any; 6 when all of it is what the store does not give (pure)."""
    codes = {one.exit_code for one in damage}
    return (
        IntegrityError.exit_code
        if IntegrityError.exit_code in codes
        else max(codes, default=EXIT_OK)
    )


@dataclass(frozen=True, slots=True)
class BackupSet:
    """A set with its records read.

    ``missing`` are nodes that it should have. ``gaps`` say in a line each what has not come;
    ``damage`` what is here and contradicts itself, and what was here. ``notes`` are of a complete
    set, and say what it could have besides.
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
        """Of each node the file to restore: the newest dump, or without one the newest log."""
        found: dict[str, Record] = {}
        for record in sorted(self.records, key=_rank):
            found[record.node_id] = record
        return tuple(found[node] for node in sorted(found))


class Folders(Sequence[Folder]):
    """The sets of instances, and the folders that may hide some: by instance, the oldest first.

    What the sets around each say of it is worked out once for all of an instance, when it is asked
    for the first time: a set would else be compared with some thousand others.
    """

    def __init__(self, folders: Iterable[Folder]) -> None:
        order = sorted(folders, key=lambda one: (one.instance_id, one.started_at, one.key))
        self._folders: Final = order
        self._around: Final[dict[str, _Around]] = {}

    @overload
    def __getitem__(self, place: int) -> Folder: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Folder]: ...

    def __getitem__(self, place: int | slice) -> Folder | Sequence[Folder]:
        return self._folders[place]

    def __len__(self) -> int:
        return len(self._folders)

    def missing_nodes(self, folder: Folder) -> frozenset[str]:
        """The nodes that ``folder`` should have, by the sets around it, and has no file of."""
        found, beside = self._of(folder.instance_id).lacks(folder)
        return beside | frozenset(found.nodes if found else ())

    def why_missing(self, folder: Folder) -> list[str]:
        """Why :meth:`missing_nodes` are missing, in a line each."""
        found, beside = self._of(folder.instance_id).lacks(folder)
        why = [f"node {node} has its file in a folder beside it" for node in sorted(beside)]
        return [*why, found.why] if found else why

    def looking_complete(self, instance_id: str) -> list[Folder]:
        """What the listing alone says of an instance's sets: records and bytes may prove it
        wrong."""
        return list(self._of(instance_id).whole)

    def _of(self, instance_id: str) -> "_Around":
        if instance_id not in self._around:
            low = bisect_left(self._folders, instance_id, key=_instance)
            high = bisect_right(self._folders, instance_id, key=_instance)
            self._around[instance_id] = _Around(self._folders[low:high])
        return self._around[instance_id]


class _Around:
    """The sets of one instance, the oldest first, and what each lacks by the others."""

    def __init__(self, folders: Sequence[Folder]) -> None:
        known = [_known(one) for one in folders if one.hides is None]
        self._known: Final = known
        self._by_key: Final = {one.key: one for one in known}
        self._missing: Final = completeness.missing_nodes(known)
        self._beside: Final = completeness.nodes_beside(known)
        lacking = self._missing.keys() | self._beside.keys()
        self.whole: Final = tuple(o for o in folders if o.may_be_whole and o.key not in lacking)

    def lacks(self, folder: Folder) -> tuple[completeness.Missing | None, frozenset[str]]:
        """Nodes that others have, and nodes that lie in folders beside it. ``folder`` may be known
        better by now than when all of them were listed."""
        own = _known(folder)
        if own == self._by_key.get(folder.key):
            return self._missing.get(own.key), self._beside.get(own.key, frozenset())
        # What may say something of it, and what may be one backup with that.
        reach = completeness.REACH + 2 * completeness.ONE_BACKUP
        low = bisect_left(self._known, own.started_at - reach, key=_start)
        high = bisect_right(self._known, own.started_at + reach, key=_start)
        near = [own, *(one for one in self._known[low:high] if one.key != own.key)]
        found = completeness.missing_nodes(near, {own.key}).get(own.key)
        return found, completeness.nodes_beside(near).get(own.key, frozenset())


def _known(folder: Folder) -> completeness.SetNodes:
    return completeness.SetNodes(
        folder.key, folder.started_at, folder.nodes, folder.is_full, folder.expected
    )


def _instance(folder: Folder) -> str:
    return folder.instance_id


def _start(one: completeness.SetNodes) -> datetime:
    return one.started_at


async def list_folders(archive: Archive, instances: Collection[str] = ()) -> Folders:
    """Every set of these instances, or of all, every folder that may hide some, and every
    SHA256SUMS that may have named some and cannot be read. Raises StoreError."""
    folders: list[Folder] = []
    for prefix in [f"{safe(instance)}/" for instance in instances] or [""]:
        async for one in sets_below(archive.store, prefix, reads=lambda _: True):
            if isinstance(one, Unrecorded):
                folders.append(_folder(SetFiles(one.key, {}), layout.span(one.key)[0], one.error))
            elif (start := layout.set_start(one.key)) is not None:
                folders.append(_folder(one, start))
    return Folders(folders)


def _folder(files: SetFiles, start: datetime, hides: ArchiverError | None = None) -> Folder:
    return Folder(
        files.key,
        files.key.partition("/")[0],
        start,
        replace(files, documents={}),  # there may be any number
        logs_among(files),
        files.expected,
        hides,
    )


async def _read(archive: Archive, folders: Sequence[Folder]) -> list[Folder]:
    """The same sets by their records and SHA256SUMS, read many at once, whatever a catalogue says
    of them. Raises StoreError."""
    store, seen = archive.store, [one for one in folders if one.hides is None]
    months = {layout.month_of(one.key) for one in seen}
    keys = [key for one in seen for key in one.record_keys]
    documents = await store.read_many([*map(layout.sums_key, sorted(months)), *keys])
    sums = {
        month: await salvaged_sums(store, month, data)
        for month in months
        if (data := documents[layout.sums_key(month)]) is not None
    }
    return [one if one.hides else _as_read(one, documents, sums) for one in folders]


def _as_read(
    folder: Folder,
    documents: Mapping[str, bytes | ArchiverError | None],
    sums: Mapping[str, MonthSums],
) -> Folder:
    own = {key: documents[key] for key in folder.record_keys}
    files = replace(folder.files, known=NOTHING_KNOWN, documents=own)
    if (said := sums.get(layout.month_of(folder.key))) is not None:
        files = files.with_sums(said)
    return replace(folder, files=files, logs=logs_among(files))


async def read_set(archive: Archive, folder: Folder, folders: Folders) -> BackupSet:
    """Read a set's records and SHA256SUMS, and hold them against one another and its objects.

    Raises StoreError.
    """
    if (hides := folder.hides) is not None:
        return BackupSet(folder, (), (), (), (Damage("", hides.message, hides.exit_code),))
    if not folder.files.documents:
        [folder] = await _read(archive, [folder])
    records, damage = await _records(archive, folder)
    doubts = _doubts(folder, records, damage)
    gaps, notes = (doubts, []) if folder.is_of_cluster else ([], doubts)
    said = (record.nodes_expected for record in records)
    expected = next((one for one in said if one is not None), folder.expected)
    folder = replace(folder, expected=expected)
    lost = folder.lost
    for key, one in lost.items():
        if await _has_come(archive, key):
            gaps.append(f"{one.key} appeared just now")
        elif not one.was_recorded:
            gaps.append(f"{one.error.message} yet")
        else:
            damage.append(Damage(layout.node_of(one.key), one.error.message, one.error.exit_code))
    missing = set(folders.missing_nodes(folder))
    missing |= {layout.node_of(one.key) for one in lost.values() if layout.is_object(one.key)}
    gaps = [*folders.why_missing(folder), *gaps]
    present = {record.node_id for record in records}
    if folder.is_full:
        gaps += unrestorable(records)
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
    """In a line each, what SHA256SUMS lacks of a set; what is wrong goes to ``damage``. Of a
    standard instance, a SHA256SUMS that cannot be read is as good as none: the record proves the
    bytes."""
    sums, notes = folder.files.sums, list[str]()
    if (doubt := folder.files.doubt) is not None:
        if folder.is_of_cluster:
            damage.append(Damage("", doubt.message, doubt.exit_code))
            return []
        notes = [doubt.message]
    if sums is None:
        return notes or [unsealed(is_of_cluster=folder.is_of_cluster)]
    damage += [
        Damage(record.node_id, odds.message)
        for record in records
        if (odds := at_odds(record, sums)) is not None
    ]
    # A file that came after the others: a pull will write it down when it is done.
    late = [record.object_key for record in records if record.object_key not in sums]
    return notes or [f"{key} has a record, but no line in SHA256SUMS" for key in late]


async def confirmed(
    archive: Archive, folders: Iterable[Folder], at: datetime | None = None
) -> Folders:
    """The same sets; of each instance those that its catalogue calls logs, and that are newer than
    the newest of dumps that began at ``at`` or before, by their records. Raises StoreError."""
    found, newer = list[Folder](), dict[str, list[Folder]]()
    for one in folders:
        is_meant = at is None or one.started_at <= at
        if one.is_full and is_meant:
            found += newer.pop(one.instance_id, [])
        if one.is_catalogued_log and is_meant:
            newer.setdefault(one.instance_id, []).append(one)
        else:
            found.append(one)
    of_all = [one for some in newer.values() for one in some]
    for first in range(0, len(of_all), _MOST_AHEAD):
        read = await _read(archive, of_all[first : first + _MOST_AHEAD])
        found += [replace(one, files=replace(one.files, documents={})) for one in read]
    return Folders(found)


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
            damage.append(Damage(layout.node_of(key), error.message, error.exit_code))
    return records, damage


async def newest_first(
    archive: Archive, instance_id: str, at: datetime | None = None
) -> AsyncGenerator[BackupSet, None]:
    """The instance's sets of dumps that began at ``at`` or before, the newest first.

    Raises NoSuchBackup when there is none.
    """
    folders = await list_folders(archive, [instance_id])
    if not folders:
        raise NoSuchBackup(f"{archive.store}: there is no backup of {instance_id} in it")
    fitting = [one for one in folders if at is None or one.started_at <= at]
    if not any(one.is_full for one in fitting):
        fitting = list(await confirmed(archive, fitting))
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
    while done < len(fitting):
        for folder in await _read(archive, fitting[done : done + ahead]):
            if folder.is_full:
                yield await read_set(archive, folder, folders)
        done, ahead = done + ahead, min(2 * ahead, _MOST_AHEAD)


async def named_set(archive: Archive, key: str) -> BackupSet:
    """The set with this key. Raises NoSuchBackup when there is none, UsageError."""
    key = key.strip("/")
    check_set_key(key)
    folders = await list_folders(archive, [key.partition("/")[0]])
    for folder in folders:
        if folder.key == key:
            return await read_set(archive, folder, folders)
    for folder in folders:
        if folder.hides is not None and folder.may_tell_of(key):
            raise folder.hides
    raise NoSuchBackup(f"{archive.store}: there is no backup set {key!r}")


def check_set_key(key: str) -> None:
    """Raises UsageError for what no set is called."""
    if layout.set_start(key) is None:
        raise UsageError(
            f"{key!r} is not a backup set",
            hint="a set is named by its key, like r-bp1/2026/11/20261124T021500Z-1187423",
        )


def _rank(record: Record) -> tuple[bool, datetime, str]:
    is_log = backup_type(record) is BackupType.INCREMENTAL
    return not is_log, record.started_at, record.key
