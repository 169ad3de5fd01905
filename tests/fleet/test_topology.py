"""How many shards a classic cluster's backups should have, by what its topology was around them."""

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from archiver import Archive, FleetSource, Selection, pull, static_chain
from archiver.concurrency import in_thread
from archiver.emulator import Emulator, Policy
from archiver.errors import SourceError
from archiver.model import Backup, BackupType, NodesExpected, Status
from archiver.sources.alibaba.cache import COMPARED, Cache, Owner
from archiver.sources.alibaba.fields import SOURCE
from archiver.sources.alibaba.topology import ACTION, Topology, read_nodes
from examples.sample_rdb import write_rdb
from tests.conftest import QUICK, EmulatorMaker, credentials, everything

ID, REGION = "r-classic", "cn-hangzhou"
NOW = datetime.now(UTC).replace(microsecond=0)
MADE = NOW - timedelta(days=1)
BEFORE = (NOW - timedelta(days=2)).timestamp()
FOUR = NodesExpected(4, ACTION)
NODES = [f"{ID}-db-{number}" for number in range(4)]


def describe(files: Path, **fields: Any) -> None:
    """A cluster of four shards, of which the backups have three."""
    for node in NODES[:3]:
        write_rdb(files / ID / node / f"dump_{MADE:%Y%m%d%H%M%S}.rdb", 1000)
    known = {"ArchitectureType": "cluster", "RegionId": REGION, "ShardCount": 4, **fields}
    (files / "instances.json").write_text(json.dumps({"instances": {ID: known}}))


async def observed(folder: Path, emulator: Emulator, nodes: list[str], at: float = BEFORE) -> None:
    """Let an earlier run have been told these shards."""
    owner = Owner.of(credentials(), emulator.endpoint, REGION)
    cache = Cache(folder, owner, clock=lambda: at)
    cache.put(f"{COMPARED}{ID}", {"nodes": nodes, "since": at, "until": at})
    await in_thread(cache.save)


@asynccontextmanager
async def fleet_of(
    emulator: Emulator, folder: Path | None, *, refresh: bool = False
) -> AsyncIterator[FleetSource]:
    async with FleetSource(
        static_chain(credentials()).get,
        (REGION,),
        endpoint=emulator.endpoint,
        retry=replace(QUICK, attempts=1),
        cache_folder=folder,
        refresh=refresh,
    ) as fleet:
        await fleet.find(Selection((ID,)))
        yield fleet


async def listed(emulator: Emulator, folder: Path | None, **options: bool) -> set[object]:
    """What a run says that the backups should have."""
    async with fleet_of(emulator, folder, **options) as fleet:
        pages = [page async for page in fleet.pages(everything(ID))]
    return {one.nodes_expected for page in pages for one in page.backups}


