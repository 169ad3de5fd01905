"""The journal of a multipart upload, with which another process or host can resume it.

One small object in the staging folder, rewritten as a whole: the CRC-32 of the rest in hex, a
space, JSON. It lists the leading parts without a gap, and the state of the hash at their end.
"""

import json
import re
import zlib
from dataclasses import dataclass, replace
from datetime import datetime

from archiver import documents
from archiver.documents import Fields
from archiver.errors import BadDocument
from archiver.model import Network, Pin, Provenance
from archiver.stores.s3.layout import journal_key
from archiver.times import format_iso

FORMAT = 1
_PART_FIELDS = ("crc", "nvme", "size", "etag", "md5")
_MD5 = re.compile("[0-9a-f]{32}")
_MAX_CRC = 2**64 - 1


@dataclass(frozen=True, slots=True)
class UploadedPart:
    """A part that the store has: its CRC-64/XZ, its size in bytes, its ETag, and the CRC-64/NVME or
    MD5 (hex) that the store verified."""

    crc: int
    nvme: int | None
    size: int
    etag: str
    md5: str | None = None


@dataclass(frozen=True, slots=True)
class Journal:
    """``parts`` are the leading ones without a gap, ``state`` is that of the hash at their end.

    An empty ``upload_id`` means that the upload is about to be created. ``created_at`` is when, by
    our own clock, since stores do not always report it correctly; ``stored_as`` is the fingerprint
    of the options for the object. Earlier versions wrote neither.
    """

    key: str
    upload_id: str
    pin: Pin
    provenance: Provenance
    part_size: int
    parts: tuple[UploadedPart, ...]
    state: str | None
    created_at: datetime | None = None
    stored_as: str | None = None

    @property
    def expected_key(self) -> str:
        """The key of a journal with these contents."""
        return journal_key(self.key.rpartition(".")[0])

    def fits(self, stem: str, size: int) -> bool:
        """Whether it is about a file of this stem and size in bytes, and has possible parts."""
        uploaded = sum(part.size for part in self.parts)
        return (
            self.key.startswith(f"{stem}.")
            and self.pin.total == size
            and self.part_size > 0
            and uploaded == min(size, len(self.parts) * self.part_size)
        )

    def encode(self) -> bytes:
        document = {
            "journal": FORMAT,
            "key": self.key,
            "upload_id": self.upload_id,
            "begun": None if self.created_at is None else format_iso(self.created_at),
            "asked": self.stored_as,
            "size": self.pin.total,
            "etag": self.pin.etag,
            "crc64": self.pin.crc64,
            "origin": self.provenance.origin,
            "network": self.provenance.network,
            "part_size": self.part_size,
            "state": self.state,
            "parts": [[part.crc, part.nvme, part.size, part.etag, part.md5] for part in self.parts],
        }
        text = json.dumps(document, separators=(",", ":")).encode()
        return b"%08x %s" % (zlib.crc32(text), text)


def parse(data: bytes) -> Journal | None:
    """The journal in an object; None for anything else."""
    checksum, _, text = data.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        return None
    try:
        fields = documents.parse("journal", text)
        fields.format("journal", FORMAT)
        etag = None if fields.is_null("etag") else fields.text("etag")
        declared = None if fields.is_null("crc64") else fields.number("crc64", most=_MAX_CRC)
        network = None if fields.is_null("network") else fields.word("network", Network)
        return Journal(
            key=fields.line("key"),
            upload_id=fields.text("upload_id"),
            pin=Pin(fields.number("size"), etag, declared),
            provenance=Provenance(fields.text("origin"), network),
            part_size=fields.number("part_size", least=1),
            parts=tuple(_part(fields, part) for part in fields.items("parts")),
            state=None if fields.is_null("state") else fields.text("state"),
            created_at=None if fields.values.get("begun") is None else fields.moment("begun"),
            stored_as=None if fields.values.get("asked") is None else fields.text("asked"),
        )
    except BadDocument:
        return None


def _part(fields: Fields, part: object) -> UploadedPart:
    """A part, which is a list of values without names. Raises BadDocument."""
    if not isinstance(part, list) or len(part) != len(_PART_FIELDS):
        fields.refuse("parts", "contains something other than parts")
    named = replace(fields, values=dict(zip(_PART_FIELDS, part, strict=True)), place="parts.")
    md5 = None if named.is_null("md5") else named.text("md5")
    if md5 is not None and not _MD5.fullmatch(md5):
        named.refuse("md5", "is not an MD5")
    return UploadedPart(
        crc=named.number("crc", most=_MAX_CRC),
        nvme=None if named.is_null("nvme") else named.number("nvme", most=_MAX_CRC),
        size=named.number("size"),
        etag=named.text("etag"),
        md5=md5,
    )
