"""One file on its way into a directory archive.

Durable order: data fsynced, then the journal line; at the end data, the waiting documents' names
and those of new folders fsynced, the file renamed, and its folder fsynced. The record comes after,
from the archive.

Nothing is ever written to a file that has a name in the archive, or a second name anywhere: a
snapshot made of hard links (``cp -al``) shares its bytes. Nor to one that another process may have
open, as a writer that was suspended and has lost the lock: it would write to it when it wakes, and
by then the file may have come home.
"""

import errno
import fcntl
import json
import os
import re
import stat
import threading
from collections import deque
from collections.abc import Callable, Container, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from archiver.documents import is_name
from archiver.errors import (
    ArchiveBusy,
    DoesNotFit,
    NoDocument,
    NoSpace,
    ObjectMissing,
    StoreError,
    UnreadableObject,
)
from archiver.model import Kind, Part, Pin, Provenance, Receipt, Stored
from archiver.stores.base import Documents, Resumable
from archiver.stores.commit import Commit, Unsynced
from archiver.stores.local import disk, journal
from archiver.stores.local.clearing import clear

DATA = ".data"
JOURNAL = ".journal"
TEMPORARY = ".tmp"
DOCUMENT = ".document"
REPLACED = ".replaced"
ASIDE = ".aside"  # as an earlier version named what it would replace
# Key parts never hold it, and it is plain in every shell.
SEPARATOR = "~"
# What we stage: a file and its journal, the documents about it, and those of the archive.
_OURS = re.compile(
    r"[^~]+(~[^~]+)+(\.data|\.journal|\.json\.document|~SHA256SUMS\.document|\.tmp)"
    r"|[0-9a-f]{16}\.tmp"
)
_ASIDES = re.compile(
    r"\w[\w.-]*~\d{4}~\d\d~\d{8}T\d{6}Z-\w[\w.-]*~\w[\w.-]*\.(" + "|".join(Kind) + r")\.aside"
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a directory archive stages: its folders, and what is known of them.

    Of the folders in ``durable``, by their keys, the names are durable; those that are made so are
    added. ``check`` raises ArchiveBusy when we are not the only writer any more. ``shared``: what
    an earlier writer left may be open in it, and no lock can tell.
    """

    root: str
    folder: str
    quarantine: str
    durable: set[str]
    check: Callable[[], None]
    shared: bool = False


class LocalStaging:
    """A Staging for the file ``stem`` of ``size`` bytes."""

    def __init__(self, place: Place, stem: str, size: int) -> None:
        # Paths are plain text here: of small files, making Path objects took a tenth of the time.
        flat = stem.replace("/", SEPARATOR)
        self._root: Final = place.root
        self._folder: Final = place.folder
        self._quarantine: Final = place.quarantine
        self._durable: Final = place.durable
        self._check: Final = place.check
        self._shared: Final = place.shared
        self._stem: Final = stem
        self._flat: Final = flat
        self._size: Final = size
        self._staged: Final = f"{place.folder}/{flat}{DATA}"
        self._journal: Final = f"{place.folder}/{flat}{JOURNAL}"
        self._file: int | None = None
        self._log: int | None = None
        self._log_length = 0
        self._unnoted: Final[deque[bytes]] = deque()
        self._syncing: Final = threading.Lock()
        self._resumable: Resumable | None = None
        self._present: dict[str, int] = {}
        # From here on the file has its name in the archive, and is not written to.
        self._has_come_home = False
        # Keys that something else had, and where that is now.
        self._cleared: Final[list[tuple[str, str]]] = []
        # Why a sync failed. The kernel tells once: those after it would say that all is durable.
        self._failed: StoreError | None = None

    @property
    def resumable(self) -> Resumable | None:
        return self._resumable

    @property
    def present(self) -> Mapping[str, int]:
        return self._present

    @property
    def reads_back(self) -> bool:
        return True

    @property
    def mends_in_place(self) -> bool:
        return True

    def measured(self, part: Part, state: str) -> None:
        """Of no use here: a resume reads back."""

    def open(self) -> None:
        """Find what is here already."""
        self._present = self._objects_present()
        with disk.store_errors(self._staged):
            try:
                self._file = self._created()
            except FileExistsError:
                self._file = self._reopen()
                if self._file is not None and (self._shared or not self._lock_it()):
                    self._file = self._renewed(self._file)
        if self._file is None:
            self._forget_staged()
            with disk.store_errors(self._staged):
                self._file = self._created()
            return  # a journal without its file says nothing
        try:
            noted = parse_journal(self._journal)
        except UnreadableObject:
            self._forget_journal()
            noted = None
        if noted is not None and noted.pin.total == self._size:
            self._open_journal(noted.length)
            self._resumable = Resumable(
                noted.pin, noted.provenance, noted.part_size, noted.crcs, noted.begun
            )
        elif os.fstat(self._file).st_size > 0 or noted is not None:
            self.restart()

    def _created(self) -> int:
        """A new file, which others see that we write to. Raises OSError."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.open(self._staged, flags, disk.FILE_MODE)
        self._lock_it()
        return self._file

    def _reopen(self) -> int | None:
        """What an earlier run staged; None for what must not be written to. Raises OSError."""
        for path in (self._staged, self._journal):
            try:
                status = os.lstat(path)
            except FileNotFoundError:
                continue
            if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
                return None
        return os.open(self._staged, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)

    def _lock_it(self) -> bool:
        """Let others see that we write to the file; False when somebody else does. Raises
        OSError."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise
        return True

    def _renewed(self, descriptor: int) -> int | None:
        """A copy of what is staged in its place, with its journal, for us alone; None where it
        cannot be read, and is to be begun anew. Raises NoSpace and DoesNotFit, which lose nothing,
        OSError."""
        os.close(descriptor)
        self._file = None
        try:
            for path in (self._journal, self._staged):
                if os.path.lexists(path):
                    disk.copy_file(path, path, f"{path}{TEMPORARY}")
            disk.sync_directory(self._folder)
        except (DoesNotFit, NoSpace):
            raise
        except (StoreError, NoDocument):
            return None
        self._file = os.open(self._staged, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._lock_it()
        return self._file

    def bytes_present(self) -> int:
        """How much of the file takes no new space."""
        with disk.store_errors(self._staged):
            return os.fstat(self._descriptor).st_blocks * 512

    def close(self) -> None:
        for descriptor in (self._file, self._log):
            if descriptor is not None:
                os.close(descriptor)
        self._file = self._log = None

    def begin(self, pin: Pin, provenance: Provenance, part_size: int) -> None:
        if self._size > part_size:
            self._open_journal(0)
            self._append(journal.head(pin, provenance, part_size))
            disk.sync_directory(self._folder)

    def write(self, offset: int, data: memoryview) -> None:
        with disk.store_errors(self._staged):
            disk.write_all(self._descriptor, data, offset)

    def read(self, offset: int, block: memoryview) -> int:
        with disk.reading_errors(self._staged):
            return disk.read_all(self._descriptor, block, offset)

    def keep(self, part: Part, crc: int, so_far: int | None = None) -> None:
        if self._log is None:
            return
        self._unnoted.append(journal.entry(part.index, crc, so_far))
        # Parts that finish while another's sync is under way share the next one.
        with self._syncing:
            # Taken one by one: what another thread adds meanwhile is in this note or in the next.
            lines = b"".join(self._unnoted.popleft() for _ in range(len(self._unnoted)))
            if lines:
                self._note(lines)

    def restart(self) -> None:
        """Forget; the journal first: without it the bytes mean nothing."""
        self._resumable = None
        self._unnoted.clear()
        if self._has_come_home:
            return
        self._check()
        if self._log is not None:
            os.close(self._log)
            self._log = None
        with disk.store_errors(self._journal):
            disk.unlink_if_there(self._journal)
            os.ftruncate(self._descriptor, 0)

    def commit(self, receipt: Receipt, documents: Documents) -> Commit:
        """Object, then documents; these lie ready before, so that a sweep can finish what a kill
        cut short between the two."""
        stored = Stored(f"{self._stem}.{receipt.kind}", receipt)
        final = f"{self._root}/{stored.key}"
        self._check_size(self._staged, self._descriptor, receipt.size)
        disk.make_directories(os.path.dirname(final))
        with self._ready(stored, documents) as waiting:
            file = disk.UnsyncedFile(self._staged, self._descriptor)
            # With the folder the documents' names: they are all that tells of an object, later. And
            # a file that moves to a folder without a durable name could lose its old one, too.
            staging = disk.UnsyncedFolder(self._folder)
            yield [file, *waiting.values(), staging, *self._parents()]
        self._make_way(final)
        self._check_staged()
        disk.rename(self._staged, final)
        self._has_come_home = True
        yield from self._bring_documents(final, waiting)
        return replace(stored, cleared=tuple(self._cleared))

    def record(self, key: str, receipt: Receipt, documents: Documents) -> Commit:
        """The documents about an object whose own bytes and names may not be durable yet."""
        stored, final = Stored(key, receipt), f"{self._root}/{key}"
        with ExitStack() as opened:
            descriptor = disk.open_file(final)
            if descriptor is None:
                raise ObjectMissing(f"{final}: it is gone")
            opened.callback(os.close, descriptor)
            self._check_size(final, descriptor, receipt.size)
            with self._ready(stored, documents) as waiting:
                file = disk.UnsyncedFile(final, descriptor)
                yield [file, *waiting.values(), *self._parents()]
        self._forget_staged()
        self._present = {key: self._present.get(key, 0)}  # others beside it are not our business
        yield from self._bring_documents(final, waiting)
        return stored

    @contextmanager
    def _ready(
        self, stored: Stored, documents: Documents
    ) -> Generator[dict[str, disk.UnsyncedFile], None, None]:
        """The documents, written beside what is staged, by where they belong."""
        # Where an object is in place already, a sweep could not tell it from the new one: it must
        # not record it, and the next run reads it back.
        suffix = TEMPORARY if self._present else DOCUMENT
        with ExitStack() as ready:
            yield {
                f"{self._root}/{key}": ready.enter_context(
                    disk.written(f"{self._folder}/{key.replace('/', SEPARATOR)}{suffix}", data)
                )
                for key, data in documents(stored)
            }

    def _bring_documents(
        self, final: str, waiting: Mapping[str, disk.UnsyncedFile]
    ) -> Generator[Sequence[Unsynced], None, None]:
        folder = self._stem.rpartition("/")[0]
        self._durable.update(_above(folder))
        named = [disk.UnsyncedFolder(f"{self._root}/{folder}")]
        yield named
        self._forget_others(final)
        for path, document in waiting.items():
            self._make_way(path)
            disk.rename(document.path, path)
        yield named

    def _parents(self) -> list[disk.UnsyncedFolder]:
        return parents_to_sync(self._root, self._stem.rpartition("/")[0], self._durable)

    def _check_staged(self) -> None:
        """Raises ArchiveBusy where the staged name is not our file's any more."""
        with disk.store_errors(self._staged), suppress(FileNotFoundError):
            if os.path.samestat(os.lstat(self._staged), os.fstat(self._descriptor)):
                return
        raise ArchiveBusy(
            f"{self._staged}: another process has put its own file here, or taken ours away",
            hint="another writer has come; run the command again",
        )

    def _check_size(self, path: str, descriptor: int, expected: int) -> None:
        with disk.store_errors(path):
            size = os.fstat(descriptor).st_size
        if size != expected:
            raise StoreError(
                f"{path}: {size:,} bytes are here of the {expected:,} that were checked",
                hint="something else writes to this archive",
            )

    def quarantine(self, why: str) -> str:
        """Give the staged bytes a name there."""
        self._check()
        kept = f"{self._quarantine}/{self._flat}{DATA}"
        disk.make_durable_directories(self._quarantine)
        disk.sync_file(self._descriptor, kept)
        with disk.store_errors(kept):
            os.replace(self._staged, kept)
            disk.unlink_if_there(self._journal)
        self._explain(f"{self._quarantine}/{self._flat}.json", self._stem, self._size, why)
        return self._key_of(kept)

    def keep_aside(self, key: str, why: str) -> str:
        self._check()
        path = f"{self._root}/{key}"
        disk.make_durable_directories(self._quarantine)
        with disk.store_errors(path):
            kept = self._free_name(key, os.lstat(path))
            if not os.path.lexists(kept):
                _link_or_copy(path, kept)
        self._explain(f"{kept}.json", key, self._present.get(key, 0), why)
        return self._key_of(kept)

    def _free_name(self, key: str, status: os.stat_result) -> str:
        """Where it is kept: a name that nothing has, or that it has already. Raises OSError."""
        flat = key.replace("/", SEPARATOR)
        number = 0
        while True:
            tail = f"-{number}" if number else ""
            name = f"{self._quarantine}/{flat}-{status.st_ino}{tail}{REPLACED}"
            try:
                if os.path.samestat(os.lstat(name), status):
                    return name
            except FileNotFoundError:
                return name
            number += 1

    def _explain(self, note: str, key: str, size: int, why: str) -> None:
        text = json.dumps({"key": key, "size": size, "why": why}, indent=2) + "\n"
        disk.put_file(note, text.encode(), f"{self._staged}{TEMPORARY}")

    def _key_of(self, path: str) -> str:
        return path.removeprefix(f"{self._root}/")

    def _make_way(self, path: str) -> None:
        """What is no file, and so cannot be renamed over, or is a name for another, moves away:
        whoever put it there finds it in quarantine."""
        with disk.store_errors(path):
            try:
                is_file = stat.S_ISREG(os.lstat(path).st_mode)
            except FileNotFoundError:
                return
        if not is_file:
            kept = clear(Path(path), Path(self._quarantine))
            if kept is not None:
                self._cleared.append((self._key_of(path), self._key_of(str(kept))))

    @property
    def _descriptor(self) -> int:
        if self._file is None:
            raise RuntimeError("a staging is used after it was closed")
        return self._file

    def _objects_present(self) -> dict[str, int]:
        """Regular files under the final names, and their sizes: one that a run was killed before
        recording, or one that is damaged."""
        found: dict[str, int] = {}
        stem = f"{self._root}/{self._stem}"
        with disk.store_errors(stem):
            if not os.path.isdir(os.path.dirname(stem)):
                return found
            for kind in Kind:
                try:
                    status = os.lstat(f"{stem}.{kind}")
                except FileNotFoundError:
                    continue
                if stat.S_ISREG(status.st_mode):
                    found[f"{self._stem}.{kind}"] = status.st_size
        return found

    def _open_journal(self, length: int) -> None:
        with disk.store_errors(self._journal):
            if self._log is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                self._log = os.open(self._journal, flags, disk.FILE_MODE)
            os.ftruncate(self._log, length)
        self._log_length = length

    def _note(self, lines: bytes) -> None:
        if self._failed is not None:
            raise self._failed
        try:
            with disk.store_errors(self._staged, "fdatasync"):
                os.fdatasync(self._descriptor)
        except StoreError as error:
            self._failed = error
            raise
        self._append(lines)

    def _append(self, lines: bytes) -> None:
        with disk.store_errors(self._journal):
            if self._log is None:
                raise RuntimeError("a part is noted before the journal was begun")
            disk.write_all(self._log, lines, self._log_length)
            os.fdatasync(self._log)
        self._log_length += len(lines)

    def _forget_journal(self) -> None:
        with disk.store_errors(self._journal):
            disk.unlink_if_there(self._journal)

    def _forget_staged(self) -> None:
        """Take away the names of what is staged; the bytes stay where they have another."""
        with disk.store_errors(self._staged):
            disk.unlink_if_there(self._journal)
            disk.unlink_if_there(self._staged)

    def _forget_others(self, final: str) -> None:
        """Remove what is of no use any more, now that the right bytes are here."""
        with disk.store_errors(self._journal):
            for key in self._present:
                if (other := f"{self._root}/{key}") != final:
                    disk.unlink_if_there(other)  # of another kind by its bytes
            if self._log is not None:
                disk.unlink_if_there(self._journal)
            if os.path.isdir(self._quarantine):
                # Bytes that failed earlier.
                for suffix in (DATA, ".json"):
                    disk.unlink_if_there(f"{self._quarantine}/{self._flat}{suffix}")


def parents_to_sync(root: str, folder: str, durable: Container[str]) -> list[disk.UnsyncedFolder]:
    """What makes the name of a folder of the archive durable, and the names above it: those up to
    the archive's root that hold a name not known to be. Another commit may have made one just
    now."""
    above = _above(folder)
    named = zip((folder, *above), above, strict=False)
    holding = [parent for name, parent in named if name not in durable]
    return [disk.UnsyncedFolder(f"{root}/{key}" if key else root) for key in holding]


def _above(folder: str) -> list[str]:
    """The folders above one, by their keys, up to the archive's root."""
    above = []
    while folder:
        folder = folder.rpartition("/")[0]
        above.append(folder)
    return above


def parse_journal(path: str) -> journal.Journal | None:
    """The journal at ``path`` as far as it is whole, or None."""
    try:
        data = disk.read_document(path)
    except NoDocument:
        return None
    return None if data is None else journal.parse(data)


def is_ours(name: str) -> bool:
    """Whether a name in the staging folder is one that we give; others may keep things there, and
    who gives somebody an archive may have put there whatever leads out of it."""
    parts = name.split(SEPARATOR)
    leads_out = any(part.startswith(".") or not is_name(part) for part in parts)
    return _OURS.fullmatch(name) is not None and not leads_out


def is_aside(name: str) -> bool:
    """Whether an earlier version gave it, to an object that it was to replace."""
    return _ASIDES.fullmatch(name) is not None


def _link_or_copy(path: str, target: str) -> None:
    """A second name for a file; where there are no hard links, a durable copy. Raises OSError."""
    try:
        os.link(path, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EXDEV, errno.ENOSYS):
            raise
        disk.copy_file(path, target, f"{target}{TEMPORARY}")
    disk.sync_directory(os.path.dirname(target))
