"""The options that choose instances, in every command that has them."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from archiver.cli.instances_output import rows, show_table
from archiver.emulator import Policy
from archiver.shards import Shard
from archiver.sources.alibaba.instances import Instance
from tests.cli.conftest import Run
from tests.conftest import EmulatorMaker
from tests.fleet.test_fleet import policy
from tests.fleet.world import REGIONS, files_of

ALL = ("--region", "all")


def held(tmp_path: Path) -> set[str]:
    return {path.relative_to(tmp_path / "archive").parts[0]
            for path in (tmp_path / "archive").rglob("*.rdb")}  # fmt: skip


async def test_pull_what_matches(run: Run, regions: dict[str, str], tmp_path: Path) -> None:
    pulled = await run(
        "pull", *ALL, "--tag", "env=prod", "--name", "prod [123]*", "--exclude", "r-classic-0001",
        "--to", "archive",
    )  # fmt: skip
    assert pulled.code == 0
    assert held(tmp_path) == {
        "r-split-0003", "r-split-0013", "r-classic-0011", "r-std-0015", "r-cloud-0017",
    }  # fmt: skip


async def test_pull_all_and_one_that_is_named(
    run: Run, regions: dict[str, str], tmp_path: Path
) -> None:
    pulled = await run(
        "pull", *ALL, "--instance", "all", "--instance", "r-std-0000", "--name", "prod 3",
        "--to", "archive", "--json",
    )  # fmt: skip
    assert held(tmp_path) == {"r-split-0003", "r-std-0000"}
    assert json.loads(pulled.out.splitlines()[-1])["failed_instances"] == []


async def test_options_from_the_environment(
    run: Run, regions: dict[str, str], tmp_path: Path
) -> None:
    pulled = await run(
        "pull", "--to", "archive", ARCHIVER_PULL_REGION=" ".join(REGIONS[:2]),
        ARCHIVER_PULL_TAG="env=test", ARCHIVER_PULL_NAME="test?0 *[68]",
    )  # fmt: skip
    assert (pulled.code, held(tmp_path)) == (0, {"r-std-0000", "r-classic-0006", "r-split-0008"})


async def test_what_cannot_be_backed_up_is_named_and_no_failure(
    run: Run, regions: dict[str, str]
) -> None:
    args = ("pull", "--region", "cn-beijing", "--instance", "all", "--to", "archive")
    pulled = await run(*args)
    assert pulled.code == 0
    assert pulled.err.count("r-alone-0004") == 1
    assert "without backups at the vendor: r-alone-0004" in pulled.err.splitlines()
    told = await run(*args, "-v", "--json")
    assert "no backups: r-alone-0004: the vendor makes no backups" in told.err
    *lines, last = map(json.loads, told.out.splitlines())
    assert last["not_backed_up"] == ["r-alone-0004"]
    [event] = [line for line in lines if line["event"] == "not_backed_up"]
    assert "STAND_ALONE" in event["why"]
    named = await run("pull", "--instance", "r-alone-0004", "--to", "archive")
    assert (named.code, named.err.count("lists none of r-alone-0004")) == (0, 1)


async def test_a_region_that_fails_is_named_in_the_summary(
    files: Path, regions: dict[str, str], run: Run, emulator_of: EmulatorMaker, tmp_path: Path
) -> None:
    emulator = await emulator_of(
        files, policy=policy(("DescribeInstances", "cn-shanghai:*:instance/*"))
    )
    pulled = await run(
        "pull", *ALL, "--instance", "all", "--to", "archive",
        ARCHIVER_PULL_ENDPOINT=emulator.endpoint,
    )  # fmt: skip
    assert pulled.code == 4
    assert {regions[one] for one in held(tmp_path)} == set(REGIONS) - {"cn-shanghai"}
    assert "failed, wholly or in part: cn-shanghai" in pulled.err.splitlines()
    assert "kvstore:DescribeInstances" in pulled.err


async def test_many_that_fail_alike_take_few_lines(
    files: Path, regions: dict[str, str], run: Run, emulator_of: EmulatorMaker
) -> None:
    """All are named; the first few with what happened."""
    emulator = await emulator_of(
        files, policy=policy(("DescribeBackups", "*"), ("DescribeClusterBackupList", "*"))
    )
    pulled = await run(
        "pull", *ALL, "--instance", "all", "--to", "archive", "--quiet",
        ARCHIVER_PULL_ENDPOINT=emulator.endpoint,
    )  # fmt: skip
    assert pulled.code == 4
    *first, rest = pulled.err.splitlines()
    assert len(first) == 4
    assert rest.startswith("failed (PermissionDenied): ")
    failed = [one for one in regions if files_of(one)]
    assert all(pulled.err.count(one) >= 1 for one in failed)


async def test_nothing_is_selected(run: Run, regions: dict[str, str], tmp_path: Path) -> None:
    for args in (
        ("pull", "--to", "archive", "--name", "none*"),
        ("pull", "--to", "archive", "--tag", "env=none"),
        ("ls", "--resource-group", "rg-none"),
        ("instances", "--name", "none*"),
    ):
        result = await run(*args, *ALL)
        assert (result.code, result.out) == (2, "")
        assert result.err.startswith("archiver: no instance is selected")
    misspelt = await run("instances", "--region", "cn-hangzou")
    assert misspelt.code == 2
    assert misspelt.err.startswith(
        "archiver: no instance of cn-hangzou is selected (check --region"
    )
    assert not (tmp_path / "archive").exists()


@pytest.mark.parametrize(
    "command", [("pull", "--to", "archive"), ("ls",), ("instances",)], ids=lambda args: args[0]
)
async def test_a_named_region_that_adds_nothing_is_named(
    run: Run, regions: dict[str, str], tmp_path: Path, command: tuple[str, ...]
) -> None:
    """It may be misspelt, and its instances would be missing without a word."""
    named = [part for region in (REGIONS[0], "cn-beijng") for part in ("--region", region)]
    result = await run(*command, *named, "--instance", "all", "--quiet")
    assert result.code == 0
    assert "no instances: none of cn-beijng is selected" in result.err
    assert f"none of {REGIONS[0]} is" not in result.err
    everything = await run(*command, *ALL, "--name", "prod 3", "--quiet")
    assert "no instances" not in everything.err


async def test_what_fits_no_instance_is_named(run: Run, regions: dict[str, str]) -> None:
    """A misspelt --exclude would otherwise bring home, without a word, what was to be left out."""
    args = ("ls", *ALL, "--quiet", "--exclude", "r-std-0000", "--name", "*")
    fits = await run(*args)
    assert (fits.code, "no match" in fits.err) == (0, False)
    misspelt = await run(*args, "--exclude", "r-std-9999", "--name", "none*")
    assert (misspelt.code, misspelt.out) == (0, fits.out)
    assert misspelt.err.count("no match") == 2
    assert "no match: --exclude r-std-9999 fits no listed instance" in misspelt.err
    assert "no match: --name none* fits no listed instance" in misspelt.err


async def test_what_the_api_finds_nothing_for_is_named(run: Run, regions: dict[str, str]) -> None:
    """Beside a named instance, the list would be empty without a word."""
    args = ("ls", *ALL, "--quiet", "--instance", "all", "--instance", "r-std-0000")
    fits = await run(*args, "--tag", "env=prod", "--resource-group", "rg-1")
    assert (fits.code, "no match" in fits.err) == (0, False)
    one = await run(*args, "--tag", "env=pord")
    assert (one.code, one.err.count("no match")) == (0, 1)
    assert "no match: --tag env=pord fits no listed instance" in one.err
    both = await run(*args, "--tag", "env=prod", "--resource-group", "rg-9", "--name", "x*")
    assert (both.code, both.err.count("no match")) == (0, 1)
    assert "no match: --tag env=prod --resource-group rg-9 fits no listed" in both.err
    group = await run(*args, "--resource-group", "rg-9")
    assert "no match: --resource-group rg-9 fits no listed instance" in group.err


@pytest.mark.parametrize("words", [("pull", "--to", "archive"), ("ls",)], ids="-".join)
async def test_an_instance_of_another_region_is_named(
    words: tuple[str, ...], run: Run, regions: dict[str, str], tmp_path: Path
) -> None:
    assert regions["r-cloud-0007"] == "cn-hangzhou"
    given = (*words, "--instance", "r-cloud-0007")
    for _ in range(2):  # the second time from the cache
        elsewhere = await run(*given, "--region", "cn-beijing", "--region", "cn-shanghai")
        assert (elsewhere.code, (tmp_path / "archive").exists()) == (1, False)
        assert "r-cloud-0007: no region that was asked has it" in elsewhere.err
    assert (await run(*given, "--region", "cn-hangzhou")).code == 0


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("pull", "--to", "x", "--instance", "r-1", "--name", "a"), "--name chooses among all"),
        (("pull", "--to", "x", "--tag", "env"), "--tag: invalid tag 'env' (use KEY=VALUE)"),
        (("pull", "--to", "x", "--tag", "=x"), "--tag: invalid tag '=x'"),
        (("pull", "--to", "x", "--exclude", "all"), "--exclude: 'all' is not possible here"),
        (("backup", "--instance", "all"), "--instance: 'all' is not possible here"),
        (("ls", "archive", "--remote"), "--remote needs --instance ID, or --instance all"),
        (("ls", "archive", "--tag", "a=b"), "an archive knows no names, tags or groups"),
    ],
)
async def test_what_makes_no_sense(
    run: Run, regions: dict[str, str], tmp_path: Path, args: tuple[str, ...], said: str
) -> None:
    await run("pull", "--instance", "r-std-0000", "--to", "archive")
    result = await run(*args)
    assert (result.code, result.out, said in result.err) == (2, "", True)


async def test_ls(run: Run, regions: dict[str, str]) -> None:
    args = ("--region", "cn-beijing", "--tag", "env=test")
    listed = await run("ls", *args)
    assert (listed.code, "r-std-0000" in listed.out, "r-classic" in listed.out) == (0, True, False)
    assert (await run("pull", "--instance", "r-std-0000", "--to", "archive")).code == 0
    compared = await run("ls", "archive", "--remote", "--check", *ALL, "--instance", "all")
    assert (compared.code, "archived" in compared.out) == (1, True)
    assert "missing: r-std-0005" in compared.err
    assert "r-std-0000" in (await run("ls", "archive", "--instance", "all")).out


async def test_the_age_of_what_is_known_is_told(
    run: Run, regions: dict[str, str], tmp_path: Path
) -> None:
    """It is asked for again when it is told to."""
    cache = tmp_path / "cache"
    where = {"XDG_CACHE_HOME": str(cache)}
    pull = ("pull", *ALL, "--tag", "env=prod", "--to", "archive")
    assert "selected" not in (await run(*pull, **where)).err
    for path in cache.rglob("*.json"):
        head, _, body = path.read_text().partition("\n")
        for moment in set(__import__("re").findall(r"\[(1\d{9}\.\d+),", body)):
            body = body.replace(moment, str(float(moment) - 3 * 3600))
        digest = __import__("hashlib").sha256(body.encode()).hexdigest()
        path.write_text(json.dumps({**json.loads(head), "sha256": digest}) + "\n" + body)
    again = await run(*pull, **where)
    assert "10 instances selected, as of 3 h ago (--refresh asks again)" in again.err.splitlines()
    listed = await run("instances", *ALL, "--tag", "env=prod", **where)
    assert "10 instances in 4 regions, as of 3 h ago (--refresh asks again)" in listed.err
    fresh = await run(*pull, "--refresh", **where)
    assert "selected" not in fresh.err


# archiver instances


async def test_the_table(run: Run, regions: dict[str, str]) -> None:
    listed = await run("instances", *ALL)
    head, *rows = listed.out.splitlines()
    assert listed.code == 0
    assert len(rows) == 20
    assert all(len(one) <= 120 for one in (head, *rows))
    assert head.split("  ")[0].strip() == "INSTANCE"
    cells = [one.strip() for one in rows[2].split("  ") if one.strip()]
    assert cells == [
        "r-cloud-0002", "cn-beijing", "cloud cluster", "2", "tair_rdb 7.0", "7 d", "daily 02:00",
        "test 2 env=test",
    ]  # fmt: skip
    assert "never" in rows[0]
    assert "20 instances in 4 regions" in listed.err
    assert "never: 4 instances: the vendor makes no backups of an instance without" in listed.err


async def test_long_tags_are_cut_and_empty_columns_left_out(
    files: Path, regions: dict[str, str], run: Run
) -> None:
    document = json.loads((files / "instances.json").read_text())
    of_it = document["instances"]["r-std-0000"]
    of_it["Tags"] = {"note": "x" * 200}
    of_it["EndTime"] = "2027-01-31T16:00:00Z"
    (files / "instances.json").write_text(json.dumps(document))
    one = await run("instances", "--region", "cn-beijing", "--instance", "r-std-0000")
    head, row = one.out.splitlines()
    assert len(row) == 120
    assert row.endswith("x…")
    assert "2027-01-31" in row
    assert "REGION" not in head
    assert "SHARDS" not in head
    other = await run("instances", "--region", "cn-beijing", "--name", "prod *")
    assert "ENDS" not in other.out.splitlines()[0]


async def test_json(run: Run, regions: dict[str, str]) -> None:
    listed = await run("instances", *ALL, "--json")
    rows = {row["instance_id"]: row for row in map(json.loads, listed.out.splitlines())}
    assert set(rows) == set(regions)
    cloud, alone = rows["r-cloud-0002"], rows["r-alone-0004"]
    assert cloud["policy"] == {
        "kept_days": 7,
        "days": ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"],
        "time": "02:00Z-03:00Z",
        "has_log": False,
    }
    assert (cloud["shards"], cloud["is_cloud_native"], cloud["tags"]) == (2, True, {"env": "test"})
    assert cloud["created_at"] == "2024-01-01T00:00:00Z"
    assert (alone["policy"], alone["why_no_policy"]) == (None, None)
    assert "STAND_ALONE" in alone["why_no_backups"]


@pytest.mark.parametrize(
    ("denied", "code"),
    [((("DescribeBackupPolicy", "*"),), 0),
     ((("DescribeBackupPolicy", "*"), ("DescribeInstances", "cn-beijing:*:instance/*")), 4)],
)  # fmt: skip
async def test_policies_that_are_denied(
    files: Path, regions: dict[str, str], run: Run, emulator_of: EmulatorMaker,
    denied: tuple[tuple[str, str], ...], code: int,
) -> None:  # fmt: skip
    """The column says so, and the exit code is that of the rest."""
    emulator = await emulator_of(files, policy=policy(*denied))
    endpoint = {"ARCHIVER_INSTANCES_ENDPOINT": emulator.endpoint}
    listed = await run("instances", *ALL, **endpoint)
    assert listed.code == code
    assert listed.out.count("denied") == (16 if code == 0 else 12)
    assert "kvstore:DescribeBackupPolicy" in listed.err
    quick = await run("instances", *ALL, "--no-policies", **endpoint)
    assert (quick.code, "denied" in quick.out, "BACKUPS" in quick.out) == (code, False, True)


async def test_instances_that_are_named(
    files: Path, regions: dict[str, str], run: Run, emulator_of: EmulatorMaker
) -> None:
    listed = await run("instances", *ALL, "--instance", "r-std-0000", "--instance", "r-none")
    assert listed.code == 1
    assert listed.out.count("\n") == 2
    assert "r-none: no region that was asked has it" in listed.err
    emulator = await emulator_of(files, policy=Policy.parse({"Version": "1", "Statement": []}))
    denied = await run("instances", "--instance", "r-std-0000", "--region", "cn-beijing",
                       ARCHIVER_INSTANCES_ENDPOINT=emulator.endpoint)  # fmt: skip
    assert (denied.code, denied.out) == (4, "")
    assert os.linesep in denied.err


async def test_a_policy_that_cannot_be_had_is_a_failure(
    files: Path, regions: dict[str, str], run: Run, tmp_path: Path
) -> None:
    """Of an instance that was deleted since it was listed, for one."""
    where = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    args = ("instances", "--region", "cn-beijing", "--instance", "all")
    assert (await run(*args, "--no-policies", **where)).code == 0
    document = json.loads((files / "instances.json").read_text())
    del document["instances"]["r-std-0000"]
    (files / "instances.json").write_text(json.dumps(document))
    (files / "r-std-0000" / "dump_20261124021500.rdb").unlink()
    (files / "r-std-0000").rmdir()
    listed = await run(*args, **where)
    assert (listed.code, listed.err.count("InvalidInstanceId")) == (1, 1)
    [row] = [line for line in listed.out.splitlines() if line.startswith("r-std-0000")]
    assert "  failed  " in row


async def test_shards_divide_what_is_selected(
    run: Run, regions: dict[str, str], tmp_path: Path
) -> None:
    args = ("pull", *ALL, "--instance", "all", "--to", "archive")
    left_out = []
    for index in range(3):
        before = held(tmp_path)
        pulled = await run(*args, "--shard", f"{index}/3", "--json")
        own = set(Shard(index, 3).own(regions))
        assert (pulled.code, held(tmp_path) - before <= own) == (0, True)
        left_out += json.loads(pulled.out.splitlines()[-1])["not_backed_up"]
    assert held(tmp_path) | set(left_out) == set(regions)
    assert len(left_out) == len(set(left_out)) == 4
    other = 1 - Shard(1, 2).owns("r-std-0000")
    none = await run(*args, "--name", "test 0", "--shard", f"{other}/2")
    assert (none.code, "nothing to do" in none.err) == (0, True)


async def test_a_repair_asks_all_regions(run: Run, regions: dict[str, str], tmp_path: Path) -> None:
    names = ("--instance", "r-std-0000", "--instance", "r-std-0005")
    assert (await run("pull", *ALL, *names, "--to", "archive")).code == 0
    paths = list((tmp_path / "archive").rglob("*.rdb"))
    assert len(paths) == 2
    for path in paths:
        path.write_bytes(b"x")
    repaired = await run("verify", "archive", "--repair-from", "source", *ALL)
    assert repaired.code == 0, repaired.err
    assert {path.stat().st_size for path in paths} == {1000}


async def test_many_policies_take_their_time_and_say_so(run: Run, regions: dict[str, str]) -> None:
    args = ("instances", "--region", "cn-beijing", "--api-rate", "4")
    quick = await run(*args, "--no-policies")
    assert "asking for the policies" not in quick.err
    slow = ("--name", "test [02]*", "--api-rate", "1", "--exclude", "r-cloud-0002")
    told = await run("instances", "--region", "cn-beijing", *slow)
    assert "asking for the policies takes about 1 min" in told.err


@pytest.mark.parametrize(("columns", "width"), [(40, 80), (100, 100), (300, 120)])
def test_the_table_is_as_wide_as_the_terminal_within_its_bounds(
    columns: int, width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((columns, 24)))
    one = Instance("r-bp1zxszhcgatnx", "cn-a", name="n" * 200, architecture="standard")
    show_table(rows([one], {}))
    assert [len(line) for line in capsys.readouterr().out.splitlines()][1:] == [width]
