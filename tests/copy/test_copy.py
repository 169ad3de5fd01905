"""What a copy and a comparison find that no record tells of."""

import shutil
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from archiver import Archive, LocalStore, restore, verify
from archiver.archive.descriptions import description_key, keep
from archiver.commands.copy.difference import Mismatch, mismatches
from archiver.commands.copy.run import copy
from archiver.commands.copy.selection import CopyOptions, Selection
from archiver.concurrency import in_thread
from archiver.errors import NoSuchBackup
from archiver.model import InstanceDescription
from archiver.stores.base import Entry
from archiver.times import TimeRange
from examples.sample_rdb import rdb
from tests.archive.sample import CLUSTER as SHARDED
from tests.archive.sample import (
    STARTS,
    lines_of,
    put_backup,
    put_format,
    put_lines,
    put_shards,
    put_standard,
    put_sums,
    remove_lines,
    remove_node,
    sums_of,
)
from tests.conftest import INSTANCE
from tests.verify.conftest import CLUSTER, DAYS, NODES, Pulled, flip, forge, offsite, pulled, vendor

__all__ = ["offsite", "pulled", "vendor"]
FILES = len(DAYS) * (NODES + 1)


async def compared(
    one: Archive, other: Archive, selection: Selection | None = None
) -> list[Mismatch]:
    return [m async for m in mismatches(one, other, selection or Selection())]


def forgotten(path: Path) -> None:
    """Its record is gone; in a standard set, nothing else tells of it but SHA256SUMS."""
    path.with_suffix(".json").unlink()


def forgotten_and_unnamed(path: Path) -> None:
    """And SHA256SUMS names nothing of its set."""
    forgotten(path)
    remove_lines(path.parent if path.parent.name != "11" else path)


def gone(path: Path) -> None:
    forgotten(path)
    path.unlink()


LOSSES = [forgotten, forgotten_and_unnamed, gone]


@pytest.mark.parametrize("instance", [INSTANCE, CLUSTER])
@pytest.mark.parametrize("lose", LOSSES)
async def test_a_backup_without_a_record_is_named(
    lose: Callable[[Path], None], instance: str, pulled: Pulled, offsite: Archive, tmp_path: Path
) -> None:
    path = pulled.objects(instance)[0]
    lose(path)
    target = Archive(LocalStore(tmp_path / "new"))
    for copied, held in ((FILES - 1, 0), (0, FILES - 1)):  # and again, with nothing to copy
        summary = await copy(pulled.archive, target)
        assert (summary.archived, summary.held) == (copied, held)
        [failed] = summary.failures
        assert failed.subject == pulled.key(path)
        assert "record" in str(failed.error)
        # What nothing says was recorded may be a pull's that was killed.
        assert summary.exit_code == (1 if lose is forgotten_and_unnamed else 3)
    # A set that is not whole got no lines in SHA256SUMS, which is a difference, too.
    named_twice = {pulled.key(path), pulled.set_key(path)}
    found = await compared(pulled.archive, target)
    assert {one.exit_code for one in found} == {3}
    has_lines = instance == CLUSTER and lose is not forgotten_and_unnamed
    assert {one.key for one in found} == (named_twice if has_lines else {pulled.key(path)})
    # Where the other one has it whole, it is named as well, whichever comes first.
    for one, other in ((pulled.archive, offsite), (offsite, pulled.archive)):
        keys = {found.key for found in await compared(one, other)}
        has_none = instance == CLUSTER and lose is forgotten_and_unnamed
        assert keys == (named_twice if has_none else {pulled.key(path)})


async def test_what_is_not_asked_for_is_not_named(pulled: Pulled, tmp_path: Path) -> None:
    forgotten(pulled.objects(INSTANCE)[0])
    for number, selection in enumerate((
        Selection(instances=(CLUSTER,)),
        Selection(range=TimeRange.parse("2026-11-24", datetime.now(UTC))),
        Selection(sets=frozenset({pulled.set_key(pulled.objects()[0])})),
        Selection(sets=frozenset({pulled.set_key(pulled.objects(INSTANCE, DAYS[2])[0])})),
    )):  # fmt: skip
        target = Archive(LocalStore(tmp_path / f"new {number}"))
        summary = await copy(pulled.archive, target, CopyOptions(selection))
        assert (summary.exit_code, summary.failures) == (0, [])
        assert summary.archived
        assert await compared(pulled.archive, target, selection) == []


async def test_a_sha256sums_that_cannot_be_read_is_named_each_time(
    pulled: Pulled, tmp_path: Path
) -> None:
    sums = pulled.sums()
    sums.write_bytes(b"?")
    target = Archive(LocalStore(tmp_path / "new"))
    for _ in range(2):
        summary = await copy(pulled.archive, target)
        assert [failed.subject for failed in summary.failures] == [pulled.key(sums)]
        assert summary.exit_code == 3
    assert [found.key for found in await compared(pulled.archive, target)] == [pulled.key(sums)]


