"""SHA256SUMS is a witness: nobody rewrites it from a record that somebody may have changed."""

import hashlib
import re
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from random import Random

import pytest

from archiver import Archive, LocalStore, TairSource, pull, verify
from archiver.archive import sums
from archiver.archive.contents import view_month
from archiver.archive.indexing import write_index
from archiver.archive.reading import read_sums
from archiver.archive.sums import DamagedLines, format_sums, salvage_sums, unexplained
from archiver.commands.copy.run import copy
from archiver.commands.repair.from_archive import ArchiveSupplier
from archiver.commands.repair.from_source import SourceSupplier
from archiver.commands.repair.run import Supplier, repair
from archiver.commands.verify.findings import Fault
from archiver.errors import IntegrityError
from archiver.transfer.engine import TransferOptions
from examples.sample_rdb import rdb
from tests.archive.sample import lines_of, put_lines, remove_lines, remove_node, sums_of
from tests.conftest import INSTANCE, QUICK, everything
from tests.verify.conftest import CLUSTER, DAYS, Pulled, flip, forge


async def test_a_pull_says_which_record_disagrees_and_seals_the_others(
    pulled: Pulled, source: TairSource
) -> None:
    path, sums = pulled.objects()[0], pulled.sums()
    old, data = hashlib.sha256(path.read_bytes()).hexdigest(), rdb(20_000, 99)
    forge(path, data)
    whole = sums.read_bytes()
    remove_lines(pulled.objects(day=DAYS[2])[0].parent)
    summary = await pull(source, pulled.archive, [everything(CLUSTER)])
    [failed] = summary.failures
    assert isinstance(failed.error, IntegrityError)
    assert failed.subject == pulled.set_key(path)
    for said in (pulled.key(path), old, hashlib.sha256(data).hexdigest()):
        assert said in str(failed.error)
    assert summary.exit_code == 3
    assert sums.read_bytes() == whole
    assert [f.fault for f in (await verify(pulled.archive)).findings] == [Fault.SUMS]


async def test_a_pull_of_a_single_file_compares_with_the_line_it_had(
    pulled: Pulled, source: TairSource
) -> None:
    """Object and record are gone, and the vendor serves bytes that SHA256SUMS does not name."""
    [path] = pulled.objects(INSTANCE)
    path.unlink()
    path.with_suffix(".json").unlink()
    put_lines(path, lines_of(path) | {path.name: "0" * 64})
    kept = pulled.sums(INSTANCE).read_bytes()
    summary = await pull(source, pulled.archive, [everything()])
    assert "SHA256SUMS says 000" in str(summary.failures[0].error)
    assert pulled.sums(INSTANCE).read_bytes() == kept


async def test_a_backup_gets_no_second_line_beside_one_under_another_suffix(
    pulled: Pulled, source: TairSource
) -> None:
    [path] = pulled.objects(INSTANCE)
    lines = lines_of(path)
    sha256 = lines.pop(path.name)
    put_lines(path, lines | {path.with_suffix(".bin").name: sha256})
    path.unlink()
    path.with_suffix(".json").unlink()
    kept = pulled.sums(INSTANCE).read_bytes()
    summary = await pull(source, pulled.archive, [everything()])
    assert f"SHA256SUMS says {sha256} of " in str(summary.failures[0].error)
    assert pulled.sums(INSTANCE).read_bytes() == kept


async def test_a_copy_compares_with_the_lines_of_its_target(
    pulled: Pulled, offsite: Archive
) -> None:
    path = pulled.objects()[0]
    there = Path(str(offsite.store)) / pulled.key(path)
    there.unlink()
    there.with_suffix(".json").unlink()
    old, data = hashlib.sha256(path.read_bytes()).hexdigest(), rdb(20_000, 99)
    forge(path, data)
    new = hashlib.sha256(data).hexdigest()
    pulled.sums().write_text(pulled.sums().read_text().replace(old, new))
    kept = sums_of(there).read_bytes()
    summary = await copy(pulled.archive, offsite)
    assert [failed.subject for failed in summary.failures] == [pulled.set_key(path)]
    assert summary.exit_code == 3
    assert sums_of(there).read_bytes() == kept


