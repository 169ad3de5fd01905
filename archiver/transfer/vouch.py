"""Whether a file that was fetched and measured is the one at the source."""

from archiver.errors import CorruptFile
from archiver.model import Backup, Footer, Kind, RdbVerdict
from archiver.transfer.meter import FileMeter


def agrees(meter: FileMeter, crc: int, declared: int | None) -> bool:
    """Whether the whole's CRC-64/XZ is what the source declared; or where it declared nothing,
    whether the file agrees with itself."""
    if declared is not None:
        return crc == declared
    return meter.verdict()[1].footer is not Footer.MISMATCH


def vouch(
    backup: Backup, meter: FileMeter, crc: int, declared: int | None
) -> tuple[Kind, RdbVerdict]:
    """What the file is. Raises CorruptFile when it is not what it should be."""
    kind, rdb = meter.verdict()
    if meter.looks_like_a_page():
        raise CorruptFile(f"{backup}: an XML or HTML page came instead of the file")
    if declared is not None and crc != declared:
        raise CorruptFile(
            f"{backup}: CRC-64 is {crc} and the source declares {declared}, "
            "whatever is fetched again"
        )
    if rdb.footer is Footer.MISMATCH:
        at_source = ", as it is at the source" if declared is not None else ""
        raise CorruptFile(
            f"{backup}: the checksum at the end of this RDB does not match{at_source}",
            hint="the vendor's own file is damaged; take another backup",
        )
    return kind, rdb
