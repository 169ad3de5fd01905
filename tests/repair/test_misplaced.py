"""Records in another set than their own: doubles make way, and an only copy is told of."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from archiver import Archive, LocalStore, TairSource, pull, verify
from archiver.archive import layout
from archiver.commands.repair.from_archive import ArchiveSupplier
from archiver.commands.repair.from_source import SourceSupplier
from archiver.commands.repair.misplaced import move_duplicates
from archiver.commands.repair.run import Supplier, repair
from archiver.commands.verify import events
from archiver.commands.verify.findings import Fault
from archiver.errors import StoreForbidden
from archiver.events import Cleared
from archiver.transfer.engine import TransferOptions
from examples.sample_rdb import write_rdb
from tests.archive.sample import (
    began_at,
    lines_of,
    put_lines,
    put_sums,
    remove_lines,
    remove_node,
)
from tests.conftest import INSTANCE, QUICK, everything
from tests.verify.conftest import CLUSTER, DAYS, NODES, Pulled, edit, flip, swap

ORIGINS = pytest.mark.parametrize("origin", ["archive", "source"])


def supplier_of(origin: str, offsite: Archive, source: TairSource) -> Supplier:
    if origin == "archive":
        return ArchiveSupplier(offsite)
    return SourceSupplier(source, TransferOptions(retry=QUICK))


def files(root: Path) -> dict[str, bytes]:
    """All that is no result of a verify and no catalogue, nor in quarantine."""
    found = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    return {
        key: p.read_bytes()
        for key, p in found.items()
        if not key.startswith((".", "verified")) and p.name != layout.INDEX_NAME
    }


def month_before(pulled: Pulled) -> Path:
    """Of the standard instance, where nothing is yet."""
    month = pulled.root / INSTANCE / "2026" / "10"
    month.mkdir()
    return month


def both(path: Path) -> list[Path]:
    """An object and its record."""
    return [path, path.with_suffix(".json")]


def kept(root: Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in (root / ".quarantine").rglob("*.cleared"))


@ORIGINS
@pytest.mark.parametrize("instance_id", [INSTANCE, CLUSTER])
@pytest.mark.parametrize("with_object", [False, True])
async def test_a_double_is_moved_away(
    pulled: Pulled, offsite: Archive, source: TairSource, origin: str, instance_id: str,
    with_object: bool,
) -> None:  # fmt: skip
    before = files(pulled.root)
    path = pulled.objects(instance_id, DAYS[0])[0]
    other = pulled.objects(instance_id, DAYS[1])[0].parent
    if instance_id == INSTANCE:
        other = month_before(pulled)
    copied = [path.with_suffix(".json"), *([path] if with_object else [])]
    for one in copied:
        shutil.copy(one, other)
    found = await verify(pulled.archive)
    assert Fault.MISPLACED in {finding.fault for finding in found.findings}
    told: list[events.ScrubEvent] = []
    supplier = supplier_of(origin, offsite, source)
    summary = await repair(pulled.archive, found, supplier, observer=told.append)
    assert (summary.findings, summary.not_repaired, summary.exit_code) == ([], [], 0)
    assert [e.key for e in told if isinstance(e, Cleared)] == [
        pulled.key(other / one.name) for one in reversed(copied)
    ]
    assert files(pulled.root) == before
    assert kept(pulled.root) == sorted(one.read_bytes() for one in copied)
    assert (await verify(pulled.archive)).exit_code == 0


@ORIGINS
@pytest.mark.parametrize("by_pull", [False, True])
async def test_a_renamed_backup_makes_way_for_the_right_one(
    pulled: Pulled, offsite: Archive, source: TairSource, origin: str, by_pull: bool
) -> None:
    """Whether a pull brought that before, or the repair does."""
    before = files(pulled.root)
    [path] = pulled.objects(INSTANCE)
    assert (await verify(pulled.archive)).exit_code == 0
    for one in both(path):
        one.rename(one.with_name(f"20261129T021500Z-9999{one.suffix}"))
    if by_pull:
        assert (await pull(source, pulled.archive, [everything()])).exit_code == 0
    found = await verify(pulled.archive)
    assert found.exit_code == 3
    summary = await repair(pulled.archive, found, supplier_of(origin, offsite, source))
    assert (summary.findings, summary.not_repaired) == ([], [])
    assert (await verify(pulled.archive)).exit_code == 0
    now = files(pulled.root)
    assert {k: v for k, v in now.items() if not k.endswith(".json")} == {
        k: v for k, v in before.items() if not k.endswith(".json")
    }
    assert len(kept(pulled.root)) == 2


@ORIGINS
async def test_an_only_copy_stays_and_its_right_place_is_named(
    pulled: Pulled, offsite: Archive, vendor: Path, source: TairSource, origin: str
) -> None:
    path, other = pulled.objects(INSTANCE)[0], month_before(pulled)
    for one in both(path):
        one.rename(other / one.name)
    remove_lines(path)
    (vendor / INSTANCE / f"d_{DAYS[1]}021500.rdb").unlink()
    for one in both(path):
        (Path(str(offsite.store)) / pulled.key(one)).unlink()
    before = files(pulled.root)
    found = await verify(pulled.archive)
    summary = await repair(pulled.archive, found, supplier_of(origin, offsite, source))
    [failed] = [one for one in summary.not_repaired if one.key.endswith(path.stem)]
    assert f"it belongs in {pulled.set_key(path)}" in str(failed.error)
    assert "no longer" not in str(failed.error)
    assert summary.exit_code == 3
    assert files(pulled.root) == before


async def test_a_double_without_right_bytes_at_its_own_place_stays(
    pulled: Pulled, offsite: Archive
) -> None:
    path, other = pulled.objects(INSTANCE)[0], month_before(pulled)
    for one in both(path):
        shutil.copy(one, other)
    flip(path, 20)
    there = Path(str(offsite.store)) / pulled.key(path)
    flip(there, 30)  # nor has the other archive the right bytes
    before = files(pulled.root)
    found = await verify(pulled.archive)
    summary = await repair(pulled.archive, found, ArchiveSupplier(offsite))
    assert summary.exit_code == 3
    assert files(pulled.root) == before


@ORIGINS
async def test_a_damaged_double_of_what_is_right_is_moved_away(
    pulled: Pulled, offsite: Archive, source: TairSource, origin: str
) -> None:
    before = files(pulled.root)
    path, other = pulled.objects(INSTANCE)[0], month_before(pulled)
    for one in both(path):
        shutil.copy(one, other)
    put_lines(other / path.name, {path.name: lines_of(path)[path.name]})
    flip(other / path.name, 20)
    moved = [path.read_bytes() for path in other.iterdir()]
    found = await verify(pulled.archive)
    summary = await repair(pulled.archive, found, supplier_of(origin, offsite, source))
    assert (summary.findings, summary.not_repaired, summary.exit_code) == ([], [], 0)
    assert files(pulled.root) == before
    assert kept(pulled.root) == sorted(moved)
    assert (await verify(pulled.archive)).exit_code == 0


def seen(root: Path, instance_id: str) -> dict[str, str]:
    """The SHA-256 of each file that a verify found right."""
    [path] = (root / "verified" / instance_id).glob("*.json")
    return {name: one["sha256"] for name, one in json.loads(path.read_text())["files"].items()}


async def test_a_kept_copy_of_a_record_goes_alone(pulled: Pulled, offsite: Archive) -> None:
    """The other archive lacks the backup: what is right here is the only copy."""
    assert (await verify(pulled.archive)).exit_code == 0
    before, said = files(pulled.root), seen(pulled.root, INSTANCE)
    path = pulled.objects(INSTANCE)[0].with_suffix(".json")
    shutil.copy(path, path.with_name(f"{path.stem}-old.json"))
    there = Path(str(offsite.store)) / pulled.key(pulled.objects(INSTANCE)[0])
    remove_node(there)
    remove_lines(there)
    found = await verify(pulled.archive)
    assert [finding.fault for finding in found.findings] == [Fault.MISPLACED]
    summary = await repair(pulled.archive, found, ArchiveSupplier(offsite))
    assert (summary.findings, summary.not_repaired, summary.exit_code) == ([], [], 0)
    assert files(pulled.root) == before
    assert kept(pulled.root) == [path.read_bytes()]
    assert seen(pulled.root, INSTANCE) == said
    assert (await verify(pulled.archive)).exit_code == 0


async def test_a_record_over_that_of_another_node_goes_alone(
    pulled: Pulled, offsite: Archive
) -> None:
    """The other archive lacks the node whose record was copied: its object here stays."""
    assert (await verify(pulled.archive)).exit_code == 0
    before, said = files(pulled.root), seen(pulled.root, CLUSTER)
    one, other, _ = pulled.objects()
    shutil.copy(other.with_suffix(".json"), one.with_suffix(".json"))
    for path in (other, other.with_suffix(".json")):
        (Path(str(offsite.store)) / pulled.key(path)).unlink()
    found = await verify(pulled.archive)
    assert Fault.MISPLACED in {finding.fault for finding in found.findings}
    told: list[events.ScrubEvent] = []
    summary = await repair(pulled.archive, found, ArchiveSupplier(offsite), observer=told.append)
    assert (summary.findings, summary.not_repaired, summary.exit_code) == ([], [], 0)
    record = one.with_suffix(".json")
    assert [e.key for e in told if isinstance(e, Cleared)] == [pulled.key(record)]
    now = files(pulled.root)
    assert (
        json.loads(now.pop(pulled.key(record)))["backup_id"]
        == json.loads(before.pop(pulled.key(record)))["backup_id"]
    )
    assert now == before
    after = seen(pulled.root, CLUSTER)
    name = f"{other.parent.name}/{other.name}"
    assert after[name] == said[name]
    assert (await verify(pulled.archive)).exit_code == 0


async def test_what_was_seen_of_an_object_that_stays_is_known_still(pulled: Pulled) -> None:
    assert (await verify(pulled.archive)).exit_code == 0
    said = seen(pulled.root, CLUSTER)
    one, other, _ = pulled.objects()
    shutil.copy(other.with_suffix(".json"), one.with_suffix(".json"))
    found = await verify(pulled.archive)
    moved = await move_duplicates(pulled.archive, found.findings, events.ignore)
    assert moved.sets == {pulled.key(one.parent)}
    assert seen(pulled.root, CLUSTER) == said


@ORIGINS
@pytest.mark.parametrize("name", ["20261122T031500Z", "20261105T031500Z", "20261124T031500Z", "x"])
async def test_a_double_of_a_set_under_another_time_is_moved_away(
    pulled: Pulled, offsite: Archive, source: TairSource, origin: str, name: str
) -> None:
    """Whether or not it is listed before the right one, that is where the set lies."""
    before = files(pulled.root)
    folder = pulled.objects()[0].parent
    double = folder.with_name(f"{name}-{folder.name.partition('-')[2]}")
    put_sums(shutil.copytree(folder, double))
    summary = await pull(source, pulled.archive, [everything(CLUSTER), everything()])
    assert (summary.archived, summary.held, summary.exit_code) == (0, len(DAYS) * 4, 0)
    found = await verify(pulled.archive)
    assert Fault.MISPLACED in {finding.fault for finding in found.findings}
    told: list[events.ScrubEvent] = []
    supplier = supplier_of(origin, offsite, source)
    repaired = await repair(pulled.archive, found, supplier, observer=told.append)
    assert (repaired.findings, repaired.not_repaired, repaired.exit_code) == ([], [], 0)
    assert not [event for event in told if isinstance(event, events.Repaired)]
    assert files(pulled.root) == before
    assert (await verify(pulled.archive)).exit_code == 0


async def test_a_set_that_is_named_after_another_month_there(
    files: Path, source: TairSource, tmp_path: Path
) -> None:
    """Each archive saw another node first, one before midnight and one after."""
    for node in range(2):
        write_rdb(files / CLUSTER / f"{CLUSTER}-db-{node}" / "d_20261031235959.rdb", 3000, node)
    there, here = Archive(LocalStore(tmp_path / "one")), Archive(LocalStore(tmp_path / "other"))
    assert (await pull(source, there, [everything(CLUSTER)])).exit_code == 0
    [folder] = (tmp_path / "one" / CLUSTER / "2026" / "10").glob("2026*")
    [late] = folder.glob("*-db-1-*.json")
    edit(late, lambda record: began_at(record, "2026-11-01T00:00:01Z"))
    own = tmp_path / "other" / CLUSTER / "2026" / "11" / f"20261101T000001Z-{folder.name[17:]}"
    shutil.copytree(folder, own)
    put_sums(own)
    shutil.copy(tmp_path / "one" / "archive.json", tmp_path / "other")
    assert (await verify(here)).exit_code == (await verify(there)).exit_code == 0
    before = sorted(own.iterdir())
    (own / late.with_suffix(".rdb").name).unlink()
    found = await verify(here)
    assert {finding.fault for finding in found.findings} == {Fault.MISSING}
    summary = await repair(here, found, ArchiveSupplier(there))
    assert (summary.findings, summary.not_repaired, summary.exit_code) == ([], [], 0)
    assert sorted(own.iterdir()) == before
    assert (own / late.name).with_suffix(".rdb").read_bytes() == (
        late.with_suffix(".rdb").read_bytes()
    )


async def test_a_double_that_may_not_be_moved_keeps_nothing_else_from_repair(
    pulled: Pulled, offsite: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a bucket whose key may only add."""
    path = pulled.objects(INSTANCE, DAYS[0])[0]
    shutil.copy(path.with_suffix(".json"), month_before(pulled))
    damaged = pulled.objects(CLUSTER)[0]
    good = damaged.read_bytes()
    flip(damaged)

    async def forbidden(*_: object) -> str:
        raise StoreForbidden("this key may not delete")

    monkeypatch.setattr(LocalStore, "move_to_quarantine", forbidden)
    told: list[events.ScrubEvent] = []
    found = await verify(pulled.archive)
    supplier = ArchiveSupplier(offsite)
    summary = await repair(pulled.archive, found, supplier, observer=told.append)
    assert damaged.read_bytes() == good
    assert Fault.MISPLACED in {finding.fault for finding in summary.findings}
    assert not [finding for finding in summary.findings if finding.key.startswith(CLUSTER)]
    assert any(isinstance(one, events.NotRepaired) for one in told)


