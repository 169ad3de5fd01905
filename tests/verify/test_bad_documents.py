"""One bad document: it is named, all else goes on, and a repair ends it."""

import json
import os
import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from archiver import Archive, LocalStore, TairSource, pull, restore, verify
from archiver import events as pull_events
from archiver.archive import layout
from archiver.archive.backupsets import read_set
from archiver.archive.contents import view_month
from archiver.archive.folders import list_folders
from archiver.archive.sealing import SealPlan, plan_seal
from archiver.commands.copy.difference import mismatches
from archiver.commands.copy.run import copy
from archiver.commands.copy.selection import Selection
from archiver.commands.ls.listing import State, archived_rows
from archiver.commands.repair.from_archive import ArchiveSupplier
from archiver.commands.repair.from_source import SourceSupplier
from archiver.commands.repair.run import repair
from archiver.commands.verify import events
from archiver.commands.verify.findings import Fault
from archiver.concurrency import in_thread
from archiver.errors import ArchiverError, DamagedArchive, UnreadableObject
from examples.sample_rdb import rdb
from tests.archive.sample import (
    CLUSTER,
    INSTANCE,
    STARTS,
    ReadsOneByOne,
    change_record,
    copy_of,
    lines_of,
    put_cluster,
    put_standard,
    remove_lines,
    sums_of,
)
from tests.conftest import everything
from tests.verify.conftest import Pulled

