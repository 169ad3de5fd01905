"""``archiver pull``."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from archiver.cli.engines import engine_of, engine_options, patience_of
from archiver.cli.options import (
    Way,
    allow_host_option,
    command,
    max_age_option,
    option,
    output_options,
    shard_option,
)
from archiver.cli.params import Count, Size, Word
from archiver.cli.places import (
    check_part_size,
    store_at,
    writing_options,
    written_to,
)
from archiver.cli.sources import (
    SourceOptions,
    keep_descriptions,
    learning_policies,
    selection_of,
    source_options,
)
from archiver.errors import UsageError
from archiver.model import BackupMode, BackupType
from archiver.retry import RETRIES

if TYPE_CHECKING:
    from archiver.cli.jsonlines import LastLine
    from archiver.cli.run import Ended
    from archiver.commands.pull.plan import PullOptions

F = TypeVar("F", bound=Callable[..., Any])


def download_options(command: F) -> F:
    """How files are downloaded."""
    for declared in reversed(
        (
            option(
                "--network",
                type=Word(["auto", "intranet", "public"]),
                default="auto",
                help="auto tries the intranet once, then falls back; intranet never falls back.",
            ),
            option("--workers", type=Count(1, 256), default=4, help="Files to download at once."),
            option(
                "--connections", type=Count(1, 64), default=4, help="Maximum connections per file."
            ),
            option(
                "--part-size",
                type=Size(64 * 1024),
                default="8MiB",
                help="Unit of download, retry and resume.",
            ),
            option(
                "--memory",
                type=Size(2**20),
                default="32MiB",
                help="Memory for all buffers; each busy connection takes 1 MiB.",
            ),
            option("--limit-rate", type=Size(1024), help="Maximum bytes per second, in total."),
            allow_host_option,
        )
    ):
        command = declared(command)
    return command


@command("pull")
@source_options
@shard_option
@option("--to", "place", required=True, metavar="ARCHIVE", help="Directory, or s3://bucket/prefix.")
@option(
    "--type", "types", type=Word(BackupType), multiple=True,
    help="Only backups of this type (repeatable).",
)  # fmt: skip
@option(
    "--mode", "modes", type=Word(BackupMode), multiple=True,
    help="Only backups made in this mode (repeatable).",
)  # fmt: skip
@download_options
@engine_options
@option("--dry-run", is_flag=True, help="Show what would be downloaded; write nothing.")
@option("--progress/--no-progress", default=True, help="Show bars on a terminal, lines in a log.")
@writing_options
@max_age_option
@output_options
def pull(place: str, **given: Any) -> None:
    """Download backups that are not in the archive yet.

    Lists all backups that the vendor still has of each --instance, downloads the missing ones in
    verified, resumable parts, and writes a record beside each file and a SHA256SUMS for each
    month. Run it again to resume. --tag, --name, --resource-group and --exclude choose among all
    instances of the regions, and need no --instance all.

    \b
    Examples:
      archiver pull --instance r-bp1 --region cn-hangzhou --to ./backups
      archiver pull --instance r-a --instance r-b --max-age 26h --to /srv/redis
      archiver pull --instance r-bp1 --to s3://offsite/redis
      archiver pull --region all --tag env=prod --exclude r-bp9 --to /srv/redis
    """
    from archiver.cli.jsonlines import LastLine
    from archiver.cli.run import run

    last = LastLine(given["as_json"])
    run(
        lambda: _pull(place, given, last),
        last=last,
        verbose=given["verbose"],
        on_interrupt="run the same command again to resume",
        patience=patience_of(given),
    )


async def _pull(place: str, given: dict[str, Any], last: "LastLine") -> "Ended | None":
    from archiver.cli import words
    from archiver.cli.run import announce
    from archiver.cli.watching import Watch, remarks, watched
    from archiver.commands.ls.age import late, overdue
    from archiver.commands.pull.run import pull as pull_backups

    check_part_size(place, given["part_size"])
    if not (selection := selection_of(given)):
        raise UsageError("missing option: --instance ID, or --instance all")
    shard, way = given["shard"], Way.of(given)
    own = replace(selection, ids=shard.own(selection.ids))
    source_options, options = SourceOptions.of(given, own), pull_options(given, way)
    engine = engine_of(given)

    async def work(watch: Watch) -> list[str]:
        if not own:
            return [shard.empty("among those requested")]
        archive = written_to(store_at(place, given, watch), given)
        await archive.check_place()  # before the vendor is asked
        async with source_options.open(watch.observe) as source:
            found = await source_options.find(source, watch.observe)
            queries = source_options.queries(source, found, watch.observe, shard)
            if not (queries or shard.is_all or watch.so_far.failures):
                return [shard.empty("among those requested")]
            own_found = [one for one in found.instances if shard.owns(one.instance_id)]
            asking = () if given["dry_run"] else own_found
            async with learning_policies(source, asking):
                await pull_backups(source, archive, queries, options, watch.observe, engine)
            if not given["dry_run"]:
                await keep_descriptions(
                    archive,
                    source.descriptions(own_found),
                    found.whole,
                    watch.so_far.unknown_instances,
                    source.regions,
                    source.asked_at,
                )
        asked = list(dict.fromkeys(query.instance_id for query in queries))
        now = datetime.now(UTC)
        if given["max_age"] is not None:
            for one in await overdue(archive, asked, timedelta(seconds=given["max_age"]), now):
                watch.overdue(one)
        elif not given["dry_run"]:
            for old in late(watch.so_far.starts, now):
                printed = watch.progress.say
                announce(logging.WARNING, "late", str(old), instance=old.instance_id, say=printed)
        kinds = [*given["types"], *given["modes"]]
        return await remarks(watch, archive, asked, words.narrowed(given["time_range"], kinds))

    return await watched(given, work, last)


def pull_options(given: Mapping[str, Any], way: Way) -> "PullOptions":
    """What to download, and how, by the options of a command. Raises UsageError."""
    from archiver.commands.pull.plan import PullOptions
    from archiver.transfer.download_url import NetworkChoice
    from archiver.transfer.engine import TransferOptions

    return PullOptions(
        types=frozenset(map(BackupType, given.get("types", ()))),
        modes=frozenset(map(BackupMode, given.get("modes", ()))),
        workers=given["workers"],
        dry_run=given.get("dry_run", False),
        transfer=TransferOptions(
            network=NetworkChoice(given["network"]),
            connections=given["connections"],
            part_size=given["part_size"],
            memory=given["memory"],
            limit_rate=given["limit_rate"],
            retry=RETRIES.part.policy(way.retry_for),
            proxies=way.proxies,
        ),
    )
