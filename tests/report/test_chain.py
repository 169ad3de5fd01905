"""The chain finds what was done to it, and names where."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archiver.errors import IntegrityError
from archiver.report.chain import (
    Fault,
    beside,
    check_chain,
    evidence_key,
    is_evidence_key,
    link,
    new_id,
)
from archiver.report.document import decode, encode
from archiver.report.evidence import Link
from examples import drill_evidence as example

Documents = list[tuple[str, bytes]]


@cache
def chain(length: int = 5) -> tuple[tuple[str, bytes], ...]:
    found: Documents = []
    for number in range(length):
        found.append(follow(found[-1][1] if found else None, number))
    return tuple(found)


def follow(before: bytes | None, number: int) -> tuple[str, bytes]:
    """A document after ``before``."""
    drilled = datetime(2026, 12, 30, 6, tzinfo=UTC) + timedelta(days=number)
    evidence = example.drill(
        drilled, example.partial(drilled), previous=link(before) if before else None
    )
    return evidence_key(evidence.id), encode(evidence)


def faults(documents: Documents, *anchors: Link) -> list[tuple[Fault, str]]:
    return [(found.fault, found.key) for found in check_chain(documents, anchors=anchors)]


def test_a_whole_chain() -> None:
    assert faults([]) == []
    assert faults(list(chain())) == []
    keys = [key for key, _ in chain()]
    assert keys == sorted(keys)
    assert keys[0].startswith("drills/2026/12/20261230T")
    assert keys[-1].startswith("drills/2027/01/20270103T")


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_any_altered_byte_before_the_last_document_is_found(data: st.DataObject) -> None:
    documents = list(chain())
    place = data.draw(st.integers(0, len(documents) - 2))
    key, content = documents[place]
    at = data.draw(st.integers(0, len(content) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda b: b != content[at]))
    documents[place] = key, content[:at] + bytes([byte]) + content[at + 1 :]
    found = faults(documents)
    assert (Fault.ALTERED, key) in found


@given(st.sets(st.integers(0, 4), min_size=1, max_size=4))
def test_any_removed_document_but_at_the_end_is_found(gone: set[int]) -> None:
    documents = [pair for place, pair in enumerate(chain()) if place not in gone]
    kept = [place for place in range(5) if place not in gone]
    lost = {place for place in gone if place + 1 in kept}
    assert faults(documents) == [(Fault.MISSING, chain()[place][0]) for place in sorted(lost)]


@given(st.permutations(range(5)))
def test_any_other_order_is_found(order: list[int]) -> None:
    found = check_chain([chain()[place] for place in order])
    assert bool(found) == (order != sorted(order))


def test_a_fork_is_named() -> None:
    documents = list(chain(3))
    documents.append(follow(documents[0][1], 3))
    (found,) = check_chain(documents)
    assert (found.fault, found.key) == (Fault.FORKED, documents[3][0])
    assert decode(documents[1][1]).id in found.text


def test_a_second_beginning_is_named() -> None:
    assert faults([*chain(2), follow(None, 2)]) == [(Fault.RESTARTED, follow(None, 2)[0])]


def test_a_removed_beginning_is_named() -> None:
    assert faults(list(chain()[1:])) == [(Fault.MISSING, chain()[0][0])]


def test_an_unreadable_document_is_named_and_the_next_still_knows_it() -> None:
    documents = list(chain())
    documents[2] = documents[2][0], b"{}"
    assert set(faults(documents)) == {
        (Fault.UNREADABLE, documents[2][0]),
        (Fault.ALTERED, documents[2][0]),
    }
    documents = [*chain()[:-1], (chain()[-1][0], b"\x00")]
    assert faults(documents) == [(Fault.UNREADABLE, documents[-1][0])]


def test_a_document_under_a_false_name_is_named() -> None:
    documents = list(chain(3))
    documents[2] = documents[2][0].replace(".json", ".txt"), documents[2][1]
    assert faults(documents) == [(Fault.MISPLACED, documents[2][0])]
    documents[2] = "drills/2026/01/" + documents[2][0].rpartition("/")[2], documents[2][1]
    assert (Fault.MISPLACED, documents[2][0]) in faults(documents)


def test_an_anchor_shows_what_the_chain_cannot() -> None:
    documents = list(chain())
    anchor = link(documents[-1][1])
    assert faults(documents, anchor) == []
    forged = replace(decode(documents[-1][1]), who=replace(decode(documents[-1][1]).who, user="x"))
    documents[-1] = documents[-1][0], encode(forged)
    assert faults(documents) == []
    assert faults(documents, anchor) == [(Fault.ALTERED, documents[-1][0])]
    assert faults(documents[:-1], anchor) == [(Fault.MISSING, documents[-1][0])]


def test_what_cannot_be_read_cannot_be_linked_to() -> None:
    with pytest.raises(IntegrityError):
        link(b"{}")


def test_ids_ascend_even_if_the_clock_does_not() -> None:
    now = datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC)
    first = new_id(now, "ffffff")
    assert first == "20261231T235959Z-ffffff"
    assert new_id(now, "000000", after=first) == "20270101T000000Z-000000"
    assert new_id(now - timedelta(days=9), "000000", after=first) > first
    assert new_id(now + timedelta(hours=1), "000000", after=first) == "20270101T005959Z-000000"


def test_keys_beside_the_evidence() -> None:
    key = evidence_key("20261124T021500Z-3f9a1c")
    assert key == "drills/2026/11/20261124T021500Z-3f9a1c.json"
    assert beside(key, ".html") == "drills/2026/11/20261124T021500Z-3f9a1c.html"
    assert is_evidence_key(key)
    assert not is_evidence_key(key.replace("/11/", "/12/"))
    assert not is_evidence_key(beside(key, ".html"))
