"""What lies among a set's files and is none of its recorded ones: an object whose record is still
to come, and files that are no backup's. None of it is damage."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from archiver import Archive, LocalStore, TairSource, pull, restore, verify
from archiver.archive.contents import SetFiles
from archiver.archive.verified import Result
from archiver.commands.copy.difference import mismatches
from archiver.commands.copy.run import copy
from archiver.commands.copy.selection import Selection
from archiver.commands.drill import DrillOptions, Wanted, drill
from archiver.commands.ls.listing import State, archived_rows, compared_rows
from archiver.commands.verify.findings import Fault
from archiver.report.evidence import Verdict
from archiver.stores.base import Entry
from tests.archive.sample import sums_of
from tests.archive.test_lost import NEWEST, files_of, lines_gone, newest
from tests.conftest import INSTANCE, everything
from tests.drill.conftest import programs
from tests.verify.conftest import CLUSTER, DAYS, NODES, Pulled, offsite, pulled, vendor

__all__ = ["offsite", "pulled", "vendor"]
BOTH = pytest.mark.parametrize("instance", [INSTANCE, CLUSTER])


def records_to_come(one: Path) -> None:
    """As a pull leaves a set that was killed when it had named the objects."""
    for path in files_of(one, ".json"):
        path.unlink()
    lines_gone(one)


async def notes(archive: Archive, instance: str) -> list[str]:
    return [row.set_note or "" for row in await archived_rows(archive, [instance]) if row.set_note]


@BOTH
async def test_a_set_that_is_coming_in_is_not_complete(
    instance: str, pulled: Pulled, source: TairSource, tmp_path: Path
) -> None:
    folder = newest(pulled.root, instance)
    records_to_come(folder)
    files = NODES if instance == CLUSTER else 1
    rows = await archived_rows(pulled.archive)
    coming = [row for row in rows if row.state is not State.ARCHIVED]
    assert [(row.state, row.error) for row in coming] == [(State.UNRECORDED, None)] * files
    assert all(row.note and "it has no record yet" in row.note for row in coming)
    assert {row.set_key for row in rows if row.set_note} == {pulled.key(folder)}
    listed = [one async for page in source.pages(everything(instance)) for one in page.backups]
    compared = await compared_rows(pulled.archive, listed)
    assert [row.state for row in compared].count(State.UNRECORDED) == files

    done = await restore(pulled.archive, tmp_path / "to", instance_id=instance)
    assert (DAYS[1] in done.backup_set.key, done.exit_code) == (True, 0)
    [passed] = done.passed_over
    assert (passed.state, passed.damage) == ("not complete", ())
    assert "it has no record yet" in passed.why_not

    summary = await copy(pulled.archive, Archive(LocalStore(tmp_path / "new")))
    assert {pulled.key(path) for path in files_of(folder, ".rdb")} == {
        failed.subject for failed in summary.failures
    }
    # And the next pull finishes it.
    assert (await pull(source, pulled.archive, [everything(instance)])).exit_code == 0
    assert (await verify(pulled.archive)).exit_code == 0
    assert await notes(pulled.archive, instance) == []


async def test_a_drill_of_a_set_that_is_coming_in(pulled: Pulled, tmp_path: Path) -> None:
    """What has its record is tried."""
    folder = newest(pulled.root, CLUSTER)
    lines_gone(folder)
    next(folder.glob("*-db-1-*.json")).unlink()
    options = DrillOptions(wanted=Wanted(instances=(CLUSTER,)), scratch=tmp_path)
    done = await drill(pulled.archive, await programs(), options)
    [one] = done.evidence.sets
    assert (one.verdict, done.exit_code) == (Verdict.PARTIAL, 1)
    assert "it has no record yet" in one.why
    assert len(one.files) == NODES - 1
    assert one.nodes.missing == (f"{CLUSTER}-db-1",)


@BOTH
async def test_what_something_names_was_recorded(instance: str, pulled: Pulled) -> None:
    """An object whose record is gone, by SHA256SUMS, or by an earlier verify alone."""
    folder = newest(pulled.root, instance)
    await verify(pulled.archive)
    records_to_come(folder)
    rows = [row for row in await archived_rows(pulled.archive) if row.error is not None]
    assert len(rows) == (NODES if instance == CLUSTER else 1)
    assert all("and it has no record" in str(row.error) for row in rows)
    assert {row.state for row in rows} == {State.DAMAGED}


def sums_of_everything(one: Path) -> None:
    """``cd <month> && sha256sum * */* > SHA256SUMS``"""
    sums = sums_of(one)
    sums.write_bytes(b"")
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(sums.parent)}\n"
        for path in sorted(sums.parent.rglob("*"))
        if path.is_file()
    ]
    sums.write_text("".join(lines))


def dump_beside(one: Path) -> None:
    """Among the files of a set."""
    path = files_of(one, ".rdb")[0]
    shutil.copy(path, path.with_name("dump.rdb"))


def dump_beside_and_sums(one: Path) -> None:
    dump_beside(one)
    sums_of_everything(one)


@BOTH
@pytest.mark.parametrize(
    ("change", "found"),
    [
        (sums_of_everything, []),
        (dump_beside, [Fault.STRAY]),
        (dump_beside_and_sums, [Fault.STRAY]),
    ],
)
async def test_what_is_not_a_backups_file_counts_for_nothing(
    change: Callable[[Path], None], found: list[Fault], instance: str, pulled: Pulled,
    source: TairSource, tmp_path: Path,
) -> None:  # fmt: skip
    """A verify names what is in the wrong place; every other command goes on."""
    change(newest(pulled.root, instance))
    assert [one.fault for one in (await verify(pulled.archive)).findings] == found
    rows = await archived_rows(pulled.archive)
    assert {(row.state, row.set_note, row.note) for row in rows} == {(State.ARCHIVED, None, None)}
    done = await restore(pulled.archive, tmp_path / "to", instance_id=instance)
    assert (NEWEST in done.backup_set.key, done.exit_code) == (True, 0)
    other = Archive(LocalStore(tmp_path / "new"))
    assert (await copy(pulled.archive, other)).exit_code == 0
    assert (await verify(other)).exit_code == 0
    assert [one async for one in mismatches(pulled.archive, other, Selection())] == []
    assert (await pull(source, pulled.archive, [everything(instance)])).exit_code == 0


def test_what_a_verify_saw_and_no_backup_is_called_wants_no_record() -> None:
    """A record that somebody edited named it once."""
    key = f"{CLUSTER}/2026/11/20261124T031500Z-1"
    beside = Entry(f"{key}/dump.rdb", 9)
    seen = {beside.key: Result()}
    assert SetFiles(key, {beside.key: beside}, seen).unrecorded() == {}
    assert SetFiles(key, {}, seen).unrecorded().keys() == {beside.key}


@BOTH
@pytest.mark.parametrize("name", ["README", "notes.txt", "dump.rdb"])
async def test_a_name_that_nothing_has_is_a_fault_of_sha256sums(
    name: str, instance: str, pulled: Pulled
) -> None:
    sums = pulled.sums(instance)
    within = f"{newest(pulled.root, instance).name}/" if instance == CLUSTER else ""
    with sums.open("a") as file:
        file.write(f"{'0' * 64}  {within}{name}\n")
    [finding] = (await verify(pulled.archive)).findings
    assert finding.key == pulled.key(sums)
    [row] = [row for row in await archived_rows(pulled.archive) if row.error is not None]
    assert (row.instance_id, row.state) == (instance, State.DAMAGED)
    assert f"{pulled.key(sums)}: it names '{within}{name}'" in str(row.error)
    # It is no node, of any set.
    assert not [note for note in await notes(pulled.archive, instance) if "node" in note]
