"""An object under its final name is only read, until what replaces it is proven."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastcrc import crc64

import archiver.emulator.objects as served
from archiver import Archive, LocalStore, PullOptions, TairSource, TransferOptions, events, pull
from archiver.archive import folders
from archiver.archive.sealing import SealPlan
from archiver.commands.copy.difference import mismatches
from archiver.commands.copy.run import copy
from archiver.commands.copy.selection import CopyOptions, Selection
from archiver.commands.repair.from_archive import ArchiveSupplier
from archiver.commands.repair.from_source import SourceSupplier
from archiver.commands.repair.run import repair
from archiver.commands.verify.findings import Fault
from archiver.commands.verify.run import verify
from archiver.errors import CorruptFile, DoesNotFit, IntegrityError, NoSpace
from archiver.stores.local.staging import LocalStaging
from archiver.times import TimeRange
from examples.sample_rdb import rdb, write_rdb
from tests.archive.sample import (
    began_at,
    lines_of,
    put_lines,
    put_sums,
    remove_lines,
    remove_node,
    sums_of,
)
from tests.conftest import INSTANCE, QUICK, everything
from tests.verify.conftest import CLUSTER, DAYS, Pulled, edit, flip, forge

STAMP = "20261124021500"
OPTIONS = PullOptions(transfer=TransferOptions(part_size=64 * 1024, retry=QUICK))
AOF = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$10000\r\n" + b"v" * 10_000 + b"\r\n"


@pytest.fixture
def without_checksums(monkeypatch: pytest.MonkeyPatch) -> None:
    """The vendor's store names neither ETag nor CRC-64."""
    real = served._headers

    def bare(meta: Any) -> dict[str, str]:
        hidden = ("ETag", "x-oss-hash-crc64ecma")
        return {name: value for name, value in real(meta).items() if name not in hidden}

    monkeypatch.setattr(served, "_headers", bare)


def kept_aside(root: Path) -> list[bytes]:
    return [path.read_bytes() for path in (root / ".quarantine").rglob("*.replaced")]


async def pulled_one(
    files: Path, source: TairSource, archive: Archive, data: bytes | None = None
) -> tuple[Path, Path]:
    """The file that the vendor serves, and the archive's."""
    served_at = files / INSTANCE / f"d_{STAMP}.rdb"
    if data is None:
        write_rdb(served_at, 300_000)
    else:
        served_at.write_bytes(data)
    assert (await pull(source, archive, [everything()], OPTIONS)).exit_code == 0
    [path] = Path(str(archive.store)).glob(f"{INSTANCE}/*/*/*Z-*[!n]")
    return served_at, path


# Pull


async def test_a_damaged_vendor_does_not_cost_the_archives_good_object(
    files: Path, source: TairSource, archive: Archive
) -> None:
    """Its record cannot be read; what the vendor serves by now is damaged."""
    served_at, path = await pulled_one(files, source, archive)
    good = path.read_bytes()
    path.with_suffix(".json").write_bytes(b"{")
    flip(served_at)
    summary = await pull(source, archive, [everything()], OPTIONS)
    assert summary.exit_code == 3
    assert path.read_bytes() == good
    [kept] = (path.parents[3] / ".quarantine").rglob("*.data")
    assert kept.read_bytes() == served_at.read_bytes()


async def test_a_witness_here_keeps_a_log_that_the_source_contradicts(
    files: Path, source: TairSource, archive: Archive
) -> None:
    """A log has no checksum of its own, and the source's is that of what it serves now."""
    served_at, path = await pulled_one(files, source, archive, AOF)
    path.with_suffix(".json").unlink()
    flip(served_at)
    summary = await pull(source, archive, [everything()], OPTIONS)
    [failed] = summary.failures
    assert isinstance(failed.error, CorruptFile)
    assert "SHA256SUMS confirm" in str(failed.error)
    assert path.read_bytes() == AOF


async def test_what_nothing_confirms_is_kept_when_it_is_replaced(
    files: Path, source: TairSource, archive: Archive
) -> None:
    told: list[events.Event] = []
    _, path = await pulled_one(files, source, archive, AOF)
    path.with_suffix(".json").unlink()
    for name in ("SHA256SUMS", "index.jsonl"):
        path.with_name(name).unlink()
    flip(path)
    damaged = path.read_bytes()
    assert (await pull(source, archive, [everything()], OPTIONS, told.append)).exit_code == 0
    assert path.read_bytes() == AOF
    assert kept_aside(path.parents[3]) == [damaged]
    [event] = [one for one in told if isinstance(one, events.KeptAside)]
    assert (path.parents[3] / event.kept).read_bytes() == damaged


