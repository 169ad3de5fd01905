"""The actions that describe instances and regions, asked by the vendor's SDK."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from alibabacloud_r_kvstore20150101 import models

from archiver.emulator import Emulator
from archiver.emulator.instances import read_instances
from archiver.emulator.oss import oss_v1_url
from archiver.errors import UsageError
from tests.conftest import INSTANCE, KEY_ID, KEY_SECRET, EmulatorMaker
from tests.emulator.sdk import SDK_WARNINGS, Ask, refused

pytestmark = [*SDK_WARNINGS, pytest.mark.usefixtures("no_clock_skew")]

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC).timestamp()  # a Tuesday
FLEET: dict[str, Any] = {
    "instances": {
        "r-native": {
            "ArchitectureType": "cluster",
            "ComputingType": "Ecs",
            "ShardCount": 8,
            "RegionId": "cn-beijing",
            "InstanceName": "sessions",
            "EngineVersion": "7.0",
            "ResourceGroupId": "rg-web",
            "Tags": {"team": "web", "stage": "live"},
            "ChargeType": "PrePaid",
            "EndTime": "2026-11-01T16:00:00Z",
            "DestroyTime": "2026-11-16T16:00:00Z",
            "TDEStatus": "Enabled",
            "BackupPolicy": {
                "BackupRetentionPeriod": "30",
                "PreferredBackupPeriod": "Monday,Thursday",
                "PreferredBackupTime": "05:30Z-06:30Z",
            },
        },
        "r-classic": {
            "ArchitectureType": "cluster",
            "ShardCount": 3,
            "Tags": {"team": "web"},
            "EndTime": "2027-01-01T16:00:00Z",
        },
        "r-alone": {"NodeType": "STAND_ALONE", "InstanceType": "Tair"},
    },
    "regions": {"eu-central-1": {"RegionEndpoint": "r-kvstore.example", "LocalName": "Frankfurt"}},
}


@pytest.fixture
async def fleet(files: Path, emulator_of: EmulatorMaker) -> Emulator:
    (files / "instances.json").write_text(json.dumps(FLEET))
    (files / "r-folders" / "node-b").mkdir(parents=True)
    (files / "r-folders" / "node-a").mkdir()
    return await emulator_of(files, clock=lambda: NOON, retention_days=14)


async def found(ask: Ask, emulator: Emulator, **asked: object) -> dict[str, Any]:
    """The instances by id."""
    body = await ask(emulator, "DescribeInstances", **asked)
    return {one.instance_id: one for one in body.instances.kvstore_instance}


async def test_what_an_instance_is(fleet: Emulator, ask: Ask) -> None:
    everything = await found(ask, fleet)
    assert sorted(everything) == ["r-alone", INSTANCE, "r-classic", "r-folders", "r-native"]
    native = everything["r-native"]
    assert (native.region_id, native.instance_name) == ("cn-beijing", "sessions")
    assert (native.architecture_type, native.shard_count) == ("cluster", 8)
    assert (native.engine_version, native.resource_group_id) == ("7.0", "rg-web")
    assert native.end_time == "2026-11-01T16:00:00Z"
    assert native.destroy_time == "2026-11-16T16:00:00Z"
    assert {tag.key: tag.value for tag in native.tags.tag} == {"team": "web", "stage": "live"}
    assert everything["r-classic"].shard_count is None  # only cloud-native clusters have it
    assert everything["r-alone"].node_type == "STAND_ALONE"
    assert everything["r-folders"].architecture_type == "cluster"
    standard = everything[INSTANCE]
    assert (standard.architecture_type, standard.instance_status) == ("standard", "Normal")
    assert (standard.region_id, standard.end_time) == ("cn-hangzhou", None)


@pytest.mark.parametrize(
    ("asked", "ids"),
    [
        ({"region_id": "cn-beijing"}, {"r-native"}),
        ({"region_id": "us-east-1"}, set()),
        ({"instance_ids": "r-native,r-alone,r-none"}, {"r-native", "r-alone"}),
        ({"architecture_type": "cluster"}, {"r-native", "r-classic", "r-folders"}),
        ({"instance_type": "Tair"}, {"r-alone"}),
        ({"engine_version": "7.0"}, {"r-native"}),
        ({"resource_group_id": "rg-web"}, {"r-native"}),
        ({"search_key": "sess"}, {"r-native"}),
        ({"search_key": "classic"}, {"r-classic"}),
        ({"expired": "true"}, {"r-native"}),
        ({"expired": "false"}, {"r-classic", "r-alone", "r-folders", INSTANCE}),
        ({"instance_status": "Creating"}, set()),
    ],
)
async def test_filters(fleet: Emulator, ask: Ask, asked: dict[str, object], ids: set[str]) -> None:
    assert (await found(ask, fleet, **asked)).keys() == ids


async def test_tags(fleet: Emulator, ask: Ask) -> None:
    tag = models.DescribeInstancesRequestTag
    web, live = tag(key="team", value="web"), tag(key="stage", value="live")
    there = {"region_id": "cn-beijing"}
    assert (await found(ask, fleet, **there, tag=[web, live])).keys() == {"r-native"}
    assert await found(ask, fleet, **there, tag=[tag(key="team", value="ops")]) == {}
    assert (await found(ask, fleet, **there, tag=[tag(key="stage")])).keys() == {"r-native"}
    assert (await found(ask, fleet, region_id="cn-hangzhou", tag=[web])).keys() == {"r-classic"}
    error = await refused(ask(fleet, "DescribeInstances", tag=[web]))
    assert error.code == "MissingParameter.RegionId"
    many = [tag(key=str(number), value="x") for number in range(6)]
    error = await refused(ask(fleet, "DescribeInstances", **there, tag=many))
    assert error.code == "InvalidTag.Malformed"


async def test_pages_of_instances(files: Path, emulator_of: EmulatorMaker, ask: Ask) -> None:
    names: dict[str, object] = {f"r-{number:03d}": {} for number in range(64)}
    (files / "instances.json").write_text(json.dumps({"instances": names}))
    emulator = await emulator_of(files)
    seen: list[str] = []
    for number, length in ((1, 30), (2, 30), (3, 5), (4, 0)):
        body = await ask(emulator, "DescribeInstances", page_number=number)
        assert (body.total_count, body.page_number, body.page_size) == (65, number, 30)
        seen += [one.instance_id for one in body.instances.kvstore_instance]
        assert len(body.instances.kvstore_instance) == length
    assert sorted(seen) == sorted([*names, INSTANCE])
    body = await ask(emulator, "DescribeInstances", page_size=50)
    assert len(body.instances.kvstore_instance) == 50


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"page_size": 51}, "InvalidPageSize.Malformed"),
        ({"page_number": 0}, "InvalidPageNumber.Malformed"),
        ({"instance_ids": ",".join(["r-a"] * 31)}, "InvalidInstanceIds.Malformed"),
        ({"instance_ids": "r-a,,r-b"}, "InvalidInstanceIds.Malformed"),
        ({"expired": "maybe"}, "InvalidExpired.Malformed"),
    ],
)
async def test_questions_that_make_no_sense(
    fleet: Emulator, ask: Ask, asked: dict[str, object], code: str
) -> None:
    assert (await refused(ask(fleet, "DescribeInstances", **asked))).code == code


async def test_regions(fleet: Emulator, ask: Ask) -> None:
    body = await ask(fleet, "DescribeRegions", accept_language="en-US")
    own = f"127.0.0.1:{fleet.port}"
    assert {one.region_id: one.region_endpoint for one in body.region_ids.kvstore_region} == {
        "cn-beijing": own,
        "cn-hangzhou": own,
        "eu-central-1": "r-kvstore.example",
    }
    [frankfurt] = [r for r in body.region_ids.kvstore_region if r.region_id == "eu-central-1"]
    assert (frankfurt.local_name, frankfurt.zone_ids) == ("Frankfurt", "eu-central-1-a")
    assert frankfurt.zone_id_list.zone_id == ["eu-central-1-a"]


async def test_backup_policies(fleet: Emulator, ask: Ask) -> None:
    body = await ask(fleet, "DescribeBackupPolicy", instance_id="r-native")
    assert body.backup_retention_period == "30"
    assert body.preferred_backup_period == "Monday,Thursday"
    assert body.preferred_backup_time == "05:30Z-06:30Z"
    assert body.preferred_next_backup_time == "2026-11-26T05:30Z"
    body = await ask(fleet, "DescribeBackupPolicy", instance_id=INSTANCE)
    assert body.backup_retention_period == "14"
    assert body.preferred_next_backup_time == "2026-11-25T02:00Z"
    assert (body.enable_backup_log, body.dbs_instance) == (0, "0")


async def test_topologies(fleet: Emulator, ask: Ask) -> None:
    async def shards(instance_id: str) -> list[str]:
        body = await ask(fleet, "DescribeLogicInstanceTopology", instance_id=instance_id)
        assert body.instance_id == instance_id
        return [node.node_id.split("#")[0] for node in body.redis_shard_list.node_info]

    assert await shards("r-classic") == ["r-classic-db-0", "r-classic-db-1", "r-classic-db-2"]
    assert await shards("r-folders") == ["node-a", "node-b"]
    assert await shards(INSTANCE) == []


async def test_encryption(fleet: Emulator, ask: Ask) -> None:
    body = await ask(fleet, "DescribeInstanceTDEStatus", instance_id="r-native")
    assert body.tdestatus == "Enabled"
    body = await ask(fleet, "DescribeInstanceTDEStatus", instance_id=INSTANCE)
    assert body.tdestatus == "Disabled"


@pytest.mark.parametrize(
    ("action", "status"),
    [
        ("DescribeBackupPolicy", 400),
        ("DescribeLogicInstanceTopology", 400),
        ("DescribeInstanceTDEStatus", 404),
        ("CreateBackup", 400),
        ("DescribeBackupTasks", 400),
    ],
)
async def test_an_instance_that_does_not_exist(
    fleet: Emulator, ask: Ask, action: str, status: int
) -> None:
    error = await refused(ask(fleet, action, instance_id="r-none"))
    assert (error.code, error.status_code) == ("InvalidInstanceId.NotFound", status)


async def test_an_instance_without_replica_has_no_backups(
    files: Path, emulator_of: EmulatorMaker, ask: Ask
) -> None:
    (files / INSTANCE / "a.rdb").write_bytes(b"x")
    fleet = {"instances": {INSTANCE: {"NodeType": "STAND_ALONE"}}}
    (files / "instances.json").write_text(json.dumps(fleet))
    emulator = await emulator_of(files)
    span = {"start_time": "2000-01-01T00:00Z", "end_time": "2100-01-01T00:00Z"}
    body = await ask(emulator, "DescribeBackups", instance_id=INSTANCE, **span)
    assert body.total_count == 0
    error = await refused(ask(emulator, "CreateBackup", instance_id=INSTANCE))
    assert error.code == "InvalidInstanceType.NotSupported"


async def test_the_file_may_change_and_break(files: Path, fleet: Emulator, ask: Ask) -> None:
    path = files / "instances.json"
    path.write_text(json.dumps({"instances": {"r-new": {}}}))
    assert (await found(ask, fleet)).keys() == {INSTANCE, "r-folders", "r-new"}
    path.write_text("{")
    error = await refused(ask(fleet, "DescribeInstances"))
    assert (error.code, error.status_code) == ("InvalidEmulatorFile", 400)
    assert "instances.json" in error.message
    signed = oss_v1_url(KEY_ID, KEY_SECRET, "/custins1/key", 2**32)
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{fleet.endpoint}{signed}") as answer,
    ):
        assert (answer.status, "InvalidEmulatorFile" in await answer.text()) == (400, True)
    path.unlink()
    assert (await found(ask, fleet)).keys() == {INSTANCE, "r-folders"}


@pytest.mark.parametrize(
    "broken",
    [
        "{",
        "[" * 100_000,
        [],
        {"r-a": {}},
        {"instances": []},
        {"instances": {"r-a": 1}},
        {"instances": {"../a": {}}},
        {"instances": {".a": {}}},
        {"instances": {"r-a": {"ShardCount": "8"}}},
        {"instances": {"r-a": {"ShardCount": 0}}},
        {"instances": {"r-a": {"ShardCount": True}}},
        {"instances": {"r-a": {"Tags": []}}},
        {"instances": {"r-a": {"Tags": {"team": 1}}}},
        {"instances": {"r-a": {"RegionId": 1}}},
        {"instances": {"r-a": {"EndTime": "soon"}}},
        {"instances": {"r-a": {"ArchitectureType": "cluster", "CreateTime": "then"}}},
        {"instances": {"r-a": {"BackupPolicy": {"BackupRetentionPeriod": "week"}}}},
        {"instances": {"r-a": {"BackupPolicy": {"PreferredBackupPeriod": "Never"}}}},
        {"instances": {"r-a": {"BackupPolicy": {"PreferredBackupTime": "noon"}}}},
    ],
)
def test_files_that_make_no_sense(tmp_path: Path, broken: object) -> None:
    path = tmp_path / "instances.json"
    path.write_text(broken if isinstance(broken, str) else json.dumps(broken))
    with pytest.raises(UsageError, match=r"instances\.json"):
        read_instances(path)


async def test_a_broken_file_is_refused_at_the_start(
    files: Path, emulator_of: EmulatorMaker
) -> None:
    (files / "instances.json").write_text("[]")
    with pytest.raises(UsageError, match=r"instances\.json must be"):
        await emulator_of(files)
