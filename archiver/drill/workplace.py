"""The private directory that one server lives in, and how a file is put before it.

The given file is never opened for writing. An RDB is only read, so a link to it is enough: a server
that wanted to save would replace the link. An AOF would be appended to (a key that expires writes a
DEL), so servers from 7.0 on get it as the base of a set, which is only read, and older ones get a
copy.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from archiver.drill.servers import Ability, Flavour, ServerProgram
from archiver.drill.subject import Subject
from archiver.errors import StoreError
from archiver.model import Kind
from archiver.rdb.releases import DATABASES

PREFIX = "archiver-drill-"
SOCKET = "socket"
LOG = "server.log"
_STALE = 60.0  # seconds; younger directories may not have been locked yet
_TAIL = 64 * 1024  # bytes of log that are read
_COPY = 16 * 1024 * 1024  # bytes at a time


@dataclass(frozen=True, slots=True)
class Workplace:
    """A directory of mode 0700, locked for as long as this process lives. All calls block."""

    directory: Path
    descriptor: int  # of the directory

    @property
    def socket(self) -> str:
        """The socket's path through the open directory.

        It is short however deep the directory lies: the address of a Unix socket has 108 bytes.
        """
        return f"/proc/self/fd/{self.descriptor}/{SOCKET}"

    def log_tail(self) -> str:
        """The last 64 KiB of the log."""
        try:
            with (self.directory / LOG).open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(0, size - _TAIL))
                return log.read(_TAIL).decode(errors="replace")
        except OSError:
            return ""

    def remove(self) -> bool:
        """Remove the directory with all in it; whether it is gone."""
        shutil.rmtree(self.directory, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.close(self.descriptor)
        return not self.directory.exists()


def open_workplace(parent: Path | None = None) -> Workplace:
    """Make a directory in ``parent`` (else the system's place for temporary files).

    What killed drills left in ``parent`` is removed first.

    Raises:
        OSError: It cannot be made.
    """
    place = (parent or Path(tempfile.gettempdir())).absolute()
    _sweep(place)
    directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))  # its mode is 0700
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return Workplace(directory, descriptor)


def open_scratch(parent: Path | None) -> Workplace:
    """The same, to restore into. Raises StoreError."""
    try:
        return open_workplace(parent)
    except OSError as error:
        raise StoreError(
            f"{parent or tempfile.gettempdir()}: {error.strerror}",
            hint="--scratch names a directory to restore into",
        ) from error


def lay_out(
    workplace: Workplace, program: ServerProgram, subject: Subject, ability: Ability
) -> list[str]:
    """Put ``subject`` before ``program``, and return the command that starts it. May copy.

    Raises:
        OSError: It cannot be put there.
    """
    options = {
        "port": "0",
        "unixsocket": SOCKET,
        "unixsocketperm": "700",
        "dir": "./",
        "daemonize": "no",
        "logfile": "",
        "loglevel": "notice",
        "databases": str(DATABASES),
        "save": "",
        "appendonly": "no",
        # Buckets that stay where they are let SCAN name every key once.
        "activerehashing": "no",
    }
    if ability is Ability.RELAXED:
        options["rdb-version-check"] = "relaxed"
    if subject.kind is Kind.AOF:
        options |= _lay_out_aof(workplace.directory, program, subject)
    else:
        (workplace.directory / "dump.rdb").symlink_to(subject.path)
        options["dbfilename"] = "dump.rdb"
    pairs = ((f"--{name}", value) for name, value in options.items())
    return [str(program.path), *(word for pair in pairs for word in pair)]


def _lay_out_aof(directory: Path, program: ServerProgram, subject: Subject) -> dict[str, str]:
    options = {
        "appendonly": "yes",
        "appendfilename": "given.aof",
        "appendfsync": "no",
        "aof-load-truncated": "no",  # else a cut file is loaded, and cut to fit
        "auto-aof-rewrite-percentage": "0",
    }
    if program.flavour is Flavour.REDIS and program.version < (7, 0, 0):
        _copy(subject.path, directory / "given.aof")
        return options
    parts = directory / "appendonlydir"
    parts.mkdir(0o700)
    (parts / "given.base.aof").symlink_to(subject.path)
    (parts / "given.aof.manifest").write_text("file given.base.aof seq 1 type b\n")
    return options | {"appenddirname": parts.name}


def _copy(source: Path, target: Path) -> None:
    """Copy, sharing the blocks where the file system can (copy_file_range does)."""
    with source.open("rb") as old, target.open("xb") as new:
        try:
            while os.copy_file_range(old.fileno(), new.fileno(), _COPY):
                pass
        except OSError:  # not between these file systems
            old.seek(0)
            new.seek(0)
            shutil.copyfileobj(old, new, _COPY)


def _sweep(place: Path) -> None:
    """Remove the directories of drills that no longer live: their lock went with them."""
    for directory in place.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            status = directory.lstat()
            if status.st_uid != os.geteuid() or time.time() - status.st_mtime < _STALE:
                continue
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(directory, ignore_errors=True)
            finally:
                os.close(descriptor)
