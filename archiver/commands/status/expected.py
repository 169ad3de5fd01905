"""When the backups of an instance are expected. Pure.

A rhythm is the moments of a week at which backups begin. A schedule of the source says them.
Without one they are learnt from the backups themselves: a moment counts that at least half of the
recent weeks had. So a weekly backup is not late after a day, nor one of working days on a Sunday,
and where backups are made twice a day, one that is missing is seen.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Final

from archiver.model import Schedule

WEEK: Final = timedelta(days=7)
_DAY_MINUTES: Final = 24 * 60
_WEEK_MINUTES: Final = 7 * _DAY_MINUTES
# A Monday: moments of a week count from it.
_MONDAY: Final = datetime(2024, 1, 1, tzinfo=UTC)
# Backups of the same moment of the week begin so far apart at most.
_APART: Final = timedelta(minutes=150)
# So many weeks of backups are looked at, and so many are needed to know the moments of a week.
_WEEKS: Final = 4
_LEAST_WEEKS: Final = 2
# Backups that are made more often than this need no moments: their pauses say enough. So do those
# of an instance with too few weeks, if they are so many.
_OFTEN: Final = timedelta(hours=6)
_LEAST_PAUSES: Final = 2
_MOST_MOMENTS: Final = 1.5
_LEARNT: Final = "its backups so far"
# A backup policy has a day of the week at least (ModifyBackupPolicy, PreferredBackupPeriod).
SELDOMEST: Final = "a policy's least, one a week"


@dataclass(frozen=True, slots=True)
class Rhythm:
    """When backups begin: ``minutes`` of a week, in order, counted from Monday 00:00 UTC; or, where
    only the usual ``interval`` between them is known, none. ``known_from`` says what said so."""

    minutes: tuple[int, ...]
    interval: timedelta
    known_from: str

    def next_after(self, moment: datetime) -> datetime:
        """The first moment later than this one at which a backup is expected."""
        return next(self.moments(moment))

    def nearest(self, moment: datetime) -> datetime:
        """The moment to which a backup belongs that began at this one: the nearest."""
        if not self.minutes:
            return moment
        before, after = next(
            pair for pair in itertools.pairwise(self.moments(moment - WEEK)) if pair[1] > moment
        )
        return before if moment - before < after - moment else after

    def moments(self, after: datetime) -> Iterator[datetime]:
        """The moments later than this one at which backups are expected, without end."""
        if not self.minutes:
            while True:
                after += self.interval
                yield after
        week = _MONDAY + (after - _MONDAY) // WEEK * WEEK
        while True:
            for minute in self.minutes:
                moment = week + timedelta(minutes=minute)
                if moment > after:
                    yield moment
            week += WEEK


def expected(schedule: Schedule | None, starts: Sequence[datetime], now: datetime) -> Rhythm:
    """The rhythm of an instance, whose dumps began at ``starts``, in order; those that were pruned
    since count, too."""
    if schedule is not None and schedule.weekdays:
        minutes = tuple(day * _DAY_MINUTES + schedule.minute for day in sorted(schedule.weekdays))
        return Rhythm(minutes, _usual(minutes), "its backup policy")
    past = [start for start in starts if start <= now]
    # Counted back from the newest: they may have stopped since.
    recent = [start for start in past if start > past[-1] - _WEEKS * WEEK]
    pauses = [after - before for before, after in itertools.pairwise(recent)]
    if len(pauses) < _LEAST_PAUSES:
        return Rhythm((), WEEK, SELDOMEST)
    pause = timedelta(seconds=median(one.total_seconds() for one in pauses))
    if pause > _OFTEN and recent[-1] - recent[0] >= _LEAST_WEEKS * WEEK:
        minutes = tuple(sorted(_moments_of_most_weeks(recent)))
        weeks = (recent[-1] - recent[0]) / WEEK
        # More moments than backups a week are a rhythm of another kind: every 26 hours, say.
        if minutes and len(minutes) * weeks <= _MOST_MOMENTS * len(recent):
            return Rhythm(minutes, _usual(minutes), _LEARNT)
    return Rhythm((), pause, _LEARNT)


def _moments_of_most_weeks(starts: Sequence[datetime]) -> Iterator[int]:
    """The minutes of a week that at least half of the weeks have a backup at."""
    last = starts[-1]
    by_minute = sorted(((start - _MONDAY) % WEEK, (last - start) // WEEK) for start in starts)
    groups: list[list[tuple[timedelta, int]]] = []
    for one in by_minute:
        if groups and one[0] - groups[-1][-1][0] <= _APART:
            groups[-1].append(one)
        else:
            groups.append([one])
    around = by_minute[0][0] + WEEK - by_minute[-1][0]
    if len(groups) > 1 and around <= _APART:  # before and after the midnight that ends the week
        first = groups.pop(0)
        groups[-1] += [(minute + WEEK, week) for minute, week in first]
    weeks = (last - starts[0]) // WEEK + 1
    for group in groups:
        if 2 * len({week for _, week in group}) >= weeks:
            middle = sorted(minute for minute, _ in group)[len(group) // 2]
            yield int(middle / timedelta(minutes=1)) % _WEEK_MINUTES


def _usual(minutes: Sequence[int]) -> timedelta:
    """The usual time between the moments of a week; of two, the shorter."""
    around = [*minutes, minutes[0] + _WEEK_MINUTES]
    pauses = sorted(after - before for before, after in itertools.pairwise(around))
    return timedelta(minutes=pauses[(len(pauses) - 1) // 2])
