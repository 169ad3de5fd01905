"""What is written about one object, and by whom; whether it agrees with itself. Pure.

Records are not signed. Instead there are independent witnesses: the key, the fields as the API gave
them, the CRC-64 that the object store declared, SHA256SUMS, the result of an earlier verify, and
the checksum within the dump.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from archiver.archive.consistency import contradictions
from archiver.archive.record import Record
from archiver.commands.verify.findings import Fault, Finding


@dataclass(frozen=True, slots=True)
class Statements:
    """What is written about the object of ``record``. ``sums`` is its SHA-256 in SHA256SUMS,
    ``verified`` the one that the last verify read, None if they do not have it. ``others`` are the
    keys of the set's files by SHA-256."""

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
        """Whether two of them give different checksums, so that the object must be read."""
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


def _number(value: str | None) -> int | None:
    return None if value is None else int(value)
