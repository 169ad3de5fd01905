"""The pager: every backup once, whatever happens to the listing meanwhile."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from aiohttp import web

from archiver import TairSource, events
from archiver.emulator import Emulator, Faults
from archiver.errors import BackupGone, BadCredentials, SourceError, UnsafeInput, UsageError
from archiver.ids import check_backup
from archiver.model import Page, Status
from archiver.retry import RetryPolicy
from archiver.secret import Secret
from archiver.sources.alibaba.credentials import static_chain
from archiver.sources.alibaba.fields import read_backup
from archiver.sources.alibaba.listing import read_page
from archiver.sources.alibaba.rpc import Credentials, endpoint_of
from examples.sample_rdb import write_rdb
from tests.conftest import INSTANCE, KEY_ID, KEY_SECRET, QUICK, EmulatorMaker, everything, source_of


def make(files: Path, first: int, count: int) -> list[str]:
    """Small files, a second apart, newer with higher numbers; their names."""
    names = []
    for number in range(first, first + count):
        stamp = datetime.fromtimestamp(1_790_000_000 + number, UTC).strftime("%Y%m%d%H%M%S")
        name = f"d{number}_{stamp}.rdb"
        (files / INSTANCE / name).write_bytes(b"REDIS0003\xff%d" % number)
        names.append(name)
    return names


@asynccontextmanager
async def answered_by(
    handler: Callable[[web.Request], Awaitable[web.Response]],
) -> AsyncGenerator[TairSource, None]:
    """A source whose API is this handler."""
    app = web.Application()
    app.router.add_post("/", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}"
    chain = static_chain(Credentials(Secret("a"), Secret("b")))
    try:
        async with TairSource(endpoint, chain.get, page_size=30) as source:
            yield source
    finally:
        await runner.cleanup()


async def listed(source: TairSource) -> list[tuple[str, str]]:
    return [b.identity async for page in source.pages(everything()) for b in page.backups]


async def test_pages_stream_with_backpressure(files: Path, emulator: Emulator) -> None:
    make(files, 0, 95)
    async with source_of(emulator, page_size=30) as source:
        pages = source.pages(everything())
        first = await anext(pages)
        assert (len(first.backups), first.total) == (30, 95)
        assert emulator.tally.api_calls == 1
        await pages.aclose()
    async with source_of(emulator, page_size=30) as source:
        found = await listed(source)
    assert len(found) == len(set(found)) == 95


async def test_one_page_is_read_once(files: Path, emulator: Emulator) -> None:
    make(files, 0, 30)
    async with source_of(emulator, page_size=30) as source:
        assert len(await listed(source)) == 30
    assert emulator.tally.api_calls == 1


async def test_an_empty_listing(source: TairSource) -> None:
    assert await listed(source) == []


@pytest.mark.parametrize("seed", range(6))
async def test_nothing_missed_or_doubled_while_the_listing_moves(
    files: Path, emulator: Emulator, seed: int
) -> None:
    import random

    dice = random.Random(seed)
    names = make(files, 0, 200)
    removed: set[str] = set()
    found: list[tuple[str, str]] = []
    lasting: dict[str, tuple[str, str]] = {}
    async with source_of(emulator, page_size=30) as source:
        async for page in source.pages(everything()):
            found += [b.identity for b in page.backups]
            for b in page.backups:
                lasting[b.received["BackupStartTime"]] = b.identity
            if len(removed) < 40:
                # Newer ones appear at the head and move all others down; any may vanish.
                make(files, 1000 + len(found), dice.randrange(3))
                for name in dice.sample([n for n in names if n not in removed], 4):
                    (files / INSTANCE / name).unlink()
                    removed.add(name)
    assert len(found) == len(set(found)), "a backup came twice"
    there = {p.name for p in (files / INSTANCE).iterdir()}
    starts = {
        f"{datetime.strptime(name.partition('_')[2][:14], '%Y%m%d%H%M%S'):%Y-%m-%dT%H:%M:%SZ}"
        for name in there
    }
    assert starts <= set(lasting), "a backup that stayed was missed"


async def test_a_listing_in_ascending_order_that_moves() -> None:
    """The oldest vanishes and a new one joins at the end between two pages: the total stays."""
    items = [
        {
            "BackupId": number,
            "BackupStartTime": "2026-11-24T00:00:00Z",
            "BackupStatus": "Success",
            "BackupSize": 1,
        }
        for number in range(90)
    ]

    async def handler(request: web.Request) -> web.Response:
        number, size = int(request.query["PageNumber"]), int(request.query["PageSize"])
        page = items[(number - 1) * size : number * size]
        answer = {
            "TotalCount": len(items),
            "PageNumber": number,
            "PageSize": size,
            "Backups": {"Backup": page},
        }
        if number == 1 and items[0]["BackupId"] == 0:
            items.pop(0)
            items.append({**items[0], "BackupId": 90})
        return web.json_response(answer)

    async with answered_by(handler) as source:
        found = await listed(source)
    assert sorted(int(backup_id) for backup_id, _ in found) == list(range(91))


@pytest.mark.parametrize("most", [1, 7, 30])
async def test_pages_that_are_smaller_than_they_say(most: int) -> None:
    async with answered_by(partial(pages_of, 65, most)) as source:
        assert len(await listed(source)) == 65


async def test_a_source_that_ignores_the_number_of_a_page() -> None:
    async def first_page(request: web.Request) -> web.Response:
        return await pages_of(65, 30, request.clone(rel_url=request.rel_url % {"PageNumber": 1}))

    async with answered_by(first_page) as source:
        with pytest.raises(SourceError, match="page 2 is page 1"):
            await listed(source)


async def pages_of(total: int, most: int, request: web.Request) -> web.Response:
    """Answers as if a page had the size that was asked for; it has ``most`` entries."""
    first = (int(request.query["PageNumber"]) - 1) * most
    item = {"BackupStartTime": "2026-11-24T00:00:00Z", "BackupStatus": "Success", "BackupSize": 1}
    numbers = range(first, min(total, first + most))
    answer = {
        "TotalCount": total,
        "PageNumber": int(request.query["PageNumber"]),
        "PageSize": int(request.query["PageSize"]),
        "Backups": {"Backup": [{**item, "BackupId": number} for number in numbers]},
    }
    return web.json_response(answer)


async def test_a_listing_that_never_settles_ends() -> None:
    numbers = iter(range(10**9))

    async def handler(request: web.Request) -> web.Response:
        item = {"BackupStartTime": "2026-11-24T00:00:00Z", "BackupSize": 1}
        answer = {
            "TotalCount": 2,
            "PageNumber": int(request.query["PageNumber"]),
            "PageSize": 30,
            "Backups": {"Backup": [{**item, "BackupId": next(numbers)}]},
        }
        return web.json_response(answer)

    async with answered_by(handler) as source:
        with pytest.raises(SourceError, match="still changed"):
            await listed(source)


async def test_throttling_is_waited_out(files: Path, emulator_of: EmulatorMaker) -> None:
    make(files, 0, 3)
    emulator = await emulator_of(files, faults=Faults(throttle=0.6, seed=1))
    seen: list[events.Event] = []
    policy = RetryPolicy(attempts=30, first_wait=0.001, max_wait=0.002)
    async with source_of(emulator, retry=policy, observer=seen.append) as source:
        assert len(await listed(source)) == 3
    assert any(isinstance(event, events.Retrying) for event in seen)


async def test_a_wrong_secret_is_not_tried_again(files: Path, emulator: Emulator) -> None:
    chain = static_chain(Credentials(Secret(KEY_ID), Secret("wrong")))
    async with TairSource(emulator.endpoint, chain.get, retry=QUICK) as source:
        with pytest.raises(BadCredentials):
            await listed(source)
    assert emulator.tally.api_calls == 1


async def test_quotes_that_are_part_of_a_key_are_named(files: Path, emulator: Emulator) -> None:
    """As a file of keys has them; those of the environment are looked at before."""
    chain = static_chain(Credentials(Secret(KEY_ID), Secret(f"'{KEY_SECRET}'"), origin="a file"))
    async with TairSource(emulator.endpoint, chain.get, retry=QUICK) as source:
        with pytest.raises(BadCredentials) as caught:
            await listed(source)
    assert "access key secret of a file has quotes around it" in str(caught.value)
    assert KEY_SECRET not in str(caught.value)


def test_a_job_that_is_called_as_a_file_is() -> None:
    """A set's folder is named after it."""
    backup = read_backup("r-x", {**ITEM, "BackupJobID": "7"})
    assert check_backup(backup) == backup
    for name in ("7.rdb", "7.json", "7.aof"):
        with pytest.raises(UnsafeInput):
            check_backup(replace(backup, set_id=name))


