"""What was written about one object, and by whom; whether it agrees with itself. Pure.

Records carry no signature. What makes up for it are witnesses that do not know of each other: the
key, the fields as the API gave them, the CRC-64 that the object store declared, SHA256SUMS, what
an earlier verify saw, and the checksum within the dump.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from archiver.archive import layout
from archiver.archive.record import Record
from archiver.errors import ArchiverError
from archiver.model import Backup, Kind
from archiver.scrub.findings import Fault, Finding
from archiver.sources.listing import read_backup

_SHA256 = re.compile(r"[0-9a-f]{64}")
# The nodes of a set begin seconds apart; the folder is named after one of them.
_MOST_APART = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Claims:
    """All that is said of the object of ``record``. ``sums`` and ``verified`` are the SHA-256 in
    SHA256SUMS and of the last verify, if they name it; ``others`` are the SHA-256 of the set's
    other files, and their keys."""

    record: Record
    sums: str | None = None
    verified: str | None = None
    others: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return self.record.object_key

    @property
    def crc64(self) -> int | None:
        """CRC-64/XZ as computed when it was fetched."""
        return _number(self.record.document.get("crc64ecma"))

    @property
    def crc64_declared(self) -> int | None:
        """CRC-64/XZ as the source declared it."""
        return _number(self.record.document.get("crc64ecma_declared"))

    @property
    def are_at_odds(self) -> bool:
        """Whether two of them give different checksums: then only reading the object tells."""
        given = {self.record.sha256, self.sums, self.verified} - {None}
        return len(given) > 1


def check_record(record: Record) -> list[Finding]:
    """Whether a record belongs where it lies, and agrees with itself."""
    try:
        backup = read_backup(record.instance_id, record.document["api"])
    except ArchiverError as error:
        return [Finding(record.key, Fault.CONTRADICTION, f"its API fields: {error.message}")]
    found = [
        Finding(record.key, Fault.MISPLACED, f"{what} is {said!r}, its place says {place!r}",
                str(place), str(said))
        for what, said, place in _places(record, backup)
        if said != place
    ]  # fmt: skip
    found += [
        Finding(record.key, Fault.CONTRADICTION, f"{what} is {said}, and {other} {value}",
                str(value), str(said))
        for what, said, other, value in _pairs(record, backup)
        if said != value
    ]  # fmt: skip
    if not _SHA256.fullmatch(record.sha256):
        text = f"its sha256 is {record.sha256[:80]!r}, which is none"
        found.append(Finding(record.key, Fault.CONTRADICTION, text))
    return found


def _places(record: Record, backup: Backup) -> Iterator[tuple[str, object, object]]:
    """What the record says, and what the key does."""
    instance_id, year, month, folder, name = record.key.split("/")
    start, _, job = folder.partition("-")
    yield "instance_id", record.instance_id, instance_id
    stem = f"{record.node_id}-{record.backup_id}"
    yield "node and backup", stem, name.removesuffix(layout.RECORD_SUFFIX)
    yield "job", record.job_id or f"b{record.backup_id}", job
    named = _moment(start)
    if named is None or abs(record.started_at - named) > _apart(backup):
        yield "start", f"{record.started_at:%Y%m%dT%H%M%SZ}", start
    if named is not None:
        yield "month of its set", f"{named:%Y/%m}", f"{year}/{month}"
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


def _moment(text: str) -> datetime | None:
    try:
        return datetime.strptime(f"{text}+0000", "%Y%m%dT%H%M%SZ%z")
    except ValueError:
        return None


def folder_start(folder: str) -> datetime | None:
    """When the backup set of a folder began, as its name says."""
    return _moment(folder.rpartition("/")[2].partition("-")[0])


def _number(value: object) -> int | None:
    return int(value) if isinstance(value, str) and value.isdecimal() else None
