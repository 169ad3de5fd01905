"""Keys, records and sets."""

import json
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver import Archive, LocalStore, Query, pull
from archiver.archive import layout
from archiver.archive.consistency import contradictions
from archiver.archive.inventory import Inventory
from archiver.archive.record import Record, encode, new_document
from archiver.commands.ls.listing import State, archived_rows, compared_rows, vendor_rows
from archiver.errors import (
    ArchiverError,
    BackupGone,
    BadDocument,
    DamagedArchive,
    IntegrityError,
    UnsafeInput,
    UnsupportedFormat,
)
from archiver.ids import safe
from archiver.model import (
    Backup,
    BackupMode,
    BackupType,
    Engine,
    NodesExpected,
    Page,
    SourceName,
    Status,
    Stored,
)
from archiver.stores.scope import WHOLE
from tests.stores.test_local import RECEIPT

BACKUP = Backup(
    source=SourceName("alibaba", "DescribeBackups 2015-01-01"),
    instance_id="r-bp1",
    node_id="r-bp1-db-0",
    backup_id="7",
    set_id="42",
    started_at=datetime(2026, 11, 24, 2, 15, tzinfo=UTC),
    status=Status.SUCCESS,
    type=BackupType.FULL,
    mode=BackupMode.AUTOMATED,
    ended_at=datetime(2026, 11, 24, 2, 16, 1, tzinfo=UTC),
    expires_at=datetime(2026, 12, 1, 2, 15, tzinfo=UTC),
    engine=Engine(version="5.0"),
    nodes_expected=NodesExpected(3, "ShardCount of DescribeInstances"),
    size=1000,
    received={
        "BackupId": 7,
        "BackupJobID": 42,
        "BackupSize": 1000,
        "BackupStartTime": "2026-11-24T02:15:00Z",
        "BackupType": "FullBackup",
        "NodeInstanceId": "r-bp1-db-0",
        "Neu": "é",
    },
)
FOLDER = "r-bp1/2026/11/20261124T021500Z-42"
STANDARD = replace(BACKUP, node_id="r-bp1")
OF_STANDARD = "r-bp1/2026/11/20261124T021500Z-7"


class Listed:
    """A source of one backup."""

    def __init__(self, backup: Backup) -> None:
        self._backup = backup

    async def pages(self, _: Query) -> AsyncGenerator[Page, None]:
        yield Page(1, 1, 1, (self._backup,))

    async def again(self, backup: Backup) -> Backup:
        raise BackupGone(str(backup))


def test_keys() -> None:
    assert layout.new_set_key(BACKUP) == FOLDER
    assert layout.stem(FOLDER, BACKUP) == f"{FOLDER}/r-bp1-db-0-7"
    assert layout.new_set_key(replace(BACKUP, set_id=None)).endswith("Z-b7")
    assert layout.new_set_key(STANDARD) == OF_STANDARD
    assert layout.stem(OF_STANDARD, STANDARD) == OF_STANDARD


@pytest.mark.parametrize("backup", [BACKUP, STANDARD])
def test_a_key_tells_what_it_is_of(backup: Backup) -> None:
    """The set, the node and the backup, by the key of an object or of its record alone."""
    set_key = layout.new_set_key(backup)
    stem = layout.stem(set_key, backup)
    for key in (layout.record_key(stem), f"{stem}.rdb"):
        assert layout.is_of_a_set(key)
        assert (layout.set_of(key), layout.stem_of(key)) == (set_key, stem)
        assert layout.node_of(key) == backup.node_id
        assert layout.backup_name(key) == f"{backup.node_id}-7"
        assert layout.is_in_folder(key) is (backup is BACKUP)
        assert layout.moved(key, f"{set_key}9") == key.replace(set_key, f"{set_key}9")
    assert layout.is_object(f"{stem}.rdb")
    assert layout.is_record(f"{stem}.json")
    assert layout.stem_of_node(set_key, backup.node_id, "7") == stem


@pytest.mark.parametrize(
    "name", ["notes.json", "20261124T021500Z-7.txt", "20261124-7.rdb", "x/y/r-bp1-db-0-7.rdb"]
)
def test_what_else_lies_in_a_month_is_of_no_set(name: str) -> None:
    assert not layout.is_of_a_set(f"r-bp1/2026/11/{name}")


@pytest.mark.parametrize(
    "name", ["20261124T021500Z-7-old.rdb", "20261124T021500Z-42.r-bp1-db-0-7.rdb", "x/7.rdb"]
)
def test_a_name_that_no_backup_has_is_not_an_object(name: str) -> None:
    """A backup's id has no hyphen; a node's file has two ids in its name."""
    assert not layout.is_object(f"r-bp1/2026/11/{name}")


def test_the_documents_of_a_month_are_of_no_set() -> None:
    for key in (layout.sums_key("r-bp1/2026/11"), layout.index_key("r-bp1/2026/11")):
        assert layout.is_of_a_month(key)
        assert not layout.is_of_a_set(key)
        assert not layout.is_of_a_month(f"{FOLDER}/{key.rpartition('/')[2]}")


