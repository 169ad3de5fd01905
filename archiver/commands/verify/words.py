"""The texts of the events of a verify and a repair, on a terminal and in a log."""

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any, Final

from archiver import events as pull_events
from archiver import words
from archiver.commands.verify import events
from archiver.commands.verify.findings import Finding
from archiver.logs import Words, fields_of
from archiver.words import DEBUG, NORMAL, QUIET, VERBOSE, size, times

# Their levels in a log; None for events that are not logged.
LEVELS: Final[Mapping[type[object], int | None]] = {
    events.ToRead: None,
    events.Advanced: None,
    events.Verified: logging.INFO,
    events.Found: logging.ERROR,
    events.Noted: logging.INFO,
    events.ResultsKept: logging.DEBUG,
    events.ResultsNotKept: logging.WARNING,
    events.Repaired: logging.INFO,
    events.NotRepaired: logging.ERROR,
    **words.LEVELS,
}


def line(event: events.ScrubEvent) -> tuple[int, str] | None:  # noqa: PLR0911 - a table
    """The verbosity from which an event is printed, and its text; None if it is not printed."""
    match event:
        case events.Found(finding):
            return QUIET, str(finding)
        case events.Noted(key, text):
            return NORMAL, f"note: {key}: {text}"
        case events.NotRepaired(key, error):
            return QUIET, f"not repaired: {key}: {error}"
        case events.ResultsNotKept(why):
            return NORMAL, f"results not stored: {why}"
        case events.Repaired(key, origin):
            return QUIET, f"repaired: {key} from {origin}"  # like the finding itself
        case events.Verified(key, count, sha256):
            return VERBOSE, f"verified: {key} {size(count)} sha256 {sha256}"
        case events.ResultsKept(files):
            return DEBUG, f"results stored: {times(files, 'file')}"
        case events.ToRead() | events.Advanced():
            return None
        case pull_events.Failed():
            return None  # reported as not repaired
        case _:
            return words.line(event)


def fields(event: events.ScrubEvent) -> Mapping[str, Any]:
    """The fields of an event, those of a finding among them."""
    return finding_fields(event.finding) if isinstance(event, events.Found) else fields_of(event)


def finding_fields(finding: Finding) -> dict[str, Any]:
    """What a finding says, with what to do about it."""
    found = dataclasses.asdict(finding)
    del found["cure"]
    return {**found, "advice": finding.advice}


def _text(event: events.ScrubEvent) -> str | None:
    found = line(event)
    return None if found is None else found[1]


OF_VERIFY: Final[Words[events.ScrubEvent]] = Words(lambda event: LEVELS[type(event)], _text, fields)
