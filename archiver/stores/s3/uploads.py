"""Uploads that were begun and never ended: they cost money until somebody ends them.

Other applications may upload below the same prefix, and another archiver under names as ours. An
upload is known as ours by a journal that names its key: that is written before it is created. One
that only has the name of ours is left alone until it is old.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from archiver.errors import NoDocument
from archiver.stores.base import Leftover
from archiver.stores.s3 import journal
from archiver.stores.s3.bucket import Bucket
from archiver.stores.s3.layout import PROBE_KEY, STAGING, is_journal, is_uploaded_by_us
from archiver.stores.s3.replaced import settle
from archiver.stores.s3.sending import Sender

# Past the vendor's default retention four times over: nobody will go on with it.
_STALE = timedelta(days=30)
# No upload that is under way is so old, whoever began it.
_FORGOTTEN = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class OpenUpload:
    """``ours``: it has the name of what this archive uploads; ``known``: for certain; and
    ``resumable``: a pull will go on with it."""

    key: str
    upload_id: str
    initiated: datetime
    ours: bool
    known: bool
    resumable: bool


def open_uploads(bucket: Bucket) -> Iterator[OpenUpload]:
    """All below the archive's prefix. Raises StoreError."""
    noted = [noted for _, noted in journals(bucket)]
    return _open_uploads(bucket, noted)


def _open_uploads(bucket: Bucket, noted: list[journal.Journal]) -> Iterator[OpenUpload]:
    ids, keys = {one.upload_id for one in noted}, {one.key for one in noted}
    for upload in bucket.uploads():
        ours = is_uploaded_by_us(upload.key)
        known = ours and upload.key in (*keys, PROBE_KEY)
        is_stale = datetime.now(UTC) - upload.initiated > _STALE
        resumable = known and upload.upload_id in ids and not is_stale
        yield OpenUpload(upload.key, upload.upload_id, upload.initiated, ours, known, resumable)


def journals(bucket: Bucket) -> Iterator[tuple[str, journal.Journal]]:
    """The notes of uploads under way, by key; what is no such note is somebody else's."""
    for key, _ in bucket.listing(STAGING):
        if is_journal(key):
            try:
                found = bucket.get(key)
            except NoDocument:
                continue  # far too large to be one
            noted = journal.parse(found[0]) if found else None
            if noted is not None and key == noted.own_key:
                yield key, noted


def sweep(sender: Sender, check: Callable[[], None]) -> Iterator[Leftover]:
    """End what no run can go on with; ``check`` raises when we are not the only writer any more."""
    bucket = sender.bucket
    yield from settle(sender, check)
    noted = list(journals(bucket))
    there: set[str] = set()
    for upload in _open_uploads(bucket, [one for _, one in noted]):
        age = datetime.now(UTC) - upload.initiated
        if upload.resumable:
            there.add(upload.upload_id)
        elif upload.known or (upload.ours and age > _FORGOTTEN):
            check()
            bucket.abort(upload.key, upload.upload_id)
            begun = f"{upload.initiated:%Y-%m-%d %H:%M}"
            yield Leftover(upload.key, f"an upload of {begun} that nobody can go on with")
    for key, one in noted:
        check()
        if one.upload_id not in there and bucket.delete_if_allowed(key):
            yield Leftover(key, "a journal without its upload")
