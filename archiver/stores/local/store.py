"""An archive in a directory.

Files on their way live in ``.staging`` on the same file system, so that a rename brings them
home. A file of several parts has a journal beside it; one of a single part needs none.
"""

import hashlib
import itertools
import os
import re
import secrets
import stat
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from archiver import documents
from archiver.concurrency import entered, in_thread, in_thread_shielded
from archiver.documents import is_within
from archiver.errors import (
    ArchiverError,
    BadDocument,
    DoesNotFit,
    IntegrityError,
    NoDocument,
    ObjectMissing,
    PlaceTaken,
    StoreError,
    UnreadableObject,
    UnsafeInput,
)
from archiver.ignored_names import is_ignored, is_listed
from archiver.model import Kind, Stored
from archiver.stores.base import Entry, Leftover, Opened, Staging
from archiver.stores.commit import Commit, Unsynced, drive
from archiver.stores.local import disk, mounts
from archiver.stores.local.clearing import clear, move_away
from archiver.stores.local.filesystem import Sync, sync_each, sync_file_system, syncing
from archiver.stores.local.lock import Held, hold
from archiver.stores.local.staging import (
    ASIDE,
    DATA,
    DOCUMENT,
    JOURNAL,
    REPLACED,
    SEPARATOR,
    TEMPORARY,
    LocalStaging,
    Place,
    is_aside,
    is_ours,
    parents_to_sync,
    parse_journal,
)

