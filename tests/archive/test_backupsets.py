"""What a set is: of dumps or of logs, by what the source said; whether it can be restored whole."""

from collections.abc import Callable, Collection, Iterable
from pathlib import Path

import pytest

from archiver import Archive, LocalStore, restore
from archiver.archive import completeness
from archiver.archive.backupsets import named_set, newest_first
from archiver.archive.folders import list_folders
from archiver.commands.copy.run import copy
from archiver.commands.drill import Wanted
from archiver.commands.drill.selection import choose_sets
from archiver.commands.ls.listing import archived_rows
from archiver.errors import NoSuchBackup
from archiver.model import BackupType
from examples.sample_rdb import rdb
from tests.archive.sample import (
    CLUSTER,
    INSTANCE,
    STARTS,
    change_record,
    lines_of,
    put_backup,
    put_cluster,
    put_standard,
    put_sums,
    remove_lines,
    remove_node,
    sums_of,
)

FULL, LOG = BackupType
PING = b"*1\r\n$4\r\nPING\r\n"
PREAMBLE = b"REDIS0009\xfa\x0caof-preamble\xc0\x01" + rdb(2000)[9:]
LOGS = {
    "empty": b"",
    "encrypted": b"\x93encrypted, perhaps" * 9,
    "unrecognised": b"*3",
    "plain": PING,
    "cut": PING[:-3],
    "preamble": PREAMBLE + PING,
    "cut preamble": PREAMBLE[:900],
    "a whole dump": rdb(3000),
}


def opened(root: Path) -> Archive:
    return Archive(LocalStore(root))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "archive"


@pytest.mark.parametrize("suffix", [None, "rdb", "bin", "aof"])
@pytest.mark.parametrize("data", LOGS.values(), ids=LOGS.keys())
async def test_a_log_is_never_the_newest_complete_set(
    data: bytes, suffix: str | None, root: Path, tmp_path: Path
) -> None:
    put_standard(root, rdb(3000), STARTS[0])
    put_standard(root, data, STARTS[1], backup_type=LOG, suffix=suffix)
    folders = await list_folders(opened(root))
    assert [one.is_full for one in folders] == [True, False]
    assert [one.key async for one in newest_first(opened(root), INSTANCE)] == [folders[0].key]
    _, chosen = choose_sets(folders, Wanted())
    assert chosen == folders[:1]
    done = await restore(opened(root), tmp_path / "to", instance_id=INSTANCE)
    assert (done.backup_set.key, done.exit_code) == (folders[0].key, 0)
    assert done.passed_over == ()


@pytest.mark.parametrize("suffix", ["rdb", "bin", "aof"])
async def test_a_dump_is_one_whatever_its_suffix(suffix: str, root: Path) -> None:
    put_standard(root, rdb(3000), STARTS[0])
    put_standard(root, b"encrypted" * 99, STARTS[1], backup_type=FULL, suffix=suffix)
    found = [one.key async for one in newest_first(opened(root), INSTANCE)]
    assert [key[-20:-4] for key in found] == [STARTS[1], STARTS[0]]


async def test_where_the_source_said_nothing_the_bytes_do(root: Path, tmp_path: Path) -> None:
    for start, data in zip(STARTS, (rdb(3000), PING, b"anything" * 9), strict=True):
        put_standard(root, data, start, backup_type="")
    assert [one.is_full for one in await list_folders(opened(root))] == [True, False, True]
    done = await restore(opened(root), tmp_path / "to", instance_id=INSTANCE)
    assert done.backup_set.key[-20:-4] == STARTS[0]
    [unclear] = done.passed_over
    assert unclear.state == "not complete"
    assert "neither its source nor its bytes say what it is" in unclear.why_not


async def test_an_empty_dump_is_nothing_to_restore(root: Path, tmp_path: Path) -> None:
    put_standard(root, rdb(3000), STARTS[0])
    put_standard(root, b"", STARTS[1], backup_type=FULL)
    done = await restore(opened(root), tmp_path / "to", instance_id=INSTANCE)
    assert done.backup_set.key[-20:-4] == STARTS[0]
    assert "is empty, and a dump never is" in done.passed_over[0].why_not


@pytest.mark.parametrize("damage", ["{", '{"format": 1}', None])
async def test_what_cannot_be_read_is_neither_taken_nor_skipped_in_silence(
    damage: str | None, root: Path
) -> None:
    put_standard(root, rdb(3000), STARTS[0])
    target = put_standard(root, PING, STARTS[1], backup_type=LOG)
    if damage is None:
        change_record(target, node_id="r-bp1another")
    else:
        target.with_suffix(".json").write_text(damage)
    states = [one.state async for one in newest_first(opened(root), INSTANCE)]
    assert states == ["damaged", "complete"]


