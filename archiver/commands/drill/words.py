"""What the events of a drill say: on a terminal and in a log alike."""

import logging
from collections.abc import Mapping
from typing import Any, Final

from archiver import words
from archiver.commands.drill import events
from archiver.events import FileLeft, FileWorkedOn, Retrying, SetBegun, Work
from archiver.logs import Words, fields_of
from archiver.report.evidence import Outcome, Verdict
from archiver.report.words import duration
from archiver.words import DEBUG, NORMAL, QUIET, VERBOSE, size, times

_LEVELS: Final[Mapping[type[object], int | None]] = {
    events.Chosen: logging.INFO,
    events.ChainFault: logging.ERROR,
    events.ArchiveNotWritable: logging.WARNING,
    events.ChainUnreadable: logging.WARNING,
    events.WaitingForLock: logging.WARNING,
    events.EvidenceIncomplete: logging.WARNING,
    events.ScratchRemoved: logging.INFO,
    events.ScratchNotRemoved: logging.WARNING,
    events.Trying: logging.DEBUG,
    events.NotCompared: logging.WARNING,
    events.FromTheFuture: logging.WARNING,
    events.ClockSetBack: logging.WARNING,
    events.ServerIsRoot: logging.INFO,
    **words.LEVELS,
}
_OF_OUTCOMES: Final = {Outcome.PASS: logging.INFO, Outcome.FAIL: logging.ERROR}


def level(event: events.DrillEvent | Work) -> int | None:
    """How grave an event is, as :mod:`logging` counts; None for what no log has."""
    if isinstance(event, events.FileTried):
        return _OF_OUTCOMES.get(event.file.outcome, logging.WARNING)
    if isinstance(event, events.SetJudged):
        return logging.INFO if event.evidence.verdict is Verdict.PASS else logging.ERROR
    return _LEVELS[type(event)]


def line(event: events.DrillEvent) -> tuple[int, str]:  # noqa: C901, PLR0911, PLR0912 - a table
    """The verbosity from which an event is printed, and its text."""
    match event:
        case events.ChainFault(finding):
            return QUIET, f"evidence: {finding}"
        case events.ArchiveNotWritable(why, instead):
            place = "stdout" if instead is None else instead
            return QUIET, f"the archive cannot be written; the evidence may go to {place}: {why}"
        case events.ChainUnreadable(why):
            return QUIET, f"the evidence of earlier drills cannot be seen: {why}"
        case events.WaitingForLock(why):
            return NORMAL, f"waiting to store the evidence: {why}"
        case events.EvidenceIncomplete(why, stores):
            return QUIET, f"the evidence is stored only in {', '.join(stores)}: {why}"
        case events.NotCompared(instance, why):
            return QUIET, f"not compared: {instance}: {why}; --max-change is not applied to it"
        case events.FromTheFuture(key, seconds):
            what = (
                f"it started {duration(seconds)} after this drill; is this machine's clock behind?"
            )
            return QUIET, f"age unknown: {key}: {what}"
        case events.ClockSetBack(seconds):
            return QUIET, f"the clock was set back by {duration(seconds)} during this drill"
        case events.ServerIsRoot():
            return NORMAL, "the server runs as root: it cannot run as user nobody here"
        case events.Chosen(keys, available):
            return NORMAL, f"drilling {times(len(keys), 'backup set')} of {available:,}"
        case events.ScratchRemoved(directory):
            return NORMAL, f"removed {directory}, left behind by a killed drill"
        case events.ScratchNotRemoved(directory, why):
            return NORMAL, f"left alone: {directory}: {why}"
        case events.Trying(key, count):
            return DEBUG, f"restoring: {key} {size(count)}"
        case events.FileTried(file):
            return VERBOSE, f"{file.outcome}: {file.object_key}: {file.reason}"
        case Retrying(subject, error, attempt):
            return VERBOSE, f"retry {attempt}: {subject}: {error}"
        case events.SetJudged(one):
            level = NORMAL if one.verdict is Verdict.PASS else QUIET
            return level, f"{one.verdict}: {one.key}: {one.why}"


def fields(event: events.DrillEvent | Work) -> Mapping[str, Any]:
    """The fields of an event; of evidence, which has a document of its own, the outcome."""
    match event:
        case events.FileTried(file):
            outcome = {"outcome": file.outcome, "why": file.reason}
            return {"key": file.object_key, "size": file.size, **outcome}
        case events.SetJudged(one):
            return {"key": one.key, "verdict": one.verdict, "why": one.why}
        case events.ChainFault(finding):
            return {"key": finding.key, "fault": finding.fault, "why": finding.text}
        case _:
            return fields_of(event)


def _text(event: events.DrillEvent | Work) -> str | None:
    if isinstance(event, SetBegun | FileWorkedOn | FileLeft):
        return words.work(event)
    return line(event)[1]


OF_DRILLS: Final[Words[events.DrillEvent | Work]] = Words(level, _text, fields)
