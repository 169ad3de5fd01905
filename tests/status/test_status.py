"""``archiver status`` on archives that pulls made from an emulator."""

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from archiver import Archive, LocalStore
from archiver.archive.descriptions import keep
from archiver.commands.status.facts import recent_drills
from archiver.commands.status.judge import Limits
from archiver.commands.status.run import Remote, status
from archiver.emulator import Emulator
from archiver.model import InstanceDescription, Schedule
from examples.sample_rdb import rdb
from tests.archive.sample import put_standard
from tests.cli.conftest import Result, Run
from tests.conftest import EmulatorMaker

NOW = datetime.now(UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ALL = ("--instance", "all", "--region", "all")


def backups(files: Path, name: str, *ages: timedelta, nodes: tuple[str, ...] = ("",)) -> None:
    """Dumps of an instance that began so long ago, of each node."""
    for node in nodes:
        (files / name / node).mkdir(parents=True, exist_ok=True)
        for age in ages:
            (files / name / node / f"dump_{NOW - age:%Y%m%d%H%M%S}.rdb").write_bytes(rdb(100))


@pytest.fixture
async def emulator(files: Path, emulator_of: EmulatorMaker) -> Emulator:
    """Instances of every state; their policies are to make a backup a day from this hour on."""
    shutil.rmtree(files)
    begin = f"{NOW:%H}:00Z-{NOW + HOUR:%H}:00Z"
    daily = {"BackupPolicy": {"PreferredBackupTime": begin}}
    backups(files, "r-well", *(HOUR + day * DAY for day in range(5)))
    backups(files, "r-late", *(HOUR + day * DAY for day in range(2, 6)))
    backups(files, "r-dead", *(HOUR + day * DAY for day in range(5, 7)))
    backups(files, "r-gap", *(HOUR + day * DAY for day in (0, 1, 3, 4)))
    backups(files, "r-weekly", HOUR + 6 * DAY)
    (files / "r-never").mkdir()
    nodes = ("r-shards-db-0", "r-shards-db-1")
    backups(files, "r-shards", *(HOUR + day * DAY for day in range(1, 4)), nodes=nodes)
    backups(files, "r-shards", HOUR, nodes=nodes[:1])
    on = (NOW - 6 * DAY).strftime("%A")
    weekly = {"BackupPolicy": {"PreferredBackupTime": begin, "PreferredBackupPeriod": on}}
    instances = {
        "r-well": daily,
        "r-late": daily,
        "r-dead": daily,
        "r-gap": daily,
        "r-weekly": weekly,
        "r-never": daily,
        "r-shards": {**daily, "ArchitectureType": "cluster"},
    }
    (files / "instances.json").write_text(json.dumps({"instances": instances}))
    return await emulator_of(files)


def rows(result: Result) -> dict[str, dict[str, object]]:
    lines = [json.loads(line) for line in result.out.splitlines()]
    return {line["instance_id"]: line for line in lines if "instance_id" in line}


def causes(row: dict[str, object]) -> dict[str, str]:
    return {one["cause"]: one["level"] for one in row["reasons"]}  # type: ignore[attr-defined]


async def test_what_is_said_of_a_fleet(run: Run, tmp_path: Path) -> None:
    await run("pull", *ALL, "--to", "archive")
    shown = await run("status", "archive", "--json")
    found = rows(shown)
    assert {name: causes(row) for name, row in found.items()} == {
        "r-well": {},
        "r-weekly": {},
        "r-late": {"overdue": "warning"},
        "r-dead": {"overdue": "critical"},
        "r-gap": {"gap": "warning"},
        "r-never": {"never": "critical"},
        "r-shards": {"incomplete": "warning"},
    }
    assert [*found][:2] == ["r-dead", "r-never"]  # worst first
    assert (found["r-never"]["newest"], found["r-never"]["drill"]) == (None, None)
    assert found["r-weekly"]["interval_seconds"] == 7 * 86400
    assert found["r-shards"]["incomplete_sets"] == 1
    assert (shown.code, shown.err) == (1, "archiver: 5 instances are not well\n")


async def test_for_people(run: Run, tmp_path: Path) -> None:
    await run("pull", *ALL, "--to", "archive")
    shown = await run("status", "archive")
    lines = shown.out.splitlines()
    assert max(map(len, lines[1:])) <= 80
    assert lines[2] == "CRITICAL 2   WARNING 3   OK 2   of 7 instances, 1 region"
    assert [line.split()[:2] for line in lines[3:] if line[:1] in ("C", "W", "O")] == [
        ["CRIT", "r-dead"],
        ["CRIT", "r-never"],
        ["WARN", "r-gap"],
        ["WARN", "r-late"],
        ["WARN", "r-shards"],
        ["OK", "2"],
    ]
    assert "r-well" not in shown.out
    assert "r-well" in (await run("status", "archive", "--all")).out


async def test_a_nagios_plugin(run: Run, tmp_path: Path) -> None:
    await run("pull", *ALL, "--to", "archive")
    shown = await run("status", "archive", "--format", "nagios")
    assert shown.code == 2
    assert shown.out.startswith("ARCHIVER CRITICAL: ")
    assert shown.out.splitlines()[0].endswith("| critical=2 warning=3 ok=2")
    well = await run("status", "archive", "--format", "nagios", "--instance", "r-well")
    assert (well.code, well.err) == (0, "")
    late = await run("status", "archive", "--format", "nagios", "--instance", "r-late")
    assert late.code == 1
    nothing = await run("status", "nowhere", "--format", "nagios")
    assert nothing.code == 3
    assert nothing.out.startswith("ARCHIVER UNKNOWN: ")
    assert nothing.err.startswith("archiver: ")


async def test_an_instance_that_was_deleted(run: Run, files: Path, tmp_path: Path) -> None:
    await run("pull", *ALL, "--to", "archive")
    described = json.loads((files / "instances.json").read_text())
    del described["instances"]["r-dead"]
    (files / "instances.json").write_text(json.dumps(described))
    shutil.rmtree(files / "r-dead")
    assert causes(rows(await run("status", "archive", "--json"))["r-dead"]) == {
        "overdue": "critical"
    }
    await run("pull", *ALL, "--to", "archive", "--refresh")
    assert causes(rows(await run("status", "archive", "--json"))["r-dead"]) == {"gone": "warning"}


async def test_the_source_is_asked(run: Run, files: Path, emulator: Emulator) -> None:
    await run("pull", *ALL, "--to", "archive", "--name", "r-well")
    backups(files, "r-well", 6 * DAY)
    remote = ("--remote", *ALL, "--endpoint", emulator.endpoint)
    found = rows(await run("status", "archive", *remote, "--json"))
    assert len(found) == 7
    assert causes(found["r-well"]) == {"expiring": "critical"}
    assert found["r-well"]["unarchived"] == 1
    assert causes(found["r-weekly"]) == {"expiring": "critical", "never": "critical"}
    alone = rows(await run("status", "archive", "--json"))
    assert (causes(alone["r-well"]), alone["r-well"]["unarchived"]) == ({}, None)


async def test_a_copy_can_be_judged_as_well(run: Run, tmp_path: Path) -> None:
    await run("pull", *ALL, "--to", "archive")
    await run("copy", "archive", "other")
    here, there = [rows(await run("status", name, "--json")) for name in ("archive", "other")]
    assert {name: {**row, "archive": ""} for name, row in here.items()} == {
        name: {**row, "archive": ""} for name, row in there.items()
    }


async def test_damage_and_what_cannot_be_read(run: Run, tmp_path: Path) -> None:
    await run("pull", *ALL, "--to", "archive", "--name", "r-well")
    [newest, *_] = sorted((tmp_path / "archive" / "r-well").rglob("*.rdb"), reverse=True)
    newest.write_bytes(b"x")
    shown = await run("status", "archive", "--json")
    assert causes(rows(shown)["r-well"])["damaged"] == "critical"
    (tmp_path / "archive" / "instances" / "r-well.json").write_text("{")
    shown = await run("status", "archive", "--json")
    assert shown.code == 3
    assert "damaged: instances/r-well.json: it cannot be read" in shown.err


@pytest.mark.parametrize("lost", ["SHA256SUMS", "a folder", "a log"])
async def test_damage_beside_the_sets_of_dumps(lost: str, run: Run, tmp_path: Path) -> None:
    await run("pull", *ALL, "--to", "archive", "--name", "r-well")
    sums = max((tmp_path / "archive").rglob("SHA256SUMS"))
    if lost == "SHA256SUMS":
        sums.unlink()
    elif lost == "a folder":
        (sums.parents[1] / "01").write_text("in its place")
    else:
        data = b"*1\r\n$4\r\nPING\r\n"
        log = put_standard(
            tmp_path / "archive", data, f"{NOW:%Y%m%dT%H%M%SZ}", instance="r-well",
            backup_id="999", backup_type="incremental",
        )  # fmt: skip
        assert causes(rows(await run("status", "archive", "--json"))["r-well"]) == {}
        log.write_bytes(b"x")
    shown = await run("status", "archive", "--json")
    assert causes(rows(shown)["r-well"]) == {"damaged": "critical"}
    assert shown.code == 1
    assert "DAMAGED" in (await run("status", "archive")).out


async def test_a_schedule_that_the_source_does_not_tell_now(tmp_path: Path) -> None:
    """The archive knows it from a pull."""
    put_standard(tmp_path, rdb(10), f"{NOW - HOUR:%Y%m%dT%H%M%SZ}", instance="r-a")
    archive = Archive(LocalStore(tmp_path))
    told = InstanceDescription("r-a", NOW - HOUR, schedule=Schedule((6,), 120, 7))
    await keep(archive.store, [told])
    remote = Remote(described={"r-a": replace(told, seen_at=NOW, schedule=None, name="new")})
    [judged] = (await status(archive, Limits(), NOW, remote=remote)).judgements
    assert (judged.rhythm.known_from, judged.rhythm.interval) == ("its backup policy", 7 * DAY)
    assert judged.facts.described is not None
    assert judged.facts.described.name == "new"


async def test_an_archive_without_instances_is_not_well(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "archive.json").write_text('{"format": 2}\n')
    shown = await run("status", "empty")
    assert shown.code == 1
    assert "there are no instances in it" in shown.err


async def test_limits_that_contradict_each_other(run: Run, tmp_path: Path) -> None:
    both = await run("status", "archive", "--json", "--format", "nagios")
    assert both.code == 2
    assert both.err == "archiver: --json and --format nagios cannot be combined\n"
    shown = await run("status", "archive", "--warning", "3", "--critical", "2")
    assert (shown.code, shown.err) == (2, "archiver: --critical is below --warning\n")


async def test_a_verify_and_a_drill_are_seen(run: Run, tmp_path: Path) -> None:
    await run("pull", *ALL, "--to", "archive", "--name", "r-well")
    before = rows(await run("status", "archive", "--json"))["r-well"]
    await run("verify", "archive")
    await run("drill", "archive")
    after = rows(await run("status", "archive", "--json"))["r-well"]
    assert (before["verified_at"], before["passed_at"]) == (None, None)
    assert after["verified_at"] is not None
    assert after["passed_at"] is not None
    assert (after["drill_passed"], causes(after)) == (True, {})


def test_which_drills_are_read() -> None:
    """The newest hundred, and of the last hundred days as many as there are instances."""

    def keys(start: datetime, count: int, step: timedelta) -> list[str]:
        times = [start - number * step for number in range(count)]
        return [f"drills/{at:%Y/%m}/{at:%Y%m%dT%H%M%SZ}-abcdef.json" for at in times]

    daily = keys(NOW, 300, DAY)
    assert recent_drills(reversed(daily)) == daily[:101]
    often = keys(NOW, 1500, HOUR)
    assert recent_drills([*keys(NOW - 300 * DAY, 50, DAY), *often]) == often
    assert len(recent_drills(keys(NOW, 5000, timedelta(minutes=1)))) == 2000
    assert recent_drills([]) == []
