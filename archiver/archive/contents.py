"""What an archive holds, set by set: what its listing shows, what its catalogue knows, and what
earlier verifies saw.

Every command that lists, copies, compares or restores goes by this, so that they agree, and nothing
that is or was there is passed over in silence.
"""

import itertools
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Final

from archiver.archive import layout, verified
from archiver.archive.catalogue import (
    EMPTY,
    NOTHING_KNOWN,
    Catalogue,
    CatalogueSet,
    Described,
    index_key,
    read_catalogue,
)
from archiver.archive.reading import decode_record, decode_sums
from archiver.archive.record import Record
from archiver.archive.verified import Result, decode_if_any, results_key
from archiver.errors import (
    ArchiverError,
    BackupFailed,
    BadDocument,
    IntegrityError,
    UnreadableObject,
)
from archiver.model import NodesExpected
from archiver.stores.base import Entry, Store
from archiver.times import format_day

# Entries of a listing, and months, that are looked at together: what no catalogue knows of them is
# read at once, and held until it was looked at.
_ENTRIES_AT_ONCE: Final = 4000
_MONTHS_AT_ONCE: Final = 100
_MONTH_WEIGHT: Final = _ENTRIES_AT_ONCE // _MONTHS_AT_ONCE
_HINT = "run verify, and repair it"
_COMING_HINT = "run pull again, which finishes what was interrupted, or repair from another archive"
_REMOVED_HINT = (
    f"{_HINT}; removed on purpose? then remove the month's document under {verified.PREFIX}, too"
)


@dataclass(frozen=True, slots=True)
class SetFiles:
    """A set as a listing shows it, by key. ``seen`` are files that earlier verifies saw, who may be
    all there is to tell of them; ``known`` is what the month's catalogue says of it; ``documents``
    are those that were read ahead, each as :meth:`Store.read_many` gives it."""

    folder: str
    entries: Mapping[str, Entry]
    seen: Mapping[str, Result] = field(default_factory=dict)
    known: CatalogueSet = NOTHING_KNOWN
    documents: Mapping[str, bytes | ArchiverError | None] = field(default_factory=dict, repr=False)

    @property
    def records(self) -> Iterable[str]:
        """The keys of its records, usable or not."""
        return filter(layout.is_record, self.entries)

    @property
    def is_as_catalogued(self) -> bool:
        """Whether there is nothing in it but what its catalogue knows, whole: records and objects
        of their sizes, a SHA256SUMS that names them all; and what verifies saw is the same."""
        known = self.known.entries
        if not self.known.is_sealed or len(self.entries) != 2 * len(known) + 1:
            return False
        for key, one in known.items():
            there = self.entries.get(one.object_key)
            if key not in self.entries or there is None:
                return False
            if not there.is_file or there.size != one.size:
                return False
        sums = {one.object_key: one.sha256 for one in known.values()} if self.seen else {}
        return all(
            key in sums and one.sha256 in (None, sums[key]) for key, one in self.seen.items()
        )

    @property
    def expected(self) -> NodesExpected | None:
        """How many nodes it should have, where its catalogue knows."""
        said = (entry.nodes_expected for entry in self.known.entries.values())
        return next((one for one in said if one is not None), None)

    @property
    def unknown(self) -> list[str]:
        """Its documents that the catalogue does not know."""
        sums = layout.sums_key(self.folder)
        keys = [sums] if sums in self.entries and not self.known.is_sealed else []
        return keys + [key for key in self.records if key not in self.known.entries]

    def with_documents(self, documents: Mapping[str, bytes]) -> "SetFiles":
        """The same, with those of its ``documents`` that a listing shows. They are newer than what
        a catalogue knows."""
        given = {
            key: documents[key]
            for key in documents.keys() & self.entries.keys()
            if len(documents[key]) == self.entries[key].size
        }
        return replace(self, documents={**self.documents, **given}) if given else self

    @property
    def documents_listed(self) -> list[str]:
        """The keys of its records and its SHA256SUMS, as far as they are there."""
        sums = layout.sums_key(self.folder)
        return [*self.records, *([sums] if sums in self.entries else [])]

    async def document(self, store: Store, key: str) -> bytes | None:
        """One of its documents, read ahead or now. Raises as :meth:`Store.read`."""
        if key not in self.documents:
            return await store.read(key)
        found = self.documents[key]
        if isinstance(found, ArchiverError):
            raise found.with_traceback(None)  # of the last time that it was raised
        return found

    def unrecorded(self, sums: Iterable[str] = ()) -> "dict[str, Unrecorded]":
        """Files that are or were in it and have no record: those that SHA256SUMS (by ``sums``, its
        names) or an earlier verify names, and objects. By the key that each lacks: a backup's file
        its record, any other name the file itself (pure)."""
        found: dict[str, Unrecorded] = {}

        def note(key: str, why: str, hint: str = _HINT, *, was_recorded: bool = True) -> None:
            lacks = layout.record_key(layout.stem_of(key)) if layout.is_object(key) else key
            if lacks not in self.entries and lacks not in found:
                kind = IntegrityError if was_recorded else BackupFailed
                error = kind(f"{key}: {why}", hint=hint)
                found[lacks] = Unrecorded(key, error, was_recorded=was_recorded)

        for name in sums:
            key = f"{self.folder}/{name}"
            what = "it has no record" if layout.is_object(key) else "there is no such file"
            note(key, f"SHA256SUMS names it, and {what}")
        for key, result in self.seen.items():
            saw = "an earlier verify saw it" if result.at is None else (
                f"it was verified on {format_day(result.at)}"
            )  # fmt: skip
            if key in self.entries:
                note(key, f"{saw}, and it has no record")
            else:
                note(key, f"{saw}, and it is gone with its record", _REMOVED_HINT)
        for key in filter(layout.is_object, self.entries):
            note(key, "it has no record", _COMING_HINT, was_recorded=False)
        return found


