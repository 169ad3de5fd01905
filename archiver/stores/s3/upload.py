"""A multipart upload that another process, on another host, can resume."""

import threading
import time
from datetime import UTC, datetime
from typing import Any, Final

from archiver.errors import ObjectChanged
from archiver.model import Part, Pin, Provenance, Receipt
from archiver.stores.s3.checksums import (
    ChecksumKind,
    combine_crc64nvme,
    crc64nvme_text,
    etag_of_parts,
)
from archiver.stores.s3.errors import ConditionFailed, DamagedInTransit, NoSuchUpload
from archiver.stores.s3.journal import Journal, UploadedPart
from archiver.stores.s3.responses import bare
from archiver.stores.s3.writing import Expected, VerifiedWriter, damaged

# A journal is rewritten as a whole, so not after every part of a fast upload.
_JOURNAL_SECONDS = 1.0


class ResumableUpload:
    """The upload of one file, and its journal.

    A later run can use the leading parts without a gap, together with the state of the hash at
    their end, because parts cannot be read back.
    """

    def __init__(
        self,
        writer: VerifiedWriter,
        journal_key: str,
        pin: Pin,
        provenance: Provenance,
        part_size: int,
    ) -> None:
        self.key = ""
        self.parts: Final[dict[int, UploadedPart]] = {}
        self._writer: Final = writer
        self._bucket: Final = writer.bucket
        self._journal_key: Final = journal_key
        self._pin: Final = pin
        self._provenance: Final = provenance
        self._part_size: Final = part_size
        self._states: Final[dict[int, str]] = {}
        self._upload_id: str | None = None
        self._created_at: datetime | None = None
        self._guard: Final = threading.RLock()
        self._has_unsaved_parts = False
        self._saved_at = -_JOURNAL_SECONDS

    @classmethod
    def resume(
        cls, writer: VerifiedWriter, journal_key: str, journal: Journal
    ) -> "ResumableUpload | None":
        """The upload of a journal; None when the store has no such upload.

        It has all parts of the journal if the store has them, too, and else none: the state of the
        hash is that after the last one.
        """
        bucket, upload_id = writer.bucket, journal.upload_id
        listed = bucket.multipart.parts(journal.key, upload_id) if upload_id else None
        if listed is None:
            return None
        upload = cls(writer, journal_key, journal.pin, journal.provenance, journal.part_size)
        upload.key, upload._upload_id = journal.key, upload_id
        upload._created_at = journal.created_at
        # A part that was uploaded twice may be listed twice.
        there = {(part.number, bare(part.etag).lower(), part.size) for part in listed}
        ours = [(n, bare(part.etag).lower(), part.size) for n, part in enumerate(journal.parts, 1)]
        if journal.state is not None and ours and there.issuperset(ours):
            upload.parts.update(enumerate(journal.parts))
            upload._states[len(ours) - 1] = journal.state
        return upload

    @property
    def state(self) -> str | None:
        """The state of the hash at the end of the leading parts."""
        return self._states.get(len(self._leading_parts()) - 1)

    def create(self, key: str) -> None:
        """Create the upload, unless that was done.

        The journal is written before, so that a later run recognises the upload as ours, and again
        before the first part, so that a later run can resume it.
        """
        with self._guard:
            if self._upload_id is None:
                self._created_at = datetime.now(UTC)
                given = self._bucket.options.for_objects(self._created_at)
                if self._writer.capabilities.checksum is ChecksumKind.CRC64NVME:
                    given |= {"ChecksumAlgorithm": "CRC64NVME", "ChecksumType": "FULL_OBJECT"}
                self.key = key
                self._write_journal()
                self._upload_id = self._bucket.multipart.create(key, **given)
                self._write_journal()

    def save_hash_state(self, part: Part, state: str) -> None:
        with self._guard:
            self._states[part.index] = state

    def upload_part(self, part: Part, crc: int, data: bytearray) -> None:
        """Upload a part. Raises ObjectChanged when somebody else aborted the upload, StoreError."""
        try:
            etag, checksum = self._writer.upload_part(
                self.key, self._upload_id or "", part.index + 1, data
            )
        except NoSuchUpload:
            raise ObjectChanged(f"{self._bucket.url(self.key)}: its upload was aborted") from None
        md5 = checksum.md5.hex() if checksum.md5 is not None else None
        with self._guard:
            self.parts[part.index] = UploadedPart(crc, checksum.crc64nvme, len(data), etag, md5)
            self._has_unsaved_parts = True
            if time.monotonic() - self._saved_at >= _JOURNAL_SECONDS:
                self._write_journal()

    def save_journal(self) -> None:
        """Write the journal, if it lacks parts."""
        with self._guard:
            if self._has_unsaved_parts:
                self._write_journal()

    def _write_journal(self) -> None:
        parts = self._leading_parts()
        journal = Journal(
            self.key, self._upload_id or "", self._pin, self._provenance, self._part_size,
            tuple(parts), self._states.get(len(parts) - 1), self._created_at,
            self._bucket.options.fingerprint,
        )  # fmt: skip
        self._writer.put_note(self._journal_key, journal.encode())
        self._has_unsaved_parts, self._saved_at = False, time.monotonic()
        for index in [index for index in self._states if index < len(parts) - 1]:
            del self._states[index]

    def _leading_parts(self) -> list[UploadedPart]:
        parts: list[UploadedPart] = []
        while len(parts) in self.parts:
            parts.append(self.parts[len(parts)])
        return parts

    def complete(self, receipt: Receipt) -> None:
        """Make an object of the parts, and verify it. Raises StoreError."""
        expected = self._expected(receipt)
        requested = self._bucket.options.for_objects(self._created_at)
        given: dict[str, Any] = {}
        if expected.crc64nvme is not None:
            given = {"ChecksumCRC64NVME": expected.crc64nvme, "ChecksumType": "FULL_OBJECT"}
        etags = [part.etag for part in self._leading_parts()]
        try:
            self._bucket.multipart.complete(self.key, self._upload_id or "", etags, **given)
        except NoSuchUpload:
            # It was completed and the response was lost, or the object is somebody else's.
            self._writer.verify(self.key, expected, requested)
            self._writer.read_back(self.key, receipt.sha256)
        except (DamagedInTransit, ConditionFailed):
            raise damaged(self._bucket.url(self.key)) from None
        else:
            self._writer.verify(self.key, expected, requested)
        self._upload_id = None

    def _expected(self, receipt: Receipt) -> Expected:
        """What the store must report about the whole object."""
        parts = self._leading_parts()
        nvme: str | None = None
        if self._writer.capabilities.checksum is ChecksumKind.CRC64NVME:
            crcs = [(part.nvme or 0, part.size) for part in parts]
            nvme = crc64nvme_text(combine_crc64nvme(crcs))
        md5s = [bytes.fromhex(part.md5) for part in parts if part.md5 is not None]
        etag = etag_of_parts(md5s) if len(md5s) == len(parts) else None
        return Expected(receipt.size, receipt.sha256, nvme, etag)

    def complete_unverified(self) -> str:
        """Make an object of wrong bytes, which is then moved to quarantine; its key."""
        etags = [part.etag for part in self._leading_parts()]
        try:
            self._bucket.multipart.complete(self.key, self._upload_id or "", etags)
        except (NoSuchUpload, DamagedInTransit, ConditionFailed):
            raise damaged(self._bucket.url(self.key)) from None
        self._upload_id = None
        return self.key

    def abort(self) -> None:
        """Abort the upload, and delete its journal."""
        with self._guard:
            if self._upload_id is not None:
                self._bucket.multipart.abort(self.key, self._upload_id)
            self._upload_id = None
            self.parts.clear()
            self._states.clear()
            self._writer.discard(self._journal_key)
