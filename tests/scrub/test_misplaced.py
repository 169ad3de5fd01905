"""Records in another set than their own: doubles make way, and an only copy is told of."""

import shutil
from pathlib import Path

import pytest

from archiver import Archive, TairSource, pull, verify
from archiver.events import Cleared
from archiver.scrub import events
from archiver.scrub.findings import Fault
from archiver.scrub.from_archive import ArchiveSupplier
from archiver.scrub.from_source import SourceSupplier
from archiver.scrub.repair import Supplier, repair
from archiver.transfer.engine import TransferOptions
from tests.conftest import INSTANCE, QUICK, everything
from tests.scrub.conftest import CLUSTER, DAYS, Pulled, flip

ORIGINS = pytest.mark.parametrize("origin", ["archive", "source"])


def supplier_of(origin: str, offsite: Archive, source: TairSource) -> Supplier:
    if origin == "archive":
        return ArchiveSupplier(offsite)
    return SourceSupplier(source, TransferOptions(retry=QUICK))


def files(root: Path) -> dict[str, bytes]:
    """All that is no result of a verify, nor in quarantine."""
    found = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    return {
        key: p.read_bytes() for key, p in found.items() if not key.startswith((".", "verified"))
    }


def kept(root: Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in (root / ".quarantine").glob("*.cleared"))


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
async def test_a_renamed_set_makes_way_for_the_right_one(
    pulled: Pulled, offsite: Archive, source: TairSource, origin: str
) -> None:
    before = files(pulled.root)
    folder = pulled.objects(INSTANCE)[0].parent
    assert (await verify(pulled.archive)).exit_code == 0
    folder.rename(folder.with_name("20261129T021500Z-9999"))
    first = await verify(pulled.archive)
    lacking = await repair(pulled.archive, first, supplier_of("source", offsite, source))
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
    assert len(kept(pulled.root)) == 3
    assert lacking.exit_code == 3


@ORIGINS
async def test_an_only_copy_stays_and_is_said_to_belong_elsewhere(
    pulled: Pulled, offsite: Archive, source: TairSource, origin: str
) -> None:
    path = pulled.objects(INSTANCE)[0]
    other = pulled.objects(INSTANCE, DAYS[2])[0].parent
    for one in (path, path.with_suffix(".json")):
        one.rename(other / one.name)
    shutil.rmtree(path.parent)
    before = files(pulled.root)
    found = await verify(pulled.archive)
    summary = await repair(pulled.archive, found, supplier_of(origin, offsite, source))
    [failed] = summary.not_repaired
    assert f"it belongs in {pulled.key(path.parent)}" in str(failed.error)
    assert "no longer" not in str(failed.error)
    assert summary.exit_code == 3
    assert files(pulled.root) == before


@pytest.mark.parametrize("damaged", ["own", "misplaced"])
async def test_what_is_no_double_of_right_bytes_stays(
    pulled: Pulled, offsite: Archive, damaged: str
) -> None:
    path = pulled.objects(INSTANCE)[0]
    other = pulled.objects(INSTANCE, DAYS[2])[0].parent
    for one in (path, path.with_suffix(".json")):
        shutil.copy(one, other)
    flip(path if damaged == "own" else other / path.name, 20)
    there = Path(str(offsite.store)) / pulled.key(path)
    flip(there, 30)  # nor has the other archive the right bytes
    before = files(pulled.root)
    found = await verify(pulled.archive)
    summary = await repair(pulled.archive, found, ArchiveSupplier(offsite))
    assert summary.exit_code == 3
    assert files(pulled.root) == before
