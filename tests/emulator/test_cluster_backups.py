"""DescribeClusterBackupList, asked by the vendor's SDK."""

import json
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest

from archiver.emulator import Emulator
from tests.conftest import INSTANCE, EmulatorMaker
from tests.emulator.sdk import SDK_WARNINGS, Ask, refused
from tests.emulator.test_api import get, legacy

pytestmark = SDK_WARNINGS

SPAN = {"start_time": "2000-01-01T00:00Z", "end_time": "2100-01-01T00:00Z"}
ASKED = {"instance_id": "r-native", "region_id": "cn-beijing", **SPAN}
NATIVE = {"ArchitectureType": "cluster", "ComputingType": "Ecs", "RegionId": "cn-beijing"}


def shard(files: Path, number: int, name: str = "dump_20261124021500.rdb") -> Path:
    path = files / "r-native" / f"r-native-db-{number}" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"REDIS0009\xff%d" % number)
    return path


def describe(files: Path, **fields: object) -> None:
    instances = {
        "r-native": {**NATIVE, **fields},
        "r-classic": {"ArchitectureType": "cluster", "RegionId": "cn-beijing"},
    }
    (files / "instances.json").write_text(json.dumps({"instances": instances}))


def override(files: Path, **by_name: object) -> None:
    (files / "r-native" / "backups.json").write_text(json.dumps(by_name))


@pytest.fixture
async def native(files: Path, emulator_of: EmulatorMaker) -> Emulator:
    describe(files)
    for number in range(3):
        shard(files, number)
    return await emulator_of(files)


async def only_set(ask: Ask, emulator: Emulator, **asked: object) -> Any:
    body = await ask(emulator, "DescribeClusterBackupList", **{**ASKED, **asked})
    [found] = body.cluster_backups
    return found


async def test_a_set(native: Emulator, ask: Ask) -> None:
    found = await only_set(ask, native)
    assert found.cluster_backup_id.startswith("cb-")
    assert (found.cluster_backup_status, found.is_avail) == ("OK", 1)
    assert (found.cluster_backup_mode, found.progress) == ("Automated", None)
    assert found.cluster_backup_size == "33"
    assert found.cluster_backup_start_time == "2026-11-24T02:15:00Z"
    assert found.cluster_backup_end_time == "2026-11-24T02:16:00Z"
    assert found.expect_expire_time == "2026-12-01T02:15Z"
    assert [one.instance_name for one in found.backups] == [f"r-native-db-{n}" for n in range(3)]
    for one in found.backups:
        assert (one.backup_status, one.is_avail, one.backup_size) == ("OK", "1", "11")
        assert one.backup_start_time == "2026-11-24T02:15:00"
        assert one.backup_end_time == "2026-11-24T02:16:00"
        assert (one.engine, one.extra_info.custins_db_version) == ("redis", "5.0")
        assert isinstance(one.backup_id, str)
    assert len({one.backup_id for one in found.backups}) == 3


async def test_what_the_response_has_not(native: Emulator) -> None:
    asked = {"RegionId": "cn-beijing", "InstanceId": "r-native"}
    _, answer = await get(native, legacy("GET", Action="DescribeClusterBackupList", **asked))
    assert "TotalCount" not in answer
    assert (answer["MaxResults"], answer["PageNumber"], answer["PageSize"]) == (1, 1, 30)
    [found] = cast("list[dict[str, Any]]", answer["ClusterBackups"])
    assert not any("NodeInstanceId" in one for one in found["Backups"])


async def test_the_urls_lead_to_the_files(files: Path, native: Emulator, ask: Ask) -> None:
    found = await only_set(ask, native)
    async with aiohttp.ClientSession() as session:
        for number, one in enumerate(found.backups):
            for url in (one.backup_download_url, one.backup_intranet_download_url):
                async with session.get(url) as answer:
                    assert await answer.read() == shard(files, number).read_bytes()


async def test_urls_are_http_whatever_serves_them(
    files: Path, emulator_of: EmulatorMaker, ask: Ask
) -> None:
    describe(files)
    shard(files, 0)
    emulator = await emulator_of(files, public_host="oss.example", intranet_host="in.example")
    emulator._api.hosts = type(emulator._api.hosts)("oss.example", "in.example", "https")
    [one] = (await only_set(ask, emulator)).backups
    assert one.backup_download_url.startswith("http://oss.example/custins")
    assert one.backup_intranet_download_url.startswith("http://in.example/custins")


