"""What gets a line in SHA256SUMS, and what a run tells of what it has written."""

import hashlib
import json
import tracemalloc
from collections.abc import AsyncGenerator, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import orjson
import pytest

from archiver import Archive, LocalStore, TairSource, pull, verify
from archiver.archive import indexing, layout, sealing
from archiver.archive.contents import results_below, view_month
from archiver.archive.indexing import write_index
from archiver.archive.reading import at_odds, decode_record
from archiver.archive.sealing import SumsRepair, plan_seal
from archiver.archive.sums import recognized, unexplained
from archiver.archive.verified import Result
from archiver.commands.copy.difference import mismatches
from archiver.commands.copy.run import copy
from archiver.commands.copy.selection import Selection
from archiver.commands.ls.listing import State, archived_rows
from archiver.commands.repair.from_archive import ArchiveSupplier
from archiver.commands.repair.run import repair
from archiver.commands.restore.choice import DamagedSet
from archiver.commands.restore.run import restore
from archiver.errors import IntegrityError, StoreError, StoreForbidden, UnreadableObject
from archiver.model import Stored
from archiver.stores.base import Entry, OpenedObject
from archiver.stores.commit import Commit
from examples.sample_rdb import rdb, write_rdb
from tests.archive.sample import lines_of, remove_lines
from tests.conftest import INSTANCE, everything
from tests.stores.conformance import receipt_of
from tests.verify.conftest import CLUSTER, DAYS, Pulled, forge


def forged_under_another_suffix(path: Path) -> None:
    """Object and record say ``.aof``, and SHA256SUMS goes on naming the dump."""
    forge(path, rdb(20_000, 99))
    record = path.with_suffix(".json")
    document = json.loads(record.read_bytes()) | {"object": f"{path.stem}.aof", "kind": "aof"}
    record.write_bytes(orjson.dumps(document))
    path.rename(path.with_suffix(".aof"))


async def test_a_line_under_another_suffix_contradicts(pulled: Pulled, tmp_path: Path) -> None:
    [path] = pulled.objects(INSTANCE)
    before = pulled.sums(INSTANCE).read_bytes()
    forged_under_another_suffix(path)
    store, set_key = LocalStore(pulled.root), pulled.set_key(path)
    plan = await plan_seal(store, await view_month(store, layout.month_of(set_key), {}), {set_key})
    assert {key: type(error) for key, error in plan.failed.items()} == {set_key: IntegrityError}
    assert plan.data in (None, before)
    with pytest.raises(DamagedSet) as caught:
        await restore(pulled.archive, tmp_path / "to", set_key=pulled.set_key(path))
    assert any("SHA256SUMS says" in why for why in caught.value.damaged.damaged)
    there = Archive(LocalStore(tmp_path / "there"))
    assert (await copy(pulled.archive, there)).exit_code == 3
    assert not list((tmp_path / "there").rglob(f"{path.stem}*"))
    found = [one async for one in mismatches(pulled.archive, there, Selection())]
    assert pulled.set_key(path) in {layout.stem_of(one.key) for one in found}
    assert (await verify(pulled.archive)).exit_code == 3


@pytest.mark.parametrize("instance", [INSTANCE, CLUSTER])
@pytest.mark.parametrize("gone", ["the line", "the catalogue, too", "everything but verified/"])
async def test_what_a_verify_contradicts_gets_no_line(
    instance: str, gone: str, pulled: Pulled, source: TairSource, offsite: Archive, tmp_path: Path
) -> None:
    """Object and record were forged, and the line is gone: with a line that follows from the
    record, two witnesses would outvote the verify."""
    assert (await verify(pulled.archive)).exit_code == 0
    path, sums = pulled.objects(instance)[-1], pulled.sums(instance)
    store, month = LocalStore(pulled.root), layout.month_of(pulled.key(path))
    view = await view_month(store, month, await results_below(store, ""))
    await write_index(store, view)  # nobody needs to look at the results after this
    forge(path, rdb(path.stat().st_size, 99))
    remove_lines(path)
    if gone != "the line":
        sums.with_name(layout.INDEX_NAME).unlink()
    if gone == "everything but verified/":
        sums.unlink()
    for come in (
        pull(source, pulled.archive, [everything(instance)]),
        copy(offsite, pulled.archive),
    ):
        assert (await come).exit_code == 3
        assert not sums.exists() or pulled.name(path) not in sums.read_text()
    copied = await copy(pulled.archive, Archive(LocalStore(tmp_path / "copied")))
    assert copied.exit_code == 3
    assert not list((tmp_path / "copied").rglob(path.name))
    found = {one.key: one for one in (await verify(pulled.archive)).findings}
    mended = await repair(pulled.archive, await verify(pulled.archive), ArchiveSupplier(offsite))
    assert (pulled.key(path) in found, mended.exit_code) == (True, 0)
    assert (await verify(pulled.archive)).exit_code == 0


