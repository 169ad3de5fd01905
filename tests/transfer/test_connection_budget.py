"""How many connections a file gets; over a source that gives bytes when it is told to."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import anyio
import pytest
from fastcrc import crc64

from archiver import events
from archiver.errors import ArchiverError, IntegrityError
from archiver.model import (
    Backup,
    BackupType,
    Network,
    Part,
    Pin,
    Provenance,
    Receipt,
    SourceName,
    Status,
)
from archiver.retry import Attempts
from archiver.stores.base import Documents, Resumable
from archiver.stores.commit import Commit
from archiver.transfer import download
from archiver.transfer.download import download_file
from archiver.transfer.engine import TransferOptions, shared_resources
from archiver.transfer.http.response import ObjectResponse
from archiver.transfer.resources import ConnectionBudget, SharedResources
from examples.sample_rdb import rdb

PART = 64 * 1024
NEVER, OFTEN = 3600.0, 0.01


def test_a_connection_for_each_file() -> None:
    budget = ConnectionBudget(files=3, per_file=2)
    seen = []
    for _ in range(5):
        seen.append((budget.has_room, budget.is_exceeded))
        budget.opened()
    room, neither, crowded = (True, False), (False, False), (False, True)
    assert seen == [room, room, room, neither, crowded]
    for _ in range(3):
        budget.closed()
    assert budget.has_room


def test_all_connections_for_one_file() -> None:
    budget = ConnectionBudget(files=1, per_file=4)
    for _ in range(4):
        assert budget.has_room
        budget.opened()
    assert not budget.has_room
    assert not budget.is_exceeded


@dataclass
class Source:
    """An Origin, Route and Body: each connection delivers a buffer for each of ``may_read``."""

    data: bytes
    at_work: int = 0
    most: int = 0
    opened: int = 0
    free: bool = False
    fails_at: int | None = None
    provenance: Provenance = field(default_factory=lambda: Provenance("", Network.PUBLIC))

    def __post_init__(self) -> None:
        self.may_read = anyio.Semaphore(0)
        self.size = len(self.data)
        self.backup = Backup(
            SourceName("test", "list"), "r-a", "r-a", "1", "1", datetime.now(UTC), Status.SUCCESS,
            BackupType.FULL,
        )  # fmt: skip

    async def route(self) -> "Source":
        await asyncio.sleep(0)
        return self

    @asynccontextmanager
    async def open(self, start: int, stop: int, _: Pin | None) -> AsyncGenerator["Read", None]:
        self.at_work += 1
        self.opened += 1
        self.most = max(self.most, self.at_work)
        pin = Pin(len(self.data), '"E"', int(crc64.xz(self.data)))
        try:
            yield Read(self, start, stop, ObjectResponse(start, pin, is_whole=False))
        finally:
            self.at_work -= 1

    def succeeded(self) -> None:
        pass

    async def recover(self, error: ArchiverError, _: Attempts) -> None:
        raise error

    async def until_at_work(self, connections: int) -> None:
        with anyio.fail_after(10):
            while self.at_work != connections:
                await anyio.sleep(0.001)


@dataclass
class Read:
    source: Source
    position: int
    stop: int
    response: ObjectResponse

    async def readinto(self, block: memoryview) -> int:
        if not self.source.free:
            await self.source.may_read.acquire()
        await asyncio.sleep(0)
        if self.source.fails_at is not None and self.position >= self.source.fails_at:
            raise IntegrityError("not the bytes that were asked for")
        data = self.source.data[self.position : min(self.stop, self.position + len(block))]
        block[: len(data)] = data
        self.position += len(data)
        return len(data)


@dataclass
class Memory:
    """A Staging."""

    size: int
    can_read_back: bool = True
    resumable: Resumable | None = None

    def __post_init__(self) -> None:
        self.data = bytearray(self.size)
        self.kept: set[int] = set()
        self._guard = threading.Lock()

    @property
    def can_rewrite_parts(self) -> bool:
        return self.can_read_back

    def begin(self, pin: Pin, provenance: Provenance, part_size: int) -> None:
        pass

    def write(self, offset: int, data: memoryview) -> None:
        with self._guard:
            self.data[offset : offset + len(data)] = data

    def read(self, offset: int, block: memoryview) -> int:
        found = self.data[offset : offset + len(block)]
        block[: len(found)] = found
        return len(found)

    def save_part(self, part: Part, crc: int, so_far: int | None = None) -> None:
        if so_far is None:
            self.kept.add(part.index)

    def save_hash_state(self, part: Part, state: str) -> None:
        pass

    def restart(self) -> None:
        self.kept.clear()

    @property
    def existing(self) -> Mapping[str, int]:
        return {}

    def copy_to_quarantine(self, key: str, why: str) -> str:
        raise NotImplementedError

    def commit(self, receipt: Receipt, documents: Documents) -> Commit:
        raise NotImplementedError

    def record(self, key: str, receipt: Receipt, documents: Documents) -> Commit:
        raise NotImplementedError

    def quarantine(self, why: str) -> str:
        raise NotImplementedError


Settings = Callable[[float, float], None]


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What is enough for a connection, and how often that is looked at."""

    def change(enough: float, look: float) -> None:
        monkeypatch.setattr(download, "FAST_CONNECTION", enough)
        monkeypatch.setattr(download, "RATE_CHECK_SECONDS", look)

    return change


