"""What is wrong is put right, from another archive or from the vendor, or it is said why not."""

import hashlib
import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from archiver import Archive, LocalStore, TairSource, VerifyOptions, VerifySummary, pull, verify
from archiver.archive import layout
from archiver.archive.verified import results_key
from archiver.commands.repair.from_archive import ArchiveSupplier
from archiver.commands.repair.from_source import SourceSupplier
from archiver.commands.repair.run import Supplied, Supplier, WrongSet, repair
from archiver.commands.verify import events
from archiver.commands.verify.findings import Fault
from archiver.concurrency import in_thread
from archiver.errors import (
    ArchiveBusy,
    ArchiverError,
    BackupGone,
    IntegrityError,
    NoSpace,
    StoreError,
    UnknownInstance,
    UsageError,
)
from archiver.stores.base import OpenedObject
from archiver.stores.local.staging import LocalStaging
from archiver.transfer.engine import TransferOptions
from examples.sample_rdb import rdb, write_rdb
from tests.archive.sample import INSTANCE as SAMPLE
from tests.archive.sample import copy_of, put_lines, put_standard, put_sums, remove_lines, sums_of
from tests.conftest import DATA, INSTANCE, QUICK, everything
from tests.verify.conftest import CLUSTER, DAYS, DenyingOne, Pulled, edit, flip, forge, swap

Damage = Callable[[Pulled], None]


def records(pulled: Pulled) -> list[Path]:
    return [path.with_suffix(".json") for path in pulled.objects()]


def a_flipped_byte(pulled: Pulled) -> None:
    flip(pulled.objects()[0])
    flip(pulled.objects(INSTANCE)[0], 20)


def a_truncation(pulled: Pulled) -> None:
    path = pulled.objects()[0]
    path.write_bytes(path.read_bytes()[:-7])


def trailing_junk(pulled: Pulled) -> None:
    path = pulled.objects()[0]
    path.write_bytes(path.read_bytes() + b"junk")


def swapped_files(pulled: Pulled) -> None:
    swap(*pulled.objects()[:2])


def swapped_pairs(pulled: Pulled) -> None:
    swap(*pulled.objects()[:2])
    swap(*records(pulled)[:2])


def a_missing_object(pulled: Pulled) -> None:
    pulled.objects()[0].unlink()


def a_missing_node(pulled: Pulled) -> None:
    pulled.objects()[0].unlink()
    records(pulled)[0].unlink()


def a_missing_node_without_a_trace(pulled: Pulled) -> None:
    a_missing_node(pulled)
    remove_lines(pulled.objects()[0].parent)


def a_missing_set(pulled: Pulled) -> None:
    for path in pulled.objects()[0].parent.iterdir():
        path.unlink()


def a_tampered_record(pulled: Pulled) -> None:
    edit(records(pulled)[0], lambda document: document.update(sha256="0" * 64))
    edit(records(pulled)[1], lambda document: document.update(node_id="r-x"))


def an_unreadable_record(pulled: Pulled) -> None:
    records(pulled)[0].write_bytes(b"{")


def a_missing_record(pulled: Pulled) -> None:
    records(pulled)[0].unlink()


def an_unreadable_record_and_object(pulled: Pulled) -> None:
    records(pulled)[0].write_bytes(b"{")
    flip(pulled.objects()[0])


def missing_sums(pulled: Pulled) -> None:
    pulled.sums().unlink()
    pulled.sums(INSTANCE).unlink()


def tampered_sums(pulled: Pulled) -> None:
    put_lines(pulled.sums(), {pulled.name(pulled.objects()[0]): "0" * 64})


DAMAGES = [
    a_flipped_byte, a_truncation, trailing_junk, swapped_files, swapped_pairs, a_missing_object,
    a_missing_node, a_missing_node_without_a_trace, a_missing_set, a_tampered_record,
    an_unreadable_record, a_missing_record, an_unreadable_record_and_object, missing_sums,
    tampered_sums,
]  # fmt: skip
# Objects that are whole, and another's: their bytes are kept when others replace them.
SWAPPED = (swapped_files, swapped_pairs)
by_name = pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)


