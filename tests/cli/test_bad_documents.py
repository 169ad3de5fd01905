"""Documents that may not be read, as the users of the command meet them.

The tests may run as root, whom no mode keeps out: the command is run without what lets root in.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from examples.sample_rdb import write_rdb
from tests.cli.conftest import Run
from tests.conftest import INSTANCE

PULL = ("pull", "--instance", INSTANCE, "--to", "archive")
FILES = 3


@pytest.fixture
async def archive(files: Path, run: Run, tmp_path: Path) -> Path:
    for n in range(FILES):
        write_rdb(files / INSTANCE / f"d_2026112{n}021500.rdb", 5_000 + n, n)
    assert (await run(*PULL)).code == 0
    shutil.copytree(tmp_path / "archive", tmp_path / "offsite")
    return tmp_path / "archive"


def records(archive: Path) -> list[Path]:
    return sorted(archive.glob(f"{INSTANCE}/*/*/*Z-*.json"))


async def test_a_record_that_may_not_be_read(
    archive: Path, run_kept_out: Run, tmp_path: Path
) -> None:
    """It is 6 and named; the others go on; and a repair ends it."""
    path = records(archive)[1]
    path.chmod(0)
    path.with_name("index.jsonl").unlink()  # or else nobody has to read it
    if os.access(path, os.R_OK) and os.geteuid() != 0:
        pytest.skip("modes mean nothing here")
    others = FILES - 1

    result = await run_kept_out("ls", "archive")
    assert (result.code, result.out.count(" archived")) == (6, others)
    assert f"{path.name}: Permission denied" in result.err
    result = await run_kept_out("ls", "archive", "--remote", "--instance", INSTANCE)
    assert (result.code, result.out.count(" archived")) == (6, others)
    assert path.name in result.err
    result = await run_kept_out(*PULL)
    assert result.code == 6
    assert path.name in result.err
    assert "failed: 1" in result.err
    result = await run_kept_out("copy", "archive", "new")
    assert (result.code, len(list((tmp_path / "new").rglob("*.rdb")))) == (6, others)
    assert path.name in result.err
    result = await run_kept_out("copy", "archive", "offsite", "--diff")
    assert (result.code, result.out.count("\n")) == (6, 1)
    assert path.name in result.out
    result = await run_kept_out("restore", "archive", "--instance", INSTANCE, "--to", "restored")
    assert result.code == 0
    result = await run_kept_out("restore", "archive", "--instance", INSTANCE, "--list")
    assert result.out.count("complete\n") == others
    result = await run_kept_out("verify", "archive")
    assert result.code == 6
    assert f"unreadable: {path.relative_to(archive).as_posix()}" in result.err
    result = await run_kept_out("verify", "archive", "--repair-from", "offsite")
    assert result.code == 0, result.err
    assert (await run_kept_out("verify", "archive")).code == 0


@pytest.mark.parametrize("name", ["SHA256SUMS", "record"])
async def test_a_repair_from_the_source(archive: Path, run_kept_out: Run, name: str) -> None:
    path = records(archive)[1]
    path = path if name == "record" else path.with_name(name)
    path.chmod(0)
    assert (await run_kept_out("verify", "archive")).code == 6
    result = await run_kept_out("verify", "archive", "--repair-from", "source")
    assert result.code == 0, result.err
    assert (await run_kept_out("verify", "archive")).code == 0


async def test_results_that_may_not_be_read_stay(archive: Path, run_kept_out: Run) -> None:
    assert (await run_kept_out("verify", "archive")).code == 0
    [path] = archive.glob("verified/*/*.json")
    before = path.read_bytes()
    path.chmod(0)
    result = await run_kept_out("verify", "archive")
    assert result.code == 6
    assert f"unreadable: {path.relative_to(archive).as_posix()}" in result.err
    assert path.read_bytes() == before
    path.chmod(0o600)
    assert (await run_kept_out("verify", "archive")).code == 0


async def test_an_archive_that_may_not_be_read(archive: Path, run_kept_out: Run) -> None:
    (archive / "archive.json").chmod(0)
    for command in (("ls", "archive"), ("verify", "archive"), PULL):
        result = await run_kept_out(*command)
        assert result.code == 4
        assert result.err.startswith("archiver: ")
        assert "archive/archive.json: Permission denied" in result.err


def fifo(path: Path) -> None:
    os.mkfifo(path)


def link(path: Path) -> None:
    path.with_name("elsewhere.json").write_text('{"format": 1}')
    path.symlink_to("elsewhere.json")


@pytest.mark.parametrize(
    ("damage", "code", "hint"),
    [
        (fifo, 3, "move it out of the archive: a pull with --create"),
        (Path.mkdir, 3, "move it out of the archive: a pull with --create"),
        (link, 3, "move it out of the archive: a pull with --create"),
        (lambda path: path.write_text("garbage"), 3, "move it out of the archive: a pull with"),
        (lambda path: path.write_text('{"format": 7}'), 2, "use a newer archiver"),
    ],
    ids=["fifo", "folder", "link", "garbage", "newer"],
)
async def test_what_an_archive_says_that_it_is(
    archive: Path, run: Run, tmp_path: Path, damage: Callable[[Path], object], code: int, hint: str
) -> None:
    """All commands say it alike; and what they say to do is the end of it."""
    marker = archive / "archive.json"
    marker.rename(tmp_path / "before.json")
    damage(marker)
    for words in (
        ("ls", "archive"), ("verify", "archive"), PULL, (*PULL, "--create"), (*PULL, "--dry-run"),
        ("restore", "archive", "--instance", INSTANCE, "--to", "restored"), ("drill", "archive"),
        ("copy", "archive", "new"), ("copy", "offsite", "archive"),
        ("copy", "offsite", "archive", "--diff"),
        ("verify", "offsite", "--repair-from", "archive"),
        ("verify", "archive", "--repair-from", "offsite"),
    ):  # fmt: skip
        result = await run(*words)
        assert result.code == code, (words, result.err)
        assert hint in result.err, words
    marker.rename(tmp_path / "moved")
    assert (await run(*PULL, "--create")).code == 0
    assert (await run("ls", "archive")).code == 0


async def test_a_lock_of_nonsense(archive: Path, run: Run) -> None:
    for data in (b"[" * 4000, b'{"pid": [1], "host": {}}', b'{"host": 1e999, "pid": 1}', b"\xff"):
        (archive / ".lock").write_bytes(data)
        (archive / ".locks" / INSTANCE).write_bytes(data)
        shutil.rmtree(archive / INSTANCE)
        result = await run(*PULL)
        assert result.code == 0, result.err


async def test_what_is_damaged_is_named_by_ls(archive: Path, run: Run) -> None:
    path = records(archive)[1]
    path.write_text(path.read_text().replace('"format": 2', '"format": 3'))
    result = await run("ls", "archive", "--json")
    assert result.code == 3
    assert f"damaged: {path.relative_to(archive).as_posix()}: its format is 3" in result.err
    assert result.out.count('"state": "damaged"') == 1
    table = await run("ls", "archive")
    assert (table.code, table.out.count(" damaged")) == (3, 1)
    object_path = path.with_suffix(".rdb")
    assert (await run(*PULL)).code == 0
    object_path.write_bytes(b"short")
    result = await run("ls", "archive", "--remote", "--instance", INSTANCE)
    assert result.code == 3
    assert f"damaged: {object_path.relative_to(archive).as_posix()}: it has 5 bytes, " in result.err


async def test_names_that_no_archive_gives(archive: Path, run: Run) -> None:
    """They are somebody else's: strays, and no record or set of anybody's."""
    month = records(archive)[1].parent
    for name in (b"\xff-1.json", b"\xff-2.rdb", b"a\nb-1.json"):
        (month / os.fsdecode(name)).write_bytes(b"{}")
    other = month / os.fsdecode(b"20261122T021501Z-\xfe")
    other.mkdir()
    (other / "x-1.json").write_bytes(b"{}")
    utf8 = {"PYTHONIOENCODING": "utf-8:strict"}
    for command in (("ls", "archive"), ("copy", "archive", "new"),
                    ("restore", "archive", "--instance", INSTANCE, "--list")):  # fmt: skip
        result = await run(*command, **utf8)
        assert result.code == 0, result.err
    result = await run("verify", "archive", "--json", **utf8)
    assert (result.code, result.out.count('"fault": "stray"')) == (1, 4)
    assert "stray: " in result.err
    assert "\\udcff-1.json" in result.err