def shared(files: int, each: int = 4) -> SharedResources:
    options = TransferOptions(part_size=PART, connections=each)
    return shared_resources(options, files, events.ignore)


def at_work(shared: SharedResources) -> int:
    return shared.connections._at_work


def source(parts: int, seed: int = 0) -> Source:
    return Source(rdb(parts * PART, seed))


async def carried(shared: SharedResources, source: Source, *, can_read_back: bool = True) -> None:
    staging = Memory(len(source.data), can_read_back)
    receipt = await download_file(shared, source, staging)
    assert receipt.size == receipt.bytes_fetched == len(source.data)
    assert staging.data == source.data
    assert staging.kept == set(range(len(source.data) // PART))


async def test_fast_files_get_one_each(settings: Settings) -> None:
    """As many as there are workers for: then no more would help."""
    settings(0, OFTEN)
    line = shared(4)
    sources = [source(6, n) for n in range(4)]
    async with anyio.create_task_group() as group:
        for one in sources:
            group.start_soon(carried, line, one)
        for one in sources:
            await one.until_at_work(1)
        assert at_work(line) == 4
        for _ in range(4):  # two parts are left of each
            for one in sources:
                one.may_read.release()
            for one in sources:
                with anyio.fail_after(10):
                    while one.may_read.value or one.at_work != 1:
                        await anyio.sleep(0.001)
            await anyio.sleep(2 * OFTEN)
        assert [one.most for one in sources] == [1, 1, 1, 1]
        for one in sources:
            one.free = True
            for _ in range(20):
                one.may_read.release()
    assert at_work(line) == 0


async def test_a_slow_file_gets_all_of_them_soon(settings: Settings) -> None:
    settings(2**50, OFTEN)
    line, one = shared(4), source(8)
    for _ in range(8):
        line.connections.opened()  # it is crowded
    async with anyio.create_task_group() as group:
        group.start_soon(carried, line, one)
        await one.until_at_work(1)
        assert at_work(line) == 9
        await one.until_at_work(4)
        free(one)
    assert one.most == 4
    assert at_work(line) == 8


async def test_a_slow_disk_gets_no_more_of_them(settings: Settings) -> None:
    """What is not written yet is not waited for from the source."""
    settings(2**20, OFTEN)
    line, one = shared(4), source(8)
    may_write = threading.Semaphore(0)

    class Slow(Memory):
        def write(self, offset: int, data: memoryview) -> None:
            may_write.acquire(timeout=10)
            super().write(offset, data)

    free(one)
    for _ in range(8):
        line.connections.opened()  # it is crowded
    async with anyio.create_task_group() as group:
        group.start_soon(download_file, line, one, Slow(len(one.data)))
        await one.until_at_work(1)
        await anyio.sleep(10 * OFTEN)
        assert one.at_work == 1
        may_write.release(100)


def free(one: Source) -> None:
    """All that it has, at once."""
    one.free = True
    for _ in range(100):
        one.may_read.release()


async def test_a_slow_file_keeps_them_however_crowded(settings: Settings) -> None:
    settings(2**50, OFTEN)
    line, one = Counting(shared(4)), source(12)
    async with anyio.create_task_group() as group:
        group.start_soon(carried, line.shared, one)
        await one.until_at_work(4)
        await anyio.sleep(5 * OFTEN)  # seen to be slow
        line.crowd(8)
        for opened in range(one.opened + 1, 13):
            one.may_read.release()
            with anyio.fail_after(10):
                while one.opened < opened:
                    await anyio.sleep(0.001)
        free(one)
    assert line.opened == 4
    assert at_work(line.shared) == 8


class Counting:
    """How often a connection was opened, beside those of others."""

    def __init__(self, shared: SharedResources) -> None:
        self.shared = shared
        self.opened = 0
        self._open = shared.connections.opened
        shared.connections.opened = self._count  # type: ignore[method-assign]

    def _count(self) -> None:
        self.opened += 1
        self._open()

    def crowd(self, connections: int) -> None:
        for _ in range(connections):
            self._open()


@pytest.mark.parametrize("files", [1, 4])
async def test_a_file_alone_gets_several_at_once(settings: Settings, files: int) -> None:
    """Without being slow: the machine would be idle."""
    settings(0, NEVER)
    line, one = shared(files), source(8)
    async with anyio.create_task_group() as group:
        group.start_soon(carried, line, one)
        await one.until_at_work(4)
        free(one)
    assert one.most == 4
    assert at_work(line) == 0


async def test_a_file_of_fewer_parts(settings: Settings) -> None:
    settings(0, NEVER)
    line, one = shared(4), source(2)
    free(one)
    await carried(line, one)
    assert one.opened == 2
    assert at_work(line) == 0


async def test_connections_end_when_the_budget_is_exceeded(settings: Settings) -> None:
    settings(0, OFTEN)
    line, one = Counting(shared(4)), source(20)
    async with anyio.create_task_group() as group:
        group.start_soon(carried, line.shared, one)
        await one.until_at_work(4)
        line.crowd(4)
        for connections in (3, 2, 1):
            one.may_read.release()
            await one.until_at_work(connections)
        # The last stays, and when there is room again, it has company.
        one.may_read.release()
        await anyio.sleep(5 * OFTEN)
        await one.until_at_work(1)
        for _ in range(4):
            line.shared.connections.closed()
        await one.until_at_work(4)
        free(one)
    assert line.opened == 7
    assert at_work(line.shared) == 0


async def test_where_nothing_is_read_back_there_are_always_as_many(settings: Settings) -> None:
    """They cost nothing more there, and each waits for what it sends."""
    settings(0, NEVER)
    line, one = Counting(shared(4)), source(12)
    line.crowd(8)
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: carried(line.shared, one, can_read_back=False))
        await one.until_at_work(4)
        for opened in range(one.opened + 1, 13):
            one.may_read.release()
            with anyio.fail_after(10):
                while one.opened < opened:
                    await anyio.sleep(0.001)
        free(one)
    assert line.opened == 4
    assert at_work(line.shared) == 8


@pytest.mark.parametrize("can_read_back", [True, False])
@pytest.mark.parametrize("part", [0, 1, 5, 11])
async def test_a_failed_file_gives_its_connections_back(
    settings: Settings, part: int, can_read_back: bool
) -> None:
    settings(2**50, OFTEN)
    line, one = shared(4), source(12)
    one.fails_at = part * PART
    free(one)
    with pytest.raises(IntegrityError, match="not the bytes"):
        await carried(line, one, can_read_back=can_read_back)
    assert at_work(line) == one.at_work == 0


@pytest.mark.parametrize("can_read_back", [True, False])
async def test_none_is_opened_after_one_failed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, can_read_back: bool
) -> None:
    """However soon after it the rate is looked at: nobody would end what was opened then."""
    settings(2**50, OFTEN)
    sleep = anyio.sleep
    loop = asyncio.get_running_loop()
    for turns in range(60):
        line, one, look = shared(4), source(12), anyio.Event()
        one.fails_at = PART
        for _ in range(4):
            line.connections.opened()  # it is crowded

        async def recover(
            error: ArchiverError, _: Attempts, look: anyio.Event = look, turns: int = turns
        ) -> None:
            after(turns, loop, look.set)
            raise error

        async def looks(seconds: float, look: anyio.Event = look) -> None:
            await (look.wait() if seconds == OFTEN else sleep(seconds))

        monkeypatch.setattr(one, "recover", recover)
        monkeypatch.setattr(anyio, "sleep", looks)
        free(one)
        with anyio.fail_after(10), pytest.raises(IntegrityError, match="not the bytes"):
            await carried(line, one, can_read_back=can_read_back)
        assert (at_work(line), one.at_work) == (4, 0), turns


def after(turns: int, loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    if turns == 0:
        call()
    else:
        loop.call_soon(after, turns - 1, loop, call)


@pytest.mark.parametrize("can_read_back", [True, False])
async def test_cancelled_at_any_turn_of_the_loop_it_gives_them_back(
    settings: Settings, can_read_back: bool
) -> None:
    settings(2**50, OFTEN)
    line, opened = shared(4), 0
    for turns in range(1, 400, 3):
        one = source(6)
        free(one)
        with anyio.CancelScope() as scope:
            count_down(turns, scope)
            await carried(line, one, can_read_back=can_read_back)
        assert at_work(line) == one.at_work == 0, turns
        opened = max(opened, one.most)
    assert opened > 1


def count_down(turns: int, scope: anyio.CancelScope) -> None:
    if turns == 0:
        scope.cancel()
    else:
        asyncio.get_running_loop().call_soon(count_down, turns - 1, scope)
