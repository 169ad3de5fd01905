"""Hundreds of instances in four regions: one command brings home what can be brought."""

import json
from collections import Counter
from pathlib import Path

import pytest

from archiver.emulator import Policy, Quota
from tests.cli.conftest import Run
from tests.conftest import EmulatorMaker
from tests.fleet.world import REGIONS, build, files_of

LISTINGS = ("DescribeBackups", "DescribeClusterBackupList")
ALLOWED = {"Effect": "Allow", "Action": "*", "Resource": "*"}


def denied(action: str, *resources: str) -> Policy:
    """Everything but an action on some resources."""
    deny = {"Effect": "Deny", "Action": action, "Resource": [f"acs:kvstore:{r}" for r in resources]}
    return Policy.parse({"Version": "1", "Statement": [ALLOWED, deny]})


@pytest.mark.parametrize("count", [300])
async def test_all_come_home_but_those_that_are_denied(
    count: int, tmp_path: Path, run: Run, emulator_of: EmulatorMaker
) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    homes = build(folder, count)
    denied_ids = ["r-std-0000", "r-cloud-0047"]
    emulator = await emulator_of(
        folder,
        policy=denied("kvstore:Describe*Backup*", *(f"*:*:instance/{one}" for one in denied_ids)),
        quotas={(REGIONS[-1], "*"): Quota(10, seconds=0.5, tells_wait=True)},
    )
    pulled = await run(
        "pull", "--region", "all", "--instance", "all", "--to", "archive",
        ARCHIVER_PULL_ENDPOINT=emulator.endpoint,
    )  # fmt: skip
    assert pulled.code == 4
    home = Counter(
        path.relative_to(tmp_path / "archive").parts[0]
        for path in (tmp_path / "archive").rglob("*.rdb")
    )
    wanted = {one: files_of(one) for one in homes if files_of(one) and one not in denied_ids}
    assert home == wanted
    lines = pulled.err.splitlines()
    assert len(lines) <= 24
    assert f"failed, wholly or in part: {', '.join(denied_ids)}" in lines
    calls, refused = emulator.tally.calls_by_action, emulator.tally.refused
    backed_up = sum(files_of(one) > 0 for one in homes)
    assert refused["Throttling.User"] > 0
    # What DescribeInstances says of each is used: nobody is asked for by both listings.
    assert sum(calls[one] for one in LISTINGS) <= backed_up + refused["Throttling.User"]
    record = next((tmp_path / "archive" / "r-cloud-0002").rglob("*-db-0-*.json"))
    assert json.loads(record.read_text())["nodes_expected"]["count"] == 2
    assert calls["DescribeRegions"] == 1
    # Two pages, read until nothing is new: twice in each region.
    assert calls["DescribeInstances"] - 16 <= refused["Throttling.User"]
    assert calls["DescribeBackupPolicy"] - backed_up <= 2 + refused["Throttling.User"]
    described = [
        json.loads(path.read_text()) for path in (tmp_path / "archive").glob("instances/*")
    ]
    assert {one["instance_id"] for one in described} == homes.keys()
    unknown = {one["instance_id"] for one in described if one["schedule"] is None}
    expected = {*denied_ids, *(one for one in homes if not files_of(one))}
    # A policy that was throttled for too long is left to the next run.
    assert unknown >= expected
    assert len(unknown - expected) < 10
