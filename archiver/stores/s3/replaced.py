"""Objects that are replaced: their bytes are kept until what takes their place is proven.

A put or a completed upload replaces an object at once, and is compared after that. So a copy is
made within the store before. Its name says what was there and what is to come: whatever dies
between, a later run finds the copy and settles what is to become of it.
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
from archiver.stores.s3.asked import check_kept
from archiver.stores.s3.bucket import Bucket, Head
from archiver.stores.s3.dialect import Check
from archiver.stores.s3.layout import Replaced, aside_key, parse_replaced, replaced_key
from archiver.stores.s3.sending import Sender, damaged
from archiver.times import format_iso, parse_iso

_TAG_DIGITS = 16
# Metadata of a copy: how the object was kept, as JSON.
_KEPT_AS = "archiver-kept-as"


@dataclass(frozen=True, slots=True)
class _Copy:
    """Of the object ``key``, which is ``size`` bytes, under ``kept``; with what it needs to be kept
    as it was, and its metadata."""

    key: str
    kept: str
    size: int
    tag: str
    kept_as: Mapping[str, Any]
    metadata: Mapping[str, str]


@contextmanager
def replacing(
    sender: Sender, keys: Iterable[str], successor: str, check: Callable[[], None]
) -> Iterator[None]:
    """Let what has these keys be replaced in here; on an error it has its place again. ``check``
    raises when we are not the only writer any more: then that is for who is.

    Raises StoreError, also when something could not be put back: then it names the copy.
    """
    copies = [_copied(sender, key, successor) for key in keys]
    try:
        yield
    except ArchiverError as error:
        check()
        put_back(sender, copies, error)
        raise
    for copy in copies:
        _forget(sender, copy.kept)


def keep_aside(sender: Sender, key: str) -> str:
    """A copy for good, under a name of its content; the key of that."""
    head = _present(sender.bucket, key)
    tag = _tag(sender, key, head)
    kept = aside_key(key, tag)
    there = sender.bucket.head(kept)
    if there is not None and not _is_copy(sender, key, kept):
        kept = aside_key(key, f"{tag}~{secrets.token_hex(_TAG_DIGITS // 2)}")
        there = None
    if there is None:
        copy_within(sender, key, kept)
    return kept


def clear_away(sender: Sender, key: str, kept: str) -> None:
    """Move an object to ``kept``, where an earlier run may have copied it. Raises StoreError,
    StoreForbidden where it stays where it is, though a copy was made."""
    copy_aside(sender, key, kept)
    try:
        sender.bucket.delete(key)
    except StoreForbidden:
        raise StoreForbidden(
            f"{sender.bucket.where(key)}: it stays, though a copy is in {kept}: "
            "this key may not delete",
            hint="delete it with one that may",
        ) from None


def copy_aside(sender: Sender, key: str, kept: str) -> None:
    """Copy an object to ``kept``, unless an earlier run did. Raises StoreError, StoreForbidden."""
    if sender.bucket.head(kept) is None or not _is_copy(sender, key, kept):
        copy_within(sender, key, kept)


def _is_copy(sender: Sender, key: str, kept: str) -> bool:
    try:
        _check_alike(sender, key, kept)
    except StoreError:
        return False
    return True


def settle(sender: Sender, check: Callable[[], None]) -> Iterator[Leftover]:
    """What a run that died left between: the object that was to come is proven, or the one
    before has its place again. What cannot be settled now stays for the next run. ``check`` raises
    when we are not the only writer any more. Raises StoreError where nothing can be listed."""
    for kept, size in list(sender.in_quarantine().items()):
        found = parse_replaced(kept)
        if found is None or size == 0:
            continue
        check()
        with suppress(ArchiverError):
            yield Leftover(kept, _settled(sender, _found_again(sender, found, kept), found))


def _found_again(sender: Sender, found: Replaced, kept: str) -> _Copy:
    """A copy that an earlier run made."""
    head = _present(sender.bucket, kept)
    metadata = dict(head.metadata)
    said = _parse_kept_as(metadata.pop(_KEPT_AS, ""))
    kept_as = sender.bucket.options.for_objects() if said is None else said
    return _Copy(found.key, kept, head.size, found.tag, kept_as, metadata)


def _settled(sender: Sender, copy: _Copy, found: Replaced) -> str:
    """What became of it."""
    head = sender.bucket.head(copy.key)
    if head is not None and (
        _tag(sender, copy.key, head) == copy.tag or _holds(sender, copy.key, found.successor)
    ):
        _forget(sender, copy.kept)
        return f"a copy of {copy.key}, from when that was replaced"
    if head is not None:
        # Neither what was there nor what was to come: a later run may have brought and recorded it.
        if sender.sha256(copy.key) == _recorded(sender.bucket, copy.key):
            kept = aside_key(copy.key, copy.tag)
            copy_within(sender, copy.kept, kept)
            _forget(sender, copy.kept)
            return f"a copy of what {copy.key} was before; it is kept in {kept}"
        keep_aside(sender, copy.key)
    put_back(sender, [copy], None)
    return f"{copy.key} has these bytes again: what was to replace them did not come whole"


def _recorded(bucket: Bucket, key: str) -> str | None:
    """The SHA-256 in the record of an object, if there is one that can be read."""
    record = f"{key.rpartition('.')[0]}.json"
    try:
        found = bucket.get(record)
        return None if found is None else documents.parse(record, found[0]).sha256("sha256")
    except BadDocument:
        return None


def _holds(sender: Sender, key: str, successor: str) -> bool:
    """Whether the object is the one that was to come, by its bytes."""
    return sender.sha256(key) == successor


def put_back(sender: Sender, copies: Iterable[_Copy], error: ArchiverError | None) -> None:
    """Give each its place again, where it has it not, and have it kept as it was."""
    bucket = sender.bucket
    for copy in copies:
        try:
            head = bucket.head(copy.key)
            if head is None or _tag(sender, copy.key, head) != copy.tag:
                bucket.copy_as_object(copy.kept, copy.key, copy.size, copy.kept_as, copy.metadata)
                _check_alike(sender, copy.kept, copy.key)
        except ArchiverError as failure:
            raise StoreError(
                f"{bucket.where(copy.key)}: {error or failure}; what was there before is kept",
                hint=f"it is in {bucket.where(copy.kept)}; the next run puts it back",
            ) from None
        _forget(sender, copy.kept)


def _copied(sender: Sender, key: str, successor: str) -> _Copy:
    head = _present(sender.bucket, key)
    tag = _tag(sender, key, head)
    kept = replaced_key(key, tag, successor)
    copy_within(sender, key, kept, {**head.metadata, _KEPT_AS: _text_of(head.kept_as)})
    return _Copy(key, kept, head.size, tag, head.kept_as, head.metadata)


def copy_within(
    sender: Sender, key: str, kept: str, metadata: Mapping[str, str] | None = None
) -> None:
    """A copy in quarantine, compared. Raises ObjectMissing, StoreError."""
    bucket, head = sender.bucket, _present(sender.bucket, key)
    asked = bucket.options.for_notes()
    bucket.copy(key, kept, head.size, metadata, **asked)
    sender.put_in_quarantine(kept, head.size)
    try:
        _check_alike(sender, key, kept)
    except StoreError:
        if bucket.delete_if_allowed(kept):
            sender.gone_from_quarantine(kept)
        raise
    check_kept(bucket.where(kept), asked, _present(bucket, kept).kept_as if asked else {})


def _text_of(kept_as: Mapping[str, Any]) -> str:
    return json.dumps(kept_as, default=format_iso)


def _parse_kept_as(text: str) -> dict[str, Any] | None:
    """None for what is no such text: the copy is an earlier version's, or the store dropped it."""
    try:
        found = json.loads(text)
        if "ObjectLockRetainUntilDate" in found:
            until = parse_iso(found["ObjectLockRetainUntilDate"])
            found["ObjectLockRetainUntilDate"] = until
        return dict(found)
    except (ValueError, TypeError, RecursionError):
        return None


