from dataclasses import replace

import pytest

from archiver.report import words
from archiver.report.verdict import measure_rto
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
        "1 of 4 backup sets restored; 1 failed, 1 partial, 1 unloadable. "
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
