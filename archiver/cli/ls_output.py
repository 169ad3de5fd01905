"""What ``archiver ls`` shows: rows as a table or as JSON, and what is wrong with them."""

import itertools
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from archiver.archive.archive import Archive
from archiver.cli import jsonlines
from archiver.cli.run import Ended, announce
from archiver.cli.streams import show
from archiver.cli.words import size, times
from archiver.commands.ls.age import late_rows, overdue_rows
from archiver.commands.ls.listing import Row, State
from archiver.errors import ArchiverError, BackupFailed, IntegrityError, worst_exit_code
from archiver.events import Failed
from archiver.times import format_minute

# The vendor's shortest retention is 7 days: with two left, there is a night to act.
_EXPIRES_SOON = timedelta(days=2)
# Usual values fit, so that all rows are in line though more instances are still to come; and the
# header fits into 80 columns.
_WIDTHS = (17, 16, 4, 10, 9, 8, 0)
_CAN_EXPIRE = frozenset((State.MISSING, State.LISTED, State.DAMAGED))


class Shown:
    """Rows, shown as they come, an instance after the other; and what is wrong with them."""

    def __init__(self, given: Mapping[str, Any], where: str) -> None:
        self.instances: dict[str, None] = {}
        self.wrong: list[Ended] = []
        self.counts = Counts()
        self._given = given
        self._where = where
        self._table = Table()

    def take(self, rows: Sequence[Row]) -> None:
        """Show rows: all there are of their instances."""
        self.counts.take(rows)
        self.instances |= dict.fromkeys(row.instance_id for row in rows)
        if self._given["as_json"]:
            _write_json(rows)
        else:
            self._table.write(rows)
        if self._given["max_age"] is None:
            # Only of instances requested by name: an archive may hold some that are long gone.
            for old in late_rows(rows, self._given["instances"], datetime.now(UTC)):
                announce(logging.WARNING, "late", str(old), instance=old.instance_id)
        self.wrong += self._wrong(rows)

    def tell_of_bad(self, notes: Iterable[ArchiverError]) -> None:
        """Say what is wrong with notes that somebody took."""
        for error in notes:
            printed = announce(logging.ERROR, "damaged", f"damaged: {error}", error=error)
            self.wrong.append(Ended(error.exit_code, printed))
            if self._given["as_json"]:  # of the others, their rows say it
                event = Failed(getattr(error, "key", "an acknowledgement"), error)
                jsonlines.write_event(event)

    def tell_of_nothing(self, archive: Archive) -> None:
        """Say which of the instances that were asked for the archive has nothing of."""
        for name in self._lacking:
            text = f"no backups: {archive.store} has none of {name}"
            announce(logging.WARNING, "nothing_listed", text, instance=name)

    def end(self, *, quiet: bool) -> None:
        """Sum up."""
        if not (self._given["as_json"] or quiet):
            click.echo(str(self.counts), err=True)
        self.wrong += self._overdue((), self._lacking)
        if self._given["max_age"] is not None and not (self.instances or self._given["instances"]):
            text = f"overdue: there are no backups {self._where}"
            printed = announce(logging.ERROR, "overdue", text)
            self.wrong.append(Ended(BackupFailed.exit_code, printed))

    @property
    def _lacking(self) -> list[str]:
        asked = dict.fromkeys(self._given["instances"])
        return [name for name in asked if name not in self.instances]

    def _wrong(self, rows: Sequence[Row]) -> Iterator[Ended]:
        """Print and yield what is damaged; with --check what is missing, failed or incomplete; with
        --max-age what is too old."""
        for error in (row.error for row in rows if row.error is not None):
            printed = announce(logging.ERROR, "damaged", f"damaged: {error}", error=error)
            yield Ended(error.exit_code, printed)
        if self._given["check"]:
            for text in unchecked(rows):
                yield Ended(BackupFailed.exit_code, announce(logging.ERROR, "missing", text))
        yield from self._overdue(rows, dict.fromkeys(row.instance_id for row in rows))

    def _overdue(self, rows: Sequence[Row], instances: Iterable[str]) -> Iterator[Ended]:
        """With --max-age, the instances of which nothing complete is young enough."""
        if self._given["max_age"] is None:
            return
        most = timedelta(seconds=self._given["max_age"])
        for late in overdue_rows(rows, instances, self._where, most, datetime.now(UTC)):
            printed = announce(logging.ERROR, "overdue", str(late), instance=late.instance_id)
            yield Ended(BackupFailed.exit_code, printed)
            if self._given["as_json"]:
                jsonlines.write_overdue(late.instance_id, late.newest, str(late))