@pytest.mark.parametrize("node", range(3))
async def test_a_part_of_a_set_in_another_folder_of_its_job(
    pulled: Pulled, source: TairSource, node: int
) -> None:
    """As a merge with another archive leaves it, which named the folder after another node. All
    nodes come to the folder that has most of them."""
    whole = pulled.objects(CLUSTER, DAYS[1])
    folder = whole[0].parent
    part = folder.with_name(folder.name.replace("031500Z", "031440Z"))
    part.mkdir()
    for path in (whole[node], whole[node].with_suffix(".json")):
        shutil.copy(path, part)
    summary = await pull(source, pulled.archive, [everything(CLUSTER)])
    assert (summary.exit_code, summary.archived) == (0, 0)
    whole[node].unlink()
    whole[node].with_suffix(".json").unlink()
    summary = await pull(source, pulled.archive, [everything(CLUSTER)])
    assert (summary.exit_code, summary.archived) == (0, 1)
    assert whole[node].exists()


def named_after_none(pulled: Pulled) -> Path:
    named = pulled.objects(CLUSTER, DAYS[2])[0].parent
    remove_lines(named)
    own = named.rename(named.with_name(named.name.replace("T031500Z", "T031502Z")))
    put_sums(own)
    return own


def double_of(pulled: Pulled, start: str, *, junk: int = 0) -> tuple[Path, Path]:
    """A cluster's set, which has its name from none of its nodes, and a copy of it beside it that
    somebody made under another time."""
    own = named_after_none(pulled)
    double = own.with_name(own.name.replace("T031502Z", start))
    shutil.copytree(own, double)
    put_sums(double)
    for number in range(junk):
        (double / f"old-{number}.json").write_text("{}")
    return own, double


