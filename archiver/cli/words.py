"""How numbers and events read."""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta

from archiver import events
from archiver.archive import layout
from archiver.commands.summary import Summary
from archiver.model import Kind, Network
from archiver.times import EVERYTHING_FROM, TimeRange, format_day

QUIET, NORMAL, VERBOSE, DEBUG = -1, 0, 1, 2


def size(count: float) -> str:
    """Bytes with a binary unit: ``3.4 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def times(count: int, noun: str) -> str:
    """``1 backup``, ``2 backups``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def span(seconds: float) -> str:
    """``90 s``, ``30 min``, ``26 h``: in the largest unit that fits."""
    for size_of, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size_of and seconds % size_of == 0:
            return f"{seconds // size_of:.0f} {unit}"
    return f"{seconds:.0f} s"


def age(since: timedelta) -> str:
    """``50 s``, ``5 min``, ``26 h``, ``18 d``: whole ones, never more than it is."""
    seconds = max(0, int(since.total_seconds()))
    for size_of, least, unit in ((86400, 3, "d"), (3600, 2, "h"), (60, 2, "min")):
        if seconds >= least * size_of:
            return f"{seconds // size_of:,} {unit}"
    return f"{seconds} s"


def line(event: events.Event) -> tuple[int, str] | None:  # noqa: C901, PLR0911, PLR0912 - a table
    """The verbosity from which an event is told, and how; None for those shown otherwise."""
    match event:
        case events.ArchiveBegun(archive):
            return QUIET, f"Beginning a new archive in {archive}"
        case events.WaitingForLock(_, error, seconds):
            return NORMAL, f"waiting, {span(seconds)} at most: {error.message}"
        case events.Failed() | events.SetIncomplete():
            return QUIET, failure(event)
        case events.Damaged(backup, why):
            return NORMAL, f"damaged: {backup}: {why}; it is fetched again"
        case events.KeptAside(key, kept):
            return NORMAL, f"kept: {key} is replaced; the bytes it had are in {kept}"
        case events.RouteChosen(host, network, why):
            return NORMAL, f"network: {network} for the files of {host} ({why})"
        case events.Acknowledged():
            return VERBOSE, f"acknowledged: {_acknowledged(event)}"
        case events.AcknowledgementCopied(key):
            return VERBOSE, f"copied: {key}"
        case events.SetUnsealed(key, why):
            return NORMAL, f"note: {key}: {why}"
        case events.Mending(backup):
            return NORMAL, f"wrong checksum: {backup}: fetching its parts again, one by one"
        case events.NothingListed(instance_id, start, end):
            when = "" if start == EVERYTHING_FROM else f" from {start} to {end}"
            return QUIET, f"nothing listed: the vendor has no backups of {instance_id}{when}"
        case events.RangeNarrowed(start):
            return QUIET, f"range: the API refuses earlier starts: nothing from before {start}"
        case events.Archived(kind=Kind.UNKNOWN):
            return NORMAL, f"not a dump by its first bytes: {event.key} (encrypted, perhaps)"
        case events.Archived(vouched_for=False):
            return NORMAL, f"unverified: {event.key}: nothing but its size vouches for it"
        case events.Archived():
            return VERBOSE, f"archived: {event.key} {size(event.size)} sha256 {event.sha256}"
        case events.WaitingForSource(error):
            return NORMAL, f"waiting for the source: {error.message}"
        case events.Retrying(subject, error, attempt, wait):
            return VERBOSE, f"retry {attempt} in {wait:.1f} s: {subject}: {error}"
        case events.Unfinished(backup):
            return VERBOSE, f"unfinished: {backup}: the vendor is still making it"
        case events.SetCompleted(key, files):
            return VERBOSE, f"complete: {key}: {times(files, 'file')}"
        case events.Cleared(key, kept):
            return NORMAL, f"moved away: {key}: what had this name is kept in {kept}"
        case events.Swept(key, why):
            return VERBOSE, f"swept: {key}: {why}"
        case events.Started(backup, resumed) if resumed:
            return NORMAL, f"resumed: {backup}: {size(resumed)} of {size(backup.size)} are here"
        case events.Hedged(backup, position):
            return VERBOSE, f"slow: {backup}: from byte {position:,} on over a second connection"
        case events.UrlRefreshed(backup):
            return VERBOSE, f"url: {backup}: listed again"
        case events.Held(backup):
            return DEBUG, f"held: {backup}"
        case events.Planned(backup):
            return DEBUG, f"planned: {backup} {size(backup.size)}"
        case events.PageListed(instance_id, number, backups, total):
            return DEBUG, f"listed: {instance_id}: page {number}: {backups} of {total}"
        case _:
            return None


