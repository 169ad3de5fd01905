"""What an archive keeps of instances."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from archiver.archive.descriptions import (
    decode,
    description_key,
    encode,
    keep,
    keep_gone,
    merge,
    read_descriptions,
)
from archiver.errors import BadDocument
from archiver.model import Engine, InstanceDescription, Schedule
from archiver.sources.alibaba.policies import read_policy
from archiver.stores.local.store import LocalStore
from tests.archive.sample import put_format

NOW = datetime(2026, 11, 28, 2, 0, tzinfo=UTC)
DAILY = Schedule((0, 1, 2, 3, 4, 5, 6), 120, kept_days=7)
WHOLE = InstanceDescription(
    instance_id="r-bp1",
    seen_at=NOW,
    source="alibaba",
    region="cn-hangzhou",
    name="orders «cache»",
    architecture="cluster",
    shards=3,
    engine=Engine("Redis", "7.0"),
    tags={"env": "prod", "": "empty"},
    created_at=NOW - timedelta(days=400),
    ends_at=NOW + timedelta(days=3),
    deleted_at=NOW + timedelta(days=10),
    gone_at=None,
    schedule=replace(DAILY, since=NOW - timedelta(days=9)),
    no_backups="there is no replica",
)
BARE = InstanceDescription("r-bp2", NOW)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    put_format(tmp_path)
    return LocalStore(tmp_path)


@pytest.mark.parametrize("one", [WHOLE, BARE])
def test_a_description_is_read_as_it_was_written(one: InstanceDescription) -> None:
    assert decode(description_key(one.instance_id), encode(one)) == one


@pytest.mark.parametrize(
    ("was", "is_"),
    [
        (b'"weekdays": [', b'"weekdays": [7,'),
        (b'"weekdays": [', b'"weekdays": [true,'),
        (b'"minute": 120', b'"minute": 1440'),
        (b'"instance_id": "r-bp1"', b'"instance_id": "r-bp2"'),
        (b'"format": 1', b'"format": 2'),
        (b'"shards": 3', b'"shards": 0'),
        (b'"tags": {', b'"tags": {"x": 3,'),
        (b'"seen_at"', b'"seen"'),
    ],
)
def test_a_damaged_description_is_refused(was: bytes, is_: bytes) -> None:
    data = encode(WHOLE)
    assert was in data
    with pytest.raises(BadDocument):
        decode(description_key("r-bp1"), data.replace(was, is_))


def test_a_schedule_has_a_beginning_once_it_changed() -> None:
    later = NOW + timedelta(days=1)
    same = InstanceDescription("r-bp1", later, schedule=DAILY)
    changed = replace(same, schedule=Schedule((6,), 120, 7))
    first = InstanceDescription("r-bp1", NOW, schedule=DAILY)
    assert merge(None, first).schedule == DAILY
    assert merge(first, same).schedule == DAILY
    once = merge(first, changed)
    assert once.schedule == Schedule((6,), 120, 7, since=later)
    again = replace(changed, seen_at=later + timedelta(days=1))
    assert merge(once, again).schedule == once.schedule
    # Where the policy may not be read any more, the last one counts.
    assert merge(once, replace(again, schedule=None)).schedule == once.schedule


async def test_only_news_is_written(store: LocalStore, tmp_path: Path) -> None:
    path = tmp_path / description_key("r-bp1")

    async def written(one: InstanceDescription) -> bool:
        before = path.stat().st_ino if path.exists() else None
        await keep(store, [one])
        return path.stat().st_ino != before

    one = InstanceDescription("r-bp1", NOW, schedule=DAILY)
    hour = timedelta(hours=1)
    assert await written(one)
    assert not await written(replace(one, seen_at=NOW + hour))
    assert await written(replace(one, seen_at=NOW + hour, name="new"))
    assert not await written(replace(one, seen_at=NOW))  # older than what is there
    assert await written(replace(one, seen_at=NOW + 30 * hour, name="new"))


async def test_what_cannot_be_read_is_told_and_written_anew(
    store: LocalStore, tmp_path: Path
) -> None:
    await keep(store, [WHOLE, BARE])
    (tmp_path / description_key("r-bp1")).write_bytes(b"{")
    found, wrong = await read_descriptions(store)
    assert (found, [error.exit_code for error in wrong]) == ({"r-bp2": BARE}, [3])
    await keep(store, [WHOLE])
    assert await read_descriptions(store) == ({"r-bp1": WHOLE, "r-bp2": BARE}, [])
    newer = encode(WHOLE).replace(b'"format": 1', b'"format": 2')
    (tmp_path / description_key("r-bp1")).write_bytes(newer)
    await keep(store, [replace(WHOLE, name="other")])
    assert (tmp_path / description_key("r-bp1")).read_bytes() == newer


async def test_which_are_gone(store: LocalStore) -> None:
    hour = timedelta(hours=1)
    for name, region, seen_at in [
        ("r-here", "cn-hangzhou", NOW),
        ("r-gone", "cn-hangzhou", NOW),
        ("r-elsewhere", "cn-beijing", NOW),
        ("r-new", "cn-hangzhou", NOW + 2 * hour),
        ("r-named", "cn-beijing", NOW),
        ("r-misplaced", "cn-shanghai", NOW),  # somebody asked another region for it
    ]:
        await keep(store, [InstanceDescription(name, seen_at, region=region)])
    # It was listed an hour after they were seen, all but one.
    whole, named = {"cn-hangzhou": frozenset(["r-here"])}, ["r-named", "r-misplaced"]
    await keep_gone(store, whole, named, ["cn-hangzhou", "cn-beijing"], NOW + hour)
    found, _ = await read_descriptions(store)
    assert {name for name, one in found.items() if one.gone_at == NOW + hour} == {
        "r-gone",
        "r-named",
    }
    await keep_gone(store, {}, ["r-misplaced"], [""], NOW + hour)
    assert (await read_descriptions(store))[0]["r-misplaced"].gone_at == NOW + hour
    back = replace(found["r-gone"], seen_at=NOW + 3 * hour, gone_at=None)
    await keep(store, [back])
    assert (await read_descriptions(store))[0]["r-gone"] == back


@pytest.mark.parametrize(("said", "days"), [("7", 7), ("9999", 9999), ("9" * 5000, None)])
def test_a_retention_that_no_description_can_hold(said: str, days: int | None) -> None:
    answer = {"PreferredBackupPeriod": "Monday", "PreferredBackupTime": "02:00Z-03:00Z"}
    assert read_policy("r-a", {**answer, "BackupRetentionPeriod": said}).kept_days == days