@given(st.text(max_size=80))
def test_no_id_leaves_its_folder(text: str) -> None:
    try:
        part = safe(text)
    except UnsafeInput:
        return
    root = Path("/archive")
    assert (root / part).resolve().parent == root
    assert not part.startswith((".", "-"))
    assert "~" not in part


def record(backup: Backup = BACKUP) -> Record:
    stem = layout.stem(FOLDER, BACKUP)
    document = new_document(backup, Stored(f"{stem}.rdb", RECEIPT), "archiver 0")
    return Record.decode(layout.record_key(stem), encode(document))


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, "half \ud800", ["\udfff"], {"a": 2**80}])
def test_a_record_of_what_only_json_can_say(value: object) -> None:
    """It keeps every field of a listing as received, odd ones too."""
    fields = {**BACKUP.received, "New": value}
    assert record(replace(BACKUP, received=fields)).received == fields


def test_a_record_is_laid_out() -> None:
    text = record().encode().decode()
    assert text.startswith('{\n  "format": 2,\n  "instance_id": "r-bp1",\n')
    assert text.endswith('    "Neu": "é"\n  }\n}\n')


def test_a_record_reads_back() -> None:
    written = record()
    assert Record.decode(written.key, written.encode()) == written
    assert written.set_key == FOLDER
    document = json.loads(written.encode())
    assert document["received"]["Neu"] == "é"
    assert document["started_at"] == "2026-11-24T02:15:00Z"
    assert document["engine"] == {"name": None, "version": "5.0"}
    assert written.nodes_expected == BACKUP.nodes_expected
    assert document["object"] == "r-bp1-db-0-7.rdb"
    assert isinstance(document["crc64ecma"], str)


@pytest.mark.parametrize(
    "change",
    [
        {"object": "../../../etc/passwd"},
        {"object": ".."},
        {"object": ""},
        {"size": "many"},
        {"received": []},
        {"started_at": 7},
        {"type": "FullBackup"},
        {"mode": "Automated"},
        {"engine": "7.0"},
        {"engine": {"name": None, "version": 7}},
        {"nodes_expected": {"count": 0, "known_from": "x"}},
        {"source": {"kind": "alibaba"}},
        {"expires_at": "soon"},
        {"format": 1},
    ],
)
def test_a_record_that_cannot_be_believed(change: dict[str, object]) -> None:
    document = {**record().document, **change}
    with pytest.raises(IntegrityError):
        Record.decode("k.json", json.dumps(document).encode())


def test_a_record_of_a_version_that_read_less_is_right() -> None:
    """What is read out of the same fields today need not be in a record of yesterday."""
    received = {**BACKUP.received, "BackupMode": "Manual", "EngineVersion": "7.0"}
    fields = replace(BACKUP, received=received, mode=None, engine=None)
    assert contradictions(record(fields)) == []
    other = replace(fields, engine=Engine(version="5.0"))
    assert len(contradictions(record(other))) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"backup_id": "7-1"},
        {"set_id": "../42"},
        {"started_at": datetime(2026, 11, 24, 2, 15)},
        {"ended_at": datetime(2026, 11, 24, 10, 16, tzinfo=timezone(timedelta(hours=8)))},
        {"engine": Engine("valkey\n", "8.0")},
        {"nodes_expected": NodesExpected(3, "\x00")},
    ],
)
async def test_what_no_record_can_be_made_of_is_not_fetched(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    """Whatever the source: else its record could never be read, or found."""
    source = Listed(replace(BACKUP, **change))
    target = Archive(LocalStore(tmp_path))
    summary = await pull(source, target, [Query("r-bp1", "", "")])
    assert [type(one.error) for one in summary.failures] == [UnsafeInput]
    assert list(tmp_path.rglob("r-bp1*")) == []


@pytest.mark.parametrize("data", [b"", b"\x00" * 100, b"[]", b"7", b"{", b"\xff"])
def test_no_record_at_all(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        Record.decode("k.json", data)


@pytest.mark.parametrize("written", [3, 1, 0, "2", None])
def test_a_record_of_another_format_fails_alone(written: object) -> None:
    document = {**record().document, "format": written}
    with pytest.raises(BadDocument):
        Record.decode("k.json", json.dumps(document).encode())


async def test_a_set_across_midnight_of_the_month(tmp_path: Path) -> None:
    archive = Archive(LocalStore(tmp_path))
    early = replace(BACKUP, started_at=datetime(2026, 11, 30, 23, 59, 58, tzinfo=UTC))
    late = replace(
        BACKUP, node_id="r-bp1-db-1", started_at=datetime(2026, 12, 1, 0, 0, 3, tzinfo=UTC)
    )
    inventory = Inventory(archive.store)
    first = (await inventory.find(early)).transfer.stem
    async with archive.writing(BACKUP.instance_id):
        await archive.store.put(layout.record_key(first), record().encode())
    for view in (inventory, Inventory(LocalStore(tmp_path))):
        stem = (await view.find(late)).transfer.stem
        assert stem.rpartition("/")[0] == first.rpartition("/")[0]


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        (("11/20261124T011500Z", "11/20261124T031502Z", "11/20261124T041500Z"), 1),
        (("11/20261124T031458Z", "11/20261124T031502Z"), 1),
        (("11/20261124T090000Z",), 0),
        (("11/20261123T031500Z", "11/20261125T031500Z"), None),  # of other nights
        (("10/20261124T031500Z", "11/20261024T031500Z", "11/notes"), None),  # no set belongs there
    ],
)
async def test_a_cluster_set_lies_where_most_of_it_does(
    tmp_path: Path, there: tuple[str, ...], expected: int | None
) -> None:
    """Of those of its night; whichever of its nodes is asked for."""
    backup = replace(BACKUP, started_at=datetime(2026, 11, 24, 3, 15, tzinfo=UTC))
    job = layout.set_name(backup)
    folders = [f"{backup.instance_id}/2026/{one}-{job}" for one in there]
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "r-1-1.json").write_text("{}")
        for name in ("notes.json", "old.json"):  # no names of records
            if expected is not None and folder != folders[expected]:
                (tmp_path / folder / name).write_text("{}")
    if expected is not None:
        (tmp_path / folders[expected] / "r-2-2.json").write_text("{}")
    right = layout.new_set_key(backup) if expected is None else folders[expected]
    inventory = Inventory(LocalStore(tmp_path))
    for seconds in (-120, 0, 40):
        node = replace(backup, started_at=backup.started_at + timedelta(seconds=seconds))
        if expected is not None:
            assert (await inventory.find(node)).transfer.set_key == right
    assert (await inventory.find(backup)).transfer.set_key == right
    assert (await inventory.sets_like(layout.new_set_key(backup)))[0] == right


