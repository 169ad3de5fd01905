"""``archiver backup`` as its users meet it."""

import asyncio
import fcntl
import json
import os
import pty
import re
import shlex
import signal
import struct
import sys
import termios
from pathlib import Path
from typing import Any

import pytest

from archiver.cli.backup import going_on
from archiver.cli.progress import LOG_SECONDS, LogProgress
from archiver.emulator import Emulator, Policy
from archiver.errors import BackupFailed
from archiver.events import BackupAdvanced, BackupMade, Failed
from examples.sample_rdb import write_rdb
from tests.cli.conftest import Result, Run
from tests.conftest import INSTANCE, EmulatorMaker

BACKUP = ("backup", "--instance", INSTANCE)
HOME = ("--pull", "--to", "archive")


@pytest.fixture
def emulator_seconds() -> float:
    """How long a backup takes."""
    return 0.0


@pytest.fixture
async def emulator(files: Path, emulator_of: EmulatorMaker, emulator_seconds: float) -> Emulator:
    write_rdb(files / INSTANCE / "old_20261120021500.rdb", 3000)
    return await emulator_of(files, backup_seconds=emulator_seconds)


def events_of(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.out.splitlines()]


async def test_made(run: Run) -> None:
    result = await run(*BACKUP)
    assert result.code == 0, result.err
    begun, made, summary = result.err.splitlines()
    job = re.fullmatch(rf"backing up: {INSTANCE}: job (\d+)", begun)
    assert job is not None
    assert re.fullmatch(rf"made: {INSTANCE}: job {job[1]}: 1 file, 2.9 KiB in \d+ s", made)
    assert re.fullmatch(r"made 1 backup, 2.9 KiB in \d+\.\d s", summary)
    assert result.out == ""


async def test_made_and_brought_home(run: Run, tmp_path: Path) -> None:
    result = await run(*BACKUP, *HOME, "--retention", "forever")
    assert result.code == 0, result.err
    assert "made 1 backup, 2.9 KiB" in result.err
    assert "archived 1 backup, 2.9 KiB" in result.err
    assert "has backups of 1 of 1 instance requested" in result.err
    assert len(list((tmp_path / "archive").rglob("*.rdb"))) == 1
    pulled = await run("pull", "--instance", INSTANCE, "--to", "archive", ARCHIVER_PULL_RANGE=None)
    assert "archived 1 backup, 2.9 KiB" in pulled.err  # the older one
    assert "1 already in the archive" in pulled.err


async def test_json(run: Run) -> None:
    result = await run(*BACKUP, *HOME, "--json")
    found = events_of(result)
    names = [event["event"] for event in found]
    assert names[:3] == ["page_listed", "backup_begun", "backup_advanced"]
    assert {"backup_made", "archived"} <= set(names)
    made = found[names.index("backup_made")]
    assert made["instance_id"] == INSTANCE
    assert [one["instance_id"] for one in made["backups"]] == [INSTANCE]
    assert made["jobs"] == [one["set_id"] for one in made["backups"]]
    last = found[-1]
    assert (last["event"], last["exit_code"], last["made"]) == ("summary", 0, 1)
    assert (last["left"], last["go_on"]) == ({}, None)


async def test_quiet(run: Run) -> None:
    result = await run(*BACKUP, "-q")
    assert (result.code, result.err, result.out) == (0, "", "")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("backup",), "missing option: --instance ID, or --wait-for INSTANCE:JOB"),
        ((*BACKUP, "--retention", "6"), "--retention: '6' is neither a number of days from 7"),
        ((*BACKUP, "--retention", "731"), "--retention: '731' is neither a number of days from 7"),
        ((*BACKUP, "--retention", "-1"), "--retention: '-1' is neither a number of days from 7"),
        ((*BACKUP, "--pull"), "--pull and --to ARCHIVE need each other"),
        ((*BACKUP, "--to", "archive"), "--pull and --to ARCHIVE need each other"),
        ((*BACKUP, "--wait-for", INSTANCE), f"--wait-for: invalid job '{INSTANCE}' (use INSTANCE"),
        ((*BACKUP, "--wait-for", f"{INSTANCE}:1"), f"{INSTANCE} is given twice: name its jobs"),
        (("backup", "--wait-for", "r-a:1", "--wait-for", "r-a:2"), "r-a is given twice"),
        (("backup", "--wait-for", "r-a:1", "--retention", "7"), "--retention is for new backups"),
        ((*BACKUP, *HOME, "--part-size", "1MiB", "--to", "s3://b/x"), "5 MiB"),
    ],
)
async def test_wrong_usage_sends_nothing(
    run: Run, emulator: Emulator, args: tuple[str, ...], said: str
) -> None:
    result = await run(*args)
    assert result.code == 2
    assert said in result.err
    assert emulator.tally.api_calls == 0


