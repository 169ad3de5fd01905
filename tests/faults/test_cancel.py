"""Cancelled at every turn of the event loop: no task, file, socket, thread or lock stays behind,
and the next pull converges."""

import asyncio
import threading
from pathlib import Path

import anyio
import pytest

from archiver import Archive, LocalStore, PullOptions, TransferOptions, pull
from archiver.emulator import Emulator
from examples.sample_rdb import write_rdb
from tests.conftest import INSTANCE, QUICK, everything, source_of, tasks_of_the_package
from tests.sweeps import BUDGET, extent, strides, within_share

STAMP = "20261124021500"
OPTIONS = PullOptions(
    workers=2, transfer=TransferOptions(part_size=64 * 1024, connections=2, retry=QUICK)
)


async def pull_cancelled_after(turns: int, emulator: Emulator, archive: Archive) -> bool:
    """Cancel a pull when the loop has gone round so often; whether it was still at work."""
    loop = asyncio.get_running_loop()
    left = turns
    with anyio.CancelScope() as scope:

        def count_down() -> None:
            nonlocal left
            left -= 1
            if left <= 0:
                scope.cancel()
            else:
                loop.call_soon(count_down)

        loop.call_soon(count_down)
        async with source_of(emulator) as source:
            await pull(source, archive, [everything()], OPTIONS)
        left = 10**9
        return False
    return True


def open_files(root: Path) -> list[str]:
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = str(entry.readlink())
        except OSError:
            continue
        if target.startswith(str(root)):
            found.append(target)
    return found


@pytest.mark.timeout(extent(570, 1700))
async def test_cancelled_at_every_turn(files: Path, emulator: Emulator, tmp_path: Path) -> None:
    originals = sorted(
        write_rdb(files / INSTANCE / f"{n}_{STAMP}.rdb", size, n)
        for n, size in enumerate((200_000, 20_000, 70_000))
    )
    before = asyncio.all_tasks()
    tried = 0
    # While a thread is at work the loop goes round many times: the later, the longer strides.
    for turns in within_share(strides(extent(4, 10**9, on_budget=40))):
        root = tmp_path / str(turns)
        archive = Archive(LocalStore(root))
        at_work = await pull_cancelled_after(turns, emulator, archive)
        tried += at_work
        for _ in range(3):
            await asyncio.sleep(0)  # the emulator's handlers see that their client left
        assert tasks_of_the_package(before) == [], turns
        assert open_files(root) == [], turns
        assert not [t for t in threading.enumerate() if "fetch" in t.name and _is_busy(t)], turns
        async with source_of(emulator) as source:
            summary = await pull(source, archive, [everything()], OPTIONS)
        assert summary.failures == [], turns
        kept = sorted(path.read_bytes() for path in (root / INSTANCE).rglob("*.rdb"))
        assert kept == originals, turns
        assert list((root / ".staging").iterdir()) == [], turns
        if not at_work:
            break
    print(f"cancelled at {tried} turns of the loop")
    assert tried > (0 if BUDGET else 10)


def _is_busy(thread: threading.Thread) -> bool:
    """An executor's thread ends by itself once its executor is gone."""
    thread.join(2.0)
    return thread.is_alive()
