"""Judges a file and a set by what was observed. Pure.

The verdict on a set is the first of these that applies:

fail         the archive contradicts a record or the SHA256SUMS; a file differs from its record, is
             damaged, or did not load although nothing shows that it is intact; counts differ by
             more than the tolerance; an assertion does not hold; there are no keys, which proves
             nothing, unless that is allowed
partial      a node has no file, or a file was not tried
unloadable   intact, but needs modules or another server
pass         otherwise
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from archiver import rdb
from archiver.archive.backupsets import BackupSet
from archiver.commands.drill.assertions import (
    WITHHELD,
    Assertion,
    AssertionResult,
    compare,
    left_side,
    parse,
    quote,
    without_value,
)
from archiver.commands.drill.outcome import Cause
from archiver.commands.drill.outcome import Outcome as ServerOutcome
from archiver.commands.drill.trial import Attempt, Trial
from archiver.model import Footer, Kind
from archiver.report import evidence
from archiver.report.evidence import Comparison, Difference, FileEvidence, Outcome, Verdict
from archiver.report.words import loaded_keys, total_keys

_DAMAGED = frozenset(
    {rdb.Verdict.CORRUPT, rdb.Verdict.TRUNCATED, rdb.Verdict.PADDED, rdb.Verdict.EMPTY}
)
# Begins the observation for a key that no node has.
_NO_KEY = "no node has key "


@dataclass(frozen=True, slots=True)
class Judgement:
    """The judgement on a file. ``is_damage``: its bytes are wrong, which is exit code 3."""

    outcome: Outcome
    reason: str
    is_damage: bool = False


def judge_file(
    inspection: rdb.Inspection, trial: Trial, difference: Difference | None, *, is_log: bool
) -> Judgement:
    """Judge a file whose bytes are those of its record.

    ``is_log``: the source says that it is a log, which may end anywhere.
    """
    may_be_cut = is_log and inspection.verdict is rdb.Verdict.TRUNCATED
    if inspection.verdict in _DAMAGED and not may_be_cut:
        return Judgement(Outcome.FAIL, f"{inspection.verdict}: {inspection.reason}", is_damage=True)
    attempt = trial.decisive
    if attempt.verdict.outcome is not ServerOutcome.LOADED:
        return _not_loaded(inspection, attempt)
    if why := _why_no_pass(trial, difference):
        return Judgement(Outcome.FAIL, why)
    if inspection.kind is Kind.AOF:
        how = f" up to its end: {inspection.reason}" if may_be_cut else ""
        why = f"verified and loaded{how}; the keys of a log are not compared"
        return Judgement(Outcome.PASS, why)
    if not comparable(inspection):
        why = f"verified and loaded; keys not compared: {inspection.reason}"
        return Judgement(Outcome.PASS, why)
    why = f"verified, loaded and counted as expected{_what_was_not_compared(trial)}"
    return Judgement(Outcome.PASS, why)


def comparable(inspection: rdb.Inspection) -> bool:
    """Whether the parser counted the whole file, so that the server's counts can be compared."""
    return (
        inspection.kind is Kind.RDB
        and inspection.contents is not None
        and inspection.contents.is_complete
    )


def judge_set(  # noqa: PLR0911 - the table above
    backup_set: BackupSet,
    files: Sequence[FileEvidence],
    assertions: Sequence[evidence.Assertion],
    comparison: Comparison | None,
    *,
    allow_empty: bool = False,
) -> tuple[Verdict, str]:
    """Return the verdict on a set, and the reason in one line.

    ``allow_empty``: a set without keys may pass.
    """
    if backup_set.damaged:
        return Verdict.FAIL, "; ".join(backup_set.damaged)
    if failed := [file for file in files if file.outcome is Outcome.FAIL]:
        return Verdict.FAIL, _reasons(failed)
    if violated := [one for one in assertions if one.holds is False]:
        return Verdict.FAIL, "assertion failed: " + ", ".join(map(_violation, violated))
    if comparison is not None and not comparison.within_tolerance:
        then, now = comparison.keys_then, comparison.keys_now
        return Verdict.FAIL, f"{now:,} keys, but {then:,} in the previous drill"
    if backup_set.gaps or not files:
        return Verdict.PARTIAL, backup_set.why_not
    if untried := [file for file in files if file.outcome is Outcome.UNTRIED]:
        return Verdict.PARTIAL, _reasons(untried)
    if unloadable := [file for file in files if file.outcome is Outcome.UNLOADABLE]:
        return Verdict.UNLOADABLE, _reasons(unloadable)
    return _judge_keys(files, allow_empty=allow_empty)


