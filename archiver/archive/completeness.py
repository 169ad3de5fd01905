"""Which backup sets are complete, as far as is known. Pure, and the same for every command.

Where the source says how many nodes a set should have, that number decides. Otherwise a set is
compared with those of the instance that began at most REACH before or after it, by the rules under
"Complete sets" in docs/archive-format.md: sets of logs with sets of logs alone, and those from
before or after a time as a cluster, of which the instance itself is the only node, with one
another. Two rules go beyond that page:

- An absence between two sets that have the node ends like one without a later set: once it was long
  enough for the node to count as removed, its return makes nothing missing.
- Nodes were replaced if as many came as went, or all went and at least as many came; and none of
  the new ones was there before the old ones went.

Old clusters have a folder for each shard, or for each file, as the source names no set for all of
them. Folders with a node each that began within ONE_BACKUP are one backup, and compared as one;
where a node comes again within that time, it ends where the longest pause is. This is found anew
whenever it is asked for, so that a shard which comes later changes the name of nothing.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Self

from archiver.model import NodesExpected
from archiver.times import format_day, format_minute

# Sets further away say nothing of a set: a few months of listings are enough to judge one.
REACH: Final = timedelta(days=60)
# Twice the seven days that the vendor keeps backups for by default, so that whoever looks once a
# week sees it while it can still be mended; and so many sets that a weekly schedule has a chance.
GONE_AFTER: Final = timedelta(days=14)
GONE_SETS: Final = 7
ONE_BACKUP: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class SetNodes:
    """The nodes of a set's files. ``is_full``: it is of dumps, not only of logs."""

    key: str
    started_at: datetime
    nodes: frozenset[str]
    is_full: bool = True
    expected: NodesExpected | None = None

    @property
    def is_standard(self) -> bool:
        """Whether the instance had no nodes when the set began."""
        return self.nodes == {self.key.partition("/")[0]}


@dataclass(frozen=True, slots=True)
class Missing:
    """The nodes that a set lacks, and ``why``, in a line. Where only their number is known, the set
    should have ``at_least`` so many, and ``nodes`` are those that it may lack, by those around."""

    nodes: tuple[str, ...]
    why: str
    at_least: int = 0

    def is_made_up_by(self, nodes: Collection[str]) -> bool:
        """Whether a set with these nodes lacks none any more."""
        return len(nodes) >= self.at_least and set(self.nodes) <= set(nodes)


@dataclass(slots=True)
class SetTally:
    """What was listed for one set, and how much of that the archive holds; ``is_full`` as above."""

    started_at: datetime
    nodes: set[str] = field(default_factory=set)
    is_full: bool = False
    files: int = 0
    held: int = 0
    expected: NodesExpected | None = None


def incomplete(
    tallies: Mapping[str, SetTally], archived: Iterable[SetNodes] = ()
) -> dict[str, str]:
    """Which sets of one instance are not complete, by key, and why.

    ``archived`` are sets that the archive holds, among them others than were listed.
    """
    sets = {one.key: one for one in archived}
    for key, tally in tallies.items():
        began, nodes, expected = tally.started_at, frozenset(tally.nodes), tally.expected
        if (known := sets.get(key)) is not None:
            began, nodes = known.started_at, known.nodes | nodes
            expected = expected or known.expected
        sets[key] = SetNodes(key, began, nodes, tally.is_full, expected)
    missing = missing_nodes(sets.values(), tallies.keys())
    why = {
        key: [f"{tally.held} of {tally.files} files are here"] if tally.held < tally.files else []
        for key, tally in tallies.items()
    }
    for key, found in missing.items():
        why[key].append(found.why)
    return {key: "; ".join(reasons) for key, reasons in why.items() if reasons}