def contents(root: Path) -> dict[str, bytes]:
    """Objects and SHA256SUMS."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.suffix == ".rdb" or path.name == "SHA256SUMS"
    }


def quarantined(root: Path) -> list[bytes]:
    """What is kept in quarantine, without the notes about it."""
    found = (path for path in (root / ".quarantine").rglob("*") if path.suffix != ".json")
    return sorted(path.read_bytes() for path in found if path.is_file())


def swapped(pulled: Pulled, damage: Damage) -> list[str]:
    return [pulled.key(path) for path in pulled.objects()[:2]] if damage in SWAPPED else []


async def mended(
    pulled: Pulled, supplier: Supplier, told: list[events.ScrubEvent] | None = None
) -> VerifySummary:
    """Verify, repair, and verify once more from the start."""
    found = await verify(pulled.archive)
    assert found.findings
    told = [] if told is None else told
    summary = await repair(pulled.archive, found, supplier, observer=told.append)
    assert [e for e in told if isinstance(e, events.NotRepaired)] == summary.not_repaired
    once_more = await verify(pulled.archive)
    assert {(f.key, f.fault) for f in summary.findings} == {
        (f.key, f.fault) for f in once_more.findings
    }
    assert len(summary.repaired) + len(summary.findings) >= len(found.findings)
    return summary


@by_name
async def test_repaired_from_another_archive(
    pulled: Pulled, offsite: Archive, damage: Damage
) -> None:
    before = contents(pulled.root)
    damage(pulled)
    summary = await mended(pulled, ArchiveSupplier(offsite))
    assert (summary.findings, summary.not_repaired) == ([], [])
    assert summary.exit_code == 0
    assert summary.repaired
    assert contents(pulled.root) == before
    assert list((pulled.root / ".staging").iterdir()) == []
    assert quarantined(pulled.root) == sorted(before[key] for key in swapped(pulled, damage))


@by_name
async def test_repaired_from_the_source(pulled: Pulled, source: TairSource, damage: Damage) -> None:
    before = contents(pulled.root)
    damage(pulled)
    summary = await mended(pulled, SourceSupplier(source, TransferOptions(retry=QUICK)))
    assert (summary.findings, summary.not_repaired) == ([], [])
    assert summary.repaired
    assert contents(pulled.root) == before
    assert quarantined(pulled.root) == sorted(before[key] for key in swapped(pulled, damage))


async def test_command_logs_and_backups_without_a_job(
    files: Path, source: TairSource, tmp_path: Path
) -> None:
    shutil.copy(DATA / "rdb__memory.aof", files / INSTANCE / "log_20261124021500.aof")
    write_rdb(files / INSTANCE / "old_20261123021500.rdb", 9000)
    without = {"old_20261123021500.rdb": {"BackupJobID": None}}
    (files / INSTANCE / "backups.json").write_text(json.dumps(without))
    pulled = Pulled(tmp_path / "archive", Archive(LocalStore(tmp_path / "archive")))
    await pull(source, pulled.archive, [everything(need_aof=True)])
    assert (await verify(pulled.archive)).findings == []
    shutil.copytree(pulled.root, tmp_path / "offsite")
    for supplier in (
        ArchiveSupplier(Archive(LocalStore(tmp_path / "offsite"))),
        SourceSupplier(source, TransferOptions(retry=QUICK)),
    ):
        for path in (*pulled.root.rglob("*.aof"), *pulled.root.rglob("*.rdb")):
            flip(path, -20)
        assert len((await mended(pulled, supplier)).repaired) == 2


async def test_a_repaired_record_keeps_where_it_came_from(pulled: Pulled, offsite: Archive) -> None:
    path = pulled.objects()[0]
    before = json.loads(path.with_suffix(".json").read_text())
    flip(path)
    await mended(pulled, ArchiveSupplier(offsite))
    after = json.loads(path.with_suffix(".json").read_text())
    [repaired] = after.pop("repairs")
    assert after == before
    assert (repaired["from"], repaired["why"]) == (str(offsite.store), ["changed"])
    flip(path)
    await mended(pulled, ArchiveSupplier(offsite))
    assert len(json.loads(path.with_suffix(".json").read_text())["repairs"]) == 2


async def test_a_right_object_is_not_copied_for_its_record(
    pulled: Pulled, offsite: Archive
) -> None:
    path = pulled.objects()[0]
    inode = path.stat().st_ino
    a_tampered_record(pulled)
    await mended(pulled, ArchiveSupplier(offsite))
    assert path.stat().st_ino == inode


async def test_the_other_archive_is_damaged_too(pulled: Pulled, offsite: Archive) -> None:
    path = pulled.objects()[0]
    flip(path)
    damaged = path.read_bytes()
    flip(Path(str(offsite.store)) / pulled.key(path), 700)
    summary = await mended(pulled, ArchiveSupplier(offsite))
    [failed] = summary.not_repaired
    assert "wrong in" in str(failed.error)
    assert summary.exit_code == 3
    assert path.read_bytes() == damaged


async def test_the_other_archive_is_consistent_and_another(
    pulled: Pulled, offsite: Archive
) -> None:
    """Whoever changed everything there does not get it in here."""
    path = pulled.objects()[0]
    forged, data = Path(str(offsite.store)) / pulled.key(path), rdb(20_000, 99)
    old, new = (hashlib.sha256(d).hexdigest() for d in (forged.read_bytes(), data))
    forged.write_bytes(data)

    def change(document: dict[str, object]) -> None:
        from fastcrc import crc64

        document["sha256"] = new
        document["crc64ecma"] = document["crc64ecma_declared"] = str(crc64.xz(data))

    edit(forged.with_suffix(".json"), change)
    sums = sums_of(forged)
    sums.write_text(sums.read_text().replace(old, new))
    assert (await verify(offsite)).findings == []
    path.unlink()
    summary = await mended(pulled, ArchiveSupplier(offsite))
    [failed] = summary.not_repaired
    assert isinstance(failed.error, IntegrityError)
    assert "contradict " in str(failed.error)
    assert not path.exists()


async def test_the_other_archive_has_other_bytes_with_the_same_crc(
    pulled: Pulled, offsite: Archive
) -> None:
    """The record here names another SHA-256; that the CRC-64 is the same is no proof."""
    path = pulled.objects()[0]
    there, data = Path(str(offsite.store)) / pulled.key(path), rdb(20_000, 99)
    forge(there, data)
    put_sums(there.parent)
    declared = json.loads(there.with_suffix(".json").read_text())["crc64ecma_declared"]
    same = {"crc64ecma_declared": declared, "crc64ecma": declared}
    edit(path.with_suffix(".json"), lambda document: document.update(same))
    assert (await verify(offsite)).findings == []
    path.unlink()
    summary = await mended(pulled, ArchiveSupplier(offsite))
    assert "contradict " in str(summary.not_repaired[0].error)
    assert not path.exists()


async def test_the_other_archive_lacks_it(pulled: Pulled, offsite: Archive) -> None:
    path = pulled.objects()[0]
    for other in (path, path.with_suffix(".json")):
        (Path(str(offsite.store)) / pulled.key(other)).unlink()
    flip(path)
    summary = await mended(pulled, ArchiveSupplier(offsite))
    assert "does not have it" in str(summary.not_repaired[0].error)
    assert [f.fault for f in summary.findings] == [Fault.CHANGED]


async def test_another_archive_with_folders_of_other_names(
    pulled: Pulled, offsite: Archive
) -> None:
    """A cluster's folder is named after whichever node was seen first."""
    path = pulled.objects()[0]
    folder = Path(str(offsite.store)) / pulled.key(path.parent)
    start, _, job = folder.name.partition("-")
    remove_lines(folder)
    put_sums(folder.rename(folder.with_name(f"{start[:-3]}09Z-{job}")))
    flip(path)
    assert (await mended(pulled, ArchiveSupplier(offsite))).findings == []