async def test_a_type_that_is_not_text(root: Path) -> None:
    target = put_standard(root, rdb(3000))
    api = {"BackupId": 100, "BackupJobID": "1", "BackupSize": target.stat().st_size,
           "BackupStartTime": "2026-11-23T02:15:00Z", "NodeInstanceId": INSTANCE}  # fmt: skip
    change_record(target, type=None, received=api | {"BackupType": ["FullBackup"]})
    assert [one.is_full for one in await list_folders(opened(root))] == [True]


async def test_of_a_dump_and_a_newer_log_the_dump(root: Path) -> None:
    """Of one node, in one set."""
    of_node = {"instance": CLUSTER, "node": f"{CLUSTER}-db-0"}
    target = put_backup(
        root, STARTS[0], b"encrypted" * 9, backup_id="1", backup_type=FULL, **of_node
    )
    for number, data in enumerate(LOGS.values()):
        put_backup(root, STARTS[0], data, backup_id=f"90{number}", backup_type=LOG, **of_node)
    put_sums(target.parent)
    found = await named_set(opened(root), target.parent.relative_to(root).as_posix())
    assert found.is_complete
    assert [record.backup_id for record in found.chosen()] == ["1"]


async def test_a_log_of_the_same_job_is_a_set_of_its_own(root: Path) -> None:
    """Of a standard instance, whose sets are one file each."""
    dump = put_standard(root, rdb(3000), STARTS[0], backup_id="1")
    log = put_standard(root, PING, STARTS[0], backup_id="901", backup_type=LOG)
    folders = await list_folders(opened(root))
    assert {one.key: one.is_full for one in folders} == {
        path.with_suffix("").relative_to(root).as_posix(): path == dump for path in (dump, log)
    }
    found = [one async for one in newest_first(opened(root), INSTANCE)]
    assert [(one.is_complete, one.folder.is_full) for one in found] == [(True, True)]


async def test_a_node_with_a_log_alone_has_no_dump(root: Path) -> None:
    made = put_cluster(root, STARTS[0])
    put_backup(root, STARTS[0], PING, instance=CLUSTER, node=f"{CLUSTER}-db-3", backup_type=LOG)
    put_sums(made[0].parent)
    found = await named_set(opened(root), made[0].parent.relative_to(root).as_posix())
    assert not found.is_complete
    assert found.missing == (f"{CLUSTER}-db-3",)
    assert "db-3 has a log of commands, but no dump" in found.why_not


async def test_logs_are_not_neighbours_of_dumps(root: Path) -> None:
    """A node that only logs have between two sets of dumps is one that the dumps lack."""
    sets = [put_cluster(root, start) for start in STARTS]
    for start in ("20261121T120000Z", "20261122T120000Z"):
        log = put_backup(
            root, start, b"", instance=CLUSTER, node=f"{CLUSTER}-db-0", job="7", backup_type=LOG
        )
        put_sums(log.parent)
    for path in (sets[1][2], sets[1][2].with_suffix(".json")):
        path.unlink()
    put_sums(sets[1][0].parent)
    notes = {row.set_key[-18:]: row.set_note for row in await archived_rows(opened(root))}
    assert notes == {
        f"{STARTS[0]}-1": None, "20261121T120000Z-7": None,
        f"{STARTS[1]}-1": f"node {CLUSTER}-db-2 is missing: the sets of 2026-11-21 02:15 and "
        "2026-11-23 02:15 have it",
        "20261122T120000Z-7": None, f"{STARTS[2]}-1": None,
    }  # fmt: skip
    folders = await list_folders(opened(root))
    looking = folders.looking_complete(CLUSTER)
    whole = {one.key[-18:]: one in looking for one in folders if one.is_full}
    assert whole == {f"{STARTS[0]}-1": True, f"{STARTS[1]}-1": False, f"{STARTS[2]}-1": True}


async def test_logs_and_no_dump(root: Path, tmp_path: Path) -> None:
    put_standard(root, b"", backup_type=LOG)
    with pytest.raises(NoSuchBackup, match="has logs of commands and no dump"):
        await restore(opened(root), tmp_path / "to", instance_id=INSTANCE)


