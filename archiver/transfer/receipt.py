"""Whether a downloaded and measured file is the one at the source: makes receipts."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from archiver.errors import CorruptFile, IntegrityError
from archiver.model import Backup, BackupType, Footer, Measured, Network, Pin, Provenance, Receipt
from archiver.rdb.meter import FileMeter


@dataclass(slots=True)
class TransferStats:
    """What a transfer took: attempts, bytes needed, bytes fetched, and where they came from."""

    needed: int
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    attempts: int = 1
    fetched: int = 0
    provenance: Provenance = field(default_factory=lambda: Provenance("", Network.PUBLIC))


def with_listed_crc(backup: Backup, pin: Pin) -> Pin:
    """The pin of a response, with the CRC-64/XZ that the source listed if the response has none.

    Raises IntegrityError where the two differ.
    """
    if backup.crc64 is None:
        return pin
    if pin.crc64 not in (None, backup.crc64):
        raise IntegrityError(
            f"{backup}: the object has CRC-64 {pin.crc64}, the source listed {backup.crc64}"
        )
    return replace(pin, crc64=backup.crc64)


def matches_checksum(backup: Backup, meter: FileMeter, crc: int, declared: int | None) -> bool:
    """Whether the file's CRC-64/XZ is the declared one; where none was declared, whether the
    RDB's own checksum does not contradict its bytes."""
    if declared is not None:
        return crc == declared
    return meter.verdict(is_log=backup.is_log)[1].footer is not Footer.MISMATCH


def verify_download(
    backup: Backup,
    pin: Pin,
    meter: FileMeter,
    crc: int,
    part_size: int,
    stats: TransferStats,
    *,
    is_second: bool = False,
) -> Receipt:
    """The receipt for a complete download; ``is_second``: of what had arrived wrong before. Raises
    CorruptFile when the bytes are not those at the source."""
    if meter.position != pin.total:
        raise RuntimeError("a receipt was requested before the whole file was measured")
    kind, rdb = meter.verdict(is_log=backup.is_log)
    if meter.looks_like_a_page():
        raise CorruptFile(f"{backup}: an XML or HTML page was downloaded instead of the file")
    if pin.crc64 is not None and crc != pin.crc64:
        again = "; fetching it again did not help" if is_second else ""
        raise CorruptFile(f"{backup}: the CRC-64 is {crc}, the source declares {pin.crc64}{again}")
    if rdb.footer is Footer.MISMATCH:
        at_source = ", and neither does the one at the source" if pin.crc64 is not None else ""
        raise CorruptFile(
            f"{backup}: the checksum at the end of this RDB does not match its content{at_source}",
            hint="the vendor's own file is damaged; use another backup",
        )
    measured = Measured(pin.total, meter.sha256(), crc, kind, rdb)
    return receipt_for(measured, pin, part_size, stats)


def is_proven(measured: Measured, pin: Pin) -> bool:
    """Whether bytes that were not downloaded just now are those at the source.

    They are if they have the CRC-64 that the source declares. Where it declares none, only an
    RDB with a valid checksum of its own counts.
    """
    if measured.size != pin.total:
        return False
    if pin.crc64 is not None:
        return measured.crc64 == pin.crc64 and measured.rdb.footer is not Footer.MISMATCH
    return measured.rdb.footer is Footer.OK


def receipt_for(measured: Measured, pin: Pin, part_size: int, stats: TransferStats) -> Receipt:
    """The receipt for bytes that were proven."""
    return Receipt(
        size=measured.size,
        sha256=measured.sha256,
        crc64=measured.crc64,
        crc64_declared=pin.crc64,
        etag=pin.etag,
        kind=measured.kind,
        rdb=measured.rdb,
        provenance=stats.provenance,
        part_size=part_size,
        started_at=stats.started_at,
        finished_at=datetime.now(UTC),
        attempts=stats.attempts,
        bytes_fetched=stats.fetched,
        bytes_fetched_again=max(0, stats.fetched - stats.needed),
    )


def empty_dump(backup: Backup, size: int | None) -> IntegrityError | None:
    """What is wrong with a backup that is called a dump and has no bytes."""
    if size == 0 and backup.type is BackupType.FULL:
        return IntegrityError(f"{backup}: a full backup cannot have 0 bytes")
    return None
