"""Only a cluster's set that is all here gets its lines: they say that it is complete."""

from collections.abc import AsyncGenerator, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from archiver import Archive, LocalStore, Query, TairSource, pull
from archiver.archive.backupsets import newest_first
from archiver.archive.consistency import apart
from archiver.archive.inventory import Inventory
from archiver.commands.pull import sets
from archiver.concurrency import in_thread
from archiver.errors import BackupFailed, IntegrityError, SourceError, StoreError
from archiver.model import Backup, BackupType, Page, Refused, Status, Stored, Transfer
from archiver.sources.alibaba.fields import SOURCE
from archiver.stores.base import Entry
from archiver.stores.commit import Commit
from examples.sample_rdb import write_rdb
from tests.conftest import everything

CLUSTER = "r-bp1cluster"
LAST = f"{CLUSTER}-db-2"
EARLIER = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def a_set(files: Path) -> None:
    for node in range(3):
        write_rdb(files / CLUSTER / f"{CLUSTER}-db-{node}" / "d_20261124031500.rdb", 9000, node)


class Without:
    """A source whose listing gives the last node's backup in another way, or not at all."""

    def __init__(self, source: TairSource, how: str) -> None:
        self.source = source
        self.how = how

    async def pages(self, query: Query) -> AsyncGenerator[Page, None]:
        async for page in self.source.pages(query):
            rest = tuple(one for one in page.backups if one.node_id != LAST)
            if self.how == "an id that can be none":
                [last] = [one for one in page.backups if one.node_id == LAST]
                yield replace(page, backups=(*rest, replace(last, backup_id="a-b")))
            elif self.how == "an entry that cannot be read":
                yield replace(page, backups=rest, refused=(Refused(BackupFailed("no BackupId")),))
            else:
                yield replace(page, backups=rest)
                raise SourceError("page 2: status 500")

    async def again(self, backup: Backup) -> Backup:
        return await self.source.again(backup)


async def states(archive: Archive) -> list[bool]:
    """Whether each set is complete, as far as a restore can tell."""
    return [one.is_complete async for one in newest_first(archive, CLUSTER)]


def has_lines(archive: Archive) -> bool:
    return bool(list(Path(str(archive.store)).rglob("SHA256SUMS")))


def nights_with_lines(archive: Archive) -> list[str]:
    """The days of the sets that SHA256SUMS names, once for each file."""
    sums = Path(str(archive.store)).rglob("SHA256SUMS")
    return [line.split()[1][6:8] for path in sums for line in path.read_text().splitlines()]


@pytest.mark.parametrize("how", ["an entry that cannot be read", "a page that does not come"])
async def test_what_could_not_be_listed_may_be_of_any_set(
    source: TairSource, archive: Archive, how: str
) -> None:
    for _ in range(2):
        summary = await pull(Without(source, how), archive, [everything(CLUSTER)])
        assert summary.exit_code != 0
        assert (has_lines(archive), await states(archive)) == (False, [False])
    assert (await pull(source, archive, [everything(CLUSTER)])).exit_code == 0
    assert await states(archive) == [True]
    sealed = await pull(Without(source, how), archive, [everything(CLUSTER)])
    assert (sealed.exit_code != 0, await states(archive)) == (True, [True])


class RefusingOne(Without):
    """Of the last night, the last node's backup cannot be used."""

    async def pages(self, query: Query) -> AsyncGenerator[Page, None]:
        error = BackupFailed("no BackupId")
        async for page in self.source.pages(query):
            one = max(page.backups, key=lambda one: (one.started_at, one.node_id))
            rest = tuple(other for other in page.backups if other != one)
            match self.how:
                case "its set is known":
                    yield replace(page, backups=rest, refused=(Refused(error, one.set_id),))
                case "its start is known":
                    late = one.started_at + timedelta(minutes=59)
                    refused = Refused(error, "77", late), Refused(error, None, EARLIER)
                    yield replace(page, backups=rest, refused=refused)
                case "an id that can be none":
                    yield replace(page, backups=(*rest, replace(one, backup_id="a-b")))
                case "a start without a zone":
                    start = one.started_at.replace(tzinfo=None)
                    yield replace(page, backups=(*rest, replace(one, started_at=start)))


@pytest.mark.parametrize(
    "how",
    [
        "its set is known", "its start is known", "an id that can be none",
        "a start without a zone",
    ],
)  # fmt: skip
async def test_an_entry_that_cannot_be_used_holds_its_own_set_back(
    source: TairSource, archive: Archive, files: Path, how: str
) -> None:
    for node in range(3):
        write_rdb(files / CLUSTER / f"{CLUSTER}-db-{node}" / "d_20261123031500.rdb", 9000, node)
    for _ in range(2):
        summary = await pull(RefusingOne(source, how), archive, [everything(CLUSTER)])
        assert (summary.exit_code, nights_with_lines(archive)) == (1, ["23"] * 3)
    assert (await pull(source, archive, [everything(CLUSTER)])).exit_code == 0
    assert nights_with_lines(archive) == ["23"] * 3 + ["24"] * 3


def take(listed: sets.ListedSets, set_key: str) -> None:
    """A set of one file was listed, and is here."""
    backup = Backup(SOURCE, CLUSTER, LAST, "1", "7", EARLIER, Status.SUCCESS, BackupType.FULL)
    transfer = Transfer(backup, set_key, f"{set_key}/{LAST}-1")
    listed.listed(transfer)
    listed.held(transfer, fresh=False)


