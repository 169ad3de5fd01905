"""Killed at every file-system call in turn, and run again: the same bytes and no debris.

``FAULTS=full`` (``make faults``) takes every position; otherwise a few.
"""

import json
import random
import subprocess
from pathlib import Path

import pytest

from archiver.concurrency import in_thread
from archiver.emulator import Emulator
from archiver.stores.local.syncing import is_syncfs_reliable
from examples.sample_rdb import write_rdb
from tests.conftest import INSTANCE
from tests.faults.killed_at import SYNC
from tests.faults.test_batch import assert_recorded_is_whole, write_small
from tests.faults.test_disk import STAMP, assert_converged, pull
from tests.sweeps import extent, within_share

RUNNER = "tests.faults.killed_at"


async def test_killed_at_every_call(files: Path, emulator: Emulator, tmp_path: Path) -> None:
    originals = {
        name: write_rdb(files / INSTANCE / f"{name}_{STAMP}.rdb", size, size)
        for name, size in (("large", 200_000), ("small", 20_000))
    }
    await killed_and_run_again(emulator, tmp_path, originals, one_in=9)


@pytest.mark.timeout(570)
async def test_killed_at_every_call_of_a_batch(
    files: Path, emulator: Emulator, tmp_path: Path
) -> None:
    large = write_rdb(files / INSTANCE / f"large_{STAMP}.rdb", 200_000, 1)
    originals = {"large": large, **write_small(files, 20)}
    counts = await killed_and_run_again(emulator, tmp_path, originals, one_in=80)
    if await in_thread(is_syncfs_reliable, tmp_path):
        # One of what an earlier run may have left, and one of a batch.
        assert counts.get(SYNC, 0) >= 2, "there was no batch"


async def killed_and_run_again(
    emulator: Emulator, tmp_path: Path, originals: dict[str, bytes], one_in: int
) -> dict[str, int]:
    """At every position, or at one in so many and at one sync of a batch; how many there are."""
    told = tmp_path / "counts"
    assert (await pull(emulator, tmp_path / "count", module=(RUNNER, "count", str(told))))[0] == 0
    counts: dict[str, int] = json.loads(told.read_text())
    positions = [(name, n) for name, calls in sorted(counts.items()) for n in range(1, calls + 1)]
    syncs = [position for position in positions if position[0] == SYNC]
    seed = random.randrange(10**6)
    dice = random.Random(seed)
    dice.shuffle(positions)
    chosen = (
        dice.sample(syncs, min(1, len(syncs))) + positions[: len(positions) // extent(one_in, 1)]
    )
    tried = killed = 0
    for name, number in within_share(chosen):
        tried += 1
        place = tmp_path / f"{name}{number}"
        code, _ = await pull(emulator, place, module=(RUNNER, name, str(number)))
        killed += code != 0
        assert_recorded_is_whole(place)
        sent = emulator.tally.object_bytes
        code, err = await pull(emulator, place)
        assert code == 0, (name, number, seed, err)
        assert_converged(place, originals)
        assert emulator.tally.object_bytes - sent <= sum(map(len, originals.values()))
        subprocess.run(["rm", "-rf", place], check=True)
    print(f"seed {seed}: {tried} of {len(positions)} positions, killed {killed} times")
    # Threads that share a sync make it one call fewer at times.
    assert killed >= tried * 3 // 4
    return counts
