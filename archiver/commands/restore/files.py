"""Copies one object of the archive to a file, and verifies every byte on the way.

Each block is read, then hashed and written in parallel, in threads. It uses one block of ``BLOCK``
bytes of memory, whatever the size of the file.
"""

import os
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastcrc import crc64

from archiver.archive.record import Record
from archiver.commands.restore.part import OpenFile, PartFile, already_exists, open_part
from archiver.concurrency import entered, in_thread, task_group
from archiver.errors import CorruptFile, IntegrityError, UnreadableObject
from archiver.model import Footer, Kind, RdbVerdict
from archiver.rdb.meter import FileMeter
from archiver.stores.base import Opened, Store
from archiver.stores.local import disk
from archiver.times import Stopwatch

BLOCK: Final = 4 * 2**20


@dataclass(frozen=True, slots=True)
class CopiedFile:
    """A file under its final name, whose bytes are those of its record.

    The times are in seconds: reading from the store, hashing and writing, and making it durable.
    ``existed``: the file had been copied before, and was only verified.
    """

    path: Path
    kind: Kind
    rdb: RdbVerdict
    read_seconds: float
    verify_seconds: float
    commit_seconds: float
    existed: bool


@dataclass(frozen=True, slots=True)
class VerifiedCopy:
    """A complete, verified copy that does not have its final name yet.

    ``part`` is None if the target existed and was verified instead.
    """

    target: Path
    kind: Kind
    rdb: RdbVerdict
    part: PartFile | None
    watch: Stopwatch

    def commit(self) -> CopiedFile:
        """Give it its final name, durably. Blocks. Raises UsageError, StoreError."""
        if self.part is not None:
            with self.watch.measure("commit"):
                self.part.commit()
        seconds = self.watch.seconds
        return CopiedFile(
            self.target,
            self.kind,
            self.rdb,
            seconds["read"],
            seconds["verify"],
            seconds["commit"],
            existed=self.part is None,
        )

    def discard(self) -> None:
        """Remove the copy; a target that existed stays. Blocks. Raises StoreError."""
        if self.part is not None:
            self.part.discard()


@asynccontextmanager
async def verified_copy(
    store: Store,
    record: Record,
    target: Path,
    *,
    progress: Callable[[int], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncGenerator[VerifiedCopy, None]:
    """Copy the object of ``record`` beside ``target`` and verify it; the caller commits the copy.

    ``progress`` is called with the number of bytes so far. No other process can write the copy
    until this context ends. A copy that is not committed stays as ``.<name>.part``: the next run
    verifies it and uses it if it is complete.

    Raises:
        CorruptFile: The object differs from its record, or its own checksum is wrong.
        ObjectMissing: There is no such object.
        UsageError: Another file has the name of ``target``.
        UnreadableObject: The store cannot read the object.
        NoSpace, StoreError: The disk or the store failed, or another process is copying it.
    """
    if await in_thread(_is_another_file, target, record.size):
        raise already_exists(target)
    copying = _Copying(record, Stopwatch(clock), progress)
    async with entered(open_part(target)) as part:
        if part is None:
            kind, rdb = await copying.verify_target(target)
            yield VerifiedCopy(target, kind, rdb, None, copying.watch)
            return
        try:
            found = await copying.resume(part)
            if found is None:
                found = await copying.copy(store, part)
        except (IntegrityError, UnreadableObject):
            # Nobody needs these bytes: the archive still has them.
            await in_thread(part.discard)
            raise
        with copying.watch.measure("commit"):
            await in_thread(part.sync)
        kind, rdb = found
        yield VerifiedCopy(target, kind, rdb, part, copying.watch)


@dataclass(frozen=True, slots=True)
class _Copying:
    record: Record
    watch: Stopwatch
    progress: Callable[[int], None] | None

    async def verify_target(self, target: Path) -> tuple[Kind, RdbVerdict]:
        """Verify a file that exists already. Raises UsageError if it is another one."""
        async with entered(_open_file(target)) as opened:
            meter = FileMeter(self.record.size)
            if opened.size != self.record.size:
                raise already_exists(target)
            crc = await self._read(opened, None, meter)
            if meter.sha256() != self.record.sha256:
                raise already_exists(target)
            return _check(self.record, meter, crc)

    async def resume(self, part: PartFile) -> tuple[Kind, RdbVerdict] | None:
        """Verify what an earlier run copied; None if it is not the complete file."""
        record = self.record
        if part.size != record.size or record.size == 0:
            return None
        meter = FileMeter(record.size)
        crc = await self._read(part, None, meter)
        return _check(record, meter, crc) if meter.sha256() == record.sha256 else None

    async def copy(self, store: Store, part: PartFile) -> tuple[Kind, RdbVerdict]:
        """Copy the object from the store. Raises CorruptFile, ObjectMissing."""
        record = self.record
        meter = FileMeter(record.size)
        async with entered(store.open(record.object_key)) as opened:
            if opened.size != record.size:
                raise CorruptFile(
                    f"{record.object_key}: has {opened.size:,} bytes, its record says "
                    f"{record.size:,}"
                )
            await in_thread(part.truncate)
            crc = await self._read(opened, part, meter)
        return _check(record, meter, crc)

    async def _read(self, opened: Opened, part: PartFile | None, meter: FileMeter) -> int:
        """Hash all blocks in order and write them to ``part``; return their CRC-64/XZ.

        Raises CorruptFile.
        """
        size = self.record.size
        block, offset, crc = memoryview(bytearray(min(BLOCK, max(1, size)))), 0, 0
        while offset < size:
            with self.watch.measure("read"):
                count = await in_thread(opened.read, offset, block)
            if count == 0:
                raise CorruptFile(f"{self.record.object_key}: ends at byte {offset:,}")
            data = block[:count]
            with self.watch.measure("verify"):
                async with task_group() as tasks:
                    tasks.start_soon(in_thread, meter.feed, data)
                    if part is not None:
                        tasks.start_soon(in_thread, part.write, data, offset)
                    crc = await in_thread(crc64.xz, data, crc)
            offset += count
            if self.progress is not None:
                self.progress(offset)
        return crc


def _check(record: Record, meter: FileMeter, crc: int) -> tuple[Kind, RdbVerdict]:
    """Return what the file is. Raises CorruptFile if it differs from its record."""
    sha256 = meter.sha256()
    if sha256 != record.sha256:
        raise CorruptFile(
            f"{record.object_key}: SHA-256 is {sha256}, its record says {record.sha256}",
            hint="the archive's copy was changed; use another copy of the archive if there is one",
        )
    declared = record.document.get("crc64ecma_declared")
    for said in (record.document.get("crc64ecma"), str(crc) if declared is None else declared):
        if str(crc) != str(said):
            raise CorruptFile(f"{record.object_key}: CRC-64 is {crc}, its record says {said}")
    kind, rdb = meter.verdict(is_log=record.is_log)
    if rdb.footer is Footer.MISMATCH:
        raise CorruptFile(
            f"{record.object_key}: the checksum that the server wrote at its end is wrong"
        )
    return kind, rdb


def _is_another_file(target: Path, size: int) -> bool:
    """Whether the target exists and cannot be the file: another size, or no regular file."""
    with disk.store_errors(target):
        try:
            status = target.lstat()
        except FileNotFoundError:
            return False
    return target.is_symlink() or not target.is_file() or status.st_size != size


@contextmanager
def _open_file(path: Path) -> Generator[Opened, None, None]:
    with disk.store_errors(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield OpenFile(path, descriptor)
    finally:
        os.close(descriptor)
