"""``ls``, ``emulate``, ``completion``, ``--help``, and the public names."""

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any, cast

import aiohttp
import click
import pytest

import archiver
from archiver.cli.main import main
from archiver.emulator import Emulator
from archiver.version import __version__
from examples.sample_rdb import write_rdb
from tests.cli.conftest import Run
from tests.conftest import INSTANCE
from tests.emulator.test_api import legacy

STAMP = "20261124021500"


async def test_ls(files: Path, run: Run) -> None:
    write_rdb(files / INSTANCE / f"a_{STAMP}.rdb", 5000)
    remote = await run("ls", "--instance", INSTANCE)
    assert remote.code == 0
    assert re.search(rf"{INSTANCE} .*2026-11-24 02:15 .*4.9 KiB +listed", remote.out)
    assert (await run("pull", "--instance", INSTANCE, "--to", "archive")).code == 0
    write_rdb(files / INSTANCE / f"b_{STAMP}.rdb", 6000, 1)
    assert " archived" in (await run("ls", "archive")).out
    compared = await run("ls", "archive", "--remote", "--instance", INSTANCE, "--json")
    rows = [json.loads(line) for line in compared.out.splitlines()]
    assert {row["size"]: row["state"] for row in rows} == {5000: "archived", 6000: "missing"}
    assert all(row["set_complete"] for row in rows)


async def test_ls_warns_of_what_expires(files: Path, run: Run) -> None:
    write_rdb(files / INSTANCE / "old_20200101000000.rdb", 5000)
    assert "expires in 0 h" in (await run("ls", "--instance", INSTANCE)).out


async def test_ls_names_incomplete_sets(files: Path, run: Run) -> None:
    for node in range(2):
        write_rdb(files / INSTANCE / f"{INSTANCE}-db-{node}" / f"d_{STAMP}.rdb", 9000, node)
    assert (await run("pull", "--instance", INSTANCE, "--to", "archive")).code == 0
    [kept] = Path(str(files.parent / "archive")).rglob("*-db-1-*.rdb")
    kept.unlink()
    listed = await run("ls", "archive")
    assert ": 1 of 2 files are here\n" in listed.out
    assert " damaged " in listed.out


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (("nowhere",), "no archive here"),
        ((), "missing argument: ARCHIVE, or --instance ID (see archiver ls --help)\n"),
    ],
)
async def test_ls_of_nothing(run: Run, args: tuple[str, ...], word: str) -> None:
    result = await run("ls", *args)
    assert result.code == 2
    assert word in result.err


async def test_ls_of_an_archive_does_not_ignore_what_is_for_the_vendor(
    files: Path, run: Run, environ: dict[str, str]
) -> None:
    write_rdb(files / INSTANCE / "a.rdb", 5000)
    assert (await run("pull", "--instance", INSTANCE, "--to", "archive")).code == 0
    refused = await run("ls", "archive", "--region", "cn-hangzhou")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.startswith("archiver: --region is for the vendor, who is not asked")
    # In the environment, it may be meant for an `ls` of the vendor.
    environ["ARCHIVER_LS_REGION"] = "cn-hangzhou"
    assert (await run("ls", "archive")).code == 0


