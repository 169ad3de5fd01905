"""Commits: procedures that wait, at each step, for what they wrote to be durable.

A commit is a generator. Each ``yield`` names what must be durable before it goes on, so that the
order stands in one place and reads from top to bottom; who drives it may take many at a time, and
make durable at once what all of them wait for.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Protocol

from archiver.model import Stored


class Unsynced(Protocol):
    """Something written that is not durable yet; hashable, one value for one thing."""

    def sync(self) -> None:
        """Make it durable. Blocks, and raises StoreError."""
        ...


Commit = Generator[Sequence[Unsynced], None, Stored]


def drive(commits: Iterable[Commit], sync: Callable[[Sequence[Unsynced]], None]) -> list[Stored]:
    """Carry commits to their ends, one step of all before the next; what they stored, in order.

    ``sync`` makes durable all that it is given, each thing once. What it or a commit raises ends
    them all where they are, to be gone on with by a later run.
    """
    under_way = list(enumerate(commits))
    stored: dict[int, Stored] = {}
    try:
        while under_way:
            waited_for: dict[Unsynced, None] = {}
            going_on = []
            for number, commit in under_way:
                try:
                    waited_for |= dict.fromkeys(next(commit))
                    going_on.append((number, commit))
                except StopIteration as end:
                    stored[number] = end.value
            if waited_for:
                sync(list(waited_for))
            under_way = going_on
    finally:
        for _, commit in under_way:
            commit.close()
    return [stored[number] for number in sorted(stored)]
