"""What is or was in an archive and cannot be used: each command names it, and none says that all is
well."""

import hashlib
import math
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from archiver import Archive, LocalStore, TairSource, pull, restore, verify
from archiver.archive import layout
from archiver.archive.acknowledged import acknowledge, withdraw
from archiver.archive.archive import Archive as Opened
from archiver.archive.backupsets import newest_first
from archiver.archive.contents import view_month
from archiver.archive.indexing import write_index
from archiver.commands.copy.difference import Mismatch, mismatches
from archiver.commands.copy.run import copy
from archiver.commands.copy.selection import CopyOptions, Selection
from archiver.commands.ls.listing import State, archived_rows, compared_rows, rows_by_instance
from archiver.commands.repair.from_archive import ArchiveSupplier
from archiver.commands.repair.from_source import SourceSupplier
from archiver.commands.repair.run import Supplier, repair
from archiver.commands.restore.choice import DamagedSet
from archiver.commands.verify.model import VerifyOptions
from archiver.errors import ArchiverError, BadDocument, UnreadableObject, UsageError
from archiver.stores.scope import WHOLE
from archiver.times import TimeRange
from examples.sample_rdb import rdb, write_rdb
from tests.archive import sample
from tests.archive.sample import (
    put_backup,
    put_cluster,
    put_format,
    put_standard,
    put_sums,
    remove_lines,
    remove_node,
    sums_of,
)
from tests.conftest import INSTANCE, everything
from tests.sweeps import pairs
from tests.verify.conftest import (
    CLUSTER,
    DAYS,
    NODES,
    Pulled,
    edit,
    flip,
    forge,
    offsite,
    pulled,
    vendor,
)

__all__ = ["offsite", "pulled", "vendor"]
NEWEST = DAYS[2]
OCTOBER = TimeRange(datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC))


def newest(root: Path, instance: str) -> Path:
    """The newest set, by its key: a cluster's folder, or a standard instance's file without its
    suffix."""
    pattern = f"{NEWEST}*" if instance == CLUSTER else f"{NEWEST}*.rdb"
    [path] = root.glob(f"{instance}/*/*/{pattern}")
    return path.with_suffix("")


def files_of(one: Path, suffix: str) -> list[Path]:
    """The files of a set."""
    folder = sorted(one.glob(f"*{suffix}"))
    return folder or [one.with_name(f"{one.name}{suffix}")]


def edit_lines(one: Path, change: Callable[[str], str]) -> None:
    """Change the lines of a set in SHA256SUMS."""
    sums = sums_of(one)
    lines = sums.read_text().splitlines(keepends=True)
    sums.write_text("".join(change(line) if one.name in line else line for line in lines))


def record_gone(one: Path) -> None:
    files_of(one, ".json")[0].unlink()


def record_and_line_gone(one: Path) -> None:
    record_gone(one)
    lines_gone(one)


def lines_gone(one: Path) -> None:
    edit_lines(one, lambda _: "")


def set_gone(one: Path) -> None:
    for path in (*files_of(one, ".rdb"), *files_of(one, ".json")):
        path.unlink()


