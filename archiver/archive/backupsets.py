"""The backup sets of an archive, and which of them can be restored whole. Reads, never writes.

A listing alone gives every set's folder, time and nodes; the records are read of the few that are
looked at closer. A set is complete when

1. it has its SHA256SUMS, which a pull writes once every file that was listed for it is here,
2. every file that the SHA256SUMS names has its object and its record, which contradicts neither
   itself nor them,
3. no node is missing, by the sets around it (:mod:`archiver.archive.sets`), and none has a log of
   commands alone, or an empty file for a dump.

What a file is, a dump or a log, follows from what its source said, not from its suffix: a dump may
be encrypted, a log be empty or begin as a dump does. What nothing tells is taken for a dump, and
does not count as complete.
"""

from collections.abc import AsyncGenerator, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from archiver.archive import layout, sets
from archiver.archive.archive import Archive
from archiver.archive.backup_types import backup_type, logs_among, unrestorable
from archiver.archive.reading import read_record, read_sums
from archiver.archive.record import Record
from archiver.errors import ArchiverError, BadDocument, NoSuchBackup, UnreadableObject, UsageError
from archiver.model import BackupType


@dataclass(frozen=True, slots=True)
class Folder:
    """A set as a listing shows it; ``sizes`` in bytes, by key.

    ``logs`` are the keys of the records that say that their file is a log of commands. ``hides``
    says why nobody sees what is in it: it may be a set, or a folder with any number of sets, the
    first of which began at ``started_at`` or later.
    """

    key: str
    instance_id: str
    started_at: datetime
    sizes: Mapping[str, int]
    logs: frozenset[str] = frozenset()
    hides: ArchiverError | None = None

    @property
    def record_keys(self) -> tuple[str, ...]:
        return tuple(sorted(key for key in self.sizes if layout.is_record(key)))

    @property
    def nodes(self) -> frozenset[str]:
        """The nodes of its records, by their names: ``<node>-<backup id>.json``. Of a set of dumps
        those that have one."""
        left_out = self.logs if self.is_full else frozenset[str]()
        return frozenset(_node(key) for key in self.record_keys if key not in left_out)

    @property
    def is_sealed(self) -> bool:
        return layout.sums_key(self.key) in self.sizes

    @property
    def is_full(self) -> bool:
        """Whether it is one of dumps, or was, or may be. A set of logs (NeedAof) is none to fall
        back on: it is one when every record in it says so."""
        keys = self.record_keys
        return not keys or any(key not in self.logs for key in keys)

    @property
    def is_of_cluster(self) -> bool:
        return bool(self.nodes - {self.instance_id})


@dataclass(frozen=True, slots=True)
class BackupSet:
    """A set with its records read.

    ``missing`` are nodes that it should have. ``gaps`` say in a line each what is not here;
    ``damage`` what is here and contradicts itself: a node, and a line.
    """

    folder: Folder
    records: tuple[Record, ...]
    missing: tuple[str, ...]
    gaps: tuple[str, ...]
    damage: tuple[tuple[str, str], ...]

    @property
    def damaged(self) -> tuple[str, ...]:
        return tuple(why for _, why in self.damage)

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


async def list_folders(archive: Archive, instances: Collection[str] = ()) -> list[Folder]:
    """Every set of these instances, or of all, and every folder that may hide some: by instance,
    the oldest first. Raises StoreError."""
    found: dict[str, dict[str, int]] = {}
    hidden: dict[str, Folder] = {}
    for prefix in [f"{layout.safe(instance)}/" for instance in instances] or [""]:
        async for entry in archive.store.entries(prefix):
            folder = entry.key.rpartition("/")[0]
            if entry.hides is not None and layout.may_hold_sets(entry.key):
                instance_id, began = entry.key.partition("/")[0], layout.span(entry.key)[0]
                hidden[entry.key] = Folder(entry.key, instance_id, began, {}, hides=entry.hides)
            elif layout.set_start(folder) is not None:
                found.setdefault(folder, {})[entry.key] = entry.size
    logs = await logs_among(archive, [key for sizes in found.values() for key in sizes])
    folders = [
        Folder(key, key.partition("/")[0], start, sizes, frozenset(logs & sizes.keys()))
        for key, sizes in found.items()
        if (start := layout.set_start(key)) is not None
    ]
    return sorted(
        [*folders, *hidden.values()], key=lambda one: (one.instance_id, one.started_at, one.key)
    )


def missing_nodes(folder: Folder, folders: Iterable[Folder]) -> frozenset[str]:
    """The nodes that ``folder`` should have, by the sets around it, and has no file of (pure)."""
    near = [_known(one) for one in _near(folder, folders)]
    found = sets.missing_nodes(near, {folder.key}).get(folder.key)
    beside = sets.nodes_beside(near).get(folder.key, frozenset())
    return beside | frozenset(found.nodes if found else ())


def why_missing(folder: Folder, folders: Iterable[Folder]) -> list[str]:
    """Why :func:`missing_nodes` are missing, in a line each (pure)."""
    near = [_known(one) for one in _near(folder, folders)]
    found = sets.missing_nodes(near, {folder.key}).get(folder.key)
    beside = sorted(sets.nodes_beside(near).get(folder.key, ()))
    why = [f"node {node} has no file in it, but in a folder beside it" for node in beside]
    return [*why, found.why] if found else why