def missing_nodes(
    sets: Iterable[SetNodes], wanted: Collection[str] | None = None
) -> dict[str, Missing]:
    """What the ``wanted`` sets of one instance lack, or all of them, by key."""
    found: dict[str, Missing] = {}
    for backups in _by_kind(sets):
        first = stop = 0
        around: Counter[str] = Counter()
        for number, backup in enumerate(backups):
            while stop < len(backups) and backups[stop].began - backup.began <= REACH:
                around.update(backups[stop].nodes)
                stop += 1
            while backup.began - backups[first].began > REACH:
                around.subtract(backups[first].nodes)
                around = +around
                first += 1
            keys = backup.keys if wanted is None else [k for k in backup.keys if k in wanted]
            expected = backup.expected
            if keys and (expected is not None or len(around) > len(backup.nodes)):
                lacks = _lacks(backups[first:stop], number - first)
                if expected is not None:
                    lacks = _fewer_than(expected, backup, lacks)
                found |= dict.fromkeys(keys, lacks) if lacks is not None else {}
    return found


def parts_of_backups(sets: Iterable[SetNodes]) -> dict[str, tuple[str, ...]]:
    """For each folder of a backup that has several, by key, the keys of all of them, the first one
    first."""
    return {
        key: backup.keys
        for backups in _by_kind(sets)
        for backup in backups
        for key in backup.keys
        if len(backup.keys) > 1
    }


def _fewer_than(
    expected: NodesExpected, backup: "_Backup", lacks: Missing | None
) -> Missing | None:
    """What a backup lacks whose number of nodes is known: the sets around it (``lacks``) give at
    most the names."""
    count = len(backup.nodes)
    if count >= expected.count:
        return None
    names = () if lacks is None else lacks.nodes
    why = f"it has {count} of {expected.count} nodes, by {expected.known_from}"
    return Missing(names if count + len(names) <= expected.count else (), why, expected.count)


@dataclass(frozen=True, slots=True)
class _Backup:
    """A set, or the folders of shards that have one each."""

    began: datetime
    keys: tuple[str, ...]
    nodes: frozenset[str]
    expected: NodesExpected | None

    @classmethod
    def of(cls, sets: Sequence[SetNodes]) -> Self:
        expected = (one.expected for one in sets if one.expected is not None)
        nodes = frozenset[str]().union(*(one.nodes for one in sets))
        keys = tuple(one.key for one in sets)
        return cls(sets[0].started_at, keys, nodes, next(expected, None))


def _by_kind(sets: Iterable[SetNodes]) -> Iterable[list[_Backup]]:
    """The backups that are compared with one another, in order of time: of dumps or logs, and of a
    cluster or an instance without nodes."""
    by_kind: dict[tuple[bool, bool], list[SetNodes]] = defaultdict(list)
    for one in sorted(sets, key=lambda one: (one.started_at, one.key)):
        by_kind[one.is_full, one.is_standard].append(one)
    for of_kind in by_kind.values():
        backups = [_Backup.of([one]) for one in of_kind if len(one.nodes) != 1]
        backups += map(_Backup.of, _together([one for one in of_kind if len(one.nodes) == 1]))
        yield sorted(backups, key=lambda backup: (backup.began, backup.keys))


def _together(sets: Sequence[SetNodes]) -> Iterator[list[SetNodes]]:
    """Sets of one node each, in order of time, by the backup that they are of."""
    open_: list[SetNodes] = []
    for one in sets:
        open_.append(one)
        while (first := _first_to_part(open_)) is not None:
            end = max(
                range(first, len(open_)),
                key=lambda at: (open_[at].started_at - open_[at - 1].started_at, at),
            )
            yield open_[:end]
            del open_[:end]
    if open_:
        yield open_


def _first_to_part(sets: Sequence[SetNodes]) -> int | None:
    """The first place at which sets that cannot be one backup may be parted; None if they can. Only
    the last of them may not fit in with the others."""
    *others, last = sets
    for at, one in enumerate(others):
        if one.nodes == last.nodes:
            return at + 1
    return 1 if last.started_at - sets[0].started_at > ONE_BACKUP else None


