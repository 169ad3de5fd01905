"""A file that is being written to a directory archive.

Durable order: bytes fsynced, then the line in the journal. At the end the bytes, the documents that
wait beside them, and the names of both and of new folders are fsynced; the file is renamed; its
folder is fsynced; the documents are renamed; the folder is fsynced again.
"""

import os
import stat
from collections.abc import Container, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from archiver.errors import ObjectMissing, StoreError
from archiver.model import Kind, Part, Pin, Provenance, Receipt, Stored
from archiver.stores.base import Documents, Resumable
from archiver.stores.commit import Commit, Unsynced
from archiver.stores.local import disk, reading
from archiver.stores.local.layout import DATA, DOCUMENT, TEMPORARY, flatten
from archiver.stores.local.quarantine import clear, copy_to_quarantine, write_note
from archiver.stores.local.staged_file import StagedFile, StagingArea


class LocalStaging:
    """Implements Staging for the file ``stem`` of ``size`` bytes."""

    def __init__(self, area: StagingArea, stem: str, size: int) -> None:
        # Paths are plain strings: for small files, Path objects took a tenth of the time.
        self._root: Final = area.root
        self._folder: Final = area.folder
        self._quarantine: Final = area.quarantine
        self._durable: Final = area.durable
        self._check: Final = area.check
        self._stem: Final = stem
        self._size: Final = size
        self._file: Final = StagedFile(area, stem, size)
        self._resumable: Resumable | None = None
        self._existing: dict[str, int] = {}
        # Keys where something else was, and where that is now.
        self._cleared: Final[list[tuple[str, str]]] = []

    @property
    def resumable(self) -> Resumable | None:
        return self._resumable

    @property
    def existing(self) -> Mapping[str, int]:
        return self._existing

    @property
    def can_read_back(self) -> bool:
        return True

    @property
    def can_rewrite_parts(self) -> bool:
        return True

    def open(self) -> None:
        """Find existing objects, and what an earlier run staged."""
        self._existing = self._existing_objects()
        self._resumable = self._file.open()

    def close(self) -> None:
        self._file.close()

    def allocated_bytes(self) -> int:
        """How much of the file already takes space on the disk."""
        return self._file.allocated_bytes()

    def begin(self, pin: Pin, provenance: Provenance, part_size: int) -> None:
        if self._size > part_size:
            self._file.begin_journal(pin, provenance, part_size)

    def write(self, offset: int, data: memoryview) -> None:
        self._file.write(offset, data)

    def read(self, offset: int, block: memoryview) -> int:
        return self._file.read(offset, block)

    def save_part(self, part: Part, crc: int, so_far: int | None = None) -> None:
        self._check()  # or a transfer would go on to its end
        self._file.save_part(part, crc, so_far)

    def save_hash_state(self, part: Part, state: str) -> None:
        """Not needed here: a later run reads the parts back."""

    def restart(self) -> None:
        self._resumable = None
        self._file.restart()

    def commit(self, receipt: Receipt, documents: Documents) -> Commit:
        """The object, then the documents. These are written beside it before, so that a sweep can
        finish what a crash interrupts between the two."""
        self._check()
        stored = Stored(f"{self._stem}.{receipt.kind}", receipt)
        final = f"{self._root}/{stored.key}"
        _check_size(self._file.path, self._file.descriptor, receipt.size)
        disk.make_directories(os.path.dirname(final))
        stored = replace(stored, documents=documents(stored))
        with self._written(stored) as waiting:
            file = disk.UnsyncedFile(self._file.path, self._file.descriptor)
            # The staging folder, since the documents' names are all that tells of the object after
            # a crash. And a file that moves to a folder without a durable name could lose both.
            staging = disk.UnsyncedFolder(self._folder)
            yield [file, *waiting.values(), staging, *self._parents()]
        self._check()  # it took its time to make all that durable
        self._clear(final)
        self._check()
        self._file.move_to(final)
        versions = yield from self._place_documents(final, waiting)
        return replace(stored, cleared=tuple(self._cleared), versions=versions)

    def record(self, key: str, receipt: Receipt, documents: Documents) -> Commit:
        """The documents about an object whose own bytes and names may not be durable yet."""
        self._check()
        stored, final = Stored(key, receipt), f"{self._root}/{key}"
        with ExitStack() as opened:
            descriptor = reading.open_file(final)
            if descriptor is None:
                raise ObjectMissing(f"{final}: the object does not exist any more")
            opened.callback(os.close, descriptor)
            _check_size(final, descriptor, receipt.size)
            stored = replace(stored, documents=documents(stored))
            with self._written(stored) as waiting:
                file = disk.UnsyncedFile(final, descriptor)
                yield [file, *waiting.values(), *self._parents()]
        self._check()
        self._file.unlink()
        self._existing = {key: self._existing.get(key, 0)}  # the others stay
        return replace(stored, versions=(yield from self._place_documents(final, waiting)))

    @contextmanager
    def _written(self, stored: Stored) -> Generator[dict[str, disk.UnsyncedFile], None, None]:
        """The documents, written beside the staged file, by their final paths."""
        # With an existing object, a sweep could not tell that from the new one, and must not record
        # it. The next run reads it back.
        suffix = TEMPORARY if self._existing else DOCUMENT
        with ExitStack() as written:
            yield {
                f"{self._root}/{key}": written.enter_context(
                    disk.written(f"{self._folder}/{flatten(key)}{suffix}", data)
                )
                for key, data in stored.documents
            }

    def _place_documents(
        self, final: str, waiting: Mapping[str, disk.UnsyncedFile]
    ) -> Generator[Sequence[Unsynced], None, dict[str, str]]:
        """The steps from the object's rename to the documents' names being durable. Returns the
        versions of the documents, by key."""
        folder = self._stem.rpartition("/")[0]
        self._durable.update(_above(folder))
        named = [disk.UnsyncedFolder(f"{self._root}/{folder}")]
        yield named
        self._check()
        self._remove_obsolete(final)
        for path, document in waiting.items():
            self._clear(path)
            self._check()
            disk.rename(document.path, path)
        yield named
        return {self._key_of(path): document.version for path, document in waiting.items()}

    def _parents(self) -> list[disk.UnsyncedFolder]:
        return parents_to_sync(self._root, self._stem.rpartition("/")[0], self._durable)

    def quarantine(self, why: str) -> str:
        kept = f"{self._quarantine}/{flatten(self._stem)}{DATA}"
        disk.make_durable_directories(self._quarantine)
        disk.sync_file(self._file.descriptor, kept)
        self._check()
        with disk.store_errors(kept):
            os.replace(self._file.path, kept)
            disk.unlink_if_there(self._file.journal_path)
        note = f"{self._quarantine}/{flatten(self._stem)}.json"
        self._write_note(note, self._stem, self._size, why)
        return self._key_of(kept)

    def copy_to_quarantine(self, key: str, why: str) -> str:
        self._check()
        kept = copy_to_quarantine(self._root, key, self._quarantine)
        self._write_note(f"{kept}.json", key, self._existing.get(key, 0), why)
        return self._key_of(kept)

    def _write_note(self, note: str, key: str, size: int, why: str) -> None:
        write_note(note, key, size, why, f"{self._file.path}{TEMPORARY}", self._check)

    def _key_of(self, path: str) -> str:
        return path.removeprefix(f"{self._root}/")

    def _clear(self, path: str) -> None:
        """Move to quarantine what is at a final path and is not a file: a rename would fail for a
        folder, and lose a link."""
        with disk.store_errors(path):
            try:
                is_file = stat.S_ISREG(os.lstat(path).st_mode)
            except FileNotFoundError:
                return
        if not is_file:
            self._check()
            kept = clear(Path(path), Path(self._root), Path(self._quarantine))
            if kept is not None:
                self._cleared.append((self._key_of(path), self._key_of(str(kept))))

    def _existing_objects(self) -> dict[str, int]:
        """Regular files with one of the final names, and their sizes in bytes: a run was killed
        before it recorded them, or they are damaged."""
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

    def _remove_obsolete(self, final: str) -> None:
        """Remove what is not needed any more, now that the right bytes have their name: objects of
        other kinds, the journal, and rejected bytes in quarantine."""
        with disk.store_errors(self._file.journal_path):
            for key in self._existing:
                if (other := f"{self._root}/{key}") != final:
                    disk.unlink_if_there(other)
            if self._file.has_journal:
                disk.unlink_if_there(self._file.journal_path)
            if os.path.isdir(self._quarantine):
                for suffix in (DATA, ".json"):
                    disk.unlink_if_there(f"{self._quarantine}/{flatten(self._stem)}{suffix}")


def _check_size(path: str, descriptor: int, expected: int) -> None:
    with disk.store_errors(path):
        size = os.fstat(descriptor).st_size
    if size != expected:
        raise StoreError(
            f"{path}: has {size:,} bytes instead of the {expected:,} that were checked",
            hint="something else writes to this archive",
        )


def parents_to_sync(root: str, folder: str, durable: Container[str]) -> list[disk.UnsyncedFolder]:
    """The folders to sync so that the name of ``folder`` and those above it are durable: all up to
    the archive's root that hold a name not known to be. Another commit may have created one just
    now."""
    above = _above(folder)
    named = zip((folder, *above), above, strict=False)
    holding = [parent for name, parent in named if name not in durable]
    return [disk.UnsyncedFolder(f"{root}/{key}" if key else root) for key in holding]


def _above(folder: str) -> list[str]:
    """The keys of the folders above one, up to the archive's root."""
    above = []
    while folder:
        folder = folder.rpartition("/")[0]
        above.append(folder)
    return above