STAGING = ".staging"
QUARANTINE = ".quarantine"
_LOCK = ".lock"
# What a run that was killed early leaves.
_NOTHING = frozenset((STAGING, QUARANTINE, _LOCK))
# Evidence tells of no backup: a drill says when it finds a file in the place of its folder.
_EVIDENCE = "drills"
_LINK = "a symbolic link"
# An object and the document about it share their stem; other documents are made anew.
RECORD_SUFFIX = ".json"
# What the names of files that an archive keeps end in, and of no folder of it.
_FILES = (RECORD_SUFFIX, "/SHA256SUMS", *(f".{kind}" for kind in Kind))
# A year, a month or a set below an instance: what has such a name is a folder, or hides one.
_FOLDER = re.compile(
    r"(?!(drills|verified|acknowledged)/)[^/]+/[0-9]{4}(/[0-9]{2}(/[0-9]{8}T[0-9]{6}Z-[^/]+)?)?"
)
# Past the vendor's default retention four times over: its URL is gone, nobody will resume it.
_STALE_SECONDS = 30 * 86400
_ENTRIES_AT_ONCE = 1000
# Of a key that is none, in a message.
_MOST_SHOWN = 200
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
        # Files on their way, and the sizes they will have.
        self._on_the_way: Final[dict[LocalStaging, int]] = {}
        self._stems: Final[set[str]] = set()
        self._reserving: Final = threading.Lock()

    def __str__(self) -> str:
        return str(self.root)

    def _at(self, key: str) -> Path:
        """Where a key is: below the root, or nowhere. Raises UnsafeInput."""
        if not is_within(key):
            raise UnsafeInput(
                f"{self.root}: {key[:_MOST_SHOWN]!a} is no name of anything within an archive",
                hint="nothing outside is touched",
            )
        return self.root / key

    @asynccontextmanager
    async def exclusive(self) -> AsyncGenerator[None, None]:
        await in_thread(disk.make_durable_directories, self._staging)
        stop = threading.Event()
        async with (
            entered(hold(self.root / _LOCK, stop=stop), stop.set) as lock,
            # All that is renamed was there: it is on the same file system.
            entered(syncing(self._staging)) as sync,
        ):
            if lock.was_left:
                # What a run that was killed made can be seen, and would be believed.
                await in_thread(sync_file_system, self._staging)
            self._lock, self._sync = lock, sync
            self._durable.clear()  # who wrote meanwhile may have taken folders away
            try:
                yield
                await in_thread(self._sync_names)
            except StoreError:
                # Commits ended where they were: what they named is for the next run to find.
                with suppress(StoreError):
                    await in_thread_shielded(lambda: sync_file_system(self._staging))
                raise
            finally:
                self._lock, self._sync = None, sync_each

    def _sync_names(self) -> None:
        """What was renamed away or removed does not come back after a power cut."""
        for folder in (self._staging, self._quarantine):
            if folder.is_dir():
                disk.sync_directory(folder)

    @property
    def doubt(self) -> str:
        return "is the path right, and its disk mounted?"

    async def obstacle(self) -> str | None:
        return await in_thread(self._obstacle)

    def _obstacle(self) -> str | None:
        missing = mounts.missing_above(self.root)
        if missing is not None:
            return f"{missing} is to be a mount point, and nothing is mounted there"
        with disk.store_errors(self.root):
            try:
                names = {item.name for item in os.scandir(self.root)} - _NOTHING
            except FileNotFoundError:
                return None
        others = [name for name in names if not is_ignored(name)]
        return f"something else is: {min(others)}" if others else None

    async def above(self, name: str, is_meant: Callable[[bytes], bool]) -> str | None:
        def work() -> Path | None:
            root = Path(os.path.realpath(self.root))
            if root.name.startswith("."):
                return None
            return disk.nearest(root.parent, name, is_meant)

        found = await in_thread(work)
        return None if found is None else str(found)

    @property
    def together(self) -> int:
        return _TOGETHER

    async def place(self) -> tuple[str, ...]:
        return ("file", *Path(await in_thread(os.path.realpath, self.root)).parts)

    async def read(self, key: str) -> bytes | None:
        return await in_thread(disk.read_document, self._at(key))

    async def put(self, key: str, data: bytes) -> None:
        await in_thread(self._put, self._at(key), data)

    def _put(self, path: Path, data: bytes) -> None:
        self._check_lock()
        # A copy of an archive may lack what begins with a dot.
        disk.make_durable_directories(self._staging)
        disk.put_file(path, data, self._staging / f"{secrets.token_hex(8)}{TEMPORARY}")

    async def clear(self, key: str) -> str | None:
        def work() -> Path | None:
            self._check_lock()
            return clear(self._at(key), self._quarantine)

        kept = await in_thread(work)
        return None if kept is None else kept.relative_to(self.root).as_posix()

    async def set_aside(self, key: str) -> str:
        def work() -> Path:
            self._check_lock()
            return move_away(self._at(key), self._quarantine)

        return (await in_thread(work)).relative_to(self.root).as_posix()

    async def size(self, key: str) -> int | None:
        return await in_thread(self._size, self._at(key))

    @staticmethod
    def _size(path: Path) -> int | None:
        with disk.reading_errors(path):
            try:
                status = path.lstat()
            except (FileNotFoundError, NotADirectoryError):
                return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    async def entries(self, prefix: str) -> AsyncGenerator[Entry, None]:
        walk = self._below(prefix)
        while page := await in_thread(lambda: list(itertools.islice(walk, _ENTRIES_AT_ONCE))):
            for entry in page:
                yield entry

    def _below(self, prefix: str) -> Iterator[Entry]:
        """What is no folder among those of the prefix hides what would be in it, as it does from
        those who come upon it from above: every listing gives the same answer."""
        folder = self.root
        if prefix:
            self._at(prefix.removesuffix("/"))
        for name in prefix.split("/")[:-1]:
            folder /= name
            try:
                kind = disk.folder_obstacle(folder)
            except UnreadableObject:
                break  # told below
            if kind is not None:
                key = folder.relative_to(self.root).as_posix()
                if kind == disk.LINK or not (key == _EVIDENCE or key.endswith(_FILES)):
                    yield self._hidden(folder, _in_place_of_a_folder(folder, kind))
                return
        yield from self._walk(folder)

    def _walk(self, folder: Path) -> Iterator[Entry]:
        """Files first, then folders, each sorted by name; litter is not shown. A folder with the
        name of a file of a set stands for what it keeps from having that name. One that cannot be
        read hides what is in it, and nothing else."""
        try:
            items = _items(folder)
        except UnreadableObject as error:
            if folder == self.root:
                raise
            yield self._hidden(folder, error)
            return
        folders = []
        for item in items:
            key = Path(item.path).relative_to(self.root).as_posix()
            if _is_folder(item) and (not key.endswith(_FILES) or _FOLDER.fullmatch(key)):
                folders.append(Path(item.path))
            elif (entry := self._entry(key, item)) is not None:
                yield entry
        for below in folders:
            yield from self._walk(below)

    def _entry(self, key: str, item: os.DirEntry[str]) -> Entry | None:
        """What a listing shows of an item; None for what is gone by now."""
        try:
            with disk.reading_errors(item.path):
                try:
                    status = item.stat(follow_symlinks=False)
                except FileNotFoundError:  # as what is only on its way
                    return None
        except UnreadableObject as error:
            return self._hidden(Path(item.path), error)
        if stat.S_ISDIR(status.st_mode):
            return Entry(key, 0, is_file=False, what="a folder")
        kind = disk.kind_of(status.st_mode)
        is_link = stat.S_ISLNK(status.st_mode)
        if _FOLDER.fullmatch(key) or (is_link and not key.endswith(_FILES)):
            return self._hidden(Path(item.path), _in_place_of_a_folder(item.path, kind or "a file"))
        if kind is None:
            return Entry(key, status.st_size)
        return Entry(key, status.st_size, is_file=False, what=kind)

    def _hidden(self, path: Path, why: ArchiverError) -> Entry:
        return Entry(path.relative_to(self.root).as_posix(), 0, is_file=False, hides=why)

    @contextmanager
    def open(self, key: str) -> Generator[Opened, None, None]:
        path = self._at(key)
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
        self._at(stem)
        folder, quarantine = str(self._staging), str(self._quarantine)
        shared = self._lock is not None and self._lock.was_left and not self._lock.is_certain
        place = Place(str(self.root), folder, quarantine, self._durable, self._check_lock, shared)
        staging = LocalStaging(place, stem, size)
        with self._reserving:
            if stem in self._stems:
                raise PlaceTaken(f"{self.root}: {stem} is being brought already")
            self._stems.add(stem)
        try:
            staging.open()
            self._reserve(staging, size)
            yield staging
        finally:
            with self._reserving:
                self._stems.discard(stem)
                self._on_the_way.pop(staging, None)
            staging.close()

    def finish(self, commits: Iterable[Commit]) -> list[Stored]:
        def sync(unsynced: Sequence[Unsynced]) -> None:
            self._sync(unsynced)
            self._check_lock()  # before the names that follow

        self._check_lock()
        return drive(commits, sync)

    def _reserve(self, staging: LocalStaging, size: int) -> None:
        """Raises DoesNotFit when the file would not, beside those that are on their way."""
        with self._reserving:
            with disk.store_errors(self.root):
                space = os.statvfs(self.root)
            free = space.f_bavail * space.f_frsize
            if size + sum(self._on_the_way.values()) > free:
                others = sum(most - one.bytes_present() for one, most in self._on_the_way.items())
                wanted = size - staging.bytes_present()
                if wanted + max(0, others) > free:
                    raise DoesNotFit(
                        f"{self.root}: no space for it: {wanted:,} bytes are to come, {free:,} are "
                        f"free, and {max(0, others):,} of these are for files on their way",
                        hint="free some space, and run it again",
                    )
            self._on_the_way[staging] = size

    def _check_lock(self) -> None:
        if self._lock is not None:
            self._lock.check()

    async def sweep(self) -> list[Leftover]:
        return await in_thread(lambda: list(self._sweep()))

    def _sweep(self) -> Iterator[Leftover]:
        """Only what has our exact form of name: another application may keep things here, too."""
        with disk.store_errors(self._staging):
            ours = [
                path for path in self._staging.iterdir() if is_ours(path.name) and _is_file(path)
            ]
            # Documents first: they are looked at beside the files they are about; and records
            # before the SHA256SUMS that follow them.
            for path in sorted(ours, key=_sweeping_order):
                why = self._finish(path) if path.suffix == DOCUMENT else self._why_useless(path)
                if why:
                    self._check_lock()
                    path.unlink(missing_ok=True)
                    yield Leftover(f"{STAGING}/{path.name}", why)
        yield from self._settle_asides()

    def _settle_asides(self) -> Iterator[Leftover]:
        """What earlier versions put aside for the time of a repair, and were killed: back in its
        place if nothing has it, else a quarantined file like any."""
        with disk.store_errors(self._quarantine):
            for path in self._quarantine.glob(f"*{ASIDE}"):
                if not is_aside(path.name):
                    continue
                home = self.root / path.name.removesuffix(ASIDE).replace(SEPARATOR, "/")
                if self._is_led_away(home):
                    continue
                if _is_same(path, home):
                    path.unlink()
                    yield Leftover(f"{QUARANTINE}/{path.name}", "another name of an object")
                elif os.path.lexists(home):
                    disk.rename(path, f"{path.with_suffix('')}-{path.lstat().st_ino}{REPLACED}")
                    yield Leftover(f"{QUARANTINE}/{path.name}", "renamed: its object was replaced")
                else:
                    disk.make_durable_directories(home.parent)
                    disk.rename(path, home)
                    disk.sync_directory(home.parent)
                    yield Leftover(f"{QUARANTINE}/{path.name}", "back in its place")

    def _is_led_away(self, path: Path) -> bool:
        """Whether something that is no folder is on the way to ``path``: a link may lead out of the
        archive, and nothing is written behind it."""
        above = list(path.relative_to(self.root).parents)[:-1]
        return any(disk.folder_obstacle(self.root / folder) is not None for folder in above)

    def _finish(self, document: Path) -> str | None:
        """Bring home a document whose object was renamed already: a kill came in between. Why it is
        of no use here any more; None where it stays."""
        path = self.root / document.stem.replace(SEPARATOR, "/")
        if self._is_led_away(path):
            return None
        if not self._came_home(document, path):
            return "a document without its object"
        if os.path.lexists(path):
            there = _said_by(path)
            if path.suffix != RECORD_SUFFIX or there == _said_by(document):
                return "a document that is there"
            try:
                if there is not None and _is_true(there, path):
                    return "a record of other bytes than those that are there"
            except (UnreadableObject, NoDocument):
                return ""  # a later run may know which one is right
            move_away(path, self._quarantine)  # it is not about the object that came home
        # The kill may have come before the object's name, or its folders', was durable.
        folder = path.parent.relative_to(self.root).as_posix()
        disk.sync_directory(path.parent)
        for unsynced in parents_to_sync(str(self.root), folder, self._durable):
            unsynced.sync()
        disk.rename(document, path)
        disk.sync_directory(path.parent)
        return "its object had come home: now it is recorded, too"

    def _came_home(self, document: Path, path: Path) -> bool:
        """Whether the file that a document is about has its final name. A power cut may leave it
        its staged name as well, beside the final one: then both are one inode."""
        if path.suffix != RECORD_SUFFIX:
            return any(path.parent.glob(f"*{RECORD_SUFFIX}"))
        staged = (self._staging / document.stem).with_suffix(DATA)
        said = _said_by(document)
        if said is None:
            return False
        home = path.with_name(said.name)
        return (
            home.stem == path.stem
            and _is_file(home)
            and home.lstat().st_size == said.size
            and (not os.path.lexists(staged) or _is_same(home, staged))
        )

    def _why_useless(self, path: Path) -> str | None:
        if path.suffix == DATA:
            return self._why_useless_data(path)
        if path.suffix == JOURNAL:
            return None if path.with_suffix(DATA).exists() else "a journal without its file"
        return "a document that was not finished"

    def _why_useless_data(self, path: Path) -> str | None:
        final = self.root / path.stem.replace(SEPARATOR, "/")
        if any(_is_same(path, final.with_name(f"{final.name}.{kind}")) for kind in Kind):
            return "another name of a file that had come home"
        try:
            noted = parse_journal(str(path.with_suffix(JOURNAL)))
        except UnreadableObject:
            return "a journal that cannot be read"
        if noted is None:
            return "a file without a journal, from an interrupted run"
        if time.time() - path.lstat().st_mtime > _STALE_SECONDS:
            return "untouched for 30 days"
        return None


