"""What ``archiver status`` shows: a table of what is wrong, worst first; JSON; or a Nagios plugin's
lines."""

import logging
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from archiver.cli import jsonlines
from archiver.cli.run import Ended, announce, say
from archiver.cli.streams import show
from archiver.cli.words import times
from archiver.commands.status.judge import Judgement, Level, SetState
from archiver.commands.status.run import Status
from archiver.errors import ArchiverError, BackupFailed, worst_exit_code
from archiver.times import format_iso, format_minute
from archiver.words import age

_WIDTH: Final = 80
_HEADER: Final = ("", "INSTANCE", "REGION", "NEWEST", "AGE", "SETS", "VERIFIED", "DRILL")
# Usual values fit, so that the table is as wide as a terminal of 80 columns.
_LEAST: Final = (4, 20, 14, 10, 5, 4, 8, 5)
_INDENT: Final = " " * 5
_SHORT: Final = {Level.OK: "OK", Level.WARNING: "WARN", Level.CRITICAL: "CRIT"}


def show_text(found: Sequence[Status], now: datetime, *, show_all: bool) -> None:
    """A table for each archive."""
    for number, status in enumerate(found):
        lines = [""] if number else []
        lines += [f"{status.archive.store}   {format_minute(now)} UTC", "", counts([status])]
        shown = [one for one in status.judgements if show_all or one.level is not Level.OK]
        if shown:
            lines += ["", *_table(shown, now)]
        left = [one for one in status.judgements if one not in shown]
        if shown and left:
            lines.append(_others(left, now))
        show(*lines)


def counts(found: Sequence[Status]) -> str:
    """How many instances are how."""
    judgements = [one for status in found for one in status.judgements]
    by_level = Counter(one.level for one in judgements)
    regions = {one.facts.described.region for one in judgements if one.facts.described}
    parts = "   ".join(f"{level.name} {by_level[level]:,}" for level in reversed(Level))
    where = f", {times(len(regions), 'region')}" if regions else ""
    return f"{parts}   of {times(len(judgements), 'instance')}{where}"


def _table(shown: Sequence[Judgement], now: datetime) -> Iterator[str]:
    rows = [_cells(one, now) for one in shown]
    columns = zip(_LEAST, *rows, strict=True)
    widths = [max(least, *map(len, cells)) for least, *cells in columns]
    line = " ".join(f"{{:<{width}}}" for width in widths)
    yield line.format(*_HEADER).rstrip()
    told = set[str]()
    for one, cells in zip(shown, rows, strict=True):
        yield line.format(*cells).rstrip()
        for reason in one.reasons:
            yield from _wrapped(reason.text)
            if reason.fix and reason.fix not in told:  # once: it may be the same for hundreds
                told.add(reason.fix)
                yield from _wrapped(f"-> {reason.fix}")
        if one.note and not one.reasons:
            yield from _wrapped(one.note)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=_INDENT,
        subsequent_indent=f"{_INDENT}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _cells(one: Judgement, now: datetime) -> tuple[str, ...]:
    facts, newest = one.facts, one.facts.newest
    complete = sum(each.state is SetState.COMPLETE for each in facts.sets)
    return (
        _SHORT[one.level],
        facts.instance_id,
        (facts.described.region if facts.described else "") or "-",
        "never" if newest is None else f"{newest.started_at.astimezone(UTC):%Y-%m-%d}",
        "-" if newest is None else age(now - newest.started_at),
        f"{complete:,}",
        _verified(one, now),
        _drilled(one, now),
    )


def _verified(one: Judgement, now: datetime) -> str:
    if one.facts.damage or any(each.state is SetState.DAMAGED for each in one.facts.sets):
        return "DAMAGED"
    at = one.facts.verified_at
    return "-" if at is None else age(now - at)


def _drilled(one: Judgement, now: datetime) -> str:
    drill, passed = one.facts.drill, one.facts.passed
    if drill is not None and not drill.passed:
        return "FAIL"
    return "-" if passed is None else age(now - passed.at)