async def test_what_concerns_no_set_stays(pulled: Pulled, offsite: Archive) -> None:
    (pulled.objects()[0].with_name("notes.txt")).write_text("?")
    flip(pulled.objects()[0])
    summary = await mended(pulled, ArchiveSupplier(offsite))
    assert [f.fault for f in summary.findings] == [Fault.STRAY]
    assert [f.fault for f in summary.repaired] == [Fault.CHANGED]


async def test_the_vendor_no_longer_has_it(
    pulled: Pulled, vendor: Path, source: TairSource
) -> None:
    flip(pulled.objects()[0])
    damaged = pulled.objects()[0].read_bytes()
    shutil.rmtree(vendor / CLUSTER)
    (vendor / CLUSTER).mkdir()
    summary = await mended(pulled, SourceSupplier(source))
    [failed] = summary.not_repaired
    assert isinstance(failed.error, BackupGone)
    assert pulled.objects()[0].read_bytes() == damaged
    assert summary.exit_code == 3


async def test_a_fetch_that_fails_leaves_the_damaged_bytes(
    pulled: Pulled, vendor: Path, source: TairSource
) -> None:
    path = pulled.objects()[0]
    flip(path)
    damaged = path.read_bytes()
    bad = next(p for p in vendor.rglob("*.rdb") if p.stat().st_size == len(damaged)
               and path.name.startswith(p.parent.name) and "1123" in p.name)  # fmt: skip
    flip(bad)
    summary = await repair(
        pulled.archive,
        await verify(pulled.archive),
        SourceSupplier(source, TransferOptions(retry=QUICK)),
    )
    assert summary.exit_code == 3
    assert path.read_bytes() == damaged
    [kept] = (pulled.root / ".quarantine").rglob("*.data")  # the vendor's, which is damaged, too
    assert kept.read_bytes() == bad.read_bytes()


