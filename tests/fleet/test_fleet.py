"""Instances of several regions as one source."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from archiver import Archive, FleetSource, Selection, events, pull, static_chain
from archiver.emulator import Emulator, Faults, Key, Policy
from archiver.errors import (
    ArchiverError,
    PermissionDenied,
    SourceError,
    SourceUnreachable,
    UnknownInstance,
)
from archiver.model import Query
from archiver.secret import Secret
from archiver.sources.alibaba.policies import BackupPolicy
from archiver.sources.alibaba.rpc import Credentials
from tests.conftest import QUICK, EmulatorMaker, credentials, everything
from tests.fleet.world import REGIONS, kind_of

ALL = Selection(is_all=True)
HASTY = replace(QUICK, attempts=1)


@asynccontextmanager
async def fleet_of(
    emulator: Emulator, regions: tuple[str, ...] | None = None, **options: Any
) -> AsyncIterator[FleetSource]:
    given = {"endpoint": emulator.endpoint, "retry": QUICK, **options}
    chain = static_chain(given.pop("credentials", credentials()))
    async with FleetSource(chain.get, regions, **given) as fleet:
        yield fleet


def policy(*denied: tuple[str, str]) -> Policy:
    """Everything but some actions on some resources."""
    statements = [{"Effect": "Allow", "Action": "*", "Resource": "*"}]
    for action, resource in denied:
        where = resource if resource == "*" else f"acs:kvstore:{resource}"
        statements.append({"Effect": "Deny", "Action": f"kvstore:{action}", "Resource": where})
    return Policy.parse({"Version": "1", "Statement": statements})


async def test_all_of_all_regions(emulator: Emulator, regions: dict[str, str]) -> None:
    async with fleet_of(emulator) as fleet:
        found = await fleet.find(ALL)
    assert {one.instance_id: one.region for one in found.instances} == regions
    assert [one.region for one in found.instances] == sorted(regions.values())
    assert (found.failures, found.refused, found.unlisted) == ({}, (), ())
    assert {kind_of(one.instance_id) for one in found.instances if one.why_no_backups} == {"alone"}
    assert {fleet.region_of(one) for one in regions} == set(REGIONS)


async def test_some_regions(emulator: Emulator, regions: dict[str, str]) -> None:
    async with fleet_of(emulator, REGIONS[:2]) as fleet:
        found = await fleet.find(ALL)
    assert {one.region for one in found.instances} == set(REGIONS[:2])
    assert emulator.tally.calls_by_action == {"DescribeInstances": 2}


async def test_an_endpoint_without_a_region(emulator: Emulator, regions: dict[str, str]) -> None:
    async with fleet_of(emulator, ("",)) as fleet:
        found = await fleet.find(ALL)
    assert {one.instance_id: one.region for one in found.instances} == regions


async def test_the_api_chooses_by_tag_and_group(emulator: Emulator) -> None:
    selection = Selection(is_all=True, tags={"env": "prod"}, resource_group="rg-1")
    async with fleet_of(emulator) as fleet:
        found = await fleet.find(selection)
        known = [one for region in fleet._regions.values() for one in region.known.values()]
    assert found.instances
    assert selection.chosen(known) == list(found.instances)
    assert len(known) == len(found.instances)


async def test_those_that_are_named(emulator: Emulator, regions: dict[str, str]) -> None:
    some = ("r-std-0000", "r-cloud-0007", "r-none")
    async with fleet_of(emulator) as fleet:
        found = await fleet.find(Selection(some))
    assert {one.instance_id for one in found.instances} == set(some[:2])
    assert found.unlisted == ("r-none",)


async def test_a_region_that_may_not_be_listed(
    files: Path, regions: dict[str, str], emulator_of: EmulatorMaker
) -> None:
    allowed = policy(("DescribeInstances", "cn-beijing:*:instance/*"))
    emulator = await emulator_of(files, policy=allowed)
    async with fleet_of(emulator) as fleet:
        found = await fleet.find(ALL)
    assert list(found.failures) == ["cn-beijing"]
    assert isinstance(found.failures["cn-beijing"], PermissionDenied)
    assert {one.region for one in found.instances} == set(REGIONS[1:])


async def test_nobody_answers_in_one_region(
    files: Path, regions: dict[str, str], emulator_of: EmulatorMaker, archive: Archive
) -> None:
    """It is not asked for each of its instances, and the others come home."""
    document = json.loads((files / "instances.json").read_text())
    document["regions"] = {"cn-beijing": {"RegionEndpoint": "127.0.0.1:1"}}
    (files / "instances.json").write_text(json.dumps(document))
    emulator = await emulator_of(files)
    async with fleet_of(emulator, retry=HASTY) as fleet:
        found = await fleet.find(ALL)
        assert isinstance(found.failures["cn-beijing"], SourceUnreachable)
        mine = [one for one, region in regions.items() if region == "cn-beijing"]
        fleet._home.update(dict.fromkeys(mine, "cn-beijing"))  # as of a list of this morning
        asked = [
            replace(everything(one), region=fleet.region_of(one))
            for one in regions
            if kind_of(one) in ("std", "split")
        ]
        summary = await pull(fleet, archive, asked)
    [failed] = summary.failures
    assert regions[failed.subject] == "cn-beijing"
    assert "; 1 more instance was not listed" in str(failed.error)
    assert summary.archived == 6


async def test_an_instance_is_looked_for_where_its_region_is_not_known(
    files: Path, regions: dict[str, str], emulator_of: EmulatorMaker
) -> None:
    """Without the permission to list instances, naming one is enough."""
    emulator = await emulator_of(files, policy=policy(("DescribeInstances", "*")))
    async with fleet_of(emulator) as fleet:
        found = await fleet.find(Selection(("r-std-0005", "r-none")))
        assert found.unlisted == ("r-std-0005", "r-none")
        assert found.failures == {}
        pages = [page async for page in fleet.pages(everything("r-std-0005"))]
        [backup] = pages[0].backups
        assert (await fleet.again(backup)).identity == backup.identity
        with pytest.raises(UnknownInstance, match="no region that was asked has it"):
            await anext(fleet.pages(everything("r-none")))


async def test_a_region_that_lists_nothing_of_an_instance_is_not_the_last_one_asked(
    files: Path, regions: dict[str, str], emulator_of: EmulatorMaker
) -> None:
    emulator = await emulator_of(files, policy=policy(("DescribeInstances", "*")))
    async with fleet_of(emulator) as fleet:
        await fleet.find(Selection(("r-cloud-0007",)))
        pages = [page async for page in fleet.pages(everything("r-cloud-0007"))]
    assert sum(len(page.backups) for page in pages) == 2


async def test_what_is_wrong_in_one_region_is_told_of_an_instance_that_may_be_there(
    files: Path, regions: dict[str, str], emulator_of: EmulatorMaker
) -> None:
    document = json.loads((files / "instances.json").read_text())
    document["regions"] = {"cn-beijing": {"RegionEndpoint": "127.0.0.1:1"}}
    (files / "instances.json").write_text(json.dumps(document))
    async with fleet_of(await emulator_of(files), retry=HASTY) as fleet:
        await fleet.find(Selection(("r-none",)))
        with pytest.raises(SourceError, match=r"r-none: .*no response from 127") as raised:
            await anext(fleet.pages(everything("r-none")))
    assert not raised.value.concerns_all  # another one may be in another region


async def test_a_region_with_a_strange_endpoint(
    files: Path, regions: dict[str, str], emulator_of: EmulatorMaker
) -> None:
    document = json.loads((files / "instances.json").read_text())
    document["regions"] = {"cn-beijing": {"RegionEndpoint": "evil.test"}}
    (files / "instances.json").write_text(json.dumps(document))
    async with fleet_of(await emulator_of(files)) as fleet:
        found = await fleet.find(ALL)
    assert list(found.failures) == ["cn-beijing"]
    assert {one.region for one in found.instances} == set(REGIONS[1:])


async def test_an_entry_that_cannot_be_read(
    files: Path, regions: dict[str, str], emulator_of: EmulatorMaker, tmp_path: Path
) -> None:
    document = json.loads((files / "instances.json").read_text())
    document["instances"]["no id"] = {}
    (files / "instances.json").write_text(json.dumps(document))
    emulator = await emulator_of(files)
    for _ in range(2):  # it is told again: such a list is not remembered
        async with fleet_of(emulator, cache_folder=tmp_path / "cache") as fleet:
            found = await fleet.find(ALL)
        assert "no id" in str(found.refused[0])
        assert len(found.refused) == 1
        assert "r-std-0005" in {one.instance_id for one in found.instances}


# What is remembered


async def test_a_list_is_remembered_and_asked_for_again_on_demand(
    emulator: Emulator, tmp_path: Path
) -> None:
    calls = []
    found = []
    for refresh in (False, False, True):
        async with fleet_of(
            emulator, REGIONS, cache_folder=tmp_path / "cache", refresh=refresh
        ) as fleet:
            found.append(await fleet.find(ALL))
            await fleet.policies(found[-1].instances)
            assert 0 < fleet.asked_at < asyncio.get_running_loop().time() + 10**12
        calls.append(dict(emulator.tally.calls_by_action))
        emulator.tally.calls_by_action.clear()
    assert calls == [
        {"DescribeInstances": 4, "DescribeBackupPolicy": 20},
        {},
        {"DescribeInstances": 4, "DescribeBackupPolicy": 20},
    ]
    assert found[0] == found[1] == found[2]


async def test_another_key_has_a_list_of_its_own(
    files: Path, regions: dict[str, str], emulator_of: EmulatorMaker, tmp_path: Path
) -> None:
    blind = policy(("DescribeInstances", "*"))
    other = Credentials(Secret("LTAIother"), Secret("secret"))
    emulator = await emulator_of(files, users=[Key("LTAIother", Secret("secret"), None, blind)])
    folder = tmp_path / "cache"
    async with fleet_of(emulator, cache_folder=folder) as fleet:
        assert len((await fleet.find(ALL)).instances) == len(regions)
    async with fleet_of(emulator, cache_folder=folder, credentials=other) as fleet:
        found = await fleet.find(ALL)
    assert (found.instances, set(found.failures)) == ((), set(REGIONS))


async def test_a_denial_is_remembered(
    files: Path, regions: dict[str, str], emulator_of: EmulatorMaker, tmp_path: Path
) -> None:
    emulator = await emulator_of(files, policy=policy(("DescribeInstances", "*")))
    named = Selection(("r-std-0000",))
    for calls in (1, 1):
        async with fleet_of(emulator, REGIONS[:1], cache_folder=tmp_path / "cache") as fleet:
            assert (await fleet.find(named)).unlisted == named.ids
        assert emulator.tally.calls_by_action["DescribeInstances"] == calls
    async with fleet_of(emulator, REGIONS[:1], cache_folder=tmp_path / "cache") as fleet:
        found = await fleet.find(named, must_know=True)  # who wants to know asks
    assert isinstance(found.failures["cn-beijing"], PermissionDenied)


async def test_those_that_are_named_are_looked_up_once_a_day(
    emulator: Emulator, tmp_path: Path
) -> None:
    asked = []
    named = ("r-cloud-0002", "r-std-0000")
    for more, unlisted in ((), ()), (("r-none",), ("r-none",)), (("r-none",), ("r-none",)):
        async with fleet_of(emulator, REGIONS[:1], cache_folder=tmp_path / "cache") as fleet:
            found = await fleet.find(Selection((*named, *more)))
        assert tuple(one.instance_id for one in found.instances) == named
        assert found.unlisted == unlisted
        asked.append(emulator.tally.calls_by_action["DescribeInstances"])
    assert asked[0] == 1
    assert asked[0] < asked[1] == asked[2]


# Policies


async def test_policies(files: Path, regions: dict[str, str], emulator_of: EmulatorMaker) -> None:
    document = json.loads((files / "instances.json").read_text())
    document["instances"]["r-std-0005"]["BackupPolicy"] = {
        "PreferredBackupPeriod": "Thursday,Monday", "PreferredBackupTime": "18:00Z-19:00Z",
        "BackupRetentionPeriod": "30", "EnableBackupLog": 1,
    }  # fmt: skip
    (files / "instances.json").write_text(json.dumps(document))
    denied = policy(("DescribeBackupPolicy", "*:*:instance/r-std-0000"))
    emulator = await emulator_of(files, policy=denied)
    async with fleet_of(emulator) as fleet:
        found = await fleet.find(Selection(("r-std-0000", "r-std-0005")))
        policies = await fleet.policies(found.instances)
    assert isinstance(policies["r-std-0000"], PermissionDenied)
    assert policies["r-std-0005"] == BackupPolicy(30, ("Monday", "Thursday"), "18:00Z-19:00Z", True)


async def test_an_instance_that_is_deleted_meanwhile_is_named(
    files: Path, regions: dict[str, str], emulator_of: EmulatorMaker, archive: Archive,
    tmp_path: Path,
) -> None:  # fmt: skip
    async with fleet_of(await emulator_of(files), cache_folder=tmp_path / "cache") as fleet:
        await fleet.find(ALL)
    queries = []
    seen: list[ArchiverError] = []

    def observe(event: events.Event) -> None:
        if isinstance(event, events.Failed):
            seen.append(event.error)

    emulator = await emulator_of(files)
    async with fleet_of(emulator, cache_folder=tmp_path / "cache") as fleet:
        await fleet.find(ALL)
        queries = [Query("r-std-0000", "2000-01-01T00:00Z", "2100-01-01T00:00Z"),
                   replace(everything("r-std-0005"), region="cn-hangzhou")]  # fmt: skip
        document = json.loads((files / "instances.json").read_text())
        del document["instances"]["r-std-0000"]
        (files / "instances.json").write_text(json.dumps(document))
        (files / "r-std-0000" / "dump_20261124021500.rdb").unlink()
        (files / "r-std-0000").rmdir()
        summary = await pull(fleet, archive, queries, observer=observe)
    assert [type(error) for error in seen] == [UnknownInstance]
    assert summary.archived == 1


async def test_an_interruption_keeps_the_policies_that_are_known(
    emulator: Emulator, tmp_path: Path
) -> None:
    folder = tmp_path / "cache"
    async with fleet_of(emulator, cache_folder=folder) as fleet:
        found = await fleet.find(ALL)
        assert fleet.calls_for_policies(found.instances) == 5  # of each of four regions
        emulator.faults = Faults(latency=0.05)
        asking = asyncio.create_task(fleet.policies(found.instances))
        while not emulator.tally.calls_by_action["DescribeBackupPolicy"] >= 17:
            await asyncio.sleep(0.001)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    async with fleet_of(emulator, cache_folder=folder) as fleet:
        found = await fleet.find(ALL)
        left = fleet.calls_for_policies(found.instances)
    assert left < 5
