"""Whether a record belongs where it lies, and agrees with itself. Pure.

Everything that reads records asks here, whether it verifies, restores or drills: what one of them
calls tampered, none of them takes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from archiver.archive import layout
from archiver.archive.record import Record
from archiver.errors import ArchiverError, UnsafeInput
from archiver.ids import safe
from archiver.model import Backup, Kind
from archiver.sources.alibaba.fields import read_backup
from archiver.times import format_compact, format_month, parse_compact

# The nodes of a set begin seconds apart; the folder is named after one of them. That of another
# night is none of theirs.
_MOST_APART = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class Contradiction:
    """What cannot be true of a record, in one line; ``is_misplaced``: it belongs elsewhere."""

    text: str
    expected: str | None = None
    found: str | None = None
    is_misplaced: bool = False


def contradictions(record: Record) -> list[Contradiction]:
    """All of them; none of a record that nobody changed."""
    if not layout.is_record(record.key):
        return [Contradiction("no record lies there", is_misplaced=True)]
    try:
        backup = read_backup(record.instance_id, record.document["api"])
    except ArchiverError as error:
        return [Contradiction(f"its API fields: {error.message}")]
    found = [
        Contradiction(
            f"{what} is {said!r}, its place says {place!r}", str(place), str(said),
            is_misplaced=True,
        )
        for what, said, place in _places(record, backup)
        if said != place
    ]  # fmt: skip
    found += [
        Contradiction(f"{what} is {said}, and {other} {value}", str(value), str(said))
        for what, said, other, value in _pairs(record, backup)
        if said != value
    ]
    return [*found, *(Contradiction(text) for text in _malformed(record))]


def apart(folder: str, started_at: datetime) -> timedelta | None:
    """How far the start of a set, by its folder, is from that of a node's backup; None where the
    node's record would contradict the folder (pure)."""
    start = layout.set_start(folder)
    if start is None or folder.split("/")[1:3] != format_month(start).split("/"):
        return None
    difference = abs(start - started_at)
    return difference if difference <= _MOST_APART else None


def moment(text: str) -> datetime | None:
    """A basic UTC time, as the folders of sets have it; None for what is none."""
    try:
        return parse_compact(text)
    except ValueError:
        return None


def _malformed(record: Record) -> Iterator[str]:
    """What is no id at all."""
    for one in (record.instance_id, record.node_id, record.backup_id):
        try:
            safe(one)
        except UnsafeInput:
            yield f"{one[:80]!r} is no id"


def _places(record: Record, backup: Backup) -> Iterator[tuple[str, object, object]]:
    """What the record says, and what the key does."""
    instance_id, year, month, folder, name = record.key.split("/")
    start, _, job = folder.partition("-")
    yield "instance_id", record.instance_id, instance_id
    stem = f"{record.node_id}-{record.backup_id}"
    yield "node and backup", stem, name.removesuffix(layout.RECORD_SUFFIX)
    yield "job", record.job_id or f"b{record.backup_id}", job
    named = moment(start)
    if named is None or abs(record.started_at - named) > _apart(backup):
        yield "start", format_compact(record.started_at), start
    if named is not None:
        yield "month of its set", format_month(named), f"{year}/{month}"
    kinds = [f"{stem}.{kind}" for kind in Kind]
    object_name = record.object_key.rpartition("/")[2]
    if object_name not in kinds:
        yield "object", object_name, f"{stem}.{record.document.get('kind', Kind.RDB)}"


def _pairs(record: Record, backup: Backup) -> Iterator[tuple[str, object, str, object]]:
    """What the record says twice."""
    document, api = record.document, "the API said"
    yield "size", record.size, api, backup.size
    yield "backup_id", record.backup_id, api, backup.backup_id
    yield "node_id", record.node_id, api, backup.node_id
    yield "job_id", record.job_id, api, backup.job_id
    kind = record.object_key.rpartition(".")[2]
    yield "kind", document.get("kind"), "the object's name says", kind
    if document.get("crc64ecma_declared") is not None:
        declared = document["crc64ecma_declared"]
        yield "crc64ecma", document.get("crc64ecma"), "the source declared", declared


def _apart(backup: Backup) -> timedelta:
    return timedelta(0) if backup.is_standard else _MOST_APART
