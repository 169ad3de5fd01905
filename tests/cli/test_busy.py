"""Archives that others write to, that are not there, and that hold nothing."""

import asyncio
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from archiver.archive.layout import FORMAT, FORMAT_KEY
from archiver.emulator import Emulator, Faults
from examples.sample_rdb import write_rdb
from tests.cli.conftest import Run
from tests.cli.test_pull import PULL, start, until_bytes_move
from tests.conftest import INSTANCE


def mounting_allowed() -> bool:
    made = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    return made.returncode == 0


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """An archive without a backup."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / FORMAT_KEY).write_text(json.dumps({"format": FORMAT}))
    return tmp_path / "empty"


async def test_a_pull_waits_for_another(
    files: Path, emulator: Emulator, environ: dict[str, str], run: Run, tmp_path: Path
) -> None:
    write_rdb(files / INSTANCE / "a.rdb", 1_000_000)
    emulator.faults = Faults(rate=10_000)
    first = await start(environ, tmp_path)
    await until_bytes_move(emulator)
    assert (await run(*PULL)).code == 7
    waiting = await start(environ, tmp_path, "--lock-wait", "30m", "--json")
    assert waiting.stderr is not None
    assert f"process {first.pid} on".encode() in await waiting.stderr.readline()
    emulator.faults = Faults()
    first.send_signal(signal.SIGTERM)
    await first.communicate()
    out, err = await waiting.communicate()
    assert waiting.returncode == 0, err
    told = [json.loads(line) for line in out.splitlines()]
    [event] = [one for one in told if one["event"] == "waiting_for_lock"]
    assert event["error"]["exit_code"] == 7


async def test_an_interrupt_ends_the_waiting(
    files: Path, emulator: Emulator, environ: dict[str, str], tmp_path: Path
) -> None:
    write_rdb(files / INSTANCE / "a.rdb", 1_000_000)
    emulator.faults = Faults(rate=10_000)
    first = await start(environ, tmp_path)
    await until_bytes_move(emulator)
    waiting = await start(environ, tmp_path, "--lock-wait", "30m")
    assert waiting.stderr is not None
    await waiting.stderr.readline()
    waiting.send_signal(signal.SIGINT)
    async with asyncio.timeout(60):
        await waiting.communicate()
    assert waiting.returncode == 130
    first.kill()
    await first.communicate()


async def test_quiet_reports_a_new_archive(files: Path, run: Run, tmp_path: Path) -> None:
    write_rdb(files / INSTANCE / "a.rdb", 5000)
    refused = await run(*PULL, "-q", "--require-archive")
    assert refused.code == 2
    assert "there is no archive here, and one is required" in refused.err
    assert (await run(*PULL, "-q", ARCHIVER_PULL_REQUIRE_ARCHIVE="true")).code == 2
    assert (await run(*PULL, "--create", "--require-archive")).code == 2
    assert not (tmp_path / "archive").exists()
    begun = await run(*PULL, "-q", "--json")
    assert begun.err.endswith("Creating a new archive in " + str(tmp_path / "archive") + "\n")
    assert '"event": "archive_begun"' in begun.out
    assert (await run(*PULL, "-q", "--require-archive")).err == ""


async def test_nothing_listed_does_not_excuse_a_missing_archive(run: Run) -> None:
    assert (await run(*PULL, "--require-archive")).code == 2


@pytest.mark.skipif(not mounting_allowed(), reason="NEEDS ROOT for a mount namespace")
async def test_a_disk_that_is_not_mounted(
    files: Path, environ: dict[str, str], tmp_path: Path
) -> None:
    write_rdb(files / INSTANCE / "a.rdb", 5000)
    (tmp_path / "disk").mkdir()
    (tmp_path / "fstab").write_text(f"UUID=1 {tmp_path}/disk ext4 defaults 0 2\n")
    pull = [sys.executable, "-m", "archiver", "pull", "--instance", INSTANCE, "--to", "disk/redis"]
    mounted = "mount -t tmpfs none disk && "
    for before, code in (("", 2), (mounted, 0)):
        process = await asyncio.create_subprocess_exec(
            "unshare", "--mount", "sh", "-c", f'mount --bind fstab /etc/fstab && {before}"$@"',
            "sh", *pull, env=environ, cwd=tmp_path, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, err = await process.communicate()
        assert process.returncode == code, err
        assert (b"nothing is mounted there" in err) is (code == 2)
    assert list((tmp_path / "disk").iterdir()) == []


async def test_an_archive_without_a_backup_is_not_a_success(empty: Path, run: Run) -> None:
    verified = await run("verify", str(empty), "-q")
    assert (verified.code, verified.err) == (1, "nothing was verified: the archive has no backup\n")
    copied = await run("copy", str(empty), "copied", "-q")
    assert copied.code == 1
    assert "nothing was copied" in copied.err
    assert not (empty.parent / "copied").exists()
    shutil.copytree(empty, empty.parent / "copied")
    compared = await run("copy", str(empty), "copied", "--diff", "-q")
    assert compared.code == 1
    assert "nothing was compared" in compared.err
    instance = ("--instance", INSTANCE)
    for words in (
        ("drill", str(empty)), ("drill", str(empty), *instance), ("verify", str(empty), *instance),
        ("restore", str(empty), *instance, "--to", "restored"),
    ):  # fmt: skip
        result = await run(*words)
        assert (result.code, result.err.count("\n")) == (1, 1), result.err
    for words in (("ls", str(empty)), ("ls", str(empty), *instance)):
        assert (await run(*words)).code == 0


async def test_an_empty_range_is_not_a_success(files: Path, run: Run) -> None:
    write_rdb(files / INSTANCE / "a_20261124021500.rdb", 5000)
    assert (await run(*PULL)).code == 0
    never = ("--range", "2001-01-01..2001-01-02")
    verified = await run("verify", "archive", *never)
    assert verified.code == 1
    assert verified.err == (
        "nothing was verified: the archive has no backup that started in "
        "2001-01-01T00:00Z..2001-01-03T00:00Z\n"
    )
    assert (await run("copy", "archive", "copied", *never)).code == 1
    assert (await run("verify", "archive", "--range", "2026-11-24")).code == 0
