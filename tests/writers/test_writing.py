"""A writer for each instance: when its lock is taken, for how long, and what it costs."""

import functools
import shutil
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import to_thread

from archiver import Archive, LocalStore, PullOptions, TairSource, pull, verify
from archiver.archive.acknowledged import Acknowledged, acknowledge
from archiver.archive.archive import Beginning
from archiver.archive.layout import FORMAT_KEY, OWN_PREFIXES, index_key
from archiver.archive.verified import results_key
from archiver.commands.copy.run import copy
from archiver.commands.copy.selection import CopyOptions
from archiver.concurrency import in_thread
from archiver.errors import ArchiveBusy, NoSpace, StoreError, StoreForbidden, UsageError
from archiver.events import ArchiveBegun, Archived, Event, Planned, WaitingForLock
from archiver.ids import RESERVED
from archiver.model import Stored
from archiver.stores.base import Leftover, Staging
from archiver.stores.commit import Commit
from archiver.stores.local.lock import _wait_until_gone as wait_until_gone
from archiver.stores.local.lock import hold
from archiver.stores.scope import SHARED, WHOLE, needs_lock, scope_of
from examples.sample_rdb import write_rdb
from tests.bucket.conftest import odd, server  # noqa: F401
from tests.bucket.test_odd_servers import archive_on
from tests.conftest import INSTANCE, everything
from tests.servers.oddstore import OddStore

NAMES = [f"r-bp1{letter * 13}" for letter in "abcdefghijkl"]