def calls(emulator: Emulator) -> int:
    return emulator.tally.calls_by_action.get(ACTION, 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "kept"


async def test_two_equal_answers_tell_what_was_made_between_them(
    files: Path, folder: Path, emulator_of: EmulatorMaker
) -> None:
    describe(files)
    emulator = await emulator_of(files)
    await observed(folder, emulator, NODES)
    assert await listed(emulator, folder) == {FOUR}
    assert await listed(emulator, folder) == {FOUR}
    assert await listed(emulator, folder, refresh=True) == {FOUR}
    assert calls(emulator) == 1  # no backup is newer than the last answer


async def test_one_that_is_made_meanwhile_is_asked_for_again(
    files: Path, folder: Path, emulator_of: EmulatorMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a backup on demand is: it is listed before it is begun, and when it is made."""
    now = [NOW.timestamp()]
    monkeypatch.setattr(
        "archiver.sources.alibaba.region.time", SimpleNamespace(time=lambda: now[0])
    )
    describe(files, ShardCount=3)
    emulator = await emulator_of(files)
    async with fleet_of(emulator, folder) as fleet:

        async def expected() -> list[object]:
            pages = [page async for page in fleet.pages(everything(ID))]
            return [one.nodes_expected for page in pages for one in page.backups]

        assert (await expected(), await expected(), calls(emulator)) == ([None] * 3, [None] * 3, 1)
        now[0] += 20
        made = NOW + timedelta(seconds=10)
        for node in NODES[:3]:
            write_rdb(files / ID / node / f"manual_{made:%Y%m%d%H%M%S}_7d.rdb", 1000)
        for _ in range(2):
            found = await expected()
            assert found.count(NodesExpected(3, ACTION)) == found.count(None) == 3
        assert calls(emulator) == 2


async def test_todays_answer_says_nothing_of_a_backup_made_before(
    files: Path, folder: Path, emulator_of: EmulatorMaker
) -> None:
    """It may have been resized since: on the first run, and where the answer before was another."""
    describe(files)
    emulator = await emulator_of(files)
    assert await listed(emulator, folder) == {None}
    assert await listed(emulator, folder) == {None}
    assert calls(emulator) == 1
    await observed(folder, emulator, NODES[:3])
    assert await listed(emulator, folder) == {None}
    await observed(folder, emulator, NODES, at=MADE.timestamp() + 1)
    assert await listed(emulator, folder) == {None}


async def test_what_is_too_old_is_not_compared(
    files: Path, folder: Path, emulator_of: EmulatorMaker
) -> None:
    describe(files)
    emulator = await emulator_of(files)
    await observed(folder, emulator, NODES, at=(NOW - timedelta(days=31)).timestamp())
    assert await listed(emulator, folder) == {None}


@pytest.mark.parametrize(
    "fields", [{"ArchitectureType": "rwsplit"}, {"ComputingType": "Ecs"}], ids=["split", "native"]
)
async def test_only_classic_clusters_are_asked_about(
    files: Path, folder: Path, emulator_of: EmulatorMaker, fields: dict[str, str]
) -> None:
    describe(files, **fields)
    emulator = await emulator_of(files)
    assert await listed(emulator, folder)
    assert calls(emulator) == 0


async def test_nothing_is_asked_that_no_later_run_can_compare(
    files: Path, emulator_of: EmulatorMaker
) -> None:
    describe(files)
    emulator = await emulator_of(files)
    assert await listed(emulator, None) == {None}
    assert calls(emulator) == 0


async def test_a_denial_is_no_failure_and_is_remembered(
    files: Path,
    folder: Path,
    emulator_of: EmulatorMaker,
    caplog: pytest.LogCaptureFixture,
) -> None:
    describe(files)
    statements = [
        {"Effect": "Allow", "Action": "*", "Resource": "*"},
        {"Effect": "Deny", "Action": f"kvstore:{ACTION}", "Resource": "*"},
    ]
    denied = Policy.parse({"Version": "1", "Statement": statements})
    emulator = await emulator_of(files, policy=denied)
    caplog.set_level(logging.DEBUG, "archiver")
    assert await listed(emulator, folder) == {None}
    assert "the number of shards of r-classic is not known" in caplog.text
    asked = calls(emulator)
    assert asked > 0
    assert await listed(emulator, folder) == {None}
    assert calls(emulator) == asked


@pytest.mark.parametrize("created", ["2020-01-01T00:00:00Z", "2024-01-01T00:00:00Z"])
async def test_a_shard_that_no_backup_ever_had_is_missed(
    files: Path, folder: Path, emulator_of: EmulatorMaker, archive: Archive, created: str
) -> None:
    """Also where each shard has a job, and so a folder, of its own: all of them are one backup."""
    describe(files, CreateTime=created)
    emulator = await emulator_of(files)
    await observed(folder, emulator, NODES)

    async def pulled() -> list[str]:
        async with fleet_of(emulator, folder) as fleet:
            summary = await pull(fleet, archive, [everything(ID)])
        return [one.why for one in summary.incomplete]

    jobs = 3 if created < "2023" else 1
    assert await pulled() == [f"it has 3 of 4 nodes, by {ACTION}"] * jobs
    write_rdb(files / ID / NODES[3] / f"dump_{MADE:%Y%m%d%H%M%S}.rdb", 1000)
    assert await pulled() == []


def backup(node: str = NODES[0], **fields: Any) -> Backup:
    given: dict[str, Any] = {"instance_id": ID, "node_id": node, "backup_id": node, "set_id": "1"}
    return Backup(
        **{
            "source": SOURCE,
            "started_at": MADE,
            "status": Status.SUCCESS,
            "type": BackupType.FULL,
            **given,
            **fields,
        }
    )


AROUND = Topology(frozenset(NODES), BEFORE, NOW.timestamp())


def test_logs_are_not_counted() -> None:
    told = AROUND.told((backup(), backup(NODES[1], type=BackupType.INCREMENTAL)))
    assert [one.nodes_expected for one in told] == [FOUR, None]


def test_what_began_after_the_last_answer_is_not_counted() -> None:
    later = backup(started_at=NOW + timedelta(seconds=1))
    assert [one.nodes_expected for one in AROUND.told((backup(), later))] == [FOUR, None]


def test_shards_that_backups_call_otherwise_are_not_counted() -> None:
    """A number of something else must not call whole what the sets around it miss."""
    told = AROUND.told((backup(), backup("r-classic-shard-9")))
    assert [one.nodes_expected for one in told] == [None, None]
    older = backup("r-classic-shard-9", started_at=MADE - timedelta(days=9))
    assert [one.nodes_expected for one in AROUND.told((backup(), older))] == [FOUR, None]


def test_the_shards_in_an_answer() -> None:
    nodes = [{"NodeId": "a-db-0#1", "NodeType": "db"}, {"NodeId": "a-db-0#2", "NodeType": "db"}]
    proxy = {"NodeId": "a-proxy-0#3", "NodeType": "proxy"}
    answer = {"RedisShardList": {"NodeInfo": [*nodes, proxy]}}
    assert read_nodes("a", answer) == {"a-db-0"}


@pytest.mark.parametrize(
    "shards",
    [
        None,
        [],
        {"NodeInfo": [{"NodeType": "proxy"}]},
        {"NodeInfo": [{"NodeType": "db"}]},
        {"NodeInfo": [{"NodeType": "db", "NodeId": 1}]},
        {"NodeInfo": [{"NodeType": "db", "NodeId": ""}]},
    ],
)
def test_an_answer_without_shards(shards: object) -> None:
    with pytest.raises(SourceError, match="does not name its shards"):
        read_nodes("a", {"RedisShardList": shards})
