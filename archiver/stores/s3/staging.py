"""One file on its way into a bucket: a multipart upload, or one put for a small one.

Nothing passes a local disk. A part is held in memory from its first byte until the store has it,
and is measured meanwhile, since nobody can read it back.
"""

import json
import threading
from collections.abc import Callable
from typing import Final

from archiver.errors import StoreError, UsageError
from archiver.model import Kind, Part, Pin, Provenance, Receipt, Stored
from archiver.rdb.magic import kind_of
from archiver.stores.base import Documents, Resumable
from archiver.stores.commit import Commit
from archiver.stores.s3 import journal
from archiver.stores.s3.layout import LEAST_PART_BYTES, QUARANTINE, SEPARATOR, STAGING, aside
from archiver.stores.s3.reading import OpenedObject
from archiver.stores.s3.sending import Sender
from archiver.stores.s3.upload import Upload


class S3Staging:
    """A Staging below ``stem``; or, when an earlier run was killed between completing an object
    and recording it, that object where it is, to be read and never changed.

    ``check`` raises ArchiveBusy when we are no longer the only writer.
    """

    def __init__(
        self, sender: Sender, stem: str, size: int, check: Callable[[], None] = lambda: None
    ) -> None:
        flat = stem.replace("/", SEPARATOR)
        self._sender: Final = sender
        self._bucket: Final = sender.bucket
        self._stem: Final = stem
        self._size: Final = size
        self._check: Final = check
        self._journal_key: Final = f"{STAGING}{flat}.json"
        self._quarantined: Final = f"{QUARANTINE}{flat}."
        self._buffers: Final[dict[int, bytearray]] = {}
        self._free: Final[list[bytearray]] = []
        self._guard: Final = threading.Lock()
        self._part_size = max(size, 1)
        self._kind = Kind.UNKNOWN
        self._upload: Upload | None = None
        self._objects: dict[str, int] = {}
        self._home: OpenedObject | None = None
        self._resumable: Resumable | None = None

    @property
    def resumable(self) -> Resumable | None:
        return self._resumable

    @property
    def reads_back(self) -> bool:
        return self._home is not None

    @property
    def mends_in_place(self) -> bool:
        return False

    def open(self) -> None:
        """Find what is here already."""
        names = {f"{self._stem}.{kind}" for kind in Kind}
        listed = self._bucket.listing(f"{self._stem}.")
        self._objects = {key: size for key, size in listed if key in names}
        whole = [key for key, size in self._objects.items() if size == self._size]
        if whole:
            self._home = OpenedObject(self._bucket, whole[0])
            self._resumable = Resumable(None, None, 0, {})
            return
        if self._size < LEAST_PART_BYTES:
            return  # never in parts
        found = self._bucket.get(self._journal_key)
        noted = journal.parse(found[0]) if found else None
        if noted is None:
            return
        if not noted.fits(self._stem, self._size):
            if noted.key.startswith(f"{self._stem}."):
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
        if self._home is not None:
            self._home.close()
        self._buffers.clear()
        self._free.clear()
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
        if self._home is not None:
            raise RuntimeError("an object that is complete is not written to")
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
        if self._home is not None:
            return self._home.read(offset, block)
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
        # What the first bytes say it is: they come first. Commit knows all of them.
        self._upload.begin(f"{self._stem}.{self._kind}")
        self._upload.send(part, crc, self._buffers[part.index])
        with self._guard:
            self._free.append(self._buffers.pop(part.index))

    # The end

    def restart(self) -> None:
        if self._upload is not None:
            self._upload.abort()
            self._upload = None
        if self._home is not None:
            self._home.close()
            self._home = None
        self._buffers.clear()
        self._resumable = None

    def commit(self, receipt: Receipt, documents: Documents) -> Commit:
        """The object, compared; then the documents. What is of no use any more goes last, and
        stays where it may not be deleted."""
        yield from ()  # what a bucket has answered is durable
        self._check()
        stored = self._bring_home(receipt)
        self._check()
        for key, data in documents(stored):
            self._sender.put_document(key, data)
        useless = [key for key in self._objects if key != stored.key]  # of other kinds
        # Bytes that failed earlier, or were put aside to be replaced.
        asides = {aside(f"{self._stem}.{kind}") for kind in Kind}
        failed = {f"{self._quarantined}data", f"{self._quarantined}json"}
        kept = self._sender.in_quarantine(self._quarantined)
        useless += [key for key in kept if key in failed | asides]
        if self._upload is not None or self._home is not None:
            useless.append(self._journal_key)
        self._upload = None
        for key in useless:
            self._bucket.delete_if_allowed(key)
        return stored

    def _bring_home(self, receipt: Receipt) -> Stored:
        key = f"{self._stem}.{receipt.kind}"
        if self._home is not None:
            return Stored(self._home.key, receipt)
        if self._upload is None:
            data = self._buffers.get(0, bytearray())
            self._sender.put(key, data, **self._bucket.options.for_objects())
            return Stored(key, receipt)
        self._upload.complete(receipt)
        if self._upload.key != key:
            # Its first bytes look like another kind, as those of an AOF that begins with an RDB.
            self._bucket.copy(
                self._upload.key, key, self._size, **self._bucket.options.for_objects()
            )
            self._sender.read_back(key, receipt.sha256)
            self._bucket.delete_if_allowed(self._upload.key)
        return Stored(key, receipt)

    def quarantine(self, why: str) -> str:
        """The bytes under another key, by way of their own: a store can copy only what is whole."""
        target = f"{self._quarantined}data"
        if self._home is not None:
            self._put_aside(self._home.key, target)
        elif self._upload is not None:
            self._put_aside(self._upload.complete_as_it_is(), target)
        else:
            data = self._buffers.get(0, bytearray())
            self._sender.put(target, data, **self._bucket.options.for_notes())
        self._upload = None
        self._bucket.delete_if_allowed(self._journal_key)
        text = json.dumps({"key": self._stem, "size": self._size, "why": why}, indent=2) + "\n"
        self._sender.put_note(f"{self._quarantined}json", text.encode())
        self._sender.quarantine_changed()
        return target

    def _put_aside(self, key: str, target: str) -> None:
        self._bucket.copy(key, target, self._size, **self._bucket.options.for_notes())
        self._bucket.delete(key)
