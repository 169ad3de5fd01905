"""Which optional features of S3 a store has, found out by trying each of them.

Documentation cannot be relied on: stores ignore what they do not know, and implement what they do
know wrongly. So each feature is tried with a request that a store with the feature must refuse, and
with one that it must accept.
"""

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from archiver.errors import StoreError, StoreForbidden
from archiver.retry import RETRIES
from archiver.stores.s3.bucket import Bucket
from archiver.stores.s3.checksums import (
    Checksum,
    ChecksumKind,
    crc64nvme,
    crc64nvme_text,
    md5,
    md5_text,
)
from archiver.stores.s3.errors import ConditionFailed, DamagedInTransit, NoSuchUpload
from archiver.stores.s3.layout import PROBE_KEY, STAGING
from archiver.stores.s3.options import check_attributes
from archiver.stores.s3.responses import bare

_PROBE = b"probe"
_CRC64NVME = {"ChecksumCRC64NVME": crc64nvme_text(crc64nvme(_PROBE))}
_MD5 = {"ContentMD5": md5_text(_PROBE)}
_MAX_PROBES = RETRIES.s3_probe.attempts
# Waits for a listing that lags behind.
_LISTING_SECONDS = (0.2, 0.4, 0.8)
_WRONG_ETAG = "0" * 32
# With clocks that differ by more, requests cannot be signed.
_MAX_SKEW = timedelta(days=1)


class ConditionalPuts(StrEnum):
    """Whether the store honours ``If-None-Match`` and ``If-Match`` in puts, and the form of ETags
    that it accepts there."""

    QUOTED = "conditional puts"
    BARE = "conditional puts, with ETags without quotes"
    NONE = "no conditional puts"


class UploadListing(StrEnum):
    """What the store lists of the multipart uploads below a prefix."""

    DATED = "lists uploads"
    UNDATED = "lists uploads without their creation time"
    NONE = "does not list uploads: those without a journal are not found"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a store can do."""

    checksum: ChecksumKind
    conditional_puts: ConditionalPuts
    upload_listing: UploadListing = UploadListing.DATED

    def __str__(self) -> str:
        verifies = f"verifies {self.checksum}"
        if self.checksum is ChecksumKind.NONE:
            verifies = "verifies no checksums: objects are read back"
        return f"{verifies}; {self.conditional_puts}; {self.upload_listing}"

    def if_match(self, etag: str) -> dict[str, str]:
        """Parameters of a put that replaces only an object with this ETag."""
        if self.conditional_puts is ConditionalPuts.NONE:
            return {}
        is_quoted = self.conditional_puts is ConditionalPuts.QUOTED
        return {"IfMatch": f'"{bare(etag)}"' if is_quoted else bare(etag)}

    def if_absent(self) -> dict[str, str]:
        """Parameters of a put that replaces nothing."""
        return {} if self.conditional_puts is ConditionalPuts.NONE else {"IfNoneMatch": "*"}

    def checksum_of(self, data: bytes | bytearray) -> Checksum:
        """The checksum that the store verifies."""
        if self.checksum is ChecksumKind.CRC64NVME:
            return Checksum(crc64nvme=crc64nvme(data))
        if self.checksum is ChecksumKind.MD5:
            return Checksum(md5=md5(data))
        return Checksum()

    def checksum_parameters(self, data: bytes | bytearray) -> dict[str, Any]:
        """Parameters of PutObject or UploadPart that make the store verify ``data``."""
        return self.checksum_of(data).parameters


def probe(bucket: Bucket) -> Capabilities:
    """Find out what the store of a bucket can do.

    Raises what a write to the bucket raises, and StoreError when the store does not return or list
    what was written, or does not encrypt it as requested. The probe object stays: another host may
    be probing at the same moment, and an access key that may only add objects cannot delete it.
    """
    accepted = _put_first(bucket)
    found = bucket.get(PROBE_KEY)
    if found is None or found[0] != _PROBE:
        raise StoreError(
            f"{bucket.url(PROBE_KEY)}: the store accepted this object and does not return it as "
            "written",
            hint="backups would not be safe there; check the endpoint",
        )
    if requested := bucket.options.for_notes():
        head = bucket.head(PROBE_KEY)
        check_attributes(bucket.url(PROBE_KEY), requested, {} if head is None else head.attributes)
    if not _is_listed(bucket):
        raise StoreError(
            f"{bucket.url(PROBE_KEY)}: the store accepted this object and does not list it",
            hint="backups would not be found there; try again later, or use another prefix",
        )
    checksum = _strongest_checksum(bucket, accepted)
    return Capabilities(checksum, _conditional_puts(bucket, found[1]), _uploads(bucket))


def _put_first(bucket: Bucket) -> Mapping[str, str]:
    """Put the probe object; returns the checksum that the store accepts, which buckets with a
    default retention require: the strongest of them, and none if it accepts none."""
    for given in (_CRC64NVME, _MD5):
        if _accepts(lambda: _put(bucket, **given)):  # noqa: B023
            return given
    _put(bucket)
    return {}


def _is_listed(bucket: Bucket) -> bool:
    """Whether a listing has the probe object, within a second: some stores list objects late."""
    for seconds in (*_LISTING_SECONDS, None):
        if any(key == PROBE_KEY for key, *_ in bucket.listing(STAGING)):
            return True
        if seconds is not None:
            time.sleep(seconds)
    return False


def _conditional_puts(bucket: Bucket, etag: str) -> ConditionalPuts:
    """The form of conditions that the store honours: it refuses wrong ones, accepts right ones.
    ``etag`` is what it last gave as that of the object."""
    if not _refuses(lambda: _put(bucket, IfNoneMatch="*")):
        return ConditionalPuts.NONE
    for form in (ConditionalPuts.QUOTED, ConditionalPuts.BARE):
        wrong = Capabilities(ChecksumKind.NONE, form).if_match(_WRONG_ETAG)
        if _accepts_etag(bucket, form, etag) and _refuses(lambda: _put(bucket, **wrong)):  # noqa: B023
            return form
    return ConditionalPuts.NONE


def _accepts_etag(bucket: Bucket, form: ConditionalPuts, etag: str) -> bool:
    """Whether the store accepts the object's own ETag in this form."""
    for _ in range(_MAX_PROBES):
        right = Capabilities(ChecksumKind.NONE, form).if_match(etag)
        if not etag or _accepts(lambda: _put(bucket, **right)):  # noqa: B023
            return bool(etag)
        # Another host may have written the same bytes meanwhile, and some ETags differ all the
        # same.
        if (now := _etag(bucket)) == etag:
            return False
        etag = now
    return False


