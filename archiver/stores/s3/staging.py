"""One file on its way into a bucket: a multipart upload, or one put for a small one.

Nothing passes a local disk. A part is held in memory from its first byte until the store has it,
and is measured meanwhile, since nobody can read it back.
"""

import json
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

from archiver.errors import ArchiveBusy, PlaceTaken, StoreError, UsageError
from archiver.model import Kind, Part, Pin, Provenance, Receipt, Stored
from archiver.rdb.magic import kind_of
from archiver.stores.base import Documents, Resumable
from archiver.stores.commit import Commit
from archiver.stores.s3 import journal
from archiver.stores.s3.asked import check_kept
from archiver.stores.s3.layout import LEAST_PART_BYTES, failed_key, journal_key, note_key
from archiver.stores.s3.options import S3Options
from archiver.stores.s3.replaced import copy_within, keep_aside, replacing
from archiver.stores.s3.sending import Sender
from archiver.stores.s3.upload import Upload

# A lock for so many days counts from when an object was put: any end will do.
_EVER: Final = datetime(1970, 1, 1, tzinfo=UTC)


class S3Staging:
    """A Staging below ``stem``. ``check`` raises ArchiveBusy when we are no longer the only
    writer."""

    def __init__(
        self, sender: Sender, stem: str, size: int, check: Callable[[], None] = lambda: None
    ) -> None:
        self._sender: Final = sender
        self._bucket: Final = sender.bucket
        self._stem: Final = stem
        self._size: Final = size
        self._check: Final = check
        self._journal_key: Final = journal_key(stem)
        self._buffers: Final[dict[int, bytearray]] = {}
        self._free: Final[list[bytearray]] = []
        self._guard: Final = threading.Lock()
        self._part_size = max(size, 1)
        self._kind = Kind.UNKNOWN
        self._upload: Upload | None = None
        self._has_journal = False
        self._present: dict[str, int] = {}
        self._resumable: Resumable | None = None

    @property
    def resumable(self) -> Resumable | None:
        return self._resumable

    @property
    def present(self) -> Mapping[str, int]:
        return self._present

    @property
    def reads_back(self) -> bool:
        return False

    @property
    def mends_in_place(self) -> bool:
        return False

    def open(self) -> None:
        """Find what is here already."""
        names = {f"{self._stem}.{kind}" for kind in Kind}
        listed = self._bucket.listing(f"{self._stem}.")
        self._present = {key: size for key, size in listed if key in names}
        if self._size < LEAST_PART_BYTES:
            return  # never in parts
        found = self._bucket.get(self._journal_key)
        noted = journal.parse(found[0]) if found else None
        if noted is None:
            return
        self._has_journal = True
        # Neither can be changed of an upload that is under way.
        asked = noted.asked or S3Options().said
        if not noted.fits(self._stem, self._size) or asked != self._bucket.options.said:
            if noted.key.startswith(f"{self._stem}.") and noted.upload_id:
                self._bucket.abort(noted.key, noted.upload_id)
            self._bucket.delete_if_allowed(self._journal_key)
            return
        self._upload = Upload.resume(self._sender, self._journal_key, noted)
        if self._upload is not None:
            self._part_size = noted.part_size
            crcs = {index: part.crc for index, part in self._upload.kept.items()}
            self._resumable = Resumable(
                noted.pin, noted.provenance, noted.part_size, crcs, state=self._upload.state
            )

    def close(self) -> None:
        """Let go of memory and connections; an upload that has parts stays, to be gone on with."""
        self._buffers.clear()
        self._free.clear()
        try:
            self._check()
        except (ArchiveBusy, StoreError):
            return  # it is another's by now, or may be
        if self._upload is not None and self._upload.kept:
            self._upload.note()
        elif self._upload is not None:
            self._upload.abort()

    # On the way

    def begin(self, pin: Pin, provenance: Provenance, part_size: int) -> None:
        self._part_size = part_size
        if self._size > part_size:
            if part_size < LEAST_PART_BYTES:
                raise UsageError("an S3 store takes no parts of less than 5 MiB")
            self._upload = Upload(self._sender, self._journal_key, pin, provenance, part_size)

    def write(self, offset: int, data: memoryview) -> None:
        if offset == 0:
            self._kind = kind_of(bytes(data[:1024]))
        index, start = self._place(offset)
        with self._guard:
            buffer = self._buffers.get(index)
            if buffer is None:
                size = min(self._part_size, self._size - start)
                # Reused: fresh memory costs a page fault for every 4 KiB.
                fits = self._free and len(self._free[-1]) == size
                buffer = self._buffers[index] = self._free.pop() if fits else bytearray(size)
        buffer[offset - start : offset - start + len(data)] = data

    def read(self, offset: int, block: memoryview) -> int:
        index, start = self._place(offset)
        buffer = self._buffers.get(index)
        if buffer is None:
            where = self._bucket.where(self._stem)
            raise StoreError(f"{where}: a part that was sent cannot be read back")
        piece = memoryview(buffer)[offset - start : offset - start + len(block)]
        block[: len(piece)] = piece
        return len(piece)

    def _place(self, offset: int) -> tuple[int, int]:
        """Index and start of the part that has this byte."""
        index = offset // self._part_size
        return index, index * self._part_size

    def measured(self, part: Part, state: str) -> None:
        if self._upload is not None:
            self._upload.measured(part, state)

    def keep(self, part: Part, crc: int, so_far: int | None = None) -> None:
        if so_far is not None or self._upload is None:
            return
        self._check()
        # What the first bytes say it is: they come first. Commit knows all of them.
        self._upload.begin(f"{self._stem}.{self._kind}")
        self._upload.send(part, crc, self._buffers[part.index])
        with self._guard:
            self._free.append(self._buffers.pop(part.index))

    # The end

    def restart(self) -> None:
        self._check()
        if self._upload is not None:
            self._upload.abort()
            self._upload = None
        self._buffers.clear()
        self._resumable = None

    def commit(self, receipt: Receipt, documents: Documents) -> Commit:
        """The object, compared; then the documents. What is of no use any more goes last, and
        stays where it may not be deleted."""
        yield from ()  # what a bucket has answered is durable
        self._check()
        stored = Stored(f"{self._stem}.{receipt.kind}", receipt)
        sent_to = stored.key if self._upload is None else self._upload.key
        over = [key for key, size in self._present.items() if size and key in (stored.key, sent_to)]
        with replacing(self._sender, over, receipt.sha256, self._check):
            self._bring_home(stored)
        self._check()
        for key in self._present:
            # Of another kind. Where nothing may be deleted, it is emptied: a verify would name it
            # for ever.
            if key != stored.key and not self._bucket.delete_if_allowed(key):
                self._sender.put_note(key, b"")
        self._write(stored, documents)
        return stored

    def record(self, key: str, receipt: Receipt, documents: Documents) -> Commit:
        """The documents about an object that is here; an upload that was to bring it is ended."""
        yield from ()
        self._check()
        head = self._bucket.head(key)
        if head is None or head.size != receipt.size:
            raise StoreError(
                f"{self._bucket.where(key)}: it is not the object that was checked any more",
                hint="something else writes to this archive",
            )
        if self._upload is not None:
            self._upload.abort()
            self._upload = None
        try:
            check_kept(
                self._bucket.where(key), self._bucket.options.for_objects(_EVER), head.kept_as
            )
        except StoreError as error:
            raise PlaceTaken(
                f"{error.message}; it is there since an earlier run",
                hint="copy it onto itself as it is to be kept, or leave the option out",
            ) from None
        stored = Stored(key, receipt)
        self._write(stored, documents)
        return stored

    def _write(self, stored: Stored, documents: Documents) -> None:
        self._check()
        for key, data in documents(stored):
            self._sender.put_document(key, data)
        if self._upload is not None or self._has_journal:
            self._bucket.delete_if_allowed(self._journal_key)
        self._upload = None
        self._forget_failed()

    def _bring_home(self, stored: Stored) -> None:
        receipt = stored.receipt
        if self._upload is None:
            data = self._buffers.get(0, bytearray())
            self._sender.put(stored.key, data, **self._bucket.options.for_objects())
            return
        self._upload.complete(receipt)
        if self._upload.key != stored.key:
            # Its first bytes look like another kind, as those of an AOF that begins with an RDB.
            asked = self._bucket.options.for_objects()
            self._bucket.copy_as_object(self._upload.key, stored.key, self._size, asked)
            self._sender.read_back(stored.key, receipt.sha256)
            copied = self._bucket.head(stored.key)
            check_kept(
                self._bucket.where(stored.key), asked, {} if copied is None else copied.kept_as
            )
            self._bucket.delete_if_allowed(self._upload.key)

    def keep_aside(self, key: str, why: str) -> str:
        """A copy within the store. It stays until somebody looks at it."""
        kept = keep_aside(self._sender, key)
        self._note_why(kept, key, self._present[key], why)
        return kept

    def quarantine(self, why: str) -> str | None:
        """The bytes under another key, by way of their own, since a store can copy only what is
        whole; None, and they are gone, where that has an object already."""
        self._check()
        target = failed_key(self._stem)
        if self._upload is None:
            data = self._buffers.get(0, bytearray())
            self._sender.put(target, data, **self._bucket.options.for_notes())
        elif self._bucket.head(self._upload.key) is None:
            self._put_aside(self._upload, target)
        else:
            self._upload.abort()
            self._upload = None
            return None
        self._upload = None
        self._bucket.delete_if_allowed(self._journal_key)
        self._note_why(target, self._stem, self._size, why)
        return target

    def _put_aside(self, upload: Upload, target: str) -> None:
        """A key that nothing has is lent for it."""
        upload.complete_as_it_is()
        lent = self._bucket.head(upload.key)
        copy_within(self._sender, upload.key, target)
        self._check()
        if lent is not None and self._bucket.head(upload.key) == lent:  # still what was sent
            self._bucket.delete_if_allowed(upload.key)

    def _note_why(self, kept: str, what: str, size: int, why: str) -> None:
        text = json.dumps({"key": what, "size": size, "why": why}, indent=2) + "\n"
        self._sender.put_note(note_key(kept), text.encode())
        self._sender.put_in_quarantine(kept, size)
        self._sender.put_in_quarantine(note_key(kept), len(text))

    def _forget_failed(self) -> None:
        """Remove bytes of this file that failed earlier, now that the right ones are here."""
        kept = failed_key(self._stem)
        if kept not in self._sender.in_quarantine():
            return
        found = self._bucket.get(note_key(kept))
        if found is not None and _is_about(found[0], self._stem):
            for key in (kept, note_key(kept)):
                self._bucket.delete_if_allowed(key)
                self._sender.gone_from_quarantine(key)


def _is_about(note: bytes, stem: str) -> bool:
    """Whether it is ours, and about this file."""
    try:
        said = json.loads(note)
    except (ValueError, RecursionError):
        return False
    return isinstance(said, dict) and said.get("key") == stem
