"""The model of a power cut: known calls give exactly the known states."""

import itertools
import random
from collections.abc import Callable

import pytest

from tests.faults.cuts import BLOCK, ZEROS, cuts, torn
from tests.faults.posix import WHOLE, FileSystem, Kept, Rename, Tree, Write


def states(system: FileSystem) -> list[Tree]:
    """Every state in which each change is whole or lost."""
    pending = list(system.pending())
    found: list[Tree] = []
    for chosen in itertools.product((False, True), repeat=len(pending)):
        state = system.after_cut(dict.fromkeys(itertools.compress(pending, chosen), WHOLE))
        if state not in found:
            found.append(state)
    return found


def fsync(system: FileSystem, path: str) -> None:
    inode = system.lookup(path)
    assert inode is not None
    system.sync(inode, set(system.pending()))


def same(found: list[Tree], *expected: Tree) -> bool:
    return len(found) == len(expected) and all(one in found for one in expected)


def test_nothing_is_durable_without_a_sync() -> None:
    system = FileSystem({})
    system.write(system.create("a"), 0, b"xyz")
    assert same(states(system), {}, {"a": b""}, {"a": b"xyz"})


def test_a_synced_file_has_its_bytes_and_perhaps_no_name() -> None:
    system = FileSystem({})
    system.write(system.create("a"), 0, b"xyz")
    fsync(system, "a")
    assert same(states(system), {}, {"a": b"xyz"})


def test_a_synced_folder_has_its_names_and_perhaps_not_their_bytes() -> None:
    system = FileSystem({})
    system.write(system.create("a"), 0, b"xyz")
    fsync(system, "")
    assert same(states(system), {"a": b""}, {"a": b"xyz"})


def test_a_new_folder_without_its_name_takes_all_with_it() -> None:
    system = FileSystem({})
    system.mkdir("d")
    system.write(system.create("d/a"), 0, b"xyz")
    fsync(system, "d/a")
    fsync(system, "d")
    assert same(states(system), {}, {"d": None, "d/a": b"xyz"})
    fsync(system, "")
    assert same(states(system), {"d": None, "d/a": b"xyz"})


def test_a_rename_within_a_folder_is_there_or_not() -> None:
    system = FileSystem({"new": b"1", "old": b"0"})
    system.rename("new", "old")
    assert same(states(system), {"new": b"1", "old": b"0"}, {"old": b"1"})
    fsync(system, "")
    assert same(states(system), {"old": b"1"})


def test_a_rename_across_folders_leaves_old_new_or_both() -> None:
    system = FileSystem({"s": None, "s/a": b"1", "t": None})
    system.rename("s/a", "t/a")
    folders = {"s": None, "t": None}
    assert same(
        states(system),
        {**folders, "s/a": b"1"},
        {**folders, "t/a": b"1"},
        {**folders, "s/a": b"1", "t/a": b"1"},
    )
    fsync(system, "t")
    assert same(states(system), {**folders, "t/a": b"1"}, {**folders, "s/a": b"1", "t/a": b"1"})
    fsync(system, "s")
    assert same(states(system), {**folders, "t/a": b"1"})


def test_an_old_name_goes_with_its_folders_sync_once_the_new_one_is_durable() -> None:
    system = FileSystem({"s": None, "s/a": b"1", "t": None})
    system.rename("s/a", "t/a")
    fsync(system, "s")
    folders = {"s": None, "t": None}
    assert same(
        states(system),
        {**folders, "s/a": b"1"},
        {**folders, "t/a": b"1"},
        {**folders, "s/a": b"1", "t/a": b"1"},
    )
    fsync(system, "t")
    assert same(states(system), {**folders, "t/a": b"1"})


def test_a_file_in_a_new_folder_goes_with_the_folders_name() -> None:
    system = FileSystem({"s": None, "s/a": b"1"})
    system.mkdir("t")
    system.rename("s/a", "t/a")
    fsync(system, "t")
    fsync(system, "s")
    assert same(states(system), {"s": None}, {"s": None, "t": None, "t/a": b"1"})


def test_a_rename_over_a_name_leaves_either_file_under_it() -> None:
    system = FileSystem({"s": None, "s/a": b"1", "t": None, "t/a": b"0"})
    system.rename("s/a", "t/a")
    found = states(system)
    assert {state["t/a"] for state in found} == {b"0", b"1"}


def test_a_rename_of_unsynced_bytes_may_show_none() -> None:
    system = FileSystem({"a": b"old"})
    system.write(system.create("tmp"), 0, b"new")
    system.rename("tmp", "a")
    found = states(system)
    assert {state["a"] for state in found if "a" in state} == {b"old", b"", b"new"}