@pytest.mark.parametrize("origin", ["archive", "source"])
async def test_what_was_unreadable_for_a_moment_is_not_replaced(
    pulled: Pulled, offsite: Archive, vendor: Path, source: TairSource,
    monkeypatch: pytest.MonkeyPatch, origin: str,
) -> None:  # fmt: skip
    """And the only good bytes left, since the vendor's and the other archive's are damaged."""
    path = pulled.objects()[0]
    good, inode = path.read_bytes(), path.stat().st_ino
    opened = LocalStore.open

    def dying(self: LocalStore, key: str) -> AbstractContextManager[OpenedObject]:
        if key == pulled.key(path):
            raise StoreError(f"{key}: Input/output error")
        return opened(self, key)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "open", dying)
        found = await verify(pulled.archive)
    assert [f.fault for f in found.findings] == [Fault.UNREADABLE]
    for bad in (*(vendor / CLUSTER).rglob("*.rdb"), Path(str(offsite.store)) / pulled.key(path)):
        flip(bad)
    supplier: Supplier = ArchiveSupplier(offsite)
    if origin == "source":
        supplier = SourceSupplier(source, TransferOptions(retry=QUICK))
    summary = await repair(pulled.archive, found, supplier)
    assert summary.findings == []
    assert (path.read_bytes(), path.stat().st_ino) == (good, inode)
    assert not list((pulled.root / ".quarantine").rglob("*"))


async def test_damaged_again_it_is_repaired_again(
    pulled: Pulled, offsite: Archive, source: TairSource
) -> None:
    """Also when an earlier version, or a kill, has left something in quarantine."""
    path = pulled.objects()[0]
    good = path.read_bytes()
    flat = pulled.key(path).replace("/", "~")
    for supplier in (ArchiveSupplier(offsite), SourceSupplier(source)) * 2:
        flip(path)
        own = pulled.root / ".quarantine" / flat.partition("~")[0]
        own.mkdir(parents=True, exist_ok=True)
        (own / f"{flat}.aside").write_bytes(b"left")
        assert (await mended(pulled, supplier)).findings == []
        assert path.read_bytes() == good


async def test_a_damaged_vendor_does_not_cost_the_good_object(
    pulled: Pulled, vendor: Path, source: TairSource
) -> None:
    """Its record cannot be read; the vendor's own file is damaged by now."""
    path = pulled.objects()[0]
    good = path.read_bytes()
    path.with_suffix(".json").write_bytes(b"{")
    for bad in (vendor / CLUSTER).rglob("*.rdb"):
        flip(bad)
    summary = await mended(pulled, SourceSupplier(source, TransferOptions(retry=QUICK)))
    assert summary.exit_code == 3
    assert path.read_bytes() == good


async def test_a_snapshot_of_hard_links_is_not_written_through(
    pulled: Pulled, offsite: Archive, source: TairSource, tmp_path: Path
) -> None:
    for name, supplier in (("a", ArchiveSupplier(offsite)), ("b", SourceSupplier(source))):
        subprocess.run(["cp", "-al", pulled.root, tmp_path / name], check=True)
        before = {
            path: path.read_bytes() for path in (tmp_path / name).rglob("*") if path.is_file()
        }
        path = pulled.objects()[0]
        record = path.with_suffix(".json")
        for one in (path, record):
            data = one.read_bytes()
            one.unlink()
            one.write_bytes(data[:-1] + b"?")
        assert (await mended(pulled, supplier)).findings == []
        assert {path: path.read_bytes() for path in before} == before