@dataclass(frozen=True, slots=True)
class Recorded:
    """The key of a record, usable or not, the set that it is in, and what SHA256SUMS says there by
    file name; None where there is none, or none that can be used. ``is_unsealed``: there is none.
    """

    key: str
    files: SetFiles
    sums: Mapping[str, str] | None
    is_unsealed: bool = False


@dataclass(frozen=True, slots=True)
class Unrecorded:
    """What is or was in an archive, and has no record to go by: a file, what a SHA256SUMS that
    cannot be read names, what is in a folder that nobody sees into. ``error`` says why.

    ``was_recorded``: something says that it was. Without that it is a file that is still to be
    recorded: a pull is at work, or was interrupted.
    """

    key: str
    error: ArchiverError
    was_recorded: bool = True


async def walk(
    store: Store, prefix: str, wants: Callable[[str], bool]
) -> AsyncGenerator[Recorded | Unrecorded, None]:
    """The records below ``prefix``, usable or not, and what has none. ``wants`` says which folders
    are meant, of sets and of those that may have some in them.

    Files without a record are told of at the end: a pull at work may have brought it meanwhile.
    Raises StoreError.
    """
    doubted: dict[str, Unrecorded] = {}
    async with aclosing(sets_below(store, prefix, wants, reads=wants)) as sets:
        async for one in sets:
            if isinstance(one, Unrecorded):
                yield one
                continue
            sums: Mapping[str, str] | None = None
            try:
                sums = await sums_of(store, one)
            except (BadDocument, UnreadableObject) as error:
                yield Unrecorded(layout.sums_key(one.folder), error)
            for key in one.records:
                yield Recorded(key, one, sums, layout.sums_key(one.folder) not in one.entries)
            doubted |= one.unrecorded(sums or ())
    for lacking, unrecorded in doubted.items():
        try:
            came = await store.size(lacking) is not None
        except UnreadableObject as error:
            yield Unrecorded(lacking, error)
        else:
            if not came:
                yield unrecorded
            elif layout.is_record(lacking):
                yield Recorded(lacking, SetFiles(lacking.rpartition("/")[0], {}), None)


async def instances(store: Store) -> list[str]:
    """The instances of which an archive has something, or had when it was verified, sorted. Raises
    StoreError."""
    found = {name for name in await store.folders() if layout.may_hold_sets(name)}
    found |= {month.partition("/")[0] for month in await results_below(store, "")}
    return sorted(found)


