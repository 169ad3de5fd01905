"""``archiver adopt``."""

from typing import TYPE_CHECKING, Any

import click

from archiver.cli.options import command, option, output_options
from archiver.cli.params import Count, InstanceId, Size
from archiver.cli.places import (
    check_part_size,
    store_at,
    writing_options,
    written_to,
)

if TYPE_CHECKING:
    from archiver.cli.jsonlines import LastLine
    from archiver.cli.run import Ended


@command("adopt")
@click.argument("origin", metavar="PLACE")
@option(
    "--instance", type=InstanceId(), required=True,
    help="What the instance is to be called in the archive.",
)  # fmt: skip
@option("--to", "place", required=True, metavar="ARCHIVE", help="Directory, or s3://bucket/prefix.")
@option(
    "--pattern", "patterns", multiple=True, metavar="NAME",
    help="Only files named so, with {node}, {set}, {time:%Y%m%d} and * (repeatable).",
)  # fmt: skip
@option("--workers", type=Count(1, 256), default=4, help="Files to read at once.")
@option("--connections", type=Count(1, 64), default=4, help="Parts of one file to read at once.")
@option("--part-size", type=Size(64 * 1024), default="8MiB", help="Unit of reading and resume.")
@option("--memory", type=Size(2**20), default="32MiB", help="Memory for all read buffers.")
@option("--limit-rate", type=Size(1024), help="Maximum bytes per second, in total.")
@option("--dry-run", is_flag=True, help="Show what would be taken; write nothing.")
@option("--progress/--no-progress", default=True, help="Show bars on a terminal, lines in a log.")
@writing_options
@output_options
def adopt(origin: str, place: str, **given: Any) -> None:
    """Take dumps and logs that are in a directory or bucket into the archive.

    PLACE is a directory or s3://bucket/prefix with RDB and AOF files: exports of ElastiCache or
    Memorystore, the dumps of a cron job. They become backups like any other. Nothing in PLACE is
    changed; run it again to take what is new there.

    \b
    Examples:
      archiver adopt /srv/dumps --instance prod-cache --to s3://offsite/redis
      archiver adopt s3://exports/prod --instance prod-cluster --to ./backups
      archiver adopt /dumps --instance shop --pattern '{set}/{node}.rdb' --to ./b
    """
    from archiver.cli.jsonlines import LastLine
    from archiver.cli.run import run

    last = LastLine(given["as_json"])
    run(
        lambda: _adopt(origin, place, given, last),
        last=last,
        verbose=given["verbose"],
        on_interrupt="run the same command again to resume",
    )


async def _adopt(
    origin: str, place: str, given: dict[str, Any], last: "LastLine"
) -> "Ended | None":
    from archiver.cli.watching import Watch, remarks, watched
    from archiver.commands.adopt.run import adopt as adopt_files
    from archiver.commands.pull.plan import PullOptions
    from archiver.events import Unfinished
    from archiver.transfer.engine import TransferOptions

    check_part_size(place, given["part_size"])
    options = PullOptions(
        workers=given["workers"],
        dry_run=given["dry_run"],
        transfer=TransferOptions(
            connections=given["connections"],
            part_size=given["part_size"],
            memory=given["memory"],
            limit_rate=given["limit_rate"],
        ),
    )

    async def work(watch: Watch) -> list[str]:
        watch.unprinted = (Unfinished,)  # NotTaken names the file, and says why
        files = store_at(origin, given, watch)
        archive = written_to(store_at(place, given, watch), given)
        instance, patterns = given["instance"], given["patterns"]
        await adopt_files(files, archive, instance, patterns, options, watch.observe)
        return await remarks(watch, archive, [instance], [])

    return await watched(given, work, last)
