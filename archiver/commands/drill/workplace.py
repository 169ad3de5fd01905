"""The private directory that one server lives in, and how a file is put before it.

The given file is never opened for writing. An RDB is only read, so a link to it is enough: a server
that wanted to save would replace the link. An AOF would be appended to (a key that expires writes a
DEL), so servers from 7.0 on get it as the base of a set, which is only read, and older ones get a
copy. A server that is another user gets a hard link, since it cannot go where a symbolic one leads;
where that is not to be had, or he may not read the file, it gets a copy.
"""

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from archiver.commands.drill.dump import Subject
from archiver.commands.drill.identity import Identity
from archiver.commands.drill.mark import MARK, NotOurs, is_name, new_name, read_mark, write_mark
from archiver.commands.drill.servers import Ability, Flavour, ServerProgram
from archiver.errors import StoreError
from archiver.model import Kind
from archiver.rdb.releases import DATABASES
from archiver.stores.local.mounts import file_system_kind

# The server's own part of the directory, which it works in.
RUN = "run"
SOCKET = "socket"
LOG = "server.log"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_TAIL = 64 * 1024  # bytes of log that are read
_COPY = 16 * 1024 * 1024  # bytes at a time
# What reaches beyond the data, and since which version there is such a command (of Valkey, 7.2 as
# Redis). A log of commands may have any of them in it, and no log that a server wrote has. Renamed
# to nothing, which every version knows; ACLs do not bind what is loaded.
_TAKEN_AWAY = {
    "BGREWRITEAOF": (1, 0),
    "BGSAVE": (1, 0),
    "CONFIG": (2, 0),
    "DEBUG": (1, 0),
    "MONITOR": (1, 0),
    "SAVE": (1, 0),
    "SLAVEOF": (1, 0),
    "SYNC": (1, 0),
    "MIGRATE": (2, 6),
    "PSYNC": (2, 8),
    "CLUSTER": (3, 0),
    "MODULE": (4, 0),
    "REPLICAOF": (5, 0),
    "ACL": (6, 0),
    "FAILOVER": (6, 2),
}
_FORBIDDEN = ("enable-protected-configs", "enable-debug-command", "enable-module-command")
_CLIENTS = 512


@dataclass(frozen=True, slots=True)
class Workplace:
    """A directory of mode 0700, locked for as long as this process lives. All calls block.

    Descriptors are of the directory, and of the server's part of it once that is laid out.
    """

    directory: Path
    descriptor: int
    run: int = -1

    def laid_out(self) -> "Workplace":
        """The same, with the server's part open. Raises OSError."""
        return replace(self, run=os.open(self.directory / RUN, _DIRECTORY))

    @property
    def socket(self) -> str:
        """The socket's path through the open directory.

        It is short however deep the directory lies: the address of a Unix socket has 108 bytes.
        """
        return f"/proc/self/fd/{self.run}/{SOCKET}"

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
        with contextlib.suppress(OSError):
            _remove(self.descriptor, self.directory)
        for opened in (self.descriptor, self.run):
            with contextlib.suppress(OSError):
                os.close(opened)
        return not self.directory.exists()


def open_workplace(parent: Path | None = None) -> Workplace:
    """Make a directory in ``parent`` (else the system's place for temporary files).

    Raises:
        OSError: It cannot be made.
    """
    directory = _place(parent) / new_name()
    directory.mkdir(0o700)
    descriptor = -1
    try:
        descriptor = os.open(directory, _DIRECTORY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # before the mark: whoever sees that finds it locked
        write_mark(descriptor, directory.name)
    except BaseException:
        if descriptor != -1:
            Workplace(directory, descriptor).remove()
        raise
    return Workplace(directory, descriptor)


@dataclass(frozen=True, slots=True)
class Swept:
    """What became of directories that drills may have left: those ``removed``, and those that
    look like it and were left alone, with the reason."""

    removed: tuple[Path, ...]
    left: tuple[tuple[Path, str], ...]


def sweep(parent: Path | None = None) -> Swept:
    """Remove the directories that killed drills left in ``parent`` (else as above). Blocks.

    Only those with a drill's form of name, a valid mark, and a maker that has surely ended
    (:mod:`.mark`). Of drills that are at work, and of other users', nothing is said.
    """
    place = _place(parent)
    removed, left = list[Path](), list[tuple[Path, str]]()
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(place)):  # noqa: PTH208 - names alone
            if is_name(name):
                directory = place / name
                try:
                    if _remove_left(directory):
                        removed.append(directory)
                except NotOurs as reason:
                    left.append((directory, str(reason)))
                except OSError as error:
                    left.append((directory, f"it cannot be removed: {error.strerror}"))
    return Swept(tuple(removed), tuple(left))


