"""A directory as a store: durable order, resuming, sweeping, locking."""

import errno
import fcntl
import hashlib
import inspect
import json
import multiprocessing
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
import types
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest
from fastcrc import crc64

from archiver.concurrency import entered, in_thread
from archiver.errors import (
    ArchiveBusy,
    DoesNotFit,
    LockLost,
    NoSpace,
    PlaceTaken,
    StoreError,
    UnreadableObject,
    UnsafeInput,
)
from archiver.model import Footer, Kind, Network, Part, Pin, Provenance, RdbVerdict, Receipt, Stored
from archiver.stores.base import Staging
from archiver.stores.commit import Unsynced, drive
from archiver.stores.local import disk, lock, reading
from archiver.stores.local.disk import what_denies
from archiver.stores.local.lock import hold
from archiver.stores.local.staged_file import StagingArea
from archiver.stores.local.staging import LocalStaging, parents_to_sync
from archiver.stores.local.store import LocalStore
from archiver.stores.scope import WHOLE, scope_of

SIZE, PART = 1000, 400
DATA = bytes(i % 251 for i in range(SIZE))
PARTS = [Part(0, 0, 400), Part(1, 400, 800), Part(2, 800, 1000)]
PIN = Pin(SIZE, '"E"', crc64.xz(DATA))
STEM = "r-x/2026/11/20261124T021500Z-1/r-x-7"
RECEIPT = Receipt(
    size=SIZE,
    sha256="0" * 64,
    crc64=0,
    crc64_declared=None,
    etag=None,
    kind=Kind.RDB,
    rdb=RdbVerdict(None, Footer.NONE),
    provenance=Provenance("http://h/k", Network.PUBLIC),
    part_size=PART,
    started_at=datetime(2026, 11, 24, tzinfo=UTC),
    finished_at=datetime(2026, 11, 24, tzinfo=UTC),
    attempts=1,
    bytes_fetched=SIZE,
    bytes_fetched_again=0,
)


def staging_of(store: LocalStore) -> Path:
    """The instance's, which goes with its lock when nothing is in it."""
    folder = store.root / ".staging" / "r-x"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "archive")


RECORD = json.dumps({"object": "r-x-7.rdb", "size": SIZE, "sha256": "1" * 64}).encode()


def no_documents(_: Stored) -> list[tuple[str, bytes]]:
    return []


async def put_part(staging: object, part: Part) -> None:
    piece = memoryview(DATA)[part.start : part.stop]
    await in_thread(staging.write, part.start, piece)  # type: ignore[attr-defined]
    await in_thread(staging.save_part, part, crc64.xz(piece))  # type: ignore[attr-defined]


async def test_resume_knows_the_parts_that_were_kept(store: LocalStore) -> None:
    async with store.exclusive("r-x"), entered(store.stage(STEM, SIZE)) as staging:
        assert staging.resumable is None
        await in_thread(staging.begin, PIN, RECEIPT.provenance, PART)
        for part in PARTS[:2]:
            await put_part(staging, part)
    async with store.exclusive("r-x"):
        assert await store.sweep("r-x") == []
        async with entered(store.stage(STEM, SIZE)) as staging:
            resumable = staging.resumable
            assert resumable is not None
            assert (resumable.pin, resumable.part_size) == (PIN, PART)
            assert set(resumable.crcs) == {0, 1}
            block = memoryview(bytearray(SIZE))
            assert await in_thread(staging.read, 0, block[:800]) == 800
            assert block[:800] == DATA[:800]
            await put_part(staging, PARTS[2])
            [stored] = await in_thread(store.finish, [staging.commit(RECEIPT, no_documents)])
    assert stored.key == f"{STEM}.rdb"
    assert (store.root / stored.key).read_bytes() == DATA
    assert list((store.root / ".staging").iterdir()) == []


async def test_an_object_in_its_place_is_not_staged(store: LocalStore) -> None:
    """It is reported as existing, and staging writes to another file."""
    async with store.exclusive("r-x"):
        await store.put(f"{STEM}.rdb", DATA)
        async with entered(store.stage(STEM, SIZE)) as staging:
            assert dict(staging.existing) == {f"{STEM}.rdb": SIZE}
            assert staging.resumable is None
            await in_thread(staging.write, 0, memoryview(bytes(SIZE)))
            block = memoryview(bytearray(SIZE))
            assert await in_thread(staging.read, 0, block) == SIZE
            assert bytes(block) == bytes(SIZE)
    assert (store.root / f"{STEM}.rdb").read_bytes() == DATA


@pytest.mark.parametrize("name", [".data", ".journal"])
async def test_what_has_another_name_is_not_written_to(store: LocalStore, name: str) -> None:
    """A snapshot made of hard links (cp -al) shares its bytes with the archive."""
    async with store.exclusive("r-x"), entered(store.stage(STEM, SIZE)) as staging:
        await in_thread(staging.begin, PIN, RECEIPT.provenance, PART)
        await put_part(staging, PARTS[0])
    [path] = staging_of(store).glob(f"*{name}")
    snapshot = store.root.with_name("snapshot")
    os.link(path, snapshot)
    shared = snapshot.read_bytes()
    async with store.exclusive("r-x"), entered(store.stage(STEM, SIZE)) as staging:
        assert staging.resumable is None
        await in_thread(staging.begin, PIN, RECEIPT.provenance, PART)
        for part in PARTS:
            await put_part(staging, part)
        await in_thread(store.finish, [staging.commit(RECEIPT, no_documents)])
    assert snapshot.read_bytes() == shared
    assert (store.root / f"{STEM}.rdb").read_bytes() == DATA


async def test_documents_that_were_left_are_not_written_to(store: LocalStore) -> None:
    """Their inodes may belong to a snapshot, too."""
    snapshot = store.root.with_name("snapshot")
    async with store.exclusive("r-x"):
        snapshot.write_bytes(b"mine")
        name = f"{STEM.replace('/', '~')}.json.document"
        os.link(snapshot, staging_of(store) / name)
        async with entered(store.stage(STEM, SIZE)) as staging:
            await in_thread(staging.write, 0, memoryview(DATA))
            commit = staging.commit(RECEIPT, lambda _: [(f"{STEM}.json", RECORD)])
            await in_thread(store.finish, [commit])
    assert snapshot.read_bytes() == b"mine"
    assert (store.root / f"{STEM}.json").read_bytes() == RECORD


