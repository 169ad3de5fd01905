"""What an archive holds beside what the vendor has: the rows of ``archiver ls``."""

import itertools
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, NamedTuple

from archiver.archive import layout
from archiver.archive.acknowledged import Acknowledged, Acknowledgement
from archiver.archive.archive import Archive
from archiver.archive.catalogue import Described
from archiver.archive.completeness import SetNodes, SetTally, incomplete
from archiver.archive.contents import SetFiles, Unrecorded, described, sets_below
from archiver.archive.inventory import Finding, Inventory
from archiver.archive.neighbours import listed_set, sets_around
from archiver.archive.reading import check_object, unsealed
from archiver.archive.verified import found_wrong
from archiver.errors import ArchiverError, BadDocument, IntegrityError, UnreadableObject
from archiver.ids import safe
from archiver.model import Backup, BackupType, NodesExpected, Status
from archiver.stores.base import Store
from archiver.times import TimeRange

# Of what lies in a folder whose name gives no time: it comes first.
_NO_TIME: Final = datetime(1970, 1, 1, tzinfo=UTC)


class State(StrEnum):
    """Where one backup file stands."""

    ARCHIVED = "archived"
    MISSING = "missing"  # the vendor has it, the archive does not
    # Its record cannot be used or is gone, or it is not what that says, or a verify found it wrong.
    DAMAGED = "damaged"
    UNRECORDED = "unrecorded"  # its record is still to come: pull is at work, or was interrupted
    FAILED = "failed"  # it failed at the vendor: there is no file
    UNFINISHED = "unfinished"  # the vendor is still making it
    LISTED = "listed"  # no archive was named to compare with


# The file is there, or at the vendor: a set that lacks it for that lacks more than anybody knows.
_NOT_ACKNOWLEDGED: Final = frozenset((State.MISSING, State.UNRECORDED))


class Row(NamedTuple):
    """One backup file, or without a ``backup_id`` a SHA256SUMS, or a folder that nobody sees into.
    ``expires_at`` is when the vendor deletes its copy, where that is known; ``set_note`` says why
    the set it belongs to is not complete, ``note`` what else there is to say of it, ``error`` why
    what is recorded does not count. ``acknowledged`` says who knows that the vendor failed it, or
    that its set is not complete (then it is ``set_acknowledged``), so that this is no failure.
    ``nodes_expected``: how many nodes its set should have. What nobody knows is None, or empty."""

    instance_id: str
    started_at: datetime | None
    node_id: str
    backup_id: str
    type: BackupType | None
    size: int | None
    state: State
    expires_at: datetime | None
    set_key: str
    set_note: str | None = None
    note: str | None = None
    error: ArchiverError | None = None
    acknowledged: str | None = None
    set_acknowledged: bool = False
    nodes_expected: NodesExpected | None = None

    @property
    def is_standard(self) -> bool:
        return self.node_id == self.instance_id

    @property
    def is_log(self) -> bool:
        return self.type is BackupType.INCREMENTAL


async def archived_rows(
    archive: Archive, instances: Iterable[str] = (), range_: TimeRange | None = None
) -> list[Row]:
    """All rows of :func:`rows_by_instance`: some hundred bytes a backup."""
    return [row async for rows in rows_by_instance(archive, instances, range_) for row in rows]


async def rows_by_instance(
    archive: Archive, instances: Iterable[str] = (), range_: TimeRange | None = None
) -> AsyncGenerator[list[Row], None]:
    """What the archive holds, of some instances or of all, and of the sets that began in the
    range: the rows of one instance after the other, oldest first.

    Raises StoreError; a record that cannot be used is a damaged row.
    """

    def is_meant(folder: str) -> bool:
        return layout.began_in(folder, range_)

    for prefix in [f"{safe(instance)}/" for instance in instances] or [""]:
        rows, sets = list[Row](), dict[str, list[str]]()
        instance_id = ""
        async for one in sets_below(archive.store, prefix, reads=is_meant):
            if not one.key.startswith(f"{instance_id}/"):
                if rows or sets:
                    yield _of_instance(rows, sets)
                rows, sets = [], {}
                instance_id = one.key.partition("/")[0]
            if isinstance(one, SetFiles):
                # Sets around those that are meant say which nodes these should have.
                sets[one.key] = [*one.entries]
                rows += await _rows_of(archive.store, one) if is_meant(one.key) else []
            elif is_meant(one.key):
                rows.append(_bare_row(one.key, one.error))
        yield _of_instance(rows, sets)


