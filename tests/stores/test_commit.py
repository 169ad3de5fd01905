"""Commits that are carried on together: none goes on before what it wrote is durable."""

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from archiver.errors import StoreError
from archiver.model import Stored
from archiver.stores import filesystem
from archiver.stores.commit import Commit, Unsynced, drive
from archiver.stores.filesystem import SyncEach, SyncWhole
from tests.stores.test_local import RECEIPT

Log = list[str]


@dataclass(frozen=True)
class Thing:
    name: str

    def sync(self) -> None:
        pass


def commit(log: Log, name: str, *steps: Sequence[str]) -> Commit:
    try:
        for number, step in enumerate(steps):
            log.append(f"{name} writes {number}")
            yield [Thing(thing) for thing in step]
        log.append(f"{name} ends")
    finally:
        log.append(f"{name} is left")
    return Stored(name, RECEIPT)


def syncing(log: Log) -> Callable[[Sequence[Unsynced]], None]:
    def sync(unsynced: Sequence[Unsynced]) -> None:
        names = [thing.name for thing in unsynced if isinstance(thing, Thing)]
        log.append(f"sync {' '.join(names)}")

    return sync


def test_a_step_of_all_then_one_sync_for_all() -> None:
    log: Log = []
    commits = [
        commit(log, "a", ["a0"], ["folder", "a1"]),
        commit(log, "b", ["b0"]),
        commit(log, "c", ["c0"], ["folder", "c1"], []),
    ]
    stored = drive(commits, syncing(log))
    assert [one.key for one in stored] == ["a", "b", "c"]
    assert [line for line in log if "left" not in line] == [
        "a writes 0", "b writes 0", "c writes 0", "sync a0 b0 c0",
        "a writes 1", "b ends", "c writes 1", "sync folder a1 c1",
        "a ends", "c writes 2", "c ends",
    ]  # fmt: skip


def test_a_sync_that_fails_ends_all_where_they_are() -> None:
    log: Log = []

    def fail(_: Sequence[Unsynced]) -> None:
        raise StoreError("the disk is gone")

    with pytest.raises(StoreError, match="the disk is gone"):
        drive([commit(log, "a", ["a0"], ["a1"]), commit(log, "b", ["b0"])], fail)
    assert log == ["a writes 0", "b writes 0", "a is left", "b is left"]


class Unsyncable:
    """Something that is not to be synced by itself."""

    def sync(self) -> None:
        raise AssertionError("one by one")


def test_many_are_synced_by_one_call_for_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(filesystem, "_syncfs", synced.append)
    SyncWhole(tmp_path, 42)([Unsyncable() for _ in range(100)])
    assert synced == [42]


@pytest.mark.parametrize("sync", [SyncEach(), SyncWhole(Path("/"), -1)])
def test_a_few_are_synced_one_by_one(sync: filesystem.Sync) -> None:
    synced: list[int] = []

    class Number(int):
        def sync(self) -> None:
            synced.append(self)

    sync([Number(1), Number(2)])
    assert synced == [1, 2]


def test_a_sync_of_the_file_system_that_fails_is_loud(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    os.close(descriptor)
    with pytest.raises(StoreError) as caught:
        SyncWhole(tmp_path, descriptor)([Unsyncable() for _ in range(100)])
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.EBADF
