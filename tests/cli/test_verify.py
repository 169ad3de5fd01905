"""``archiver verify`` as its users meet it."""

import asyncio
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import sys
import termios
from contextlib import suppress
from pathlib import Path

import pytest

from archiver import Archive, LocalStore
from examples.sample_rdb import write_rdb
from tests.cli.conftest import Run
from tests.cli.test_pull import assert_one_line
from tests.conftest import INSTANCE

PULL = ("pull", "--instance", INSTANCE, "--to", "archive")
VERIFY = ("verify", "archive")
FILES = 6


@pytest.fixture
async def archive(files: Path, run: Run, tmp_path: Path) -> Path:
    for n in range(FILES):
        write_rdb(files / INSTANCE / f"d_2026112{n % 3}0{n}1500.rdb", 50_000 + n, n)
    assert (await run(*PULL)).code == 0
    return tmp_path / "archive"


def damage(archive: Path) -> Path:
    path = sorted(archive.rglob("*.rdb"))[1]
    data = bytearray(path.read_bytes())
    data[300] ^= 1
    path.write_bytes(data)
    return path


async def test_all_is_well(archive: Path, run: Run) -> None:
    result = await run(*VERIFY)
    assert (result.code, result.out) == (0, "")
    assert result.err.startswith("verified 6 files, 293.0 KiB in ")
    assert result.err.endswith("s: no problems found\n")
    assert (await run(*VERIFY, "-q")).err == ""
    verbose = await run(*VERIFY, "-v")
    assert verbose.err.count("verified: r-") == FILES
    again = await run(*VERIFY, "--since-verified", "30d")
    assert "skipped: 6 files, 293.0 KiB, verified within 30 d" in again.err
    assert again.err.startswith("nothing was read: all were verified recently\n")


async def test_what_is_wrong_is_named_and_exits_3(archive: Path, run: Run) -> None:
    key = damage(archive).relative_to(archive).as_posix()
    result = await run(*VERIFY, "--json")
    assert result.code == 3
    assert f"changed: {key}: SHA-256 is " in result.err
    assert "wrong: 1 changed\n" in result.err
    assert "changed: repair from another archive or the source" in result.err
    finding, summary = (json.loads(line) for line in result.out.splitlines())
    assert (finding["event"], finding["fault"], finding["key"]) == ("finding", "changed", key)
    assert finding["expected"] != finding["found"]
    assert summary["event"] == "summary"
    assert (summary["findings"], summary["faults"]) == (1, {"changed": 1})
    assert (summary["exit_code"], summary["interrupted"], summary["read"]) == (3, False, FILES)
    quiet = await run(*VERIFY, "-q")
    assert (quiet.code, quiet.err.count("\n")) == (3, 1)


async def test_an_anchor(archive: Path, run: Run) -> None:
    """Of evidence that was removed since; and what is none."""
    drill, sha256 = "20261124T021500Z-3f9a1c", "9F" * 32
    result = await run(*VERIFY, "--anchor", f"{drill}:{sha256}")
    assert result.code == 3
    assert f"evidence: drills/2026/11/{drill}.json: missing: does not exist, but" in result.err
    result = await run(*VERIFY, "--anchor", f"{drill}:{sha256[:-1]}")
    assert result.code == 2
    assert "invalid anchor" in result.err


async def test_repaired_from_another_archive(archive: Path, run: Run) -> None:
    shutil.copytree(archive, archive.with_name("offsite"))
    path = damage(archive)
    result = await run(*VERIFY, "--repair-from", "offsite", "--json")
    assert result.code == 0, result.err
    assert f"repaired: {path.relative_to(archive).as_posix()} from " in result.err
    assert "repaired: 1 changed\n" in result.err
    assert ": 1 finding, repaired and verified again\n" in result.err
    summary = json.loads(result.out.splitlines()[-1])
    assert [finding["fault"] for finding in summary["repaired"]] == ["changed"]
    assert summary["findings"] == 0
    assert (await run(*VERIFY)).code == 0