async def test_a_line_and_a_record_that_agree_outvote_a_verify(
    pulled: Pulled, source: TairSource
) -> None:
    """The results were edited. What lacks its line in the same set gets it."""
    assert (await verify(pulled.archive)).exit_code == 0
    first, second = pulled.objects()[:2]
    [results] = pulled.root.glob(f"verified/{CLUSTER}/*.json")
    results.write_text(results.read_text().replace(lines_of(first)[pulled.name(first)], "0" * 64))
    before = pulled.sums().read_bytes()
    remove_lines(second)
    assert (await pull(source, pulled.archive, [everything(CLUSTER)])).exit_code == 0
    assert pulled.sums().read_bytes() == before


async def test_no_line_is_taken_from_a_catalogue(pulled: Pulled, source: TairSource) -> None:
    """It is edited, and says other bytes of a backup that has no line yet."""
    [path] = pulled.objects(INSTANCE)
    right = lines_of(path)
    remove_lines(path)
    index = pulled.root / layout.index_key(layout.month_of(pulled.key(path)))
    head, _, rest = index.read_bytes().partition(b"\n")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest().encode()
    assert sha256 in rest
    rest = rest.replace(sha256, b"0" * 64)
    said = orjson.loads(head) | {"sha256": hashlib.sha256(rest).hexdigest()}
    index.write_bytes(orjson.dumps(said) + b"\n" + rest)
    assert (await pull(source, pulled.archive, [everything()])).exit_code == 0
    assert lines_of(path) == right


