"""Whether a file that was fetched and measured is the one at the source: the makers of receipts."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from archiver.errors import CorruptFile
from archiver.model import Backup, Footer, Measured, Network, Pin, Provenance, Receipt
from archiver.rdb.meter import FileMeter


@dataclass(slots=True)
class Cost:
    """What a transfer takes: tries, bytes fetched and bytes that had to be, and from where."""

    wanted: int
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    attempts: int = 1
    fetched: int = 0
    provenance: Provenance = field(default_factory=lambda: Provenance("", Network.PUBLIC))


def agrees(backup: Backup, meter: FileMeter, crc: int, declared: int | None) -> bool:
    """Whether the whole's CRC-64/XZ is what the source declared; or where it declared nothing,
    whether the file agrees with itself."""
    if declared is not None:
        return crc == declared
    return meter.verdict(is_log=backup.is_log)[1].footer is not Footer.MISMATCH


def vouch(
    backup: Backup, pin: Pin, meter: FileMeter, crc: int, part_size: int, cost: Cost
) -> Receipt:
    """What proves that this is the file at the source. Raises CorruptFile when it is not."""
    if meter.position != backup.size:
        raise RuntimeError("a receipt is asked for before the file was measured")
    kind, rdb = meter.verdict(is_log=backup.is_log)
    if meter.looks_like_a_page():
        raise CorruptFile(f"{backup}: an XML or HTML page came instead of the file")
    if pin.crc64 is not None and crc != pin.crc64:
        raise CorruptFile(
            f"{backup}: CRC-64 is {crc} and the source declares {pin.crc64}, "
            "whatever is fetched again"
        )
    if rdb.footer is Footer.MISMATCH:
        at_source = ", as it is at the source" if pin.crc64 is not None else ""
        raise CorruptFile(
            f"{backup}: the checksum at the end of this RDB does not match{at_source}",
            hint="the vendor's own file is damaged; take another backup",
        )
    measured = Measured(backup.size, meter.sha256(), crc, kind, rdb)
    return receipt_for(measured, pin, part_size, cost)


def is_proven(measured: Measured, pin: Pin) -> bool:
    """Whether bytes that were not fetched just now are those at the source: by the CRC-64 that it
    declares; where it declares none, only if the file proves itself."""
    if measured.size != pin.total:
        return False
    if pin.crc64 is not None:
        return measured.crc64 == pin.crc64 and measured.rdb.footer is not Footer.MISMATCH
    return measured.rdb.footer is Footer.OK


def receipt_for(measured: Measured, pin: Pin, part_size: int, cost: Cost) -> Receipt:
    """The receipt for bytes that were proven."""
    return Receipt(
        size=measured.size,
        sha256=measured.sha256,
        crc64=measured.crc64,
        crc64_declared=pin.crc64,
        etag=pin.etag,
        kind=measured.kind,
        rdb=measured.rdb,
        provenance=cost.provenance,
        part_size=part_size,
        started_at=cost.started_at,
        finished_at=datetime.now(UTC),
        attempts=cost.attempts,
        bytes_fetched=cost.fetched,
        bytes_fetched_again=max(0, cost.fetched - cost.wanted),
    )
