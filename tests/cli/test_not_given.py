"""What the disk does not give, file by file: exit code 6, its name, and no waiting for it."""

import os
import shutil
from pathlib import Path

import pytest

from examples.sample_rdb import rdb
from tests.archive.sample import CLUSTER, INSTANCE, STARTS, put_cluster, put_standard, sums_of
from tests.cli.conftest import Run

COMMANDS = {
    "ls": ("ls", "archive"),
    "copy": ("copy", "archive", "new", "--verbose"),
    "diff": ("copy", "archive", "offsite", "--diff"),
    "verify": ("verify", "archive"),
    "restore": ("restore", "archive", "--instance", INSTANCE, "--to", "restored"),
}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """The newest dump of an archive with a copy, alone in its month."""
    starts = ("20261021T021500Z", "20261022T021500Z", STARTS[-1])
    dumps = [put_standard(tmp_path / "archive", rdb(3000), start) for start in starts]
    shutil.copytree(tmp_path / "archive", tmp_path / "offsite")
    return dumps[-1]


@pytest.mark.parametrize("name", ["object", "record", "folder"])
async def test_every_command_says_so(name: str, target: Path, run_kept_out: Run) -> None:
    named = {
        "object": target, "record": target.with_suffix(".json"), "folder": target.parent,
    }[name]  # fmt: skip
    named.chmod(0)
    if os.access(named, os.R_OK) and os.geteuid() != 0:
        pytest.skip("modes mean nothing here")
    try:
        # ls and --diff read no object.
        commands = [*COMMANDS] if name != "object" else ["copy", "verify"]
        for command in commands:
            result = await run_kept_out(*COMMANDS[command])
            assert result.code == 6, (command, result.err)
            assert named.name in result.out + result.err
            assert "Permission denied" in result.out + result.err
            assert "retry" not in result.err
        result = await run_kept_out(*COMMANDS["restore"])
        assert result.code == 6
        assert "(--skip-damaged restores one " in result.err
        result = await run_kept_out(*COMMANDS["restore"], "--skip-damaged")
        assert (result.code, "redis-server" in result.out) == (6, True), result.err
    finally:
        named.chmod(0o700)


async def test_the_sha256sums_of_a_month_that_is_not_given(
    target: Path, run_kept_out: Run, tmp_path: Path
) -> None:
    """It is named once, whatever is in its month. Records prove a standard instance's dumps, which
    go on; of a cluster's set nobody knows whether it is whole."""
    made = [put_cluster(tmp_path / "archive", start) for start in ("20261021T021500Z", *STARTS)]
    shutil.rmtree(tmp_path / "offsite")
    shutil.copytree(tmp_path / "archive", tmp_path / "offsite")
    for named in (sums_of(target), sums_of(made[-1][0])):
        instance = ("--instance", named.parents[2].name)
        named.chmod(0)
        if os.access(named, os.R_OK) and os.geteuid() != 0:
            pytest.skip("modes mean nothing here")
        for command in ("ls", "copy", "diff", "verify"):
            result = await run_kept_out(*COMMANDS[command], *instance)
            assert result.code == 6, (command, result.err)
            said = result.out if command == "diff" else result.err
            assert said.count(f"{named.parent.name}/SHA256SUMS: Permission denied") == 1, said
            shutil.rmtree(tmp_path / "new", ignore_errors=True)
        named.chmod(0o600)
    sums_of(target).chmod(0)
    result = await run_kept_out(*COMMANDS["restore"])
    assert (result.code, STARTS[-1] in result.err) == (0, True), result.err
    assert "Permission denied" in result.err
    sums_of(made[-1][0]).chmod(0)
    cluster = ("restore", "archive", "--instance", CLUSTER, "--to", "restored")
    result = await run_kept_out(*cluster)
    assert (result.code, "--skip-damaged restores one " in result.err) == (6, True), result.err
    result = await run_kept_out(*cluster, "--skip-damaged")
    assert (result.code, result.out.count("redis-server")) == (6, 3), result.err


async def test_a_list_is_of_an_archive(target: Path, run_kept_out: Run, tmp_path: Path) -> None:
    """And of one that this version knows."""
    command = ("--instance", INSTANCE, "--list")
    result = await run_kept_out("restore", "nowhere", *command)
    assert (result.code, "there is no archive here" in result.err) == (2, True)
    marker = tmp_path / "archive" / "archive.json"
    unknown = '{"format": 99}', 2, "format 99"
    unreleased = '{"format": 1}', 2, "of format 1, which was never released"
    for text, code, why in (("?", 3, "archive.json"), unknown, unreleased):
        marker.write_text(text)
        result = await run_kept_out("restore", "archive", *command)
        assert (result.code, result.out, why in result.err) == (code, "", True)


async def test_an_archive_is_not_repaired_from_itself(target: Path, run_kept_out: Run) -> None:
    target.unlink()
    result = await run_kept_out("verify", "archive", "--repair-from", "archive/../archive")
    assert (result.code, "the same archive" in result.err) == (2, True), result.err


async def test_what_lies_in_the_place_of_an_object_is_said(target: Path, run_kept_out: Run) -> None:
    target.unlink()
    os.mkfifo(target)
    for command in ("ls", "restore", "diff"):
        result = await run_kept_out(*COMMANDS[command])
        assert result.code == 3
        assert "a FIFO is in its place" in result.out + result.err
