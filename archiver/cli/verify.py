"""``archiver verify``."""

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from archiver.cli.engines import crew_of, engine_options, patience_of
from archiver.cli.options import (
    allow_host_option,
    command,
    endpoint_option,
    option,
    output_options,
    range_option,
    shard_option,
    way_options,
)
from archiver.cli.params import Anchor, Count, Duration, InstanceId, Share
from archiver.cli.places import check_keeping, keeping_options, lock_option, store_at
from archiver.cli.sources import SourceOptions
from archiver.retry import RETRIES

if TYPE_CHECKING:
    from archiver.archive.archive import Archive
    from archiver.cli.bytebar import ByteBar, ByteLog
    from archiver.cli.jsonlines import LastLine
    from archiver.cli.run import Ended, Printed
    from archiver.commands.verify.events import Observer
    from archiver.commands.verify.model import VerifyOptions, VerifySummary

_SOURCE = "source"


@command("verify")
@click.argument("place", metavar="ARCHIVE")
@option(
    "--instance",
    "instances",
    type=InstanceId(),
    multiple=True,
    help="Only this instance (repeatable).",
)
@range_option("Only backup sets that started in this range")
@shard_option
@option(
    "--sample",
    type=Share(above_zero=True),
    help="Read only this share of each month's files, e.g. 5%.",
)
@option("--seed", type=Count(0), help="Seed for --sample.  [default: today, as YYYYMMDD]")
@option("--since-verified", type=Duration(), help="Skip files verified within this time, e.g. 30d.")
@option(
    "--anchor",
    "anchors",
    type=Anchor(),
    multiple=True,
    metavar="ID:SHA256",
    help="Drill evidence that must be there unchanged (repeatable).",
)
@option(
    "--repair-from",
    metavar="OTHER",
    help="Repair from another archive, or from 'source' (the vendor).",
)
@option(
    "--region",
    "regions",
    metavar="ID",
    multiple=True,
    help="Region of the instances, for --repair-from source (repeatable); 'all' for every region.",
)
@endpoint_option
@way_options
@allow_host_option
@option("--workers", type=Count(1, 256), default=4, help="Files to read at once.")
@engine_options
@option("--progress/--no-progress", default=True, help="Show a bar on a terminal, lines in a log.")
@lock_option("0s")
@keeping_options
@output_options
def verify(place: str, **given: Any) -> None:
    """Check every file in an archive, and optionally repair it.

    Compares each file with its record, SHA256SUMS, the source's CRC-64 and the dump's own
    checksum; finds what is missing, extra, changed or tampered with. Exits with 3 if bytes are
    wrong, 1 if sets lack files. The results are kept in the archive: run it again with
    --since-verified to resume.

    \b
    Examples:
      archiver verify ./backups
      archiver verify ./backups --sample 5%
      archiver verify ./backups --since-verified 30d
      archiver verify ./backups --repair-from /mnt/offsite
      archiver verify ./backups --repair-from source --region cn-hangzhou
    """
    from archiver.cli.jsonlines import LastLine
    from archiver.cli.run import run

    last = LastLine(given["as_json"])
    run(
        lambda: _verify(place, given, last),
        last=last,
        verbose=given["verbose"],
        on_interrupt="run it again with --since-verified to resume",
        patience=patience_of(given),
    )


async def _check_supplier(archive: "Archive", given: dict[str, Any]) -> None:
    """Raises UsageError for an unusable ``--repair-from``, before anything is read."""
    from archiver.archive.archive import Archive, check_apart

    other = given["repair_from"]
    if other == _SOURCE:
        _source_options(given)
    elif other is not None:
        supplier = Archive(store_at(other, given))
        await supplier.expect()
        await check_apart(supplier, archive)


