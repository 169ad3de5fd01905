"""Small backups that come home together: the order of real system calls, and trouble in between.

``FAULTS=full`` (``make faults``) takes more places for trouble.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from archiver.concurrency import in_thread
from archiver.emulator import Emulator
from archiver.stores.local.syncing import is_syncfs_reliable
from examples.sample_rdb import write_rdb
from tests.conftest import INSTANCE
from tests.faults.test_disk import (
    assert_converged,
    assert_loud,
    kept,
    needs_mount,
    needs_strace,
    small_disk,  # noqa: F401
)
from tests.faults.test_disk import pull as pull_through
from tests.sweeps import FULL

COUNT = 40
MONTHS = 2
SIZE = 2_000


def write_small(files: Path, count: int = COUNT, size: int = SIZE) -> dict[str, bytes]:
    """Small backups of two months, by name."""
    return {
        name: write_rdb(files / INSTANCE / f"{name}.rdb", size + n, n)
        for n in range(count)
        for name in [f"n{n}_2026{10 + n % MONTHS}240215{n % 60:02}"]
    }


@pytest.fixture
def originals(files: Path) -> dict[str, bytes]:
    return write_small(files)


async def pull(emulator: Emulator, place: Path, *trace: str) -> tuple[int, str]:
    """Exit code and stderr of a pull, under strace when there is something to ``trace``."""
    through = ("strace", "--seccomp-bpf", "-f", "-qq", *trace) if trace else ()
    return await pull_through(emulator, place, through=through)


def assert_recorded_is_whole(place: Path) -> int:
    """What is recorded is here as it is recorded; how much is."""
    records = list((place / INSTANCE).rglob("*.json"))
    for path in records:
        record = json.loads(path.read_text())
        data = path.with_suffix(".rdb").read_bytes()
        assert hashlib.sha256(data).hexdigest() == record["sha256"]
    return len(records)


CALL = re.compile(r"^(?P<pid>\d+) +(?P<name>\w+)\((?P<rest>.*)$")
RESUMED = re.compile(r"^(?P<pid>\d+) +<\.\.\. \w+ resumed>(?P<rest>.*)$")
TRACED = "pwrite64,rename,renameat,renameat2,fsync,fdatasync,syncfs"


@dataclass
class Durability:
    """What a trace says was written, named and synced, checked as it goes by. Backups are told
    apart by their paths without suffix, and files on their way have these in their names."""

    place: Path
    # Written, and not synced.
    files: set[str] = field(default_factory=set)
    # Those whose object, and whose record, has its name, and that is not synced.
    objects: set[str] = field(default_factory=set)
    documents: set[str] = field(default_factory=set)
    # All that have a name.
    homes: set[str] = field(default_factory=set)
    recorded: set[str] = field(default_factory=set)
    # What came between two moments at which all was durable, or since a batch began, and how many
    # syncs made it so.
    syncs: list[Counter[str]] = field(default_factory=list)
    since: Counter[str] = field(default_factory=Counter)

    def walk(self, calls: Iterator[tuple[str, list[str]]]) -> None:
        for name, paths in calls:
            if any(path.startswith(str(self.place)) for path in paths):
                getattr(self, name)(*paths)

    def pwrite64(self, path: str) -> None:
        if path.endswith(".data"):
            assert not self.objects | self.documents, f"{path} is of the next batch already"
            if self.since["documents"]:
                self.since = Counter()
            self.since["written"] += 1
        if path.endswith((".data", ".document")):
            self.files.add(path)

    def rename(self, source: str, target: str) -> None:
        if source.endswith((".data", ".document")):
            on_its_way = re.sub(r"(\.json)?\.\w+$", "", source)
            waiting = [path for path in self.files if path.startswith(f"{on_its_way}.")]
            assert not waiting, f"{target} has its name, and {waiting} is not durable"
        backup = target.rpartition(".")[0]
        if source.endswith(".data"):
            self.since["objects"] += 1
            self.homes.add(backup)
            self.objects.add(backup)
        elif source.endswith(".document"):
            self.since["documents"] += 1
            assert backup in self.homes, f"{target} before its object"
            assert backup not in self.objects, f"{target} before its object's name is durable"
            self.recorded.add(backup)
            self.documents.add(backup)

    def syncfs(self, _: str) -> None:
        self._synced(lambda _: True)

    def fsync(self, path: str) -> None:
        self._synced(lambda one: path in (one, one.rpartition("/")[0]))

    def _synced(self, is_of_it: Callable[[str], bool]) -> None:
        all_of_it = (self.files, self.objects, self.documents)
        durable = {one for unsynced in all_of_it for one in unsynced if is_of_it(one)}
        for unsynced in all_of_it:
            unsynced.difference_update(durable)
        self.since["syncs"] += bool(durable)
        if durable and not any(all_of_it):
            self.syncs.append(self.since)
            self.since = Counter()

    fdatasync = fsync


def calls_of(trace: Path) -> Iterator[tuple[str, list[str]]]:
    """The calls, by name and paths, in the order in which they ended."""
    begun: dict[str, tuple[str, str]] = {}
    for line in trace.read_text("utf-8", "replace").splitlines():
        if call := CALL.match(line):
            pid, name, rest = call["pid"], call["name"], call["rest"]
            if rest.endswith("<unfinished ...>"):
                begun[pid] = name, rest
                continue
        elif (resumed := RESUMED.match(line)) and resumed["pid"] in begun:
            name, rest = begun.pop(resumed["pid"])
            rest += resumed["rest"]
        else:
            continue
        paths = re.findall(r'"([^"]*)"', rest) if name == "rename" else []
        yield name, paths or re.findall(r"^\d+<([^>]*)>", rest)


@needs_strace
async def test_the_order_of_a_batch(
    emulator: Emulator, tmp_path: Path, originals: dict[str, bytes]
) -> None:
    """Of every backup: data and documents written, synced, the object named, synced, the
    documents named, synced; whatever of it is done by one sync for many."""
    place = tmp_path / "archive"
    if not await in_thread(is_syncfs_reliable, tmp_path):
        pytest.skip("THIS FILE SYSTEM IS SYNCED ONE BY ONE")
    trace = tmp_path / "trace"
    code, err = await pull(
        emulator, place, "-y", "-s", "0", "-o", str(trace), "-e", f"trace={TRACED}"
    )
    assert code == 0, err
    assert_converged(place, originals)
    seen = Durability(place)
    seen.walk(calls_of(trace))
    assert len(seen.homes) == len(seen.recorded) == COUNT
    assert not seen.files | seen.objects | seen.documents, "not durable at the end"
    # A batch of many took one sync for its bytes, and for its objects and its records one of each
    # month's folder.
    written = [sync["written"] for sync in seen.syncs]
    begin, many = written.index(max(written)), max(written)
    assert many >= 16
    assert seen.syncs[begin : begin + 3] == [
        {"written": many, "syncs": 1},
        {"objects": many, "syncs": MONTHS},
        {"documents": many, "syncs": MONTHS},
    ]


# strace counts the calls of each thread: more of them one may not come to.
SURELY = {"syncfs": 1, "fsync": 4, "pwrite64": 20, "rename": 20}
TROUBLE = [
    ("syncfs", "EIO", 1),
    ("syncfs", "ENOSPC", 1),
    ("fsync", "EIO", 2),
    ("fsync", "EIO", 4),
    ("pwrite64", "EIO", 45),
    ("pwrite64", "ENOSPC", 20),
    ("rename", "EIO", 20),
    ("rename", "EIO", 60),
]
MORE_TROUBLE = [
    (call, error, when)
    for call, times in (
        ("syncfs", range(1, 3)),
        ("fsync", range(1, 10)),
        ("pwrite64", range(5, 125, 10)),
        ("rename", range(5, 125, 10)),
    )
    for error in ("EIO", "ENOSPC")
    for when in times
]


@needs_strace
@pytest.mark.parametrize(("call", "error", "when"), MORE_TROUBLE if FULL else TROUBLE)
async def test_a_call_that_fails_in_a_batch(
    emulator: Emulator,
    tmp_path: Path,
    originals: dict[str, bytes],
    call: str,
    error: str,
    when: int,
) -> None:
    place = tmp_path / "archive"
    if call == "syncfs" and not await in_thread(is_syncfs_reliable, tmp_path):
        pytest.skip("THIS FILE SYSTEM IS SYNCED ONE BY ONE")
    code, err = await pull(
        emulator, place, "-o", "/dev/null", "-e", f"trace={call}",
        "-e", f"inject={call}:error={error}:when={when}",
    )  # fmt: skip
    if code or when <= SURELY[call]:
        assert_loud(code, err)
    assert_recorded_is_whole(place)
    assert (await pull(emulator, place))[0] == 0
    assert_converged(place, originals)


@needs_mount
async def test_a_disk_that_fills_with_small_backups(
    files: Path,
    emulator: Emulator,
    small_disk: Path,  # noqa: F811
) -> None:
    originals = write_small(files, 60, 30_000)
    filler, place = small_disk / "filler", small_disk / "archive"
    filler.write_bytes(bytes(1_500_000))
    code, err = await pull(emulator, place)
    assert_loud(code, err)
    assert len(kept(place)) < len(originals)
    assert_recorded_is_whole(place)
    filler.unlink()
    assert (await pull(emulator, place))[0] == 0
    assert_converged(place, originals)
