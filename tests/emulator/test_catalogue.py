"""How files become backups: fields, ids, order; and which files are not backups."""

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from archiver.emulator import Emulator, backup
from archiver.emulator.api import Api
from archiver.emulator.backup import EmulatedBackup, Numbers
from archiver.emulator.call import Hosts
from archiver.emulator.catalogue import Catalogue, odd_files
from archiver.emulator.gateway import ApiError, Key, Request
from archiver.emulator.jobs import Jobs
from archiver.emulator.quotas import Meter
from archiver.errors import UsageError
from archiver.secret import Secret
from tests.conftest import DATA, INSTANCE, EmulatorMaker
from tests.emulator.test_api import get, legacy

WEEK = timedelta(days=7)


def listed(files: Path, catalogue: Catalogue | None = None) -> Sequence[EmulatedBackup]:
    catalogue = catalogue or Catalogue(files, WEEK)
    instance = catalogue.instance(INSTANCE)
    assert instance is not None
    return catalogue.backups(instance)


def lay_over(files: Path, name: str, **fields: object) -> None:
    (files / INSTANCE / "backups.json").write_text(json.dumps({name: fields}))


async def test_what_a_directory_becomes(files: Path, emulator: Emulator) -> None:
    folder = files / INSTANCE
    (folder / "dump_20261124021500.rdb").write_bytes((DATA / "rdb__memory.rdb").read_bytes())
    (folder / "log.aof").write_bytes(b"*1\r\n")
    (folder / "node-1").mkdir()
    (folder / "node-1" / "dump_20261124021500.rdb").write_bytes(b"x")
    _, answer = await get(emulator, legacy("GET"))
    assert (answer["FullStorageSize"], answer["LogStorageSize"]) == (2414, 4)
    by_node = {b["NodeInstanceId"]: b for b in answer["Backups"]["Backup"]}  # type: ignore[index]
    assert set(by_node) == {INSTANCE, "node-1"}
    real = by_node[INSTANCE]
    assert real["BackupStartTime"] == "2026-11-24T02:15:00Z"
    assert real["BackupEndTime"] == "2026-11-24T02:16:00Z"
    assert real["ExpectExpireTime"] == "2026-12-01T02:15:00Z"
    assert (real["BackupSize"], real["EngineVersion"]) == (2413, "5.0")
    assert (real["BackupStatus"], real["BackupMode"]) == ("Success", "Automated")
    assert (real["BackupMethod"], real["BackupDBNames"]) == ("Physical", "all")
    assert real["BackupJobID"] == by_node["node-1"]["BackupJobID"]
    assert real["BackupId"] != by_node["node-1"]["BackupId"]
    _, answer = await get(emulator, legacy("GET", NeedAof="0"))
    assert answer["TotalCount"] == 2
    _, answer = await get(emulator, legacy("GET", NeedAof="1"))
    assert answer["TotalCount"] == 3
    _, answer = await get(emulator, legacy("GET", BackupJobId=str(real["BackupJobID"])))
    assert answer["TotalCount"] == 2
    for start, within in (("2026-11-24T02:15Z", True), ("2026-11-24T02:16Z", False)):
        _, answer = await get(emulator, legacy("GET", StartTime=start))
        ids = [b["BackupId"] for b in answer["Backups"]["Backup"]]  # type: ignore[index]
        assert (real["BackupId"] in ids) is within


async def test_another_retention(files: Path, emulator_of: EmulatorMaker) -> None:
    (files / INSTANCE / "a_20261124021500.rdb").write_bytes(b"x")
    emulator = await emulator_of(files, retention_days=30)
    _, answer = await get(emulator, legacy("GET"))
    [only] = answer["Backups"]["Backup"]  # type: ignore[index]
    assert only["ExpectExpireTime"] == "2026-12-24T02:15:00Z"