async def test_found_again_with_another_url(files: Path, emulator: Emulator) -> None:
    write_rdb(files / INSTANCE / "a.rdb", 2000)
    async with source_of(emulator) as source:
        [page] = [page async for page in source.pages(everything())]
        emulator.faults = Faults(expire_after=7200)
        again = await source.again(page.backups[0])
        assert again.identity == page.backups[0].identity
        assert again.urls != page.backups[0].urls
        (files / INSTANCE / "a.rdb").unlink()
        with pytest.raises(BackupGone):
            await source.again(page.backups[0])


async def test_every_request_parameter(files: Path, emulator: Emulator) -> None:
    asked: list[dict[str, str]] = []
    original = emulator._api.respond

    def spy(request: object, expire: int) -> dict[str, object]:
        asked.append(dict(request.params))  # type: ignore[attr-defined]
        return original(request, expire)  # type: ignore[arg-type]

    emulator._api.respond = spy  # type: ignore[method-assign,assignment]
    make(files, 0, 1)
    async with source_of(emulator, page_size=50) as source:
        [page] = [page async for page in source.pages(everything(need_aof=True))]
        await source.again(page.backups[0])
    assert asked[0] == {
        "InstanceId": INSTANCE,
        "StartTime": "2000-01-01T00:00Z",
        "EndTime": "2100-01-01T00:00Z",
        "PageSize": "50",
        "PageNumber": "1",
        "NeedAof": "1",
    }
    assert asked[1]["BackupId"] == page.backups[0].backup_id