@ORIGINS
@pytest.mark.parametrize(("start", "junk"), [("T031459Z", 0), ("T031501Z", 1)])
async def test_what_lies_where_it_may_is_not_a_double(
    pulled: Pulled, offsite: Archive, source: TairSource, origin: str, start: str, junk: int
) -> None:
    """Its record says something else of itself; a whole copy of the set is beside it."""
    own, _ = double_of(pulled, start, junk=junk)
    before = files(pulled.root)
    edit(next(own.glob(f"{CLUSTER}-db-0-*.json")), lambda record: record.update(set_id="777"))
    found = await verify(pulled.archive)
    assert Fault.MISPLACED in {finding.fault for finding in found.findings}
    await repair(pulled.archive, found, supplier_of(origin, offsite, source))
    after = files(pulled.root)
    assert {key for key, data in before.items() if key.endswith(".rdb")} <= after.keys()
    assert not {data for key, data in before.items() if key.endswith(".rdb")} & set(
        kept(pulled.root)
    )
    again = await verify(pulled.archive)
    assert all("-db-" not in finding.key for finding in again.findings)  # but for the junk


@ORIGINS
@pytest.mark.parametrize("start", ["T031459Z", "T031501Z"])
async def test_a_set_that_lost_a_node_gets_it_back_beside_its_double(
    pulled: Pulled, offsite: Archive, source: TairSource, origin: str, start: str
) -> None:
    own, _ = double_of(pulled, start)
    before = files(pulled.root)
    for lost in own.glob(f"{CLUSTER}-db-0-*"):
        lost.unlink()
    found = await verify(pulled.archive)
    summary = await repair(pulled.archive, found, supplier_of(origin, offsite, source))
    assert (summary.exit_code, summary.not_repaired) == (0, [])
    assert files(pulled.root).keys() == before.keys()
    assert (await verify(pulled.archive)).exit_code == 0


