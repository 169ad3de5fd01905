"""Files in a directory become backups, again and again, and nothing there is changed."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from archiver import Archive, LocalStore, PullOptions, Summary, TransferOptions, adopt, events
from archiver import verify as verify_archive
from archiver.archive.record import Record
from archiver.commands.drill import DrillOptions, Wanted, drill
from archiver.commands.restore.run import restore
from archiver.errors import (
    BackupGone,
    FileChanged,
    IntegrityError,
    PermissionDenied,
    StoreError,
    StoreForbidden,
    UsageError,
)
from archiver.model import BackupType
from archiver.report.evidence import Mode
from archiver.sources.files.contents import created_at, why_unfinished
from archiver.stores.base import Store
from tests.adopt.made import LOG, Disturbed, dump, put, seen
from tests.conftest import DATA, QUICK
from tests.drill.conftest import programs

PART = 64 * 1024
OPTIONS = PullOptions(transfer=TransferOptions(part_size=PART, connections=1, retry=QUICK))
MADE = datetime(2026, 11, 5, 4, 30, 15, tzinfo=UTC)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the files are."""
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


class Adopted:
    """What an ``adopt`` came to."""

    def __init__(self) -> None:
        self.told: list[events.Event] = []
        self.summary = Summary()

    @property
    def left(self) -> dict[str, str]:
        """By its path below the place, why a file is left."""
        left = [one for one in self.told if isinstance(one, events.NotTaken)]
        return {one.name.partition("/place/")[2]: one.why for one in left}

    @property
    def came(self) -> list[str]:
        """The keys that were written."""
        return sorted(one.key for one in self.told if isinstance(one, events.Archived))

    @property
    def failed(self) -> list[str]:
        return [str(one.error) for one in self.summary.failures]

    def __str__(self) -> str:
        return f"{self.summary.archived} new, {self.summary.held} held, {len(self.failed)} failed"


async def bring(
    place: Path | Store, archive: Archive, *patterns: str, options: PullOptions = OPTIONS
) -> Adopted:
    store = LocalStore(place) if isinstance(place, Path) else place
    done = Adopted()
    done.summary = await adopt(store, archive, "shop", patterns, options, done.told.append)
    return done


def records(tmp_path: Path) -> dict[str, Record]:
    """All records of the archive, by the name of the file that each is of."""
    root = tmp_path / "archive"
    found = [
        Record.decode(path.relative_to(root).as_posix(), path.read_bytes())
        for path in root.glob("shop/**/*.json")
    ]
    return {str(one.received["name"]): one for one in found}


async def test_three_habits(place: Path, archive: Archive, tmp_path: Path) -> None:
    made = {
        "dump-20261101.rdb": dump(3000, 1),
        "old/dump-20261102-0300.rdb": dump(300_000, 2),
        "dump.rdb": dump(4000, 3, ctime=MADE),
        "plain.rdb": dump(5000, 4),
        "appendonly.aof": LOG,
        "snap-0001.rdb": dump(6000, 5, ctime=MADE),
        "snap-0002.rdb": dump(7000, 6, ctime=MADE + timedelta(seconds=3)),
    }
    for name, data in made.items():
        put(place / name, data)
    before = seen(place)
    done = await bring(place, archive)
    assert (done.failed, done.left, len(done.came)) == ([], {}, 7)
    assert done.summary.exit_code == 0
    assert seen(place) == before

    kept = records(tmp_path)
    for name, data in made.items():
        assert (tmp_path / "archive" / kept[name].object_key).read_bytes() == data
        assert kept[name].type is BackupType.FULL
    assert {name: one.received["started_at_from"] for name, one in kept.items()} == {
        "dump-20261101.rdb": "name",
        "old/dump-20261102-0300.rdb": "name",
        "dump.rdb": "ctime",
        "plain.rdb": "mtime",
        "appendonly.aof": "mtime",
        "snap-0001.rdb": "ctime",
        "snap-0002.rdb": "ctime",
    }
    assert kept["dump-20261101.rdb"].started_at == datetime(2026, 11, 1, tzinfo=UTC)
    assert kept["dump.rdb"].started_at == MADE
    written = datetime.fromtimestamp((place / "plain.rdb").stat().st_mtime, UTC)
    assert kept["plain.rdb"].started_at == written.replace(microsecond=0)
    assert kept["snap-0002.rdb"].set_key == "shop/2026/11/20261105T043015Z-snap"
    assert kept["snap-0002.rdb"].node_id == "0002"
    assert kept["dump.rdb"].provenance.network is None
    assert kept["dump.rdb"].provenance.origin == str(place / "dump.rdb")

    again = await bring(place, archive)
    assert (str(again), again.came) == ("0 new, 7 held, 0 failed", [])


