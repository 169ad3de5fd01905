"""Starts a server program on one file, in a directory of its own, with a restricted configuration.

The given file is never opened for writing. An RDB is only read, so a link to it is enough: a server
that saved would replace the link. An AOF would be appended to (an expiring key writes a DEL), so
servers from 7.0 on get it as the base of a multi-part AOF, which is only read, and older ones get a
copy. A server that runs as another user gets a hard link, because it cannot follow a symbolic one
into a private directory. If a hard link is impossible or the user may not read the file, it gets a
copy.
"""

import contextlib
import errno
import os
import shutil
import stat
from pathlib import Path
from subprocess import DEVNULL, STDOUT

import anyio
from anyio.abc import Process

from archiver.commands.drill import launch
from archiver.commands.drill.launch import Identity, confined
from archiver.commands.drill.programs import (
    CLEAN_ENVIRONMENT,
    Ability,
    DumpFile,
    Flavour,
    ServerProgram,
    says_version,
)
from archiver.commands.drill.workdir import LOG, RUN, SOCKET, Workdir, open_workdir
from archiver.concurrency import in_thread
from archiver.errors import NoSpace, StoreError
from archiver.model import Kind
from archiver.rdb.magic import DATABASES

_COPY_BYTES = 16 * 1024 * 1024  # at a time
_CLIENTS = 512
# How much larger than its file a file of the server may grow: its log, and what is appended to an
# AOF.
_FILE_ROOM = 64 * 2**20
# Commands that reach beyond the data, and the Redis version that introduced each (Valkey counts as
# 7.2). An AOF may contain any of them, though no server writes them to one. They are renamed to
# nothing, which works in every version; ACLs do not apply to loading.
_DISABLED_COMMANDS = {
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
_DISABLED_OPTIONS = ("enable-protected-configs", "enable-debug-command", "enable-module-command")
# Whether a user can run a program; its directory may be closed to nobody.
_CAN_RUN: dict[tuple[Path, Identity], bool] = {}


async def start_server(
    program: ServerProgram,
    dump: DumpFile,
    ability: Ability,
    directory: Path | None,
    identity: Identity | None,
) -> tuple[Workdir, Process]:
    """Start ``program`` on ``dump`` as ``identity`` (None: as this user).

    Its working directory is made in ``directory``. Raises StoreError, NoSpace.
    """

    try:
        workdir, command, log = await in_thread(
            _prepare, program, dump, ability, directory, identity
        )
    except OSError as error:
        what = f"{error.filename or directory}: {error.strerror}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "free some space, or choose another directory"
            raise NoSpace(what, hint=hint) from error
        raise StoreError(what) from error
    try:
        process = await anyio.open_process(
            command,
            stdin=DEVNULL,
            stdout=log,
            stderr=STDOUT,
            cwd=workdir.directory / RUN,
            env=CLEAN_ENVIRONMENT,
            start_new_session=True,  # Ctrl-C goes to this process, which then ends the server
        )
    except OSError as error:
        await in_thread(workdir.remove)
        raise StoreError(f"cannot start a process: {error.strerror}") from error
    finally:
        os.close(log)
    return workdir, process


def _prepare(
    program: ServerProgram,
    dump: DumpFile,
    ability: Ability,
    directory: Path | None,
    identity: Identity | None,
) -> tuple[Workdir, list[str], int]:
    """Make the server's directory; return it, the confined command, and the open log. Blocks.

    Raises OSError.
    """
    workdir = open_workdir(directory)
    try:
        command = configure(workdir, program, dump, ability, identity)
        workdir = workdir.with_run()
        command = confined(identity, dump.path.stat().st_size + _FILE_ROOM, command)
        log = os.open(workdir.directory / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except BaseException:
        workdir.remove()
        raise
    return workdir, command, log


async def identity_for(program: ServerProgram) -> Identity | None:
    """Return the user to run a program as; None for the user of this process."""
    identity = await in_thread(launch.nobody)
    if identity is None:
        return None
    known = (program.path, identity)
    if known not in _CAN_RUN:
        command = confined(identity, _FILE_ROOM, [str(program.path), "--version"])
        _CAN_RUN[known] = await says_version(command)
    return identity if _CAN_RUN[known] else None


def configure(
    workdir: Workdir,
    program: ServerProgram,
    dump: DumpFile,
    ability: Ability,
    identity: Identity | None = None,
) -> list[str]:
    """Make the server's directory with ``dump`` in it; return the command to run there.

    May copy the file. Blocks. Raises OSError.
    """
    run = workdir.directory / RUN
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
        # Without rehashing, SCAN returns every key exactly once.
        "activerehashing": "no",
    }
    if ability is Ability.RELAXED:
        options["rdb-version-check"] = "relaxed"
    if _is_modern(program):
        options |= dict.fromkeys(_DISABLED_OPTIONS, "no")
    if dump.kind is Kind.AOF:
        options |= _place_aof(run, program, dump, identity)
    else:
        _link(dump.path, run / "dump.rdb", identity)
        options["dbfilename"] = "dump.rdb"
    if identity is not None:
        identity.own(run)
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    return [str(program.path), *words, *_without_commands(program)]


def _is_modern(program: ServerProgram) -> bool:
    return program.flavour is Flavour.VALKEY or program.version >= (7, 0, 0)


def _without_commands(program: ServerProgram) -> list[str]:
    version = (7, 2) if program.flavour is Flavour.VALKEY else program.version[:2]
    names = [name for name, since in _DISABLED_COMMANDS.items() if version >= since]
    return [word for name in names for word in ("--rename-command", name, "")]


def _link(path: Path, target: Path, identity: Identity | None) -> None:
    """Make a file that the server only reads available to it. Raises OSError."""
    if identity is None:
        target.symlink_to(path)
        return
    if path.stat().st_mode & stat.S_IROTH:
        # Impossible across file systems, and on those without hard links.
        with contextlib.suppress(OSError):
            target.hardlink_to(path.resolve())
            return
    _copy(path, target)
    identity.own(target)


def _place_aof(
    directory: Path, program: ServerProgram, dump: DumpFile, identity: Identity | None
) -> dict[str, str]:
    """Link or copy an AOF into the server's directory; return the options for it."""
    options = {
        "appendonly": "yes",
        "appendfilename": "given.aof",
        "appendfsync": "no",
        "aof-load-truncated": "no",  # otherwise a truncated file would be loaded and changed
        "auto-aof-rewrite-percentage": "0",
    }
    if not _is_modern(program):
        _copy(dump.path, directory / "given.aof")
        if identity is not None:
            identity.own(directory / "given.aof")
        return options
    parts = directory / "appendonlydir"
    parts.mkdir(0o700)
    _link(dump.path, parts / "given.base.aof", identity)
    manifest = parts / "given.aof.manifest"
    manifest.write_text("file given.base.aof seq 1 type b\n")
    for one in (parts, manifest):
        if identity is not None:
            identity.own(one)
    return options | {"appenddirname": parts.name}


def _copy(source: Path, target: Path) -> None:
    """Copy a file; copy_file_range shares the blocks if the file system can."""
    with source.open("rb") as old, target.open("xb") as new:
        try:
            while os.copy_file_range(old.fileno(), new.fileno(), _COPY_BYTES):
                pass
        except OSError:  # not possible between these file systems
            old.seek(0)
            new.seek(0)
            shutil.copyfileobj(old, new, _COPY_BYTES)
