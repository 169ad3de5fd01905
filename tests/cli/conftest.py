"""The command as a process of its own, against an emulator in this one."""

import functools
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from anyio import to_thread

from archiver.emulator import Emulator
from tests.conftest import KEY_ID, KEY_SECRET
from tests.servers.forks import Forks


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Run = Callable[..., Awaitable[Result]]

# The commands that ask the vendor.
NAMES = ("PULL", "BACKUP", "DOCTOR", "INSTANCES", "LS", "STATUS", "VERIFY")


@pytest.fixture
def environ(emulator: Emulator) -> dict[str, str]:
    """What a user would have set."""
    return {
        **os.environ,
        "ALIBABA_CLOUD_ACCESS_KEY_ID": KEY_ID,
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET": KEY_SECRET,
        **{f"ARCHIVER_{name}_ENDPOINT": emulator.endpoint for name in NAMES},
        **{f"ARCHIVER_{name}_RANGE": "2000-01-01..2099-12-31" for name in ("PULL", "LS")},
    }


@pytest.fixture
def run(environ: dict[str, str], tmp_path: Path, forked: Forks) -> Run:
    """Run ``archiver`` with arguments to its end."""

    async def start(*args: str, **changed: str | None) -> Result:
        env = {name: value for name, value in (environ | changed).items() if value is not None}
        done = await to_thread.run_sync(forked.run, list(args), env, tmp_path)
        return Result(done.code, done.out.decode(), done.err.decode())

    return start


@pytest.fixture
def run_kept_out(environ: dict[str, str], tmp_path: Path, forked: Forks) -> Run:
    """The same, and the modes of files keep it out, though it may be root's."""

    async def start(*args: str) -> Result:
        asked = functools.partial(forked.run, kept_out=os.geteuid() == 0)
        done = await to_thread.run_sync(asked, list(args), environ, tmp_path)
        return Result(done.code, done.out.decode(), done.err.decode())

    return start
