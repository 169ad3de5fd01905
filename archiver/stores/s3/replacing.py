"""Objects that are replaced: the old bytes are kept until the new ones are verified.

A put or a completed upload replaces an object at once and can be verified only afterwards. So the
object is copied within the store before. The name of the copy says what was replaced by what: after
a crash in between, a later run finds the copy and settles what becomes of it.
"""

import hashlib
import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from archiver import documents
from archiver.errors import ArchiverError, BadDocument, ObjectMissing, StoreError, StoreForbidden
from archiver.stores.base import Leftover
from archiver.stores.s3.bucket import Bucket, Head
from archiver.stores.s3.checksums import ChecksumKind
from archiver.stores.s3.layout import (
    ReplacedCopy,
    parse_replaced_copy,
    quarantine_key,
    replaced_copy_key,
)
from archiver.stores.s3.options import check_attributes
from archiver.stores.s3.writing import VerifiedWriter, damaged
from archiver.times import format_iso, parse_iso

_TAG_DIGITS = 16
# Metadata of a copy: the attributes of the object, as JSON.
_ATTRIBUTES = "archiver-kept-as"


@dataclass(frozen=True, slots=True)
class _Copy:
    """A copy ``copy_key`` of the object ``key``, with the attributes and metadata that the object
    had. ``size`` is in bytes, ``tag`` identifies the contents."""

    key: str
    copy_key: str
    size: int
    tag: str
    attributes: Mapping[str, Any]
    metadata: Mapping[str, str]


@contextmanager
def replacing(
    writer: VerifiedWriter, keys: Iterable[str], successor: str, check: Callable[[], None]
) -> Iterator[None]:
    """Replace the objects with these keys in this context; an error restores them.

    ``successor`` is the SHA-256 of the new object. ``check`` raises when this process is no longer
    the only writer: then the objects are left to the other one. Raises StoreError, also when an
    object could not be restored: then the message names its copy.
    """
    copies = [_copy_to_replace(writer, key, successor) for key in keys]
    try:
        yield
    except ArchiverError as error:
        check()
        restore_originals(writer, copies, error)
        raise
    for copy in copies:
        _discard_copy(writer, copy.copy_key)


def copy_to_quarantine(writer: VerifiedWriter, key: str) -> str:
    """Copy an object to quarantine for good, under a name made of its contents; the copy's key."""
    head = _existing(writer.bucket, key)
    tag = _content_tag(writer, key, head)
    copy_key = quarantine_key(key, tag)
    there = writer.bucket.head(copy_key)
    if there is not None and not _is_copy(writer, key, copy_key):
        copy_key = quarantine_key(key, f"{tag}~{secrets.token_hex(_TAG_DIGITS // 2)}")
        there = None
    if there is None:
        copy_verified(writer, key, copy_key)
    return copy_key


def move_object(writer: VerifiedWriter, key: str, target: str) -> None:
    """Move an object to ``target``, to which an earlier run may have copied it. Raises StoreError,
    and StoreForbidden when the copy exists but the object may not be deleted."""
    copy_once(writer, key, target)
    try:
        writer.bucket.delete(key)
    except StoreForbidden:
        raise StoreForbidden(
            f"{writer.bucket.url(key)}: copied to {target}, but this access key may not delete it",
            hint="delete it with a key that may",
        ) from None


def copy_once(writer: VerifiedWriter, key: str, target: str) -> None:
    """Copy an object to ``target``, unless an earlier run did. Raises StoreError,
    StoreForbidden."""
    if writer.bucket.head(target) is None or not _is_copy(writer, key, target):
        copy_verified(writer, key, target)


def _is_copy(writer: VerifiedWriter, key: str, copy_key: str) -> bool:
    try:
        _check_identical(writer, key, copy_key)
    except StoreError:
        return False
    return True


def settle(writer: VerifiedWriter, scope: str, check: Callable[[], None]) -> Iterator[Leftover]:
    """Finish or undo the replacements in a scope that a crash interrupted.

    The new object stays if its contents are proven, else the old one is restored. What cannot be
    settled now is left to the next run. ``check`` raises when this process is no longer the only
    writer. Raises StoreError when the quarantine cannot be listed.
    """
    for copy_key, size in list(writer.quarantined(scope).items()):
        name = parse_replaced_copy(copy_key)
        if name is None or size == 0:
            continue
        check()
        with suppress(ArchiverError):
            copy = _existing_copy(writer, name, copy_key)
            yield Leftover(copy_key, _settle_one(writer, copy, name))


def _existing_copy(writer: VerifiedWriter, name: ReplacedCopy, copy_key: str) -> _Copy:
    """A copy that an earlier run made. Raises ObjectMissing, StoreError."""
    head = _existing(writer.bucket, copy_key)
    metadata = dict(head.metadata)
    parsed = _parse_attributes(metadata.pop(_ATTRIBUTES, ""))
    attributes = writer.bucket.options.for_objects() if parsed is None else parsed
    return _Copy(name.key, copy_key, head.size, name.tag, attributes, metadata)


