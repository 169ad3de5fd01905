"""Sets out of an archive: which, and whether every byte of them is right."""

import json
import shlex
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from archiver import Archive, LocalStore, events, restore
from archiver.archive.backupsets import BackupSet
from archiver.archive.folders import list_folders
from archiver.archive.record import Record
from archiver.commands.restore import files
from archiver.commands.restore.choice import DamagedSet
from archiver.commands.restore.target import file_path
from archiver.errors import (
    CorruptFile,
    IntegrityError,
    NoSpace,
    NoSuchBackup,
    UnsafeInput,
    UsageError,
)
from archiver.model import BackupType
from archiver.stores.base import OpenedObject
from archiver.stores.local import disk
from examples.sample_rdb import rdb
from tests.archive.sample import (
    CLUSTER,
    INSTANCE,
    STARTS,
    change_record,
    put_backup,
    put_cluster,
    put_shards,
    put_standard,
    put_sums,
    remove_node,
    set_key,
    sums_of,
)
from tests.restore.test_files import copy_out


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "archive"


def opened(root: Path) -> Archive:
    return Archive(LocalStore(root))


def start_of(one: BackupSet) -> str:
    """When it began, as its key says."""
    return one.key.rpartition("/")[2].partition("-")[0]


async def test_the_newest_set_at_or_before(root: Path, tmp_path: Path) -> None:
    dumps = [rdb(5000, n) for n in range(3)]
    for start, data in zip(STARTS, dumps, strict=True):
        put_standard(root, data, start)
    for at, place in (
        (None, 2),
        (datetime(2026, 11, 22, 2, 15, tzinfo=UTC), 1),
        (datetime(2026, 11, 22, 2, 14, 59, tzinfo=UTC), 0),
    ):
        target = tmp_path / f"to-{place}"
        done = await restore(opened(root), target, instance_id=INSTANCE, at=at)
        assert (target / INSTANCE / "dump.rdb").read_bytes() == dumps[place]
        assert done.backup_set.key.endswith(f"{STARTS[place]}-100")
        assert done.passed_over == ()
    early = datetime(2026, 11, 20, tzinfo=UTC)
    with pytest.raises(NoSuchBackup, match="at or before 2026-11-20"):
        await restore(opened(root), tmp_path / "no", instance_id=INSTANCE, at=early)


async def test_all_nodes_of_a_cluster(root: Path, tmp_path: Path) -> None:
    made = put_cluster(root)
    target = tmp_path / "a place with 'quotes'"
    done = await restore(opened(root), target, instance_id=CLUSTER)
    ports = []
    for file, source in zip(done.files, made, strict=True):
        assert file.command is not None
        words = shlex.split(file.command)
        assert words[0] == "redis-server"
        given = dict(zip(words[1::2], words[2::2], strict=True))
        path = Path(given["--dir"]) / given["--dbfilename"]
        assert path.read_bytes() == source.read_bytes()
        assert path.stat().st_mode & 0o777 == 0o600
        assert file.needs == "Redis 5.0 or newer, or Valkey"
        text = (path.parent / "RESTORE.txt").read_text()
        assert file.command in text
        record = json.loads((path.parent / "record.json").read_text())
        assert record["node_id"] == file.node_id
        ports.append(given["--port"])
    assert ports == ["6379", "6380", "6381"]


async def test_a_node_that_is_missing_is_named(root: Path, tmp_path: Path) -> None:
    remove_node(put_cluster(root)[1])
    with pytest.raises(DamagedSet, match=r"db-1-201\.rdb: SHA256SUMS names it") as raised:
        await restore(opened(root), tmp_path / "to", instance_id=CLUSTER)
    assert "counts as removed" not in str(raised.value)
    assert not (tmp_path / "to").exists()
    key = f"{CLUSTER}/2026/11/{STARTS[-1]}-1"
    assert f"--set {key} --partial" in str(raised.value)
    done = await restore(opened(root), tmp_path / "to", set_key=key, partial=True)
    assert [file.node_id[-1] for file in done.files] == ["0", "2"]
    assert done.backup_set.missing == (f"{CLUSTER}-db-1",)
    assert (list(done.damaged), done.exit_code) == ([f"{CLUSTER}-db-1"], 3)


