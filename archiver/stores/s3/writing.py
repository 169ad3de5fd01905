"""Writes to a bucket and verifies the result: what the store has is what was sent, or it raises."""

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from archiver.errors import ArchiverError, NoDocument, StoreError
from archiver.retry import RETRIES
from archiver.stores.s3.bucket import Bucket, Head, ObjectReader
from archiver.stores.s3.capabilities import Capabilities
from archiver.stores.s3.checksums import Checksum, ChecksumKind, crc64nvme_text, md5
from archiver.stores.s3.errors import ConditionFailed, DamagedInTransit
from archiver.stores.s3.layout import QUARANTINE, scope_of_internal
from archiver.stores.s3.options import check_attributes, first_mismatch
from archiver.stores.s3.responses import bare
from archiver.stores.scope import below

T = TypeVar("T")

# How often a body is sent that arrives damaged.
_MAX_TRIES = RETRIES.s3_send.attempts
_BLOCK_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Expected:
    """What an object must be; ``size`` in bytes.

    ``crc64nvme`` (base64) and ``etag`` (without quotes) are what a store reports that keeps this
    checksum, or makes ETags of MD5s; None when unknown.
    """

    size: int
    sha256: str
    crc64nvme: str | None = None
    etag: str | None = None

    def is_proven_by(self, head: Head) -> bool:
        """Whether what the store reports proves the contents. A different ETag proves nothing: with
        some encryptions, and in some stores, it is not an MD5. Raises ValueError when the CRC
        differs."""
        if self.crc64nvme is not None and head.crc64nvme is not None:
            if head.crc64nvme != self.crc64nvme:
                raise ValueError("the CRC-64/NVME differs")
            return True
        return self.etag is not None and bare(head.etag).lower() == self.etag


