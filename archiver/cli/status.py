"""``archiver status``."""

import functools
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import click

from archiver.cli.options import command, endpoint_option, option, output_options, way_options
from archiver.cli.params import Duration, Real, Word
from archiver.cli.places import bucket_options, store_at
from archiver.cli.sources import (
    SourceOptions,
    learning_policies,
    region_option,
    selection_of,
    selection_options,
)
from archiver.errors import UsageError

if TYPE_CHECKING:
    from archiver.archive.archive import Archive
    from archiver.cli.jsonlines import LastLine
    from archiver.cli.run import Ended
    from archiver.commands.status.judge import Limits
    from archiver.commands.status.run import Remote

TEXT: Final = "text"
NAGIOS: Final = "nagios"
PROMETHEUS: Final = "prometheus"
_UNKNOWN: Final = 3  # of a Nagios plugin


@command("status")
@click.argument("places", metavar="ARCHIVE...", nargs=-1, required=True)
@option("--all", "show_all", is_flag=True, help="Also list the instances that are well.")
@option("--remote", is_flag=True, help="Ask the vendor what it has that the archive lacks.")
@option(
    "--warning",
    type=Real(1, 1000),
    default=1.5,
    metavar="N",
    help="Warn when the newest backup is older than N of its intervals.",
)
@option(
    "--critical",
    type=Real(1, 1000),
    default=3.0,
    metavar="N",
    help="Critical when it is older than N of its intervals.",
)
@option(
    "--verify-within",
    type=Duration(),
    help="Warn when the newest set was not verified for so long, e.g. 35d.",
)
@option(
    "--drill-within",
    type=Duration(),
    help="Warn when an instance did not pass a drill for so long, e.g. 100d.",
)
@option(
    "--format",
    "format_",
    type=Word([TEXT, NAGIOS, PROMETHEUS]),
    default=TEXT,
    help="For people, for Prometheus, or a Nagios plugin, which exits with 0, 1, 2 or 3.",
)
@selection_options
@region_option
@endpoint_option
@way_options
@bucket_options
@output_options
def status(places: tuple[str, ...], **given: Any) -> None:
    """Show for each instance which backups were expected, what came, and what is wrong.

    Expected is what the backup policy says, as the last pull saw it; without one, what the backups
    so far show. The archive is all that is asked, unless with --remote. Exits with 1 if anything is
    wrong.

    \b
    Examples:
      archiver status ./backups
      archiver status /srv/redis s3://offsite/redis --all
      archiver status ./backups --drill-within 100d --format nagios
      archiver status ./backups --remote --instance all --region all
    """  # fmt: skip
    from archiver.cli.jsonlines import LastLine
    from archiver.cli.run import run

    last = LastLine(given["as_json"])
    run(
        lambda: _status(places, given, last),
        last=last,
        verbose=given["verbose"],
        on_interrupt="nothing was changed",
    )


async def _status(
    places: tuple[str, ...], given: dict[str, Any], last: "LastLine"
) -> "Ended | None":
    from archiver.archive.archive import Archive
    from archiver.cli import status_metrics, streams
    from archiver.cli import status_output as output
    from archiver.cli.run import Ended, say
    from archiver.commands.status.run import status as find_status
    from archiver.errors import ArchiverError

    limits, now = _limits(given), datetime.now(UTC)
    try:
        found = []
        for place in places:
            archive = Archive(store_at(place, given))
            await archive.expect()
            remote, names = await _remote(archive, given) if given["remote"] else (None, ())
            names = names or _named(given)
            found.append(await find_status(archive, limits, now, names, remote))
    except ArchiverError as error:
        if given["format_"] == NAGIOS:
            output.show_unknown(error)
            return Ended(_UNKNOWN, say(f"archiver: {error}"))
        raise
    if last.wanted:
        output.write_json(found)
    elif given["format_"] == NAGIOS:
        output.show_nagios(found)
    elif given["format_"] == PROMETHEUS:
        streams.write(status_metrics.text(found))
    else:
        output.show_text(found, now, show_all=given["show_all"])
    last.summary = [output.counts(found)]
    last.metrics = functools.partial(status_metrics.add, found=found)
    return output.ended(found, is_nagios=given["format_"] == NAGIOS)


def _limits(given: Mapping[str, Any]) -> "Limits":
    from archiver.commands.status.judge import Limits

    if given["as_json"] and given["format_"] != TEXT:
        raise UsageError(f"--json and --format {given['format_']} cannot be combined")
    if given["critical"] < given["warning"]:
        raise UsageError("--critical is below --warning")

    def within(name: str) -> timedelta | None:
        return None if given[name] is None else timedelta(seconds=given[name])

    return Limits(
        warning=given["warning"],
        critical=given["critical"],
        verify_within=within("verify_within"),
        drill_within=within("drill_within"),
    )


def _named(given: Mapping[str, Any]) -> tuple[str, ...]:
    """The instances of an archive to show; none stands for all. Raises UsageError."""
    selection = selection_of(given)
    if selection.is_all and not selection.is_unfiltered:
        raise UsageError("--tag, --name and --resource-group need --remote")
    return selection.ids


async def _remote(archive: "Archive", given: Mapping[str, Any]) -> "tuple[Remote, tuple[str, ...]]":
    """What the vendor says of the instances that are chosen, or that the archive knows."""
    from archiver.archive.contents import instances
    from archiver.cli.run import say
    from archiver.cli.words import QUIET, line
    from archiver.commands.status.run import Remote
    from archiver.errors import ArchiverError, UnknownInstance
    from archiver.events import Event, Failed
    from archiver.model import Backup
    from archiver.sources.alibaba.selection import Selection

    verbosity = QUIET if given["quiet"] else given["verbose"]

    def observe(event: Event) -> None:
        shown = line(event)
        if shown is not None and shown[0] <= verbosity:
            say(shown[1])

    selection = selection_of(given)
    if not selection:
        selection = Selection(tuple(await instances(archive.store)))
    options = SourceOptions.of(given, selection)
    listed: dict[str, list[Backup]] = {}
    wrong: list[ArchiverError] = []
    async with options.open(observe) as source:
        found = await options.find(source, observe)
        async with learning_policies(source, found.instances):
            for query in options.queries(source, found, observe):
                backups = list[Backup]()
                try:
                    async for page in source.pages(query):
                        backups += page.backups
                except UnknownInstance as error:  # its backups here are all that is left
                    observe(Failed(query.instance_id, error))
                except ArchiverError as error:
                    wrong.append(error)
                    observe(Failed(query.instance_id, error))
                else:
                    listed[query.instance_id] = backups
    names = () if selection.is_all else selection.ids
    wrong += [*found.failures.values(), *found.refused]
    described = {one.instance_id: one for one in source.descriptions(found.instances)}
    return Remote(listed, described, wrong), names
