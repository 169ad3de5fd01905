"""What a failing disk does not list, and what that keeps from being known."""

import errno
import os
from pathlib import Path

import pytest

from archiver import Archive, LocalStore, Query, TairSource, TransferOptions, pull
from archiver.archive.folders import list_folders
from archiver.commands.copy.run import copy
from archiver.commands.drill.ledger import Ledger
from archiver.commands.repair.from_archive import ArchiveSupplier
from archiver.commands.repair.from_source import SourceSupplier
from archiver.commands.repair.run import Supplier, repair
from archiver.commands.verify.findings import Fault
from archiver.commands.verify.run import verify
from archiver.errors import IntegrityError, UnreadableObject
from archiver.stores.local import walk
from examples.sample_rdb import write_rdb
from tests.conftest import INSTANCE, QUICK, everything
from tests.verify.conftest import CLUSTER, DAYS, NODES, Pulled, flip

FILES = len(DAYS) * (NODES + 1)


def failing_disk(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """``folder`` cannot be listed any more; who knows a name in it gets what that has."""
    real = os.scandir

    def scandir(path: str | Path | int = ".") -> "os._ScandirIterator[str]":
        if not isinstance(path, int) and os.fspath(path) == str(folder):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(folder))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)


async def test_a_set_that_the_disk_does_not_list(
    pulled: Pulled, source: TairSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pulled.objects()[0].parent
    assert (await verify(pulled.archive)).exit_code == 0  # from here on, all names are known
    failing_disk(monkeypatch, folder)
    found = await verify(pulled.archive)
    [finding] = found.findings
    assert (finding.key, finding.fault) == (pulled.key(folder), Fault.UNREADABLE)
    assert (found.exit_code, found.files) == (6, FILES - NODES)
    copied = await copy(pulled.archive, Archive(LocalStore(tmp_path / "new")))
    assert [failed.subject for failed in copied.failures] == [pulled.key(folder)]
    assert (copied.exit_code, copied.archived) == (6, FILES - NODES)
    summary = await pull(source, pulled.archive, [everything(CLUSTER), everything()])
    assert (summary.held, len(summary.failures), summary.archived) == (FILES - NODES, NODES, 0)
    assert summary.exit_code == 6


async def test_what_may_lie_in_the_month_before_is_not_fetched_again(
    files: Path, source: TairSource, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster's set is where its first node's start put it."""
    path = files / CLUSTER / f"{CLUSTER}-db-0"
    for stamp in ("20261031235959", "20261101000001"):
        write_rdb(path / f"d_{stamp}.rdb", 3000)
    october = Query(CLUSTER, "2026-10-01T00:00Z", "2026-11-01T00:00Z")
    assert (await pull(source, archive, [october])).archived == 1
    failing_disk(monkeypatch, Path(str(archive.store)) / CLUSTER / "2026" / "10")
    summary = await pull(source, archive, [everything(CLUSTER)])
    assert (summary.exit_code, summary.archived, len(summary.failures)) == (6, 0, 2)


async def test_a_pull_seals_what_it_sees(
    files: Path, source: TairSource, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in ("20261010", "20261124"):
        for node in range(2):
            write_rdb(files / CLUSTER / f"{CLUSTER}-db-{node}" / f"d_{day}031500.rdb", 3000, node)
    october = Query(CLUSTER, "2026-10-01T00:00Z", "2026-11-01T00:00Z")
    assert (await pull(source, archive, [october])).exit_code == 0
    root = Path(str(archive.store))
    [folder] = root.glob(f"{CLUSTER}/2026/10/*Z-*")
    failing_disk(monkeypatch, folder)
    november = Query(CLUSTER, "2026-11-01T00:00Z", "2026-12-01T00:00Z")
    summary = await pull(source, archive, [november])
    assert (summary.exit_code, summary.archived) == (0, 2)
    assert list(root.glob(f"{CLUSTER}/2026/11/SHA256SUMS"))


async def test_a_file_that_the_disk_does_not_describe(
    pulled: Pulled, source: TairSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is neither missing, nor in the way of another one."""
    bad = pulled.objects()[0]
    real = os.lstat

    class Item:
        """An item of a listing, whose inode cannot be read."""

        def __init__(self, item: "os.DirEntry[str]") -> None:
            self.name, self.path, self._item = item.name, item.path, item

        def is_dir(self, *, follow_symlinks: bool = True) -> bool:
            return self._item.is_dir(follow_symlinks=follow_symlinks)

        def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
            if self.path == str(bad):
                raise OSError(errno.EIO, os.strerror(errno.EIO), self.path)
            return self._item.stat(follow_symlinks=follow_symlinks)

    def lstat(path: str | Path, **given: int | None) -> os.stat_result:
        if os.fspath(path) == str(bad):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(bad))
        return real(path, **given)

    items = walk._items
    monkeypatch.setattr(walk, "_items", lambda folder: [Item(one) for one in items(folder)])
    monkeypatch.setattr(os, "lstat", lstat)
    entries = {entry.key: entry async for entry in LocalStore(pulled.root).entries("")}
    assert isinstance(entries[pulled.key(bad)].hides, UnreadableObject)
    summary = await pull(source, pulled.archive, [everything(CLUSTER)])
    assert (summary.exit_code, len(summary.failures), summary.archived) == (6, 1, 0)
    assert bad.exists()


async def test_evidence_goes_on_only_where_all_of_it_is_seen(pulled: Pulled) -> None:
    drills = pulled.root / "drills"
    drills.symlink_to(pulled.root.parent)
    found = await verify(pulled.archive)
    assert [(one.key, one.fault) for one in found.findings] == [("drills", Fault.HIDDEN)]
    with pytest.raises(IntegrityError, match="symbolic link"):
        await Ledger(pulled.archive, None).history.last_keys(set())


async def test_what_is_not_a_file_at_the_root_is_a_stray(pulled: Pulled) -> None:
    os.mkfifo(pulled.root / "r-bp1fifo")
    found = await verify(pulled.archive)
    assert [(one.key, one.fault) for one in found.findings] == [("r-bp1fifo", Fault.STRAY)]


async def test_a_hidden_folder_is_not_a_set_to_be_compared_with(pulled: Pulled) -> None:
    before = await list_folders(pulled.archive)
    note = pulled.root / CLUSTER / "2026" / "11" / "note"
    note.symlink_to(pulled.root / "nowhere")
    folders = await list_folders(pulled.archive)
    assert [one for one in folders if one.unreadable is None] == list(before)
    assert [one.key for one in folders if one.unreadable is not None] == [pulled.key(note)]


@pytest.mark.parametrize("origin", ["archive", "source"])
@pytest.mark.parametrize("leads", ["to the folder", "nowhere"])
@pytest.mark.parametrize("level", [0, 1, 3])
async def test_a_link_in_the_place_of_a_folder_is_said_and_the_rest_repaired(
    pulled: Pulled, offsite: Archive, source: TairSource, level: int, leads: str, origin: str
) -> None:
    """Of a set, a month, an instance, of which earlier verifies know every name."""
    assert (await verify(pulled.archive)).exit_code == 0
    path = pulled.objects(INSTANCE)[0]
    good = path.read_bytes()
    flip(path, 20)
    folder = pulled.objects()[0].parents[level]
    away = folder.rename(pulled.root.parent / "elsewhere")
    before = {one: one.read_bytes() for one in away.rglob("*") if one.is_file()}
    folder.symlink_to(away if leads == "to the folder" else away.with_name("nowhere"))
    found = await verify(pulled.archive)
    assert {(one.key, one.fault) for one in found.findings} == {
        (pulled.key(path), Fault.CHANGED),
        (pulled.key(folder), Fault.HIDDEN),
    }
    supplier: Supplier = ArchiveSupplier(offsite)
    if origin == "source":
        supplier = SourceSupplier(source, TransferOptions(retry=QUICK))
    summary = await repair(pulled.archive, found, supplier)
    [hidden], [failed] = summary.findings, summary.not_repaired
    assert "symbolic link" in hidden.text
    assert "mount it here" in hidden.advice
    assert "move it out" not in hidden.advice
    assert failed.key == pulled.key(folder)
    assert "symbolic link" in str(failed.error)
    assert summary.exit_code == 3
    assert path.read_bytes() == good
    assert folder.is_symlink()
    assert {one: one.read_bytes() for one in away.rglob("*") if one.is_file()} == before


@pytest.mark.parametrize("what", ["file", "link", "month"])
async def test_what_hides_a_set_of_the_other_archive_keeps_no_other_from_repair(
    pulled: Pulled, offsite: Archive, tmp_path: Path, what: str
) -> None:
    assert isinstance(offsite.store, LocalStore)
    lost = [pulled.objects(CLUSTER, DAYS[1])[0], pulled.objects(INSTANCE, DAYS[1])[0]]
    for path in lost:
        path.unlink()
    hidden = offsite.store.root / pulled.key(lost[0].parent)
    hidden = hidden.parent if what == "month" else hidden
    hidden.rename(tmp_path / "away")
    if what == "file":
        hidden.write_text("no folder")
    else:
        hidden.symlink_to(tmp_path / "away")
    found = await verify(pulled.archive)
    summary = await repair(pulled.archive, found, ArchiveSupplier(offsite))
    assert {finding.place for finding in summary.repaired} == {pulled.set_key(lost[1])}
    assert {finding.place for finding in summary.findings} == {pulled.set_key(lost[0])}
    assert summary.not_repaired
    assert lost[1].exists()


async def test_a_file_in_the_place_of_what_verifies_saw(pulled: Pulled) -> None:
    (pulled.root / "verified").write_text("no folder")
    found = await verify(pulled.archive)
    assert {(one.key, one.fault) for one in found.findings} == {("verified", Fault.HIDDEN)}
