"""An object out of the archive into a file, checked in flight, durable when it has its name.

Block by block it is read, then hashed and written side by side, in threads. Memory: one block of
``BLOCK`` bytes, whatever the size of the file.
"""

import fcntl
import os
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastcrc import crc64

from archiver.archive.record import Record
from archiver.crew import crew
from archiver.errors import CorruptFile, StoreError, UsageError
from archiver.model import Footer, Kind, RdbVerdict
from archiver.rdb.meter import FileMeter
from archiver.stores import disk
from archiver.stores.base import Opened, Store
from archiver.threads import entered, in_thread

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


async def copy_out(
    store: Store,
    record: Record,
    target: Path,
    *,
    progress: Callable[[int], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Copied:
    """Copy the object of ``record`` to ``target``; ``progress`` is told the bytes so far.

    A file that is there already is read and stays when it is the same. Cancelled, it leaves a
    ``.part`` beside it that the next copy replaces.

    Raises:
        CorruptFile: The object is not what the record says, or its own checksum is wrong.
        ObjectMissing: There is none.
        UsageError: Something else has that name already.
        NoSpace, StoreError: The disk, or the store.
    """
    if await in_thread(_is_in_the_way, target, record.size):
        raise _in_the_way(target)
    seconds = _Seconds(clock)
    meter = FileMeter(record.size)
    was_there = await in_thread(target.exists)
    source = _open_file(target) if was_there else store.open(record.object_key)
    async with entered(source) as opened:
        if opened.size != record.size:
            raise CorruptFile(
                f"{record.object_key}: {opened.size:,} bytes, and its record says {record.size:,}"
            )
        async with entered(_part(target, write=not was_there)) as part:
            crc = await _pump(record, opened, part, meter, seconds, progress)
            found = _check(record, meter, crc, None if not was_there else target)
            with seconds.of("settling"):
                await in_thread(part.settle)
    kind, verdict = found
    reading, checking, settling = seconds.spent.values()
    return Copied(target, kind, verdict, reading, checking, settling, was_there)


async def _pump(
    record: Record,
    opened: Opened,
    part: "_Part",
    meter: FileMeter,
    seconds: "_Seconds",
    progress: Callable[[int], None] | None,
) -> int:
    """All blocks, one after the other; the CRC-64/XZ of them together. Raises CorruptFile."""
    block, offset, crc = memoryview(bytearray(min(BLOCK, max(1, record.size)))), 0, 0
    while offset < record.size:
        with seconds.of("reading"):
            count = await in_thread(opened.read, offset, block)
        if count == 0:
            raise CorruptFile(f"{record.object_key}: it ends at byte {offset:,}")
        data = block[:count]
        with seconds.of("checking"):
            async with crew() as tasks:
                tasks.start_soon(in_thread, meter.feed, data)
                tasks.start_soon(in_thread, part.write, data, offset)
                crc = await in_thread(crc64.xz, data, crc)
        offset += count
        if progress is not None:
            progress(offset)
    return crc


def put_beside(path: Path, data: bytes) -> None:
    """Write a small file, durable; one that is there must have the same bytes. Blocks.

    Raises UsageError, StoreError.
    """
    with disk.store_errors(path):
        if path.exists() and path.read_bytes() != data:
            raise _in_the_way(path)
    replace_beside(path, data)


def replace_beside(path: Path, data: bytes) -> None:
    """The same, whatever is there. Blocks. Raises StoreError."""
    disk.put_file(path, data, path.with_name(f".{path.name}{PART_SUFFIX}"))


def _check(
    record: Record, meter: FileMeter, crc: int, there: Path | None
) -> tuple[Kind, RdbVerdict]:
    """What the file is. Raises CorruptFile when it is not what its record says."""
    sha256 = meter.sha256()
    if sha256 != record.sha256:
        if there is not None:
            raise _in_the_way(there)
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
    kind, rdb = meter.verdict()
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
    """The file on its way; ``descriptor`` is None when nothing is to be written."""

    def __init__(self, target: Path, part: Path, descriptor: int | None) -> None:
        self._target: Final = target
        self._part: Final = part
        self._descriptor: Final = descriptor

    def write(self, data: memoryview, offset: int) -> None:
        if self._descriptor is not None:
            with disk.store_errors(self._part):
                disk.write_all(self._descriptor, data, offset)

    def settle(self) -> None:
        if self._descriptor is not None:
            with disk.store_errors(self._part):
                os.fsync(self._descriptor)
            disk.rename(self._part, self._target)
            disk.sync_directory(self._target.parent)


@contextmanager
def _part(target: Path, *, write: bool) -> Generator[_Part, None, None]:
    part = target.with_name(f".{target.name}{PART_SUFFIX}")
    if not write:
        yield _Part(target, part, None)
        return
    disk.make_durable_directories(target.parent)
    with disk.store_errors(part):
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, disk.FILE_MODE)
    try:
        with disk.store_errors(part):
            try:
                # Two at once would each check its own bytes and leave the other's.
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StoreError(f"{part}: another process is writing it") from None
            os.ftruncate(descriptor, 0)
        yield _Part(target, part, descriptor)
    except CorruptFile:
        # Nobody wants these bytes, and the archive still has them.
        with disk.store_errors(part):
            part.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


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
            return disk.read_all(self._descriptor, block, offset)


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
            self.spent[what] += self._clock() - began