FILES = 6
Damage = Callable[[Path], None]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three sets of one file, and one of a cluster."""
    root = tmp_path / "archive"
    for number, start in enumerate(STARTS):
        put_standard(root, rdb(3000 + number, number), start, job=str(number + 1))
    put_cluster(root)
    return root


@pytest.fixture
def offsite(root: Path, tmp_path: Path) -> Archive:
    return Archive(LocalStore(copy_of(root, tmp_path / "offsite")))


def edited(**changes: object) -> Damage:
    return lambda path: change_record(path, **changes)


def replaced(old: str, new: str) -> Damage:
    def damage(path: Path) -> None:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return damage


def without(name: str) -> Damage:
    def damage(path: Path) -> None:
        document = json.loads(path.read_text())
        del document[name]
        path.write_text(json.dumps(document))

    return damage


def bytes_of(make: Callable[[bytes], bytes]) -> Damage:
    def damage(path: Path) -> None:
        path.write_bytes(make(path.read_bytes()))

    return damage


def sparse(path: Path) -> None:
    os.truncate(path, 6 * 2**30)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def full_folder(path: Path) -> None:
    folder(path)
    (path / "mine.txt").write_text("somebody's")


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def listening(path: Path) -> None:
    path.unlink()
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def linked(path: Path) -> None:
    aside = path.parents[3] / "elsewhere"
    path.rename(aside)
    path.symlink_to(aside)


NO_FILES: dict[str, Damage] = {
    "a folder": folder,
    "a folder with something in it": full_folder,
    "a FIFO": fifo,
    "a socket": listening,
    "a loop of links": loop,
    "6 GiB": sparse,
}
RECORDS: dict[str, Damage] = {
    "empty": bytes_of(lambda _: b""),
    "cut": bytes_of(lambda data: data[:200]),
    "NUL bytes": bytes_of(lambda data: bytes(len(data))),
    "UTF-16": bytes_of(lambda data: data.decode().encode("utf-16")),
    "BOM": bytes_of(lambda data: b"\xef\xbb\xbf" + data),
    "no UTF-8": bytes_of(lambda data: data.replace(b"archiver", b"\xff\xfe")),
    "deep": bytes_of(lambda _: b'{"a":' * 100_000),
    "a size of 1e999": replaced('"size": 2', '"size": 1e999, "x": 2'),
    "a size of 5,000 digits": replaced('"size": 2', f'"size": {"9" * 5000}, "x": 2'),
    "a size that is NaN": replaced('"size": 2', '"size": NaN, "x": 2'),
    "two sizes": replaced('"size": 2', '"size": 7, "size": 2'),
    "half a byte": edited(size=20_001.5),
    "a true size": edited(size=True),
    "less than nothing": edited(size=-1),
    "format 3": edited(format=3),
    "a true format": edited(format=True),
    "a NUL in the name": edited(object="a\0b.rdb"),
    "half a surrogate in the name": edited(object="\ud800.rdb"),
    "a name of 300 characters": edited(object="x" * 300 + ".rdb"),
    "a way out": edited(object="../../x.rdb"),
    "repairs that are no list": edited(repairs=7),
    "repairs of another kind": edited(repairs=["x"]),
    "no source": without("source"),
    "no transfer": without("transfer"),
    "a network of its own": edited(transfer={"network": "x", "origin": ""}),
    "a time before all": edited(started_at="0001-01-01T00:00:00+23:59"),
    "no time": edited(started_at=7),
    "another node's": edited(node_id=f"{CLUSTER}-db-2"),
    "another job": edited(set_id="7"),
    **NO_FILES,
}


def record_of(root: Path) -> Path:
    """Of the node in the middle."""
    [path] = root.glob(f"{CLUSTER}/*/*/*/{CLUSTER}-db-1-*.json")
    return path


@pytest.mark.parametrize("damage", RECORDS.values(), ids=RECORDS)
async def test_a_bad_record(root: Path, offsite: Archive, tmp_path: Path, damage: Damage) -> None:
    path, archive = record_of(root), Archive(LocalStore(root))
    key = path.relative_to(root).as_posix()
    damage(path)

    summary = await verify(archive)
    assert {finding.key for finding in summary.findings} == {key}
    assert summary.exit_code == 3

    rows = await archived_rows(archive)
    [row] = [row for row in rows if row.state is State.DAMAGED]
    assert row.error is not None
    assert key.rpartition("/")[2] in str(row.error)
    assert len(rows) == FILES

    differences = [one async for one in mismatches(archive, offsite, Selection())]
    assert [one.key for one in differences] == [key]
    there = [one async for one in mismatches(offsite, archive, Selection())]
    assert len(there) == 1

    copied = await copy(archive, Archive(LocalStore(tmp_path / "new")))
    assert [failure.subject for failure in copied.failures] == [key]
    assert (copied.exit_code, copied.archived) == (3, FILES - 1)

    folders = await list_folders(archive)
    states = {one.key: (await read_set(archive, one, folders)).state for one in folders}
    assert states.pop(key.rpartition("/")[0]) == "damaged"
    assert set(states.values()) == {"complete"}
    restored = await restore(archive, tmp_path / "restored", instance_id=INSTANCE)
    assert restored.exit_code == 0

    said: list[events.ScrubEvent] = []
    mended = await repair(archive, summary, ArchiveSupplier(offsite), observer=said.append)
    assert (mended.findings, mended.exit_code) == ([], 0)
    assert (await verify(archive)).exit_code == 0
    assert [one async for one in mismatches(archive, offsite, Selection())] == []
    moved = [event for event in said if isinstance(event, pull_events.Cleared)]
    assert len(moved) == (damage in NO_FILES.values())
    for event in moved:
        assert os.path.lexists(root / event.kept)
    if damage is full_folder:
        assert (root / moved[0].kept / "mine.txt").read_text() == "somebody's"


@pytest.mark.parametrize("damage", RECORDS.values(), ids=RECORDS)
async def test_a_bad_record_in_the_target_of_a_copy(
    root: Path, offsite: Archive, damage: Damage
) -> None:
    damage(record_of(offsite.store.root))  # type: ignore[attr-defined]
    summary = await copy(Archive(LocalStore(root)), offsite)
    assert summary.exit_code == 0
    assert (await verify(offsite)).exit_code == 0


SOURCE = {
    name: RECORDS[name]
    for name in (
        "empty", "a size of 1e999", "format 3", "no source", "a name of 300 characters",
        "a time before all", "deep", *NO_FILES,
    )
}  # fmt: skip


@pytest.mark.parametrize("way", ["pull", "repair"])
@pytest.mark.parametrize("damage", SOURCE.values(), ids=SOURCE)
async def test_a_bad_record_and_the_source(
    pulled: Pulled, source: TairSource, damage: Damage, way: str
) -> None:
    path = pulled.objects()[1].with_suffix(".json")
    if damage is RECORDS["a size of 1e999"]:
        path.write_text(path.read_text().replace('"size": ', '"size": 1e999, "x": ', 1))
    else:
        damage(path)
    if way == "pull":
        again = await pull(source, pulled.archive, [everything(), everything("r-bp1cluster")])
        assert (again.exit_code, again.archived, again.held) == (0, 1, 11)
    else:
        summary = await verify(pulled.archive)
        mended = await repair(pulled.archive, summary, SourceSupplier(source))
        assert mended.exit_code == 0
    assert (await verify(pulled.archive)).exit_code == 0


SUMS = {
    **NO_FILES,
    "NUL in a name": bytes_of(lambda data: data.replace(b"-db-1", b"-db\x001")),
    "raw": bytes_of(lambda _: b"\xff\xfe"),
    "two lines of one name": bytes_of(lambda data: data + b"0" * 64 + data.splitlines()[0][64:]),
    "a name of 300 characters": bytes_of(lambda data: data + b"0" * 64 + b"  " + b"x" * 300),
}


@pytest.mark.parametrize("damage", SUMS.values(), ids=SUMS)
async def test_bad_sums(root: Path, offsite: Archive, tmp_path: Path, damage: Damage) -> None:
    path, archive = sums_of(record_of(root)), Archive(LocalStore(root))
    damage(path)
    summary = await verify(archive)
    assert {(one.key, one.fault) for one in summary.findings} == {
        (path.relative_to(root).as_posix(), Fault.SUMS)
    }
    copied = await copy(archive, Archive(LocalStore(tmp_path / "new")))
    # A file with two lines is not copied: nobody knows which of them is right.
    assert copied.archived == FILES - (damage is SUMS["two lines of one name"])
    assert copied.exit_code == 3
    assert (await restore(archive, tmp_path / "restored", instance_id=INSTANCE)).exit_code == 0
    mended = await repair(archive, summary, ArchiveSupplier(offsite))
    assert mended.exit_code == 0
    assert (await verify(archive)).exit_code == 0


RESULTS = {
    **NO_FILES,
    "deep": bytes_of(lambda _: b"[" * 100_000),
    "NUL in a name": replaced("-db-1", "-db\\u00001"),
    "half a surrogate in a name": replaced("-db-1", "-db\\ud8001"),
    "a name of 300 characters": replaced("-db-1", "x" * 300),
    "half a byte": replaced('"size": 2', '"size": 1.5, "x": 2'),
    "a year too many": bytes_of(lambda data: re.sub(rb'"at": "\d{4}', b'"at": "9999', data)),
}


@pytest.mark.parametrize("damage", RESULTS.values(), ids=RESULTS)
async def test_bad_results(root: Path, offsite: Archive, damage: Damage) -> None:
    archive = Archive(LocalStore(root))
    await verify(archive)
    [path] = (root / "verified" / CLUSTER).glob("*.json")
    damage(path)
    summary = await verify(archive)
    assert [(one.key, one.fault) for one in summary.findings] == [
        (path.relative_to(root).as_posix(), Fault.BAD_RESULTS)
    ]
    assert (await verify(archive)).exit_code == 0
    assert path.is_file()


@pytest.mark.parametrize("damage", SUMS.values(), ids=SUMS)
async def test_bad_sums_of_one_file_and_the_source(
    pulled: Pulled, source: TairSource, damage: Damage
) -> None:
    path = pulled.sums(INSTANCE)
    if damage in NO_FILES.values():
        damage(path)
    else:
        path.write_bytes(b"\xff\xfe")
    summary = await verify(pulled.archive)
    assert [one.fault for one in summary.findings] == [Fault.SUMS]
    mended = await repair(pulled.archive, summary, SourceSupplier(source))
    assert (mended.exit_code, mended.findings) == (0, [])
    assert (await verify(pulled.archive)).exit_code == 0


FORMATS = {
    "deep": bytes_of(lambda _: b"[" * 100_000),
    "a true format": bytes_of(lambda _: b'{"format": true}'),
    "1e999": bytes_of(lambda _: b'{"format": 1e999}'),
    "6 GiB": sparse,
    "a FIFO": fifo,
    "a folder": folder,
}


@pytest.mark.parametrize("damage", FORMATS.values(), ids=FORMATS)
async def test_an_archive_that_does_not_say_what_it_is(root: Path, damage: Damage) -> None:
    damage(root / "archive.json")
    with pytest.raises(DamagedArchive, match=r"archive\.json does not say"):
        await verify(Archive(LocalStore(root)))


OBJECTS = {name: NO_FILES[name] for name in NO_FILES if name != "6 GiB"}


@pytest.mark.parametrize("damage", OBJECTS.values(), ids=OBJECTS)
async def test_no_file_in_the_place_of_an_object(
    root: Path, offsite: Archive, tmp_path: Path, damage: Damage
) -> None:
    path, archive = record_of(root).with_suffix(".rdb"), Archive(LocalStore(root))
    damage(path)
    summary = await verify(archive)
    assert [(one.key, one.fault) for one in summary.findings] == [
        (path.relative_to(root).as_posix(), Fault.MISSING)
    ]
    assert [row.state for row in await archived_rows(archive)].count(State.DAMAGED) == 1
    assert len([one async for one in mismatches(archive, offsite, Selection())]) == 1
    copied = await copy(archive, Archive(LocalStore(tmp_path / "new")))
    assert (copied.archived, copied.exit_code) == (FILES - 1, 3)
    mended = await repair(archive, summary, ArchiveSupplier(offsite))
    assert mended.exit_code == 0
    assert (await verify(archive)).exit_code == 0


async def sealed(archive: Archive, set_key: str) -> SealPlan:
    """What comes of giving a set its lines."""
    view = await view_month(archive.store, layout.month_of(set_key), {})
    plan = await plan_seal(archive.store, view, {set_key})
    await plan.write(archive.store, view)
    return plan


async def test_records_of_two_nodes_swapped(root: Path, offsite: Archive, tmp_path: Path) -> None:
    """Each would give its node the other's bytes, and a SHA256SUMS that agrees."""
    first, second = sorted(root.glob(f"{CLUSTER}/*/*/*/*.json"))[:2]
    kept = first.read_bytes()
    shutil.copy(second, first)
    second.write_bytes(kept)
    archive, new = Archive(LocalStore(root)), Archive(LocalStore(tmp_path / "new"))
    keys = {path.relative_to(root).as_posix() for path in (first, second)}

    copied = await copy(archive, new)
    assert {failure.subject for failure in copied.failures} == keys
    assert (copied.exit_code, copied.archived) == (3, FILES - 2)
    assert not list((tmp_path / "new").glob(f"{CLUSTER}/*/*/SHA256SUMS"))
    assert {one.key async for one in mismatches(archive, new, Selection())} >= keys

    before = {path: path.read_bytes() for path in (tmp_path / "offsite").glob("r-*/**/*.*")}
    assert (await copy(archive, offsite)).exit_code == 3
    assert {path: path.read_bytes() for path in before} == before

    set_key = first.parent.relative_to(root).as_posix()
    with pytest.raises(ArchiverError, match="contradicts its place"):
        raise (await sealed(archive, set_key)).failed[set_key]
    assert [row.state for row in await archived_rows(archive)].count(State.DAMAGED) == 2


