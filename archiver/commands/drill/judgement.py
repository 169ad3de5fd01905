"""From what was seen of a file and a set to the verdict. Pure.

A set is, the first that applies:

fail         a record or the SHA256SUMS contradicts what is there; a file is not the bytes recorded,
             is damaged by its own checksum or structure, or did not load for a reason that does not
             show it intact; counts differ beyond the tolerance; an assertion does not hold; it
             has no keys, which proves nothing, unless that was expected
partial      a node has no file in it, or a file was not tried
unloadable   intact, but needs modules, or a server that is not here
pass         everything else
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
    parse,
    quote,
    subject,
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
# How what was seen of a key begins that no node has.
_NO_KEY = "no node has key "


@dataclass(frozen=True, slots=True)
class Judgement:
    """Of one file. ``is_damage``: its bytes are wrong, which is exit code 3."""

    outcome: Outcome
    reason: str
    is_damage: bool = False


def judge_file(
    inspection: rdb.Inspection, trial: Trial, difference: Difference | None, *, is_log: bool
) -> Judgement:
    """The outcome of a file whose bytes are those recorded.

    ``is_log``: the source said that it is a log of commands. Such a one may end anywhere.
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
        how = f" as far as it goes: {inspection.reason}" if may_be_cut else ""
        why = f"verified and loaded{how}; a log is not counted beforehand"
        return Judgement(Outcome.PASS, why)
    if not comparable(inspection):
        why = f"verified and loaded; nothing to compare with: {inspection.reason}"
        return Judgement(Outcome.PASS, why)
    return Judgement(Outcome.PASS, f"verified, loaded, counted {_how(trial)}")


def comparable(inspection: rdb.Inspection) -> bool:
    """Whether the parser's counts are those of the whole file."""
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
    """The verdict of a set, and why in one line. ``allow_empty``: it may have no keys."""
    if backup_set.damaged:
        return Verdict.FAIL, "; ".join(backup_set.damaged)
    if failed := [file for file in files if file.outcome is Outcome.FAIL]:
        return Verdict.FAIL, _reasons(failed)
    if untrue := [one for one in assertions if one.holds is False]:
        return Verdict.FAIL, "assertion failed: " + ", ".join(map(_untrue, untrue))
    if comparison is not None and not comparison.within_tolerance:
        then, now = comparison.keys_then, comparison.keys_now
        return Verdict.FAIL, f"{now:,} keys, and {then:,} in the drill before"
    if backup_set.gaps or not files:
        return Verdict.PARTIAL, backup_set.why_not
    if untried := [file for file in files if file.outcome is Outcome.UNTRIED]:
        return Verdict.PARTIAL, _reasons(untried)
    if unloadable := [file for file in files if file.outcome is Outcome.UNLOADABLE]:
        return Verdict.UNLOADABLE, _reasons(unloadable)
    return _loaded(files, allow_empty=allow_empty)


def _loaded(files: Sequence[FileEvidence], *, allow_empty: bool) -> tuple[Verdict, str]:
    """Of a set whose files are all as they should be, and may have no keys."""
    there = "every node's file is there, loads, and holds what it should"
    # What our parser counted: keys that have expired since were in the backup.
    counted = [file.parsed if file.parsed is not None else file.loaded for file in files]
    if not any(total_keys(databases) for databases in counted):
        if allow_empty:
            return Verdict.PASS, f"{there}: no keys at all"
        return Verdict.FAIL, (
            "it has no keys: that it loads proves nothing; --allow-empty takes it where an "
            "instance is meant to be empty"
        )
    if not loaded_keys(files):
        return Verdict.PASS, f"{there}: all its keys had expired"
    sampled = any(one.sampled for file in files for one in file.loaded or ())
    return Verdict.PASS, f"{there}, by a sample" if sampled else there