async def test_names_that_cron_and_logrotate_leave(
    place: Path, archive: Archive, tmp_path: Path
) -> None:
    data = put(place / "dump.rdb-20261101", (DATA / "librdb__multiple_dbs.rdb").read_bytes())
    put(place / "dump.rdb.20261102", dump(3000, 2, ctime=MADE))
    put(place / "appendonly.aof.2026-11-03", LOG)
    put(place / "dump.rdb.1", dump(3000, 3))
    done = await bring(place, archive)
    assert str(done) == "3 new, 0 held, 0 failed"
    assert done.left.keys() == {"dump.rdb.1"}
    kept = records(tmp_path)
    assert [(one.started_at.day, one.object_key[-3:]) for _, one in sorted(kept.items())] == [
        (3, "aof"), (1, "rdb"), (2, "rdb"),
    ]  # fmt: skip
    assert (tmp_path / "archive" / kept["dump.rdb-20261101"].object_key).read_bytes() == data
    # The next rotation changes the number, and nothing else.
    (place / "dump.rdb.1").rename(place / "dump.rdb.2")
    assert str(await bring(place, archive)) == "0 new, 3 held, 0 failed"


async def test_a_file_that_is_overwritten_is_another_backup(place: Path, archive: Archive) -> None:
    put(place / "dump.rdb", dump(4000, 1, ctime=MADE))
    assert str(await bring(place, archive)) == "1 new, 0 held, 0 failed"
    put(place / "dump.rdb", dump(4000, 2, ctime=MADE), age=timedelta(hours=1, minutes=30))
    assert str(await bring(place, archive)) == "1 new, 0 held, 0 failed"
    put(place / "dump.rdb", dump(4000, 3, ctime=MADE + timedelta(days=1)))
    assert str(await bring(place, archive)) == "1 new, 0 held, 0 failed"
    assert str(await bring(place, archive)) == "0 new, 1 held, 0 failed"
    assert (await verify_archive(archive)).files == 3
    # What is gone from the place stays in the archive.
    (place / "dump.rdb").unlink()
    put(place / "other.rdb", dump(4000, 1))
    assert str(await bring(place, archive)) == "1 new, 0 held, 0 failed"
    assert (await verify_archive(archive)).files == 4


async def test_verify_restore_and_drill(place: Path, archive: Archive, tmp_path: Path) -> None:
    shards = [dump(6000, 5, ctime=MADE), dump(7000, 6, ctime=MADE)]
    for number, data in enumerate(shards, 1):
        put(place / f"snap-000{number}.rdb", data)
    put(place / "librdb.rdb", (DATA / "librdb__multiple_dbs.rdb").read_bytes())
    put(place / "appendonly.aof", LOG)
    await bring(place, archive)
    found = await verify_archive(archive)
    assert (found.findings, found.exit_code, found.files) == ([], 0, 4)

    set_key = records(tmp_path)["snap-0001.rdb"].set_key
    await restore(archive, tmp_path / "restored", set_key=set_key)
    assert {path.read_bytes() for path in (tmp_path / "restored").rglob("*.rdb")} == set(shards)

    (tmp_path / "scratch").mkdir()
    keys = tuple({one.set_key for one in records(tmp_path).values()})
    options = DrillOptions(Wanted(Mode.NAMED, sets=keys), scratch=tmp_path / "scratch")
    done = await drill(archive, await programs(), options)
    assert [one.why for one in done.evidence.sets if one.verdict != "pass"] == []
    assert len(done.evidence.sets) == 3


