"""Computes the conclusions of a drill from its observations. Pure; used by writers and readers.

A drill passes if every chosen set was drilled and passed, no target was missed, and nothing was
left behind. Anything else is not a pass, however small the fault.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from archiver.report.evidence import (
    RECOVERY_PHASES,
    Conclusion,
    Evidence,
    FileEvidence,
    Gap,
    Mode,
    Outcome,
    Phases,
    Rpo,
    Rto,
    Selection,
    SetEvidence,
    Verdict,
)


def recovery_seconds(phases: Phases) -> float | None:
    """Sum the phases that a real recovery needs; ``None`` if one of them was not reached."""
    total = 0.0
    for name in RECOVERY_PHASES:
        seconds = getattr(phases, name)
        if seconds is None:
            return None
        total += seconds
    return total


def measure_rto(seconds: float | None, target_seconds: float | None) -> Rto:
    """Compare the recovery time with its target. A recovery that did not end misses any target."""
    return Rto(seconds=seconds, target_seconds=target_seconds, met=_met(seconds, target_seconds))


def measure_rpo(
    *,
    age_seconds: float,
    newest_age_seconds: float | None,
    largest_gap: Gap | None,
    target_seconds: float | None,
) -> Rpo:
    """Compare the possible data loss with its target.

    The newest complete set and the largest gap count, not ``age_seconds``: the age of an old set
    that was drilled on purpose says nothing about today's exposure.
    """
    exposure = exposure_seconds(newest_age_seconds, largest_gap)
    return Rpo(
        age_seconds=age_seconds,
        newest_age_seconds=newest_age_seconds,
        largest_gap=largest_gap,
        target_seconds=target_seconds,
        met=_met(exposure, target_seconds),
    )


def exposure_seconds(newest_age_seconds: float | None, largest_gap: Gap | None) -> float | None:
    """Return the largest possible data loss; ``None`` if there is no complete set."""
    if newest_age_seconds is None:
        return None
    return max(newest_age_seconds, largest_gap.seconds if largest_gap else 0.0)


def largest_gap(starts: Sequence[datetime], since: datetime) -> Gap | None:
    """Return the largest gap between the starts of consecutive complete sets.

    Gaps that ended before ``since`` are ignored: they are no exposure any more.
    """
    ordered = sorted(starts)
    pairs = [(later - earlier, earlier) for earlier, later in pairwise(ordered) if later >= since]
    if not pairs:
        return None
    width, start = max(pairs, key=lambda pair: pair[0])
    return Gap(seconds=width / timedelta(seconds=1), start=start, end=start + width)


def candidates_sha256(set_keys: Iterable[str]) -> str:
    """Return the SHA-256 of the keys of all sets to choose from: sorted, one per line."""
    listing = "".join(f"{key}\n" for key in sorted(set_keys))
    return hashlib.sha256(listing.encode("utf-8", "surrogatepass")).hexdigest()


def conclude(
    selection: Selection, sets: Sequence[SetEvidence], *, failure_exit_code: int = 1
) -> Conclusion:
    """Combine the results of the sets. A drill without sets fails: it proved nothing."""
    verdict = _worst([one.verdict for one in sets])
    met = [answer for one in sets for answer in (one.rto.met, one.rpo.met) if answer is not None]
    targets_met = all(met) if met else None
    passed = (
        verdict is Verdict.PASS
        and targets_met is not False
        and len(sets) == selection.chosen
        and all(one.teardown.is_clean for one in sets)
    )
    return Conclusion(
        verdict=verdict,
        passed=passed,
        targets_met=targets_met,
        sets={word.value: sum(one.verdict is word for one in sets) for word in Verdict},
        exit_code=0 if passed else failure_exit_code,
    )


def contradictions(evidence: Evidence) -> Iterator[str]:
    """Yield one line for each contradiction in the document.

    Nobody should have to trust a verdict that the facts next to it refute.
    """
    if evidence.finished_at < evidence.started_at:
        yield "finished_at: before started_at"
    if evidence.previous is not None and evidence.previous.id >= evidence.id:
        yield "previous.id: does not come before this id"
    yield from _of_selection(evidence.selection, evidence.sets)
    for number, one in enumerate(evidence.sets):
        yield from (f"sets[{number}].{text}" for text in _of_set(one, evidence))
    yield from _of_conclusion(evidence)


def _of_selection(selection: Selection, sets: Sequence[SetEvidence]) -> Iterator[str]:
    if not len(sets) <= selection.chosen <= selection.available:
        yield "selection: more sets than chosen, or more chosen than available"
    if selection.mode in (Mode.RANDOM, Mode.STRATIFIED) and selection.seed is None:
        yield f"selection.seed: null, though the mode is {selection.mode}"
    if selection.mode is Mode.AT and selection.at is None:
        yield "selection.at: null, though the mode is at"
    if len({one.key for one in sets}) != len(sets):
        yield "sets: the same set twice"


def _of_set(one: SetEvidence, evidence: Evidence) -> Iterator[str]:
    targets = evidence.targets
    if one.rto != measure_rto(one.rto.seconds, targets.rto_seconds):
        yield "rto: does not follow from its seconds and the target"
    if one.rpo != measure_rpo(
        age_seconds=one.rpo.age_seconds,
        newest_age_seconds=one.rpo.newest_age_seconds,
        largest_gap=one.rpo.largest_gap,
        target_seconds=targets.rpo_seconds,
    ):
        yield "rpo: does not follow from its seconds and the target"
    gap = one.rpo.largest_gap
    over_for = (evidence.reference_clock - gap.end).total_seconds() if gap else 0.0
    if over_for > targets.rpo_window_seconds:
        yield "rpo.largest_gap: ended before the window"
    if one.comparison and one.comparison.change != (
        one.comparison.keys_now - one.comparison.keys_then
    ):
        yield "comparison.change: not keys_now - keys_then"
    if one.verdict is Verdict.PASS:
        yield from (f"verdict: pass, though {text}" for text in _why_no_pass(one))


def _why_no_pass(one: SetEvidence) -> Iterator[str]:
    nodes = one.nodes
    if nodes.missing or nodes.expected not in (None, len(nodes.present)):
        yield "nodes are missing"
    if not one.files or {file.node_id for file in one.files} != set(nodes.present):
        yield "the files are not those of the nodes present"
    yield from (f"{file.node_id} {text}" for file in one.files if (text := _why_file_no_pass(file)))
    if not all(assertion.holds for assertion in one.assertions):
        yield "an assertion does not hold"
    if one.rto.seconds is None:
        yield "the recovery did not end"
    if one.comparison and not one.comparison.within_tolerance:
        yield "the comparison is beyond the tolerance"


def _why_file_no_pass(file: FileEvidence) -> str | None:
    if file.outcome is not Outcome.PASS:
        return f"is {file.outcome}"
    if not file.verified:
        return "was not verified"
    if file.difference is not None and file.difference.beyond_tolerance:
        return "differs beyond the tolerance"
    return None


def _of_conclusion(evidence: Evidence) -> Iterator[str]:
    found = evidence.conclusion
    expected = conclude(evidence.selection, evidence.sets, failure_exit_code=found.exit_code or 1)
    for name in ("verdict", "passed", "targets_met", "sets", "exit_code"):
        if getattr(found, name) != getattr(expected, name):
            yield (
                f"conclusion.{name}: {getattr(found, name)!r}, "
                f"though the sets result in {getattr(expected, name)!r}"
            )


def _met(seconds: float | None, target_seconds: float | None) -> bool | None:
    if target_seconds is None:
        return None
    return seconds is not None and seconds <= target_seconds


def _worst(verdicts: Sequence[Verdict]) -> Verdict:
    order = list(Verdict)
    return max(verdicts, key=order.index, default=Verdict.FAIL)
