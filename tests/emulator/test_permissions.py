"""RAM policies and quotas, as the vendor's SDK meets them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from archiver.emulator import Emulator, Key, Policy, Quota
from archiver.emulator.quotas import Meter
from archiver.errors import UsageError
from archiver.secret import Secret
from tests.conftest import INSTANCE, EmulatorMaker
from tests.emulator.sdk import SDK_WARNINGS, Ask, refused
from tests.emulator.test_api import get, legacy

pytestmark = SDK_WARNINGS

SPAN = {"start_time": "2000-01-01T00:00Z", "end_time": "2100-01-01T00:00Z"}
OTHER = "r-other"


def statement(
    action: str | list[str], resource: str | list[str] = "*", effect: str = "Allow"
) -> dict[str, Any]:
    return {"Effect": effect, "Action": action, "Resource": resource}


def policy(*statements: Mapping[str, Any]) -> Policy:
    return Policy.parse({"Version": "1", "Statement": list(statements)})


def on(instance: str, region: str = "*") -> str:
    return f"acs:kvstore:{region}:*:instance/{instance}"


@pytest.fixture
def emulate(files: Path, emulator_of: EmulatorMaker) -> Any:
    instances = {OTHER: {"RegionId": "cn-beijing"}}
    (files / "instances.json").write_text(json.dumps({"instances": instances}))
    (files / INSTANCE / "a.rdb").write_bytes(b"x")

    async def start(**options: object) -> Emulator:
        return await emulator_of(files, **options)

    return start


async def list_backups(ask: Ask, emulator: Emulator, instance: str = INSTANCE, **who: str) -> Any:
    return await ask(emulator, "DescribeBackups", instance_id=instance, **SPAN, **who)


async def test_one_action_on_one_instance(emulate: Any, ask: Ask) -> None:
    emulator = await emulate(
        policy=policy(statement("kvstore:DescribeBackups", on(INSTANCE, "cn-hangzhou")))
    )
    assert (await list_backups(ask, emulator)).total_count == 1
    for asked in (
        list_backups(ask, emulator, OTHER),
        list_backups(ask, emulator, "r-none"),
        ask(emulator, "DescribeBackupPolicy", instance_id=INSTANCE),
        ask(emulator, "DescribeInstances"),
        ask(emulator, "DescribeRegions"),
        ask(emulator, "CreateBackup", instance_id=INSTANCE),
    ):
        error = await refused(asked)
        assert (error.code, error.status_code) == ("Forbidden.RAM", 403)
    assert emulator.tally.refused == {"Forbidden.RAM": 6}


async def test_the_denial_says_what_was_denied(emulate: Any) -> None:
    emulator = await emulate(policy=policy())
    status, answer = await get(emulator, legacy("GET"))
    assert (status, answer["Code"]) == (403, "Forbidden.RAM")
    detail: Any = answer["AccessDeniedDetail"]
    assert detail["AuthAction"] == "kvstore:DescribeBackups"
    assert detail["NoPermissionType"] == "ImplicitDeny"


async def test_regions_of_a_policy(emulate: Any, ask: Ask) -> None:
    emulator = await emulate(policy=policy(statement("kvstore:*", on("*", "cn-beijing"))))
    await list_backups(ask, emulator, OTHER)
    assert (await refused(list_backups(ask, emulator))).code == "Forbidden.RAM"
    await ask(emulator, "DescribeInstances", region_id="cn-beijing")
    error = await refused(ask(emulator, "DescribeInstances", region_id="cn-hangzhou"))
    assert error.code == "Forbidden.RAM"


async def test_listing_instances_needs_all_of_them(emulate: Any, ask: Ask) -> None:
    emulator = await emulate(policy=policy(statement("kvstore:DescribeInstances", on(INSTANCE))))
    body = await ask(emulator, "DescribeInstances", instance_ids=INSTANCE)
    assert body.total_count == 1
    for asked in ({}, {"instance_ids": f"{INSTANCE},{OTHER}"}):
        error = await refused(ask(emulator, "DescribeInstances", **asked))
        assert error.code == "Forbidden.RAM"


@pytest.mark.parametrize(
    ("action", "asked"),
    [
        ("DescribeRegions", {}),
        ("DescribeBackupTasks", {"instance_id": INSTANCE}),
        ("DescribeLogicInstanceTopology", {"instance_id": INSTANCE}),
    ],
)
async def test_actions_that_cannot_be_narrowed(
    emulate: Any, ask: Ask, action: str, asked: dict[str, str]
) -> None:
    narrow = statement(f"kvstore:{action}", on("*"))
    emulator = await emulate(policy=policy(narrow))
    assert (await refused(ask(emulator, action, **asked))).code == "Forbidden.RAM"
    emulator = await emulate(policy=policy(statement(f"kvstore:{action}")))
    await ask(emulator, action, **asked)


async def test_a_deny_overrides(emulate: Any, ask: Ask) -> None:
    emulator = await emulate(
        policy=policy(statement("*"), statement("kvstore:*", [on(OTHER)], "Deny"))
    )
    await list_backups(ask, emulator)
    await ask(emulator, "DescribeInstances")
    assert (await refused(list_backups(ask, emulator, OTHER))).code == "Forbidden.RAM"


async def test_several_keys(emulate: Any, ask: Ask) -> None:
    reader = Key("LTAIreader", Secret("s1"), None, policy(statement("kvstore:Describe*")))
    emulator = await emulate(users=[reader], backup_seconds=60)
    who = {"key_id": "LTAIreader", "secret": "s1"}
    await list_backups(ask, emulator, **who)
    error = await refused(ask(emulator, "CreateBackup", instance_id=INSTANCE, **who))
    assert error.code == "Forbidden.RAM"
    await ask(emulator, "CreateBackup", instance_id=INSTANCE)
    error = await refused(list_backups(ask, emulator, key_id="LTAIreader"))
    assert error.code == "SignatureDoesNotMatch"


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"Version": "2", "Statement": []},
        {"Version": "1", "Statement": {}},
        {"Version": "1", "Statement": [1]},
        {"Version": "1", "Statement": [{"Effect": "Allow", "Action": "*"}]},
        {"Version": "1", "Statement": [statement("*", "*", "Perhaps")]},
        {"Version": "1", "Statement": [statement(1)]},  # type: ignore[arg-type]
        {"Version": "1", "Statement": [statement("*", [1])]},  # type: ignore[list-item]
        # Not enforced, so not accepted either.
        {"Version": "1", "Statement": [{**statement("*"), "Condition": {}}]},
    ],
)
def test_policies_that_cannot_be_enforced(document: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="RAM"):
        Policy.parse(document)
    (tmp_path / "policy.json").write_text(json.dumps(document))
    with pytest.raises(UsageError, match="RAM"):
        Policy.read(tmp_path / "policy.json")


@pytest.mark.parametrize("text", [None, "{", "[" * 100_000])
def test_policy_files_that_cannot_be_read(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "policy.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=r"policy\.json cannot be read"):
        Policy.read(path)


def test_wildcards() -> None:
    some = policy(statement("kvstore:Describe*", "acs:kvstore:cn-?:[1]:instance/r-*"))
    assert some.denial("kvstore:DescribeBackups", ["acs:kvstore:cn-x:[1]:instance/r-1"]) is None
    for action, resource in (
        ("kvstore:CreateBackup", "acs:kvstore:cn-x:[1]:instance/r-1"),
        ("kvstore:DescribeBackups", "acs:kvstore:cn-xy:[1]:instance/r-1"),
        ("kvstore:DescribeBackups", "acs:kvstore:cn-x:1:instance/r-1"),
        ("kvstore:describeBackups", "acs:kvstore:cn-x:[1]:instance/r-1"),
    ):
        assert some.denial(action, [resource]) == "ImplicitDeny"


async def test_a_quota_for_each_region_and_action(emulate: Any, ask: Ask) -> None:
    emulator = await emulate(quotas={("*", "*"): Quota(2)})
    for instance in (INSTANCE, OTHER):
        for _ in range(2):
            await list_backups(ask, emulator, instance)
        error = await refused(list_backups(ask, emulator, instance))
        assert (error.code, error.status_code) == ("Throttling.User", 400)
    await ask(emulator, "DescribeInstances")
    await ask(emulator, "DescribeInstances", region_id="cn-beijing")
    assert emulator.tally.refused == {"Throttling.User": 2}


async def test_a_quota_that_tells_how_long_to_wait(emulate: Any) -> None:
    quota = Quota(1, seconds=3600, code="Throttling.Api", tells_wait=True)
    emulator = await emulate(quotas={("cn-hangzhou", "DescribeBackups"): quota})
    await get(emulator, legacy("GET"))
    async with (
        aiohttp.ClientSession() as session,
        session.get(emulator.endpoint, params=legacy("GET")) as answer,
    ):
        assert (answer.status, (await answer.json())["Code"]) == (400, "Throttling.Api")
        assert 0 < int(answer.headers["x-acs-retry-after"]) <= 3_600_000


def test_the_more_exact_quota_counts_and_time_refills_it() -> None:
    now = [0.0]
    quotas = {
        ("*", "*"): Quota(1),
        ("cn-a", "*"): Quota(2),
        ("*", "List"): Quota(3),
        ("cn-a", "List"): Quota(4, seconds=10),
    }
    meter = Meter(quotas, lambda: now[0])

    def room(region: str, action: str) -> int:
        calls = 0
        while meter.take(region, action) is None:
            calls += 1
        return calls

    assert room("cn-b", "Other") == 1
    assert room("cn-a", "Other") == 2
    assert room("cn-b", "List") == 3
    assert room("cn-a", "List") == 4
    now[0] = 4.0
    assert meter.take("cn-a", "List") == (quotas["cn-a", "List"], 6.0)
    now[0] = 10.0
    assert room("cn-a", "List") == 4
    assert room("cn-b", "Other") == 0
    assert Meter({("cn-a", "List"): Quota(1)}, float).take("cn-b", "List") is None


@pytest.mark.parametrize("broken", [{"calls": 0}, {"calls": 1, "seconds": 0.0}])
def test_quotas_that_make_no_sense(broken: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="quota"):
        Quota(**broken)