async def test_junk_beside_a_set_diverts_no_pull(pulled: Pulled, source: TairSource) -> None:
    own = named_after_none(pulled)
    junk = own.with_name(own.name.replace("T031502Z", "T031700Z"))
    junk.mkdir()
    for number in range(4):
        (junk / f"{CLUSTER}-old-{number}.json").write_text("{}")
    before = files(pulled.root)
    summary = await pull(source, pulled.archive, [everything(CLUSTER)])
    assert (summary.archived, summary.failures) == (0, [])
    assert files(pulled.root) == before


async def test_junk_in_the_other_archive_diverts_no_repair(
    pulled: Pulled, offsite: Archive
) -> None:
    """Nor does a copy of a standard instance's set under another time, or half of a set there."""
    assert isinstance(offsite.store, LocalStore)
    for instance_id, time, other in (
        (CLUSTER, "T031500Z", "T031700Z"), (INSTANCE, "T021500Z", "T021459Z"),
    ):  # fmt: skip
        path = pulled.objects(instance_id, DAYS[2])[0]
        theirs = offsite.store.root / pulled.key(path)
        if instance_id == CLUSTER:  # half of it lies in each
            beside = theirs.parent.with_name(theirs.parent.name.replace(time, other))
            shutil.copytree(theirs.parent, beside)
            put_sums(beside)
            junk = beside / CLUSTER
            remove_node(theirs)
        else:
            for one in both(theirs):
                shutil.copy(one, one.with_name(one.name.replace(time, other)))
            junk = theirs.with_name(theirs.stem.replace(time, other))
        for number in range(4):
            junk.with_name(f"{junk.name}-old-{number}.json").write_text("{}")
        path.unlink()
    found = await verify(pulled.archive)
    summary = await repair(pulled.archive, found, ArchiveSupplier(offsite))
    assert (summary.exit_code, summary.not_repaired) == (0, [])
    assert (await verify(pulled.archive)).exit_code == 0