def combine(
    assertion: Assertion,
    results: Sequence[AssertionResult | None],
    *,
    show_values: bool = False,
) -> evidence.Assertion:
    """What an assertion comes to over the nodes of a set; None for a node that did not load.

    A set is one body of data: dbsize is the sum of the nodes', and a key exists when one of them
    has it. What is said of a key is for the nodes that have it to decide, for all of them should
    there be several; a node without the key says nothing. When no node has it, only ``missing``
    holds. Values are secrets unless ``show_values``.
    """
    if not show_values:
        results = [one and _without_value(one) for one in results]
    holds, seen = _decided(assertion, results)
    text = assertion.text if show_values else without_value(assertion)
    return evidence.Assertion(text, None, holds=holds, seen=seen)


def _without_value(result: AssertionResult) -> AssertionResult:
    return replace(result, seen=WITHHELD) if result.is_value else result


def _decided(
    assertion: Assertion, results: Sequence[AssertionResult | None]
) -> tuple[bool | None, str]:
    """Whether it holds, None for undecided, and what was seen."""
    there = [result for result in results if result is not None]
    if not there or len(there) < len(results):
        return None, "not loaded"
    if assertion.verb == "dbsize" and all(one.seen.isdigit() for one in there):
        return compare(assertion, sum(int(one.seen) for one in there))
    having = [one for one in there if one.has_key]
    if not having and assertion.verb != "missing":
        return False, f"{_NO_KEY}{quote(assertion.key)}"
    decisive = min(having or there, key=lambda one: one.holds)
    return decisive.holds, decisive.seen


def _untrue(one: evidence.Assertion) -> str:
    """The assertion, and what was seen instead, unless that is withheld: ``dbsize >= 9 (dbsize is
    3)``. No value reads as "no node has key" does: with spaces, it is quoted."""
    asserted = parse(one.text)
    if one.seen.startswith(_NO_KEY):
        return f"{one.text} ({one.seen})"
    if one.seen == WITHHELD or not asserted.operator:
        return one.text
    return f"{one.text} ({subject(asserted)} is {one.seen})"


def _not_loaded(inspection: rdb.Inspection, attempt: Attempt) -> Judgement:
    verdict = attempt.verdict
    said = f"{attempt.program.flavour} {'.'.join(map(str, attempt.program.version))}"
    said = f"{said}: {verdict.reason}"
    if verdict.outcome is ServerOutcome.UNLOADABLE and inspection.is_intact:
        if verdict.cause is Cause.MODULE:
            names = ", ".join(verdict.names) or "?"
            return Judgement(Outcome.UNLOADABLE, f"intact, but needs the modules of {names}")
        return Judgement(Outcome.UNLOADABLE, f"intact, but needs another server; {said}")
    if verdict.outcome is ServerOutcome.REFUSED:
        proven = inspection.is_intact and inspection.footer is Footer.OK
        if proven and verdict.cause is not Cause.CHECKSUM:
            why = f"intact by its own checksum, but no server here reads it; {said}"
            return Judgement(Outcome.UNLOADABLE, why)
    if not inspection.is_intact:
        said = f"{inspection.verdict}: {inspection.reason}; {said}"
    return Judgement(Outcome.FAIL, said, is_damage=verdict.cause is Cause.CHECKSUM)


def _why_no_pass(trial: Trial, difference: Difference | None) -> str | None:
    attempt = trial.decisive
    if attempt.census is None:
        return f"loaded, but could not be counted: {attempt.verdict.reason}"
    if attempt.listening is None or attempt.listening.ports != ():
        return "the server may be reached over the network"
    if not all(one.teardown.file_unchanged for one in trial.attempts):
        return "the file was changed by the server"
    if difference is not None and difference.beyond_tolerance:
        return f"not what our parser counted: {difference.keys:+,} {difference.explanation}"
    return None


def _how(trial: Trial) -> str:
    """How its keys were counted, which has to be said when it was not one by one."""
    databases = [] if (census := trial.decisive.census) is None else census.databases
    if any(one.sampled for one in databases):
        return "as many as expected; types and times to live by a sample, and not compared"
    if not all(one.consistent for one in databases):
        return "as many as expected; types not compared, because keys moved during the count"
    return "as expected"


def _reasons(files: Sequence[FileEvidence]) -> str:
    if len(files) == 1:
        return files[0].reason
    return "; ".join(f"{file.node_id}: {file.reason}" for file in files)