async def test_a_lost_node_stays_a_finding(
    pulled: Pulled, offsite: Archive, vendor: Path, source: TairSource
) -> None:
    """Its object and record are gone everywhere, and SHA256SUMS alone names it."""
    name = pulled.objects()[1].name
    for root in (pulled.root, Path(str(offsite.store))):
        [path] = root.rglob(name)
        path.unlink()
        path.with_suffix(".json").unlink()
    sums = Path(str(offsite.store)) / pulled.key(pulled.sums())
    lines = [line for line in sums.read_text().splitlines(True) if name not in line]
    sums.write_text("".join(lines))
    (vendor / CLUSTER / f"{CLUSTER}-db-1" / f"d_{DAYS[1]}031500.rdb").unlink()
    shutil.rmtree(pulled.root / "verified", ignore_errors=True)
    for supplier in (ArchiveSupplier(offsite), SourceSupplier(source)):
        summary = await mended(pulled, supplier)
        assert [(f.fault, f.key.rpartition("/")[2]) for f in summary.findings] == [
            (Fault.MISSING, name)
        ]
        assert summary.exit_code == 3
        assert name in pulled.sums().read_text()


@dataclass
class Refusing:
    """Refuses every stem at first; then it supplies them, or raises ``error``."""

    inner: Supplier
    error: ArchiverError | None = None

    async def supply(
        self, archive: Archive, wrong: Mapping[str, WrongSet], observer: events.Observer
    ) -> Supplied:
        refused = [
            events.NotRepaired(stem, IntegrityError("not yet"))
            for one in wrong.values()
            for stem in one.stems
        ]
        for event in refused:
            observer(event)
        if self.error is not None:
            raise self.error
        done = await self.inner.supply(archive, wrong, observer)
        return Supplied(done.confirmed, (*refused, *done.not_repaired))


async def test_what_is_repaired_after_all_is_not_reported(pulled: Pulled, offsite: Archive) -> None:
    """A source repairs the files of a month one by one: until the last is right, SHA256SUMS
    contradicts their records."""
    tampered_sums(pulled)
    told = list[events.ScrubEvent]()
    summary = await mended(pulled, Refusing(ArchiveSupplier(offsite)), told)
    assert (summary.findings, summary.not_repaired) == ([], [])
    assert not [event for event in told if isinstance(event, events.NotRepaired)]


async def test_what_was_not_repaired_is_reported_when_the_repair_fails(
    pulled: Pulled, offsite: Archive
) -> None:
    a_flipped_byte(pulled)
    found, told = await verify(pulled.archive), list[events.ScrubEvent]()
    failing = Refusing(ArchiveSupplier(offsite), StoreError("it failed"))
    with pytest.raises(StoreError, match="it failed"):
        await repair(pulled.archive, found, failing, observer=told.append)
    assert len([event for event in told if isinstance(event, events.NotRepaired)]) == 2


async def test_what_a_supplier_did_not_supply_stays_wrong(pulled: Pulled) -> None:
    """Even where it leaves nothing behind that a verify would find."""
    path = pulled.objects()[1]
    stem = pulled.key(path).removesuffix(".rdb")
    path.unlink()
    path.with_suffix(".json").unlink()
    for one in pulled.root.glob(f"{CLUSTER}/*/*/*Z-*"):
        if one != path.parent:
            remove_lines(one)
            shutil.rmtree(one)
    sums = pulled.sums()
    lines = [line for line in sums.read_text().splitlines(True) if path.name not in line]

    class Forgetful:
        async def supply(self, *_: object) -> Supplied:
            await in_thread(sums.write_text, "".join(lines))
            return Supplied(frozenset(), (events.NotRepaired(stem, BackupGone("gone")),))

    summary = await repair(pulled.archive, await verify(pulled.archive), Forgetful())
    assert [(f.key, f.fault) for f in summary.findings] == [(pulled.key(path), Fault.MISSING)]
    assert (summary.exit_code, len(summary.not_repaired)) == (3, 1)


async def test_an_instance_that_the_vendor_deleted_keeps_nothing_else_from_repair(
    pulled: Pulled, vendor: Path, source: TairSource
) -> None:
    path, lost = pulled.objects(INSTANCE)[0], pulled.objects()[0]
    good = path.read_bytes()
    flip(path, 20)
    flip(lost)
    shutil.rmtree(vendor / CLUSTER)
    summary = await mended(pulled, SourceSupplier(source, TransferOptions(retry=QUICK)))
    assert path.read_bytes() == good
    assert [f.key for f in summary.findings] == [pulled.key(lost)]
    assert isinstance(summary.not_repaired[0].error, UnknownInstance)
    assert summary.exit_code == 3


def wrong_rdb(pulled: Pulled) -> None:
    edit(records(pulled)[0], lambda d: d["rdb"].update(version="REDIS0003", footer="none"))


def wrong_crcs(pulled: Pulled) -> None:
    edit(records(pulled)[0], lambda d: d.update(crc64ecma="7", crc64ecma_declared="7"))


