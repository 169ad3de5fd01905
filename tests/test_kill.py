"""Killed at random moments, run again to the end: the same bytes, no debris, little twice."""

import asyncio
import os
import random
import subprocess
import sys
from pathlib import Path

from archiver.emulator import Emulator, Faults
from examples.sample_rdb import write_rdb
from tests.conftest import INSTANCE, KEY_ID, KEY_SECRET
from tests.sweeps import extent

KILLS = extent(6, 20)
PART = 64 * 1024
WORKERS, CONNECTIONS = 3, 2


def command(emulator: Emulator, place: Path) -> list[str]:
    return [
        sys.executable, "-m", "archiver", "pull", "--instance", INSTANCE, "--to", str(place),
        "--endpoint", emulator.endpoint, "--range", "2000-01-01..2099-12-31", "-q",
        "--part-size", "64KiB", "--workers", str(WORKERS), "--connections", str(CONNECTIONS),
    ]  # fmt: skip


async def test_killed_again_and_again(files: Path, emulator: Emulator, tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    dice = random.Random(seed)
    sizes = [dice.choice([5_000, 60_000, 500_000, 2_000_000]) for _ in range(24)]
    originals = [write_rdb(files / INSTANCE / f"{n}.rdb", size, n) for n, size in enumerate(sizes)]
    emulator.faults = Faults(rate=250_000)
    place = tmp_path / "archive"
    env = {
        **os.environ,
        "ALIBABA_CLOUD_ACCESS_KEY_ID": KEY_ID,
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET": KEY_SECRET,
    }
    killed = 0
    for _ in range(KILLS):
        process = await asyncio.create_subprocess_exec(*command(emulator, place), env=env)
        try:
            async with asyncio.timeout(dice.uniform(0.3, 1.1)):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
            killed += 1
    emulator.faults = Faults()
    last = await asyncio.create_subprocess_exec(*command(emulator, place), env=env)
    assert await last.wait() == 0
    assert killed >= KILLS // 2, "it finished too soon to prove anything"

    kept = sorted(path.read_bytes() for path in place.rglob("*.rdb"))
    assert kept == sorted(originals)
    [sums] = place.rglob("SHA256SUMS")
    assert len(sums.read_text().splitlines()) == len(originals)
    subprocess.run(["sha256sum", "-c", "--quiet", sums.name], cwd=sums.parent, check=True)
    assert list((place / ".staging").iterdir()) == []
    assert not (place / ".quarantine").exists()
    twice = emulator.tally.object_bytes - sum(sizes)
    print(f"killed {killed} times; {twice} of {sum(sizes)} bytes were sent twice")
    assert twice <= killed * WORKERS * CONNECTIONS * PART
