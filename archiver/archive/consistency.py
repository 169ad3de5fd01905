"""Whether a record belongs where it lies, and agrees with itself. Pure, the same for every command.

What the record keeps as the source sent it is read again by the source's own function
(:mod:`archiver.received`), and must give the fields that the record has.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from archiver import received
from archiver.archive import layout
from archiver.archive.record import Record
from archiver.errors import ArchiverError, UnsafeInput
from archiver.ids import safe
from archiver.model import Backup, Kind
from archiver.times import format_compact, format_month, parse_compact

# The nodes of a set begin seconds apart, and the set is named after one of them. A start that is
# further away is that of another night's set.
_MOST_APART = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class Contradiction:
    """What cannot be true of a record, in one line; ``is_misplaced``: its place is another."""

    text: str
    expected: str | None = None
    found: str | None = None
    is_misplaced: bool = False


def contradictions(record: Record) -> list[Contradiction]:
    """What contradicts the place of a record, or itself; nothing if nobody changed it."""
    if not layout.is_record(record.key):
        return [Contradiction("no record lies there", is_misplaced=True)]
    try:
        read = received.reader(record.source)
        sent = None if read is None else read(record.instance_id, record.received)
    except ArchiverError as error:
        return [Contradiction(f"its received fields: {error.message}")]
    found = [
        Contradiction(
            f"{what} is {said!r}, its place says {place!r}", str(place), str(said),
            is_misplaced=True,
        )
        for what, said, place in _places(record)
        if said != place
    ]  # fmt: skip
    found += [
        Contradiction(f"{what} is {said}, and {other} {value}", str(value), str(said))
        for what, said, other, value in (*_pairs(record), *_sent(record, sent))
        if said != value
    ]
    return [*found, *(Contradiction(text) for text in _malformed(record))]


def apart(set_key: str, started_at: datetime) -> timedelta | None:
    """The time between the start of a set, by its key, and that of a node's backup; None where the
    node's record would contradict the key."""
    start = layout.set_start(set_key)
    if start is None or set_key.split("/")[1:3] != format_month(start).split("/"):
        return None
    difference = abs(start - started_at)
    return difference if difference <= _MOST_APART else None


def moment(text: str) -> datetime | None:
    """The time in the name of a set; None for a text that is not one."""
    try:
        return parse_compact(text)
    except ValueError:
        return None


def _malformed(record: Record) -> Iterator[str]:
    """IDs that cannot be any."""
    for one in (record.instance_id, record.node_id, record.backup_id):
        try:
            safe(one)
        except UnsafeInput:
            yield f"{one[:80]!r} is not an ID"


def _places(record: Record) -> Iterator[tuple[str, object, object]]:
    """What the record says, and what the key does."""
    instance_id, year, month, set_name = record.set_key.split("/")
    start, _, name = set_name.partition("-")
    yield "instance_id", record.instance_id, instance_id
    if layout.is_in_folder(record.key):
        file_name = layout.stem_of(record.key).rpartition("/")[2]
        yield "node and backup", f"{record.node_id}-{record.backup_id}", file_name
        yield "set", record.set_id or f"b{record.backup_id}", name
        if record.is_standard:
            yield "place", "its month", "the folder of a set"
    else:
        yield "node", record.node_id, instance_id
        yield "backup", record.backup_id, name
    named = moment(start)
    most = timedelta(0) if record.is_standard else _MOST_APART
    if named is None or abs(record.started_at - named) > most:
        yield "start", format_compact(record.started_at), start
    if named is not None:
        yield "month of its set", format_month(named), f"{year}/{month}"
    stem = layout.stem_of(record.key).rpartition("/")[2]
    object_name = record.object_key.rpartition("/")[2]
    if object_name not in [f"{stem}.{kind}" for kind in Kind]:
        yield "object", object_name, f"{stem}.{record.document.get('kind', Kind.RDB)}"


def _pairs(record: Record) -> Iterator[tuple[str, object, str, object]]:
    """What the record says twice of the object."""
    document = record.document
    kind = record.object_key.rpartition(".")[2]
    yield "kind", document.get("kind"), "the object's name says", kind
    if document.get("crc64ecma_declared") is not None:
        declared = document["crc64ecma_declared"]
        yield "crc64ecma", document.get("crc64ecma"), "the source declared", declared


def _sent(record: Record, sent: Backup | None) -> Iterator[tuple[str, object, str, object]]:
    """What the record says of the backup, and what the source sent by ``received``."""
    if sent is None:
        return
    source = "the source said"
    for name in ("node_id", "backup_id", "set_id", "started_at", "type"):
        yield name, getattr(record, name), source, getattr(sent, name)
    # A record stays right when a later version reads more out of what was received.
    for name in ("size", "ended_at", "mode", "engine", "expires_at", "nodes_expected"):
        own, other = getattr(record, name), getattr(sent, name)
        if own is not None and other is not None:
            yield name, own, source, other
