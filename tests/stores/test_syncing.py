"""The kind of a path's file system, and syncing all files on it at once."""

import ctypes
import errno
import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from archiver.errors import NoSpace, StoreError
from archiver.stores.commit import Unsynced, sync_each
from archiver.stores.local import disk, syncing
from archiver.stores.local.mounts import file_system_kind
from archiver.stores.local.syncing import FileSystemSync, fastest_sync, is_syncfs_reliable

Mounts = Callable[[str], None]


@pytest.fixture
def mounts(monkeypatch: pytest.MonkeyPatch) -> Mounts:
    """Makes mountinfo say what /proc/mounts would, of devices that nothing here is on, but for
    those of a source with a colon and two numbers."""
    real = Path.read_bytes

    def line(number: int, mount: str) -> str:
        what, where, kind = mount.split(" ")[:3]
        device = what if re.fullmatch(r"\d+:\d+", what) else f"0:{90_000 + number}"
        return f"{number} 0 {device} / {where} rw,relatime shared:1 - {kind} {what} rw\n"

    def say(text: str) -> None:
        said = "".join(line(*one) for one in enumerate(text.split("\n")) if one[1])

        def read(path: Path) -> bytes:
            return os.fsencode(said) if str(path) == "/proc/self/mountinfo" else real(path)

        monkeypatch.setattr(Path, "read_bytes", read)

    return say


@dataclass(frozen=True)
class Thing:
    """Counts how often it is synced."""

    number: int
    synced: list[int] = field(compare=False)

    def sync(self) -> None:
        self.synced.append(self.number)


def things(count: int) -> tuple[Sequence[Unsynced], list[int]]:
    synced: list[int] = []
    return [Thing(number, synced) for number in range(count)], synced


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The descriptors that syncfs was called with."""
    called: list[int] = []
    monkeypatch.setattr(syncing, "_syncfs", called.append)
    return called


def test_the_kind_of_a_mount(tmp_path: Path, mounts: Mounts) -> None:
    here = tmp_path.resolve()
    mounts(f"/dev/a / ext4 rw 0 0\nhost:/x {here}/far nfs4 rw 0 0\n/dev/b {here} xfs rw 0 0\n")
    assert file_system_kind(here / "archive" / "not there yet") == "xfs"
    assert file_system_kind(here / "far" / "archive") == "nfs4"
    assert file_system_kind(here.parent) == "ext4"
    assert file_system_kind(here.parent / f"{here.name}-beside") == "ext4"


def test_the_device_counts_before_names(tmp_path: Path, mounts: Mounts) -> None:
    """A later mount may hide an earlier one."""
    device = tmp_path.stat().st_dev
    here = f"{os.major(device)}:{os.minor(device)}"
    mounts(f"{here} / xfs rw 0 0\nhost:/x {tmp_path.resolve()} nfs4 rw 0 0\n")
    assert file_system_kind(tmp_path / "archive" / "not there yet") == "xfs"


def test_the_kind_of_a_real_one() -> None:
    assert file_system_kind(Path("/proc/self")) == "proc"


def test_what_is_mounted_over_another_counts(tmp_path: Path, mounts: Mounts) -> None:
    here = tmp_path.resolve()
    mounts(f"/dev/a / ext4 rw 0 0\nauto {here} autofs rw 0 0\nhost:/x {here} nfs4 rw 0 0\n")
    assert file_system_kind(here) == "nfs4"


def test_a_symbolic_link_is_where_it_leads(tmp_path: Path, mounts: Mounts) -> None:
    here = tmp_path.resolve()
    (here / "far").mkdir()
    (here / "link").symlink_to(here / "far")
    mounts(f"/dev/a / ext4 rw 0 0\nhost:/x {here}/far nfs4 rw 0 0\n")
    assert file_system_kind(here / "link" / "archive") == "nfs4"


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("with two  blanks", "with\\040two\\040\\040blanks"),
        ("tab\tnew\nline", "tab\\011new\\012line"),
        ("back\\040slash", "back\\134040slash"),
        ("number#1", "number\\0431"),
        ("грёза", "грёза"),
        ("form\ffeed\r\x85\u2028", "form\ffeed\r\x85\u2028"),
        ("not utf-8 \udcff", "not\\040utf-8\\040\udcff"),
    ],
)
def test_names_of_mounts(tmp_path: Path, mounts: Mounts, name: str, written: str) -> None:
    """A missed mount would be taken for the file system that it is mounted in."""
    here = tmp_path.resolve()
    mounts(f"/dev/a / ext4 rw 0 0\nhost:/x {here}/{written} nfs4 rw 0 0\n")
    assert file_system_kind(here / name / "archive") == "nfs4"


def test_no_mounts_to_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: Path) -> bytes:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_bytes", missing)
    assert file_system_kind(Path("/")) is None
    assert not is_syncfs_reliable(Path("/"))


@pytest.mark.parametrize(
    ("system", "release", "kind", "expected"),
    [
        ("Linux", "5.17.0", "ext4", True),
        ("Linux", "5.19.0-28-amd64", "xfs", True),
        ("Linux", "6.1", "tmpfs", True),
        ("Linux", "10.0.1", "ext4", True),
        ("Linux", "5.16.20", "ext4", False),
        ("Linux", "4.19.0", "ext4", False),
        ("Linux", "unheard of", "ext4", False),
        ("Darwin", "23.1.0", "ext4", False),
        *(("Linux", "6.1.0", kind, False) for kind in ("nfs4", "btrfs", "overlay", "fuse", None)),
    ],
)
def test_where_one_sync_is_trusted(
    monkeypatch: pytest.MonkeyPatch, system: str, release: str, kind: str | None, expected: bool
) -> None:
    uname = os.uname_result((system, "host", release, "#1", "x86_64"))
    monkeypatch.setattr(os, "uname", lambda: uname)
    monkeypatch.setattr(syncing, "file_system_kind", lambda _: kind)
    assert is_syncfs_reliable(Path("/x")) is expected
    with fastest_sync(Path("/")) as sync:
        assert isinstance(sync, FileSystemSync) is expected


def test_few_are_synced_one_by_one(tmp_path: Path, calls: list[int]) -> None:
    few, synced = things(15)
    FileSystemSync(tmp_path, 7)(few)
    assert synced == list(range(15))
    assert calls == []


def test_many_are_synced_as_one(tmp_path: Path, calls: list[int]) -> None:
    many, synced = things(16)
    FileSystemSync(tmp_path, 7)(many)
    assert synced == []
    assert calls == [7]


@pytest.mark.parametrize(
    ("code", "kind"),
    [(errno.EIO, StoreError), (errno.ENOSPC, NoSpace), (errno.EDQUOT, NoSpace)],
)
def test_a_sync_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[StoreError]
) -> None:
    """The kernel reports it once: nothing that was written before may count as durable."""

    def fails(_: int) -> None:
        raise OSError(code, os.strerror(code))

    many, synced = things(20)
    sync = FileSystemSync(tmp_path, 7)
    monkeypatch.setattr(syncing, "_syncfs", fails)
    with pytest.raises(kind, match=str(tmp_path)) as caught:
        sync(many)
    assert type(caught.value) is kind
    assert os.strerror(code) in str(caught.value)
    monkeypatch.setattr(syncing, "_syncfs", lambda _: None)
    with pytest.raises(kind, match=str(tmp_path)):
        sync(many)
    assert synced == []


def test_two_threads_are_both_woken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the kernel: the first call fails, and a concurrent one succeeds."""
    under_way, failures = threading.Event(), [OSError(errno.EIO, "EIO")]

    def once(_: int) -> None:
        if failures:
            error = failures.pop()
            under_way.set()
            time.sleep(0.1)
            raise error

    monkeypatch.setattr(syncing, "_syncfs", once)
    sync = FileSystemSync(tmp_path, 7)
    told: list[StoreError] = []

    def writer() -> None:
        try:
            sync(things(20)[0])
        except StoreError as error:
            told.append(error)

    threads = [threading.Thread(target=writer) for _ in range(2)]
    threads[0].start()
    assert under_way.wait(10)
    threads[1].start()
    for thread in threads:
        thread.join()
    assert len(told) == 2


