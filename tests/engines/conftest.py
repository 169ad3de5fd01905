"""Commands with a cluster: a vendor with some dozens of files, and the command as a process."""

import asyncio
import hashlib
import json
import math
import os
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from archiver.emulator import Emulator
from examples.sample_rdb import write_rdb
from tests.conftest import INSTANCE, KEY_ID, KEY_SECRET
from tests.servers.dask import DaskCluster, dask_cluster
from tests.sweeps import extent

ROOT = Path(__file__).parents[2]
# In full: 600 files of 0.1 to 64 MiB.
FILES = extent(60, 600, on_budget=60)
SMALLEST, DOUBLINGS = (1024, 10) if FILES == 60 else (100 * 1024, math.log2(640))


@pytest.fixture
def originals(files: Path) -> dict[str, str]:
    """Their SHA-256, by the start of the backup."""
    dice = random.Random(13)
    made = {}
    for number in range(FILES):
        at = f"202611{1 + number % 28:02d}{number % 24:02d}{number % 60:02d}00"
        size = int(SMALLEST * 2 ** dice.uniform(0, DOUBLINGS))
        data = write_rdb(files / INSTANCE / f"{number}_{at}.rdb", size, number)
        made[at] = hashlib.sha256(data).hexdigest()
    return made


@dataclass
class Run:
    """A command that runs, and the lines of JSON that it has written."""

    process: asyncio.subprocess.Process
    lines: list[dict[str, Any]] = field(default_factory=list)

    async def until(self, event: str, count: int = 1) -> None:
        """Read until so many events of a kind were written."""
        assert self.process.stdout is not None
        while sum(line["event"] == event for line in self.lines) < count:
            line = await self.process.stdout.readline()
            assert line, f"it ended after {len(self.lines)} lines"
            self.lines.append(json.loads(line))

    async def end(self) -> tuple[int, str]:
        """Its exit code, and what it wrote on stderr."""
        out, err = await self.process.communicate()
        self.lines += map(json.loads, out.splitlines())
        return self.process.returncode or 0, err.decode()

    def count(self, event: str) -> int:
        return sum(line["event"] == event for line in self.lines)


Start = Callable[..., Awaitable[Run]]


@pytest.fixture
def worker_environ() -> dict[str, str]:
    """What workers have: the bucket's keys, and none of the vendor's."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "DASK_LOGGING__DISTRIBUTED": "debug"}


@pytest.fixture
async def start_any(tmp_path: Path) -> AsyncIterator[Start]:
    """Start a command of archiver."""
    async with AsyncExitStack() as stack:

        async def started(*args: str | Path, **environ: str) -> Run:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "archiver", *map(str, args), "--json",
                cwd=tmp_path, stdout=-1, stderr=-1, limit=2**20, start_new_session=True,
                env={
                    **os.environ, "PYTHONPATH": str(ROOT), **environ,
                    "ALIBABA_CLOUD_ACCESS_KEY_ID": KEY_ID,
                    "ALIBABA_CLOUD_ACCESS_KEY_SECRET": KEY_SECRET,
                },
            )  # fmt: skip

            async def end() -> None:
                if process.returncode is None:
                    process.kill()
                    await process.wait()

            stack.push_async_callback(end)
            return Run(process)

        yield started


@pytest.fixture
def start(emulator: Emulator, start_any: Start) -> Start:
    """Start ``archiver pull`` into a place."""

    async def started(place: str | Path, *args: str, **environ: str) -> Run:
        return await start_any(
            "pull", "--instance", INSTANCE, "--to", place, "--endpoint", emulator.endpoint,
            "--range", "2000-01-01..2099-12-31", *args, **environ,
        )  # fmt: skip

    return started


@pytest.fixture
def cluster(tmp_path: Path, worker_environ: dict[str, str]) -> Iterator[DaskCluster]:
    with dask_cluster(tmp_path / "cluster", worker_environ) as cluster:
        yield cluster