async def test_each_set_is_not_compared_with_all_others_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 4,000 sets of an instance that took a minute, and more."""
    number, compared, right = 12, 0, completeness.missing_nodes

    def counted(
        given: Iterable[completeness.SetNodes], wanted: Collection[str] | None = None
    ) -> dict[str, completeness.Missing]:
        nonlocal compared
        all_of_them = list(given)
        compared += len(all_of_them)
        return right(all_of_them, wanted)

    monkeypatch.setattr(completeness, "missing_nodes", counted)
    for day in range(number):
        put_standard(root, rdb(3000), f"202610{day + 10}T021500Z")
    assert len([one async for one in newest_first(opened(root), INSTANCE)]) == number
    assert compared == number


def garble(path: Path) -> None:
    """The line of a backup in SHA256SUMS."""
    sums = sums_of(path)
    name = path.relative_to(sums.parent).as_posix()
    line = f"{lines_of(path)[name]}  {name}\n"
    sums.write_text(sums.read_text().replace(line, f"?{line[1:]}"))


async def test_a_damaged_line_does_not_damage_other_sets(root: Path) -> None:
    sets = [put_cluster(root, start) for start in STARTS]
    garble(sets[1][2])
    *found, sums = [one async for one in newest_first(opened(root), CLUSTER)]
    assert sums.key == sums_of(sets[0][0]).relative_to(root).as_posix()
    assert [one.state for one in found] == ["complete", "damaged", "complete"]
    assert [one.notes for one in found] == [()] * 3
    [damage] = found[1].damage
    assert sums_of(sets[1][2]).relative_to(root).as_posix() in damage.why


def one_byte(line: str) -> str:
    return line.replace(".rdb", ".r?b")


def its_folder(line: str) -> str:
    return line.replace("/", "*")


def its_end(line: str) -> str:
    return line[: 66 + 12]


def its_day(line: str) -> str:
    return line[: 66 + 6]


def two_bytes(line: str) -> str:
    return f"?{line[1:]}".replace("20261122T", "20261132T")


def all_of_it(line: str) -> str:
    return "\0" * len(line)


DAMAGED_LINES = [
    (one_byte, "complete damaged complete"),
    (its_folder, "complete damaged complete"),
    (its_end, "complete damaged complete"),
    (its_day, "damaged damaged damaged"),  # all began in that month
    (two_bytes, "damaged damaged damaged"),
    (all_of_it, "damaged damaged damaged"),
]


@pytest.mark.parametrize(("damage", "states"), DAMAGED_LINES)
async def test_a_damaged_line_may_be_that_of_a_node_that_is_gone(
    damage: Callable[[str], str], states: str, root: Path, tmp_path: Path
) -> None:
    """All that is left of a cluster's set has its lines, and it is not all of the set."""
    sets = [put_cluster(root, start) for start in STARTS]
    lost, sums = sets[1][2], sums_of(sets[1][2])
    remove_node(lost)
    name = lost.relative_to(sums.parent).as_posix()
    line = f"{lines_of(lost)[name]}  {name}"
    sums.write_text(sums.read_text().replace(line, damage(line)))
    *found, _ = [one async for one in newest_first(opened(root), CLUSTER)]
    assert [one.state for one in found] == states.split()
    doubted = {one.key for one in found if one.damage}
    rows = [row for row in await archived_rows(opened(root)) if row.backup_id]
    assert {row.set_key for row in rows if row.set_note} >= doubted
    whole = (await list_folders(opened(root))).looking_complete(CLUSTER)
    assert doubted.isdisjoint(one.key for one in whole)

    target = tmp_path / "target"
    assert (await copy(opened(root), opened(target))).exit_code == 3
    copied = await list_folders(opened(target))
    assert {one.key for one in copied if not one.is_sealed} >= doubted


async def test_a_standard_backup_needs_no_line(root: Path) -> None:
    """Its record proves the bytes; what there is to say of its line is a note."""
    damaged, unnamed, whole = [put_standard(root, rdb(3000), start) for start in STARTS]
    remove_lines(unnamed)
    garble(damaged)
    *found, _ = [one async for one in newest_first(opened(root), INSTANCE)]
    assert [one.state for one in found] == ["complete"] * 3
    assert [len(one.notes) for one in found] == [0, 1, 1]
    sums_of(whole).unlink()
    found = [one async for one in newest_first(opened(root), INSTANCE)]
    assert [one.state for one in found] == ["complete"] * 3
    assert all("SHA256SUMS does not name it" in one.notes[0] for one in found)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\n", b"*"),
        (b"\n", b"\x8a"),
        (b"-100.", b"-100/"),
        (b"-100.", b"-1 0."),
        (b".rdb", b".rdc"),
    ],
)
async def test_a_damaged_name_is_not_a_set(old: bytes, new: bytes, root: Path) -> None:
    """A byte of SHA256SUMS is another one; two lines become one where it was between them."""
    made = [put_standard(root, rdb(3000), start) for start in STARTS]
    sums = sums_of(made[0])
    sums.write_bytes(sums.read_bytes().replace(old, new, 1))
    *found, last = [one async for one in newest_first(opened(root), INSTANCE)]
    assert [one.state for one in found] == ["complete"] * len(STARTS)
    assert (last.key, last.state) == (sums.relative_to(root).as_posix(), "damaged")
    assert any("SHA256SUMS: it " in note for one in found for note in one.notes)


async def test_what_is_called_like_a_clusters_set_is_not_a_node(root: Path) -> None:
    """Beside its folder, in the month."""
    sets = [put_cluster(root, start) for start in STARTS]
    sets[1][0].parent.with_suffix(".rdb").write_bytes(rdb(3000))
    folders = await list_folders(opened(root))
    assert {len(one.nodes) for one in folders} == {3}
    assert not any(folders.missing_nodes(one) for one in folders)