def empty_sums(pulled: Pulled) -> None:
    pulled.sums(INSTANCE).write_bytes(b"")


def garbled_sums(pulled: Pulled) -> None:
    pulled.sums(INSTANCE).write_bytes(b"\xff" + pulled.sums(INSTANCE).read_bytes()[1:])


def a_wrong_digit_in_sums(pulled: Pulled) -> None:
    sums = pulled.sums(INSTANCE)
    sums.write_bytes(b"0123456789" + sums.read_bytes()[10:])


def another_line_alone(pulled: Pulled) -> None:
    pulled.sums(INSTANCE).write_text("0" * 64 + "  what is this\n")


def a_wrong_digit_in_the_results(pulled: Pulled) -> None:
    path = next((pulled.root / "verified" / CLUSTER).glob("*.json"))
    document = json.loads(path.read_bytes())
    entry = document["files"][pulled.key(pulled.objects()[0]).split("/", 3)[3]]
    entry["sha256"] = "0" + entry["sha256"][1:] if entry["sha256"][0] != "0" else "1" * 64
    path.write_text(json.dumps(document))


@pytest.mark.parametrize("origin", ["archive", "source"])
@pytest.mark.parametrize(
    "damage",
    [
        wrong_rdb, wrong_crcs, empty_sums, garbled_sums, a_wrong_digit_in_sums, another_line_alone,
        a_wrong_digit_in_the_results,
    ],
    ids=lambda damage: damage.__name__,
)  # fmt: skip
async def test_a_good_supplier_ends_it(
    pulled: Pulled, offsite: Archive, source: TairSource, damage: Damage, origin: str
) -> None:
    """Whatever is found, one repair puts right, and a second verify finds nothing."""
    before = contents(pulled.root)
    assert (await verify(pulled.archive)).findings == []
    damage(pulled)
    supplier: Supplier = ArchiveSupplier(offsite)
    if origin == "source":
        supplier = SourceSupplier(source, TransferOptions(retry=QUICK))
    summary = await mended(pulled, supplier)
    assert (summary.findings, summary.not_repaired) == ([], [])
    assert contents(pulled.root) == before