async def test_a_node_that_nothing_but_its_neighbours_knows(root: Path, tmp_path: Path) -> None:
    sets = [put_cluster(root, start) for start in STARTS]
    remove_node(sets[2][0])
    put_sums(sets[2][0].parent)
    done = await restore(opened(root), tmp_path / "to", instance_id=CLUSTER)
    assert done.backup_set.key.endswith(f"{STARTS[1]}-1")
    [newer] = done.passed_over
    assert newer.missing == (f"{CLUSTER}-db-0",)


async def test_replaced_nodes_are_not_missing(root: Path, tmp_path: Path) -> None:
    put_cluster(root, STARTS[0])
    made = [
        put_backup(root, STARTS[1], rdb(3000), instance=CLUSTER, node=f"{CLUSTER}-db-{node}")
        for node in range(3, 6)
    ]
    put_sums(made[0].parent)
    done = await restore(opened(root), tmp_path / "to", instance_id=CLUSTER)
    assert done.backup_set.key.endswith(f"{STARTS[1]}-1")


@pytest.mark.parametrize("named", [None, 0, 2])
async def test_shards_with_jobs_of_their_own_are_one_set(
    root: Path, tmp_path: Path, named: int | None
) -> None:
    keys = [set_key(root, path) for path in put_shards(root)]
    done = await restore(
        opened(root),
        tmp_path / "to",
        instance_id=CLUSTER if named is None else None,
        set_key=None if named is None else keys[named],
    )
    assert done.backup_set.key == keys[0]
    assert [file.node_id for file in done.files] == [f"{CLUSTER}-db-{n}" for n in range(3)]
    for node in range(3):
        restored = tmp_path / "to" / f"{CLUSTER}-db-{node}" / "dump.rdb"
        assert restored.read_bytes() == rdb(3000, node)
    assert (done.exit_code, done.passed_over) == (0, ())


async def test_a_shard_that_is_damaged_damages_them_all(root: Path, tmp_path: Path) -> None:
    paths = put_shards(root)
    paths[1].write_bytes(b"REDIS")
    with pytest.raises(DamagedSet, match="5 bytes"):
        await restore(opened(root), tmp_path / "to", instance_id=CLUSTER)


async def test_shards_of_a_manual_and_an_automated_backup_are_not_one(
    root: Path, tmp_path: Path
) -> None:
    """Of each some are missing: together they are no backup of one moment."""
    paths = put_shards(root)
    change_record(paths[0], mode="automated")
    change_record(paths[1], mode="manual")
    with pytest.raises(NoSuchBackup, match="of a manual and an automated backup"):
        await restore(opened(root), tmp_path / "to", instance_id=CLUSTER)


async def test_a_cluster_set_without_its_sums_is_not_complete(root: Path, tmp_path: Path) -> None:
    sums_of(put_cluster(root)[0]).unlink()
    with pytest.raises(NoSuchBackup, match="SHA256SUMS does not name it"):
        await restore(opened(root), tmp_path / "to", instance_id=CLUSTER)


async def test_the_record_of_a_standard_set_proves_it(root: Path, tmp_path: Path) -> None:
    """SHA256SUMS does not name it: it is restored, which is said."""
    put_standard(root, rdb(3000), STARTS[0])
    target = put_backup(root, STARTS[1], rdb(3000))
    done = await restore(opened(root), tmp_path / "to", instance_id=INSTANCE)
    assert start_of(done.backup_set) == STARTS[1]
    assert done.exit_code == 0
    assert "SHA256SUMS does not name it" in done.backup_set.notes[0]
    folders = await list_folders(opened(root))
    assert folders.looking_complete(INSTANCE) == list(folders)
    target.with_suffix(".json").unlink()  # which nothing proves, and nothing says that it was here
    done = await restore(opened(root), tmp_path / "other", instance_id=INSTANCE)
    assert (start_of(done.backup_set), done.exit_code) == (STARTS[0], 0)
    assert "it has no record yet" in done.passed_over[0].why_not


