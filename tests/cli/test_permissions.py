"""What the modes of files keep this user from: it fails alone where it belongs to one instance, and
says who owns it and what to do."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from examples.sample_rdb import rdb, write_rdb
from tests.archive.sample import INSTANCE, STARTS, put_standard
from tests.cli.conftest import Run

ONE, TWO = "r-prod1", "r-prod2"
PULL = ("pull", "--instance", TWO, "--instance", ONE, "--to", "archive")
COPY = ("copy", "offsite", "archive")
HINT = "run this as its owner, or change that with chown or chmod"


def serve(files: Path, month: str = "11") -> None:
    for number, instance_id in enumerate((ONE, TWO)):
        write_rdb(files / instance_id / f"d_2026{month}01021500.rdb", 5000, number)


@pytest.fixture
async def archive(files: Path, run: Run, tmp_path: Path) -> Path:
    """An archive of two instances, each of which lacks a backup that the vendor and ``offsite``
    have: of a month that is there, and of one that is not."""
    serve(files, "11")
    assert (await run(*PULL)).code == 0
    for instance_id in (ONE, TWO):
        write_rdb(files / instance_id / "d_20261102021500.rdb", 5000, 7)
    serve(files, "12")
    assert (await run(*PULL[:-1], "offsite")).code == 0
    return tmp_path / "archive"


def keep_out(path: Path, mode: int = 0o500) -> Callable[[], None]:
    """Keep its owner from writing there; what gives that back."""
    before = path.stat().st_mode
    path.chmod(mode)
    if os.access(path, os.W_OK) and os.geteuid() != 0:
        pytest.skip("modes mean nothing here")
    return lambda: path.chmod(before)


# What of the first instance is kept out, and how many of its two backups come home all the same.
OF_ONE = {
    f"{ONE}/2026/11": 1,
    ONE: 0,
    f".locks/{ONE}": 0,
    f".staging/{ONE}": 0,
    f".quarantine/{ONE}": 2,  # found when the lock is released
}


@pytest.mark.parametrize("command", [PULL, COPY], ids=["pull", "copy"])
@pytest.mark.parametrize("place", OF_ONE)
async def test_an_instance_that_may_not_be_written(
    command: tuple[str, ...], place: str, archive: Path, run: Run, run_kept_out: Run
) -> None:
    if place == ONE:
        shutil.rmtree(archive / ONE / "2026")
    if place in (f".staging/{ONE}", f".quarantine/{ONE}"):
        (archive / place).mkdir(parents=True)
        (archive / place / "kept").touch()
    give_back = keep_out(archive / place, 0o300 if place.startswith(".") else 0o500)
    before = len(list((archive / ONE).rglob("*.rdb")))
    try:
        result = await run_kept_out(*command)
    finally:
        give_back()
    assert result.code == 4, result.err
    assert len(list((archive / TWO).rglob("*.rdb"))) == 3, result.err
    assert len(list((archive / ONE).rglob("*.rdb"))) == before + OF_ONE[place], result.err
    failed = [line for line in result.err.splitlines() if line.startswith("failed: ")]
    assert sum("Permission denied" in line for line in failed) == 1, result.err
    [line] = [line for line in failed if "Permission denied" in line]
    assert ONE in line
    assert f"/{place} belongs to " in line or "Permission denied: it belongs to " in line
    assert HINT in line
    assert "stopped early" not in result.err
    if place.startswith("."):  # the instance fails once, not each of its backups
        assert "failed: 1" in result.err.splitlines()
    assert (await run(*command)).code == 0
    assert (await run("copy", "offsite", "archive", "--diff")).code == 0


async def test_an_instance_that_may_not_be_repaired(
    archive: Path, run: Run, run_kept_out: Run
) -> None:
    for instance_id in (ONE, TWO):
        [dump] = (archive / instance_id).rglob("*.rdb")
        dump.write_bytes(b"?" * dump.stat().st_size)
    for supplier in ("offsite", "source"):
        give_back = keep_out(archive / ".locks" / ONE, 0o400)
        try:
            result = await run_kept_out("verify", "archive", "--repair-from", supplier)
        finally:
            give_back()
        assert result.code == 3, result.err  # it is damaged still
        assert f"not repaired: {ONE}/2026/11/" in result.err
        assert "Permission denied: it belongs to " in result.err
        result = await run("verify", "archive")
        assert (result.code, TWO in result.err) == (3, False), result.err


@pytest.mark.parametrize("place", [".locks", ".staging", "archive.json", ""])
async def test_what_concerns_the_whole_archive_ends_the_run(
    place: str, archive: Path, run_kept_out: Run, files: Path
) -> None:
    (archive / ".locks" / ONE).unlink()
    (archive / ".locks" / TWO).unlink()
    give_back = keep_out(archive / place, 0 if place in ("archive.json", "") else 0o500)
    try:
        for command in (PULL, COPY):
            result = await run_kept_out(*command)
            assert result.code == 4, result.err
            assert "failed: " not in result.err
            [line] = [one for one in result.err.splitlines() if "Permission denied" in one]
            assert f"archive/{place}".rstrip("/") in line
            assert " belongs to " in line
            assert HINT in line
    finally:
        give_back()


@pytest.mark.parametrize(
    "command",
    [
        (*PULL[:-1], "locked/archive"),
        ("restore", "archive", "--instance", ONE, "--to", "locked/restored"),
        ("ls", "locked/archive"),
        ("verify", "locked/archive"),
        ("copy", "archive", "locked/copy"),
    ],
    ids=lambda words: words[0],
)
async def test_a_folder_that_nobody_may_look_into(
    command: tuple[str, ...], archive: Path, run_kept_out: Run, tmp_path: Path
) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    give_back = keep_out(locked, 0)
    try:
        result = await run_kept_out(*command)
    finally:
        give_back()
    assert result.code == 4, result.err
    assert f"{locked} belongs to " in result.err
    assert HINT in result.err
    assert "damaged" not in result.out + result.err


async def test_a_dump_that_may_not_be_read_is_not_called_damaged(
    tmp_path: Path, run_kept_out: Run
) -> None:
    dumps = [put_standard(tmp_path / "archive", rdb(3000), start) for start in STARTS]
    give_back = keep_out(dumps[-1], 0)
    try:
        result = await run_kept_out("restore", "archive", "--instance", INSTANCE, "--to", "out")
    finally:
        give_back()
    assert result.code == 6, result.err
    assert " is damaged" not in result.err
    assert "cannot be read: " in result.err
    assert result.err.index(HINT) < result.err.index("--skip-damaged")


needs_mount = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mount") is None, reason="needs root and mount"
)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def copied(archive: Path, tmp_path: Path) -> Path:
    """A copy of an archive. Its catalogue knows other inodes: it would be made anew."""
    subprocess.run(["cp", "-a", tmp_path / "offsite", tmp_path / "copied"], check=True)
    return tmp_path / "copied"


async def assert_nothing_new(run: Run, copied: Path) -> None:
    result = await run(*PULL[:-1], "copied", "--log-file", "run.log")
    assert result.code == 0, result.err
    log = (copied.parent / "run.log").read_text()
    assert f"{ONE}/2026/11/index.jsonl was not written: " in log
    result = await run("copy", "archive", "copied")
    assert result.code == 0, result.err


async def test_a_run_without_news_needs_no_lock(copied: Path, run_kept_out: Run) -> None:
    for instance_id in (ONE, TWO):
        keep_out(copied / ".locks" / instance_id, 0o400)
    await assert_nothing_new(run_kept_out, copied)


@needs_mount
async def test_a_run_without_news_on_a_read_only_disk(copied: Path, run: Run) -> None:
    with read_only(copied):
        await assert_nothing_new(run, copied)


@needs_mount
async def test_a_read_only_disk_ends_a_run_that_must_write(archive: Path, run: Run) -> None:
    with read_only(archive):
        result = await run(*PULL)
    assert result.code == 6, result.err
    assert result.err.count("Read-only file system") == 1
    assert "failed: " not in result.err
