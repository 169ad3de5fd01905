"""Writing a month's catalogue anew, from its records and SHA256SUMS."""

from collections.abc import Iterable, Mapping
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
from archiver.archive.verified import results_if_any
from archiver.errors import BadDocument, UnreadableObject
from archiver.stores.base import Store

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
        """These records and SHA256SUMS were just written: keys and contents."""
        for key, data in documents:
            of_month = self._documents.setdefault(layout.month_of(key), {})
            if key in of_month or self._count < _MOST_KEPT:
                self._count += key not in of_month
                of_month[key] = data

    async def keep(self, instance_id: str, months: Iterable[str] = ()) -> None:
        """Write the catalogues of those months of an instance that were written to, and of
        ``months``, which are of it. Raises StoreError."""
        written = [month for month in self._documents if month.startswith(f"{instance_id}/")]
        for month in sorted({*written, *months}):
            documents = self._documents.pop(month, None)
            self._count -= len(documents or ())
            await write_index(self._store, month, documents)


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
    if results is not None and not (await results_if_any(store, month)).keys() <= known:
        results = None
    before = await store.read(index_key(month))
    data = write_catalogue(month, sets, entries, results)
    if data != before and (before is not None or known):
        await store.put(index_key(month), data)


async def _of_set(store: Store, one: SetFiles) -> CatalogueSet:
    """What its documents say. Raises StoreError."""
    found: dict[str, CatalogueEntry] = {}
    for key in one.records:
        with suppress(BadDocument, UnreadableObject):
            record = await described(store, one, key)
            if record is not None:
                found[key] = (
                    record if isinstance(record, CatalogueEntry) else CatalogueEntry.of(record)
                )
    if not found:
        return NOTHING_KNOWN
    sums: Mapping[str, str] | None = None
    with suppress(BadDocument, UnreadableObject):
        sums = await sums_of(store, one)
    return CatalogueSet(found, sums == {entry.name: entry.sha256 for entry in found.values()})
