"""What is wrong with the backups of an instance. Pure: the table of ``status``, metrics, alarms and
the page all show what this says.

A backup is due when the rhythm of the instance (:mod:`.expected`) says so, and late by multiples of
the usual interval. Critical is what nobody should sleep over: recovery would fail, or lose more
than a backup or two. What nobody can mend any more is counted and no reason to alarm.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from itertools import pairwise
from typing import Final

from archiver.commands.status.expected import WEEK, Rhythm, expected
from archiver.model import InstanceDescription
from archiver.times import format_day, format_minute
from archiver.words import age, times

# The vendor's shortest retention, where nobody knows the instance's.
_KEPT_DAYS: Final = 7
# A clock may be off so far before the vendor refuses what it signs.
_CLOCKS_DIFFER: Final = timedelta(minutes=15)
# Between the moment of a backup and the listing that has it.
_UNTIL_LISTED: Final = timedelta(hours=3)
# Where no moments are known, a pause of so many intervals has a gap in it.
_PAUSE: Final = 1.75


class Level(IntEnum):
    """How bad something is. The numbers are those of a Nagios plugin."""

    OK = 0
    WARNING = 1
    CRITICAL = 2


class Cause(StrEnum):
    """What a reason is about."""

    DAMAGED = "damaged"  # a file is not as recorded, or cannot be read
    DRILL_FAILED = "drill failed"
    NEVER = "never"  # there is no complete set, though one is due
    OVERDUE = "overdue"
    EXPIRING = "expiring"  # the source soon deletes what is not in the archive
    ENDING = "ending"  # the source soon deletes the instance, with its backups
    INCOMPLETE = "incomplete"
    GAP = "gap"  # none came when one was expected, and it may still be fetched
    GONE = "gone"  # the source has the instance no more
    VERIFY_OLD = "verify old"
    DRILL_OLD = "drill old"


class SetState(StrEnum):
    """Whether a set can be restored."""

    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    DAMAGED = "damaged"


@dataclass(frozen=True, slots=True)
class SetFacts:
    """A set of dumps in the archive; ``size`` is the bytes of its files. ``why`` says what it
    lacks; ``is_acknowledged``: somebody knows that."""

    key: str
    started_at: datetime
    size: int
    state: SetState = SetState.COMPLETE
    why: str = ""
    is_acknowledged: bool = False


@dataclass(frozen=True, slots=True)
class DrillFacts:
    """What a drill said of the instance. ``keys`` were loaded, in ``seconds``; None if unknown."""

    id: str
    at: datetime
    passed: bool
    verdict: str
    seconds: float | None = None
    keys: int | None = None


@dataclass(frozen=True, slots=True)
class Unarchived:
    """A backup that the source has and the archive has not, and when the source deletes it."""

    started_at: datetime
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class InstanceFacts:
    """What is known of an instance. ``sets`` are those of dumps, oldest first; ``damage`` is why
    what is in none of them is damaged, such as a log or a SHA256SUMS; ``pruned`` is when sets began
    that were removed on purpose. ``verified_at`` is when all files of the newest
    complete set had been verified, ``drill`` the newest drill, ``passed`` the newest that passed;
    None: never. ``unarchived`` is None where the source was not asked."""

    instance_id: str
    sets: tuple[SetFacts, ...] = ()
    damage: tuple[str, ...] = ()
    pruned: tuple[datetime, ...] = ()
    described: InstanceDescription | None = None
    verified_at: datetime | None = None
    drill: DrillFacts | None = None
    passed: DrillFacts | None = None
    unarchived: tuple[Unarchived, ...] | None = None

    @property
    def newest(self) -> SetFacts | None:
        """The newest complete set."""
        whole = [one for one in self.sets if one.state is SetState.COMPLETE]
        return max(whole, key=lambda one: one.started_at, default=None)


@dataclass(frozen=True, slots=True)
class Limits:
    """From when on something is wrong. ``warning`` and ``critical`` are multiples of the interval
    between backups, the others times: without a verify or drill (None: for ever), before a loss,
    before the end of an instance, and since it is gone."""

    warning: float = 1.5
    critical: float = 3.0
    verify_within: timedelta | None = None
    drill_within: timedelta | None = None
    loss_within: timedelta = timedelta(hours=48)
    ending_within: timedelta = timedelta(days=7)
    gone_for: timedelta = timedelta(days=30)
    gaps_within: timedelta = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Reason:
    """Why an instance is not well, in a line, and ``fix``: what to do, or ""."""

    level: Level
    cause: Cause
    text: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """How an instance is, worst reasons first. ``gaps`` are moments at which a complete set was
    expected and none came; from ``loss_at`` on the source deletes what the archive lacks, None if
    that is nothing or unknown. ``note`` says why nothing is expected of it, or ""."""

    facts: InstanceFacts
    level: Level
    reasons: tuple[Reason, ...]
    rhythm: Rhythm
    gaps: tuple[datetime, ...]
    loss_at: datetime | None
    note: str = ""

    @property
    def instance_id(self) -> str:
        return self.facts.instance_id


def judge(facts: InstanceFacts, limits: Limits, now: datetime) -> Judgement:
    """How an instance is at this moment."""
    schedule = None if facts.described is None else facts.described.schedule
    starts = sorted([*(one.started_at for one in facts.sets), *facts.pruned])
    case = _Case(facts, limits, now, expected(schedule, starts, now))
    reasons = sorted(case.reasons(), key=lambda reason: -reason.level)
    level = max((reason.level for reason in reasons), default=Level.OK)
    gaps = tuple(case.gaps())
    return Judgement(facts, level, tuple(reasons), case.rhythm, gaps, case.loss_at(), case.note())


def worst_first(judgements: list[Judgement]) -> list[Judgement]:
    """In the order of a list that is read from the top."""
    return sorted(judgements, key=lambda one: (-one.level, one.instance_id))


@dataclass(frozen=True, slots=True)
class _Case:
    """An instance while it is judged."""

    facts: InstanceFacts
    limits: Limits
    now: datetime
    rhythm: Rhythm

    def reasons(self) -> Iterator[Reason]:
        yield from self._damaged()
        yield from self._drills()
        if self._is_expected:
            yield from self._late()
            yield from self._loss()
            yield from self._fetchable()
        yield from self._end()
        yield from self._verified()

    def note(self) -> str:
        described = self.facts.described
        if described is None:
            return ""
        if described.gone_at is not None:
            return f"gone from its source since {format_day(described.gone_at)}"
        return described.no_backups or ""

    @property
    def _is_expected(self) -> bool:
        """Whether the source makes backups of it."""
        described = self.facts.described
        return described is None or not (described.gone_at or described.no_backups)

    @property
    def _kept(self) -> timedelta:
        """How long the source keeps a backup."""
        described = self.facts.described
        schedule = None if described is None else described.schedule
        kept = None if schedule is None else schedule.kept_days
        return timedelta(days=_KEPT_DAYS if kept is None else kept)

    def _due_after(self, moment: datetime) -> datetime:
        """When the backup after the one that began at this moment is expected."""
        return self.rhythm.next_after(self.rhythm.nearest(moment))

    def _limit(self, due: datetime, multiple: float) -> datetime:
        return due + max(0.0, multiple - 1) * self.rhythm.interval

    def _level_at(self, due: datetime) -> Level:
        """How bad it is that what was due then is not here."""
        if self.now > self._limit(due, self.limits.critical):
            return Level.CRITICAL
        return Level.WARNING if self.now > self._limit(due, self.limits.warning) else Level.OK

    def _damaged(self) -> Iterator[Reason]:
        sets = [one.why for one in self.facts.sets if one.state is SetState.DAMAGED]
        if damaged := [*self.facts.damage, *sets]:
            more = f", and {times(len(damaged) - 1, 'other')}" if len(damaged) > 1 else ""
            text = f"damaged: {damaged[-1]}{more}"
            fix = (
                f"archiver verify ARCHIVE --repair-from source --instance {self.facts.instance_id}"
            )
            yield Reason(Level.CRITICAL, Cause.DAMAGED, text, fix)

    def _drills(self) -> Iterator[Reason]:
        drill, within = self.facts.drill, self.limits.drill_within
        if drill is not None and not drill.passed:
            text = f"the drill of {format_day(drill.at)} did not pass: {drill.verdict}"
            yield Reason(Level.CRITICAL, Cause.DRILL_FAILED, text, f"see drills/…/{drill.id}.html")
        passed = self.facts.passed
        if within is None or self.facts.newest is None:
            return  # without a complete set there is nothing to drill
        if passed is None or self.now - passed.at > within:
            last = "never passed" if passed is None else f"passed {age(self.now - passed.at)} ago"
            text = f"a drill was {last}; one is asked for every {age(within)}"
            yield Reason(Level.WARNING, Cause.DRILL_OLD, text)

    def _verified(self) -> Iterator[Reason]:
        within, newest = self.limits.verify_within, self.facts.newest
        # What has just come was verified when it came.
        if within is None or newest is None or self.now - newest.started_at <= within:
            return
        at = self.facts.verified_at
        if at is None or self.now - at > within:
            last = "never verified" if at is None else f"verified {age(self.now - at)} ago"
            text = f"its newest set was {last}; that is asked for every {age(within)}"
            yield Reason(Level.WARNING, Cause.VERIFY_OLD, text)

    def _late(self) -> Iterator[Reason]:
        newest = self.facts.newest
        every = f"expected every {age(self.rhythm.interval)} by {self.rhythm.known_from}"
        if newest is None:
            yield from self._never(every)
            return
        if newest.started_at > self.now + _CLOCKS_DIFFER:
            text = (
                f"its newest complete set began {format_minute(newest.started_at)}, in the future"
            )
            yield Reason(Level.WARNING, Cause.OVERDUE, text, "check the clock")
            return
        level = self._level_at(self._due_after(newest.started_at))
        if level is not Level.OK:
            text = f"none since {format_minute(newest.started_at)}; {every}"
            yield Reason(level, Cause.OVERDUE, text, self._why_late())

    def _never(self, every: str) -> Iterator[Reason]:
        described = self.facts.described
        since = None if described is None else described.created_at
        since = min((one.started_at for one in self.facts.sets), default=since)
        level = Level.WARNING if since is None else self._level_at(self.rhythm.next_after(since))
        if level is not Level.OK:
            text = "it has no complete set" if self.facts.sets else "none was ever archived"
            yield Reason(level, Cause.NEVER, f"{text}; {every}", self._why_late())

    def _why_late(self) -> str:
        described = self.facts.described
        if described is None or self.now - described.seen_at > timedelta(days=2):
            return "is archiver pull still run?"
        return "is its backup policy on, and does archiver pull succeed?"

    def loss_at(self) -> datetime | None:
        """When the source deletes the first of what the archive lacks."""
        described = self.facts.described
        if not self._is_expected:
            return None
        if self.facts.unarchived is not None:
            ends = [one.expires_at or one.started_at + self._kept for one in self.facts.unarchived]
        elif (first := self._first_unarchived()) is not None:
            ends = [first + self._kept]
        else:
            ends = []
        if ends and described is not None and described.deleted_at is not None:
            ends.append(described.deleted_at)
        return min(ends, default=None)

    def _first_unarchived(self) -> datetime | None:
        """When the first backup began that should have been listed and is not in the archive; of
        those that the source still keeps."""
        newest = self.facts.newest
        if newest is None:
            return None
        first = self._due_after(newest.started_at)
        kept = self.now - self._kept
        if first < kept:
            first = self.rhythm.next_after(kept)
        return first if first + _UNTIL_LISTED <= self.now else None

    def _loss(self) -> Iterator[Reason]:
        at = self.loss_at()
        if at is None or at - self.now > self.limits.loss_within:
            return
        left = "now" if at <= self.now else f"in {age(at - self.now)}"
        # From the archive alone nobody knows whether there is a backup to lose: then it is overdue.
        if self.facts.unarchived is not None:
            count = times(len(self.facts.unarchived), "backup")
            text = f"{count} not in the archive; the source deletes the first {left}"
            yield Reason(Level.CRITICAL, Cause.EXPIRING, text, "run archiver pull")

    def _fetchable(self) -> Iterator[Reason]:
        """What did not come, and may still be fetched."""
        kept = self.now - self._kept
        for one in self.facts.sets:
            is_known = one.is_acknowledged or one.state is not SetState.INCOMPLETE
            if not is_known and one.started_at > kept:
                left = age(one.started_at - kept)
                text = f"{one.key} is not complete: {one.why}; its source keeps it for {left}"
                yield Reason(Level.WARNING, Cause.INCOMPLETE, text, "run archiver pull")
        gaps = [moment for moment in self.gaps() if moment > kept]
        if gaps:
            text = f"none came at {', '.join(map(format_minute, gaps[-3:]))}, when one was expected"
            yield Reason(Level.WARNING, Cause.GAP, text)

    def gaps(self) -> Iterator[datetime]:
        """The moments before the newest complete set at which one was expected and none came."""
        whole = sorted(one.started_at for one in self.facts.sets if one.state is SetState.COMPLETE)
        whole = sorted(one for one in [*whole, *self.facts.pruned] if one <= self.now)
        if not whole:
            return
        began = max(whole[0], self.now - self.limits.gaps_within)
        described = self.facts.described
        schedule = None if described is None else described.schedule
        if schedule is not None and schedule.since is not None:
            began = max(began, schedule.since)
        if not self.rhythm.minutes:
            for before, after in pairwise(whole):
                if before >= began and after - before >= _PAUSE * self.rhythm.interval:
                    yield before + self.rhythm.interval
            return
        came = {self.rhythm.nearest(one) for one in whole if one > began - WEEK}
        last = self.rhythm.nearest(whole[-1])
        for moment in self.rhythm.moments(began):
            if moment >= last:
                return
            if moment not in came:
                yield moment

    def _end(self) -> Iterator[Reason]:
        described = self.facts.described
        if described is None:
            return
        if described.gone_at is not None:
            if self.now - described.gone_at <= self.limits.gone_for:
                text = f"its source has it no more, since {format_day(described.gone_at)}"
                yield Reason(Level.WARNING, Cause.GONE, text)
            return
        soon = self.now + self.limits.ending_within
        if described.deleted_at is not None and described.deleted_at <= soon:
            text = f"its source deletes it on {format_day(described.deleted_at)}, with its backups"
            yield Reason(Level.WARNING, Cause.ENDING, text)
        elif described.ends_at is not None and described.ends_at <= soon:
            text = f"its subscription ends on {format_day(described.ends_at)}"
            yield Reason(Level.WARNING, Cause.ENDING, text)
