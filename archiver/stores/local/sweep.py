"""Settles what killed runs left in a directory archive: staged files, journals, documents."""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from archiver import documents
from archiver.errors import BadDocument, NoDocument, UnreadableObject
from archiver.model import Kind
from archiver.stores.base import Leftover
from archiver.stores.local import disk, journal, reading
from archiver.stores.local.layout import (
    DATA,
    DOCUMENT,
    JOURNAL,
    QUARANTINE,
    RECORD,
    SEPARATOR,
    STAGING,
    TEMPORARY,
    is_staged_name,
    unflatten,
)
from archiver.stores.local.quarantine import move_to_quarantine
from archiver.stores.local.staging import parents_to_sync
from archiver.stores.scope import scope_of

# Four times the vendor's default retention: no run can resume it any more.
_STALE_SECONDS = 30 * 86400


class Sweep:
    """One sweep of a scope (:mod:`archiver.stores.scope`) of the archive in ``root``.

    ``durable`` are the keys of folders whose own names are durable. ``check`` raises LockLost
    when this process is no longer the only writer of the scope.
    """

    def __init__(
        self, root: Path, scope: str, durable: set[str], check: Callable[[], None]
    ) -> None:
        self._root: Final = root
        self._scope: Final = scope
        self._staging: Final = root / STAGING / scope
        self._quarantine: Final = root / QUARANTINE / scope
        self._durable: Final = durable
        self._check: Final = check

    def run(self) -> Iterator[Leftover]:
        """Settle each leftover. Files with other names than ours may belong to another application,
        and stay. Blocks. Raises StoreError."""
        with disk.store_errors(self._staging):
            ours = [path for path in self._staging.iterdir() if is_staged_in(path, self._scope)]
            for path in sorted(ours, key=_order):
                if why := self._settled(path):
                    self._check()
                    path.unlink(missing_ok=True)
                    yield Leftover(self._key_of(path), why)

    def _settled(self, path: Path) -> str | None:
        """Why a staged file is to be removed; None when it stays."""
        if path.suffix == TEMPORARY:
            return "a document that was not finished"
        return self._settle(path) if path.suffix == DOCUMENT else self._why_useless(path)

    def _key_of(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()

    def _leads_out(self, path: Path) -> bool:
        """Whether anything but folders is above ``path``: a link may lead out of the archive, and
        nothing may be written behind it."""
        above = list(path.relative_to(self._root).parents)[:-1]
        return any(reading.folder_obstacle(self._root / folder) is not None for folder in above)

    def _settle(self, document: Path) -> str | None:
        """Give a document its final name if its object has that already: a run was killed between
        the two. Returns why it is removed from the staging folder; None when it stays."""
        path = self._root / unflatten(document.stem)
        if self._leads_out(path):
            return None
        if not self._has_object(document, path):
            return "a document without its object"
        if os.path.lexists(path):
            there = _claim_of(path)
            if path.suffix != RECORD or there == _claim_of(document):
                return "a document that is in place already"
            try:
                if there is not None and _is_true(there, path):
                    return "a record of other bytes than the object has"
            except (UnreadableObject, NoDocument):
                return None  # a later run may find out which one is right
            # It is not about the object that is here.
            self._check()
            move_to_quarantine(path, self._root, self._quarantine)
        # The run may have been killed before the names of the object and its folders were durable.
        folder = path.parent.relative_to(self._root).as_posix()
        disk.sync_directory(path.parent)
        for unsynced in parents_to_sync(str(self._root), folder, self._durable):
            unsynced.sync()
        self._check()
        disk.rename(document, path)
        disk.sync_directory(path.parent)
        return "its object was in place: now it is recorded, too"

    def _has_object(self, document: Path, path: Path) -> bool:
        """Whether the object that a document is about has its final name. After a power failure it
        may have its staged name as well: then both are of one inode."""
        if path.suffix != RECORD:
            return any(path.parent.glob(f"*{RECORD}"))
        staged = document.with_name(document.stem).with_suffix(DATA)
        claim = _claim_of(document)
        if claim is None:
            return False
        final = path.with_name(claim.name)
        return (
            final.stem == path.stem
            and _is_file(final)
            and final.lstat().st_size == claim.size
            and (not os.path.lexists(staged) or _is_same(final, staged))
        )

    def _why_useless(self, path: Path) -> str | None:
        """Why no run can use a staged file; None when one can."""
        if path.suffix == DATA:
            return self._why_useless_data(path)
        return None if path.with_suffix(DATA).exists() else "a journal without its file"

    def _why_useless_data(self, path: Path) -> str | None:
        final = self._root / unflatten(path.stem)
        if any(_is_same(path, final.with_name(f"{final.name}.{kind}")) for kind in Kind):
            return "another name of a file in the archive"
        try:
            noted = journal.read(str(path.with_suffix(JOURNAL)))
        except UnreadableObject:
            return "a journal that cannot be read"
        if noted is None:
            return "a file without a journal, from an interrupted run"
        if time.time() - path.lstat().st_mtime > _STALE_SECONDS:
            return "untouched for 30 days"
        return None


def _order(path: Path) -> tuple[bool, bool, str]:
    """Documents before the files that they are about, and records before SHA256SUMS."""
    is_of_record = path.name.endswith(f"{RECORD}{DOCUMENT}")
    return path.suffix != DOCUMENT, not is_of_record, path.name


@dataclass(frozen=True, slots=True)
class _Claim:
    """What a record says about its object; ``size`` in bytes."""

    name: str
    size: int
    sha256: object


def _claim_of(record: Path) -> _Claim | None:
    """None when the record cannot be read."""
    try:
        values = documents.parse(record.name, reading.read_document(record) or b"").values
    except (NoDocument, BadDocument, UnreadableObject):
        return None
    name, size = values.get("object"), values.get("size")
    if not isinstance(name, str) or not documents.is_name(name) or not isinstance(size, int):
        return None
    return _Claim(name, size, values.get("sha256"))


def _is_true(claim: _Claim, record: Path) -> bool:
    """Whether an object has the bytes that its record names. Raises UnreadableObject,
    NoDocument."""
    path = record.with_name(claim.name)
    if path.stem != record.stem or not _is_file(path) or path.lstat().st_size != claim.size:
        return False
    descriptor = reading.open_file(path)
    if descriptor is None:
        return False
    with reading.reading_errors(path), os.fdopen(descriptor, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == claim.sha256


def is_staged_in(path: Path, scope: str) -> bool:
    """Whether a file is one that the holder of this scope's lock staged."""
    is_own = SEPARATOR not in path.name or scope_of(unflatten(path.name)) == scope
    return is_own and is_staged_name(path.name) and _is_file(path)


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _is_same(path: Path, other: Path) -> bool:
    """Whether two paths are names of one file."""
    try:
        return os.path.samestat(path.lstat(), other.lstat())
    except (FileNotFoundError, NotADirectoryError):
        return False