@pytest.mark.parametrize("is_cut", [False, True])
async def test_a_seal_names_no_file_that_is_not_there(is_cut: bool, root: Path) -> None:
    path = record_of(root).with_suffix(".rdb")
    whole = path.read_bytes()
    path.unlink()
    if is_cut:
        path.write_bytes(whole[:-1])
    remove_lines(path)
    before, set_key = lines_of(path), path.parent.relative_to(root).as_posix()
    plan = await sealed(Archive(LocalStore(root)), set_key)
    assert ("bytes" if is_cut else "it is missing") in str(plan.failed[set_key])
    assert lines_of(path) == before


async def test_swapped_records_are_downloaded_again(pulled: Pulled, source: TairSource) -> None:
    first, second = (path.with_suffix(".json") for path in pulled.objects()[:2])
    kept = first.read_bytes()
    shutil.copy(second, first)
    second.write_bytes(kept)
    again = await pull(source, pulled.archive, [everything("r-bp1cluster")])
    assert (again.exit_code, again.archived) == (0, 2)
    assert (await verify(pulled.archive)).exit_code == 0


class Failing(ReadsOneByOne):
    """A disk that does not give one document, as long as it is that file."""

    lost, inode = "", 0

    async def read(self, key: str) -> bytes | None:
        if key == self.lost and await in_thread(self._is_that_file):
            raise UnreadableObject(f"{key}: Input/output error")
        return await super().read(key)

    def _is_that_file(self) -> bool:
        path = self.root / self.lost
        return path.exists() and path.stat().st_ino == self.inode


