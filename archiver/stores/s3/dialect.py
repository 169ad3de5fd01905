"""What a store can do beyond the common core, found out by asking it once.

Documentation is no guide: stores ignore what they do not know. So each ability is tried with a
request that a store which has it must refuse.
"""

import base64
import hashlib
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from anycrc import Model

from archiver.errors import StoreError, StoreForbidden
from archiver.stores.s3.bucket import Bucket, Garbled, Refused

PROBE_KEY = ".staging/probe"
_CRC64_NVME = Model("CRC64-NVME")


class Check(StrEnum):
    """How a store can be made to check what reaches it, the best first."""

    CRC64NVME = "CRC-64/NVME"
    MD5 = "Content-MD5"
    NONE = "nothing"  # what was written is read back


@dataclass(frozen=True, slots=True)
class Dialect:
    """``conditions``: whether a put with ``If-None-Match: *`` fails where something is."""

    check: Check
    conditions: bool

    def __str__(self) -> str:
        put = "conditional puts" if self.conditions else "no conditional puts"
        if self.check is Check.NONE:
            return f"checks nothing: what is written is read back; {put}"
        return f"checks {self.check}; {put}"

    def checksum(self, data: bytes | bytearray) -> dict[str, Any]:
        """Parameters of PutObject or UploadPart that make the store check ``data``."""
        if self.check is Check.CRC64NVME:
            return {"ChecksumCRC64NVME": crc64nvme_text(_CRC64_NVME.calc(data))}
        if self.check is Check.MD5:
            return {"ContentMD5": md5_text(data)}
        return {}


def probe(bucket: Bucket) -> Dialect:
    """Ask. Raises what writing to the bucket raises.

    The probe stays where its deletion is not allowed: one small object, written over next time.
    """
    bucket.put(PROBE_KEY, b"probe")
    conditions = _refuses(bucket, IfNoneMatch="*")
    if _refuses(bucket, ChecksumCRC64NVME=crc64nvme_text(0)) and _takes(
        bucket, ChecksumCRC64NVME=crc64nvme_text(_CRC64_NVME.calc(b"probe"))
    ):
        check = Check.CRC64NVME
    elif _refuses(bucket, ContentMD5=md5_text(b"other")) and _takes(
        bucket, ContentMD5=md5_text(b"probe")
    ):
        check = Check.MD5
    else:
        check = Check.NONE
    with suppress(StoreError, StoreForbidden):
        bucket.delete(PROBE_KEY)
    return Dialect(check, conditions)


def _refuses(bucket: Bucket, **given: str) -> bool:
    """Whether a put is refused for what it should be refused for, or not understood."""
    try:
        bucket.put(PROBE_KEY, b"probe", **given)
    except (Refused, Garbled):
        return True
    except StoreError:
        return False  # it does not know the header
    return False


def _takes(bucket: Bucket, **given: str) -> bool:
    try:
        bucket.put(PROBE_KEY, b"probe", **given)
    except (Refused, Garbled, StoreError):
        return False
    return True


def crc64nvme_text(crc: int) -> str:
    """As the header has it: base64 of eight bytes, the highest first."""
    return base64.b64encode(crc.to_bytes(8, "big")).decode("ascii")


def fold_crc64nvme(parts: list[tuple[int, int]]) -> int:
    """CRC-64/NVME of the whole from each part's (checksum, size), in order."""
    whole = 0
    for crc, size in parts:
        whole = _CRC64_NVME.combine(whole, crc, size)
    return whole


def crc64nvme(data: bytes | bytearray) -> int:
    return int(_CRC64_NVME.calc(data))


def md5_text(data: bytes | bytearray) -> str:
    digest = hashlib.md5(data, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode("ascii")