@ORIGINS
@pytest.mark.parametrize("by_repair", [False, True])
async def test_a_set_in_two_halves_grows_together(
    pulled: Pulled, offsite: Archive, source: TairSource, origin: str, by_repair: bool
) -> None:
    """Neither half is taken for a whole set, though it may be the only one of its instance."""
    own = named_after_none(pulled)
    for other in pulled.root.glob(f"{CLUSTER}/*/*/*Z-*"):
        remove_lines(other)
        if other != own:
            shutil.rmtree(other)
    half = own.with_name(own.name.replace("T031502Z", "T031440Z"))
    half.mkdir()
    for moved in own.glob(f"{CLUSTER}-db-1-*"):
        moved.rename(half / moved.name)
    own.with_name("index.jsonl").unlink()  # nothing was named yet
    query = everything(CLUSTER)
    query = replace(query, start=f"2026-11-{DAYS[2][-2:]}T00:00Z")
    if by_repair:
        found = await verify(pulled.archive)
        await repair(pulled.archive, found, supplier_of(origin, offsite, source))
    else:
        await pull(source, pulled.archive, [query])
    assert len(list(own.glob("*.rdb"))) == NODES
    assert {f"{own.name}/{one.name}" for one in own.glob("*.rdb")} <= lines_of(own).keys()


async def test_a_set_under_another_instance_is_moved_away(pulled: Pulled, offsite: Archive) -> None:
    own = pulled.objects(CLUSTER, DAYS[2])[0].parent
    other = pulled.root / "r-bp1other" / own.relative_to(pulled.root / CLUSTER)
    shutil.copytree(own, other)
    put_sums(other)
    found = await verify(pulled.archive)
    summary = await repair(pulled.archive, found, ArchiveSupplier(offsite))
    assert (summary.findings, summary.exit_code) == ([], 0)
    assert not (other.parent / "SHA256SUMS").exists()
    assert not list(other.glob("*"))


@ORIGINS
@pytest.mark.parametrize("other_id", [INSTANCE, CLUSTER])
async def test_two_that_were_swapped_with_their_records(
    pulled: Pulled, offsite: Archive, source: TairSource, origin: str, other_id: str
) -> None:
    """Each lies under the name of the other, in its set."""
    before = files(pulled.root)
    one, other = pulled.objects(CLUSTER, DAYS[0])[0], pulled.objects(other_id, DAYS[1])[0]
    swap(one, other)
    swap(one.with_suffix(".json"), other.with_suffix(".json"))
    summary = await repair(
        pulled.archive, await verify(pulled.archive), supplier_of(origin, offsite, source)
    )
    assert (summary.findings, summary.not_repaired) == ([], [])
    assert files(pulled.root).keys() == before.keys()
    assert (await verify(pulled.archive)).exit_code == 0