def file_in_its_place(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("hi\n")


def folder_called_like_a_file(folder: Path) -> None:
    folder.rename(f"{folder}.json")


def name_too_many(one: Path) -> None:
    with sums_of(one).open("a") as file:
        file.write(f"{'0' * 64}  bogus.rdb\n")


def wrong_digit(one: Path) -> None:
    edit_lines(one, lambda line: ("1" if line[0] == "0" else "0") + line[1:])


def garbled(one: Path) -> None:
    edit_lines(one, lambda line: f"?{line[1:]}")


def another_line(one: Path) -> None:
    path = files_of(one, ".rdb")[0]
    name = path.relative_to(sums_of(path).parent).as_posix()
    with sums_of(path).open("a") as file:
        file.write(f"{'ab' * 32}  {name}\n")


def folder_for_an_object(one: Path) -> None:
    path = files_of(one, ".rdb")[0]
    path.unlink()
    path.mkdir()


def folder_for_a_record(one: Path) -> None:
    path = files_of(one, ".json")[0]
    path.unlink()
    path.mkdir()


OF_BOTH = [
    record_gone, record_and_line_gone, set_gone, wrong_digit, folder_for_an_object,
    folder_for_a_record, another_line,
]  # fmt: skip
LOSSES = [
    *pairs(OF_BOTH, (INSTANCE, CLUSTER)),
    *((lose, CLUSTER) for lose in (file_in_its_place, folder_called_like_a_file, garbled)),
]
# Of SHA256SUMS, while nothing is wrong with any set.
OF_THE_MONTH = [(name_too_many, INSTANCE), (name_too_many, CLUSTER), (garbled, INSTANCE)]


async def compared(one: Archive, other: Archive) -> list[Mismatch]:
    return [m async for m in mismatches(one, other, Selection())]


@pytest.mark.parametrize(("lose", "instance"), LOSSES)
async def test_every_command_names_it(
    lose: Callable[[Path], None], instance: str, pulled: Pulled, offsite: Archive, tmp_path: Path
) -> None:
    await verify(pulled.archive)
    lose(newest(pulled.root, instance))
    assert (await verify(pulled.archive)).exit_code == 3

    damaged = [row for row in await archived_rows(pulled.archive) if row.state is State.DAMAGED]
    assert damaged
    assert all(row.instance_id == instance and row.error is not None for row in damaged)

    with pytest.raises(DamagedSet) as raised:
        await restore(pulled.archive, tmp_path / "to", instance_id=instance)
    assert NEWEST in raised.value.damaged.key
    assert "counts as removed" not in str(raised.value)
    done = await restore(pulled.archive, tmp_path / "to", instance_id=instance, skip_damaged=True)
    assert (DAYS[1] in done.backup_set.key, done.exit_code) == (True, 3)

    assert (await copy(pulled.archive, Archive(LocalStore(tmp_path / "new")))).exit_code == 3
    for one, other in ((pulled.archive, offsite), (offsite, pulled.archive)):
        found = await compared(one, other)
        assert {mismatch.exit_code for mismatch in found} == {3}
        assert all(f" in {pulled.root}" in mismatch.what for mismatch in found)


@pytest.mark.parametrize("day", ["20261114", "20261129"])
async def test_a_damaged_byte_that_makes_another_valid_name(
    pulled: Pulled, tmp_path: Path, day: str
) -> None:
    """Every line of SHA256SUMS can be read. One of the newest set names a set that never was."""
    one = newest(pulled.root, CLUSTER)
    name = pulled.name(files_of(one, ".rdb")[1])
    wrong = name.replace(NEWEST, day)
    sums = sums_of(one)
    sums.write_text(sums.read_text().replace(name, wrong))

    damaged = [row for row in await archived_rows(pulled.archive) if row.state is State.DAMAGED]
    assert [row.set_key.rpartition("/")[2] for row in damaged] == [wrong.partition("/")[0]]
    assert (await copy(pulled.archive, Archive(LocalStore(tmp_path / "new")))).exit_code == 3
    assert (await verify(pulled.archive)).exit_code == 3
    skip = day > NEWEST
    if skip:
        with pytest.raises(DamagedSet):
            await restore(pulled.archive, tmp_path / "to", instance_id=CLUSTER)
    done = await restore(pulled.archive, tmp_path / "to", instance_id=CLUSTER, skip_damaged=skip)
    assert DAYS[1] in done.backup_set.key
    assert one.name in [passed.key.rpartition("/")[2] for passed in done.passed_over]


async def test_of_two_lines_none_is_believed(tmp_path: Path) -> None:
    """Somebody forged a file with its record, and added its line to the one that it had."""
    root = tmp_path / "archive"
    put_standard(root, rdb(3000), f"{DAYS[0]}T021500Z")
    path = put_standard(root, rdb(3000, 1), f"{NEWEST}T021500Z")
    before = sums_of(path).read_text()
    forge(path, rdb(3000, 2))
    put_sums(path.parent)
    sums_of(path).write_text(before + sums_of(path).read_text().splitlines(keepends=True)[-1])
    archive = Archive(LocalStore(root))
    with pytest.raises(DamagedSet) as raised:
        await restore(archive, tmp_path / "to", instance_id=INSTANCE)
    assert raised.value.damaged.key == layout.set_of(path.relative_to(root).as_posix())
    [row] = [row for row in await archived_rows(archive) if row.backup_id and row.error]
    assert row.set_key == raised.value.damaged.key
    done = await copy(archive, Archive(LocalStore(tmp_path / "new")))
    assert (done.archived, done.exit_code) == (1, 3)


@pytest.mark.parametrize(("lose", "instance"), OF_THE_MONTH)
async def test_every_command_names_a_sha256sums_that_cannot_be_read(
    lose: Callable[[Path], None], instance: str, pulled: Pulled, offsite: Archive, tmp_path: Path
) -> None:
    """Once; and no set is the worse for it."""
    await verify(pulled.archive)
    lose(newest(pulled.root, instance))
    sums = pulled.key(pulled.sums(instance))
    found = await verify(pulled.archive)
    assert (found.exit_code, {one.key for one in found.findings}) == (3, {sums})
    rows = [row for row in await archived_rows(pulled.archive) if row.state is State.DAMAGED]
    assert len(rows) == 1
    assert sums in str(rows[0].error)
    done = await restore(pulled.archive, tmp_path / "to", instance_id=instance)
    assert (NEWEST in done.backup_set.key, done.exit_code) == (True, 0)
    summary = await copy(pulled.archive, Archive(LocalStore(tmp_path / "new")))
    assert (summary.archived, summary.exit_code) == (len(DAYS) * (NODES + 1), 3)
    assert [failed.subject for failed in summary.failures] == [sums]
    for one, other in ((pulled.archive, offsite), (offsite, pulled.archive)):
        assert [(m.key, m.exit_code) for m in await compared(one, other)] == [(sums, 3)]


@pytest.mark.parametrize("is_known_to", ["a verify", "the catalogue"])
async def test_a_sha256sums_that_is_gone_is_damage(
    is_known_to: str, pulled: Pulled, vendor: Path, source: TairSource, tmp_path: Path
) -> None:
    """Of the sets of a cluster, which without it would merely not be complete yet."""
    sums = pulled.root / CLUSTER / "2026" / "11" / "SHA256SUMS"
    kept, key = sums.read_text(), pulled.key(sums)
    if is_known_to == "a verify":
        await verify(pulled.archive)
        sums.with_name("index.jsonl").unlink(missing_ok=True)
    else:
        store = LocalStore(pulled.root)
        await write_index(store, await view_month(store, pulled.key(sums.parent), {}))
    sums.unlink()
    with pytest.raises(DamagedSet) as raised:
        await restore(pulled.archive, tmp_path / "to", instance_id=CLUSTER)
    assert NEWEST in raised.value.damaged.key
    rows = await archived_rows(pulled.archive, [CLUSTER])
    assert [row.set_key for row in rows if row.state is State.DAMAGED] == [key]
    summary = await copy(pulled.archive, Archive(LocalStore(tmp_path / "new")))
    assert [failed.subject for failed in summary.failures] == [key]
    found = await verify(pulled.archive)
    assert (found.exit_code, {one.key for one in found.findings} >= {key}) == (3, True)
    for forgotten in (vendor / CLUSTER).rglob(f"d_{DAYS[0]}*"):
        forgotten.unlink()
    mended = await repair(pulled.archive, found, SourceSupplier(source))
    assert (mended.exit_code, sums.read_text()) == (0, kept)


def _forget(vendor: Path, day: str = "") -> None:
    """The vendor has removed the backups of a day, or all."""
    for one in vendor.rglob(f"d_{day}*"):
        one.unlink()


async def _acknowledge(archive: Archive, *names: str) -> None:
    async with archive.writing(WHOLE):
        for name in names:
            await acknowledge(archive, name, by="me", reason="ticket 7")


@pytest.mark.parametrize("origin", ["archive", "source"])
@pytest.mark.parametrize("instance", [INSTANCE, CLUSTER])
async def test_a_set_that_is_lost_with_its_sha256sums_is_not_forgotten(
    instance: str, origin: str, pulled: Pulled, offsite: Archive, vendor: Path,
    source: TairSource,
) -> None:  # fmt: skip
    """No verify has seen it: the catalogue alone names it, until somebody says that it is known to
    be gone."""
    sums, lost = pulled.sums(instance), pulled.objects(instance, DAYS[0])
    _forget(vendor, DAYS[0])
    for root in (pulled.root, Path(str(offsite.store))):
        for path in lost:
            remove_node(root / pulled.key(path))
        (root / pulled.key(sums)).unlink()
    gone = [layout.backup_name(pulled.key(path)) for path in lost]
    supplier = ArchiveSupplier(offsite) if origin == "archive" else SourceSupplier(source)
    for _ in range(2):
        found = await verify(pulled.archive)
        mended = await repair(pulled.archive, found, supplier)
        names = {one.key for one in mended.not_repaired}
        assert names == {pulled.key(path.with_suffix(".json")) for path in lost} | {
            pulled.key(sums)
        }
        told = [str(one.error) for one in mended.not_repaired]
        assert all(f"acknowledge {name} (archiver ack)" in " ".join(told) for name in gone)
        assert (mended.exit_code, sums.exists()) == (3, False)
    await _acknowledge(pulled.archive, *gone[1:])
    found = await verify(pulled.archive)
    mended = await repair(pulled.archive, found, supplier)
    left = {pulled.key(lost[0].with_suffix(".json")), pulled.key(sums)}
    assert {one.key for one in mended.not_repaired} == left
    await _acknowledge(pulled.archive, gone[0])
    mended = await repair(pulled.archive, found, supplier)
    assert (mended.exit_code, mended.not_repaired) == (0, [])
    assert (await pull(source, pulled.archive, [everything(instance)])).exit_code == 0
    assert (await verify(pulled.archive)).findings == []


@pytest.mark.parametrize("origin", ["archive", "source"])
@pytest.mark.parametrize("left", [b"", b"\0" * 100, "folder"])
@pytest.mark.parametrize("instance", [INSTANCE, CLUSTER])
async def test_a_set_that_is_lost_while_its_sha256sums_is_damaged(
    instance: str, left: bytes | str, origin: str, pulled: Pulled, offsite: Archive, vendor: Path,
    source: TairSource,
) -> None:  # fmt: skip
    """As after a power cut. The catalogue knew all of it, and the others can be proven."""
    sums, lost = pulled.sums(instance), pulled.objects(instance, DAYS[0])
    kept = [line for line in sums.read_text().splitlines(keepends=True) if DAYS[0] not in line]
    _forget(vendor, DAYS[0])
    for root in (pulled.root, Path(str(offsite.store))):
        for path in lost:
            remove_node(root / pulled.key(path))
    sums.unlink()
    sums.write_bytes(left) if isinstance(left, bytes) else sums.mkdir()
    (Path(str(offsite.store)) / pulled.key(sums)).write_text("".join(kept))
    gone = [layout.backup_name(pulled.key(path)) for path in lost]
    supplier = ArchiveSupplier(offsite) if origin == "archive" else SourceSupplier(source)
    for _ in range(2):
        mended = await repair(pulled.archive, await verify(pulled.archive), supplier)
        told = " ".join(str(one.error) for one in mended.not_repaired)
        assert all(f"acknowledge {name} (archiver ack)" in told for name in gone)
        assert (mended.exit_code, sums.is_file() and sums.read_bytes() != left) == (3, False)
    await _acknowledge(pulled.archive, *gone)
    mended = await repair(pulled.archive, await verify(pulled.archive), supplier)
    assert (mended.exit_code, mended.not_repaired, sums.read_text()) == (0, [], "".join(kept))


class _WithoutCatalogue(sample.ReadsOneByOne):
    """A directory on a disk that does not give one file."""

    async def read(self, key: str) -> bytes | None:
        if key.endswith(layout.INDEX_NAME):
            raise UnreadableObject(f"{key}: Input/output error")
        return await super().read(key)


@pytest.mark.parametrize("left", ["", "damaged"])
@pytest.mark.parametrize("instance", [INSTANCE, CLUSTER])
async def test_a_catalogue_that_cannot_be_read_may_tell_what_a_sha256sums_named(
    instance: str, left: str, pulled: Pulled, vendor: Path, source: TairSource
) -> None:
    """It is neither written over nor taken for empty, whoever comes."""
    sums, lost = pulled.sums(instance), pulled.objects(instance, DAYS[0])
    _forget(vendor, DAYS[0])
    for path in lost:
        remove_node(path)
    sums.write_text(left) if left else sums.unlink()
    catalogue = sums.with_name(layout.INDEX_NAME)
    before = catalogue.read_bytes()
    broken = Opened(_WithoutCatalogue(pulled.root))
    for _ in range(2):
        found = await verify(broken)
        codes = [one.exit_code for one in found.findings if one.key == pulled.key(sums)]
        assert codes == [3 if left else 6]
        mended = await repair(broken, found, SourceSupplier(source))
        assert pulled.key(sums) in {one.key for one in mended.not_repaired}
        assert (await pull(source, broken, [everything(instance)])).exit_code != 0
        assert catalogue.read_bytes() == before
        assert (sums.read_text() if sums.exists() else "") == left
    # Once the disk gives it, what it names is named.
    mended = await repair(pulled.archive, await verify(pulled.archive), SourceSupplier(source))
    told = " ".join(str(one.error) for one in mended.not_repaired)
    assert all(layout.backup_name(pulled.key(path)) in told for path in lost)


@pytest.mark.parametrize("besides", ["here", "withdrawn", "cannot be read"])
async def test_an_acknowledgement_that_does_not_count_for_a_lost_sha256sums(
    besides: str, pulled: Pulled, vendor: Path, source: TairSource
) -> None:
    sums, path = pulled.sums(INSTANCE), pulled.objects(INSTANCE, DAYS[0])[0]
    key, name = pulled.key(path.with_suffix(".json")), layout.backup_name(pulled.key(path))
    _forget(vendor)
    sums.unlink()
    remove_node(path)
    await _acknowledge(pulled.archive, name)
    if besides == "here":  # without its record
        path.write_bytes(b"x")
    elif besides == "withdrawn":
        async with pulled.archive.writing(WHOLE):
            await withdraw(pulled.archive, name, by="me")
    else:
        (pulled.root / layout.acknowledgement_key(name)).write_bytes(b"{}")
    found = await verify(pulled.archive)
    mended = await repair(pulled.archive, found, SourceSupplier(source))
    assert {key, pulled.key(sums)} <= {one.key for one in mended.not_repaired}
    assert (mended.exit_code, sums.exists()) == (3, False)


@pytest.mark.parametrize("origin", ["archive", "source"])
@pytest.mark.parametrize("instance", [INSTANCE, CLUSTER])
async def test_all_of_a_month_is_known_to_be_gone(
    instance: str, origin: str, pulled: Pulled, offsite: Archive, vendor: Path,
    source: TairSource,
) -> None:  # fmt: skip
    sums = pulled.sums(instance)
    lost = [path for day in DAYS for path in pulled.objects(instance, day)]
    _forget(vendor)
    for path in lost:
        remove_node(path)
    sums.unlink()
    await _acknowledge(pulled.archive, *(layout.backup_name(pulled.key(path)) for path in lost))
    found = await verify(pulled.archive)
    assert [one.key for one in found.findings] == [pulled.key(sums)]
    shutil.rmtree(Path(str(offsite.store)) / instance)
    supplier = ArchiveSupplier(offsite) if origin == "archive" else SourceSupplier(source)
    mended = await repair(pulled.archive, found, supplier)
    assert (mended.exit_code, mended.not_repaired, sums.exists()) == (0, [], False)
    assert (await verify(pulled.archive)).findings == []
    assert not [row for row in await archived_rows(pulled.archive) if row.state is State.DAMAGED]


@pytest.mark.parametrize("origin", ["archive", "source"])
@pytest.mark.parametrize("instance", [INSTANCE, CLUSTER])
async def test_a_forged_catalogue_is_not_what_a_sha256sums_is_made_from(
    instance: str, origin: str, pulled: Pulled, offsite: Archive, source: TairSource
) -> None:
    """It invents a backup, and SHA256SUMS is gone: that looks like a loss."""
    sums, path = pulled.sums(instance), pulled.objects(instance)[0]
    kept, index = sums.read_bytes(), sums.with_name(layout.INDEX_NAME)
    old = layout.backup_name(pulled.key(path)).rpartition("-")[2]
    first, _, rest = index.read_bytes().partition(b"\n")
    line = next(one for one in rest.splitlines(keepends=True) if old.encode() in one)
    new = rest + line.replace(old.encode(), b"777")
    was, now = (hashlib.sha256(one).hexdigest().encode() for one in (rest, new))
    index.write_bytes(first.replace(was, now) + b"\n" + new)
    sums.unlink()
    supplier = ArchiveSupplier(offsite) if origin == "archive" else SourceSupplier(source)
    mended = await repair(pulled.archive, await verify(pulled.archive), supplier)
    assert (mended.exit_code, sums.exists()) == (3, False)
    invented = [one.key for one in mended.not_repaired if one.key != pulled.key(sums)]
    assert ["777" in one for one in invented] == [True]
    await _acknowledge(pulled.archive, *map(layout.backup_name, invented))
    mended = await repair(pulled.archive, await verify(pulled.archive), supplier)
    assert (mended.exit_code, sums.read_bytes()) == (0, kept)
    assert (await verify(pulled.archive)).findings == []


@pytest.mark.parametrize("origin", ["archive", "source"])
@pytest.mark.parametrize("left", [0, 30, -9, -1])
@pytest.mark.parametrize("instance", [INSTANCE, CLUSTER])
async def test_a_cut_sha256sums_that_somebody_removed(
    instance: str, left: int, origin: str, pulled: Pulled, offsite: Archive, source: TairSource
) -> None:
    """The first catalogue was made after it was cut, so that nothing has ever known all of it. It
    was no longer than the lines of what is here."""
    sums = pulled.sums(instance)
    kept = sums.read_bytes()
    sums.with_name(layout.INDEX_NAME).unlink()
    sums.write_bytes(kept[:left])
    store, month = LocalStore(pulled.root), pulled.key(sums.parent)
    await write_index(store, await view_month(store, month))
    sums.unlink()
    found = await verify(pulled.archive)
    assert [one.key for one in found.findings] == [pulled.key(sums)]
    supplier = ArchiveSupplier(offsite) if origin == "archive" else SourceSupplier(source)
    mended = await repair(pulled.archive, found, supplier)
    assert (mended.exit_code, mended.not_repaired, sums.read_bytes()) == (0, [], kept)


@pytest.mark.parametrize("instance", [INSTANCE, CLUSTER])
async def test_what_is_known_to_be_gone_had_its_line_in_a_sha256sums_that_was_damaged(
    instance: str, pulled: Pulled, vendor: Path, source: TairSource
) -> None:
    sums, lost = pulled.sums(instance), pulled.objects(instance, DAYS[0])
    lines = sums.read_text().splitlines(keepends=True)
    sums.write_text("".join(one if DAYS[0] in one else f"?{one[1:]}" for one in lines))
    for path in lost:
        remove_node(path)
    sums.with_name(layout.INDEX_NAME).unlink()
    store, month = LocalStore(pulled.root), pulled.key(sums.parent)
    await write_index(store, await view_month(store, month))
    sums.unlink()
    _forget(vendor, DAYS[0])
    names = [layout.backup_name(pulled.key(path)) for path in lost]
    mended = await repair(pulled.archive, await verify(pulled.archive), SourceSupplier(source))
    assert (mended.exit_code, len(mended.not_repaired)) == (3, len(names) + 1)
    await _acknowledge(pulled.archive, *names)
    mended = await repair(pulled.archive, await verify(pulled.archive), SourceSupplier(source))
    assert (mended.exit_code, mended.not_repaired) == (0, [])
    assert sums.read_text() == "".join(one for one in lines if DAYS[0] not in one)


@pytest.mark.parametrize("instance", [INSTANCE, CLUSTER])
async def test_a_wrong_name_in_a_sha256sums_that_somebody_removed(
    instance: str, pulled: Pulled, source: TairSource
) -> None:
    """A digit of a time was wrong in it when the first catalogue was made. The backup is here, with
    its right time."""
    sums = pulled.sums(instance)
    kept = sums.read_bytes()
    sums.with_name(layout.INDEX_NAME).unlink()
    sums.write_bytes(kept.replace(DAYS[0].encode(), b"20260122"))
    store, month = LocalStore(pulled.root), pulled.key(sums.parent)
    await write_index(store, await view_month(store, month))
    assert b"20260122" in sums.with_name(layout.INDEX_NAME).read_bytes()
    sums.unlink()
    mended = await repair(pulled.archive, await verify(pulled.archive), SourceSupplier(source))
    assert (mended.exit_code, mended.not_repaired, sums.read_bytes()) == (0, [], kept)


async def test_what_came_later_was_not_in_a_sha256sums_that_is_gone(
    pulled: Pulled, vendor: Path, source: TairSource
) -> None:
    """It had the line of a set that was lost before the catalogue knew it. The lines of newer sets
    do not make up for that."""
    sums = pulled.sums(INSTANCE)
    for path in pulled.objects(INSTANCE, DAYS[0]):
        remove_node(path)
    kept = sums.read_bytes()
    sums.write_bytes(b"?" + kept[1:])
    sums.with_name(layout.INDEX_NAME).unlink()
    store, month = LocalStore(pulled.root), pulled.key(sums.parent)
    await write_index(store, await view_month(store, month))
    sums.unlink()
    _forget(vendor, DAYS[0])
    write_rdb(vendor / INSTANCE / "d_20261128021500.rdb", 100)
    assert (await pull(source, pulled.archive, [everything(INSTANCE)])).exit_code == 3
    found = await verify(pulled.archive)
    mended = await repair(pulled.archive, found, SourceSupplier(source))
    assert (mended.exit_code, sums.exists()) == (3, False)
    assert "it may have named files" in str(mended.not_repaired[-1].error)


async def test_a_set_that_is_lost_with_its_sha256sums_comes_back_with_it(
    pulled: Pulled, offsite: Archive
) -> None:
    sums = pulled.sums()
    kept = sums.read_bytes()
    shutil.rmtree(pulled.objects(day=DAYS[0])[0].parent)
    sums.unlink()
    found = await verify(pulled.archive)
    mended = await repair(pulled.archive, found, ArchiveSupplier(offsite))
    assert (mended.exit_code, sums.read_bytes()) == (0, kept)


@pytest.mark.parametrize("meanwhile", ["whole", "damaged", "a folder", "unknown"])
@pytest.mark.parametrize("instance", [INSTANCE, CLUSTER])
async def test_a_sha256sums_of_which_the_catalogue_did_not_know_all(
    instance: str, meanwhile: str, pulled: Pulled, offsite: Archive, vendor: Path,
    source: TairSource, tmp_path: Path,
) -> None:  # fmt: skip
    """A set was lost, and the catalogue made anew, before SHA256SUMS went as well. An archive that
    never had the set is no help."""
    sums, young = pulled.sums(instance), Archive(LocalStore(tmp_path / "young"))
    kept, key = sums.read_bytes(), pulled.key(sums)
    for path in pulled.objects(instance, DAYS[0]):
        remove_node(path)
    if meanwhile in ("damaged", "unknown"):
        sums.write_bytes(b"?" + kept[1:])
    if meanwhile == "unknown":  # nothing knew what was in the line that is damaged
        (sums.parent / layout.INDEX_NAME).write_bytes(b"")
    if meanwhile == "a folder":
        sums.unlink()
        sums.mkdir()
    _forget(vendor, DAYS[0])
    assert (await pull(source, young, [everything(instance)])).exit_code == 0
    store, month = LocalStore(pulled.root), pulled.key(sums.parent)
    await write_index(store, await view_month(store, month))
    found = await verify(pulled.archive, VerifyOptions(keep_every=math.inf))
    assert meanwhile != "whole" or found.notes == []  # a finding says what is gone
    shutil.rmtree(pulled.root / "verified")  # what the catalogue knows is enough
    shutil.rmtree(sums) if sums.is_dir() else sums.unlink()
    assert (await pull(source, pulled.archive, [everything(instance)])).exit_code == 3
    suppliers: list[Supplier] = [
        SourceSupplier(source), ArchiveSupplier(young), ArchiveSupplier(offsite),
    ]  # fmt: skip
    for supplier in suppliers:
        assert not sums.exists()
        found = await verify(pulled.archive)
        assert (found.exit_code, [one.key for one in found.findings]) == (3, [key])
        await repair(pulled.archive, found, supplier)
    assert ((await verify(pulled.archive)).exit_code, sums.read_bytes()) == (0, kept)


@pytest.mark.parametrize("instance", [INSTANCE, CLUSTER])
async def test_a_damaged_sha256sums_that_somebody_removed(
    instance: str, pulled: Pulled, vendor: Path, source: TairSource
) -> None:
    """Nothing else is lost: a repair from the source brings it back, also with the lines of what
    the vendor has no longer."""
    sums = pulled.sums(instance)
    kept = sums.read_bytes()
    sums.write_bytes(b"?" + kept[1:])
    _forget(vendor, DAYS[0])
    for path in vendor.rglob(f"d_{DAYS[1]}*"):
        shutil.copy(path, path.with_name(path.name.replace(DAYS[1], "20261128")))
    assert (await pull(source, pulled.archive, [everything(instance)])).exit_code == 3
    sums.unlink()
    found = await verify(pulled.archive)
    assert [one.key for one in found.findings] == [pulled.key(sums)]
    mended = await repair(pulled.archive, found, SourceSupplier(source))
    assert (mended.exit_code, mended.not_repaired) == (0, [])
    assert set(kept.splitlines()) < set(sums.read_bytes().splitlines())
    assert (await pull(source, pulled.archive, [everything(instance)])).exit_code == 0
    assert (await verify(pulled.archive)).findings == []


@pytest.mark.parametrize("left", [0, 1])
async def test_a_month_that_is_lost_with_its_sha256sums_is_not_forgotten(
    left: int, files: Path, source: TairSource, tmp_path: Path
) -> None:
    """Its catalogue is larger than one of what is left would be."""
    for hour in range(36):
        write_rdb(files / INSTANCE / f"d_202611{hour // 24 + 21}{hour % 24:02}1500.rdb", 100, hour)
    root, other = tmp_path / "archive", Archive(LocalStore(tmp_path / "other"))
    archive = Archive(LocalStore(root))
    assert (await pull(source, archive, [everything()])).exit_code == 0
    assert (await copy(archive, other)).exit_code == 0
    [index] = root.rglob(layout.INDEX_NAME)
    month, kept = index.parent, index.read_bytes()
    sums = month / layout.SUMS_NAME
    lines, key = sums.read_bytes(), sums.relative_to(root).as_posix()
    assert len(kept) > 2 * 4096
    sums.unlink()
    for path in sorted(month.glob("*.rdb"))[left:]:
        remove_node(path)
        [listed] = files.rglob(f"d_{path.name[:8]}{path.name[9:15]}.rdb")
        listed.unlink()

    rows = [row for row in await archived_rows(archive) if row.state is State.DAMAGED]
    assert [row.set_key for row in rows] == [key]
    summary = await copy(archive, Archive(LocalStore(tmp_path / "new")))
    assert [failed.subject for failed in summary.failures] == [key]
    assert [one.key for one in (await verify(archive)).findings] == [key]
    await write_index(archive.store, await view_month(archive.store, f"{month.relative_to(root)}"))
    write_rdb(files / INSTANCE / "d_20261123021500.rdb", 100)
    assert (await pull(source, archive, [everything()])).exit_code == 3
    assert (sums.exists(), index.read_bytes()) == (False, kept)
    for supplier, not_repaired in (
        (SourceSupplier(source), 1 + 36 - left),
        (ArchiveSupplier(other), 0),
    ):
        found = await verify(archive)
        assert (found.exit_code, [one.key for one in found.findings]) == (3, [key])
        assert len((await repair(archive, found, supplier)).not_repaired) == not_repaired
    assert sums.read_bytes() == lines
    assert (await pull(source, archive, [everything()])).exit_code == 0
    assert (await verify(archive)).findings == []


@pytest.mark.parametrize("besides", ["", "changed", "edited", "object gone", "new"])
@pytest.mark.parametrize("instance", [INSTANCE, CLUSTER])
async def test_the_catalogue_gives_a_sha256sums_its_lines_back(
    instance: str, besides: str, pulled: Pulled, vendor: Path, source: TairSource
) -> None:
    """The vendor has forgotten all of it, and there is no other archive."""
    sums, path = pulled.sums(instance), pulled.objects(instance)[0]
    if besides == "new":  # it came later, and SHA256SUMS has never named it
        remove_lines(path)
        store, month = LocalStore(pulled.root), pulled.key(sums.parent)
        await write_index(store, await view_month(store, month, {}))
    kept = sums.read_bytes()
    sums.unlink()
    _forget(vendor)
    if besides == "changed":
        forge(path, rdb(20_000, 99))
    elif besides == "edited":
        index, sha256 = sums.with_name("index.jsonl"), hashlib.sha256(path.read_bytes()).hexdigest()
        first, _, rest = index.read_bytes().partition(b"\n")
        wrong = rest.replace(sha256.encode(), b"0" * 64)
        was, now = (hashlib.sha256(one).hexdigest().encode() for one in (rest, wrong))
        index.write_bytes(first.replace(was, now) + b"\n" + wrong)
    elif besides == "object gone":
        path.unlink()
    found = await verify(pulled.archive)
    mended = await repair(pulled.archive, found, SourceSupplier(source))
    if besides in ("changed", "edited", "object gone"):
        assert pulled.key(path.with_suffix(".json")) in {one.key for one in mended.not_repaired}
        assert (mended.exit_code, sums.exists()) == (3, False)
    else:
        assert (sums.read_bytes(), mended.not_repaired) == (kept, [])
        assert mended.exit_code == (1 if besides else 0)


@pytest.mark.parametrize("besides", ["", "forged", "changed", "gone"])
async def test_a_line_that_an_earlier_verify_saw_is_missed(
    besides: str, pulled: Pulled, tmp_path: Path
) -> None:
    """A repair gives it back by what that verify saw, where all of the set is as it was."""
    await verify(pulled.archive)
    one = newest(pulled.root, CLUSTER)
    before = sums_of(one).read_text()
    lines_gone(one)
    left = sums_of(one).read_text()
    if besides == "forged":
        forge(files_of(one, ".rdb")[0], rdb(20_000, 99))
    elif besides == "changed":
        flip(files_of(one, ".rdb")[0])
    elif besides == "gone":
        remove_node(files_of(one, ".rdb")[0])
    with pytest.raises(DamagedSet) as raised:
        await restore(pulled.archive, tmp_path / "to", instance_id=CLUSTER)
    assert NEWEST in raised.value.damaged.key
    put_format(tmp_path / "empty")
    nothing = ArchiveSupplier(Archive(LocalStore(tmp_path / "empty")))
    await repair(pulled.archive, await verify(pulled.archive), nothing)
    assert sums_of(one).read_text() == (left if besides else before)


@pytest.mark.parametrize("instance", [INSTANCE, CLUSTER])
@pytest.mark.parametrize("is_known", [False, True], ids=["no catalogue", "a catalogue"])
async def test_every_command_names_a_line_that_an_earlier_verify_saw(
    is_known: bool, instance: str, pulled: Pulled, offsite: Archive, tmp_path: Path
) -> None:
    """Once; and no other set is the worse for it."""
    await verify(pulled.archive)
    path = pulled.objects(instance, DAYS[0])[0]
    remove_lines(path)
    sums = pulled.key(pulled.sums(instance))
    if is_known:
        store = LocalStore(pulled.root)
        await write_index(store, await view_month(store, sums.rpartition("/")[0]))
    rows = [row for row in await archived_rows(pulled.archive) if row.state is State.DAMAGED]
    assert [(row.set_key, pulled.name(path) in str(row.error)) for row in rows] == [(sums, True)]
    summary = await copy(pulled.archive, Archive(LocalStore(tmp_path / "new")))
    assert (summary.archived, summary.exit_code) == (len(DAYS) * (NODES + 1), 3)
    assert [failed.subject for failed in summary.failures] == [sums]
    for one, other in ((pulled.archive, offsite), (offsite, pulled.archive)):
        assert [(m.key, m.exit_code) for m in await compared(one, other)] == [(sums, 3)]
    states = [(one.key, one.state) async for one in newest_first(pulled.archive, instance)]
    worse = "damaged" if instance == CLUSTER else "complete"
    assert [state for _, state in states] == ["complete", "complete", worse]


@pytest.mark.parametrize("gone", ["its line", "SHA256SUMS"])
async def test_every_command_names_a_record_that_an_earlier_verify_contradicts(
    gone: str, pulled: Pulled, source: TairSource, offsite: Archive, tmp_path: Path
) -> None:
    """Object and record were forged together, and no line says otherwise any more."""
    await verify(pulled.archive)
    path = pulled.objects(INSTANCE, NEWEST)[0]
    forge(path, rdb(path.stat().st_size, 99))
    remove_lines(path) if gone == "its line" else pulled.sums(INSTANCE).unlink()
    key = pulled.key(path)
    with pytest.raises(DamagedSet, match="an earlier verify saw"):
        await restore(pulled.archive, tmp_path / "to", instance_id=INSTANCE)
    listed = [one async for page in source.pages(everything(INSTANCE)) for one in page.backups]
    for rows in (
        await archived_rows(pulled.archive, [INSTANCE]),
        await compared_rows(pulled.archive, listed),
    ):
        wrong = [row for row in rows if row.backup_id and row.state is State.DAMAGED]
        assert [str(row.error).startswith(key) for row in wrong] == [True]
    assert (await copy(pulled.archive, offsite)).exit_code == 3
    assert key in {one.key for one in await compared(pulled.archive, offsite)}


async def test_an_instance_comes_once_with_the_months_that_are_gone(pulled: Pulled) -> None:
    """Those that only a verify knows of among them: what one set lacks is told by the others."""
    gone = put_cluster(pulled.root, "20261022T021500Z", 3)[0].parent
    put_cluster(pulled.root, "20261123T021500Z", 2)
    await verify(pulled.archive)
    shutil.rmtree(gone.parent)
    found = [rows async for rows in rows_by_instance(pulled.archive)]
    assert [{row.instance_id for row in rows} for rows in found] == [
        {CLUSTER}, {sample.CLUSTER}, {INSTANCE}
    ]  # fmt: skip
    named = await archived_rows(pulled.archive, [sample.CLUSTER])
    assert [row._replace(error=None) for row in found[1]] == [
        row._replace(error=None) for row in named
    ]
    assert all("db-2 is missing" in (row.set_note or "") for row in found[1][NODES:])


@pytest.mark.parametrize("content", [b"", bytes(300), b"?" * 300])
async def test_a_month_of_which_only_an_unreadable_sha256sums_is_left(
    content: bytes, pulled: Pulled, offsite: Archive, tmp_path: Path
) -> None:
    """It names no set, and nobody knows which it named: neither they nor older ones pass for all
    that there is."""
    named, before = pulled.key(newest(pulled.root, CLUSTER)), "20261023T021500Z"
    sums = pulled.sums()
    node = f"{CLUSTER}-db-0"
    older = put_backup(pulled.root, before, rdb(3000), instance=CLUSTER, node=node)
    put_sums(older.parent)
    shutil.rmtree(sums.parent)
    sums.parent.mkdir()
    sums.write_bytes(content)
    key = pulled.key(sums)
    found = await verify(pulled.archive)
    assert (found.exit_code, [one.key for one in found.findings]) == (3, [key])
    only = VerifyOptions(sets=frozenset({named}))
    assert [one.key for one in (await verify(pulled.archive, only)).findings] == [key]
    elsewhen = VerifyOptions(range=OCTOBER)
    assert (await verify(pulled.archive, elsewhen)).exit_code == 0
    rows = await archived_rows(pulled.archive, [CLUSTER])
    assert [row.set_key for row in rows if row.state is State.DAMAGED] == [key]
    rows = await archived_rows(pulled.archive, [CLUSTER], OCTOBER)
    assert [row.state for row in rows] == [State.ARCHIVED]
    with pytest.raises(DamagedSet) as raised:
        await restore(pulled.archive, tmp_path / "to", instance_id=CLUSTER)
    assert (raised.value.damaged.key, raised.value.following is None) == (key, False)
    with pytest.raises(BadDocument, match=key):
        await restore(pulled.archive, tmp_path / "to", set_key=named)
    summary = await copy(pulled.archive, Archive(LocalStore(tmp_path / "new")))
    assert [failed.subject for failed in summary.failures] == [key]
    only_october = CopyOptions(Selection(range=OCTOBER))
    assert (await copy(pulled.archive, offsite, only_october)).exit_code == 0
    assert key in {one.key for one in await compared(pulled.archive, offsite)}


@pytest.mark.parametrize("level", [1, 2, 3])
async def test_what_only_a_verify_knows_of(level: int, pulled: Pulled, tmp_path: Path) -> None:
    """A month, a year, an instance of which nothing is left."""
    await verify(pulled.archive)
    shutil.rmtree([*newest(pulled.root, CLUSTER).parents][level - 1])
    rows = [row for row in await archived_rows(pulled.archive) if row.state is State.DAMAGED]
    assert len(rows) == len(DAYS) * NODES
    assert "verified on" in str(rows[0].error)
    named = await archived_rows(pulled.archive, [CLUSTER])
    assert [(row.set_key, row.backup_id) for row in named] == [
        (row.set_key, row.backup_id) for row in rows
    ]
    target = Archive(LocalStore(tmp_path / "new"))
    summary = await copy(pulled.archive, target)
    assert (len(summary.failures), summary.exit_code) == (len(DAYS) * NODES, 3)
    only = Selection(instances=(INSTANCE,))
    assert (await copy(pulled.archive, target, CopyOptions(only))).exit_code == 0
    with pytest.raises(DamagedSet):
        await restore(pulled.archive, tmp_path / "to", instance_id=CLUSTER)


async def test_what_a_verify_saw_and_is_hidden_is_named_once(pulled: Pulled) -> None:
    await verify(pulled.archive)
    file_in_its_place(newest(pulled.root, CLUSTER).parent)
    [row] = [row for row in await archived_rows(pulled.archive) if row.state is State.DAMAGED]
    assert (row.size, row.started_at, row.node_id, row.backup_id) == (None, None, "", "")


@pytest.mark.parametrize(
    ("above", "instance"), [(0, CLUSTER), *((n, i) for n in (1, 2, 3) for i in (INSTANCE, CLUSTER))]
)
async def test_a_file_in_the_place_of_a_folder(
    above: int, instance: str, pulled: Pulled, tmp_path: Path
) -> None:
    folder = newest(pulled.root, instance)
    file_in_its_place([folder, *folder.parents][above])
    for options in ({"instance_id": instance}, {"set_key": pulled.key(folder)}):
        with pytest.raises(Exception, match="a file is in the place of a folder") as raised:
            await restore(pulled.archive, tmp_path / "to", **options)  # type: ignore[arg-type]
        assert raised.value.exit_code == 3  # type: ignore[attr-defined]
    rows = await archived_rows(pulled.archive, [instance])
    assert "a file is in the place of a folder" in str(rows[-1].error)
    selection = Selection(instances=(instance,))
    target = Archive(LocalStore(tmp_path / "new"))
    assert (await copy(pulled.archive, target, CopyOptions(selection))).exit_code == 3
    by_name = Selection(sets=frozenset({f"/{pulled.key(folder)}/"}))
    assert (await copy(pulled.archive, target, CopyOptions(by_name))).exit_code == 3


@pytest.mark.parametrize("instance", [INSTANCE, CLUSTER])
@pytest.mark.parametrize("wrong", [wrong_digit, garbled])
async def test_a_pull_holds_records_against_their_lines(
    wrong: Callable[[Path], None], instance: str, pulled: Pulled, source: TairSource
) -> None:
    wrong(newest(pulled.root, instance))
    sums = pulled.sums(instance)
    before = sums.read_bytes()
    summary = await pull(source, pulled.archive, [everything(instance)])
    assert (summary.exit_code, len(summary.failures), summary.archived) == (3, 1, 0)
    assert sums.read_bytes() == before
    listed = [one async for page in source.pages(everything(instance)) for one in page.backups]
    rows = await compared_rows(pulled.archive, listed)
    is_damaged = (wrong, instance) not in OF_THE_MONTH  # a standard backup needs no line
    assert {row.started_at for row in rows if row.state is State.DAMAGED} == (
        {max(one.started_at for one in listed)} if is_damaged else set()
    )


@pytest.mark.parametrize("instance", [INSTANCE, CLUSTER])
async def test_a_pull_finds_an_edited_record(
    instance: str, pulled: Pulled, source: TairSource
) -> None:
    record = files_of(newest(pulled.root, instance), ".json")[0]
    edit(record, lambda one: one.update(sha256="0" * 64))
    assert (await pull(source, pulled.archive, [everything(instance)])).exit_code == 3


@pytest.mark.parametrize("instance", [INSTANCE, CLUSTER])
async def test_a_mirror_check_compares_sha256sums(
    instance: str, pulled: Pulled, offsite: Archive
) -> None:
    there = newest(Path(str(offsite.store)), instance)
    key = pulled.key(newest(pulled.root, instance))
    before = sums_of(there).read_bytes()
    lines_gone(there)
    lacks = f"{key}: its lines in SHA256SUMS are not there"
    if instance == INSTANCE:
        lacks = f"{key}.rdb: its line in SHA256SUMS is not there"
    for one, other in ((pulled.archive, offsite), (offsite, pulled.archive)):
        assert [str(m) for m in await compared(one, other)] == [
            f"missing in {offsite.store}: {lacks}"
        ]
    sums_of(there).write_bytes(before)
    remove_lines(files_of(there, ".rdb")[0])
    for one, other in ((pulled.archive, offsite), (offsite, pulled.archive)):
        [found] = await compared(one, other)
        assert found.why == "its line in SHA256SUMS is not there"


async def test_a_mirror_check_says_where_what_and_why(pulled: Pulled, offsite: Archive) -> None:
    there = Path(str(offsite.store))
    cut, gone = [there / pulled.key(path) for path in pulled.objects()[:2]]
    cut.write_bytes(b"x")
    gone.unlink()
    assert [str(one) for one in await compared(pulled.archive, offsite)] == [
        f"damaged in {there}: {cut.relative_to(there)}: it has 1 byte, 20,000 expected",
        f"damaged in {there}: {gone.relative_to(there)}: it is missing",
    ]


async def test_a_copy_says_that_sha256sums_does_not_name_a_set(
    pulled: Pulled, tmp_path: Path
) -> None:
    for instance in (INSTANCE, CLUSTER):
        lines_gone(newest(pulled.root, instance))
    told: list[object] = []
    target = Archive(LocalStore(tmp_path / "new"))
    assert (await copy(pulled.archive, target, None, told.append)).exit_code == 0
    keys = [one.key for one in told if type(one).__name__ == "SetUnsealed"]  # type: ignore[attr-defined]
    assert sorted(keys) == sorted(
        pulled.key(newest(pulled.root, instance)) for instance in (INSTANCE, CLUSTER)
    )


async def test_nothing_is_copied_onto_itself(pulled: Pulled, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(pulled.root)
    inside, around = pulled.root / "sub", pulled.root / CLUSTER
    for place, text in ((link, "same"), (inside, "inside the other"), (around, "inside the other")):
        with pytest.raises(UsageError, match=text):
            await copy(pulled.archive, Archive(LocalStore(place)))
        with pytest.raises(UsageError, match=text):
            await compared(pulled.archive, Archive(LocalStore(place)))
    assert not inside.exists()


@pytest.mark.parametrize(
    "selection",
    [Selection(instances=("r-nope",)), Selection(sets=frozenset({"r-nope/2026/11/x"}))],
)
async def test_nothing_is_begun_for_nothing(
    selection: Selection, pulled: Pulled, tmp_path: Path
) -> None:
    target = Opened(LocalStore(tmp_path / "new"))
    summary = await copy(pulled.archive, target, CopyOptions(selection))
    assert (summary.exit_code, len(summary.failures)) == (1, 1)
    assert not (tmp_path / "new").exists()


async def test_a_line_that_a_month_lost_is_missed_in_its_view(pulled: Pulled) -> None:
    """As a repair looks at another archive: nobody knows what else the line's set had."""
    await verify(pulled.archive)
    path = pulled.objects()[0]
    remove_lines(path)
    view = await view_month(pulled.archive.store, layout.month_of(pulled.key(path)))
    doubted = {one.key for one in view.sets if one.doubt is not None}
    assert doubted == {pulled.set_key(path)}


class Measuring(LocalStore):
    """Notes how many bytes are read at once."""

    most = 0

    async def read_many(self, keys: Sequence[str]) -> Mapping[str, bytes | ArchiverError | None]:
        found = await super().read_many(keys)
        read = sum(len(data) for data in found.values() if isinstance(data, bytes))
        self.most = max(self.most, read)
        return found


@pytest.mark.parametrize("command", [archived_rows, verify])
async def test_large_catalogues_of_months_that_are_gone_are_not_read_at_once(
    command: Callable[[Archive], Awaitable[object]], pulled: Pulled
) -> None:
    size = 3 * 2**20
    for number in range(1, 9):
        index = pulled.root / "r-gone" / "2025" / f"0{number}" / layout.INDEX_NAME
        index.parent.mkdir(parents=True)
        index.write_bytes(b"0" * size)
    store = Measuring(pulled.root)
    await command(Archive(store))
    assert size <= store.most < 5 * size
