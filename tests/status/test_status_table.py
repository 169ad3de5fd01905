"""The judgement of an instance, as a table: what is known of it, and what is said."""

from datetime import UTC, datetime, timedelta

import pytest

from archiver.commands.status.expected import SELDOMEST, expected
from archiver.commands.status.judge import (
    Cause,
    DrillFacts,
    InstanceFacts,
    Level,
    Limits,
    SetFacts,
    SetState,
    Unarchived,
    judge,
)
from archiver.model import InstanceDescription, Schedule

NOW = datetime(2026, 11, 28, 18, 45, tzinfo=UTC)  # a Saturday
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
DAILY = Schedule(tuple(range(7)), 120, kept_days=7)
WEEKLY = Schedule((6,), 120, kept_days=7)  # on Sundays
WORKDAYS = Schedule((0, 1, 2, 3, 4), 120, kept_days=7)
WEEKENDS = Schedule((5, 6), 120, kept_days=7)
EARLY = Schedule((0, 1), 120, kept_days=7)  # on Mondays and Tuesdays


def at(days_ago: float, hour: int = 2) -> datetime:
    return NOW.replace(hour=hour, minute=10) - days_ago * DAY


def sets(
    *starts: datetime, state: SetState = SetState.COMPLETE, why: str = ""
) -> tuple[SetFacts, ...]:
    return tuple(
        SetFacts(f"r-bp1/2026/11/{start:%Y%m%dT%H%M%SZ}-1", start, 1000, state, why)
        for start in sorted(starts)
    )


def described(schedule: Schedule | None = DAILY, **more: object) -> InstanceDescription:
    return InstanceDescription("r-bp1", NOW - HOUR, schedule=schedule, **more)  # type: ignore[arg-type]


def said(facts: InstanceFacts, limits: Limits | None = None) -> dict[Cause, Level]:
    judgement = judge(facts, limits or Limits(), NOW)
    return {reason.cause: reason.level for reason in judgement.reasons}


DAYS = tuple(at(days) for days in range(30))
SUNDAYS = tuple(at(6 + 7 * week) for week in range(6))
SATURDAYS = tuple(at(7 + 7 * week) for week in range(6))
WORKING = tuple(day for day in DAYS if day.weekday() < 5)
TWICE = tuple(at(days, hour) for days in range(30) for hour in (2, 14))
LONG_AGO = NOW - 40 * DAY
# Around the midnight after Sunday, before it and after it in turn.
MIDNIGHTS = tuple(
    datetime(2026, 11, 23, 0, 20, tzinfo=UTC) - 7 * week * DAY - week % 2 * HOUR
    for week in range(6)
)

