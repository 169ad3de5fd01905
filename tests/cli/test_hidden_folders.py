"""Folders that nobody sees into, as the users of the command meet them: what the disk does not
give, and a link where a folder should be. Each command names them, and none says that all is well.
"""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from examples.sample_rdb import write_rdb
from tests.cli.conftest import Run
from tests.conftest import INSTANCE

CLUSTER = "r-bp1cluster"
DAYS = ("20261010", "20261122", "20261123")
NODES = 2
PULL = ("pull", "--instance", CLUSTER, "--instance", INSTANCE, "--to", "archive")
FILES = len(DAYS) * (NODES + 1)
# Where a folder is hidden, and how many of the cluster's sets are in it.
LEVELS = {"set": 1, "month": 1, "year": 3, "instance": 3}


def serve(files: Path) -> None:
    for number, day in enumerate(DAYS):
        write_rdb(files / INSTANCE / f"d_{day}021500.rdb", 5000, number)
        for node in range(NODES):
            path = files / CLUSTER / f"{CLUSTER}-db-{node}" / f"d_{day}031500.rdb"
            write_rdb(path, 5000 + node, number)


@pytest.fixture
async def archive(files: Path, run: Run, tmp_path: Path) -> Path:
    serve(files)
    assert (await run(*PULL)).code == 0
    shutil.copytree(tmp_path / "archive", tmp_path / "offsite")
    return tmp_path / "archive"


def folder_at(archive: Path, level: str) -> Path:
    """A folder of the cluster: of its set in October, or one that this is in."""
    [folder] = archive.glob(f"{CLUSTER}/*/10/*Z-*")
    return [folder, *folder.parents][list(LEVELS).index(level)]


def forbidden(folder: Path) -> None:
    folder.chmod(0)
    if os.access(folder, os.R_OK) and os.geteuid() != 0:
        pytest.skip("modes mean nothing here")


def linked(folder: Path) -> None:
    """It was moved to another disk."""
    [root] = [one for one in folder.parents if one.name == "archive"]
    elsewhere = root.with_name("elsewhere")
    shutil.move(folder, elsewhere)
    folder.symlink_to(elsewhere)


def unmounted(folder: Path) -> None:
    linked(folder)
    folder.readlink().rename(folder.readlink().with_name("not there"))


HIDINGS: dict[str, tuple[Callable[[Path], None], int, str]] = {
    "forbidden": (forbidden, 6, "Permission denied"),
    "linked": (linked, 3, "a symbolic link is in the place of a folder"),
    "unmounted": (unmounted, 3, "a symbolic link is in the place of a folder"),
}


# Whether the instance is named: a listing then begins within what is hidden.
CASES = [
    ("forbidden", "set", False),
    ("forbidden", "month", True),
    ("forbidden", "instance", False),
    ("linked", "month", False),
    ("linked", "year", True),
    ("linked", "instance", False),
    ("linked", "instance", True),
    ("unmounted", "instance", False),
]


def assert_told_once(err: str, why: str, hidden: int) -> None:
    """Of each hidden folder the first backup that it keeps away, with what is wrong; and at the end
    how many more there are."""
    lines = [line for line in err.splitlines() if why in line]
    assert all(f"{CLUSTER}-db-" in line.split(why)[0] for line in lines), err
    folders = {line.partition(": ")[2].partition(": ")[2] for line in lines}
    assert len(lines) == len(folders) <= hidden // NODES, err
    more = re.findall(r"^failed: (\d+) more backups?, for the same reason as ", err, re.MULTILINE)
    assert sum(map(int, more)) + len(lines) == hidden, err


@pytest.mark.parametrize(("how", "level", "named"), CASES)
async def test_every_command_names_it_and_goes_on(
    how: str, level: str, named: bool, archive: Path, run_kept_out: Run, tmp_path: Path
) -> None:
    hide, code, why = HIDINGS[how]
    folder = folder_at(archive, level)
    hidden = LEVELS[level] * NODES
    hide(folder)
    only = ("--instance", CLUSTER) if named else ()
    others = (0 if named else len(DAYS)) + len(DAYS) * NODES - hidden
    try:
        result = await run_kept_out("verify", "archive", *only)
        key = folder.relative_to(archive).as_posix()
        assert result.code == code, result.err
        assert f"{'unreadable' if code == 6 else 'hidden'}: {key}: " in result.err
        assert why in result.err

        result = await run_kept_out("ls", "archive", *only)
        assert (result.code, result.out.count(" archived")) == (code, others), result.err
        assert f"{folder}: {why}".split("/archive/")[1] in result.err

        result = await run_kept_out("copy", "archive", "new", *only)
        assert result.code == code, result.err
        assert len(list((tmp_path / "new").rglob("*.rdb"))) == others
        assert f"{folder}: {why}".split("/archive/")[1] in result.err

        result = await run_kept_out("copy", "archive", "offsite", "--diff", *only)
        assert result.code == code, result.err
        assert f": {key}: " in result.out

        result = await run_kept_out("copy", "offsite", "archive", *only)
        assert result.code == code, result.err
        assert_told_once(result.err, why, hidden)
        result = await run_kept_out("copy", "offsite", "archive", "--diff", *only)
        assert result.code == code, result.err
        assert f": {key}: " in result.out

        result = await run_kept_out(*PULL)
        assert result.code == code, result.err
        assert_told_once(result.err, why, hidden)
        result = await run_kept_out("ls", "archive", "--remote", "--instance", CLUSTER)
        assert (result.code, result.out.count(" damaged")) == (code, hidden), result.err
    finally:
        if how == "forbidden":
            folder.chmod(0o700)
    assert not (archive / ".quarantine").exists() or not list((archive / ".quarantine").iterdir())


