"""What of an upload is done, so that another process or host can go on with it.

One small object beside the upload, written whole after every part. It names the parts from the
first on without a gap, and holds the state of measuring up to their end: a part that was not
measured in order cannot be used, since nothing can read it back.
"""

import json
from dataclasses import dataclass
from typing import Any

from archiver.model import Network, Pin, Provenance

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Kept:
    """A part that the store has: CRC-64/XZ, CRC-64/NVME where that is used, size, ETag."""

    crc: int
    nvme: int | None
    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class Journal:
    """``kept`` from the first part on, without a gap; ``state`` of measuring at their end."""

    key: str
    upload_id: str
    pin: Pin
    provenance: Provenance
    part_size: int
    kept: tuple[Kept, ...]
    state: str | None

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
            "parts": [[part.crc, part.nvme, part.size, part.etag] for part in self.kept],
        }
        return json.dumps(document, separators=(",", ":")).encode()


def parse(data: bytes) -> Journal | None:
    """The journal; None for anything else."""
    try:
        read: dict[str, Any] = json.loads(data)
        if read["journal"] != FORMAT:
            return None
        return Journal(
            key=str(read["key"]),
            upload_id=str(read["upload_id"]),
            pin=Pin(int(read["size"]), read["etag"], read["crc64"]),
            provenance=Provenance(str(read["origin"]), Network(read["network"])),
            part_size=int(read["part_size"]),
            kept=tuple(Kept(*part) for part in read["parts"]),
            state=read["state"],
        )
    except (ValueError, KeyError, TypeError):
        return None
