"""Assertions over the nodes of a set."""

import pytest

from archiver.drill import AssertionResult, parse
from archiver.drill.judgement import combine


def seen(*answers: tuple[bool, str] | None) -> list[AssertionResult | None]:
    return [answer and AssertionResult("", *answer) for answer in answers]


@pytest.mark.parametrize(
    ("text", "answers", "holds", "shown"),
    [
        ("dbsize >= 10", seen((False, "4"), (False, "6")), True, "10"),
        ("dbsize >= 11", seen((False, "4"), (False, "6")), False, "10"),
        ("dbsize == 4", seen((True, "4"), (False, "6")), False, "10"),
        ("exists a", seen((False, "missing"), (True, "exists")), True, "exists"),
        ("exists a", seen((False, "missing"), (False, "missing")), False, "missing"),
        ("missing a", seen((True, "missing"), (False, "exists")), False, "exists"),
        ("get a == 1", seen((False, "no such key"), (True, "1")), True, "1"),
        ("exists a", seen((True, "exists"), None), None, "not loaded"),
        ("exists a", [], None, "not loaded"),
        ("dbsize >= 1", seen((True, "5")), True, "5"),
    ],
)
def test_a_set_is_one_body_of_data(
    text: str, answers: list[AssertionResult | None], holds: bool | None, shown: str
) -> None:
    found = combine(parse(text), answers)
    assert (found.holds, found.seen) == (holds, shown)
