"""A year of instances with every schedule, judged on each of its days, beside what a person would
say who knows the schedule."""

import itertools
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from archiver.commands.status.judge import Cause, InstanceFacts, Level, Limits, SetFacts, judge
from archiver.model import InstanceDescription, Schedule

FIRST = datetime(2025, 11, 3, tzinfo=UTC)  # a Monday
DAY, HOUR, WEEK = timedelta(days=1), timedelta(hours=1), timedelta(days=7)
# Days of the week, and hours at which a backup begins.
SCHEDULES = {
    "daily": (range(7), (2,)),
    "twice a day": (range(7), (2, 14)),
    "weekly": ((6,), (3,)),
    "working days": (range(5), (1,)),
    "three days a week": ((0, 2, 4), (23,)),
    "every six hours": (range(7), (0, 6, 12, 18)),
}
# A policy has one time a day: others are learnt from the backups, and so may these be.
KNOWN = [(name, False) for name in SCHEDULES]
KNOWN += [(name, True) for name, (_, hours) in SCHEDULES.items() if len(hours) == 1]
Keeps = Callable[[datetime], bool]


def moments(name: str, days: int = 365) -> Iterator[datetime]:
    """When the backups of a schedule are due."""
    weekdays, hours = SCHEDULES[name]
    for number in range(days):
        for hour in hours:
            if (FIRST + number * DAY).weekday() in weekdays:
                yield FIRST + number * DAY + hour * HOUR


def policy(name: str) -> InstanceDescription:
    weekdays, hours = SCHEDULES[name]
    schedule = Schedule(tuple(weekdays), 60 * hours[0], kept_days=7)
    return InstanceDescription("r-bp1", FIRST, schedule=schedule)


def begun(due: list[datetime], dice: random.Random, keeps: Keeps) -> list[datetime]:
    """When they began: up to half an hour late, and some not at all."""
    return [moment + dice.random() * HOUR / 2 for moment in due if keeps(moment)]


def told(
    starts: list[datetime], now: datetime, description: InstanceDescription | None
) -> dict[Cause, Level]:
    # A pull has them two hours after they began.
    sets = tuple(SetFacts(f"r-bp1/{one}", one, 1) for one in starts if one + 2 * HOUR <= now)
    facts = InstanceFacts("r-bp1", sets, described=description)
    return {reason.cause: reason.level for reason in judge(facts, Limits(), now).reasons}


def days(of: int = 365) -> Iterator[datetime]:
    """Some hour of each day, from the third week on."""
    dice = random.Random(of)
    return (FIRST + number * DAY + dice.randrange(24) * HOUR for number in range(22, of))


@pytest.mark.parametrize(("name", "knows"), KNOWN)
def test_nothing_is_said_of_what_comes_when_it_should(name: str, knows: bool) -> None:
    starts = begun(list(moments(name)), random.Random(name), lambda _: True)
    description = policy(name) if knows else None
    assert {now: said for now in days() if (said := told(starts, now, description))} == {}


@pytest.mark.parametrize(("name", "knows"), KNOWN)
def test_what_stops_is_told_in_time(name: str, knows: bool) -> None:
    due = list(moments(name))
    pauses = sorted(after - before for before, after in itertools.pairwise(due))
    usual = pauses[len(pauses) // 2]
    for number in range(60, len(due) - 40, max(1, len(due) // 25)):
        stop = due[number]
        starts = begun(due, random.Random(number), lambda one, stop=stop: one < stop)  # type: ignore[misc]
        description = policy(name) if knows else None
        # By half an interval after it was due at the earliest, and an hour later at the latest.
        assert Cause.OVERDUE not in told(starts, stop + 0.45 * usual, description)
        assert told(starts, stop + 0.5 * usual + HOUR, description)[Cause.OVERDUE] is Level.WARNING
        assert told(starts, stop + 2 * usual + HOUR, description)[Cause.OVERDUE] is Level.CRITICAL


@pytest.mark.parametrize("name", ["daily", "weekly", "working days"])
def test_gaps_are_those_that_a_person_counts(name: str) -> None:
    dice = random.Random(name)
    due = list(moments(name))
    lost = {moment for moment in due if dice.random() < 0.1}
    starts = begun(due, dice, lambda one: one not in lost)
    for now in days():
        sets = tuple(SetFacts(f"r-bp1/{one}", one, 1) for one in starts if one + 2 * HOUR <= now)
        facts = InstanceFacts("r-bp1", sets, described=policy(name))
        newest, first = sets[-1].started_at, sets[0].started_at
        counted = {one for one in lost if max(first, now - 30 * DAY) < one < newest - HOUR}
        assert set(judge(facts, Limits(), now).gaps) == counted


def test_a_month_that_failed_is_critical_until_it_is_over() -> None:
    failed = (FIRST + 100 * DAY, FIRST + 130 * DAY)
    starts = begun(
        list(moments("daily")), random.Random(1), lambda one: not failed[0] <= one < failed[1]
    )
    for now in days():
        said = told(starts, now, None)
        if now < failed[0] or now > failed[1] + 8 * DAY:
            assert said == {}
        elif failed[0] + 4 * DAY <= now < failed[1]:
            assert said[Cause.OVERDUE] is Level.CRITICAL
