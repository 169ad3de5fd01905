"""Where the evidence of a drill goes when the archive or the directory beside it is in trouble."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from examples.sample_rdb import rdb
from tests.archive.sample import put_standard
from tests.cli.conftest import Run

needs_mount = pytest.mark.skipif(os.geteuid() != 0, reason="NEEDS ROOT to mount a small tmpfs")


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Path]:
    """An archive that fills its file system."""
    place = tmp_path / "archive"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("MOUNTING IS NOT ALLOWED HERE")
    try:
        put_standard(place, rdb(5000))
        with (place / "fill").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@needs_mount
async def test_a_full_disk_stops_no_drill(run: Run, archive: Path, tmp_path: Path) -> None:
    done = await run("drill", "archive", "-q", "--evidence", "kept")
    assert done.code == 0, done.err
    assert "No space left on device" in done.err
    [path] = (tmp_path / "kept").glob("*.json")
    assert json.loads(path.read_text())["conclusion"]["passed"] is True

    done = await run("drill", "archive", "-q", "--junit", "junit.xml")
    assert done.code == 6
    assert json.loads(done.out)["conclusion"]["passed"] is True
    assert "could not be stored" in done.err
    assert "No space left on device" in done.err
    assert "Pass: The backup set restored" in done.err
    assert (tmp_path / "junit.xml").exists()


@pytest.fixture
def small(archive: Path, tmp_path: Path) -> Iterator[Path]:
    """A folder on the same full file system, seen from where no archive is."""
    (archive / "full").mkdir()
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "--bind", archive / "full", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@needs_mount
async def test_no_space_in_both_places(run: Run, archive: Path, small: Path) -> None:
    done = await run("drill", "archive", "-q", "--evidence", "small/drills-beside")
    assert done.code == 6
    assert json.loads(done.out)["conclusion"]["passed"] is True
    assert "could not be stored" in done.err


@needs_mount
async def test_a_full_evidence_directory(run: Run, small: Path, tmp_path: Path) -> None:
    put_standard(tmp_path / "other", rdb(5000))
    done = await run("drill", "other", "-q", "--evidence", "small/beside")
    assert done.code == 6
    assert "No space left on device" in done.err
    assert "Pass: The backup set restored" in done.err
    assert len(list((tmp_path / "other").glob("drills/*/*/*.json"))) == 1


@needs_mount
async def test_a_read_only_mount_stops_no_drill(run: Run, archive: Path, tmp_path: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", archive], check=True)
    done = await run("drill", "archive", "-q")
    assert done.code == 6
    assert json.loads(done.out)["conclusion"]["passed"] is True
    assert "Read-only file system" in done.err
    done = await run("drill", "archive", "-q", "--evidence", "kept")
    assert done.code == 0, done.err
    assert len(list((tmp_path / "kept").glob("drills/*/*/*.json"))) == 1


async def test_an_archive_that_may_not_be_written(run_kept_out: Run, tmp_path: Path) -> None:
    put_standard(tmp_path / "archive", rdb(5000))
    (tmp_path / "archive").chmod(0o500)
    done = await run_kept_out("drill", "archive", "-q")
    assert done.code == 6, done.err
    assert json.loads(done.out)["conclusion"]["passed"] is True
    assert "Permission denied" in done.err


async def test_wrong_bytes_count_more_than_busy(run: Run, tmp_path: Path) -> None:
    """Both are said; and the worse of them is the exit code."""
    target = put_standard(tmp_path / "archive", rdb(5000))
    target.write_bytes(target.read_bytes()[:-1] + b"?")
    (tmp_path / "archive" / ".lock").mkdir()
    done = await run("drill", "archive", "-q")
    assert done.code == 6
    assert json.loads(done.out)["conclusion"]["exit_code"] == 3
    assert "Fail: " in done.err


async def test_a_junit_file_that_cannot_be_written(run: Run, tmp_path: Path) -> None:
    put_standard(tmp_path / "archive", rdb(5000))
    done = await run("drill", "archive", "-q", "--junit", "none/junit.xml")
    assert done.code == 6
    assert "none/junit.xml: No such file or directory" in done.err
    assert "unexpected" not in done.err


async def test_what_to_do_about_a_broken_chain_is_said(run: Run, tmp_path: Path) -> None:
    put_standard(tmp_path / "archive", rdb(5000))
    assert (await run("drill", "archive", "-q")).code == 0
    [path] = (tmp_path / "archive").glob("drills/*/*/*.json")
    path.write_bytes(b"{}")
    done = await run("drill", "archive", "-q")
    assert done.code == 3
    assert "move drills/ away" in done.err
    (tmp_path / "archive" / "drills").rename(tmp_path / "drills")
    assert (await run("drill", "archive", "-q")).code == 0
