"""Backup sets as a listing shows them: their nodes, whether they are of dumps, what each lacks.

Records are read only of logs that a catalogue calls so, where they are newer than every dump.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from archiver.archive import completeness, layout
from archiver.archive.archive import Archive
from archiver.archive.catalogue import EMPTY, Described
from archiver.archive.contents import SetFiles, Unrecorded, sets_below
from archiver.archive.reading import decode_record, salvaged_sums
from archiver.errors import ArchiverError
from archiver.ids import safe
from archiver.model import BackupType, Kind, NodesExpected

# Sets whose records are read at once.
MOST_AHEAD: Final = 32
# How far away the sets are that one is compared with, and those that may be one backup with these.
_REACH: Final = completeness.REACH + 2 * completeness.ONE_BACKUP


@dataclass(frozen=True, slots=True)
class Folder:
    """A set as a listing shows it, by its ``files``.

    ``logs`` are the keys of the records that say that their file is a log of commands; ``expected``
    is how many nodes it should have, where that is known. ``unreadable`` says why its contents
    are unknown: then it is a set, a folder of sets, or a month's SHA256SUMS, which may name any
    number; the first of these began at ``started_at`` or later.
    """

    key: str
    instance_id: str
    started_at: datetime
    files: SetFiles
    logs: frozenset[str] = frozenset()
    expected: NodesExpected | None = None
    unreadable: ArchiverError | None = None

    def may_tell_of(self, set_key: str) -> bool:
        """Whether it may hold a set, or be the SHA256SUMS that named it."""
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
    def _lost_objects(self) -> list[str]:
        return [one.key for one in self.lost.values() if layout.is_object(one.key)]

    @property
    def nodes(self) -> frozenset[str]:
        """The nodes of its files, by the keys of their records or of what has lost its own. Of a
        set of dumps those that have a dump."""
        left_out = self.logs if self.is_full else frozenset[str]()
        keys = [*self.record_keys, *self._lost_objects]
        found = frozenset(layout.node_of(key) for key in keys if key not in left_out)
        # A cluster has a folder: a file beside it that is called like the set is no node's.
        return found - {self.instance_id} or found

    @property
    def is_sealed(self) -> bool:
        return self.files.sums is not None

    @property
    def is_full(self) -> bool:
        """Whether it is a set of dumps, or may be. It is one of logs (NeedAof), which cannot be
        restored alone, when every record says so, and the suffix of each file without a record."""
        keys, lost = self.record_keys, self._lost_objects
        return (
            not (keys or lost)
            or any(key not in self.logs for key in keys)
            or any(not key.endswith(f".{Kind.AOF}") for key in lost)
        )

    @property
    def is_catalogued_log(self) -> bool:
        """Whether its catalogue says that it is one of logs, which the records may contradict."""
        return not self.is_full and not self.logs.isdisjoint(self.files.known)

    @property
    def is_catalogued_otherwise(self) -> bool:
        """Whether its catalogue calls a file a log that is not named as one, or the reverse."""
        return any(
            (one.key in self.logs)
            != (f"{layout.stem_of(one.key)}.{Kind.AOF}" in self.files.entries)
            for one in self.files.catalogued
        )

    @property
    def is_of_cluster(self) -> bool:
        return bool(self.nodes - {self.instance_id})

    @property
    def looks_complete(self) -> bool:
        """Whether it looks complete by its own listing."""
        is_proven = (self.is_sealed and self.files.doubt is None) or not self.is_of_cluster
        return is_proven and bool(self.record_keys) and not self.lost

    @property
    def set_nodes(self) -> completeness.SetNodes:
        """The same for comparing it with the sets around it."""
        return completeness.SetNodes(
            self.key, self.started_at, self.nodes, self.is_full, self.expected
        )


class Folders(list[Folder]):
    """The sets of instances, and the folders that may hide some: by instance, the oldest first.

    What each lacks by those around it is computed once for all sets of an instance, when it is
    asked for: otherwise each would be compared with some thousand others.
    """

    def __init__(self, folders: Iterable[Folder]) -> None:
        super().__init__(
            sorted(folders, key=lambda one: (one.instance_id, one.started_at, one.key))
        )
        self._around: Final[dict[str, _Around]] = {}

    def parts(self, folder: Folder) -> list[Folder]:
        """The folders of the backup that ``folder`` is of, the first one first: several where each
        shard has its own."""
        return self._of(folder.instance_id).parts(folder)

    def first_parts(self, named: Collection[str] = ()) -> list[Folder]:
        """One folder of each backup, the first; and those ``named`` by their keys."""
        return [one for one in self if one.key in named or self.parts(one)[0].key == one.key]

    def missing_nodes(self, folder: Folder) -> frozenset[str]:
        """The nodes that the backup of ``folder`` should have, and has no file of."""
        found = self._of(folder.instance_id).lacks(folder)
        return frozenset(found.nodes if found else ())

    def why_missing(self, folder: Folder) -> list[str]:
        """Why :meth:`missing_nodes` are missing, in a line each."""
        found = self._of(folder.instance_id).lacks(folder)
        return [found.why] if found else []

    def looking_complete(self, instance_id: str) -> list[Folder]:
        """The sets of an instance that are complete by the listing alone, each by its first folder:
        records and bytes may prove it wrong."""
        return list(self._of(instance_id).complete)

    async def confirm_around(self, archive: Archive, folder: Folder) -> None:
        """Read the records of the sets that ``folder`` is compared with, where the names of their
        files do not confirm which are logs: their catalogue may have been edited. Raises
        StoreError."""
        first = folder.instance_id, folder.started_at - _REACH
        last = folder.instance_id, folder.started_at + _REACH
        low = bisect_left(self, first, key=lambda one: (one.instance_id, one.started_at))
        high = bisect_right(self, last, key=lambda one: (one.instance_id, one.started_at))
        doubted = [at for at in range(low, high) if self[at].is_catalogued_otherwise]
        for some in (doubted[at : at + MOST_AHEAD] for at in range(0, len(doubted), MOST_AHEAD)):
            read = await read_folders(archive, [self[at] for at in some])
            for at, one in zip(some, read, strict=True):
                self[at] = _without_documents(one)
        if doubted:
            self._around.pop(folder.instance_id, None)

    def _of(self, instance_id: str) -> "_Around":
        if instance_id not in self._around:
            low = bisect_left(self, instance_id, key=lambda one: one.instance_id)
            high = bisect_right(self, instance_id, key=lambda one: one.instance_id)
            self._around[instance_id] = _Around(self[low:high])
        return self._around[instance_id]


class _Around:
    """The sets of one instance, the oldest first, and what each lacks by the others."""

    def __init__(self, folders: Sequence[Folder]) -> None:
        known = [one.set_nodes for one in folders if one.unreadable is None]
        self._folders: Final = {one.key: one for one in folders}
        self._known: Final = known
        self._by_key: Final = {one.key: one for one in known}
        self._missing: Final = completeness.missing_nodes(known)
        self._parts: Final = completeness.parts_of_backups(known)
        self.complete: Final = [one for one in folders if self._looks_complete(one)]

    def _looks_complete(self, folder: Folder) -> bool:
        parts = self.parts(folder)
        return parts[0].key == folder.key and all(
            one.looks_complete and one.key not in self._missing for one in parts
        )

    def parts(self, folder: Folder) -> list[Folder]:
        """See :meth:`Folders.parts`."""
        keys = self._parts.get(folder.key, (folder.key,))
        return [folder if key == folder.key else self._folders[key] for key in keys]

    def lacks(self, folder: Folder) -> completeness.Missing | None:
        """What the backup of ``folder`` lacks. More may be known of it now than when all of them
        were listed."""
        own = folder.set_nodes
        if own == self._by_key.get(folder.key):
            return self._missing.get(own.key)
        low = bisect_left(self._known, own.started_at - _REACH, key=lambda one: one.started_at)
        high = bisect_right(self._known, own.started_at + _REACH, key=lambda one: one.started_at)
        near = [own, *(one for one in self._known[low:high] if one.key != own.key)]
        return completeness.missing_nodes(near, {own.key}).get(own.key)


def backup_type(record: Described) -> BackupType | None:
    """Dump or log, as the source said, or else by the suffix of the bytes that came: a dump may be
    encrypted, and a log be empty or begin as a dump does. None where nothing tells (pure)."""
    if record.type is not None:
        return record.type
    suffix = record.object_key.rpartition(".")[2]
    by_bytes = {str(Kind.RDB): BackupType.FULL, str(Kind.AOF): BackupType.INCREMENTAL}
    return by_bytes.get(suffix)


def _by_files(folder: Folder, files: SetFiles) -> Folder:
    """The same set, by its catalogue and the documents that were read ahead (pure). A record that
    cannot be used says nothing."""
    said = dict[str, Described]()
    for key in files.records:
        data = files.documents.get(key)
        if key in files.known:
            said[key] = files.known[key]
        elif isinstance(data, bytes):
            with suppress(ArchiverError):
                said[key] = decode_record(key, data)
    logs = (key for key, one in said.items() if backup_type(one) is BackupType.INCREMENTAL)
    expected = (one.nodes_expected for one in said.values() if one.nodes_expected is not None)
    return replace(folder, files=files, logs=frozenset(logs), expected=next(expected, None))


async def list_folders(archive: Archive, instances: Collection[str] = ()) -> Folders:
    """Every set of these instances, or of all, every folder that may hide some, and every
    SHA256SUMS that may have named some and cannot be read. Raises StoreError."""
    folders: list[Folder] = []
    for prefix in [f"{safe(instance)}/" for instance in instances] or [""]:
        async for one in sets_below(archive.store, prefix, reads=lambda _: True):
            instance_id = one.key.partition("/")[0]
            if isinstance(one, SetFiles):
                if (start := layout.set_start(one.key)) is not None:
                    found = _by_files(Folder(one.key, instance_id, start, one), one)
                    folders.append(_without_documents(found))
            elif one.hides_sets:
                files, start = SetFiles(one.key, {}), layout.span(one.key)[0]
                folders.append(Folder(one.key, instance_id, start, files, unreadable=one.error))
    return Folders(folders)


def _without_documents(folder: Folder) -> Folder:
    """The same: of all sets together there may be any number."""
    return replace(folder, files=replace(folder.files, documents={}))


async def read_folders(archive: Archive, folders: Sequence[Folder]) -> list[Folder]:
    """The same sets by their records and SHA256SUMS, read many at once, whatever a catalogue says
    of them. Raises StoreError."""
    store, listed = archive.store, [one for one in folders if one.unreadable is None]
    months = sorted({layout.month_of(one.key) for one in listed})
    keys = [key for one in listed for key in one.record_keys]
    documents = await store.read_many([*map(layout.sums_key, months), *keys])
    sums = {
        month: await salvaged_sums(store, month, data)
        for month in months
        if (data := documents[layout.sums_key(month)]) is not None
    }
    found: list[Folder] = []
    for one in folders:
        if one.unreadable is not None:
            found.append(one)
            continue
        own = {key: documents[key] for key in one.record_keys}
        files = one.files.by(EMPTY, sums.get(layout.month_of(one.key)))
        found.append(_by_files(one, replace(files, documents=own)))
    return found


async def confirm_logs(
    archive: Archive, folders: Iterable[Folder], at: datetime | None = None
) -> Folders:
    """The same sets; those that their catalogue calls logs, and that are newer than the instance's
    newest set of dumps that began at ``at`` or before, by their records. Raises StoreError."""
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
    for first in range(0, len(of_all), MOST_AHEAD):
        read = await read_folders(archive, of_all[first : first + MOST_AHEAD])
        found += map(_without_documents, read)
    return Folders(found)