def test_sets_are_compared_with_those_around_them_alone(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same id each night."""
    pairs = list[str]()

    def counted(key: str, start: datetime) -> timedelta | None:
        pairs.append(key)
        return apart(key, start)

    monkeypatch.setattr(sets, "apart", counted)
    listed = sets.ListedSets(archive, Inventory(archive.store))
    for night in range(50):
        start = EARLIER + timedelta(days=night)
        take(listed, f"{CLUSTER}/{start:%Y/%m/%Y%m%dT%H%M%SZ}-7")
    assert listed.lacking() == set()
    assert len(pairs) == 2 * 49


def test_a_set_that_was_listed_for_two_keys_is_not_whole_in_either(archive: Archive) -> None:
    listed = sets.ListedSets(archive, Inventory(archive.store))
    keys = [f"{CLUSTER}/2026/01/20260101T{clock}Z-7" for clock in ("000000", "000009", "130000")]
    for key in keys:
        take(listed, key)
    assert listed.lacking() == set(keys[:2])


async def test_several_queries_may_each_list_a_part_of_a_set(
    source: TairSource, archive: Archive
) -> None:
    class InTwo(Without):
        async def pages(self, query: Query) -> AsyncGenerator[Page, None]:
            async for page in self.source.pages(everything(CLUSTER)):
                is_second = query.start != everything(CLUSTER).start
                own = [one for one in page.backups if (one.node_id == LAST) == is_second]
                # The vendor says another size than the object of the last has.
                own = [replace(one, size=1) if is_second else one for one in own]
                yield replace(page, backups=tuple(own))

    queries = [everything(CLUSTER), replace(everything(CLUSTER), start="2026-11-24T03:15Z")]
    for order in (queries, queries[::-1]):
        summary = await pull(InTwo(source, ""), archive, order)
        assert (summary.exit_code, has_lines(archive)) == (3, False)
        assert await states(archive) == [False]


class Dropping(LocalStore):
    """Says that it has taken the last node's backup, and does not keep all of it."""

    suffixes: tuple[str, ...] = ()

    def finish(self, commits: Iterable[Commit]) -> list[Stored]:
        stored = super().finish(commits)
        for one in stored:
            for suffix in self.suffixes if LAST in one.key else ():
                (self.root / one.key).with_suffix(suffix).unlink()
        return stored


@pytest.mark.parametrize("suffixes", [(".rdb",), (".json",), (".rdb", ".json")])
async def test_a_set_of_which_the_store_dropped_a_node_has_no_lines(
    source: TairSource, tmp_path: Path, suffixes: tuple[str, ...]
) -> None:
    store = Dropping(tmp_path / "archive")
    store.suffixes = suffixes
    archive = Archive(store)
    summary = await pull(source, archive, [everything(CLUSTER)])
    assert [type(one.error) for one in summary.failures] == [StoreError]
    assert (has_lines(archive), await states(archive)) == (False, [False])
    store.suffixes = ()
    assert (await pull(source, archive, [everything(CLUSTER)])).exit_code == 0
    assert await states(archive) == [True]


async def test_what_goes_after_it_was_seen_is_missed(source: TairSource, archive: Archive) -> None:
    """It was held when the listing named it, and somebody removes it before the set is sealed."""
    root = Path(str(archive.store))
    await pull(source, archive, [everything(CLUSTER)])
    [sums] = root.rglob("SHA256SUMS")
    last = list(root.rglob(f"{LAST}-*"))
    for path in (sums, sums.with_name("index.jsonl")):
        path.unlink()

    class Losing(LocalStore):
        looks = 0

        async def entries(self, prefix: str) -> AsyncGenerator[Entry, None]:
            self.looks += prefix == f"{CLUSTER}/2026/11/"
            for path in last if self.looks > 1 else ():
                await in_thread(path.unlink, missing_ok=True)
            async for entry in super().entries(prefix):
                yield entry

    summary = await pull(source, Archive(Losing(root)), [everything(CLUSTER)])
    assert [type(one.error) for one in summary.failures] == [IntegrityError]
    assert (has_lines(archive), await states(archive)) == (False, [False])


class Lagging(LocalStore):
    """Does not list the last node's files yet; if it ``loses`` its record, that never comes."""

    loses = False

    async def entries(self, prefix: str) -> AsyncGenerator[Entry, None]:
        async for entry in super().entries(prefix):
            if LAST not in entry.key:
                yield entry

    async def size(self, key: str) -> int | None:
        is_lost = self.loses and LAST in key and key.endswith(".json")
        return None if is_lost else await super().size(key)


async def test_a_listing_that_lags_leaves_a_set_to_the_next_run(
    source: TairSource, tmp_path: Path
) -> None:
    store = Lagging(tmp_path / "archive")
    summary = await pull(source, Archive(store), [everything(CLUSTER)])
    assert (summary.exit_code, summary.archived) == (0, 3)
    archive = Archive(LocalStore(store.root))
    assert (has_lines(archive), await states(archive)) == (False, [False])
    summary = await pull(source, archive, [everything(CLUSTER)])
    assert (summary.exit_code, summary.archived, await states(archive)) == (0, 0, [True])


async def test_what_is_neither_listed_nor_there_is_missed(
    source: TairSource, tmp_path: Path
) -> None:
    store = Lagging(tmp_path / "archive")
    store.loses = True
    [failed] = (await pull(source, Archive(store), [everything(CLUSTER)])).failures
    assert "2 of 3 files are left" in str(failed.error)
