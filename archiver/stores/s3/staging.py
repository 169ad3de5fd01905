"""A file that is being written to a bucket: by a multipart upload, or by one put if it is small.

Nothing touches a local disk. A part is buffered in memory from its first byte until the store has
it, and hashed meanwhile, since it cannot be read back.
"""

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from archiver.errors import LockLost, PlaceTaken, StoreError, UsageError
from archiver.model import Kind, Part, Pin, Provenance, Receipt, Stored
from archiver.rdb.magic import kind_of
from archiver.stores.base import Documents, Resumable
from archiver.stores.commit import Commit
from archiver.stores.s3 import journal
from archiver.stores.s3.layout import MIN_PART_BYTES, journal_key, note_key, rejected_key
from archiver.stores.s3.options import S3Options, check_attributes
from archiver.stores.s3.replacing import copy_to_quarantine, copy_verified, replacing
from archiver.stores.s3.upload import ResumableUpload
from archiver.stores.s3.writing import VerifiedWriter
from archiver.stores.scope import scope_of

# A lock of some days starts when the object is written. This date makes any end late enough.
_ANY_TIME: Final = datetime(1970, 1, 1, tzinfo=UTC)


class S3Staging:
    """Implements Staging for the file ``stem`` of ``size`` bytes. ``check`` raises LockLost when
    this process is no longer the only writer."""

    def __init__(
        self, writer: VerifiedWriter, stem: str, size: int, check: Callable[[], None] = lambda: None
    ) -> None:
        self._writer: Final = writer
        self._bucket: Final = writer.bucket
        self._stem: Final = stem
        self._size: Final = size
        self._check: Final = check
        self._journal_key: Final = journal_key(stem)
        self._buffers: Final[dict[int, bytearray]] = {}
        self._free: Final[list[bytearray]] = []
        self._guard: Final = threading.Lock()
        self._part_size = max(size, 1)
        self._kind = Kind.UNKNOWN
        self._upload: ResumableUpload | None = None
        self._has_journal = False
        self._existing: dict[str, int] = {}
        self._resumable: Resumable | None = None

    @property
    def resumable(self) -> Resumable | None:
        return self._resumable

    @property
    def existing(self) -> Mapping[str, int]:
        return self._existing

    @property
    def can_read_back(self) -> bool:
        return False

    @property
    def can_rewrite_parts(self) -> bool:
        return False

    def open(self, existing: Mapping[str, int] | None = None) -> None:
        """Find existing objects, unless a listing has shown them, and an upload to resume."""
        if existing is None:
            names = {f"{self._stem}.{kind}" for kind in Kind}
            listed = self._bucket.listing(f"{self._stem}.")
            existing = {key: size for key, size, *_ in listed if key in names}
        self._existing = dict(existing)
        if self._size < MIN_PART_BYTES:
            return  # never uploaded in parts
        found = self._bucket.get(self._journal_key)
        noted = journal.parse(found[0]) if found else None
        if noted is None:
            return
        self._has_journal = True
        # The options of an upload cannot be changed once it exists.
        stored_as = noted.stored_as or S3Options().fingerprint
        if not noted.fits(self._stem, self._size) or stored_as != self._bucket.options.fingerprint:
            if noted.key.startswith(f"{self._stem}.") and noted.upload_id:
                self._bucket.multipart.abort(noted.key, noted.upload_id)
            self._writer.discard(self._journal_key)
            return
        self._upload = ResumableUpload.resume(self._writer, self._journal_key, noted)
        if self._upload is not None:
            self._part_size = noted.part_size
            crcs = {index: part.crc for index, part in self._upload.parts.items()}
            self._resumable = Resumable(
                noted.pin, noted.provenance, noted.part_size, crcs, state=self._upload.state
            )

    def close(self) -> None:
        """Free memory. An upload that has parts stays, for a later run to resume."""
        self._buffers.clear()
        self._free.clear()
        try:
            self._check()
        except (LockLost, StoreError):
            return  # another writer may own it by now
        if self._upload is not None and self._upload.parts:
            self._upload.save_journal()
        elif self._upload is not None:
            self._upload.abort()

    # Parts

    def begin(self, pin: Pin, provenance: Provenance, part_size: int) -> None:
        self._part_size = part_size
        if self._size > part_size:
            if part_size < MIN_PART_BYTES:
                raise UsageError("an S3 store accepts no parts of less than 5 MiB")
            self._upload = ResumableUpload(
                self._writer, self._journal_key, pin, provenance, part_size
            )

    def write(self, offset: int, data: memoryview) -> None:
        if offset == 0:
            self._kind = kind_of(bytes(data[:1024]))
        index, start = self._part_at(offset)
        with self._guard:
            buffer = self._buffers.get(index)
            if buffer is None:
                size = min(self._part_size, self._size - start)
                # Reused: fresh memory costs a page fault for every 4 KiB.
                fits = self._free and len(self._free[-1]) == size
                buffer = self._buffers[index] = self._free.pop() if fits else bytearray(size)
        buffer[offset - start : offset - start + len(data)] = data

    def read(self, offset: int, block: memoryview) -> int:
        index, start = self._part_at(offset)
        buffer = self._buffers.get(index)
        if buffer is None:
            url = self._bucket.url(self._stem)
            raise StoreError(f"{url}: an uploaded part cannot be read back")
        piece = memoryview(buffer)[offset - start : offset - start + len(block)]
        block[: len(piece)] = piece
        return len(piece)

    def _part_at(self, offset: int) -> tuple[int, int]:
        """Index and start of the part with this byte."""
        index = offset // self._part_size
        return index, index * self._part_size

    def save_hash_state(self, part: Part, state: str) -> None:
        if self._upload is not None:
            self._upload.save_hash_state(part, state)

    def save_part(self, part: Part, crc: int, so_far: int | None = None) -> None:
        if so_far is not None or self._upload is None:
            return
        self._check()
        # The kind by the first bytes, which are written first. The receipt has the final one.
        self._upload.create(f"{self._stem}.{self._kind}")
        self._upload.upload_part(part, crc, self._buffers[part.index])
        with self._guard:
            self._free.append(self._buffers.pop(part.index))

    def restart(self) -> None:
        self._check()
        if self._upload is not None:
            self._upload.abort()
            self._upload = None
        self._buffers.clear()
        self._resumable = None

    # The end

    def commit(self, receipt: Receipt, documents: Documents) -> Commit:
        """The object, verified; then the documents. What is not needed any more is deleted last,
        where that is allowed."""
        yield from ()  # a bucket responds only when the data is durable
        self._check()
        stored = Stored(f"{self._stem}.{receipt.kind}", receipt)
        written_to = stored.key if self._upload is None else self._upload.key
        to_replace = [
            key for key, size in self._existing.items() if size and key in (stored.key, written_to)
        ]
        with replacing(self._writer, to_replace, receipt.sha256, self._check):
            version = self._write_object(stored)
        self._check()
        for key in self._existing:
            # An object of another kind. Where it may not be deleted, it is emptied: verify would
            # report it for ever.
            if key != stored.key and not self._bucket.delete_if_allowed(key):
                self._writer.put_note(key, b"")
        own = {stored.key: version} if version else {}
        return self._write_documents(stored, documents, own)

    def record(self, key: str, receipt: Receipt, documents: Documents) -> Commit:
        """The documents about an existing object. An upload for it is aborted."""
        yield from ()
        self._check()
        head = self._bucket.head(key)
        if head is None or head.size != receipt.size:
            raise StoreError(
                f"{self._bucket.url(key)}: the object changed since it was checked",
                hint="something else writes to this archive",
            )
        if self._upload is not None:
            self._upload.abort()
            self._upload = None
        try:
            requested = self._bucket.options.for_objects(_ANY_TIME)
            check_attributes(self._bucket.url(key), requested, head.attributes)
        except StoreError as error:
            raise PlaceTaken(
                f"{error.message}; an earlier run wrote it",
                hint="copy it onto itself with these options, or leave the option out",
            ) from None
        return self._write_documents(Stored(key, receipt), documents, {})

    def _write_object(self, stored: Stored) -> str:
        """Its ETag, where it was not compared with what is stored."""
        receipt = stored.receipt
        if self._upload is None:
            data = self._buffers.get(0, bytearray())
            return self._writer.put(
                stored.key,
                data,
                replaces=stored.key in self._existing,
                **self._bucket.options.for_objects(),
            )
        self._upload.complete(receipt)
        if self._upload.key != stored.key:
            # Its first bytes looked like another kind: some AOFs begin with an RDB.
            requested = self._bucket.options.for_objects()
            self._bucket.copy_as_object(self._upload.key, stored.key, self._size, requested)
            self._writer.read_back(stored.key, receipt.sha256)
            head = self._bucket.head(stored.key)
            attributes = {} if head is None else head.attributes
            check_attributes(self._bucket.url(stored.key), requested, attributes)
            self._bucket.delete_if_allowed(self._upload.key)
        return ""

    def _write_documents(
        self, stored: Stored, documents: Documents, own: Mapping[str, str]
    ) -> Stored:
        """Write them. Returns what was stored, with them, their versions, and its ``own``."""
        self._check()
        written = documents(stored)
        versions = {key: self._writer.put_document(key, data) for key, data in written}
        if self._upload is not None or self._has_journal:
            self._writer.discard(self._journal_key)
        self._upload = None
        self._remove_rejected()
        return replace(stored, versions={**versions, **own}, documents=written)

    # Quarantine

    def copy_to_quarantine(self, key: str, why: str) -> str:
        """A copy within the store. It stays until somebody deletes it."""
        self._check()
        copy_key = copy_to_quarantine(self._writer, key)
        self._write_note(copy_key, key, self._existing[key], why)
        return copy_key

    def quarantine(self, why: str) -> str | None:
        """A store can copy only complete objects, so an upload is completed under its own key
        first. When that key has an object already, the upload is aborted, and the result is
        None."""
        self._check()
        target = rejected_key(self._stem)
        if self._upload is None:
            data = self._buffers.get(0, bytearray())
            self._writer.put(target, data, **self._bucket.options.for_notes())
        elif self._bucket.head(self._upload.key) is None:
            self._quarantine_upload(self._upload, target)
        else:
            self._upload.abort()
            self._upload = None
            return None
        self._upload = None
        self._writer.discard(self._journal_key)
        self._write_note(target, self._stem, self._size, why)
        return target

    def _quarantine_upload(self, upload: ResumableUpload, target: str) -> None:
        """Complete an upload under its own key, which has no object, and move that."""
        upload.complete_unverified()
        completed = self._bucket.head(upload.key)
        copy_verified(self._writer, upload.key, target)
        self._check()
        # Only while it is what was completed above.
        if completed is not None and self._bucket.head(upload.key) == completed:
            self._bucket.delete_if_allowed(upload.key)

    def _write_note(self, quarantined: str, key: str, size: int, why: str) -> None:
        text = json.dumps({"key": key, "size": size, "why": why}, indent=2) + "\n"
        self._writer.put_note(note_key(quarantined), text.encode())
        self._writer.add_quarantined(quarantined, size)
        self._writer.add_quarantined(note_key(quarantined), len(text))

    def _remove_rejected(self) -> None:
        """Delete earlier bytes of this file that failed verification, now that the right ones are
        stored."""
        rejected = rejected_key(self._stem)
        if rejected not in self._writer.quarantined(scope_of(self._stem)):
            return
        found = self._bucket.get(note_key(rejected))
        if found is not None and _is_about(found[0], self._stem):
            for key in (rejected, note_key(rejected)):
                self._bucket.delete_if_allowed(key)
                self._writer.remove_quarantined(key)


def _is_about(note: bytes, stem: str) -> bool:
    """Whether a note is one of ours and about this file."""
    try:
        parsed = json.loads(note)
    except (ValueError, RecursionError):
        return False
    return isinstance(parsed, dict) and parsed.get("key") == stem