class _OpenedFile:
    def __init__(self, path: Path, descriptor: int) -> None:
        self._path: Final = path
        self._descriptor: Final = descriptor
        with disk.reading_errors(path):
            self.size: Final = os.fstat(descriptor).st_size

    def read(self, offset: int, block: memoryview) -> int:
        with disk.reading_errors(self._path):
            return disk.read_all(self._descriptor, block, offset)


def _items(folder: Path) -> list[os.DirEntry[str]]:
    """What is shown of a folder, sorted by name; nothing of what is none. Raises UnreadableObject,
    StoreError."""
    with disk.reading_errors(folder):
        try:
            with os.scandir(folder) as listing:
                items = [item for item in listing if is_listed(item.name)]
        except (FileNotFoundError, NotADirectoryError):
            return []
    return sorted(items, key=lambda item: item.name)


def _is_folder(item: os.DirEntry[str]) -> bool:
    try:
        return item.is_dir(follow_symlinks=False)
    except OSError:
        return False  # whoever asks for more is told


def _in_place_of_a_folder(path: Path | str, kind: str) -> IntegrityError:
    if kind == _LINK:
        return IntegrityError(
            f"{path}: {kind} is in the place of a folder; nothing looks behind it",
            hint="move the folder itself here, or mount it here (mount --bind)",
        )
    return IntegrityError(
        f"{path}: {kind} is in the place of a folder, and nobody knows what that had in it",
        hint="move it away, then repair from another archive or the source",
    )


