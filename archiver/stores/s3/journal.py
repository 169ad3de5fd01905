"""What of an upload is done, so that another process or host can go on with it.

One small object beside the upload, written whole each time: the CRC-32 of the rest in hex, a
space, JSON. It names the parts from the first on without a gap, and holds the state of measuring
up to their end.
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
_KEPT = ("crc", "nvme", "size", "etag", "md5")
_MD5 = re.compile("[0-9a-f]{32}")
_MOST_CRC = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Kept:
    """A part that the store has: CRC-64/XZ, size, ETag; CRC-64/NVME or MD5 (hex), whichever is
    used."""

    crc: int
    nvme: int | None
    size: int
    etag: str
    md5: str | None = None


@dataclass(frozen=True, slots=True)
class Journal:
    """``kept`` from the first part on, without a gap; ``state`` of measuring at their end. Without
    an ``upload_id`` it says that an upload is about to be created. ``begun`` is when that was, by
    our own clock: what stores say of it is not always so; ``asked`` how its object was to be kept.
    Earlier versions noted neither."""

    key: str
    upload_id: str
    pin: Pin
    provenance: Provenance
    part_size: int
    kept: tuple[Kept, ...]
    state: str | None
    begun: datetime | None = None
    asked: str | None = None

    @property
    def own_key(self) -> str:
        """Where a journal of this content lies."""
        return journal_key(self.key.rpartition(".")[0])

    def fits(self, stem: str, size: int) -> bool:
        """Whether it is about a file of this stem and size, and of parts that it can have."""
        sent = sum(part.size for part in self.kept)
        return (
            self.key.startswith(f"{stem}.")
            and self.pin.total == size
            and self.part_size > 0
            and sent == min(size, len(self.kept) * self.part_size)
        )

    def encode(self) -> bytes:
        document = {
            "journal": FORMAT,
            "key": self.key,
            "upload_id": self.upload_id,
            "begun": None if self.begun is None else format_iso(self.begun),
            "asked": self.asked,
            "size": self.pin.total,
            "etag": self.pin.etag,
            "crc64": self.pin.crc64,
            "origin": self.provenance.origin,
            "network": self.provenance.network,
            "part_size": self.part_size,
            "state": self.state,
            "parts": [[part.crc, part.nvme, part.size, part.etag, part.md5] for part in self.kept],
        }
        text = json.dumps(document, separators=(",", ":")).encode()
        return b"%08x %s" % (zlib.crc32(text), text)


def parse(data: bytes) -> Journal | None:
    """The journal; None for anything else."""
    checksum, _, text = data.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        return None
    try:
        fields = documents.parse("journal", text)
        fields.format("journal", FORMAT)
        etag = None if fields.is_null("etag") else fields.text("etag")
        declared = None if fields.is_null("crc64") else fields.number("crc64", most=_MOST_CRC)
        return Journal(
            key=fields.line("key"),
            upload_id=fields.text("upload_id"),
            pin=Pin(fields.number("size"), etag, declared),
            provenance=Provenance(fields.text("origin"), fields.word("network", Network)),
            part_size=fields.number("part_size", least=1),
            kept=tuple(_kept(fields, part) for part in fields.items("parts")),
            state=None if fields.is_null("state") else fields.text("state"),
            begun=None if fields.values.get("begun") is None else fields.moment("begun"),
            asked=None if fields.values.get("asked") is None else fields.text("asked"),
        )
    except BadDocument:
        return None


def _kept(fields: Fields, part: object) -> Kept:
    """A part, whose values have no names. Raises BadDocument."""
    if not isinstance(part, list) or len(part) != len(_KEPT):
        fields.refuse("parts", "has something else than parts in it")
    named = replace(fields, values=dict(zip(_KEPT, part, strict=True)), place="parts.")
    md5 = None if named.is_null("md5") else named.text("md5")
    if md5 is not None and not _MD5.fullmatch(md5):
        named.refuse("md5", "is none")
    return Kept(
        crc=named.number("crc", most=_MOST_CRC),
        nvme=None if named.is_null("nvme") else named.number("nvme", most=_MOST_CRC),
        size=named.number("size"),
        etag=named.text("etag"),
        md5=md5,
    )
