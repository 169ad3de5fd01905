"""Writing a month's catalogue anew, from its records and SHA256SUMS."""

import logging
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import Final

from archiver.archive import layout
from archiver.archive.catalogue import CatalogueEntry, write_catalogue
from archiver.archive.contents import (
    Month,
    Overview,
    SetFiles,
    described,
    month_of,
    overviews,
    results_below,
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
    """The months that a run has written to, whose catalogues are to be made anew at the end of each
    instance, by the holder of its lock."""

    def __init__(self, store: Store) -> None:
        self._store: Final = store
        self._documents: Final[dict[str, dict[str, bytes]]] = {}
        self._count = 0

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

    def months_of(self, instance_id: str) -> list[str]:
        """The months of an instance that were written to, sorted."""
        return sorted(one for one in self._documents if one.startswith(f"{instance_id}/"))

    async def keep(self, instance_id: str, months: Iterable[str] = ()) -> None:
        """Write the catalogues of those months of an instance that were written to, and of
        ``months``, which are of it. One that cannot be written is logged: it is derived, and
        whoever asks reads the records."""
        for month in sorted({*self.months_of(instance_id), *months}):
            documents = self._documents.pop(month, None)
            self._count -= len(documents or ())
            try:
                await write_index(self._store, month, documents)
            except ArchiveBusy:
                raise  # the lock was lost
            except ArchiverError as error:
                text = f"{index_key(month)} is not written: {error}"
                record(
                    logging.WARNING, "catalogue_not_written", text, instance_id, {"month": month}
                )


async def write_index(
    store: Store, month: str, documents: Mapping[str, bytes] | None = None
) -> None:
    """Write the catalogue of ``<instance>/<yyyy>/<mm>``. ``documents`` are records that this run
    has just written, by key, so that they need not be read back.

    Records that cannot be used are left out: whoever asks for them reads them, and is told. Raises
    StoreError.
    """
    written = documents or {}
    results = await results_below(store, f"{month}/")
    listed = await month_of(store, month)
    [overview] = await overviews(store, [listed], results)
    sets = [overview.files(key, entries, {}) for key, entries in listed.sets.items()]
    sets = await with_records(store, [one.with_documents(written) for one in sets])
    known = {entry.object_key: entry for one in sets for entry in await _entries(store, one)}
    verified = results.get(month)
    if verified is not None and not await _names_only(store, month, known):
        verified = None
    sums = _sums(listed, overview, sets)
    before = (await store.read_many([index_key(month)]))[index_key(month)]
    data = write_catalogue(month, known.values(), listed.entries, sums, verified)
    if data != before and (before is not None or known):
        await store.put(index_key(month), data)


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
