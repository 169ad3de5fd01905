"""The command as a process of its own, against an emulator in this one."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from archiver.emulator import Emulator
from tests.conftest import KEY_ID, KEY_SECRET


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Run = Callable[..., Awaitable[Result]]


@pytest.fixture
def environ(emulator: Emulator) -> dict[str, str]:
    """What a user would have set."""
    return {
        **os.environ,
        "ALIBABA_CLOUD_ACCESS_KEY_ID": KEY_ID,
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET": KEY_SECRET,
        "ARCHIVER_ENDPOINT": emulator.endpoint,
        "ARCHIVER_RANGE": "2000-01-01..2099-12-31",
    }


@pytest.fixture
def run(environ: dict[str, str], tmp_path: Path) -> Run:
    """Run ``archiver`` with arguments to its end."""

    async def start(*args: str, **changed: str | None) -> Result:
        env = {name: value for name, value in (environ | changed).items() if value is not None}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "archiver",
            *args,
            env=env,
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        return Result(process.returncode or 0, out.decode(), err.decode())

    return start