class Watched(LocalStore):
    """Notes whose locks are held, and how many files come home at once."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.taken: list[str] = []
        self.taken_briefly: list[str] = []
        self.most_at_once = 0
        self.batches: list[int] = []
        self.begin_finishing: Callable[[], object] = lambda: None

    @asynccontextmanager
    async def exclusive(
        self, scope: str, *, watch: bool = True, briefly: bool = False
    ) -> AsyncGenerator[None, None]:
        async with super().exclusive(scope, watch=watch, briefly=briefly):
            self.taken.append(scope)
            self.taken_briefly += [scope] if briefly else []
            self.most_at_once = max(self.most_at_once, len(self._locks))
            yield

    def finish(self, commits: Iterable[Commit]) -> list[Stored]:
        self.begin_finishing()
        stored = super().finish(commits)
        self.batches.append(len(stored))
        return stored


@pytest.fixture
def store(tmp_path: Path) -> Watched:
    return Watched(tmp_path / "archive")


def serve(files: Path, instances: Iterable[str], size: int = 3_000) -> None:
    for number, instance in enumerate(instances):
        (files / instance).mkdir(exist_ok=True)
        write_rdb(files / instance / "a_20261124021500.rdb", size, number)


async def test_the_lock_is_taken_for_something_to_write(
    files: Path, source: TairSource, store: Watched
) -> None:
    serve(files, NAMES[:2])
    queries = [everything(name) for name in NAMES[:2]]
    await pull(source, Archive(store), queries)
    assert set(store.taken) == {WHOLE, *NAMES[:2]}
    store.taken.clear()
    write_rdb(files / NAMES[1] / "b_20261125021500.rdb", 2_000)
    summary = await pull(source, Archive(store), queries)
    assert (summary.held, summary.archived, store.taken) == (2, 1, [NAMES[1]])
    store.taken.clear()
    assert (await pull(source, Archive(store), queries)).held == 3
    assert (await pull(source, Archive(store), queries, PullOptions(dry_run=True))).held == 3
    assert store.taken == []


async def test_the_lock_is_taken_for_a_missing_sha256sums(
    files: Path, source: TairSource, store: Watched
) -> None:
    serve(files, [INSTANCE])
    await pull(source, Archive(store), [everything()])
    [sums] = store.root.rglob("SHA256SUMS")
    before = sums.read_bytes()
    sums.unlink()
    sums.with_name("index.jsonl").unlink()  # or that would tell that it was there
    store.taken.clear()
    await pull(source, Archive(store), [everything()])
    assert (sums.read_bytes(), store.taken) == (before, [INSTANCE])


async def test_the_lock_is_taken_for_a_missing_catalogue(
    files: Path, source: TairSource, store: Watched
) -> None:
    """Unless another process is the writer: it is no failure, and the next run writes it."""
    serve(files, [INSTANCE])
    await pull(source, Archive(store), [everything()])
    [index] = store.root.rglob("index.jsonl")
    before = index.read_bytes()
    index.unlink()
    store.taken.clear()
    async with LocalStore(store.root).exclusive(INSTANCE):
        summary = await pull(source, Archive(store, lock_wait=600), [everything()])
    assert (summary.held, summary.failures, store.taken) == (1, [], [])
    assert not index.exists()
    await pull(source, Archive(store), [everything()])
    assert (index.read_bytes(), store.taken) == (before, [INSTANCE])
    await pull(source, Archive(store), [everything()])
    assert store.taken == [INSTANCE]


async def test_an_instance_that_cannot_be_locked_fails_alone(
    files: Path, source: TairSource, store: Watched
) -> None:
    """For its catalogue, too, when all that is listed is held."""
    serve(files, NAMES[:2])
    queries = [everything(name) for name in NAMES[:2]]
    await pull(source, Archive(store), queries)
    for index in store.root.rglob("index.jsonl"):
        index.unlink()
    (store.root / ".staging" / NAMES[0]).symlink_to(store.root)
    summary = await pull(source, Archive(store), queries)
    assert (summary.held, [one.subject for one in summary.failures]) == (2, [NAMES[0]])
    assert [index.parts[-4] for index in store.root.rglob("index.jsonl")] == [NAMES[1]]


@pytest.mark.parametrize("beginning", [Beginning.IF_EMPTY, Beginning.ALWAYS])
async def test_no_archive_is_begun_where_one_was(
    store: Watched, tmp_path: Path, beginning: Beginning
) -> None:
    """As on the folder of a disk that is not mounted any more, in the middle of a run."""
    archive, later = Archive(store, beginning=beginning), Archive(LocalStore(store.root))
    async with archive.writing(NAMES[0]):
        pass
    await to_thread.run_sync(store.root.rename, tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="the archive that was here is gone"):
        async with archive.writing(NAMES[1]):
            pass
    assert not store.root.exists()
    async with later.writing(NAMES[1]):
        assert (store.root / FORMAT_KEY).exists()


async def test_a_months_documents_are_written_under_the_lock_of_its_instance(
    files: Path, source: TairSource, store: Watched, tmp_path: Path
) -> None:
    """By a pull and by a copy, each month before the lock is released."""
    serve(files, NAMES[:3])
    unlocked: list[str] = []

    class Guarded(LocalStore):
        async def put(self, key: str, data: bytes) -> str:
            of_a_month = key.endswith(("/index.jsonl", "/SHA256SUMS"))
            if of_a_month and scope_of(key) not in self._locks:
                unlocked.append(key)
            return await super().put(key, data)

    here, there = Guarded(store.root), Guarded(tmp_path / "there")
    await pull(source, Archive(here), [everything(name) for name in NAMES[:3]])
    await copy(Archive(here), Archive(there))
    for one in (here, there):
        assert len(list(one.root.rglob("index.jsonl"))) == 3
        assert len(list(one.root.rglob("SHA256SUMS"))) == 3
    assert unlocked == []


async def test_others_go_on_while_one_is_waited_for(
    files: Path, source: TairSource, store: Watched
) -> None:
    """And whoever is done is let go of: others can write to it before the run has ended."""
    serve(files, NAMES[:3])
    await pull(source, Archive(store), [everything(NAMES[0])])
    write_rdb(files / NAMES[0] / "b_20261125021500.rdb", 2_000)
    seen: list[Event] = []
    archive = Archive(store, lock_wait=600)
    queries = [everything(name) for name in NAMES[:3]]

    def count(kind: type[Event]) -> int:
        return sum(isinstance(event, kind) for event in seen)

    async def run() -> None:
        summary = await pull(source, archive, queries, observer=seen.append)
        assert (summary.archived, summary.held, summary.failures) == (3, 1, [])

    other = LocalStore(store.root)
    async with anyio.create_task_group() as group:
        async with other.exclusive(NAMES[0]):
            group.start_soon(run)
            while not (count(WaitingForLock) and count(Archived) == 2):
                await anyio.sleep(0.01)
            for name in NAMES[1:3]:
                async with Archive(other, lock_wait=30).alone(name):
                    pass
        assert count(WaitingForLock) == 1


async def test_a_busy_instance_fails_alone(files: Path, source: TairSource, store: Watched) -> None:
    serve(files, NAMES[:3])
    async with LocalStore(store.root).exclusive(NAMES[1]):
        summary = await pull(source, Archive(store), [everything(name) for name in NAMES[:3]])
    assert (summary.archived, summary.exit_code) == (2, 7)
    [failed] = summary.failures
    assert failed.subject == NAMES[1]
    assert f"is writing to {NAMES[1]} in this archive" in str(failed.error)


async def test_few_are_held_at_once(
    files: Path, source: TairSource, store: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("archiver.commands.pull.run.MOST_INSTANCES", 2)
    serve(files, NAMES[:6])
    summary = await pull(source, Archive(store), [everything(name) for name in NAMES[:6]])
    assert (summary.archived, summary.failures) == (6, [])
    assert store.most_at_once <= 2


async def test_small_files_of_many_instances_share_their_syncs(
    files: Path, source: TairSource, store: Watched
) -> None:
    serve(files, NAMES)
    planned, all_planned = list[Event](), threading.Event()

    def observe(event: Event) -> None:
        if isinstance(event, Planned):
            planned.append(event)
            if len(planned) == len(NAMES):
                all_planned.set()

    store.begin_finishing = lambda: all_planned.wait(60)
    summary = await pull(
        source, Archive(store), [everything(name) for name in NAMES], observer=observe
    )
    assert (summary.archived, sum(store.batches)) == (len(NAMES), len(NAMES))
    assert len(store.batches) <= 3, store.batches


async def test_two_that_have_seen_no_archive_begin_one(tmp_path: Path) -> None:
    """Neither has looked again when the other begins it."""
    root, seen = tmp_path / "archive", list[Event]()
    looked, both = list[str](), anyio.Event()

    class Looking(LocalStore):
        async def read(self, key: str) -> bytes | None:
            data = await super().read(key)
            if key == FORMAT_KEY and len(looked) < 2:
                looked.append(key)
                if len(looked) == 2:
                    both.set()
                await both.wait()
            return data

    async def write(instance: str) -> None:
        store = Looking(root)
        async with Archive(store).writing(instance, seen.append):
            await store.put(f"{instance}/2026/x.json", b"{}")

    async with anyio.create_task_group() as group:
        group.start_soon(write, "r-a")
        group.start_soon(write, "r-b")
    assert [event for event in seen if isinstance(event, ArchiveBegun)] == [ArchiveBegun(str(root))]
    assert len(list(root.glob("r-?/2026/x.json"))) == 2


async def test_an_archive_that_is_begun_between_two_looks(tmp_path: Path) -> None:
    """What another run has begun is no obstacle."""
    root = tmp_path / "archive"

    class Late(LocalStore):
        async def obstacle(self) -> str | None:
            async with Archive(LocalStore(root)).writing("r-a"):
                pass
            return await super().obstacle()

    assert await Archive(Late(root)).check_place()


async def test_what_is_acknowledged_beside_a_pull(
    files: Path, source: TairSource, store: LocalStore
) -> None:
    serve(files, [INSTANCE])
    archive = Archive(store)
    await pull(source, archive, [everything()])
    async with LocalStore(store.root).exclusive(INSTANCE), archive.writing(WHOLE):
        await acknowledge(archive, f"{INSTANCE}-db-0-7", by="me", reason="ticket 7")
    assert len((await Acknowledged(archive).read()).by_key) == 1


async def test_copying_to_where_an_instance_is_busy(
    files: Path, source: TairSource, store: Watched, tmp_path: Path
) -> None:
    serve(files, NAMES[:3])
    here = Archive(LocalStore(tmp_path / "here"))
    await pull(source, here, [everything(name) for name in NAMES[:3]])
    async with LocalStore(store.root).exclusive(NAMES[0]):
        summary = await copy(here, Archive(store))
        assert (summary.archived, summary.exit_code) == (2, 7)
        assert [one.subject for one in summary.failures] == [NAMES[0]]
    assert (await copy(here, Archive(store))).archived == 1
    store.taken.clear()
    assert (await copy(here, Archive(store), CopyOptions(replace=True))).held == 3
    assert store.taken == []
    assert (await verify(Archive(store))).findings == []


async def test_what_another_run_left_is_swept_by_the_next(
    files: Path, source: TairSource, store: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    """Of instances that nobody lists any more, too, and of the whole archive; not where somebody
    is at work, of which no log warns."""
    serve(files, [INSTANCE])
    await pull(source, Archive(store), [everything()])
    staging = store.root / ".staging"
    for folder in (staging, staging / "r-gone", staging / "r-busy"):
        folder.mkdir(exist_ok=True)
        (folder / "0123456789abcdef.tmp").write_bytes(b"half a document")
    async with LocalStore(store.root).exclusive("r-busy"):
        await pull(source, Archive(store), [everything()])
        assert [path.name for path in staging.iterdir()] == ["r-busy"]
        assert len(list((staging / "r-busy").iterdir())) == 1
    assert sorted(store.taken_briefly) == [WHOLE, "r-gone"]
    assert "not swept" not in caplog.text


async def test_what_holders_left_that_may_be_alive_is_swept(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a reboot. They are watched at the same time; who is alive keeps its own."""
    async with Archive(store).writing(INSTANCE):
        pass
    staging, names = store.root / ".staging", ["r-busy", "r-gone", "r-lost"]
    for name in names:
        (staging / name).mkdir()
        (staging / name / "0123456789abcdef.tmp").write_bytes(b"half a document")
    for name in names[1:]:
        (store.root / ".locks" / name).write_text('{"host": "far", "pid": 1, "boot": "another"}')
    monkeypatch.setattr("archiver.stores.local.store.hold", functools.partial(hold, beat=0.05))
    watching, both = wait_until_gone, threading.Barrier(2)

    def watched(*given: Any) -> None:
        both.wait(30)
        watching(*given)

    monkeypatch.setattr("archiver.stores.local.lock._wait_until_gone", watched)
    with caplog.at_level("INFO", "archiver"):
        async with LocalStore(store.root).exclusive("r-busy"):
            await Archive(LocalStore(store.root)).tidy()
            assert [path.name for path in staging.iterdir()] == ["r-busy"]
    [logged] = [one.getMessage() for one in caplog.records]
    assert logged.startswith("what earlier runs left of r-busy was not removed: ")