async def sums_of(store: Store, one: SetFiles) -> Mapping[str, str] | None:
    """The SHA-256 by file name in a set's SHA256SUMS; None when the listing shows none.

    Raises BadDocument, UnreadableObject, StoreError.
    """
    key = layout.sums_key(one.folder)
    if key not in one.entries:
        return None
    if one.known.is_sealed:
        return one.known.sums
    data = await one.document(store, key)
    return None if data is None else await decode_sums(store, one.folder, data)


async def record_of(store: Store, one: SetFiles, key: str) -> Record | None:
    """The record under a key of a set; None when there is none.

    Raises BadDocument for one that must not be used, UnreadableObject, StoreError.
    """
    data = await one.document(store, key)
    return None if data is None else decode_record(key, data)


async def described(store: Store, one: SetFiles, key: str) -> Described | None:
    """What the record under a key says, by the catalogue if that knows. Else as
    :func:`record_of`."""
    return one.known.entries.get(key) or await record_of(store, one, key)


def _all(_: str) -> bool:
    return True


async def sets_below(
    store: Store,
    prefix: str,
    wants: Callable[[str], bool] = _all,
    *,
    reads: Callable[[str], bool] | None = None,
) -> AsyncGenerator[SetFiles | Unrecorded, None]:
    """One set after the other: those of the listing, and those of which only an earlier verify
    tells. And folders that nobody sees into. Of the sets that ``reads``
    says, the documents that no catalogue knows are read ahead, many at once. Raises StoreError."""
    below = _Below(store, prefix, wants, reads)
    results = await results_below(store, prefix)
    shown, batch, weight = set[str](), list[Month](), 0
    async with aclosing(_months(store, prefix)) as listing:
        async for one in listing:
            if isinstance(one, Unrecorded):
                below.hidden.append(one.key)
                if wants(one.key):
                    yield one
                continue
            shown.add(one.key)
            batch.append(one)
            weight += _MONTH_WEIGHT + len(one.entries)
            if weight >= _ENTRIES_AT_ONCE:
                for found in await below.sets_of(batch, results):
                    yield found
                batch, weight = [], 0
    # Months of which the listing shows nothing, and of which an earlier verify saw something.
    batch += [Month(month) for month in sorted(results.keys() - shown)]
    for first in range(0, len(batch), _MONTHS_AT_ONCE):
        for found in await below.sets_of(batch[first : first + _MONTHS_AT_ONCE], results):
            yield found


async def sets_of_month(
    store: Store, month: str, reads: Callable[[str], bool]
) -> tuple[list[SetFiles], Entry | None]:
    """The sets of one month, with the documents of those that ``reads`` says; and the entry of what
    earlier verifies left of it. Raises StoreError."""
    results = await results_below(store, f"{month}/")
    below = _Below(store, f"{month}/", _all, reads)
    listed = [one async for one in _months(store, f"{month}/") if isinstance(one, Month)]
    return await below.sets_of(listed, results), results.get(month)


@dataclass(slots=True)
class Month:
    """A month as a listing shows it: the files of its sets by key, and by set; its ``index``, if
    there is one."""

    key: str
    entries: dict[str, Entry] = field(default_factory=dict)
    folders: dict[str, dict[str, Entry]] = field(default_factory=dict)
    index: Entry | None = None

    def take(self, entry: Entry) -> None:
        """Note one of its entries."""
        if layout.is_index(entry.key):
            self.index = entry
        else:
            self.entries[entry.key] = entry
            folder = entry.key.rpartition("/")[0]
            self.folders.setdefault(folder, {})[entry.key] = entry


@dataclass(frozen=True, slots=True)
class Overview:
    """What is known of a month before any of its records is read: by its catalogue, and from
    earlier verifies."""

    catalogue: Catalogue = EMPTY
    seen: Mapping[str, Result] = field(default_factory=dict)


async def overviews(
    store: Store, months: Sequence[Month], results: Mapping[str, Entry]
) -> list[Overview]:
    """What is known of these months, in order; ``results`` are the entries of what verifies left,
    by month. Raises StoreError."""
    keys = [index_key(month.key) for month in months if month.index is not None]
    indexes = await store.read_many(keys)
    catalogues = [_catalogue(month, indexes.get(index_key(month.key))) for month in months]
    wanted = {
        month.key: results_key(month.key)
        for month, catalogue in zip(months, catalogues, strict=True)
        if month.key in results and not _says_all(catalogue, month, results[month.key])
    }
    documents = await store.read_many(list(wanted.values()))
    return [
        Overview(catalogue, decode_if_any(month.key, documents.get(wanted.get(month.key, ""))))
        for month, catalogue in zip(months, catalogues, strict=True)
    ]