def _of_instance(rows: Sequence[Row], sets: Mapping[str, list[str]]) -> list[Row]:
    """The rows of an instance, with what its sets lack; ``sets`` has the keys of the files that are
    in each of its sets."""
    keys = itertools.chain(*sets.values())
    if all(row.is_standard for row in rows) and not any(map(layout.is_in_folder, keys)):
        return with_set_notes(rows)  # it has no nodes, so that no set can lack one
    for row in rows:
        if row.set_key in sets:
            stem = layout.stem_of_node(row.set_key, row.node_id, row.backup_id)
            sets[row.set_key].append(layout.record_key(stem))
    listed = (listed_set(key, files) for key, files in sets.items())
    return with_set_notes(rows, (one for one in listed if one is not None))


async def _rows_of(store: Store, one: SetFiles) -> list[Row]:
    """One set's files, those that it has lost among them."""
    if one.is_as_catalogued:
        return [_recorded_row(entry, None) for entry in one.catalogued]
    rows: list[Row] = []
    keys = [*one.records]
    for key, lost in one.unrecorded().items():
        try:
            came = await store.size(key) is not None
        except UnreadableObject as error:
            rows.append(_damaged_row(key, error))
            continue
        if came:
            keys += filter(layout.is_record, [key])  # a pull at work
        elif not lost.was_recorded:
            rows.append(_unrecorded_row(lost, one.entries[lost.key].size))
        elif layout.is_object(lost.key):
            rows.append(_damaged_row(lost.key, lost.error))
        else:
            rows.append(_bare_row(one.key, lost.error))
    doubt = one.doubt
    return rows + [await _archived_row(store, one, key, doubt) for key in keys]


async def compared_rows(archive: Archive, backups: Iterable[Backup]) -> list[Row]:
    """What the vendor lists, and for each whether the archive holds it.

    Raises UnsafeInput for an id that must not make a path, StoreError.
    """
    inventory = Inventory(archive.store)
    rows = [await _compared_row(inventory, one, await inventory.find(one)) for one in backups]
    starts: dict[str, list[datetime]] = defaultdict(list)
    for row in rows:
        starts[row.instance_id] += [] if row.is_standard else [_began(row)]
    around = [await sets_around(archive, name, starts[name]) for name in starts]
    return with_set_notes(rows, itertools.chain(*around))


async def other_rows(
    archive: Archive,
    instances: Iterable[str],
    range_: TimeRange | None,
    shown: Iterable[Row],
) -> list[Row]:
    """The rows of :func:`rows_by_instance` of some instances, but those of backups that are
    ``shown`` already. Raises StoreError."""
    there = {(row.instance_id, row.node_id, row.backup_id) for row in shown}
    rows = await archived_rows(archive, names, range_) if (names := [*instances]) else []
    return [row for row in rows if (row.instance_id, row.node_id, row.backup_id) not in there]