def _forget(sender: Sender, kept: str) -> None:
    """Delete a copy; where that may not be, empty it, which says as well that it is settled."""
    if not sender.bucket.delete_if_allowed(kept):
        with suppress(ArchiverError):
            sender.put_note(kept, b"")
    sender.gone_from_quarantine(kept)


def _present(bucket: Bucket, key: str) -> Head:
    head = bucket.head(key)
    if head is None:
        raise ObjectMissing(f"{bucket.where(key)}: there is no such object any more")
    return head


def _check_alike(sender: Sender, key: str, copied: str) -> None:
    """Raises StoreError where a copy within the store is not what it was made of."""
    one, other = sender.bucket.head(key), sender.bucket.head(copied)
    if one is None or other is None or one.size != other.size:
        raise damaged(sender.bucket.where(copied))
    is_md5 = sender.dialect.check is not Check.NONE and "-" not in one.etag
    if is_md5 and _are_alike(one, other):
        return
    if sender.sha256(key) != sender.sha256(copied):
        raise damaged(sender.bucket.where(copied))


def _are_alike(one: Head, other: Head) -> bool:
    return one.size == other.size and bool(one.etag) and one.etag == other.etag


def _tag(sender: Sender, key: str, head: Head) -> str:
    """A name of an object's content, by its ETag; where the store tells none, it is read."""
    content = head.etag or sender.sha256(key)
    return hashlib.sha256(f"{content} {head.size}".encode()).hexdigest()[:_TAG_DIGITS]