async def test_watching_those_that_may_be_alive_comes_to_an_end(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Archive(store).writing("r-gone"):
        pass
    left = store.root / ".staging" / "r-gone" / "0123456789abcdef.tmp"
    left.parent.mkdir()
    left.write_bytes(b"half a document")
    (store.root / ".locks" / "r-gone").write_text('{"host": "far", "pid": 1, "boot": "another"}')
    monkeypatch.setattr("archiver.stores.local.store.hold", functools.partial(hold, beat=3600))
    monkeypatch.setattr("archiver.archive.archive._WATCHED_SECONDS", 0.1)
    with anyio.fail_after(60):
        await Archive(store).tidy()
    assert left.exists()


async def test_who_holds_a_lock_for_a_moment_is_waited_for(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sweeps what earlier runs left: nobody writes there."""
    monkeypatch.setattr("archiver.archive.archive._LOOK_SECONDS", 0.01)
    monkeypatch.setattr("archiver.archive.archive._MOMENT_SECONDS", 3600.0)
    refused = anyio.Event()

    class Looking(LocalStore):
        @asynccontextmanager
        async def exclusive(
            self, scope: str, *, watch: bool = True, briefly: bool = False
        ) -> AsyncGenerator[None, None]:
            try:
                async with super().exclusive(scope, watch=watch, briefly=briefly):
                    yield
            except ArchiveBusy:
                refused.set()
                raise

    async with Archive(store).writing(INSTANCE):
        pass
    async with anyio.create_task_group() as group, AsyncExitStack() as held:
        await held.enter_async_context(store.exclusive(INSTANCE, briefly=True))

        async def write() -> None:
            async with Archive(Looking(store.root)).writing(INSTANCE):
                pass

        group.start_soon(write)
        await refused.wait()
    async with store.exclusive(INSTANCE):
        with anyio.fail_after(30), pytest.raises(ArchiveBusy):
            await write()


async def test_a_sweep_that_fails_costs_no_run_its_summary(
    files: Path, source: TairSource, store: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    """What is called otherwise than an instance may be is nobody's leftover."""
    serve(files, [INSTANCE])
    await pull(source, Archive(store), [everything()])
    left = ["drills", "not an id", "r-bad", "r-gone"]
    for name in left:
        (store.root / ".staging" / name).mkdir(parents=True)
        (store.root / ".staging" / name / "0123456789abcdef.tmp").write_bytes(b"half a document")

    class Failing(LocalStore):
        async def sweep(self, scope: str) -> list[Leftover]:
            if scope == "r-bad":
                raise StoreError("the disk is gone")
            return await super().sweep(scope)

        async def leftovers(self) -> list[str]:
            if not left:
                raise StoreForbidden("nothing may be listed")
            return await super().leftovers()

    async def logged() -> list[str]:
        caplog.clear()
        assert (await pull(source, Archive(Failing(store.root)), [everything()])).exit_code == 0
        return [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]

    with caplog.at_level("WARNING", "archiver"):
        assert await logged() == [
            "what earlier runs left of r-bad was not removed: the disk is gone"
        ]
        assert {path.name for path in (store.root / ".staging").iterdir()} == {*left[:3]}
        assert {path.name for path in (store.root / ".locks").iterdir()} == {
            INSTANCE, "r-bad", "r-gone",
        }  # fmt: skip
        left.clear()
        assert await logged() == [
            "what earlier runs left of the archive was not removed: nothing may be listed"
        ]


@pytest.mark.parametrize("name", [*sorted(RESERVED), "../x", ""])
async def test_a_name_that_no_instance_may_have(
    source: TairSource, store: Watched, name: str
) -> None:
    """Its folder has another purpose, whose lock is the archive's."""
    with pytest.raises(UsageError, match="there is no instance"):
        await pull(source, Archive(store), [everything(name)])
    assert not store.root.exists()


async def test_a_copy_of_an_archive_is_not_locked(store: LocalStore, tmp_path: Path) -> None:
    """As ``cp -a`` or rsync makes it of an archive that is written to."""
    async with store.exclusive("r-a"), store.exclusive(WHOLE):
        shutil.copytree(store.root, tmp_path / "copy")
        made = LocalStore(tmp_path / "copy")
        async with made.exclusive("r-a"), made.exclusive(WHOLE):
            pass
        with pytest.raises(ArchiveBusy):
            async with LocalStore(store.root).exclusive("r-a"):
                pass


async def test_lock_files_are_as_many_as_instances(store: LocalStore) -> None:
    for _ in range(3):
        for scope in ("r-a", "r-b", WHOLE):
            async with store.exclusive(scope):
                pass
    left = {path.relative_to(store.root).as_posix() for path in store.root.rglob("*")}
    assert left == {".lock", ".locks", ".locks/r-a", ".locks/r-b", ".staging"}


async def test_what_a_lease_costs(odd: OddStore) -> None:  # noqa: F811
    """Of each further instance: its lease, what was left of it, and the lease given back."""
    archive = archive_on(odd)
    async with archive.writing("r-a"):
        pass
    odd.counts.clear()
    for name in NAMES:
        async with archive.writing(name):
            pass
    assert dict(odd.counts) == {
        "GetObject": 4 * len(NAMES),  # archive.json; the lease, before, after, and at the end
        "PutObject": len(NAMES),
        "ListObjectsV2": 2 * len(NAMES),
        "DeleteObject": len(NAMES),
    }
    assert [key for key in odd.objects if "lock" in key] == []


def test_scopes() -> None:
    assert {f"{name}/" for name in SHARED} == set(OWN_PREFIXES)
    assert SHARED <= RESERVED
    assert not needs_lock(results_key("r-a/2026/11"))
    assert not needs_lock(index_key("r-a/2026/11"))
    assert scope_of("r-a/2026/11/x") == "r-a"
    for key in ("archive.json", "drills/2026/x", "verified/r-a/2026-11.json", ".staging/r-a/x"):
        assert scope_of(key) == WHOLE


class FullForOne(LocalStore):
    """Has no room for the lock of ``NAMES[1]``, or for a document of it, while the file of
    ``NAMES[0]`` is under way: that one goes on once this was told."""

    def __init__(self, root: Path, full_for: str) -> None:
        super().__init__(root)
        self.full_for = full_for
        self.is_under_way, self.was_full = threading.Event(), threading.Event()

    @contextmanager
    def stage(
        self, stem: str, size: int, existing: Mapping[str, int] | None = None
    ) -> Generator[Staging, None, None]:
        if stem.startswith(NAMES[0]):
            self.is_under_way.set()
            self.was_full.wait()
        with super().stage(stem, size, existing) as staging:
            yield staging

    @asynccontextmanager
    async def exclusive(
        self, scope: str, *, watch: bool = True, briefly: bool = False
    ) -> AsyncGenerator[None, None]:
        if scope == NAMES[1]:
            await self.refuse("its lock")
        async with super().exclusive(scope, watch=watch, briefly=briefly):
            yield

    async def put(self, key: str, data: bytes) -> str:
        if key.startswith(NAMES[1]):
            await self.refuse(key.rpartition("/")[2])
        return await super().put(key, data)

    async def refuse(self, what: str) -> None:
        if what == self.full_for:
            await in_thread(self.is_under_way.wait)
            self.was_full.set()
            raise NoSpace("no inode is left")


@pytest.mark.parametrize("full_for", ["its lock", "SHA256SUMS"])
@pytest.mark.parametrize("by_copy", [False, True])
async def test_a_full_disk_ends_nothing_that_is_under_way(
    files: Path, source: TairSource, tmp_path: Path, by_copy: bool, full_for: str
) -> None:
    """That may still fit; nothing new is begun, and the run fails then."""
    serve(files, NAMES[:1], 3_000_000)
    serve(files, NAMES[1:2])
    queries = [everything(name) for name in NAMES[:2]]
    store, here = FullForOne(tmp_path / "archive", full_for), Archive(LocalStore(tmp_path / "here"))
    if by_copy:
        await pull(source, here, queries)
    run = copy(here, Archive(store)) if by_copy else pull(source, Archive(store), queries)
    with pytest.raises(NoSpace, match="no inode is left"):
        await run
    assert [path.stat().st_size for path in store.root.glob(f"{NAMES[0]}/*/*/*.rdb")] == [3_000_000]
    assert len(list(store.root.glob(f"{NAMES[0]}/*/*/*.json"))) == 1
