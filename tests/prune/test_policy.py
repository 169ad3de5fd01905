"""Which sets a policy keeps: by examples, and beside a plain reference."""

from datetime import UTC, datetime, timedelta
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.commands.prune.policy import Policy, PruneSet, plan
from archiver.commands.status.judge import SetState

NEWEST = datetime(2026, 11, 28, 2, 15, tzinfo=UTC)
DAY = timedelta(days=1)


def one(start: datetime, state: SetState = SetState.COMPLETE, *, is_log: bool = False) -> PruneSet:
    kind = "log" if is_log else "1"
    return PruneSet(f"r-bp1/{start:%Y/%m/%Y%m%dT%H%M%SZ}-{kind}", start, 1000, state, is_log)


def daily(count: int) -> list[PruneSet]:
    return [one(NEWEST - number * DAY) for number in range(count)]


def kept(sets: list[PruneSet], policy: Policy, **more: object) -> list[int]:
    """How many days before the newest those sets began that are kept."""
    decisions = plan(sets, policy, **more)  # type: ignore[arg-type]
    assert sorted(decision.set.key for decision in decisions) == sorted(one.key for one in sets)
    assert all(decision.reasons for decision in decisions)
    return [(NEWEST - decision.set.started_at).days for decision in decisions if decision.keeps]


@pytest.mark.parametrize(
    ("policy", "days"),
    [
        (Policy(last=3), [0, 1, 2]),
        (Policy(within=2 * DAY), [0, 1, 2]),
        (Policy(daily=3), [0, 1, 2]),
        (Policy(weekly=3), [0, 6, 13]),
        (Policy(monthly=3), [0, 28, 59]),
        (Policy(yearly=2), [0, 332]),
        (Policy(hourly=2), [0, 1]),
        (Policy(last=1, monthly=2), [0, 28]),
        (Policy(daily=500), list(range(400))),
        (Policy(), [0]),
    ],
)
def test_a_year_of_days(policy: Policy, days: list[int]) -> None:
    assert kept(daily(400), policy) == days


def test_why() -> None:
    [first, second, third, *_] = plan(daily(5), Policy(last=2, monthly=1))
    assert first.reasons == ("last 1 of 2", "monthly 1 of 1", "the newest complete set")
    assert (second.keeps, second.reasons) == (True, ("last 2 of 2",))
    assert (third.keeps, third.reasons) == (False, ("no rule keeps it",))


def test_what_somebody_holds_stays_and_what_passed_a_drill() -> None:
    sets = daily(10)
    assert kept(sets, Policy(last=1), held={sets[7].key: "audit"}, passed=sets[4].key) == [0, 4, 7]


def test_nothing_goes_that_is_older_than_damage() -> None:
    sets = daily(6)
    sets[2] = one(sets[2].started_at, SetState.DAMAGED)
    assert kept(sets, Policy(last=1)) == [0, 2, 3, 4, 5]


def test_what_is_incomplete_stays_until_a_newer_one_is_complete() -> None:
    sets = daily(6)
    sets[0] = one(sets[0].started_at, SetState.INCOMPLETE)
    sets[3] = one(sets[3].started_at, SetState.INCOMPLETE)
    assert kept(sets, Policy(last=2)) == [0, 1, 2]
    assert kept(sets, Policy(within=2 * DAY)) == [0, 1, 2, 3]


def test_only_incomplete_sets_all_stay() -> None:
    sets = [one(NEWEST - number * DAY, SetState.INCOMPLETE) for number in range(3)]
    assert kept(sets, Policy(last=1)) == [0, 1, 2]


def test_logs_go_with_the_dump_that_they_continue() -> None:
    logs = [one(NEWEST - number * DAY + DAY / 2, is_log=True) for number in range(4)]
    decisions = {one.set.key: one.keeps for one in plan([*daily(4), *logs], Policy(last=2))}
    assert [decisions[log.key] for log in logs] == [True, True, False, False]
    [alone] = plan([logs[0]], Policy(last=2))
    assert not alone.keeps


def test_an_empty_policy() -> None:
    assert Policy().is_empty
    assert not Policy(within=DAY).is_empty
    assert not Policy(yearly=1).is_empty


def reference(sets: list[PruneSet], policy: Policy) -> set[str]:
    """What stays of complete and other dumps, said another way."""
    whole = sorted(
        (each for each in sets if each.state is SetState.COMPLETE),
        key=lambda each: (each.started_at, each.key),
    )
    stays = {each.key for each in whole[-1:]} | {
        each.key for each in whole[len(whole) - min(policy.last, len(whole)) :]
    }
    if whole and policy.within is not None:
        stays |= {
            each.key
            for each in sets
            if each.state is not SetState.DAMAGED
            and each.started_at >= whole[-1].started_at - policy.within
        }
    formats = [
        ("%Y%m%d%H", policy.hourly),
        ("%Y%m%d", policy.daily),
        ("%G-%V", policy.weekly),
        ("%Y%m", policy.monthly),
        ("%Y", policy.yearly),
    ]
    for text, count in formats:
        groups = [
            list(members)[-1].key
            for _, members in groupby(whole, lambda each: each.started_at.strftime(text))  # noqa: B023
        ]
        stays |= set(groups[len(groups) - min(count, len(groups)) :])
    damaged = [each for each in sets if each.state is SetState.DAMAGED]
    if damaged:
        last = max((each.started_at, each.key) for each in damaged)
        stays |= {each.key for each in sets if (each.started_at, each.key) <= last}
    newest = (whole[-1].started_at, whole[-1].key) if whole else None
    stays |= {
        each.key
        for each in sets
        if each.state is SetState.INCOMPLETE
        and (newest is None or (each.started_at, each.key) > newest)
    }
    return stays


MINUTES = st.integers(0, 3 * 366 * 24 * 60)
STATES = st.sampled_from([SetState.COMPLETE] * 8 + [SetState.INCOMPLETE, SetState.DAMAGED])
COUNTS = st.integers(0, 5)


@given(
    st.lists(st.tuples(MINUTES, STATES), max_size=60, unique_by=lambda pair: pair[0]),
    st.builds(
        Policy,
        last=COUNTS,
        within=st.none() | st.integers(1, 60).map(lambda days: days * DAY),
        hourly=COUNTS,
        daily=COUNTS,
        weekly=COUNTS,
        monthly=COUNTS,
        yearly=COUNTS,
    ),
)
def test_it_is_what_a_plain_reference_says(
    history: list[tuple[int, SetState]], policy: Policy
) -> None:
    sets = [one(NEWEST - timedelta(minutes=minute), state) for minute, state in history]
    decisions = plan(sets, policy)
    assert {decision.set.key for decision in decisions if decision.keeps} == reference(sets, policy)
    assert [d.set.started_at for d in decisions] == sorted(
        (each.started_at for each in sets), reverse=True
    )