async def test_a_right_object_without_a_record_is_recorded_and_not_fetched(
    files: Path, source: TairSource, archive: Archive
) -> None:
    _, path = await pulled_one(files, source, archive)
    inode = path.stat().st_ino
    path.with_suffix(".json").write_bytes(b"{")
    summary = await pull(source, archive, [everything()], OPTIONS)
    assert (summary.exit_code, summary.archived, dict(summary.bytes_fetched)) == (0, 1, {})
    assert path.stat().st_ino == inode
    assert (await verify(archive)).findings == []


@pytest.mark.usefixtures("without_checksums")
@pytest.mark.parametrize("changed", [True, False])
async def test_bytes_that_nothing_proves_are_fetched_again(
    files: Path, source: TairSource, archive: Archive, changed: bool
) -> None:
    """The record cannot be read, and neither the source nor the file has a checksum: whether the
    object was changed is not to be known."""
    _, path = await pulled_one(files, source, archive, AOF)
    record = path.with_suffix(".json")
    record.write_bytes(b"{")
    if changed:
        path.write_bytes(AOF[:5000] + b"x" * 100 + AOF[5100:])
    summary = await pull(source, archive, [everything()], OPTIONS)
    assert summary.archived == 1
    assert sum(summary.bytes_fetched.values()) == len(AOF)
    assert path.read_bytes() == AOF
    assert json.loads(record.read_bytes())["sha256"] == hashlib.sha256(AOF).hexdigest()
    assert (await verify(archive)).findings == []


@pytest.mark.usefixtures("without_checksums")
@pytest.mark.parametrize("earlier", [False, True], ids=["", "begun by an earlier version"])
@pytest.mark.parametrize("kind", ["log", "dump"])
async def test_nothing_is_resumed_where_the_source_names_no_version(
    files: Path,
    source: TairSource,
    archive: Archive,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    earlier: bool,
) -> None:
    """Another object of the same size may be there by now, and parts of both would be a third."""
    log = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$3000000\r\n" + b"v" * 3_000_000 + b"\r\n"
    served_at = files / INSTANCE / f"d_{STAMP}.rdb"
    first = log if kind == "log" else write_rdb(served_at, 3_000_000, 1)
    served_at.write_bytes(first)
    real, calls = LocalStaging.write, 0

    def stops(staging: LocalStaging, offset: int, data: memoryview) -> None:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise NoSpace("no space")
        real(staging, offset, data)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStaging, "write", stops)
        if earlier:
            patch.setattr("archiver.transfer.download._is_pinned", lambda _: True)
        with pytest.raises(NoSpace):
            await pull(source, archive, [everything()], OPTIONS)
    second = log.replace(b"v", b"w") if kind == "log" else write_rdb(served_at, 3_000_000, 2)
    assert len(first) == len(second)
    served_at.write_bytes(second)
    summary = await pull(source, archive, [everything()], OPTIONS)
    assert summary.exit_code == 0
    [path] = Path(str(archive.store)).glob(f"{INSTANCE}/*/*/*Z-*[!n]")
    assert path.read_bytes() == second
    assert sum(summary.bytes_fetched.values()) < len(second) + 1_500_000  # all, and first answers


async def test_one_that_does_not_fit_keeps_no_other_from_coming(
    files: Path, source: TairSource, archive: Archive
) -> None:
    """Night after night, and it alone fails."""
    write_rdb(files / INSTANCE / f"d_{STAMP}.rdb", 300_000)
    write_rdb(files / INSTANCE / "d_20261123021500.rdb", 9_000)
    (files / INSTANCE / "d_20261122021500.rdb").write_bytes(b"REDIS0011")
    fields = {"d_20261122021500.rdb": {"BackupSize": 32 * 2**40}}
    (files / INSTANCE / "backups.json").write_text(json.dumps(fields))
    summary = await pull(source, archive, [everything()], OPTIONS)
    [failed] = summary.failures
    assert isinstance(failed.error, DoesNotFit)
    assert (summary.archived, summary.exit_code) == (2, 6)


