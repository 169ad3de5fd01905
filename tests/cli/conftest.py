"""The command as a process of its own, against an emulator in this one."""

import asyncio
import ctypes
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

_DAC_OVERRIDE, _DAC_READ_SEARCH = 1, 2
_PR_CAPBSET_DROP = 24


@pytest.fixture
def environ(emulator: Emulator) -> dict[str, str]:
    """What a user would have set."""
    return {
        **os.environ,
        "ALIBABA_CLOUD_ACCESS_KEY_ID": KEY_ID,
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET": KEY_SECRET,
        **{f"ARCHIVER_{name}_ENDPOINT": emulator.endpoint for name in ("PULL", "LS", "VERIFY")},
        **{f"ARCHIVER_{name}_RANGE": "2000-01-01..2099-12-31" for name in ("PULL", "LS")},
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


def obey_modes() -> None:
    """From here on, this process and its children are kept out by the modes of files."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    for capability in (_DAC_OVERRIDE, _DAC_READ_SEARCH):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    if libc.capget(header, data) == 0:
        for at in range(3):  # effective, permitted, inheritable
            data[at] &= ~(1 << _DAC_OVERRIDE | 1 << _DAC_READ_SEARCH)
        libc.capset(header, data)


@pytest.fixture
def run_kept_out(environ: dict[str, str], tmp_path: Path) -> Run:
    async def start(*args: str) -> Result:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "archiver", *args, env=environ, cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            preexec_fn=obey_modes if os.geteuid() == 0 else None,
        )  # fmt: skip
        out, err = await process.communicate()
        return Result(process.returncode or 0, out.decode(), err.decode())

    return start