@pytest.mark.parametrize("name", ["name", "size", "modified_at", "node", "set", "started_at"])
async def test_a_record_that_was_changed(
    name: str, place: Path, archive: Archive, tmp_path: Path
) -> None:
    put(place / "snap-0001.rdb", dump(4000, 1, ctime=MADE))
    await bring(place, archive)
    record = records(tmp_path)["snap-0001.rdb"]
    path = tmp_path / "archive" / record.key
    changed = "2026-11-05T04:30:16Z" if name == "started_at" else "other"
    document = {**record.document, "received": {**record.received, name: changed}}
    path.write_bytes(replace(record, document=document).encode())
    found = await verify_archive(archive)
    assert found.exit_code == 3


async def test_a_cluster_by_pattern(place: Path, archive: Archive, tmp_path: Path) -> None:
    for day in ("20261101", "20261102"):
        for node in ("shard-a", "shard-b"):
            put(place / day / f"{node}.rdb", dump(4000, int(day) + ord(node[-1])))
    put(place / "other.rdb", dump(2000))
    done = await bring(place, archive, "{time:%Y%m%d}/{node}.rdb")
    assert str(done) == "4 new, 0 held, 0 failed"
    assert done.left == {"other.rdb": "not named like a backup"}
    assert {one.set_key for one in records(tmp_path).values()} == {
        f"shop/2026/11/{day}T000000Z-{day}T000000Z" for day in ("20261101", "20261102")
    }
    sums = (tmp_path / "archive/shop/2026/11/SHA256SUMS").read_text().splitlines()
    assert len(sums) == 4

    (place / "20261103").mkdir()
    put(place / "20261103" / "shard-a.rdb", dump(4000, 9))
    done = await bring(place, archive, "{time:%Y%m%d}/{node}.rdb")
    assert [one.why for one in done.summary.incomplete] != []
    assert done.summary.exit_code == 1


# Files that are not there to their end


async def test_files_that_are_still_being_written(place: Path, archive: Archive) -> None:
    whole, soon = dump(4000, 1), timedelta(seconds=5)
    put(place / "temp-42.rdb", whole[:100])
    put(place / "half.rdb", whole[:2000], age=timedelta(minutes=50))
    put(place / "begun.rdb", b"", age=soon)
    put(place / "short.rdb", b"REDI", age=soon)
    put(place / "live.aof", LOG, age=soon)
    put(place / "whole.rdb", dump(5000, 2), age=soon)
    done = await bring(place, archive)
    assert str(done) == "1 new, 0 held, 0 failed"
    assert (done.summary.unfinished, done.summary.exit_code) == (5, 0)
    assert {name: why.partition(":")[0] for name, why in done.left.items()} == {
        "temp-42.rdb": "by its name it is still being written",
        "half.rdb": "its end is not there yet",
        "begun.rdb": "it is empty so far",
        "short.rdb": "it has only 4 bytes so far",
        "live.aof": done.left["live.aof"].partition(":")[0],
    }
    assert "written to" in done.left["live.aof"]

    put(place / "half.rdb", whole, age=soon)
    put(place / "live.aof", LOG, age=timedelta(minutes=2))
    (place / "temp-42.rdb").rename(place / "begun.rdb")
    put(place / "begun.rdb", whole, age=soon)
    (place / "short.rdb").unlink()
    done = await bring(place, archive)
    assert (str(done), done.left) == ("3 new, 1 held, 0 failed", {})


async def test_a_server_that_is_saving_is_no_failure(place: Path, archive: Archive) -> None:
    for name in ("temp-42.rdb", "temp-43.rdb"):
        put(place / name, dump(4000, 1)[:100])
    put(place / "dump.rdb", dump(4000, 2))
    for act in (_grow, Path.unlink):
        done = await bring(Disturbed(place, "temp-42.rdb", act, None), archive)
        assert (done.failed, len(done.left)) == ([], 2)
        assert done.summary.exit_code == 0