@pytest.mark.parametrize("odd", ["directory", "link", "fifo"])
@pytest.mark.parametrize("suffix", [".rdb", ".json"])
async def test_what_is_not_a_file_moves_out_of_the_way(
    store: LocalStore, odd: str, suffix: str
) -> None:
    path = store.root / f"{STEM}{suffix}"
    path.parent.mkdir(parents=True)
    elsewhere = store.root.with_name("elsewhere")
    elsewhere.write_bytes(b"mine")
    if odd == "directory":
        path.mkdir()
        (path / "mine").write_bytes(b"mine")
    elif odd == "link":
        path.symlink_to(elsewhere)
    else:
        os.mkfifo(path)
    async with store.exclusive("r-x"), entered(store.stage(STEM, SIZE)) as staging:
        assert dict(staging.existing) == {}
        await in_thread(staging.write, 0, memoryview(DATA))
        commit = staging.commit(RECEIPT, lambda _: [(f"{STEM}.json", RECORD)])
        await in_thread(store.finish, [commit])
    assert (store.root / f"{STEM}.rdb").read_bytes() == DATA
    assert (store.root / f"{STEM}.json").read_bytes() == RECORD
    [moved] = (store.root / ".quarantine" / "r-x").iterdir()
    assert not stat.S_ISREG(moved.lstat().st_mode)
    assert elsewhere.read_bytes() == b"mine"


