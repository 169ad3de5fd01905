"""The private directories of a drill, and the removal of those that killed drills left behind.

A directory has a mark that says who made it. Only a directory with a valid mark is ever removed by
another drill, and only if nobody can be using it. Its maker locks it (flock) before it writes the
mark, and holds the lock until it ends. On a file system that only this machine can mount, the lock
settles the question, whatever container the maker runs in. On a shared one (NFS and others) a lock
may be visible to one machine, or not even to all containers of it; there, the directory is removed
only if the maker is a process that we can see to have ended.
"""

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from archiver.errors import StoreError
from archiver.processes import ProcessIdentity, boot_id
from archiver.stores.local.mounts import file_system_kind

# The server's working directory, within the drill's directory.
RUN: Final = "run"
SOCKET: Final = "socket"
LOG: Final = "server.log"
MARK: Final = ".archiver-drill"
PREFIX: Final = "archiver-drill-"
_FORMAT: Final = "archiver drill directory 2"
_NAME: Final = re.compile(rf"{PREFIX}[0-9a-f]{{16}}")
_MOST_MARK_BYTES: Final = 4096  # ours has some 400
# File systems that no other machine can have mounted at the same time.
_OF_ONE_MACHINE: Final = frozenset(
    {"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "overlay", "tmpfs", "xfs", "zfs"}
)
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOG_TAIL_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Workdir:
    """A directory of mode 0700, locked as long as this process lives. All methods block.

    ``descriptor`` is that of the directory, ``run`` that of the server's directory once it exists.
    """

    directory: Path
    descriptor: int
    run: int = -1

    def with_run(self) -> "Workdir":
        """Return the same with the server's directory open. Raises OSError."""
        return replace(self, run=os.open(self.directory / RUN, _DIRECTORY))

    @property
    def socket(self) -> str:
        """The path of the server's socket through the open directory.

        It is short however deep the directory is: the address of a Unix socket has 108 bytes.
        """
        return f"/proc/self/fd/{self.run}/{SOCKET}"

    def log_tail(self) -> str:
        """Return the last 64 KiB of the server's log."""
        try:
            with (self.directory / LOG).open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(0, size - _LOG_TAIL_BYTES))
                return log.read(_LOG_TAIL_BYTES).decode(errors="replace")
        except OSError:
            return ""

    def remove(self) -> bool:
        """Remove the directory and everything in it; return whether it is gone."""
        with contextlib.suppress(OSError):
            _remove(self.descriptor, self.directory)
        for opened in (self.descriptor, self.run):
            with contextlib.suppress(OSError):
                os.close(opened)
        return not self.directory.exists()


def open_workdir(parent: Path | None = None) -> Workdir:
    """Make a directory in ``parent`` (default: the system's temporary one). Raises OSError."""
    directory = _parent(parent) / new_name()
    directory.mkdir(0o700)
    descriptor = -1
    try:
        descriptor = os.open(directory, _DIRECTORY)
        # Lock first: whoever sees the mark must find the lock held.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        write_mark(descriptor, directory.name)
    except BaseException:
        if descriptor != -1:
            Workdir(directory, descriptor).remove()
        raise
    return Workdir(directory, descriptor)


def open_scratch(parent: Path | None) -> Workdir:
    """Make a directory to restore files into. Raises StoreError."""
    try:
        return open_workdir(parent)
    except OSError as error:
        raise StoreError(
            f"{parent or tempfile.gettempdir()}: {error.strerror}",
            hint="choose another directory with --scratch",
        ) from error


@dataclass(frozen=True, slots=True)
class Swept:
    """Directories that were ``removed``, and those that were ``left``, each with the reason."""

    removed: tuple[Path, ...]
    left: tuple[tuple[Path, str], ...]


def sweep(parent: Path | None = None) -> Swept:
    """Remove the directories that killed drills left in ``parent`` (default as above). Blocks.

    Directories of running drills and of other users are not reported.
    """
    parent = _parent(parent)
    removed, left = list[Path](), list[tuple[Path, str]]()
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(parent)):  # noqa: PTH208 - names alone
            if is_name(name):
                directory = parent / name
                try:
                    if _remove_abandoned(directory):
                        removed.append(directory)
                except FileNotFoundError:
                    pass  # another process removed it
                except _NotOurs as reason:
                    left.append((directory, str(reason)))
                except OSError as error:
                    left.append((directory, f"it cannot be removed: {error.strerror}"))
    return Swept(tuple(removed), tuple(left))


class _NotOurs(Exception):
    """A directory that must not be removed; the message says why."""