def _lacks(window: Sequence[_Backup], place: int) -> Missing | None:
    """What the backup at ``place`` lacks, by those around it."""
    here = window[place].nodes
    reasons: dict[str, list[str]] = defaultdict(list)
    for node in sorted(frozenset[str]().union(*(one.nodes for one in window)) - here):
        has = [number for number, one in enumerate(window) if node in one.nodes]
        reason = _why_missing(window, place, has)
        if reason is not None:
            reasons[reason].append(node)
    lines = [_line(named, reason) for reason, named in reasons.items()]
    nodes = {node for named in reasons.values() for node in named}
    least, sides = _least_number(window, place)
    if least > len(here) + len(nodes):
        nodes |= min((side.nodes - here for side in sides), key=len)
        lines.append(f"it has {len(here)} nodes, and sets before and after it have {least}")
    return Missing(tuple(sorted(nodes)), "; ".join(lines)) if lines else None


def _why_missing(window: Sequence[_Backup], place: int, has: Sequence[int]) -> str | None:
    """Why the node that the backups ``has`` have is missing at ``place``; None if it is not."""
    before = max((number for number in has if number < place), default=None)
    after = min((number for number in has if number > place), default=None)
    if before is None:
        return None if after is None else _why_cut(window, place, after)
    lacking = [one for one in window[before + 1 : after] if one.nodes]
    left = window[before]
    back = None if after is None else window[after]
    if _was_removed(left, lacking):
        return None
    known = frozenset[str]().union(*(one.nodes for one in window[: before + 1]))
    if back is not None:
        known |= back.nodes
    if any(_replaces(one.nodes - known, left.nodes - one.nodes, left, one) for one in lacking):
        return None
    if back is not None:
        return f"the sets of {_moment(left)} and {_moment(back)} have it"
    return (
        f"the set of {_moment(left)} has it; it counts as removed from the cluster after "
        f"{GONE_SETS} sets and {GONE_AFTER.days} days without it, "
        f"on {format_day(left.began + GONE_AFTER)} at the earliest"
    )


def _why_cut(window: Sequence[_Backup], place: int, after: int) -> str | None:
    """The same for a node that no earlier set has."""
    here, back = window[place], window[after]
    if any(one.nodes for one in (*window[:place], *window[place + 1 : after])):
        return None  # added to the cluster
    if here.nodes - back.nodes:
        return None  # the cluster was changed: what was cut has no nodes that others have not
    return f"the set after it, of {_moment(back)}, has it, and no set before it shows it was added"


def _was_removed(left: _Backup, lacking: Sequence[_Backup]) -> bool:
    """Whether a node that ``left`` was the last to have, and ``lacking`` do not, was removed."""
    passed = lacking[-1].began - left.began if lacking else timedelta()
    return (len(lacking) >= GONE_SETS and passed >= GONE_AFTER) or passed >= REACH


def _replaces(
    came: Collection[str], went: Collection[str], before: _Backup, after: _Backup
) -> bool:
    """Whether the nodes that came replaced those that went."""
    if not before.nodes & after.nodes:
        return 0 < len(went) <= len(came)
    return 0 < len(went) == len(came)


def _least_number(window: Sequence[_Backup], place: int) -> tuple[int, Sequence[_Backup]]:
    """The number of nodes that a set should have by those of others alone, and the nearest sets
    before and after that have as many."""
    least, sides = len(window[place].nodes), list[_Backup]()
    for number in sorted({len(one.nodes) for one in window if len(one.nodes) > least}):
        has = [at for at, one in enumerate(window) if len(one.nodes) >= number]
        before = max((at for at in has if at < place), default=None)
        after = min((at for at in has if at > place), default=None)
        if before is not None and after is not None:
            lacking = [one for one in window[before + 1 : after] if one.nodes]
            if not _was_removed(window[before], lacking):
                least, sides = number, [window[before], window[after]]
    return least, sides


def _line(nodes: Sequence[str], reason: str) -> str:
    are = f"node {nodes[0]} is" if len(nodes) == 1 else f"nodes {', '.join(nodes)} are"
    return f"{are} missing: {reason}"


def _moment(backup: _Backup) -> str:
    return format_minute(backup.began)
