"""The texts of numbers and of the events of a run, on a terminal and in a log."""

import logging
from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Final

from archiver import events
from archiver.model import Backup, Kind, Network
from archiver.times import EVERYTHING_FROM, format_day, format_iso

QUIET, NORMAL, VERBOSE, DEBUG = -1, 0, 1, 2

# Seconds; a list that is younger was asked for in this run.
_WORTH_TELLING: Final = 60.0

# The level of each event in a log; None for the many small steps of a transfer. Separate from the
# texts, so that no text is made for a level that is not logged.
LEVELS: Final[Mapping[type[object], int | None]] = {
    events.PageListed: logging.DEBUG,
    events.NothingListed: logging.WARNING,
    events.Selected: logging.INFO,
    events.NothingSelected: logging.WARNING,
    events.NothingFits: logging.WARNING,
    events.NotBackedUp: logging.INFO,
    events.RangeNarrowed: logging.WARNING,
    events.Held: logging.DEBUG,
    events.Planned: logging.DEBUG,
    events.Unfinished: logging.INFO,
    events.NotTaken: logging.WARNING,
    events.Damaged: logging.WARNING,
    events.FoundWrong: logging.ERROR,
    events.RouteChosen: logging.INFO,
    events.Started: logging.INFO,
    events.Advanced: None,
    events.Retrying: logging.WARNING,
    events.WaitingForSource: logging.WARNING,
    events.Hedged: logging.INFO,
    events.UrlRefreshed: logging.INFO,
    events.Mending: logging.WARNING,
    events.Archived: logging.INFO,
    events.KeptAside: logging.WARNING,
    events.Failed: logging.ERROR,
    events.Kept: logging.INFO,
    events.SetCompleted: logging.INFO,
    events.SetIncomplete: logging.ERROR,
    events.Acknowledged: logging.INFO,
    events.AcknowledgementCopied: logging.INFO,
    events.SetUnsealed: logging.WARNING,
    events.WaitingForLock: logging.WARNING,
    events.ArchiveBegun: logging.INFO,
    events.Swept: logging.INFO,
    events.Cleared: logging.WARNING,
    events.BackupBegun: logging.INFO,
    events.BackupAdvanced: None,
    events.BackupMade: logging.INFO,
    events.SetBegun: logging.INFO,
    events.FileWorkedOn: None,
    events.FileLeft: None,
}


def level(event: events.Event | events.Work) -> int | None:
    """The level of an event in a log; None if it is not logged."""
    return LEVELS[type(event)]


def work(event: events.Work) -> str | None:
    """The text of an event of a restore or a drill; None if it has none."""
    if not isinstance(event, events.SetBegun):
        return None
    files = f"{times(event.files, 'file')}, {size(event.size)}"
    return f"set {event.number} of {event.of}: {event.key}: {files}"


def size(count: float) -> str:
    """Bytes with a binary unit: ``3.4 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def listed_size(backup: Backup) -> str:
    """The size of a backup as its source lists it, which it need not do."""
    return "of unknown size" if backup.size is None else size(backup.size)


def times(count: int, noun: str) -> str:
    """``1 backup``, ``2 backups``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def span(seconds: float) -> str:
    """``90 s``, ``30 min``, ``26 h``: in the largest unit that divides it."""
    for size_of, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size_of and seconds % size_of == 0:
            return f"{seconds // size_of:.0f} {unit}"
    return f"{seconds:.0f} s"


def age(since: timedelta) -> str:
    """``50 s``, ``5 min``, ``26 h``, ``18 d``: rounded."""
    seconds = max(0, round(since.total_seconds()))
    for size_of, least, unit in ((86400, 3, "d"), (3600, 2, "h"), (60, 2, "min")):
        if seconds >= least * size_of:
            return f"{round(seconds / size_of):,} {unit}"
    return f"{seconds} s"


def known_since(seconds: float) -> str:
    """How old a list of instances is, to follow their number; empty for one of this run."""
    if seconds < _WORTH_TELLING:
        return ""
    return f", as of {age(timedelta(seconds=seconds))} ago (--refresh asks again)"