def _etag(bucket: Bucket) -> str:
    found = bucket.get(PROBE_KEY)
    return "" if found is None else found[1]


def _put(bucket: Bucket, **given: str) -> object:
    return bucket.put(PROBE_KEY, _PROBE, **given, **bucket.options.for_notes())


def _strongest_checksum(bucket: Bucket, accepted: Mapping[str, str]) -> ChecksumKind:
    """The strongest checksum that the store verifies, of objects and of parts; it has ``accepted``
    one of an object."""
    upload = {"ChecksumAlgorithm": "CRC64NVME", "ChecksumType": "FULL_OBJECT"}
    for kind, given, wrong, right in (
        (ChecksumKind.CRC64NVME, upload, {"ChecksumCRC64NVME": crc64nvme_text(0)}, _CRC64NVME),
        (ChecksumKind.MD5, {}, {"ContentMD5": md5_text(b"other")}, _MD5),
    ):
        refuses = _refuses(lambda: _put(bucket, **wrong))  # noqa: B023
        accepts = refuses and (right == accepted or _accepts(lambda: _put(bucket, **right)))  # noqa: B023
        if accepts and _verifies_parts(bucket, given, wrong, right):
            return kind
    return ChecksumKind.NONE


def _verifies_parts(
    bucket: Bucket, upload: dict[str, str], wrong: Mapping[str, str], right: Mapping[str, str]
) -> bool:
    """Whether the store refuses a wrong checksum of a part and accepts a right one."""
    for _ in range(_MAX_PROBES):
        # A sweep on another host may abort this upload.
        with suppress(NoSuchUpload):
            return _verifies_part(bucket, upload, wrong, right)
    return False


def _verifies_part(
    bucket: Bucket, upload: dict[str, str], wrong: Mapping[str, str], right: Mapping[str, str]
) -> bool:
    """The right one comes first: some servers abort the upload at a wrong one. Raises
    NoSuchUpload."""
    try:
        with _upload(bucket, upload) as upload_id:

            def part(given: Mapping[str, str]) -> object:
                data = bytearray(_PROBE)
                return bucket.multipart.upload_part(PROBE_KEY, upload_id, 1, data, **given)

            return _accepts(lambda: part(right)) and _refuses(lambda: part(wrong))
    except StoreForbidden:
        raise
    except StoreError:
        return False


def _uploads(bucket: Bucket) -> UploadListing:
    """Whether the store lists an upload below a prefix of its key, and with its creation time."""
    try:
        for _ in range(_MAX_PROBES):
            with _upload(bucket, {}) as upload_id:
                listed = bucket.multipart.unfinished(STAGING)
                found = [one for one in listed if one.upload_id == upload_id]
                if found:
                    age = abs(datetime.now(UTC) - found[0].initiated)
                    return UploadListing.DATED if age < _MAX_SKEW else UploadListing.UNDATED
                if bucket.multipart.parts(PROBE_KEY, upload_id) is not None:
                    return UploadListing.NONE
                # A sweep on another host aborted it.
    except StoreForbidden:
        raise
    except StoreError:
        pass
    return UploadListing.NONE


@contextmanager
def _upload(bucket: Bucket, given: dict[str, str]) -> Generator[str, None, None]:
    """The id of an upload that exists while in this context. Raises StoreError."""
    upload_id = bucket.multipart.create(PROBE_KEY, **given, **bucket.options.for_notes())
    try:
        yield upload_id
    finally:
        with suppress(StoreError):
            bucket.multipart.abort(PROBE_KEY, upload_id)


def _refuses(request: Callable[[], object]) -> bool:
    """Whether the store refuses a request because of its condition or checksum, and not because it
    does not know the parameter."""
    try:
        request()
    except (ConditionFailed, DamagedInTransit):
        return True
    except StoreError:
        return False
    return False


def _accepts(request: Callable[[], object]) -> bool:
    try:
        request()
    except (ConditionFailed, DamagedInTransit, StoreError):
        return False
    return True