def summary(result: Summary, seconds: float, *, finished: bool, dry_run: bool = False) -> list[str]:
    """What a pull or copy came to. Each failure was said when it was met: here they are counted."""
    nothing = not (result.planned or result.held or result.acknowledged)
    if nothing and (result.failures or not finished):
        return []  # nothing was listed, and why was said when it happened
    lines = [_done(result, seconds, finished=finished, dry_run=dry_run)]
    if result.kept:
        what = f"{size(sum(result.kept.values()))} of {times(len(result.kept), 'unfinished file')}"
        lines.append(f"kept: {what}, which the next run goes on with")
    if result.incomplete:
        lines.append(f"incomplete: {times(len(result.incomplete), 'backup set')}")
    lines += known(result.acknowledged.values())
    if not finished:
        left = result.planned - result.archived - len(result.failures)
        what = (
            f"at least {times(left, 'backup')} still to come" if left > 0 else "more may be to come"
        )
        lines.append(f"stopped early: {what}")
    if result.unfinished:
        lines.append(f"{times(result.unfinished, 'backup')} not finished at the vendor yet")
    if result.failures:
        lines.append(f"failed: {len(result.failures):,}")
    return lines


def _done(result: Summary, seconds: float, *, finished: bool, dry_run: bool) -> str:
    """The first line: what came home, or would."""
    if dry_run:
        what = f"{times(result.planned, 'backup')}, {size(result.bytes_planned)}"
        return f"would fetch {what}; {result.held:,} held already"
    if result.archived:
        ways = ", ".join(
            f"{size(result.bytes_fetched[network])} over {network}"
            for network in Network
            if network in result.bytes_fetched
        )
        return (
            f"archived {times(result.archived, 'backup')}, {size(result.bytes_archived)} "
            f"in {seconds:.1f} s{f' ({ways})' if ways else ''}; {result.held:,} held before"
        )
    if finished and not result.failures and not result.planned and result.held:
        return f"nothing new: {times(result.held, 'backup')} listed, all in the archive"
    return f"archived nothing; {result.held:,} held before"


def narrowed(
    range_: TimeRange | None, kinds: Collection[str] = (), sets: Collection[str] = ()
) -> list[str]:
    """That not everything was asked for, where it was not: but backups of some types and modes,
    those that began in a range, some sets."""
    if not (range_ or kinds or sets):
        return []
    began = f" that began in {range_}" if range_ is not None else ""
    if sets:
        return [f"only {times(len(sets), 'backup set')}{began} {_was(len(sets))} asked for"]
    if kinds:
        return [f"only {', '.join(dict.fromkeys(kinds))} backups{began} were asked for"]
    return [f"only what began in {range_} was asked for"]


def _was(count: int) -> str:
    return "was" if count == 1 else "were"


def holding(
    place: str, count: str, newest: Mapping[str, datetime], now: datetime, *, is_all: bool
) -> str:
    """Where backups are, of how many instances, and how old the newest is of the instance that is
    best off and of the one that is worst off. ``is_all``: nothing less was asked for; else there
    may be newer ones."""
    text = f"{place} has backups of {count}"
    if not newest:
        return text
    ages = sorted((now - newest[name], name) for name in newest)
    (youngest, _), (oldest, worst) = ages[0], ages[-1]
    which = "the newest" if is_all else "the newest that was asked for"
    text = f"{text}; {which} began {age(youngest)} ago"
    return text if age(oldest) == age(youngest) else f"{text}, that of {worst} {age(oldest)} ago"


def failure(event: events.Failed | events.SetIncomplete) -> str:
    """A failure in one line."""
    if isinstance(event, events.SetIncomplete):
        return f"incomplete: {event.key}: {event.why}"
    what = unnamed(event)
    return f"failed: {what}: {event.error}" if what is not None else f"failed: {event.error}"


def unnamed(failed: events.Failed) -> str | None:
    """The backup or record that failed, where the error itself names what kept it away, such as a
    folder, and may keep others away, too."""
    what = failed.subject if layout.is_record(failed.subject) else None
    if failed.backup is not None:
        what = str(failed.backup)
    if what is None or layout.stem_of(what).rpartition("/")[2] in str(failed.error):
        return None
    return what


def known(acknowledged: Collection[events.Acknowledged]) -> list[str]:
    """What is no failure, since somebody has taken note of it, and of how many sets or backups
    they have."""
    if not acknowledged:
        return []
    lines = [f"  {_acknowledged(event)}" for event in acknowledged]
    count = len({event.subject for event in acknowledged})
    return [f"acknowledged: {count:,}, and no failure", *lines]


def _acknowledged(event: events.Acknowledged) -> str:
    what = "" if event.subject in event.why else f"{event.subject}: "
    return f"{what}{event.why}; by {event.by} on {format_day(event.at)}: {event.reason}"