def _near(folder: Folder, folders: Iterable[Folder]) -> Iterable[Folder]:
    """Those that may say something of it, and what may be one backup with them."""
    reach = sets.REACH + 2 * sets.ONE_BACKUP
    for one in folders:
        if (
            one.hides is None
            and one.instance_id == folder.instance_id
            and abs(one.started_at - folder.started_at) <= reach
        ):
            yield one


def _known(folder: Folder) -> sets.SetNodes:
    return sets.SetNodes(folder.key, folder.started_at, folder.nodes, folder.is_full)


def looks_complete(folder: Folder, folders: Iterable[Folder]) -> bool:
    """What the listing alone says of it (pure); records and bytes may prove it wrong."""
    return folder in looking_complete(list(_near(folder, folders)))


def looking_complete(folders: Sequence[Folder]) -> list[Folder]:
    """Those sets of one instance that look complete, in one go (pure)."""
    known = [_known(one) for one in folders if one.hides is None]
    lacking = sets.missing_nodes(known).keys() | sets.nodes_beside(known).keys()
    return [one for one in folders if one.is_sealed and one.nodes and one.key not in lacking]


async def read_set(archive: Archive, folder: Folder, folders: Sequence[Folder]) -> BackupSet:
    """Read a set's records, and hold them against its SHA256SUMS and its objects.

    Raises StoreError.
    """
    if folder.hides is not None:
        return BackupSet(folder, (), (), (), (("", folder.hides.message),))
    records, damage = await _records(archive, folder)
    sums: dict[str, str] | None = {}
    try:
        sums = await read_sums(archive.store, folder.key)
    except (BadDocument, UnreadableObject) as error:
        damage.append(("", error.message))
    missing = set(missing_nodes(folder, folders))
    gaps = why_missing(folder, folders)
    if sums is None:
        gaps.append("it has no SHA256SUMS: the pull that brought it did not see it complete")
    elif sums:
        for name, why in _against_sums(records, sums):
            if f"{folder.key}/{_stem(name)}.json" not in folder.sizes:
                missing.add(_node(name))
                gaps.append(why)
            elif name not in sums:
                # A file that came after the others: a pull will write it down when it is done.
                gaps.append(why)
            else:
                damage.append((_node(name), why))
    present = {record.node_id for record in records}
    if folder.is_full:
        gaps += unrestorable(records)
        present = {r.node_id for r in records if backup_type(r) is not BackupType.INCREMENTAL}
        missing |= {record.node_id for record in records} - present
    return BackupSet(
        folder, tuple(records), tuple(sorted(missing - present)), tuple(gaps), tuple(damage)
    )


async def _records(archive: Archive, folder: Folder) -> tuple[list[Record], list[tuple[str, str]]]:
    """The records of a set that can be used, and what is damaged: a node, and a line."""
    records, damage = list[Record](), list[tuple[str, str]]()
    for key in folder.record_keys:
        try:
            record = await read_record(archive.store, key)
        except (BadDocument, UnreadableObject) as error:
            damage.append((_node(key), error.message))
            continue
        if record is not None:
            records.append(record)
            damage += [(record.node_id, why) for why in _against_listing(record, folder)]
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
    fitting = [one for one in folders if one.is_full and (at is None or one.started_at <= at)]
    if not fitting:
        first = folders[0].started_at
        raise NoSuchBackup(
            f"{archive.store}: no backup of {instance_id} began at or before "
            f"{at:%Y-%m-%dT%H:%M:%SZ}"
            if at is not None
            else f"{archive.store}: {instance_id} has logs of commands and no dump",
            hint=f"the first one began at {first:%Y-%m-%dT%H:%M:%SZ}",
        )
    for folder in reversed(fitting):
        yield await read_set(archive, folder, folders)


async def named_set(archive: Archive, key: str) -> BackupSet:
    """The set in the folder ``key``. Raises NoSuchBackup when there is none, UsageError."""
    key = key.strip("/")
    check_set_key(key)
    folders = await list_folders(archive, [key.partition("/")[0]])
    for folder in folders:
        if folder.key == key:
            return await read_set(archive, folder, folders)
    raise NoSuchBackup(f"{archive.store}: there is no backup set {key!r}")


def check_set_key(key: str) -> None:
    """Raises UsageError for what no set is called."""
    if layout.set_start(key) is None:
        raise UsageError(
            f"{key!r} is no backup set",
            hint="a set is named by its folder, like r-bp1/2026/11/20261124T021500Z-1187423",
        )


def _against_listing(record: Record, folder: Folder) -> Iterable[str]:
    size = folder.sizes.get(record.object_key)
    if size is None:
        yield f"{record.object_key} is missing"
    elif size != record.size:
        yield f"{record.object_key} has {size:,} bytes, and its record says {record.size:,}"


def _against_sums(records: Iterable[Record], named: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    """Files for which SHA256SUMS and records differ: name, and how."""
    recorded = {record.object_key.rpartition("/")[2]: record.sha256 for record in records}
    for name in sorted(named.keys() | recorded.keys()):
        if name not in recorded:
            yield name, f"{name} is in SHA256SUMS and has no record that can be read"
        elif name not in named:
            yield name, f"{name} is recorded and not in SHA256SUMS"
        elif named[name] != recorded[name]:
            yield name, f"{name}: its record and SHA256SUMS name different SHA-256s"


def _rank(record: Record) -> tuple[bool, datetime, str]:
    is_log = backup_type(record) is BackupType.INCREMENTAL
    return not is_log, record.started_at, record.key


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _node(key: str) -> str:
    return _stem(key.rpartition("/")[2]).rpartition("-")[0]
