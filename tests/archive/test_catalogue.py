"""The catalogue spares reading records, and is never believed before them."""

import json
import os
import shutil
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from fractions import Fraction
from hashlib import sha256
from pathlib import Path

import pytest

from archiver import Archive, LocalStore, TairSource, VerifyOptions, pull, restore, verify
from archiver.archive import layout
from archiver.archive.backupsets import read_set
from archiver.archive.catalogue import read_catalogue
from archiver.archive.contents import results_below, view_month
from archiver.archive.folders import confirm_logs, list_folders
from archiver.archive.indexing import write_index
from archiver.commands.copy.difference import mismatches
from archiver.commands.copy.run import copy
from archiver.commands.copy.selection import Selection
from archiver.commands.drill import Wanted
from archiver.commands.drill.selection import choose_sets
from archiver.commands.ls.listing import Row, State, archived_rows
from archiver.commands.repair.from_archive import ArchiveSupplier
from archiver.commands.repair.run import repair
from archiver.commands.restore.choice import DamagedSet
from archiver.commands.verify.findings import Fault
from archiver.concurrency import in_thread
from archiver.errors import ArchiverError, StoreError
from archiver.stores.base import Entry
from examples.sample_rdb import rdb
from tests.archive.sample import copy_of, put_standard, put_sums, remove_lines, remove_node
from tests.conftest import INSTANCE, everything
from tests.verify.conftest import CLUSTER, DAYS, Pulled, forge


@pytest.fixture
def pulled(just_pulled: Pulled) -> Pulled:
    """With the catalogues that a pull wrote, for they are what is looked at here."""
    return just_pulled


class Counting(LocalStore):
    """Counts the documents that are read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.read_keys: list[str] = []

    async def read(self, key: str) -> bytes | None:
        self.read_keys.append(key)
        return await super().read(key)

    async def read_many(self, keys: Sequence[str]) -> Mapping[str, bytes | ArchiverError | None]:
        self.read_keys += keys
        return await super().read_many(keys)

    def of_sets(self) -> list[str]:
        """Of what was read, the records and SHA256SUMS."""
        return [
            key
            for key in self.read_keys
            if layout.is_of_a_set(key) or key == layout.sums_key(layout.month_of(key))
        ]


def indexes(root: Path) -> list[Path]:
    return sorted(root.glob("*/*/*/index.jsonl"))


async def index_anew(pulled: Pulled, path: Path) -> None:
    """Make a catalogue from the records of its month."""
    month, store = pulled.key(path.parent), LocalStore(pulled.root)
    await write_index(
        store, await view_month(store, month, await results_below(store, f"{month}/"))
    )


def edited(data: bytes, change: Callable[[list[list[object]]], object]) -> bytes:
    """A catalogue whose lines were changed by somebody who knows how it is made."""
    first, _, rest = data.partition(b"\n")
    lines = [json.loads(line) for line in rest.splitlines()]
    change(lines)
    rest = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    head = json.loads(first) | {"sha256": sha256(rest).hexdigest()}
    return json.dumps(head).encode() + b"\n" + rest


def edit_an_entry(pulled: Pulled, at: int, value: object) -> str:
    """Change one value in a cluster's catalogue; return its key."""
    path = next(p for p in indexes(pulled.root) if CLUSTER in str(p))

    def change(lines: list[list[object]]) -> None:
        assert isinstance(lines[0][1], list)
        lines[0][1][0][at] = value

    path.write_bytes(edited(path.read_bytes(), change))
    return pulled.key(path)


async def rows_of(root: Path) -> list[Row]:
    return await archived_rows(Archive(LocalStore(root)))


async def test_no_record_is_read_of_what_a_pull_wrote(pulled: Pulled) -> None:
    store = Counting(pulled.root)
    rows = await archived_rows(Archive(store))
    assert {row.state for row in rows} == {"archived"}
    assert [row.error for row in rows] == [None] * len(rows)
    assert len(rows) == 12
    assert store.of_sets() == []


async def test_a_pull_that_finds_nothing_new_reads_and_writes_none(
    pulled: Pulled, source: TairSource
) -> None:
    before = {path: path.stat().st_mtime_ns for path in indexes(pulled.root)}
    store = Counting(pulled.root)
    summary = await pull(source, Archive(store), [everything(CLUSTER)])
    assert (summary.exit_code, summary.archived) == (0, 0)
    assert store.of_sets() == []
    assert {path: path.stat().st_mtime_ns for path in indexes(pulled.root)} == before


