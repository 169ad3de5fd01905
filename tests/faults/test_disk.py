"""Real trouble with the disk: full, read-only, failing, limits; loud, and a clean run converges.

``FAULTS=full`` (``make faults``) has each call fail at more of its times.
"""

import asyncio
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from anyio import to_thread

from archiver.emulator import Emulator
from examples.sample_rdb import write_rdb
from tests.conftest import INSTANCE, KEY_ID, KEY_SECRET
from tests.servers import forks
from tests.sweeps import FULL

STAMP = "20261124021500"
needs_mount = pytest.mark.skipif(os.geteuid() != 0, reason="NEEDS ROOT to mount a small tmpfs")
needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None, reason="NEEDS strace: make setup-system"
)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", place], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("MOUNTING IS NOT ALLOWED HERE")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.fixture
def originals(files: Path) -> dict[str, bytes]:
    """A file of several parts and a small one, by name."""
    return {
        name: write_rdb(files / INSTANCE / f"{name}_{STAMP}.rdb", size, size)
        for name, size in (("large", 300_000), ("small", 20_000))
    }


async def pull(
    emulator: Emulator,
    place: Path,
    *,
    through: tuple[str, ...] = (),
    module: tuple[str, ...] = ("archiver",),
    limit: Callable[[], None] | None = None,
    more: tuple[str, ...] = (),
) -> tuple[int, str]:
    """Exit code and stderr of a pull in a process of its own; without any trouble, a fork."""
    words = [
        "pull", "--instance", INSTANCE, "--to", str(place), "--endpoint", emulator.endpoint,
        "--range", "2000-01-01..2099-12-31", "--part-size", "64KiB", "--connections", "2",
        "--workers", "1", "-q", *more,
    ]  # fmt: skip
    environ = {
        **os.environ,
        "ALIBABA_CLOUD_ACCESS_KEY_ID": KEY_ID,
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET": KEY_SECRET,
    }
    if not through and module == ("archiver",) and limit is None:
        done = await to_thread.run_sync(forks.shared().run, words, environ, Path.cwd())
        return done.code, done.err.decode()
    process = await asyncio.create_subprocess_exec(
        *through, sys.executable, "-m", *module, *words, env=environ,
        stderr=asyncio.subprocess.PIPE, preexec_fn=limit,
    )  # fmt: skip
    _, err = await process.communicate()
    return process.returncode or 0, err.decode()


def kept(place: Path) -> list[bytes]:
    root = place / INSTANCE
    return sorted(path.read_bytes() for path in root.rglob("*.rdb")) if root.exists() else []


def assert_converged(place: Path, originals: dict[str, bytes]) -> None:
    assert kept(place) == sorted(originals.values())
    assert list((place / ".staging").iterdir()) == []
    named = 0
    for sums in place.rglob("SHA256SUMS"):
        subprocess.run(["sha256sum", "-c", "--quiet", sums.name], cwd=sums.parent, check=True)
        named += len(sums.read_text().splitlines())
    assert named == len(originals)


def assert_loud(code: int, err: str) -> None:
    assert code == 6, err
    told = [line for line in err.strip().splitlines() if not line.startswith("Creating a new")]
    assert len(told) == 1, err
    assert "Traceback" not in err


@needs_mount
async def test_a_disk_that_fills(
    files: Path, emulator: Emulator, small_disk: Path, originals: dict[str, bytes]
) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(bytes(2_850_000))
    code, err = await pull(emulator, small_disk / "archive")
    assert_loud(code, err)
    filler.unlink()
    assert (await pull(emulator, small_disk / "archive"))[0] == 0
    assert_converged(small_disk / "archive", originals)


@needs_mount
async def test_a_file_that_cannot_fit_is_refused_before_it_is_fetched(
    files: Path, emulator: Emulator, small_disk: Path
) -> None:
    write_rdb(files / INSTANCE / "huge.rdb", 5_000_000)
    code, err = await pull(emulator, small_disk / "archive")
    assert_loud(code, err)
    assert "are free" in err
    assert emulator.tally.object_bytes == 0


@needs_mount
async def test_a_disk_that_turns_read_only(
    files: Path, emulator: Emulator, small_disk: Path, originals: dict[str, bytes]
) -> None:
    assert (await pull(emulator, small_disk / "archive"))[0] == 0
    write_rdb(files / INSTANCE / "later.rdb", 20_000, 9)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    code, err = await pull(emulator, small_disk / "archive")
    assert_loud(code, err)
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    assert (await pull(emulator, small_disk / "archive"))[0] == 0


async def test_a_limit_of_file_size(
    files: Path, emulator: Emulator, tmp_path: Path, originals: dict[str, bytes]
) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    code, err = await pull(emulator, tmp_path / "archive", limit=limit)
    assert_loud(code, err)
    assert "ulimit -f" in err
    assert (await pull(emulator, tmp_path / "archive"))[0] == 0
    assert_converged(tmp_path / "archive", originals)


@pytest.mark.parametrize("files_open", range(8, 20, 2) if FULL else (8, 12, 16))
async def test_a_limit_of_open_files(
    files: Path, emulator: Emulator, tmp_path: Path, originals: dict[str, bytes], files_open: int
) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files_open, files_open))

    more = ("--retry-for", "1s")  # with few files, there is none for a connection
    code, err = await pull(emulator, tmp_path / "archive", limit=limit, more=more)
    assert code == 0 or err.strip(), "it failed and said nothing"
    assert (await pull(emulator, tmp_path / "archive"))[0] == 0
    assert_converged(tmp_path / "archive", originals)


CALLS = [
    ("fsync", "EIO"), ("fdatasync", "EIO"), ("pwrite64", "EIO"), ("pwrite64", "ENOSPC"),
    ("fsync", "ENOSPC"), ("rename", "EIO"), ("ftruncate", "EIO"),
]  # fmt: skip
WHEN = (1, 2, 4, 7)
EVERY_TROUBLE = [(when, call, error) for when in WHEN for call, error in CALLS]
TROUBLE = [(WHEN[n % len(WHEN)], call, error) for n, (call, error) in enumerate(CALLS)]


@needs_strace
@pytest.mark.parametrize(("when", "call", "error"), EVERY_TROUBLE if FULL else TROUBLE)
async def test_a_call_that_fails(
    files: Path,
    emulator: Emulator,
    tmp_path: Path,
    originals: dict[str, bytes],
    call: str,
    error: str,
    when: int,
) -> None:
    through = (
        "strace", "--seccomp-bpf", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}",
        "-e", f"inject={call}:error={error}:when={when}",
    )  # fmt: skip
    code, err = await pull(emulator, tmp_path / "archive", through=through)
    if code:
        assert_loud(code, err)
    assert (await pull(emulator, tmp_path / "archive"))[0] == 0
    assert_converged(tmp_path / "archive", originals)


@needs_strace
async def test_short_writes(
    files: Path, emulator: Emulator, tmp_path: Path, originals: dict[str, bytes]
) -> None:
    """pwrite that writes nothing of what it was given, and says so, is tried on, then an error."""
    through = (
        "strace", "--seccomp-bpf", "-f", "-qq", "-o", "/dev/null", "-e", "trace=pwrite64",
        "-e", "inject=pwrite64:retval=0:when=3",
    )  # fmt: skip
    code, err = await pull(emulator, tmp_path / "archive", through=through)
    assert_loud(code, err)
    assert (await pull(emulator, tmp_path / "archive"))[0] == 0
    assert_converged(tmp_path / "archive", originals)
