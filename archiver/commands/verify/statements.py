"""What was written about one object, and by whom; whether it agrees with itself. Pure.

Records carry no signature. What makes up for it are witnesses that do not know of each other: the
key, the fields as the API gave them, the CRC-64 that the object store declared, SHA256SUMS, what
an earlier verify saw, and the checksum within the dump.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from archiver.archive.consistency import contradictions, moment
from archiver.archive.record import Record
from archiver.commands.verify.findings import Fault, Finding


@dataclass(frozen=True, slots=True)
class Statements:
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
        return _number(self.record.document["crc64ecma"])

    @property
    def crc64_declared(self) -> int | None:
        """CRC-64/XZ as the source declared it."""
        return _number(self.record.document["crc64ecma_declared"])

    @property
    def disagree(self) -> bool:
        """Whether two of them give different checksums: then only reading the object tells."""
        given = {self.record.sha256, self.sums, self.verified} - {None}
        return len(given) > 1


def check_record(record: Record) -> list[Finding]:
    """Whether a record belongs where it lies, and agrees with itself."""
    return [
        Finding(
            record.key,
            Fault.MISPLACED if one.is_misplaced else Fault.CONTRADICTION,
            one.text,
            one.expected,
            one.found,
        )
        for one in contradictions(record)
    ]


def set_start(set_key: str) -> datetime | None:
    """When a backup set began, as its name says."""
    return moment(set_key.rpartition("/")[2].partition("-")[0])


def _number(value: str | None) -> int | None:
    return None if value is None else int(value)