class _Meanwhile(LocalStore):
    """A pull at work: a record comes once all was listed."""

    def __init__(self, root: Path, record: Path) -> None:
        super().__init__(root)
        self.record, self.data = record, record.read_bytes()
        record.unlink()

    async def entries(self, prefix: str) -> AsyncGenerator[Entry, None]:
        async for entry in super().entries(prefix):
            yield entry
        await in_thread(self.record.write_bytes, self.data)


async def test_a_record_that_comes_meanwhile(pulled: Pulled, tmp_path: Path) -> None:
    record = pulled.objects(INSTANCE)[0].with_suffix(".json")
    target = Archive(LocalStore(tmp_path / "new"))
    summary = await copy(Archive(_Meanwhile(pulled.root, record)), target)
    assert (summary.exit_code, summary.archived) == (0, FILES)
    assert await compared(Archive(_Meanwhile(pulled.root, record)), target) == []


class _AfterTheFirstLook(LocalStore):
    """A pull at work: everything comes when the listings of the first look are over."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.instance, self.came = root / INSTANCE, False
        self.instance.rename(root.with_name("to come"))

    async def entries(self, prefix: str) -> AsyncGenerator[Entry, None]:
        async for entry in super().entries(prefix):
            yield entry
        if not (prefix or self.came):
            self.came = True
            await in_thread(self.instance.parent.with_name("to come").rename, self.instance)


async def test_what_comes_after_the_look_is_not_copied_without_the_lock(
    pulled: Pulled, tmp_path: Path
) -> None:
    """No archive is begun for nothing, and so nothing may be written there either."""
    shutil.rmtree(pulled.root / CLUSTER)
    source = Archive(_AfterTheFirstLook(pulled.root))
    summary = await copy(source, Archive(LocalStore(tmp_path / "new")))
    assert not (tmp_path / "new").exists()
    assert (summary.exit_code, summary.archived) == (1, 0)
    assert (await copy(source, Archive(LocalStore(tmp_path / "new")))).exit_code == 0


def _line_is_lost(path: Path, _: Path) -> None:
    """What the source named of it, nobody can read."""
    sums = sums_of(path)
    sums.write_text(sums.read_text().replace(f"{path.parent.name}/{path.name}", "?"))


def _line_and_file_are_lost(path: Path, copied: Path) -> None:
    _line_is_lost(path, copied)
    remove_node(path)


def _line_is_lost_and_file_damaged(path: Path, copied: Path) -> None:
    _line_is_lost(path, copied)
    flip(path)


def _another_is_replaced(path: Path, copied: Path) -> None:
    """While it cannot be copied itself."""
    flip(path)
    other, *_ = sorted(path.parent.glob("*.rdb"))
    target = copied / other.name
    shutil.copytree(path.parent.parent.parent.parent.parent, copied.parents[3], dirs_exist_ok=True)
    remove_node(copied / path.name)
    remove_lines(copied)
    forge(target, bytes(target.stat().st_size))


def _its_object_is_there(path: Path, copied: Path) -> None:
    """Without a record, and the source's cannot be read."""
    copied.mkdir(parents=True)
    put_format(copied.parents[3])
    shutil.copy(path, copied)
    path.with_suffix(".json").write_bytes(b"{")


def _moved(path: Path, start: str) -> Path:
    """To a second folder of its set, which SHA256SUMS names as well."""
    folder = path.parent.with_name(f"{DAYS[1]}{start}-{path.parent.name.partition('-')[2]}")
    folder.mkdir()
    for one in (path, path.with_suffix(".json")):
        one.rename(folder / one.name)
    put_sums(path.parent)
    put_sums(folder)
    return folder / path.name


def _it_lies_apart_and_is_damaged(path: Path, _: Path) -> None:
    flip(_moved(path, "T031459Z"))


def _it_lies_apart_and_its_record_is_damaged(path: Path, _: Path) -> None:
    _moved(path, "T031507Z").with_suffix(".json").write_bytes(b"{")


def _it_lay_apart_and_is_gone(path: Path, _: Path) -> None:
    shutil.rmtree(_moved(path, "T031507Z").parent)


def _it_lies_apart_behind_a_link(path: Path, copied: Path) -> None:
    folder = _moved(path, "T031507Z").parent
    elsewhere = copied.parents[4] / "elsewhere"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)


def _the_target_has_other_bytes(path: Path, copied: Path) -> None:
    copied.mkdir(parents=True)
    put_format(copied.parents[3])
    for one in (path, path.with_suffix(".json")):
        shutil.copy(one, copied)
    forge(copied / path.name, bytes(path.stat().st_size))


