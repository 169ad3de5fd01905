"""What the events of a drill say: on a terminal and in a log alike."""

import logging
from collections.abc import Mapping
from typing import Any, Final

from archiver import events, words
from archiver.commands.drill import events as happened
from archiver.logs import Words, fields_of
from archiver.report.evidence import Outcome, Verdict
from archiver.report.words import duration
from archiver.words import DEBUG, NORMAL, QUIET, VERBOSE, size, times

_LEVELS: Final[Mapping[type[object], int | None]] = {
    happened.Chosen: logging.INFO,
    happened.ChainFault: logging.ERROR,
    happened.ArchiveRefuses: logging.WARNING,
    happened.ChainUnseen: logging.WARNING,
    happened.WaitingForLock: logging.WARNING,
    happened.EvidenceElsewhere: logging.WARNING,
    happened.Swept: logging.INFO,
    happened.LeftAlone: logging.WARNING,
    happened.Trying: logging.DEBUG,
    happened.NotCompared: logging.WARNING,
    happened.FromTheFuture: logging.WARNING,
    happened.ClockSetBack: logging.WARNING,
    happened.ServerIsRoot: logging.INFO,
    **words.LEVELS,
}
_OF_OUTCOMES: Final = {Outcome.PASS: logging.INFO, Outcome.FAIL: logging.ERROR}


def level(event: happened.Happened) -> int | None:
    """How grave an event is, as :mod:`logging` counts; None for what no log has."""
    if isinstance(event, happened.FileTried):
        return _OF_OUTCOMES.get(event.file.outcome, logging.WARNING)
    if isinstance(event, happened.SetJudged):
        return logging.INFO if event.evidence.verdict is Verdict.PASS else logging.ERROR
    return _LEVELS[type(event)]


def line(event: happened.Told) -> tuple[int, str]:  # noqa: C901, PLR0911, PLR0912 - a table
    """The verbosity from which an event is printed, and its text."""
    match event:
        case happened.ChainFault(finding):
            return QUIET, f"evidence: {finding}"
        case happened.ArchiveRefuses(why, instead):
            place = "stdout" if instead is None else instead
            return QUIET, f"the archive cannot be written; the evidence may go to {place}: {why}"
        case happened.ChainUnseen(why):
            return QUIET, f"the evidence of earlier drills cannot be seen: {why}"
        case happened.WaitingForLock(why):
            return NORMAL, f"waiting to store the evidence: {why}"
        case happened.EvidenceElsewhere(why, places):
            return QUIET, f"the evidence is stored only in {', '.join(places)}: {why}"
        case happened.NotCompared(instance, why):
            return QUIET, f"not compared: {instance}: {why}; --max-change is not applied to it"
        case happened.FromTheFuture(key, seconds):
            what = (
                f"it started {duration(seconds)} after this drill; is this machine's clock behind?"
            )
            return QUIET, f"age unknown: {key}: {what}"
        case happened.ClockSetBack(seconds):
            return QUIET, f"the clock was set back by {duration(seconds)} during this drill"
        case happened.ServerIsRoot():
            return NORMAL, "the server runs as root: it cannot run as user nobody here"
        case happened.Chosen(keys, available):
            return NORMAL, f"drilling {times(len(keys), 'backup set')} of {available:,}"
        case happened.Swept(directory):
            return NORMAL, f"removed {directory}, left behind by a killed drill"
        case happened.LeftAlone(directory, why):
            return NORMAL, f"left alone: {directory}: {why}"
        case happened.Trying(key, count):
            return DEBUG, f"restoring: {key} {size(count)}"
        case happened.FileTried(file):
            return VERBOSE, f"{file.outcome}: {file.object_key}: {file.reason}"
        case happened.SetJudged(one):
            level = NORMAL if one.verdict is Verdict.PASS else QUIET
            return level, f"{one.verdict}: {one.key}: {one.why}"


def fields(event: happened.Happened) -> Mapping[str, Any]:
    """The fields of an event; of evidence, which has a document of its own, the outcome."""
    match event:
        case happened.FileTried(file):
            outcome = {"outcome": file.outcome, "why": file.reason}
            return {"key": file.object_key, "size": file.size, **outcome}
        case happened.SetJudged(one):
            return {"key": one.key, "verdict": one.verdict, "why": one.why}
        case happened.ChainFault(finding):
            return {"key": finding.key, "fault": finding.fault, "why": finding.text}
        case _:
            return fields_of(event)


def _text(event: happened.Happened) -> str | None:
    if isinstance(event, events.SetBegun | events.FileWorkedOn | events.FileLeft):
        return words.work(event)
    return line(event)[1]


OF_DRILLS: Final[Words[happened.Happened]] = Words(level, _text, fields)