async def test_a_copy_compares_with_the_lines_of_its_source(pulled: Pulled, tmp_path: Path) -> None:
    """Object and record were changed together: SHA256SUMS there speaks against both."""
    path = pulled.objects()[0]
    forge(path, rdb(20_000, 99))
    summary = await copy(pulled.archive, Archive(LocalStore(tmp_path / "copied")))
    assert [failed.subject for failed in summary.failures] == [pulled.key(path)[:-4] + ".json"]
    assert "SHA256SUMS there disagrees" in str(summary.failures[0].error)
    assert summary.exit_code == 3
    assert not (tmp_path / "copied" / pulled.key(path)).exists()


async def test_a_copy_names_what_has_lost_its_record(pulled: Pulled, tmp_path: Path) -> None:
    path = pulled.objects()[0]
    path.with_suffix(".json").unlink()
    summary = await copy(pulled.archive, Archive(LocalStore(tmp_path / "copied")))
    assert path.name in str(summary.failures[0].error)
    assert summary.exit_code == 3


async def test_a_name_stays_though_its_file_is_lost(pulled: Pulled, source: TairSource) -> None:
    path = pulled.objects()[0]
    lost = path.with_name(f"{CLUSTER}-db-9-7.rdb")
    put_lines(path, lines_of(path) | {pulled.name(lost): "0" * 64})
    remove_lines(path)
    assert (await pull(source, pulled.archive, [everything(CLUSTER)])).exit_code == 0
    assert lines_of(path).keys() >= {pulled.name(lost), pulled.name(path)}
    [finding] = (await verify(pulled.archive)).findings
    assert (finding.fault, finding.key) == (Fault.MISSING, pulled.key(lost))


async def test_every_line_that_disagrees_is_a_finding(pulled: Pulled) -> None:
    one, other = pulled.objects()[:2]
    forge(one, rdb(20_000, 98))
    forge(other, rdb(20_000, 99))
    findings = (await verify(pulled.archive)).findings
    assert {(f.fault, f.about) for f in findings} == {
        (Fault.SUMS, pulled.key(one)),
        (Fault.SUMS, pulled.key(other)),
    }


@pytest.mark.parametrize("forged", ["object and record", "line"])
@pytest.mark.parametrize("origin", ["archive", "source"])
async def test_a_repair_supplies_the_right_bytes_and_the_right_line(
    pulled: Pulled, offsite: Archive, source: TairSource, origin: str, forged: str
) -> None:
    path = pulled.objects()[0]
    good, line = path.read_bytes(), pulled.sums().read_bytes()
    record = path.with_suffix(".json").read_bytes()
    if forged != "line":
        forge(path, rdb(20_000, 99))
    if forged == "line":
        right = hashlib.sha256(good).hexdigest().encode()
        pulled.sums().write_bytes(line.replace(right, b"0" * 64))
    found = await verify(pulled.archive)
    assert {f.fault for f in found.findings} == {Fault.SUMS}
    supplier: Supplier = ArchiveSupplier(offsite)
    if origin == "source":
        supplier = SourceSupplier(source, TransferOptions(retry=QUICK))
    summary = await repair(pulled.archive, found, supplier)
    assert (summary.findings, summary.not_repaired) == ([], [])
    assert (path.read_bytes(), pulled.sums().read_bytes()) == (good, line)
    if forged == "line" and origin == "archive":
        assert path.with_suffix(".json").read_bytes() == record


async def test_a_line_is_not_replaced_for_bytes_that_nobody_confirms(
    pulled: Pulled, offsite: Archive
) -> None:
    path = pulled.objects()[0]
    forge(path, rdb(20_000, 99))
    flip(Path(str(offsite.store)) / pulled.key(path))
    kept = pulled.sums().read_bytes()
    summary = await repair(pulled.archive, await verify(pulled.archive), ArchiveSupplier(offsite))
    assert summary.exit_code == 3
    assert pulled.sums().read_bytes() == kept


async def test_what_two_archives_record_otherwise_is_not_sealed(
    pulled: Pulled, offsite: Archive
) -> None:
    """With SHA256SUMS unreadable nobody here speaks against a forged record; the other does."""
    path = pulled.objects()[0]
    forge(path, rdb(20_000, 99))
    pulled.sums().write_bytes(b"?")
    summary = await repair(pulled.archive, await verify(pulled.archive), ArchiveSupplier(offsite))
    [failed] = summary.not_repaired
    assert "contradict " in str(failed.error)
    assert [f.fault for f in summary.findings] == [Fault.SUMS]
    assert pulled.sums().read_bytes() == b"?"


