"""Which backup sets of an instance a retention policy keeps, and why. Pure.

Sets are kept or removed whole. Only complete sets of dumps satisfy a rule: of each hour, day, week
(from Monday on), month or year in UTC the newest one, for the newest so many of them that have one.
A set of logs stays as long as the newest dump from before it, which it continues. Times are counted
back from the newest complete set, not from today: where no backups come any more, none goes, and a
clock that is wrong removes nothing. Whatever the policy says, these stay:

- the newest complete set, and the newest that passed a drill,
- what somebody holds,
- a damaged set, which a repair may need, and every older one: until it is repaired, what comes
  before it is what there is to go back to,
- an incomplete set, until a newer one is complete.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Final

from archiver.commands.status.judge import SetState
from archiver.words import age


@dataclass(frozen=True, slots=True)
class PruneSet:
    """A set in the archive. ``size`` is the bytes of its files; ``is_log``: it has no dump."""

    key: str
    started_at: datetime
    size: int
    state: SetState = SetState.COMPLETE
    is_log: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """How many sets to keep by each rule; ``within`` keeps all that began in so long a time before
    the newest complete one."""

    last: int = 0
    within: timedelta | None = None
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether it keeps nothing."""
        return not any(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a set, and the reasons: why it stays, or why it goes."""

    set: PruneSet
    keeps: bool
    reasons: tuple[str, ...]


# The period of each rule that a moment is in.
_PERIODS: Final[Mapping[str, Callable[[datetime], tuple[int, ...]]]] = {
    "hourly": lambda at: (at.year, at.month, at.day, at.hour),
    "daily": lambda at: (at.year, at.month, at.day),
    "weekly": lambda at: tuple(at.isocalendar()[:2]),
    "monthly": lambda at: (at.year, at.month),
    "yearly": lambda at: (at.year,),
}


def plan(
    sets: Sequence[PruneSet],
    policy: Policy,
    *,
    held: Mapping[str, str] | None = None,
    passed: str | None = None,
) -> list[Decision]:
    """Decide about all sets of an instance; the decisions are newest first.

    ``held`` are the keys of sets that somebody holds, and why; ``passed`` is the newest set that
    passed a drill.
    """
    dumps = sorted((one for one in sets if not one.is_log), key=_age, reverse=True)
    reasons: dict[str, list[str]] = defaultdict(list)
    whole = [one for one in dumps if one.state is SetState.COMPLETE]
    since = whole[0].started_at - policy.within if whole and policy.within is not None else None
    for one in sets:
        if since is not None and one.started_at >= since and one.state is not SetState.DAMAGED:
            reasons[one.key].append(f"within {age(policy.within or timedelta())}")
    for name, keys in _by_rule(whole, policy).items():
        for number, key in enumerate(keys, start=1):
            reasons[key].append(f"{name} {number} of {getattr(policy, name)}")
    if whole:
        reasons[whole[0].key].append("the newest complete set")
    _protect(dumps, reasons, passed)
    for key, why in (held or {}).items():
        reasons[key].append(f"held: {why}")
    _incomplete(dumps, reasons)
    decisions = [_decision(one, reasons[one.key]) for one in dumps]
    return sorted(
        decisions + _logs(sets, dumps, reasons),
        key=lambda decision: _age(decision.set),
        reverse=True,
    )


def _age(one: PruneSet) -> tuple[datetime, str]:
    return one.started_at, one.key


def _decision(one: PruneSet, keeps: Sequence[str]) -> Decision:
    return Decision(one, bool(keeps), tuple(keeps) or ("no rule keeps it",))


def _by_rule(whole: Sequence[PruneSet], policy: Policy) -> dict[str, list[str]]:
    """By rule, the keys of the sets that satisfy it, the newest first."""
    found = {"last": [one.key for one in whole[: policy.last]]}
    for name, period in _PERIODS.items():
        newest: dict[tuple[int, ...], str] = {}
        for one in whole:
            newest.setdefault(period(one.started_at.astimezone(UTC)), one.key)
        found[name] = list(newest.values())[: getattr(policy, name)]
    return found


def _protect(dumps: Sequence[PruneSet], reasons: dict[str, list[str]], passed: str | None) -> None:
    """Note what stays whatever the policy says."""
    damaged = next((one for one in dumps if one.state is SetState.DAMAGED), None)
    for one in dumps:
        if one.key == passed:
            reasons[one.key].append("the newest that passed a drill")
        if one.state is SetState.DAMAGED:
            reasons[one.key].append("it is damaged, and not repaired")
        elif damaged is not None and _age(one) < _age(damaged):
            reasons[one.key].append(f"{damaged.key}, which is newer, is damaged")


def _incomplete(dumps: Sequence[PruneSet], reasons: dict[str, list[str]]) -> None:
    """Keep what is incomplete until a newer one is complete."""
    for one in dumps:
        if one.state is SetState.COMPLETE:
            return
        if one.state is SetState.INCOMPLETE:
            reasons[one.key].append("no newer set is complete")


def _logs(
    sets: Sequence[PruneSet],
    dumps: Sequence[PruneSet],
    reasons: Mapping[str, Sequence[str]],
) -> list[Decision]:
    """The sets of logs, each with the newest dump from before it."""
    oldest_first = list(reversed(dumps))
    starts = [one.started_at for one in oldest_first]
    decisions = []
    for log in sets:
        if not log.is_log:
            continue
        place = bisect_right(starts, log.started_at) - 1
        own = [*reasons.get(log.key, ())]
        if log.state is SetState.DAMAGED:
            own.append("it is damaged, and not repaired")
        if place >= 0 and reasons.get(oldest_first[place].key):
            own.append(f"it continues {oldest_first[place].key}")
        decisions.append(_decision(log, own))
    return decisions
