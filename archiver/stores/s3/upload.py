"""A multipart upload that another process, on another host, can go on with."""

import threading
import time
from datetime import UTC, datetime
from typing import Any, Final

from archiver.errors import ObjectChanged
from archiver.model import Part, Pin, Provenance, Receipt
from archiver.stores.s3.answers import bare
from archiver.stores.s3.bucket import Garbled, Gone, Refused
from archiver.stores.s3.dialect import Check, crc64nvme_text, fold_crc64nvme
from archiver.stores.s3.journal import Journal, Kept
from archiver.stores.s3.sending import Expected, Sender, damaged, etag_of_parts

# A journal is written whole each time, so not for every part of a fast upload.
_NOTE_SECONDS = 1.0


class Upload:
    """The parts of one file, and the journal of those that the store has.

    Parts count for a later run only as far as they have no gap before them, and with the state of
    measuring at their end: nobody can read them back.
    """

    def __init__(
        self, sender: Sender, journal_key: str, pin: Pin, provenance: Provenance, part_size: int
    ) -> None:
        self.key = ""
        self.kept: Final[dict[int, Kept]] = {}
        self._sender: Final = sender
        self._bucket: Final = sender.bucket
        self._journal_key: Final = journal_key
        self._pin: Final = pin
        self._provenance: Final = provenance
        self._part_size: Final = part_size
        self._states: Final[dict[int, str]] = {}
        self._upload_id: str | None = None
        self._begun: datetime | None = None
        self._guard: Final = threading.RLock()
        self._unnoted = False
        self._noted_at = -_NOTE_SECONDS

    @classmethod
    def resume(cls, sender: Sender, journal_key: str, noted: Journal) -> "Upload | None":
        """Go on with what the journal and the store agree on: all that is noted, or no part at
        all, since the state of measuring is that of the last one. None when the store has no such
        upload."""
        listed = sender.bucket.parts(noted.key, noted.upload_id) if noted.upload_id else None
        if listed is None:
            return None
        upload = cls(sender, journal_key, noted.pin, noted.provenance, noted.part_size)
        upload.key, upload._upload_id = noted.key, noted.upload_id
        upload._begun = noted.begun
        # A part that was sent twice may be listed twice.
        there = {(part.number, bare(part.etag).lower(), part.size) for part in listed}
        ours = [(n, bare(part.etag).lower(), part.size) for n, part in enumerate(noted.kept, 1)]
        if noted.state is not None and ours and there.issuperset(ours):
            upload.kept.update(enumerate(noted.kept))
            upload._states[len(ours) - 1] = noted.state
        return upload

    @property
    def state(self) -> str | None:
        """Of measuring, at the end of the parts without a gap."""
        return self._states.get(len(self._prefix()) - 1)

    def begin(self, key: str) -> None:
        """Create it, unless that was done. It is noted before, so that a later run knows it for
        ours, and before its first part is sent, so that one can go on with it."""
        with self._guard:
            if self._upload_id is None:
                self._begun = datetime.now(UTC)
                given = self._bucket.options.for_objects(self._begun)
                if self._sender.dialect.check is Check.CRC64NVME:
                    given |= {"ChecksumAlgorithm": "CRC64NVME", "ChecksumType": "FULL_OBJECT"}
                self.key = key
                self._note()
                self._upload_id = self._bucket.create_upload(key, **given)
                self._note()

    def measured(self, part: Part, state: str) -> None:
        with self._guard:
            self._states[part.index] = state

    def send(self, part: Part, crc: int, data: bytearray) -> None:
        """A part. Raises ObjectChanged when somebody else ended the upload, StoreError."""
        try:
            etag, checksum = self._sender.part(
                self.key, self._upload_id or "", part.index + 1, data
            )
        except Gone:
            raise ObjectChanged(f"{self._bucket.where(self.key)}: its upload was ended") from None
        md5 = checksum.md5.hex() if checksum.md5 is not None else None
        with self._guard:
            self.kept[part.index] = Kept(crc, checksum.crc64nvme, len(data), etag, md5)
            self._unnoted = True
            if time.monotonic() - self._noted_at >= _NOTE_SECONDS:
                self._note()

    def note(self) -> None:
        """Write what was not noted yet."""
        with self._guard:
            if self._unnoted:
                self._note()

    def _note(self) -> None:
        kept = self._prefix()
        noted = Journal(
            self.key, self._upload_id or "", self._pin, self._provenance, self._part_size,
            tuple(kept), self._states.get(len(kept) - 1), self._begun,
            self._bucket.options.said,
        )  # fmt: skip
        self._sender.put_note(self._journal_key, noted.encode())
        self._unnoted, self._noted_at = False, time.monotonic()
        for index in [index for index in self._states if index < len(kept) - 1]:
            del self._states[index]

    def _prefix(self) -> list[Kept]:
        kept: list[Kept] = []
        while len(kept) in self.kept:
            kept.append(self.kept[len(kept)])
        return kept

    def complete(self, receipt: Receipt) -> None:
        """Make the object of its parts, and compare. Raises StoreError."""
        expected = self._expected(receipt)
        asked = self._bucket.options.for_objects(self._begun)
        given: dict[str, Any] = {}
        if expected.crc64nvme is not None:
            given = {"ChecksumCRC64NVME": expected.crc64nvme, "ChecksumType": "FULL_OBJECT"}
        etags = [part.etag for part in self._prefix()]
        try:
            self._bucket.complete(self.key, self._upload_id or "", etags, **given)
        except Gone:
            # Done before, and the answer was lost; or somebody else's object is there.
            self._sender.compare(self.key, expected, asked)
            self._sender.read_back(self.key, receipt.sha256)
        except (Garbled, Refused):
            raise damaged(self._bucket.where(self.key)) from None
        else:
            self._sender.compare(self.key, expected, asked)
        self._upload_id = None

    def _expected(self, receipt: Receipt) -> Expected:
        """What the store must say of the whole."""
        parts = self._prefix()
        nvme: str | None = None
        if self._sender.dialect.check is Check.CRC64NVME:
            nvme = crc64nvme_text(fold_crc64nvme([(part.nvme or 0, part.size) for part in parts]))
        md5s = [bytes.fromhex(part.md5) for part in parts if part.md5 is not None]
        etag = etag_of_parts(md5s) if len(md5s) == len(parts) else None
        return Expected(receipt.size, receipt.sha256, nvme, etag)

    def complete_as_it_is(self) -> str:
        """Make an object of wrong bytes, to be put aside; its key."""
        etags = [part.etag for part in self._prefix()]
        try:
            self._bucket.complete(self.key, self._upload_id or "", etags)
        except (Gone, Garbled, Refused):
            raise damaged(self._bucket.where(self.key)) from None
        self._upload_id = None
        return self.key

    def abort(self) -> None:
        """End it, and forget its parts."""
        with self._guard:
            if self._upload_id is not None:
                self._bucket.abort(self.key, self._upload_id)
            self._upload_id = None
            self.kept.clear()
            self._states.clear()
            self._bucket.delete_if_allowed(self._journal_key)
