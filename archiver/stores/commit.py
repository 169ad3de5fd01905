"""Commits: procedures that pause at each step until what they wrote is durable.

A commit is a generator. Each ``yield`` names what must be durable before it continues, so its order
of steps reads from top to bottom in one place. :func:`drive` runs many commits together, and syncs
at once what all of them wait for.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeAlias

from archiver.model import Stored


class Unsynced(Protocol):
    """A file or folder that was written and is not durable yet. Hashable: equal values mean the
    same file or folder."""

    def sync(self) -> None:
        """Make it durable. Blocks, and raises StoreError."""
        ...


Commit: TypeAlias = Generator[Sequence[Unsynced], None, Stored]
# Makes everything durable that it is given. Blocks, and raises StoreError.
Sync: TypeAlias = Callable[[Sequence[Unsynced]], None]

# From this number on, files and folders are synced in several threads: a disk serves some at once.
MANY = 16
_THREADS = 8


def drive(commits: Iterable[Commit], sync: Sync) -> list[Stored]:
    """Run commits together, each step of all before the next; what they stored, in order.

    ``sync`` gets each file or folder once per step. When it or a commit raises, all commits end
    where they are, and a later run continues.
    """
    running = list(enumerate(commits))
    stored: dict[int, Stored] = {}
    try:
        while running:
            unsynced: dict[Unsynced, None] = {}
            unfinished = []
            for number, commit in running:
                try:
                    unsynced |= dict.fromkeys(next(commit))
                    unfinished.append((number, commit))
                except StopIteration as end:
                    stored[number] = end.value
            if unsynced:
                sync(list(unsynced))
            running = unfinished
    finally:
        for _, commit in running:
            commit.close()
    return [stored[number] for number in sorted(stored)]


def sync_each(unsynced: Sequence[Unsynced]) -> None:
    """Sync one by one, or several at a time when there are many."""
    if len(unsynced) < MANY:
        for one in unsynced:
            one.sync()
        return
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="sync") as threads:
        for _ in threads.map(lambda one: one.sync(), unsynced):
            pass  # raises what a sync raised
