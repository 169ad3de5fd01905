"""Generates JUnit XML for CI systems from the JSON.

There is one ``testsuite`` per backup set and one for the drill as a whole. Only a pass passes:
unloadable, partial and untried are failures with their own type, never ``skipped``, because CI
systems show skipped tests as green.
"""

import hashlib
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass

from archiver.report.document import decode
from archiver.report.evidence import (
    Assertion,
    Evidence,
    FileEvidence,
    Outcome,
    SetEvidence,
    Verdict,
)
from archiver.report.words import duration, exposure, headline
from archiver.times import format_iso

# Characters that XML 1.0 cannot represent, not even as a character reference.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class _Case:
    """A test case; ``fault`` is the type of the failure, ``None`` for a pass."""

    name: str
    fault: str | None
    text: str
    seconds: float = 0.0


def to_junit(data: bytes) -> bytes:
    """Return the XML (UTF-8) for the evidence document ``data``.

    Raises IntegrityError, UnsupportedFormat.
    """
    evidence = decode(data)
    root = ET.Element("testsuites", {"name": _clean(f"restore drill {evidence.id}")})
    for one in evidence.sets:
        suite = _suite(root, one.key, list(_set_cases(one)))
        suite.set("timestamp", format_iso(evidence.started_at).removesuffix("Z"))
    fault = None if evidence.conclusion.passed else "not_passed"
    suite = _suite(root, "drill", [_Case("conclusion", fault, headline(evidence))])
    suite.insert(0, _properties(evidence, data))
    _add_up(root)
    ET.indent(root)
    text: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _set_cases(one: SetEvidence) -> Iterator[_Case]:
    fault = None if one.verdict is Verdict.PASS else one.verdict.value
    yield _Case("verdict", fault, one.why)
    for file in one.files:
        yield _file_case(file)
    for node in one.nodes.missing:
        yield _Case(f"file {node}", "missing", "the archive has no file of this node")
    for assertion in one.assertions:
        yield _assertion_case(assertion)
    yield _rto_case(one)
    yield _rpo_case(one)
    if one.comparison is not None:
        fault = None if one.comparison.within_tolerance else "beyond_tolerance"
        text = f"{one.comparison.keys_then} keys then, {one.comparison.keys_now} now"
        yield _Case(f"compared with {one.comparison.previous_id}", fault, text)
    clean = one.teardown.is_clean
    yield _Case(
        "teardown", None if clean else "left_behind", "processes or directories may be left"
    )


def _file_case(file: FileEvidence) -> _Case:
    fault = None if file.outcome is Outcome.PASS else file.outcome.value
    return _Case(f"file {file.node_id} {file.backup_id}", fault, file.reason)


def _assertion_case(assertion: Assertion) -> _Case:
    name = f"assertion {assertion.text} on {assertion.node_id or 'all nodes'}"
    if assertion.holds is None:
        return _Case(name, "not_evaluated", assertion.seen)
    return _Case(name, None if assertion.holds else "assertion", f"saw {assertion.seen}")


def _rto_case(one: SetEvidence) -> _Case:
    took = "it did not end" if one.rto.seconds is None else duration(one.rto.seconds)
    text = f"recovery: {took}; target: {_target(one.rto.target_seconds)}"
    return _Case("RTO", "rto" if one.rto.met is False else None, text, one.rto.seconds or 0.0)


def _rpo_case(one: SetEvidence) -> _Case:
    seconds = exposure(one.rpo)
    lost = "unknown" if seconds is None else duration(seconds)
    text = f"exposure: {lost}; target: {_target(one.rpo.target_seconds)}"
    return _Case("RPO", "rpo" if one.rpo.met is False else None, text)


def _target(seconds: float | None) -> str:
    return "none" if seconds is None else duration(seconds)


def _suite(root: ET.Element, name: str, cases: list[_Case]) -> ET.Element:
    suite = ET.SubElement(root, "testsuite", {"name": _clean(name)})
    for case in cases:
        node = ET.SubElement(
            suite,
            "testcase",
            {"classname": _clean(name), "name": _clean(case.name), "time": f"{case.seconds:.3f}"},
        )
        if case.fault is not None:
            text = _clean(case.text)
            ET.SubElement(node, "failure", {"type": case.fault, "message": text}).text = text
    failures = sum(case.fault is not None for case in cases)
    suite.attrib |= {
        "tests": str(len(cases)),
        "failures": str(failures),
        "errors": "0",
        "skipped": "0",
        "time": f"{sum(case.seconds for case in cases):.3f}",
    }
    return suite


def _properties(evidence: Evidence, data: bytes) -> ET.Element:
    properties = ET.Element("properties")
    for name, value in (
        ("id", evidence.id),
        ("archive", evidence.archive.where),
        ("verdict", evidence.conclusion.verdict.value),
        ("tool", f"{evidence.tool.name} {evidence.tool.version}"),
        ("evidence_sha256", hashlib.sha256(data).hexdigest()),
        *((f"acknowledged {one.subject}", one.reason) for one in evidence.acknowledged),
    ):
        ET.SubElement(properties, "property", {"name": _clean(name), "value": _clean(value)})
    return properties


def _add_up(root: ET.Element) -> None:
    for name in ("tests", "failures", "errors", "skipped"):
        root.set(name, str(sum(int(suite.get(name, "0")) for suite in root)))
    root.set("time", f"{sum(float(suite.get('time', '0')) for suite in root):.3f}")


def _clean(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)
