"""The RAM policies of the documentation: each is enough, and nothing in it is too much."""

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from archiver.emulator import Emulator, Policy
from archiver.errors import PermissionDenied
from archiver.sources.alibaba.api import Api
from examples.sample_rdb import write_rdb
from tests.cli.conftest import Run
from tests.conftest import INSTANCE, EmulatorMaker, source_of
from tests.docs.pages import DOCS

PAGE = DOCS["credentials-and-network"]
BY_NAME, OF_ALL, ON_DEMAND = [json.loads(b.text) for b in PAGE.blocks if b.language == "json"]
REGION = ("--region", "cn-hangzhou")


def without_each(policy: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The policy without one of its actions, by that action."""
    for number, statement in enumerate(policy["Statement"]):
        actions = statement["Action"]
        actions = [actions] if isinstance(actions, str) else actions
        for action in actions:
            less = copy.deepcopy(policy)
            less["Statement"][number]["Action"] = [one for one in actions if one != action]
            yield action, less


@pytest.fixture
async def emulators(emulator_of: EmulatorMaker, tmp_path: Path) -> Any:
    folder = tmp_path / "granted"
    fields = {"ArchitectureType": "cluster", "ComputingType": "Ecs", "InstanceType": "Tair"}

    async def start(policy: dict[str, Any], *, native: bool = False) -> Emulator:
        """Of one instance, a standard one or a cloud-native cluster."""
        shutil.rmtree(folder, ignore_errors=True)
        node = f"{INSTANCE}-db-0" if native else ""
        write_rdb(folder / INSTANCE / node / "dump_20261124021500.rdb", 1000)
        if native:
            (folder / "instances.json").write_text(json.dumps({"instances": {INSTANCE: fields}}))
        return await emulator_of(folder, policy=Policy.parse(policy), backup_seconds=60)

    return start


async def test_by_name(emulators: Any, run: Run) -> None:
    async def pull(policy: dict[str, Any], to: str, *, native: bool = False) -> int:
        emulator = await emulators(policy, native=native)
        args = ("pull", "--instance", INSTANCE, *REGION, "--to", to)
        return (await run(*args, ARCHIVER_PULL_ENDPOINT=emulator.endpoint)).code

    assert await pull(BY_NAME, "archive") == 0
    other = json.loads(json.dumps(BY_NAME).replace(INSTANCE, "r-other"))
    assert await pull(other, "other") == 4
    for action, less in without_each(BY_NAME):
        native = action == "kvstore:DescribeClusterBackupList"
        assert await pull(less, "other", native=native) == 4, action
    assert await pull(BY_NAME, "native", native=True) == 0


async def test_all(emulators: Any, run: Run) -> None:
    async def both(policy: dict[str, Any], *, native: bool = False) -> tuple[int, int, bool]:
        """The exit codes of a pull and a list, and whether the list is whole."""
        endpoint = (await emulators(policy, native=native)).endpoint
        where = {f"ARCHIVER_{name}_ENDPOINT": endpoint for name in ("PULL", "INSTANCES")}
        args = ("--region", "all", "--instance", "all")
        pulled = await run("pull", *args, "--to", "archive", **where)
        listed = await run("instances", *args, "--refresh", **where)
        return pulled.code, listed.code, "daily" in listed.out

    assert await both(OF_ALL) == (0, 0, True)
    needed = {
        "kvstore:DescribeInstances": (4, 4, False),
        "kvstore:DescribeRegions": (4, 4, False),
        "kvstore:DescribeBackupPolicy": (0, 0, False),
        "kvstore:DescribeBackups": (4, 0, True),
        "kvstore:DescribeClusterBackupList": (4, 0, True),
    }
    for action, less in without_each(OF_ALL):
        native = action == "kvstore:DescribeClusterBackupList"
        assert await both(less, native=native) == needed[action], action


async def test_on_demand(emulators: Any) -> None:
    async def backup(api: Api) -> None:
        resource = f"acs:kvstore:cn-hangzhou:*:instance/{INSTANCE}"
        params = {"InstanceId": INSTANCE}
        for action in ("CreateBackup", "DescribeBackupTasks"):
            await api.call(action, params, subject=INSTANCE, resource=resource)

    async with source_of(await emulators(ON_DEMAND)) as source:
        await backup(source.api)
    for action, less in without_each(ON_DEMAND):
        async with source_of(await emulators(less)) as source:
            with pytest.raises(PermissionDenied, match=action.partition(":")[2]):
                await backup(source.api)


async def test_what_changes_something_is_in_no_other(emulators: Any) -> None:
    for policy in (BY_NAME, OF_ALL):
        async with source_of(await emulators(policy)) as source:
            with pytest.raises(PermissionDenied):
                await source.api.call("CreateBackup", {"InstanceId": INSTANCE}, subject=INSTANCE)
