"""Two processes restore to the same path: neither writes to what the other has verified."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from archiver.archive.record import Record
from archiver.commands.restore.files import CopiedFile, verified_copy
from archiver.concurrency import in_thread
from archiver.errors import StoreError, UsageError
from archiver.stores.local.store import LocalStore
from examples.sample_rdb import rdb
from tests.archive.sample import STARTS, put_standard

# Opens the .part file, waits for a line on stdin, and continues.
_LATE = """
    import asyncio, os, sys
    from pathlib import Path
    from archiver.archive.record import Record
    from archiver.commands.restore import part
    from archiver.stores.local.store import LocalStore
    from tests.restore.test_files import copy_out

    root, key, target = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    record = Record.decode(key, (root / key).read_bytes())
    flock, waited = part.fcntl.flock, []

    def late(descriptor, how):
        if not waited:
            waited.append(True)
            print("opened", flush=True)
            sys.stdin.readline()
        flock(descriptor, how)

    part.fcntl.flock = late
    copied = asyncio.run(copy_out(LocalStore(root), record, target))
    print(copied.existed)
"""


async def copy_out(store: LocalStore, record: Record, target: Path) -> CopiedFile:
    async with verified_copy(store, record, target) as copy:
        return await in_thread(copy.commit)


def record_of(root: Path, target: Path) -> Record:
    key = target.relative_to(root).with_suffix(".json").as_posix()
    return Record.decode(key, (root / key).read_bytes())


def late_process(root: Path, record: Record, target: Path) -> "subprocess.Popen[str]":
    """A second restore that has opened the .part file, and has not locked it yet."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_LATE), str(root), record.key, str(target)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "opened\n"
    return process


async def test_the_late_one_does_not_empty_what_the_first_one_checked(tmp_path: Path) -> None:
    root, target = tmp_path / "archive", tmp_path / "to" / "dump.rdb"
    made = put_standard(root, rdb(50_000))
    record = record_of(root, made)
    with late_process(root, record, target) as late:
        await copy_out(LocalStore(root), record, target)
        inode = target.stat().st_ino
        out, err = late.communicate("go on\n")
        assert late.returncode == 0, err
    assert out == "True\n"
    assert target.read_bytes() == made.read_bytes()
    assert target.stat().st_ino == inode
    assert not list(target.parent.glob(".*"))


async def test_the_late_one_does_not_empty_what_a_server_was_given(tmp_path: Path) -> None:
    root, target = tmp_path / "archive", tmp_path / "to" / "dump.rdb"
    made = put_standard(root, rdb(50_000))
    record = record_of(root, made)
    with late_process(root, record, target) as late:
        await copy_out(LocalStore(root), record, target)
        taken = target.rename(tmp_path / "in use.rdb")
        inode = taken.stat().st_ino
        out, err = late.communicate("go on\n")
        assert late.returncode == 0, err
    assert out == "False\n"
    assert taken.read_bytes() == target.read_bytes() == made.read_bytes()
    assert target.stat().st_ino != inode


async def test_the_late_one_does_not_replace_another_set(tmp_path: Path) -> None:
    root, target = tmp_path / "archive", tmp_path / "to" / "dump.rdb"
    older, newer = (put_standard(root, rdb(50_000, n), STARTS[n]) for n in range(2))
    with late_process(root, record_of(root, newer), target) as late:
        await copy_out(LocalStore(root), record_of(root, older), target)
        _, err = late.communicate("go on\n")
        assert late.returncode == 1
    assert "not overwritten" in err
    assert target.read_bytes() == older.read_bytes()


async def test_while_one_copies_the_other_is_refused(tmp_path: Path) -> None:
    root, target = tmp_path / "archive", tmp_path / "to" / "dump.rdb"
    record = record_of(root, put_standard(root, rdb(50_000)))
    async with verified_copy(LocalStore(root), record, target) as copy:
        with pytest.raises(StoreError, match="another process is writing it"):
            await copy_out(LocalStore(root), record, target)
        await in_thread(copy.commit)
    assert target.stat().st_size == record.size


async def test_a_copy_that_was_taken_away_gets_no_name(tmp_path: Path) -> None:
    root, target = tmp_path / "archive", tmp_path / "to" / "dump.rdb"
    record = record_of(root, put_standard(root, rdb(50_000)))
    async with verified_copy(LocalStore(root), record, target) as copy:
        part = target.with_name(".dump.rdb.part")
        part.unlink()
        part.write_bytes(b"not ours")
        with pytest.raises(StoreError, match="removed or replaced"):
            await in_thread(copy.commit)
        await in_thread(copy.discard)
    assert part.read_bytes() == b"not ours"
    assert not target.exists()


async def test_a_name_that_was_given_away_meanwhile_stays(tmp_path: Path) -> None:
    root, target = tmp_path / "archive", tmp_path / "to" / "dump.rdb"
    record = record_of(root, put_standard(root, rdb(50_000)))
    async with verified_copy(LocalStore(root), record, target) as copy:
        target.write_bytes(b"mine")
        with pytest.raises(UsageError, match="not overwritten"):
            await in_thread(copy.commit)
    assert target.read_bytes() == b"mine"
