"""What ``ls`` shows: one set of columns, long notes below, and counts of backups alone."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from archiver import Archive, LocalStore
from archiver.cli.ls_output import Counts, Table
from archiver.commands.ls.age import late_rows
from archiver.commands.ls.listing import Row, State, archived_rows, other_rows
from archiver.model import BackupType
from examples.sample_rdb import rdb, write_rdb
from tests.archive.sample import CLUSTER, STARTS, put_backup, put_standard, sums_of
from tests.cli.conftest import Run
from tests.conftest import INSTANCE

AT = datetime(2026, 11, 24, 2, 15, tzinfo=UTC)


def row(instance: str = INSTANCE, node: str = "", backup_id: str = "4308717497") -> Row:
    """A row of an archived backup."""
    return Row(
        instance, AT, node or instance, backup_id, BackupType.FULL, 999 * 2**20,
        State.ARCHIVED, None, f"{instance}/2026/11/20261124T021500Z-7",
    )  # fmt: skip


def test_rows_of_all_instances_are_in_line(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table()
    hidden = row("r-a", backup_id="")._replace(node_id="", size=None, set_key="r-a/2026/11")
    table.write([hidden._replace(state=State.DAMAGED)])
    table.write([row("r-b", backup_id="1")])
    table.write([row(CLUSTER, f"{CLUSTER}-db-0")._replace(state=State.UNRECORDED)])
    head, *rows = capsys.readouterr().out.splitlines()
    assert all(len(one) <= 80 for one in (head, *rows))
    starts = [head.index(word) for word in ("START", "NODE", "BACKUP", "STATE")]
    cells = [[one[start:].split("  ")[0] for start in starts] for one in rows]
    assert cells == [
        ["2026-11-24 02:15", "-", "2026/11", "damaged"],
        ["2026-11-24 02:15", "-", "1", "archived"],
        ["2026-11-24 02:15", "db-0", "4308717497", "unrecorded"],
    ]


def test_long_notes_are_below_the_rows(capsys: pytest.CaptureFixture[str]) -> None:
    of_set = row()._replace(set_note="1 of 3 files are here", acknowledged="acknowledged by x")
    noted = row(backup_id="9")._replace(note="SHA256SUMS does not name it")
    failed = row(backup_id="8")._replace(state=State.FAILED, acknowledged="acknowledged by y")
    soon = row()._replace(state=State.MISSING, expires_at=datetime.now(UTC) + timedelta(hours=5.5))
    Table().write([of_set, of_set._replace(node_id="b"), noted, failed, soon])
    _, *rows = capsys.readouterr().out.splitlines()
    notes = [one.rpartition("  ")[2] for one in rows[:5]]
    assert notes == [
        "incomplete set, acknowledged", "incomplete set, acknowledged", "see below",
        "acknowledged", "expires in 5 h",
    ]  # fmt: skip
    assert rows[5:] == [
        f"incomplete set: {of_set.set_key}: 1 of 3 files are here; acknowledged by x",
        f"note: {INSTANCE}-9: SHA256SUMS does not name it",
        f"{INSTANCE}-8: acknowledged by y",
    ]


def test_a_document_is_no_backup() -> None:
    counts = Counts()
    bare = row(backup_id="")._replace(state=State.DAMAGED, size=None)
    counts.take([row(), bare])
    assert str(counts) == "1 backup, 999.0 MiB: 1 archived; also damaged: 1 of what is no backup"


async def test_a_damaged_sums_has_a_name_and_is_no_set(run: Run, tmp_path: Path) -> None:
    made = [put_standard(tmp_path / "archive", rdb(5000), start) for start in STARTS]
    sums = sums_of(made[0])
    key = sums.relative_to(tmp_path / "archive").as_posix()
    sums.write_text(sums.read_text()[:100])
    listed = await run("ls", "archive")
    assert listed.code == 3
    assert "  2026/11/SHA256SUMS  " in listed.out
    assert "\n3 backups, " in f"\n{listed.err}"
    assert "; also damaged: 1 of what is no backup\n" in listed.err
    words = ("restore", "archive", "--instance", INSTANCE, "--list")
    lines = (await run(*words)).out.splitlines()
    assert [line for line in lines if line.startswith("damaged: ")] == [
        f"damaged: {key}: it cannot be read"
    ]
    sets = [line for line in lines if not line.startswith("damaged: ")]
    assert len(sets) == 3
    assert all("1 node  4.9 KiB  complete" in line for line in sets)
    assert all(line.partition("complete")[2] in ("", f"; note: {key}: it cannot be read")
               for line in sets)  # fmt: skip
    told = (await run(*words, "--json")).out
    assert told.count('"event": "set"') == 3
    assert told.count(f'"event": "damaged", "key": "{key}"') == 1


async def test_what_the_archive_has_of_an_instance_that_is_gone(
    files: Path, run: Run, tmp_path: Path
) -> None:
    gone = "r-gone"
    for name in (gone, INSTANCE):
        write_rdb(files / name / "d_20261124021500.rdb", 5000)
    both = ("--instance", gone, "--instance", INSTANCE)
    assert (await run("pull", *both, "--to", "archive")).code == 0
    shutil.rmtree(files / gone)
    compared = await run("ls", "archive", "--remote", *both)
    assert compared.code == 1
    assert f"archiver: {gone}: " in compared.err
    assert "2 backups, 9.8 KiB: 2 archived\n" in compared.err
    assert [line.split()[0] for line in compared.out.splitlines()[1:]] == sorted([gone, INSTANCE])
    (files / gone).mkdir()  # it is there, and has no backups any more
    empty = await run("ls", "archive", "--remote", *both)
    assert (empty.code, empty.out) == (0, compared.out)
    assert f"lists none of {gone}" in empty.err


async def test_what_is_listed_before_an_error_is_shown_once(tmp_path: Path) -> None:
    for number, start in enumerate(STARTS):
        put_backup(tmp_path, start, rdb(5000), backup_id=f"10{number}")
    archive = Archive(LocalStore(tmp_path))
    rows = await archived_rows(archive)
    assert await other_rows(archive, [INSTANCE], None, rows[:1]) == rows[1:]
    assert await other_rows(archive, ["r-other"], None, ()) == []
    assert await other_rows(archive, [], None, ()) == []


def test_two_backups_of_a_night_are_one() -> None:
    """Two at the same minute each night do not make them more frequent."""
    now = AT + timedelta(days=3)
    rows = [
        row(backup_id=f"{night}{n}")._replace(
            started_at=AT - timedelta(days=night, minutes=n), set_key=f"{night}{n}"
        )
        for night in range(5)
        for n in range(3)
    ]
    [told] = map(str, late_rows(rows, [INSTANCE], now))
    assert "started 3 d ago, and they usually start 24 h apart" in told
    assert late_rows(rows, [], now) == []
    assert late_rows(rows, [INSTANCE], now - timedelta(days=1.01)) == []