@pytest.mark.parametrize("kept", [0, 4096])
async def test_what_contradicts_its_line_is_reported_however_many_were_written(
    pulled: Pulled, source: TairSource, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    monkeypatch.setattr(indexing, "_MOST_KEPT", kept)
    [path] = pulled.objects(INSTANCE)
    for one in (path, path.with_suffix(".json")):
        one.unlink()
    sums = pulled.sums(INSTANCE)
    sums.write_text(sums.read_text().replace(lines_of(path)[path.name], "0" * 64))
    summary = await pull(source, pulled.archive, [everything()])
    assert [type(failed.error) for failed in summary.failures] == [IntegrityError]


async def test_records_are_read_a_few_at_a_time(
    pulled: Pulled, source: TairSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same lines and catalogues, whatever is read at once."""
    before = {path: path.read_bytes() for path in pulled.root.rglob("SHA256SUMS")}
    for one in (sealing, indexing):
        monkeypatch.setattr(one, "_SETS_AT_ONCE", 1)
    for path in [*before, *pulled.root.rglob(layout.INDEX_NAME)]:
        path.unlink()
    queries = [everything(), everything(CLUSTER)]
    assert (await pull(source, pulled.archive, queries)).exit_code == 0
    assert {path: path.read_bytes() for path in before} == before
    assert (await verify(pulled.archive)).exit_code == 0


async def test_a_sha256sums_that_is_not_listed_is_not_overwritten(pulled: Pulled) -> None:
    """Some stores list late. What it names it goes on naming."""

    class Late(LocalStore):
        async def entries(self, prefix: str) -> AsyncGenerator[Entry, None]:
            async for entry in super().entries(prefix):
                if not entry.key.endswith("SHA256SUMS"):
                    yield entry

    store, month = Late(pulled.root), layout.month_of(pulled.key(pulled.sums()))
    plan = await plan_seal(store, await view_month(store, month, {}))
    assert plan.data in (None, pulled.sums().read_bytes())


async def test_a_repair_keeps_the_lines_of_other_files(pulled: Pulled) -> None:
    """Somebody's notes beside the backups, which are there and right."""
    sums = pulled.sums(INSTANCE)
    notes = sums.with_name("notes.txt")
    notes.write_text("mine")
    line = f"{hashlib.sha256(b'mine').hexdigest()}  notes.txt\n"
    sums.write_text(sums.read_text() + line)
    remove_lines(pulled.objects(INSTANCE, DAYS[2])[0])
    store, month = LocalStore(pulled.root), layout.month_of(pulled.key(sums))
    view = await view_month(store, month, {})
    plan = await plan_seal(store, view, set(view.listed.sets), repair=SumsRepair(knows_all=True))
    assert plan.data is not None
    assert line in plan.data.decode()


def test_many_damaged_lines_are_compared_quickly() -> None:
    """As after a tool that wrote them in capitals: each with each would take hours."""
    names = {
        f"20261122T{number:06}Z-{number}.rdb": hashlib.sha256(str(number).encode()).hexdigest()
        for number in range(20_000)
    }
    lines = [f"{sha256}  {name}".upper() for name, sha256 in names.items()]
    assert recognized(lines, names) == set()
    assert len(unexplained(lines, names).lines) == len(lines)
    nearly = [f"{sha256[:-3]}xyz  {name}" for name, sha256 in names.items()]
    assert recognized(nearly, names) == set(names)
    assert unexplained(nearly, names).lines == ()


async def test_what_cannot_be_read_keeps_its_record(pulled: Pulled) -> None:
    """Nobody knows whether it is what was written: the object may be the only copy."""
    [path] = pulled.objects(INSTANCE)
    key, data = pulled.key(path), path.read_bytes()

    class Unread(LocalStore):
        async def entries(self, prefix: str) -> AsyncGenerator[Entry, None]:
            async for entry in super().entries(prefix):
                if entry.key != key:
                    yield entry

        @contextmanager
        def open(self, key: str) -> Generator[OpenedObject, None, None]:
            if key.endswith(".rdb"):
                raise UnreadableObject(f"{key}: Input/output error")
            with super().open(key) as opened:
                yield opened

    store, record = Unread(pulled.root), path.with_suffix(".json")
    index = indexing.Indexing(store)
    documents = [(pulled.key(record), record.read_bytes())]
    index.wrote(Stored(key, receipt_of(data), documents=documents))
    async with store.exclusive(INSTANCE):
        with pytest.raises(UnreadableObject):
            await index.check(layout.month_of(key))
    assert record.exists()
    view = await index.view(layout.month_of(key))
    assert not index.known(view)  # they are read back, not taken from memory


async def test_a_record_that_was_written_twice_is_compared_with_the_last(pulled: Pulled) -> None:
    [path] = pulled.objects(INSTANCE)
    key, record = pulled.key(path), path.with_suffix(".json")
    index = indexing.Indexing(LocalStore(pulled.root))
    for data in (record.read_bytes() + b"\n", record.read_bytes()):
        documents = [(pulled.key(record), data)]
        index.wrote(Stored(key, receipt_of(path.read_bytes()), documents=documents))
    assert await index.check(layout.month_of(key)) == {}
    assert list(index.known(await index.view(layout.month_of(key)))) == [pulled.key(record)]
    assert record.exists()


def test_a_record_is_compared_with_what_is_said_of_its_own_object(pulled: Pulled) -> None:
    """A month's results may be many thousand: they are not gone through for each record."""

    class Results(dict[str, Result]):
        def items(self) -> NoReturn:
            raise AssertionError

    path = pulled.objects(INSTANCE)[0].with_suffix(".json")
    record = decode_record(pulled.key(path), path.read_bytes())
    key = record.object_key
    assert at_odds(record, {}, Results({key: Result(sha256=record.sha256)})) is None
    assert "an earlier verify saw 0" in str(at_odds(record, {}, Results({key: Result(sha256="0")})))


class Hiding(LocalStore):
    """Neither lists nor reads SHA256SUMS, which is there, while it ``hides`` it."""

    hides = True

    async def entries(self, prefix: str) -> AsyncGenerator[Entry, None]:
        async for entry in super().entries(prefix):
            if not (self.hides and entry.key.endswith("/SHA256SUMS")):
                yield entry

    async def read(self, key: str) -> bytes | None:
        return None if self.hides and key.endswith("/SHA256SUMS") else await super().read(key)


@pytest.mark.parametrize("instance", [INSTANCE, CLUSTER])
async def test_a_sha256sums_that_the_store_hides_is_not_written_anew(
    instance: str, pulled: Pulled, vendor: Path, source: TairSource, tmp_path: Path
) -> None:
    """The catalogue remembers it, for as long as it takes: a new one would lack what it names."""
    sums = pulled.sums(instance)
    before, key = sums.read_bytes(), pulled.key(sums)
    for path in list((vendor / instance).rglob(f"d_{DAYS[2]}*.rdb")):
        write_rdb(path.with_name(path.name.replace(DAYS[2], "20261125")), 9_000)
    store = Hiding(pulled.root)
    for _ in range(2):
        summary = await pull(source, Archive(store), [everything(instance)])
        assert (key, summary.exit_code) in [(one.subject, 3) for one in summary.failures]
        assert sums.read_bytes() == before
        found = await verify(Archive(store))
        assert (found.exit_code, key in {one.key for one in found.findings}) == (3, True)
        assert sums.read_bytes() == before
    copied = await copy(Archive(store), Archive(LocalStore(tmp_path / "copied")))
    assert copied.exit_code == 3
    store.hides = False
    assert (await pull(source, Archive(store), [everything(instance)])).exit_code == 0
    assert set(before.splitlines()) < set(sums.read_bytes().splitlines())
    assert (await verify(Archive(store))).findings == []


class Forgetting(LocalStore):
    """Says that it has replaced a record, and keeps the one that was there."""

    def finish(self, commits: Iterable[Commit]) -> list[Stored]:
        records = {path: path.read_bytes() for path in self.root.glob("*/*/*/*.json")}
        stored = super().finish(commits)
        for path, data in records.items():
            path.write_bytes(data)
        return stored


@pytest.mark.parametrize("kept", [0, 4096])
async def test_a_record_that_the_store_did_not_replace_is_missed(
    pulled: Pulled, source: TairSource, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    """It has the size of the new one, so that only its bytes tell, or its version."""
    monkeypatch.setattr(indexing, "_MOST_KEPT", kept)
    record = pulled.objects(INSTANCE)[0].with_suffix(".json")
    record.write_bytes(record.read_bytes().replace(b'"format": 2', b'"format": X'))
    summary = await pull(source, Archive(Forgetting(pulled.root)), [everything()])
    assert [type(failed.error) for failed in summary.failures] == [StoreError]
    rows = [row for row in await archived_rows(pulled.archive) if row.state is State.DAMAGED]
    assert (len(rows), summary.exit_code, record.exists()) == (1, 6, False)
    assert (await pull(source, pulled.archive, [everything()])).archived == 1
    assert (await verify(pulled.archive)).exit_code == 0


async def test_a_key_that_may_not_delete_ends_no_run_at_a_record_that_was_not_kept(
    vendor: Path, source: TairSource, tmp_path: Path
) -> None:
    class Zeros(LocalStore):
        async def move_to_quarantine(self, key: str) -> str:
            raise StoreForbidden(f"{key}: this access key may not delete it")

        def finish(self, commits: Iterable[Commit]) -> list[Stored]:
            stored = super().finish(commits)
            for path in self.root.glob(f"{CLUSTER}/*/*/{DAYS[1]}*/*-db-1-*.json"):
                path.write_bytes(bytes(path.stat().st_size))
            return stored

    archive = Archive(Zeros(tmp_path / "archive"))
    summary = await pull(source, archive, [everything(CLUSTER), everything(INSTANCE)])
    assert {type(failed.error) for failed in summary.failures} >= {StoreError}
    assert {DAYS[1] in failed.subject for failed in summary.failures} == {True}
    assert summary.exit_code == 6
    sums = [path.read_text() for path in (tmp_path / "archive").glob("*/*/*/SHA256SUMS")]
    assert [DAYS[1] in text for text in sorted(sums, key=len)] == [True, False]


async def test_a_sha256sums_that_the_store_does_not_keep_is_missed(
    pulled: Pulled, source: TairSource
) -> None:
    class Zeros(LocalStore):
        async def put(self, key: str, data: bytes) -> str:
            is_sums = key.endswith("/SHA256SUMS")
            return await super().put(key, bytes(len(data)) if is_sums else data)

    remove_lines(pulled.objects(INSTANCE)[0])
    summary = await pull(source, Archive(Zeros(pulled.root)), [everything()])
    [failed] = summary.failures
    assert (failed.subject, summary.exit_code) == (pulled.key(pulled.sums(INSTANCE)), 6)


def test_what_is_kept_of_each_backup_that_was_written_is_small(tmp_path: Path) -> None:
    index, count = indexing.Indexing(LocalStore(tmp_path)), 9000
    receipt = receipt_of(b"")

    def write(first: int) -> None:
        for number in range(first, first + count):
            stem = f"{CLUSTER}/2026/11/20261101T000000Z-{number // 16}/{CLUSTER}-db-1-{number}"
            versions = {f"{stem}.json": f"18abcdef-{number}"}
            documents = [(f"{stem}.json", b"{}")]
            index.wrote(Stored(f"{stem}.rdb", receipt, (), versions, documents))

    write(0)  # those whose records are kept, too
    tracemalloc.start()
    try:
        write(count)
        assert tracemalloc.get_traced_memory()[0] < 250 * count
    finally:
        tracemalloc.stop()