async def test_a_set_that_lacks_a_shard(files: Path, native: Emulator, ask: Ask) -> None:
    describe(files, ShardCount=4)
    found = await only_set(ask, native)
    assert (found.cluster_backup_status, found.is_avail, len(found.backups)) == ("OK", 0, 3)
    describe(files)
    shard(files, 2).unlink()
    assert (await only_set(ask, native)).is_avail == 0


async def test_a_shard_that_failed(files: Path, native: Emulator, ask: Ask) -> None:
    name = "r-native-db-1/dump_20261124021500.rdb"
    for status in ("ERROR", "Failed"):
        override(files, **{name: {"BackupStatus": status}})
        found = await only_set(ask, native)
        assert (found.cluster_backup_status, found.is_avail) == ("ERROR", 0)
        failed = found.backups[1]
        assert (failed.backup_status, failed.is_avail) == ("ERROR", "0")
        assert failed.backup_download_url is None
    override(files, **{name: {"IsAvail": "0"}})
    found = await only_set(ask, native)
    assert (found.cluster_backup_status, found.is_avail) == ("OK", 0)
    assert [one.is_avail for one in found.backups] == ["1", "0", "1"]


async def test_fields_of_the_set_laid_over(files: Path, native: Emulator, ask: Ask) -> None:
    override(files, **{"dump_20261124021500.rdb": {"ClusterBackupStatus": "FAILED", "IsAvail": 0}})
    found = await only_set(ask, native)
    assert (found.cluster_backup_status, found.is_avail) == ("FAILED", 0)


async def test_one_set_by_its_id_and_without_shards(
    files: Path, native: Emulator, ask: Ask
) -> None:
    shard(files, 0, "dump_20261125021500.rdb")
    body = await ask(native, "DescribeClusterBackupList", **ASKED)
    newest, older = body.cluster_backups
    assert newest.cluster_backup_start_time > older.cluster_backup_start_time
    found = await only_set(ask, native, cluster_backup_id=older.cluster_backup_id)
    assert len(found.backups) == 3
    found = await only_set(
        ask, native, cluster_backup_id=older.cluster_backup_id, no_shard_backup="true"
    )
    assert found.backups == []
    found = await only_set(ask, native, start_time="2026-11-24T02:16Z")
    assert found.cluster_backup_id == newest.cluster_backup_id


async def test_pages_of_sets(files: Path, native: Emulator, ask: Ask) -> None:
    for day in range(1, 8):
        shard(files, 0, f"dump_202611{day:02d}000000.rdb")
    lengths = []
    for number in (1, 2, 3):
        body = await ask(
            native, "DescribeClusterBackupList", **ASKED, page_size=5, page_number=number
        )
        assert (body.page_number, body.page_size) == (number, 5)
        lengths.append(len(body.cluster_backups))
    assert lengths == [5, 3, 0]


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"region_id": None}, "MissingParameter.RegionId"),
        ({"start_time": None}, "MissingParameter.StartTime"),
        ({"page_size": 7}, "InvalidPageSize.Malformed"),
        ({"end_time": "2026-11-24T00:00:00Z"}, "InvalidEndTime.Malformed"),
        ({"end_time": "1999-01-01T00:00Z"}, "InvalidStartTimeAndEndTime.Malformed"),
        ({"no_shard_backup": "perhaps"}, "InvalidNoShardBackup.Malformed"),
        ({"region_id": "cn-shanghai"}, "InvalidInstanceId.NotFound"),
        ({"instance_id": "r-none"}, "InvalidInstanceId.NotFound"),
        (
            {"instance_id": INSTANCE, "region_id": "cn-hangzhou"},
            "InvalidClusterInstance.NotFound",
        ),
    ],
)
async def test_errors(native: Emulator, ask: Ask, asked: dict[str, object], code: str) -> None:
    error = await refused(ask(native, "DescribeClusterBackupList", **{**ASKED, **asked}))
    assert error.code == code


async def test_each_kind_has_its_own_listing(files: Path, native: Emulator, ask: Ask) -> None:
    """Either listing is empty for the kind that it is not for."""
    (files / "r-classic" / "node").mkdir(parents=True)
    (files / "r-classic" / "node" / "a.rdb").write_bytes(b"x")
    classic = {"instance_id": "r-classic", "region_id": "cn-beijing", **SPAN}
    assert (await ask(native, "DescribeClusterBackupList", **classic)).cluster_backups == []
    body = await ask(native, "DescribeBackups", instance_id="r-classic", **SPAN)
    assert body.total_count == 1
    body = await ask(native, "DescribeBackups", instance_id="r-native", **SPAN)
    assert (body.total_count, body.backups.backup) == (0, [])
