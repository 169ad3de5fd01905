"""An archive in a directory.

Files on their way live in ``.staging`` on the same file system, so that a rename brings them
home. A file of several parts has a journal beside it; one of a single part needs none.
"""

import itertools
import os
import secrets
import stat
import time
from collections.abc import AsyncGenerator, Generator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

from archiver.errors import IntegrityError, NoDocument, NoSpace, ObjectMissing, UnreadableObject
from archiver.model import Kind, Stored
from archiver.stores import disk
from archiver.stores.base import Entry, Leftover, Opened, Staging
from archiver.stores.clearing import clear
from archiver.stores.commit import Commit, drive
from archiver.stores.filesystem import Sync, sync_each, syncing
from archiver.stores.local_staging import (
    DATA,
    DOCUMENT,
    JOURNAL,
    SEPARATOR,
    TEMPORARY,
    LocalStaging,
    aside,
    folders_to_sync,
    parse_journal,
)
from archiver.stores.lock import Held, hold
from archiver.threads import entered, in_thread

STAGING = ".staging"
QUARANTINE = ".quarantine"
_LOCK = ".lock"
# An object and the document about it share their stem; other documents are made anew.
RECORD_SUFFIX = ".json"
# What the names of files that an archive keeps end in, and of no folder of it.
_FILES = (RECORD_SUFFIX, "/SHA256SUMS", *(f".{kind}" for kind in Kind))
# Past the vendor's default retention four times over: its URL is gone, nobody will resume it.
_STALE_SECONDS = 30 * 86400
_ENTRIES_AT_ONCE = 1000
# More small files gained nothing, and took more descriptors (benchmarks/README.md).
_TOGETHER = 32


