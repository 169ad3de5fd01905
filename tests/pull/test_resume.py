"""What an earlier run left is read back before it counts."""

import asyncio
from pathlib import Path

import anyio
import pytest

from archiver import Archive, PullOptions, TransferOptions, events, pull
from archiver.emulator import Emulator, Faults
from archiver.model import Part
from archiver.stores.local.staging import LocalStaging
from examples.sample_rdb import write_rdb
from tests.conftest import INSTANCE, QUICK, everything, source_of

PART = 64 * 1024
SIZE = 12 * PART + 77
OPTIONS = PullOptions(transfer=TransferOptions(part_size=PART, connections=2, retry=QUICK))


@pytest.fixture
async def interrupted(
    files: Path, emulator: Emulator, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> bytes:
    """A pull that was cancelled when the first part and two others were durable; the file's
    bytes."""
    data = write_rdb(files / INSTANCE / "a_20261124021500.rdb", SIZE)
    loop, scope, saved = asyncio.get_running_loop(), anyio.CancelScope(), set[int]()
    save_part = LocalStaging.save_part

    def save(staging: LocalStaging, part: Part, crc: int, so_far: int | None = None) -> None:
        save_part(staging, part, crc, so_far)
        if so_far is None:
            saved.add(part.index)
        if 0 in saved and len(saved) >= 3:
            loop.call_soon_threadsafe(scope.cancel)

    emulator.faults = Faults(rate=400_000)
    with monkeypatch.context() as patched, scope:
        patched.setattr(LocalStaging, "save_part", save)
        async with source_of(emulator) as source:
            await pull(source, archive, [everything()], OPTIONS)
    assert scope.cancelled_caught
    emulator.faults = Faults()
    return data


async def finish(
    emulator: Emulator, archive: Archive, data: bytes
) -> tuple[int, list[events.Event]]:
    """Bytes that a second pull fetches, and what happened."""
    before = emulator.tally.object_bytes
    seen: list[events.Event] = []
    async with source_of(emulator) as source:
        summary = await pull(source, archive, [everything()], OPTIONS, seen.append)
    assert summary.failures == []
    [kept] = (Path(str(archive.store)) / INSTANCE).rglob("*.rdb")
    assert kept.read_bytes() == data
    return emulator.tally.object_bytes - before, seen


async def test_finished_parts_are_not_fetched_again(
    emulator: Emulator, archive: Archive, interrupted: bytes
) -> None:
    fetched, seen = await finish(emulator, archive, interrupted)
    [started] = [event for event in seen if isinstance(event, events.Started)]
    assert started.resumed >= 2 * PART
    assert fetched == SIZE - started.resumed


async def test_a_part_that_changed_on_the_disk_is_fetched_again(
    emulator: Emulator, archive: Archive, interrupted: bytes
) -> None:
    [staged] = (Path(str(archive.store)) / ".staging" / INSTANCE).glob("*.data")
    with staged.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff\x00\xff")
    fetched, seen = await finish(emulator, archive, interrupted)
    [started] = [event for event in seen if isinstance(event, events.Started)]
    assert fetched == SIZE - started.resumed + PART


async def test_a_staged_file_that_was_cut_is_fetched_where_it_lacks(
    emulator: Emulator, archive: Archive, interrupted: bytes
) -> None:
    [staged] = (Path(str(archive.store)) / ".staging" / INSTANCE).glob("*.data")
    with staged.open("r+b") as file:
        file.truncate(PART // 2)
    await finish(emulator, archive, interrupted)


async def test_an_object_without_its_record_is_taken_over(
    emulator: Emulator, archive: Archive, interrupted: bytes
) -> None:
    await finish(emulator, archive, interrupted)
    [record] = (Path(str(archive.store)) / INSTANCE).rglob("*.json")
    record.unlink()
    fetched, _ = await finish(emulator, archive, interrupted)
    assert fetched <= 1  # one byte was asked for, to learn what the object should be
    assert record.exists()


async def test_an_object_without_its_record_that_is_wrong_is_replaced(
    emulator: Emulator, archive: Archive, interrupted: bytes
) -> None:
    await finish(emulator, archive, interrupted)
    root = Path(str(archive.store)) / INSTANCE
    [record] = root.rglob("*.json")
    record.unlink()
    [kept] = root.rglob("*.rdb")
    damaged = bytearray(interrupted)
    damaged[5 * PART] ^= 1
    kept.write_bytes(damaged)
    inode = kept.stat().st_ino
    await finish(emulator, archive, interrupted)
    assert kept.stat().st_ino != inode
    assert not (root.parent / ".quarantine").exists()
