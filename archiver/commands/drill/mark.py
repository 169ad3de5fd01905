"""The mark in a drill's directory: who made it, and whether that process has surely ended.

Only a directory with a valid mark is ever removed, and only when nobody can be at work in it. Its
maker holds a lock (flock) on it before it writes the mark, for as long as it lives. On a file
system of this machine alone, the lock is the kernel's word, whatever container the maker is in. On
a shared one (NFS and others) a lock on a directory is known to one machine, or not even to all
containers of it: there, only a process of this boot and of our own namespaces can be looked for. A
process is known by its number and the time it began: numbers are given again.
"""

import json
import os
import re
import secrets
import stat
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

MARK: Final = ".archiver-drill"
PREFIX: Final = "archiver-drill-"
FORMAT: Final = "archiver drill directory 1"
_NAME: Final = re.compile(rf"{PREFIX}[0-9a-f]{{16}}")
_LARGEST: Final = 4096  # bytes; ours has some 300
# File systems that no other machine can have mounted at the same time.
_OF_ONE_MACHINE: Final = frozenset(
    {"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "overlay", "tmpfs", "xfs", "zfs"}
)
_ENDED: Final = frozenset(
    "ZX"
)  # states of proc_pid_stat(5): it has ended, and only its number is left


class NotOurs(Exception):
    """There is no valid mark; the message says what is wrong."""


@dataclass(frozen=True, slots=True)
class Maker:
    """A process. Empty where /proc does not say; ``began`` in ticks since the boot."""

    boot_id: str
    namespaces: str
    process_id: int
    began: int

    @classmethod
    def current(cls) -> "Maker":
        """This process. Blocks."""
        number = os.getpid()
        _, began = _state(number) or ("", 0)
        return cls(_boot_id(), _namespaces(), number, began)

    def why_not_ended(self, kind: str | None) -> str | None:
        """Why it may be at work, though its lock is free, in a directory on a file system of this
        ``kind``; None when it has surely ended. Blocks."""
        own = Maker.current()
        same_boot = self.boot_id == own.boot_id != ""
        if same_boot and self.namespaces == own.namespaces != "" and own.began:
            now = _state(self.process_id)
            if now is not None and now[0] not in _ENDED and now[1] == self.began:
                return f"process {self.process_id}, which made it, is still running"
            return None
        if kind in _OF_ONE_MACHINE:
            return None
        where = "in another container" if same_boot else "on another machine, or before a reboot"
        return f"it was made {where}, and may be in use there (file system: {kind or 'unknown'})"


def new_name() -> str:
    """A name for a drill's directory."""
    return f"{PREFIX}{secrets.token_hex(8)}"


def is_name(name: str) -> bool:
    """Whether :func:`new_name` may have given it."""
    return _NAME.fullmatch(name) is not None


def write_mark(descriptor: int, name: str) -> None:
    """Mark the directory ``name``, which is open: whole or not at all. Raises OSError."""
    document = {
        "format": FORMAT,
        "name": name,
        "inode": os.fstat(descriptor).st_ino,
        **asdict(Maker.current()),
    }
    temporary = f"{MARK}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(temporary, flags, 0o600, dir_fd=descriptor)
    try:
        os.write(file, json.dumps(document, indent=2).encode() + b"\n")
    finally:
        os.close(file)
    os.rename(temporary, MARK, src_dir_fd=descriptor, dst_dir_fd=descriptor)


def read_mark(descriptor: int, name: str) -> Maker:
    """Who made the directory ``name``, which is open. Raises NotOurs, OSError."""
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        file = os.open(MARK, flags, dir_fd=descriptor)
    except FileNotFoundError:
        raise NotOurs("it has no mark of a drill") from None
    except OSError as error:
        raise NotOurs(f"its mark cannot be read: {error.strerror}") from None
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise NotOurs("its mark is no file of ours")
        data = os.read(file, _LARGEST + 1)
    finally:
        os.close(file)
    return _decoded(data, name, os.fstat(descriptor).st_ino)


def _decoded(data: bytes, name: str, inode: int) -> Maker:
    """The maker, as a mark says (pure). Raises NotOurs."""
    try:
        document = json.loads(data) if len(data) <= _LARGEST else None
    except (ValueError, RecursionError):
        document = None
    kinds = {"format": str, "name": str, "inode": int, "boot_id": str, "namespaces": str,
             "process_id": int, "began": int}  # fmt: skip
    if not isinstance(document, dict) or document.keys() != kinds.keys():
        raise NotOurs("its mark is none of a drill")
    if any(type(document[key]) is not kind for key, kind in kinds.items()):
        raise NotOurs("its mark is none of a drill")
    if document["format"] != FORMAT:
        raise NotOurs("its mark is of another version")
    if (document["name"], document["inode"]) != (name, inode):
        raise NotOurs("its mark is that of another directory: it was copied or renamed")
    return Maker(
        document["boot_id"], document["namespaces"], document["process_id"], document["began"]
    )


def _state(process_id: int) -> tuple[str, int] | None:
    """The state of a process, and when it began in ticks since the boot (proc_pid_stat(5), fields
    3 and 22); None when there is none."""
    with suppress(OSError, ValueError, IndexError):
        # The second field is a name in parentheses, with anything in it.
        stat = Path(f"/proc/{process_id}/stat").read_text(errors="replace")
        fields = stat.rpartition(")")[2].split()
        return fields[0], int(fields[19])
    return None


def _boot_id() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _namespaces() -> str:
    """Those that decide which process a number is, and when it seems to have begun."""
    names = list[str]()
    for kind in ("pid", "time"):  # kernels before 5.6 have none for time
        with suppress(OSError):
            names.append(str(Path(f"/proc/self/ns/{kind}").readlink()))
    return " ".join(names)