class LocalStore:
    """A Store in the directory ``root``, which is made when it is first written to."""

    def __init__(self, root: Path | str) -> None:
        self.root: Final = Path(root)
        self._staging: Final = self.root / STAGING
        self._quarantine: Final = self.root / QUARANTINE
        self._lock: Held | None = None
        self._sync: Sync = sync_each
        # Folders, by their keys, whose own names are durable, since this store made sure of that.
        self._durable: Final[set[str]] = set()

    def __str__(self) -> str:
        return str(self.root)

    @asynccontextmanager
    async def exclusive(self) -> AsyncGenerator[None, None]:
        await in_thread(disk.make_durable_directories, self._staging)
        async with (
            entered(hold(self.root / _LOCK)) as lock,
            # All that is renamed was there: it is on the same file system.
            entered(syncing(self._staging)) as sync,
        ):
            self._lock, self._sync = lock, sync
            self._durable.clear()  # who wrote meanwhile may have taken folders away
            try:
                yield
            finally:
                self._lock, self._sync = None, sync_each

    @property
    def together(self) -> int:
        return _TOGETHER

    async def read(self, key: str) -> bytes | None:
        return await in_thread(disk.read_document, self.root / key)

    async def put(self, key: str, data: bytes) -> None:
        self._check_lock()
        await in_thread(self._put, self.root / key, data)

    def _put(self, path: Path, data: bytes) -> None:
        # A copy of an archive may lack what begins with a dot.
        disk.make_durable_directories(self._staging)
        disk.put_file(path, data, self._staging / f"{secrets.token_hex(8)}{TEMPORARY}")

    async def clear(self, key: str) -> str | None:
        self._check_lock()
        kept = await in_thread(clear, self.root / key, self._quarantine)
        return None if kept is None else kept.relative_to(self.root).as_posix()

    async def size(self, key: str) -> int | None:
        return await in_thread(self._size, self.root / key)

    @staticmethod
    def _size(path: Path) -> int | None:
        with disk.reading_errors(path):
            try:
                status = path.lstat()
            except (FileNotFoundError, NotADirectoryError):
                return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    async def entries(self, prefix: str) -> AsyncGenerator[Entry, None]:
        walk = self._walk(self.root / prefix)
        while page := await in_thread(lambda: list(itertools.islice(walk, _ENTRIES_AT_ONCE))):
            for entry in page:
                yield entry

    def _walk(self, folder: Path) -> Iterator[Entry]:
        """Files first, then folders, each sorted by name; what begins with a dot is not shown. A
        folder with the name of a file stands for what it keeps from having that name."""
        with disk.reading_errors(folder):
            try:
                with os.scandir(folder) as listing:
                    items = sorted(listing, key=lambda item: item.name)
            except (FileNotFoundError, NotADirectoryError):
                return
            folders = []
            for item in items:
                if item.name.startswith("."):
                    continue
                key = Path(item.path).relative_to(self.root).as_posix()
                if not item.is_dir(follow_symlinks=False):
                    with suppress(FileNotFoundError):  # gone since, as what is only on its way
                        size = item.stat(follow_symlinks=False).st_size
                        yield Entry(key, size, item.is_file(follow_symlinks=False))
                elif key.endswith(_FILES):
                    yield Entry(key, 0, is_file=False)
                else:
                    folders.append(Path(item.path))
        for below in folders:
            yield from self._walk(below)

    @contextmanager
    def open(self, key: str) -> Generator[Opened, None, None]:
        path = self.root / key
        try:
            descriptor = disk.open_file(path)
        except NoDocument as error:
            raise ObjectMissing(f"{path}: there is no such object: {error.fault}") from None
        if descriptor is None:
            raise ObjectMissing(f"{path}: there is no such object")
        try:
            yield _OpenedFile(path, descriptor)
        finally:
            os.close(descriptor)

    @contextmanager
    def stage(self, stem: str, size: int) -> Generator[Staging, None, None]:
        self._check_lock()
        root, folder, quarantine = str(self.root), str(self._staging), str(self._quarantine)
        staging = LocalStaging(root, folder, quarantine, self._durable, stem, size)
        try:
            staging.open()
            self._check_space(size - staging.bytes_present())
            yield staging
        finally:
            staging.close()

    def finish(self, commits: Iterable[Commit]) -> list[Stored]:
        return drive(commits, self._sync)

    def _check_space(self, wanted: int) -> None:
        with disk.store_errors(self.root):
            space = os.statvfs(self.root)
        free = space.f_bavail * space.f_frsize
        if wanted > free:
            raise NoSpace(
                f"{self.root}: no space: {wanted:,} bytes are to come and {free:,} are free",
                hint="free some space; what is fetched so far is kept",
            )

    def _check_lock(self) -> None:
        if self._lock is not None:
            self._lock.check()

    async def put_aside(self, key: str) -> str:
        self._check_lock()
        kept = self._aside(key)
        await in_thread(self._put_aside, self.root / key, kept)
        return kept.relative_to(self.root).as_posix()

    def _aside(self, key: str) -> Path:
        return Path(aside(str(self._quarantine), key))

    @staticmethod
    def _put_aside(path: Path, kept: Path) -> None:
        disk.make_durable_directories(kept.parent)
        with disk.store_errors(kept):
            if os.path.lexists(kept):
                raise IntegrityError(
                    f"{kept}: it was put aside before, and something has its place again",
                    hint="look at both, and remove one",
                )
        _move(path, kept)

    async def bring_back(self, key: str) -> bool:
        self._check_lock()
        return await in_thread(self._bring_back, self._aside(key), self.root / key)

    @staticmethod
    def _bring_back(kept: Path, path: Path) -> bool:
        with disk.store_errors(kept):
            if os.path.lexists(path) or not os.path.lexists(kept):
                return False
        disk.make_durable_directories(path.parent)
        _move(kept, path)
        return True

    async def sweep(self) -> list[Leftover]:
        return await in_thread(lambda: list(self._sweep()))

    def _sweep(self) -> Iterator[Leftover]:
        with disk.store_errors(self._staging):
            # Documents first: they are looked at beside the files they are about.
            documents_first = sorted(
                self._staging.iterdir(), key=lambda path: (path.suffix != DOCUMENT, path.name)
            )
            for path in documents_first:
                why = self._finish(path) if path.suffix == DOCUMENT else _why_useless(path)
                if why:
                    path.unlink(missing_ok=True)
                    yield Leftover(f"{STAGING}/{path.name}", why)

    def _finish(self, document: Path) -> str:
        """Bring home a document whose object was renamed already: a kill came in between."""
        path = self.root / document.stem.replace(SEPARATOR, "/")
        objects = (path.with_suffix(f".{kind}") for kind in Kind)
        # Else what has the object's name is not what it is about, but damaged, or older.
        came_home = not (self._staging / document.stem).with_suffix(DATA).exists()
        if path.suffix == RECORD_SUFFIX and came_home and any(one.exists() for one in objects):
            # The kill may have come before the object's name, or its folders', was durable.
            folder = path.parent.relative_to(self.root).as_posix()
            for unsynced in folders_to_sync(str(self.root), folder, self._durable):
                unsynced.sync()
            disk.rename(document, path)
            disk.sync_directory(path.parent)
            return "its object had come home: now it is recorded, too"
        return "a document without its object"


class _OpenedFile:
    def __init__(self, path: Path, descriptor: int) -> None:
        self._path: Final = path
        self._descriptor: Final = descriptor
        with disk.reading_errors(path):
            self.size: Final = os.fstat(descriptor).st_size

    def read(self, offset: int, block: memoryview) -> int:
        with disk.reading_errors(self._path):
            return disk.read_all(self._descriptor, block, offset)


def _move(path: Path, target: Path) -> None:
    disk.rename(path, target)
    disk.sync_directory(target.parent)
    disk.sync_directory(path.parent)


def _why_useless(path: Path) -> str | None:
    if path.suffix == DATA:
        try:
            noted = parse_journal(str(path.with_suffix(JOURNAL)))
        except UnreadableObject:
            return None  # by who can read it, it may be gone on with
        if noted is None:
            return "a file without a journal, from an interrupted run"
        if time.time() - path.stat().st_mtime > _STALE_SECONDS:
            return "untouched for 30 days"
    elif path.suffix == JOURNAL:
        if not path.with_suffix(DATA).exists():
            return "a journal without its file"
    elif path.suffix == TEMPORARY:
        return "a document that was not finished"
    return None