async def test_a_damaged_line_of_sha256sums_concerns_its_own_set_alone(
    root: Path, tmp_path: Path
) -> None:
    """Nobody knows any more what the set of a cluster should have; a standard instance's record
    proves it."""
    for target, instance in (
        ([put_cluster(root, start) for start in STARTS][-1][1], CLUSTER),
        ([put_standard(root, rdb(3000), start) for start in STARTS][-1], INSTANCE),
    ):
        sums = sums_of(target)
        name = target.relative_to(sums.parent).as_posix()
        assert sums.read_text().count(name) == 1
        sums.write_text(sums.read_text().replace(name, "?"))
        older = await restore(
            opened(root),
            tmp_path / "older",
            instance_id=instance,
            at=datetime.fromisoformat(STARTS[1]),
        )
        assert (older.exit_code, older.backup_set.notes) == (0, ())
    with pytest.raises(DamagedSet, match=f"{STARTS[2]}-1 is damaged: .*SHA256SUMS"):
        await restore(opened(root), tmp_path / "to", instance_id=CLUSTER)
    done = await restore(opened(root), tmp_path / "to", instance_id=CLUSTER, skip_damaged=True)
    assert (start_of(done.backup_set), done.exit_code) == (STARTS[1], 3)
    done = await restore(opened(root), tmp_path / "to", instance_id=INSTANCE)
    assert (start_of(done.backup_set), done.exit_code) == (STARTS[2], 0)
    assert "SHA256SUMS" in done.backup_set.notes[0]


