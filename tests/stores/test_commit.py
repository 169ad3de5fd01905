"""Running commits together: each step of all before the next, and everything is synced once."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

import pytest

from archiver.errors import StoreError
from archiver.model import Stored
from archiver.stores.commit import Commit, Unsynced, drive
from tests.stores.conformance import RECEIPT


@dataclass(frozen=True)
class Thing:
    name: str

    def sync(self) -> None:
        raise AssertionError("it is synced by what drive is given")


@dataclass
class Log:
    """What happened, in order; ``fails`` names the step or sync that does."""

    fails: str | None = None
    steps: list[str] = field(default_factory=list)

    def add(self, step: str) -> None:
        self.steps.append(step)
        if step == self.fails:
            raise StoreError(step)

    def sync(self, things: Sequence[Unsynced]) -> None:
        assert all(isinstance(thing, Thing) for thing in things)
        self.add(f"sync {' '.join(thing.name for thing in things)}")  # type: ignore[attr-defined]

    def commit(self, name: str, *waits: str) -> Commit:
        """A commit that waits for things, each ``waits`` a list of them by name."""

        def steps() -> Generator[Sequence[Unsynced], None, Stored]:
            try:
                for number, things in enumerate(waits):
                    self.add(f"{name}{number}")
                    yield [Thing(thing) for thing in things.split()]
                self.add(f"{name} ends")
            finally:
                self.steps.append(f"{name} closed")
            return Stored(name, RECEIPT)

        return steps()


def test_all_reach_a_step_before_any_goes_on() -> None:
    log = Log()
    commits = [log.commit(name, f"data-{name}", f"folder-{name}") for name in "abc"]
    assert [stored.key for stored in drive(commits, log.sync)] == ["a", "b", "c"]
    assert [step for step in log.steps if "closed" not in step] == [
        "a0", "b0", "c0", "sync data-a data-b data-c",
        "a1", "b1", "c1", "sync folder-a folder-b folder-c",
        "a ends", "b ends", "c ends",
    ]  # fmt: skip


def test_each_thing_is_synced_once_for_all_that_wait_for_it() -> None:
    log = Log()
    drive([log.commit("a", "x root x"), log.commit("b", "root y")], log.sync)
    assert [step for step in log.steps if "sync" in step] == ["sync x root y"]


def test_a_thing_that_is_waited_for_again_is_synced_again() -> None:
    """It was written between the two syncs."""
    log = Log()
    drive([log.commit("a", "x", "x")], log.sync)
    assert [step for step in log.steps if "sync" in step] == ["sync x", "sync x"]


def test_commits_of_different_lengths() -> None:
    """One that waits for nothing, one that names nothing, and results in the order given."""
    log = Log()
    commits = [
        log.commit("a", "1", "2", "3"),
        log.commit("b"),
        log.commit("c", ""),
        log.commit("d", "4"),
    ]
    assert [stored.key for stored in drive(commits, log.sync)] == ["a", "b", "c", "d"]
    assert [step for step in log.steps if "sync" in step] == ["sync 1 4", "sync 2", "sync 3"]


def test_nothing_to_sync() -> None:
    log = Log()
    assert drive([], log.sync) == []
    assert [stored.key for stored in drive([log.commit("a"), log.commit("b", "")], log.sync)] == [
        "a",
        "b",
    ]
    assert not any("sync" in step for step in log.steps)


@pytest.mark.parametrize("fails", ["b0", "b1", "b ends", "sync x-a x-b x-c", "sync y-a y-b y-c"])
def test_an_error_ends_them_all(fails: str) -> None:
    log = Log(fails)
    commits = [log.commit(name, f"x-{name}", f"y-{name}") for name in "abc"]
    with pytest.raises(StoreError, match=fails):
        drive(commits, log.sync)
    # One that was not begun has nothing to close; no other step was taken after the failure.
    begun = [name for name in "abc" if f"{name}0" in log.steps]
    assert begun == (["a", "b"] if fails == "b0" else ["a", "b", "c"])
    after = log.steps[log.steps.index(fails) + 1 :]
    assert all(step.endswith("closed") for step in after)
    assert sorted(step for step in log.steps if "closed" in step) == [
        f"{name} closed" for name in begun
    ]
    with pytest.raises(StopIteration):
        next(commits[2])