async def test_what_is_kept_in_quarantine_where_there_are_no_hard_links(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    async with store.exclusive("r-x"):
        await store.put(f"{STEM}.rdb", b"old")
        async with entered(store.stage(STEM, SIZE)) as staging:
            kept = await in_thread(staging.copy_to_quarantine, f"{STEM}.rdb", "it may be right")
    assert (store.root / kept).read_bytes() == b"old"
    assert (store.root / f"{STEM}.rdb").read_bytes() == b"old"


def test_no_note_of_a_part_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts that finish during a journal write are in that one or the next."""
    rounds, each = 60, 40
    area = StagingArea(str(tmp_path), str(tmp_path), str(tmp_path), set(), lambda: None)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(rounds):
            staging = LocalStaging(area, STEM, SIZE)
            noted: list[bytes] = []
            staging._file._journal = -1
            monkeypatch.setattr(staging._file, "_sync_and_note", noted.append)

            def keep(first: int, staging: LocalStaging = staging) -> None:
                for index in range(first, first + each):
                    staging.save_part(Part(index, 0, 1), index)

            threads = [threading.Thread(target=keep, args=(n * each,)) for n in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert b"".join(noted).count(b"\n") == 4 * each
    finally:
        sys.setswitchinterval(before)


async def test_bytes_that_went_meanwhile_are_not_committed(store: LocalStore) -> None:
    async with store.exclusive("r-x"), entered(store.stage(STEM, SIZE)) as staging:
        await in_thread(staging.write, 0, memoryview(DATA)[:-1])
        with pytest.raises(StoreError, match="that were checked"):
            await in_thread(store.finish, [staging.commit(RECEIPT, no_documents)])
    assert not (store.root / f"{STEM}.rdb").exists()


def test_parents_to_sync() -> None:
    """The folder of a set is always new in its month; those above are synced once per run."""
    day = "r-x/2026/11/20261124T021500Z-1"

    def named(durable: set[str]) -> list[str]:
        folders = parents_to_sync("/a", day, durable)
        return [os.path.relpath(folder.path, "/a") for folder in folders]

    assert named(set()) == ["r-x/2026/11", "r-x/2026", "r-x", "."]
    assert named({"r-x/2026/11"}) == ["r-x/2026/11", "r-x", "."]
    assert named({"r-x/2026/11", "r-x/2026", "r-x", ""}) == ["r-x/2026/11"]


async def test_an_archive_where_we_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in its root has no folder to name."""
    monkeypatch.chdir(tmp_path)
    store = LocalStore(".")
    async with store.exclusive("r-x"), store.exclusive(WHOLE):
        await store.put("archive.json", b"{}")
        async with entered(store.stage(STEM, SIZE)) as staging:
            await in_thread(staging.write, 0, memoryview(DATA))
            commit = staging.commit(RECEIPT, lambda _: [(f"{STEM}.json", RECORD)])
            await in_thread(store.finish, [commit])
    assert (tmp_path / "archive.json").read_bytes() == b"{}"
    assert (tmp_path / f"{STEM}.rdb").read_bytes() == DATA
    assert [entry.key async for entry in store.entries("")] == [
        "archive.json",
        f"{STEM}.json",
        f"{STEM}.rdb",
    ]


@pytest.mark.parametrize("in_the_way", ["r-x", "r-x/2026", "r-x/2026/11"])
@pytest.mark.parametrize("dangling", [False, True], ids=["file", "dangling link"])
def test_what_is_in_the_way_of_a_folder_is_named(
    tmp_path: Path, in_the_way: str, dangling: bool
) -> None:
    path = tmp_path / in_the_way
    path.parent.mkdir(parents=True, exist_ok=True)
    if dangling:
        path.symlink_to("nowhere")
    else:
        path.write_bytes(b"")
    with pytest.raises(StoreError, match=f"{in_the_way}: .*a file is in the way"):
        disk.make_directories((tmp_path / STEM).parent)


async def test_a_second_set_of_a_month_syncs_what_it_changed(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = "r-x/2026/11/20261124T021500Z-2"
    synced: list[str] = []
    sync = disk.UnsyncedFolder.sync

    def noted(folder: disk.UnsyncedFolder) -> None:
        synced.append(os.path.relpath(folder.path, store.root))
        sync(folder)

    monkeypatch.setattr(disk.UnsyncedFolder, "sync", noted)
    async with store.exclusive("r-x"):
        for stem in (
            STEM,
            STEM.replace("-1/", "-2/"),
            STEM.replace("-1/", "-2/").replace("7", "8"),
        ):
            synced.clear()
            async with entered(store.stage(stem, SIZE)) as staging:
                await in_thread(staging.write, 0, memoryview(DATA))
                await in_thread(store.finish, [staging.commit(RECEIPT, no_documents)])
    assert synced == [".staging/r-x", "r-x/2026/11", second, second, ".staging/r-x"]


async def test_killed_between_object_and_record(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The object was renamed and its record was waiting: the next sweep records it."""
    real = disk.rename

    def killed(path: str, target: str) -> None:
        if target.endswith(".json"):
            raise KeyboardInterrupt
        real(path, target)

    async with store.exclusive("r-x"), entered(store.stage(STEM, SIZE)) as staging:
        await in_thread(staging.write, 0, memoryview(DATA))
        monkeypatch.setattr(disk, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            await in_thread(
                store.finish, [staging.commit(RECEIPT, lambda _: [(f"{STEM}.json", RECORD)])]
            )
    monkeypatch.setattr(disk, "rename", real)
    assert await store.read(f"{STEM}.json") is None
    async with store.exclusive("r-x"):
        [finished] = await store.sweep("r-x")
    assert "recorded" in finished.why
    assert await store.read(f"{STEM}.json") == RECORD
    assert list((store.root / ".staging").iterdir()) == []


async def test_the_successor_of_a_damaged_object_did_not_come_home(store: LocalStore) -> None:
    """A sweep does not give the damaged object the record of its replacement."""

    def fails(_: Sequence[Unsynced]) -> None:
        raise StoreError("the disk reports an error")

    async with store.exclusive("r-x"):
        await store.put(f"{STEM}.rdb", b"damaged")
        async with entered(store.stage(STEM, SIZE)) as staging:
            await in_thread(staging.write, 0, memoryview(DATA))
            commit = staging.commit(RECEIPT, lambda _: [(f"{STEM}.json", RECORD)])
            with pytest.raises(StoreError):
                await in_thread(drive, [commit], fails)
    async with store.exclusive("r-x"):
        left = {leftover.why for leftover in await store.sweep("r-x")}
    assert "a document that was not finished" in left
    assert await store.read(f"{STEM}.json") is None
    assert (store.root / f"{STEM}.rdb").read_bytes() == b"damaged"
    assert list((store.root / ".staging").iterdir()) == []


async def begun(staging: Staging, parts: Sequence[Part]) -> None:
    await in_thread(staging.begin, PIN, RECEIPT.provenance, PART)
    for part in parts:
        await put_part(staging, part)


@pytest.mark.parametrize("kernel_tells", [True, False])
async def test_a_writer_that_wakes_after_another_has_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel_tells: bool
) -> None:
    """Suspended in the middle of a file, it loses its lock. It has the file open that the other
    writer resumes: it neither writes to it nor moves it."""
    if not kernel_tells:
        monkeypatch.setattr(lock, "flock_is_reliable", lambda _: False)
        monkeypatch.setattr(fcntl, "flock", lambda *_: None)
        monkeypatch.setattr(inspect.unwrap(hold), "__defaults__", (0.01, None))
    asleep, other = LocalStore(tmp_path), LocalStore(tmp_path)
    async with asleep.exclusive("r-x"), entered(asleep.stage(STEM, SIZE)) as early:
        await begun(early, PARTS[:2])
        (tmp_path / ".locks" / "r-x").unlink()
        async with other.exclusive("r-x"), entered(other.stage(STEM, SIZE)) as late:
            assert late.resumable is not None
            assert set(late.resumable.crcs) == {0, 1}
            await in_thread(early.write, 0, memoryview(b"woken up"))
            for stops in (early.restart, lambda: early.quarantine("it is wrong")):
                with pytest.raises(ArchiveBusy):
                    await in_thread(stops)
            await put_part(late, PARTS[2])
            await in_thread(other.finish, [late.commit(RECEIPT, no_documents)])
        await in_thread(early.write, 0, memoryview(b"woken up"))
        with pytest.raises(ArchiveBusy):
            await in_thread(asleep.finish, [early.commit(RECEIPT, no_documents)])
    assert (tmp_path / f"{STEM}.rdb").read_bytes() == DATA


@pytest.mark.parametrize(
    "there",
    [b"{", b'{"object": "r-x-7.rdb", "size": 1}', RECORD.replace(b"1" * 64, b"2" * 64), None],
)
async def test_killed_before_a_record_that_is_garbage_was_replaced(
    store: LocalStore, there: bytes | None
) -> None:
    """Only the waiting record tells of the object, which has its final name."""
    async with store.exclusive("r-x"):
        await store.put(f"{STEM}.rdb", DATA)
        if there is not None:
            await store.put(f"{STEM}.json", there)
        else:
            (store.root / f"{STEM}.json").mkdir()
    flat = STEM.replace("/", "~")
    (staging_of(store) / f"{flat}.json.document").write_bytes(RECORD)
    async with store.exclusive("r-x"):
        [finished] = await store.sweep("r-x")
        assert "recorded" in finished.why
    assert await store.read(f"{STEM}.json") == RECORD
    [kept] = (store.root / ".quarantine" / "r-x").glob("*.cleared")
    assert kept.is_dir() if there is None else kept.read_bytes() == there


@pytest.mark.parametrize("size", [SIZE, SIZE + 1])
async def test_a_waiting_record_of_another_file_is_not_used(store: LocalStore, size: int) -> None:
    """Nor is a record that equals the existing one."""
    record = RECORD.replace(b"}", b', "note": "ours"}')
    async with store.exclusive("r-x"):
        await store.put(f"{STEM}.rdb", DATA)
        if size == SIZE:
            await store.put(f"{STEM}.json", record)
    flat = STEM.replace("/", "~")
    waiting = RECORD.replace(b"%d" % SIZE, b"%d" % size)
    (staging_of(store) / f"{flat}.json.document").write_bytes(waiting)
    async with store.exclusive("r-x"):
        await store.sweep("r-x")
    assert await store.read(f"{STEM}.json") == (record if size == SIZE else None)


async def test_a_waiting_record_does_not_replace_one_that_has_the_right_bytes(
    store: LocalStore,
) -> None:
    """Whoever wrote it: both sizes fit, and the bytes tell which record is true."""
    right = RECORD.replace(b"1" * 64, hashlib.sha256(DATA).hexdigest().encode())
    async with store.exclusive("r-x"):
        await store.put(f"{STEM}.rdb", DATA)
        await store.put(f"{STEM}.json", right)
    flat = STEM.replace("/", "~")
    (staging_of(store) / f"{flat}.json.document").write_bytes(RECORD)
    async with store.exclusive("r-x"):
        [leftover] = await store.sweep("r-x")
        assert "other bytes" in leftover.why
    assert await store.read(f"{STEM}.json") == right
    assert not any((store.root / ".quarantine" / "r-x").glob("*"))


@pytest.mark.parametrize(
    "name", ["", "..", "r-x-7.fifo", "r-x-7.link", "r-x-7.folder", "r-x-8.rdb"]
)
async def test_a_record_of_something_odd_keeps_no_writer_out(store: LocalStore, name: str) -> None:
    """It is beside an object with its final name, for which another record waits."""
    odd = store.root / f"{STEM}.rdb"
    async with store.exclusive("r-x"):
        await store.put(f"{STEM}.rdb", DATA)
        record = RECORD.replace(b"r-x-7.rdb", name.encode())
        right = hashlib.sha256(DATA).hexdigest().encode()  # of the other object, too
        await store.put(f"{STEM}.json", record.replace(b"1" * 64, right))
        await store.put(f"{STEM[:-1]}8.rdb", DATA)
    os.mkfifo(odd.with_name("r-x-7.fifo"))
    odd.with_name("r-x-7.link").symlink_to("/dev/zero")
    odd.with_name("r-x-7.folder").mkdir()
    flat = STEM.replace("/", "~")
    (staging_of(store) / f"{flat}.json.document").write_bytes(RECORD)
    async with store.exclusive("r-x"):
        await store.sweep("r-x")
    assert await store.read(f"{STEM}.json") == RECORD


async def test_a_sweep_leaves_what_the_disk_does_not_give(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = RECORD.replace(b"1" * 64, b"2" * 64)
    async with store.exclusive("r-x"):
        await store.put(f"{STEM}.rdb", DATA)
        await store.put(f"{STEM}.json", other)
    waiting = staging_of(store) / f"{STEM.replace('/', '~')}.json.document"
    waiting.write_bytes(RECORD)

    def fails(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(hashlib, "file_digest", fails)
    async with store.exclusive("r-x"):
        await store.sweep("r-x")
    assert waiting.read_bytes() == RECORD
    assert await store.read(f"{STEM}.json") == other


@pytest.mark.parametrize("has_twin", [False, True])
def test_a_staged_file_that_is_begun_anew_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_twin: bool
) -> None:
    """Like a new one: a suspended writer must be noticed."""
    area = StagingArea(
        str(tmp_path), str(tmp_path), str(tmp_path), set(), lambda: None, shared=True
    )
    first = LocalStaging(area, STEM, SIZE)
    first.open()
    first.close()
    staged = tmp_path / f"{STEM.replace('/', '~')}.data"
    if has_twin:
        os.link(staged, tmp_path / "twin")
    else:
        refuse(monkeypatch, errno.EIO)
    again = LocalStaging(area, STEM, SIZE)
    again.open()
    with staged.open("rb") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    again.close()


def test_a_full_disk_takes_no_finished_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the staged file is copied first, since its writer may wake."""
    area = StagingArea(
        str(tmp_path), str(tmp_path), str(tmp_path), set(), lambda: None, shared=True
    )
    first = LocalStaging(area, STEM, SIZE)
    first.open()
    first.write(0, memoryview(DATA))
    first.close()
    refuse(monkeypatch, errno.ENOSPC)
    again = LocalStaging(area, STEM, SIZE)
    with pytest.raises(NoSpace):
        again.open()
    again.close()
    assert (tmp_path / f"{STEM.replace('/', '~')}.data").read_bytes() == DATA


def refuse(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Make every copy of a file fail."""

    def copied(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(shutil, "copyfileobj", copied)


async def test_a_writer_that_wakes_in_a_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other writer has its name in the lock, and half of its file under the staged name."""
    store = LocalStore(tmp_path)
    monkeypatch.setattr(lock, "flock_is_reliable", lambda _: False)
    monkeypatch.setattr(lock.Held, "beat", lambda *_: None)
    monkeypatch.setattr(inspect.unwrap(hold), "__defaults__", (0.001, None))
    staged = tmp_path / ".staging" / "r-x" / f"{STEM.replace('/', '~')}.data"

    def sleeps(unsynced: Sequence[Unsynced]) -> None:
        other.write_bytes(b'{"name": "another", "host": "far", "pid": 1}')
        staged.unlink()
        staged.write_bytes(DATA[: SIZE // 2])

    for of_the_lock in (True, False):
        other = tmp_path / (".locks/r-x" if of_the_lock else "no lock")
        async with store.exclusive("r-x"), entered(store.stage(STEM, SIZE)) as staging:
            await in_thread(staging.write, 0, memoryview(DATA))
            commit = staging.commit(RECEIPT, no_documents)
            with pytest.raises(
                LockLost, match="lost the lock" if of_the_lock else "replaced or removed this file"
            ):
                await in_thread(drive, [commit], sleeps)
        assert not (tmp_path / f"{STEM}.rdb").exists()
        staged.unlink()


async def test_what_cannot_be_copied_for_us_alone_is_begun_anew(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk cannot read it, and nothing is left."""
    flat = f"{staging_of(store)}/{STEM.replace('/', '~')}"
    async with store.exclusive("r-x"):
        Path(f"{flat}.data").write_bytes(DATA)
        other = os.open(f"{flat}.data", os.O_RDWR)
        fcntl.flock(other, fcntl.LOCK_EX)

        try:
            with monkeypatch.context() as patch:
                refuse(patch, errno.EIO)
                async with entered(store.stage(STEM, SIZE)) as staging:
                    assert sorted(os.listdir(staging_of(store))) == [f"{Path(flat).name}.data"]
                    await in_thread(staging.write, 0, memoryview(DATA))
                    await in_thread(store.finish, [staging.commit(RECEIPT, no_documents)])
        finally:
            os.close(other)
    assert (store.root / f"{STEM}.rdb").read_bytes() == DATA


def test_a_copy_is_for_its_owner_alone(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(DATA)
    reading.copy_file(tmp_path / "a", tmp_path / "b", tmp_path / "b.tmp")
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o600


def test_a_lock_that_is_lost_while_a_file_is_copied(tmp_path: Path) -> None:
    """By then another writer may have staged the file."""

    def check() -> None:
        (tmp_path / "a").write_bytes(b"another's")
        raise ArchiveBusy("lost")

    (tmp_path / "a").write_bytes(DATA)
    with pytest.raises(ArchiveBusy):
        reading.copy_file(tmp_path / "a", tmp_path / "a", tmp_path / "a.tmp", check)
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"another's"


async def test_a_document_is_not_about_a_file_that_somebody_else_put_there(
    store: LocalStore,
) -> None:
    """The staged file that it is about has no final name: it is checked before that is removed."""
    async with store.exclusive("r-x"):
        await store.put(f"{STEM}.rdb", b"h" * SIZE)
    flat = staging_of(store) / STEM.replace("/", "~")
    flat.with_name(f"{flat.name}.data").write_bytes(DATA)
    flat.with_name(f"{flat.name}.json.document").write_bytes(RECORD)
    async with store.exclusive("r-x"):
        await store.sweep("r-x")
    assert await store.read(f"{STEM}.json") is None
    assert list((store.root / ".staging").iterdir()) == []


async def test_killed_before_an_object_has_a_durable_name(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep that records it first makes its name and its folders durable."""
    barriers = 0

    def sync(unsynced: Sequence[Unsynced]) -> None:
        nonlocal barriers
        barriers += 1
        if barriers == 2:
            raise KeyboardInterrupt

    async with store.exclusive("r-x"), entered(store.stage(STEM, SIZE)) as staging:
        await in_thread(staging.write, 0, memoryview(DATA))
        commit = staging.commit(RECEIPT, lambda _: [(f"{STEM}.json", RECORD)])
        with pytest.raises(KeyboardInterrupt):
            await in_thread(drive, [commit], sync)
    steps: list[str] = []
    real_sync, real_rename = disk.UnsyncedFolder.sync, disk.rename

    def synced(folder: disk.UnsyncedFolder) -> None:
        steps.append(os.path.relpath(folder.path, store.root))
        real_sync(folder)

    def renamed(path: str, target: str) -> None:
        steps.append(os.path.basename(target))
        real_rename(path, target)

    async with store.exclusive("r-x"):
        monkeypatch.setattr(disk.UnsyncedFolder, "sync", synced)
        monkeypatch.setattr(disk, "rename", renamed)
        await store.sweep("r-x")
    folder = STEM.rpartition("/")[0]
    above = [folder, "r-x/2026/11", "r-x/2026", "r-x", "."]
    assert steps == [*above, "r-x-7.json", folder, ".staging/r-x"]


async def test_an_object_in_its_place_that_cannot_be_synced(store: LocalStore) -> None:
    """It is not recorded, now or by a sweep: the disk may have other bytes."""

    def fails(_: Sequence[Unsynced]) -> None:
        raise StoreError("the disk reports an error")

    async with store.exclusive("r-x"):
        await store.put(f"{STEM}.rdb", DATA)
        async with entered(store.stage(STEM, SIZE)) as staging:
            commit = staging.record(f"{STEM}.rdb", RECEIPT, lambda _: [(f"{STEM}.json", RECORD)])
            with pytest.raises(StoreError):
                await in_thread(drive, [commit], fails)
    async with store.exclusive("r-x"):
        await store.sweep("r-x")
        assert await store.read(f"{STEM}.json") is None
    assert list((store.root / ".staging").iterdir()) == []


async def test_a_power_cut_that_leaves_both_names(store: LocalStore) -> None:
    """Of the rename only the new name is durable: the file has both names, and its record waits."""
    async with store.exclusive("r-x"):
        await store.put(f"{STEM}.rdb", DATA)
    home = store.root / f"{STEM}.rdb"
    flat = f"{staging_of(store)}/{STEM.replace('/', '~')}"
    os.link(home, f"{flat}.data")
    Path(f"{flat}.json.document").write_bytes(RECORD)
    async with store.exclusive("r-x"):
        left = [leftover.why for leftover in await store.sweep("r-x")]
    assert left == [
        "its object was in place: now it is recorded, too",
        "another name of a file in the archive",
    ]
    assert await store.read(f"{STEM}.json") == RECORD
    assert home.stat().st_nlink == 1
    assert list((store.root / ".staging").iterdir()) == []


async def test_a_document_waits_in_vain_for_another_file(store: LocalStore) -> None:
    """The staged file is not the one with the final name: the document is about the staged one."""
    async with store.exclusive("r-x"):
        await store.put(f"{STEM}.rdb", b"another")
    flat = f"{staging_of(store)}/{STEM.replace('/', '~')}"
    Path(f"{flat}.data").write_bytes(DATA)
    Path(f"{flat}.json.document").write_bytes(RECORD)
    async with store.exclusive("r-x"):
        await store.sweep("r-x")
    assert await store.read(f"{STEM}.json") is None
    assert await store.read(f"{STEM}.rdb") == b"another"


async def test_a_damaged_object_stays_until_the_right_one_comes(store: LocalStore) -> None:
    async with store.exclusive("r-x"):
        await store.put(f"{STEM}.rdb", b"damaged, and perhaps all there is")
        async with entered(store.stage(STEM, SIZE)) as staging:
            assert staging.resumable is None
        assert (store.root / f"{STEM}.rdb").exists()
        await store.put(f"{STEM}.bin", b"of another kind")
        async with entered(store.stage(STEM, SIZE)) as staging:
            await in_thread(staging.write, 0, memoryview(DATA))
            await in_thread(store.finish, [staging.commit(RECEIPT, no_documents)])
    assert (store.root / f"{STEM}.rdb").read_bytes() == DATA
    assert not (store.root / f"{STEM}.bin").exists()


async def test_another_object_starts_over(store: LocalStore) -> None:
    async with store.exclusive("r-x"), entered(store.stage(STEM, SIZE)) as staging:
        await in_thread(staging.begin, PIN, RECEIPT.provenance, PART)
        await put_part(staging, PARTS[0])
    async with store.exclusive("r-x"), entered(store.stage(STEM, SIZE + 1)) as staging:
        assert staging.resumable is None


async def test_sweeping(store: LocalStore) -> None:
    async with store.exclusive("r-x"), entered(store.stage(STEM, SIZE)) as staging:
        await in_thread(staging.begin, PIN, RECEIPT.provenance, PART)
        await put_part(staging, PARTS[0])
    folder, flat = staging_of(store), "r-x~2026~11~20261124T021500Z-1~r-x"
    (folder / f"{flat}-1.data").write_bytes(b"no journal")
    (folder / f"{flat}-2.journal").write_bytes(b"no data")
    (folder / f"{flat}-3.json.tmp").write_bytes(b"half a record")
    (folder / "0123456789abcdef.tmp").write_bytes(b"half a document")
    old = folder / f"{flat}-4.data"
    old.write_bytes(b"")
    [kept] = folder.glob("r-x*-7.journal")
    (folder / f"{flat}-4.journal").write_bytes(kept.read_bytes())
    long_ago = time.time() - 40 * 86400
    os.utime(old, (long_ago, long_ago))
    async with store.exclusive("r-x"):
        swept = {leftover.key for leftover in await store.sweep("r-x")}
    wrong = ("-1.data", "-2.journal", "-3.json.tmp", "-4.data", "-4.journal")
    left = {"0123456789abcdef.tmp", *(f"{flat}{name}" for name in wrong)}
    assert swept == {f".staging/r-x/{name}" for name in left}
    assert {p.suffix for p in folder.iterdir()} == {".data", ".journal"}


async def test_what_others_keep_in_the_staging_folder_stays(store: LocalStore) -> None:
    folder = staging_of(store)
    names = ["x.data", "y.journal", "z.tmp", "a.document", "notes.txt", "0123.tmp", ".keep"]
    async with store.exclusive("r-x"):
        for name in names:
            (folder / name).write_bytes(b"another's")
        (folder / "r-x~2026.data").mkdir()
        assert await store.sweep("r-x") == []
    assert {path.name for path in folder.iterdir()} == {*names, "r-x~2026.data"}


@pytest.mark.parametrize(
    "way",
    ["..~victim", "r-x~..~..~victim", "r-x~.~..~..~victim", "link~victim", "link~2026~victim",
     ".staging~victim"],
)  # fmt: skip
async def test_no_name_in_the_staging_folder_of_a_stranger_leads_out(
    store: LocalStore, tmp_path: Path, way: str
) -> None:
    """An archive from somebody else: its waiting documents stay within it, and nothing outside is
    moved or written."""
    (tmp_path / "2026").mkdir()
    where = way.replace("~", "/").replace("link", "..")
    scope = scope_of(way.replace("~", "/"))
    staging, quarantine = store.root / ".staging" / scope, store.root / ".quarantine" / scope
    async with store.exclusive(scope):
        (store.root / "link").symlink_to("..")
        (store.root / "r-x").mkdir(exist_ok=True)
    home = (store.root / where).resolve()
    home.with_name("victim.rdb").write_bytes(DATA)
    home.with_name("victim.json").write_bytes(b"theirs")
    waiting = RECORD.replace(b"r-x-7.rdb", b"victim.rdb")
    staging.mkdir(parents=True, exist_ok=True)
    (staging / f"{way}.json.document").write_bytes(waiting)
    async with store.exclusive(scope):
        await store.sweep(scope)
    assert home.with_name("victim.json").read_bytes() == b"theirs"
    home.with_name("victim.json").unlink()
    async with store.exclusive(scope):
        await store.sweep(scope)
    assert not home.with_name("victim.json").exists()
    assert not quarantine.exists()


@pytest.mark.parametrize("scope", ["..", "../x", "/x", "r-x/../../x"])
async def test_a_scope_that_leads_out_of_the_archive(store: LocalStore, scope: str) -> None:
    with pytest.raises(UnsafeInput):
        async with store.exclusive(scope):
            pass
    assert not store.root.exists()


async def test_what_an_instance_staged_is_not_swept_with_the_archives_own(
    store: LocalStore,
) -> None:
    async with store.exclusive("r-x"), store.exclusive(WHOLE):
        flat, whole = STEM.replace("/", "~"), store.root / ".staging"
        for name in (f"{flat}.data", f"{flat.replace('r-x', 'r-y')}.data", "notes.txt"):
            (staging_of(store) / name).write_bytes(b"no journal")
        (whole / "0123456789abcdef.tmp").write_bytes(b"half a document")
        (whole / "notes.txt").write_bytes(b"theirs")
        [swept] = await store.sweep(WHOLE)
        assert swept.key == ".staging/0123456789abcdef.tmp"
        [swept] = await store.sweep("r-x")
        assert swept.key == f".staging/r-x/{flat}.data"


class Sweeping(LocalStore):
    """Another run sweeps ``times`` times, each time between a temporary file and its rename."""

    def __init__(self, root: Path, times: int) -> None:
        super().__init__(root)
        self.times = times
        self._locks.check_for = lambda key: self._sweep  # type: ignore[method-assign]

    def _sweep(self) -> None:
        for path in self.root.glob(".staging/*.tmp"):
            if self.times:
                self.times -= 1
                path.unlink()


@pytest.mark.parametrize("times", [1, 2])
async def test_a_document_whose_temporary_file_is_swept(tmp_path: Path, times: int) -> None:
    """A verify writes its results without a lock."""
    store = Sweeping(tmp_path / "archive", times)
    await store.put("verified/2026-11.json", b"{}")
    assert (await store.read("verified/2026-11.json"), store.times) == (b"{}", 0)
    assert await store.leftovers() == []


async def test_a_temporary_file_that_is_always_swept(tmp_path: Path) -> None:
    store = Sweeping(tmp_path / "archive", 100)
    with pytest.raises(StoreError, match="No such file"):
        await store.put("verified/2026-11.json", b"{}")
    assert await store.read("verified/2026-11.json") is None


class Losing(LocalStore):
    """Loses a lock while something that it guards is written: ``after`` so many checks."""

    after = 10**9

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        check_of = self._locks.check_of

        def counting(scope: str) -> Callable[[], None]:
            check = check_of(scope)

            def counted() -> None:
                self.after -= 1
                if self.after == 0:
                    lock = self.root / ".locks" / "r-x"
                    lock.rename(lock.with_name("taken"))
                check()

            return counted

        self._locks.check_of = counting  # type: ignore[method-assign]


async def write_two(store: LocalStore) -> None:
    """Sweep, then write a document, and two objects with two documents each, in one batch."""
    with ExitStack() as opened:
        await store.sweep("r-x")
        await store.put(f"{STEM.rpartition('/')[0]}/SHA256SUMS", b"{}")
        commits = []
        for stem in (STEM, f"{STEM}8"):
            staging = await in_thread(opened.enter_context, store.stage(stem, SIZE))
            await in_thread(staging.write, 0, memoryview(DATA))
            commits.append(
                staging.commit(
                    RECEIPT, lambda done: [(f"{done.key}{n}.json", RECORD) for n in range(2)]
                )
            )
        await in_thread(store.finish, commits)


async def test_nothing_gets_its_name_once_the_lock_is_lost(tmp_path: Path) -> None:
    """Whichever check is the one that sees it."""
    written, after = set[int](), 0
    while True:
        after += 1
        store = Losing(tmp_path / f"{after}")
        try:
            async with store.exclusive("r-x"):
                (staging_of(store) / f"{STEM.replace('/', '~')}.journal").write_bytes(b"useless")
                store.after = after
                await write_two(store)
        except ArchiveBusy:
            written.add(len([entry async for entry in store.entries("")]))
            assert (store.root / ".staging" / "r-x").is_dir()  # another writer's by now
        else:
            break
    assert written == set(range(7)), "one name was given after another without a check"


@pytest.mark.parametrize("there", [None, b'{"object": "r-x-7.rdb", "size": 1, "sha256": "1"}'])
async def test_a_sweep_that_lost_the_lock_records_nothing(
    tmp_path: Path, there: bytes | None
) -> None:
    store, flat = Losing(tmp_path / "archive"), STEM.replace("/", "~")
    async with store.exclusive("r-x"):
        await store.put(f"{STEM}.rdb", DATA)
        if there is not None:
            await store.put(f"{STEM}.json", there)
        (staging_of(store) / f"{flat}.json.document").write_bytes(RECORD)
        store.after = 1
        with pytest.raises(ArchiveBusy):
            await store.sweep("r-x")
    assert await store.read(f"{STEM}.json") == there


async def test_documents(store: LocalStore) -> None:
    async with store.exclusive("a"):
        assert await store.read("a/b.json") is None
        assert await store.size("a/b.json") is None
        await store.put("a/b.json", b"one")
        await store.put("a/b.json", b"three")
        await store.put("a/c/d.json", b"x")
    assert await store.read("a/b.json") == b"three"
    assert await store.size("a/b.json") == 5
    assert [e.key async for e in store.entries("")] == ["a/b.json", "a/c/d.json"]
    assert [e.size async for e in store.entries("a/c/")] == [1]
    assert [e async for e in store.entries("none/")] == []


async def test_no_room_is_said_before_a_byte_is_fetched(store: LocalStore) -> None:
    async with store.exclusive("r-x"):
        with pytest.raises(DoesNotFit, match="are free"):
            async with entered(store.stage(STEM, 2**62)):
                pass


async def test_what_is_on_its_way_takes_its_room(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with store.exclusive("r-x"):
        space = types.SimpleNamespace(f_bavail=5000, f_frsize=1)
        monkeypatch.setattr(os, "statvfs", lambda _: space)
        async with entered(store.stage(STEM, 3000)):
            with pytest.raises(DoesNotFit, match=r"2\.9 KiB of that for other files"):
                async with entered(store.stage(f"{STEM}1", 3000)):
                    pass
            async with entered(store.stage(f"{STEM}2", 2000)):
                pass
        async with entered(store.stage(f"{STEM}1", 3000)):
            pass


async def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError) as caught:
        async with LocalStore(tmp_path / "file" / "archive").exclusive("r-x"):
            pass
    assert caught.value.exit_code == 6
    assert "\n" not in str(caught.value)


def test_one_writer(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with hold(path), pytest.raises(ArchiveBusy, match=f"process {os.getpid()} on"), hold(path):
        pass
    with hold(path):
        pass


def test_a_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = (
        "import sys, time; from pathlib import Path; from archiver.stores.local.lock import hold\n"
        "with hold(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ArchiveBusy, match=f"process {holder.pid} on"), hold(path):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with hold(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert path.read_text() == ""


def _beat_on(path: str, ready: "multiprocessing.synchronize.Event", seconds: float) -> None:
    """Another host on a file system that grants flock to everybody: changes the file, no lock.
    Like a holder of ours it never empties the file: that would say that it let go."""
    until = time.monotonic() + seconds
    count = 0
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    while time.monotonic() < until:
        count += 1
        holder = {"host": "far", "pid": 1, "boot": "another", "beat": count}
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        ready.set()
        time.sleep(0.02)


def test_a_holder_on_another_host_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    other = context.Process(target=_beat_on, args=(str(path), ready, 20.0))
    other.start()
    try:
        assert ready.wait(30)
        with pytest.raises(ArchiveBusy, match="process 1 on far"), hold(path, beat=0.1):
            pass
    finally:
        other.kill()
        other.join()
    path.write_text(json.dumps({"host": "far", "pid": 1, "boot": "another", "beat": 3}))
    with hold(path, beat=0.05):
        pass


def test_two_that_come_at_once_where_flock_says_yes_to_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both find no name and write theirs: one of them holds the lock, the other is told."""
    monkeypatch.setattr(lock, "_flock", lambda *_: False)
    path = tmp_path / "lock"
    held: list[int] = []
    refused: list[ArchiveBusy] = []
    start, ready = threading.Barrier(2), threading.Barrier(2)

    def contend(number: int) -> None:
        start.wait()
        try:
            with hold(path, beat=0.2):
                held.append(number)
                time.sleep(1.0)
        except ArchiveBusy as error:
            refused.append(error)
        ready.wait()

    threads = [threading.Thread(target=contend, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 1)


def test_a_lock_that_is_taken_away_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with hold(path, beat=0.05) as held:
        held.check()
        path.write_text(json.dumps({"host": "far", "pid": 1, "name": "another"}))
        time.sleep(0.3)
        with pytest.raises(ArchiveBusy, match="process 1 on far"):
            held.check()
    assert "another" in path.read_text()


def test_file_systems_of_this_machine(tmp_path: Path) -> None:
    assert lock.flock_is_reliable(Path("/dev/shm/x"))
    assert not lock.flock_is_reliable(Path("/proc/x"))


async def test_a_cancelled_run_lets_go_of_the_lock(store: LocalStore) -> None:
    with anyio.move_on_after(0.05):
        async with store.exclusive("r-x"):
            await anyio.sleep(10)
    async with store.exclusive("r-x"):
        pass


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The writes, syncs and renames in their order, without those of the lock."""
    steps: list[str] = []
    real = {name: getattr(os, name) for name in ("fsync", "fdatasync", "pwrite")}

    def name_of(descriptor: int) -> str:
        name = Path(os.readlink(f"/proc/self/fd/{descriptor}")).name
        return "a temporary" if name.endswith(".tmp") else name.rpartition("~")[2]

    def spy(name: str) -> None:
        def call(descriptor: int, *args: object) -> object:
            if ".lock" not in name_of(descriptor):
                steps.append(f"{name} {name_of(descriptor)}")
            return real[name](descriptor, *args)

        monkeypatch.setattr(os, name, call)

    for name in real:
        spy(name)
    replace = os.replace

    def renamed(path: str, target: str) -> None:
        if ".lock" not in str(target):
            steps.append(f"rename {os.path.basename(target)}")
        replace(path, target)

    monkeypatch.setattr(os, "replace", renamed)
    return steps


def test_the_order_of_durable_steps(tmp_path: Path, steps: list[str]) -> None:
    """Data synced → journal synced; data synced → rename → directory synced → record."""
    store = LocalStore(tmp_path)

    def documents(_: Stored) -> list[tuple[str, bytes]]:
        return [(f"{STEM}.json", RECORD)]

    async def walk() -> None:
        async with store.exclusive("r-x"), entered(store.stage(STEM, SIZE)) as staging:
            await in_thread(staging.begin, PIN, RECEIPT.provenance, PART)
            for part in PARTS:
                await put_part(staging, part)
            steps.append("commit")
            await in_thread(store.finish, [staging.commit(RECEIPT, documents)])

    anyio.run(walk)
    part = [
        "pwrite r-x-7.data",
        "fdatasync r-x-7.data",
        "pwrite r-x-7.journal",
        "fdatasync r-x-7.journal",
    ]
    begin = ["pwrite r-x-7.journal", "fdatasync r-x-7.journal", "fsync r-x"]
    document = "r-x-7.json.document"
    ready = [f"pwrite {document}", "fsync r-x-7.data", f"fsync {document}", "fsync r-x"]
    parents = [f"fsync {name}" for name in ("11", "2026", "r-x", tmp_path.name)]
    home = [*parents, "rename r-x-7.rdb", "fsync 20261124T021500Z-1"]
    record = ["rename r-x-7.json", "fsync 20261124T021500Z-1"]
    start = steps.index("pwrite r-x-7.journal")
    end = ["fsync r-x"]
    assert steps[start:] == [*begin, *part, *part, *part, "commit", *ready, *home, *record, *end]


async def test_the_order_of_a_documents_steps(store: LocalStore, steps: list[str]) -> None:
    """Its folders synced, its bytes synced → rename → directory synced."""
    async with store.exclusive("r-x"):
        steps.clear()
        await store.put("r-x/2026/sums", b"sums")
        taken = list(steps)
    folders = ["fsync archive", "fsync r-x"]
    data = ["pwrite a temporary", "fsync a temporary"]
    assert taken == [*folders, *data, "rename sums", "fsync 2026"]


async def test_a_staged_file_that_the_disk_does_not_give(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error concerns only this file."""

    def broken(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    async with store.exclusive("r-x"), entered(store.stage(STEM, SIZE)) as staging:
        await in_thread(staging.write, 0, memoryview(DATA))
        monkeypatch.setattr(reading, "read_all", broken)
        with pytest.raises(UnreadableObject):
            await in_thread(staging.read, 0, memoryview(bytearray(SIZE)))


async def test_a_failed_sync_makes_no_later_part_durable(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel reports a failure once: the next sync of the same file succeeds."""
    real, failures = os.fdatasync, [OSError(errno.EIO, "Input/output error")]

    def fails_once(descriptor: int) -> None:
        if failures and os.readlink(f"/proc/self/fd/{descriptor}").endswith(".data"):
            raise failures.pop()
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", fails_once)
    async with store.exclusive("r-x"), entered(store.stage(STEM, SIZE)) as staging:
        await in_thread(staging.begin, PIN, RECEIPT.provenance, PART)
        for part in PARTS[:2]:
            with pytest.raises(StoreError):
                await put_part(staging, part)
    async with store.exclusive("r-x"), entered(store.stage(STEM, SIZE)) as staging:
        assert staging.resumable is None or not staging.resumable.crcs


async def test_one_stem_is_fetched_once(store: LocalStore) -> None:
    async with store.exclusive("r-x"), entered(store.stage(STEM, SIZE)) as staging:
        with pytest.raises(PlaceTaken):
            async with entered(store.stage(STEM, SIZE)):
                pass
        await in_thread(staging.write, 0, memoryview(DATA))
        await in_thread(store.finish, [staging.commit(RECEIPT, no_documents)])
        await in_thread(staging.restart)  # too late to forget anything
    assert (store.root / f"{STEM}.rdb").read_bytes() == DATA
    async with store.exclusive("r-x"), entered(store.stage(STEM, SIZE)):
        pass


@pytest.mark.parametrize("key", ["../x", "/tmp/x", "a/../../x", "a//x", "", "a/."])
async def test_a_key_that_leaves_the_archive_is_none(tmp_path: Path, key: str) -> None:
    root = tmp_path / "archive"
    (tmp_path / "x").write_bytes(b"outside")
    store = LocalStore(root)
    asked: list[Callable[[], Awaitable[object]]] = [
        lambda: store.read(key), lambda: store.put(key, b"1"), lambda: store.size(key),
        lambda: store.clear(key), lambda: anext(store.entries(f"{key}/")),
    ]  # fmt: skip
    async with store.exclusive("r-x"):
        for ask in asked:
            with pytest.raises(UnsafeInput, match="is not a key within an archive"):
                await ask()
        contexts: list[AbstractContextManager[object]] = [store.open(key), store.stage(key, 1)]
        for context in contexts:
            with pytest.raises(UnsafeInput):
                async with entered(context):
                    pass
    assert (tmp_path / "x").read_bytes() == b"outside"


def test_what_keeps_a_user_out(tmp_path: Path) -> None:
    """A file that may be written is not to blame: whoever may not rename it lacks its folder."""
    file = tmp_path / "file"
    file.touch()
    assert what_denies(file) == tmp_path
    assert what_denies(tmp_path / "none" / "of" / "these") == tmp_path