@pytest.mark.parametrize("way", ["source", "archive"])
@pytest.mark.parametrize("name", ["record", "SHA256SUMS"])
async def test_a_document_that_the_disk_does_not_give(
    pulled: Pulled, source: TairSource, tmp_path: Path, name: str, way: str
) -> None:
    """It is 6, of that document alone; and nothing takes its place but in a repair."""
    shutil.copytree(pulled.root, tmp_path / "offsite")
    path = pulled.objects()[1].with_suffix(".json")
    path = path if name == "record" else pulled.sums()
    store = Failing(pulled.root)
    archive, store.lost, store.inode = Archive(store), pulled.key(path), path.stat().st_ino
    before = path.read_bytes()

    summary = await verify(archive)
    assert [(one.key, one.fault) for one in summary.findings] == [(store.lost, Fault.UNREADABLE)]
    assert summary.exit_code == 6
    for index in pulled.root.glob(f"*/*/*/{layout.INDEX_NAME}"):
        index.unlink()  # or else nobody has to read it
    again = await pull(source, archive, [everything(), everything("r-bp1cluster")])
    assert (again.exit_code, len(again.failures), again.archived) == (6, 1, 0)
    assert path.read_bytes() == before
    copied = await copy(archive, Archive(LocalStore(tmp_path / "new")))
    assert (copied.exit_code, len(copied.failures)) == (6, 1)
    differing = [
        one.exit_code
        async for one in mismatches(archive, Archive(LocalStore(tmp_path / "offsite")), Selection())
    ]
    assert differing == [6]
    other = ArchiveSupplier(Archive(LocalStore(tmp_path / "offsite")))
    supplier = SourceSupplier(source) if way == "source" else other
    mended = await repair(archive, summary, supplier)
    assert (mended.exit_code, mended.findings, mended.not_repaired) == (0, [], [])
    assert (await verify(archive)).exit_code == 0