async def test_two_archives_are_compared_by_their_catalogues(
    pulled: Pulled, tmp_path: Path
) -> None:
    other = Counting(tmp_path / "other")
    copied = await copy(pulled.archive, Archive(other))
    assert copied.failures == []
    here = Counting(pulled.root)
    other.read_keys.clear()
    assert [one async for one in mismatches(Archive(here), Archive(other), Selection())] == []
    assert (here.of_sets(), other.of_sets()) == ([], [])


async def test_a_catalogue_made_anew_is_the_same(pulled: Pulled) -> None:
    for path in indexes(pulled.root):
        made = path.read_bytes()
        path.unlink()
        await index_anew(pulled, path)
        assert path.read_bytes() == made


def hide_one(lines: list[list[object]]) -> None:
    del lines[0]


def invent_one(lines: list[list[object]]) -> None:
    _, records = lines[0]
    lines.append(["20261129T021500Z-99", records])


def rename_one(lines: list[list[object]]) -> None:
    lines[0][0] = "20261129T021500Z-99"


def changed(at: int, value: object) -> Callable[[bytes], bytes]:
    """With another value in the first record."""

    def change(lines: list[list[object]]) -> None:
        assert isinstance(lines[0][1], list)
        lines[0][1][0][at] = value

    return lambda data: edited(data, change)


def add_a_record(lines: list[list[object]]) -> None:
    assert isinstance(lines[0][1], list)
    invented = list(lines[0][1][0])
    invented[0] = f"{CLUSTER}-db-9-1"
    lines[0][1].append(invented)


