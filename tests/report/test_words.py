from dataclasses import replace

import pytest

from archiver.commands.drill.missed import missed
from archiver.report import words
from archiver.report.verdict import measure_rpo, measure_rto
from examples import drill_evidence as example


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.00 s"),
        (9.99, "9.99 s"),
        (9.999, "10.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min"),
        (61, "1 min 1 s"),
        (3599.7, "1 h"),
        (11_520, "3 h 12 min"),
        (86_399.6, "1 d"),
        (1_051_200, "12 d 4 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (3 * 2**60, "3072.0 PiB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert words.size(count) == text


def test_the_headline_says_it_all() -> None:
    assert words.headline(example.first()) == (
        "The backup set restored: 3 files, 1,204,125 keys counted. Within the targets."
    )
    assert words.headline(example.second()) == (
        "1 of 4 backup sets passed; 1 failed, 1 partial, 1 unloadable. "
        "Missed: the RTO target in 2 sets, the RPO target in 1 set."
    )
    assert "nothing was proven" in words.headline(example.drill(example.FIRST))


def test_restored_but_too_slow_is_not_called_a_pass() -> None:
    one = replace(example.passing(), rto=measure_rto(121.0, 120.0))
    evidence = example.drill(example.FIRST, one)
    assert words.verdict_word(evidence) == "Not passed"
    assert words.tone(evidence) == "fail"
    assert "Missed: the RTO target in 1 set." in words.headline(evidence)


def test_a_recovery_that_did_not_end_is_the_slowest() -> None:
    found = words.worst_rto(example.second().sets)
    assert found is not None
    assert found.seconds is None


def test_each_target_that_was_missed_says_by_how_much() -> None:
    slow = replace(example.passing(), rto=measure_rto(121.0, 120.0))
    assert [str(one) for one in missed(example.drill(example.FIRST, slow))] == [
        f"rto: {slow.instance_id}: recovery of {slow.key} took 2 min 1 s, target 2 min"
    ]
    barely = replace(slow, rto=measure_rto(120.4, 120.0))
    [line] = map(str, missed(example.drill(example.FIRST, barely)))
    assert line.endswith(" took 2 min, 0.40 s more than the target of 2 min")
    rpo = measure_rpo(age_seconds=9, newest_age_seconds=None, largest_gap=None, target_seconds=60)
    unknown = replace(example.passing(), rpo=rpo)
    [line] = map(str, missed(example.drill(example.FIRST, unknown)))
    assert line.endswith(": no complete backup set of known age, target 1 min")
    lines = [str(one) for one in missed(example.second())]
    assert [line.partition(":")[0] for line in lines] == ["rto", "rto", "rpo"]
    assert sum(" did not end, target 2 min" in line for line in lines) == 1


def test_one_set_is_not_counted() -> None:
    failed = example.failing(example.FIRST)
    partial = example.partial(example.FIRST)
    for one, said in ((failed, "The backup set failed."), (partial, "The backup set is partial.")):
        assert words.headline(example.drill(example.FIRST, one)).startswith(said)