def _it_came_late_and_is_damaged(path: Path, _: Path) -> None:
    """It was recorded, and a pull has not named it in SHA256SUMS yet."""
    remove_lines(path)
    flip(path)


def _it_came_late_and_its_record_is_damaged(path: Path, _: Path) -> None:
    remove_lines(path)
    path.with_suffix(".json").write_bytes(b"{")


def _its_line_says_otherwise(path: Path, copied: Path) -> None:
    """And the target has what the record says."""
    copied.mkdir(parents=True)
    put_format(copied.parents[3])
    for one in (path, path.with_suffix(".json")):
        shutil.copy(one, copied)
    put_lines(path, lines_of(path) | {f"{path.parent.name}/{path.name}": "0" * 64})


@pytest.mark.parametrize(
    "lack",
    [
        _line_and_file_are_lost, _line_is_lost_and_file_damaged, _another_is_replaced,
        _its_object_is_there, _it_lies_apart_and_is_damaged,
        _it_lies_apart_and_its_record_is_damaged, _it_lay_apart_and_is_gone,
        _it_lies_apart_behind_a_link, _the_target_has_other_bytes, _its_line_says_otherwise,
        _it_came_late_and_is_damaged, _it_came_late_and_its_record_is_damaged,
    ],
)  # fmt: skip
async def test_a_set_that_may_lack_a_node_gets_no_lines(
    lack: Callable[[Path, Path], None], pulled: Pulled, offsite: Archive, tmp_path: Path
) -> None:
    """Until all of it is there that the source has of it."""
    path, root = pulled.objects()[NODES - 1], tmp_path / "new"
    lack(path, root / pulled.key(path.parent))
    target = Archive(LocalStore(root))
    replacing = CopyOptions(replace=lack is _another_is_replaced)
    assert (await copy(pulled.archive, target, replacing)).exit_code == 3
    [folder] = {one.parent for one in root.glob(f"{CLUSTER}/*/*/{DAYS[1]}*/*.rdb")}
    assert len(list(folder.glob("*.json"))) >= NODES - 1
    assert [name for name in lines_of(folder) if name.startswith(folder.name)] == []
    summary = await copy(offsite, target, CopyOptions(replace=True))
    assert summary.failures == []
    right = lines_of(Path(str(offsite.store)) / pulled.key(pulled.sums()))
    assert sorted(lines_of(folder).values()) == sorted(right.values())
    assert (await verify(target)).findings == []


async def _in_two_folders(pulled: Pulled) -> Path:
    """A whole set that another pull put into a second folder, with its own records, as when two
    archives were merged."""
    [folder] = {path.parent for path in pulled.objects()}
    twin = shutil.copytree(folder, folder.with_name(folder.name.replace("T031500", "T031501")))
    for path in twin.glob("*.json"):
        path.write_bytes(path.read_bytes().replace(b'"attempts": 1', b'"attempts": 21'))
    put_sums(twin)
    assert (await verify(pulled.archive)).findings == []
    return twin


async def test_a_set_in_two_folders_is_copied_once(pulled: Pulled, tmp_path: Path) -> None:
    """And the records that the copy wrote stay where they are."""
    await _in_two_folders(pulled)
    target = Archive(LocalStore(tmp_path / "new"))
    for archived in (FILES, 0):
        summary = await copy(pulled.archive, target)
        assert (summary.failures, summary.archived) == ([], archived)
        assert summary.archived + summary.held == FILES + NODES
    assert (await verify(target)).findings == []


async def test_what_is_damaged_in_one_folder_is_copied_from_the_other(
    pulled: Pulled, tmp_path: Path
) -> None:
    await _in_two_folders(pulled)
    flip(pulled.objects()[0])
    summary = await copy(pulled.archive, Archive(LocalStore(tmp_path / "new")))
    assert (len(summary.failures), summary.archived) == (1, FILES)


async def test_sets_of_two_nights_with_one_id_are_both_whole(tmp_path: Path) -> None:
    root = tmp_path / "archive"
    nodes = list[Path]()
    for night, start in enumerate(STARTS[:2]):
        nodes = [
            put_backup(
                root, start, rdb(9 + node), instance=CLUSTER, node=f"{CLUSTER}-{node}", job="7",
                backup_id=f"{night + 1}{node}",
            )
            for node in range(NODES)
        ]  # fmt: skip
        put_sums(nodes[0].parent)
    source, target = Archive(LocalStore(root)), Archive(LocalStore(tmp_path / "new"))
    assert (await copy(source, target)).exit_code == 0
    assert lines_of(tmp_path / "new" / nodes[0].relative_to(root)) == lines_of(nodes[0])
    assert [one async for one in mismatches(source, target, Selection())] == []