async def test_emulate_says_its_key_and_when_it_is_ready(
    files: Path, run: Run, environ: dict[str, str]
) -> None:
    write_rdb(files / INSTANCE / "a.rdb", 5000)
    without = {k: v for k, v in environ.items() if not k.startswith("ALIBABA_CLOUD_ACCESS")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "archiver", "emulate", str(files), "--port", "0",
        env=without, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        await pull_from(process, run)
    finally:
        if process.returncode is None:
            process.terminate()
    assert await process.wait() == 130


async def pull_from(process: asyncio.subprocess.Process, run: Run) -> None:
    """Take the emulator at its word."""
    assert process.stdout is not None
    said = [(await process.stdout.readline()).decode() for _ in range(3)]
    keys = dict(re.findall(r"export (\w+)=(\w+)\n", "".join(said[:2])))
    ready = re.fullmatch(r"ready: .*--endpoint (http://\S+)\n", said[2])
    assert ready is not None
    pulled = await run(
        "pull", "--instance", INSTANCE, "--to", "x", ARCHIVER_PULL_ENDPOINT=ready[1], **keys
    )
    assert pulled.code == 0


async def test_emulate_obeys_its_policy_quota_and_backup_time(
    files: Path, tmp_path: Path, environ: dict[str, str]
) -> None:
    write_rdb(files / INSTANCE / "a.rdb", 5000)
    allowed = {"Effect": "Allow", "Action": ["kvstore:*Backup", "kvstore:*Tasks"], "Resource": "*"}
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps({"Version": "1", "Statement": [allowed]}))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "archiver", "emulate", str(files), "--port", "0",
        "--policy", str(policy), "--quota", "1", "--backup-time", "1000",
        env=environ, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        endpoint = (await process.stdout.readline()).decode().split()[-1]
        async with aiohttp.ClientSession() as session:

            async def ask(action: str) -> dict[str, Any]:
                params = legacy("GET", Action=action)
                async with session.get(endpoint, params=params) as answer:
                    return cast("dict[str, Any]", await answer.json())

            assert (await ask("DescribeBackups"))["Code"] == "Forbidden.RAM"
            assert (await ask("DescribeBackups"))["Code"] == "Throttling.User"
            assert "BackupJobID" in await ask("CreateBackup")
            [job] = (await ask("DescribeBackupTasks"))["BackupJobs"]
            assert job["BackupProgressStatus"] != "Finished"
    finally:
        process.terminate()
        await process.wait()


async def test_emulate_refuses_what_it_cannot_serve(
    run: Run, tmp_path: Path, emulator: Emulator, files: Path
) -> None:
    assert (await run("emulate", str(tmp_path / "none"))).code == 2
    policy = await run("emulate", str(files), "--port", "0", "--policy", "none.json")
    assert (policy.code, "none.json cannot be read" in policy.err) == (2, True)
    taken = await run("emulate", str(files), "--port", str(emulator.port))
    assert taken.code == 2
    assert "cannot listen" in taken.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_completion(run: Run, shell: str) -> None:
    result = await run("completion", shell)
    assert result.code == 0
    assert "_ARCHIVER_COMPLETE" in result.out


async def test_completion_completes(run: Run) -> None:
    words = {"COMP_WORDS": "archiver pull --ra", "COMP_CWORD": "2"}
    result = await run(_ARCHIVER_COMPLETE="bash_complete", **words)
    assert "--range" in result.out


async def test_version_and_help(run: Run) -> None:
    assert (await run("--version")).out == f"archiver, version {__version__}\n"
    for command in main.list_commands(click.Context(main)):
        shown = await run(command, "--help", COLUMNS="80")
        assert shown.code == 0
        assert all(len(line) <= 80 for line in shown.out.splitlines())
        # Ranges and paths are in words: 1 to 256, 0 or more, FILE, DIRECTORY.
        assert not re.search(r"[<>]=x|x[<>]=|\bPATH\b|\bINTEGER\b|\bFLOAT\b", shown.out)
    shown = await run("pull", "--help")
    assert "Files to download at once. [default: 4; 1 to 256]" in " ".join(shown.out.split())


async def test_a_quick_start_loads_no_http_client() -> None:
    code = "import sys, archiver.cli; print('aiohttp' in sys.modules, 'tqdm' in sys.modules)"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE
    )
    assert (await process.communicate())[0] == b"False False\n"


def test_the_public_names_are_there() -> None:
    for name in archiver.__all__:
        assert getattr(archiver, name) is not None
    with pytest.raises(AttributeError):
        archiver.nonsense  # noqa: B018


@pytest.mark.parametrize("command", ["copy", "drill", "restore"])
@pytest.mark.parametrize("key", ["../..", "/etc", "a//b", "a/../../../b"])
async def test_a_set_outside_the_archive(run: Run, tmp_path: Path, command: str, key: str) -> None:
    places = [str(tmp_path / "archive"), str(tmp_path / "other")]
    result = await run(command, *places[: 1 if command == "drill" else 2], "--set", key)
    assert result.code == 2
    assert "is not the key of a set" in result.err
