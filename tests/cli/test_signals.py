"""Signals, one, two at once, and again: real processes, real senders."""

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import shutil
import signal
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from archiver.cli.main import main
from archiver.emulator import Emulator, Faults
from examples.sample_rdb import rdb, write_rdb
from tests.archive.sample import put_standard
from tests.cli.conftest import Run
from tests.cli.test_pull import PULL, until_bytes_move
from tests.conftest import INSTANCE

INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
# However busy the machine is, a command that was asked to stop comes to its end: what happens to
# one that does not is for a test of its own.
PATIENT = """
import archiver.cli.run as commands
from archiver.cli import main

commands.run.__kwdefaults__["patience"] = 60.0
main(prog_name="archiver")
"""
COMMAND = [sys.executable, "-c", PATIENT, *PULL, "--part-size", "64KiB", "--json"]
# A command that no cancellation ends: the thread that it waits for sleeps on.
STUCK = """
import sys, time
from archiver.cli.run import run, say
from archiver.concurrency import in_thread

def stuck():
    say("begun")
    time.sleep(float(sys.argv[1]))

async def command():
    await in_thread(stuck)

run(command, verbose=0, on_interrupt="it will end")
"""
# A command whose last words wait for somebody to read them.
UNREAD = """
import os, sys
from archiver.cli.run import run, say

async def command():
    os.set_blocking(1, False)
    try:
        while True:
            os.write(1, bytes(4096))
    except BlockingIOError:
        os.set_blocking(1, True)
    sys.stdout.write("the last words")
    say("begun")

run(command, verbose=0, on_interrupt="it will end")
"""


@pytest.fixture
def slow(files: Path, emulator: Emulator) -> None:
    """A file that takes far longer than a busy machine needs to deliver a signal."""
    write_rdb(files / INSTANCE / "a.rdb", 8_000_000)
    emulator.faults = Faults(rate=100_000)