def line(event: events.Event) -> tuple[int, str] | None:  # noqa: C901, PLR0911, PLR0912 - a table
    """The verbosity from which an event is printed, and its text; None if it is not printed."""
    match event:
        case events.ArchiveBegun(archive):
            return QUIET, f"Creating a new archive in {archive}"
        case events.WaitingForLock(_, error, seconds):
            return NORMAL, f"waiting up to {span(seconds)}: {error.message}"
        case events.Failed() | events.SetIncomplete():
            return QUIET, failure(event)
        case events.Damaged(backup, why, cure):
            return NORMAL, f"damaged: {backup}: {why}; {cure}"
        case events.FoundWrong(error=error):
            return QUIET, f"damaged: {error}"
        case events.KeptAside(key, kept):
            return NORMAL, f"replaced: {key}; its old bytes are in {kept}"
        case events.RouteChosen(host, network, why):
            if network is Network.INTRANET:
                return NORMAL, f"Using the intranet endpoint {host}."
            what = f"Using the public network instead of the intranet endpoint {host}"
            return NORMAL, f"{what}: {why}."
        case events.Acknowledged():
            return VERBOSE, f"acknowledged: {_acknowledged(event)}"
        case events.AcknowledgementCopied(key):
            return VERBOSE, f"copied: {key}"
        case events.SetUnsealed(key, why):
            return NORMAL, f"note: {key}: {why}"
        case events.Mending(backup):
            return NORMAL, f"wrong checksum: {backup}: fetching it again, part by part"
        case events.NothingListed(instance_id, start, end):
            when = "" if start == EVERYTHING_FROM else f" from {start} to {end}"
            return QUIET, f"no backups: the source lists none of {instance_id}{when}"
        case events.Selected(instances, seconds):
            known = known_since(seconds)
            return NORMAL if known else VERBOSE, f"{times(instances, 'instance')} selected{known}"
        case events.NothingSelected(region):
            return QUIET, f"no instances: none of {region} is selected (check --region)"
        case events.NothingFits(option, value):
            return QUIET, f"no match: --{option} {value} fits no listed instance (is it misspelt?)"
        case events.NotBackedUp(instance_id, why):
            return VERBOSE, f"no backups: {instance_id}: {why}"
        case events.RangeNarrowed(start):
            return QUIET, f"range: the API rejects earlier times; nothing before {start} is listed"
        case events.Archived(kind=Kind.UNKNOWN):
            return NORMAL, f"not a Redis dump: {event.key} (perhaps it is encrypted)"
        case events.Archived(vouched_for=False):
            return NORMAL, f"unverified: {event.key}: no checksum, only its size was checked"
        case events.Archived():
            return VERBOSE, f"archived: {event.key} {size(event.size)} sha256 {event.sha256}"
        case events.WaitingForSource(error):
            return NORMAL, f"waiting for the source: {error.message}"
        case events.Retrying(subject, error, attempt, wait):
            what = "" if subject in error.message else f"{subject}: "
            return VERBOSE, f"retry {attempt} in {wait:.1f} s: {what}{error}"
        case events.Unfinished(backup):
            return VERBOSE, f"unfinished: {backup}: it is still being made"
        case events.NotTaken(_, name, why):
            return NORMAL, f"not taken: {name}: {why}"
        case events.SetCompleted(key, files):
            return VERBOSE, f"complete: {key}: {times(files, 'file')}"
        case events.Cleared(key, kept):
            return NORMAL, f"moved away: what was at {key} is now in {kept}"
        case events.Swept(key, why):
            return VERBOSE, f"swept: {key}: {why}"
        case events.Started(backup, resumed, whole) if resumed:
            done = f"{size(resumed)} of {size(whole)} already downloaded"
            return NORMAL, f"resuming: {backup}: {done}"
        case events.Hedged(backup, position):
            return VERBOSE, f"slow: {backup}: second connection from byte {position:,}"
        case events.UrlRefreshed(backup):
            return VERBOSE, f"url: {backup}: renewed"
        case events.BackupBegun():
            return _begun(event)
        case events.BackupMade():
            return NORMAL, f"made: {event.instance_id}: {job_names(event.jobs)}: {_made(event)}"
        case events.Held(backup):
            return DEBUG, f"held: {backup}"
        case events.Planned(backup):
            return DEBUG, f"planned: {backup} {listed_size(backup)}"
        case events.PageListed(instance_id, number, backups, total):
            of_all = "" if total is None else f" of {total}"
            return DEBUG, f"listed: {instance_id}: page {number}: {backups}{of_all}"
        case _:
            return None


def _begun(event: events.BackupBegun) -> tuple[int, str]:
    what = f"{event.instance_id}: {job_names(event.jobs)}"
    if event.instead is None:
        return NORMAL, f"backing up: {what}"
    since = "" if event.began_at is None else f", which began at {format_iso(event.began_at)}"
    return QUIET, f"waiting for another backup: {what}{since}: {event.instead}"


def _made(event: events.BackupMade) -> str:
    whole = sum(one.size or 0 for one in event.backups)
    return f"{times(len(event.backups), 'file')}, {size(whole)} in {event.seconds:.0f} s"


def job_names(jobs: Collection[str]) -> str:
    """``job 1022``, ``jobs 1022, 2480``."""
    return f"job{'' if len(jobs) == 1 else 's'} {', '.join(jobs)}"


def failure(event: events.Failed | events.SetIncomplete) -> str:
    """A failure in one line."""
    if isinstance(event, events.SetIncomplete):
        return f"incomplete: {event.key}: {event.why}"
    what = unnamed(event)
    return f"failed: {what}: {event.error}" if what is not None else f"failed: {event.error}"


def unnamed(failed: events.Failed) -> str | None:
    """The backup or record that failed; None if the error names it. It may name only the cause,
    such as a folder."""
    what = failed.subject if failed.subject.endswith(".json") else None
    if failed.backup is not None:
        what = str(failed.backup)
    if what is None or what.rpartition("/")[2].removesuffix(".json") in str(failed.error):
        return None
    return what


def known(acknowledged: Collection[events.Acknowledged]) -> list[str]:
    """Lines with the number of acknowledged sets and backups, which are no failures, and each."""
    if not acknowledged:
        return []
    lines = [f"  {_acknowledged(event)}" for event in acknowledged]
    count = len({event.subject for event in acknowledged})
    return [f"acknowledged: {count:,}, not counted as failures", *lines]


def _acknowledged(event: events.Acknowledged) -> str:
    what = "" if event.subject in event.why else f"{event.subject}: "
    return f"{what}{event.why}; by {event.by} on {format_day(event.at)}: {event.reason}"