async def test_a_set_waits_for_a_shard_that_is_still_being_written(
    place: Path, archive: Archive, tmp_path: Path
) -> None:
    second = dump(4000, 2, ctime=MADE)
    put(place / "snap-0001.rdb", dump(4000, 1, ctime=MADE))
    put(place / "snap-0002.rdb", second[:3000], age=timedelta(seconds=9))
    await bring(place, archive)
    assert not (tmp_path / "archive/shop/2026/11/SHA256SUMS").exists()
    put(place / "snap-0002.rdb", second)
    await bring(place, archive)
    sums = (tmp_path / "archive/shop/2026/11/SHA256SUMS").read_text().splitlines()
    assert len(sums) == 2


@pytest.mark.parametrize("name", ["snap-0003.rdb.gz", "snap-0003.rdb", "snap-0003.rdb.part"])
async def test_a_set_waits_for_a_shard_that_cannot_be_used(
    name: str, place: Path, archive: Archive, tmp_path: Path
) -> None:
    put(place / "snap-0001.rdb", dump(4000, 1, ctime=MADE))
    put(place / name, dump(4000, 2, ctime=MADE)[:1500])
    put(place / "other.rdb.gz", b"\x1f\x8b")
    put(place / "late-0001.rdb", dump(4000, 3, ctime=MADE))
    await bring(place, archive)
    [line] = (tmp_path / "archive/shop/2026/11/SHA256SUMS").read_text().splitlines()
    assert "late" in line


async def test_what_cannot_be_used_is_named_and_not_kept(
    place: Path, archive: Archive, tmp_path: Path
) -> None:
    put(place / "cut.rdb", dump(300_000, 1)[:200_000])
    put(place / "text.rdb", b"no dump at all\n" * 9)
    put(place / "empty.rdb", b"")
    put(place / "dump.rdb.gz", b"\x1f\x8b")
    for name in ("1.base.rdb", "1.incr.aof"):
        put(place / "appendonlydir" / f"appendonly.aof.{name}", dump(2000))
    put(place / "good.rdb", dump(4000, 2))
    put(place / "README", b"x")
    put(place / "notes.txt", b"x")
    (place / "latest.rdb").symlink_to("good.rdb")
    before = seen(place)
    for held in (0, 1):
        done = await bring(place, archive)
        assert (done.summary.archived + done.summary.held, done.summary.held) == (1, held)
        assert done.summary.exit_code == IntegrityError.exit_code
        assert done.left == {
            "README and 1 more": "not named like a backup",
            "latest.rdb": "it is a symbolic link, and no file",
        }
        assert len(done.failed) == 5
        for wanted in (
            "place/cut.rdb: it was cut off or damaged",
            "place/text.rdb: it is neither a dump nor a log",
            "a full backup cannot have 0 bytes",
            "place/dump.rdb.gz: compressed",
            "place/appendonlydir: the files of a multi-part AOF",
        ):
            assert sum(wanted in one for one in done.failed) == 1, done.failed
        assert not (tmp_path / "archive/.quarantine").exists()
        assert [path for path in (tmp_path / "archive/.staging").rglob("*") if path.is_file()] == []
    assert seen(place) == before


# Files that somebody writes to while they are read


def _grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(LOG)


def _shrink(path: Path) -> None:
    os.truncate(path, 100_000)


def _overwrite(path: Path) -> None:
    put(path, dump(300_000, 9), age=timedelta(minutes=90))


def _replace(path: Path) -> None:
    put(path.with_suffix(".new"), dump(300_000, 9), age=timedelta(minutes=90))
    path.with_suffix(".new").rename(path)


@pytest.mark.parametrize("offset", [None, 0, 2 * PART, 4 * PART])
@pytest.mark.parametrize("act", [_grow, _shrink, _overwrite])
@pytest.mark.parametrize("kind", ["rdb", "aof"])
async def test_a_file_that_changes_while_it_is_read(
    offset: int | None,
    act: Callable[[Path], None],
    kind: str,
    place: Path,
    archive: Archive,
    tmp_path: Path,
) -> None:
    data = dump(300_000, 1) if kind == "rdb" else LOG * 100
    put(place / f"dump-20261101.{kind}", data)
    put(place / "other-20261101.rdb", dump(3000))
    done = await bring(Disturbed(place, f"dump-20261101.{kind}", act, offset), archive)
    assert str(done) == "1 new, 0 held, 1 failed"
    [failure] = done.summary.failures
    assert isinstance(failure.error, FileChanged)
    assert f"{place}/dump-20261101.{kind}: it was written to" in str(failure.error)
    assert done.summary.exit_code == 1
    assert [path for path in (tmp_path / "archive/.staging").rglob("*") if path.is_file()] == []
    # Then it is what it is.
    put(place / f"dump-20261101.{kind}", dump(310_000, 2))
    assert str(await bring(place, archive)) == "1 new, 1 held, 0 failed"


