"""Cloud-native clusters: what their listing says, and which listing an instance has."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from archiver import TairSource, events, received
from archiver.emulator import Emulator, Faults
from archiver.emulator.gateway import Request
from archiver.emulator.ram import Policy
from archiver.errors import BackupGone, PermissionDenied, SourceError, UnknownInstance, UnsafeInput
from archiver.model import (
    Backup,
    BackupMode,
    BackupType,
    Engine,
    Network,
    NodesExpected,
    Page,
    Query,
    Status,
)
from archiver.sources.alibaba import clusters
from archiver.sources.alibaba.clusters import over_tls, read_cluster_page, read_shard
from archiver.sources.alibaba.instances import Instance
from archiver.sources.alibaba.rpc import region_of
from tests.conftest import INSTANCE, EmulatorMaker, everything, source_of

REGION = "cn-beijing"
ID = "r-native"
EIGHT = NodesExpected(8, "ShardCount of DescribeInstances")


def shard_entry(number: int, **fields: object) -> dict[str, Any]:
    return {
        "BackupId": str(1000 + number),
        "InstanceName": f"{ID}-db-{number}",
        "BackupSize": "1024",
        "BackupStatus": "OK",
        "BackupStartTime": "2026-11-24T02:15:30",
        "BackupEndTime": "2026-11-24T02:16:00",
        "BackupDownloadURL": "http://b.oss-cn-beijing.aliyuncs.com/k?Signature=s",
        "BackupIntranetDownloadURL": "http://b.oss-cn-beijing-internal.aliyuncs.com:80/k?Expires=1",
        "IsAvail": "1",
        "Engine": "redis",
        "ExtraInfo": {"CustinsDbVersion": "7.0"},
        **fields,
    }


def set_entry(count: int = 3, **fields: object) -> dict[str, Any]:
    return {
        "ClusterBackupId": "cb-7",
        "ClusterBackupStatus": "OK",
        "ClusterBackupMode": "Manual",
        "ClusterBackupSize": "3072",
        "ClusterBackupStartTime": "2026-11-24T02:15:00Z",
        "ExpectExpireTime": "2026-12-01T02:15Z",
        "IsAvail": 1,
        "Unknown": {"kept": "https://h/x?secret"},
        "Backups": [shard_entry(number) for number in range(count)],
        **fields,
    }


def page_of(*entries: object, expected: NodesExpected | None = None) -> Page:
    answer = {"PageNumber": 1, "PageSize": 30, "MaxResults": 1, "ClusterBackups": list(entries)}
    return read_cluster_page(ID, answer, expected)


def test_a_set() -> None:
    page = page_of(set_entry())
    assert (page.total, page.is_last, page.refused) == (None, True, ())
    assert [one.node_id for one in page.backups] == [f"{ID}-db-{number}" for number in range(3)]
    backup = page.backups[1]
    assert backup.received == {
        **set_entry(),
        "Unknown": {"kept": "https://h/x"},
        "Backups": [
            shard_entry(
                1,
                BackupDownloadURL="http://b.oss-cn-beijing.aliyuncs.com/k",
                BackupIntranetDownloadURL="http://b.oss-cn-beijing-internal.aliyuncs.com:80/k",
            )
        ],
    }
    assert backup == Backup(
        source=clusters.SOURCE,
        instance_id=ID,
        node_id=f"{ID}-db-1",
        backup_id="1001",
        set_id="cb-7",
        started_at=datetime(2026, 11, 24, 2, 15, 30, tzinfo=UTC),
        status=Status.SUCCESS,
        type=BackupType.FULL,
        mode=BackupMode.MANUAL,
        ended_at=datetime(2026, 11, 24, 2, 16, tzinfo=UTC),
        expires_at=datetime(2026, 12, 1, 2, 15, tzinfo=UTC),
        engine=Engine(version="7.0"),
        size=1024,
        urls=backup.urls,
        received=backup.received,
    )


def test_what_was_received_is_read_again() -> None:
    backup = page_of(set_entry()).backups[2]
    read = received.reader(clusters.SOURCE)
    assert read is not None
    again = read(ID, json.loads(json.dumps(backup.received)))
    assert (again.identity, again.set_id, again.started_at) == (
        backup.identity, backup.set_id, backup.started_at,
    )  # fmt: skip


def test_the_start_of_a_shard_that_has_none_is_that_of_its_set() -> None:
    [backup] = page_of(set_entry(Backups=[shard_entry(0, BackupStartTime=None)])).backups
    assert backup.started_at == datetime(2026, 11, 24, 2, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("of_set", "of_shard", "status"),
    [
        ("OK", "OK", Status.SUCCESS),
        ("ERROR", "OK", Status.SUCCESS),  # others of the set failed
        ("ERROR", "ERROR", Status.FAILED),
        ("OK", "ERROR", Status.FAILED),
        ("RUNNING", "OK", Status.UNFINISHED),
        ("RUNNING", "ERROR", Status.UNFINISHED),
        ("OK", "Uploading", Status.UNFINISHED),
        ("OK", None, Status.UNFINISHED),
    ],
)
def test_states(of_set: str, of_shard: str | None, status: Status) -> None:
    entry = set_entry(ClusterBackupStatus=of_set, Backups=[shard_entry(0, BackupStatus=of_shard)])
    assert [one.status for one in page_of(entry).backups] == [status]


@pytest.mark.parametrize(
    ("entry", "of_instance", "expected"),
    [
        (set_entry(8), EIGHT, EIGHT),
        (set_entry(8), None, None),
        # It says itself that all are there: the instance had another number then.
        (set_entry(4), EIGHT, None),
        (set_entry(16), EIGHT, None),
        (set_entry(7, IsAvail=0), EIGHT, EIGHT),
        (set_entry(7, IsAvail="0"), EIGHT, EIGHT),
        (set_entry(7, IsAvail=None), EIGHT, EIGHT),
        (set_entry(7, IsAvail=0), None, 8),
        (set_entry(8, IsAvail=0), EIGHT, 9),
        (set_entry(16, IsAvail=0), EIGHT, 17),
        (set_entry(Backups=[shard_entry(0), shard_entry(1, IsAvail="0")]), None, 3),
        # The one that failed is the reason, and is loud by itself.
        (set_entry(IsAvail=0, Backups=[shard_entry(0, BackupStatus="ERROR")]), None, None),
        (set_entry(IsAvail=0, Backups=[shard_entry(0, BackupStatus="ERROR")]), EIGHT, EIGHT),
        (set_entry(IsAvail=0, ClusterBackupStatus="RUNNING"), EIGHT, None),
        (set_entry(8, ClusterBackupStatus="ERROR"), EIGHT, EIGHT),  # it says that all are there
    ],
)
def test_how_many_nodes_a_set_should_have(
    entry: dict[str, Any], of_instance: NodesExpected | None, expected: NodesExpected | int | None
) -> None:
    if isinstance(expected, int):
        text = "IsAvail 0 of DescribeClusterBackupList (perhaps more)"
        expected = NodesExpected(expected, text)
    page = page_of(entry, expected=of_instance)
    assert {one.nodes_expected for one in page.backups} == {expected}


def test_a_set_that_failed_and_does_not_say_why_lacks_a_shard() -> None:
    page = page_of(set_entry(8, ClusterBackupStatus="ERROR", IsAvail=None), expected=EIGHT)
    text = "ClusterBackupStatus of DescribeClusterBackupList (perhaps more)"
    assert {one.nodes_expected for one in page.backups} == {NodesExpected(9, text)}


def test_a_set_that_failed_without_any_shard_is_loud() -> None:
    [refused] = page_of(set_entry(0, ClusterBackupStatus="ERROR")).refused
    assert "'cb-7' failed at the vendor: it has no shards" in str(refused.error)
    assert (refused.set_id, refused.started_at) == (
        "cb-7",
        datetime(2026, 11, 24, 2, 15, tzinfo=UTC),
    )


def test_a_set_that_has_only_begun_is_none_yet() -> None:
    page = page_of(set_entry(0, ClusterBackupStatus="RUNNING", IsAvail=0))
    assert (page.backups, page.refused) == ((), ())


@pytest.mark.parametrize(
    "broken",
    [
        shard_entry(1, InstanceName=None),
        shard_entry(1, InstanceName=ID),  # its set would be this one file
        shard_entry(1, InstanceName="../x"),
        shard_entry(1, BackupId=None),
        shard_entry(1, BackupId="1-2"),
        shard_entry(1, BackupSize="many"),
        shard_entry(1, BackupStartTime="yesterday"),
        shard_entry(1, BackupDownloadURL=7),
        shard_entry(1, ExtraInfo="7.0"),
        "no object",
        None,
        [],
    ],
)
def test_a_shard_that_cannot_be_used_is_kept_apart(broken: object) -> None:
    """And its set is known, which must not count as complete."""
    page = page_of(set_entry(Backups=[shard_entry(0), broken]))
    assert [one.node_id for one in page.backups] == [f"{ID}-db-0"]
    assert [one.set_id for one in page.refused] == ["cb-7"]


@pytest.mark.parametrize(
    "broken",
    [
        None,
        "x",
        [],
        {},
        set_entry(ClusterBackupId=7),
        set_entry(ClusterBackupId=""),
        set_entry(Backups=7),
        set_entry(Backups=None),
    ],
)
def test_a_set_that_cannot_be_used_is_kept_apart(broken: object) -> None:
    page = page_of(broken, set_entry())
    assert (len(page.backups), len(page.refused)) == (3, 1)


@pytest.mark.parametrize("backups", [None, [], [shard_entry(0), shard_entry(1)], {"a": 1}, 7])
def test_a_record_of_another_shape(backups: object) -> None:
    with pytest.raises(UnsafeInput, match="'cb-7' cannot be read"):
        read_shard(ID, set_entry(Backups=backups))


@pytest.mark.parametrize("answer", [{}, {"PageNumber": 1, "PageSize": "x"}, {"ClusterBackups": {}}])
def test_an_answer_that_is_no_page(answer: dict[str, Any]) -> None:
    with pytest.raises(SourceError, match="not a page"):
        read_cluster_page(ID, answer)


def test_urls_over_tls() -> None:
    [backup, *_] = page_of(set_entry(1)).backups
    assert {network: url.reveal() for network, url in over_tls(backup).urls.items()} == {
        Network.PUBLIC: "https://b.oss-cn-beijing.aliyuncs.com/k?Signature=s",
        Network.INTRANET: "https://b.oss-cn-beijing-internal.aliyuncs.com/k?Expires=1",
    }


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("r-kvstore.ap-southeast-1.aliyuncs.com", "ap-southeast-1"),
        ("r-kvstore-vpc.cn-beijing.aliyuncs.com", "cn-beijing"),
        ("r-kvstore.aliyuncs.com", ""),
        ("r-kvstore.cn-beijing.aliyuncs.com.example", ""),
        ("127.0.0.1", ""),
    ],
)
def test_the_region_of_a_host(host: str, region: str) -> None:
    assert region_of(host) == region


# Which listing


def describe(files: Path, **more: Mapping[str, object]) -> None:
    native = {"ArchitectureType": "cluster", "ComputingType": "Ecs", "RegionId": REGION}
    instances = {ID: native, "r-classic": {"RegionId": REGION}, **more}
    (files / "instances.json").write_text(json.dumps({"instances": instances}))


def dumps(files: Path, shards: int = 3, sets: int = 1, instance_id: str = ID) -> None:
    for number in range(shards):
        node = files / instance_id / f"{instance_id}-db-{number}"
        node.mkdir(parents=True, exist_ok=True)
        for at in range(sets):
            day = datetime.fromtimestamp(1_790_000_000 + at * 3600, UTC)
            (node / f"d_{day:%Y%m%d%H%M%S}.rdb").write_bytes(b"REDIS0003\xff%d" % number)


class Asked:
    """The actions that an emulator was asked for."""

    def __init__(self, emulator: Emulator) -> None:
        self.actions: list[str] = []
        self.params: list[dict[str, str]] = []
        respond = emulator._api.respond

        def spy(request: Any, expire: int) -> dict[str, Any]:
            self.actions.append(request.action)
            self.params.append(dict(request.params))
            return respond(request, expire)

        emulator._api.respond = spy  # type: ignore[method-assign,assignment]


@pytest.fixture
async def native(files: Path, emulator_of: EmulatorMaker) -> Emulator:
    describe(files)
    dumps(files)
    return await emulator_of(files)


@pytest.fixture
def asked(native: Emulator) -> Asked:
    return Asked(native)


def known(instance_id: str = ID, **fields: Any) -> dict[str, Instance]:
    given = {"region": REGION, "architecture": "cluster", "is_cloud_native": True, **fields}
    return {instance_id: Instance(instance_id, **given)}


async def listed(source: TairSource, query: Query | None = None) -> list[Backup]:
    return [b async for page in source.pages(query or everything(ID)) for b in page.backups]


BACKUPS, SETS = "DescribeBackups", "DescribeClusterBackupList"


async def test_found_by_the_answers_and_remembered(native: Emulator, asked: Asked) -> None:
    async with source_of(native, region=REGION) as source:
        assert len(await listed(source)) == 3
        assert asked.actions == [BACKUPS, SETS]
        assert len(await listed(source)) == 3
        assert asked.actions == [BACKUPS, SETS, SETS]


async def test_known_beforehand(native: Emulator, asked: Asked) -> None:
    async with source_of(native, instances=known(shards=3)) as source:
        backups = await listed(source)
    assert asked.actions == [SETS]
    assert asked.params[0]["RegionId"] == REGION
    assert {one.nodes_expected for one in backups} == {
        NodesExpected(3, "ShardCount of DescribeInstances")
    }


@pytest.mark.parametrize("is_native", [True, False])
async def test_what_was_known_is_not_true_any_more(
    files: Path, native: Emulator, asked: Asked, is_native: bool
) -> None:
    """It is of yesterday, and the instance has been changed since."""
    if is_native:
        instances = known(architecture="standard")
        async with source_of(native, instances=instances) as source:
            assert len(await listed(source)) == 3
        assert asked.actions == [BACKUPS, SETS]
    else:
        (files / INSTANCE / "d_20261124021500.rdb").write_bytes(b"REDIS0003\xff")
        instances = known(INSTANCE, region="cn-hangzhou")
        async with source_of(native, instances=instances) as source:
            assert len(await listed(source, everything())) == 1
        assert asked.actions == [SETS, BACKUPS]


@pytest.mark.parametrize("instance_id", ["r-classic", ID])
async def test_nothing_in_either(
    files: Path, native: Emulator, asked: Asked, instance_id: str
) -> None:
    nothing = Query(instance_id, "2000-01-01T00:00Z", "2000-01-02T00:00Z")
    async with source_of(native, region=REGION) as source:
        assert await listed(source, nothing) == []
        assert asked.actions == [BACKUPS, SETS]
        assert len(await listed(source)) == 3, "nothing was concluded from it"


async def test_an_instance_with_backups_has_one_listing(
    files: Path, native: Emulator, asked: Asked
) -> None:
    (files / INSTANCE / "d_20261124021500.rdb").write_bytes(b"REDIS0003\xff")
    async with source_of(native, region="cn-hangzhou") as source:
        assert len(await listed(source, everything())) == 1
        assert await listed(source, Query(INSTANCE, "2000-01-01T00:00Z", "2000-01-02T00:00Z")) == []
    assert asked.actions == [BACKUPS, BACKUPS]


@pytest.mark.parametrize("instances", [{}, known("r-gone")])
async def test_no_such_instance(native: Emulator, instances: dict[str, Instance]) -> None:
    async with source_of(native, region=REGION, instances=instances) as source:
        with pytest.raises(UnknownInstance):
            await listed(source, everything("r-gone"))


async def test_a_cluster_that_goes_while_it_is_listed(
    files: Path, native: Emulator, asked: Asked
) -> None:
    dumps(files, sets=31)
    async with source_of(native, region=REGION, page_size=30) as source:
        pages = source.pages(everything(ID))
        assert (await anext(pages)).backups == ()  # of DescribeBackups
        assert len((await anext(pages)).backups) == 90
        (files / "instances.json").write_text("{}")
        for path in sorted((files / ID).rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        (files / ID).rmdir()
        with pytest.raises(UnknownInstance):
            await anext(pages)


async def test_without_a_region_only_one_can_be_asked(native: Emulator, asked: Asked) -> None:
    async with source_of(native) as source:
        assert await listed(source) == []
    assert asked.actions == [BACKUPS]


async def test_without_permission_for_the_other_listing(
    files: Path, emulator_of: EmulatorMaker
) -> None:
    """Its backups may be there, so it is no instance without backups."""
    describe(files)
    statement = {"Effect": "Allow", "Action": "kvstore:DescribeBackups", "Resource": "*"}
    policy = Policy.parse({"Version": "1", "Statement": [statement]})
    emulator = await emulator_of(files, policy=policy)
    async with source_of(emulator, region=REGION) as source:
        with pytest.raises(PermissionDenied, match="kvstore:DescribeClusterBackupList"):
            await listed(source)


async def test_many_pages_without_a_total(files: Path, native: Emulator, asked: Asked) -> None:
    dumps(files, sets=64)
    seen: list[events.Event] = []
    async with source_of(native, instances=known(), page_size=30, observer=seen.append) as source:
        found = await listed(source)
    assert len(found) == len({one.identity for one in found}) == 64 * 3
    assert [params["PageNumber"] for params in asked.params] == ["1", "2", "3"] * 2
    assert {e.total for e in seen if isinstance(e, events.PageListed)} == {None}


async def test_a_full_last_page(files: Path, native: Emulator, asked: Asked) -> None:
    dumps(files, sets=30)
    async with source_of(native, instances=known(), page_size=30) as source:
        assert len(await listed(source)) == 90
    assert [params["PageNumber"] for params in asked.params] == ["1", "2"] * 2


async def test_a_page_that_may_be_a_full_one_of_a_smaller_size(
    files: Path, native: Emulator, asked: Asked
) -> None:
    dumps(files, sets=10)
    async with source_of(native, instances=known()) as source:
        assert len(await listed(source)) == 30
    assert [params["PageNumber"] for params in asked.params] == ["1", "2"]


@pytest.mark.parametrize("sets", [12, 10])
async def test_pages_of_sets_that_are_smaller_than_they_say(
    files: Path, native: Emulator, sets: int
) -> None:
    """The API gives five at a time, and says otherwise."""
    respond = native._api.respond

    def five(request: Request, expire: int) -> dict[str, Any]:
        request = replace(request, query={**request.query, "PageSize": "5"})
        return {**respond(request, expire), "PageSize": 50}

    dumps(files, sets=sets)
    native._api.respond = five  # type: ignore[method-assign,assignment]
    async with source_of(native, instances=known()) as source:
        assert len(await listed(source)) == 3 * sets


async def test_a_listing_that_ignores_the_page_number_ends(native: Emulator) -> None:
    respond = native._api.respond
    native._api.respond = lambda request, expire: {  # type: ignore[method-assign,assignment]
        **respond(request, expire), "PageSize": 1,
    }  # fmt: skip
    async with source_of(native, instances=known()) as source:
        assert len(await listed(source)) == 3


async def test_one_set(files: Path, native: Emulator) -> None:
    dumps(files, sets=2)
    async with source_of(native, instances=known()) as source:
        [first, *_] = await listed(source)
        every = everything(ID)
        of_set = Query(ID, every.start, every.end, set_id=first.set_id)
        assert {one.set_id for one in await listed(source, of_set)} == {first.set_id}
        one = Query(ID, every.start, every.end, backup_id=first.backup_id)
        assert [b.identity for b in await listed(source, one)] == [first.identity]


async def test_one_job(files: Path, native: Emulator) -> None:
    for minute in (10, 15):
        (files / INSTANCE / f"d_202611240215{minute}.rdb").write_bytes(b"REDIS0003\xff")
    async with source_of(native) as source:
        [first, _] = await listed(source, everything())
        every = everything()
        of_job = Query(INSTANCE, every.start, every.end, set_id=first.set_id)
        assert [b.identity for b in await listed(source, of_job)] == [first.identity]


async def test_urls_are_renewed(files: Path, native: Emulator, asked: Asked) -> None:
    dumps(files, sets=40)
    async with source_of(native, instances=known()) as source:
        backup = (await listed(source))[50]
        asked.params.clear()
        native.faults = Faults(expire_after=7200)
        again = await source.again(backup)
        assert again.identity == backup.identity
        assert again.urls != backup.urls
        assert [one["ClusterBackupId"] for one in asked.params] == [backup.set_id]
        for path in (files / ID / backup.node_id).iterdir():
            path.unlink()
        with pytest.raises(BackupGone):
            await source.again(backup)


@pytest.mark.parametrize(("scheme", "expected"), [("http", "http"), ("https", "https")])
async def test_plain_http_only_where_the_endpoint_is(
    native: Emulator, scheme: str, expected: str
) -> None:
    answer = {"PageNumber": 1, "PageSize": 30, "ClusterBackups": [set_entry()]}
    endpoint = f"{scheme}://r-kvstore.{REGION}.aliyuncs.com"
    source = TairSource(endpoint, lambda: None, instances=known())  # type: ignore[arg-type,return-value]

    async def call(action: str, params: Mapping[str, str]) -> dict[str, Any]:
        return answer

    source._call = call  # type: ignore[method-assign]
    for backup in await listed(source):
        assert {url.reveal().partition("://")[0] for url in backup.urls.values()} == {expected}
        assert not backup.refused
