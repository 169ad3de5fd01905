"""Small backups, which come home in batches: as if each came alone."""

import asyncio
import dataclasses
import hashlib
import json
import socket
import subprocess
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from archiver import Archive, LocalStore, PullOptions, TairSource, TransferOptions, events, pull
from archiver.emulator import Emulator, Faults
from archiver.emulator.faults import Dice, Fate
from archiver.errors import CorruptFile
from archiver.model import Receipt, Stored
from archiver.retry import RetryPolicy
from archiver.stores.commit import Commit
from archiver.transfer import download_url
from archiver.transfer.engine import Engine
from archiver.transfer.http import burst
from archiver.transfer.http.connection import HttpConnection
from archiver.transfer.limits import RateLimit
from archiver.transfer.small import SMALL_BYTES, SMALL_FOR_LARGE
from examples.sample_rdb import write_rdb
from tests.conftest import (
    INSTANCE,
    QUICK,
    EmulatorMaker,
    everything,
    source_of,
    tasks_of_the_package,
)
from tests.faults.test_cancel import open_files

PATIENT = RetryPolicy(attempts=15, first_wait=0.001, max_wait=0.002)
OPTIONS = PullOptions(transfer=TransferOptions(part_size=512 * 1024, retry=PATIENT))
KINDS = (events.Planned, events.Started, events.Archived)
TOLD = (*KINDS, events.Advanced)


def make(files: Path, count: int, size: int = 20_000) -> list[bytes]:
    return [write_rdb(files / INSTANCE / f"{n}.rdb", size + n, n) for n in range(count)]


def kept(archive: Archive) -> list[bytes]:
    root = Path(str(archive.store)) / INSTANCE
    return [path.read_bytes() for path in root.rglob("*.rdb")]


def assert_home(archive: Archive, originals: list[bytes]) -> None:
    """Byte for byte, each with a record of it, each set sealed, and nothing besides."""
    root = Path(str(archive.store))
    assert sorted(kept(archive)) == sorted(originals)
    records = (root / INSTANCE).rglob("*.json")
    recorded = {json.loads(path.read_bytes())["sha256"] for path in records}
    assert recorded == {hashlib.sha256(data).hexdigest() for data in originals}
    named = 0
    for sums in (root / INSTANCE).rglob("SHA256SUMS"):
        subprocess.run(["sha256sum", "-c", "--quiet", sums.name], cwd=sums.parent, check=True)
        named += len(sums.read_text().splitlines())
    assert named == len(originals)
    assert list((root / ".staging").iterdir()) == []


def assert_told_once(seen: list[events.Event], count: int) -> None:
    """Of each backup: that it is planned, has begun, came on, and is home; in this order."""
    story = defaultdict(list)
    for event in seen:
        if isinstance(event, TOLD):
            story[event.backup.identity].append(type(event))
    assert len(story) == count
    for told in story.values():
        assert Counter(told) == Counter([*KINDS, *[events.Advanced] * (len(told) - 3)])
        assert told[:2] == [events.Planned, events.Started]
        assert len(told) > 3
        assert told[-1] is events.Archived


