"""The lock of a directory: one writer, also when its file or the directory is removed."""

import errno
import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from blockbuster import BlockBuster

from archiver import Archive, LocalStore, TairSource, pull
from archiver.errors import ArchiveBusy, LockLost, StoreError
from archiver.events import Event, Started
from archiver.stores.local import lock
from archiver.stores.local.lock import Held, hold
from examples.sample_rdb import write_rdb
from tests.conftest import INSTANCE, everything
from tests.stores.test_holder import CONTAINER, in_containers

HOLD = (
    "import sys, time; from pathlib import Path; from archiver.stores.local.lock import hold\n"
    "with hold(Path(sys.argv[1]), beat=0.3): print('held', flush=True); time.sleep(600)"
)
Removal = Callable[[Path], object]


def replace(path: Path) -> None:
    path.unlink()
    path.write_bytes(b"")


def move_the_directory(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))


def replace_the_directory(path: Path) -> None:
    move_the_directory(path)
    path.parent.mkdir()
    path.write_bytes(b"")


REMOVALS = [Path.unlink, replace, move_the_directory, replace_the_directory]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "archive").mkdir()
    return tmp_path / "archive" / ".lock"


def lock_of(root: Path) -> Path:
    """That of the instance."""
    return root / ".locks" / INSTANCE


@pytest.mark.parametrize("remove", REMOVALS)
def test_a_lock_that_is_removed_is_held_no_more(path: Path, remove: Removal) -> None:
    with hold(path) as held:
        held.check()
        remove(path)
        with pytest.raises(ArchiveBusy, match="removed or replaced"):
            held.check()


def test_it_stays_lost_when_it_is_put_back(path: Path) -> None:
    with hold(path, beat=0.05) as held:
        path.rename(path.with_name("aside"))
        while held._lost is None:
            time.sleep(0.01)  # the next beat sees it
        with hold(path):
            pass
        path.with_name("aside").replace(path)
        with pytest.raises(ArchiveBusy):
            held.check()


