"""Months of an archive that are asked about together."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path

import anyio
import pytest

from archiver import Archive, LocalStore, verify
from archiver.archive import verified
from archiver.commands.copy.difference import mismatches
from archiver.commands.copy.run import copy
from archiver.commands.copy.selection import Selection
from archiver.errors import ArchiverError
from archiver.stores.base import Entry
from examples.sample_rdb import rdb
from tests.archive.sample import put_backup, put_sums
from tests.conftest import INSTANCE

STARTS = ("20260921T021500Z", "20261022T021500Z", "20261123T021500Z")
MONTHS = [f"{INSTANCE}/{start[:4]}/{start[4:6]}" for start in STARTS]


class Together(LocalStore):
    """A directory in which one of these calls ends only when all of them have begun."""

    def __init__(self, root: Path, *listed: str, put: Sequence[str] = ()) -> None:
        super().__init__(root)
        self.listings: list[str] = []
        self.readings: list[Sequence[str]] = []
        self._waiting = {*listed, *put}
        self._all = anyio.Event()

    async def entries(self, prefix: str) -> AsyncGenerator[Entry, None]:
        self.listings.append(prefix)
        await self._meet(prefix)
        async for entry in super().entries(prefix):
            yield entry

    async def read_many(self, keys: Sequence[str]) -> Mapping[str, bytes | ArchiverError | None]:
        self.readings.append(keys)
        return await super().read_many(keys)

    async def put(self, key: str, data: bytes) -> str:
        await self._meet(key)
        return await super().put(key, data)

    async def _meet(self, name: str) -> None:
        if name in self._waiting:
            self._waiting.remove(name)
            if not self._waiting:
                self._all.set()
            with anyio.fail_after(10):
                await self._all.wait()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number, start in enumerate(STARTS, 100):
        made = put_backup(tmp_path / "archive", start, rdb(300), backup_id=f"{number}")
        put_sums(made.parent)
    return tmp_path / "archive"


async def test_a_short_instance_is_listed_once(root: Path, tmp_path: Path) -> None:
    target = Archive(Together(tmp_path / "second"))
    source = Archive(LocalStore(root))
    await copy(source, target)
    store = Together(tmp_path / "second")
    assert (await copy(source, Archive(store))).held == len(STARTS)
    assert [one for one in store.listings if one.startswith(INSTANCE)] == [f"{INSTANCE}/"]


async def test_months_of_a_long_one_are_listed_at_once(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("archiver.archive.contents._SHORT_LISTING", 3)
    source, second = Archive(LocalStore(root)), tmp_path / "second"
    await copy(source, Archive(LocalStore(second)))
    below = [f"{month}/" for month in MONTHS]
    store = Together(second, *below)
    assert (await copy(source, Archive(store))).held == len(STARTS)
    assert sorted(store.listings) == sorted(
        [f"{INSTANCE}/", *below, f"{verified.PREFIX}{INSTANCE}/"]
    )
    other = Archive(Together(second, *below))
    assert [one async for one in mismatches(source, other, Selection())] == []


@pytest.mark.parametrize("hidden", ["2026", "2026/10"])
async def test_what_a_folder_hides_is_seen(root: Path, tmp_path: Path, hidden: str) -> None:
    """However the months are listed: a link is in the place of some of them."""
    source, second = Archive(LocalStore(root)), tmp_path / "second"
    await copy(source, Archive(LocalStore(second)))
    folder = second / INSTANCE / hidden
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    found = [one async for one in mismatches(source, Archive(LocalStore(second)), Selection())]
    assert {one.error is not None for one in found if "rdb" in one.key} == {True}
    assert len([one for one in found if "rdb" in one.key]) == (3 if hidden == "2026" else 1)


async def test_verify_reads_records_and_keeps_results_at_once(root: Path) -> None:
    results = [verified.results_key(month) for month in MONTHS]
    store = Together(root, put=results)
    assert (await verify(Archive(store))).findings == []
    records = [keys for keys in store.readings if keys and keys[0].startswith(f"{MONTHS[0]}/2026")]
    assert len(records[0]) == len(MONTHS)  # the others are for the catalogues
    assert [key for key in results if await store.size(key)] == results