def unchecked(rows: Sequence[Row]) -> Iterator[str]:
    """One line for each missing or failed file and each incomplete set, unless the vendor is still
    making it or somebody has acknowledged it."""
    printed = {row.set_key for row in rows if row.state is State.UNFINISHED}
    for row in rows:
        if row.state in (State.MISSING, State.FAILED) and row.acknowledged is None:
            began = format_minute(row.started_at) if row.started_at else "?"
            yield f"{row.state}: {row.node_id}-{row.backup_id}, started {began} UTC"
        is_known = row.set_acknowledged or row.set_key in printed
        if row.set_note is not None and not is_known:
            printed.add(row.set_key)
            yield f"incomplete: {row.instance_id}, set {row.set_key}: {row.set_note}"


def ended(wrong: Sequence[Ended]) -> Ended | None:
    """3 if anything is damaged, 6 if all of that is what the store does not return; otherwise the
    worst code of the other problems."""
    if not wrong:
        return None
    codes = {one.code for one in wrong}
    damaged = IntegrityError.exit_code
    return Ended(damaged if damaged in codes else worst_exit_code(codes), wrong[0].why)


def _write_json(rows: Sequence[Row]) -> None:
    jsonlines.write_objects(
        {
            **row._asdict(),
            "nodes_expected": None if row.nodes_expected is None else row.nodes_expected.count,
            "set_complete": row.set_note is None,
        }
        for row in rows
    )


class Table:
    """Rows in columns, written as they come: a column grows where a later instance needs it. Long
    notes are below the rows of their instance."""

    _HEADER = ("INSTANCE", "START (UTC)", "NODE", "BACKUP", "SIZE", "STATE", "NOTE")

    def __init__(self) -> None:
        self._widths: list[int] = []

    def write(self, rows: Sequence[Row]) -> None:
        """Write some rows, all there are of their instances."""
        if not rows:
            return
        lines = [*(() if self._widths else [self._HEADER]), *map(_cells, rows)]
        longest = [max(map(len, column)) for column in zip(*lines, strict=True)]
        self._widths = list(map(max, self._widths or _WIDTHS, longest))
        columns = [f"{{:<{width}}}" for width in self._widths]
        columns[4] = f"{{:>{self._widths[4]}}}"
        line = "  ".join(columns)
        noted = (row for row in rows if row.set_note or row.acknowledged or row.note)
        notes = dict.fromkeys(itertools.chain.from_iterable(map(_notes, noted)))
        show(*(line.format(*cells).rstrip() for cells in lines), *notes)


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.instance_id,
        format_minute(row.started_at) if row.started_at else "-",
        "-" if row.is_standard else row.node_id.removeprefix(f"{row.instance_id}-") or "-",
        row.backup_id or row.set_key.removeprefix(f"{row.instance_id}/"),
        "-" if row.size is None else size(row.size),
        row.state,
        _remark(row),
    )


def _remark(row: Row) -> str:
    """What fits in the table."""
    notes = ["incomplete set"] if row.set_note else []
    notes += ["acknowledged"] if row.acknowledged else []
    notes += ["see below"] if row.note else []
    if row.expires_at is not None and row.state in _CAN_EXPIRE:
        left = row.expires_at - datetime.now(UTC)
        if left < _EXPIRES_SOON:
            hours = max(0, int(left.total_seconds() // 3600))
            notes.append(f"expires in {hours} h")
    return ", ".join(notes)


def _notes(row: Row) -> Iterator[str]:
    """What does not, in a line each; that of a set is the same for all of its rows."""
    if row.set_note:
        known = f"; {row.acknowledged}" if row.acknowledged else ""
        yield f"incomplete set: {row.set_key}: {row.set_note}{known}"
    elif row.acknowledged:
        yield f"{row.node_id}-{row.backup_id}: {row.acknowledged}"
    if row.note:
        yield f"note: {row.node_id}-{row.backup_id}: {row.note}"


class Counts:
    """How many backups there are, of how many bytes, and in which states."""

    def __init__(self) -> None:
        self._states: Counter[str] = Counter()
        self._others = 0  # a damaged SHA256SUMS, or a folder, is no backup
        self._size = 0
        # Acknowledged: sets that are not complete, and backups that the vendor failed.
        self._known_sets = self._known_backups = 0

    def take(self, rows: Sequence[Row]) -> None:
        """Count some rows, all there are of their instances."""
        states = [row.state for row in rows if row.backup_id]
        self._states.update(states)
        self._others += len(rows) - len(states)
        self._size += sum(row.size or 0 for row in rows)
        known = [row for row in rows if row.acknowledged]
        sets = {row.set_key for row in known if row.set_note}
        self._known_sets += len(sets)
        # One of such a set is counted with it.
        self._known_backups += sum(row.set_key not in sets for row in known)

    def __str__(self) -> str:
        parts = ", ".join(f"{count:,} {state}" for state, count in sorted(self._states.items()))
        counts = [(self._known_sets, "backup set"), (self._known_backups, "backup")]
        known = " and ".join(times(count, noun) for count, noun in counts if count)
        return (
            f"{times(self._states.total(), 'backup')}, {size(self._size)}"
            + (f": {parts}" if parts else "")
            + (f"; also damaged: {self._others:,} of what is no backup" if self._others else "")
            + (f"; {known} acknowledged" if known else "")
        )