async def test_what_another_archive_contradicts_gets_no_line_back(
    pulled: Pulled, offsite: Archive
) -> None:
    """The record and the catalogue were forged, and SHA256SUMS was removed."""
    path, sums = pulled.objects()[0], pulled.sums()
    old = hashlib.sha256(path.read_bytes()).hexdigest()
    forge(path, rdb(20_000, 99))
    new = hashlib.sha256(path.read_bytes()).hexdigest()
    sums.write_text(sums.read_text().replace(old, new))
    store = LocalStore(pulled.root)
    await write_index(store, await view_month(store, pulled.key(sums.parent)))
    sums.unlink()
    summary = await repair(pulled.archive, await verify(pulled.archive), ArchiveSupplier(offsite))
    [failed] = summary.not_repaired
    assert "contradict " in str(failed.error)
    assert (summary.exit_code, sums_of(path).exists()) == (3, False)


def lose_a_node(pulled: Pulled, offsite: Archive, *, named_there: bool) -> tuple[str, str]:
    """The second node's file is gone from two archives, and what verifies saw. What SHA256SUMS
    calls it, and a node that is here. No set beside it tells which nodes there are."""
    lost, here = pulled.objects()[1], pulled.objects()[2]
    for root in (pulled.root, Path(str(offsite.store))):
        remove_node(root / pulled.key(lost))
        shutil.rmtree(root / "verified", ignore_errors=True)
        for other in root.glob(f"{CLUSTER}/*/*/*Z-*"):
            if other.name != lost.parent.name:
                remove_lines(other)
                shutil.rmtree(other)
        for index in root.rglob("index.jsonl"):
            index.unlink()
    if not named_there:
        remove_lines(Path(str(offsite.store)) / pulled.key(lost))
    return pulled.name(lost), pulled.name(here)


@pytest.mark.parametrize("there", ["named", "named at a verify", "in a damaged line"])
async def test_a_lost_node_that_only_the_other_archive_knows_of_is_reported(
    pulled: Pulled, offsite: Archive, tmp_path: Path, there: str
) -> None:
    """Without our SHA256SUMS, nothing here names it: the set must not pass for complete."""
    other = Path(str(offsite.store))
    await verify(offsite)
    results = shutil.copytree(other / "verified", tmp_path / "results")
    lost, here = lose_a_node(pulled, offsite, named_there=there != "named at a verify")
    if there == "named at a verify":
        shutil.copytree(results, other / "verified")
    if there == "in a damaged line":
        their_sums = other / pulled.key(pulled.sums())
        their_sums.write_text(their_sums.read_text().replace(lost, lost[:-20]))
    pulled.sums().unlink()
    summary = await repair(pulled.archive, await verify(pulled.archive), ArchiveSupplier(offsite))
    [failed] = summary.not_repaired
    if there == "in a damaged line":
        assert failed.key.endswith(lost.partition("/")[0])
        assert "does not name all of it" in str(failed.error)
    else:
        assert failed.key.endswith(lost)
        assert "neither has it" in str(failed.error)
        assert summary.exit_code == 3
    assert summary.exit_code != 0
    sums = [one.read_text() for one in pulled.root.glob(f"{CLUSTER}/*/*/SHA256SUMS")]
    assert not any(here in text for text in sums)


Garbling = Callable[[str, str, str], str]


def another_suffix(text: str, lost: str, here: str) -> str:
    return text.replace(lost, lost.replace(".rdb", ".rdc"))


def cut_in_the_name(text: str, lost: str, here: str) -> str:
    return text[: text.index(lost) + len(lost) - 20]


def cut_in_the_checksum(text: str, lost: str, here: str) -> str:
    return text[: text.index(lost) - 30]


def garbled_and_another_unnamed(text: str, lost: str, here: str) -> str:
    lines = [line for line in text.splitlines(True) if here not in line]
    return "".join("?" + line[1:] if lost in line else line for line in lines)


def no_line_end(text: str, lost: str, here: str) -> str:
    return re.sub(f"\n(?=[0-9a-f]+  {lost})", "J", text)