def _remove_left(directory: Path) -> bool:
    """Remove a directory that a drill left; False for what is not ours to speak of.

    Raises NotOurs for what is not to be removed, OSError.
    """
    status = directory.lstat()
    if status.st_uid != os.geteuid():
        return False
    if not stat.S_ISDIR(status.st_mode):
        raise NotOurs("it is no directory")
    descriptor = os.open(directory, _DIRECTORY)
    try:
        maker = read_mark(descriptor, directory.name)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if why := maker.why_not_ended(file_system_kind(directory)):
            raise NotOurs(why)
        _remove(descriptor, directory)
    finally:
        os.close(descriptor)
    return True


def _remove(descriptor: int, directory: Path) -> None:
    """Remove all that is in it, then the mark, then itself: what a kill leaves of it has its mark,
    or is empty. Raises OSError."""
    failed: OSError | None = None
    for name in os.listdir(descriptor):
        try:
            if name != MARK:
                _remove_entry(descriptor, name)
        except OSError as error:  # the others go all the same
            failed = error
    if failed is not None:
        raise failed
    with contextlib.suppress(FileNotFoundError):
        os.unlink(MARK, dir_fd=descriptor)
    directory.rmdir()


def _remove_entry(descriptor: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # a server that ends removes its socket
        if stat.S_ISDIR(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
            shutil.rmtree(name, dir_fd=descriptor)
        else:
            os.unlink(name, dir_fd=descriptor)


def _place(parent: Path | None) -> Path:
    return (parent or Path(tempfile.gettempdir())).absolute()


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
    workplace: Workplace,
    program: ServerProgram,
    subject: Subject,
    ability: Ability,
    identity: Identity | None = None,
) -> list[str]:
    """Put ``subject`` before ``program``, and return the command that starts it in the workplace's
    RUN, as ``identity`` if there is one. May copy.

    Raises:
        OSError: It cannot be put there.
    """
    run = workplace.directory / RUN
    run.mkdir(0o700)
    options = {
        "port": "0",
        "unixsocket": SOCKET,
        "unixsocketperm": "700",
        "dir": "./",
        "daemonize": "no",
        "logfile": "",
        "loglevel": "notice",
        "databases": str(DATABASES),
        "maxclients": str(_CLIENTS),
        "save": "",
        "appendonly": "no",
        # Buckets that stay where they are let SCAN name every key once.
        "activerehashing": "no",
    }
    if ability is Ability.RELAXED:
        options["rdb-version-check"] = "relaxed"
    if _is_modern(program):
        options |= dict.fromkeys(_FORBIDDEN, "no")
    if subject.kind is Kind.AOF:
        options |= _lay_out_aof(run, program, subject, identity)
    else:
        _link(subject.path, run / "dump.rdb", identity)
        options["dbfilename"] = "dump.rdb"
    if identity is not None:
        identity.own(run)
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    return [str(program.path), *words, *_without_commands(program)]


def _is_modern(program: ServerProgram) -> bool:
    return program.flavour is Flavour.VALKEY or program.version >= (7, 0, 0)


def _without_commands(program: ServerProgram) -> list[str]:
    version = (7, 2) if program.flavour is Flavour.VALKEY else program.version[:2]
    names = [name for name, since in _TAKEN_AWAY.items() if version >= since]
    return [word for name in names for word in ("--rename-command", name, "")]


def _link(path: Path, target: Path, identity: Identity | None) -> None:
    """Let the server find a file that it only reads. Raises OSError."""
    if identity is None:
        target.symlink_to(path)
        return
    if path.stat().st_mode & stat.S_IROTH:
        with contextlib.suppress(OSError):  # on another file system, or on one without links
            target.hardlink_to(path.resolve())
            return
    _copy(path, target)
    identity.own(target)


def _lay_out_aof(
    directory: Path, program: ServerProgram, subject: Subject, identity: Identity | None
) -> dict[str, str]:
    options = {
        "appendonly": "yes",
        "appendfilename": "given.aof",
        "appendfsync": "no",
        "aof-load-truncated": "no",  # else a cut file is loaded, and cut to fit
        "auto-aof-rewrite-percentage": "0",
    }
    if not _is_modern(program):
        _copy(subject.path, directory / "given.aof")
        if identity is not None:
            identity.own(directory / "given.aof")
        return options
    parts = directory / "appendonlydir"
    parts.mkdir(0o700)
    _link(subject.path, parts / "given.base.aof", identity)
    manifest = parts / "given.aof.manifest"
    manifest.write_text("file given.base.aof seq 1 type b\n")
    for one in (parts, manifest):
        if identity is not None:
            identity.own(one)
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
