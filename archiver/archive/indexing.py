"""Writing a month's catalogue anew, from its records and SHA256SUMS."""

import logging
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import Final

from archiver.archive import layout
from archiver.archive.catalogue import (
    NOTHING_KNOWN,
    CatalogueEntry,
    CatalogueSet,
    index_key,
    write_catalogue,
)
from archiver.archive.contents import SetFiles, described, sets_of_month, sums_of
from archiver.archive.verified import read_results
from archiver.errors import ArchiveBusy, ArchiverError, BadDocument, UnreadableObject
from archiver.logs import record
from archiver.stores.base import Store

# Documents that are kept in memory: others are read back when a catalogue is made.
_MOST_KEPT: Final = 4096


class Indexing:
    """The months that a run has written to, whose catalogues are to be made anew at its end."""

    def __init__(self, store: Store) -> None:
        self._store: Final = store
        self._documents: Final[dict[str, dict[str, bytes]]] = {}
        self._count = 0

    def wrote(self, documents: Iterable[tuple[str, bytes]]) -> None:
        """These records and SHA256SUMS were just written: keys and contents."""
        for key, data in documents:
            of_month = self._documents.setdefault(layout.month_of(key), {})
            if key in of_month or self._count < _MOST_KEPT:
                self._count += key not in of_month
                of_month[key] = data

    async def keep(self, months: Iterable[str] = ()) -> None:
        """Write the catalogues of these months, and of those that were written to. One that cannot
        be written is logged: it is derived, and whoever asks reads the records."""
        for month in sorted({*self._documents, *months}):
            try:
                await write_index(self._store, month, self._documents.pop(month, None))
            except ArchiveBusy:
                raise  # the lock was lost
            except ArchiverError as error:
                text = f"{index_key(month)} is not written: {error}"
                instance_id = month.partition("/")[0]
                record(
                    logging.WARNING, "catalogue_not_written", text, instance_id, {"month": month}
                )
        self._count = 0


async def write_index(
    store: Store, month: str, documents: Mapping[str, bytes] | None = None
) -> None:
    """Write the catalogue of ``<instance>/<yyyy>/<mm>``. ``documents`` are those that this run has
    just written, by key, so that they need not be read back.

    Records that cannot be used are left out: whoever asks for them reads them, and is told. Raises
    StoreError.
    """
    written = documents or {}
    just_written = {key.rpartition("/")[0] for key in written}
    listed, results = await sets_of_month(store, month, lambda one: one not in just_written)
    entries = {key: entry for one in listed for key, entry in one.entries.items()}
    sets = {one.folder: await _of_set(store, one.with_documents(written)) for one in listed}
    known = {entry.object_key for one in sets.values() for entry in one.entries.values()}
    if results is not None and not await _names_only(store, month, known):
        results = None
    before = (await store.read_many([index_key(month)]))[index_key(month)]
    data = write_catalogue(month, sets, entries, results)
    if data != before and (before is not None or known):
        await store.put(index_key(month), data)


async def _names_only(store: Store, month: str, known: Collection[str]) -> bool:
    """Whether what verifies left of a month can be read, and names none but these objects."""
    try:
        return (await read_results(store, month)).keys() <= set(known)
    except (BadDocument, UnreadableObject):
        return False


async def _of_set(store: Store, one: SetFiles) -> CatalogueSet:
    """What its documents say. Raises StoreError."""
    found: dict[str, CatalogueEntry] = {}
    for key in one.records:
        with suppress(BadDocument, UnreadableObject):
            said = await described(store, one, key)
            if said is not None:
                found[key] = said if isinstance(said, CatalogueEntry) else CatalogueEntry.of(said)
    if not found:
        return NOTHING_KNOWN
    sums: Mapping[str, str] | None = None
    with suppress(BadDocument, UnreadableObject):
        sums = await sums_of(store, one)
    return CatalogueSet(found, sums == {entry.name: entry.sha256 for entry in found.values()})
