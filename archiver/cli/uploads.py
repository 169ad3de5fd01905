"""``archiver uploads``."""

import json
import logging
from datetime import timedelta
from typing import Any

import click

from archiver.cli.options import command, option, output_options
from archiver.cli.params import Duration
from archiver.cli.places import bucket_options, store_at
from archiver.cli.streams import show
from archiver.times import format_iso, format_minute


@command("uploads")
@click.argument("place", metavar="ARCHIVE")
@option("--abort", is_flag=True, help="Abort uploads of this archive that no run will resume.")
@option(
    "--older-than",
    type=Duration(),
    default="1d",
    help="With --abort: only uploads at least this old.",
)
@option(
    "--include-resumable", is_flag=True, help="With --abort: also those that a run would resume."
)
@bucket_options
@output_options
def uploads(place: str, **given: Any) -> None:
    """List or abort unfinished multipart uploads below s3://bucket/prefix.

    They take space, and cost money, until they are aborted. A pull or copy resumes its own and
    aborts those it cannot resume. Uploads of other applications are listed and never touched.

    \b
    Examples:
      archiver uploads s3://offsite/redis
      archiver uploads s3://offsite/redis --abort --older-than 7d
    """
    from archiver.cli.jsonlines import LastLine
    from archiver.cli.run import run

    run(
        lambda: _uploads(place, given),
        last=LastLine(given["as_json"]),
        verbose=given["verbose"],
        on_interrupt="run the same command again",
    )


async def _uploads(place: str, given: dict[str, Any]) -> None:
    from archiver.concurrency import in_thread
    from archiver.errors import UsageError
    from archiver.stores.s3 import S3Store
    from archiver.stores.s3.capabilities import UploadListing, probe
    from archiver.stores.s3.unfinished import UnfinishedUpload, unfinished_uploads

    store = store_at(place, given)
    if not isinstance(store, S3Store):
        raise UsageError(f"{place}: only buckets have uploads", hint="use s3://bucket/prefix")
    age = timedelta(seconds=given["older_than"])

    def is_to_end(upload: UnfinishedUpload) -> bool:
        wanted = upload.ours and (given["include_resumable"] or not upload.resumable)
        return bool(given["abort"] and wanted and (not age or upload.is_older_than(age)))

    # Listing must work with a key that may not write; probing would need one that may.
    listing = UploadListing.DATED
    if given["abort"]:
        listing = (await in_thread(probe, store.bucket)).upload_listing
    found = await in_thread(lambda: list(unfinished_uploads(store.bucket, listing)))
    if not found and not given["quiet"]:
        click.echo("no unfinished uploads", err=True)
    for upload in found:
        ended = is_to_end(upload)
        if ended:
            await in_thread(store.bucket.multipart.abort, upload.key, upload.upload_id)
        _show(upload, given, ended=ended)


def _show(upload: Any, given: dict[str, Any], *, ended: bool) -> None:
    from archiver.logs import record

    state = "resumable" if upload.resumable else "orphan" if upload.ours else "not ours"
    found = {
        "key": upload.key,
        "upload_id": upload.upload_id,
        "initiated": upload.initiated and format_iso(upload.initiated),
        "state": state,
        "aborted": ended,
    }
    done = ", aborted" if ended else ""
    record(logging.INFO, "upload", f"{state}{done}: {upload.key}", None, found)
    if given["as_json"]:
        click.echo(json.dumps(found))
    else:
        begun = format_minute(upload.initiated) if upload.initiated else "-" * 16
        show(f"{begun}  {state}{done}  {upload.key}")