@pytest.mark.parametrize(("seconds", "goes_on"), [(0.39, True), (0.41, False)])
def test_one_sync_that_took_long_is_the_last_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, goes_on: bool
) -> None:
    """20 files may take 0.4 s; a longer sync waited for the writes of others."""
    clock, calls = [100.0], [0]

    def slow(_: int) -> None:
        calls[0] += 1
        clock[0] += seconds

    monkeypatch.setattr(syncing, "_syncfs", slow)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    sync = FileSystemSync(tmp_path, 7)
    many, synced = things(20)
    for _ in range(3):
        sync(many)
    assert calls == ([3] if goes_on else [1])
    assert sorted(synced) == ([] if goes_on else sorted(2 * list(range(20))))
    clock[0] += 31
    sync(many)
    assert calls == ([4] if goes_on else [2])


def test_many_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them, and what one raises is raised."""
    many, synced = things(40)
    sync_each(many)
    assert sorted(synced) == list(range(40))

    class Fails:
        def sync(self) -> None:
            raise StoreError("it fails")

    with pytest.raises(StoreError, match="it fails"):
        sync_each([*many, Fails(), *many])


def test_syncing_closes_what_it_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syncing, "is_syncfs_reliable", lambda _: True)
    called: list[int] = []
    real = syncing._syncfs

    def spy(descriptor: int) -> None:
        called.append(descriptor)
        assert os.path.samestat(os.fstat(descriptor), tmp_path.stat())
        real(descriptor)

    monkeypatch.setattr(syncing, "_syncfs", spy)
    with fastest_sync(tmp_path) as sync:
        sync(things(16)[0])
    [descriptor] = called
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    many, _ = things(16)
    with suppress(KeyboardInterrupt), fastest_sync(tmp_path) as sync:
        sync(many)
        raise KeyboardInterrupt
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(called[-1])


def test_the_real_call(tmp_path: Path) -> None:
    """Its result is checked: an invalid descriptor is an error."""
    with pytest.raises(OSError, match="Bad file descriptor"):
        syncing._syncfs(-1)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        syncing._syncfs(descriptor)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("tells", ["syncfs", "fsync"])
def test_a_file_system_that_an_error_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tells: str
) -> None:
    """Kernels whose syncfs reports nothing report the error at an fsync."""

    class Library:
        def syncfs(self, _: int) -> int:
            return -1 if tells == "syncfs" else 0

    def fsync(_: int) -> None:
        if tells == "fsync":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(syncing, "is_syncfs_reliable", lambda _: True)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Library())
    monkeypatch.setattr(ctypes, "get_errno", lambda: errno.EROFS)
    monkeypatch.setattr(os, "fsync", fsync)
    many, _ = things(16)
    with fastest_sync(tmp_path) as sync, pytest.raises(StoreError, match="Read-only"):
        sync(many)


def test_a_root_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syncing, "is_syncfs_reliable", lambda _: True)
    with pytest.raises(StoreError, match="gone"), fastest_sync(tmp_path / "gone"):
        pass


def test_one_by_one_is_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    with disk.written(tmp_path / "file", b"x") as file:
        sync_each([file, disk.UnsyncedFolder(tmp_path)])
    assert len(synced) == 2