async def test_a_file_that_is_replaced_between_two_parts(place: Path, archive: Archive) -> None:
    put(place / "dump-20261101.rdb", dump(300_000, 1))
    reads = 0

    class Replaced(Disturbed):
        def disturb(self, key: str, offset: int | None) -> None:
            nonlocal reads
            reads += offset is None
            if reads == 3:
                super().disturb(key, None)

    done = await bring(Replaced(place, "dump-20261101.rdb", _replace, None), archive)
    assert [type(one.error) for one in done.summary.failures] == [FileChanged]


@pytest.mark.parametrize("name", ["dump.rdb", "dump-20261101.rdb"])
async def test_a_file_that_is_removed_before_it_is_read(
    name: str, place: Path, archive: Archive
) -> None:
    """Where its name gives no time, that is found out before it is planned."""
    put(place / name, dump(300_000, 1))
    put(place / "other.rdb", dump(3000))
    done = await bring(Disturbed(place, name, Path.unlink, None), archive)
    assert done.summary.archived == 1
    assert [type(one.error) for one in done.summary.failures] == [BackupGone]
    assert done.failed[0].endswith(f"{name}: it was removed since it was listed")
    assert done.summary.exit_code == 1


async def test_a_read_that_fails_is_tried_again(place: Path, archive: Archive) -> None:
    data = put(place / "dump-20261101.rdb", dump(300_000, 1))

    def fail(path: Path) -> None:
        raise StoreError(f"{path}: not now")

    done = await bring(Disturbed(place, "dump-20261101.rdb", fail, PART), archive)
    assert str(done) == "1 new, 0 held, 0 failed"
    assert sum(isinstance(one, events.Retrying) for one in done.told) == 1
    [came] = [one for one in done.told if isinstance(one, events.Archived)]
    assert came.size == len(data)


async def test_a_run_that_was_ended_is_resumed(place: Path, archive: Archive) -> None:
    put(place / "dump-20261101.rdb", dump(300_000, 1))

    def end(path: Path) -> None:
        raise StoreForbidden(f"{path}: not you")

    done = await bring(Disturbed(place, "dump-20261101.rdb", end, 3 * PART), archive)
    assert [type(one.error) for one in done.summary.failures] == [PermissionDenied]
    done = await bring(place, archive)
    [started] = [one for one in done.told if isinstance(one, events.Started)]
    assert started.resumed == 3 * PART
    assert str(done) == "1 new, 0 held, 0 failed"


async def test_parts_of_another_object_are_not_used(
    place: Path, archive: Archive, tmp_path: Path
) -> None:
    """Of one that had the same name, size and time."""
    name = "log-20261101.aof"
    put(place / name, LOG * 100)

    def end(path: Path) -> None:
        raise StoreForbidden(f"{path}: not you")

    await bring(Disturbed(place, name, end, 3 * PART), archive)
    before = (place / name).stat()
    data = put(place / "new", LOG.replace(b"b", b"c") * 100)
    os.utime(place / "new", ns=(before.st_mtime_ns, before.st_mtime_ns))
    (place / "new").rename(place / name)
    assert str(await bring(place, archive)) == "1 new, 0 held, 0 failed"
    [kept] = (tmp_path / "archive").glob("shop/*/*/*.aof")
    assert kept.read_bytes() == data


async def test_what_the_archive_lost_is_taken_again(
    place: Path, archive: Archive, tmp_path: Path
) -> None:
    data = put(place / "dump.rdb", dump(4000, 1))
    await bring(place, archive)
    [kept] = (tmp_path / "archive").glob("shop/*/*/*.rdb")
    kept.unlink()
    assert str(await bring(place, archive)) == "1 new, 0 held, 0 failed"
    assert kept.read_bytes() == data


