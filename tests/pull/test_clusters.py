"""Cloud-native clusters, from their listing to a drill."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from archiver import (
    Archive,
    PullOptions,
    Query,
    TransferOptions,
    VerifyOptions,
    events,
    pull,
    restore,
    verify,
)
from archiver.archive.backupsets import BackupSet, newest_first
from archiver.commands.drill import DrillOptions, drill
from archiver.commands.drill.options import Wanted
from archiver.commands.repair.from_source import SourceSupplier
from archiver.commands.repair.run import repair
from archiver.commands.summary import Summary
from archiver.emulator import Emulator, Faults
from archiver.errors import NoSuchBackup
from archiver.report.evidence import Mode, Verdict
from archiver.sources.alibaba.instances import Instance
from archiver.transfer import download_url
from examples.sample_rdb import write_rdb
from tests.conftest import KEY_ID, KEY_SECRET, EmulatorMaker, everything, source_of
from tests.drill.conftest import programs

ID = "r-native"
SHARDS = 8
REGION = "cn-beijing"
NAME = "dump_20261124021500.rdb"
KNOWN = {
    ID: Instance(ID, REGION, architecture="cluster", is_cloud_native=True, shards=SHARDS),
}


def describe(files: Path, **fields: object) -> None:
    native = {"ArchitectureType": "cluster", "ComputingType": "Ecs", "RegionId": REGION}
    described = {ID: {**native, "ShardCount": SHARDS, **fields}}
    (files / "instances.json").write_text(json.dumps({"instances": described}))


def dumps(files: Path, name: str = NAME, size: int = 9000, shards: int = SHARDS) -> list[bytes]:
    return [write_rdb(files / ID / node_of(n) / name, size, n) for n in range(shards)]


def node_of(number: int) -> str:
    return f"{ID}-db-{number}"


def override(files: Path, **given: Mapping[str, object]) -> None:
    (files / ID / "backups.json").write_text(json.dumps(given))


@pytest.fixture
async def native(files: Path, emulator_of: EmulatorMaker) -> Emulator:
    describe(files)
    dumps(files)
    return await emulator_of(files)


def home(archive: Archive) -> dict[str, bytes]:
    """The dumps in an archive by their nodes."""
    paths = Path(str(archive.store)).rglob("*.rdb")
    return {path.name.rpartition("-")[0]: path.read_bytes() for path in paths}


async def pulled(emulator: Emulator, archive: Archive, **given: object) -> Summary:
    async with source_of(emulator, **{"instances": KNOWN, **given}) as source:
        return await pull(source, archive, [everything(ID)])


async def test_home_restored_and_drilled(
    files: Path, native: Emulator, archive: Archive, tmp_path: Path
) -> None:
    originals = dumps(files)
    summary = await pulled(native, archive)
    assert (summary.exit_code, summary.archived) == (0, SHARDS)
    assert home(archive) == {node_of(n): data for n, data in enumerate(originals)}
    [sums] = Path(str(archive.store)).rglob("SHA256SUMS")
    assert len(sums.read_text().splitlines()) == SHARDS
    assert sums.read_text().count("/r-native-db-") == SHARDS
    records = [json.loads(one.read_text()) for one in sums.parent.glob("*-cb-*/*.json")]
    expected = {"count": SHARDS, "known_from": "ShardCount of DescribeInstances"}
    assert [one["nodes_expected"] for one in records] == [expected] * SHARDS
    assert {one["source"]["action"] for one in records} == {"DescribeClusterBackupList 2015-01-01"}
    assert not any("Signature" in json.dumps(one) for one in records)

    assert (await verify(archive, VerifyOptions())).exit_code == 0
    done = await restore(archive, tmp_path / "out", instance_id=ID)
    assert len(done.backup_set.nodes) == SHARDS
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    drilled = await drill(archive, await programs(), DrillOptions(scratch=scratch))
    [one] = drilled.evidence.sets
    assert (one.verdict, len(one.files)) == (Verdict.PASS, SHARDS)


async def test_a_second_pull_brings_nothing(native: Emulator, archive: Archive) -> None:
    """Neither does one that learns of the cluster from the answers, without its description."""
    await pulled(native, archive)
    before = native.tally.object_requests
    for given in ({}, {"instances": {}, "region": REGION}):
        summary = await pulled(native, archive, **given)
        assert (summary.held, summary.archived, summary.exit_code) == (SHARDS, 0, 0)
    assert native.tally.object_requests == before


def command(emulator: Emulator, place: Path) -> list[str]:
    return [
        sys.executable, "-m", "archiver", "pull", "--instance", ID, "--to", str(place),
        "--endpoint", emulator.endpoint, "--region", REGION, "-q",
        "--part-size", "64KiB", "--connections", "1", "--workers", "2",
    ]  # fmt: skip


async def test_killed_and_resumed(files: Path, native: Emulator, archive: Archive) -> None:
    size = 400_000
    originals = dumps(files, size=size)
    native.faults = Faults(rate=400_000)
    keys = {
        "ALIBABA_CLOUD_ACCESS_KEY_ID": KEY_ID,
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET": KEY_SECRET,
    }
    asked = command(native, Path(str(archive.store)))
    process = await asyncio.create_subprocess_exec(*asked, env={**os.environ, **keys})
    while native.tally.object_bytes < 3 * size:
        await asyncio.sleep(0.01)
    process.kill()
    await process.wait()
    assert len(home(archive)) < SHARDS
    native.faults = Faults()
    last = await asyncio.create_subprocess_exec(*asked, env={**os.environ, **keys})
    assert await last.wait() == 0
    assert home(archive) == {node_of(n): data for n, data in enumerate(originals)}
    assert native.tally.object_bytes < SHARDS * size + 4 * 64 * 1024, "little came twice"
    [sums] = Path(str(archive.store)).rglob("SHA256SUMS")
    subprocess.run(["sha256sum", "-c", "--quiet", sums.name], cwd=sums.parent, check=True)


async def test_expired_urls_are_renewed(
    files: Path, native: Emulator, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download_url, "REFRESH_AHEAD", timedelta(days=-1))
    originals = dumps(files, size=300_000)
    native.faults = Faults(rate=400_000, expire_after=1)
    options = PullOptions(transfer=TransferOptions(part_size=64 * 1024, connections=1))
    seen: list[events.Event] = []
    async with source_of(native, instances=KNOWN) as source:
        summary = await pull(source, archive, [everything(ID)], options, seen.append)
    assert summary.failures == []
    assert any(isinstance(event, events.UrlRefreshed) for event in seen)
    assert "AccessDenied" in native.tally.refused
    assert home(archive) == {node_of(n): data for n, data in enumerate(originals)}


@pytest.mark.parametrize("is_described", [True, False])
async def test_a_missing_shard(
    files: Path, native: Emulator, archive: Archive, tmp_path: Path, is_described: bool
) -> None:
    """Where nobody may list instances, the set says that it is not whole."""
    (files / ID / node_of(3) / NAME).unlink()
    given = {} if is_described else {"instances": {}, "region": REGION}
    summary = await pulled(native, archive, **given)
    assert (summary.archived, summary.failures) == (SHARDS - 1, [])
    known_from = (
        "ShardCount of DescribeInstances"
        if is_described
        else "IsAvail 0 of DescribeClusterBackupList"
    )
    why = f"it has 7 of 8 nodes, by {known_from}"
    [incomplete] = summary.incomplete
    assert incomplete.why.startswith(why)
    assert summary.exit_code == 1
    with pytest.raises(NoSuchBackup, match=why):  # the archive knows it without the vendor
        await restore(archive, tmp_path / "out", instance_id=ID)


async def test_a_set_that_is_not_available(files: Path, native: Emulator, archive: Archive) -> None:
    """All shards are listed, and none says what is wrong."""
    override(files, **{NAME: {"IsAvail": 0}})
    summary = await pulled(native, archive)
    assert summary.archived == SHARDS
    [incomplete] = summary.incomplete
    assert incomplete.why.startswith("it has 8 of 9 nodes, by IsAvail 0")
    assert summary.exit_code == 1


async def test_a_failed_shard_fails_by_its_name(
    files: Path, native: Emulator, archive: Archive
) -> None:
    override(files, **{f"{node_of(5)}/{NAME}": {"BackupStatus": "ERROR"}})
    summary = await pulled(native, archive)
    assert summary.archived == SHARDS - 1
    [failure] = summary.failures
    assert failure.subject.startswith(f"{node_of(5)}-")
    assert "failed at the vendor" in str(failure.error)
    assert len(summary.incomplete) == 1
    assert summary.exit_code == 1


async def test_a_set_that_is_under_way_is_not_fetched(
    files: Path, native: Emulator, archive: Archive
) -> None:
    override(files, **{NAME: {"ClusterBackupStatus": "RUNNING", "IsAvail": 0}})
    summary = await pulled(native, archive)
    assert (summary.archived, summary.failures) == (0, [])
    override(files)
    summary = await pulled(native, archive)
    assert (summary.archived, summary.exit_code) == (SHARDS, 0)


async def test_more_shards_than_when_the_set_was_made(
    files: Path, native: Emulator, archive: Archive
) -> None:
    """A cluster that was given more shards since has no incomplete sets for it."""
    instances = {ID: Instance(ID, REGION, architecture="cluster", is_cloud_native=True, shards=16)}
    summary = await pulled(native, archive, instances=instances)
    assert (summary.archived, summary.exit_code, summary.incomplete) == (SHARDS, 0, [])


async def test_a_changed_record_is_found(native: Emulator, archive: Archive) -> None:
    """What the source sent of a shard is read again, and must agree."""
    await pulled(native, archive)
    record = next(Path(str(archive.store)).rglob("*-cb-*/*.json"))
    document = json.loads(record.read_text())
    document["received"]["Backups"][0]["BackupSize"] = "9001"
    record.write_text(json.dumps(document))
    assert (await verify(archive, VerifyOptions())).exit_code == 3


async def test_a_shard_is_repaired_from_the_source(
    files: Path, native: Emulator, archive: Archive
) -> None:
    originals = dumps(files)
    await pulled(native, archive)
    damaged = next(Path(str(archive.store)).rglob(f"{node_of(4)}-*.rdb"))
    damaged.write_bytes(b"REDIS")
    found = await verify(archive, VerifyOptions())
    assert found.exit_code == 3
    async with source_of(native, region=REGION) as source:
        summary = await repair(archive, found, SourceSupplier(source))
    assert summary.exit_code == 0
    assert home(archive) == {node_of(n): data for n, data in enumerate(originals)}
    assert (await verify(archive, VerifyOptions())).exit_code == 0


# Clusters from before 2023-12-05, which have a job for each shard

OLD = "r-old"
SECOND = "dump_20261125021500.rdb"


def old_cluster(files: Path, *, nights: int = 1) -> None:
    described = {"ArchitectureType": "cluster", "CreateTime": "2020-01-01T00:00:00Z"}
    (files / "instances.json").write_text(json.dumps({"instances": {OLD: described}}))
    late = {}
    for name in (NAME, SECOND)[:nights]:
        for number in range(3):
            write_rdb(files / OLD / f"{OLD}-db-{number}" / name, 9000, number)
            # The first shard is the last to begin.
            start = f"2026-11-{name[11:13]}T02:15:{50 - 20 * number}Z"
            late[f"{OLD}-db-{number}/{name}"] = {"BackupStartTime": start}
    (files / OLD / "backups.json").write_text(json.dumps(late))


def change(files: Path, node: int, name: str, **fields: object) -> None:
    path = files / OLD / "backups.json"
    overrides = json.loads(path.read_text())
    overrides.setdefault(f"{OLD}-db-{node}/{name}", {}).update(fields)
    path.write_text(json.dumps(overrides))


def nodes_of(backup_set: BackupSet) -> list[int]:
    return [int(node.rpartition("-")[2]) for node in backup_set.nodes]


async def sets_of(archive: Archive) -> list[BackupSet]:
    return [one async for one in newest_first(archive, OLD)]


@pytest.mark.parametrize("page_size", [30, 300])
async def test_an_old_cluster_is_restored_and_drilled_as_one(
    files: Path, emulator: Emulator, archive: Archive, tmp_path: Path, page_size: int
) -> None:
    old_cluster(files, nights=2)
    for number in range(29):  # so that a page ends within a backup
        name = f"other_202612{number + 1:02}021500.rdb"
        write_rdb(files / OLD / f"{OLD}-db-0" / name, 2000) if page_size == 30 else None
    async with source_of(emulator, page_size=page_size) as source:
        query = Query(OLD, "2000-01-01T00:00Z", "2100-01-01T00:00Z")
        listed = [b async for page in source.pages(query) for b in page.backups]
        assert len({b.set_id for b in listed}) == len(listed), "a job for each shard"
        await pull(source, archive, [query])
    before_december = datetime(2026, 11, 30, tzinfo=UTC)
    done = await restore(archive, tmp_path / "out", instance_id=OLD, at=before_december)
    assert nodes_of(done.backup_set) == [0, 1, 2]
    assert done.exit_code == 0
    assert {file.record.started_at.day for file in done.files} == {25}
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    wanted = Wanted(mode=Mode.AT, at=before_december)
    options = DrillOptions(scratch=scratch, wanted=wanted)
    drilled = await drill(archive, await programs(), options)
    [one] = drilled.evidence.sets
    assert (one.verdict, len(one.files), one.key) == (Verdict.PASS, 3, done.backup_set.key)
    assert drilled.evidence.selection.available == 2


async def test_a_shard_that_comes_later(files: Path, emulator: Emulator, archive: Archive) -> None:
    """The folders of the others keep their names, and make one backup with it."""
    old_cluster(files)
    first = files / OLD / f"{OLD}-db-2" / NAME
    data = first.read_bytes()
    first.unlink()
    async with source_of(emulator) as source:
        await pull(source, archive, [everything(OLD)])
        [before] = await sets_of(archive)
        assert nodes_of(before) == [0, 1]
        places = {record.key for record in before.records}
        first.write_bytes(data)
        summary = await pull(source, archive, [everything(OLD)])
    assert (summary.archived, summary.held) == (1, 2)
    [after] = await sets_of(archive)
    assert nodes_of(after) == [0, 1, 2]
    assert places < {record.key for record in after.records}
    assert after.is_complete


async def test_a_range_that_cuts_an_old_clusters_backup(
    files: Path, emulator: Emulator, archive: Archive
) -> None:
    old_cluster(files)
    change(files, 2, NAME, BackupStartTime="2026-11-24T02:14:55Z")
    async with source_of(emulator) as source:
        await pull(source, archive, [Query(OLD, "2026-11-24T02:15Z", "2026-11-25T00:00Z")])
        assert [nodes_of(one) for one in await sets_of(archive)] == [[0, 1]]
        await pull(source, archive, [everything(OLD)])
    assert [nodes_of(one) for one in await sets_of(archive)] == [[0, 1, 2]]


async def test_an_old_clusters_shard_that_failed(
    files: Path, emulator: Emulator, archive: Archive, tmp_path: Path
) -> None:
    """There is no other backup that has the node, and the folders of the others are whole."""
    old_cluster(files)
    change(files, 1, NAME, BackupStatus="Failed")
    async with source_of(emulator) as source:
        summary = await pull(source, archive, [everything(OLD)])
    assert summary.exit_code == 1
    assert [nodes_of(one) for one in await sets_of(archive)] == [[0, 2]]
    with pytest.raises(NoSuchBackup, match="SHA256SUMS does not name it"):
        await restore(archive, tmp_path / "out", instance_id=OLD)


async def test_an_old_clusters_shard_that_is_missing(
    files: Path, emulator: Emulator, archive: Archive, tmp_path: Path
) -> None:
    old_cluster(files, nights=2)
    (files / OLD / f"{OLD}-db-1" / SECOND).unlink()
    async with source_of(emulator) as source:
        summary = await pull(source, archive, [everything(OLD)])
    assert summary.exit_code == 1
    assert all(f"{OLD}-db-1 is missing" in one.why for one in summary.incomplete)
    done = await restore(archive, tmp_path / "out", instance_id=OLD)
    assert done.backup_set.folder.started_at.day == 24
    assert [nodes_of(one) for one in done.passed_over] == [[0, 2]]
