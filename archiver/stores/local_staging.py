"""One file on its way into a directory archive.

Durable order: data fsynced, then the journal line; at the end data fsynced, renamed, and the
directory (with new parents) fsynced. The record comes after, from the archive.
"""

import json
import os
import stat
import threading
from collections.abc import Container
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from archiver.errors import NoDocument, StoreError
from archiver.model import Kind, Part, Pin, Provenance, Receipt, Stored
from archiver.stores import disk, journal
from archiver.stores.base import Documents, Resumable
from archiver.stores.commit import Commit

DATA = ".data"
JOURNAL = ".journal"
TEMPORARY = ".tmp"
DOCUMENT = ".document"
ASIDE = ".aside"
# Key parts never hold it, and it is plain in every shell.
SEPARATOR = "~"


class LocalStaging:
    """A Staging in ``folder``; or, when an earlier run was killed between bringing an object
    home and recording it, that object where it is. Of the folders in ``durable``, by their keys,
    the names are durable; those that are made so are added."""

    def __init__(
        self, root: str, folder: str, quarantine: str, durable: set[str], stem: str, size: int
    ) -> None:
        # Paths are plain text here: of small files, making Path objects took a tenth of the time.
        flat = stem.replace("/", SEPARATOR)
        self._root: Final = root
        self._folder: Final = folder
        self._quarantine: Final = quarantine
        self._durable: Final = durable
        self._stem: Final = stem
        self._size: Final = size
        self._staged: Final = f"{folder}/{flat}{DATA}"
        self._journal: Final = f"{folder}/{flat}{JOURNAL}"
        self._path = self._staged
        self._file: int | None = None
        self._log: int | None = None
        self._log_length = 0
        self._unnoted: list[bytes] = []
        self._syncing: Final = threading.Lock()
        self._resumable: Resumable | None = None
        self._objects: dict[str, int] = {}

    @property
    def resumable(self) -> Resumable | None:
        return self._resumable

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
        self._objects = self._objects_present()
        whole = [path for path, size in self._objects.items() if size == self._size]
        self._path = whole[0] if whole else self._staged
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        with disk.store_errors(self._path):
            try:
                self._file = os.open(self._path, flags | os.O_CREAT | os.O_EXCL, disk.FILE_MODE)
            except FileExistsError:
                self._file = os.open(self._path, flags)
            else:
                return  # a journal without its file says nothing
        noted = parse_journal(self._journal)
        if whole:
            self._resumable = Resumable(None, None, 0, {})
        elif noted is not None and noted.pin.total == self._size:
            self._open_journal(noted.length)
            self._resumable = Resumable(
                noted.pin, noted.provenance, noted.part_size, noted.crcs, noted.begun
            )
        elif os.fstat(self._file).st_size > 0 or noted is not None:
            self.restart()

    def bytes_present(self) -> int:
        """How much of the file takes no new space."""
        with disk.store_errors(self._path):
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
        with disk.store_errors(self._path):
            disk.write_all(self._descriptor, data, offset)

    def read(self, offset: int, block: memoryview) -> int:
        with disk.store_errors(self._path):
            return disk.read_all(self._descriptor, block, offset)

    def keep(self, part: Part, crc: int, so_far: int | None = None) -> None:
        if self._log is None:
            return
        self._unnoted.append(journal.entry(part.index, crc, so_far))
        # Parts that finish while another's sync is under way share the next one.
        with self._syncing:
            if self._unnoted:
                lines, self._unnoted = b"".join(self._unnoted), []
                self._note(lines)

    def restart(self) -> None:
        """Forget; the journal first: without it the bytes mean nothing."""
        self._resumable = None
        self._unnoted = []
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
        folder = self._stem.rpartition("/")[0]
        self._check_size(receipt.size)
        with ExitStack() as ready:
            waiting = {
                f"{self._root}/{key}": ready.enter_context(disk.written(self._waiting(key), data))
                for key, data in documents(stored)
            }
            yield [disk.UnsyncedFile(self._path, self._descriptor), *waiting.values()]
        if final != self._path:
            disk.make_directories(f"{self._root}/{folder}")
            disk.rename(self._path, final)
            self._path = final
        yield (folders := folders_to_sync(self._root, folder, self._durable))
        self._durable.update(_above(folder))
        self._forget_others()
        for path, document in waiting.items():
            disk.rename(document.path, path)
        yield folders[:1]
        return stored

    def _check_size(self, expected: int) -> None:
        with disk.store_errors(self._path):
            size = os.fstat(self._descriptor).st_size
        if size != expected:
            raise StoreError(
                f"{self._path}: {size:,} bytes are here of the {expected:,} that were checked",
                hint="something else writes to this archive",
            )

    def quarantine(self, why: str) -> str:
        self._put_aside(why)
        return self._quarantined.relative_to(self._root).as_posix()

    @property
    def _descriptor(self) -> int:
        if self._file is None:
            raise RuntimeError("a staging is used after it was closed")
        return self._file

    @property
    def _quarantined(self) -> Path:
        return Path(self._quarantine, self._staged.rpartition("/")[2])

    def _objects_present(self) -> dict[str, int]:
        """Regular files under the final names, and their sizes: one that a run was killed before
        recording, or one that is damaged."""
        found: dict[str, int] = {}
        stem = f"{self._root}/{self._stem}"
        with disk.store_errors(stem):
            if not os.path.isdir(os.path.dirname(stem)):
                return found
            for kind in Kind:
                path = f"{stem}.{kind}"
                try:
                    status = os.lstat(path)
                except FileNotFoundError:
                    continue
                if stat.S_ISREG(status.st_mode):
                    found[path] = status.st_size
        return found

    def _open_journal(self, length: int) -> None:
        with disk.store_errors(self._journal):
            if self._log is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                self._log = os.open(self._journal, flags, disk.FILE_MODE)
            os.ftruncate(self._log, length)
        self._log_length = length

    def _note(self, lines: bytes) -> None:
        with disk.store_errors(self._path):
            os.fdatasync(self._descriptor)
        self._append(lines)

    def _append(self, lines: bytes) -> None:
        with disk.store_errors(self._journal):
            if self._log is None:
                raise RuntimeError("a part is noted before the journal was begun")
            disk.write_all(self._log, lines, self._log_length)
            os.fdatasync(self._log)
        self._log_length += len(lines)

    def _waiting(self, key: str) -> str:
        # Where the object is at home already, and may have been mended there, a sweep cannot tell
        # whether its bytes were durable: it must not record it, the next run reads it back.
        suffix = DOCUMENT if self._path == self._staged else TEMPORARY
        return f"{self._folder}/{key.replace('/', SEPARATOR)}{suffix}"

    def _forget_others(self) -> None:
        """Remove what is of no use any more, now that the right bytes are here."""
        with disk.store_errors(self._journal):
            for other in self._objects.keys() - {self._path}:
                disk.unlink_if_there(other)  # a damaged one, of another kind by its bytes
            if self._log is not None:
                disk.unlink_if_there(self._journal)
            if os.path.isdir(self._quarantine):
                # Bytes that failed earlier.
                self._quarantined.unlink(missing_ok=True)
                self._quarantined.with_suffix(".json").unlink(missing_ok=True)
                for kind in Kind:
                    disk.unlink_if_there(aside(self._quarantine, f"{self._stem}.{kind}"))

    def _put_aside(self, why: str) -> None:
        disk.make_durable_directories(self._quarantined.parent)
        with disk.store_errors(self._quarantined):
            os.fsync(self._descriptor)
            os.replace(self._path, self._quarantined)
            disk.unlink_if_there(self._journal)
        text = json.dumps({"key": self._stem, "size": self._size, "why": why}, indent=2) + "\n"
        note = self._quarantined.with_suffix(".json")
        disk.put_file(note, text.encode(), f"{self._staged}{TEMPORARY}")


def folders_to_sync(root: str, folder: str, durable: Container[str]) -> list[disk.UnsyncedFolder]:
    """What makes the names in a folder of the archive durable: itself, and those above up to the
    archive's root that hold a name not known to be. Another commit may have made one just now."""
    above = _above(folder)
    named = zip((folder, *above), above, strict=False)
    holding = [parent for name, parent in named if name not in durable]
    return [disk.UnsyncedFolder(f"{root}/{key}" if key else root) for key in (folder, *holding)]


def _above(folder: str) -> list[str]:
    """The folders above one, by their keys, up to the archive's root."""
    above = []
    while folder:
        folder = folder.rpartition("/")[0]
        above.append(folder)
    return above


def aside(quarantine: str, key: str) -> str:
    """Where an object lies that is to be replaced."""
    return f"{quarantine}/{key.replace('/', SEPARATOR)}{ASIDE}"


def parse_journal(path: str) -> journal.Journal | None:
    """The journal at ``path`` as far as it is whole, or None."""
    try:
        data = disk.read_document(path)
    except NoDocument:
        return None
    return None if data is None else journal.parse(data)