async def test_repaired_from_the_source(archive: Path, files: Path, run: Run) -> None:
    damage(archive)
    result = await run(*VERIFY, "--repair-from", "source")
    assert result.code == 0, result.err
    assert "repaired: 1 changed\n" in result.err
    damage(archive)
    quiet = await run(*VERIFY, "--repair-from", "source", "-q")
    assert [line.partition(": ")[0] for line in quiet.err.splitlines()] == ["changed", "repaired"]
    assert quiet.code == 0
    damage(archive)
    for path in (files / INSTANCE).iterdir():
        path.unlink()
    result = await run(*VERIFY, "--repair-from", "source")
    assert result.code == 3
    assert "not repaired: " in result.err
    assert "the vendor does not have it" in result.err


async def test_a_sample_says_what_it_covered(archive: Path, run: Run) -> None:
    result = await run(*VERIFY, "--sample", "20%", "--seed", "7")
    assert result.code == 0
    assert "verified 2 files, " in result.err
    assert "no problems in these files" in result.err
    assert "sample of 20%, seed 7: of 6 files and 293.0 KiB in 1 month; 4 files were" in result.err
    today = await run(*VERIFY, "--sample", "20%", "--json")
    assert json.loads(today.out.splitlines()[-1])["seed"] > 20_000_000


async def test_a_part_of_it(archive: Path, run: Run) -> None:
    result = await run(*VERIFY, "--instance", INSTANCE, "--range", "2026-11-21")
    assert re.fullmatch(
        f"verified 2 files of {INSTANCE} that started in 2026-11-21T00:00Z..2026-11-22T00:00Z, "
        "97.7 KiB in [0-9.]+ s: no problems found\n",
        result.err,
    )
    nothing = await run(*VERIFY, "--range", "2025-01-01")
    assert (nothing.code, "nothing was verified" in nothing.err) == (1, True)


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("nowhere",), 2, ("no archive here",)),
        (("s3://bucket",), 4, ("s3://", "AWS_ACCESS_KEY_ID")),
        (("archive", "--sample", "5"), 2, ("'5'", "5%")),
        (("archive", "--sample", "200%"), 2, ("200%",)),
        (("archive", "--seed", "5"), 2, ("--sample",)),
        (("archive", "--since-verified", "soon"), 2, ("soon", "2d")),
        (("archive", "--range", "someday"), 2, ("someday",)),
        (("archive", "--instance", "../x"), 2, ("invalid instance ID",)),
        (("archive", "--instance", "r-none"), 1, ("no backup of r-none",)),
        (("archive", "--workers", "0"), 2, ("--workers",)),
        ((), 2, ("ARCHIVE",)),
    ],
)
async def test_bad_input_is_one_line(
    archive: Path, run: Run, args: tuple[str, ...], code: int, words: tuple[str, ...]
) -> None:
    assert_one_line(await run("verify", *args), code, *words)


async def test_a_place_that_takes_no_results(archive: Path, run: Run) -> None:
    (archive / "verified").write_text("in the way")
    result = await run(*VERIFY)
    assert result.code == 1
    assert "hidden: verified: " in result.err
    assert "results not stored: " in result.err


async def test_a_newer_archive(archive: Path, run: Run) -> None:
    (archive / "archive.json").write_text('{"format": 7}')
    assert_one_line(await run(*VERIFY), 2, "format 7")


async def test_completion_completes_it(run: Run) -> None:
    words = {"COMP_WORDS": "archiver verify --since", "COMP_CWORD": "2"}
    result = await run(_ARCHIVER_COMPLETE="bash_complete", **words)
    assert "--since-verified" in result.out


