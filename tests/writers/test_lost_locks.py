"""A lock that is lost while it is held fails its instance, and no other."""

import json
import threading
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from anyio import to_thread

from archiver import (
    Archive,
    LocalStore,
    PullOptions,
    Summary,
    TairSource,
    TransferOptions,
    pull,
    verify,
)
from archiver.commands.copy.run import copy
from archiver.commands.copy.selection import CopyOptions
from archiver.commands.repair.from_archive import ArchiveSupplier
from archiver.commands.repair.from_source import SourceSupplier
from archiver.commands.repair.run import Supplier, repair
from archiver.commands.verify.model import VerifyOptions
from archiver.errors import LockLost
from archiver.events import Event, Planned
from archiver.model import Part, Stored
from archiver.stores.base import Staging, Store
from archiver.stores.commit import Commit
from archiver.stores.s3 import S3Options, S3Store
from archiver.stores.s3.lease import Lease
from archiver.stores.scope import scope_of
from examples.sample_rdb import rdb, write_rdb
from tests.conftest import QUICK, everything
from tests.servers.seaweedfs import SeaweedFS

MIB = 2**20
FIRST, LOST, LAST = NAMES = [f"r-bp1{letter * 13}" for letter in "abc"]
# One file, one connection: the parts come one after the other.
TRANSFER = TransferOptions(part_size=5 * MIB, connections=1, retry=QUICK)
PULL = PullOptions(workers=1, transfer=TRANSFER)
COPY = CopyOptions(workers=1, transfer=TRANSFER)
QUERIES = [everything(name) for name in NAMES]
NEWCOMER = {"host": "other", "pid": 1, "name": "newcomer", "beat": 1}


@dataclass
class Place:
    """Where an archive is. ``take_away`` removes the lock of an instance."""

    make: Callable[[], Store]
    take_away: Callable[[], object]
    keys: Callable[[], list[str]]
    read: Callable[[str], bytes]
    write: Callable[[str, bytes], object]
    then: Mapping[str, bytes] | None = None
    staged: list[str] = field(default_factory=list)

    def of_the_lost(self) -> dict[str, bytes]:
        """What there is of it, but for its lock and for bytes that no journal counts yet."""
        beside = (f".staging/{LOST}/lock", f".locks/{LOST}", ".data")
        return {
            key: self.read(key)
            for key in self.keys()
            if LOST in key and not key.endswith(beside) and not key.startswith("verified/")
        }

    def lose(self, store: Store) -> None:
        """Take its lock away, and wait until the store knows. Blocks."""
        self.take_away()
        if isinstance(store, S3Store):
            lease = store._leases[LOST]
            assert isinstance(lease, Lease)
            while lease._lost is None:
                lease._stop.wait(0.01)
        self.then = self.of_the_lost()

    def losing(self) -> Store:
        """A store whose lock is lost once the first part of a file of the instance is saved."""
        store = self.make()
        stage = store.stage

        @contextmanager
        def staged(
            stem: str, size: int, existing: Mapping[str, int] | None = None
        ) -> Generator[Staging, None, None]:
            self.staged.append(stem)
            with stage(stem, size, existing) as staging:
                if scope_of(stem) == LOST:
                    save_part = staging.save_part

                    def save_and_lose(part: Part, crc: int, so_far: int | None = None) -> None:
                        save_part(part, crc, so_far)
                        if so_far is None and self.then is None:
                            self.lose(store)

                    staging.save_part = save_and_lose  # type: ignore[method-assign]
                yield staging

        store.stage = staged  # type: ignore[method-assign]
        return store


@pytest.fixture
def directory(tmp_path: Path) -> Place:
    root = tmp_path / "archive"
    return Place(
        lambda: LocalStore(root),
        (root / ".locks" / LOST).unlink,
        lambda: [p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()],
        lambda key: (root / key).read_bytes(),
        lambda key, data: (root / key).write_bytes(data),
    )


