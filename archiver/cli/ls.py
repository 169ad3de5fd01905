"""``archiver ls``."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from archiver.cli.options import (
    EPILOG,
    SETTINGS,
    SourceOptions,
    Way,
    option,
    output_options,
    source_options,
)
from archiver.cli.places import bucket_options, store_at
from archiver.timerange import TimeRange

if TYPE_CHECKING:
    from archiver.archive.catalogue import Row
    from archiver.errors import ArchiverError
    from archiver.model import Backup

# The vendor's least retention is 7 days: with two left, there is a night to act.
_EXPIRES_SOON = timedelta(days=2)


@click.command(context_settings=SETTINGS, epilog=EPILOG)
@click.argument("place", metavar="[ARCHIVE]", required=False)
@option("--remote", is_flag=True, help="Ask the vendor, and compare.")
@source_options
@bucket_options
@output_options
def ls(place: str | None, *, remote: bool, time_range: TimeRange, **given: Any) -> None:
    """List backups: what the vendor has, what the archive holds.

    With ARCHIVE alone, what is in it, of all instances or of each --instance; nothing is asked of
    the vendor, and --range does not apply. With --remote or without ARCHIVE, what the vendor lists
    in --range: archived, missing, incomplete, and about to expire.

    \b
    Examples:
      archiver ls ./backups
      archiver ls --instance r-bp1 --region cn-hangzhou
      archiver ls ./backups --remote --instance r-bp1 --region cn-hangzhou
    """
    from archiver.cli.run import run

    run(
        lambda: _ls(place, time_range, given, remote=remote or place is None),
        verbose=given["verbose"],
        on_interrupt="nothing was changed",
    )


async def _ls(
    place: str | None, time_range: TimeRange, given: dict[str, Any], *, remote: bool
) -> int:
    from archiver.archive import catalogue
    from archiver.archive.acknowledged import Acknowledged
    from archiver.archive.archive import Archive
    from archiver.errors import UsageError

    archive = Archive(store_at(place, given)) if place is not None else None
    if archive is not None:
        await archive.expect()
    if archive is None or remote:
        if not given["instances"]:
            if archive is not None:
                raise UsageError("--remote: no instance to ask about", hint="give --instance")
            raise UsageError(
                "neither an archive nor an instance is given",
                hint="name an archive, or give --instance",
            )
        options = SourceOptions(
            given["instances"],
            time_range,
            given["region"],
            given["endpoint"],
            given["aof"],
            Way.of(given),
        )
        backups, not_listed = await _listed(options, given["verbose"])
        if archive is None:
            rows = catalogue.vendor_rows(backups)
        else:
            rows = await catalogue.compared_rows(archive, backups)
    else:
        rows = await catalogue.archived_rows(archive, given["instances"])
        not_listed = []
    bad: list[ArchiverError] = []
    if archive is not None:
        rows, bad = await catalogue.with_acknowledgements(rows, Acknowledged(archive))
    if given["as_json"]:
        _write_json(rows)
    else:
        _write_table(rows, quiet=given["quiet"])
    return _exit_code(rows, not_listed, bad)


def _exit_code(
    rows: "Sequence[Row]", not_listed: "Sequence[ArchiverError]", bad: "Sequence[ArchiverError]"
) -> int:
    """3 when anything is damaged, and 6 when all of that is what the store does not give; else
    that of what could not be listed. Each of it is said."""
    from archiver.cli.run import say
    from archiver.errors import IntegrityError, worst_exit_code

    for error in not_listed:
        say(f"archiver: {error}")
    errors = [*(row.error for row in rows if row.error is not None), *bad]
    for error in errors:
        say(f"damaged: {error}")
    codes = {error.exit_code for error in errors}
    if IntegrityError.exit_code in codes:
        return IntegrityError.exit_code
    return worst_exit_code(codes | {error.exit_code for error in not_listed})


async def _listed(
    options: SourceOptions, verbose: int
) -> "tuple[list[Backup], list[ArchiverError]]":
    """What is listed, and what kept instances from being listed. Raises what keeps all."""
    from archiver.cli.run import say
    from archiver.cli.words import line
    from archiver.errors import ArchiverError
    from archiver.events import Event

    def observe(event: Event) -> None:
        told = line(event)
        if told is not None and told[0] <= verbose:
            say(told[1])

    backups: list[Backup] = []
    errors: list[ArchiverError] = []
    async with options.open(observe) as source:
        for query in options.queries():
            try:
                async for page in source.pages(query):
                    backups.extend(page.backups)
                    for error in page.refused:
                        say(f"archiver: {error}")
            except ArchiverError as error:
                errors.append(error)
                if error.concerns_all:
                    break
    if errors and not backups:
        raise errors.pop()
    return backups, errors


def _write_json(rows: "Sequence[Row]") -> None:
    import dataclasses

    from archiver.cli.jsonlines import write_object

    for row in rows:
        fields = {f.name: getattr(row, f.name) for f in dataclasses.fields(row)}
        write_object({**fields, "set_complete": row.set_note is None})


def _write_table(rows: "Sequence[Row]", *, quiet: bool) -> None:
    from collections import Counter

    from archiver.cli.words import size, times

    header = ("INSTANCE", "START (UTC)", "NODE", "BACKUP", "SIZE", "STATE", "NOTE")
    table = [header] + [
        (
            row.instance_id,
            f"{row.started_at:%Y-%m-%d %H:%M}" if row.started_at else "-",
            "-" if row.is_standard else row.node_id or "-",
            row.backup_id or "-",
            "-" if row.size is None else size(row.size),
            row.state.value,
            _note(row),
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in table) for column in range(len(header))]
    for line in table if rows else []:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        cells[4] = line[4].rjust(widths[4])
        click.echo("  ".join(cells).rstrip())
    if not quiet:
        states = Counter(row.state.value for row in rows)
        parts = ", ".join(f"{count:,} {state}" for state, count in sorted(states.items()))
        total = size(sum(row.size or 0 for row in rows))
        known = len({row.set_key for row in rows if row.acknowledged})
        click.echo(
            f"{times(len(rows), 'backup')}, {total}"
            + (f": {parts}" if parts else "")
            + (f"; {times(known, 'backup set')} acknowledged" if known else ""),
            err=True,
        )


def _note(row: "Row") -> str:
    from archiver.archive.catalogue import State

    notes = [f"incomplete set: {row.set_note}"] if row.set_note else []
    notes += [row.acknowledged] if row.acknowledged else []
    notes += [row.note] if row.note else []
    if row.expires_at is not None and row.state in (State.MISSING, State.LISTED, State.DAMAGED):
        left = row.expires_at - datetime.now(UTC)
        if left < _EXPIRES_SOON:
            hours = max(0, int(left.total_seconds() // 3600))
            notes.append(f"expires in {hours} h")
    return "; ".join(notes)
