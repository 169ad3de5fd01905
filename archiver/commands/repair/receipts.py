"""The receipt of a transfer that another archive made, from what its record says."""

from archiver.archive.record import Record
from archiver.commands.verify.statements import Claims
from archiver.documents import Fields
from archiver.model import Footer, Measured, RdbVerdict, Receipt


def receipt_of(record: Record, measured: Measured) -> Receipt:
    """What a record says of the transfer, with what was measured."""
    fields = Fields(record.key, record.document)
    transfer, rdb = fields.within("transfer"), fields.within("rdb")
    return Receipt(
        size=measured.size,
        sha256=measured.sha256,
        crc64=measured.crc64,
        crc64_declared=Claims(record).crc64_declared,
        etag=record.document["etag"],
        kind=measured.kind,
        rdb=RdbVerdict(
            None if rdb.is_null("version") else rdb.line("version"), rdb.word("footer", Footer)
        ),
        provenance=record.provenance,
        part_size=transfer.number("part_size"),
        started_at=transfer.moment("started_at"),
        finished_at=transfer.moment("finished_at"),
        attempts=transfer.number("attempts"),
        bytes_fetched=transfer.number("bytes_fetched"),
        bytes_fetched_again=transfer.number("bytes_fetched_again"),
    )
