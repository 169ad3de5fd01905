"""Killed at every file-system call in turn, and run again: the same bytes and no debris.

``FAULTS=full`` (``make faults``) takes every position; otherwise one in nine.
"""

import os
import random
import re
import subprocess
from pathlib import Path

from archiver.emulator import Emulator
from examples.sample_rdb import write_rdb
from tests.conftest import INSTANCE
from tests.faults.test_disk import STAMP, assert_converged, needs_strace, pull

# What changes a file system, or makes a change durable.
CALLS = ("mkdir", "pwrite64", "fsync", "fdatasync", "rename", "unlink", "ftruncate")
FULL = os.environ.get("FAULTS") == "full"


@needs_strace
async def test_killed_at_every_call(files: Path, emulator: Emulator, tmp_path: Path) -> None:
    originals = {
        name: write_rdb(files / INSTANCE / f"{name}_{STAMP}.rdb", size, size)
        for name, size in (("large", 200_000), ("small", 20_000))
    }
    log = tmp_path / "log"
    through = ("strace", "-f", "-qq", "-o", str(log), "-e", f"trace={','.join(CALLS)}")
    assert (await pull(emulator, tmp_path / "count", through=through))[0] == 0
    calls = re.findall(r"^\d+ +(\w+)\(", log.read_text(), re.MULTILINE)
    positions = [(name, n) for name in CALLS for n in range(1, calls.count(name) + 1)]
    seed = random.randrange(10**6)
    chosen = positions if FULL else random.Random(seed).sample(positions, len(positions) // 9)
    killed = 0
    for name, when in chosen:
        place = tmp_path / f"{name}{when}"
        inject = f"inject={name}:signal=KILL:when={when}"
        code, _ = await pull(
            emulator,
            place,
            through=("strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={name}", "-e", inject),
        )
        killed += code != 0
        sent = emulator.tally.object_bytes
        code, err = await pull(emulator, place)
        assert code == 0, (name, when, seed, err)
        assert_converged(place, originals)
        assert emulator.tally.object_bytes - sent <= sum(map(len, originals.values()))
        subprocess.run(["rm", "-rf", place], check=True)
    print(f"seed {seed}: {len(chosen)} of {len(positions)} positions, killed {killed} times")
    assert killed > len(chosen) // 2
