"""Runs that divide the instances of one archive, at the same time."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest

from archiver import Archive, LocalStore, verify
from archiver.archive.contents import instances
from archiver.archive.verified import PREFIX, month_of
from archiver.report import chain
from archiver.shards import Shard
from archiver.stores.s3 import S3Options, S3Store
from archiver.times import format_compact
from examples.sample_rdb import write_rdb
from tests.archive.sample import put_backup, put_sums
from tests.cli.conftest import Result, Run
from tests.drill.conftest import program
from tests.servers.seaweedfs import WRITER

COUNT = 3
NAMES = [f"r-bp1shard{number:04}" for number in range(8)]
OWN = [Shard(index, COUNT).own(NAMES) for index in range(COUNT)]
ALL = [word for name in NAMES for word in ("--instance", name)]
Lines = list[dict[str, Any]]


@pytest.fixture(params=["directory", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "directory":
        return str(tmp_path / "archive")
    request.getfixturevalue("s3_writer")
    return f"s3://{request.getfixturevalue('bucket')}/redis"


@pytest.fixture
def variables(place: str, request: pytest.FixtureRequest) -> Mapping[str, str]:
    if not place.startswith("s3:"):
        return {}
    return {
        "AWS_ENDPOINT_URL_S3": request.getfixturevalue("seaweed").endpoint,
        "AWS_ACCESS_KEY_ID": WRITER.key_id,
        "AWS_SECRET_ACCESS_KEY": WRITER.secret,
    }


@pytest.fixture
def archive(place: str, variables: Mapping[str, str]) -> Archive:
    if not variables:
        return Archive(LocalStore(Path(place)))
    return Archive(S3Store(place, S3Options(endpoint=variables["AWS_ENDPOINT_URL_S3"])))


async def together(run: Run, variables: Mapping[str, str], *words: str) -> list[Result]:
    """Every shard of a command at the same time."""
    results: dict[int, Result] = {}

    async def start(index: int) -> None:
        results[index] = await run(*words, "--json", "--shard", f"{index}/{COUNT}", **variables)

    async with anyio.create_task_group() as group:
        for index in range(COUNT):
            group.start_soon(start, index)
    return [results[index] for index in range(COUNT)]


def lines(done: Result) -> Lines:
    return [json.loads(line) for line in done.out.splitlines()]


async def pulled(run: Run, files: Path, place: str, variables: Mapping[str, str]) -> None:
    now = datetime.now(UTC)
    for seed, name in enumerate(NAMES):
        write_rdb(files / name / f"{seed}_{now:%Y%m%d%H%M%S}.rdb", 5_000, seed)
    results = await together(run, variables, "pull", *ALL, "--to", place, "--max-age", "26h")
    for done, own in zip(results, OWN, strict=True):
        assert done.code == 0, done.err
        archived = [line for line in lines(done) if line["event"] == "archived"]
        assert sorted(one["backup"]["instance_id"] for one in archived) == sorted(own)
        assert lines(done)[-1]["archived"] == len(own)
        assert f"{len(own)} of {len(own)} instances requested" in done.err


async def test_all_at_once(
    run: Run, files: Path, place: str, variables: Mapping[str, str], archive: Archive
) -> None:
    """Each pulls, verifies and drills its own instances, and together they miss none."""
    assert all(OWN)
    await pulled(run, files, place, variables)
    assert await instances(archive.store) == NAMES

    results = await together(run, variables, "verify", place)
    for done, own in zip(results, OWN, strict=True):
        assert (done.code, lines(done)[-1]["read"]) == (0, len(own)), done.err
    kept = [month_of(entry.key) or "" async for entry in archive.store.entries(PREFIX)]
    assert [month.partition("/")[0] for month in sorted(kept)] == NAMES

    valkey = await program("valkey", 9, 1)
    words = ("drill", place, "--server", str(valkey.path), "--max-change", "10%")
    for _ in range(2):
        results = await together(run, variables, *words)
        for done, own in zip(results, OWN, strict=True):
            assert done.code == 0, done.err
            drilled = [line["set"] for line in lines(done) if line["event"] == "set_drilled"]
            assert [key.partition("/")[0] for key in drilled] == sorted(own)
    # The second drill found the last one of each instance, whichever shard filed it.
    assert not any("not compared" in done.err for done in results)
    await _check_chain(archive, drills=2 * COUNT)
    assert (await verify(archive)).findings == []


async def _check_chain(archive: Archive, drills: int) -> None:
    keys = [one.key async for one in archive.store.entries(chain.PREFIX)]
    documents = [(key, await archive.store.read(key) or b"") for key in sorted(keys)]
    documents = [(key, data) for key, data in documents if chain.is_evidence_key(key)]
    assert len(documents) == drills
    assert chain.check_chain(documents) == []
    named = [json.loads(data)["selection"]["instances"] for _, data in documents]
    assert sorted(named) == sorted(sorted(own) for own in 2 * OWN)


EMPTY = f"shard {{}}/{COUNT} has no instance among those {{}}: nothing to do"


@pytest.fixture
def one(tmp_path: Path) -> int:
    """An archive of one instance; its shard."""
    started = format_compact(datetime.now(UTC))
    put_sums(put_backup(tmp_path / "archive", started, b"", instance=NAMES[0]).parent)
    return next(index for index in range(COUNT) if NAMES[0] in OWN[index])


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("pull", "--instance", NAMES[0], "--to", "archive", "--max-age", "26h"), "requested"),
        (("verify", "archive"), "to verify"),
        (("verify", "archive", "--instance", NAMES[0]), "to verify"),
        (("drill", "archive"), "to drill"),
        (("drill", "archive", "--instance", NAMES[0]), "to drill"),
        (("drill", "archive", "--set", f"{NAMES[0]}/2026/11/20261124T021500Z-1"), "to drill"),
    ],
)
async def test_an_empty_shard(run: Run, one: int, words: tuple[str, ...], what: str) -> None:
    other = (one + 1) % COUNT
    done = await run(*words, "--json", "--shard", f"{other}/{COUNT}")
    assert done.code == 0, done.err
    assert done.err.count(EMPTY.format(other, what)) == 1
    [last] = lines(done)
    assert (last["event"], last["exit_code"], last["why"]) == ("summary", 0, None)
    quiet = await run(*words, "--quiet", "--shard", f"{other}/{COUNT}")
    assert (quiet.code, quiet.err) == (0, "")


@pytest.mark.parametrize("command", ["verify", "drill"])
async def test_an_archive_without_instances_has_no_empty_shard(
    run: Run, tmp_path: Path, command: str
) -> None:
    """Nothing was verified, and nothing was drilled: that is not a success."""
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "archive.json").write_text('{"format": 2}')
    done = await run(command, "archive", "--shard", f"0/{COUNT}")
    assert done.code == 1, done.err


async def test_what_belongs_to_no_instance_is_verified_with_shard_0(
    run: Run, tmp_path: Path
) -> None:
    for name in NAMES:
        made = put_backup(tmp_path / "archive", "20261124T021500Z", b"", instance=name)
        put_sums(made.parent)
    (tmp_path / "archive" / "drills").mkdir()
    (tmp_path / "archive" / "drills" / "stray").write_text("x")
    for index in range(COUNT):
        done = await run("verify", "archive", "--json", "--shard", f"{index}/{COUNT}")
        found = [line["key"] for line in lines(done) if line["event"] == "finding"]
        assert ("drills/stray" in found) == (index == 0)


async def test_an_instance_that_is_gone_is_missed_by_its_shard_alone(
    run: Run, tmp_path: Path
) -> None:
    """The results of an earlier verify show that it was there."""
    for name in NAMES:
        made = put_backup(tmp_path / "archive", "20261124T021500Z", b"", instance=name)
        put_sums(made.parent)
    await run("verify", "archive")
    gone = OWN[1][0]
    (tmp_path / "archive" / gone).rename(tmp_path / "gone")
    for index in range(COUNT):
        done = await run("verify", "archive", "--json", "--shard", f"{index}/{COUNT}")
        found = [line["fault"] for line in lines(done) if line.get("key", "").startswith(gone)]
        assert ("missing" in found) == (index == 1), done.err


async def test_overdue_are_those_of_the_shard(run: Run, files: Path) -> None:
    for name in NAMES:
        write_rdb(files / name / "1_20200101021500.rdb", 5_000)
    words = ("pull", *ALL, "--to", "archive", "--max-age", "26h", "--json")
    for index, own in enumerate(OWN):
        done = await run(*words, "--shard", f"{index}/{COUNT}")
        overdue = [line["instance_id"] for line in lines(done) if line["event"] == "overdue"]
        assert (done.code, overdue, lines(done)[-1]["overdue"]) == (1, list(own), len(own))


async def test_sets_of_other_shards_are_not_drilled(run: Run, tmp_path: Path) -> None:
    """``--set`` names sets of several shards."""
    keys = []
    for name in NAMES[:4]:
        made = put_backup(tmp_path / "archive", "20261124T021500Z", b"", instance=name)
        put_sums(made.parent)
        keys.append(made.relative_to(tmp_path / "archive").as_posix().rpartition(".")[0])
    words = [word for key in keys for word in ("--set", key)]
    for index, own in enumerate(OWN):
        done = await run("drill", "archive", *words, "--json", "--shard", f"{index}/{COUNT}")
        drilled = [line["set"] for line in lines(done) if line["event"] == "set_drilled"]
        assert drilled == [key for key in keys if key.partition("/")[0] in own]