def in_bucket(seaweed: SeaweedFS, bucket: str, *, deleted: bool) -> Place:
    client, lease = seaweed.client(), f"redis/.staging/{LOST}/lock"

    def take_away() -> None:
        if deleted:
            client.delete_object(Bucket=bucket, Key=lease)
        else:
            client.put_object(Bucket=bucket, Key=lease, Body=json.dumps(NEWCOMER).encode())

    return Place(
        lambda: S3Store(f"s3://{bucket}/redis", S3Options(endpoint=seaweed.endpoint), beat=0.2),
        take_away,
        lambda: [key.removeprefix("redis/") for key in seaweed.objects(bucket)],
        lambda key: seaweed.content(bucket, f"redis/{key}"),
        lambda key, data: client.put_object(Bucket=bucket, Key=f"redis/{key}", Body=data),
    )


@pytest.fixture(params=["directory", "deleted", "taken over"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Place:
    if request.param == "directory":
        found: Place = request.getfixturevalue("directory")
        return found
    request.getfixturevalue("s3_writer")
    monkeypatch.setattr("archiver.stores.s3.upload._JOURNAL_SECONDS", 0.0)
    given = request.getfixturevalue("seaweed"), request.getfixturevalue("bucket")
    return in_bucket(*given, deleted=request.param == "deleted")


@pytest.fixture
def large(files: Path) -> Path:
    """Of each instance two backups of two parts."""
    made = {day: rdb(6 * MIB, day) for day in (22, 23)}
    for name in NAMES:
        (files / name).mkdir()
        for day, data in made.items():
            (files / name / f"a_202611{day}021500.rdb").write_bytes(data)
    return files


async def assert_lost_alone(place: Place, summary: Summary) -> None:
    """It is named, nothing was written for it since, and the others are whole."""
    [failed] = summary.failures
    assert isinstance(failed.error, LockLost)
    assert (failed.subject, failed.backup, summary.exit_code) == (LOST, None, 7)
    assert await to_thread.run_sync(place.of_the_lost) == place.then
    assert [scope_of(stem) for stem in place.staged].count(LOST) == 1
    kept = await to_thread.run_sync(place.keys)
    for name in (FIRST, LAST):
        months = [key.rpartition("/")[2] for key in kept if key.startswith(f"{name}/")]
        assert {"SHA256SUMS", "index.jsonl"} < set(months)
        assert len(months) == 2 * 2 + 2
    others = VerifyOptions(instances=(FIRST, LAST))
    assert (await verify(Archive(place.make()), others)).findings == []


async def assert_whole(place: Place, again: Summary) -> None:
    """A later run went on with what the lost one had saved."""
    assert (again.failures, again.archived, again.exit_code) == ([], 2, 0)
    assert sum(again.bytes_fetched.values()) < 2 * 6 * MIB - 4 * MIB
    assert (await verify(Archive(place.make()))).findings == []
    staged = [key for key in await to_thread.run_sync(place.of_the_lost) if key.startswith(".")]
    assert staged == []


async def test_in_a_pull(large: Path, source: TairSource, place: Place) -> None:
    store = await to_thread.run_sync(place.losing)
    summary = await pull(source, Archive(store), QUERIES, PULL)
    assert (summary.archived, summary.planned) == (4, 6)
    await assert_lost_alone(place, summary)
    again = await pull(source, Archive(place.make()), QUERIES, PULL)
    await assert_whole(place, again)


async def test_in_a_copy(large: Path, source: TairSource, place: Place, tmp_path: Path) -> None:
    first = Archive(LocalStore(tmp_path / "first"))
    await pull(source, first, QUERIES, PULL)
    store = await to_thread.run_sync(place.losing)
    summary = await copy(first, Archive(store), COPY)
    assert summary.archived == 4
    await assert_lost_alone(place, summary)
    again = await copy(first, Archive(place.make()), COPY)
    assert (again.failures, again.archived, again.held, again.exit_code) == ([], 2, 4, 0)
    assert (await verify(Archive(place.make()))).findings == []


@pytest.mark.parametrize("of_the_source", [False, True])
async def test_in_a_repair(
    large: Path, source: TairSource, place: Place, tmp_path: Path, *, of_the_source: bool
) -> None:
    """What is damaged of it stays as it is, and is named."""
    other = Archive(LocalStore(tmp_path / "other"))
    await pull(source, other, QUERIES, PULL)
    await pull(source, Archive(place.make()), QUERIES, PULL)
    keys = await to_thread.run_sync(place.keys)
    damaged = sorted(key for key in keys if key.endswith(".rdb"))[::2]
    for key in damaged:
        data = await to_thread.run_sync(place.read, key)
        await to_thread.run_sync(place.write, key, data[:-500] + bytes(500))
    supplier: Supplier = ArchiveSupplier(other, TRANSFER)
    if of_the_source:
        supplier = SourceSupplier(source, TRANSFER)
    archive = Archive(await to_thread.run_sync(place.losing))
    summary = await repair(archive, await verify(archive), supplier)
    assert sorted(one.key for one in summary.repaired) == [damaged[0], damaged[2]]
    [failed] = summary.not_repaired
    assert isinstance(failed.error, LockLost)
    assert failed.key == damaged[1].removesuffix(".rdb")
    assert await to_thread.run_sync(place.of_the_lost) == place.then
    found = await verify(Archive(place.make()))
    assert [one.key for one in found.findings] == [damaged[1]]
    again = await repair(Archive(place.make()), found, supplier)
    assert (again.findings, again.not_repaired) == ([], [])


async def test_before_the_sums_are_written(
    large: Path, source: TairSource, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it came, and the next run names it."""
    store = place.make()
    put = store.put

    async def lose_and_put(key: str, data: bytes) -> str:
        if key.startswith(LOST) and place.then is None:
            await to_thread.run_sync(place.lose, store)
        return await put(key, data)

    monkeypatch.setattr(store, "put", lose_and_put)
    summary = await pull(source, Archive(store), QUERIES, PULL)
    assert summary.archived == 6
    place.staged.append(LOST + "/")
    await assert_lost_alone(place, summary)
    again = await pull(source, Archive(place.make()), QUERIES, PULL)
    assert (again.held, again.exit_code) == (6, 0)
    assert (await verify(Archive(place.make()))).findings == []


async def test_in_a_batch_of_small_files(
    files: Path, source: TairSource, directory: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are committed together; those of the others come by themselves then."""
    for number, name in enumerate(NAMES):
        (files / name).mkdir()
        for day in (22, 23):
            write_rdb(files / name / f"a_202611{day}021500.rdb", 3_000, number)
    store, planned, all_planned = directory.make(), list[Event](), threading.Event()
    assert isinstance(store, LocalStore)
    finish = store.finish

    def observe(event: Event) -> None:
        if isinstance(event, Planned):
            planned.append(event)
        if len(planned) == 6:
            all_planned.set()

    def lose_and_finish(commits: Iterable[Commit]) -> list[Stored]:
        assert all_planned.wait(60)  # the next batch has all that is left
        if directory.then is None and any(scope_of(stem) == LOST for stem in store._stems):
            directory.lose(store)
        return finish(commits)

    monkeypatch.setattr(store, "finish", lose_and_finish)
    summary = await pull(source, Archive(store), QUERIES, PULL, observe)
    assert summary.archived == 4
    assert directory.then is not None
    directory.staged.append(f"{LOST}/")
    await assert_lost_alone(directory, summary)
    again = await pull(source, Archive(directory.make()), QUERIES, PULL)
    assert (again.archived, again.exit_code) == (2, 0)
    assert (await verify(Archive(directory.make()))).findings == []
