"""Instances as the vendor lists them."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from archiver.emulator import Emulator
from archiver.errors import ArchiverError, PermissionDenied, RequestRejected, SourceError
from archiver.model import NodesExpected
from archiver.sources.alibaba.api import VERSION, Api
from archiver.sources.alibaba.instances import Instance, describe_instances, read_instances
from archiver.sources.alibaba.quotas import Quotas
from archiver.sources.alibaba.rpc import Credentials, RpcClient
from archiver.sources.session import open_session
from tests.conftest import QUICK, EmulatorMaker, credentials


def answer(*entries: object, total: int | None = None) -> dict[str, Any]:
    count = len(entries) if total is None else total
    return {"TotalCount": count, "Instances": {"KVStoreInstance": list(entries)}}


NATIVE = {
    "InstanceId": "r-native",
    "InstanceName": "会话",
    "RegionId": "cn-beijing",
    "InstanceStatus": "Normal",
    "InstanceType": "Tair",
    "ArchitectureType": "cluster",
    "ComputingType": "Ecs",
    "NodeType": "double",
    "ShardCount": 8,
    "EngineVersion": "7.0",
    "ResourceGroupId": "rg-web",
    "CreateTime": "2024-01-01T00:00:00Z",
    "EndTime": "2026-11-01T16:00:00Z",
    "DestroyTime": "2026-11-16T16:00:00Z",
    "Tags": {"Tag": [{"Key": "team", "Value": "web"}]},
    "Something": {"new": True},
}


def test_an_entry() -> None:
    [instance], refused, total = read_instances(answer(NATIVE))
    assert (refused, total) == ([], 1)
    assert instance == Instance(
        instance_id="r-native",
        region="cn-beijing",
        name="会话",
        status="Normal",
        architecture="cluster",
        is_cloud_native=True,
        node_type="double",
        shards=8,
        engine="Tair",
        engine_version="7.0",
        tags={"team": "web"},
        resource_group="rg-web",
        created_at=datetime(2024, 1, 1, tzinfo=UTC),
        ends_at=datetime(2026, 11, 1, 16, tzinfo=UTC),
        destroyed_at=datetime(2026, 11, 16, 16, tzinfo=UTC),
    )
    assert instance.lists_cluster_backups
    assert instance.nodes_expected == NodesExpected(8, "ShardCount of DescribeInstances")
    assert instance.why_no_backups is None


@pytest.mark.parametrize(
    ("fields", "lists_clusters", "expected"),
    [
        ({"ComputingType": "Machine"}, False, None),
        ({"ArchitectureType": "standard"}, False, None),
        ({"ArchitectureType": "rwsplit"}, False, None),  # its shards are copies
        ({"ShardCount": 0}, True, None),
        ({"ShardCount": None}, True, None),
    ],
)
def test_kinds(
    fields: Mapping[str, Any], lists_clusters: bool, expected: NodesExpected | None
) -> None:
    [instance], _, _ = read_instances(answer({**NATIVE, **fields}))
    assert (instance.lists_cluster_backups, instance.nodes_expected) == (lists_clusters, expected)


@pytest.mark.parametrize("node_type", ["STAND_ALONE", "single"])
def test_an_instance_that_cannot_be_backed_up(node_type: str) -> None:
    [instance], _, _ = read_instances(answer({**NATIVE, "NodeType": node_type}))
    assert node_type in str(instance.why_no_backups)


def test_characters_that_no_line_may_have_are_replaced() -> None:
    tags = {"Tag": [{"Key": "te\x1bam", "Value": "w\ud800b"}]}
    [instance], _, _ = read_instances(
        answer({"InstanceId": "r-1", "InstanceName": "prod\ta", "Tags": tags})
    )
    # Selected by --name 'prod*', and printed on one line.
    assert (instance.name, instance.tags) == ("prod?a", {"te?am": "w?b"})


@pytest.mark.parametrize("wrong", [None, 7, True, ["a"], {"a": {}}])
def test_a_field_that_cannot_be_read_is_as_if_it_were_missing(wrong: object) -> None:
    fields = dict.fromkeys(set(NATIVE) - {"InstanceId", "ShardCount"}, wrong)
    [instance], refused, _ = read_instances(answer({**fields, "InstanceId": "r-x"}))
    assert instance == Instance("r-x", "")
    assert not refused


@pytest.mark.parametrize("wrong", ["8", True, -1, 1.5, 10**12])
def test_a_number_of_shards_that_is_none(wrong: object) -> None:
    [instance], _, _ = read_instances(answer({**NATIVE, "ShardCount": wrong}))
    assert instance.shards is None


@pytest.mark.parametrize("entry", [None, [], {}, {"InstanceId": 7}, {"InstanceId": "../r"}])
def test_an_entry_without_a_usable_id_is_kept_apart(entry: object) -> None:
    instances, refused, _ = read_instances(answer(entry, NATIVE))
    assert (len(instances), len(refused)) == (1, 1)


@pytest.mark.parametrize("wrong", [{}, {"TotalCount": "x"}, {"TotalCount": 1, "Instances": []}])
def test_an_answer_that_is_no_page(wrong: dict[str, Any]) -> None:
    with pytest.raises(SourceError, match="not a page"):
        read_instances(wrong)


@asynccontextmanager
async def api_of(emulator: Emulator, region: str = "") -> AsyncIterator[Api]:
    async def key() -> Credentials:
        return credentials()

    async with open_session() as session:
        rpc = RpcClient(session, emulator.endpoint, VERSION)
        yield Api(rpc, key, region=region, quotas=Quotas(), retry=QUICK, observer=lambda _: None)


def describe(files: Path, instances: Mapping[str, Mapping[str, Any]]) -> None:
    (files / "instances.json").write_text(json.dumps({"instances": instances}))


async def ids_of(api: Api, **given: Any) -> list[str]:
    return [instance.instance_id async for instance in describe_instances(api, **given)]


async def test_many_pages(files: Path, emulator_of: EmulatorMaker) -> None:
    names = [f"r-{number:03}" for number in range(120)]
    describe(files, {name: {"InstanceType": "Tair"} for name in names})
    emulator = await emulator_of(files)
    async with api_of(emulator) as api:
        found = await ids_of(api)
    assert len(found) == len(set(found))
    assert set(names) < set(found)
    assert emulator.tally.api_calls == 6, "three pages, read twice"


async def test_filters(files: Path, emulator_of: EmulatorMaker) -> None:
    web = {"Tags": {"team": "web", "stage": "live"}, "ResourceGroupId": "rg-web"}
    many = {f"k{number}": "v" for number in range(7)}
    describe(
        files,
        {
            "r-a": {"RegionId": "cn-beijing", **web},
            "r-b": {"RegionId": "cn-beijing", "Tags": {"team": "web"}},
            "r-c": {"RegionId": "cn-shanghai", **web},
            "r-d": {"RegionId": "cn-beijing", "Tags": many},
            "r-e": {"RegionId": "cn-beijing", "Tags": many | {"k6": "other"}},
        },
    )
    emulator = await emulator_of(files)
    async with api_of(emulator, "cn-beijing") as api:
        assert await ids_of(api) == ["r-a", "r-b", "r-d", "r-e"]
        assert await ids_of(api, tags={"team": "web"}) == ["r-a", "r-b"]
        assert await ids_of(api, tags={"team": "web", "stage": "live"}) == ["r-a"]
        assert await ids_of(api, resource_group="rg-web") == ["r-a"]
        assert await ids_of(api, tags=many) == ["r-d"], "more tags than the API takes"
        assert await ids_of(api, ids=["r-b", "r-c", "r-b"]) == ["r-b"]


async def test_more_ids_than_one_request_takes(files: Path, emulator_of: EmulatorMaker) -> None:
    names = [f"r-{number:03}" for number in range(65)]
    describe(files, {name: {} for name in names})
    emulator = await emulator_of(files)
    async with api_of(emulator) as api:
        assert await ids_of(api, ids=names) == names
    assert emulator.tally.api_calls == 3, "all were found: no further type is asked for"


async def test_without_permission(files: Path, emulator_of: EmulatorMaker) -> None:
    from archiver.emulator.ram import Policy

    policy = Policy.parse({"Version": "1", "Statement": []})
    emulator = await emulator_of(files, policy=policy)
    async with api_of(emulator, "cn-beijing") as api:
        with pytest.raises(PermissionDenied, match="kvstore:DescribeInstances"):
            await ids_of(api)


class Listing:
    """Stands in for the API: answers by the InstanceType asked for and the page."""

    region = "cn-beijing"

    def __init__(self, pages: Mapping[tuple[str, int], dict[str, Any] | ArchiverError]) -> None:
        self.pages = dict(pages)
        self.asked: list[tuple[str, int]] = []

    async def call(self, _: str, params: Mapping[str, str], **__: object) -> dict[str, Any]:
        which = params.get("InstanceType", ""), int(params["PageNumber"])
        self.asked.append(which)
        given: dict[str, Any] | ArchiverError = self.pages.get(which, answer())
        if isinstance(given, ArchiverError):
            raise given
        return given


def entry(instance_id: str, kind: str = "Redis") -> dict[str, str]:
    return {"InstanceId": instance_id, "InstanceType": kind}


async def test_types_that_the_default_hides_are_asked_for() -> None:
    api: Any = Listing(
        {
            ("", 1): answer(entry("r-a")),
            ("Tair", 1): answer(entry("r-a"), entry("r-b", "Tair")),
            ("tair_scm", 1): RequestRejected("InvalidInstanceType"),
            ("tair_essd", 1): answer(entry("r-c", "tair_essd")),
        }
    )
    assert await ids_of(api) == ["r-a", "r-b", "r-c"]


async def test_types_that_nothing_hides_are_not_asked_for() -> None:
    api: Any = Listing({("", 1): answer(entry("r-a"), entry("r-b", "tair_rdb"))})
    assert await ids_of(api) == ["r-a", "r-b"]
    assert api.asked == [("", 1)]


async def test_a_listing_that_moves_is_read_again() -> None:
    page = [entry(f"r-{number:02}", "Tair") for number in range(51)]

    class Moving(Listing):
        async def call(self, _: str, params: Mapping[str, str], **__: object) -> dict[str, Any]:
            number = int(params["PageNumber"])
            shown = page[(number - 1) * 50 : number * 50]
            found = answer(*shown, total=len(page))
            if page[0]["InstanceId"] == "r-00":  # the first goes: all others move up
                page[:] = [*page[1:], entry("r-51", "Tair")]
            return found

    api: Any = Moving({})
    assert sorted(await ids_of(api)) == [f"r-{number:02}" for number in range(52)]


async def test_an_entry_that_cannot_be_used_is_reported_once() -> None:
    pages = {("", 1): answer({"InstanceId": ".."}, entry("r-a", "Tair"), total=3)}
    api: Any = Listing({**pages, ("", 2): answer(entry("r-b", "Tair"), total=3)})
    refused: list[ArchiverError] = []
    assert await ids_of(api, on_refused=refused.append) == ["r-a", "r-b"]
    assert len(refused) == 1
    assert len(api.asked) == 4


async def test_the_same_page_over_and_over() -> None:
    page = answer(entry("r-a", "Tair"), total=10**9)
    api: Any = Listing({("", number): page for number in range(1, 9)})
    with pytest.raises(SourceError, match="page 2 of DescribeInstances is page 1"):
        await ids_of(api)


@pytest.mark.parametrize("size", [1, 50])
async def test_pages_that_are_smaller_than_asked_for(size: int) -> None:
    """Whatever size they say they have."""
    pages = {
        ("", 1): {**answer(entry("r-a", "Tair"), total=2), "PageSize": size},
        ("", 2): {**answer(entry("r-b", "Tair"), total=2), "PageSize": size},
    }
    api: Any = Listing(pages)
    assert await ids_of(api) == ["r-a", "r-b"]


async def test_instances_that_are_counted_and_not_shown_are_told() -> None:
    api: Any = Listing({("", 1): answer(entry("r-a", "Tair"), total=3), ("", 2): answer(total=3)})
    refused: list[ArchiverError] = []
    assert await ids_of(api, on_refused=refused.append) == ["r-a"]
    [error] = refused
    assert str(error).endswith("DescribeInstances shows 1 of the 3 instances that it counts")