@pytest.mark.parametrize(
    ("other", "changed", "code", "word"),
    [
        ("source", {"ALIBABA_CLOUD_ACCESS_KEY_SECRET": "wrong"}, 3, "SignatureDoesNotMatch"),
        ("source", {"ARCHIVER_VERIFY_ENDPOINT": "http://127.0.0.1:1"}, 3, "127.0.0.1:1"),
    ],
)
async def test_a_repair_that_cannot_begin(
    archive: Path, run: Run, other: str, changed: dict[str, str | None], code: int, word: str
) -> None:
    damage(archive)
    result = await run(*VERIFY, "--repair-from", other, "--retry-for", "0s", **changed)
    assert result.code == code
    assert word in result.err
    assert "wrong: 1 changed" in result.err


@pytest.mark.parametrize(
    ("other", "code", "word"),
    [
        ("nowhere", 2, "nowhere: there is no archive here"),
        ("sorce", 2, "sorce"),
        ("source", 2, "missing option: --region ID, or --endpoint HOST"),
        ("s3://bucket", 4, "s3://"),
    ],
)
async def test_who_repairs_is_looked_at_first(
    archive: Path, run: Run, other: str, code: int, word: str
) -> None:
    result = await run(*VERIFY, "--repair-from", other, ARCHIVER_VERIFY_ENDPOINT=None)
    assert (result.code, word in result.err) == (code, True)
    assert "verified" not in result.err


async def test_a_repair_while_another_writes(archive: Path, run: Run) -> None:
    damage(archive)
    shutil.copytree(archive, archive.with_name("offsite"))
    async with Archive(LocalStore(archive)).writing(INSTANCE):
        result = await run(*VERIFY, "--repair-from", "offsite")
    assert result.code == 3  # what was found outranks that it could not be mended now
    assert "wrong: 1 changed" in result.err
    assert f"is writing to {INSTANCE} in this archive" in result.err


async def test_a_bar_on_a_terminal(archive: Path, environ: dict[str, str], tmp_path: Path) -> None:
    path = damage(archive)
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "archiver", *VERIFY, env=environ, cwd=tmp_path, stdout=side,
        stderr=side,
    )  # fmt: skip
    os.close(side)
    shown = b""
    loop = asyncio.get_running_loop()
    with suppress(OSError):
        while piece := await loop.run_in_executor(None, os.read, main, 65536):
            shown += piece
    os.close(main)
    assert await process.wait() == 3
    assert b"read: 100%" in shown
    assert f"changed: {path.relative_to(archive).as_posix()}" in shown.decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
async def test_stopped_in_the_middle_and_begun_again(
    environ: dict[str, str], files: Path, run: Run, tmp_path: Path, number: signal.Signals
) -> None:
    """A pipe among the files holds the reading up, so that the middle is the middle."""
    for n in range(40):
        write_rdb(files / INSTANCE / f"d_20261120{n % 24:02}{n:02}00.rdb", 5_000, n)
    assert (await run(*PULL)).code == 0
    paths = sorted((tmp_path / "archive").rglob("*.rdb"))
    held = paths[20].read_bytes()
    paths[20].unlink()
    os.mkfifo(paths[20])
    code = (
        "from archiver.commands.verify import model\n"
        "import dataclasses, sys, archiver.cli.verify as v\n"
        "given = v._options\n"
        "v._options = lambda g: dataclasses.replace(given(g), keep_every=0.0)\n"
        "from archiver.cli import main; main(sys.argv[1:])"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, *VERIFY, "-v", "--workers", "1", env=environ, cwd=tmp_path,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    for _ in range(20):
        assert b"verified: " in await asyncio.wait_for(process.stderr.readline(), 30)
    process.send_signal(number)
    if number is signal.SIGINT:
        await asyncio.sleep(0.5)
        with suppress(ProcessLookupError):
            process.kill()  # if it waits for the pipe by now, as for a disk that hangs
    await process.wait()
    paths[20].unlink()
    paths[20].write_bytes(held)
    result = await run(*VERIFY, "--since-verified", "1d", "--json")
    assert result.code == 0
    summary = json.loads(result.out.splitlines()[-1])
    assert summary["read"] + summary["recent"] == 40
    assert summary["recent"] >= 19