@pytest.mark.parametrize("data", [b"", b"something"])
async def test_what_lies_beside_a_recorded_object_is_not_of_its_set(
    data: bytes, pulled: Pulled, tmp_path: Path
) -> None:
    """A bucket's key that may not delete leaves an empty object of the other kind."""
    path, target = pulled.objects()[NODES - 1], Archive(LocalStore(tmp_path / "new"))
    path.with_suffix(".aof").write_bytes(data)
    assert (await copy(pulled.archive, target)).exit_code == 0
    assert lines_of(tmp_path / "new" / pulled.key(path)) == lines_of(path)
    assert await compared(pulled.archive, target) == []
    assert (await verify(target)).findings == []


async def test_a_set_that_the_source_does_not_name_gets_no_lines(
    pulled: Pulled, tmp_path: Path
) -> None:
    folder, target = pulled.objects()[0].parent, Archive(LocalStore(tmp_path / "new"))
    remove_lines(folder)
    assert (await copy(pulled.archive, target)).exit_code == 0
    assert lines_of(tmp_path / "new" / pulled.key(folder)) == lines_of(folder) != {}


async def test_a_set_with_an_object_whose_record_is_to_come_gets_no_lines(
    pulled: Pulled, tmp_path: Path
) -> None:
    path, target = pulled.objects()[NODES - 1], Archive(LocalStore(tmp_path / "new"))
    name = f"{path.parent.name}/{path.name}"
    put_lines(path, {one: line for one, line in lines_of(path).items() if one != name})
    path.with_suffix(".json").unlink()
    summary = await copy(pulled.archive, target)
    assert [one.subject for one in summary.failures] == [pulled.key(path)]
    lines = lines_of(tmp_path / "new" / pulled.key(path))
    assert {one.partition("/")[0] for one in lines}.isdisjoint({path.parent.name})


async def test_folders_without_backups_fail_nothing(tmp_path: Path) -> None:
    """Somebody removed the backups, or keeps notes beside them."""
    root = tmp_path / "archive"
    put_standard(root, rdb(9))
    (root / "r-old" / "2026" / "10").mkdir(parents=True)
    (root / "holds").mkdir()
    (root / "holds" / "r-new.json").write_text("{}")
    source, target = Archive(LocalStore(root)), Archive(LocalStore(tmp_path / "new"))
    for held in (0, 1):
        summary = await copy(source, target)
        assert (summary.failures, summary.held) == ([], held)
    asked = CopyOptions(Selection(instances=("r-old",)))
    [failed] = (await copy(source, target, asked)).failures
    assert "no backup of r-old" in str(failed.error)


async def test_a_folder_that_no_instance_can_be_called_like(tmp_path: Path) -> None:
    """It has no description, and fails nothing."""
    put_standard(tmp_path / "one", rdb(10), STARTS[-1])
    (tmp_path / "one" / "lost stuff" / "x").mkdir(parents=True)
    (tmp_path / "one" / "lost stuff" / "note.txt").write_text("hi")
    done = await copy(Archive(LocalStore(tmp_path / "one")), Archive(LocalStore(tmp_path / "two")))
    assert (done.archived, done.exit_code, done.failures) == (1, 0, [])


async def test_a_description_that_cannot_be_written_is_a_failure(tmp_path: Path) -> None:
    put_standard(tmp_path / "one", rdb(10), STARTS[-1])
    one, two = (Archive(LocalStore(tmp_path / name)) for name in ("one", "two"))
    await keep(one.store, [InstanceDescription(INSTANCE, datetime.now(UTC))])
    (tmp_path / "two" / description_key(INSTANCE)).mkdir(parents=True)
    put_format(tmp_path / "two")
    done = await copy(one, two)
    assert (done.archived, done.exit_code) == (1, 6)
    assert [failed.subject for failed in done.failures] == ["instances/"]


async def test_shards_are_named_once_those_beside_them_are_whole(tmp_path: Path) -> None:
    """Each has a folder of its own, which looks whole by itself."""
    source, there = tmp_path / "source", Archive(LocalStore(tmp_path / "there"))
    paths = put_shards(source)
    right = paths[1].read_bytes()
    flip(paths[1])
    assert (await copy(Archive(LocalStore(source)), there)).exit_code == 3
    with pytest.raises(NoSuchBackup, match="SHA256SUMS does not name it"):
        await restore(there, tmp_path / "to", instance_id=SHARDED)
    paths[1].write_bytes(right)
    assert (await copy(Archive(LocalStore(source)), there)).exit_code == 0
    done = await restore(there, tmp_path / "to", instance_id=SHARDED)
    assert (len(done.files), done.exit_code) == (3, 0)
