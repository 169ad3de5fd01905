"""Backups on demand of instances in several regions."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from archiver.emulator import Emulator
from archiver.errors import SourceUnreachable
from archiver.sources.alibaba.selection import Selection
from tests.cli.conftest import Result, Run
from tests.conftest import EmulatorMaker
from tests.fleet.test_fleet import HASTY, fleet_of, policy

# Of the instances, two in a region of their own each, of different kinds.
HANGZHOU, SHANGHAI = "r-cloud-0007", "r-std-0010"
NAMED = ("--instance", HANGZHOU, "--instance", SHANGHAI)
TWO = ("--region", "cn-hangzhou", "--region", "cn-shanghai")
DENIED = policy(("DescribeInstances", "*"))


@pytest.fixture
async def emulator(regions: dict[str, str], files: Path, emulator_of: EmulatorMaker) -> Emulator:
    return await emulator_of(files, backup_seconds=0)


def created(emulator: Emulator) -> int:
    return emulator.tally.calls_by_action["CreateBackup"]


def made(files: Path) -> dict[str, int]:
    """How many files were made on demand, by instance."""
    paths = [path.relative_to(files).parts[0] for path in files.rglob("manual_*")]
    return {name: paths.count(name) for name in paths}


def last_line(result: Result) -> Mapping[str, Any]:
    return dict(json.loads(result.out.splitlines()[-1]))


@pytest.mark.parametrize("regions_given", [TWO, ("--region", "all")], ids=["two", "all"])
async def test_each_in_its_own_region(
    run: Run, files: Path, emulator: Emulator, tmp_path: Path, regions_given: tuple[str, ...]
) -> None:
    result = await run("backup", *NAMED, *regions_given, "--pull", "--to", "archive", "--json")
    assert result.code == 0, result.err
    assert made(files) == {HANGZHOU: 2, SHANGHAI: 1}
    assert created(emulator) == 2
    assert len(list((tmp_path / "archive").rglob("*.rdb"))) == 3
    last = last_line(result)
    assert (last["made"], last["archived"], last["left"]) == (2, 3, {})


async def test_no_other_region_is_asked_to_make_one(
    run: Run, files: Path, regions: dict[str, str], emulator_of: EmulatorMaker, tmp_path: Path
) -> None:
    """Each region is an emulator of its own; the first names the endpoints of all."""
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(files, elsewhere)
    other = await emulator_of(elsewhere, backup_seconds=0)
    document = json.loads((files / "instances.json").read_text())
    document["regions"] = {"cn-shanghai": {"RegionEndpoint": other.endpoint.partition("//")[2]}}
    (files / "instances.json").write_text(json.dumps(document))
    first = await emulator_of(files, backup_seconds=0)
    result = await run(
        "backup", *NAMED, "--region", "all", ARCHIVER_BACKUP_ENDPOINT=first.endpoint
    )  # fmt: skip
    assert result.code == 0, result.err
    assert (made(files), created(first)) == ({HANGZHOU: 2}, 1)
    assert (made(elsewhere), created(other)) == ({SHANGHAI: 1}, 1)


@pytest.mark.parametrize("words", [("--instance", HANGZHOU), ("--wait-for", f"{HANGZHOU}:7")])
async def test_a_region_without_the_instance(
    run: Run, files: Path, emulator: Emulator, words: tuple[str, ...]
) -> None:
    """It fails before anything is begun or waited for, and what is elsewhere is made."""
    given = ("--region", "cn-beijing", "--region", "cn-shanghai", "--json")
    result = await run("backup", *words, "--instance", SHANGHAI, *given)
    assert result.code == 1
    assert f"{HANGZHOU}: no region that was asked has it" in result.err
    assert "to go on" not in result.err
    assert (made(files), created(emulator)) == ({SHANGHAI: 1}, 1)
    told = [json.loads(line) for line in result.out.splitlines()]
    assert [one["event"] for one in told if one.get("instance_id") == HANGZHOU] == []
    assert (last_line(result)["left"], last_line(result)["go_on"]) == ({}, None)


async def test_a_command_that_goes_on_keeps_the_regions(
    run: Run, files: Path, regions: dict[str, str], emulator_of: EmulatorMaker
) -> None:
    emulator = await emulator_of(files, backup_seconds=1000)
    endpoint = {"ARCHIVER_BACKUP_ENDPOINT": emulator.endpoint}
    stopped = await run("backup", *NAMED, *TWO, "--timeout", "1s", **endpoint)
    told = stopped.err.partition("to go on: archiver ")[2].split()
    assert told[:5] == ["backup", *TWO]
    assert told.count("--wait-for") == 2
    await run(*told, **endpoint)
    assert created(emulator) == 2


async def test_one_that_was_created_since_it_was_looked_for(
    run: Run, files: Path, emulator: Emulator, tmp_path: Path
) -> None:
    """That an instance is not there is asked again, though it is remembered."""
    kept = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    args = ("backup", "--instance", HANGZHOU, "--region", "cn-shanghai")
    assert (await run(*args, **kept)).code == 1
    document = json.loads((files / "instances.json").read_text())
    document["instances"][HANGZHOU]["RegionId"] = "cn-shanghai"
    (files / "instances.json").write_text(json.dumps(document))
    assert ((await run(*args, **kept)).code, created(emulator)) == (0, 1)


async def test_instances_that_may_not_be_looked_up(
    run: Run, files: Path, regions: dict[str, str], emulator_of: EmulatorMaker
) -> None:
    """Of several regions none is tried out; of one, the API's answer decides."""
    emulator = await emulator_of(files, backup_seconds=0, policy=DENIED)
    endpoint = {"ARCHIVER_BACKUP_ENDPOINT": emulator.endpoint}
    result = await run("backup", *NAMED, *TWO, **endpoint)
    assert result.code == 4
    unknown = "it is not known which of cn-hangzhou, cn-shanghai has it (give the --region that"
    assert result.err.count(unknown) == 2
    assert result.err.count("grant the RAM action kvstore:DescribeInstances") == 2
    assert created(emulator) == 0
    result = await run("backup", "--instance", HANGZHOU, "--region", "cn-hangzhou", **endpoint)
    assert (result.code, created(emulator)) == (0, 1)