@pytest.mark.parametrize(
    "garble",
    [
        another_suffix,
        cut_in_the_name,
        cut_in_the_checksum,
        garbled_and_another_unnamed,
        no_line_end,
    ],
)
@pytest.mark.parametrize("origin", ["archive", "source"])
async def test_a_damaged_line_of_a_lost_node_stays(
    pulled: Pulled, offsite: Archive, vendor: Path, source: TairSource, origin: str,
    garble: Garbling,
) -> None:  # fmt: skip
    """Nothing else names it: neither another archive, nor the vendor, nor an earlier verify."""
    lost, here = lose_a_node(pulled, offsite, named_there=False)
    (vendor / CLUSTER / f"{CLUSTER}-db-1" / f"d_{DAYS[1]}031500.rdb").unlink()
    garbled = garble(pulled.sums().read_text(), lost, here)
    pulled.sums().write_text(garbled)
    supplier: Supplier = ArchiveSupplier(offsite)
    if origin == "source":
        supplier = SourceSupplier(source, TransferOptions(retry=QUICK))
    for _ in range(2):
        summary = await repair(pulled.archive, await verify(pulled.archive), supplier)
        assert summary.exit_code == 3
        assert summary.not_repaired
        assert pulled.sums().read_text() == garbled
    assert (await verify(pulled.archive)).exit_code == 3


@pytest.mark.parametrize("left", ["empty", "zeros", "cut", "garbled"])
async def test_a_name_that_the_other_archive_has_is_kept(
    pulled: Pulled, offsite: Archive, left: str
) -> None:
    lost, here = lose_a_node(pulled, offsite, named_there=True)
    whole = pulled.sums().read_bytes()
    garbled = {
        "empty": b"",
        "zeros": b"\0" * len(whole),
        "cut": whole[: whole.index(lost.encode()) + len(lost) - 20],
        "garbled": b"".join(x for x in whole.splitlines(True) if here.encode() not in x)[:-1]
        + b"?",
    }[left]
    pulled.sums().write_bytes(garbled)
    summary = await repair(pulled.archive, await verify(pulled.archive), ArchiveSupplier(offsite))
    assert summary.exit_code == 3
    if left in ("empty", "zeros"):
        assert pulled.sums().read_bytes() == whole
    again = await verify(pulled.archive)
    assert again.exit_code == 3


@pytest.mark.parametrize("left", [b"", b"\n", b"\0\0\0", b"   \n", b".rdb", b"3f2a"])
async def test_an_empty_one_is_not_written_anew_where_nobody_knows_the_set(
    pulled: Pulled, offsite: Archive, left: bytes
) -> None:
    lose_a_node(pulled, offsite, named_there=False)
    (Path(str(offsite.store)) / pulled.key(pulled.sums())).unlink()
    pulled.sums().write_bytes(left)
    summary = await repair(pulled.archive, await verify(pulled.archive), ArchiveSupplier(offsite))
    assert "nothing else tells" in str(summary.not_repaired[0].error)
    assert summary.exit_code == 3
    assert pulled.sums().read_bytes() == left


@pytest.mark.parametrize("dice", range(1, 4))
@pytest.mark.parametrize("origin", ["archive", "source"])
async def test_whatever_became_of_a_lost_nodes_line_it_was_a_line(
    pulled: Pulled, offsite: Archive, vendor: Path, source: TairSource, origin: str, dice: int
) -> None:
    """Any bytes, zeros and line ends among them."""
    lost, _ = lose_a_node(pulled, offsite, named_there=False)
    for served in (vendor / CLUSTER / f"{CLUSTER}-db-1").glob("*.rdb"):
        served.unlink()
    random = Random(dice)
    lines = pulled.sums().read_bytes().splitlines(keepends=True)
    [number] = [n for n, line in enumerate(lines) if lost.encode() in line]
    garbage = bytes(random.choices(b"\0\n\xff\x80a?", k=len(lines[number])))
    pulled.sums().write_bytes(b"".join([*lines[:number], garbage, *lines[number + 1 :]]))
    supplier: Supplier = ArchiveSupplier(offsite)
    if origin == "source":
        supplier = SourceSupplier(source, TransferOptions(retry=QUICK))
    summary = await repair(pulled.archive, await verify(pulled.archive), supplier)
    assert summary.exit_code == 3
    assert (await verify(pulled.archive)).exit_code == 3