class VerifiedWriter:
    """Writes with the strongest checksum that the store verifies, and verifies what it stored."""

    def __init__(self, bucket: Bucket, capabilities: Capabilities) -> None:
        self.bucket: Final = bucket
        self.capabilities: Final = capabilities
        # What is in quarantine, by scope, of those that were listed.
        self._quarantine: Final[dict[str, dict[str, int]]] = {}

    def put(
        self,
        key: str,
        data: bytes | bytearray,
        *,
        replaces: bool = False,
        **given: Any,  # noqa: ANN401
    ) -> str:
        """Write an object in one request, and verify it: by the response, if that proves what
        arrived, else by asking for it. Its ETag, without quotes, where only the response was looked
        at: the listing at the end of the run tells whether it was kept. Raises StoreError.

        One that ``replaces`` another is always asked for: where a store drops the new one, a
        listing shows the old.
        """
        checksum = self.capabilities.checksum_of(data)
        head = self._retry_damaged(
            key, lambda: self.bucket.put(key, data, **given, **checksum.parameters)
        )
        expected = _expected(data, checksum)
        if self._is_proven(key, expected, head) and not replaces:
            self._verify_attributes(key, given, head)
            return bare(head.etag)
        self.verify(key, expected, given)
        return ""

    def put_note(self, key: str, data: bytes) -> None:
        """Write something internal. It is not verified, since whoever reads it checks it."""
        given = self.bucket.options.for_notes() | self.capabilities.checksum_parameters(data)
        self._retry_damaged(key, lambda: self.bucket.put(key, data, **given))

    def discard(self, key: str) -> None:
        """Delete something internal that is not needed any more. Where that is forbidden it is
        emptied: nobody looks at what is empty."""
        if not self.bucket.delete_if_allowed(key):
            with suppress(ArchiverError):
                self.put_note(key, b"")

    def put_document(self, key: str, data: bytes) -> str:
        """Write a document of the archive, and verify it; its ETag, without quotes.

        It replaces nothing, or what had the key at the first look: what appears later is another
        writer's. Raises StoreError.
        """
        checksum = self.capabilities.checksum_of(data)
        given = self.bucket.options.for_documents() | checksum.parameters
        condition, replaced = self.capabilities.if_absent(), ""
        for _ in range(_MAX_TRIES):
            try:
                head = self.bucket.put(key, data, **given, **condition)
            except (DamagedInTransit, ConditionFailed):
                found = self._current_document(key)
                if found is not None and found[0] == data:
                    return bare(found[1])  # by an earlier try whose response was lost
                if found is not None:
                    if replaced not in ("", found[1]):
                        break
                    replaced = found[1]
                    condition = self.capabilities.if_match(replaced)
                continue
            self._verify_document(key, data, checksum, head)
            self._verify_attributes(key, given, head)
            return bare(head.etag)
        raise StoreError(
            f"{self.bucket.url(key)}: cannot be written, because it keeps changing",
            hint="check for another writer, or for a proxy that changes what is sent",
        )

    def _current_document(self, key: str) -> tuple[bytes, str] | None:
        """The contents of a document and its ETag; no contents if it is far too large."""
        try:
            return self.bucket.get(key)
        except NoDocument:
            head = self.bucket.head(key)
            return None if head is None else (b"", head.etag)

    def _verify_document(self, key: str, data: bytes, checksum: Checksum, head: Head) -> None:
        """By the response to its put, if that proves the contents; else by reading it.

        There is no further request for its size: a store that accepts what it is sent and drops it
        is found by the probe of each run, and by the listing at the end of it. Raises StoreError.
        """
        expected = _expected(data, checksum, etag=md5(data).hex())
        if not self._is_proven(key, expected, head):
            found = self.bucket.get(key)
            if found is None or found[0] != data:
                raise damaged(self.bucket.url(key))

    def _verify_attributes(self, key: str, requested: Mapping[str, Any], head: Head) -> None:
        """Raises StoreError. The response to a put reports an encryption, and nothing else."""
        if first_mismatch(requested, head.attributes) is not None:
            found = self.bucket.head(key)
            attributes = {} if found is None else found.attributes
            check_attributes(self.bucket.url(key), requested, attributes)

    def quarantined(self, scope: str) -> Mapping[str, int]:
        """Keys in quarantine that belong to a scope, and their sizes in bytes. Listed once, since
        it is nearly always empty."""
        if scope not in self._quarantine:
            listing = self.bucket.listing(below(QUARANTINE, scope))
            self._quarantine[scope] = {key: size for key, size, *_ in listing}
        return self._quarantine[scope]

    def forget_quarantine_listing(self, scope: str) -> None:
        self._quarantine.pop(scope, None)

    def add_quarantined(self, key: str, size: int) -> None:
        """Add to the listing what was just written."""
        if (listed := self._quarantine.get(scope_of_internal(key))) is not None:
            listed[key] = size

    def remove_quarantined(self, key: str) -> None:
        self._quarantine.get(scope_of_internal(key), {}).pop(key, None)

    def upload_part(
        self, key: str, upload_id: str, number: int, data: bytearray
    ) -> tuple[str, Checksum]:
        """Upload a part; its ETag and its checksum. Raises NoSuchUpload, StoreError."""
        checksum = self.capabilities.checksum_of(data)
        given = checksum.parameters
        etag = self._retry_damaged(
            key, lambda: self.bucket.multipart.upload_part(key, upload_id, number, data, **given)
        )
        return etag, checksum

    def verify(self, key: str, expected: Expected, requested: Mapping[str, Any]) -> None:
        """Compare an object with what was sent: its size, then its contents, by what the store
        reports or else by reading it back; and its attributes. Raises StoreError."""
        head = self.bucket.head(key, checksum=expected.crc64nvme is not None)
        if head is None or head.size != expected.size:
            found = "nothing" if head is None else f"{head.size:,} bytes"
            raise StoreError(
                f"{self.bucket.url(key)}: sent {expected.size:,} bytes, but the store has {found}"
            )
        if not self._is_proven(key, expected, head):
            self.read_back(key, expected.sha256)
        check_attributes(self.bucket.url(key), requested, head.attributes)

    def _is_proven(self, key: str, expected: Expected, head: Head) -> bool:
        if self.capabilities.checksum is ChecksumKind.NONE:
            return False  # its reports were never tested
        try:
            return expected.is_proven_by(head)
        except ValueError:
            raise damaged(self.bucket.url(key)) from None

    def read_back(self, key: str, sha256: str) -> None:
        """Read an object and compare its SHA-256. Raises StoreError when it differs."""
        if self.sha256(key) != sha256:
            raise damaged(self.bucket.url(key))

    def sha256(self, key: str) -> str:
        """The SHA-256 (hex) of an object, which is read for it. Raises ObjectMissing,
        StoreError."""
        block, position = memoryview(bytearray(_BLOCK_BYTES)), 0
        digest = hashlib.sha256()
        reader = ObjectReader(self.bucket, key)
        try:
            while size := reader.read(position, block):
                digest.update(block[:size])
                position += size
        finally:
            reader.close()
        return digest.hexdigest()

    def _retry_damaged(self, key: str, send: Callable[[], T]) -> T:
        for _ in range(_MAX_TRIES):
            try:
                return send()
            except DamagedInTransit:
                continue
            except ConditionFailed as error:
                # No condition was given.
                raise StoreError(f"{self.bucket.url(key)}: refused: {error}") from None
        raise damaged(self.bucket.url(key))


def _expected(data: bytes | bytearray, checksum: Checksum, etag: str | None = None) -> Expected:
    nvme = None if checksum.crc64nvme is None else crc64nvme_text(checksum.crc64nvme)
    if checksum.md5 is not None:
        etag = checksum.md5.hex()
    return Expected(len(data), hashlib.sha256(data).hexdigest(), nvme, etag)


def damaged(url: str) -> StoreError:
    return StoreError(
        f"{url}: what the store has is not what was sent",
        hint="the store, or a proxy in between, changes data; nothing was recorded",
    )