async def test_a_full_disk_does_not_cost_the_damaged_bytes(
    pulled: Pulled, offsite: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pulled.objects()[0]
    flip(path)
    damaged = path.read_bytes()
    found = await verify(pulled.archive)

    def full(*_: object) -> None:
        raise NoSpace("no space")

    with monkeypatch.context() as patch:
        patch.setattr(LocalStaging, "write", full)
        with pytest.raises(NoSpace):
            await repair(pulled.archive, found, ArchiveSupplier(offsite))
    assert path.read_bytes() == damaged
    assert [f.fault for f in (await verify(pulled.archive)).findings] == [Fault.CHANGED]
    assert (await mended(pulled, ArchiveSupplier(offsite))).findings == []
    assert not list((pulled.root / ".quarantine").rglob("*"))


async def test_a_cancelled_copy_leaves_nothing_half(
    pulled: Pulled, tmp_path: Path, files: Path, source: TairSource
) -> None:
    write_rdb(files / INSTANCE / "large.rdb", 3 * 2**20)
    await pull(source, pulled.archive, [everything()])
    shutil.copytree(pulled.root, tmp_path / "offsite")
    [path] = [p for p in pulled.root.rglob("*.rdb") if p.stat().st_size == 3 * 2**20]
    path.write_bytes(path.read_bytes()[:-1])
    found = await verify(pulled.archive)
    offsite = Archive(LocalStore(tmp_path / "offsite"))
    moved = 0
    with anyio.CancelScope() as scope:

        def observe(event: events.ScrubEvent) -> None:
            nonlocal moved
            moved += event.size if isinstance(event, events.Advanced) else 0
            if moved > 4 * 2**20:
                scope.cancel()

        await repair(pulled.archive, found, ArchiveSupplier(offsite), observer=observe)
    assert scope.cancelled_caught
    assert path.stat().st_size == 3 * 2**20 - 1
    assert (await mended(pulled, ArchiveSupplier(offsite))).findings == []
    assert list((pulled.root / ".staging").iterdir()) == []


async def test_what_cannot_be_read_there_keeps_nothing_else_from_repair(
    pulled: Pulled, offsite: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record, an object, and the listing of a set: each of another set."""
    first, second = pulled.objects()[0], pulled.objects(day=DAYS[2])[0]
    third, good = pulled.objects(INSTANCE, DAYS[0])[0], pulled.objects(INSTANCE)[0]
    before = good.read_bytes()
    for path in (first, second, third, good):
        flip(path, 20)
    dead = {pulled.key(first.with_suffix(".json")), pulled.key(second), pulled.key(third)}
    dead.add(pulled.key(third.with_name("SHA256SUMS")))
    read, opened = LocalStore.read, LocalStore.open

    async def dying_read(self: LocalStore, key: str) -> bytes | None:
        if self is offsite.store and key in dead:
            raise StoreError(f"{key}: Input/output error")
        return await read(self, key)

    def dying_open(self: LocalStore, key: str) -> AbstractContextManager[OpenedObject]:
        if self is offsite.store and key in dead:
            raise StoreError(f"{key}: Input/output error")
        return opened(self, key)

    monkeypatch.setattr(LocalStore, "read", dying_read)
    monkeypatch.setattr(LocalStore, "open", dying_open)
    summary = await mended(pulled, ArchiveSupplier(offsite))
    assert len(summary.not_repaired) == 3
    assert all("other archive cannot be read" in str(f.error) for f in summary.not_repaired)
    assert summary.exit_code == 3
    assert good.read_bytes() == before


async def test_a_folder_in_the_place_of_sha256sums_is_kept_in_quarantine(
    pulled: Pulled, offsite: Archive
) -> None:
    sums = pulled.sums(INSTANCE)
    right = sums.read_bytes()
    sums.unlink()
    sums.mkdir()
    (sums / "notes").write_bytes(b"of somebody")
    assert (await mended(pulled, ArchiveSupplier(offsite))).findings == []
    assert sums.read_bytes() == right
    assert quarantined(pulled.root) == [b"of somebody"]


@pytest.mark.parametrize("of_the_source", [False, True])
async def test_a_repair_waits_for_no_pull(
    pulled: Pulled, offsite: Archive, source: TairSource, of_the_source: bool
) -> None:
    """What is wrong in another instance is put right, verified again, and told."""
    busy, other = pulled.objects()[0], pulled.objects(INSTANCE)[0]
    flip(busy)
    flip(other, -1)
    found = await verify(pulled.archive)
    told: list[events.ScrubEvent] = []
    supplier = SourceSupplier(source) if of_the_source else ArchiveSupplier(offsite)
    async with Archive(LocalStore(pulled.root)).writing(CLUSTER):
        summary = await repair(pulled.archive, found, supplier, observer=told.append)
    assert [one.key for one in summary.repaired] == [pulled.key(other)]
    assert [one.key for one in summary.findings] == [pulled.key(busy)]
    [failed] = summary.not_repaired
    assert isinstance(failed.error, ArchiveBusy)
    assert f"is writing to {CLUSTER}" in failed.error.message
    assert failed.key == pulled.key(busy).removesuffix(".rdb")
    assert told.count(failed) == 1
    [left] = (await verify(pulled.archive)).findings
    assert left.key == pulled.key(busy)


async def test_doubles_of_an_instance_that_is_written_to_stay(
    pulled: Pulled, offsite: Archive
) -> None:
    busy, other = pulled.objects()[0], pulled.objects(INSTANCE)[0]
    folder = busy.parent.with_name(f"20200101T000000Z-{busy.parent.name.partition('-')[2]}")
    shutil.copytree(busy.parent, folder)
    flip(other, -1)
    found = await verify(pulled.archive)
    async with Archive(LocalStore(pulled.root)).writing(CLUSTER):
        summary = await repair(pulled.archive, found, ArchiveSupplier(offsite))
    assert [one.key for one in summary.repaired] == [pulled.key(other)]
    left = [one.key for one in summary.not_repaired]
    assert {key.rpartition("/")[0] for key in left} == {pulled.key(folder)}
    assert len(left) == len(set(left))
    assert {type(one.error) for one in summary.not_repaired} == {ArchiveBusy}
    assert folder.exists()


async def test_nothing_to_repair(pulled: Pulled, offsite: Archive) -> None:
    found = await verify(pulled.archive, VerifyOptions(workers=1))
    assert await repair(pulled.archive, found, ArchiveSupplier(offsite)) is found


@pytest.mark.parametrize("of_the_source", [False, True])
@pytest.mark.parametrize("as_verified", [False, True])
async def test_a_repair_begins_no_archive(
    pulled: Pulled, offsite: Archive, source: TairSource, as_verified: bool, of_the_source: bool
) -> None:
    """The disk is not mounted any more, and nothing is repaired on the folder that it leaves."""
    flip(pulled.objects()[0])
    found = await verify(pulled.archive)
    await in_thread(pulled.root.rename, pulled.root.with_name("elsewhere"))
    await in_thread(pulled.root.mkdir)
    supplier = SourceSupplier(source) if of_the_source else ArchiveSupplier(offsite)
    archive = pulled.archive if as_verified else Archive(LocalStore(pulled.root))
    with pytest.raises(UsageError, match="there is no archive here"):
        await repair(archive, found, supplier)
    assert list(pulled.root.iterdir()) == []


async def test_results_of_one_instance_that_may_not_be_written(
    pulled: Pulled, offsite: Archive
) -> None:
    """All is repaired and verified again, and it is said that they are not stored."""
    await verify(pulled.archive)
    damaged = [*pulled.objects(INSTANCE), pulled.objects()[0]]
    kept = [path.read_bytes() for path in damaged]
    for path in damaged:
        flip(path, 20)
    archive = Archive(DenyingOne(pulled.root))
    mended = await repair(archive, await verify(archive), ArchiveSupplier(offsite))
    assert (mended.exit_code, len(mended.repaired), mended.not_repaired) == (0, 2, [])
    assert (mended.results_not_kept or "").startswith(f"verified/{CLUSTER}/")
    assert [path.read_bytes() for path in damaged] == kept


@pytest.mark.parametrize("of_the_source", [False, True])
async def test_a_repair_begins_no_archive_where_its_own_was(
    pulled: Pulled, offsite: Archive, source: TairSource, of_the_source: bool
) -> None:
    """The disk goes away once the repair has begun."""
    flip(pulled.objects()[0])
    found = await verify(pulled.archive)

    class Unmounting:
        async def supply(
            self,
            archive: Archive,
            wrong: Mapping[str, WrongSet],
            observer: Callable[[events.ScrubEvent], None],
        ) -> Supplied:
            await in_thread(pulled.root.rename, pulled.root.with_name("elsewhere"))
            await in_thread(pulled.root.mkdir)
            supplier = SourceSupplier(source) if of_the_source else ArchiveSupplier(offsite)
            return await supplier.supply(archive, wrong, observer)

    archive = Archive(LocalStore(pulled.root))
    with pytest.raises(StoreError, match="the archive that was here is gone"):
        await repair(archive, found, Unmounting())
    assert list(pulled.root.iterdir()) == []


async def test_a_month_is_looked_through_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a month with twice the backups, each key is looked at twice as often, not four times."""
    looks, set_of = Counter[int](), layout.set_of
    for backups in (30, 60):
        root = tmp_path / f"{backups}"
        for minute in range(backups):
            put_standard(root, b"dump", f"20261124T02{minute:02}00Z", backup_id=f"{100 + minute}")
        other = Archive(LocalStore(copy_of(root, tmp_path / f"{backups} elsewhere")))
        next(root.glob(f"{SAMPLE}/*/*/*.json")).write_bytes(b"{")
        found = await verify(Archive(LocalStore(root)))

        def counting(key: str, of: int = backups) -> str:
            looks[of] += 1
            return set_of(key)

        monkeypatch.setattr(layout, "set_of", counting)
        repaired = await repair(Archive(LocalStore(root)), found, ArchiveSupplier(other))
        monkeypatch.undo()
        assert (len(repaired.repaired), repaired.exit_code) == (1, 0)
    assert looks[60] < 2.2 * looks[30]


async def test_what_confirms_a_months_files_is_read_once(pulled: Pulled, offsite: Archive) -> None:
    """However many of them are replaced."""
    read = Counter[str]()

    class Counting(LocalStore):
        async def read(self, key: str) -> bytes | None:
            read[key] += 1
            return await super().read(key)

        async def read_many(
            self, keys: Sequence[str]
        ) -> Mapping[str, bytes | ArchiverError | None]:
            read.update(keys)
            return await super().read_many(keys)

    of_a_month = pulled.key(pulled.sums()), results_key(layout.month_of(pulled.key(pulled.sums())))
    reads = []
    for damaged in (pulled.objects()[:1], pulled.objects() + pulled.objects(day=DAYS[2])):
        for path in damaged:
            flip(path)
        found = await verify(pulled.archive)
        read.clear()
        repaired = await repair(Archive(Counting(pulled.root)), found, ArchiveSupplier(offsite))
        assert len(repaired.repaired) == len(damaged)
        reads.append([read[key] for key in of_a_month])
    assert reads[0] == reads[1]
    assert all(reads[0])