async def start(
    command: list[str], environ: dict[str, str], cwd: Path, before: Callable[[], None] | None = None
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *command,
        env=environ,
        cwd=cwd,
        start_new_session=True,
        preexec_fn=before,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def assert_stopped_cleanly(
    process: asyncio.subprocess.Process, emulator: Emulator, run: Run, cwd: Path
) -> None:
    """It said so once, summed up, let go of the lock; and the next run ends what it began."""
    out, err = await process.communicate()
    assert process.returncode == 130, err
    assert err.count(b"archiver: stopping") == 1
    assert json.loads(out.splitlines()[-1])["interrupted"] is True
    assert (cwd / "archive" / ".locks" / INSTANCE).read_bytes() == b""
    emulator.faults = Faults()
    assert (await run(*PULL, "--part-size", "64KiB")).code == 0
    assert len(list((cwd / "archive").rglob("*.rdb"))) == 1


@pytest.mark.parametrize(
    "signals", [(TERM, TERM), (INT, INT), (TERM, INT), (HUP, TERM, INT, TERM)], ids=str
)
async def test_several_at_once_are_one(
    slow: None, emulator: Emulator, environ: dict[str, str], run: Run, tmp_path: Path,
    signals: tuple[signal.Signals, ...],
) -> None:  # fmt: skip
    process = await start(COMMAND, environ, tmp_path)
    await until_bytes_move(emulator, 100_000)
    for number in signals:
        process.send_signal(number)
    await assert_stopped_cleanly(process, emulator, run, tmp_path)


@pytest.mark.skipif(shutil.which("timeout") is None, reason="NEEDS GNU timeout")
@pytest.mark.parametrize("number", [INT, TERM, HUP])
async def test_gnu_timeout(
    slow: None, emulator: Emulator, environ: dict[str, str], run: Run, tmp_path: Path,
    number: signal.Signals,
) -> None:  # fmt: skip
    """It passes a signal to its child, and to its group, which the child is in."""
    process = await start(["timeout", "-s", str(int(number)), "600", *COMMAND], environ, tmp_path)
    await until_bytes_move(emulator, 100_000)
    process.send_signal(number)
    await assert_stopped_cleanly(process, emulator, run, tmp_path)


async def test_a_terminal_that_closes(
    slow: None, emulator: Emulator, environ: dict[str, str], run: Run, tmp_path: Path
) -> None:
    main, side = pty.openpty()

    def on_the_terminal() -> None:
        signal.signal(HUP, signal.SIG_DFL)  # which nohup ignores, and a command respects that
        os.setsid()
        fcntl.ioctl(side, termios.TIOCSCTTY, 0)

    process = await asyncio.create_subprocess_exec(
        *COMMAND[:-1], env=environ, cwd=tmp_path, preexec_fn=on_the_terminal,
        stdin=side, stdout=side, stderr=side,
    )  # fmt: skip
    os.close(side)
    await until_bytes_move(emulator, 100_000)
    os.close(main)
    assert await process.wait() == 130
    assert (tmp_path / "archive" / ".locks" / INSTANCE).read_bytes() == b""
    emulator.faults = Faults()
    assert (await run(*PULL, "--part-size", "64KiB")).code == 0


async def test_once_more_after_a_second_stops_at_once(
    environ: dict[str, str], tmp_path: Path
) -> None:
    process = await start([sys.executable, "-c", STUCK, "600"], environ, tmp_path)
    assert process.stderr is not None
    assert b"begun" in await process.stderr.readline()
    began = time.monotonic()
    while process.returncode is None:
        process.send_signal(INT)
        await asyncio.wait([asyncio.ensure_future(process.wait())], timeout=0.1)
    assert process.returncode == 130
    assert time.monotonic() - began >= 1.0
    assert (await process.stderr.read()).endswith(b"archiver: stopped at once\n")


GIVEN_UP = """
import anyio
from archiver.cli.run import run, say
from archiver.errors import StoreError

async def command():
    say("begun")
    try:
        await anyio.sleep_forever()
    finally:
        raise StoreError("the bucket does not answer")

run(command, verbose=0, on_interrupt="it will end")
"""


async def test_what_is_given_up_for_a_signal_is_not_a_failure(
    environ: dict[str, str], tmp_path: Path
) -> None:
    process = await start([sys.executable, "-c", GIVEN_UP], environ, tmp_path)
    assert process.stderr is not None
    assert b"begun" in await process.stderr.readline()
    process.send_signal(INT)
    _, err = await process.communicate()
    assert (process.returncode, b"does not answer" in err) == (130, False)


async def test_under_nohup_a_hangup_is_nothing(environ: dict[str, str], tmp_path: Path) -> None:
    def ignore() -> None:
        signal.signal(HUP, signal.SIG_IGN)

    process = await start([sys.executable, "-c", STUCK, "0.5"], environ, tmp_path, ignore)
    assert process.stderr is not None
    assert b"begun" in await process.stderr.readline()
    process.send_signal(HUP)
    _, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")


async def test_last_words_that_nobody_reads_can_be_interrupted(
    environ: dict[str, str], tmp_path: Path
) -> None:
    read, write = os.pipe()
    environ.pop("PYTHONUNBUFFERED", None)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", UNREAD, env=environ, cwd=tmp_path, stdout=write,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        os.close(write)
        assert process.stderr is not None
        assert await process.stderr.readline() == b"begun\n"
        process.send_signal(INT)
        await asyncio.sleep(1.2)
        process.send_signal(INT)
        async with asyncio.timeout(20):
            assert await process.wait() == 130
        assert (await process.stderr.read()).startswith(b"archiver: s")  # stopping, or stopped
    finally:
        os.close(read)  # which ends it, whatever it waits for
        await process.wait()


async def test_a_bucket_that_does_not_answer_is_not_waited_for(
    environ: dict[str, str], tmp_path: Path
) -> None:
    """It would be for two minutes; and what was given up for the signal is no failure."""
    put_standard(tmp_path / "here", rdb(3000))
    place, instance = "s3://b/x", ("--instance", INSTANCE)
    commands = (
        ("pull", *instance, "--to", place),
        ("copy", "here", place),
        ("verify", place),
        ("restore", place, *instance, "--to", "to"),
    )
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    ends = [end_of(command, environ | keys, tmp_path) for command in commands]
    for command, (code, err) in zip(commands, await asyncio.gather(*ends), strict=True):
        assert code == 130, (command, err)
        assert b"archiver: stopping" in err
        assert b"does it answer" not in err


async def end_of(
    command: tuple[str, ...], environ: dict[str, str], cwd: Path
) -> tuple[int | None, bytes]:
    """Its exit code and stderr, when it is interrupted once it has asked a silent bucket."""
    asked = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.readuntil(b"\r\n\r\n")
            asked.set()
            await reader.read()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        words = (sys.executable, "-m", "archiver", *command, "--s3-endpoint", endpoint)
        process = await start(list(words), environ, cwd)
        async with asyncio.timeout(60):
            await asked.wait()
        process.send_signal(INT)
        async with asyncio.timeout(15):
            _, err = await process.communicate()
    return process.returncode, err


async def test_what_does_not_end_is_left_to_the_next_run(
    environ: dict[str, str], tmp_path: Path
) -> None:
    process = await start([sys.executable, "-c", STUCK, "600"], environ, tmp_path)
    assert process.stderr is not None
    assert b"begun" in await process.stderr.readline()
    process.send_signal(INT)
    async with asyncio.timeout(30):
        _, err = await process.communicate()
    assert process.returncode == 130
    assert b"the next run cleans up what it leaves" in err


def test_before_anything_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "get_command", interrupted)
    done = CliRunner().invoke(main, ["ls", "archive"])
    assert done.exit_code == 130
    assert done.stderr == "archiver: interrupted; nothing was started\n"
