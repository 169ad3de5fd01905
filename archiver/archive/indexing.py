"""Writing a month's catalogue anew, from its records and SHA256SUMS."""

import hashlib
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final, NamedTuple, Self

from archiver.archive import layout
from archiver.archive.catalogue import CatalogueEntry, write_catalogue
from archiver.archive.contents import (
    Month,
    MonthView,
    Overview,
    SetFiles,
    described,
    results_below,
    view_months,
    with_records,
)
from archiver.archive.layout import index_key
from archiver.archive.measure import measure, new_block
from archiver.archive.reading import decode_record
from archiver.archive.record import Record
from archiver.archive.verified import found_wrong, replaced
from archiver.concurrency import in_thread
from archiver.errors import (
    ArchiveBusy,
    ArchiverError,
    BadDocument,
    ObjectMissing,
    StoreError,
    StoreForbidden,
    UnreadableObject,
)
from archiver.logs import record as log
from archiver.model import Kind, Stored
from archiver.stores.base import Entry, Store

# Documents that are kept in memory: others are read back when a catalogue is made.
_MOST_KEPT: Final = 8192
# Sets whose records are read at once, and held until their entries are made.
_SETS_AT_ONCE: Final = 200


# How many bytes a digest has. There is one of each backup that a run has written.
_DIGEST: Final = 16


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST).digest()


def _shown(key: str, size: int, version: str) -> bytes:
    """A digest of what a listing shows of a file."""
    return _digest(f"{key} {size} {version}".encode())


def _shows(entry: Entry | None, shown: bytes) -> bool:
    """Whether a listing shows a file as it was ``shown``, with its version if that was known."""
    if entry is None or not entry.is_file:
        return False
    return shown in (_shown(entry.key, entry.size, version) for version in (entry.version, ""))


class _Written(NamedTuple):
    """Of a record that a run has written, and its object: digests of what a listing should show of
    both, and of the record itself. There may be any number, so they are kept as bytes."""

    record: bytes
    object: bytes
    data: bytes

    @classmethod
    def of(cls, stored: Stored, key: str, data: bytes) -> Self:
        """The record ``key`` of an object that was stored."""
        of_record, of_object = (stored.versions.get(one, "") for one in (key, stored.key))
        shown = _shown(stored.key, stored.receipt.size, of_object)
        return cls(_shown(key, len(data), of_record), shown, _digest(data))

    @classmethod
    def decode(cls, digests: bytes) -> Self:
        return cls(*(digests[n * _DIGEST : (n + 1) * _DIGEST] for n in range(3)))


class Indexing:
    """The months that a run has written to, whose SHA256SUMS and catalogues are to be made anew at
    the end of each instance, by the holder of its lock."""

    def __init__(self, store: Store) -> None:
        self._store: Final = store
        # By month, and by the key of the record, what was written last, as joined digests.
        self._written: Final[dict[str, dict[str, bytes]]] = {}
        # By month and key: documents that are not compared with a listing yet; and of those that
        # were, the size in bytes and what they say. Both are counted.
        self._documents: Final[dict[str, dict[str, bytes]]] = {}
        self._known: Final[dict[str, dict[str, tuple[int, CatalogueEntry]]]] = {}
        self._count = 0
        # The months that are closed, as they were listed when all was written.
        self._views: Final[dict[str, MonthView]] = {}
        self._results: Final[dict[str, Collection[str]]] = {}

    def wrote(self, stored: Stored) -> None:
        """This object and its record were just written."""
        for key, data in stored.documents:
            month = layout.month_of(key)
            self._written.setdefault(month, {})[key] = b"".join(_Written.of(stored, key, data))
            of_month = self._documents.setdefault(month, {})
            if key in of_month or self._count < _MOST_KEPT:
                self._count += key not in of_month
                of_month[key] = data

    def known(self, view: MonthView) -> dict[str, CatalogueEntry]:
        """What records of a month say that were written and compared, as far as that is kept in
        memory, by key: of those that are listed with their size."""
        entries = view.listed.entries
        return {
            key: one
            for key, (size, one) in self._known.get(view.key, {}).items()
            if key in entries and entries[key].size == size
        }

    def records(self, month: str) -> dict[str, set[str]]:
        """The records of a month that were written, by set."""
        found: dict[str, set[str]] = {}
        for key in self._written.get(month, ()):
            found.setdefault(layout.set_of(key), set()).add(key)
        return found

    async def view(self, month: str) -> MonthView:
        """A month, once all is written to it that will be: listed now, and kept until its catalogue
        is written. Raises StoreError."""
        if month not in self._views:
            await self.look_at([month])
        return self._views[month]

    async def look_at(self, months: Sequence[str]) -> None:
        """The same of several months of an instance, all at once."""
        instance_id = months[0].partition("/")[0]
        if instance_id not in self._results:
            self._results[instance_id] = await results_below(self._store, f"{instance_id}/")
        for view in await view_months(self._store, months, self._results[instance_id]):
            self._views[view.key] = view

    def look_again(self, month: str) -> None:
        """List a month anew when it is asked for: others may have written to it until now."""
        self._views.pop(month, None)

    def months_of(self, instance_id: str) -> list[str]:
        """The months of an instance that were written to, sorted."""
        return sorted(one for one in self._written if one.startswith(f"{instance_id}/"))

    async def check(self, month: str) -> dict[str, ArchiverError]:
        """Compare what was written to a month with its listing, before SHA256SUMS names it. A store
        may have dropped what it said that it took, or kept something else: that loses its record,
        so that the next run brings it anew. What cannot be read keeps it, and so does an access key
        that may not delete. Returns why, by set. Raises UnreadableObject, StoreError."""
        failed: dict[str, ArchiverError] = {}
        # Nothing is taken from the memory of this run that the store may not have.
        unproven = self._documents.pop(month, {})
        known = self._known[month] = {}
        self._count -= len(unproven)
        for key, digests in self._written.get(month, {}).items():
            view = await self.view(month)
            lacks = await _lacks(self._store, view, key, _Written.decode(digests))
            if lacks is None:
                if (data := unproven.pop(key, None)) is not None:
                    with suppress(BadDocument):  # whoever needs it reads it, and gets the error
                        known[key] = len(data), CatalogueEntry.of(decode_record(key, data))
                continue
            failed[layout.set_of(key)] = StoreError(
                f"{lacks}: the store does not have it as it was sent",
                hint="it accepts what it does not keep, or something else changed it",
            )
            if await self._store.size(key) is not None:
                with suppress(StoreForbidden):
                    await self._store.move_to_quarantine(key)
        self._count += len(known)
        if failed:
            self.look_again(month)
        return failed

    async def keep(self, month: str) -> None:
        """Write the catalogue of a month, and forget it. One that cannot be written is logged: it
        is derived, and whoever asks reads the records."""
        written = set(map(layout.stem_of, self._written.pop(month, {})))
        try:
            view = await self.view(month)
            known = self.known(view)
            results = view.overview.results
            wrong = {key for key in results if found_wrong(key, results)}
            if right := {key for key in wrong if layout.stem_of(key) in written}:
                await replaced(self._store, month, right)
            await write_index(self._store, view, known)
        except ArchiveBusy:
            raise  # the lock was lost
        except ArchiverError as error:
            not_written(month, error)
        self._drop(month)

    def forget(self, instance_id: str) -> None:
        """An instance is done, and no catalogue of it is to be written any more."""
        for month in self.months_of(instance_id):
            del self._written[month]
            self._drop(month)
        self._results.pop(instance_id, None)

    def _drop(self, month: str) -> None:
        """Let go of what is kept in memory of a month."""
        for kept in (self._documents, self._known):
            self._count -= len(kept.pop(month, ()))
        self._views.pop(month, None)


