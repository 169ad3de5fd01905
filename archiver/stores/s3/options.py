"""Where a bucket is, and how objects are to be kept in it."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from archiver.documents import is_clean
from archiver.errors import UsageError

SCHEME = "s3://"
# S3 takes keys of 1,024 bytes, and the longest name of ours has 392.
MOST_PREFIX_BYTES = 600
# Hosts that refuse path style; elsewhere an endpoint of one's own is asked in it.
_VIRTUAL_ONLY = (".aliyuncs.com", ".myqcloud.com", ".volces.com")


class Addressing(StrEnum):
    """Whether the bucket is in the host name or in the path."""

    AUTO = "auto"
    PATH = "path"
    VIRTUAL = "virtual"


class LockMode(StrEnum):
    """S3 Object Lock: governance can be lifted by who has the permission, compliance by nobody."""

    GOVERNANCE = "GOVERNANCE"
    COMPLIANCE = "COMPLIANCE"


@dataclass(frozen=True, slots=True)
class S3Lock:
    """Keep objects from being changed until a moment, or for some days from when each is put."""

    mode: LockMode
    until: datetime | None = None
    days: int | None = None

    def ends(self, now: datetime) -> datetime:
        if self.until is not None:
            return self.until
        return now + timedelta(days=self.days or 0)


@dataclass(frozen=True, slots=True)
class S3Options:
    """``endpoint`` None is that of the AWS environment or profile (``AWS_ENDPOINT_URL_S3``).

    ``sse`` is ``AES256``, ``aws:kms``, or ``aws:kms:`` and a key id.
    """

    endpoint: str | None = None
    addressing: Addressing = Addressing.AUTO
    storage_class: str | None = None
    sse: str | None = None
    lock: S3Lock | None = None

    def for_objects(self, now: datetime | None = None) -> dict[str, Any]:
        """Parameters of PutObject and CreateMultipartUpload for backup files; of an upload that
        was begun at ``now``."""
        found = self.for_documents(now)
        if self.storage_class is not None:
            found["StorageClass"] = self.storage_class
        return found

    def for_documents(self, now: datetime | None = None) -> dict[str, Any]:
        """For records and the like: they are read by every run, so never in a slow class."""
        found = self.for_notes()
        if self.lock is not None:
            found["ObjectLockMode"] = str(self.lock.mode)
            found["ObjectLockRetainUntilDate"] = self.lock.ends(now or datetime.now(UTC))
        return found

    @property
    def said(self) -> str:
        """How backup files are kept, as a line that is the same for the same options."""
        lock = self.lock
        locked = lock and f"{lock.mode} {lock.until or lock.days}"
        return f"{self.storage_class} {self.sse} {locked}"

    def for_notes(self) -> dict[str, Any]:
        """For what is written over or deleted later: encrypted like all else, and no more."""
        if self.sse is None:
            return {}
        if not self.sse.startswith("aws:kms:"):
            return {"ServerSideEncryption": self.sse}
        key = self.sse.removeprefix("aws:kms:")
        return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key}

    def addressing_at(self, endpoint: str | None) -> str:
        """botocore's ``addressing_style`` for this endpoint."""
        host = (urlsplit(endpoint).hostname or "") if endpoint else ""
        if self.addressing is Addressing.AUTO and host.endswith(_VIRTUAL_ONLY):
            return str(Addressing.VIRTUAL)
        return str(self.addressing)


def parse_place(place: str) -> tuple[str, str]:
    """Bucket and prefix (empty, or ending in ``/``) of ``s3://bucket/prefix``.

    Raises UsageError.
    """
    bucket, _, prefix = place.removeprefix(SCHEME).partition("/")
    parts = [part for part in prefix.split("/") if part]
    if not place.startswith(SCHEME) or not bucket or any(part in (".", "..") for part in parts):
        raise UsageError(f"{place}: not of the form s3://bucket/prefix")
    if any(part.startswith(".") for part in parts):
        raise UsageError(f"{place}: a part of the prefix begins with a dot")
    if "\\" in place:
        raise UsageError(f"{place}: there is a backslash in it, which some stores take for a slash")
    if not is_clean(place):
        raise UsageError(
            f"{place!a}: there are characters in it that no line of text has",
            hint="does a file of settings have other line ends, or another encoding?",
        )
    prefix = "".join(f"{part}/" for part in parts)
    if (size := len(prefix.encode())) > MOST_PREFIX_BYTES:
        raise UsageError(
            f"{bucket}: a prefix of {size:,} bytes leaves no room for the names of an archive",
            hint=f"take one of at most {MOST_PREFIX_BYTES} bytes",
        )
    return bucket, prefix
