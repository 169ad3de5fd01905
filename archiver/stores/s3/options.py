"""Where a bucket is, how objects are stored in it, and whether the store did as requested."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlsplit

from archiver.documents import is_clean
from archiver.errors import StoreError, UsageError

SCHEME = "s3://"
# S3 allows keys of 1,024 bytes, and the longest name within an archive has 457.
MAX_PREFIX_BYTES = 560
# Hosts that refuse path-style addressing. Other custom endpoints are addressed path-style.
_VIRTUAL_ONLY = (".aliyuncs.com", ".myqcloud.com", ".volces.com")
# Stores round retention dates to whole seconds, up or down.
_ROUNDING: Final = timedelta(seconds=2)
_NOT_APPLIED: Final = "nothing was recorded; leave the option out, or use a store that supports it"
_LOCK_MISSING: Final = f"{_NOT_APPLIED}; without s3:GetObjectRetention a key cannot see locks"


class Addressing(StrEnum):
    """Whether the bucket is part of the host name or of the path."""

    AUTO = "auto"
    PATH = "path"
    VIRTUAL = "virtual"


class LockMode(StrEnum):
    """The modes of S3 Object Lock. Governance can be lifted with a permission, compliance by
    nobody."""

    GOVERNANCE = "GOVERNANCE"
    COMPLIANCE = "COMPLIANCE"


@dataclass(frozen=True, slots=True)
class S3Lock:
    """Protect objects from changes until a date, or for some days after each is written."""

    mode: LockMode
    until: datetime | None = None
    days: int | None = None

    def ends(self, now: datetime) -> datetime:
        """When the lock of an object ends that is written at ``now``."""
        if self.until is not None:
            return self.until
        return now + timedelta(days=self.days or 0)


@dataclass(frozen=True, slots=True)
class S3Options:
    """How to reach a bucket and how to store objects in it.

    ``endpoint`` None means that of the AWS environment or profile (``AWS_ENDPOINT_URL_S3``).
    ``sse`` is ``AES256``, ``aws:kms``, or ``aws:kms:`` and a key id.
    """

    endpoint: str | None = None
    addressing: Addressing = Addressing.AUTO
    storage_class: str | None = None
    sse: str | None = None
    lock: S3Lock | None = None

    def for_objects(self, now: datetime | None = None) -> dict[str, Any]:
        """Parameters of PutObject and CreateMultipartUpload for backup files. ``now`` is when the
        upload was created, by default the current time."""
        found = self.for_documents(now)
        if self.storage_class is not None:
            found["StorageClass"] = self.storage_class
        return found

    def for_documents(self, now: datetime | None = None) -> dict[str, Any]:
        """Parameters for records and the like. Every run reads them, so they never go into a slow
        storage class."""
        found = self.for_notes()
        if self.lock is not None:
            found["ObjectLockMode"] = str(self.lock.mode)
            found["ObjectLockRetainUntilDate"] = self.lock.ends(now or datetime.now(UTC))
        return found

    def for_notes(self) -> dict[str, Any]:
        """Parameters for what is overwritten or deleted later: only the encryption."""
        if self.sse is None:
            return {}
        if not self.sse.startswith("aws:kms:"):
            return {"ServerSideEncryption": self.sse}
        key = self.sse.removeprefix("aws:kms:")
        return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key}

    @property
    def fingerprint(self) -> str:
        """One line that is equal for options that store backup files alike."""
        lock = self.lock
        locked = lock and f"{lock.mode} {lock.until or lock.days}"
        return f"{self.storage_class} {self.sse} {locked}"

    def addressing_at(self, endpoint: str | None) -> str:
        """botocore's ``addressing_style`` for this endpoint."""
        host = (urlsplit(endpoint).hostname or "") if endpoint else ""
        if self.addressing is Addressing.AUTO and host.endswith(_VIRTUAL_ONLY):
            return str(Addressing.VIRTUAL)
        return str(self.addressing)


def parse_url(url: str) -> tuple[str, str]:
    """Bucket and prefix (empty, or ending in ``/``) of ``s3://bucket/prefix``.

    Raises UsageError.
    """
    bucket, _, prefix = url.removeprefix(SCHEME).partition("/")
    parts = [part for part in prefix.split("/") if part]
    if not url.startswith(SCHEME) or not bucket or any(part in (".", "..") for part in parts):
        raise UsageError(f"{url}: not of the form s3://bucket/prefix")
    if any(part.startswith(".") for part in parts):
        raise UsageError(f"{url}: a part of the prefix begins with a dot")
    if "\\" in url:
        raise UsageError(f"{url}: contains a backslash, which some stores treat as a slash")
    if not is_clean(url):
        raise UsageError(
            f"{url!a}: contains characters that cannot be printed",
            hint="check the line ends and the encoding of the file that it comes from",
        )
    prefix = "".join(f"{part}/" for part in parts)
    if (size := len(prefix.encode())) > MAX_PREFIX_BYTES:
        raise UsageError(
            f"{bucket}: a prefix of {size:,} bytes leaves no room for the names of an archive",
            hint=f"use a prefix of at most {MAX_PREFIX_BYTES} bytes",
        )
    return bucket, prefix


def check_attributes(url: str, requested: Mapping[str, Any], attributes: Mapping[str, Any]) -> None:
    """Check that an object is stored as requested: encrypted, locked, in its storage class.

    ``requested`` holds the parameters of the put, ``attributes`` what the store reports about the
    object at ``url``. Stores ignore options that they do not know, and only the attributes show it.
    Raises StoreError when something is missing or weaker.
    """
    if (mismatch := first_mismatch(requested, attributes)) is not None:
        name, wanted, found = mismatch
        hint = _LOCK_MISSING if "Lock" in name else _NOT_APPLIED
        raise StoreError(
            f"{url}: {name} {wanted} was requested, but the store reports {found}", hint=hint
        )


def first_mismatch(
    requested: Mapping[str, Any], attributes: Mapping[str, Any]
) -> tuple[str, object, object] | None:
    """The first attribute that was not applied as requested: its name, the requested value and the
    reported one. None when all of them were applied."""
    for name, (was_applied, default) in _RULES.items():
        if name in requested:
            found = attributes.get(name, default)
            if found is None or not was_applied(requested[name], found):
                return name, requested[name], "nothing" if found is None else found
    return None


def _is_equal(requested: object, found: object) -> bool:
    return requested == found


def _is_same_key(requested: str, found: str) -> bool:
    """Stores report a key by its full name (``arn:…:key/ID``), and the key itself for an alias."""
    return "alias/" in requested or found.endswith(requested.rpartition("/")[2])


def _is_as_late(requested: datetime, found: datetime) -> bool:
    return found + _ROUNDING >= requested


# By parameter of a put: how to compare it with the reported value, and what no value stands for.
_RULES: Final[Mapping[str, tuple[Any, str | None]]] = {
    "ServerSideEncryption": (_is_equal, None),
    "SSEKMSKeyId": (_is_same_key, None),
    "StorageClass": (_is_equal, "STANDARD"),  # every store omits the standard class
    "ObjectLockMode": (_is_equal, None),
    "ObjectLockRetainUntilDate": (_is_as_late, None),
}
