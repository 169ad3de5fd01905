"""Real servers, and programs that only look like one."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from archiver.commands.drill import DumpFile, Flavour, ServerProgram, find, read_dump_file
from archiver.commands.drill.workdir import PREFIX
from archiver.model import Kind

FakeMaker = Callable[[str], ServerProgram]
_FOUND: list[ServerProgram] = []


async def programs() -> list[ServerProgram]:
    """All servers of this machine, asked once."""
    if not _FOUND:
        _FOUND.extend(await find())
    return list(_FOUND)


async def program(flavour: str, *version: int) -> ServerProgram:
    """The server of that release, or a skipped test."""
    for one in await programs():
        if one.flavour == flavour and one.version[: len(version)] == version:
            return one
    pytest.skip(f"no {flavour} {'.'.join(map(str, version))} here")


@pytest.fixture
async def valkey() -> ServerProgram:
    """The one server that the test extra always brings."""
    return await program("valkey", 9, 1)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where servers have their directories."""
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


@pytest.fixture
def fake(tmp_path: Path) -> FakeMaker:
    """Makes a server program out of a few lines of Python."""

    def make(body: str) -> ServerProgram:
        path = tmp_path / "redis-server"
        path.write_text(
            f"#!{sys.executable} -IS\n"
            "import sys, time, signal\n"
            "if '--version' in sys.argv:\n"
            "    print('Redis server v=7.2.5 sha=00000000:0 malloc=libc bits=64 build=0')\n"
            "    sys.exit(0)\n" + body
        )
        path.chmod(0o700)
        return ServerProgram(path, Flavour.REDIS, (7, 2, 5), "given")

    return make


def dump_file(path: Path, kind: Kind | None = None) -> DumpFile:
    """As read_dump_file, for tests without an event loop."""
    return asyncio.run(read_dump_file(path, kind))


def left_in(place: Path) -> list[Path]:
    """What drills left behind."""
    return list(place.glob(f"{PREFIX}*"))
