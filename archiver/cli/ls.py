"""``archiver ls``."""

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from archiver.cli.options import command, max_age_option, option, output_options
from archiver.cli.params import ALL_INSTANCES
from archiver.cli.places import bucket_options, store_at
from archiver.cli.sources import SourceOptions, selection_of, source_options

if TYPE_CHECKING:
    from archiver.archive.archive import Archive
    from archiver.cli.jsonlines import LastLine
    from archiver.cli.run import Ended
    from archiver.errors import ArchiverError
    from archiver.model import Backup, Query
    from archiver.sources.base import Source

# What says how to ask. In the environment it may be meant for another `ls`.
_OF_THE_VENDOR = {"regions", "endpoint", "aof", "proxy", "api_rate", "refresh"}


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
    from archiver.cli.ls_output import Shown, ended
    from archiver.cli.words import QUIET
    from archiver.commands.ls import listing

    archive = Archive(store_at(place, given)) if place is not None else None
    if archive is not None:
        await archive.expect()
    listed = _Listed(last)
    if archive is None or given["remote"]:
        verbosity = QUIET if given["quiet"] else given["verbose"]
        given = {**given, "instances": await _ask(_source(archive, given), verbosity, listed)}
    else:
        given = {**given, "instances": _named(given)}
    shown = Shown(given, "at the vendor" if archive is None else f"in {archive.store}")
    if archive is None:
        shown.take(listing.vendor_rows(listed.backups))
    else:
        acknowledged = Acknowledged(archive)
        if given["remote"]:
            rows = await listing.compared_rows(archive, listed.backups)
            # What the vendor does not list may be all that is left of an instance.
            gone = [name for name in dict.fromkeys(given["instances"]) if name not in listed.whole]
            rows += await listing.other_rows(archive, gone, given["time_range"], rows)
            shown.take(await listing.with_acknowledgements(rows, acknowledged))
        else:
            found = listing.rows_by_instance(archive, given["instances"], given["time_range"])
            async for rows in found:
                shown.take(await listing.with_acknowledgements(rows, acknowledged))
            shown.tell_of_nothing(archive)
        shown.tell_of_bad(acknowledged.bad.values())
    last.summary = [str(shown.counts)]
    shown.end(quiet=given["quiet"] or (not shown.instances and bool(listed.wrong)))
    return ended([*listed.wrong, *shown.wrong])


def _source(archive: "Archive | None", given: dict[str, Any]) -> SourceOptions:
    """The source to ask. Raises UsageError."""
    from archiver.errors import UsageError

    selection = selection_of(given)
    if not selection:
        if archive is not None:
            raise UsageError("--remote needs --instance ID, or --instance all")
        raise UsageError(
            "missing argument: ARCHIVE, or --instance ID", hint="see archiver ls --help"
        )
    return SourceOptions.of(given, selection)


def _named(given: dict[str, Any]) -> tuple[str, ...]:
    """The instances of an archive to show; none stands for all. Raises UsageError."""
    from archiver.errors import UsageError

    selection = selection_of(given)
    if selection.is_all and ALL_INSTANCES not in given["instances"]:
        raise UsageError("an archive knows no names, tags or groups: --remote asks the vendor")
    context = click.get_current_context()
    for param in context.command.params:
        if (
            param.name in _OF_THE_VENDOR
            and context.get_parameter_source(param.name) is ParameterSource.COMMANDLINE
        ):
            raise UsageError(
                f"{param.opts[0]} is for the vendor, who is not asked",
                hint="add --remote, or leave it out",
            )
    return () if selection.is_all else selection.ids


@dataclass(slots=True)
class _Listed:
    """What the vendor lists, and the instances of which it listed all, and something; errors in it
    are printed at once and kept in ``wrong``."""

    last: "LastLine"
    backups: "list[Backup]" = field(default_factory=list)
    wrong: "list[Ended]" = field(default_factory=list)
    whole: set[str] = field(default_factory=set)

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


async def _ask(options: SourceOptions, verbosity: int, listed: _Listed) -> tuple[str, ...]:
    """List each instance; returns their IDs. One that cannot be listed fails alone, and so does an
    entry; what concerns all instances of a region is told once."""
    from archiver.cli.run import say
    from archiver.cli.words import line
    from archiver.errors import ArchiverError, others_not_asked
    from archiver.events import Event, Failed, NothingListed
    from archiver.logs import OF_RUNS, logged

    def observe(event: Event) -> None:
        shown = line(event)
        if isinstance(event, Failed):
            listed.failed(event.subject, event.error, event.error.exit_code)
        elif shown is not None and shown[0] <= verbosity:
            say(shown[1])

    tell_nothing, over = logged(observe, OF_RUNS), set[str]()
    async with options.open(observe) as source:
        queries = options.queries(source, await options.find(source, observe), observe)
        not_listed = Counter(query.region for query in queries)
        for query in queries:
            if query.region in over:
                continue
            not_listed[query.region] -= 1
            try:
                if await _take_pages(source, query, listed):
                    listed.whole.add(query.instance_id)
                else:
                    tell_nothing(NothingListed(query.instance_id, query.start, query.end))
            except ArchiverError as error:
                if error.concerns_all and (left := not_listed[query.region]):
                    error.message += f"; {others_not_asked(left)}"
                listed.failed(query.instance_id, error, error.exit_code)
                if error.concerns_all:
                    listed.last.ended_by = error
                    over.add(query.region)
    return tuple(dict.fromkeys(query.instance_id for query in queries))


async def _take_pages(source: "Source", query: "Query", listed: _Listed) -> int:
    """Collect the entries of one instance; returns their number, unusable ones included."""
    from archiver.errors import BackupFailed

    count = 0
    async for page in source.pages(query):
        count += len(page.backups) + len(page.refused)
        listed.backups.extend(page.backups)
        for one in page.refused:
            listed.failed("a listed entry", one.error, BackupFailed.exit_code)
    return count