def _catalogue(month: Month, data: bytes | ArchiverError | None) -> Catalogue:
    return read_catalogue(month.key, data, month.entries) if isinstance(data, bytes) else EMPTY


def _says_all(catalogue: Catalogue, month: Month, results: Entry) -> bool:
    """Whether all that verifies saw in a month is there, as its catalogue and the listing show: a
    look at their results tells nothing more."""
    return (
        catalogue.has_all_of == (results.size, results.version)
        and all(
            record in month.entries and entry.object_key in month.entries
            for one in catalogue.sets.values()
            for record, entry in one.entries.items()
        )
        and catalogue.named <= month.entries.keys()
    )


async def results_below(store: Store, prefix: str) -> dict[str, Entry]:
    """The entries of what earlier verifies left of months below a prefix, by month. Raises
    StoreError."""
    instance_id, slash, _ = prefix.partition("/")
    found: dict[str, Entry] = {}
    async for entry in store.entries(f"{verified.PREFIX}{instance_id}{slash}"):
        month = verified.month_of(entry.key)
        if month is not None and (f"{month}/".startswith(prefix) or prefix.startswith(f"{month}/")):
            found[month] = entry
    return found


class _Below:
    """What is below a prefix, and wanted."""

    def __init__(
        self,
        store: Store,
        prefix: str,
        wants: Callable[[str], bool],
        reads: Callable[[str], bool] | None,
    ) -> None:
        self.hidden: Final[list[str]] = []
        self._store: Final = store
        self._prefix: Final = prefix
        self._wants: Final = wants
        self._reads: Final = reads

    async def sets_of(
        self, months: Sequence[Month], results: Mapping[str, Entry]
    ) -> list[SetFiles]:
        """The sets of these months, those that are gone at the end of each."""
        sets: list[SetFiles] = []
        known = await overviews(self._store, months, results)
        for month, overview in zip(months, known, strict=True):
            seen: dict[str, dict[str, Result]] = defaultdict(dict)
            for key, result in overview.seen.items():
                seen[key.rpartition("/")[0]][key] = result
            for folder, entries in month.folders.items():
                before = seen.pop(folder, {})
                if self._wants(folder):
                    of_it = overview.catalogue.of(folder)
                    sets.append(SetFiles(folder, entries, before, of_it))
            sets += [SetFiles(one, {}, seen[one]) for one in sorted(filter(self._is_gone, seen))]
        return sets if self._reads is None else await self._with_documents(sets, self._reads)

    def _is_gone(self, folder: str) -> bool:
        """Whether a set of which nothing is listed is meant, and nothing hides it."""
        hidden = any(f"{folder}/".startswith(f"{one}/") for one in self.hidden)
        return f"{folder}/".startswith(self._prefix) and self._wants(folder) and not hidden

    async def _with_documents(
        self, sets: Sequence[SetFiles], reads: Callable[[str], bool]
    ) -> list[SetFiles]:
        unknown = [one.unknown if reads(one.folder) else [] for one in sets]
        documents = await self._store.read_many(list(itertools.chain(*unknown)))
        return [
            replace(one, documents={key: documents[key] for key in keys}) if keys else one
            for one, keys in zip(sets, unknown, strict=True)
        ]


async def _months(store: Store, prefix: str) -> AsyncGenerator[Month | Unrecorded, None]:
    """The months that a listing shows, and folders that nobody sees into."""
    month: Month | None = None
    below = ""
    async with aclosing(store.entries(prefix)) as listing:
        async for entry in listing:
            if entry.hides is not None and layout.may_hold_sets(entry.key):
                yield Unrecorded(entry.key, entry.hides)
                continue
            if not layout.is_of_a_set(entry.key) and not layout.is_index(entry.key):
                continue
            if month is None or not entry.key.startswith(below):
                if month is not None:
                    yield month
                month = Month(layout.month_of(entry.key))
                below = f"{month.key}/"
            month.take(entry)
    if month is not None:
        yield month