def not_written(month: str, error: ArchiverError) -> None:
    """Log that the catalogue of a month was not written."""
    text = f"{index_key(month)} was not written: {error}"
    instance_id = month.partition("/")[0]
    log(logging.WARNING, "catalogue_not_written", text, instance_id, {"month": month})


async def _lacks(store: Store, view: MonthView, key: str, one: _Written) -> str | None:
    """The key of the record that was written, or of its object, where that is not there as it was
    written. Raises UnreadableObject where nobody can tell, StoreError."""
    entries, stem = view.listed.entries, layout.stem_of(key)
    is_object_right = any(_shows(entries.get(f"{stem}.{kind}"), one.object) for kind in Kind)
    if is_object_right and _shows(entries.get(key), one.record):
        return None
    # It may have come since, and some stores list other versions than they respond with.
    try:
        data = await store.read(key)
    except BadDocument:
        return key
    if data is None or _digest(data) != one.data:
        return key
    if is_object_right:
        return None
    record = Record.decode(key, data)
    try:
        block = await in_thread(new_block)
        found = await measure(
            store, record.object_key, record.size, block, lambda _: None, is_log=False
        )
    except ObjectMissing:
        return record.object_key
    return None if found.sha256 == record.sha256 else record.object_key


async def write_index(
    store: Store, view: MonthView, written: Mapping[str, CatalogueEntry] | None = None
) -> None:
    """Write the catalogue of a month. ``written`` is what records say that this run has just
    written, by key, so that they need not be read back.

    Records that cannot be used are left out: whoever asks for one reads it, and gets the error.
    Where SHA256SUMS is gone, or cannot be read, the old one stays: it alone tells what that named.
    Raises StoreError.
    """
    if view.overview.is_witness:
        return
    sets = view.sets
    known: dict[str, CatalogueEntry] = {}
    for first in range(0, len(sets), _SETS_AT_ONCE):
        some = [replace(one, written=written or {}) for one in sets[first : first + _SETS_AT_ONCE]]
        for one in await with_records(store, some):
            known |= {entry.object_key: entry for entry in await _entries(store, one)}
    sums = _sums(view.listed, view.overview, sets)
    key, before = index_key(view.key), None
    if view.listed.index is not None:
        before = (await store.read_many([key]))[key]
    data = write_catalogue(view.key, known.values(), view.listed.entries, sums)
    if data != before and (before is not None or known):
        await store.put(key, data)


def _sums(
    listed: Month, overview: Overview, sets: Iterable[SetFiles]
) -> tuple[Entry, Mapping[str, str], bool] | None:
    """The entry of a month's SHA256SUMS, what can be read of it, by key, and whether that is all;
    None where there is none. What is in its place, such as a folder, says nothing."""
    if listed.sums is None:
        return None
    if not listed.sums.is_file:
        return listed.sums, {}, False
    if overview.sums is None:  # the catalogue knows all of it
        known = (one.sums or {} for one in sets)
        return listed.sums, {key: sha256 for lines in known for key, sha256 in lines.items()}, True
    said = {
        key: sha256 for of_set in overview.sums.by_set.values() for key, sha256 in of_set.items()
    }
    return listed.sums, said, overview.sums.fault is None


async def _entries(store: Store, one: SetFiles) -> list[CatalogueEntry]:
    """What its records say, as far as they can be used. Raises StoreError."""
    found: list[CatalogueEntry] = []
    for key in one.records:
        with suppress(BadDocument, UnreadableObject):
            said = await described(store, one, key)
            if said is not None:
                found.append(said if isinstance(said, CatalogueEntry) else CatalogueEntry.of(said))
    return found