async def test_no_permission(files: Path, run: Run, emulator_of: EmulatorMaker) -> None:
    allowed = ["kvstore:DescribeBackups", "kvstore:DescribeBackupTasks"]
    statement = {"Effect": "Allow", "Action": allowed, "Resource": "*"}
    policy = Policy.parse({"Version": "1", "Statement": [statement]})
    emulator = await emulator_of(files, policy=policy)
    result = await run(*BACKUP, *HOME, ARCHIVER_BACKUP_ENDPOINT=emulator.endpoint)
    assert result.code == 4
    assert "grant the RAM action kvstore:CreateBackup on" in result.err
    assert "to go on" not in result.err


async def test_another_is_under_way(
    files: Path, run: Run, environ: dict[str, str], emulator_of: EmulatorMaker, tmp_path: Path
) -> None:
    """Which is said under --quiet, too: it is not what was asked for."""
    emulator = await emulator_of(files, backup_seconds=3.0)
    environ["ARCHIVER_BACKUP_ENDPOINT"] = emulator.endpoint
    first, second = await asyncio.gather(
        run(*BACKUP, "--timeout", "60s", "-q"), run(*BACKUP, *HOME, "--timeout", "60s", "-q")
    )
    assert (first.code, second.code) == (0, 0), (first.err, second.err)
    waited = [r.err for r in (first, second) if "waiting for another backup" in r.err]
    assert len(waited) == 1
    assert "the vendor makes one backup at a time, and no new one was begun" in waited[0]
    assert len(list(files.rglob("manual_*"))) == 1
    assert len(list((tmp_path / "archive").rglob("*.rdb"))) == 1


async def until(process: asyncio.subprocess.Process, text: str) -> str:
    """What it says on stderr until it says ``text``."""
    assert process.stderr is not None
    said = ""
    while text not in said:
        line = await process.stderr.readline()
        assert line, said
        said += line.decode()
    return said


async def start(environ: dict[str, str], cwd: Path, *args: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "archiver", *args, env=environ, cwd=cwd,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


class TestStopped:
    """While it waits. It says how to go on, and that works."""

    @pytest.fixture
    def emulator_seconds(self) -> float:
        return 5.0

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    @pytest.mark.parametrize("quiet", [(), ("-q",)])
    async def test_and_gone_on_with(
        self,
        files: Path,
        environ: dict[str, str],
        run: Run,
        tmp_path: Path,
        number: signal.Signals,
        quiet: tuple[str, ...],
    ) -> None:
        process = await start(
            environ, tmp_path, *BACKUP, *HOME, "--retention", "9", "--json", *quiet
        )
        assert process.stdout is not None
        while b"backup_advanced" not in await process.stdout.readline():
            pass
        process.send_signal(number)
        out, err = await process.communicate()
        assert process.returncode == 130, err
        [told] = re.findall(r"to go on: (archiver .*?)(?: \(again|\n)", err.decode())
        last = json.loads(out.splitlines()[-1])
        assert (last["interrupted"], last["go_on"]) == (True, told)
        [jobs] = last["left"].values()
        words = shlex.split(told)
        assert words[1:] == [
            "backup", "--pull", "--to", "archive", "--json", *quiet,
            "--wait-for", f"{INSTANCE}:{','.join(jobs)}",
        ]  # fmt: skip
        again = await run(*words[1:])
        assert again.code == 0, again.err
        assert events_of(again)[-1]["archived"] == 1
        assert len(list(files.rglob("manual_*_9d.rdb"))) == 1

    async def test_too_late(self, run: Run) -> None:
        """What takes too long is not lost."""
        result = await run(*BACKUP, "--timeout", "1s", "-q")
        assert result.code == 1
        failed, go_on = result.err.splitlines()
        assert re.search(r": job \d+: \w+, \d+% after 1 s: gave up waiting", failed)
        told = go_on.removeprefix("to go on: archiver ")
        again = await run(*shlex.split(told.replace("1s", "60s")))
        assert (again.code, again.err) == (0, "")

    async def test_bars(self, environ: dict[str, str], tmp_path: Path) -> None:
        shown = await on_a_terminal(environ, tmp_path, *BACKUP, *HOME)
        assert re.search(rf"{INSTANCE}: +\d\d%", shown)
        assert "all: 100%" in shown
        assert "archived 1 backup" in shown
        assert max(int(p) for p in re.findall(r"(\d+)%", shown)) == 100


async def on_a_terminal(environ: dict[str, str], cwd: Path, *args: str) -> str:
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "archiver", *args, env=environ, cwd=cwd, stdout=side, stderr=side
    )
    os.close(side)
    shown, loop = b"", asyncio.get_running_loop()
    while True:
        try:
            piece = await loop.run_in_executor(None, os.read, main, 65536)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    os.close(main)
    assert await process.wait() == 0, shown
    return shown.decode()


