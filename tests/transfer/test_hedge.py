"""A connection that is much slower than others is overtaken; by a clock of the test's own."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from archiver import Archive, PullOptions, TransferOptions, events, pull
from archiver.emulator import Emulator
from archiver.transfer import limits
from archiver.transfer.limits import Hedge
from examples.sample_rdb import write_rdb
from tests.conftest import INSTANCE, QUICK, everything, source_of
from tests.faults.hostile import Asked, Hostile
from tests.faults.test_hostile import kept, point_to

MIB = 2**20
# Seconds; four of them without a byte are a stall.
QUICK_LOOKS = 0.2


@dataclass
class Fetch:
    size: int
    rate: float
    position: int = 0
    answered: bool = True

    @property
    def left(self) -> int:
        return self.size - self.position


async def looks_until_due(fetch: Fetch, usual: float | None, most: int = 50) -> int | None:
    """How often the fetch was looked at before it was due, or None."""
    now, looks = 0.0, 0

    async def sleep(seconds: float) -> None:
        nonlocal now, looks
        now, looks = now + seconds, looks + 1
        fetch.position = min(fetch.size, int(fetch.position + fetch.rate * seconds))
        if looks > most:
            raise TimeoutError

    hedge = Hedge(lambda: now, sleep)
    if usual is not None:
        for _ in range(5):
            hedge.finished(8 * MIB, 8 * MIB / usual)
    try:
        await hedge.until_due(fetch)
    except TimeoutError:
        return None
    return looks


@pytest.mark.parametrize(
    ("rate", "usual", "looks"),
    [
        (0, None, 4),  # silence is plain without a comparison
        (1000, None, None),
        (MIB, 20 * MIB, 1),
        (MIB, 2 * MIB, None),  # half as fast as usual is no reason
        (0, 20 * MIB, 1),
    ],
)
async def test_when_a_fetch_is_due(rate: float, usual: float | None, looks: int | None) -> None:
    assert await looks_until_due(Fetch(16 * MIB, rate), usual) == looks


async def test_what_will_end_soon_is_left_alone() -> None:
    assert await looks_until_due(Fetch(2 * MIB, MIB), 100 * MIB, most=1) is None


async def test_nothing_is_due_before_its_answer() -> None:
    assert await looks_until_due(Fetch(16 * MIB, 0, answered=False), 20 * MIB) is None


async def test_a_server_slow_to_everybody_is_not_asked_twice_for_everything() -> None:
    due = 0

    async def sleep(_: float) -> None:
        await asyncio.sleep(0)

    hedge = Hedge(sleep=sleep)
    hedge.finished(16 * MIB, 0.1)

    async def watch() -> None:
        nonlocal due
        await hedge.until_due(Fetch(16 * MIB, 0))
        due += 1

    with anyio.move_on_after(0.2):
        async with anyio.create_task_group() as group:
            for _ in range(30):
                group.start_soon(watch)
    assert due == 4  # 64 MiB, and a twentieth of what came


def stalls(after: int) -> Callable[[Asked, asyncio.StreamWriter], object]:
    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> bool:
        whole = asked.answer()
        writer.write(whole[: len(whole) - len(asked.body) + after])
        await writer.drain()
        await asyncio.sleep(3600)
        return True

    return answer


@pytest.mark.parametrize("request_number", [0, 2, 5])
async def test_a_stalled_connection_is_overtaken(
    files: Path,
    emulator: Emulator,
    archive: Archive,
    request_number: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Long before the least rate would have given it up."""
    monkeypatch.setattr(limits, "_CHECK_SECONDS", QUICK_LOOKS)
    part = 64 * 1024
    data = write_rdb(files / INSTANCE / "a_20261124021500.rdb", 6 * part)
    seen: list[events.Event] = []
    async with Hostile(data, {request_number: stalls(10_000)}).serve() as hostile:
        point_to(files, f"http://127.0.0.1:{hostile.port}/b/k?Signature=s")
        options = PullOptions(transfer=TransferOptions(part_size=part, connections=2, retry=QUICK))
        async with source_of(emulator) as source:
            with anyio.fail_after(20):
                summary = await pull(source, archive, [everything()], options, seen.append)
    assert summary.failures == []
    assert kept(archive) == [data]
    [hedged] = [event for event in seen if isinstance(event, events.Hedged)]
    assert hedged.backup.size == len(data)


async def test_bytes_of_two_connections_are_read_back(
    files: Path, emulator: Emulator, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slow one wrote a wrong byte before it was overtaken: its CRC is thrown away with it."""
    monkeypatch.setattr(limits, "_CHECK_SECONDS", QUICK_LOOKS)
    part = 64 * 1024
    data = write_rdb(files / INSTANCE / "a_20261124021500.rdb", 4 * part)

    async def flips_and_stalls(asked: Asked, writer: asyncio.StreamWriter) -> bool:
        whole = bytearray(asked.answer())
        head = len(whole) - len(asked.body)
        whole[head + 100] ^= 1
        writer.write(whole[: head + 10_000])
        await writer.drain()
        await asyncio.sleep(3600)
        return True

    async with Hostile(data, {1: flips_and_stalls}).serve() as hostile:
        point_to(files, f"http://127.0.0.1:{hostile.port}/b/k?Signature=s")
        options = PullOptions(transfer=TransferOptions(part_size=part, connections=2, retry=QUICK))
        async with source_of(emulator) as source:
            with anyio.fail_after(20):
                summary = await pull(source, archive, [everything()], options)
    assert summary.failures == []
    assert kept(archive) == [data]
