"""Assertions over the nodes of a set."""

import pytest

from archiver.commands.drill import parse
from archiver.commands.drill.assertions import AssertionResult
from archiver.commands.drill.judgement import combine


def on(*answers: tuple[bool, str] | None) -> list[AssertionResult | None]:
    """What nodes answered: whether it holds, and what was seen; a node without the key saw
    "missing" or "no such key"."""
    absent = ("missing", "no such key")
    return [a and AssertionResult("", *a, has_key=a[1] not in absent) for a in answers]


NO, GONE, HERE = (False, "no such key"), (False, "missing"), (True, "exists")


@pytest.mark.parametrize(
    ("text", "answers", "holds", "shown"),
    [
        ("dbsize >= 10", on((False, "4"), (False, "6")), True, "10"),
        ("dbsize >= 11", on((False, "4"), (False, "6")), False, "10"),
        ("dbsize == 4", on((True, "4"), (False, "6")), False, "10"),
        ("dbsize >= 4", on((True, "4"), (False, "NOPERM")), False, "NOPERM"),
        ("dbsize >= 1", on((True, "5")), True, "5"),
        ("exists a", on(GONE, HERE), True, "exists"),
        ("exists a", on(HERE, HERE), True, "exists"),
        ("exists a", on(GONE, GONE), False, "no node has key a"),
        ("exists a", on(GONE), False, "no node has key a"),
        ("exists a", on(HERE, None), None, "not loaded"),
        ("exists a", [], None, "not loaded"),
        ("missing a", on((True, "missing"), (False, "exists")), False, "exists"),
        ("missing a", on((False, "exists"), (False, "exists")), False, "exists"),
        ("missing a", on((True, "missing"), (True, "missing")), True, "missing"),
        ("get a == 1", on(NO, (True, "1")), True, "1"),
        ("get a != 1", on(NO, (False, "1")), False, "1"),
        ("get a == 1", on((True, "1"), (False, "2")), False, "2"),
        ("get a == 1", on(NO, NO), False, "no node has key a"),
        ("type a != list", on(NO, (False, "list"), NO), False, "list"),
        ("type a == none", on(NO, NO), False, "no node has key a"),
        ("ttl a < 0", on(NO, (False, "50")), False, "50"),
        ("ttl a < 0", on(NO, NO), False, "no node has key a"),
        ("hlen a <= 3", on(NO, (False, "50"), NO), False, "50"),
        ("hlen a <= 3", on((True, "2"), (False, "50")), False, "50"),
        ("hlen a <= 3", on((True, "2"), NO, (True, "3")), True, "2"),
        ("hlen a <= 3", on(NO, (False, "WRONGTYPE")), False, "WRONGTYPE"),
        ("hlen a <= 3", on(NO, NO), False, "no node has key a"),
        ('llen "a b" == 0', on(NO), False, 'no node has key "a b"'),
        ("scard a < 9", on(NO, NO), False, "no node has key a"),
        ("zcard a >= 0", on(NO, NO), False, "no node has key a"),
        ("xlen a == 0", on(NO, NO), False, "no node has key a"),
        ("strlen a != 1", on(NO, NO), False, "no node has key a"),
    ],
)
def test_a_set_is_one_body_of_data(
    text: str, answers: list[AssertionResult | None], holds: bool | None, shown: str
) -> None:
    found = combine(parse(text), answers)
    assert (found.holds, found.seen) == (holds, shown)
