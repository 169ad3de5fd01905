"""How a run reads at its end; what its events say is in :mod:`archiver.words`."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Final

from archiver.commands.summary import Summary
from archiver.model import Backup, Network
from archiver.times import TimeRange, format_minute
from archiver.words import (
    DEBUG,
    NORMAL,
    QUIET,
    VERBOSE,
    age,
    failure,
    known,
    line,
    listed_size,
    size,
    span,
    times,
    unnamed,
)

# Instances that a line names, at most.
_NAMED: Final = 8

__all__ = [
    "DEBUG",
    "NORMAL",
    "QUIET",
    "VERBOSE",
    "age",
    "failure",
    "holding",
    "known",
    "left_out",
    "line",
    "listed_size",
    "made",
    "made_and_pulled",
    "narrowed",
    "planned",
    "size",
    "span",
    "summary",
    "times",
    "unnamed",
    "was",
]


def summary(result: Summary, seconds: float, *, finished: bool, dry_run: bool = False) -> list[str]:
    """The result of a pull or copy. Each failure was printed when it happened: here they are
    counted."""
    nothing = not (result.planned or result.held or result.acknowledged)
    if nothing and not finished:
        return []  # nothing was listed, and why is printed
    lines = [_done(result, seconds, finished=finished, dry_run=dry_run)]
    if result.kept:
        what = f"{size(sum(result.kept.values()))} of {times(len(result.kept), 'unfinished file')}"
        lines.append(f"kept: {what}; the next run resumes from there")
    if result.incomplete:
        lines.append(f"incomplete: {times(len(result.incomplete), 'backup set')}")
    lines += known(result.acknowledged.values())
    if not finished:
        left = result.planned - result.archived - len(result.failures)
        what = f"at least {times(left, 'backup')} left" if left > 0 else "there may be more backups"
        lines.append(f"stopped early: {what}")
    if result.unfinished:
        lines.append(f"{times(result.unfinished, 'backup')} not finished yet")
    if result.failures:
        lines.append(f"failed: {len(result.failures):,}")
    return lines


def made(result: Summary, seconds: float, *, finished: bool, dry_run: bool = False) -> list[str]:
    """The result of a run that has backups made, and pulls none."""
    del finished, dry_run  # what is left to do is told apart
    if not (result.made or result.failures):
        return []
    count = f"made {times(result.made, 'backup')}" if result.made else "no backup was made"
    whole = f", {size(result.bytes_made)}" if result.made else ""
    failed = [f"failed: {len(result.failures):,}"] if result.failures else []
    return [f"{count}{whole} in {seconds:.1f} s", *failed]


def made_and_pulled(
    result: Summary, seconds: float, *, finished: bool, dry_run: bool = False
) -> list[str]:
    """The result of a run that has backups made and pulls them."""
    first = made(result, seconds, finished=finished)[:1]
    return [*first, *summary(result, seconds, finished=finished, dry_run=dry_run)]


def planned(backup: Backup, *, with_set: bool) -> str:
    """What a dry run says of a backup; ``with_set``: also of which set, if its source says that."""
    of_set = f", set {backup.set_id}" if with_set and backup.set_id is not None else ""
    when = format_minute(backup.started_at)
    return f"would archive: {backup} {listed_size(backup)}, started {when}{of_set}"


def _done(result: Summary, seconds: float, *, finished: bool, dry_run: bool) -> str:
    """The first line: what was archived, or would be."""
    if dry_run:
        what = f"{times(result.planned, 'backup')}, {size(result.bytes_planned)}"
        if result.unsized:
            what += f" and {result.unsized:,} of unknown size"
        return f"would archive {what}; {result.held:,} already in the archive"
    if result.archived:
        ways = ", ".join(
            f"{size(result.bytes_fetched[network])} over {network}"
            for network in Network
            if network in result.bytes_fetched
        )
        return (
            f"archived {times(result.archived, 'backup')}, {size(result.bytes_archived)} "
            f"in {seconds:.1f} s{f' ({ways})' if ways else ''}; "
            f"{result.held:,} already in the archive"
        )
    if finished and not result.failures and not result.planned and result.held:
        return f"nothing new: {times(result.held, 'backup')} listed, all in the archive"
    return f"nothing archived; {result.held:,} already in the archive"


def narrowed(
    range_: TimeRange | None, kinds: Collection[str] = (), sets: Collection[str] = ()
) -> list[str]:
    """A line that says what was requested, if that was not everything: backups of some types and
    modes, those that started in a range, or some sets."""
    if not (range_ or kinds or sets):
        return []
    started = f" that started in {range_}" if range_ is not None else ""
    if sets:
        return [f"only {times(len(sets), 'backup set')}{started} {was(len(sets))} requested"]
    if kinds:
        return [f"only {', '.join(dict.fromkeys(kinds))} backups{started} were requested"]
    return [f"only backups that started in {range_} were requested"]


def left_out(result: Summary) -> list[str]:
    """Lines that name the instances and regions that failed, wholly or in part, and those of which
    the vendor makes no backups."""
    found = {
        "failed, wholly or in part": result.troubled,
        "without backups at the vendor": list(result.not_backed_up),
    }
    return [
        f"{what}: {', '.join(names[:_NAMED])}"
        + (f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else "")
        for what, names in found.items()
        if names
    ]


def was(count: int) -> str:
    """The verb for a number of things: ``was`` or ``were``."""
    return "was" if count == 1 else "were"


def holding(
    place: str, count: str, newest: Mapping[str, datetime], now: datetime, *, is_all: bool
) -> str:
    """Where backups are, of how many instances, and how old the newest backup is of the instance
    that is best off and of the one that is worst off. ``is_all``: everything was requested;
    otherwise there may be newer ones."""
    text = f"{place} has backups of {count}"
    if not newest:
        return text
    ages = sorted((now - newest[name], name) for name in newest)
    (youngest, _), (oldest, worst) = ages[0], ages[-1]
    which = "the newest backup" if is_all else "the newest requested backup"
    text = f"{text}; {which} started {age(youngest)} ago"
    if age(oldest) == age(youngest):
        return text
    return f"{text}, and the newest of {worst} {age(oldest)} ago"
