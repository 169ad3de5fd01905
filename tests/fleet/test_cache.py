"""What is remembered for the day, of whom, and what is not trusted."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from archiver.concurrency import in_thread
from archiver.secret import Secret
from archiver.sources.alibaba.cache import MAX_AGE_SECONDS, Cache, Owner, cache_folder
from archiver.sources.alibaba.rpc import Credentials
from tests.conftest import KEY_ID, KEY_SECRET, credentials

ENDPOINT, REGION = "https://r-kvstore.aliyuncs.com", "cn-hangzhou"


def owner(**changed: str) -> Owner:
    known = Owner.of(credentials(), ENDPOINT, REGION)
    assert known is not None
    return replace(known, **changed)


async def remembered(folder: Path, of: Owner | None, *, now: float = 1000.0) -> object:
    cache = Cache(folder, of, clock=lambda: now)
    await cache.load()
    entry = cache.get("a")
    return None if entry is None else (entry.at, entry.value)


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """A cache that has a value since second 1000."""
    folder = tmp_path / "cache" / "archiver"
    cache = Cache(folder, owner(), clock=lambda: 1000.0)
    cache.put("a", {"b": [1, "ü"]})
    await in_thread(cache.save)
    return folder


def the_file(folder: Path) -> Path:
    [path] = folder.iterdir()
    return path


async def test_a_value_is_remembered_for_less_than_a_day(folder: Path) -> None:
    assert await remembered(folder, owner()) == (1000.0, {"b": [1, "ü"]})
    last = 1000.0 + MAX_AGE_SECONDS
    assert await remembered(folder, owner(), now=last - 1) is not None
    assert await remembered(folder, owner(), now=last) is None
    assert await remembered(folder, owner(), now=999.0) is None  # a clock was wrong
    # A cron runs once a day, give or take: it always asks anew.
    assert MAX_AGE_SECONDS <= 20 * 3600


@pytest.mark.parametrize(
    "other",
    [{"identity": "0" * 64}, {"endpoint": "http://r-kvstore.aliyuncs.com"}, {"region": "cn-a"}],
)
async def test_nobody_gets_what_is_another_owners(folder: Path, other: dict[str, str]) -> None:
    assert await remembered(folder, owner(**other)) is None
    # Nor where the file has the name of his own.
    mine = the_file(folder)
    copied = Cache(folder, owner(**other))
    copied.put("x", 1)
    await in_thread(copied.save)
    [his] = set(folder.iterdir()) - {mine}
    his.write_bytes(mine.read_bytes())
    assert await remembered(folder, owner(**other)) is None


def test_keys_have_caches_and_temporary_ones_have_none() -> None:
    one = Owner.of(credentials(), ENDPOINT, REGION)
    two = Owner.of(Credentials(Secret("LTAIother"), Secret(KEY_SECRET)), ENDPOINT, REGION)
    assert one is not None
    assert two is not None
    assert one.identity != two.identity
    token = replace(credentials(), security_token=Secret("t"))
    expiring = replace(credentials(), expires_at=datetime.now(UTC))
    for temporary in (token, expiring):
        assert Owner.of(temporary, ENDPOINT, REGION) is None


async def test_without_an_owner_or_a_folder_nothing_is_kept(tmp_path: Path) -> None:
    for cache in (Cache(tmp_path, None), Cache(None, owner())):
        cache.put("a", 1)
        await in_thread(cache.save)
        await cache.load()
    assert list(tmp_path.iterdir()) == []


async def test_no_one_else_can_read_it_and_it_holds_no_key(folder: Path) -> None:
    path = the_file(folder)
    assert path.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    text = path.read_text()
    assert KEY_ID not in text
    assert KEY_SECRET not in text


def a_byte_changed(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"[1,", b"[2,"))


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def of_another_format(path: Path) -> None:
    head, _, body = path.read_text().partition("\n")
    path.write_text(json.dumps({**json.loads(head), "format": 2}) + "\n" + body)


def writable_by_others(path: Path) -> None:
    path.chmod(0o622)


def a_link(path: Path) -> None:
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def no_json(path: Path) -> None:
    path.write_bytes(b"[" * 100_000)


@pytest.mark.parametrize(
    "damage",
    [
        a_byte_changed, cut_short, of_another_format, writable_by_others, a_link, a_folder, a_pipe,
        no_json,
    ],
)  # fmt: skip
async def test_a_damaged_or_foreign_file_is_as_none(
    folder: Path, damage: Callable[[Path], None]
) -> None:
    damage(the_file(folder))
    assert await remembered(folder, owner()) is None


async def test_a_file_of_another_user_is_as_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    assert await remembered(folder, owner()) is None


async def test_a_damaged_file_is_made_anew(folder: Path) -> None:
    cut_short(the_file(folder))
    cache = Cache(folder, owner(), clock=lambda: 2000.0)
    await cache.load()
    cache.put("a", 2)
    await in_thread(cache.save)
    assert await remembered(folder, owner(), now=2000.0) == (2000.0, 2)
    assert the_file(folder).stat().st_mode & 0o777 == 0o600


async def test_what_is_refreshed_replaces_what_was_there(folder: Path) -> None:
    cache = Cache(folder, owner(), fresh=True, clock=lambda: 2000.0)
    await cache.load()
    assert cache.get("a") is None
    await in_thread(cache.save)  # nothing was asked: nothing is lost
    assert await remembered(folder, owner()) is not None


async def test_a_cache_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = Cache(tmp_path / "file" / "archiver", owner())
    cache.put("a", 1)
    await in_thread(cache.save)
    assert cache.get("a") is not None


def test_where_it_is() -> None:
    assert cache_folder({"XDG_CACHE_HOME": "/c"}, Path("/h")) == Path("/c/archiver")
    for environ in ({}, {"XDG_CACHE_HOME": ""}, {"XDG_CACHE_HOME": "not/absolute"}):
        assert cache_folder(environ, Path("/h")) == Path("/h/.cache/archiver")
        assert cache_folder(environ, None) is None