@pytest.mark.parametrize("how", ["forbidden", "linked"])
async def test_newer_sets_are_restored(archive: Path, how: str, run_kept_out: Run) -> None:
    """And what is older than what nobody sees is not called the newest before it."""
    hide, code, why = HIDINGS[how]
    folder = folder_at(archive, "month")
    hide(folder)
    try:
        result = await run_kept_out("restore", "archive", "--instance", CLUSTER, "--to", "a")
        assert result.code == 0, result.err
        older = ("--instance", CLUSTER, "--at", "2026-10-15T00:00Z", "--to", "b")
        result = await run_kept_out("restore", "archive", *older)
        assert (result.code, why in result.err) == (code, True), result.err
        result = await run_kept_out("restore", "archive", "--instance", CLUSTER, "--list")
        assert result.out.count("complete\n") == len(DAYS) - 1
    finally:
        if how == "forbidden":
            folder.chmod(0o700)


async def test_a_newer_set_that_is_hidden_is_not_passed_over_in_silence(
    archive: Path, run_kept_out: Run
) -> None:
    [folder] = archive.glob(f"{CLUSTER}/*/11/{DAYS[2]}*")
    forbidden(folder)
    newest = ("restore", "archive", "--instance", CLUSTER, "--to", "restored")
    result = await run_kept_out(*newest)
    assert (result.code, "Permission denied" in result.err) == (6, True), result.err
    result = await run_kept_out(*newest, "--skip-damaged")
    assert (result.code, DAYS[1] in result.err) == (6, True), result.err
    folder.chmod(0o700)


async def test_a_pull_seals_beside_what_it_cannot_see(
    files: Path, run: Run, run_kept_out: Run, tmp_path: Path
) -> None:
    serve(files)
    month = ("--instance", CLUSTER, "--to", "archive", "--range")
    assert (await run("pull", *month, "2026-10-01..2026-10-31")).code == 0
    folder = folder_at(tmp_path / "archive", "set")
    forbidden(folder)
    result = await run_kept_out("pull", *month, "2026-11-01..2026-11-30")
    assert result.code == 0, result.err
    [sums] = (tmp_path / "archive").glob(f"{CLUSTER}/*/11/SHA256SUMS")
    assert len(sums.read_text().splitlines()) == 2 * NODES
    folder.chmod(0o700)


async def test_what_fsck_saves_is_not_a_backup_of_ours(archive: Path, run_kept_out: Run) -> None:
    """Nobody but root sees into lost+found, which is at the root of a file system."""
    (archive / "lost+found").mkdir(mode=0)
    for command in (("verify", "archive"), ("ls", "archive"), ("copy", "archive", "new"), PULL):
        result = await run_kept_out(*command)
        assert result.code == 0, result.err


async def test_what_was_not_asked_for_is_not_reported(archive: Path, run_kept_out: Run) -> None:
    folder = folder_at(archive, "set")
    linked(folder)
    october, november = (("--range", f"2026-{month}-01..2026-{month}-28") for month in (10, 11))
    for asked, code in ((october, 3), (november, 0)):
        for command in (("verify", "archive"), ("copy", "archive", f"new-{code}")):
            result = await run_kept_out(*command, *asked)
            assert (result.code, "a symbolic link" in result.err) == (code, code == 3), result.err
    key = folder.relative_to(archive).as_posix()
    result = await run_kept_out("copy", "archive", "new", "--set", key)
    assert (result.code, "a symbolic link" in result.err) == (3, True), result.err
    [other] = archive.glob(f"{CLUSTER}/*/11/{DAYS[1]}*")
    key = other.relative_to(archive).as_posix()
    assert (await run_kept_out("copy", "archive", "other", "--set", key)).code == 0
    assert (await run_kept_out("copy", "archive", "other", "--set", key, "--diff")).code == 0
