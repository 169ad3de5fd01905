"""Writing a month's catalogue anew, from its records and SHA256SUMS."""

import logging
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import Final

from archiver.archive import layout
from archiver.archive.catalogue import CatalogueEntry, write_catalogue
from archiver.archive.contents import (
    Month,
    MonthView,
    Overview,
    SetFiles,
    described,
    results_below,
    view_month,
    with_records,
)
from archiver.archive.layout import index_key
from archiver.archive.verified import read_results
from archiver.errors import ArchiveBusy, ArchiverError, BadDocument, UnreadableObject
from archiver.logs import record
from archiver.stores.base import Entry, Store

# Documents that are kept in memory: others are read back when a catalogue is made.
_MOST_KEPT: Final = 4096


class Indexing:
    """The months that a run has written to, whose SHA256SUMS and catalogues are to be made anew at
    the end of each instance, by the holder of its lock."""

    def __init__(self, store: Store) -> None:
        self._store: Final = store
        self._documents: Final[dict[str, dict[str, bytes]]] = {}
        self._count = 0
        # Months as they were listed when all was written, until their catalogues are.
        self._views: Final[dict[str, MonthView]] = {}
        self._results: Final[dict[str, Mapping[str, Entry]]] = {}

    def wrote(self, documents: Iterable[tuple[str, bytes]]) -> None:
        """These records were just written: keys and contents."""
        for key, data in documents:
            of_month = self._documents.setdefault(layout.month_of(key), {})
            if key in of_month or self._count < _MOST_KEPT:
                self._count += key not in of_month
                of_month[key] = data

    def documents(self, month: str) -> Mapping[str, bytes]:
        """Those of a month that are kept in memory, by key."""
        return self._documents.get(month, {})

    async def view(self, month: str) -> MonthView:
        """A month, once all is written to it that will be: listed now, and kept until its catalogue
        is written. Raises StoreError."""
        if month not in self._views:
            instance_id = month.partition("/")[0]
            if instance_id not in self._results:
                below = await results_below(self._store, f"{instance_id}/")
                self._results[instance_id] = below
            self._views[month] = await view_month(self._store, month, self._results[instance_id])
        return self._views[month]

    def look_again(self, month: str) -> None:
        """List a month anew when it is asked for: others may have written to it until now."""
        self._views.pop(month, None)

    async def keep(self, instance_id: str, months: Iterable[str] = ()) -> None:
        """Write the catalogues of those months of an instance that were written to, and of
        ``months``, which are of it. One that cannot be written is logged: it is derived, and
        whoever asks reads the records."""
        ours = [one for one in self._documents if one.startswith(f"{instance_id}/")]
        for month in sorted({*ours, *months}):
            documents = self._documents.pop(month, None)
            self._count -= len(documents or ())
            try:
                await write_index(self._store, await self.view(month), documents)
            except ArchiveBusy:
                raise  # the lock was lost
            except ArchiverError as error:
                text = f"{index_key(month)} is not written: {error}"
                record(
                    logging.WARNING, "catalogue_not_written", text, instance_id, {"month": month}
                )
            self._views.pop(month, None)
        self._results.pop(instance_id, None)


async def write_index(
    store: Store, view: MonthView, documents: Mapping[str, bytes] | None = None
) -> None:
    """Write the catalogue of a month. ``documents`` are records that this run has just written, by
    key, so that they need not be read back.

    Records that cannot be used are left out: whoever asks for them reads them, and is told. Raises
    StoreError.
    """
    sets = [one.with_documents(documents or {}) for one in view.sets]
    sets = await with_records(store, sets)
    known = {entry.object_key: entry for one in sets for entry in await _entries(store, one)}
    verified = view.results
    if verified is not None and not await _names_only(store, view.key, known):
        verified = None
    sums = _sums(view.listed, view.overview, sets)
    key, before = index_key(view.key), None
    if view.listed.index is not None:
        before = (await store.read_many([key]))[key]
    data = write_catalogue(view.key, known.values(), view.listed.entries, sums, verified)
    if data != before and (before is not None or known):
        await store.put(key, data)


def _sums(
    listed: Month, overview: Overview, sets: Iterable[SetFiles]
) -> tuple[Entry, Mapping[str, str]] | None:
    """The entry of a month's SHA256SUMS, and all that it says by key; None where there is none, or
    it cannot be read."""
    if listed.sums is None or not listed.sums.is_file:
        return None
    if overview.sums is None:  # the catalogue knows all of it
        return listed.sums, {
            key: sha256 for one in sets for key, sha256 in (one.sums or {}).items()
        }
    if overview.sums.fault is not None:
        return None
    said = overview.sums.by_set.values()
    return listed.sums, {key: sha256 for lines in said for key, sha256 in lines.items()}


async def _names_only(store: Store, month: str, known: Collection[str]) -> bool:
    """Whether what verifies left of a month can be read, and names none but these objects."""
    try:
        return (await read_results(store, month)).keys() <= set(known)
    except (BadDocument, UnreadableObject):
        return False


async def _entries(store: Store, one: SetFiles) -> list[CatalogueEntry]:
    """What its records say, as far as they can be used. Raises StoreError."""
    found: list[CatalogueEntry] = []
    for key in one.records:
        with suppress(BadDocument, UnreadableObject):
            said = await described(store, one, key)
            if said is not None:
                found.append(said if isinstance(said, CatalogueEntry) else CatalogueEntry.of(said))
    return found
