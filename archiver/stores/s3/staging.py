"""One file on its way into a bucket: a multipart upload, or one put for a small one.

Nothing passes a local disk. A part is held in memory from its first byte until the store has it,
and is measured meanwhile, since nobody can read it back.
"""

import hashlib
import json
import threading
from contextlib import suppress
from typing import Any, Final

from archiver.errors import StoreError
from archiver.model import Kind, Part, Pin, Provenance, Receipt, Stored
from archiver.rdb.magic import kind_of
from archiver.stores.base import Documents, Resumable
from archiver.stores.s3 import journal
from archiver.stores.s3.bucket import Bucket, Garbled, Gone, Refused
from archiver.stores.s3.dialect import (
    Check,
    Dialect,
    crc64nvme,
    crc64nvme_text,
    fold_crc64nvme,
)
from archiver.stores.s3.journal import Journal, Kept
from archiver.stores.s3.reading import OpenedObject

STAGING = ".staging/"
QUARANTINE = ".quarantine/"
SEPARATOR = "~"
ASIDE = ".aside"
# Times that a part is sent again when the store says that it came damaged.
_MOST_SENDINGS = 4
_BLOCK_BYTES = 2**20


class Parts:
    """Buffers of the parts in memory, reused: fresh memory costs a page fault for every 4 KiB."""

    def __init__(self) -> None:
        self._free: Final[list[bytearray]] = []

    def take(self, size: int) -> bytearray:
        for index, buffer in enumerate(self._free):
            if len(buffer) == size:
                return self._free.pop(index)
        return bytearray(size)

    def give_back(self, buffer: bytearray, most: int) -> None:
        if len(self._free) < most:
            self._free.append(buffer)