def _judge_keys(files: Sequence[FileEvidence], *, allow_empty: bool) -> tuple[Verdict, str]:
    """Judge a set whose files have all passed: does it have keys?"""
    passed = "every node's file was restored, loaded, and has the expected keys"
    # Prefer the parser's counts: keys that have expired since were in the backup.
    counted = [file.parsed if file.parsed is not None else file.loaded for file in files]
    if not any(total_keys(databases) for databases in counted):
        if allow_empty:
            return Verdict.PASS, f"{passed}: it is empty"
        return Verdict.FAIL, (
            "it has no keys, so loading it proves nothing; use --allow-empty if the instance is "
            "meant to be empty"
        )
    if not loaded_keys(files):
        return Verdict.PASS, f"{passed}: all of them have expired"
    sampled = any(one.sampled for file in files for one in file.loaded or ())
    return Verdict.PASS, f"{passed}, by a sample" if sampled else passed


def combine(
    assertion: Assertion,
    results: Sequence[AssertionResult | None],
    *,
    show_values: bool = False,
) -> evidence.Assertion:
    """Combine the results of an assertion on the nodes of a set (None: the node did not load).

    The nodes of a set are one data set: dbsize is the sum over the nodes, and a key exists if any
    node has it. An assertion on a key must hold on all nodes that have the key; the other nodes do
    not count. If no node has it, only ``missing`` holds. Values are withheld unless
    ``show_values``.
    """
    if not show_values:
        results = [one and _without_value(one) for one in results]
    holds, seen = _combined(assertion, results)
    text = assertion.text if show_values else without_value(assertion)
    return evidence.Assertion(text, None, holds=holds, seen=seen)


def _without_value(result: AssertionResult) -> AssertionResult:
    return replace(result, seen=WITHHELD) if result.is_value else result


def _combined(
    assertion: Assertion, results: Sequence[AssertionResult | None]
) -> tuple[bool | None, str]:
    """Return whether the assertion holds (None: not evaluated), and what was seen."""
    known = [result for result in results if result is not None]
    if not known or len(known) < len(results):
        return None, "not loaded"
    if assertion.verb == "dbsize" and all(one.seen.isdigit() for one in known):
        return compare(assertion, sum(int(one.seen) for one in known))
    having = [one for one in known if one.has_key]
    if not having and assertion.verb != "missing":
        return False, f"{_NO_KEY}{quote(assertion.key)}"
    decisive = min(having or known, key=lambda one: one.holds)
    return decisive.holds, decisive.seen


def _violation(one: evidence.Assertion) -> str:
    """Format a violated assertion with what was seen: ``dbsize >= 9 (dbsize is 3)``.

    No value can be mistaken for "no node has key …", because values with spaces are quoted.
    """
    asserted = parse(one.text)
    if one.seen.startswith(_NO_KEY):
        return f"{one.text} ({one.seen})"
    if one.seen == WITHHELD or not asserted.operator:
        return one.text
    return f"{one.text} ({left_side(asserted)} is {one.seen})"


def _not_loaded(inspection: rdb.Inspection, attempt: Attempt) -> Judgement:
    verdict = attempt.verdict
    said = f"{attempt.program.flavour} {'.'.join(map(str, attempt.program.version))}"
    said = f"{said}: {verdict.reason}"
    if verdict.outcome is ServerOutcome.UNLOADABLE and inspection.is_intact:
        if verdict.cause is Cause.MODULE:
            names = ", ".join(verdict.names) or "?"
            return Judgement(Outcome.UNLOADABLE, f"intact, but needs modules for {names}")
        return Judgement(Outcome.UNLOADABLE, f"intact, but needs another server; {said}")
    if verdict.outcome is ServerOutcome.REFUSED:
        proven = inspection.is_intact and inspection.footer is Footer.OK
        if proven and verdict.cause is not Cause.CHECKSUM:
            why = f"intact by its own checksum, but no server here loads it; {said}"
            return Judgement(Outcome.UNLOADABLE, why)
    if not inspection.is_intact:
        said = f"{inspection.verdict}: {inspection.reason}; {said}"
    return Judgement(Outcome.FAIL, said, is_damage=verdict.cause is Cause.CHECKSUM)


def _why_no_pass(trial: Trial, difference: Difference | None) -> str | None:
    attempt = trial.decisive
    if attempt.census is None:
        return f"loaded, but could not be counted: {attempt.verdict.reason}"
    if attempt.listening is None or attempt.listening.ports != ():
        return "the server may have been reachable over the network"
    if not all(one.teardown.file_unchanged for one in trial.attempts):
        return "the file was changed by the server"
    if difference is not None and difference.beyond_tolerance:
        return f"differs from our parser's count: {difference.keys:+,} {difference.explanation}"
    return None


def _what_was_not_compared(trial: Trial) -> str:
    """Say what could not be compared, and why; empty if everything was."""
    databases = [] if (census := trial.decisive.census) is None else census.databases
    if any(one.sampled for one in databases):
        return "; types and expiries, counted by a sample, were not compared"
    if not all(one.consistent for one in databases):
        return "; types were not compared, because keys moved during the count"
    return ""


def _reasons(files: Sequence[FileEvidence]) -> str:
    if len(files) == 1:
        return files[0].reason
    return "; ".join(f"{file.node_id}: {file.reason}" for file in files)