FAULTS = {
    "none": Faults(),
    "every kind": Faults(drop=0.2, corrupt=0.1, server_errors=0.2, throttle=0.2, seed=4),
    "expire": Faults(drop=0.2, expire_after=1, latency=0.01, seed=5),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_hundred_small_ones_and_two_large(
    files: Path, emulator_of: EmulatorMaker, archive: Archive, name: str
) -> None:
    originals = make(files, 100)
    originals += [
        write_rdb(files / INSTANCE / f"large{n}.rdb", 1_500_000, 100 + n) for n in range(2)
    ]
    originals.append(write_rdb(files / INSTANCE / "edge.rdb", SMALL_BYTES, 200))
    originals.append(write_rdb(files / INSTANCE / "over.rdb", SMALL_BYTES + 1, 201))
    emulator = await emulator_of(files, faults=FAULTS[name])
    seen: list[events.Event] = []
    async with source_of(emulator, retry=PATIENT) as source:
        summary = await pull(source, archive, [everything()], OPTIONS, seen.append)
    assert summary.failures == []
    assert (summary.planned, summary.archived, summary.held) == (104, 104, 0)
    assert_home(archive, originals)
    assert_told_once(seen, 104)
    total = sum(map(len, originals))
    assert summary.bytes_archived == total
    fetched = sum(summary.bytes_fetched.values())
    if name == "none":
        assert fetched == total == emulator.tally.object_bytes
    else:
        assert total <= fetched <= emulator.tally.object_bytes
        assert emulator.tally.object_bytes > total


async def test_small_ones_share_connections_and_syncs(
    files: Path, source: TairSource, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the batches are for."""
    connected = []
    connect = HttpConnection.connect

    def connects(connection: HttpConnection) -> None:
        connected.append(connection)
        connect(connection)

    monkeypatch.setattr(HttpConnection, "connect", connects)
    originals = make(files, 100)
    await pull(source, archive, [everything()], OPTIONS)
    assert_home(archive, originals)
    assert len(connected) <= burst.MAX_REQUESTS_AHEAD


FAILURES: dict[str, dict[str, object]] = {
    "503": {"server_error": True},
    "cut": {"cut": 0.5},
    "flipped": {"flip": 0.5},
}


@pytest.mark.parametrize("name", FAILURES)
async def test_every_second_one_fails_at_first(
    files: Path,
    emulator_of: EmulatorMaker,
    archive: Archive,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """It goes the patient way, once; its neighbours are not asked for again."""
    fate, asked = Dice.fate, Counter[str]()

    def of(dice: Dice, subject: str) -> Fate:
        number = subject.partition("/")[2].partition(".")[0]
        asked[number] += 1
        fails = number.isdigit() and int(number) % 2 and asked[number] == 1
        return dataclasses.replace(fate(dice, subject), **(FAILURES[name] if fails else {}))  # type: ignore[arg-type]

    monkeypatch.setattr(Dice, "fate", of)
    originals = make(files, 40)
    emulator = await emulator_of(files)
    seen: list[events.Event] = []
    async with source_of(emulator) as source:
        summary = await pull(source, archive, [everything()], OPTIONS, seen.append)
    assert summary.failures == []
    assert_home(archive, originals)
    assert_told_once(seen, 40)
    assert emulator.tally.object_requests == 60
    assert sum(isinstance(event, events.Retrying) for event in seen) == 20
    assert not any(isinstance(event, events.Mending) for event in seen)


async def test_what_is_committed_is_reported_while_others_are_tried_alone(
    files: Path,
    source: TairSource,
    archive: Archive,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many these are, and however long they take."""
    fate, transfer, asked = Dice.fate, Engine.transfer, Counter[str]()
    told = anyio.Event()
    seen: list[events.Event] = []

    def of(dice: Dice, subject: str) -> Fate:
        asked[subject] += 1
        number = subject.partition("/")[2].partition(".")[0]
        fails = number in {"0", "1", "2", "3", "4", "5"} and asked[subject] == 1
        return dataclasses.replace(fate(dice, subject), server_error=fails)

    async def waits(*args: Any) -> Receipt:
        with anyio.fail_after(10):
            await told.wait()
        return await transfer(*args)

    def observe(event: events.Event) -> None:
        seen.append(event)
        if sum(isinstance(event, events.Archived) for event in seen) == 4:
            told.set()

    monkeypatch.setattr(Dice, "fate", of)
    monkeypatch.setattr(Engine, "transfer", waits)
    originals = make(files, 10)
    summary = await pull(
        source, archive, [everything()], dataclasses.replace(OPTIONS, workers=1), observe
    )
    assert summary.failures == []
    assert_home(archive, originals)
    assert_told_once(seen, 10)


async def test_what_is_tried_alone_does_not_pile_up(
    files: Path,
    emulator_of: EmulatorMaker,
    archive: Archive,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No batch begins while as many as may be are tried alone, and others wait for that."""
    fate, transfer, asked = Dice.fate, Engine.transfer, set[str]()
    may_go_on, waiting = anyio.Event(), 0

    def of(dice: Dice, subject: str) -> Fate:
        first = subject not in asked
        asked.add(subject)
        return dataclasses.replace(fate(dice, subject), server_error=first)

    async def waits(*args: Any) -> Receipt:
        nonlocal waiting
        waiting += 1
        await may_go_on.wait()
        return await transfer(*args)

    monkeypatch.setattr(Dice, "fate", of)
    monkeypatch.setattr(Engine, "transfer", waits)
    originals = make(files, 300)
    emulator = await emulator_of(files)

    async def look() -> None:
        with anyio.fail_after(20):
            while waiting < SMALL_FOR_LARGE:
                await anyio.sleep(0.01)
        await anyio.sleep(0.5)
        assert waiting == SMALL_FOR_LARGE
        assert len(asked) <= SMALL_FOR_LARGE + 2 * archive.store.batch_size
        may_go_on.set()

    options = dataclasses.replace(OPTIONS, workers=1)
    async with anyio.create_task_group() as group, source_of(emulator, retry=PATIENT) as source:
        group.start_soon(look)
        summary = await pull(source, archive, [everything()], options)
    assert summary.failures == []
    assert_home(archive, originals)


async def test_a_damaged_one_among_them_is_kept_in_quarantine(
    files: Path, source: TairSource, archive: Archive
) -> None:
    originals = make(files, 10)
    damaged = bytearray(originals.pop(4))
    damaged[9000] ^= 1
    (files / INSTANCE / "4.rdb").write_bytes(damaged)
    summary = await pull(source, archive, [everything()], OPTIONS)
    assert [type(failure.error) for failure in summary.failures] == [CorruptFile]
    assert_home(archive, originals)
    [aside] = (Path(str(archive.store)) / ".quarantine" / INSTANCE).glob("*.data")
    assert aside.read_bytes() == damaged


async def test_the_rate_is_kept_to(
    files: Path, source: TairSource, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    take, taken = RateLimit.take, []

    async def takes(limit: RateLimit, size: int) -> None:
        taken.append(size)
        await take(limit, size)

    monkeypatch.setattr(RateLimit, "take", takes)
    originals = make(files, 40, size=15_000)
    total, rate = sum(map(len, originals)), 800_000
    options = PullOptions(transfer=TransferOptions(limit_rate=rate, retry=QUICK))
    began = time.monotonic()
    summary = await pull(source, archive, [everything()], options)
    assert summary.archived == 40
    assert sum(taken) == total
    # A quarter of a second's worth at once, and the last of it need not be waited for.
    assert max(taken) <= rate // 4
    assert time.monotonic() - began >= (total - rate // 4) / rate
    assert_home(archive, originals)


async def test_a_rate_below_their_size(files: Path, source: TairSource, archive: Archive) -> None:
    """Then none of them counts as small: it comes in pieces."""
    originals = make(files, 2, size=30_000)
    options = PullOptions(transfer=TransferOptions(limit_rate=100_000, retry=QUICK))
    seen: list[events.Event] = []
    summary = await pull(source, archive, [everything()], options, seen.append)
    assert summary.archived == 2
    assert_home(archive, originals)
    assert sum(isinstance(event, events.Advanced) for event in seen) >= 4


def sockets() -> int:
    """Open in this process."""
    links = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            links.append(str(entry.readlink()))
        except OSError:
            continue
    return sum(link.startswith("socket:") for link in links)


@pytest.mark.parametrize("requests", [1, 16, 17, 40])
async def test_a_batch_that_is_cancelled(
    files: Path, emulator_of: EmulatorMaker, tmp_path: Path, requests: int
) -> None:
    """In the middle of it: nothing stays open, and the next pull brings the rest."""
    originals = make(files, 60)
    emulator = await emulator_of(files, faults=Faults(rate=200_000))
    archive = Archive(LocalStore(tmp_path / "archive"))
    before, tasks = sockets(), asyncio.all_tasks()

    async def cancel(scope: anyio.CancelScope) -> None:
        while emulator.tally.object_requests < requests:
            await anyio.sleep(0.002)
        scope.cancel()

    began = time.monotonic()
    async with anyio.create_task_group() as group:
        group.start_soon(cancel, group.cancel_scope)
        async with source_of(emulator) as source:
            await pull(source, archive, [everything()], OPTIONS)
            pytest.fail("it was over before it was cancelled")
    assert time.monotonic() - began < 60
    assert open_files(tmp_path / "archive") == []
    assert tasks_of_the_package(tasks) == []
    for thread in [thread for thread in threading.enumerate() if "fetch" in thread.name]:
        await asyncio.to_thread(thread.join, 5.0)
        assert not thread.is_alive()
    with anyio.fail_after(10):
        while sockets() > before:  # the emulator's own ends
            await anyio.sleep(0.01)
    emulator.tally.object_bytes = 0
    already = len(kept(archive))
    async with source_of(emulator) as source:
        summary = await pull(source, archive, [everything()], OPTIONS)
    assert summary.failures == []
    assert summary.held + summary.archived == 60
    assert summary.held <= already
    assert_home(archive, originals)


async def test_what_is_committed_while_a_cancellation_waits_is_reported(
    files: Path, emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    originals = make(files, 60)
    archive = Archive(LocalStore(tmp_path / "archive"))
    finish, loop = LocalStore.finish, asyncio.get_running_loop()
    scope = anyio.CancelScope()

    def cancelled_meanwhile(store: LocalStore, commits: Iterable[Commit]) -> list[Stored]:
        loop.call_soon_threadsafe(scope.cancel)
        time.sleep(0.1)
        return finish(store, commits)

    seen: list[events.Event] = []
    with monkeypatch.context() as patched, scope:
        patched.setattr(LocalStore, "finish", cancelled_meanwhile)
        async with source_of(emulator) as source:
            await pull(source, archive, [everything()], OPTIONS, seen.append)
    home = len(kept(archive))
    assert scope.cancelled_caught
    assert 0 < home < 60
    begun = {event.backup.identity for event in seen if isinstance(event, events.Started)}
    stories = [e for e in seen if isinstance(e, TOLD) and e.backup.identity in begun]
    assert_told_once(list(stories), home)
    async with source_of(emulator) as source:
        summary = await pull(source, archive, [everything()], OPTIONS)
    assert (summary.held, summary.archived) == (home, 60 - home)
    assert_home(archive, originals)


SIZES = {"small": 3000, "large": 600_000}


@pytest.mark.parametrize("size", SIZES)
async def test_listed_by_two_queries_of_a_run(
    files: Path, source: TairSource, archive: Archive, size: str
) -> None:
    """Two at work on one file would pull it from under each other."""
    originals = make(files, 5, SIZES[size])
    queries = [everything()] * 3
    seen: list[events.Event] = []
    summary = await pull(source, archive, queries, OPTIONS, seen.append)
    assert (summary.failures, summary.incomplete) == ([], [])
    assert (summary.planned, summary.archived, summary.held) == (5, 5, 10)
    assert_home(archive, originals)
    assert_told_once(seen, 5)
    assert sum(isinstance(event, events.SetCompleted) for event in seen) == 5


async def test_a_cluster_listed_by_two_queries(
    files: Path, source: TairSource, archive: Archive
) -> None:
    originals = [
        write_rdb(
            files / INSTANCE / f"{INSTANCE}-db-{node}" / "d_20261124021500.rdb", 9000 + node, node
        )
        for node in range(3)
    ]
    seen: list[events.Event] = []
    summary = await pull(source, archive, [everything()] * 2, OPTIONS, seen.append)
    assert (summary.failures, summary.incomplete, summary.exit_code) == ([], [], 0)
    assert_home(archive, originals)
    assert [event.files for event in seen if isinstance(event, events.SetCompleted)] == [3]


async def test_listed_twice_and_damaged(files: Path, source: TairSource, archive: Archive) -> None:
    """Said once, and kept once."""
    data = bytearray(*make(files, 1))
    data[9000] ^= 1
    (files / INSTANCE / "0.rdb").write_bytes(data)
    summary = await pull(source, archive, [everything()] * 2, OPTIONS)
    assert [type(failure.error) for failure in summary.failures] == [CorruptFile]
    assert (summary.archived, summary.held, kept(archive)) == (0, 0, [])


async def test_urls_about_to_expire_are_renewed_first(
    files: Path, emulator_of: EmulatorMaker, archive: Archive
) -> None:
    originals = make(files, 40)
    emulator = await emulator_of(files, faults=Faults(expire_after=50))
    seen: list[events.Event] = []
    async with source_of(emulator) as source:
        summary = await pull(source, archive, [everything()], OPTIONS, seen.append)
    assert summary.failures == []
    assert sum(isinstance(event, events.UrlRefreshed) for event in seen) == 40
    assert emulator.tally.refused == {}
    assert emulator.tally.object_requests == 40
    assert_home(archive, originals)


def half_past() -> float:
    """The time, and never a full second, up to which a URL of that second is good."""
    return int(time.time()) + 0.5


async def test_urls_that_expired_are_renewed(
    files: Path,
    emulator_of: EmulatorMaker,
    archive: Archive,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing says so before the 403."""
    monkeypatch.setattr(download_url, "REFRESH_AHEAD", timedelta(days=-1))
    originals = make(files, 40)
    emulator = await emulator_of(files, faults=Faults(expire_after=0), clock=half_past)
    seen: list[events.Event] = []

    def observe(event: events.Event) -> None:
        seen.append(event)
        if isinstance(event, events.Planned):
            emulator.faults = Faults()  # the one page was listed by now

    async with source_of(emulator) as source:
        summary = await pull(source, archive, [everything()], OPTIONS, observe)
    assert summary.failures == []
    assert sum(isinstance(event, events.UrlRefreshed) for event in seen) == 40
    assert set(emulator.tally.refused) == {"AccessDenied"}
    assert_home(archive, originals)
    assert_told_once(seen, 40)


async def test_a_server_that_hangs_up_on_everybody(
    files: Path, emulator: Emulator, archive: Archive
) -> None:
    """All of them fail, each by its name, and the run goes on to its end."""
    make(files, 40)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    fields = {
        f"{n}.rdb": {
            "BackupDownloadURL": f"http://127.0.0.1:{port}/{n}?Signature=s",
            "BackupIntranetDownloadURL": "",
        }
        for n in range(40)
    }
    (files / INSTANCE / "backups.json").write_text(json.dumps(fields))
    options = PullOptions(transfer=TransferOptions(retry=QUICK))
    async with source_of(emulator) as source:
        summary = await pull(source, archive, [everything()], options)
    assert len({failure.subject for failure in summary.failures}) == 40
    assert summary.exit_code == 5