async def with_acknowledgements(rows: Iterable[Row], acknowledged: Acknowledged) -> list[Row]:
    """The rows, those that somebody has taken note of with who did. Damage is nobody's to
    acknowledge, nor what is still to come. Raises StoreError."""
    await acknowledged.read()
    found, sets = list[Row](), dict[str, Acknowledgement | None]()
    for row in rows:
        may_be_known = row.set_note is not None or row.state is State.FAILED
        if not may_be_known or row.error is not None or row.state in _NOT_ACKNOWLEDGED:
            found.append(row)
            continue
        if row.set_note is not None and row.set_key not in sets:
            sets[row.set_key] = await acknowledged.of(row.set_key)
        whole = sets[row.set_key] if row.set_note is not None else None
        known = whole
        if row.state is State.FAILED:
            name = f"{row.node_id}-{row.backup_id}"
            known = await acknowledged.of_failed(name, row.set_key, row.node_id)
        by = None if known is None else str(known)
        found.append(row._replace(acknowledged=by, set_acknowledged=whole is not None))
    return found


async def _compared_row(inventory: Inventory, backup: Backup, finding: Finding) -> Row:
    error: ArchiverError | None = finding.unreadable
    if finding.damage is not None:
        error = IntegrityError(finding.damage)
    row = _listed_row(backup, State.DAMAGED, finding.transfer.set_key, error)
    if error is not None:
        return row
    if finding.record is None:
        is_there = await inventory.present(finding.transfer.stem)
        return row._replace(
            state=State.UNRECORDED if is_there else _vendor_state(backup, State.MISSING)
        )
    files = await inventory.set_of(finding.record.set_key)
    if wrong := files.at_odds(finding.record) or finding.found_wrong:
        return row._replace(error=wrong)
    if (doubt := files.doubt) is None:
        return _noted(row._replace(state=State.ARCHIVED), finding.record.object_key, files.sums)
    if not backup.is_standard:
        return row._replace(error=doubt)
    return row._replace(state=State.ARCHIVED, note=doubt.message)


def _noted(row: Row, key: str, sums: Mapping[str, str] | None) -> Row:
    """With what there is to say where SHA256SUMS does not name its file."""
    if sums is not None and key in sums:
        return row
    why = f"{key} has a record, but no line in SHA256SUMS"
    if sums is None:
        why = unsealed(is_of_cluster=not row.is_standard)
    return row._replace(note=why) if row.is_standard else row._replace(set_note=why)


def vendor_rows(backups: Iterable[Backup]) -> list[Row]:
    """What the vendor lists, compared with nothing."""
    return with_set_notes(
        [
            _listed_row(
                backup,
                _vendor_state(backup, State.LISTED),
                backup.set_id or f"b{backup.backup_id}",
            )
            for backup in backups
        ]
    )


def with_set_notes(rows: Sequence[Row], archived: Iterable[SetNodes] = ()) -> list[Row]:
    """The rows, oldest first, those of incomplete sets with the reason.

    ``archived`` are sets that the archive holds: those of the rows, and others around them.
    """
    known: dict[str, list[SetNodes]] = defaultdict(list)
    for one in archived:
        known[one.key.partition("/")[0]].append(one)
    # No set lacks a node where each has the instance itself for its only one.
    clusters = {row.instance_id for row in rows if not row.is_standard}
    clusters |= {name for name, sets in known.items() if any(_has_nodes(one) for one in sets)}
    by_instance: dict[str, dict[str, SetTally]] = defaultdict(dict)
    of_clusters = (row for row in rows if row.backup_id and row.instance_id in clusters)
    for row in sorted(of_clusters, key=_began):
        tallies = by_instance[row.instance_id]
        tally = tallies.setdefault(row.set_key, SetTally(_began(row)))
        tally.files += 1
        tally.expected = tally.expected or row.nodes_expected
        tally.held += row.state in (State.ARCHIVED, State.LISTED)
        tally.is_full |= not row.is_log
        if row.state is not State.DAMAGED:  # the archive knows its node; the row may not
            tally.nodes.add(row.node_id)
    notes: dict[tuple[str, str], str] = {}
    for instance_id, tallies in by_instance.items():
        for key, why in incomplete(tallies, known[instance_id]).items():
            tally = tallies[key]
            if tally.files > 1 or tally.held == tally.files:
                notes[instance_id, key] = why
    if notes:
        whys = [notes.get((row.instance_id, row.set_key)) for row in rows]
        rows = [
            row._replace(set_note=why) if why else row for row, why in zip(rows, whys, strict=True)
        ]
    return sorted(rows, key=lambda row: (row.instance_id, _began(row), row.node_id, row.backup_id))


