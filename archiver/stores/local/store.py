"""An archive in a directory: a Store of files.

Files are staged in ``.staging/<instance>`` on the same file system, so that a rename moves them to
their final place. A file of several parts has a journal beside it; one of a single part needs none.
"""

import functools
import itertools
import os
import secrets
import stat
import threading
from collections.abc import (
    AsyncGenerator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

from archiver import words
from archiver.concurrency import entered, in_thread
from archiver.documents import is_within
from archiver.errors import (
    ArchiverError,
    BadDocument,
    DoesNotFit,
    LockLost,
    NoDocument,
    ObjectMissing,
    PlaceTaken,
    StoreError,
    UnreadableObject,
    UnsafeInput,
    UsageError,
)
from archiver.ids import is_instance_id
from archiver.ignored_names import is_ignored
from archiver.model import Stored
from archiver.stores.base import Entry, Leftover, OpenedObject, Staging
from archiver.stores.commit import Commit, Sync, drive, sync_each
from archiver.stores.loans import Borrowed, Loan
from archiver.stores.local import disk, reading
from archiver.stores.local.layout import LOCK, LOCKS, QUARANTINE, STAGING, TEMPORARY
from archiver.stores.local.lock import Held, flock_is_reliable, hold, lock_path, name_in
from archiver.stores.local.mounts import missing_mount
from archiver.stores.local.quarantine import clear, move_to_quarantine
from archiver.stores.local.staged_file import StagingArea
from archiver.stores.local.staging import LocalStaging
from archiver.stores.local.sweep import Sweep, is_staged_in
from archiver.stores.local.syncing import fastest_sync, sync_file_system
from archiver.stores.local.walk import entries_below, folders_at_top, is_folder
from archiver.stores.scope import WHOLE, HeldLocks, NotHeld, other_archive, scope_of

T = TypeVar("T")

# What a run leaves that was killed before it created an archive.
_OWN_NAMES = frozenset((STAGING, QUARANTINE, LOCK, LOCKS))
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
        # The locks that this store holds, by scope.
        self._locks: Final = HeldLocks[Held | Borrowed]()
        self._lends = False
        # Scopes in which commits ended halfway. The next run finds what they renamed.
        self._broken_off: Final[set[str]] = set()
        # One way to sync for all that is written while any lock is held.
        self._sync: Sync = sync_each
        self._syncing: AbstractContextManager[Sync] | None = None
        self._users = 0
        self._sharing: Final = threading.Lock()
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
    async def exclusive(
        self, scope: str, *, watch: bool = True, briefly: bool = False
    ) -> AsyncGenerator[None, None]:
        stop = threading.Event()
        async with entered(self._held(scope, stop, watch=watch, briefly=briefly), stop.set):
            yield

    @contextmanager
    def _held(
        self, scope: str, stop: threading.Event, *, watch: bool, briefly: bool
    ) -> Iterator[None]:
        """See :meth:`exclusive`. Entering and leaving block."""
        if scope != WHOLE:
            self._path(scope)  # raises for a name that leads out of the archive
        lock_file = lock_path(self.root, scope)
        for folder in (self._staging, lock_file.parent):
            disk.make_durable_directories(folder)
        with (
            hold(
                lock_file, stop=stop, watch=watch, briefly=briefly, lent=self._lends and not briefly
            ) as lock,
            self._own_folders(scope, lock) as staging,
            # Everything that is renamed was staged there: it is on the same file system.
            self._shared_sync(),
        ):
            if lock.was_left and not (lock.is_new and self._is_new(scope)):
                # What a killed run wrote can be seen and would be trusted, but may not be durable.
                sync_file_system(staging)
            self._locks[scope] = lock
            self._forget_durable(scope)
            try:
                yield
                self._sync_names(scope)
            except StoreError:
                self._broken_off.add(scope)
                raise
            finally:
                if scope in self._broken_off:
                    with suppress(StoreError):
                        sync_file_system(staging)
                self._broken_off.discard(scope)
                del self._locks[scope]

    def elsewhere(self) -> Callable[[], "LocalStore"]:
        return functools.partial(LocalStore, self.root.absolute())

    def lend(self) -> None:
        self._lends = True

    def loan(self, scope: str) -> Loan:
        lock = self._locks.get(scope)
        if not isinstance(lock, Held):
            raise NotHeld(scope)
        return lock.loan()

    @contextmanager
    def borrowed(self, scope: str, name: str, lock: Borrowed) -> Iterator[None]:
        lock_file = lock_path(self.root, scope)
        if name_in(lock_file) != name:
            raise other_archive(self)
        lock.is_certain = flock_is_reliable(lock_file)
        with self._shared_sync():
            self._locks[scope] = lock
            self._forget_durable(scope)
            try:
                yield
            finally:
                del self._locks[scope]

    def doubt(self, scope: str) -> None:
        self._broken_off.add(scope)

    @contextmanager
    def _own_folders(self, scope: str, lock: Held) -> Iterator[Path]:
        """The staging folder of a scope. An instance's folders are removed before its lock is
        released if they are empty: those that stay show that there is something to sweep, or for
        people to look at. Once the lock is lost they are another writer's."""
        staging, quarantine = self._staging / scope, self._quarantine / scope
        for folder in (staging, quarantine):
            if (kind := reading.folder_obstacle(folder)) is not None:
                raise PlaceTaken(
                    f"{folder}: {kind} is in the place of a folder; nothing is written there",
                    hint="move it out of the archive",
                )
        disk.make_durable_directories(staging)
        try:
            yield staging
        finally:
            if scope != WHOLE:
                for folder in (staging, quarantine):
                    with suppress(OSError, StoreError, LockLost):
                        lock.check()
                        folder.rmdir()

    @contextmanager
    def _shared_sync(self) -> Iterator[None]:
        """Keep ``_sync`` open since before anything was written under any lock that is held."""
        with self._sharing:
            if self._syncing is None:
                self._syncing = fastest_sync(self._staging)
                self._sync = self._syncing.__enter__()
            self._users += 1
        try:
            yield
        finally:
            with self._sharing:
                self._users -= 1
                if self._users == 0 and self._syncing is not None:
                    self._syncing.__exit__(None, None, None)
                    self._sync, self._syncing = sync_each, None

    def _is_new(self, scope: str) -> bool:
        """Whether nothing was ever written in this scope."""
        return scope != WHOLE and not os.path.lexists(self.root / scope)

    def _forget_durable(self, scope: str) -> None:
        """Another writer of this scope may have removed folders meanwhile."""
        self._durable.difference_update(
            [one for one in list(self._durable) if scope_of(f"{one}/") == scope]
        )

    def _sync_names(self, scope: str) -> None:
        """Keep a power failure from bringing back what was renamed or removed."""
        for folder in (self._staging / scope, self._quarantine / scope):
            if folder.is_dir():
                disk.sync_directory(folder)

    @property
    def missing_hint(self) -> str:
        return "check the path and that its disk is mounted"

    async def check_exists(self) -> None:
        what = await in_thread(reading.what_is_at, self.root)
        if what is None:
            raise UsageError(f"no such directory: {self.root}", hint=self.missing_hint)
        if what != reading.FOLDER:
            raise UsageError(
                f"{self.root}: this is {what}, and no directory",
                hint=f"name the directory that it is in: {self.root.absolute().parent}",
            )

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

    async def put(self, key: str, data: bytes) -> str:
        return await in_thread(self._put, key, data)

    def _put(self, key: str, data: bytes) -> str:
        path, scope = self._path(key), scope_of(key)
        check = self._locks.check_for(key)
        check()
        staging = self._staging / scope if scope in self._locks else self._staging
        # A copy of an archive may lack hidden folders.
        disk.make_durable_directories(staging)
        temporary = staging / f"{secrets.token_hex(8)}{TEMPORARY}"
        return disk.put_file(path, data, temporary, check)

    async def clear(self, key: str) -> str | None:
        kept = await in_thread(self._moved_by, clear, key)
        return None if kept is None else kept.relative_to(self.root).as_posix()

    async def move_to_quarantine(self, key: str) -> str:
        kept = await in_thread(self._moved_by, move_to_quarantine, key)
        return kept.relative_to(self.root).as_posix()

    def _moved_by(self, move: Callable[[Path, Path, Path], T], key: str) -> T:
        path = self._path(key)
        self._locks.check_for(key)()
        return move(path, self.root, self._quarantine / scope_of(key))

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

    async def folders(self) -> list[str]:
        return await in_thread(folders_at_top, self.root)

    @contextmanager
    def open(self, key: str) -> Generator[OpenedObject, None, None]:
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
        existing: Mapping[str, int] | None = None,
    ) -> Generator[Staging, None, None]:
        scope, check = scope_of(stem), self._locks.check_of(scope_of(stem))
        self._path(stem)
        check()
        lock = self._locks[scope]
        folder, quarantine = str(self._staging / scope), str(self._quarantine / scope)
        shared = lock.was_left and not lock.is_certain
        area = StagingArea(str(self.root), folder, quarantine, self._durable, check, shared)
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
        try:
            return drive(commits, self._sync)
        except (StoreError, LockLost):
            with self._reserving:
                self._broken_off.update(map(scope_of, self._stems))
            raise

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
                    taken = f", {words.size(others)} of that for other files" if others > 0 else ""
                    raise DoesNotFit(
                        f"{self.root}: not enough space: {words.size(missing)} are needed, "
                        f"{words.size(free)} are free{taken}",
                        hint=disk.FREE_SPACE,
                    )
            self._reserved[staging] = size

    async def leftovers(self) -> list[str]:
        return await in_thread(self._leftovers)

    def _leftovers(self) -> list[str]:
        with disk.store_errors(self._staging):
            try:
                items = list(os.scandir(self._staging))
            except FileNotFoundError:
                return []
        # With those that are empty: only the holder of the lock may remove one.
        own = {item.name for item in items if is_folder(item) and is_instance_id(item.name)}
        is_whole = any(is_staged_in(Path(item.path), WHOLE) for item in items)
        return [*([WHOLE] if is_whole else []), *sorted(own - self._locks.keys())]

    async def sweep(self, scope: str) -> list[Leftover]:
        def work() -> list[Leftover]:
            check = self._locks.check_of(scope)
            check()
            return list(Sweep(self.root, scope, self._durable, check).run())

        return await in_thread(work)


class _OpenedFile:
    """Implements OpenedObject."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path: Final = path
        self._descriptor: Final = descriptor
        with reading.reading_errors(path):
            self.size: Final = os.fstat(descriptor).st_size

    @property
    def version(self) -> str:
        with reading.reading_errors(self._path):
            return disk.version_of(os.fstat(self._descriptor))

    def read(self, offset: int, block: memoryview) -> int:
        with reading.reading_errors(self._path):
            return reading.read_all(self._descriptor, block, offset)