def _settle_one(writer: VerifiedWriter, copy: _Copy, name: ReplacedCopy) -> str:
    """What was done about a copy, in words."""
    head = writer.bucket.head(copy.key)
    if head is not None and (
        _content_tag(writer, copy.key, head) == copy.tag
        or writer.sha256(copy.key) == name.successor
    ):
        _discard_copy(writer, copy.copy_key)
        return f"a copy of {copy.key} from when it was replaced"
    if head is not None:
        # Neither the old object nor the new one. A later run may have written and recorded it.
        if writer.sha256(copy.key) == _recorded_sha256(writer.bucket, copy.key):
            target = quarantine_key(copy.key, copy.tag)
            copy_verified(writer, copy.copy_key, target)
            _discard_copy(writer, copy.copy_key)
            return f"a copy of an earlier {copy.key}, now in {target}"
        copy_to_quarantine(writer, copy.key)
    restore_originals(writer, [copy], None)
    return f"the copy was restored to {copy.key}, since its replacement was not complete"


def _recorded_sha256(bucket: Bucket, key: str) -> str | None:
    """The SHA-256 in the record of an object; None without a readable record."""
    record = f"{key.rpartition('.')[0]}.json"
    try:
        found = bucket.get(record)
        return None if found is None else documents.parse(record, found[0]).sha256("sha256")
    except BadDocument:
        return None


def restore_originals(
    writer: VerifiedWriter, copies: Iterable[_Copy], error: ArchiverError | None
) -> None:
    """Copy each object back to its key, unless it is there, with the attributes that it had.
    ``error`` is why. Raises StoreError."""
    bucket = writer.bucket
    for copy in copies:
        try:
            head = bucket.head(copy.key)
            if head is None or _content_tag(writer, copy.key, head) != copy.tag:
                bucket.copy_as_object(
                    copy.copy_key, copy.key, copy.size, copy.attributes, copy.metadata
                )
                _check_identical(writer, copy.copy_key, copy.key)
        except ArchiverError as failure:
            raise StoreError(
                f"{bucket.url(copy.key)}: {error or failure}; the object that was there is kept",
                hint=f"it is in {bucket.url(copy.copy_key)}; the next run restores it",
            ) from None
        _discard_copy(writer, copy.copy_key)


def _copy_to_replace(writer: VerifiedWriter, key: str, successor: str) -> _Copy:
    head = _existing(writer.bucket, key)
    tag = _content_tag(writer, key, head)
    copy_key = replaced_copy_key(key, tag, successor)
    metadata = {**head.metadata, _ATTRIBUTES: _encode_attributes(head.attributes)}
    copy_verified(writer, key, copy_key, metadata)
    return _Copy(key, copy_key, head.size, tag, head.attributes, head.metadata)


def copy_verified(
    writer: VerifiedWriter, key: str, copy_key: str, metadata: Mapping[str, str] | None = None
) -> None:
    """Copy an object to quarantine, and compare the two. Raises ObjectMissing, StoreError."""
    bucket, head = writer.bucket, _existing(writer.bucket, key)
    requested = bucket.options.for_notes()
    bucket.copy(key, copy_key, head.size, metadata, **requested)
    writer.add_quarantined(copy_key, head.size)
    try:
        _check_identical(writer, key, copy_key)
    except StoreError:
        if bucket.delete_if_allowed(copy_key):
            writer.remove_quarantined(copy_key)
        raise
    attributes = _existing(bucket, copy_key).attributes if requested else {}
    check_attributes(bucket.url(copy_key), requested, attributes)


def _encode_attributes(attributes: Mapping[str, Any]) -> str:
    return json.dumps(attributes, default=format_iso)


def _parse_attributes(text: str) -> dict[str, Any] | None:
    """The attributes in a copy's metadata; None when an earlier version made the copy, or the store
    dropped its metadata."""
    try:
        found = json.loads(text)
        if "ObjectLockRetainUntilDate" in found:
            until = parse_iso(found["ObjectLockRetainUntilDate"])
            found["ObjectLockRetainUntilDate"] = until
        return dict(found)
    except (ValueError, TypeError, RecursionError):
        return None


def _discard_copy(writer: VerifiedWriter, copy_key: str) -> None:
    """Delete a copy, or empty it, which also marks it as settled."""
    writer.discard(copy_key)
    writer.remove_quarantined(copy_key)


def _existing(bucket: Bucket, key: str) -> Head:
    head = bucket.head(key)
    if head is None:
        raise ObjectMissing(f"{bucket.url(key)}: the object does not exist any more")
    return head


def _check_identical(writer: VerifiedWriter, key: str, copy_key: str) -> None:
    """Raises StoreError when a copy within the store differs from its source."""
    one, other = writer.bucket.head(key), writer.bucket.head(copy_key)
    if one is None or other is None or one.size != other.size:
        raise damaged(writer.bucket.url(copy_key))
    has_md5s = writer.capabilities.checksum is not ChecksumKind.NONE and "-" not in one.etag
    if has_md5s and one.etag and one.etag == other.etag:
        return
    if writer.sha256(key) != writer.sha256(copy_key):
        raise damaged(writer.bucket.url(copy_key))


def _content_tag(writer: VerifiedWriter, key: str, head: Head) -> str:
    """A short name of an object's contents, made of its ETag. Without one, the object is read."""
    content = head.etag or writer.sha256(key)
    return hashlib.sha256(f"{content} {head.size}".encode()).hexdigest()[:_TAG_DIGITS]
