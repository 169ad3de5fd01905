"""``archiver doctor``."""

import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from archiver.cli.options import (
    Way,
    allow_host_option,
    command,
    endpoint_option,
    option,
    output_options,
    way_options,
)
from archiver.cli.params import CleanPath, Duration, InstanceId
from archiver.cli.places import address_options, sse_option, store_at
from archiver.errors import UsageError
from archiver.retry import RETRIES

if TYPE_CHECKING:
    from archiver.cli.jsonlines import LastLine
    from archiver.cli.run import Ended
    from archiver.findings import Finding


@command("doctor")
@click.argument("place", metavar="[ARCHIVE]", required=False)
@option(
    "--instance",
    type=InstanceId(),
    help="Instance to ask about (default: the first ones that are listed).",
)
# Repeatable, so that a second one is refused instead of taking the place of the first.
@option(
    "--region",
    "regions",
    metavar="ID",
    multiple=True,
    help="Region of the instances, e.g. cn-hangzhou.",
)
@endpoint_option
@way_options
@allow_host_option
@address_options
@sse_option
@option(
    "--server",
    "servers",
    type=CleanPath(),
    multiple=True,
    metavar="FILE",
    help="Server program for drills (repeatable; default: those found).",
)
@option(
    "--retry-for",
    type=Duration(),
    default="5s",
    help="How long to retry when the vendor or a bucket does not answer.",
)
@output_options
def doctor(place: str | None, **given: Any) -> None:
    """Check what a pull to ARCHIVE and a drill need, and say what to do where it is not there.

    Checks in this order: proxy, certificates, access key, endpoint, clock, permissions, download,
    archive, servers for drills. The first that fails is the cause of those after it, and sets the
    exit code. Without --region and --endpoint only the archive is checked.

    Nothing is changed but the probe object in a bucket, which every pull writes, too. No backup is
    made.

    \b
    Examples:
      archiver doctor ./backups --region cn-hangzhou
      archiver doctor s3://offsite/redis --region cn-hangzhou --json
    """
    from archiver.cli.jsonlines import LastLine
    from archiver.cli.run import run

    last = LastLine(given["as_json"])
    run(
        lambda: _doctor(place, given, last),
        last=last,
        verbose=given["verbose"],
        on_interrupt="nothing was changed",
    )


async def _doctor(place: str | None, given: dict[str, Any], last: "LastLine") -> "Ended | None":
    from contextlib import aclosing

    from archiver.cli.run import Ended, say
    from archiver.findings import Verdict

    found: list[Finding] = []
    async with aclosing(_findings(place, given)) as findings:
        async for one in findings:
            found.append(one)
            _tell(one, last, quiet=given["quiet"])
    failed = [one for one in found if one.has_failed]
    warned = sum(one.verdict is Verdict.WARN for one in found)
    counts = f"{len(found)} checks: {len(failed)} failed, {warned} with a warning"
    last.fields = {"checks": len(found), "failed": len(failed), "warnings": warned}
    last.summary = [counts]
    if failed:
        return Ended(failed[0].exit_code, say(f"archiver: {counts}; fix first: {failed[0].check}"))
    if not (last.wanted or given["quiet"]):
        say(counts)
    return None


def _tell(found: "Finding", last: "LastLine", *, quiet: bool) -> None:
    from archiver.cli import jsonlines, streams
    from archiver.findings import Verdict

    if last.wanted:
        fields = {"check": found.check, "verdict": found.verdict, "found": found.text}
        jsonlines.write_object({"event": "check", **fields, "next": found.hint})
    elif not quiet or found.verdict in (Verdict.WARN, Verdict.FAIL):
        streams.show(f"{found.verdict:<4}  {found.check}: {found}")


async def _findings(place: str | None, given: dict[str, Any]) -> "AsyncGenerator[Finding, None]":
    from archiver.commands.doctor.place import check_place
    from archiver.commands.doctor.servers import check_servers
    from archiver.findings import Finding, Verdict

    region, is_asked = _region(given)
    if not (is_asked or place):
        raise UsageError("nothing to check", hint="give an ARCHIVE, --region ID or --endpoint HOST")
    if is_asked:
        async for found in _of_vendor(region, given):
            yield found
    else:
        text = "not checked: neither --region nor --endpoint is given"
        yield Finding("vendor", Verdict.SKIP, text)
    if place:
        store = store_at(place, given)
        async for found in check_place(store):
            yield found
    else:
        yield Finding("archive", Verdict.SKIP, "not checked: no ARCHIVE is given")
    yield await check_servers([Path(one) for one in given["servers"]])


def _region(given: dict[str, Any]) -> tuple[str, bool]:
    """The region, "" where only the endpoint is known, and whether the vendor is to be asked.
    Raises UsageError."""
    from archiver.cli.sources import ALL_REGIONS
    from archiver.sources.alibaba.rpc import endpoint_of
    from archiver.stray_characters import clean_variable

    named = dict.fromkeys(given["regions"])
    if len(named) > 1 or ALL_REGIONS in named:
        raise UsageError("--region: one region is checked at a time")
    region = next(iter(named), None) or clean_variable(os.environ, "ALIBABA_CLOUD_REGION_ID")
    if region:
        endpoint_of(region)  # raises for what is no region
    return region or "", bool(region or given["endpoint"])


async def _of_vendor(region: str, given: dict[str, Any]) -> "AsyncGenerator[Finding, None]":
    from archiver.cli.sources import home
    from archiver.commands.doctor.download import check_download
    from archiver.errors import ArchiverError
    from archiver.findings import Finding, Verdict
    from archiver.network import authorities, tls_context
    from archiver.sources.alibaba.checks import SourceChecks
    from archiver.sources.alibaba.credentials import default_chain
    from archiver.sources.alibaba.quotas import Quotas
    from archiver.sources.session import open_session

    check = "proxy"
    try:
        way = Way.of(given)
        check = "certificates"
        tls_context()
    except ArchiverError as error:
        yield Finding.of(check, error)
        return
    yield Finding("certificates", Verdict.OK, f"authorities of {authorities()} are trusted")
    async with open_session() as session:
        chain = default_chain(session, os.environ, home(), proxies=way.proxies)
        checks = SourceChecks(
            session, chain, way.proxies, Quotas(way.api_rate), region, given["endpoint"],
            RETRIES.api_call.policy(way.retry_for), given["instance"], way.allow_hosts,
        )  # fmt: skip
        async for found in checks.findings():
            yield found
    if checks.backup is not None:
        yield await check_download(checks.backup, way.proxies)
    else:
        yield Finding("download", Verdict.SKIP, "not checked: no backup with a URL was listed")