def _sweeping_order(path: Path) -> tuple[bool, bool, str]:
    about_a_record = path.name.endswith(f"{RECORD_SUFFIX}{DOCUMENT}")
    return path.suffix != DOCUMENT, not about_a_record, path.name


@dataclass(frozen=True, slots=True)
class _Said:
    """What a record says of its object."""

    name: str
    size: int
    sha256: object


def _said_by(record: Path) -> _Said | None:
    """None where it cannot be read."""
    try:
        said = documents.parse(record.name, disk.read_document(record) or b"").values
    except (NoDocument, BadDocument, UnreadableObject):
        return None
    name, size = said.get("object"), said.get("size")
    if not isinstance(name, str) or not documents.is_name(name) or not isinstance(size, int):
        return None
    return _Said(name, size, said.get("sha256"))


def _is_true(said: _Said, record: Path) -> bool:
    """Whether the object of a record has the bytes that it names. Raises UnreadableObject."""
    home = record.with_name(said.name)
    if home.stem != record.stem or not _is_file(home) or home.lstat().st_size != said.size:
        return False
    descriptor = disk.open_file(home)
    if descriptor is None:
        return False
    with disk.reading_errors(home), os.fdopen(descriptor, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == said.sha256


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _is_same(path: Path, other: Path) -> bool:
    """Whether two names are of one file."""
    try:
        return os.path.samestat(path.lstat(), other.lstat())
    except (FileNotFoundError, NotADirectoryError):
        return False