async def test_a_dry_run_writes_nothing(place: Path, archive: Archive, tmp_path: Path) -> None:
    put(place / "dump.rdb", dump(4000, 1))
    done = await bring(place, archive, options=replace(OPTIONS, dry_run=True))
    assert (done.summary.planned, done.summary.archived) == (1, 0)
    assert not (tmp_path / "archive").exists()


# Places that cannot be any


async def test_a_place_without_backups(place: Path, archive: Archive) -> None:
    done = await bring(place, archive)
    assert done.summary.exit_code == 1
    assert "there is no file that is a backup by its name" in done.failed[0]


async def test_a_directory_to_adopt_that_does_not_exist(
    place: Path, archive: Archive, tmp_path: Path
) -> None:
    file, link = place / "dump.rdb", tmp_path / "link"
    put(file, dump(3000))
    link.symlink_to(tmp_path / "nowhere")
    for wrong in (tmp_path / "nowhere", file / "below", link):
        with pytest.raises(UsageError, match=f"^no such directory: {wrong} ") as caught:
            await bring(wrong, archive)
        assert caught.value.hint == "check the path and that its disk is mounted"
    with pytest.raises(UsageError, match="this is a file, and no directory") as caught:
        await bring(file, archive)
    assert caught.value.hint == f"name the directory that it is in: {place}"
    # A link to a directory is one.
    link.unlink()
    link.symlink_to(place)
    assert str(await bring(link, archive)) == "1 new, 0 held, 0 failed"


async def test_no_archive_is_taken_for_a_place(
    place: Path, archive: Archive, tmp_path: Path
) -> None:
    put(place / "dump.rdb", dump(4000, 1))
    await bring(place, archive)
    root = tmp_path / "archive"
    for wrong, why in (
        (root, "this is an archive"),
        (root / "shop", "inside an archive"),
        (tmp_path, "one lies inside the other"),
    ):
        with pytest.raises(UsageError, match=why):
            await bring(wrong, archive)
    # Another archive, in the place.
    shutil.copytree(root, place / "old")
    done = await bring(place, archive)
    assert str(done) == "0 new, 1 held, 0 failed"
    assert done.left == {"old/": "it is an archive: archiver copy reads it"}


def test_the_time_in_a_dump() -> None:
    assert created_at(dump(4000, ctime=MADE)[:1024]) == MADE
    assert created_at(dump(4000)[:1024]) is None
    assert created_at(LOG[:1024]) is None
    assert created_at(b"") is None
    zero = dump(4000, ctime=datetime(1970, 1, 1, tzinfo=UTC))
    assert created_at(zero[:1024]) is None
    for path in DATA.glob("*.rdb"):
        made = created_at(path.read_bytes()[:1024])
        assert made is None or made.year >= 2009


@pytest.mark.parametrize(
    ("head", "tail", "minutes", "is_unfinished"),
    [
        (b"REDIS0011" + bytes(90), b"\xff" + bytes(8), 0, False),
        (b"REDIS0011" + bytes(90), b"\xfe" + bytes(8), 0, True),
        (b"REDIS0011" + bytes(90), b"\xfe" + bytes(8), 59, True),
        (b"REDIS0011" + bytes(90), b"\xfe" + bytes(8), 60, False),
        (b"REDIS0011", b"REDIS0011", 0, True),
        (b"REDIS0003" + bytes(90), b"\x00" + bytes(8), 0, False),
        (b"REDIS", b"REDIS", 0, True),
        (b"", b"", 0, True),
        (LOG, LOG[-9:], 0.9, True),
        (LOG, LOG[-9:], -5, True),
        (LOG, LOG[-9:], 1, False),
        (b"something else", b"hing else", 0, False),
    ],
)
def test_what_may_still_be_written(
    head: bytes, tail: bytes, minutes: float, is_unfinished: bool
) -> None:
    why = why_unfinished(head, tail, timedelta(minutes=minutes))
    assert (why is not None) == is_unfinished
