"""Injected faults, how often they occur, and that the emulator ends in spite of them."""

import asyncio
import time
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from archiver import TairSource
from archiver.emulator import Emulator, Faults
from archiver.emulator.faults import Dice
from archiver.errors import UsageError
from examples.sample_rdb import write_rdb
from tests.conftest import INSTANCE, KEY_ID, KEY_SECRET, EmulatorMaker, source_of
from tests.emulator.test_api import acs3
from tests.emulator.test_oss import ask, url_of

SIZE = 100_000


@pytest.fixture
def data(files: Path) -> bytes:
    return write_rdb(files / INSTANCE / "a.rdb", SIZE)


@pytest.mark.parametrize(
    "broken",
    [
        {"drop": 2.0},
        {"corrupt": -0.1},
        {"throttle": float("nan")},
        {"rate": 0},
        {"latency": -1.0},
        {"latency": float("inf")},
        {"latency": float("nan")},
        {"expire_after": -1},
    ],
)
def test_faults_that_make_no_sense(broken: dict[str, float]) -> None:
    [name] = broken
    with pytest.raises(UsageError, match=f"^fault {name}: ") as caught:
        Faults(**broken)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_seed_may_be_any_number() -> None:
    assert Faults(seed=-1).seed == -1


def test_off_by_default() -> None:
    dice = Dice(Faults())
    for number in range(1000):
        fate = dice.fate(str(number))
        assert (fate.throttled, fate.server_error, fate.flip, fate.cut) == (
            False,
            False,
            None,
            None,
        )


def test_as_often_as_was_asked_for() -> None:
    dice = Dice(Faults(drop=0.3, corrupt=0.1, throttle=0.2, server_errors=0.05))
    fates = [dice.fate("the same range") for _ in range(5000)]
    for seen, asked in (
        (sum(fate.cut is not None for fate in fates), 0.3),
        (sum(fate.flip is not None for fate in fates), 0.1),
        (sum(fate.throttled for fate in fates), 0.2),
        (sum(fate.server_error for fate in fates), 0.05),
    ):
        assert abs(seen / 5000 - asked) < 0.03


def test_a_seed_repeats_a_rehearsal_in_any_order() -> None:
    faults = Faults(drop=0.5, corrupt=0.5, seed=7)
    asked = [f"range {number % 50}" for number in range(200)]
    one, other = Dice(faults), Dice(faults)
    first = sorted((subject, str(one.fate(subject))) for subject in asked)
    second = sorted((subject, str(other.fate(subject))) for subject in reversed(asked))
    assert first == second


def test_another_seed_is_another_rehearsal() -> None:
    def cuts(seed: int) -> list[float | None]:
        dice = Dice(Faults(drop=0.5, seed=seed))
        return [dice.fate("the same range").cut for _ in range(50)]

    assert cuts(7) == cuts(7) != cuts(8)


async def test_faults_of_the_api(files: Path, emulator_of: EmulatorMaker) -> None:
    emulator = await emulator_of(files, faults=Faults(throttle=1))
    assert (await acs3(emulator))[1]["Code"] == "Throttling.User"
    emulator.faults = Faults(server_errors=1)
    assert (await acs3(emulator))[0] == 503
    emulator.faults = Faults()
    assert (await acs3(emulator))[0] == 200


async def test_flipped_bytes_and_503(data: bytes, emulator: Emulator, source: TairSource) -> None:
    url = await url_of(source)
    async with aiohttp.ClientSession() as session:
        emulator.faults = Faults(corrupt=1)
        for asked in ({}, {"Range": "bytes=500-509"}, {"Range": "bytes=0-0"}):
            _, body, headers = await ask(session, url, **asked)
            start = int(headers.get("content-range", "bytes 0-")[6:].partition("-")[0])
            right = data[start : start + len(body)]
            assert sum(a != b for a, b in zip(body, right, strict=True)) == 1
        emulator.faults = Faults(server_errors=1)
        assert (await ask(session, url))[0] == 503


async def test_what_comes_before_a_cut_arrives(
    files: Path, emulator: Emulator, source: TairSource
) -> None:
    """A client that resumes must have something to resume from, to the last byte.

    Read from a bare socket: aiohttp's client drops what it holds when a connection is lost.
    """
    data = write_rdb(files / INSTANCE / "a.rdb", 32_000_000)
    path = URL(await url_of(source), encoded=True).raw_path_qs
    emulator.faults = Faults(drop=1)
    reader, writer = await asyncio.open_connection("127.0.0.1", emulator.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    await asyncio.sleep(0.3)  # so that the emulator has more under way than the kernel takes
    body = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    await writer.wait_closed()
    assert b"Content-Length: 32000000" in head
    assert data.startswith(body)
    assert 0 < len(body) < len(data)
    assert emulator.tally.object_bytes == len(body)
    assert emulator.tally.object_requests == 1


async def test_a_file_that_shrinks_does_not_hang(
    files: Path, data: bytes, emulator: Emulator, source: TairSource
) -> None:
    url = await url_of(source)
    emulator.faults = Faults(rate=200_000)
    async with aiohttp.ClientSession() as session, session.get(URL(url, encoded=True)) as answer:
        await answer.content.readany()
        (files / INSTANCE / "a.rdb").write_bytes(b"x")
        with pytest.raises(aiohttp.ClientPayloadError):
            await asyncio.wait_for(answer.read(), 5)


async def test_a_rate_is_kept_from_the_first_byte_on(
    data: bytes, emulator: Emulator, source: TairSource
) -> None:
    url = await url_of(source)
    emulator.faults = Faults(rate=200_000)
    began = time.monotonic()
    async with aiohttp.ClientSession() as session:
        assert (await ask(session, url))[1] == data
        assert time.monotonic() - began >= 0.49
        # No burst for those who ask in small ranges.
        began = time.monotonic()
        for number in range(5):
            await ask(session, url, Range=f"bytes={number * 10_000}-{number * 10_000 + 9_999}")
        assert time.monotonic() - began >= 0.24


async def test_latency(files: Path, emulator: Emulator) -> None:
    emulator.faults = Faults(latency=0.2)
    began = time.monotonic()
    await acs3(emulator)
    assert time.monotonic() - began >= 0.19


async def test_it_ends_with_requests_under_way(files: Path, data: bytes) -> None:
    """Slow bodies and delayed responses do not keep it from ending, and nothing is left open."""
    before = asyncio.all_tasks()
    async with aiohttp.ClientSession() as session:
        async with Emulator(files, access_key_id=KEY_ID, access_key_secret=KEY_SECRET) as emulator:
            async with source_of(emulator) as source:
                url = await url_of(source)
            emulator.faults = Faults(rate=10)
            answer = await session.get(URL(url, encoded=True))
            emulator.faults = Faults(latency=3600)
            waiting = asyncio.ensure_future(session.get(emulator.endpoint))
            await asyncio.sleep(0.05)
            began = time.monotonic()
        assert time.monotonic() - began < 5
        for _ in range(5):  # the server's own tasks end behind ours, without waiting for more
            await asyncio.sleep(0)
        assert not [task for task in asyncio.all_tasks() if "RequestHandler" in repr(task)]
        with pytest.raises(aiohttp.ClientError):
            await answer.read()
        with pytest.raises(aiohttp.ClientError):
            await waiting
    assert asyncio.all_tasks() <= before


async def test_a_port_is_free_again(files: Path) -> None:
    port = 0
    for _ in range(3):
        async with Emulator(
            files, access_key_id=KEY_ID, access_key_secret=KEY_SECRET, port=port
        ) as emulator:
            port = emulator.port
            await acs3(emulator)