def test_an_unlink_may_come_back_until_the_folder_is_synced() -> None:
    system = FileSystem({"a": b"1"})
    system.unlink("a")
    assert same(states(system), {}, {"a": b"1"})
    fsync(system, "")
    assert same(states(system), {})


def test_a_link_is_a_second_name_of_the_same_bytes() -> None:
    system = FileSystem({"a": b"1"})
    system.link("a", "b")
    inode = system.lookup("b")
    assert inode is not None
    assert system.twins({}) == frozenset()
    assert system.twins(dict.fromkeys(system.pending(), WHOLE)) == {frozenset("ab")}
    system.write(inode, 1, b"2")
    fsync(system, "a")
    assert same(states(system), {"a": b"12"}, {"a": b"12", "b": b"12"})


def test_what_began_after_a_sync_is_not_made_durable_by_it() -> None:
    system = FileSystem({"a": b""})
    inode = system.lookup("a")
    assert inode is not None
    system.write(inode, 0, b"1")
    began = set(system.pending())
    system.write(inode, 1, b"2")
    system.sync(inode, began)
    assert same(states(system), {"a": b"1"}, {"a": b"12"})


def test_one_sync_of_everything() -> None:
    system = FileSystem({})
    system.mkdir("d")
    system.write(system.create("d/a"), 0, b"1")
    system.sync_all(set(system.pending()))
    assert same(states(system), {"d": None, "d/a": b"1"})
    assert system.pending() == {}


def test_a_truncation_may_be_lost_and_what_is_written_after_it_kept() -> None:
    system = FileSystem({"a": b"long one"})
    inode = system.lookup("a")
    assert inode is not None
    system.resize(inode, 0)
    system.write(inode, 0, b"new")
    assert same(states(system), {"a": b"long one"}, {"a": b""}, {"a": b"new"}, {"a": b"newg one"})


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        (ZEROS, b"ab" + bytes(4)),
        (Kept(((0, 2),), resized=False), b"abwx"),
        (Kept(((2, 4),), resized=True), b"ab\0\0yz"),
    ],
)
def test_a_write_may_be_torn(kept: Kept, expected: bytes) -> None:
    system = FileSystem({"a": b"ab"})
    inode = system.lookup("a")
    assert inode is not None
    [number] = system.write(inode, 2, b"wxyz")
    assert system.after_cut({number: kept})["a"] == expected


def test_the_ways_to_tear_a_write_follow_the_blocks_of_the_file() -> None:
    ways = torn(Write(BLOCK - 10, bytes(BLOCK + 20)))
    assert Kept(((0, 10), (10 + BLOCK, 20 + BLOCK)), resized=True) in ways
    assert Kept(((10, 10 + BLOCK),), resized=True) in ways
    assert len(torn(Write(0, b"short"))) == 2


@pytest.mark.parametrize("seed", range(3))
def test_every_cut_is_one_that_the_model_allows(seed: int) -> None:
    """And all that matter are among them: each change alone lost, and alone kept."""
    system = FileSystem({"s": None, "t": None})
    system.write(system.create("s/a"), 0, b"1")
    fsync(system, "s/a")
    fsync(system, "s")
    system.rename("s/a", "t/a")
    system.write(system.create("s/b"), 0, bytes(3 * BLOCK))
    pending = system.pending()
    found = list(cuts(system, random.Random(seed), 100, 20))
    assert {} in found
    for number, change in pending.items():
        after = change.after if isinstance(change, Rename) else None
        assert {one: WHOLE for one in (number, after) if one is not None} in found
        assert {n: WHOLE for n in pending if n != number} in found
    trees = [system.after_cut(kept) for kept in found]
    assert {(tree.get("s/a"), tree.get("t/a")) for tree in trees} == {
        (b"1", None), (None, b"1"), (b"1", b"1")
    }  # fmt: skip
    assert {tree["s/b"] for tree in trees if "s/b" in tree} >= {b"", bytes(3 * BLOCK)}


@pytest.mark.parametrize(
    "call",
    [
        lambda system: system.unlink("none"),
        lambda system: system.rename("none", "a"),
        lambda system: system.create("none/a"),
        lambda system: system.mkdir("none/a"),
    ],
)
def test_what_no_file_system_would_take_is_refused(call: Callable[[FileSystem], object]) -> None:
    with pytest.raises(FileNotFoundError):
        call(FileSystem({}))
