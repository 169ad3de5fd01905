"""Only a cluster's set that is all here gets its lines: they say that it is complete."""

from collections.abc import AsyncGenerator, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from archiver import Archive, LocalStore, Query, TairSource, pull
from archiver.archive.backupsets import newest_first
from archiver.concurrency import in_thread
from archiver.errors import BackupFailed, IntegrityError, SourceError, StoreError
from archiver.model import Backup, Page, Stored
from archiver.stores.base import Entry
from archiver.stores.commit import Commit
from examples.sample_rdb import write_rdb
from tests.conftest import everything

CLUSTER = "r-bp1cluster"
LAST = f"{CLUSTER}-db-2"


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
                yield replace(page, backups=rest, refused=(BackupFailed("no BackupId"),))
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


@pytest.mark.parametrize(
    "how", ["an id that can be none", "an entry that cannot be read", "a page that does not come"]
)
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