async def test_what_the_environment_says_is_not_begun_again(
    run: Run, environ: dict[str, str], emulator_of: EmulatorMaker, files: Path
) -> None:
    emulator = await emulator_of(files, backup_seconds=1000)
    environ["ARCHIVER_BACKUP_ENDPOINT"] = emulator.endpoint
    environ |= {"ARCHIVER_BACKUP_INSTANCE": INSTANCE, "ARCHIVER_BACKUP_RETENTION": "7"}
    result = await run("backup", "--timeout", "1s")
    assert "env -u ARCHIVER_BACKUP_INSTANCE -u ARCHIVER_BACKUP_RETENTION archiver backup" in (
        result.err
    )


@pytest.mark.parametrize(
    ("words", "left", "expected"),
    [
        ("--instance r-a --region x", {"r-a": ("1",)}, "--region x --wait-for r-a:1"),
        ("--instance=r-a --to d", {"r-a": ("1", "2")}, "--to d --wait-for r-a:1,2"),
        ("--retention 7 --instance r-a", {"r-a": ("1",)}, "--wait-for r-a:1"),
        (
            "--retention 7 --instance r-a --instance r-b",
            {"r-a": ("1",), "r-b": ()},
            "--retention 7 --wait-for r-a:1 --instance r-b",
        ),
        ("--wait-for r-a:1 --wait-for r-b:2", {"r-b": ("2",)}, "--wait-for r-b:2"),
        (
            "--proxy http://me:secret@host:1 --instance r-a",
            {"r-a": ("1",)},
            "--proxy http://***@host:1 --wait-for r-a:1",
        ),
    ],
)
def test_the_command_that_goes_on(
    words: str, left: dict[str, tuple[str, ...]], expected: str
) -> None:
    assert going_on(["backup", *words.split()], left) == ["backup", *expected.split()]


def test_a_line_in_a_log_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    progress = LogProgress(lambda: now)
    progress(BackupAdvanced("r-a", ("1",), "Uploading", 10))
    for instance_id, percent in (("r-a", 20), ("r-a", 25), ("r-b", 5)):
        now += LOG_SECONDS
        progress(BackupAdvanced(instance_id, ("1",), "Uploading", percent))
    now += LOG_SECONDS
    progress(BackupMade("r-a", ("1",), (), 1.0))
    progress(BackupAdvanced("r-b", ("2",), "Checking", 95))
    progress(Failed("r-b", BackupFailed("x")))
    now += LOG_SECONDS
    progress(BackupAdvanced("r-c", ("2",), "Waiting", 15))
    assert capsys.readouterr().err.splitlines() == [
        "r-a: Uploading, 20%; 30 s",
        "r-a: Uploading, 25%; 60 s",
        "0 backups made, 2 under way at 5% to 25%; 90 s",
        "1 backup made, 1 under way at 95%; 120 s",
        "1 backup made, 1 under way at 15%; 150 s",
    ]
