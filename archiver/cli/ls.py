"""``archiver ls``."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from archiver.cli.options import (
    SourceOptions,
    Way,
    command,
    max_age_option,
    option,
    output_options,
    source_options,
)
from archiver.cli.places import bucket_options, store_at
from archiver.cli.streams import show
from archiver.times import format_minute

if TYPE_CHECKING:
    from archiver.archive.archive import Archive
    from archiver.cli.jsonlines import LastLine
    from archiver.cli.run import Ended
    from archiver.commands.ls.listing import Row
    from archiver.errors import ArchiverError
    from archiver.model import Backup, Query
    from archiver.sources.base import Source

# The vendor's shortest retention is 7 days: with two left, there is a night to act.
_EXPIRES_SOON = timedelta(days=2)


@command("ls")
@click.argument("place", metavar="[ARCHIVE]", required=False)
@option("--remote", is_flag=True, help="Ask the vendor, and compare.")
@option("--check", is_flag=True, help="Exit with 1 if anything is missing, failed or incomplete.")
@source_options
@max_age_option
@bucket_options
@output_options
def ls(place: str | None, **given: Any) -> None:
    """List the backups in an archive, at the vendor, or both.

    With ARCHIVE alone, lists what it holds, of all instances or of each --instance, without
    asking the vendor. Without ARCHIVE, lists what the vendor has. With both and --remote, compares
    them: what is archived, missing, incomplete or about to expire.

    \b
    Examples:
      archiver ls ./backups
      archiver ls ./backups --max-age 26h --quiet
      archiver ls --instance r-bp1 --region cn-hangzhou
      archiver ls ./backups --remote --check --instance r-bp1 --region cn-hangzhou
    """
    from archiver.cli.jsonlines import LastLine
    from archiver.cli.run import run

    last = LastLine(given["as_json"])
    run(
        lambda: _ls(place, given, last),
        last=last,
        verbose=given["verbose"],
        on_interrupt="nothing was changed",
    )


async def _ls(place: str | None, given: dict[str, Any], last: "LastLine") -> "Ended | None":
    from archiver.archive.acknowledged import Acknowledged
    from archiver.archive.archive import Archive
    from archiver.cli.words import QUIET
    from archiver.commands.ls import listing

    archive = Archive(store_at(place, given)) if place is not None else None
    if archive is not None:
        await archive.expect()
    listed = _Listed(last)
    if archive is None or given["remote"]:
        verbosity = QUIET if given["quiet"] else given["verbose"]
        await _ask(_source(archive, given), verbosity, listed)
    shown = _Shown(given, "at the vendor" if archive is None else f"in {archive.store}")
    if archive is None:
        shown.take(listing.vendor_rows(listed.backups))
    else:
        acknowledged = Acknowledged(archive)
        if given["remote"]:
            rows = await listing.compared_rows(archive, listed.backups)
            shown.take(await listing.with_acknowledgements(rows, acknowledged))
        else:
            found = listing.rows_by_instance(archive, given["instances"], given["time_range"])
            async for rows in found:
                shown.take(await listing.with_acknowledgements(rows, acknowledged))
            _tell_of_nothing(shown.instances, archive, given["instances"])
        shown.tell_of_bad(acknowledged.bad.values())
    last.summary = [str(shown.counts)]
    shown.end(quiet=given["quiet"] or (not shown.instances and bool(listed.wrong)))
    return _ended([*listed.wrong, *shown.wrong])


def _source(archive: "Archive | None", given: dict[str, Any]) -> SourceOptions:
    """The source to ask. Raises UsageError."""
    from archiver.errors import UsageError

    if not given["instances"]:
        if archive is not None:
            raise UsageError("--remote needs --instance ID")
        raise UsageError("missing argument: ARCHIVE, or option: --instance ID")
    return SourceOptions(
        given["instances"],
        given["time_range"],
        given["region"],
        given["endpoint"],
        given["aof"],
        Way.of(given),
    )


@dataclass(slots=True)
class _Listed:
    """What the vendor lists; errors in it are printed at once and kept in ``wrong``."""

    last: "LastLine"
    backups: "list[Backup]" = field(default_factory=list)
    wrong: "list[Ended]" = field(default_factory=list)

    def failed(self, subject: str, error: "ArchiverError", code: int) -> None:
        from archiver.cli.jsonlines import write_event
        from archiver.cli.run import Ended, say
        from archiver.events import Failed, ignore
        from archiver.logs import OF_RUNS, logged

        failed = Failed(subject, error)
        logged(ignore, OF_RUNS)(failed)
        self.wrong.append(Ended(code, say(f"archiver: {error}")))
        if self.last.wanted:
            write_event(failed)


async def _ask(options: SourceOptions, verbosity: int, listed: _Listed) -> None:
    """List each instance. An instance or entry that cannot be listed fails alone."""
    from archiver.cli.run import say
    from archiver.cli.words import line
    from archiver.errors import ArchiverError, others_not_asked
    from archiver.events import Event, NothingListed
    from archiver.logs import OF_RUNS, logged

    def observe(event: Event) -> None:
        told = line(event)
        if told is not None and told[0] <= verbosity:
            say(told[1])

    queries, tell_nothing = options.queries(), logged(observe, OF_RUNS)
    async with options.open(observe) as source:
        for left, query in zip(reversed(range(len(queries))), queries, strict=True):
            try:
                if not await _take_pages(source, query, listed):
                    tell_nothing(NothingListed(query.instance_id, query.start, query.end))
            except ArchiverError as error:
                if error.concerns_all and left:
                    error.message += f"; {others_not_asked(left)}"
                listed.failed(query.instance_id, error, error.exit_code)
                if error.concerns_all:
                    listed.last.ended_by = error
                    break


async def _take_pages(source: "Source", query: "Query", listed: _Listed) -> int:
    """Collect the entries of one instance; returns their number, unusable ones included."""
    from archiver.errors import BackupFailed

    count = 0
    async for page in source.pages(query):
        count += len(page.backups) + len(page.refused)
        listed.backups.extend(page.backups)
        for error in page.refused:
            listed.failed("a listed entry", error, BackupFailed.exit_code)
    return count


class _Shown:
    """Rows, shown as they come, an instance after the other; and what is wrong with them."""

    def __init__(self, given: Mapping[str, Any], where: str) -> None:
        self.instances: dict[str, None] = {}
        self.wrong: list[Ended] = []
        self._given = given
        self._where = where
        self._table = _Table()
        self.counts = _Counts()

    def take(self, rows: "Sequence[Row]") -> None:
        """Show rows: all there are of their instances."""
        given = self._given
        self.counts.take(rows)
        self.instances |= dict.fromkeys(row.instance_id for row in rows)
        if given["as_json"]:
            _write_json(rows)
        else:
            self._table.write(rows)
        if given["max_age"] is None:
            _tell_of_age(rows, given["instances"])
        self.wrong += _wrong(rows, self._where, given)

    def tell_of_bad(self, notes: "Iterable[ArchiverError]") -> None:
        """Say what is wrong with notes that somebody took."""
        from archiver.cli.jsonlines import write_event
        from archiver.cli.run import Ended, tell
        from archiver.events import Failed

        for error in notes:
            told = tell(logging.ERROR, "damaged", f"damaged: {error}", error=error)
            self.wrong.append(Ended(error.exit_code, told))
            if self._given["as_json"]:  # of the others, their rows say it
                write_event(Failed(getattr(error, "key", "an acknowledgement"), error))

    def end(self, *, quiet: bool) -> None:
        """Sum up."""
        from archiver.cli.run import Ended, tell
        from archiver.errors import BackupFailed

        if not (self._given["as_json"] or quiet):
            click.echo(str(self.counts), err=True)
        asked = dict.fromkeys(self._given["instances"])
        lacking = [name for name in asked if name not in self.instances]
        self.wrong += _overdue((), lacking, self._where, self._given)
        if self._given["max_age"] is not None and not (self.instances or lacking):
            text = f"overdue: there are no backups {self._where}"
            told = tell(logging.ERROR, "overdue", text)
            self.wrong.append(Ended(BackupFailed.exit_code, told))


def _tell_of_nothing(there: Iterable[str], archive: "Archive", instances: Iterable[str]) -> None:
    from archiver.cli.run import tell

    for name in dict.fromkeys(instances):
        if name not in there:
            text = f"no backups: {archive.store} has none of {name}"
            tell(logging.WARNING, "nothing_listed", text, instance=name)


def _tell_of_age(rows: "Sequence[Row]", instances: Iterable[str]) -> None:
    """Only of instances requested by name: an archive may hold some that are long gone."""
    from archiver.cli.run import tell
    from archiver.commands.ls.age import late_rows

    for old in late_rows(rows, instances, datetime.now(UTC)):
        tell(logging.WARNING, "late", str(old), instance=old.instance_id)


def _wrong(rows: "Sequence[Row]", where: str, given: Mapping[str, Any]) -> "Iterator[Ended]":
    """Print and yield what is damaged; with --check what is missing, failed or incomplete; with
    --max-age what is too old."""
    from archiver.cli.run import Ended, tell
    from archiver.errors import BackupFailed

    for error in (row.error for row in rows if row.error is not None):
        told = tell(logging.ERROR, "damaged", f"damaged: {error}", error=error)
        yield Ended(error.exit_code, told)
    if given["check"]:
        for text in _unchecked(rows):
            yield Ended(BackupFailed.exit_code, tell(logging.ERROR, "missing", text))
    yield from _overdue(rows, dict.fromkeys(row.instance_id for row in rows), where, given)


def _overdue(
    rows: "Sequence[Row]", instances: Iterable[str], where: str, given: Mapping[str, Any]
) -> "Iterator[Ended]":
    """With --max-age, the instances of which nothing complete is young enough."""
    from archiver.cli.jsonlines import write_overdue
    from archiver.cli.run import Ended, tell
    from archiver.commands.ls.age import overdue_rows
    from archiver.errors import BackupFailed

    if given["max_age"] is None:
        return
    most = timedelta(seconds=given["max_age"])
    for late in overdue_rows(rows, instances, where, most, datetime.now(UTC)):
        told = tell(logging.ERROR, "overdue", str(late), instance=late.instance_id)
        yield Ended(BackupFailed.exit_code, told)
        if given["as_json"]:
            write_overdue(late.instance_id, late.newest, str(late))


def _unchecked(rows: "Sequence[Row]") -> "Iterator[str]":
    """One line for each missing or failed file and each incomplete set, unless the vendor is still
    making it or somebody has acknowledged it."""
    from archiver.commands.ls.listing import State

    unfinished = {row.set_key for row in rows if row.state is State.UNFINISHED}
    told = set[str]()
    for row in rows:
        if row.state in (State.MISSING, State.FAILED) and row.acknowledged is None:
            began = format_minute(row.started_at) if row.started_at else "?"
            yield f"{row.state}: {row.node_id}-{row.backup_id}, started {began} UTC"
        is_known = row.set_acknowledged or row.set_key in unfinished | told
        if row.set_note is not None and not is_known:
            told.add(row.set_key)
            yield f"incomplete: {row.instance_id}, set {row.set_key}: {row.set_note}"


def _ended(wrong: "Sequence[Ended]") -> "Ended | None":
    """3 if anything is damaged, 6 if all of that is what the store does not return; otherwise the
    worst code of the other problems."""
    from archiver.cli.run import Ended
    from archiver.errors import IntegrityError, worst_exit_code

    if not wrong:
        return None
    codes = {one.code for one in wrong}
    damaged = IntegrityError.exit_code
    return Ended(damaged if damaged in codes else worst_exit_code(codes), wrong[0].why)


def _write_json(rows: "Sequence[Row]") -> None:
    import dataclasses

    from archiver.cli.jsonlines import write_object

    for row in rows:
        fields = {f.name: getattr(row, f.name) for f in dataclasses.fields(row)}
        expected = None if row.nodes_expected is None else row.nodes_expected.count
        is_complete = row.set_note is None
        write_object({**fields, "nodes_expected": expected, "set_complete": is_complete})


class _Table:
    """Rows in columns, written as they come: a column grows where a later instance needs it."""

    _HEADER = ("INSTANCE", "START (UTC)", "NODE", "BACKUP", "SIZE", "STATE", "NOTE")

    def __init__(self) -> None:
        self._widths = [len(title) for title in self._HEADER]
        self._is_begun = False

    def write(self, rows: "Sequence[Row]") -> None:
        """Write some rows, all there are of their instances."""
        from archiver.cli.words import size

        lines = [] if self._is_begun or not rows else [self._HEADER]
        self._is_begun |= bool(rows)
        lines += [
            (
                row.instance_id,
                format_minute(row.started_at) if row.started_at else "-",
                "-" if row.is_standard else row.node_id or "-",
                row.backup_id or "-",
                "-" if row.size is None else size(row.size),
                row.state.value,
                _note(row),
            )
            for row in rows
        ]
        longest = [max(map(len, column), default=0) for column in zip(*lines, strict=True)]
        if lines:
            self._widths = list(map(max, self._widths, longest))
            show(*map(self._in_columns, lines))

    def _in_columns(self, line: Sequence[str]) -> str:
        cells = [cell.ljust(width) for cell, width in zip(line, self._widths, strict=True)]
        cells[4] = line[4].rjust(self._widths[4])
        return "  ".join(cells).rstrip()


class _Counts:
    """How many backups there are, of how many bytes, and in which states."""

    def __init__(self) -> None:
        self._states: Counter[str] = Counter()
        self._size = 0
        # Acknowledged: sets that are not complete, and backups that the vendor failed.
        self._known_sets = self._known_backups = 0

    def take(self, rows: "Sequence[Row]") -> None:
        """Count some rows, all there are of their instances."""
        self._states.update(row.state.value for row in rows)
        self._size += sum(row.size or 0 for row in rows)
        known = [row for row in rows if row.acknowledged]
        sets = {row.set_key for row in known if row.set_note}
        self._known_sets += len(sets)
        # One of such a set is counted with it.
        self._known_backups += sum(row.set_key not in sets for row in known)

    def __str__(self) -> str:
        from archiver.cli.words import size, times

        parts = ", ".join(f"{count:,} {state}" for state, count in sorted(self._states.items()))
        counts = [(self._known_sets, "backup set"), (self._known_backups, "backup")]
        known = " and ".join(times(count, noun) for count, noun in counts if count)
        return (
            f"{times(self._states.total(), 'backup')}, {size(self._size)}"
            + (f": {parts}" if parts else "")
            + (f"; {known} acknowledged" if known else "")
        )


def _note(row: "Row") -> str:
    from archiver.commands.ls.listing import State

    notes = [f"incomplete set: {row.set_note}"] if row.set_note else []
    notes += [row.acknowledged] if row.acknowledged else []
    notes += [row.note] if row.note else []
    if row.expires_at is not None and row.state in (State.MISSING, State.LISTED, State.DAMAGED):
        left = row.expires_at - datetime.now(UTC)
        if left < _EXPIRES_SOON:
            hours = max(0, int(left.total_seconds() // 3600))
            notes.append(f"expires in {hours} h")
    return "; ".join(notes)
