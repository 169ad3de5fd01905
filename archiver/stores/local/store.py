"""An archive in a directory: a Store of files.

Files are staged in ``.staging`` on the same file system, so that a rename moves them to their final
place. A file of several parts has a journal beside it; one of a single part needs none.
"""

import itertools
import os
import secrets
import stat
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

from archiver.concurrency import entered, in_thread, in_thread_shielded
from archiver.documents import is_within
from archiver.errors import (
    ArchiverError,
    BadDocument,
    DoesNotFit,
    NoDocument,
    ObjectMissing,
    PlaceTaken,
    StoreError,
    UnreadableObject,
    UnsafeInput,
)
from archiver.ignored_names import is_ignored
from archiver.model import Stored
from archiver.stores.base import Entry, Leftover, Opened, Staging
from archiver.stores.commit import Commit, Sync, Unsynced, drive, sync_each
from archiver.stores.local import disk, reading
from archiver.stores.local.layout import LOCK, QUARANTINE, STAGING, TEMPORARY
from archiver.stores.local.lock import Held, hold
from archiver.stores.local.mounts import missing_mount
from archiver.stores.local.quarantine import clear, move_to_quarantine
from archiver.stores.local.staged_file import StagingArea
from archiver.stores.local.staging import LocalStaging
from archiver.stores.local.sweep import Sweep
from archiver.stores.local.syncing import fastest_sync, sync_file_system
from archiver.stores.local.walk import entries_below

# What a run leaves that was killed before it created an archive.
_OWN_NAMES = frozenset((STAGING, QUARANTINE, LOCK))
_ENTRIES_AT_ONCE = 1000
# Length of an invalid key in a message.
_MAX_SHOWN = 200
# Larger batches gained nothing and took more descriptors (benchmarks/README.md).
_BATCH_SIZE = 32
_DOCUMENTS_AT_ONCE = 256