TABLE = {
    "daily by its policy": (InstanceFacts("r-bp1", sets(*DAYS), described=described()), {}),
    "daily, a little before its time": (
        InstanceFacts(
            "r-bp1", sets(*(day - HOUR / 2 for day in DAYS)), described=described()
        ),
        {},
    ),
    "daily by its history": (InstanceFacts("r-bp1", sets(*DAYS)), {}),
    "weekly by its policy": (
        InstanceFacts("r-bp1", sets(SUNDAYS[0]), described=described(WEEKLY)),
        {},
    ),
    "weekly by its history": (InstanceFacts("r-bp1", sets(*SUNDAYS)), {}),
    "weekly with two backups": (InstanceFacts("r-bp1", sets(*SUNDAYS[:2])), {}),
    "one backup of today": (InstanceFacts("r-bp1", sets(at(0))), {}),
    "on working days by its history": (InstanceFacts("r-bp1", sets(*WORKING)), {}),
    "twice a day": (InstanceFacts("r-bp1", sets(*TWICE)), {}),
    "twice a day, and none since yesterday at 2": (
        InstanceFacts("r-bp1", sets(*TWICE[2:])[:-1]),
        {Cause.OVERDUE: Level.CRITICAL},
    ),
    "daily, and none since yesterday": (
        InstanceFacts("r-bp1", sets(*DAYS[1:]), described=described()),
        {Cause.OVERDUE: Level.WARNING},
    ),
    "daily, and none for four days": (
        InstanceFacts("r-bp1", sets(*DAYS[4:]), described=described()),
        {Cause.OVERDUE: Level.CRITICAL},
    ),
    "weekly, and none for eleven days": (
        InstanceFacts("r-bp1", sets(*SUNDAYS[1:]), described=described(WEEKLY)),
        {Cause.OVERDUE: Level.WARNING},
    ),
    "the day before yesterday is missing": (
        InstanceFacts("r-bp1", sets(*DAYS[:2], *DAYS[3:]), described=described()),
        {Cause.GAP: Level.WARNING},
    ),
    "a day that nobody can fetch any more is missing": (
        InstanceFacts("r-bp1", sets(*DAYS[:9], *DAYS[10:]), described=described()),
        {},
    ),
    "a policy that is daily since today": (
        InstanceFacts(
            "r-bp1",
            sets(*SUNDAYS, at(0)),
            described=described(Schedule(tuple(range(7)), 120, 7, since=NOW - DAY)),
        ),
        {},
    ),
    "never, and made long ago": (
        InstanceFacts("r-bp1", described=described(created_at=LONG_AGO)),
        {Cause.NEVER: Level.CRITICAL},
    ),
    "never, and nobody knows when it was made": (
        InstanceFacts("r-bp1", described=described()),
        {Cause.NEVER: Level.WARNING},
    ),
    "on weekends by its policy": (
        InstanceFacts("r-bp1", sets(at(0), *SUNDAYS, *SATURDAYS), described=described(WEEKENDS)),
        {},
    ),
    "on weekends, and no Sunday came": (
        InstanceFacts("r-bp1", sets(at(0), *SATURDAYS), described=described(WEEKENDS)),
        {Cause.GAP: Level.WARNING},
    ),
    "on Mondays and Tuesdays, and this week's Tuesday did not come": (
        InstanceFacts("r-bp1", sets(at(5), at(11), at(12)), described=described(EARLY)),
        {Cause.OVERDUE: Level.CRITICAL},
    ),
    "on Mondays and Tuesdays, and both came": (
        InstanceFacts("r-bp1", sets(at(4), at(5), at(11), at(12)), described=described(EARLY)),
        {},
    ),
    "a log is damaged": (
        InstanceFacts("r-bp1", sets(*DAYS), damage=("r-bp1/2026/11/x.aof: it is missing",)),
        {Cause.DAMAGED: Level.CRITICAL},
    ),
    "never, and made today": (
        InstanceFacts("r-bp1", described=described(created_at=NOW - HOUR)),
        {},
    ),
    "nothing is known of it": (InstanceFacts("r-bp1"), {Cause.NEVER: Level.WARNING}),
    "the vendor makes none": (
        InstanceFacts("r-bp1", described=described(created_at=LONG_AGO, no_backups="STAND_ALONE")),
        {},
    ),
    "gone since last week": (
        InstanceFacts("r-bp1", sets(*DAYS[8:]), described=described(gone_at=NOW - 7 * DAY)),
        {Cause.GONE: Level.WARNING},
    ),
    "gone for two months": (
        InstanceFacts("r-bp1", sets(*DAYS[8:]), described=described(gone_at=NOW - 60 * DAY)),
        {},
    ),
    "damaged": (
        InstanceFacts("r-bp1", sets(*DAYS) + sets(at(3), state=SetState.DAMAGED)),
        {Cause.DAMAGED: Level.CRITICAL},
    ),
    "the newest is damaged": (
        InstanceFacts("r-bp1", sets(*DAYS[1:]) + sets(at(0), state=SetState.DAMAGED)),
        {Cause.DAMAGED: Level.CRITICAL, Cause.OVERDUE: Level.WARNING},
    ),
    "yesterday's lacks a node": (
        InstanceFacts(
            "r-bp1",
            sets(at(1), state=SetState.INCOMPLETE, why="it lacks db-2") + sets(DAYS[0], *DAYS[2:]),
        ),
        {Cause.INCOMPLETE: Level.WARNING, Cause.GAP: Level.WARNING},
    ),
    "a drill failed after one passed": (
        InstanceFacts(
            "r-bp1",
            sets(*DAYS),
            drill=DrillFacts("d2", NOW - DAY, passed=False, verdict="fail"),
            passed=DrillFacts("d1", NOW - 8 * DAY, passed=True, verdict="pass"),
        ),
        {Cause.DRILL_FAILED: Level.CRITICAL},
    ),
    "something unarchived is deleted tomorrow": (
        InstanceFacts("r-bp1", sets(*DAYS), unarchived=(Unarchived(at(6), NOW + DAY),)),
        {Cause.EXPIRING: Level.CRITICAL},
    ),
    "something unarchived is deleted next week": (
        InstanceFacts("r-bp1", sets(*DAYS), unarchived=(Unarchived(at(0), NOW + 6 * DAY),)),
        {},
    ),
    "all is archived": (InstanceFacts("r-bp1", sets(*DAYS), unarchived=()), {}),
    "its subscription ends": (
        InstanceFacts("r-bp1", sets(*DAYS), described=described(ends_at=NOW + 5 * DAY)),
        {Cause.ENDING: Level.WARNING},
    ),
    "its newest backup is of tomorrow": (
        InstanceFacts("r-bp1", sets(*DAYS, NOW + DAY)),
        {Cause.OVERDUE: Level.WARNING},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_what_is_said_of_an_instance(name: str) -> None:
    facts, reasons = TABLE[name]
    assert said(facts) == reasons


@pytest.mark.parametrize(
    ("facts", "reasons"),
    [
        (InstanceFacts("r-bp1", sets(*DAYS[40:], at(50), *DAYS)), {Cause.DRILL_OLD: Level.WARNING}),
        (
            InstanceFacts("r-bp1", sets(*SUNDAYS), verified_at=NOW - 5 * DAY),
            {Cause.VERIFY_OLD: Level.WARNING, Cause.DRILL_OLD: Level.WARNING},
        ),
        (
            InstanceFacts(
                "r-bp1",
                sets(*SUNDAYS),
                verified_at=NOW - DAY,
                passed=DrillFacts("d1", NOW - DAY, passed=True, verdict="pass"),
            ),
            {},
        ),
        (InstanceFacts("r-bp1", described=described(no_backups="STAND_ALONE")), {}),
    ],
)
def test_a_verify_and_a_drill_are_asked_for(
    facts: InstanceFacts, reasons: dict[Cause, Level]
) -> None:
    assert said(facts, Limits(verify_within=3 * DAY, drill_within=3 * DAY)) == reasons


def test_how_bad_it_is_depends_on_multiples_of_the_interval() -> None:
    facts = InstanceFacts("r-bp1", sets(*DAYS[2:]), described=described())
    for warning, critical, level in [
        (1.5, 3, Level.WARNING),
        (1.5, 2, Level.CRITICAL),
        (4, 9, None),
    ]:
        limits = Limits(warning=warning, critical=critical)
        assert said(facts, limits).get(Cause.OVERDUE) == level


def test_what_an_archive_lacks_is_lost_when_its_retention_ends() -> None:
    late = InstanceFacts("r-bp1", sets(*DAYS[4:]), described=described())
    assert judge(late, Limits(), NOW).loss_at == at(3).replace(minute=0) + 7 * DAY
    fresh = InstanceFacts("r-bp1", sets(*DAYS), described=described())
    assert judge(fresh, Limits(), NOW).loss_at is None


def test_gaps_are_the_moments_without_a_set() -> None:
    facts = InstanceFacts("r-bp1", sets(*DAYS[:9], *DAYS[11:]), described=described())
    assert judge(facts, Limits(), NOW).gaps == tuple(at(days).replace(minute=0) for days in (10, 9))


@pytest.mark.parametrize(
    ("starts", "minutes", "interval"),
    [
        (DAYS, 7, DAY),
        (SUNDAYS, 1, 7 * DAY),
        ((*DAYS, at(3, 15)), 7, DAY),  # one more, made by hand
        (WORKING, 5, DAY),
        (TWICE, 14, DAY / 2),
        (tuple(NOW - hour * HOUR for hour in range(200)), 0, HOUR),
        (DAYS[:4], 0, DAY),
        (tuple(NOW - 26 * hour * HOUR for hour in range(40)), 0, 26 * HOUR),
        (tuple(day for day in DAYS if day not in DAYS[3:9]), 7, DAY),
        (MIDNIGHTS, 1, 7 * DAY),
        (DAYS[:1], 0, 7 * DAY),
        ((), 0, 7 * DAY),
    ],
)
def test_a_rhythm_is_learnt(
    starts: tuple[datetime, ...], minutes: int, interval: timedelta
) -> None:
    rhythm = expected(None, sorted(starts), NOW)
    assert (len(rhythm.minutes), rhythm.interval) == (minutes, interval)
    assert (rhythm.known_from == SELDOMEST) == (len(starts) < 3)
