"""What of an upload is done, so that another process or host can go on with it.

One small object beside the upload, written whole each time: the CRC-32 of the rest in hex, a
space, JSON. It names the parts from the first on without a gap, and holds the state of measuring
up to their end.
"""

import json
import zlib
from dataclasses import dataclass
from typing import Any

from archiver.model import Network, Pin, Provenance
from archiver.stores.s3.layout import journal_key

FORMAT = 1


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
    an ``upload_id`` it says that an upload is about to be created."""

    key: str
    upload_id: str
    pin: Pin
    provenance: Provenance
    part_size: int
    kept: tuple[Kept, ...]
    state: str | None

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
        read: dict[str, Any] = json.loads(text)
        if read["journal"] != FORMAT:
            return None
        return Journal(
            key=str(read["key"]),
            upload_id=str(read["upload_id"]),
            pin=Pin(int(read["size"]), read["etag"], read["crc64"]),
            provenance=Provenance(str(read["origin"]), Network(read["network"])),
            part_size=int(read["part_size"]),
            kept=tuple(_kept(*part) for part in read["parts"]),
            state=read["state"],
        )
    except (ValueError, KeyError, TypeError):
        return None


def _kept(crc: int, nvme: int | None, size: int, etag: str, md5: str | None = None) -> Kept:
    """Of what the journal says. Raises ValueError, TypeError."""
    bytes.fromhex(md5 or "")
    return Kept(int(crc), None if nvme is None else int(nvme), int(size), str(etag), md5)
