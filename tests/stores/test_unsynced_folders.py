"""File systems that cannot sync folders, like some network ones: used, with one warning."""

import asyncio
import errno
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from archiver.errors import StoreError
from archiver.stores.local import disk
from archiver.stores.local.store import LocalStore
from archiver.stores.local.syncing import sync_file_system
from examples.sample_rdb import write_rdb
from tests.cli.test_pull import PULL
from tests.conftest import INSTANCE
from tests.stores.conformance import commit_file, file_of, read_all

PATCHED = """
import errno, os, stat, sys
from archiver.cli.main import main
real = os.fsync
def fsync(descriptor):
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
    real(descriptor)
os.fsync = fsync
main()
"""


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """Make fsync fail, for folders or for files."""
    real = os.fsync
    monkeypatch.setattr(disk, "_unsynced", {})

    def start(what: str, code: int) -> None:
        def fsync(descriptor: int) -> None:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode) == (what == "folders"):
                raise OSError(code, os.strerror(code))
            real(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)

    return start


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
async def test_folders_that_cannot_be_synced(
    tmp_path: Path, refuse: Callable[[str, int], None], code: int
) -> None:
    refuse("folders", code)
    store = LocalStore(tmp_path / "archive")
    async with store.exclusive("r-x"):
        await store.put("r-x/b.json", b"{}")
        stored = await commit_file(store, file_of(1000))
    assert await read_all(store, stored.key) == file_of(1000)
    sync_file_system(tmp_path)
    [line] = disk.what_is_not_synced()
    assert f"does not sync folders ({os.strerror(code)})" in line


@pytest.mark.parametrize(
    ("what", "code"),
    [("folders", errno.EIO), ("folders", errno.ENOSPC), ("files", errno.EINVAL),
     ("files", errno.ENOTSUP), ("files", errno.EIO)],
)  # fmt: skip
async def test_what_is_never_passed_over(
    tmp_path: Path, refuse: Callable[[str, int], None], what: str, code: int
) -> None:
    store = LocalStore(tmp_path)
    refuse(what, code)
    with pytest.raises(StoreError, match=rf"{tmp_path}.*: fsync: {os.strerror(code)}"):
        async with store.exclusive("r-x"):
            await store.put("r-x/b.json", b"{}")
    assert disk.what_is_not_synced() == []


@pytest.mark.parametrize("how", [(), ("-q",)])
async def test_it_is_said_once(
    files: Path,
    environ: dict[str, str],
    tmp_path: Path,
    how: tuple[str, ...],
) -> None:
    for n in range(2):
        write_rdb(files / INSTANCE / f"{n}_20261124021500.rdb", 50_000, n)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PATCHED, *PULL, *how, env=environ, cwd=tmp_path,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said = (await process.communicate())[1].decode()
    assert process.returncode == 0, said
    assert said.count("does not sync folders (Operation not supported)") == (not how)
