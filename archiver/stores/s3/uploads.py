"""Uploads that were begun and never ended: they cost money until somebody ends them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from archiver.errors import NoDocument
from archiver.model import Kind
from archiver.stores.base import Leftover
from archiver.stores.s3 import journal
from archiver.stores.s3.bucket import Bucket
from archiver.stores.s3.layout import PROBE_KEY, QUARANTINE, STAGING

# instance/yyyy/mm/set/node-backup.kind: what an archive uploads, and nobody else below its prefix.
_OURS = re.compile(
    r"[\w.-]+/\d{4}/\d\d/\d{8}T\d{6}Z-[\w.-]+/[\w.-]+\.(" + "|".join(Kind) + ")"
    rf"|{re.escape(QUARANTINE)}.+|{re.escape(PROBE_KEY)}"
)
# Past the vendor's default retention four times over: nobody will go on with it.
_STALE = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class OpenUpload:
    """``ours``: of this archive; ``resumable``: a pull will go on with it."""

    key: str
    upload_id: str
    initiated: datetime
    ours: bool
    resumable: bool


def open_uploads(bucket: Bucket) -> Iterator[OpenUpload]:
    """All below the archive's prefix. Raises StoreError."""
    noted = {noted.upload_id for _, noted in journals(bucket) if noted is not None}
    for upload in bucket.uploads():
        is_stale = datetime.now(UTC) - upload.initiated > _STALE
        resumable = upload.upload_id in noted and not is_stale
        ours = upload.upload_id in noted or bool(_OURS.fullmatch(upload.key))
        yield OpenUpload(upload.key, upload.upload_id, upload.initiated, ours, resumable)


def journals(bucket: Bucket) -> Iterator[tuple[str, journal.Journal | None]]:
    """The notes of uploads under way, by key; None for one that cannot be read."""
    for key, _ in bucket.listing(STAGING):
        if key.endswith(".json"):
            try:
                found = bucket.get(key)
            except NoDocument:
                found = None
            yield key, journal.parse(found[0]) if found else None


def sweep(bucket: Bucket) -> Iterator[Leftover]:
    """End what no run can go on with; called by the only writer."""
    uploads = list(open_uploads(bucket))
    for upload in uploads:
        if upload.ours and not upload.resumable:
            bucket.abort(upload.key, upload.upload_id)
            yield Leftover(upload.key, "an upload that nobody can go on with")
    there = {upload.upload_id for upload in uploads if upload.resumable}
    for key, noted in journals(bucket):
        useless = noted is None or noted.upload_id not in there
        if useless and bucket.delete_if_allowed(key):
            yield Leftover(key, "a journal without its upload")