@pytest.mark.parametrize(
    ("name", "started"),
    [
        ("a_20261124021500.rdb", datetime(2026, 11, 24, 2, 15, tzinfo=UTC)),
        ("20261124T021501Z-a.rdb", datetime(2026, 11, 24, 2, 15, 1, tzinfo=UTC)),
        ("a_20269924021500.rdb", datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        ("a.rdb", datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
    ],
)
def test_when_a_backup_started(files: Path, name: str, started: datetime) -> None:
    (files / INSTANCE / name).write_bytes(b"x")
    os.utime(files / INSTANCE / name, (1.7e9, 1.7e9))
    assert [b.started_at for b in listed(files)] == [started]


@pytest.mark.parametrize(
    ("head", "version"),
    [(b"REDIS0006", "2.8"), (b"REDIS0009", "5.0"), (b"REDIS0011", "7.0"), (b"VALKEY080", "5.0")],
)
def test_the_engine_version(files: Path, head: bytes, version: str) -> None:
    (files / INSTANCE / "a.rdb").write_bytes(head + b"\xff")
    assert [b.fields["EngineVersion"] for b in listed(files)] == [version]


def test_what_is_not_a_backup(files: Path, tmp_path: Path) -> None:
    node = files / INSTANCE / "node"
    for path in (
        files / INSTANCE / ".hidden.rdb",
        files / INSTANCE / "notes.json",
        files / ".git" / "x.rdb",
        node / "notes.json",
        node / "deeper" / "x.rdb",
        tmp_path / "outside" / "x.rdb",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (node / "gone.rdb").symlink_to(tmp_path / "nowhere")
    (node / "circle.rdb").symlink_to(node / "circle.rdb")
    (node / "out.rdb").symlink_to(tmp_path / "outside" / "x.rdb")
    (files / INSTANCE / "outside").symlink_to(tmp_path / "outside")
    (node / "in.rdb").symlink_to(node / "real.rdb")
    (node / "real.rdb").write_bytes(b"x")
    catalogue = Catalogue(files, WEEK)
    assert {b.path.name for b in listed(files, catalogue)} == {"in.rdb", "real.rdb"}
    assert catalogue.instance(".git") is None
    (node / "empty.rdb").touch()
    told = [line.replace(f"{files}/{INSTANCE}/", "") for line in odd_files(files)]
    link = f"a link that leads to no file in {files}"
    assert told == [
        f"not served: node/circle.rdb: {link}",
        "served: node/empty.rdb: it has 0 bytes",
        f"not served: node/gone.rdb: {link}",
        f"not served: node/out.rdb: {link}",
        f"not served: outside: {link}",
    ]


@pytest.mark.parametrize("name", ["", ".", "..", f"../vendor/{INSTANCE}", "a\0b", "x" * 300])
def test_names_that_no_instance_has(files: Path, name: str) -> None:
    assert Catalogue(files, WEEK).instance(name) is None


def test_a_name_that_is_not_text(files: Path) -> None:
    (files / INSTANCE / os.fsdecode(b"a\xff b.r%db")).write_bytes(b"x")
    [only] = listed(files)
    assert only.resource.isascii()
    assert only.resource.endswith(".rdb")


def test_the_newest_first(files: Path) -> None:
    for day in (11, 13, 12):
        (files / INSTANCE / f"a_202611{day}000000.rdb").write_bytes(b"x")
    assert [b.started_at.day for b in listed(files)] == [13, 12, 11]


def test_files_come_change_and_go(files: Path) -> None:
    catalogue = Catalogue(files, WEEK)
    path = files / INSTANCE / "a.rdb"
    for content in (b"", b"x", b"xy"):
        path.write_bytes(content)
        [only] = listed(files, catalogue)
        assert only.fields["BackupSize"] == len(content)
        assert catalogue.find(only.resource) == path
    [mine], [anothers] = listed(files, catalogue), listed(files)
    assert mine.fields["BackupId"] == anothers.fields["BackupId"]
    path.unlink()
    assert listed(files, catalogue) == []
    assert catalogue.find(mine.resource) is None
    (files / INSTANCE).rmdir()
    assert catalogue.instance(INSTANCE) is None


def test_an_old_address_leads_to_a_file_that_changed(files: Path) -> None:
    catalogue = Catalogue(files, WEEK)
    path = files / INSTANCE / "a.rdb"
    path.write_bytes(b"x")
    os.utime(path, (1.6e9, 1.6e9))
    [before] = listed(files, catalogue)
    os.utime(path, (1.7e9, 1.7e9))
    [after] = listed(files, catalogue)
    assert before.resource != after.resource
    assert catalogue.find(before.resource) == catalogue.find(after.resource) == path


def test_only_what_changed_is_read(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of an instance with thousands of files does not read all of them again."""
    for number in range(200):
        (files / INSTANCE / f"{number}.rdb").write_bytes(b"x")
    read: list[str] = []
    real = backup._engine_version

    def engine_version(path: Path) -> str:
        read.append(path.name)
        return real(path)

    monkeypatch.setattr(backup, "_engine_version", engine_version)
    catalogue = Catalogue(files, WEEK)
    first = listed(files, catalogue)
    assert len(read) == 200
    assert listed(files, catalogue) is first
    (files / INSTANCE / "7.rdb").write_bytes(b"xy")
    (files / INSTANCE / "new.rdb").write_bytes(b"x")
    assert len(listed(files, catalogue)) == 201
    assert sorted(read[200:]) == ["7.rdb", "new.rdb"]


def test_no_two_numbers_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    real = backup.number_of
    monkeypatch.setattr(backup, "number_of", lambda text: real(text) % 4)
    numbers = Numbers()
    given = {name: numbers.of(name) for name in "abcd"}
    assert len(set(given.values())) == 4
    assert {name: numbers.of(name) for name in given} == given


async def test_fields_laid_over(files: Path, emulator: Emulator) -> None:
    (files / INSTANCE / "a.rdb").write_bytes(b"x")
    lay_over(files, "a.rdb", BackupStatus="Failed", New=1)
    _, answer = await get(emulator, legacy("GET"))
    [failed] = answer["Backups"]["Backup"]  # type: ignore[index]
    assert (failed["BackupStatus"], failed["New"]) == ("Failed", 1)
    assert "BackupDownloadURL" not in failed
    lay_over(files, "a.rdb", BackupDownloadURL="ftp://h/x", NodeInstanceId="../x", BackupSize=9)
    _, answer = await get(emulator, legacy("GET"))
    [odd] = answer["Backups"]["Backup"]  # type: ignore[index]
    assert (odd["BackupDownloadURL"], odd["NodeInstanceId"]) == ("ftp://h/x", "../x")
    assert odd["BackupSize"] == 9
    assert odd["BackupIntranetDownloadURL"].startswith("http://127.0.0.1")


def test_a_start_laid_over_moves_the_backup(files: Path) -> None:
    (files / INSTANCE / "a_20261124021500.rdb").write_bytes(b"x")
    lay_over(files, "a_20261124021500.rdb", BackupStartTime="2026-11-20T00:00:00Z")
    [moved] = listed(files)
    assert moved.started_at == datetime(2026, 11, 20, tzinfo=UTC)
    assert moved.fields["BackupEndTime"] == "2026-11-20T00:01:00Z"
    assert moved.fields["ExpectExpireTime"] == "2026-11-27T00:00:00Z"


@pytest.mark.parametrize("start", ["soon", "", 5, None, [], "9999-12-31T23:59:59Z", "0001-01-01"])
def test_a_start_that_cannot_be_read_is_served(files: Path, start: object) -> None:
    (files / INSTANCE / "a_20261124021500.rdb").write_bytes(b"x")
    lay_over(files, "a_20261124021500.rdb", BackupStartTime=start, BackupSize=None, BackupId=[])
    [odd] = listed(files)
    assert odd.fields["BackupStartTime"] == start
    assert odd.started_at.tzinfo is not None


@pytest.mark.parametrize("text", ["{", "[]", '{"a.rdb": 1}', "[" * 100_000])
def test_overrides_that_cannot_be_read(files: Path, text: str) -> None:
    """At the start it ends the emulator; later it is an error that no client retries."""
    catalogue = Catalogue(files, WEEK)
    (files / INSTANCE / "backups.json").write_text(text)
    with pytest.raises(UsageError, match=r"backups\.json"):
        Catalogue(files, WEEK)
    params = legacy("GET")
    jobs, meter = Jobs(catalogue, float, 0), Meter({}, float)
    api = Api(catalogue, jobs, meter, Key("id", Secret("s")), Hosts("h", "h"), "h", float)
    with pytest.raises(ApiError, match=r"backups\.json") as caught:
        api.respond(Request("GET", params, {}, {}, ""), 60)
    assert (caught.value.status, caught.value.code) == (400, "InvalidEmulatorFile")
