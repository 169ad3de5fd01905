"""Uploads that were begun and never ended: they cost money until somebody ends them.

Other applications may upload below the same prefix, and another archiver under names as ours. An
upload is known as ours by a journal that names its key: that is written before it is created. One
that only has the name of ours is left alone until it is old.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from archiver.errors import NoDocument
from archiver.stores.base import Leftover
from archiver.stores.s3 import journal
from archiver.stores.s3.bucket import Bucket
from archiver.stores.s3.dialect import Uploads
from archiver.stores.s3.layout import PROBE_KEY, STAGING, is_journal, is_uploaded_by_us
from archiver.stores.s3.replaced import settle
from archiver.stores.s3.sending import Sender
from archiver.times import format_minute

# Past the vendor's default retention four times over: nobody will go on with it.
_STALE = timedelta(days=30)
# No upload that is under way is so old, whoever began it.
_FORGOTTEN = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class OpenUpload:
    """``initiated`` is None where nobody says. ``ours``: it has the name of what this archive
    uploads; ``known``: for certain; and ``resumable``: a pull will go on with it."""

    key: str
    upload_id: str
    initiated: datetime | None
    ours: bool
    known: bool
    resumable: bool

    def is_older_than(self, age: timedelta) -> bool:
        """Not where nobody says when it was begun."""
        return self.initiated is not None and datetime.now(UTC) - self.initiated > age


def open_uploads(bucket: Bucket, listing: Uploads = Uploads.DATED) -> Iterator[OpenUpload]:
    """All below the archive's prefix, as far as the store tells. Raises StoreError."""
    noted = [noted for _, noted in journals(bucket)]
    return _open_uploads(bucket, noted, listing)


def _open_uploads(
    bucket: Bucket, noted: Iterable[journal.Journal], listing: Uploads
) -> Iterator[OpenUpload]:
    """Those that are listed, and those that only a journal tells of: some stores list them late,
    or by their exact keys alone."""
    by_id, keys = {one.upload_id: one for one in noted}, {one.key for one in noted}
    listed = bucket.uploads() if listing is not Uploads.NONE else ()
    for upload in listed:
        own = by_id.pop(upload.upload_id, None)
        if own is not None and own.key != upload.key:
            own = None
        initiated = upload.initiated if listing is Uploads.DATED else None
        ours = is_uploaded_by_us(upload.key)
        known = ours and upload.key in (*keys, PROBE_KEY)
        found = OpenUpload(upload.key, upload.upload_id, initiated, ours, known, resumable=False)
        yield found if own is None or not known else _noted(found, own)
    for upload_id, own in by_id.items():
        if upload_id and bucket.parts(own.key, upload_id) is not None:
            found = OpenUpload(own.key, upload_id, None, ours=True, known=True, resumable=False)
            yield _noted(found, own)


def _noted(found: OpenUpload, own: journal.Journal) -> OpenUpload:
    """What its own journal says of the time is believed first."""
    found = replace(found, initiated=own.begun or found.initiated)
    return replace(found, resumable=not found.is_older_than(_STALE))


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
    for upload in _open_uploads(bucket, [one for _, one in noted], sender.dialect.uploads):
        if upload.resumable:
            there.add(upload.upload_id)
        elif upload.known or (upload.ours and upload.is_older_than(_FORGOTTEN)):
            check()
            bucket.abort(upload.key, upload.upload_id)
            begun = "" if upload.initiated is None else f" of {format_minute(upload.initiated)}"
            yield Leftover(upload.key, f"an upload{begun} that nobody can go on with")
    for key, one in noted:
        check()
        if one.upload_id not in there and bucket.delete_if_allowed(key):
            yield Leftover(key, "a journal without its upload")
