"""What an archive holds beside what the vendor has: the rows of ``archiver ls``."""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from archiver.archive import layout
from archiver.archive.archive import Archive
from archiver.archive.inventory import Inventory
from archiver.archive.neighbours import listed_set, sets_around
from archiver.archive.reading import read_record
from archiver.archive.sets import SetNodes, SetTally, incomplete
from archiver.errors import ArchiverError, BadDocument, IntegrityError, UnreadableObject
from archiver.model import Backup, BackupType, Status

_UNSEALED: Final = "it has no SHA256SUMS: the pull that brought it did not see it complete"

# Of what lies in a folder whose name gives no time: it comes first.
_NO_TIME: Final = datetime(1970, 1, 1, tzinfo=UTC)


class State(StrEnum):
    """Where one backup file stands."""

    ARCHIVED = "archived"
    MISSING = "missing"  # the vendor has it, the archive does not
    DAMAGED = "damaged"  # recorded, and the object is gone or of another size
    FAILED = "failed"  # it failed at the vendor: there is no file
    UNFINISHED = "unfinished"  # the vendor is still making it
    LISTED = "listed"  # no archive was named to compare with


@dataclass(frozen=True, slots=True)
class Row:
    """One backup file, or a folder that nobody sees into. ``expires_at`` is when the vendor deletes
    its copy, where that is known; ``set_note`` says why the set it belongs to is not complete,
    ``error`` why what is recorded does not count."""

    instance_id: str
    started_at: datetime
    node_id: str
    backup_id: str
    type: str
    size: int
    state: State
    expires_at: datetime | None
    set_key: str
    set_note: str | None = None
    error: ArchiverError | None = None

    @property
    def is_log(self) -> bool:
        return self.type == BackupType.INCREMENTAL


async def archived_rows(archive: Archive, instances: Iterable[str] = ()) -> list[Row]:
    """What the archive holds, of some instances or of all, oldest first.

    Raises StoreError; a record that cannot be used is a damaged row.
    """
    rows: list[Row] = []
    keys: dict[str, list[str]] = defaultdict(list)
    for prefix in [f"{layout.safe(instance)}/" for instance in instances] or [""]:
        async for entry in archive.store.entries(prefix):
            if entry.hides is not None and layout.may_hold_sets(entry.key):
                rows.append(_hidden_row(entry.key, entry.hides))
                continue
            keys[entry.key.rpartition("/")[0]].append(entry.key)
            if layout.is_record(entry.key):
                rows.append(await _archived_row(archive, entry.key))
    found = (listed_set(folder, there) for folder, there in keys.items())
    sets = [one for one in found if one is not None]
    unsealed = {folder for folder, there in keys.items() if layout.sums_key(folder) not in there}
    return [
        replace(row, set_note=row.set_note or (_UNSEALED if row.set_key in unsealed else None))
        for row in with_set_notes(rows, sets)
    ]


async def compared_rows(archive: Archive, backups: Iterable[Backup]) -> list[Row]:
    """What the vendor lists, and for each whether the archive holds it.

    Raises UnsafeInput for an id that must not make a path, StoreError.
    """
    rows, inventory = [], Inventory(archive.store)
    for backup in backups:
        finding = await inventory.find(backup)
        error: ArchiverError | None = finding.unreadable
        if finding.damage is not None:
            error = IntegrityError(finding.damage)
        if finding.record is not None:
            state = State.ARCHIVED
        elif error is not None:
            state = State.DAMAGED
        else:
            state = _vendor_state(backup, State.MISSING)
        rows.append(_listed_row(backup, state, finding.transfer.set_key, error))
    starts: dict[str, list[datetime]] = defaultdict(list)
    for row in rows:
        starts[row.instance_id] += [row.started_at] if row.node_id != row.instance_id else []
    around = [await sets_around(archive, name, starts[name]) for name in starts]
    return with_set_notes(rows, itertools.chain(*around))


def vendor_rows(backups: Iterable[Backup]) -> list[Row]:
    """What the vendor lists, compared with nothing."""
    return with_set_notes(
        [
            _listed_row(
                backup,
                _vendor_state(backup, State.LISTED),
                backup.job_id or f"b{backup.backup_id}",
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
    by_instance: dict[str, dict[str, SetTally]] = defaultdict(dict)
    for row in sorted(rows, key=lambda row: row.started_at):
        tallies = by_instance[row.instance_id]
        tally = tallies.setdefault(row.set_key, SetTally(row.started_at))
        tally.files += 1
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
    return sorted(
        (replace(row, set_note=notes.get((row.instance_id, row.set_key))) for row in rows),
        key=lambda row: (row.instance_id, row.started_at, row.node_id, row.backup_id),
    )


async def _archived_row(archive: Archive, key: str) -> Row:
    folder = key.rpartition("/")[0]
    try:
        record = await read_record(archive.store, key)
        size = None if record is None else await archive.store.size(record.object_key)
    except (BadDocument, UnreadableObject) as error:
        return _damaged_row(key, error)
    if record is None:
        return _damaged_row(key, BadDocument(key, "it went away just now"))
    wrong = None
    if size != record.size:
        found = "is missing" if size is None else f"has {size:,} of {record.size:,} bytes"
        wrong = IntegrityError(f"{record.object_key} {found}")
    api: dict[str, Any] = dict(record.document["api"])
    return Row(
        instance_id=record.instance_id,
        started_at=record.started_at,
        node_id=record.node_id,
        backup_id=record.backup_id,
        type=str(api.get("BackupType", "")),
        size=record.size,
        state=State.ARCHIVED if wrong is None else State.DAMAGED,
        expires_at=None,
        set_key=folder,
        error=wrong,
    )


def _damaged_row(key: str, error: ArchiverError) -> Row:
    """What the key alone says of a file whose record cannot be used."""
    folder, _, name = key.rpartition("/")
    node, _, backup_id = name.removesuffix(layout.RECORD_SUFFIX).rpartition("-")
    return Row(
        instance_id=key.partition("/")[0],
        started_at=layout.set_start(folder) or _NO_TIME,
        node_id=node or "?",
        backup_id=backup_id or "?",
        type="",
        size=0,
        state=State.DAMAGED,
        expires_at=None,
        set_key=folder,
        error=error,
    )


def _hidden_row(key: str, error: ArchiverError) -> Row:
    """A folder that nobody sees into, and that may have any number of backups in it."""
    return replace(
        _damaged_row(f"{key}/", error), started_at=layout.set_start(key) or _NO_TIME, set_key=key
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
    )


def _vendor_state(backup: Backup, success: State) -> State:
    states = {Status.FAILED: State.FAILED, Status.UNFINISHED: State.UNFINISHED}
    return states.get(backup.status, success)