def test_page_sizes_are_the_apis() -> None:
    with pytest.raises(UsageError, match="page size 77"):
        TairSource("h", static_chain(Credentials(Secret("a"), Secret("b"))).get, page_size=77)


START = datetime(2026, 11, 24, 2, 15, tzinfo=UTC)
ITEM = {
    "BackupId": 7,
    "BackupStartTime": "2026-11-24T02:15:00Z",
    "BackupEndTime": "2026-11-24T02:16:00",
    "BackupSize": "1024",
    "BackupStatus": "Success",
    "BackupDownloadURL": "http://h/b/k?Signature=s",
    "Unknown": "kept",
}


def test_reading_an_entry() -> None:
    backup = read_backup("r-x", ITEM)
    assert (backup.node_id, backup.set_id, backup.size) == ("r-x", None, 1024)
    assert backup.ended_at == START + timedelta(minutes=1)
    assert backup.received["Unknown"] == "kept"
    assert "s" not in json.dumps(backup.received["BackupDownloadURL"]).replace("https", "")[8:]
    assert "Signature" not in repr(backup)
    assert read_backup("r-x", {**ITEM, "BackupStatus": "Running"}).status is Status.UNFINISHED


@pytest.mark.parametrize(
    "broken",
    [
        {"BackupId": None, "BackupStartTime": None},
        {**ITEM, "BackupStartTime": "yesterday"},
        {**ITEM, "BackupSize": "many"},
        {**ITEM, "BackupSize": -1},
        {k: v for k, v in ITEM.items() if k != "BackupId"},
        "not even an object",
        None,
    ],
)
def test_an_entry_that_cannot_be_read_is_kept_apart(broken: object) -> None:
    answer = {
        "TotalCount": 2,
        "PageNumber": 1,
        "PageSize": 30,
        "Backups": {"Backup": [broken, ITEM]},
    }
    page = read_page("r-x", answer)
    assert len(page.backups) == len(page.refused) == 1


@pytest.mark.parametrize(
    ("broken", "set_id", "start"),
    [
        ({"BackupJobID": 5, "BackupStartTime": "2026-11-24T02:15:00Z"}, "5", START),
        ({"BackupJobID": "../5", "BackupStartTime": "2026-11-24T02:15:00Z"}, None, START),
        ({"BackupJobID": 5, "BackupStartTime": "yesterday", "BackupId": 7}, "5", None),
        ({"BackupJobID": 0}, None, None),
        ({**ITEM, "BackupId": "7-8", "BackupJobId": "5"}, "5", START),
        (["not even an object"], None, None),
    ],
)
def test_what_can_be_read_of_an_entry_that_cannot_be_used(
    broken: object, set_id: str | None, start: datetime | None
) -> None:
    answer = {"TotalCount": 1, "PageNumber": 1, "PageSize": 30, "Backups": {"Backup": [broken]}}
    [refused] = read_page("r-x", answer).refused
    assert (refused.set_id, refused.started_at) == (set_id, start)


async def test_entries_of_two_sets_with_the_same_error_are_two() -> None:
    async def handler(request: web.Request) -> web.Response:
        number = int(request.query["PageNumber"])
        job = {"BackupJobID": min(number, 2), "BackupStatus": "Success"}
        return web.json_response(
            {
                "TotalCount": 3, "PageNumber": number, "PageSize": 1,
                "Backups": {"Backup": [job]},
            }
        )  # fmt: skip

    async with answered_by(handler) as source:
        pages = [page async for page in source.pages(everything())]
    assert [one.set_id for page in pages for one in page.refused] == ["1", "2"]


@pytest.mark.parametrize("answer", [{}, {"TotalCount": "x"}, {"TotalCount": 1, "Backups": []}])
def test_an_answer_that_is_not_a_page(answer: dict[str, object]) -> None:
    with pytest.raises(SourceError, match="not a page"):
        read_page("r-x", answer)


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("cn-hangzhou", "r-kvstore.aliyuncs.com"),
        ("ap-southeast-1", "r-kvstore.ap-southeast-1.aliyuncs.com"),
    ],
)
def test_endpoints(region: str, host: str) -> None:
    assert endpoint_of(region) == host


@pytest.mark.parametrize("region", ["", "evil.example/", "CN-HANGZHOU", "cn"])
def test_what_is_not_a_region(region: str) -> None:
    with pytest.raises(UsageError):
        endpoint_of(region)


async def test_a_cancelled_listing_ends_at_once(files: Path, emulator_of: EmulatorMaker) -> None:
    make(files, 0, 3)
    emulator = await emulator_of(files, faults=Faults(latency=3600))

    async def consume(pages: AsyncIterator[Page]) -> None:
        async for _ in pages:
            pass

    async with source_of(emulator) as source:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(consume(source.pages(everything())), 0.2)
