"""JUnit goes red for everything that is not a pass."""

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from archiver.report.document import encode
from archiver.report.evidence import SetEvidence, Teardown
from archiver.report.junit import to_junit
from archiver.report.verdict import measure_rto
from examples import drill_evidence as example
from tests.report import hostile

NOW = example.SECOND


def faults(root: ET.Element) -> dict[str, str]:
    return {
        f"{case.get('classname')} {case.get('name')}": failure.get("type", "")
        for case in root.iter("testcase")
        for failure in case.iter("failure")
    }


def test_a_pass_is_green() -> None:
    root = ET.fromstring(to_junit(encode(example.first())))
    assert root.get("failures") == "0"
    assert root.get("tests") == str(len(list(root.iter("testcase")))) == "9"
    assert [suite.get("name") for suite in root] == [example.first().sets[0].key, "drill"]


def test_every_other_verdict_is_red_with_its_own_type() -> None:
    root = ET.fromstring(to_junit(encode(example.second())))
    found = set(faults(root).values())
    assert found == {
        "partial",
        "missing",
        "unloadable",
        "not_evaluated",
        "fail",
        "assertion",
        "rto",
        "rpo",
        "beyond_tolerance",
        "not_passed",
    }
    assert root.get("failures") == str(len(faults(root)))
    assert root.get("skipped") == "0"
    assert not list(root.iter("skipped"))
    ids = [case.get("name") for suite in root for case in suite.iter("testcase")]
    assert len(ids) == int(root.get("tests", ""))


@pytest.mark.parametrize(
    "one",
    [
        example.partial(NOW),
        example.unloadable(NOW),
        example.failing(NOW),
        replace(example.passing(NOW), rto=measure_rto(500.0, 120.0)),
        replace(example.passing(NOW), teardown=Teardown(True, True, False)),
    ],
)
def test_one_set_that_is_not_a_pass_is_enough(one: SetEvidence) -> None:
    others = [good for good in (example.passing(NOW),) if good.key != one.key]
    root = ET.fromstring(to_junit(encode(example.drill(NOW, *others, one))))
    red = [suite.get("name") for suite in root if suite.get("failures") != "0"]
    assert red == [one.key, "drill"]


def test_a_drill_of_nothing_is_red() -> None:
    root = ET.fromstring(to_junit(encode(example.drill(NOW))))
    assert faults(root) == {"drill conclusion": "not_passed"}


def test_what_xml_cannot_hold_is_replaced() -> None:
    data = to_junit(encode(hostile.evidence()))
    root = ET.fromstring(data)
    assert b"\x00" not in data
    assert b"<script" not in data
    assert any("\ufffd" in (case.get("name") or "") for case in root.iter("testcase"))
