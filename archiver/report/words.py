"""Formats numbers, times and verdicts for people. Used by the page, Markdown and JUnit."""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta

from archiver.report.evidence import (
    Database,
    Evidence,
    FileEvidence,
    Outcome,
    Rpo,
    Rto,
    SetEvidence,
    Verdict,
)
from archiver.report.verdict import exposure_seconds
from archiver.times import format_iso

_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")


def printable(text: str) -> str:
    """Return ``text`` with unprintable characters replaced by U+FFFD, except newlines and tabs.

    That includes characters that change the direction of writing, and so the meaning of a text, and
    lone surrogates from file names.
    """
    return _UNPRINTABLE.sub("\ufffd", text)


def number(value: int) -> str:
    return f"{value:,}"


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def size(count: int) -> str:
    """Format a number of bytes in the largest fitting binary unit: ``1.4 GiB``."""
    if count < 1024:
        return f"{count} B"
    value = count / 1024
    unit = 0
    while value >= 1023.95 and unit < len(_UNITS) - 1:
        value /= 1024
        unit += 1
    return f"{value:.1f} {_UNITS[unit]}"


def duration(seconds: float) -> str:
    """Format seconds with at most two units: ``0.42 s``, ``3 h 12 min``, ``12 d 4 h``."""
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for large, small, words in ((86400, 3600, "d h"), (3600, 60, "h min"), (60, 1, "min s")):
        if whole >= large:
            first, second = words.split()
            rest = whole % large // small
            return (
                f"{whole // large} {first} {rest} {second}" if rest else f"{whole // large} {first}"
            )
    return f"{whole} s"


def moment(value: datetime) -> str:
    """Format a time as ISO 8601 in UTC, to the second."""
    return format_iso(value)


def relative(value: datetime, drill: datetime) -> str:
    """Format how long before or after the start of the ``drill`` a time was."""
    seconds = (drill - value) / timedelta(seconds=1)
    return f"{duration(abs(seconds))} {'before' if seconds >= 0 else 'after'} the drill"


def total_keys(databases: Sequence[Database] | None) -> int | None:
    """Return the number of keys in all databases; ``None`` if they were not counted."""
    return None if databases is None else sum(database.keys for database in databases)


def loaded_keys(files: Sequence[FileEvidence]) -> int:
    """Return the number of keys that the servers loaded from all files."""
    return sum(total_keys(file.loaded) or 0 for file in files)


def sampled_databases(files: Sequence[FileEvidence]) -> str:
    """List the databases that were counted from a sample, such as ``db-0 db3``."""
    return ", ".join(
        f"{file.node_id} db{database.index}"
        for file in files
        for database in file.loaded or ()
        if database.sampled
    )


def worst_rto(sets: Sequence[SetEvidence]) -> Rto | None:
    """Return the slowest recovery; one that did not end is the slowest."""
    return max((one.rto for one in sets), key=lambda rto: _or_endless(rto.seconds), default=None)


def worst_rpo(sets: Sequence[SetEvidence]) -> Rpo | None:
    """Return the largest exposure; an unknown one is the largest."""
    return max((one.rpo for one in sets), key=lambda rpo: _or_endless(exposure(rpo)), default=None)


def exposure(rpo: Rpo) -> float | None:
    """Return the seconds of data that could have been lost at the worst moment."""
    return exposure_seconds(rpo.newest_age_seconds, rpo.largest_gap)


def met(answer: bool | None) -> str:  # noqa: FBT001 - the value itself, not an option
    if answer is None:
        return "no target"
    return "met" if answer else "missed"


def tone(evidence: Evidence) -> str:
    """Return the verdict whose colour the drill as a whole has."""
    conclusion = evidence.conclusion
    if conclusion.verdict is Verdict.PASS and not conclusion.passed:
        return Verdict.FAIL.value
    return conclusion.verdict.value


def verdict_word(evidence: Evidence) -> str:
    """Return the verdict in one word: ``Pass`` for a pass only."""
    conclusion = evidence.conclusion
    if conclusion.verdict is Verdict.PASS and not conclusion.passed:
        return "Not passed"
    return conclusion.verdict.value.capitalize()


def headline(evidence: Evidence) -> str:
    """Summarize the drill in one or two sentences."""
    sets, conclusion = evidence.sets, evidence.conclusion
    if not sets:
        return "No backup set was drilled, so nothing was proven."
    good = conclusion.sets[Verdict.PASS.value]
    files = [file for one in sets for file in one.files]
    proof = f"{plural(len(files), 'file')}, {plural(loaded_keys(files), 'key')} counted"
    if good == len(sets):
        whole = "The backup set" if good == 1 else f"All {good} backup sets"
        restored = f"{whole} restored: {proof}."
    elif len(sets) == 1:
        restored = _one_not_passed(sets[0])
    else:
        others = [
            f"{conclusion.sets[word.value]} {_ADJECTIVES[word]}"
            for word in reversed(Verdict)
            if word is not Verdict.PASS and conclusion.sets[word.value]
        ]
        restored = f"{good} of {plural(len(sets), 'backup set')} passed; {', '.join(others)}."
        there = [one for one in sets if _is_restored(one) and one.verdict is not Verdict.PASS]
        if causes := _why_restored_failed(there):
            reasons = ", ".join(f"{what} ({n})" for what, n in causes.items())
            were = "was" if len(there) == 1 else "were"
            restored += (
                f" {plural(len(there), 'set')} {were} restored, but did not pass: {reasons}."
            )
    return " ".join([restored, *_remarks(evidence)])


def _is_restored(one: SetEvidence) -> bool:
    """Whether every node's file was verified, loaded and counted, whatever the set's verdict."""
    files = one.files
    return bool(files) and not one.nodes.missing and all(f.outcome is Outcome.PASS for f in files)


def _one_not_passed(one: SetEvidence) -> str:
    causes = _why_restored_failed([one] if _is_restored(one) else [])
    if causes:
        return f"The backup set was restored, but {', '.join(causes)}."
    return f"The backup set {'failed' if one.verdict is Verdict.FAIL else f'is {one.verdict}'}."


def _why_restored_failed(failed: Sequence[SetEvidence]) -> dict[str, int]:
    """Return why restored sets failed, with the number of sets for each reason."""
    causes = {
        "an assertion does not hold": [
            one for one in failed if any(a.holds is False for a in one.assertions)
        ],
        "the number of keys changed too much": [
            one for one in failed if one.comparison and not one.comparison.within_tolerance
        ],
        "there are no keys": [one for one in failed if not loaded_keys(one.files)],
    }
    return {what: len(those) for what, those in causes.items() if those}


_ADJECTIVES = {Verdict.FAIL: "failed", Verdict.PARTIAL: "partial", Verdict.UNLOADABLE: "unloadable"}


def _remarks(evidence: Evidence) -> list[str]:
    sets = evidence.sets
    remarks = []
    if len(sets) < evidence.selection.chosen:
        remarks.append(f"{evidence.selection.chosen - len(sets)} chosen but not drilled.")
    missed = [
        f"the {name} target in {plural(answers.count(False), 'set')}"
        for name, answers in (
            ("RTO", [one.rto.met for one in sets]),
            ("RPO", [one.rpo.met for one in sets]),
        )
        if False in answers
    ]
    if missed:
        remarks.append(f"Missed: {', '.join(missed)}.")
    elif evidence.conclusion.targets_met:
        remarks.append("Within the targets.")
    if not all(one.teardown.is_clean for one in sets):
        remarks.append("The drill may have left something behind.")
    return remarks


def _or_endless(seconds: float | None) -> float:
    return float("inf") if seconds is None else seconds
