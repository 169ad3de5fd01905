"""When a backup set is complete. Pure.

Nothing in DescribeBackups says how many nodes a set has. A set is taken as complete when every
file that was listed for it is here and it has as many nodes as the set before it or the one
after it: fewer than both means that a node is missing, or that the range cut the set in two.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class SetTally:
    """What was listed for one set, and what of it the archive holds."""

    nodes: set[str] = field(default_factory=set)
    files: int = 0
    held: int = 0


def incomplete(sets: Mapping[str, SetTally]) -> dict[str, str]:
    """Which sets of one instance are not complete, by key, and why; ``sets`` in order of time."""
    why: dict[str, str] = {}
    for key, before, after in _with_neighbours(list(sets)):
        tally = sets[key]
        neighbours = [len(sets[other].nodes) for other in (before, after) if other is not None]
        expected = min(neighbours, default=0)
        if tally.held < tally.files:
            why[key] = f"{tally.held} of {tally.files} files are here"
        elif len(tally.nodes) < expected:
            why[key] = f"{len(tally.nodes)} nodes, and the sets around it have {expected}"
    return why


def _with_neighbours(keys: list[str]) -> Iterable[tuple[str, str | None, str | None]]:
    padded = [None, *keys, None]
    return zip(keys, padded[:-2], padded[2:], strict=True)
