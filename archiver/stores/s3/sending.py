"""Writing to a bucket so that what is there afterwards is what was sent, or an error says so."""

import hashlib
from collections.abc import Callable
from typing import Any, Final, TypeVar

from archiver.errors import StoreError
from archiver.stores.s3.bucket import Bucket, Garbled, Refused
from archiver.stores.s3.dialect import Check, Dialect, crc64nvme_text
from archiver.stores.s3.layout import QUARANTINE
from archiver.stores.s3.reading import OpenedObject

T = TypeVar("T")

# Times that something is sent again when the store says that it came damaged.
_MOST_SENDINGS = 4
_BLOCK_BYTES = 2**20


class Sender:
    """Sends with the strongest check that the store's dialect has."""

    def __init__(self, bucket: Bucket, dialect: Dialect) -> None:
        self.bucket: Final = bucket
        self.dialect: Final = dialect
        self._quarantine: frozenset[str] | None = None

    def put(self, key: str, data: bytes | bytearray, **given: Any) -> None:  # noqa: ANN401
        """An object whole; checked by the store, or by what it gives back. Raises StoreError."""
        checksum = self.dialect.checksum(data)
        self._again(key, lambda: self.bucket.put(key, data, **given, **checksum))
        if self.dialect.check is Check.NONE:
            self.read_back(key, hashlib.sha256(data).hexdigest())

    def put_note(self, key: str, data: bytes) -> None:
        """Something of our own that a later run reads with doubt."""
        given = self.bucket.options.for_notes() | self.dialect.checksum(data)
        self._again(key, lambda: self.bucket.put(key, data, **given))

    def put_document(self, key: str, data: bytes) -> None:
        """A document of the archive; over nothing, or over what was there when we looked."""
        given = self.bucket.options.for_documents() | self.dialect.checksum(data)
        condition = {"IfNoneMatch": "*"} if self.dialect.conditions else {}
        for _ in range(_MOST_SENDINGS):
            try:
                self.bucket.put(key, data, **given, **condition)
            except (Garbled, Refused):
                found = self.bucket.get(key)
                if found is not None and found[0] == data:
                    return  # ours: the answer to an earlier try was lost
                if self.dialect.conditions and found is not None:
                    condition = {"IfMatch": found[1]}
                continue
            if self.dialect.check is Check.NONE:
                self.read_back(key, hashlib.sha256(data).hexdigest())
            return
        raise StoreError(
            f"{self.bucket.where(key)}: it cannot be written: it changes while it is",
            hint="is another writer, or something on the way, at work?",
        )

    def quarantine_changed(self) -> None:
        self._quarantine = None

    def in_quarantine(self, prefix: str) -> list[str]:
        """Keys there; listed once, as long as nobody says that it changed: it is nearly always
        empty."""
        if self._quarantine is None:
            self._quarantine = frozenset(key for key, _ in self.bucket.listing(QUARANTINE))
        return [key for key in self._quarantine if key.startswith(prefix)]

    def part(self, key: str, upload_id: str, number: int, data: bytearray) -> str:
        """A part of an upload; its ETag. Raises Gone, StoreError."""
        checksum = self.dialect.checksum(data)
        return self._again(
            key, lambda: self.bucket.upload_part(key, upload_id, number, data, **checksum)
        )

    def compare(self, key: str, size: int, nvme: int, sha256: str) -> None:
        """Hold an object against what was sent: by the store's own CRC of it, and where that has
        none, by what it gives back. Raises StoreError."""
        wants_crc = self.dialect.check is Check.CRC64NVME
        head = self.bucket.head(key, checksum=wants_crc)
        if head is None or head.size != size:
            has = "nothing" if head is None else f"{head.size:,} bytes"
            raise StoreError(
                f"{self.bucket.where(key)}: sent {size:,} bytes, and the store has {has}"
            )
        if wants_crc and head.crc64nvme is not None:
            if head.crc64nvme != crc64nvme_text(nvme):
                raise damaged(self.bucket.where(key))
        elif self.dialect.check is not Check.MD5:
            self.read_back(key, sha256)

    def read_back(self, key: str, sha256: str) -> None:
        """Raises StoreError for other bytes."""
        block, position = memoryview(bytearray(_BLOCK_BYTES)), 0
        digest = hashlib.sha256()
        opened = OpenedObject(self.bucket, key)
        try:
            while size := opened.read(position, block):
                digest.update(block[:size])
                position += size
        finally:
            opened.close()
        if digest.hexdigest() != sha256:
            raise damaged(self.bucket.where(key))

    def _again(self, key: str, send: Callable[[], T]) -> T:
        for _ in range(_MOST_SENDINGS):
            try:
                return send()
            except Garbled:
                continue
        raise damaged(self.bucket.where(key))


def damaged(where: str) -> StoreError:
    return StoreError(
        f"{where}: what the store has is not what was sent",
        hint="something on the way, or the store, changes bytes; nothing of it is recorded",
    )
