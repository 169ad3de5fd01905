"""A file's connections: who is counted as at work, and is no more."""

from pathlib import Path

import anyio
import pytest

from archiver import Archive, PullOptions, TransferOptions, pull
from archiver.emulator import Emulator, Faults
from archiver.transfer import engine, file
from archiver.transfer.lanes import Lanes
from examples.sample_rdb import write_rdb
from tests.conftest import INSTANCE, QUICK, everything, source_of

PART = 64 * 1024
OPTIONS = PullOptions(
    workers=2, transfer=TransferOptions(part_size=PART, connections=3, retry=QUICK)
)


class Counted(Lanes):
    """Lanes that tell how many were at work, at most and now."""

    def __init__(self, files: int, each: int) -> None:
        super().__init__(files, each)
        self.at_work = self.most = 0

    def opened(self) -> None:
        super().opened()
        self.at_work += 1
        self.most = max(self.most, self.at_work)

    def closed(self, lanes: int) -> None:
        super().closed(lanes)
        self.at_work -= lanes


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Counted]:
    """What each run counted."""
    made: list[Counted] = []

    def make(files: int, each: int) -> Lanes:
        made.append(Counted(files, each))
        return made[-1]

    monkeypatch.setattr(engine, "Lanes", make)
    monkeypatch.setattr(file, "LOOK_SECONDS", 0.02)
    return made


async def test_all_are_given_back(
    files: Path, emulator: Emulator, archive: Archive, made: list[Counted]
) -> None:
    """However often a connection was cut on the way."""
    for number in range(4):
        write_rdb(files / INSTANCE / f"{number}.rdb", 6 * PART, number)
    emulator.faults = Faults(rate=500_000, drop=0.3, seed=2)
    async with source_of(emulator) as source:
        await pull(source, archive, [everything()], OPTIONS)
    [lanes] = made
    assert 3 <= lanes.most <= 6
    assert lanes.at_work == 0


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.3])
async def test_all_are_given_back_when_cancelled(
    files: Path, emulator: Emulator, archive: Archive, made: list[Counted], seconds: float
) -> None:
    write_rdb(files / INSTANCE / "a.rdb", 6 * PART)
    emulator.faults = Faults(rate=100_000)
    async with source_of(emulator) as source, anyio.create_task_group() as group:
        group.start_soon(pull, source, archive, [everything()], OPTIONS)
        while not made or made[0].most == 0:
            await anyio.sleep(0)
        await anyio.sleep(seconds)
        group.cancel_scope.cancel()
    [lanes] = made
    assert lanes.most > 0
    assert lanes.at_work == 0


async def test_one_stays_where_there_are_too_many(
    files: Path,
    emulator: Emulator,
    archive: Archive,
    made: list[Counted],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each but the last leaves a file after a part; when those are gone, others may set out."""
    monkeypatch.setattr(file, "ENOUGH", 0)
    monkeypatch.setattr(Counted, "is_crowded", property(lambda lanes: lanes.at_work > 1))
    data = write_rdb(files / INSTANCE / "a.rdb", 16 * PART)
    async with source_of(emulator) as source:
        with anyio.fail_after(20):
            summary = await pull(source, archive, [everything()], OPTIONS)
    assert summary.failures == []
    [kept] = Path(str(archive.store)).rglob("*.rdb")
    assert kept.read_bytes() == data
    [lanes] = made
    assert lanes.most == 3
    assert lanes.at_work == 0