async def test_a_region_that_denies_it_and_is_not_needed(
    run: Run, files: Path, regions: dict[str, str], emulator_of: EmulatorMaker
) -> None:
    """What is known of the others leaves it as the only one, too."""
    one_denied = policy(("DescribeInstances", "cn-shanghai:*:instance/*"))
    emulator = await emulator_of(files, backup_seconds=0, policy=one_denied)
    endpoint = {"ARCHIVER_BACKUP_ENDPOINT": emulator.endpoint}
    result = await run("backup", *NAMED, *TWO, **endpoint)
    assert (result.code, "DescribeInstances" in result.err) == (0, False)
    assert (made(files), created(emulator)) == ({HANGZHOU: 2, SHANGHAI: 1}, 2)


async def test_a_region_that_nobody_answers_for(
    files: Path, regions: dict[str, str], emulator_of: EmulatorMaker
) -> None:
    """Its instances are not tried again, for then that would be waited for twice."""
    document = json.loads((files / "instances.json").read_text())
    document["regions"] = {"cn-shanghai": {"RegionEndpoint": "127.0.0.1:1"}}
    (files / "instances.json").write_text(json.dumps(document))
    emulator = await emulator_of(files)
    async with fleet_of(emulator, retry=HASTY) as fleet:
        found = await fleet.find(Selection((HANGZHOU, SHANGHAI)), must_know=True)
        assert (found.unlisted, list(found.failures)) == ((SHANGHAI,), ["cn-shanghai"])
        assert fleet.home_of(HANGZHOU) is not None
        with pytest.raises(SourceUnreachable):
            fleet.home_of(SHANGHAI)
