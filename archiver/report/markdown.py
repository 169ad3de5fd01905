"""Generates Markdown for a ticket or a wiki (with GitHub's and GitLab's tables) from the JSON."""

import hashlib
import re
from collections.abc import Iterator, Sequence

from archiver.report.document import decode
from archiver.report.evidence import Evidence, FileEvidence, SetEvidence
from archiver.report.words import (
    duration,
    exposure,
    headline,
    loaded_keys,
    met,
    moment,
    number,
    printable,
    relative,
    sampled_databases,
    size,
    total_keys,
    verdict_word,
    worst_rpo,
    worst_rto,
)

_UNKNOWN = "-"
_SPECIAL = re.compile(r"[\\`*_{}\[\]|~#$]")
_BREAKS = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]+")


def to_markdown(data: bytes) -> bytes:
    """Return the Markdown (UTF-8) for the evidence document ``data``.

    Raises IntegrityError, UnsupportedFormat.
    """
    evidence = decode(data)
    lines = [*_head(evidence), *_targets(evidence), *_sets_table(evidence)]
    for one in evidence.sets:
        lines += _set(one, evidence)
    lines += _acknowledged(evidence)
    lines += _origin(evidence, data)
    return printable("\n".join(lines) + "\n").encode()


def escape(text: str) -> str:
    """Escape ``text`` so that Markdown and HTML show it literally, on one line."""
    plain = _SPECIAL.sub(r"\\\g<0>", _BREAKS.sub(" ", text))
    return plain.replace("&", "&amp;").replace("<", "&lt;")


def _head(evidence: Evidence) -> Iterator[str]:
    yield f"# Restore drill {evidence.id}: {verdict_word(evidence)}"
    yield ""
    yield f"**{escape(headline(evidence))}**"
    yield ""
    yield f"- Archive: {escape(evidence.archive.where)}"
    took = duration((evidence.finished_at - evidence.started_at).total_seconds())
    yield f"- Drilled: {moment(evidence.started_at)}, for {took}"
    who = "@".join(part for part in (evidence.who.user, evidence.who.host) if part)
    yield f"- By: {escape(who) or 'withheld'}, {escape(_tool(evidence))}"
    yield f"- Exit code: {evidence.conclusion.exit_code}"


def _tool(evidence: Evidence) -> str:
    return f"{evidence.tool.name} {evidence.tool.version}"


def _targets(evidence: Evidence) -> list[str]:
    rows = []
    if rto := worst_rto(evidence.sets):
        took = "did not end" if rto.seconds is None else duration(rto.seconds)
        rows.append(("RTO, slowest set", took, _or_none(rto.target_seconds), met(rto.met)))
    if rpo := worst_rpo(evidence.sets):
        lost = exposure(rpo)
        words = "unknown" if lost is None else duration(lost)
        rows.append(("RPO, largest exposure", words, _or_none(rpo.target_seconds), met(rpo.met)))
    return ["", *_table(("", "Measured", "Target", ""), rows)]


def _or_none(seconds: float | None) -> str:
    return "none" if seconds is None else duration(seconds)


def _sets_table(evidence: Evidence) -> list[str]:
    rows = [
        (
            escape(one.instance_id),
            moment(one.started_at),
            f"**{one.verdict}**",
            escape(one.why),
            _UNKNOWN if one.rto.seconds is None else duration(one.rto.seconds),
            number(loaded_keys(one.files)),
        )
        for one in evidence.sets
    ]
    head = ("Instance", "Backup started", "Verdict", "Why", "RTO", "Keys counted")
    return ["", "## Backup sets", "", *_table(head, rows)]


def _set(one: SetEvidence, evidence: Evidence) -> list[str]:
    age = relative(one.started_at, evidence.started_at)
    lines = ["", f"### {escape(one.key)}: {one.verdict}", ""]
    lines.append(f"Backup started {moment(one.started_at)} ({age}).")
    if one.nodes.missing:
        lines.append(f"Nodes missing: {escape(', '.join(one.nodes.missing))}.")
    if sampled := sampled_databases(one.files):
        lines.append(f"Types and expiries counted from a sample: {escape(sampled)}.")
    if not one.teardown.is_clean:
        lines.append("Teardown not proven: processes or directories may be left.")
    head = ("Node", "Outcome", "Reason", "Size", "Keys parsed", "Keys loaded", "SHA-256")
    lines += ["", *_table(head, [_file_row(file) for file in one.files])]
    if one.assertions:
        rows = [
            (escape(a.text), escape(a.node_id or "all"), _holds(a.holds), escape(a.seen))
            for a in one.assertions
        ]
        lines += ["", *_table(("Assertion", "Node", "Holds", "Seen"), rows)]
    if compared := one.comparison:
        verdict = "within" if compared.within_tolerance else "**beyond**"
        then, now = number(compared.keys_then), number(compared.keys_now)
        text = f"{compared.previous_id}: {then} keys then, {now} now, {verdict} the tolerance"
        lines += ["", f"Compared with {text}."]
    return lines


def _acknowledged(evidence: Evidence) -> list[str]:
    """The table of acknowledged sets and backups; no lines if there are none."""
    rows = [
        (escape(a.subject), moment(a.at), escape(a.by or "withheld"), escape(a.reason))
        for a in evidence.acknowledged
    ]
    return ["", "## Acknowledged", "", *_table(("What", "When", "By", "Why"), rows)] if rows else []


def _file_row(file: FileEvidence) -> Sequence[str]:
    return (
        escape(file.node_id),
        f"**{file.outcome}**",
        escape(file.reason),
        f"{size(file.size)} ({number(file.size)})",
        _count(total_keys(file.parsed)),
        _count(total_keys(file.loaded)),
        f"`{file.sha256}`",
    )


def _count(keys: int | None) -> str:
    return _UNKNOWN if keys is None else number(keys)


def _holds(answer: bool | None) -> str:  # noqa: FBT001 - the value itself, not an option
    if answer is None:
        return "**not evaluated**"
    return "yes" if answer else "**no**"


def _origin(evidence: Evidence, data: bytes) -> Iterator[str]:
    chosen = evidence.selection
    yield ""
    yield "## How to check"
    yield ""
    seed = "" if chosen.seed is None else f", seed {escape(chosen.seed)}"
    yield f"- Selection: {chosen.mode}{seed}; {chosen.chosen} of {number(chosen.available)} sets"
    own = hashlib.sha256(data).hexdigest()
    yield f"- This evidence: `sha256sum {evidence.id}.json` gives `{own}`"
    if evidence.previous is None:
        yield "- Previous evidence: none, this is the first of the chain"
    else:
        yield f"- Previous evidence: {evidence.previous.id}, SHA-256 `{evidence.previous.sha256}`"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
    return lines if rows else ["None."]