def new_name() -> str:
    """Return a random name for a drill's directory."""
    return f"{PREFIX}{secrets.token_hex(8)}"


def is_name(name: str) -> bool:
    """Whether :func:`new_name` may have returned it."""
    return _NAME.fullmatch(name) is not None


def _remove_abandoned(directory: Path) -> bool:
    """Remove a directory that a killed drill left; False if it is in use or another user's.

    Raises _NotOurs if it must not be removed, OSError.
    """
    status = directory.lstat()
    if status.st_uid != os.geteuid():
        return False
    if not stat.S_ISDIR(status.st_mode):
        raise _NotOurs("it is not a directory")
    descriptor = os.open(directory, _DIRECTORY)
    try:
        maker = _read_mark(descriptor, directory.name)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if why := _why_in_use(maker, file_system_kind(directory)):
            raise _NotOurs(why)
        _remove(descriptor, directory)
    finally:
        os.close(descriptor)
    return True


def _why_in_use(maker: ProcessIdentity, kind: str | None) -> str | None:
    """Why the maker may still use a directory on a file system of this ``kind``, though its lock is
    free; None if it has ended."""
    if maker.is_visible():
        running = f"process {maker.pid}, which made it, is still running"
        return None if maker.has_ended() else running
    if kind in _OF_ONE_MACHINE:
        return None
    same_boot = maker.boot == boot_id() != ""
    where = "in another container" if same_boot else "on another machine, or before a reboot"
    return f"it was made {where}, and may be in use there (file system: {kind or 'unknown'})"


def _remove(descriptor: int, directory: Path) -> None:
    """Remove the directory; its mark goes last, so that a killed removal can be repeated.

    Raises OSError.
    """
    failed: OSError | None = None
    for name in os.listdir(descriptor):
        try:
            if name != MARK:
                _remove_entry(descriptor, name)
        except OSError as error:  # remove the others first
            failed = error
    if failed is not None:
        raise failed
    with contextlib.suppress(FileNotFoundError):
        os.unlink(MARK, dir_fd=descriptor)
    directory.rmdir()


def _remove_entry(descriptor: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # an ending server removes its socket
        if stat.S_ISDIR(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
            shutil.rmtree(name, dir_fd=descriptor)
        else:
            os.unlink(name, dir_fd=descriptor)


def write_mark(descriptor: int, name: str) -> None:
    """Mark the open directory ``name`` as made by this process, atomically. Raises OSError."""
    document = {
        "format": _FORMAT,
        "name": name,
        "inode": os.fstat(descriptor).st_ino,
        **asdict(ProcessIdentity.current()),
    }
    temporary = f"{MARK}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(temporary, flags, 0o600, dir_fd=descriptor)
    try:
        os.write(file, json.dumps(document, indent=2).encode() + b"\n")
    finally:
        os.close(file)
    os.rename(temporary, MARK, src_dir_fd=descriptor, dst_dir_fd=descriptor)


def _read_mark(descriptor: int, name: str) -> ProcessIdentity:
    """Return the maker of the open directory ``name``. Raises _NotOurs, OSError."""
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        file = os.open(MARK, flags, dir_fd=descriptor)
    except FileNotFoundError:
        raise _NotOurs("it has no mark of a drill") from None
    except OSError as error:
        raise _NotOurs(f"its mark cannot be read: {error.strerror}") from None
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise _NotOurs("its mark is not a file of this user")
        data = os.read(file, _MOST_MARK_BYTES + 1)
    finally:
        os.close(file)
    return _parse_mark(data, name, os.fstat(descriptor).st_ino)


def _parse_mark(data: bytes, name: str, inode: int) -> ProcessIdentity:
    """Return the maker that a mark names (pure). Raises _NotOurs."""
    try:
        document = json.loads(data) if len(data) <= _MOST_MARK_BYTES else None
    except (ValueError, RecursionError):
        document = None
    kinds = {"format": str, "name": str, "inode": int, "machine": str, "boot": str,
             "pid_namespace": str, "time_namespace": str, "pid": int, "started": str}  # fmt: skip
    if not isinstance(document, dict) or document.keys() != kinds.keys():
        raise _NotOurs("its mark is invalid")
    if any(type(document[key]) is not kind for key, kind in kinds.items()):
        raise _NotOurs("its mark is invalid")
    if document["format"] != _FORMAT:
        raise _NotOurs("its mark was written by another version")
    if (document["name"], document["inode"]) != (name, inode):
        raise _NotOurs("its mark is that of another directory: it was copied or renamed")
    return ProcessIdentity.from_fields(document)


def _parent(parent: Path | None) -> Path:
    return (parent or Path(tempfile.gettempdir())).absolute()