async def test_a_full_disk_lets_what_is_under_way_end(
    files: Path, source: TairSource, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file that met it fails; another that was begun comes home; nothing new is begun."""
    for day in range(10, 20):
        write_rdb(files / INSTANCE / f"d_202611{day}021500.rdb", 300_000, day)
    real, met = LocalStaging.write, list[str]()

    def full(staging: LocalStaging, offset: int, data: memoryview) -> None:
        if not met or met[0] == staging._stem:
            met.append(staging._stem)
            raise NoSpace("no space left on device")
        real(staging, offset, data)

    monkeypatch.setattr(LocalStaging, "write", full)
    told: list[events.Event] = []
    options = PullOptions(workers=2, transfer=OPTIONS.transfer)
    with pytest.raises(NoSpace):
        await pull(source, archive, [everything()], options, told.append)
    assert sum(isinstance(one, events.Archived) for one in told) == 1
    assert sum(isinstance(one, events.Started) for one in told) == 2


# Copy


def _wrong_digit(path: Path) -> None:
    def change(document: dict[str, str]) -> None:
        first = "0" if document["sha256"][0] != "0" else "1"
        document["sha256"] = first + document["sha256"][1:]

    edit(path.with_suffix(".json"), change)


def _both_changed(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-500] ^= 1
    path.write_bytes(data)
    edit(path.with_suffix(".json"), lambda d: d.update(sha256=hashlib.sha256(data).hexdigest()))


@pytest.mark.parametrize("wrong", [_wrong_digit, _both_changed])
async def test_a_copy_leaves_a_target_that_says_something_else(
    pulled: Pulled, offsite: Archive, wrong: Callable[[Path], None]
) -> None:
    path = pulled.objects()[0]
    there = Path(str(offsite.store)) / pulled.key(path)
    good, record = there.read_bytes(), there.with_suffix(".json").read_bytes()
    wrong(path)
    summary = await copy(pulled.archive, offsite)
    [failed] = summary.failures
    assert isinstance(failed.error, IntegrityError)
    for said in (str(pulled.archive.store), str(offsite.store), pulled.key(path)[:-4]):
        assert said in str(failed.error)
    assert summary.exit_code == 3
    assert (there.read_bytes(), there.with_suffix(".json").read_bytes()) == (good, record)
    assert "another" in {one.what.split()[0] async for one in _differences(pulled, offsite)}


def _differences(pulled: Pulled, offsite: Archive):  # type: ignore[no-untyped-def]  # noqa: ANN202
    return mismatches(pulled.archive, offsite, Selection())


async def test_a_copy_holds_what_it_reads_against_both_checksums(
    pulled: Pulled, tmp_path: Path
) -> None:
    """Another whole dump is there, and the CRC-64 in its record is that one's."""
    path = pulled.objects()[0]
    write_rdb(path, path.stat().st_size, 77)
    crc = str(crc64.xz(path.read_bytes()))
    edit(path.with_suffix(".json"), lambda d: d.update(crc64ecma=crc, crc64ecma_declared=crc))
    target = Archive(LocalStore(tmp_path / "new"))
    summary = await copy(pulled.archive, target)
    [failed] = summary.failures
    assert "it does not match the checksums in its record" in str(failed.error)
    assert summary.exit_code == 3
    assert not (tmp_path / "new" / pulled.key(path)).exists()


async def test_a_copy_replaces_when_it_is_told_to(pulled: Pulled, offsite: Archive) -> None:
    path = pulled.objects()[0]
    there = Path(str(offsite.store)) / pulled.key(path)
    _both_changed(there)
    edit(there.with_suffix(".json"), lambda d: d.update(crc64ecma="7"))
    changed = there.read_bytes()
    summary = await copy(pulled.archive, offsite, CopyOptions(replace=True))
    assert there.read_bytes() == path.read_bytes()
    assert kept_aside(Path(str(offsite.store))) in ([changed], [])
    assert (await verify(offsite)).findings == []
    assert summary.exit_code == 0


async def test_a_copy_keeps_what_its_target_confirms(pulled: Pulled, offsite: Archive) -> None:
    """The target's record cannot be read; SHA256SUMS there speaks for the object."""
    path = pulled.objects()[0]
    there = Path(str(offsite.store)) / pulled.key(path)
    good = there.read_bytes()
    there.with_suffix(".json").write_bytes(b"{")
    _both_changed(path)
    summary = await copy(pulled.archive, offsite)
    assert summary.exit_code == 3
    assert there.read_bytes() == good


async def test_a_copy_records_what_is_there(pulled: Pulled, offsite: Archive) -> None:
    path = pulled.objects()[0]
    there = Path(str(offsite.store)) / pulled.key(path)
    inode, record = there.stat().st_ino, there.with_suffix(".json").read_bytes()
    there.with_suffix(".json").unlink()
    summary = await copy(pulled.archive, offsite)
    assert (summary.exit_code, summary.archived) == (0, 1)
    assert there.stat().st_ino == inode
    assert there.with_suffix(".json").read_bytes() == record


async def test_a_set_is_not_doubled_for_the_name_of_its_folder(
    pulled: Pulled, offsite: Archive
) -> None:
    """Each archive named the folder after the node that it saw first."""
    there = Path(str(offsite.store)) / pulled.key(pulled.objects()[0].parent)
    other = there.with_name(there.name.replace("T031500Z", "T031507Z"))
    remove_lines(there)
    there.rename(other)
    put_sums(other)
    lost = other / pulled.objects()[1].name
    remove_node(lost)
    assert {one.what.split()[0] async for one in _differences(pulled, offsite)} == {"missing"}
    summary = await copy(pulled.archive, offsite)
    assert (summary.exit_code, summary.archived) == (0, 1)
    assert lost.read_bytes() == pulled.objects()[1].read_bytes()
    assert not there.exists()
    assert [one async for one in _differences(pulled, offsite)] == []
    assert (await verify(offsite)).findings == []
    assert (await copy(offsite, pulled.archive)).archived == 0


async def test_a_range_means_the_same_sets_everywhere(pulled: Pulled, tmp_path: Path) -> None:
    """Whole sets, by their start; the end is not in it."""
    target = Archive(LocalStore(tmp_path / "part"))
    sets = await folders.list_folders(pulled.archive, [CLUSTER])
    range_ = TimeRange(sets[0].started_at, sets[2].started_at)
    for path in pulled.objects():
        edit(path.with_suffix(".json"), _later)
    summary = await copy(
        pulled.archive, target, CopyOptions(selection=Selection((CLUSTER,), range=range_))
    )
    assert summary.archived == 6
    copied = await folders.list_folders(target)
    assert [one.started_at for one in copied] == [one.started_at for one in sets[:2]]
    assert DAYS[2] not in copied[-1].key


def _later(document: dict[str, Any]) -> None:
    """Each node of a set begins some seconds after the other."""
    began_at(document, document["started_at"].replace(":00Z", ":20Z"))


@pytest.mark.parametrize("sums", [b"", b"\xff\xff", None])
async def test_a_copy_of_a_set_with_bad_sums_has_its_own(
    pulled: Pulled, tmp_path: Path, sums: bytes | None
) -> None:
    path = pulled.sums(INSTANCE)
    right = path.read_bytes()
    if sums is None:
        path.unlink()
    else:
        path.write_bytes(sums)
    target = Archive(LocalStore(tmp_path / "copied"))
    summary = await copy(pulled.archive, target)
    assert summary.exit_code == 3
    assert (tmp_path / "copied" / pulled.key(path)).read_bytes() == right
    assert Fault.SUMS not in {f.fault for f in (await verify(target)).findings}


async def test_a_copy_that_lacks_a_node_is_not_sealed(pulled: Pulled, tmp_path: Path) -> None:
    path = pulled.objects()[1]
    flip(path)
    target = Archive(LocalStore(tmp_path / "copied"))
    summary = await copy(pulled.archive, target)
    assert (len(summary.failures), summary.exit_code) == (1, 3)
    copied = tmp_path / "copied" / pulled.key(path)
    assert not copied.exists()
    assert lines_of(copied).keys() == {
        name for name in lines_of(path) if not name.startswith(copied.parent.name)
    }


async def test_a_copy_names_an_object_without_a_record(
    pulled: Pulled, offsite: Archive, tmp_path: Path
) -> None:
    """Every time, and a mirror check as well."""
    path = pulled.objects(INSTANCE)[0]
    path.with_suffix(".json").unlink()
    target = Archive(LocalStore(tmp_path / "copied"))
    for _ in range(2):
        summary = await copy(pulled.archive, target)
        assert [failed.subject for failed in summary.failures] == [pulled.key(path)]
        assert summary.exit_code == 3
    found = {one.key async for one in mismatches(pulled.archive, offsite, Selection())}
    assert pulled.key(path) in found


async def test_a_repair_keeps_the_bytes_that_all_here_confirm(
    pulled: Pulled, vendor: Path, source: TairSource
) -> None:
    """Our object is damaged, or gone; the vendor serves another whole dump of its size."""
    for lost in (False, True):
        path = pulled.objects()[0]
        record, sums = path.with_suffix(".json").read_bytes(), pulled.sums().read_bytes()
        if lost:
            path.unlink()
        else:
            flip(path)
        served_at = vendor / CLUSTER / f"{CLUSTER}-db-0" / f"d_{DAYS[1]}031500.rdb"
        write_rdb(served_at, served_at.stat().st_size, 77)
        summary = await repair(
            pulled.archive, await verify(pulled.archive), SourceSupplier(source, OPTIONS.transfer)
        )
        assert summary.exit_code == 3
        assert path.with_suffix(".json").read_bytes() == record
        assert pulled.sums().read_bytes() == sums


@pytest.mark.parametrize("declared", [True, False])
async def test_one_word_of_an_earlier_verify_is_all_that_is_left(
    files: Path, source: TairSource, archive: Archive, request: pytest.FixtureRequest,
    declared: bool,
) -> None:  # fmt: skip
    """It has a wrong digit. What the source's own CRC-64 proves is brought home all the same."""
    _, path = await pulled_one(files, source, archive, AOF)
    await verify(archive)
    [results] = Path(str(archive.store)).glob("verified/*/*.json")
    right = hashlib.sha256(AOF).hexdigest()
    results.write_text(results.read_text().replace(right, f"{'1' * 8}{right[8:]}"))
    shutil.rmtree(path.parent)
    if not declared:
        request.getfixturevalue("without_checksums")
    supplier = SourceSupplier(source, OPTIONS.transfer)
    summary = await repair(archive, await verify(archive), supplier)
    assert path.exists() == declared
    assert summary.exit_code == (0 if declared else 3)
    assert (await verify(archive)).exit_code == (0 if declared else 3)


@pytest.mark.usefixtures("without_checksums")
async def test_a_whole_dump_of_another_node_is_not_taken_for_this_one(
    pulled: Pulled, source: TairSource
) -> None:
    """Its footer says that it is a dump, not which one; and the source has no CRC-64 to tell."""
    one, other = pulled.objects()[:2]
    good, others = one.read_bytes(), other.read_bytes()
    assert len(good) == len(others)
    one.write_bytes(others)
    one.with_suffix(".json").write_bytes(b"{")
    assert (await pull(source, pulled.archive, [everything(CLUSTER)], OPTIONS)).exit_code == 0
    assert one.read_bytes() == good


async def test_two_folders_of_one_set_do_not_meet(pulled: Pulled, tmp_path: Path) -> None:
    """Both belong into one folder of the target, which other bytes do not get."""
    folder = pulled.objects()[0].parent
    put_sums(shutil.copytree(folder, folder.with_name(folder.name.replace("00Z", "07Z"))))
    target = Archive(LocalStore(tmp_path / "copied"))
    await copy(pulled.archive, target)
    assert (await copy(pulled.archive, target)).archived == 0
    [copied] = (tmp_path / "copied").glob(f"{CLUSTER}/*/*/{DAYS[1]}*")
    for path in pulled.objects():
        if path.parent == folder:
            assert (copied / path.name).read_bytes() == path.read_bytes()
    assert (await verify(target)).findings == []


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def two_that_differ(pulled: Pulled, offsite: Archive, instance_id: str) -> Path:
    """Each agrees with itself, and was verified. The file in the second that is another."""
    path = Path(str(offsite.store)) / pulled.key(pulled.objects(instance_id)[0])
    data = rdb(20_000, 99)
    forge(path, data)
    made = json.loads(pulled.objects()[0].with_suffix(".json").read_text())

    def change(document: dict[str, Any]) -> None:
        document["size"] = document["received"]["BackupSize"] = len(data)
        document["rdb"] = made["rdb"]

    edit(path.with_suffix(".json"), change)
    put_lines(path, lines_of(path) | {pulled.name(pulled.objects(instance_id)[0]): sha256(data)})
    for one in (pulled.archive, offsite):
        assert (await verify(one)).exit_code == 0
    assert (await copy(pulled.archive, offsite)).exit_code == 3
    return path


@pytest.mark.parametrize("died", [False, True])
@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("instance_id", [INSTANCE, CLUSTER])
async def test_what_is_replaced_takes_its_line_along(
    pulled: Pulled, offsite: Archive, monkeypatch: pytest.MonkeyPatch, instance_id: str,
    sealed: bool, died: bool,
) -> None:  # fmt: skip
    """Whether or not the first archive has its lines, and a first run came to its end."""
    path = await two_that_differ(pulled, offsite, instance_id)
    sums = pulled.sums(instance_id)
    right, other = sums.read_bytes(), path.read_bytes()
    own = pulled.objects(instance_id)[0]
    if not sealed:
        remove_lines(own if instance_id == INSTANCE else own.parent)
        shutil.rmtree(pulled.root / "verified")  # what saw those lines
    if died:
        with monkeypatch.context() as patch:
            patch.setattr(SealPlan, "write", full_disk)
            with pytest.raises(NoSpace):
                await copy(pulled.archive, offsite, CopyOptions(replace=True))
        assert path.read_bytes() != other
        assert (await verify(offsite)).exit_code == 3
    told: list[events.Event] = []
    summary = await copy(pulled.archive, offsite, CopyOptions(replace=True), told.append)
    assert summary.exit_code == 0
    assert not [event for event in told if isinstance(event, events.Damaged)]  # it was whole
    assert sums_of(path).read_bytes() == right
    assert kept_aside(Path(str(offsite.store))) == [other]
    assert (await verify(offsite)).exit_code == 0
    differ = [str(one) async for one in mismatches(pulled.archive, offsite, Selection())]
    assert len(differ) == (0 if sealed else 1)
    assert all(f"missing in {pulled.root}: {pulled.set_key(own)}" in one for one in differ)
    again = await copy(pulled.archive, offsite, CopyOptions(replace=True))
    assert (again.exit_code, again.archived) == (0, 0)


async def full_disk(*_: object, **__: object) -> int:
    raise NoSpace("no space")


async def test_the_lines_of_other_files_stay(pulled: Pulled, offsite: Archive) -> None:
    path = await two_that_differ(pulled, offsite, CLUSTER)
    lost = {f"{path.parent.name}/{CLUSTER}-db-9-7.rdb": "0" * 64}
    put_lines(path, lines_of(path) | lost)
    summary = await copy(pulled.archive, offsite, CopyOptions(replace=True))
    assert summary.exit_code == 0
    assert lines_of(path) == lines_of(pulled.sums()) | lost
    assert [f.fault for f in (await verify(offsite)).findings] == [Fault.MISSING]


@pytest.mark.parametrize("kind", ["a folder", "a symbolic link", "a FIFO"])
@pytest.mark.parametrize("way", ["pull", "copy", "repair"])
async def test_what_is_in_the_place_of_an_object_is_reported(
    pulled: Pulled, offsite: Archive, source: TairSource, way: str, kind: str
) -> None:
    path = pulled.objects()[0]
    path.unlink()
    if kind == "a folder":
        path.mkdir()
    elif kind == "a FIFO":
        os.mkfifo(path)
    else:
        path.symlink_to("nowhere")
    told: list[object] = []
    if way == "pull":
        assert (
            await pull(source, pulled.archive, [everything(CLUSTER)], None, told.append)
        ).exit_code == 0
    elif way == "copy":
        assert (await copy(offsite, pulled.archive, None, told.append)).exit_code == 0
    else:
        found = await verify(pulled.archive)
        assert (
            await repair(pulled.archive, found, ArchiveSupplier(offsite), None, told.append)
        ).exit_code == 0
    [cleared] = [event for event in told if isinstance(event, events.Cleared)]
    assert cleared.key == pulled.key(path)
    assert os.path.lexists(pulled.root / cleared.kept)
    if way != "repair":
        [damaged] = [event for event in told if isinstance(event, events.Damaged)]
        assert damaged.why == f"{pulled.key(path)}: {kind} is in its place"
        assert damaged.cure == ("copying" if way == "copy" else "downloading") + " it again"
    assert (await verify(pulled.archive)).exit_code == 0


async def test_a_forged_dump_that_is_broken_makes_way_and_is_kept(
    files: Path, source: TairSource, archive: Archive
) -> None:
    """Its record and SHA256SUMS were changed with it. They are not believed, and the bytes are kept
    all the same: nothing but their own checksum speaks against them."""
    served_at, path = await pulled_one(files, source, archive)
    flip(path)
    forge(path, path.read_bytes())
    put_lines(path, {path.name: sha256(path.read_bytes())})
    forged = path.read_bytes()
    found = await verify(archive)
    supplier = SourceSupplier(source, TransferOptions(retry=QUICK))
    done = await repair(archive, found, supplier)
    assert (found.exit_code, done.exit_code) == (3, 0)
    assert path.read_bytes() == served_at.read_bytes()
    assert kept_aside(path.parents[3]) == [forged]