def _has_nodes(one: SetNodes) -> bool:
    return bool(one.nodes - {one.key.partition("/")[0]})


def _began(row: Row) -> datetime:
    return row.started_at or _NO_TIME


async def _archived_row(store: Store, one: SetFiles, key: str, doubt: ArchiverError | None) -> Row:
    try:
        record = await described(store, one, key)
    except (BadDocument, UnreadableObject) as error:
        return _damaged_row(key, error)
    if record is None:
        return _damaged_row(key, BadDocument(key, "it went away just now"))
    wrong: ArchiverError | None = one.at_odds(record)
    wrong = wrong or found_wrong(record.object_key, one.results)
    try:
        await check_object(store, record, one.entries)
    except (IntegrityError, UnreadableObject) as error:
        wrong = error
    row = _recorded_row(record, wrong)
    if doubt is not None:
        # It may be a line of this set that cannot be read: that is damage where nothing else says
        # that a set is whole.
        return row if row.is_standard else row._replace(set_note=doubt.message)
    return _noted(row, record.object_key, one.sums)


def _recorded_row(record: Described, wrong: ArchiverError | None) -> Row:
    return Row(
        instance_id=record.instance_id,
        started_at=record.started_at,
        node_id=record.node_id,
        backup_id=record.backup_id,
        type=record.type,
        size=record.size,
        state=State.ARCHIVED if wrong is None else State.DAMAGED,
        expires_at=None,
        set_key=record.set_key,
        error=wrong,
        nodes_expected=record.nodes_expected,
    )


def _damaged_row(key: str, error: ArchiverError) -> Row:
    """What the key alone says of a file whose record cannot be used, or is gone."""
    set_key = layout.set_of(key)
    node, _, backup_id = layout.backup_name(key).rpartition("-")
    return Row(
        instance_id=key.partition("/")[0],
        started_at=layout.set_start(set_key),
        node_id=node,
        backup_id=backup_id or layout.backup_name(key),
        type=None,
        size=None,
        state=State.DAMAGED,
        expires_at=None,
        set_key=set_key,
        error=error,
    )


def _unrecorded_row(lost: Unrecorded, size: int) -> Row:
    """A file that is still to be recorded: it keeps its set from being complete."""
    row = _damaged_row(lost.key, lost.error)
    why, note = "a file has no record yet", f"{lost.error.message} yet"
    return row._replace(state=State.UNRECORDED, size=size, set_note=why, note=note, error=None)


def _bare_row(key: str, error: ArchiverError) -> Row:
    """A set, a month's SHA256SUMS that cannot be used, or a folder that nobody sees into, and that
    may have any number of backups in it."""
    return Row(
        instance_id=key.partition("/")[0],
        started_at=layout.set_start(key),
        node_id="",
        backup_id="",
        type=None,
        size=None,
        state=State.DAMAGED,
        expires_at=None,
        set_key=key,
        error=error,
    )


def _listed_row(
    backup: Backup, state: State, set_key: str, error: ArchiverError | None = None
) -> Row:
    return Row(
        instance_id=backup.instance_id,
        started_at=backup.started_at,
        node_id=backup.node_id,
        backup_id=backup.backup_id,
        type=backup.type,
        size=backup.size,
        state=state,
        expires_at=backup.expires_at,
        set_key=set_key,
        error=error,
        nodes_expected=backup.nodes_expected,
    )


def _vendor_state(backup: Backup, success: State) -> State:
    states = {Status.FAILED: State.FAILED, Status.UNFINISHED: State.UNFINISHED}
    return states.get(backup.status, success)
