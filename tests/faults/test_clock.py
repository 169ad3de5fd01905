"""A clock that jumps while a pull is under way: loud or intact, and a clean run converges."""

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from archiver.emulator import Emulator, Faults
from examples.sample_rdb import write_rdb
from tests.conftest import INSTANCE
from tests.faults.test_disk import STAMP, assert_converged, kept, pull
from tests.sweeps import FULL


def library() -> str | None:
    """libfaketime's path, as its own command sets it."""
    if shutil.which("faketime") is None:
        return None
    shown = subprocess.run(
        ["faketime", "now", "printenv", "LD_PRELOAD"], capture_output=True, text=True, check=False
    )
    return shown.stdout.strip() or None


FAKETIME = library()


@pytest.mark.skipif(FAKETIME is None, reason="NEEDS faketime: make setup-system")
@pytest.mark.parametrize(
    "jump", ["+2d", "-2d", "+20m", "-20m", "+400d"] if FULL else ["+2d", "-20m"]
)
async def test_a_clock_that_jumps(
    files: Path, emulator: Emulator, tmp_path: Path, jump: str
) -> None:
    originals = {
        name: write_rdb(files / INSTANCE / f"{name}_{STAMP}.rdb", size, size)
        for name, size in (("large", 1_200_000), ("small", 20_000))
    }
    emulator.faults = Faults(rate=400_000)
    clock, place = tmp_path / "clock", tmp_path / "archive"
    clock.write_text("+0")
    through = (
        "env", f"LD_PRELOAD={FAKETIME}", f"FAKETIME_TIMESTAMP_FILE={clock}", "FAKETIME_NO_CACHE=1",
        "FAKETIME_DONT_FAKE_MONOTONIC=1", f"HOME={os.environ.get('HOME', '/')}",
    )  # fmt: skip
    running = asyncio.create_task(pull(emulator, place, through=through))
    while not any((place / ".staging").rglob("*.data")):
        await asyncio.sleep(0.02)
    clock.write_text(jump)
    code, err = await running
    assert code in (0, 1, 4), err
    if code:
        assert "clock" in err or "expired" in err.lower(), err
    assert set(kept(place)) <= set(originals.values())
    emulator.faults = Faults()
    assert (await pull(emulator, place))[0] == 0
    assert_converged(place, originals)
