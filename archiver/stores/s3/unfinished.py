"""Multipart uploads that were never completed or aborted: they cost money until somebody does.

Other applications may upload below the same prefix, and another archiver under similar names. An
upload is known to be ours by a journal that names its key, which is written before the upload is
created. One that only has a name of ours is left alone until it is old.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from archiver.errors import NoDocument, StoreError, StoreForbidden
from archiver.stores.base import Leftover
from archiver.stores.s3 import journal
from archiver.stores.s3.bucket import Bucket
from archiver.stores.s3.capabilities import UploadListing
from archiver.stores.s3.layout import (
    PROBE_KEY,
    STAGING,
    is_journal,
    is_own_upload,
    scope_of_internal,
)
from archiver.stores.s3.multipart import ListedUpload
from archiver.stores.s3.replacing import settle
from archiver.stores.s3.writing import VerifiedWriter
from archiver.stores.scope import WHOLE, below
from archiver.times import format_minute

# Four times the vendor's default retention: no run can resume it any more.
_NOT_RESUMABLE_AFTER = timedelta(days=30)
# No upload is still in progress at this age, whoever created it.
_ABANDONED_AFTER = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class UnfinishedUpload:
    """A multipart upload below the prefix; ``initiated`` is None when its creation time is unknown.

    ``ours``: its key has the form of this archive's; ``known``: a journal proves that;
    ``resumable``: a pull will resume it.
    """

    key: str
    upload_id: str
    initiated: datetime | None
    ours: bool
    known: bool
    resumable: bool

    def is_older_than(self, age: timedelta) -> bool:
        """False when the creation time is unknown."""
        return self.initiated is not None and datetime.now(UTC) - self.initiated > age


def unfinished_uploads(
    bucket: Bucket, listing: UploadListing = UploadListing.DATED
) -> Iterator[UnfinishedUpload]:
    """All unfinished uploads below the archive's prefix that the store lists or a journal names.
    Raises StoreError."""
    journals = [found for _, found in _journals(bucket)]
    listed = bucket.multipart.unfinished() if listing is not UploadListing.NONE else ()
    return _unfinished_uploads(bucket, journals, listing, listed)


def own_uploads(writer: VerifiedWriter) -> list[ListedUpload]:
    """The unfinished uploads that the store lists now and whose keys have the form of this
    archive's. Raises StoreError."""
    if writer.capabilities.upload_listing is UploadListing.NONE:
        return []
    return [one for one in writer.bucket.multipart.unfinished() if is_own_upload(one.key)]


def scopes_of_abandoned(listed: Iterable[ListedUpload], listing: UploadListing) -> set[str]:
    """The scopes of uploads that are so old that a sweep aborts them."""
    if listing is not UploadListing.DATED:
        return set()
    since = datetime.now(UTC) - _ABANDONED_AFTER
    return {scope_of_internal(one.key) for one in listed if one.initiated < since}


def _unfinished_uploads(
    bucket: Bucket,
    journals: Iterable[journal.Journal],
    listing: UploadListing,
    listed: Iterable[ListedUpload],
) -> Iterator[UnfinishedUpload]:
    """The ``listed`` ones, then those that only a journal names: some stores list uploads late, or
    only by their exact keys."""
    by_id, keys = {one.upload_id: one for one in journals}, {one.key for one in journals}
    for upload in listed:
        own = by_id.pop(upload.upload_id, None)
        if own is not None and own.key != upload.key:
            own = None
        initiated = upload.initiated if listing is UploadListing.DATED else None
        ours = is_own_upload(upload.key)
        known = ours and upload.key in (*keys, PROBE_KEY)
        found = UnfinishedUpload(
            upload.key, upload.upload_id, initiated, ours, known, resumable=False
        )
        yield found if own is None or not known else _with_journal(found, own)
    for upload_id, own in by_id.items():
        if upload_id and bucket.multipart.parts(own.key, upload_id) is not None:
            found = UnfinishedUpload(
                own.key, upload_id, None, ours=True, known=True, resumable=False
            )
            yield _with_journal(found, own)


def _with_journal(found: UnfinishedUpload, own: journal.Journal) -> UnfinishedUpload:
    """The creation time in the journal comes before the store's."""
    found = replace(found, initiated=own.created_at or found.initiated)
    return replace(found, resumable=not found.is_older_than(_NOT_RESUMABLE_AFTER))


def _journals(bucket: Bucket, scope: str = WHOLE) -> Iterator[tuple[str, journal.Journal]]:
    """The journals of uploads, by key, of one instance or of all. What is not a journal belongs to
    somebody else."""
    for key, size, *_ in bucket.listing(below(STAGING, scope)):
        if size and is_journal(key):
            try:
                found = bucket.get(key)
            except NoDocument:
                continue  # far too large for a journal
            parsed = journal.parse(found[0]) if found else None
            if parsed is not None and parsed.expected_key.endswith(f"/{key.rpartition('/')[2]}"):
                yield key, parsed


def sweep(
    writer: VerifiedWriter,
    scope: str,
    check: Callable[[], None],
    listed: list[ListedUpload],
) -> Iterator[Leftover]:
    """Remove what earlier runs left in a scope and no run can use: settle interrupted replacements,
    abort uploads, delete journals. ``check`` raises when this process is no longer the only writer.

    ``listed`` uploads may have been listed before the lock was taken. The journals are read now: an
    upload that another writer ended meanwhile has none, and one that it began is asked for by its
    own journal. What is aborted is removed from the list.
    """
    bucket = writer.bucket
    journals: list[tuple[str, journal.Journal]] = []
    if scope != WHOLE:
        yield from settle(writer, scope, check)
        journals += _journals(bucket, scope)
    resumable: set[str] = set()
    listing = writer.capabilities.upload_listing
    own = [one for one in listed if scope_of_internal(one.key) == scope]
    own += [one for one in _without_id(writer, journals) if one not in own]
    for upload in _unfinished_uploads(bucket, [found for _, found in journals], listing, own):
        if upload.resumable:
            resumable.add(upload.upload_id)
        elif upload.known or (upload.ours and upload.is_older_than(_ABANDONED_AFTER)):
            check()
            bucket.multipart.abort(upload.key, upload.upload_id)
            for one in [one for one in own if one.upload_id == upload.upload_id]:
                with suppress(ValueError):  # it is of a later listing
                    listed.remove(one)  # and nothing else: other scopes are swept meanwhile
            date = "" if upload.initiated is None else f" of {format_minute(upload.initiated)}"
            yield Leftover(upload.key, f"an upload{date} that cannot be resumed")
    for key, found in journals:
        if found.upload_id not in resumable:
            check()
            writer.discard(key)
            yield Leftover(key, "a journal without its upload")


def _without_id(
    writer: VerifiedWriter, journals: Iterable[tuple[str, journal.Journal]]
) -> list[ListedUpload]:
    """The uploads of journals that do not name theirs: a run was killed between the two requests.
    They are listed now, each by its exact key, which also stores do that list no others. Once the
    journal is gone nothing says that they are ours."""
    found: list[ListedUpload] = []
    for key in {one.key for _, one in journals if not one.upload_id}:
        try:
            found += [one for one in writer.bucket.multipart.unfinished(key) if one.key == key]
        except StoreError as error:
            lists_uploads = writer.capabilities.upload_listing is not UploadListing.NONE
            if lists_uploads or isinstance(error, StoreForbidden):
                raise
    return found
