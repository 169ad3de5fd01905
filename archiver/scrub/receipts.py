"""The receipt of a transfer that another archive made, from what its record says."""

from datetime import datetime

from archiver.archive.record import Record
from archiver.errors import IntegrityError
from archiver.model import Footer, Measured, Network, Provenance, RdbVerdict, Receipt
from archiver.scrub.claims import Claims


def receipt_of(record: Record, measured: Measured) -> Receipt:
    """What a record says of the transfer, with what was measured. Raises IntegrityError."""
    document = record.document
    try:
        transfer, source = document["transfer"], document["source"]
        return Receipt(
            size=measured.size,
            sha256=measured.sha256,
            crc64=measured.crc64,
            crc64_declared=Claims(record).crc64_declared,
            etag=document["etag"],
            kind=measured.kind,
            rdb=RdbVerdict(document["rdb"]["version"], Footer(document["rdb"]["footer"])),
            provenance=Provenance(str(source["origin"]), Network(source["network"])),
            part_size=int(transfer["part_size"]),
            started_at=datetime.fromisoformat(transfer["started_at"]),
            finished_at=datetime.fromisoformat(transfer["finished_at"]),
            attempts=int(transfer["attempts"]),
            bytes_fetched=int(transfer["bytes_fetched"]),
            bytes_fetched_again=int(transfer["bytes_fetched_again"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityError(f"{record.key}: this record cannot be read ({error!r:.120})") from None
