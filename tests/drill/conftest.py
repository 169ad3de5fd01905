"""Real servers, and programs that only look like one."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from archiver.commands.drill import ServerProgram, find
from archiver.commands.drill.outcome import Outcome
from archiver.commands.drill.programs import DumpFile, Flavour, read_dump_file
from archiver.commands.drill.teardown import TearDown
from archiver.commands.drill.trial import Trial
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


def passed(trial: Trial) -> bool:
    """Whether a file was loaded and counted, all assertions hold, the server was not reachable over
    the network, and nothing of it is left."""
    attempt = trial.decisive
    return (
        attempt.verdict.outcome is Outcome.LOADED
        and attempt.census is not None
        and all(result.holds for result in attempt.assertions)
        and attempt.listening is not None
        and attempt.listening.ports == ()
        and all(is_clean(one.teardown) for one in trial.attempts)
    )


def is_clean(teardown: TearDown) -> bool:
    """Whether nothing of a server is left, and its file is unchanged."""
    gone = (teardown.process_gone, teardown.socket_gone, teardown.directory_removed)
    return all(gone) and teardown.file_unchanged
