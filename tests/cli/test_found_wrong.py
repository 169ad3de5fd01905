"""What a verify found wrong is not called archived, or held, until it is repaired or right."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from archiver import LocalStore
from archiver.archive.verified import Result, found_wrong, replaced
from archiver.commands.verify.findings import Fault
from archiver.commands.verify.results import _merged
from archiver.errors import BadDocument
from examples.sample_rdb import write_rdb
from tests.cli.conftest import Run
from tests.conftest import INSTANCE

STAMPS = ("20261122021500", "20261123021500", "20261124021500")
PULL = ("pull", "--instance", INSTANCE, "--to", "archive")
LS = ("ls", "archive")
REMOTE = (*LS, "--remote", "--instance", INSTANCE)
NOW = datetime(2026, 11, 24, 2, 15, tzinfo=UTC)


@pytest.fixture
async def objects(files: Path, run: Run, tmp_path: Path) -> list[Path]:
    """Three backups that a pull brought, the oldest first."""
    for stamp in STAMPS:
        write_rdb(files / INSTANCE / f"d_{stamp}.rdb", 5000)
    assert (await run(*PULL)).code == 0
    return sorted((tmp_path / "archive").rglob("*.rdb"))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)


async def test_changed_bytes(objects: list[Path], run: Run) -> None:
    flip(objects[2])
    assert (await run(*LS)).code == 0  # no byte is read
    assert (await run("verify", "archive")).code == 3
    said = f"{objects[2].name}: a verify on "
    (objects[2].parent / "index.jsonl").unlink()
    for words in (LS, REMOTE, PULL, LS):  # and a pull makes the catalogue anew meanwhile
        ended = await run(*words)
        assert ended.code == (0 if words is PULL else 3)
        [line] = [one for one in ended.err.splitlines() if one.startswith("damaged: ")]
        assert said in line
        assert "found it wrong (changed) (verify --repair-from source, or " in line
        assert words is PULL or ended.err.endswith(": 2 archived, 1 damaged\n")
    assert said in (await run(*PULL, "--quiet")).err
    told = [json.loads(line) for line in (await run(*PULL, "--json")).out.splitlines()]
    [event] = [one for one in told if one["event"] == "found_wrong"]
    assert event["error"]["exit_code"] == 3

    repair = await run("verify", "archive", "--repair-from", "source")
    assert (repair.code, "damaged: " in repair.err) == (0, False), repair.err
    for words in (LS, REMOTE, PULL):
        ended = await run(*words)
        assert (ended.code, "damaged" in ended.err) == (0, False), ended.err


async def test_a_copy_that_is_held_may_have_been_found_wrong(objects: list[Path], run: Run) -> None:
    assert (await run("copy", "archive", "other")).code == 0
    flip(objects[2])
    assert (await run("verify", "archive")).code == 3
    ended = await run("copy", "other", "archive", "--quiet")
    assert (ended.code, ended.err.count("found it wrong (changed)")) == (0, 1)
    for one, two in (("archive", "other"), ("other", "archive")):
        ended = await run("copy", one, two, "--diff")
        [line] = ended.out.splitlines()
        assert (ended.code, "damaged in " in line, "found it wrong" in line) == (3, True, True)


async def test_results_that_cannot_be_read_stay(objects: list[Path], tmp_path: Path) -> None:
    store, kept = LocalStore(tmp_path / "archive"), tmp_path / "archive" / "verified" / INSTANCE
    kept.mkdir(parents=True)
    (kept / "2026-11.json").write_text("{")
    with pytest.raises(BadDocument):
        await replaced(store, f"{INSTANCE}/2026/11", [f"{INSTANCE}/2026/11/{objects[0].name}"])
    assert (kept / "2026-11.json").read_text() == "{"


async def test_what_is_put_back_by_hand_is_right_once_it_is_verified(
    objects: list[Path], run: Run
) -> None:
    flip(objects[0])
    assert (await run("verify", "archive")).code == 3
    flip(objects[0])
    assert (await run(*LS)).code == 3
    assert (await run("verify", "archive")).code == 0
    assert (await run(*LS)).code == 0


@pytest.mark.parametrize("command", ["pull", "copy"])
async def test_what_is_brought_again_is_not_wrong_any_more(
    objects: list[Path], run: Run, tmp_path: Path, command: str
) -> None:
    assert (await run("copy", "archive", "other")).code == 0
    assert (await run("verify", "archive")).code == 0  # what was right is remembered
    objects[1].write_bytes(objects[1].read_bytes()[:1000])
    flip(objects[2])
    assert (await run("verify", "archive")).code == 3
    brought = await run(*(PULL if command == "pull" else ("copy", "other", "archive")))
    assert "archived 1 backup" in brought.err
    ended = await run(*LS)
    assert ended.code == 3
    assert ended.err.endswith(": 2 archived, 1 damaged\n")
    [kept] = (tmp_path / "archive" / "verified").rglob("*.json")
    known = json.loads(kept.read_text())["files"]
    assert [("wrong" in one, "at" in one, one["named"]) for _, one in sorted(known.items())] == [
        (False, True, True),
        (False, True, True),
        (True, True, True),
    ]


def test_what_could_not_be_read_is_not_wrong() -> None:
    """And does not hide that it was."""
    unread = Result(wrong_at=NOW, fault=Fault.UNREADABLE)
    wrong = Result(NOW, 5, "0" * 64, NOW, Fault.CHANGED, named=True)
    assert found_wrong("a", {"a": unread, "b": wrong}) is None
    assert found_wrong("b", {"a": unread, "b": wrong}) is not None
    assert found_wrong("c", {"a": unread, "b": wrong}) is None
    assert _merged(wrong, unread) == wrong
    assert _merged(unread, wrong).fault == Fault.CHANGED


async def test_a_copy_of_which_all_failed_is_summed_up(
    objects: list[Path], files: Path, run: Run, tmp_path: Path
) -> None:
    for stamp in STAMPS:
        write_rdb(files / INSTANCE / f"d_{stamp}.rdb", 6000)
    assert (await run(*PULL[:-1], "other")).code == 0
    for path in objects:
        record = next((tmp_path / "other").rglob(f"{path.stem}.json"))
        assert record != path.with_suffix(".json")
    ended = await run("copy", "other", "archive")
    assert ended.code == 3
    *_, nothing, failed, holding = ended.err.splitlines()
    assert nothing == "nothing archived; 0 already in the archive"
    assert failed == "failed: 3"
    assert holding == f"{tmp_path / 'archive'} has backups of 0 instances"
