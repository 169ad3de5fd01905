"""CreateBackup and DescribeBackupTasks, asked by the vendor's SDK."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from archiver.emulator import Emulator
from archiver.emulator.catalogue import Catalogue
from tests.conftest import INSTANCE, EmulatorMaker
from tests.emulator.sdk import SDK_WARNINGS, Ask, refused

pytestmark = [*SDK_WARNINGS, pytest.mark.usefixtures("no_clock_skew")]

SPAN = {"start_time": "2000-01-01T00:00Z", "end_time": "2100-01-01T00:00Z"}
START = datetime(2026, 11, 24, 12, 0, tzinfo=UTC).timestamp()
DAY = 24 * 3600


@dataclass
class Clock:
    now: float = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def emulator(files: Path, emulator_of: EmulatorMaker, clock: Callable[[], float]) -> Emulator:
    for day, content in ((22, b"older"), (23, b"newest")):
        (files / INSTANCE / f"dump_202611{day}021500.rdb").write_bytes(content)
    (files / INSTANCE / "log_20261124021500.aof").write_bytes(b"*1")
    return await emulator_of(files, clock=clock, backup_seconds=100)


def describe(files: Path, instance_id: str, **fields: object) -> None:
    (files / "instances.json").write_text(json.dumps({"instances": {instance_id: fields}}))


def shards(files: Path, instance_id: str, count: int = 2) -> None:
    for number in range(count):
        node = files / instance_id / f"{instance_id}-db-{number}"
        node.mkdir(parents=True)
        (node / "dump_20261123021500.rdb").write_bytes(b"%d" % number)


async def create(ask: Ask, emulator: Emulator, instance_id: str = INSTANCE, **asked: Any) -> str:
    body = await ask(emulator, "CreateBackup", instance_id=instance_id, **asked)
    return str(body.backup_job_id)


async def tasks(ask: Ask, emulator: Emulator, instance_id: str = INSTANCE, **asked: Any) -> Any:
    body = await ask(emulator, "DescribeBackupTasks", instance_id=instance_id, **asked)
    assert body.instance_id == instance_id
    return body.backup_jobs


async def listed(ask: Ask, emulator: Emulator, instance_id: str = INSTANCE, **asked: Any) -> Any:
    body = await ask(emulator, "DescribeBackups", instance_id=instance_id, **SPAN, **asked)
    return body.backups.backup


async def test_a_backup_is_made(emulator: Emulator, ask: Ask, clock: Clock) -> None:
    job_id = await create(ask, emulator)
    assert len(await listed(ask, emulator)) == 2
    clock.now += 99
    assert len(await listed(ask, emulator)) == 2
    clock.now += 1
    [made] = await listed(ask, emulator, backup_job_id=int(job_id))
    assert (made.backup_mode, made.backup_status) == ("Manual", "Success")
    assert made.backup_start_time == "2026-11-24T12:00:00Z"
    assert made.expect_expire_time == "2026-12-01T12:00:00Z"
    async with (
        aiohttp.ClientSession() as session,
        session.get(made.backup_download_url) as answer,
    ):
        assert await answer.read() == b"newest"
    assert len(await listed(ask, emulator)) == 3


async def test_one_at_a_time(emulator: Emulator, ask: Ask, clock: Clock) -> None:
    first = await create(ask, emulator)
    error = await refused(ask(emulator, "CreateBackup", instance_id=INSTANCE))
    assert (error.code, error.status_code) == ("BackupJobExists", 400)
    clock.now += 100
    assert await create(ask, emulator) != first


async def test_progress(emulator: Emulator, ask: Ask, clock: Clock) -> None:
    assert await tasks(ask, emulator) == []
    job_id = int(await create(ask, emulator))
    seen = []
    for after in (0, 7, 15, 50, 95, 100, 1000):
        clock.now = START + after
        [task] = await tasks(ask, emulator, backup_job_id=str(job_id))
        seen.append((task.backup_progress_status, task.progress, task.process))
        assert (task.backup_job_id, task.node_id) == (job_id, INSTANCE)
        assert (task.job_mode, task.task_action) == ("Manual", "TempBackupTask")
        assert task.start_time == "2026-11-24T12:00:00Z"
    assert seen == [
        ("NoStart", "0", "0"),
        ("Preparing", "7", "7"),
        ("Waiting", "15", "15"),
        ("Uploading", "50", "50"),
        ("Checking", "95", "95"),
        ("Finished", "100", "100"),
        ("Finished", "100", "100"),
    ]
    assert len(await tasks(ask, emulator, job_mode="Manual")) == 1
    assert await tasks(ask, emulator, job_mode="Automated") == []
    assert await tasks(ask, emulator, backup_job_id="1") == []


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        # Several jobs have to be asked for one by one.
        ({"backup_job_id": "1022,2480"}, "InvalidBackupJobId.Malformed"),
        ({"job_mode": "Other"}, "InvalidJobMode.Malformed"),
    ],
)
async def test_tasks_that_make_no_sense(
    emulator: Emulator, ask: Ask, asked: dict[str, str], code: str
) -> None:
    error = await refused(ask(emulator, "DescribeBackupTasks", instance_id=INSTANCE, **asked))
    assert error.code == code


@pytest.mark.parametrize(
    ("days", "expires"), [(30, "2026-12-24T12:00:00Z"), (-1, None), (730, "2028-11-23T12:00:00Z")]
)
async def test_how_long_a_backup_is_kept(
    emulator: Emulator, ask: Ask, clock: Clock, days: int, expires: str | None
) -> None:
    job_id = await create(ask, emulator, backup_retention_period=days)
    clock.now += 100
    [made] = await listed(ask, emulator, backup_job_id=int(job_id))
    assert made.expect_expire_time == expires


@pytest.mark.parametrize("days", [0, 6, 731, -2])
async def test_a_retention_that_the_vendor_refuses(emulator: Emulator, ask: Ask, days: int) -> None:
    asked = {"instance_id": INSTANCE, "backup_retention_period": days}
    error = await refused(ask(emulator, "CreateBackup", **asked))
    assert error.code == "InvalidBackupRetentionPeriod.Malformed"


async def test_a_cluster_has_one_job(
    files: Path, emulator: Emulator, ask: Ask, clock: Clock
) -> None:
    shards(files, "r-new")
    describe(files, "r-new", CreateTime="2024-02-01T00:00:00Z")
    job_id = await create(ask, emulator, "r-new")
    found = await tasks(ask, emulator, "r-new", backup_job_id=job_id)
    assert [task.node_id for task in found] == ["r-new-db-0", "r-new-db-1"]
    clock.now += 100
    assert len(await listed(ask, emulator, "r-new", backup_job_id=int(job_id))) == 2


async def test_an_old_cluster_has_a_job_for_each_shard(
    files: Path, emulator: Emulator, ask: Ask, clock: Clock
) -> None:
    shards(files, "r-old")
    describe(files, "r-old", CreateTime="2023-12-04T23:59:59Z")
    before = await listed(ask, emulator, "r-old")
    assert len({backup.backup_job_id for backup in before}) == 2
    jobs = (await create(ask, emulator, "r-old")).split(",")
    assert len(jobs) == 2
    clock.now += 100
    nodes = []
    for job_id in jobs:
        [task] = await tasks(ask, emulator, "r-old", backup_job_id=job_id)
        [made] = await listed(ask, emulator, "r-old", backup_job_id=int(job_id))
        assert task.node_id == made.node_instance_id
        nodes.append(task.node_id)
    assert sorted(nodes) == ["r-old-db-0", "r-old-db-1"]


async def test_a_cloud_native_cluster_lists_what_is_under_way(
    files: Path, emulator: Emulator, ask: Ask, clock: Clock
) -> None:
    shards(files, "r-native")
    describe(files, "r-native", ArchitectureType="cluster", ComputingType="Ecs")
    asked = {"instance_id": "r-native", "region_id": "cn-hangzhou", **SPAN}
    await create(ask, emulator, "r-native")
    clock.now += 40
    body = await ask(emulator, "DescribeClusterBackupList", **asked)
    running, before = body.cluster_backups
    assert (running.cluster_backup_status, running.progress) == ("RUNNING", "40%")
    assert (running.is_avail, running.backups) == (0, [])
    assert before.progress is None
    clock.now += 60
    body = await ask(emulator, "DescribeClusterBackupList", **asked)
    made = body.cluster_backups[0]
    assert made.cluster_backup_id == running.cluster_backup_id
    assert (made.cluster_backup_status, made.is_avail) == ("OK", 1)
    assert (made.cluster_backup_mode, len(made.backups)) == ("Manual", 2)


async def test_thirty_a_day(emulator: Emulator, ask: Ask, clock: Clock) -> None:
    for _ in range(30):
        await create(ask, emulator)
        clock.now += 100
    error = await refused(ask(emulator, "CreateBackup", instance_id=INSTANCE))
    assert error.code == "BackupTimesExceeded"
    clock.now = START + DAY
    await create(ask, emulator)


async def test_no_time_at_all(
    files: Path, emulator_of: EmulatorMaker, ask: Ask, clock: Clock
) -> None:
    """Two backups within one second are two."""
    (files / INSTANCE / "a.rdb").write_bytes(b"x")
    emulator = await emulator_of(files, clock=clock)
    first, second = await create(ask, emulator), await create(ask, emulator)
    assert first != second
    for job_id in (first, second):
        assert len(await listed(ask, emulator, backup_job_id=int(job_id))) == 1


async def test_when_there_is_nothing_to_back_up(files: Path, emulator: Emulator, ask: Ask) -> None:
    describe(files, "r-empty")
    error = await refused(ask(emulator, "CreateBackup", instance_id="r-empty"))
    assert (error.code, error.status_code) == ("InvalidEmulatorFile", 400)
    describe(files, INSTANCE, InstanceStatus="Changing")
    error = await refused(ask(emulator, "CreateBackup", instance_id=INSTANCE))
    assert error.code == "IncorrectDBInstanceState"


async def test_a_file_in_the_making_is_no_backup(
    files: Path, emulator: Emulator, ask: Ask, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listings that have begun before may look at the folder."""
    real, seen = shutil.copyfile, []

    def copy(source: Path, target: Path) -> None:
        real(source, target)
        catalogue = Catalogue(files, timedelta(days=7))
        instance = catalogue.instance(INSTANCE)
        assert instance is not None
        seen.append(len(catalogue.backups(instance)))

    monkeypatch.setattr(shutil, "copyfile", copy)
    await create(ask, emulator)
    clock.now += 100
    assert len(await listed(ask, emulator)) == 3
    assert seen == [3]  # with the log


async def test_a_dump_that_is_gone_when_it_is_copied(
    files: Path, emulator: Emulator, ask: Ask, clock: Clock
) -> None:
    """The client is told once, and the emulator goes on."""
    await create(ask, emulator)
    (files / INSTANCE / "dump_20261123021500.rdb").unlink()
    clock.now += 100
    error = await refused(listed(ask, emulator))
    assert error.code == "InvalidEmulatorFile"
    assert len(await listed(ask, emulator)) == 1
    assert [path.name for path in (files / INSTANCE).iterdir() if path.name[0] == "."] == []
