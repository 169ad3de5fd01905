"""What a store can do beyond the common core, found out by asking it once.

Documentation is no guide: stores ignore what they do not know. So each ability is tried with a
request that a store which has it must refuse.
"""

import base64
import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from anycrc import Model

from archiver.errors import StoreError, StoreForbidden
from archiver.stores.s3.bucket import Bucket, Garbled, Gone, Refused
from archiver.stores.s3.layout import PROBE_KEY

_PROBE = b"probe"
_MOST_PROBES = 3
_NO_ETAG = f'"{"0" * 32}"'
_CRC64_NVME = Model("CRC64-NVME")


class Check(StrEnum):
    """How a store can be made to check what reaches it, the best first."""

    CRC64NVME = "CRC-64/NVME"
    MD5 = "Content-MD5"
    NONE = "nothing"  # what was written is read back


@dataclass(frozen=True, slots=True)
class Dialect:
    """``conditions``: whether puts with ``If-None-Match`` and ``If-Match`` fail as they should."""

    check: Check
    conditions: bool

    def __str__(self) -> str:
        put = "conditional puts" if self.conditions else "no conditional puts"
        if self.check is Check.NONE:
            return f"checks nothing: what is written is read back; {put}"
        return f"checks {self.check}; {put}"

    def measured(self, data: bytes | bytearray) -> "Checksum":
        """The checksum that the store can be made to check."""
        if self.check is Check.CRC64NVME:
            return Checksum(crc64nvme=crc64nvme(data))
        if self.check is Check.MD5:
            return Checksum(md5=md5(data))
        return Checksum()

    def checksum(self, data: bytes | bytearray) -> dict[str, Any]:
        """Parameters of PutObject or UploadPart that make the store check ``data``."""
        return self.measured(data).parameters


@dataclass(frozen=True, slots=True)
class Checksum:
    """Of some bytes; what the store does not check is not computed."""

    crc64nvme: int | None = None
    md5: bytes | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """Of PutObject or UploadPart."""
        if self.crc64nvme is not None:
            return {"ChecksumCRC64NVME": crc64nvme_text(self.crc64nvme)}
        if self.md5 is not None:
            return {"ContentMD5": base64.b64encode(self.md5).decode("ascii")}
        return {}


def probe(bucket: Bucket) -> Dialect:
    """Ask. Raises what writing to the bucket raises, and StoreError where it does not keep what
    was put.

    The object asked with stays: another host may ask at the same moment, and a key that may only
    add could not delete it.
    """
    _put_first(bucket)
    found = bucket.get(PROBE_KEY)
    if found is None or found[0] != _PROBE:
        raise StoreError(
            f"{bucket.where(PROBE_KEY)}: the store took it, and does not give it back as it was",
            hint="nothing is kept safely there; is the endpoint right?",
        )
    notes = bucket.options.for_notes()
    conditions = _refuses(lambda: bucket.put(PROBE_KEY, _PROBE, IfNoneMatch="*", **notes))
    conditions &= _refuses(lambda: bucket.put(PROBE_KEY, _PROBE, IfMatch=_NO_ETAG, **notes))
    return Dialect(_strongest(bucket), conditions)


def _put_first(bucket: Bucket) -> None:
    """With a Content-MD5, which buckets with a default retention insist on."""
    notes = bucket.options.for_notes()
    try:
        bucket.put(PROBE_KEY, _PROBE, ContentMD5=md5_text(_PROBE), **notes)
    except (StoreError, Garbled, Refused):
        bucket.put(PROBE_KEY, _PROBE, **notes)


def _strongest(bucket: Bucket) -> Check:
    """The best check that the store makes of puts and of parts."""
    given = {"ChecksumAlgorithm": "CRC64NVME", "ChecksumType": "FULL_OBJECT"}
    wrong, right = crc64nvme_text(0), crc64nvme_text(_CRC64_NVME.calc(_PROBE))
    if _checks(bucket, given, {"ChecksumCRC64NVME": wrong}, {"ChecksumCRC64NVME": right}):
        return Check.CRC64NVME
    other = {"ContentMD5": md5_text(b"other")}
    if _checks(bucket, {}, other, {"ContentMD5": md5_text(_PROBE)}):
        return Check.MD5
    return Check.NONE


def _checks(
    bucket: Bucket, upload: dict[str, str], wrong: dict[str, str], right: dict[str, str]
) -> bool:
    """Whether a wrong checksum is refused, and a right one taken, of a put and of a part."""
    notes = bucket.options.for_notes()

    def put(given: dict[str, str]) -> object:
        return bucket.put(PROBE_KEY, _PROBE, **given, **notes)

    if not _refuses(lambda: put(wrong)) or not _takes(lambda: put(right)):
        return False
    for _ in range(_MOST_PROBES):
        # A run on another host, which sweeps, may end this upload.
        with suppress(Gone):
            return _checks_part(bucket, upload, wrong, right)
    return False


def _checks_part(
    bucket: Bucket, upload: dict[str, str], wrong: dict[str, str], right: dict[str, str]
) -> bool:
    """Raises Gone."""
    try:
        upload_id = bucket.create_upload(PROBE_KEY, **upload, **bucket.options.for_notes())
    except StoreError:
        return False

    def part(given: dict[str, str]) -> object:
        return bucket.upload_part(PROBE_KEY, upload_id, 1, bytearray(_PROBE), **given)

    try:
        return _refuses(lambda: part(wrong)) and _takes(lambda: part(right))
    finally:
        with suppress(StoreError, StoreForbidden):
            bucket.abort(PROBE_KEY, upload_id)


def _refuses(ask: Callable[[], object]) -> bool:
    """Whether it is refused for what it should be refused for, and not as something unknown."""
    try:
        ask()
    except (Refused, Garbled):
        return True
    except StoreError:
        return False
    return False


def _takes(ask: Callable[[], object]) -> bool:
    try:
        ask()
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


def md5(data: bytes | bytearray) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


def md5_text(data: bytes | bytearray) -> str:
    return base64.b64encode(md5(data)).decode("ascii")