ODD: dict[str, Callable[[bytes], bytes | None]] = {
    "deleted": lambda _: None,
    "empty": lambda _: b"",
    "cut": lambda data: data[: len(data) // 2],
    "cut between lines": lambda data: data[: data.rindex(b"\n", 0, -1) + 1],
    "no json": lambda data: data.replace(b"[", b"("),
    "a bit": lambda data: data[:-20] + bytes([data[-20] ^ 1]) + data[-19:],
    "another format": lambda data: data.replace(b'"format":1', b'"format":2'),
    "hides one": lambda data: edited(data, hide_one),
    "invents one": lambda data: edited(data, invent_one),
    "renames one": lambda data: edited(data, rename_one),
    "adds a record": lambda data: edited(data, add_a_record),
    "leaves a line out": changed(4, 0),
    "has no arrays": lambda data: edited(data, lambda lines: lines.__setitem__(0, [1, 2])),
    "starts in year 1": changed(8, -62_135_596_800_000_000),
    "starts in year 9999": changed(8, 253_402_300_799_000_000),
    "has short arrays": lambda data: edited(data, lambda lines: lines[0].pop()),
    "has other values": lambda data: edited(
        data, lambda lines: lines[0].__setitem__(1, [[None] * 14])
    ),
}


@pytest.mark.parametrize("name", ODD)
async def test_an_odd_catalogue_changes_nothing(name: str, pulled: Pulled) -> None:
    right = await rows_of(pulled.root)
    for path in indexes(pulled.root):
        data = ODD[name](path.read_bytes())
        if data is None:
            path.unlink()
        else:
            path.write_bytes(data)
    assert await rows_of(pulled.root) == right
    copied = await copy(pulled.archive, Archive(LocalStore(pulled.root.parent / "copied")))
    assert copied.exit_code == 0
    restored = await restore(pulled.archive, pulled.root.parent / "to", instance_id=CLUSTER)
    assert restored.backup_set.key in {row.set_key for row in right}
    found = await verify(pulled.archive)
    assert found.findings == []
    assert [path.exists() for path in indexes(pulled.root)] == [True, True]
    assert (await verify(pulled.archive)).notes == []  # it was made anew


async def test_a_catalogue_of_yesterday(pulled: Pulled, source: TairSource, vendor: Path) -> None:
    old = {path: path.read_bytes() for path in indexes(pulled.root)}
    newest = max((vendor / CLUSTER).rglob("*.rdb"))
    later = newest.with_name(newest.name.replace("20261124", "20261125"))
    shutil.copy(newest, later)
    summary = await pull(source, pulled.archive, [everything(CLUSTER)])
    assert summary.archived == 1
    right = await rows_of(pulled.root)
    for path, data in old.items():
        path.write_bytes(data)
    assert await rows_of(pulled.root) == right


@pytest.mark.parametrize(("at", "value"), [(10, 17), (11, "0" * 64), (5, "r-other"), (8, 0)])
async def test_a_verify_finds_what_was_edited(at: int, value: object, pulled: Pulled) -> None:
    key = edit_an_entry(pulled, at, value)
    found = await verify(pulled.archive)
    assert [(one.fault, one.key) for one in found.findings] == [(Fault.CATALOGUE, key)]
    assert found.exit_code == 3
    assert (await verify(pulled.archive)).findings == []


async def test_what_was_edited_and_is_a_witness_stays_until_a_repair(
    pulled: Pulled, tmp_path: Path
) -> None:
    """Where SHA256SUMS is gone, too. The advice said that it is made anew, and it was not."""
    other = Archive(LocalStore(tmp_path / "other"))
    assert (await copy(pulled.archive, other)).exit_code == 0
    key = edit_an_entry(pulled, 8, 0)
    pulled.sums().unlink()
    for _ in range(2):
        found = {one.key: one for one in (await verify(pulled.archive)).findings}
        assert found[key].fault is Fault.CATALOGUE
        assert found[key].advice.startswith("repair from another archive or the source")
    findings = await verify(pulled.archive)
    repaired = await repair(pulled.archive, findings, ArchiveSupplier(other))
    assert repaired.not_repaired == []
    assert (await verify(pulled.archive)).findings == []


class _CannotLookAgain(LocalStore):
    """A directory of which a month alone cannot be listed, the first time."""

    has_failed = False

    async def entries(self, prefix: str) -> AsyncGenerator[Entry, None]:
        if prefix.count("/") == 3 and not self.has_failed:
            self.has_failed = True
            raise StoreError("status 500")
        async for entry in super().entries(prefix):
            yield entry


async def test_a_verify_that_ended_early_leaves_what_was_edited(pulled: Pulled) -> None:
    """It has not reported it yet."""
    key = edit_an_entry(pulled, 10, 17)
    with pytest.raises(StoreError, match="status 500"):
        await verify(Archive(_CannotLookAgain(pulled.root)))
    found = await verify(pulled.archive)
    assert [(one.fault, one.key) for one in found.findings] == [(Fault.CATALOGUE, key)]


class _WrittenMeanwhile(LocalStore):
    """A directory in which somebody writes after a listing, and before SHA256SUMS is read."""

    write: Callable[[], object] | None = None

    async def read_many(self, keys: Sequence[str]) -> Mapping[str, bytes | ArchiverError | None]:
        if self.write is not None and any(key.endswith(layout.SUMS_NAME) for key in keys):
            write, self.write = self.write, None
            await in_thread(write)
        return await super().read_many(keys)


async def test_what_a_pull_writes_during_a_verify_is_not_an_edit(
    pulled: Pulled, tmp_path: Path
) -> None:
    after = copy_of(pulled.root, tmp_path / "after")
    put_standard(after, rdb(9), instance=INSTANCE, backup_id="77")
    store = _WrittenMeanwhile(pulled.root)
    store.write = lambda: shutil.copytree(after, pulled.root, dirs_exist_ok=True)
    assert (await verify(Archive(store))).findings == []
    assert store.write is None


@pytest.mark.parametrize("instance", [INSTANCE, CLUSTER])
@pytest.mark.parametrize("first", [-1, 0])
async def test_a_dump_that_a_catalogue_calls_a_log_is_chosen(
    first: int, instance: str, pulled: Pulled, tmp_path: Path
) -> None:
    """The newest, or all of them."""

    def change(lines: list[list[object]]) -> None:
        for line in lines[first:]:
            assert isinstance(line[1], list)
            for entry in line[1]:
                entry[9] = "incremental"

    path = next(p for p in indexes(pulled.root) if instance in p.parts)
    path.write_bytes(edited(path.read_bytes(), change))
    newest = pulled.set_key(pulled.objects(instance, DAYS[2])[0])
    done = await restore(pulled.archive, tmp_path / "to", instance_id=instance)
    assert (done.backup_set.key, done.exit_code) == (newest, 0)
    folders = await confirm_logs(pulled.archive, await list_folders(pulled.archive, [instance]))
    _, chosen = choose_sets(folders, Wanted(instances=(instance,)))
    assert [one.key for one in chosen] == [newest]


@pytest.mark.parametrize(("count", "lost"), [(7, 0), (2, 1)])
async def test_how_many_nodes_a_set_should_have_is_not_believed_of_a_catalogue(
    count: int, lost: int, pulled: Pulled, tmp_path: Path
) -> None:
    """Neither that the newest set, which has all three, lacks some, nor that it lacks none where
    one is gone."""

    def change(lines: list[list[object]]) -> None:
        assert isinstance(lines[-1][1], list)
        for entry in lines[-1][1]:
            entry[12:] = [count, "the source"]

    objects = pulled.objects(CLUSTER, DAYS[2])
    for path in objects[:lost]:
        path.unlink()
        path.with_suffix(".json").unlink()
        remove_lines(path)
    path = next(p for p in indexes(pulled.root) if CLUSTER in p.parts)
    path.write_bytes(edited(path.read_bytes(), change))
    expected = pulled.set_key(pulled.objects(CLUSTER, DAYS[1 if lost else 2])[0])
    [folder] = [
        f for f in await list_folders(pulled.archive) if f.key == pulled.set_key(objects[0])
    ]
    assert folder.expected is not None
    done = await restore(pulled.archive, tmp_path / "to", instance_id=CLUSTER)
    assert (done.backup_set.key, done.exit_code) == (expected, 0)


@pytest.mark.parametrize("called_logs", [slice(None), slice(2, 3)])
async def test_a_catalogue_does_not_hide_the_nodes_of_the_sets_around(
    called_logs: slice, pulled: Pulled
) -> None:
    """A set without the last node is not complete though a catalogue calls the dumps of the sets
    around it logs: all of them, or those of that node."""

    def change(lines: list[list[object]]) -> None:
        for line in (lines[0], lines[2]):
            assert isinstance(line[1], list)
            for entry in line[1][called_logs]:
                entry[9] = "incremental"

    remove_lines(lost := pulled.objects(CLUSTER, DAYS[1])[2])
    remove_node(lost)
    [path] = (path for path in indexes(pulled.root) if CLUSTER in path.parts)
    await index_anew(pulled, path)
    path.write_bytes(edited(path.read_bytes(), change))
    folders = await list_folders(pulled.archive, [CLUSTER])
    assert folders[1] in folders.looking_complete(CLUSTER)  # which is by the listing alone
    found = [await read_set(pulled.archive, folders[place], folders) for place in (1, 0, 2)]
    assert [one.state for one in found] == ["not complete", "complete", "complete"]


async def test_a_restore_reads_sha256sums_itself(pulled: Pulled, tmp_path: Path) -> None:
    """Object, record and catalogue were forged together; this alone was not."""
    path, sums = pulled.objects(INSTANCE, DAYS[2])[0], pulled.sums(INSTANCE)
    kept = sums.read_text()
    forge(path, bytes(path.stat().st_size))
    put_sums(path.parent)
    index = sums.with_name("index.jsonl")
    await index_anew(pulled, index)
    sums.write_text(kept)
    head, _, lines = index.read_bytes().partition(b"\n")
    store = LocalStore(pulled.root)
    [entry] = [
        e async for e in store.entries(f"{pulled.key(sums.parent)}/") if e.key.endswith("SUMS")
    ]
    stamped = json.loads(head) | {"sums": [entry.size, entry.version]}
    index.write_bytes(json.dumps(stamped).encode() + b"\n" + lines)
    [folder] = [
        one for one in await list_folders(pulled.archive) if one.key == pulled.set_key(path)
    ]
    assert folder.files.is_as_catalogued
    with pytest.raises(DamagedSet, match="SHA256SUMS says"):
        await restore(pulled.archive, tmp_path / "to", instance_id=INSTANCE)


async def test_a_record_that_was_edited_is_read(pulled: Pulled) -> None:
    path = pulled.objects()[0].with_suffix(".json")
    text = path.read_text()
    path.write_text(text.replace('"size"', '"sise"'))  # as many bytes
    rows = await rows_of(pulled.root)
    assert [row.state for row in rows if row.error is not None] == ["damaged"]


async def test_a_file_that_a_catalogue_does_not_know_is_listed(pulled: Pulled) -> None:
    """In a set of which it knows all else."""
    path = pulled.objects()[0]
    shutil.copy(path, path.with_name(f"{CLUSTER}-db-9-1.rdb"))
    rows = [row for row in await rows_of(pulled.root) if row.state is not State.ARCHIVED]
    assert [(row.node_id, row.state) for row in rows] == [(f"{CLUSTER}-db-9", State.UNRECORDED)]


async def test_what_a_catalogue_names_and_is_gone_is_noted(pulled: Pulled) -> None:
    [folder] = {one.parent for one in pulled.objects()}
    shutil.rmtree(folder)
    remove_lines(folder)
    found = await verify(pulled.archive)
    assert [note.key.endswith("index.jsonl") for note in found.notes] == [True]
    assert (found.exit_code, found.findings) == (0, [])  # somebody removed it


async def test_a_sample_reads_the_documents_of_what_it_reads(pulled: Pulled) -> None:
    store = Counting(pulled.root)
    from archiver.commands.verify.sample import Sample

    found = await verify(Archive(store), VerifyOptions(sample=Sample(Fraction(1, 100), 1)))
    assert (found.files, found.read, found.findings) == (12, 2, [])
    assert len({layout.set_of(key) for key in store.of_sets() if layout.is_record(key)}) == 2


async def test_a_copied_archive_is_read_once(pulled: Pulled, tmp_path: Path) -> None:
    shutil.copytree(pulled.root, tmp_path / "moved", copy_function=shutil.copyfile)
    store = Counting(tmp_path / "moved")
    assert await archived_rows(Archive(store)) == await rows_of(pulled.root)
    assert len(store.of_sets()) == 12 + 2


def test_what_is_not_a_catalogue_knows_nothing() -> None:
    assert read_catalogue("r-a/2026/11", b"{}\n", {}, None).named == frozenset()


async def test_records_that_change_places_are_read(pulled: Pulled) -> None:
    """They keep their sizes and times."""
    first, second = (path.with_suffix(".json") for path in pulled.objects()[:2])
    for path in (first, second):
        path.write_bytes(path.read_bytes().ljust(4000, b"\n"))
        os.utime(path, ns=(10**18, 10**18))
    for path in indexes(pulled.root):
        await index_anew(pulled, path)
    assert {row.state for row in await rows_of(pulled.root)} == {"archived"}
    kept = first.rename(first.with_name("kept"))
    second.rename(first)
    kept.rename(second)
    rows = await rows_of(pulled.root)
    assert len([row for row in rows if row.error is not None]) == 2


async def test_a_catalogue_goes_nowhere_with_its_folder(pulled: Pulled) -> None:
    """A rename keeps the sizes, times and inodes of all that is below it."""
    (pulled.root / CLUSTER).rename(pulled.root / "r-other")
    rows = [row for row in await rows_of(pulled.root) if row.instance_id == "r-other"]
    assert {row.state for row in rows} == {"damaged"}


@pytest.mark.parametrize("odd", ["a folder", "a link", "too large"])
async def test_a_catalogue_that_cannot_be_read_stops_nobody(
    odd: str, pulled: Pulled, source: TairSource, vendor: Path
) -> None:
    for path in indexes(pulled.root):
        data = path.read_bytes()
        path.unlink()
        if odd == "a folder":
            path.mkdir()
            (path / "x").touch()
        elif odd == "a link":
            path.symlink_to("elsewhere")
        else:
            path.write_bytes(data.ljust(2**21))
    newest = max((vendor / CLUSTER).rglob("*.rdb"))
    shutil.copy(newest, newest.with_name(newest.name.replace("20261124", "20261125")))
    summary = await pull(source, pulled.archive, [everything(CLUSTER)])
    assert (summary.archived, summary.failures) == (1, [])
    assert {row.state for row in await rows_of(pulled.root)} == {"archived"}


async def test_an_object_that_is_gone_is_reported_by_a_pull_of_others(
    pulled: Pulled, source: TairSource, vendor: Path
) -> None:
    """The set is sealed, and its catalogue knows all records of it."""
    lost = pulled.objects()[1]
    lost.unlink()
    for path in (vendor / CLUSTER / lost.name.rpartition("-")[0]).glob("*20261123*"):
        path.unlink()  # the vendor lists it no more
    summary = await pull(source, pulled.archive, [everything(CLUSTER)])
    assert any(f"{lost.name}: it is missing" in str(one) for one in summary.failures)


async def test_a_catalogue_hides_no_set_that_a_verify_saw(
    pulled: Pulled, offsite: Archive, tmp_path: Path
) -> None:
    """The newest set went with its lines, and the catalogue says that it never was."""
    await verify(pulled.archive)
    gone = pulled.objects(CLUSTER, DAYS[2])[0].parent
    remove_lines(gone)
    shutil.rmtree(gone)
    [index] = (path for path in indexes(pulled.root) if CLUSTER in path.parts)
    await index_anew(pulled, index)
    store = Counting(pulled.root)
    rows = [row for row in await archived_rows(Archive(store)) if row.state is State.DAMAGED]
    assert ({row.set_key for row in rows}, len(rows)) == ({pulled.key(gone)}, 3)
    assert store.of_sets() == []
    with pytest.raises(DamagedSet, match=gone.name):
        await restore(pulled.archive, tmp_path / "to", instance_id=CLUSTER)
    assert (await copy(pulled.archive, Archive(LocalStore(tmp_path / "new")))).exit_code == 3
    found = [one async for one in mismatches(pulled.archive, offsite, Selection())]
    assert {layout.set_of(one.key) for one in found} == {pulled.key(gone)}