class LocalStore:
    """A Store in the directory ``root``, which is created at the first write."""

    def __init__(self, root: Path | str) -> None:
        self.root: Final = Path(root)
        self._staging: Final = self.root / STAGING
        self._quarantine: Final = self.root / QUARANTINE
        self._lock: Held | None = None
        self._sync: Sync = sync_each
        # Keys of folders whose own names are durable, since this store made sure of that.
        self._durable: Final[set[str]] = set()
        # Files being written, and their final sizes in bytes.
        self._reserved: Final[dict[LocalStaging, int]] = {}
        self._stems: Final[set[str]] = set()
        self._reserving: Final = threading.Lock()

    def __str__(self) -> str:
        return str(self.root)

    def _path(self, key: str) -> Path:
        """The path of a key, below the root. Raises UnsafeInput."""
        if not is_within(key):
            raise UnsafeInput(
                f"{self.root}: {key[:_MAX_SHOWN]!a} is not a key within an archive",
                hint="nothing outside of the archive is read or written",
            )
        return self.root / key

    @asynccontextmanager
    async def exclusive(self) -> AsyncGenerator[None, None]:
        await in_thread(disk.make_durable_directories, self._staging)
        stop = threading.Event()
        async with (
            entered(hold(self.root / LOCK, stop=stop), stop.set) as lock,
            # Everything that is renamed was staged there: it is on the same file system.
            entered(fastest_sync(self._staging)) as sync,
        ):
            if lock.was_left:
                # What a killed run wrote can be seen and would be trusted, but may not be durable.
                await in_thread(sync_file_system, self._staging)
            self._lock, self._sync = lock, sync
            self._durable.clear()  # another writer may have removed folders meanwhile
            try:
                yield
                await in_thread(self._sync_names)
            except StoreError:
                # Commits ended halfway. The next run finds what they renamed.
                with suppress(StoreError):
                    await in_thread_shielded(lambda: sync_file_system(self._staging))
                raise
            finally:
                self._lock, self._sync = None, sync_each

    def _sync_names(self) -> None:
        """Keep a power failure from bringing back what was renamed or removed."""
        for folder in (self._staging, self._quarantine):
            if folder.is_dir():
                disk.sync_directory(folder)

    @property
    def missing_hint(self) -> str:
        return "check the path and that its disk is mounted"

    async def obstacle(self) -> str | None:
        return await in_thread(self._obstacle)

    def _obstacle(self) -> str | None:
        missing = missing_mount(self.root)
        if missing is not None:
            return f"{missing} should be a mount point, but nothing is mounted there"
        with disk.store_errors(self.root):
            try:
                names = {item.name for item in os.scandir(self.root)} - _OWN_NAMES
            except FileNotFoundError:
                return None
        others = [name for name in names if not is_ignored(name)]
        return f"something else is: {min(others)}" if others else None

    async def nearest_above(self, name: str, is_wanted: Callable[[bytes], bool]) -> str | None:
        def work() -> Path | None:
            root = Path(os.path.realpath(self.root))
            if root.name.startswith("."):
                return None
            return reading.nearest(root.parent, name, is_wanted)

        found = await in_thread(work)
        return None if found is None else str(found)

    @property
    def batch_size(self) -> int:
        return _BATCH_SIZE

    async def location(self) -> tuple[str, ...]:
        return ("file", *Path(await in_thread(os.path.realpath, self.root)).parts)

    async def read(self, key: str) -> bytes | None:
        return await in_thread(reading.read_document, self._path(key))

    async def read_many(self, keys: Sequence[str]) -> Mapping[str, bytes | ArchiverError | None]:
        found: dict[str, bytes | ArchiverError | None] = {}
        for first in range(0, len(keys), _DOCUMENTS_AT_ONCE):
            some = keys[first : first + _DOCUMENTS_AT_ONCE]
            found |= await in_thread(self._read_some, some)
        return found

    def _read_some(self, keys: Sequence[str]) -> dict[str, bytes | ArchiverError | None]:
        return {key: self._read_if_given(key) for key in keys}

    def _read_if_given(self, key: str) -> bytes | ArchiverError | None:
        try:
            return reading.read_document(self._path(key))
        except (BadDocument, UnreadableObject) as error:
            return error

    async def put(self, key: str, data: bytes) -> None:
        await in_thread(self._put, self._path(key), data)

    def _put(self, path: Path, data: bytes) -> None:
        self._check_lock()
        # A copy of an archive may lack hidden folders.
        disk.make_durable_directories(self._staging)
        disk.put_file(path, data, self._staging / f"{secrets.token_hex(8)}{TEMPORARY}")

    async def clear(self, key: str) -> str | None:
        def work() -> Path | None:
            self._check_lock()
            return clear(self._path(key), self._quarantine)

        kept = await in_thread(work)
        return None if kept is None else kept.relative_to(self.root).as_posix()

    async def move_to_quarantine(self, key: str) -> str:
        def work() -> Path:
            self._check_lock()
            return move_to_quarantine(self._path(key), self._quarantine)

        return (await in_thread(work)).relative_to(self.root).as_posix()

    async def size(self, key: str) -> int | None:
        return await in_thread(self._size, self._path(key))

    @staticmethod
    def _size(path: Path) -> int | None:
        with reading.reading_errors(path):
            try:
                status = path.lstat()
            except (FileNotFoundError, NotADirectoryError):
                return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    async def entries(self, prefix: str) -> AsyncGenerator[Entry, None]:
        if prefix:
            self._path(prefix.removesuffix("/"))
        walk = entries_below(self.root, prefix)
        while page := await in_thread(lambda: list(itertools.islice(walk, _ENTRIES_AT_ONCE))):
            for entry in page:
                yield entry

    @contextmanager
    def open(self, key: str) -> Generator[Opened, None, None]:
        path = self._path(key)
        try:
            descriptor = reading.open_file(path)
        except NoDocument as error:
            raise ObjectMissing(f"{path}: there is no such object: {error.fault}") from None
        if descriptor is None:
            raise ObjectMissing(f"{path}: there is no such object")
        try:
            yield _OpenedFile(path, descriptor)
        finally:
            os.close(descriptor)

    @contextmanager
    def stage(
        self,
        stem: str,
        size: int,
        present: Mapping[str, int] | None = None,
    ) -> Generator[Staging, None, None]:
        self._check_lock()
        self._path(stem)
        folder, quarantine = str(self._staging), str(self._quarantine)
        shared = self._lock is not None and self._lock.was_left and not self._lock.is_certain
        area = StagingArea(
            str(self.root), folder, quarantine, self._durable, self._check_lock, shared
        )
        staging = LocalStaging(area, stem, size)
        with self._reserving:
            if stem in self._stems:
                raise PlaceTaken(f"{self.root}: {stem} is being written already")
            self._stems.add(stem)
        try:
            staging.open()
            self._reserve(staging, size)
            yield staging
        finally:
            with self._reserving:
                self._stems.discard(stem)
                self._reserved.pop(staging, None)
            staging.close()

    def finish(self, commits: Iterable[Commit]) -> list[Stored]:
        def sync(unsynced: Sequence[Unsynced]) -> None:
            self._sync(unsynced)
            self._check_lock()  # before the renames that follow

        self._check_lock()
        return drive(commits, sync)

    def _reserve(self, staging: LocalStaging, size: int) -> None:
        """Reserve space for a file of ``size`` bytes. Raises DoesNotFit when the disk has too
        little beside the files that are being written."""
        with self._reserving:
            with disk.store_errors(self.root):
                space = os.statvfs(self.root)
            free = space.f_bavail * space.f_frsize
            if size + sum(self._reserved.values()) > free:
                others = sum(total - one.allocated_bytes() for one, total in self._reserved.items())
                missing = size - staging.allocated_bytes()
                if missing + max(0, others) > free:
                    raise DoesNotFit(
                        f"{self.root}: not enough space: {missing:,} bytes are needed, {free:,} "
                        f"are free, and {max(0, others):,} of those are for files in progress",
                        hint="free some space and run the command again",
                    )
            self._reserved[staging] = size

    def _check_lock(self) -> None:
        """Raises ArchiveBusy when this process is no longer the only writer."""
        if self._lock is not None:
            self._lock.check()

    async def sweep(self) -> list[Leftover]:
        sweep = Sweep(self.root, self._durable, self._check_lock)
        return await in_thread(lambda: list(sweep.run()))


class _OpenedFile:
    """Implements Opened."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path: Final = path
        self._descriptor: Final = descriptor
        with reading.reading_errors(path):
            self.size: Final = os.fstat(descriptor).st_size

    def read(self, offset: int, block: memoryview) -> int:
        with reading.reading_errors(self._path):
            return reading.read_all(self._descriptor, block, offset)
