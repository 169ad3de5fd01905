"""``archiver copy``."""

import logging
from typing import TYPE_CHECKING, Any

import click

from archiver.cli.options import command, option, output_options, range_option
from archiver.cli.params import Count, InstanceId, SetKey, Size
from archiver.cli.places import (
    check_part_size,
    store_at,
    writing_options,
    written_to,
)
from archiver.cli.streams import show

if TYPE_CHECKING:
    from archiver.cli.jsonlines import LastLine
    from archiver.cli.run import Ended
    from archiver.commands.copy.selection import CopyOptions


@command("copy")
@click.argument("origin", metavar="SRC")
@click.argument("place", metavar="DST")
@option(
    "--instance",
    "instances",
    type=InstanceId(),
    multiple=True,
    help="Only this instance (repeatable).",
)
@range_option("Only backups that started in this range")
@option(
    "--set",
    "sets",
    type=SetKey(),
    multiple=True,
    help="Only this backup set, by its key (repeatable).",
)
@option("--diff", is_flag=True, help="Show how the two archives differ; write nothing.")
@option(
    "--replace",
    is_flag=True,
    help="Where DST has other bytes of a backup, take SRC's; DST's are kept in .quarantine/.",
)
@option("--workers", type=Count(1, 256), default=4, help="Files to copy at once.")
@option(
    "--connections",
    type=Count(1, 64),
    default=4,
    help="Parts of one file to copy at once.",
)
@option("--part-size", type=Size(64 * 1024), default="8MiB", help="Unit of copy and resume.")
@option("--memory", type=Size(2**20), default="32MiB", help="Memory for all read buffers.")
@option("--limit-rate", type=Size(1024), help="Maximum bytes per second, in total.")
@option("--progress/--no-progress", default=True, help="Show bars on a terminal, lines in a log.")
@writing_options
@output_options
def copy(origin: str, place: str, **given: Any) -> None:
    """Copy an archive, or part of it, to another directory or bucket.

    SRC and DST are directories or s3://bucket/prefix. Every byte read is checked against its
    record, every byte written as in a pull; what DST already has is skipped. Run it again to
    resume.

    \b
    Examples:
      archiver copy ./backups s3://offsite/redis
      archiver copy ./backups /mnt/usb --instance r-bp1 --range last-7d
      archiver copy ./backups s3://offsite/redis --diff
    """
    from archiver.cli.jsonlines import LastLine
    from archiver.cli.run import run

    last = LastLine(given["as_json"])
    run(
        lambda: (
            _check(origin, place, given, last)
            if given["diff"]
            else _copy(origin, place, given, last)
        ),
        last=last,
        verbose=given["verbose"],
        on_interrupt="run the same command again to resume",
    )


async def _copy(origin: str, place: str, given: dict[str, Any], last: "LastLine") -> "Ended | None":
    from archiver.archive.archive import Archive
    from archiver.cli import words
    from archiver.cli.watching import Watch, remarks, watched
    from archiver.commands.copy.run import copy as copy_archive

    check_part_size(place, given["part_size"])
    options = _options(given)

    async def work(watch: Watch) -> list[str]:
        source = Archive(store_at(origin, given, watch))
        await source.expect()
        target = written_to(store_at(place, given, watch), given)
        await copy_archive(source, target, options, watch.observe)
        selection = options.selection
        narrowed = words.narrowed(selection.range, sets=selection.sets)
        return await remarks(watch, target, dict.fromkeys(selection.instances), narrowed)

    return await watched(given, work, last)


async def _check(
    origin: str, place: str, given: dict[str, Any], last: "LastLine"
) -> "Ended | None":
    """Print the differences, one per line on stdout; exit code 3 if there are any, 6 if all of
    them are things that a store does not return."""
    import json

    from archiver.archive.archive import Archive
    from archiver.cli.run import Ended, say
    from archiver.cli.words import times
    from archiver.commands.copy.difference import mismatches, selects_nothing
    from archiver.commands.copy.run import NOTHING_SELECTED
    from archiver.errors import BackupFailed, IntegrityError
    from archiver.logs import instance_of, record

    source, target = (Archive(store_at(where, given)) for where in (origin, place))
    await source.expect()
    await target.expect()
    found, codes = 0, set[int]()
    async for mismatch in mismatches(source, target, _options(given).selection):
        found += 1
        codes.add(mismatch.exit_code)
        fields = {"key": mismatch.key, "what": mismatch.what, "why": mismatch.why}
        record(logging.ERROR, "difference", str(mismatch), instance_of(fields), fields)
        if given["as_json"]:
            click.echo(json.dumps(fields))
        else:
            show(str(mismatch))
    if not found and await selects_nothing(source, _options(given).selection):
        nothing = f"nothing was compared: {source.store}: {NOTHING_SELECTED}"
        return Ended(BackupFailed.exit_code, say(nothing))
    if not found:
        last.summary = ["no differences in records, names, sizes and SHA256SUMS"]
        if not given["quiet"]:
            say(*last.summary)
        return None
    printed = say(f"{times(found, 'difference')} between {source.store} and {target.store}")
    damaged = IntegrityError.exit_code
    return Ended(damaged if damaged in codes else max(codes), printed)


def _options(given: dict[str, Any]) -> "CopyOptions":
    from archiver.commands.copy.selection import CopyOptions, Selection
    from archiver.transfer.engine import TransferOptions

    return CopyOptions(
        selection=Selection(given["instances"], frozenset(given["sets"]), given["time_range"]),
        replace=given["replace"],
        workers=given["workers"],
        transfer=TransferOptions(
            connections=given["connections"],
            part_size=given["part_size"],
            memory=given["memory"],
            limit_rate=given["limit_rate"],
        ),
    )
