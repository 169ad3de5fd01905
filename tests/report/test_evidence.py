"""Writing and reading the document, and the rules that it must not contradict."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from archiver.errors import IntegrityError, UnsupportedFormat
from archiver.report.document import decode, encode, to_document
from archiver.report.evidence import (
    ArchivePlace,
    Evidence,
    Nodes,
    Outcome,
    Teardown,
    Verdict,
    without_secrets,
)
from archiver.report.verdict import (
    candidates_sha256,
    conclude,
    largest_gap,
    measure_rpo,
    measure_rto,
    recovery_seconds,
)
from examples import drill_evidence as example
from tests.report import hostile


@pytest.mark.parametrize("make", [example.first, example.second, hostile.evidence])
def test_what_is_written_is_read_back(make: Callable[[], Evidence]) -> None:
    evidence = make()
    data = encode(evidence)
    assert decode(data) == evidence
    assert encode(decode(data)) == data


def test_the_bytes_are_ascii_and_end_in_a_newline() -> None:
    data = encode(hostile.evidence())
    assert data.isascii()
    assert data.endswith(b"}\n")


def test_the_document_uses_the_published_words() -> None:
    document = to_document(example.second())
    assert (document["format"], document["kind"]) == (1, "drill")
    assert document["started_at"] == "2026-11-24T05:27:30.000000Z"
    assert [one["verdict"] for one in document["sets"]] == ["pass", "partial", "unloadable", "fail"]
    assert document["conclusion"]["sets"] == {"pass": 1, "unloadable": 1, "partial": 1, "fail": 1}
    assert document["sets"][0]["files"][0]["crc64ecma"].isdecimal()
    assert document["conclusion"]["exit_code"] == 1


def altered(**paths: Any) -> bytes:
    """The passing example with values replaced: ``sets__0__key="x"``."""
    document = to_document(example.first())
    for path, value in paths.items():
        *way, last = [int(step) if step.isdecimal() else step for step in path.split("__")]
        place: Any = document
        for step in way:
            place = place[step]
        if value is ...:
            del place[last]
        else:
            place[last] = value
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("id", "20261124T021500Z", "id: not a drill id"),
        ("kind", "backup", "kind"),
        ("format", True, "format"),
        ("started_at", "2026-11-24T05:27:30Z", "started_at: not a UTC time"),
        ("started_at", "2026-13-24T05:27:30.000000Z", "month"),
        ("started_at", "2026-11-24T05:27:30.000000Z\n", "started_at"),
        ("sets__0__files__0__size", -1, r"sets\[0\].files\[0\].size: not a number of 0 or more"),
        ("sets__0__files__0__size", 1.5, "whole number"),
        ("sets__0__files__0__size", True, "whole number"),
        ("sets__0__files__0__sha256", "AB", "64 lower-case"),
        ("sets__0__files__0__verified", 1, "true or false"),
        ("sets__0__phases__read", "4", "not a number"),
        ("sets__0__phases__read", float("nan"), "NaN is not a number"),
        ("sets__0__phases__read", ..., "sets\\[0\\].phases.read: missing"),
        ("sets__0__color", "red", "sets\\[0\\].color: not a field"),
        ("sets__0__verdict", "skipped", "skipped"),
        ("sets", {}, "sets: not a list"),
        ("tool", None, "tool: not an object"),
        ("archive__where", "s3://key:secret@host/bucket", "credentials"),
    ],
)
def test_what_is_wrong_is_named(path: str, value: Any, says: str) -> None:
    with pytest.raises(IntegrityError, match=says):
        decode(altered(**{path: value}), "drills/x.json")


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"format": 1e999}', b"9" * 5000]
)
def test_what_is_not_a_document_is_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError, match=r"drills/x\.json: "):
        decode(data, "drills/x.json")


def test_a_name_given_twice_is_refused() -> None:
    data = encode(example.first()).replace(b'"exit_code": 0', b'"exit_code": 0, "exit_code": 0')
    with pytest.raises(IntegrityError, match="exit_code: twice"):
        decode(data)


def test_a_newer_format_is_not_called_corrupt() -> None:
    with pytest.raises(UnsupportedFormat, match="format 3"):
        decode(altered(format=3, sets=7))


def tampered(**changes: Any) -> Evidence:
    """The passing example with changes to its only set, and the conclusion left as it was."""
    evidence = example.first()
    return replace(evidence, sets=(replace(evidence.sets[0], **changes),))


FILE = example.passing().files[0]


@pytest.mark.parametrize(
    ("evidence", "says"),
    [
        (tampered(verdict=Verdict.FAIL), "conclusion.verdict"),
        (tampered(nodes=Nodes(3, example.passing().nodes.present, ("x",))), "nodes are missing"),
        (tampered(nodes=Nodes(4, example.passing().nodes.present, ())), "nodes are missing"),
        (tampered(files=()), "not those of the nodes"),
        (tampered(files=(replace(FILE, outcome=Outcome.UNTRIED),)), "is untried"),
        (tampered(files=(replace(FILE, verified=False),)), "was not verified"),
        (
            tampered(assertions=example.failing(example.SECOND).assertions),
            "assertion does not hold",
        ),
        (tampered(comparison=example.failing(example.SECOND).comparison), "beyond the tolerance"),
        (tampered(rto=measure_rto(None, 120.0)), "the recovery did not end"),
        (tampered(rto=measure_rto(1.0, 60.0)), "rto: does not follow"),
        (tampered(rpo=replace(example.passing().rpo, met=False)), "rpo: does not follow"),
        (tampered(teardown=Teardown(True, True, False)), "conclusion.passed"),
        (replace(example.first(), sets=()), "conclusion.verdict"),
        (replace(example.first(), finished_at=example.FIRST - timedelta(1)), "finished_at"),
        (replace(example.first(), sets=example.first().sets * 2), "more sets than chosen"),
        (replace(example.second(), id=example.first().id), "previous.id"),
        (
            replace(example.first(), selection=replace(example.first().selection, seed=None)),
            "selection.seed",
        ),
        (
            replace(example.second(), conclusion=replace(example.second().conclusion, exit_code=0)),
            "conclusion.exit_code",
        ),
        (
            replace(example.first(), conclusion=replace(example.first().conclusion, exit_code=3)),
            "conclusion.exit_code",
        ),
    ],
)
def test_evidence_that_contradicts_itself_is_neither_written_nor_read(
    evidence: Evidence, says: str
) -> None:
    with pytest.raises(IntegrityError, match=says):
        encode(evidence)
    with pytest.raises(IntegrityError, match=says):
        decode(json.dumps(to_document(evidence)).encode())


def test_an_address_keeps_no_secret() -> None:
    assert without_secrets("s3://key:secret@host:9000/b?token=x#y") == "s3://host:9000/b"
    assert without_secrets("/srv/back@ups?") == "/srv/back@ups?"
    with pytest.raises(ValueError, match="credentials") as caught:
        ArchivePlace("s3://key:secret@host/b", 1)
    assert "secret@" not in str(caught.value)


class TestConclusion:
    def test_only_pass_passes(self) -> None:
        for other in (example.partial, example.unloadable, example.failing):
            evidence = example.drill(
                example.SECOND, example.passing(example.SECOND), other(example.SECOND)
            )
            assert not evidence.conclusion.passed
            assert evidence.conclusion.exit_code == 1
        assert example.first().conclusion.exit_code == 0

    def test_the_worst_set_decides(self) -> None:
        assert example.second().conclusion.verdict is Verdict.FAIL
        mild = example.drill(
            example.SECOND, example.partial(example.SECOND), example.unloadable(example.SECOND)
        )
        assert mild.conclusion.verdict is Verdict.PARTIAL

    def test_a_drill_of_nothing_has_proven_nothing(self) -> None:
        nothing = example.drill(example.FIRST)
        assert nothing.conclusion.verdict is Verdict.FAIL
        assert nothing.conclusion.exit_code == 1
        assert decode(encode(nothing)) == nothing

    def test_a_missed_target_is_not_a_pass(self) -> None:
        one = replace(example.passing(), rto=measure_rto(121.0, 120.0))
        found = conclude(example.first().selection, [one], failure_exit_code=7)
        assert (found.verdict, found.passed, found.targets_met) == (Verdict.PASS, False, False)
        assert found.exit_code == 7

    def test_a_chosen_set_that_was_not_drilled_is_not_a_pass(self) -> None:
        selection = replace(example.first().selection, chosen=2)
        assert not conclude(selection, [example.passing()]).passed


def test_the_sets_to_choose_from_have_a_digest_that_a_shell_can_make() -> None:
    # printf 'a\\nb\\n' | sha256sum
    expected = "911169ddaaf146aff539f58c26c489af3b892dff0fe283c1c264c65ae5aa59a2"
    assert candidates_sha256(["b", "a"]) == expected


def test_a_time_without_a_zone_is_not_written() -> None:
    naive = replace(example.first(), reference_clock=example.FIRST.replace(tzinfo=None))
    with pytest.raises(IntegrityError, match="without a time zone"):
        encode(naive)


class TestMeasures:
    def test_a_target_that_is_just_met(self) -> None:
        assert measure_rto(120.0, 120.0).met is True
        assert measure_rto(120.1, 120.0).met is False

    def test_no_target_is_neither_met_nor_missed(self) -> None:
        assert measure_rto(1.0, None).met is None

    def test_a_recovery_that_did_not_end_misses_its_target(self) -> None:
        assert measure_rto(None, 120.0).met is False
        assert recovery_seconds(replace(example.ALL_PHASES, load=None)) is None

    def test_what_proves_the_recovery_is_not_part_of_it(self) -> None:
        slow_proof = replace(example.ALL_PHASES, census=900.0, assertions=900.0, tear_down=900.0)
        assert recovery_seconds(slow_proof) == recovery_seconds(example.ALL_PHASES)

    def test_the_age_of_an_old_set_drilled_on_purpose_does_not_count(self) -> None:
        found = measure_rpo(
            age_seconds=9e6, newest_age_seconds=60.0, largest_gap=None, target_seconds=90.0
        )
        assert found.met is True

    def test_the_largest_gap_counts(self) -> None:
        start = example.FIRST
        gap = largest_gap([start + timedelta(hours=h) for h in (50, 0, 24)], start)
        assert gap is not None
        assert (gap.seconds, gap.start) == (26 * 3600.0, start + timedelta(hours=24))
        found = measure_rpo(
            age_seconds=1.0, newest_age_seconds=1.0, largest_gap=gap, target_seconds=90_000.0
        )
        assert found.met is False
        assert largest_gap([start], start) is None

    def test_a_gap_that_is_long_over_does_not_count(self) -> None:
        starts = [example.FIRST + timedelta(days=days) for days in (0, 90, 91, 93)]
        widths = [
            gap and gap.seconds / 86_400
            for since in (90, 90.1, 91.1, 93.1)
            for gap in [largest_gap(starts, example.FIRST + timedelta(days=since))]
        ]
        assert widths == [90, 2, 2, None]

    def test_no_complete_set_misses_the_target(self) -> None:
        found = measure_rpo(
            age_seconds=1.0, newest_age_seconds=None, largest_gap=None, target_seconds=90.0
        )
        assert found.met is False