def _flip(target: Path) -> None:
    data = bytearray(target.read_bytes())
    data[len(data) // 2] ^= 1
    target.write_bytes(data)


def _cut(target: Path) -> None:
    target.write_bytes(target.read_bytes()[:-1])


def _pad(target: Path) -> None:
    target.write_bytes(target.read_bytes() + b"\n")


def _size_in_record(target: Path) -> None:
    change_record(target, size=4999)


def _digest_in_record(target: Path) -> None:
    change_record(target, sha256="0" * 64)


def _crc_in_record(target: Path) -> None:
    change_record(target, crc64ecma="1")


def _torn_record(target: Path) -> None:
    target.with_suffix(".json").write_text("{")


def _object_gone(target: Path) -> None:
    target.unlink()


def _api_size(target: Path) -> None:
    api = json.loads(target.with_suffix(".json").read_text())["received"]
    change_record(target, received=api | {"BackupSize": 4999})


def _declared(target: Path) -> None:
    change_record(target, crc64ecma_declared="1")


def _no_crc(target: Path) -> None:
    change_record(target, crc64ecma="unknown")


def _job(target: Path) -> None:
    change_record(target, set_id="9")


def _another_node(target: Path) -> None:
    change_record(target, node_id="r-bp1zxszhcgatnx-db-9")


@pytest.mark.parametrize(
    "damage",
    [_flip, _cut, _pad, _size_in_record, _digest_in_record, _crc_in_record, _torn_record,
     _object_gone, _another_node, _api_size, _declared, _no_crc, _job],
)  # fmt: skip
async def test_damage_is_an_integrity_error(
    damage: Callable[[Path], None], root: Path, tmp_path: Path
) -> None:
    damage(put_standard(root, rdb(5000)))
    with pytest.raises(IntegrityError):
        await restore(opened(root), tmp_path / "to", instance_id=INSTANCE)
    assert not [path for path in (tmp_path / "to").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("name", "wrong"), [("crc64ecma_declared", "1"), ("crc64ecma", "1"), ("sha256", "1" * 64)]
)
async def test_each_checksum_is_compared_with_the_bytes(
    root: Path, tmp_path: Path, name: str, wrong: str
) -> None:
    target = put_standard(root, rdb(5000))
    change_record(target, **{name: wrong})
    key = target.relative_to(root).with_suffix(".json").as_posix()
    record = Record.decode(key, (root / key).read_bytes())
    with pytest.raises(CorruptFile, match=f"its record says {wrong}"):
        await copy_out(LocalStore(root), record, tmp_path / "dump.rdb")


async def test_a_set_of_which_nothing_is_left_is_not_overlooked(root: Path, tmp_path: Path) -> None:
    put_standard(root, rdb(3000), STARTS[0])
    remove_node(put_standard(root, rdb(3000), STARTS[1]))
    with pytest.raises(DamagedSet, match=f"{STARTS[1]}-100 is damaged"):
        await restore(opened(root), tmp_path / "to", instance_id=INSTANCE)
    done = await restore(opened(root), tmp_path / "to", instance_id=INSTANCE, skip_damaged=True)
    assert [start_of(one) for one in done.passed_over] == [STARTS[1]]
    assert done.exit_code == 3


async def test_files_swapped_between_nodes(root: Path, tmp_path: Path) -> None:
    one, two, _ = put_cluster(root)
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    change_record(one, size=len(second))
    change_record(two, size=len(first))
    with pytest.raises(IntegrityError):
        await restore(opened(root), tmp_path / "to", instance_id=CLUSTER)


async def test_a_wrong_footer_is_found_though_the_record_agrees(root: Path, tmp_path: Path) -> None:
    data = bytearray(rdb(5000))
    data[-1] ^= 1
    put_standard(root, bytes(data))
    with pytest.raises(IntegrityError, match="checksum that the server wrote"):
        await restore(opened(root), tmp_path / "to", instance_id=INSTANCE)


@pytest.mark.parametrize("damage", [_flip, _cut, _digest_in_record, _torn_record, _object_gone])
async def test_one_damaged_node_does_not_keep_the_others(
    damage: Callable[[Path], None], root: Path, tmp_path: Path
) -> None:
    made = put_cluster(root)
    damage(made[1])
    key = set_key(root, made[1])
    with pytest.raises(IntegrityError):
        await restore(opened(root), tmp_path / "no", set_key=key)
    done = await restore(opened(root), tmp_path / "to", set_key=key, partial=True)
    assert [file.node_id[-1] for file in done.files] == ["0", "2"]
    assert list(done.damaged) == [f"{CLUSTER}-db-1"]
    assert done.exit_code == 3
    assert not (tmp_path / "to" / f"{CLUSTER}-db-1" / "dump.rdb").exists()
    for target in (made[0], made[2]):
        damage(target)
    with pytest.raises(IntegrityError):
        await restore(opened(root), tmp_path / "none", set_key=key, partial=True)


class Watched(LocalStore):
    """Says the name of each object that is about to be read, in a worker thread."""

    def __init__(self, root: Path, opens: Callable[[str], None]) -> None:
        super().__init__(root)
        self._opens = opens

    @contextmanager
    def open(self, key: str) -> Generator[OpenedObject, None, None]:
        self._opens(key.rpartition("/")[2])
        with super().open(key) as opened:
            yield opened


def _gone(target: Path) -> None:
    target.unlink()


def names_in(place: Path) -> list[str]:
    return sorted(str(path.relative_to(place)) for path in place.rglob("*"))


@pytest.mark.parametrize("damage", [_flip, _gone, _torn_record, _digest_in_record])
async def test_a_damaged_set_is_passed_over_when_asked_to(
    damage: Callable[[Path], None], root: Path, tmp_path: Path
) -> None:
    good = put_standard(root, rdb(3000, 1), STARTS[0])
    damage(put_standard(root, rdb(3000, 2), STARTS[1]))
    put_standard(root, b"", STARTS[2], backup_type=BackupType.FULL)
    with pytest.raises(DamagedSet, match=f"{STARTS[1]}-100 is damaged: .*24 h older") as raised:
        await restore(opened(root), tmp_path / "to", instance_id=INSTANCE)
    assert raised.value.damaged.key.endswith(f"{STARTS[1]}-100")
    assert raised.value.following is not None
    assert raised.value.following.key.endswith(f"{STARTS[0]}-100")
    assert not (tmp_path / "to").exists()
    done = await restore(opened(root), tmp_path / "to", instance_id=INSTANCE, skip_damaged=True)
    assert [one.state for one in done.passed_over] == ["not complete", "damaged"]
    assert (tmp_path / "to" / INSTANCE / "dump.rdb").read_bytes() == good.read_bytes()
    assert done.exit_code == 3


async def test_with_no_good_set_left_the_damage_is_named(root: Path, tmp_path: Path) -> None:
    for start in STARTS[:2]:
        _flip(put_standard(root, rdb(3000), start))
    for skip in (False, True):
        with pytest.raises(IntegrityError, match=f"{STARTS[1]}-100 is damaged"):
            await restore(opened(root), tmp_path / "to", instance_id=INSTANCE, skip_damaged=skip)
        assert not (tmp_path / "to").exists()


async def test_the_next_set_is_checked_as_well(root: Path, tmp_path: Path) -> None:
    good = put_cluster(root, STARTS[0])
    for start, node in ((STARTS[1], 2), (STARTS[2], 1)):
        _flip(put_cluster(root, start)[node])
    done = await restore(opened(root), tmp_path / "to", instance_id=CLUSTER, skip_damaged=True)
    assert [start_of(one) for one in done.passed_over] == [STARTS[2], STARTS[1]]
    for target in good:
        laid = tmp_path / "to" / target.name.rpartition("-")[0] / "dump.rdb"
        assert laid.read_bytes() == target.read_bytes()
    assert STARTS[0] in (tmp_path / "to" / f"{CLUSTER}-db-0" / "RESTORE.txt").read_text()
    assert not list(tmp_path.rglob("*.part"))


async def test_nothing_of_a_damaged_set_has_a_name(root: Path, tmp_path: Path) -> None:
    """Node 0 is good and copied by the time that node 1 is found damaged."""
    put_cluster(root, STARTS[0])
    _flip(put_cluster(root, STARTS[1])[1])
    seen = dict[str, list[str]]()

    def look(name: str) -> None:
        seen[name[-9]] = [one for one in names_in(tmp_path / "to") if one.endswith("dump.rdb.part")]
        assert not list((tmp_path / "to").rglob("dump.rdb"))

    with pytest.raises(DamagedSet, match="db-1"):
        await restore(Archive(Watched(root, look)), tmp_path / "to", instance_id=CLUSTER)
    assert f"{CLUSTER}-db-0/.dump.rdb.part" in seen["1"]
    assert not (tmp_path / "to").exists()


async def test_what_was_there_before_a_damaged_set_stays(root: Path, tmp_path: Path) -> None:
    _flip(put_cluster(root)[1])
    other = tmp_path / "to" / f"{CLUSTER}-db-0" / "notes"
    other.parent.mkdir(parents=True)
    other.write_text("mine")
    with pytest.raises(DamagedSet):
        await restore(opened(root), tmp_path / "to", instance_id=CLUSTER)
    assert names_in(tmp_path / "to") == [f"{CLUSTER}-db-0", f"{CLUSTER}-db-0/notes"]


@pytest.mark.parametrize("agree", [True, False])
async def test_the_question_is_asked_once_for_each_set_to_take(
    agree: bool, root: Path, tmp_path: Path
) -> None:
    put_standard(root, rdb(3000), "20261120T021500Z")
    _flip(put_standard(root, rdb(3000), STARTS[0]))
    _gone(put_standard(root, rdb(3000), STARTS[1]))
    _flip(put_standard(root, rdb(3000), STARTS[2]))
    asked: list[tuple[str, str]] = []

    async def ask(damaged: BackupSet, following: BackupSet) -> bool:
        asked.append((start_of(damaged), start_of(following)))
        return agree

    job = restore(opened(root), tmp_path / "to", instance_id=INSTANCE, ask=ask)
    if agree:
        assert len((await job).passed_over) == 3
        # What is known to be damaged without reading is not asked about.
        assert asked == [(STARTS[2], STARTS[0]), (STARTS[0], "20261120T021500Z")]
    else:
        with pytest.raises(DamagedSet):
            await job
        assert asked == [(STARTS[2], STARTS[0])]
        assert not (tmp_path / "to").exists()


async def test_a_named_set_that_is_damaged_names_the_one_before(root: Path, tmp_path: Path) -> None:
    put_standard(root, rdb(3000), STARTS[0])
    target = put_standard(root, rdb(3000), STARTS[1])
    put_standard(root, rdb(3000), STARTS[2])
    _flip(target)
    named = set_key(root, target)
    with pytest.raises(DamagedSet) as raised:
        await restore(opened(root), tmp_path / "to", set_key=named)
    assert f"--set {INSTANCE}/2026/11/{STARTS[0]}-100" in str(raised.value)
    for given in ({"set_key": named}, {"instance_id": INSTANCE, "partial": True}):
        with pytest.raises(UsageError, match="--skip-damaged"):
            await restore(opened(root), tmp_path / "to", skip_damaged=True, **given)


async def test_a_copy_that_was_checked_is_not_made_again(root: Path, tmp_path: Path) -> None:
    """As after a kill between the copy of the first node and that of the last."""
    made = put_cluster(root)
    for target, data in ((made[0], made[0].read_bytes()), (made[1], b"?" * made[1].stat().st_size)):
        part = tmp_path / "to" / target.name.rpartition("-")[0] / ".dump.rdb.part"
        part.parent.mkdir(parents=True)
        part.write_bytes(data)
    inode = (tmp_path / "to" / f"{CLUSTER}-db-0" / ".dump.rdb.part").stat().st_ino
    opens: list[str] = []
    await restore(Archive(Watched(root, opens.append)), tmp_path / "to", instance_id=CLUSTER)
    assert opens == [target.name for target in made[1:]]
    assert (tmp_path / "to" / f"{CLUSTER}-db-0" / "dump.rdb").stat().st_ino == inode
    for target in made:
        laid = tmp_path / "to" / target.name.rpartition("-")[0] / "dump.rdb"
        assert laid.read_bytes() == target.read_bytes()


async def test_a_record_that_was_added_to_is_replaced(root: Path, tmp_path: Path) -> None:
    target = put_standard(root, rdb(5000))
    await restore(opened(root), tmp_path / "to", instance_id=INSTANCE)
    change_record(target, repairs=[{"at": "2026-11-25T00:00:00Z"}])
    done = await restore(opened(root), tmp_path / "to", instance_id=INSTANCE)
    assert done.files[0].copied.existed
    assert "repairs" in (tmp_path / "to" / INSTANCE / "record.json").read_text()


async def test_again_it_goes_on(root: Path, tmp_path: Path) -> None:
    made = put_cluster(root)
    target = tmp_path / "to"
    await restore(opened(root), target, instance_id=CLUSTER)
    gone = target / f"{CLUSTER}-db-1" / "dump.rdb"
    gone.unlink()
    gone.with_name(".dump.rdb.part").write_bytes(b"what a kill left" * 9999)
    done = await restore(opened(root), target, instance_id=CLUSTER)
    assert [file.copied.existed for file in done.files] == [True, False, True]
    assert gone.read_bytes() == made[1].read_bytes()
    assert list(target.rglob("*.part")) == []


@pytest.mark.parametrize("other", [b"something else", rdb(5000, 9)])
async def test_nothing_is_overwritten(other: bytes, root: Path, tmp_path: Path) -> None:
    put_standard(root, rdb(5000))
    there = tmp_path / "to" / INSTANCE / "dump.rdb"
    there.parent.mkdir(parents=True)
    there.write_bytes(other)
    with pytest.raises(UsageError, match="not overwritten"):
        await restore(opened(root), tmp_path / "to", instance_id=INSTANCE)
    assert there.read_bytes() == other


async def test_a_log_of_commands(root: Path, tmp_path: Path) -> None:
    log = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n"
    put_standard(root, log, backup_id="1")
    key = f"{INSTANCE}/2026/11/{STARTS[-1]}-1"
    with pytest.raises(NoSuchBackup, match="no dump"):
        await restore(opened(root), tmp_path / "to", instance_id=INSTANCE)
    done = await restore(opened(root), tmp_path / "to", set_key=key)
    folder = tmp_path / "to" / INSTANCE / "appendonlydir"
    assert (folder / "appendonly.aof.1.base.aof").read_bytes() == log
    assert (folder / "appendonly.aof.manifest").exists()
    assert "--appendonly yes" in str(done.files[0].command)


async def test_of_several_files_the_dump_and_the_others_are_named(
    root: Path, tmp_path: Path
) -> None:
    node = {"instance": CLUSTER, "node": f"{CLUSTER}-db-0"}
    log = put_backup(root, STARTS[0], b"*1\r\n$4\r\nPING\r\n", backup_id="300", **node)
    put_backup(root, STARTS[0], rdb(3000), backup_id="200", **node)
    put_sums(log.parent)
    done = await restore(opened(root), tmp_path / "to", instance_id=CLUSTER)
    assert [file.record.backup_id for file in done.files] == ["200"]
    assert [record.backup_id for record in done.left_out] == ["300"]


async def test_a_file_that_came_late_is_a_gap_and_no_damage(root: Path, tmp_path: Path) -> None:
    made = put_cluster(root)
    late = {"instance": CLUSTER, "node": f"{CLUSTER}-db-3", "backup_id": "300"}
    put_backup(root, STARTS[-1], rdb(3000), **late)
    with pytest.raises(NoSuchBackup, match=r"300.rdb has a record, but no line in SHA256SUMS"):
        await restore(opened(root), tmp_path / "to", instance_id=CLUSTER)
    key = set_key(root, made[0])
    done = await restore(opened(root), tmp_path / "to", set_key=key, partial=True)
    assert done.backup_set.damaged == ()
    assert done.exit_code == 1


async def test_what_no_server_loads_has_no_command(root: Path, tmp_path: Path) -> None:
    put_standard(root, b"\x93encrypted, perhaps" * 99)
    done = await restore(opened(root), tmp_path / "to", instance_id=INSTANCE)
    [file] = done.files
    assert file.command is None
    assert done.exit_code == 1
    text = (tmp_path / "to" / INSTANCE / "RESTORE.txt").read_text()
    assert "redis-server" not in text
    assert "decrypted" in text


async def test_an_id_never_leaves_the_directory(root: Path, tmp_path: Path) -> None:
    target = put_standard(root, rdb(3000))
    change_record(target, node_id="../../../escaped")
    with pytest.raises(IntegrityError, match="node is"):
        await restore(opened(root), tmp_path / "to", instance_id=INSTANCE)
    key = f"{target.parent.relative_to(root)}/{target.stem}.json"
    record = Record.decode(key, target.with_suffix(".json").read_bytes())
    with pytest.raises(UnsafeInput):
        file_path(record, tmp_path)


async def test_space_is_looked_at_before(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_standard(root, rdb(5000))

    class Full:
        f_bavail = 1
        f_frsize = 4096

    monkeypatch.setattr("archiver.commands.restore.target.os.statvfs", lambda _: Full)
    with pytest.raises(NoSpace):
        await restore(opened(root), tmp_path / "to", instance_id=INSTANCE)
    assert not (tmp_path / "to").exists()


async def test_no_name_before_the_bytes_are_durable(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_standard(root, rdb(5000))
    steps: list[str] = []

    def fsync(descriptor: int) -> None:
        steps.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)

    def rename(path: Path, target: Path) -> None:
        steps.append(f"rename {target.name}")
        path.replace(target)

    monkeypatch.setattr("os.fsync", fsync)
    monkeypatch.setattr(disk, "rename", rename)
    await restore(opened(root), tmp_path / "to", instance_id=INSTANCE)
    at = steps.index("rename dump.rdb")
    assert steps[at - 1 : at + 2] == [".dump.rdb.part", "rename dump.rdb", INSTANCE]


async def test_memory_is_one_block(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BLOCK", 1000)
    put_standard(root, rdb(50_000))
    seen: list[events.Work] = []
    await restore(opened(root), tmp_path / "to", instance_id=INSTANCE, observer=seen.append)
    begun, *steps, left = seen
    assert isinstance(begun, events.SetBegun)
    assert isinstance(left, events.FileLeft)
    assert (begun.files, begun.size, left.size) == (1, 50_000, 50_000)
    positions = [one.position for one in steps if isinstance(one, events.FileWorkedOn)]
    assert positions == list(range(0, 50_001, 1000))


@pytest.mark.parametrize("instance", ["r-bp1other", CLUSTER])
async def test_no_such_instance(instance: str, root: Path, tmp_path: Path) -> None:
    put_standard(root, rdb(3000))
    with pytest.raises(NoSuchBackup, match=f"no backup of {instance}"):
        await restore(opened(root), tmp_path / "to", instance_id=instance)
    with pytest.raises(UsageError, match="named by its key"):
        await restore(opened(root), tmp_path / "to", set_key=f"{instance}/x")
    key = f"{instance}/2026/11/20261124T021500Z-99"
    with pytest.raises(NoSuchBackup, match="no backup set"):
        await restore(opened(root), tmp_path / "to", set_key=key)
    with pytest.raises(UsageError, match="no archive"):
        await restore(opened(tmp_path / "nowhere"), tmp_path / "to", instance_id=instance)


async def test_a_kept_copy_of_a_record_makes_no_other_set_incomplete(
    root: Path, tmp_path: Path
) -> None:
    """Somebody looked at the older set: the newest one is as good as before."""
    record = put_standard(root, rdb(3000), STARTS[0]).with_suffix(".json")
    shutil.copy(record, record.with_name(f"{record.stem}-old.json"))
    put_standard(root, rdb(3000), STARTS[1])
    done = await restore(opened(root), tmp_path / "to", instance_id=INSTANCE)
    assert (start_of(done.backup_set), done.exit_code) == (STARTS[1], 0)
