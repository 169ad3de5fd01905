"""Killed at every file-system call in turn, and run again: the same bytes and no debris.

``FAULTS=full`` (``make faults``) takes every position; otherwise one in nine.
"""

import json
import os
import random
import subprocess
from pathlib import Path

from archiver.emulator import Emulator
from examples.sample_rdb import write_rdb
from tests.conftest import INSTANCE
from tests.faults.test_disk import STAMP, assert_converged, pull

RUNNER = "tests.faults.killed_at"
FULL = os.environ.get("FAULTS") == "full"


async def test_killed_at_every_call(files: Path, emulator: Emulator, tmp_path: Path) -> None:
    originals = {
        name: write_rdb(files / INSTANCE / f"{name}_{STAMP}.rdb", size, size)
        for name, size in (("large", 200_000), ("small", 20_000))
    }
    counts = tmp_path / "counts"
    assert (await pull(emulator, tmp_path / "count", module=(RUNNER, "count", str(counts))))[0] == 0
    positions = [
        (name, n)
        for name, calls in sorted(json.loads(counts.read_text()).items())
        for n in range(1, calls + 1)
    ]
    seed = random.randrange(10**6)
    chosen = positions if FULL else random.Random(seed).sample(positions, len(positions) // 9)
    killed = 0
    for name, number in chosen:
        place = tmp_path / f"{name}{number}"
        code, _ = await pull(emulator, place, module=(RUNNER, name, str(number)))
        killed += code != 0
        sent = emulator.tally.object_bytes
        code, err = await pull(emulator, place)
        assert code == 0, (name, number, seed, err)
        assert_converged(place, originals)
        assert emulator.tally.object_bytes - sent <= sum(map(len, originals.values()))
        subprocess.run(["rm", "-rf", place], check=True)
    print(f"seed {seed}: {len(chosen)} of {len(positions)} positions, killed {killed} times")
    # Threads that share a sync make it one call fewer at times.
    assert killed >= len(chosen) * 3 // 4
