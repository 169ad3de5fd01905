"""Checksums that a store verifies when it receives an object or a part, and reports afterwards."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from anycrc import Model

_CRC64_NVME = Model("CRC64-NVME")


class ChecksumKind(StrEnum):
    """The checksums that stores verify, the strongest first."""

    CRC64NVME = "CRC-64/NVME"
    MD5 = "Content-MD5"
    NONE = "nothing"  # objects are read back instead


@dataclass(frozen=True, slots=True)
class Checksum:
    """Of some bytes: the one that the store verifies. The others are not computed."""

    crc64nvme: int | None = None
    md5: bytes | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameters of PutObject or UploadPart."""
        if self.crc64nvme is not None:
            return {"ChecksumCRC64NVME": crc64nvme_text(self.crc64nvme)}
        if self.md5 is not None:
            return {"ContentMD5": base64.b64encode(self.md5).decode("ascii")}
        return {}


def crc64nvme_text(crc: int) -> str:
    """As in the header: base64 of eight bytes, big-endian."""
    return base64.b64encode(crc.to_bytes(8, "big")).decode("ascii")


def combine_crc64nvme(parts: list[tuple[int, int]]) -> int:
    """The CRC-64/NVME of a whole object from each part's (checksum, size), in order."""
    whole = 0
    for crc, size in parts:
        whole = _CRC64_NVME.combine(whole, crc, size)
    return whole


def crc64nvme(data: bytes | bytearray) -> int:
    return int(_CRC64_NVME.calc(data))


def md5(data: bytes | bytearray) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


def md5_text(data: bytes | bytearray) -> str:
    """As in the header Content-MD5: base64."""
    return base64.b64encode(md5(data)).decode("ascii")


def etag_of_parts(md5s: Sequence[bytes]) -> str:
    """The ETag of an upload, in stores that make it of the MD5s of its parts."""
    return f"{md5(b''.join(md5s)).hex()}-{len(md5s)}"
