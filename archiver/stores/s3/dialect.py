"""What a store can do beyond the common core, found out by asking it once.

Documentation is no guide: stores ignore what they do not know, and get wrong what they do. So each
ability is tried with a request that a store which has it must refuse, and with one that it must
take.
"""

import base64
import hashlib
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from anycrc import Model

from archiver.errors import StoreError, StoreForbidden
from archiver.retry import RETRIES
from archiver.stores.s3.answers import bare
from archiver.stores.s3.asked import check_kept
from archiver.stores.s3.bucket import Bucket, Garbled, Gone, Refused
from archiver.stores.s3.layout import PROBE_KEY, STAGING

_PROBE = b"probe"
_MOST_PROBES = RETRIES.s3_probe.attempts
# Waits for a listing that lags behind.
_LISTING_SECONDS = (0.2, 0.4, 0.8)
_NO_ETAG = "0" * 32
# Clocks that differ by more cannot sign requests.
_MOST_SKEW = timedelta(days=1)
_CRC64_NVME = Model("CRC64-NVME")


class Check(StrEnum):
    """How a store can be made to check what reaches it, the best first."""

    CRC64NVME = "CRC-64/NVME"
    MD5 = "Content-MD5"
    NONE = "nothing"  # what was written is read back


class Conditions(StrEnum):
    """Whether puts with ``If-None-Match`` and ``If-Match`` fail, and are taken, as they should; and
    how a right ETag must be written for that."""

    QUOTED = "conditional puts"
    BARE = "conditional puts, with ETags without their quotes"
    NONE = "no conditional puts"


class Uploads(StrEnum):
    """What a store tells of the multipart uploads below a prefix."""

    DATED = "lists uploads"
    UNDATED = "lists uploads without the time at which they were begun"
    NONE = "lists no uploads: those that have no journal are not found"


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a store can do."""

    check: Check
    conditions: Conditions
    uploads: Uploads = Uploads.DATED

    def __str__(self) -> str:
        checks = f"checks {self.check}"
        if self.check is Check.NONE:
            checks = "checks nothing: what is written is read back"
        return f"{checks}; {self.conditions}; {self.uploads}"

    def if_match(self, etag: str) -> dict[str, str]:
        """Parameters of a put that is to replace what has this ETag, and nothing else."""
        if self.conditions is Conditions.NONE:
            return {}
        quoted = self.conditions is Conditions.QUOTED
        return {"IfMatch": f'"{bare(etag)}"' if quoted else bare(etag)}

    def if_absent(self) -> dict[str, str]:
        """Parameters of a put that is to replace nothing."""
        return {} if self.conditions is Conditions.NONE else {"IfNoneMatch": "*"}

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
    was put, or does not encrypt it as asked.

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
    if asked := bucket.options.for_notes():
        head = bucket.head(PROBE_KEY)
        check_kept(bucket.where(PROBE_KEY), asked, {} if head is None else head.kept_as)
    if not _is_listed(bucket):
        raise StoreError(
            f"{bucket.where(PROBE_KEY)}: the store took it, and does not list it",
            hint="what is archived there would not be found; try again later, or another prefix",
        )
    return Dialect(_strongest(bucket), _conditions(bucket), _uploads(bucket))


def _put_first(bucket: Bucket) -> None:
    """With a Content-MD5, which buckets with a default retention insist on."""
    try:
        _put(bucket, ContentMD5=md5_text(_PROBE))
    except (StoreError, StoreForbidden, Garbled, Refused):
        _put(bucket)


def _is_listed(bucket: Bucket) -> bool:
    """Whether a listing shows it: in time, where that lags behind."""
    for seconds in (*_LISTING_SECONDS, None):
        if any(key == PROBE_KEY for key, _ in bucket.listing(STAGING)):
            return True
        if seconds is not None:
            time.sleep(seconds)
    return False


def _conditions(bucket: Bucket) -> Conditions:
    """The form of conditions that the store keeps to: wrong ones are refused, right ones taken."""
    if not _refuses(lambda: _put(bucket, IfNoneMatch="*")):
        return Conditions.NONE
    for form in (Conditions.QUOTED, Conditions.BARE):
        wrong = Dialect(Check.NONE, form).if_match(_NO_ETAG)
        if _takes_right_etag(bucket, form) and _refuses(lambda: _put(bucket, **wrong)):  # noqa: B023
            return form
    return Conditions.NONE


def _takes_right_etag(bucket: Bucket, form: Conditions) -> bool:
    for _ in range(_MOST_PROBES):
        etag = _etag(bucket)
        right = Dialect(Check.NONE, form).if_match(etag)
        if not etag or _takes(lambda: _put(bucket, **right)):  # noqa: B023
            return bool(etag)
        if _etag(bucket) == etag:
            return False
        # A run on another host put the same bytes meanwhile, and some ETags differ all the same.
    return False


def _etag(bucket: Bucket) -> str:
    found = bucket.get(PROBE_KEY)
    return "" if found is None else found[1]


def _put(bucket: Bucket, **given: str) -> object:
    return bucket.put(PROBE_KEY, _PROBE, **given, **bucket.options.for_notes())


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
    if not _refuses(lambda: _put(bucket, **wrong)) or not _takes(lambda: _put(bucket, **right)):
        return False
    for _ in range(_MOST_PROBES):
        # A run on another host, which sweeps, may end this upload.
        with suppress(Gone):
            return _checks_part(bucket, upload, wrong, right)
    return False


def _checks_part(
    bucket: Bucket, upload: dict[str, str], wrong: dict[str, str], right: dict[str, str]
) -> bool:
    """The right one comes first: some servers end the upload at the wrong one. Raises Gone."""
    try:
        with _upload(bucket, upload) as upload_id:

            def part(given: dict[str, str]) -> object:
                data = bytearray(_PROBE)
                return bucket.upload_part(PROBE_KEY, upload_id, 1, data, **given)

            return _takes(lambda: part(right)) and _refuses(lambda: part(wrong))
    except StoreError:
        return False


def _uploads(bucket: Bucket) -> Uploads:
    """Whether an upload is listed below a prefix of its key, and as begun when it was."""
    try:
        for _ in range(_MOST_PROBES):
            with _upload(bucket, {}) as upload_id:
                found = [one for one in bucket.uploads(STAGING) if one.upload_id == upload_id]
                if found:
                    age = abs(datetime.now(UTC) - found[0].initiated)
                    return Uploads.DATED if age < _MOST_SKEW else Uploads.UNDATED
                if bucket.parts(PROBE_KEY, upload_id) is not None:
                    return Uploads.NONE
                # A run on another host ended it.
    except StoreError:
        pass
    return Uploads.NONE


@contextmanager
def _upload(bucket: Bucket, given: dict[str, str]) -> Generator[str, None, None]:
    """One that is under way in here; its id. Raises StoreError."""
    upload_id = bucket.create_upload(PROBE_KEY, **given, **bucket.options.for_notes())
    try:
        yield upload_id
    finally:
        with suppress(StoreError, StoreForbidden):
            bucket.abort(PROBE_KEY, upload_id)


def _refuses(ask: Callable[[], object]) -> bool:
    """Whether it is refused for what it should be refused for, and not as something unknown."""
    try:
        ask()
    except (Refused, Garbled):
        return True
    except (StoreError, StoreForbidden):
        return False
    return False


def _takes(ask: Callable[[], object]) -> bool:
    try:
        ask()
    except (Refused, Garbled, StoreError, StoreForbidden):
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