async def _verify(place: str, given: dict[str, Any], last: "LastLine") -> "Ended | None":
    from archiver.archive.archive import Archive
    from archiver.cli import verify_words
    from archiver.cli.bytebar import choose_bar
    from archiver.cli.run import Ended, Printed, say
    from archiver.commands.verify import events
    from archiver.commands.verify.run import verify as verify_archive
    from archiver.commands.verify.words import OF_VERIFY
    from archiver.errors import EXIT_OK, ArchiverError
    from archiver.logs import logged

    store = store_at(place, given)
    check_keeping(store, given)
    archive = Archive(store, lock_wait=given["lock_wait"])
    options, crew = _options(given), crew_of(given)
    await _check_supplier(archive, given)
    bar = choose_bar(quiet=given["quiet"], wanted=given["progress"])
    printed: list[Printed] = []
    observe = logged(_observer(bar, given, printed), OF_VERIFY)
    began = time.monotonic()
    summary: VerifySummary | None = None
    try:
        summary = await verify_archive(archive, options, observe, crew)
        if given["repair_from"] and summary.findings:
            try:
                summary = await _repair(archive, summary, options, given, observe)
            except ArchiverError as error:
                # The findings still count.
                failed = events.NotRepaired(given["repair_from"], error)
                observe(failed)
                summary.not_repaired.append(failed)
    finally:
        bar.close()
        last.fields = verify_words.summary_fields(summary, options)
        if summary is not None:
            last.summary = verify_words.summary(summary, options, time.monotonic() - began)
            if summary.verified_nothing or not given["quiet"]:
                printed += [bar.say(text) for text in last.summary]
    if summary.exit_code == EXIT_OK:
        return None
    return Ended(summary.exit_code, printed[0] if printed else say("archiver: problems were found"))


def _observer(
    bar: "ByteBar | ByteLog", given: dict[str, Any], printed: "list[Printed]"
) -> "Observer":
    """An observer that prints events for people and for programs."""
    from archiver.cli import verify_words, words
    from archiver.commands.verify import events
    from archiver.commands.verify.words import line

    verbosity = words.QUIET if given["quiet"] else given["verbose"]

    def observe(event: events.ScrubEvent) -> None:
        if isinstance(event, events.ToRead):
            bar.add(event.size)
        elif isinstance(event, events.Advanced):
            bar.advance(event.size)
        shown = line(event)
        if shown is not None and shown[0] <= verbosity:
            printed.append(bar.say(shown[1]))
        if given["as_json"]:
            verify_words.write_event(event)

    return observe


async def _repair(
    archive: "Archive",
    summary: "VerifySummary",
    options: "VerifyOptions",
    given: dict[str, Any],
    observer: "Observer",
) -> "VerifySummary":
    from archiver.archive.archive import Archive
    from archiver.commands.repair.from_archive import ArchiveSupplier
    from archiver.commands.repair.from_source import SourceSupplier
    from archiver.commands.repair.run import repair
    from archiver.transfer.engine import TransferOptions

    if given["repair_from"] != _SOURCE:
        other = Archive(store_at(given["repair_from"], given))
        return await repair(archive, summary, ArchiveSupplier(other), options, observer)
    source_options = _source_options(given)
    way = source_options.way
    transfer = TransferOptions(retry=RETRIES.part.policy(way.retry_for), proxies=way.proxies)
    async with source_options.open(observer) as source:
        supplier = SourceSupplier(source, transfer)
        return await repair(archive, summary, supplier, options, observer)


def _source_options(given: dict[str, Any]) -> SourceOptions:
    """How to reach the source; the affected sets decide the range. Raises UsageError."""
    from archiver.sources.alibaba.selection import Selection

    return SourceOptions.of({**given, "time_range": None}, Selection())


def _options(given: dict[str, Any]) -> "VerifyOptions":
    from archiver.commands.verify.model import VerifyOptions
    from archiver.commands.verify.sample import Sample
    from archiver.errors import UsageError
    from archiver.report.evidence import Link

    seed, sample, since = given["seed"], None, given["since_verified"]
    if given["sample"] is not None:
        # Another day reads other files; on the same day an interrupted sample resumes.
        today = int(f"{datetime.now(UTC):%Y%m%d}")
        sample = Sample(given["sample"], seed if seed is not None else today)
    elif seed is not None:
        raise UsageError("--seed needs --sample")
    return VerifyOptions(
        instances=tuple(dict.fromkeys(given["instances"])),
        range=given["time_range"],
        shard=given["shard"],
        sample=sample,
        since_verified=None if since is None else timedelta(seconds=since),
        workers=given["workers"],
        anchors=tuple(Link(*anchor) for anchor in given["anchors"]),
    )