class S3Staging:
    """A Staging below ``stem``; or, when an earlier run was killed between completing an object
    and recording it, that object where it is."""

    def __init__(self, bucket: Bucket, dialect: Dialect, stem: str, size: int) -> None:
        flat = stem.replace("/", SEPARATOR)
        self._bucket: Final = bucket
        self._dialect: Final = dialect
        self._stem: Final = stem
        self._size: Final = size
        self._journal_key: Final = f"{STAGING}{flat}.json"
        self._quarantined: Final = f"{QUARANTINE}{flat}"
        self._parts: Final = Parts()
        self._buffers: Final[dict[int, bytearray]] = {}
        self._states: Final[dict[int, str]] = {}
        self._kept: Final[dict[int, Kept]] = {}
        self._noting: Final = threading.Lock()
        self._unnoted = 0
        self._creating: Final = threading.Lock()
        self._kind = Kind.UNKNOWN
        self._upload_id: str | None = None
        self._upload_key = ""
        self._has_journal = False
        self._pin: Pin | None = None
        self._provenance: Provenance | None = None
        self._part_size = max(size, 1)
        self._objects: dict[str, int] = {}
        self._home: OpenedObject | None = None
        self._resumable: Resumable | None = None

    # What is here

    @property
    def resumable(self) -> Resumable | None:
        return self._resumable

    @property
    def reads_back(self) -> bool:
        return self._home is not None

    def open(self) -> None:
        """Find what is here already."""
        names = {f"{self._stem}.{kind}" for kind in Kind}
        self._objects = {
            key: size for key, size in self._bucket.listing(f"{self._stem}.") if key in names
        }
        noted = self._read_journal()
        whole = [key for key, size in self._objects.items() if size == self._size]
        if whole:
            self._home = OpenedObject(self._bucket, whole[0])
            self._resumable = Resumable(None, None, 0, {})
        elif noted is not None:
            self._go_on(noted)

    def _read_journal(self) -> Journal | None:
        found = self._bucket.get(self._journal_key)
        self._has_journal = found is not None
        return journal.parse(found[0]) if found else None

    def _go_on(self, noted: Journal) -> None:
        """Trust what the journal and the store agree on, from the first part to the first gap."""
        listed = self._bucket.parts(noted.key, noted.upload_id)
        if listed is None or noted.pin.total != self._size:
            if listed is not None:
                self._bucket.abort(noted.key, noted.upload_id)
            return
        self._upload_id, self._upload_key = noted.upload_id, noted.key
        self._pin, self._provenance = noted.pin, noted.provenance
        self._part_size = noted.part_size
        # A part that was sent twice may be listed twice.
        there = {(part.number, part.etag.strip('"'), part.size) for part in listed}
        ours = [(n, part.etag.strip('"'), part.size) for n, part in enumerate(noted.kept, 1)]
        if noted.state is not None and ours and there.issuperset(ours):
            self._kept.update(enumerate(noted.kept))
            self._states[len(ours) - 1] = noted.state
        self._resumable = Resumable(
            noted.pin,
            noted.provenance,
            noted.part_size,
            {index: part.crc for index, part in self._kept.items()},
            state=noted.state if self._kept else None,
        )

    def close(self) -> None:
        """Let go of memory and connections; an upload that has parts stays, to be gone on with."""
        if self._upload_id is not None and not self._kept:
            self._abandon()
        self._buffers.clear()
        if self._home is not None:
            self._home.close()

    # On the way

    def begin(self, pin: Pin, provenance: Provenance, part_size: int) -> None:
        self._pin, self._provenance, self._part_size = pin, provenance, part_size

    def write(self, offset: int, data: memoryview) -> None:
        if offset == 0:
            self._kind = kind_of(bytes(data[:1024]))
        index = offset // self._part_size
        start = index * self._part_size
        buffer = self._buffers.get(index)
        if buffer is None:
            size = min(self._part_size, self._size - start)
            buffer = self._buffers.setdefault(index, self._parts.take(size))
        buffer[offset - start : offset - start + len(data)] = data

    def read(self, offset: int, block: memoryview) -> int:
        if self._home is not None:
            return self._home.read(offset, block)
        index = offset // self._part_size
        start = index * self._part_size
        buffer = self._buffers.get(index)
        if buffer is None:
            raise StoreError(f"{self._where}: a part that was sent cannot be read back")
        piece = memoryview(buffer)[offset - start : offset - start + len(block)]
        block[: len(piece)] = piece
        return len(piece)

    def measured(self, part: Part, state: str) -> None:
        self._states[part.index] = state

    def keep(self, part: Part, crc: int, so_far: int | None = None) -> None:
        if so_far is not None or self._is_small or self._home is not None:
            return
        buffer = self._buffers[part.index]
        self._kept[part.index] = self._send(part, crc, buffer)
        self._parts.give_back(self._buffers.pop(part.index), most=1)
        self._unnoted += 1
        # Parts that arrive while another's note is under way share the next one.
        with self._noting:
            if self._unnoted:
                self._unnoted = 0
                self._note()

    @property
    def _is_small(self) -> bool:
        return self._size <= self._part_size

    @property
    def _where(self) -> str:
        return self._bucket.where(self._stem)

    def _send(self, part: Part, crc: int, buffer: bytearray) -> Kept:
        upload_id = self._create()
        checksum = self._dialect.checksum(buffer)
        for _ in range(_MOST_SENDINGS):
            try:
                etag = self._bucket.upload_part(
                    self._upload_key, upload_id, part.index + 1, buffer, **checksum
                )
            except Garbled:
                continue
            except Gone:
                raise StoreError(
                    f"{self._where}: somebody else ended this upload",
                    hint="run the command again: it begins this file anew",
                ) from None
            nvme = crc64nvme(buffer) if self._dialect.check is Check.CRC64NVME else None
            return Kept(crc, nvme, len(buffer), etag)
        raise _damaged(self._where)

    def _create(self) -> str:
        """The upload's id. It is noted before the first part is sent, so that it can be found."""
        with self._creating:
            if self._upload_id is None:
                given = self._bucket.options.kept_as()
                if self._dialect.check is Check.CRC64NVME:
                    given |= {"ChecksumAlgorithm": "CRC64NVME", "ChecksumType": "FULL_OBJECT"}
                # What the first bytes say it is; commit knows all of them.
                self._upload_key = f"{self._stem}.{self._kind}"
                self._upload_id = self._bucket.create_upload(self._upload_key, **given)
                with self._noting:
                    self._note()
            return self._upload_id

    def _note(self) -> None:
        if self._pin is None or self._provenance is None or self._upload_id is None:
            raise RuntimeError("a part is noted before the upload was begun")
        kept: list[Kept] = []
        while len(kept) in self._kept:
            kept.append(self._kept[len(kept)])
        noted = Journal(
            self._upload_key, self._upload_id, self._pin, self._provenance, self._part_size,
            tuple(kept), self._states.get(len(kept) - 1),
        )  # fmt: skip
        data = noted.encode()
        for _ in range(_MOST_SENDINGS):
            with suppress(Garbled):
                self._bucket.put(self._journal_key, data, **self._dialect.checksum(data))
                break
        else:
            raise _damaged(self._bucket.where(self._journal_key))
        self._has_journal = True
        for index in [index for index in self._states if index < len(kept) - 1]:
            del self._states[index]

    # The end

    def restart(self) -> None:
        """Forget what was sent."""
        self._abandon()
        self._kept.clear()
        self._states.clear()
        self._buffers.clear()
        self._resumable = None
        if self._home is not None:
            self._home.close()
            self._home = None

    def _abandon(self) -> None:
        if self._upload_id is not None:
            self._bucket.abort(self._upload_key, self._upload_id)
            self._upload_id = None
        if self._has_journal:
            self._bucket.delete(self._journal_key)
            self._has_journal = False

    def commit(self, receipt: Receipt, documents: Documents) -> Stored:
        stored = self._bring_home(receipt)
        for key, data in documents(stored):
            put_document(self._bucket, self._dialect, key, data, self._bucket.options.kept_as())
        for key in self._objects:
            self._bucket.delete(key)  # a damaged one, of another kind by its bytes
        if self._has_journal:
            self._bucket.delete(self._journal_key)
            self._has_journal = False
        self._upload_id = None
        # What failed earlier or was put aside, now that the right bytes are here.
        failed = {f"{self._quarantined}.data", f"{self._quarantined}.json"}
        failed |= {aside(f"{self._stem}.{kind}") for kind in Kind}
        for key, _ in list(self._bucket.listing(f"{self._quarantined}.")):
            if key in failed:
                self._bucket.delete(key)
        return stored

    def _bring_home(self, receipt: Receipt) -> Stored:
        """The object whole under its key, and compared with what it should be."""
        key = f"{self._stem}.{receipt.kind}"
        if self._home is not None:
            self._objects.pop(self._home.key)
            return Stored(self._home.key, receipt)
        if self._is_small:
            self._put_whole(key)
        else:
            self._complete()
        self._objects.pop(key, None)
        if not self._is_small and self._upload_key != key:
            # Its first bytes look like another kind, as those of an AOF that begins with an RDB.
            self._bucket.copy(self._upload_key, key, self._size, **self._bucket.options.kept_as())
            self._bucket.delete(self._upload_key)
        self._compare(key, receipt)
        return Stored(key, receipt)

    def _put_whole(self, key: str) -> None:
        data = self._buffers.get(0, bytearray())
        given = self._bucket.options.kept_as() | self._dialect.checksum(data)
        for _ in range(_MOST_SENDINGS):
            try:
                self._bucket.put(key, data, **given)
            except Garbled:
                continue
            return
        raise _damaged(self._where)

    def _complete(self) -> None:
        upload_id = self._create()
        parts = [self._kept[index] for index in range(len(self._kept))]
        given: dict[str, Any] = {}
        if self._dialect.check is Check.CRC64NVME:
            given = {
                "ChecksumCRC64NVME": crc64nvme_text(_whole_nvme(parts)),
                "ChecksumType": "FULL_OBJECT",
            }
        try:
            self._bucket.complete(
                self._upload_key, upload_id, [part.etag for part in parts], **given
            )
        except Gone:
            # Done before, and the answer was lost; what is there is compared next.
            pass
        except (Garbled, Refused):
            raise _damaged(self._where) from None

    def _compare(self, key: str, receipt: Receipt) -> None:
        """Hold what the store says it has against what was sent; where it checked nothing on the
        way, what it gives back."""
        wants_crc = self._dialect.check is Check.CRC64NVME
        head = self._bucket.head(key, checksum=wants_crc)
        if head is None or head.size != self._size:
            has = "nothing" if head is None else f"{head.size:,} bytes"
            raise StoreError(f"{self._where}: sent {self._size:,} bytes, and the store has {has}")
        if self._dialect.check is Check.NONE:
            self._read_back(key, receipt)
        elif wants_crc and head.crc64nvme not in (
            None,
            crc64nvme_text(self._nvme()),
        ):
            raise _damaged(self._where)

    def _nvme(self) -> int:
        """CRC-64/NVME of the whole, as it was sent."""
        if self._is_small:
            return crc64nvme(self._buffers.get(0, bytearray()))
        return _whole_nvme([self._kept[index] for index in sorted(self._kept)])

    def _read_back(self, key: str, receipt: Receipt) -> None:
        block, position = memoryview(bytearray(_BLOCK_BYTES)), 0
        digest = hashlib.sha256()
        opened = OpenedObject(self._bucket, key)
        try:
            while size := opened.read(position, block):
                digest.update(block[:size])
                position += size
        finally:
            opened.close()
        if digest.hexdigest() != receipt.sha256:
            raise _damaged(self._where)

    def quarantine(self, why: str) -> str:
        """The bytes under another key, by way of their own: a store can copy only what is whole."""
        target = f"{self._quarantined}.data"
        if self._home is None and self._is_small:
            self._bucket.put(target, self._buffers.get(0, bytearray()))
        else:
            if self._home is None:
                self._complete()
            key = self._upload_key if self._home is None else self._home.key
            self._bucket.copy(key, target, self._size)
            self._bucket.delete(key)
        if self._has_journal:
            self._bucket.delete(self._journal_key)
            self._has_journal = False
        self._upload_id = None
        text = json.dumps({"key": self._stem, "size": self._size, "why": why}, indent=2) + "\n"
        self._bucket.put(f"{self._quarantined}.json", text.encode())
        return target


def aside(key: str) -> str:
    """Where an object lies that is to be replaced."""
    return f"{QUARANTINE}{key.replace('/', SEPARATOR)}{ASIDE}"


def put_document(
    bucket: Bucket, dialect: Dialect, key: str, data: bytes, given: dict[str, Any]
) -> None:
    """Write a small document whole; over nothing, or over what was there when we looked."""
    given = given | dialect.checksum(data)
    for _ in range(_MOST_SENDINGS):
        condition: dict[str, str] = {}
        if dialect.conditions:
            there = bucket.head(key)
            condition = {"IfMatch": there.etag} if there else {"IfNoneMatch": "*"}
        try:
            bucket.put(key, data, **given, **condition)
        except (Garbled, Refused):
            continue
        if dialect.check is not Check.NONE:
            return
        found = bucket.get(key)
        if found is not None and found[0] == data:
            return
    raise _damaged(bucket.where(key))


def _whole_nvme(parts: list[Kept]) -> int:
    return fold_crc64nvme([(part.nvme or 0, part.size) for part in parts])


def _damaged(where: str) -> StoreError:
    return StoreError(
        f"{where}: what the store has is not what was sent",
        hint="something on the way, or the store, changes bytes; nothing of it is recorded",
    )