def _others(left: Sequence[Judgement], now: datetime) -> str:
    ages = sorted(now - one.started_at for each in left if (one := each.facts.newest) is not None)
    newest = ""
    if ages:
        between = {age(ages[0]): None, age(ages[-1]): None}
        newest = f", their newest backups {' to '.join(between)} old"
    return f"OK   {times(len(left), 'other')}{newest}; --all lists them"


def show_nagios(found: Sequence[Status]) -> None:
    """The lines of a plugin: how it is, figures, and then what is wrong."""
    judgements = [one for status in found for one in status.judgements]
    by_level = Counter(one.level for one in judgements)
    level = _worst(found)
    figures = " ".join(f"{one.name.lower()}={by_level[one]}" for one in reversed(Level))
    lines = [f"ARCHIVER {level.name}: {counts(found)} | {figures}"]
    for one in judgements:
        lines += [
            f"{_SHORT[reason.level]} {one.instance_id}: {reason.text}".replace("|", "/")
            for reason in one.reasons
        ]
    show(*lines)


def show_unknown(error: ArchiverError) -> None:
    """The same where nothing is known."""
    show(f"ARCHIVER UNKNOWN: {error}".replace("|", "/"))


def write_json(found: Sequence[Status]) -> None:
    """An object for each instance."""
    jsonlines.write_objects(fields(status, one) for status in found for one in status.judgements)


def fields(status: Status, one: Judgement) -> dict[str, Any]:
    """A judgement as JSON has it; None is what nobody knows, or never was."""
    facts, newest = one.facts, one.facts.newest
    described = facts.described
    states = Counter(each.state for each in facts.sets)
    return {
        "archive": str(status.archive.store),
        "instance_id": one.instance_id,
        "name": described.name if described else None,
        "region": described.region if described else None,
        "level": one.level.name.lower(),
        "reasons": [
            {"level": r.level.name.lower(), "cause": r.cause, "text": r.text, "fix": r.fix or None}
            for r in one.reasons
        ],
        "note": one.note or None,
        "newest": None if newest is None else newest.started_at,
        "newest_set": None if newest is None else newest.key,
        "interval_seconds": round(one.rhythm.interval.total_seconds()),
        "expected_by": one.rhythm.known_from,
        "sets": states[SetState.COMPLETE],
        "incomplete_sets": states[SetState.INCOMPLETE],
        "damaged_sets": states[SetState.DAMAGED],
        "bytes": sum(each.size for each in facts.sets),
        "gaps": [format_iso(moment) for moment in one.gaps],
        "loss_at": one.loss_at,
        "unarchived": None if facts.unarchived is None else len(facts.unarchived),
        "verified_at": facts.verified_at,
        "drill": None if facts.drill is None else facts.drill.id,
        "drill_passed": None if facts.drill is None else facts.drill.passed,
        "passed_at": None if facts.passed is None else facts.passed.at,
    }


def _worst(found: Sequence[Status]) -> Level:
    level = max((one.level for status in found for one in status.judgements), default=Level.OK)
    is_wrong = any(status.wrong for status in found)
    return max(level, Level.WARNING) if is_wrong or not any(s.judgements for s in found) else level


def ended(found: Sequence[Status], *, is_nagios: bool) -> Ended | None:
    """1 if an instance is not well, or the worst code of what could not be read; for Nagios, its
    codes."""
    wrong = [error for status in found for error in status.wrong]
    for error in wrong:
        announce(logging.ERROR, "damaged", f"damaged: {error}", error=error)
    empty = [status for status in found if not status.judgements]
    for status in empty:
        say(f"archiver: {status.archive.store}: there are no instances in it")
    level = _worst(found)
    if level is Level.OK:
        return None
    bad = sum(one.level is not Level.OK for status in found for one in status.judgements)
    why = say(f"archiver: {times(bad, 'instance')} {'is' if bad == 1 else 'are'} not well")
    if is_nagios:
        return Ended(int(level), why)
    codes = {error.exit_code for error in wrong}
    return Ended(worst_exit_code({*codes, BackupFailed.exit_code}), why)
