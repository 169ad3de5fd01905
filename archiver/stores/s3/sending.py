"""Writing to a bucket so that what is there afterwards is what was sent, or an error says so."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from archiver.errors import NoDocument, StoreError
from archiver.retry import RETRIES
from archiver.stores.s3.answers import bare
from archiver.stores.s3.asked import check_kept, difference
from archiver.stores.s3.bucket import Bucket, Garbled, Head, Refused
from archiver.stores.s3.dialect import Check, Checksum, Dialect, crc64nvme_text, md5
from archiver.stores.s3.layout import QUARANTINE
from archiver.stores.s3.reading import OpenedObject

T = TypeVar("T")

# Times that something is sent again when the store says that it came damaged.
_MOST_SENDINGS = RETRIES.s3_send.attempts
_BLOCK_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Expected:
    """What an object must be. ``crc64nvme`` (base64) and ``etag`` (without quotes) are what a
    store says of it that keeps that checksum, and that makes ETags of MD5s; None where unknown.
    """

    size: int
    sha256: str
    crc64nvme: str | None = None
    etag: str | None = None

    def is_proven_by(self, head: Head) -> bool:
        """Whether what the store says proves it. An ETag that is another proves nothing: with
        some encryptions, and in some stores, it is no MD5. Raises ValueError for another CRC."""
        if self.crc64nvme is not None and head.crc64nvme is not None:
            if head.crc64nvme != self.crc64nvme:
                raise ValueError("another CRC-64/NVME")
            return True
        return self.etag is not None and bare(head.etag).lower() == self.etag


class Sender:
    """Sends with the strongest check that the store's dialect has."""

    def __init__(self, bucket: Bucket, dialect: Dialect) -> None:
        self.bucket: Final = bucket
        self.dialect: Final = dialect
        self._quarantine: dict[str, int] | None = None

    def put(self, key: str, data: bytes | bytearray, **given: Any) -> None:  # noqa: ANN401
        """An object whole, and compared. Raises StoreError."""
        checksum = self.dialect.measured(data)
        self._again(key, lambda: self.bucket.put(key, data, **given, **checksum.parameters))
        self.compare(key, _expected(data, checksum), given)

    def put_note(self, key: str, data: bytes) -> None:
        """Something of our own that a later run reads with doubt."""
        given = self.bucket.options.for_notes() | self.dialect.checksum(data)
        self._again(key, lambda: self.bucket.put(key, data, **given))

    def put_document(self, key: str, data: bytes) -> None:
        """A document of the archive; over nothing, or over what was there when we first looked:
        what comes there later is another writer's. Raises StoreError, also where the store keeps
        something else."""
        checksum = self.dialect.measured(data)
        given = self.bucket.options.for_documents() | checksum.parameters
        condition, replaced = self.dialect.if_absent(), ""
        for _ in range(_MOST_SENDINGS):
            try:
                answer = self.bucket.put(key, data, **given, **condition)
            except (Garbled, Refused):
                found = self._there(key)
                if found is not None and found[0] == data:
                    return  # ours: the answer to an earlier try was lost
                if found is not None:
                    if replaced not in ("", found[1]):
                        break
                    replaced = found[1]
                    condition = self.dialect.if_match(replaced)
                continue
            self._check_document(key, data, checksum, answer)
            self._check_kept(key, given, answer)
            return
        raise StoreError(
            f"{self.bucket.where(key)}: it cannot be written: it changes while it is",
            hint="is another writer, or something on the way, at work?",
        )

    def _there(self, key: str) -> tuple[bytes, str] | None:
        """What has the key of a document, and its ETag; of what is far too large, no bytes."""
        try:
            return self.bucket.get(key)
        except NoDocument:
            head = self.bucket.head(key)
            return None if head is None else (b"", head.etag)

    def _check_document(self, key: str, data: bytes, checksum: Checksum, answer: Head) -> None:
        """By the answer to its put, where that proves what the store has; else it is read.

        There is no second look at a size, as at objects: two documents come with every backup,
        whose object was looked at before them; and what takes documents and drops them all is
        found by the probe of each run.
        """
        expected = _expected(data, checksum, etag=md5(data).hex())
        if not self._proves(key, expected, answer):
            found = self.bucket.get(key)
            if found is None or found[0] != data:
                raise damaged(self.bucket.where(key))

    def _check_kept(self, key: str, asked: Mapping[str, Any], answer: Head) -> None:
        """The answer to a put tells of an encryption, and of nothing else."""
        if difference(asked, answer.kept_as) is not None:
            head = self.bucket.head(key)
            check_kept(self.bucket.where(key), asked, {} if head is None else head.kept_as)

    def in_quarantine(self) -> Mapping[str, int]:
        """Keys there, and sizes. Listed once: it is nearly always empty."""
        if self._quarantine is None:
            self._quarantine = dict(self.bucket.listing(QUARANTINE))
        return self._quarantine

    def forget_quarantine(self) -> None:
        self._quarantine = None

    def put_in_quarantine(self, key: str, size: int) -> None:
        """Know of one that is there from now on."""
        if self._quarantine is not None:
            self._quarantine[key] = size

    def gone_from_quarantine(self, key: str) -> None:
        if self._quarantine is not None:
            self._quarantine.pop(key, None)

    def part(self, key: str, upload_id: str, number: int, data: bytearray) -> tuple[str, Checksum]:
        """A part of an upload; its ETag, and its checksum. Raises Gone, StoreError."""
        checksum = self.dialect.measured(data)
        given = checksum.parameters
        etag = self._again(
            key, lambda: self.bucket.upload_part(key, upload_id, number, data, **given)
        )
        return etag, checksum

    def compare(self, key: str, expected: Expected, asked: Mapping[str, Any]) -> None:
        """Hold an object against what was sent: its size, and what the store says of its bytes, or
        where that is no proof, what it gives back; and how it is kept. Raises StoreError."""
        head = self.bucket.head(key, checksum=expected.crc64nvme is not None)
        if head is None or head.size != expected.size:
            has = "nothing" if head is None else f"{head.size:,} bytes"
            raise StoreError(
                f"{self.bucket.where(key)}: sent {expected.size:,} bytes, and the store has {has}"
            )
        if not self._proves(key, expected, head):
            self.read_back(key, expected.sha256)
        check_kept(self.bucket.where(key), asked, head.kept_as)

    def _proves(self, key: str, expected: Expected, head: Head) -> bool:
        if self.dialect.check is Check.NONE:
            return False  # what it says was never put to the test
        try:
            return expected.is_proven_by(head)
        except ValueError:
            raise damaged(self.bucket.where(key)) from None

    def read_back(self, key: str, sha256: str) -> None:
        """Raises StoreError for other bytes."""
        if self.sha256(key) != sha256:
            raise damaged(self.bucket.where(key))

    def sha256(self, key: str) -> str:
        """Of an object, read from its first byte to its last. Raises ObjectMissing, StoreError."""
        block, position = memoryview(bytearray(_BLOCK_BYTES)), 0
        digest = hashlib.sha256()
        opened = OpenedObject(self.bucket, key)
        try:
            while size := opened.read(position, block):
                digest.update(block[:size])
                position += size
        finally:
            opened.close()
        return digest.hexdigest()

    def _again(self, key: str, send: Callable[[], T]) -> T:
        for _ in range(_MOST_SENDINGS):
            try:
                return send()
            except Garbled:
                continue
            except Refused as refused:
                # Nothing was made a condition of it.
                raise StoreError(f"{self.bucket.where(key)}: refused: {refused}") from None
        raise damaged(self.bucket.where(key))


def etag_of_parts(md5s: Sequence[bytes]) -> str:
    """What the ETag of an upload is, where stores make it of MD5s."""
    return f"{md5(b''.join(md5s)).hex()}-{len(md5s)}"


def _expected(data: bytes | bytearray, checksum: Checksum, etag: str | None = None) -> Expected:
    nvme = None if checksum.crc64nvme is None else crc64nvme_text(checksum.crc64nvme)
    if checksum.md5 is not None:
        etag = checksum.md5.hex()
    return Expected(len(data), hashlib.sha256(data).hexdigest(), nvme, etag)


def damaged(where: str) -> StoreError:
    return StoreError(
        f"{where}: what the store has is not what was sent",
        hint="something on the way, or the store, changes bytes; nothing of it is recorded",
    )
