"""An object out of the archive into a file, checked in flight, durable when it has its name.

Block by block it is read, then hashed and written side by side, in threads. Memory: one block of
``BLOCK`` bytes, whatever the size of the file.
"""

import fcntl
import os
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastcrc import crc64

from archiver.archive.record import Record
from archiver.concurrency import entered, in_thread, task_group
from archiver.errors import (
    CorruptFile,
    IntegrityError,
    NoDocument,
    StoreError,
    UnreadableObject,
    UsageError,
)
from archiver.model import Footer, Kind, RdbVerdict
from archiver.rdb.meter import FileMeter
from archiver.stores.base import Opened, Store
from archiver.stores.local import disk, reading

BLOCK: Final = 4 * 2**20
PART_SUFFIX: Final = ".part"


@dataclass(frozen=True, slots=True)
class Copied:
    """A file whose bytes are those of its record.

    Seconds by the clock: ``reading`` out of the store, ``checking`` hashes while writing, and
    ``settling`` it on the disk. ``was_there``: it had been copied before, and was only checked.
    """

    path: Path
    kind: Kind
    rdb: RdbVerdict
    reading: float
    checking: float
    settling: float
    was_there: bool


@dataclass(frozen=True, slots=True)
class Staged:
    """A file whose bytes are those of its record, all of them checked, and not under its final
    name yet. ``part`` is None for one that had it already."""

    target: Path
    kind: Kind
    rdb: RdbVerdict
    part: "_Part | None"
    seconds: "_Seconds"

    def settle(self) -> Copied:
        """Give it its final name, durable. Blocks. Raises UsageError, StoreError."""
        if self.part is not None:
            with self.seconds.of("settling"):
                self.part.settle()
        reading, checking, settling = self.seconds.spent.values()
        was_there = self.part is None
        return Copied(self.target, self.kind, self.rdb, reading, checking, settling, was_there)

    def discard(self) -> None:
        """Remove what was staged; what was there stays. Blocks. Raises StoreError."""
        if self.part is not None:
            self.part.discard()