@pytest.mark.parametrize("origin", ["archive", "source"])
@pytest.mark.parametrize("left", ["empty", "zeros", "cut", "garbled", "noise"])
async def test_damaged_lines_of_a_whole_set_are_written_anew(
    pulled: Pulled, offsite: Archive, source: TairSource, origin: str, left: str
) -> None:
    whole = pulled.sums().read_bytes()
    pulled.sums().write_bytes({
        "empty": b"",
        "zeros": b"\0" * len(whole),
        "cut": whole[: len(whole) // 2],
        "garbled": whole.replace(b".rdb", b".rdc"),
        "noise": b"\xff\x07\n?\n",
    }[left])  # fmt: skip
    supplier: Supplier = ArchiveSupplier(offsite)
    if origin == "source":
        supplier = SourceSupplier(source, TransferOptions(retry=QUICK))
    summary = await repair(pulled.archive, await verify(pulled.archive), supplier)
    assert (summary.findings, summary.not_repaired) == ([], [])
    assert pulled.sums().read_bytes() == whole
    assert (await verify(pulled.archive)).exit_code == 0


def test_which_file_a_damaged_line_was_of() -> None:
    one, other = "a" * 64, "b" * 64
    named = {"n-db-1-7.rdb": one, "n-db-2-8.rdb": other}
    first, second = format_sums(named).decode().splitlines()

    def left(*lines: str, unnamed: str = "n-db-2-8.rdb") -> int:
        data = "\n".join(lines).encode()
        return len(unexplained(salvage_sums(data).unreadable, {unnamed: named[unnamed]}).lines)

    assert left("?" + second[1:]) == 0
    assert left(second[:40]) == 0
    assert left("?" * 60 + second[60:]) == 0
    assert left(second[-9:]) == 0
    assert left(".rdb") == 1  # all lines end so
    assert left("?" + first[1:]) == 1
    assert left(first[:40]) == 1
    assert left("?" + second[1:], second[:40]) == 1  # one file has one line


@pytest.mark.parametrize("origin", ["archive", "source"])
async def test_a_line_of_nothing_says_how_to_be_rid_of_it(
    pulled: Pulled, offsite: Archive, source: TairSource, origin: str
) -> None:
    path = pulled.objects()[0]
    name = pulled.name(path.with_name(f"{CLUSTER}-db-9-7.rdb"))
    key = f"{pulled.key(pulled.sums().parent)}/{name}"
    put_lines(path, lines_of(path) | {name: "0" * 64})
    found = await verify(pulled.archive)
    supplier = ArchiveSupplier(offsite) if origin == "archive" else SourceSupplier(source)
    summary = await repair(pulled.archive, found, supplier)
    [finding], [failed] = summary.findings, summary.not_repaired
    assert (finding.key, failed.key) == (key, key)
    for said in (finding.advice, str(failed.error)):
        assert "take its line out of SHA256SUMS by hand" in said
    lines = pulled.sums().read_text().splitlines(True)
    pulled.sums().write_text("".join(line for line in lines if "-db-9-7" not in line))
    assert (await verify(pulled.archive)).exit_code == 0


def nobody_reads(line: bytes) -> bytes:
    return bytes(byte | 0x80 for byte in line)


@pytest.mark.parametrize("origin", ["archive", "source"])
@pytest.mark.parametrize("left", ["zeros", "high bits", "all zeros", "all high bits", "end"])
async def test_a_line_that_nobody_can_read_is_a_name(
    pulled: Pulled, offsite: Archive, vendor: Path, source: TairSource, origin: str, left: str
) -> None:
    """A node is gone here, at the vendor and in the other archive, and its line is the last that
    tells of it."""
    lost, _ = lose_a_node(pulled, offsite, named_there=False)
    (vendor / CLUSTER / f"{CLUSTER}-db-1" / f"d_{DAYS[1]}031500.rdb").unlink()
    whole = pulled.sums().read_bytes()
    [line] = [line for line in whole.splitlines(True) if lost.encode() in line]
    pulled.sums().write_bytes(damaged := {
        "zeros": whole.replace(line, b"\0" * len(line)),
        "high bits": whole.replace(line, nobody_reads(line)),
        "all zeros": b"\0" * len(whole),
        "all high bits": nobody_reads(whole),
        "end": whole.replace(line, b"3f" + b"\0" * 45 + line[-10:]),
    }[left])  # fmt: skip
    supplier: Supplier = ArchiveSupplier(offsite)
    if origin == "source":
        supplier = SourceSupplier(source, TransferOptions(retry=QUICK))
    summary = await repair(pulled.archive, await verify(pulled.archive), supplier)
    assert (summary.exit_code, len(summary.not_repaired)) == (3, 1)
    assert pulled.sums().read_bytes() == damaged
    assert (await verify(pulled.archive)).exit_code == 3


@pytest.mark.parametrize("damage", [nobody_reads, lambda line: b"\0" * len(line)])
@pytest.mark.parametrize("all_of_it", [True, False])
async def test_a_line_that_nobody_can_read_is_that_of_a_file_that_is_here(
    pulled: Pulled, source: TairSource, damage: Callable[[bytes], bytes], all_of_it: bool
) -> None:
    whole = pulled.sums().read_bytes()
    line = whole if all_of_it else whole.splitlines(True)[1]
    pulled.sums().write_bytes(whole.replace(line, damage(line)))
    summary = await repair(pulled.archive, await verify(pulled.archive), SourceSupplier(source))
    assert (summary.findings, summary.not_repaired) == ([], [])
    assert pulled.sums().read_bytes() == whole


def cut_to(sums: Path, left_of_name: int) -> None:
    """Leave of the last line as many characters of its name."""
    data = sums.read_bytes()
    start = data.rindex(b"  ") + 2
    sums.write_bytes(data[: start + left_of_name])


@pytest.mark.parametrize("node_too", [False, True])
@pytest.mark.parametrize("origin", ["archive", "source"])
@pytest.mark.parametrize("left", [len(CLUSTER) + 6, -5, -2, -1, 0])
async def test_one_that_has_lost_its_end(
    pulled: Pulled, offsite: Archive, source: TairSource, origin: str, left: int, node_too: bool
) -> None:
    """Pull leaves it and says so; a repair ends it, and brings what is gone as well."""
    sums, whole, node = pulled.sums(), pulled.sums().read_bytes(), pulled.objects(day=DAYS[2])[-1]
    cut_to(sums, left if left > 0 else len(pulled.name(node)) + left)
    cut = sums.read_bytes()
    if node_too:
        node.unlink()
        node.with_suffix(".json").unlink()
        shutil.rmtree(pulled.root / "verified", ignore_errors=True)
    else:
        summary = await pull(source, pulled.archive, [everything(CLUSTER)])
        assert [failed.subject for failed in summary.failures] == [pulled.key(sums)]
        assert summary.exit_code == 3
    assert sums.read_bytes() == cut
    supplier: Supplier = ArchiveSupplier(offsite)
    if origin == "source":
        supplier = SourceSupplier(source, TransferOptions(retry=QUICK))
    found = await verify(pulled.archive)
    assert Fault.SUMS in {finding.fault for finding in found.findings}
    mended = await repair(pulled.archive, found, supplier)
    assert (mended.exit_code, mended.findings, mended.not_repaired) == (0, [], [])
    assert (sums.read_bytes(), node.exists()) == (whole, True)
    assert (await verify(pulled.archive)).exit_code == 0


@pytest.mark.parametrize("origin", ["archive", "source"])
@pytest.mark.parametrize(
    ("was", "left"), [(0, -3), (0, -11), (0, 64), (1, 58), (8, 32), (1, None), (8, -4)]
)
async def test_a_stump_beside_the_whole_line(
    pulled: Pulled, offsite: Archive, source: TairSource, origin: str, was: int, left: int | None
) -> None:
    """The last line was written twice, once with a few other digits, and then cut or damaged."""
    sums, whole = pulled.sums(), pulled.sums().read_text()
    stump = f"{'?' * was}{whole.splitlines()[-1][was:]}"[:left]
    sums.write_text(f"{whole}{stump}\r\n")
    assert (await pull(source, pulled.archive, [everything(CLUSTER)])).exit_code == 3
    supplier: Supplier = ArchiveSupplier(offsite)
    if origin == "source":
        supplier = SourceSupplier(source, TransferOptions(retry=QUICK))
    mended = await repair(pulled.archive, await verify(pulled.archive), supplier)
    assert (mended.exit_code, mended.findings) == (0, [])
    assert sums.read_text() == whole
    assert (await verify(pulled.archive)).exit_code == 0


def test_what_is_no_stump() -> None:
    """Of a file with the same bytes as one that is here; too short to tell; too different."""
    sha256, other = (hashlib.sha256(one).hexdigest() for one in (b"", b"x"))
    named = {"20261123T021500Z-42/r-bp1-db-0-7.aof": sha256}
    lines = [
        f"{sha256}  20261123T021500Z-42/r-bp1-db-1-8.aof\r",
        f"{sha256}  20261123T021500Z-42/r-bp1-db-1",
        sha256[:31],
        f"{'?' * 9}{sha256[9:]}",
        f"{other}  20261123T021500Z-42/r-bp1-db-0-7.aof\r",
    ]
    assert unexplained(lines, {}, named).lines == tuple(lines)


@pytest.mark.parametrize("origin", ["archive", "source"])
async def test_one_of_a_single_file_that_has_lost_its_end(
    pulled: Pulled, offsite: Archive, source: TairSource, origin: str
) -> None:
    sums, whole = pulled.sums(INSTANCE), pulled.sums(INSTANCE).read_bytes()
    cut_to(sums, len(INSTANCE) + 2)
    cut = sums.read_bytes()
    assert (await pull(source, pulled.archive, [everything()])).exit_code == 3
    assert sums.read_bytes() == cut
    supplier: Supplier = ArchiveSupplier(offsite)
    if origin == "source":
        supplier = SourceSupplier(source, TransferOptions(retry=QUICK))
    mended = await repair(pulled.archive, await verify(pulled.archive), supplier)
    assert (mended.exit_code, mended.findings) == (0, [])
    assert sums.read_bytes() == whole
    assert (await verify(pulled.archive)).exit_code == 0


async def test_names_of_other_files_that_are_there_do_no_harm(
    pulled: Pulled, source: TairSource
) -> None:
    """``sha256sum * */*``, by hand, in a month."""
    sums = pulled.sums()
    there = sorted(path for path in sums.parent.rglob("*") if path.is_file())
    lines = {pulled.name(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in there}
    put_lines(sums, lines)
    found = await read_sums(pulled.archive.store, pulled.key(sums.parent)) or {}
    assert found.keys() == {pulled.key(path) for path in there}
    assert pulled.key(sums) in found
    assert (await pull(source, pulled.archive, [everything(CLUSTER)])).exit_code == 0
    sums.write_bytes(sums.read_bytes()[:-1])
    mended = await repair(pulled.archive, await verify(pulled.archive), SourceSupplier(source))
    assert (mended.exit_code, mended.findings) == (0, [])


@pytest.mark.parametrize("origin", ["archive", "source"])
async def test_of_two_lines_a_repair_takes_none(
    pulled: Pulled, offsite: Archive, source: TairSource, origin: str
) -> None:
    """Somebody forged a file with its record, and added its line."""
    path = pulled.objects()[0]
    data = rdb(20_000, 99)
    forge(path, data)
    with pulled.sums().open("a") as sums:
        sums.write(f"{hashlib.sha256(data).hexdigest()}  {pulled.name(path)}\n")
    kept = pulled.sums().read_bytes()
    supplier = ArchiveSupplier(offsite) if origin == "archive" else SourceSupplier(source)
    summary = await repair(pulled.archive, await verify(pulled.archive), supplier)
    assert summary.exit_code == 3
    assert summary.not_repaired
    assert pulled.sums().read_bytes() == kept


@pytest.mark.parametrize("is_lost", [False, True])
async def test_a_set_with_a_damaged_line_in_the_other_archive_gets_none(
    pulled: Pulled, offsite: Archive, tmp_path: Path, *, is_lost: bool
) -> None:
    """It may be that of a node that is lost there, and here, with our SHA256SUMS and catalogue. So
    may one that is gone, and that an earlier verify saw there."""
    path = pulled.objects()[0]
    theirs = tmp_path / "offsite" / pulled.key(path)
    assert (await verify(offsite)).exit_code == 0
    remove_node(theirs)
    if is_lost:
        remove_lines(theirs)
    else:
        name = pulled.name(path)
        sums_of(theirs).write_text(sums_of(theirs).read_text().replace(name, name[:-3]))
    remove_node(path)
    pulled.sums().with_name("index.jsonl").unlink()
    pulled.sums().unlink()
    await repair(pulled.archive, await verify(pulled.archive), ArchiveSupplier(offsite))
    assert pulled.sums().exists()
    assert not [one for one in lines_of(path) if one.startswith(path.parent.name)]


@pytest.mark.parametrize("is_damaged", [False, True])
async def test_of_two_lines_of_another_archive_a_repair_takes_none(
    pulled: Pulled, offsite: Archive, tmp_path: Path, *, is_damaged: bool
) -> None:
    """Ours has lost the file that was forged there, and its line, or cannot read that."""
    path = pulled.objects()[0]
    theirs = tmp_path / "offsite" / pulled.key(path)
    data = rdb(20_000, 99)
    forge(theirs, data)
    with sums_of(theirs).open("a") as sums:
        sums.write(f"{hashlib.sha256(data).hexdigest()}  {pulled.name(path)}\n")
    name = pulled.name(path)
    lines = pulled.sums().read_text().splitlines(keepends=True)
    left = [line if name not in line else "?" * 140 + "\n" for line in lines]
    pulled.sums().write_text("".join(left if is_damaged else lines))
    remove_node(path)
    kept = pulled.sums().read_bytes()
    summary = await repair(pulled.archive, await verify(pulled.archive), ArchiveSupplier(offsite))
    assert (summary.exit_code, path.exists()) == (3, False)
    assert summary.not_repaired
    assert pulled.sums().read_bytes() == kept


async def test_a_wrong_byte_in_a_line_needs_no_supplier(
    pulled: Pulled, vendor: Path, source: TairSource
) -> None:
    """What it says of the SHA-256 all the same speaks for the record; the vendor has forgotten the
    set."""
    whole, path = pulled.sums().read_text(), pulled.objects(day=DAYS[0])[0]
    for served in (vendor / CLUSTER).rglob(f"d_{DAYS[0]}*"):
        served.unlink()
    own = hashlib.sha256(path.read_bytes()).hexdigest()
    pulled.sums().write_text(whole.replace(own, f"?{own[1:]}"))
    summary = await repair(pulled.archive, await verify(pulled.archive), SourceSupplier(source))
    assert (summary.exit_code, summary.not_repaired) == (0, [])
    assert pulled.sums().read_text() == whole


async def test_an_empty_one_is_not_written_anew_where_the_vendor_has_forgotten_a_set(
    pulled: Pulled, vendor: Path, source: TairSource
) -> None:
    """Nor would the next pull give that set's files the lines that their records say."""
    (vendor / INSTANCE / f"d_{DAYS[0]}021500.rdb").unlink()
    sums = pulled.sums(INSTANCE)
    sums.write_bytes(b"")
    summary = await repair(pulled.archive, await verify(pulled.archive), SourceSupplier(source))
    assert "nothing else tells" in str(summary.not_repaired[0].error)
    assert (summary.exit_code, sums.read_bytes()) == (3, b"")
    assert (await pull(source, pulled.archive, [everything()])).exit_code == 3
    assert sums.read_bytes() == b""


async def test_a_forged_file_whose_line_is_damaged_gets_none(
    pulled: Pulled, offsite: Archive
) -> None:
    """The other archive has the right record, and no lines of the set yet."""
    path = pulled.objects()[0]
    own = hashlib.sha256(path.read_bytes()).hexdigest()
    forge(path, rdb(20_000, 99))
    sums = pulled.sums()
    sums.write_text(damaged := sums.read_text().replace(own, "?" * 64))
    remove_lines(Path(str(offsite.store)) / pulled.key(path.parent))
    summary = await repair(pulled.archive, await verify(pulled.archive), ArchiveSupplier(offsite))
    assert "contradict " in str(summary.not_repaired[0].error)
    assert (summary.exit_code, sums.read_text()) == (3, damaged)


async def test_a_line_of_a_node_that_is_right_stays_where_another_fails(
    pulled: Pulled, offsite: Archive
) -> None:
    """Both were damaged; one of them is damaged there, too."""
    right, wrong, _ = pulled.objects()
    whole = pulled.sums().read_bytes()
    flip(right)
    flip(wrong)
    flip(Path(str(offsite.store)) / pulled.key(wrong), 700)
    summary = await repair(pulled.archive, await verify(pulled.archive), ArchiveSupplier(offsite))
    assert [finding.key for finding in summary.findings] == [pulled.key(wrong)]
    assert pulled.sums().read_bytes() == whole


def test_a_damaged_line_is_compared_with_its_own_set_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A month may have thousands of both."""
    compared: list[tuple[str, str]] = []
    is_of = sums._may_be_of

    def counted(line: str, set_name: str, others: Collection[str]) -> bool:
        compared.append((line, set_name))
        return is_of(line, set_name, others)

    monkeypatch.setattr(sums, "_may_be_of", counted)
    names = [f"20261101T{hour:02}0000Z-{hour}" for hour in range(24)]
    lines = [f"{'?' * 64}  {name}/{CLUSTER}-db-{node}-7.rdb" for name in names for node in range(9)]
    damaged = DamagedLines(lines)
    assert all(damaged.may_name(name, frozenset(names)) for name in names)
    assert not damaged.may_name("20261102T000000Z-1", frozenset(names))
    assert len(compared) <= len(lines)
    assert damaged.may_name("20261102T000000Z-1", frozenset(names[1:]))
    assert DamagedLines(["?" * 9]).may_name(names[0], frozenset(names))