def test_a_file_that_is_removed_between_open_and_flock_is_not_a_lock(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, removed = fcntl.flock, list[Path]()

    def flock(descriptor: int, operation: int) -> None:
        if not removed:
            removed.append(path)
            path.unlink()
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with hold(path) as held:
        held.check()
        with pytest.raises(ArchiveBusy, match=f"process {os.getpid()} on"), hold(path):
            pass


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_not_a_file_is_not_a_lock(path: Path, make: Callable[[Path], None]) -> None:
    make(path)
    with pytest.raises(StoreError) as caught, hold(path):
        pass
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("remove", REMOVALS)
async def test_a_pull_stops_before_the_next_commit(
    files: Path, source: TairSource, tmp_path: Path, remove: Removal,
    no_blocking_on_the_loop: BlockBuster,
) -> None:  # fmt: skip
    no_blocking_on_the_loop.deactivate()  # the observer takes away what it watches
    write_rdb(files / INSTANCE / "a_20261124021500.rdb", 600_000)
    root = tmp_path / "archive"

    def observe(event: Event) -> None:
        if isinstance(event, Started):
            took_away.append(remove(lock_of(root)))

    took_away: list[object] = []
    summary = await pull(source, Archive(LocalStore(root)), [everything()], observer=observe)
    [failed] = summary.failures
    assert isinstance(failed.error, LockLost)
    assert (failed.subject, summary.exit_code) == (INSTANCE, 7)
    assert len(took_away) == 1
    assert [*root.glob("r-*"), *(tmp_path / "elsewhere").glob("r-*")] == []


@in_containers
def test_a_living_holder_in_another_container(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a disk that two machines share and that grants flock to everybody."""
    monkeypatch.setattr(lock, "_flock", lambda *_: False)
    with subprocess.Popen(
        [*CONTAINER, sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        try:
            with pytest.raises(ArchiveBusy, match="is writing"), hold(path, beat=2.0):
                pass
        finally:
            holder.kill()


def test_waiting_for_a_sign_of_life_can_be_ended(path: Path) -> None:
    path.write_text('{"host": "far", "pid": 1, "boot": "another", "beat": 3}')
    stop = threading.Event()
    stop.set()
    with pytest.raises(ArchiveBusy, match="process 1 on far"), hold(path, beat=600, stop=stop):
        pass


def test_what_cannot_be_read_may_be_a_living_holders(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where flock is not reliable, it is watched like any other; where it is, flock decides."""
    path.write_text("by another program, or half of a beat")
    with hold(path, beat=600):
        pass
    path.write_text("by another program, or half of a beat")
    monkeypatch.setattr(lock, "_flock", lambda *_: False)
    stop = threading.Event()
    stop.set()
    with pytest.raises(ArchiveBusy), hold(path, beat=600, stop=stop):
        pass
    assert path.read_text() == "by another program, or half of a beat"


def test_a_lock_that_the_disk_does_not_give(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", fails)
    with pytest.raises(StoreError, match="Input/output error"), hold(path):
        pass


FAR = '{"host": "far", "pid": 1, "boot": "another", "beat": 3}'


@pytest.fixture
def uncertain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system whose locks are not to be relied on."""
    monkeypatch.setattr(lock, "flock_is_reliable", lambda _: False)


@pytest.mark.usefixtures("uncertain")
def test_one_that_is_not_to_watch_takes_a_free_lock(path: Path) -> None:
    with hold(path, beat=0.05, watch=False) as held:
        assert not held.is_certain
        assert held.is_ours()
    assert path.read_bytes() == b""


@pytest.mark.parametrize("certain", [True, False])
def test_one_that_is_not_to_watch_leaves_a_lock_that_may_be_held(
    path: Path, monkeypatch: pytest.MonkeyPatch, certain: bool
) -> None:
    monkeypatch.setattr(lock, "flock_is_reliable", lambda _: certain)
    path.write_text(FAR)
    with pytest.raises(ArchiveBusy, match="process 1 on far"), hold(path, beat=600, watch=False):
        pass
    assert path.read_text() == FAR


class Taken(threading.Event):
    """Another process has the lock while it is watched, and releases it if it ``ends``."""

    def __init__(self, path: Path, *, ends: bool) -> None:
        super().__init__()
        self.other, self.ends = os.open(path, os.O_RDWR), ends

    def wait(self, timeout: float | None = None) -> bool:
        fcntl.flock(self.other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if self.ends:
            fcntl.flock(self.other, fcntl.LOCK_UN)
        return False


@pytest.mark.parametrize("ends", [True, False])
def test_a_lock_is_not_held_while_its_last_holder_is_watched(path: Path, ends: bool) -> None:
    """Others would take the watcher for a writer."""
    path.write_text(FAR)
    taken = Taken(path, ends=ends)
    try:
        with ExitStack() as stack:
            if not ends:
                stack.enter_context(pytest.raises(ArchiveBusy))
            with hold(path, beat=600, stop=taken), pytest.raises(BlockingIOError):
                taken.wait()
        assert path.read_text() == ("" if ends else FAR)
    finally:
        os.close(taken.other)


def test_what_has_another_name_after_it_was_watched_is_anothers(path: Path) -> None:
    path.write_text(FAR)
    held = Held(os.open(path, os.O_RDWR), path)
    with pytest.raises(ArchiveBusy, match="process 2 on far"), held.unlocked():
        path.write_text(FAR.replace("1", "2"))
    os.close(held._descriptor)


class Meanwhile(threading.Event):
    """What happens while a newcomer waits with its name in the file; ``ends``: it is cancelled."""

    def __init__(self, path: Path, written: bytes | None, *, ends: bool) -> None:
        super().__init__()
        self.path, self.written, self.ends = path, written, ends

    def wait(self, timeout: float | None = None) -> bool:
        assert b'"name"' in self.path.read_bytes()
        if self.written is not None:
            self.path.write_bytes(self.written)
        return self.ends


@pytest.mark.parametrize(("certain", "after"), [(True, 600), (False, 0)])
def test_the_first_beat_comes_at_once_where_others_watch(
    path: Path, monkeypatch: pytest.MonkeyPatch, certain: bool, after: float
) -> None:
    """They have seen no change for as long as the name was checked."""
    monkeypatch.setattr(lock, "flock_is_reliable", lambda _: certain)
    due = list[float]()

    @contextmanager
    def beating(_: object, after: float) -> Iterator[None]:
        due.append(after)
        yield

    monkeypatch.setattr(lock, "beating", beating)
    stop = Meanwhile(path, None, ends=False)
    with hold(path, beat=600, stop=stop):
        assert due == [after]


@pytest.mark.usefixtures("uncertain")
def test_a_newcomer_that_gives_up_takes_its_name_away(path: Path) -> None:
    """Or the next one would watch it as if it were alive."""
    with pytest.raises(ArchiveBusy), hold(path, stop=Meanwhile(path, None, ends=True)):
        pass
    assert path.read_bytes() == b""


@pytest.mark.usefixtures("uncertain")
@pytest.mark.parametrize("ends", [True, False])
def test_a_newcomer_that_gives_up_leaves_another_name(path: Path, ends: bool) -> None:
    stop = Meanwhile(path, FAR.encode(), ends=ends)
    with pytest.raises(ArchiveBusy, match="process 1 on far"), hold(path, stop=stop):
        pass
    assert path.read_text() == FAR


def test_where_no_thread_can_be_started_the_lock_is_released(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as broken:
        broken.setattr(threading.Thread, "start", fails)
        with pytest.raises(RuntimeError, match="new thread"), hold(path):
            pass
    assert path.read_bytes() == b""
    with hold(path, beat=0.01) as held:
        while not held._beats:
            time.sleep(0.01)