async def copy_out(
    store: Store,
    record: Record,
    target: Path,
    *,
    progress: Callable[[int], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Copied:
    """Copy the object of ``record`` to ``target``; ``progress`` is told the bytes so far.

    A file that is there already is read and stays when it is the same. Raises as :func:`stage`.
    """
    async with stage(store, record, target, progress=progress, clock=clock) as staged:
        return await in_thread(staged.settle)


@asynccontextmanager
async def stage(
    store: Store,
    record: Record,
    target: Path,
    *,
    progress: Callable[[int], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncGenerator[Staged, None]:
    """Copy the object of ``record`` beside ``target``, checked, for :meth:`Staged.settle`.

    Nobody else writes there before this context ends. What is not settled stays beside the target,
    as ``.<name>.part``: the next copy reads it, and takes it over when it is whole.

    Raises:
        CorruptFile: The object is not what the record says, or its own checksum is wrong.
        ObjectMissing: There is none.
        UsageError: Something else has that name already.
        UnreadableObject: The store does not give it.
        NoSpace, StoreError: The disk, or the store; another process copies to the same place.
    """
    if await in_thread(_is_in_the_way, target, record.size):
        raise _in_the_way(target)
    seconds = _Seconds(clock)
    async with entered(_part(target)) as part:
        if part is None:
            kind, rdb = await _read_there(record, target, seconds, progress)
            yield Staged(target, kind, rdb, None, seconds)
            return
        try:
            found = await _taken_over(record, part, seconds, progress)
            if found is None:
                found = await _copied(store, record, part, seconds, progress)
        except (IntegrityError, UnreadableObject):
            # Nobody wants these bytes, and the archive still has them.
            await in_thread(part.discard)
            raise
        with seconds.of("settling"):
            await in_thread(part.sync)
        kind, rdb = found
        yield Staged(target, kind, rdb, part, seconds)


async def _read_there(
    record: Record,
    target: Path,
    seconds: "_Seconds",
    progress: Callable[[int], None] | None,
) -> tuple[Kind, RdbVerdict]:
    """Check the file that has the name already. Raises UsageError when it is another one."""
    async with entered(_open_file(target)) as opened:
        meter = FileMeter(record.size)
        if opened.size != record.size:
            raise _in_the_way(target)
        crc = await _pump(record, opened, None, meter, seconds, progress)
        if meter.sha256() != record.sha256:
            raise _in_the_way(target)
        return _check(record, meter, crc)


async def _taken_over(
    record: Record,
    part: "_Part",
    seconds: "_Seconds",
    progress: Callable[[int], None] | None,
) -> tuple[Kind, RdbVerdict] | None:
    """Check what an earlier copy left; None when it is not the whole file."""
    if part.size != record.size or record.size == 0:
        return None
    meter = FileMeter(record.size)
    crc = await _pump(record, part, None, meter, seconds, progress)
    return _check(record, meter, crc) if meter.sha256() == record.sha256 else None


async def _copied(
    store: Store,
    record: Record,
    part: "_Part",
    seconds: "_Seconds",
    progress: Callable[[int], None] | None,
) -> tuple[Kind, RdbVerdict]:
    """Copy it out of the store. Raises CorruptFile, ObjectMissing."""
    meter = FileMeter(record.size)
    async with entered(store.open(record.object_key)) as opened:
        if opened.size != record.size:
            raise CorruptFile(
                f"{record.object_key}: {opened.size:,} bytes, and its record says {record.size:,}"
            )
        await in_thread(part.empty)
        crc = await _pump(record, opened, part, meter, seconds, progress)
    return _check(record, meter, crc)


async def _pump(
    record: Record,
    opened: Opened,
    part: "_Part | None",
    meter: FileMeter,
    seconds: "_Seconds",
    progress: Callable[[int], None] | None,
) -> int:
    """Measure all blocks, one after the other, and write them to ``part``; the CRC-64/XZ of them
    together. Raises CorruptFile."""
    block, offset, crc = memoryview(bytearray(min(BLOCK, max(1, record.size)))), 0, 0
    while offset < record.size:
        with seconds.of("reading"):
            count = await in_thread(opened.read, offset, block)
        if count == 0:
            raise CorruptFile(f"{record.object_key}: it ends at byte {offset:,}")
        data = block[:count]
        with seconds.of("checking"):
            async with task_group() as tasks:
                tasks.start_soon(in_thread, meter.feed, data)
                if part is not None:
                    tasks.start_soon(in_thread, part.write, data, offset)
                crc = await in_thread(crc64.xz, data, crc)
        offset += count
        if progress is not None:
            progress(offset)
    return crc


def staged_size(target: Path) -> int:
    """Bytes of ``target`` that lie ready, or are written over by the next copy. Blocks."""
    with disk.store_errors(target):
        try:
            return _part_path(target).lstat().st_size
        except FileNotFoundError:
            return 0


def _part_path(target: Path) -> Path:
    return target.with_name(f".{target.name}{PART_SUFFIX}")


def put_beside(path: Path, data: bytes) -> None:
    """Write a small file, durable; one that is there must have the same bytes. Blocks.

    Raises UsageError, StoreError.
    """
    with disk.store_errors(path):
        try:
            there = reading.read_document(path, len(data))
        except NoDocument:
            raise _in_the_way(path) from None
    if there not in (None, data):
        raise _in_the_way(path)
    replace_beside(path, data)


def replace_beside(path: Path, data: bytes) -> None:
    """The same, whatever is there. Blocks. Raises StoreError."""
    disk.put_file(path, data, _part_path(path))


def _check(record: Record, meter: FileMeter, crc: int) -> tuple[Kind, RdbVerdict]:
    """What the file is. Raises CorruptFile when it is not what its record says."""
    sha256 = meter.sha256()
    if sha256 != record.sha256:
        raise CorruptFile(
            f"{record.object_key}: SHA-256 {sha256}, and its record says {record.sha256}",
            hint="the archive's copy was changed; another copy of the archive may be whole",
        )
    declared = record.document.get("crc64ecma_declared")
    for said in (record.document.get("crc64ecma"), str(crc) if declared is None else declared):
        if str(crc) != str(said):
            raise CorruptFile(
                f"{record.object_key}: its CRC-64 is {crc}, and its record says {said}"
            )
    kind, rdb = meter.verdict(is_log=record.is_log)
    if rdb.footer is Footer.MISMATCH:
        raise CorruptFile(
            f"{record.object_key}: the checksum that the server wrote at its end does not agree"
        )
    return kind, rdb


def _is_in_the_way(target: Path, size: int) -> bool:
    """Whether something has that name that cannot be the same file."""
    with disk.store_errors(target):
        try:
            status = target.lstat()
        except FileNotFoundError:
            return False
    return target.is_symlink() or not target.is_file() or status.st_size != size


def _in_the_way(target: Path) -> UsageError:
    return UsageError(
        f"{target}: something else is there, and nothing is overwritten",
        hint="move it away, or name another directory",
    )


class _Part:
    """The file on its way, locked: ``path`` names it for as long as nobody else takes it away."""

    def __init__(self, target: Path, path: Path, descriptor: int) -> None:
        self._target: Final = target
        self._path: Final = path
        self._descriptor: Final = descriptor
        self.size: Final = os.fstat(descriptor).st_size  # as it was found

    def read(self, offset: int, block: memoryview) -> int:
        with disk.store_errors(self._path):
            return reading.read_all(self._descriptor, block, offset)

    def empty(self) -> None:
        with disk.store_errors(self._path):
            os.ftruncate(self._descriptor, 0)

    def write(self, data: memoryview, offset: int) -> None:
        with disk.store_errors(self._path):
            disk.write_all(self._descriptor, data, offset)

    def sync(self) -> None:
        disk.sync_file(self._descriptor, self._path)

    def settle(self) -> None:
        with disk.store_errors(self._path):
            if not _names(self._path, self._descriptor):
                raise StoreError(
                    f"{self._path}: it was taken away while it was copied",
                    hint="see what else works in that directory, then run the same again",
                )
            if os.path.lexists(self._target):
                raise _in_the_way(self._target)
        disk.rename(self._path, self._target)
        disk.sync_directory(self._target.parent)

    def discard(self) -> None:
        with disk.store_errors(self._path):
            if _names(self._path, self._descriptor):
                self._path.unlink()


@contextmanager
def _part(target: Path) -> Generator[_Part | None, None, None]:
    """The file beside ``target``, locked; None when there is a target by the time it is."""
    disk.make_durable_directories(target.parent)
    path = _part_path(target)
    descriptor = None if os.path.lexists(target) else _locked(path)
    if descriptor is None:
        yield None
        return
    try:
        part = _Part(target, path, descriptor)
        if os.path.lexists(target):
            # Another process had it copied between our look and our lock.
            part.discard()
            yield None
            return
        yield part
    finally:
        os.close(descriptor)


def _locked(path: Path) -> int:
    """Open ``path``, made if need be, and lock it. Raises StoreError when another process has it.

    The lock is one on an inode. Between our opening it and our locking it, another process may have
    given it its final name, where it must not be written to any more: so the path has to name it
    still.
    """
    while True:
        with disk.store_errors(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, disk.FILE_MODE)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _names(path, descriptor):
                    return descriptor
            except BlockingIOError:
                os.close(descriptor)
                raise StoreError(f"{path}: another process is writing it") from None
            except BaseException:
                os.close(descriptor)
                raise
        os.close(descriptor)


def _names(path: Path, descriptor: int) -> bool:
    """Whether ``path`` is the name of the open file. Raises OSError."""
    try:
        named = path.lstat()
    except FileNotFoundError:
        return False
    return os.path.samestat(named, os.fstat(descriptor))


@contextmanager
def _open_file(path: Path) -> Generator[Opened, None, None]:
    with disk.store_errors(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield _OpenFile(path, descriptor)
    finally:
        os.close(descriptor)


class _OpenFile:
    def __init__(self, path: Path, descriptor: int) -> None:
        self._path: Final = path
        self._descriptor: Final = descriptor
        self.size: Final = os.fstat(descriptor).st_size

    def read(self, offset: int, block: memoryview) -> int:
        with disk.store_errors(self._path):
            return reading.read_all(self._descriptor, block, offset)


class _Seconds:
    def __init__(self, clock: Callable[[], float]) -> None:
        self.spent: Final = {"reading": 0.0, "checking": 0.0, "settling": 0.0}
        self._clock: Final = clock

    @contextmanager
    def of(self, what: str) -> Generator[None, None, None]:
        began = self._clock()
        try:
            yield
        finally:
            self.spent[what] += max(0.0, self._clock() - began)