async def test_a_set_does_not_lie_in_a_month_that_is_not_its_own(tmp_path: Path) -> None:
    backup = replace(BACKUP, started_at=datetime(2026, 11, 1, 0, 0, 1, tzinfo=UTC))
    job = layout.set_name(backup)
    folder = tmp_path / backup.instance_id / "2026" / "11" / f"20261031T235959Z-{job}"
    folder.mkdir(parents=True)
    (folder / "r-1-1.json").write_text("{}")
    found = await Inventory(LocalStore(tmp_path)).find(backup)
    assert found.transfer.set_key == layout.new_set_key(backup)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('{"format": 99}', UnsupportedFormat),
        ('{"format": 1}', UnsupportedFormat),
        *((text, DamagedArchive) for text in ('{"format": "1"}', '{"format": 0}', "[]", "", "{}")),
    ],
)
async def test_an_archive_that_is_not_ours_to_write(
    tmp_path: Path, text: str, error: type[ArchiverError]
) -> None:
    (tmp_path / "archive.json").write_text(text)
    with pytest.raises(error):
        async with Archive(LocalStore(tmp_path)).writing(WHOLE):
            pass
    assert [p.name for p in tmp_path.iterdir()] == ["archive.json"]


async def test_rows(tmp_path: Path) -> None:
    archive = Archive(LocalStore(tmp_path))
    written = record()
    async with archive.writing(BACKUP.instance_id):
        await archive.store.put(written.key, written.encode())
        await archive.store.put(written.object_key, bytes(1000))
        await archive.store.put(f"{FOLDER}/broken-1.json", b"{")
    rows = await archived_rows(archive)
    assert {row.state for row in rows} == {State.ARCHIVED, State.DAMAGED}
    assert await archived_rows(archive, ["r-other"]) == []
    listed = [
        BACKUP,
        replace(BACKUP, node_id="r-bp1-db-1", backup_id="8"),
        replace(BACKUP, backup_id="9", set_id="43", status=Status.FAILED),
        replace(BACKUP, backup_id="10", set_id="44", status=Status.UNFINISHED),
    ]
    rows = await compared_rows(archive, listed)
    assert {row.backup_id: row.state for row in rows} == {
        "7": State.ARCHIVED,
        "8": State.MISSING,
        "9": State.FAILED,
        "10": State.UNFINISHED,
    }
    assert {row.set_note for row in rows if row.backup_id in "78"} == {"1 of 2 files are here"}
    (tmp_path / written.object_key).unlink()
    assert (await compared_rows(archive, [BACKUP]))[0].state is State.DAMAGED
    assert {row.state for row in vendor_rows(listed)} == {
        State.LISTED,
        State.FAILED,
        State.UNFINISHED,
    }


def test_error_lines() -> None:
    assert str(ArchiverError("what", hint="do")) == "what (do)"


async def test_what_has_the_name_of_an_object_is_reported(tmp_path: Path) -> None:
    """Nothing is recorded, and yet the backup is not just missing."""
    stem = layout.stem(layout.new_set_key(BACKUP), BACKUP)
    (tmp_path / f"{stem}.rdb").mkdir(parents=True)
    (tmp_path / f"{stem}.rdb" / "notes.txt").write_text("somebody's")
    finding = await Inventory(LocalStore(tmp_path)).find(BACKUP)
    assert finding.damage == f"{stem}.rdb: a folder is in its place"
    assert finding.in_the_way == (f"{stem}.rdb",)
