"""The staged bytes of one file in a directory archive, and the journal of its durable parts.

Only files that nobody else has are written to. One with a second name may be part of a snapshot
made of hard links (``cp -al``). One that another process has open may be written to by a writer
that was suspended and has lost the lock, when it wakes: by then the file may be in the archive.
"""

import errno
import fcntl
import os
import stat
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from archiver.errors import (
    DoesNotFit,
    LockLost,
    NoDocument,
    NoSpace,
    StoreError,
    UnreadableObject,
)
from archiver.model import Part, Pin, Provenance
from archiver.stores.base import Resumable
from archiver.stores.local import disk, journal, reading
from archiver.stores.local.layout import DATA, JOURNAL, TEMPORARY, flatten

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


@dataclass(frozen=True, slots=True)
class StagingArea:
    """The folders of a directory archive in which files are staged.

    ``durable`` holds the keys of folders whose own names are durable; folders are added to it as
    their names become so. ``check`` raises LockLost when this process is no longer the only
    writer. ``shared``: what an earlier writer left may be open in it, and no lock can tell.
    """

    root: str
    folder: str
    quarantine: str
    durable: set[str]
    check: Callable[[], None]
    shared: bool = False


class StagedFile:
    """The staged bytes of the file ``stem`` of ``size`` bytes. All methods block and raise
    StoreError."""

    def __init__(self, area: StagingArea, stem: str, size: int) -> None:
        # Paths are plain strings: for small files, Path objects took a tenth of the time.
        self.path: Final = f"{area.folder}/{flatten(stem)}{DATA}"
        self.journal_path: Final = f"{area.folder}/{flatten(stem)}{JOURNAL}"
        self._folder: Final = area.folder
        self._check: Final = area.check
        self._shared: Final = area.shared
        self._size: Final = size
        self._file: int | None = None
        self._journal: int | None = None
        self._journal_length = 0
        self._is_in_archive = False
        # Journal lines of parts whose bytes are not durable yet.
        self._pending: Final[deque[bytes]] = deque()
        self._syncing: Final = threading.Lock()
        # Why a sync failed. The kernel reports that once, and success afterwards.
        self._failed: StoreError | None = None

    @property
    def descriptor(self) -> int:
        if self._file is None:
            raise RuntimeError("a staged file is used after it was closed")
        return self._file

    @property
    def has_journal(self) -> bool:
        return self._journal is not None

    def open(self) -> Resumable | None:
        """Create the file, or open what an earlier run staged; the parts that can be resumed."""
        with disk.store_errors(self.path):
            try:
                self._file = self._create()
            except FileExistsError:
                self._file = self._reopen()
                if self._file is not None and (self._shared or not self._lock()):
                    self._file = self._copy_to_own(self._file)
            else:
                return None  # a journal means nothing without its file
        if self._file is None:
            self._check()
            self.unlink()
            with disk.store_errors(self.path):
                self._file = self._create()
            return None
        try:
            noted = journal.read(self.journal_path)
        except UnreadableObject:
            self._unlink_journal()
            noted = None
        if noted is not None and noted.pin.total == self._size:
            self._open_journal(noted.length)
            return Resumable(
                noted.pin, noted.provenance, noted.part_size, noted.crcs, noted.partial
            )
        if os.fstat(self._file).st_size > 0 or noted is not None:
            self.restart()
        return None

    def _create(self) -> int:
        """A new file, locked so that others see that we write to it. Raises OSError."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.open(self.path, flags, disk.FILE_MODE)
        self._lock()
        return self._file

    def _reopen(self) -> int | None:
        """The file of an earlier run; None when it must not be written to. Raises OSError."""
        for path in (self.path, self.journal_path):
            try:
                status = os.lstat(path)
            except FileNotFoundError:
                continue
            if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
                return None
        return os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)

    def _lock(self) -> bool:
        """Show others that we write to the file; False when somebody else does. Raises OSError."""
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        return True

    def _copy_to_own(self, descriptor: int) -> int | None:
        """Replace the file and its journal by copies that nobody else has open; None when they
        cannot be read. Raises NoSpace and DoesNotFit, after which both are unchanged, OSError."""
        os.close(descriptor)
        self._file = None
        try:
            for path in (self.journal_path, self.path):
                if os.path.lexists(path):
                    reading.copy_file(path, path, f"{path}{TEMPORARY}", self._check)
            disk.sync_directory(self._folder)
        except (DoesNotFit, NoSpace):
            raise
        except (StoreError, NoDocument):
            return None
        self._file = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._lock()
        return self._file

    def close(self) -> None:
        for descriptor in (self._file, self._journal):
            if descriptor is not None:
                os.close(descriptor)
        self._file = self._journal = None

    def allocated_bytes(self) -> int:
        """How much of the file already takes space on the disk."""
        with disk.store_errors(self.path):
            return os.fstat(self.descriptor).st_blocks * 512

    def write(self, offset: int, data: memoryview) -> None:
        with disk.store_errors(self.path):
            disk.write_all(self.descriptor, data, offset)

    def read(self, offset: int, block: memoryview) -> int:
        """Fill ``block`` from ``offset`` on; the number of bytes, less only at the end."""
        with reading.reading_errors(self.path):
            return reading.read_all(self.descriptor, block, offset)

    def begin_journal(self, pin: Pin, provenance: Provenance, part_size: int) -> None:
        self._open_journal(0)
        self._append(journal.head(pin, provenance, part_size))
        disk.sync_directory(self._folder)

    def save_part(self, part: Part, crc: int, so_far: int | None = None) -> None:
        """Make a part durable, or its first ``so_far`` bytes, then note it in the journal. Does
        nothing without a journal."""
        if self._journal is None:
            return
        self._pending.append(journal.entry(part.index, crc, so_far))
        # Parts that finish while another sync is running share the next one.
        with self._syncing:
            # One by one: a line that another thread adds meanwhile is in this sync or the next.
            lines = b"".join(self._pending.popleft() for _ in range(len(self._pending)))
            if lines:
                self._sync_and_note(lines)

    def restart(self) -> None:
        """Discard bytes and journal; the journal first, since the bytes mean nothing without it."""
        self._pending.clear()
        if self._is_in_archive:
            return
        self._check()
        if self._journal is not None:
            os.close(self._journal)
            self._journal = None
        with disk.store_errors(self.journal_path):
            disk.unlink_if_there(self.journal_path)
            os.ftruncate(self.descriptor, 0)

    def move_to(self, final: str) -> None:
        """Give the file its final name; it is not written to any more. Raises LockLost when its
        staged name is of another file."""
        self._check_name()
        disk.rename(self.path, final)
        self._is_in_archive = True

    def unlink(self) -> None:
        """Remove the names of journal and file. The bytes stay if they have another name."""
        with disk.store_errors(self.path):
            disk.unlink_if_there(self.journal_path)
            disk.unlink_if_there(self.path)

    def _check_name(self) -> None:
        with disk.store_errors(self.path), suppress(FileNotFoundError):
            if os.path.samestat(os.lstat(self.path), os.fstat(self.descriptor)):
                return
        raise LockLost(
            f"{self.path}: another process has replaced or removed this file",
            hint="another writer is at work; run the command again",
        )

    def _open_journal(self, length: int) -> None:
        with disk.store_errors(self.journal_path):
            if self._journal is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                self._journal = os.open(self.journal_path, flags, disk.FILE_MODE)
            os.ftruncate(self._journal, length)
        self._journal_length = length

    def _sync_and_note(self, lines: bytes) -> None:
        if self._failed is not None:
            raise self._failed
        try:
            with disk.store_errors(self.path, "fdatasync"):
                os.fdatasync(self.descriptor)
        except StoreError as error:
            self._failed = error
            raise
        self._append(lines)

    def _append(self, lines: bytes) -> None:
        with disk.store_errors(self.journal_path):
            if self._journal is None:
                raise RuntimeError("a part is noted before the journal was begun")
            disk.write_all(self._journal, lines, self._journal_length)
            os.fdatasync(self._journal)
        self._journal_length += len(lines)

    def _unlink_journal(self) -> None:
        with disk.store_errors(self.journal_path):
            disk.unlink_if_there(self.journal_path)
