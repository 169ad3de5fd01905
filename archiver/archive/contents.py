"""What an archive holds, set by set: by its listing, its catalogues and earlier verifies.

Every command that lists, copies, compares or restores uses this, so that they agree, and none omits
what is or was there.
"""

import itertools
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Final

from archiver.archive import layout, verified
from archiver.archive.catalogue import (
    EMPTY,
    Catalogue,
    CatalogueEntry,
    Described,
    read_catalogue,
)
from archiver.archive.reading import MonthSums, at_odds, decode_record, salvaged_sums
from archiver.archive.record import Record
from archiver.archive.verified import Result, decode_if_any, results_key
from archiver.concurrency import for_each
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
# Listings that are made at once; and one that a store gives in one response has fewer entries.
_LISTED_AT_ONCE: Final = 16
_SHORT_LISTING: Final = 1000
# The most that a catalogue has at its head, and for each entry of a listing.
_INDEX_BYTES: Final = 4096
_ENTRY_BYTES: Final = 2048
_MONTH_WEIGHT: Final = _ENTRIES_AT_ONCE // _MONTHS_AT_ONCE
_HINT = "run verify, and repair it"
_COMING_HINT = "run pull again, which finishes what was interrupted, or repair from another archive"
_REMOVED_HINT = (
    f"{_HINT}; removed on purpose? then remove the month's document under {verified.PREFIX}, too"
)
_NO_SUMS_HINT = (
    f"{_HINT}; removed on purpose? then remove the month's {layout.INDEX_NAME}, too, and its "
    f"document under {verified.PREFIX}"
)


@dataclass(frozen=True, slots=True)
class Overview:
    """What is known of a month before any of its records is read: by its catalogue, the results of
    earlier verifies, and its SHA256SUMS, None where the catalogue knows what that says. ``listed``
    are the names of the sets that are there. ``is_unread``: SHA256SUMS is not there, or cannot
    be read, and the store does not give the catalogue, which alone may tell what that named."""

    catalogue: Catalogue = EMPTY
    results: Mapping[str, Result] = field(default_factory=dict)
    sums: MonthSums | None = None
    listed: frozenset[str] = frozenset()
    is_unread: bool = False

    def results_by_set(self) -> dict[str, dict[str, Result]]:
        """The results by the key of the set."""
        found: dict[str, dict[str, Result]] = defaultdict(dict)
        for key, result in self.results.items():
            found[layout.set_of(key)][key] = result
        return found

    @property
    def sums_fault(self) -> ArchiverError | None:
        """Why SHA256SUMS, or a line of it, cannot be read, as far as it was."""
        return None if self.sums is None else self.sums.fault

    @property
    def is_witness(self) -> bool:
        """Whether the catalogue alone tells what SHA256SUMS named, which is gone or cannot be
        read."""
        if self.is_unread or self.catalogue.lacks_sums:
            return True
        has_fault = self.sums is not None and self.sums.fault is not None
        return has_fault and bool(self.catalogue.named)

    @property
    def has_lost_lines(self) -> bool:
        """Whether SHA256SUMS, if it can be read, lacks lines that an earlier verify saw."""
        named = {key for key, result in self.results.items() if result.named}
        if self.sums is None:
            return bool(named.difference(self.catalogue.sums(self.catalogue.entries) or ()))
        return self.sums.fault is None and bool(named.difference(*self.sums.by_set.values()))

    @property
    def named(self) -> set[str]:
        """The keys that SHA256SUMS names, if it was read, as far as it can be."""
        return set[str]() if self.sums is None else set(itertools.chain(*self.sums.by_set.values()))

    @property
    def sets_in_sums(self) -> Iterable[str]:
        """The sets that SHA256SUMS names, as far as it was read."""
        return self.sums.by_set if self.sums is not None else ()


@dataclass(frozen=True, slots=True)
class SetFiles:
    """A set as a listing shows it, its files by key.

    ``results`` are those of earlier verifies, by key: they may name files that are gone. ``month``
    is what is known of its month. ``documents`` are the records that were read ahead, by key, each
    as :meth:`Store.read_many` gives it; ``written`` is what the records of its month say that this
    run wrote, by key."""

    key: str
    entries: Mapping[str, Entry]
    results: Mapping[str, Result] = field(default_factory=dict)
    month: Overview = Overview()
    documents: Mapping[str, bytes | ArchiverError | None] = field(default_factory=dict, repr=False)
    written: Mapping[str, CatalogueEntry] = field(default_factory=dict, repr=False)

    @property
    def records(self) -> list[str]:
        """The keys of its records, usable or not."""
        return [key for key in self.entries if key.endswith(layout.RECORD_SUFFIX)]

    @property
    def known(self) -> Mapping[str, CatalogueEntry]:
        """What the catalogue says of the records of its month, by key."""
        return self.month.catalogue.entries

    @property
    def catalogued(self) -> list[CatalogueEntry]:
        """What the catalogue says of its own records, as far as it knows them."""
        known = self.known
        return [known[key] for key in self.entries if key in known]

    @property
    def sums(self) -> Mapping[str, str] | None:
        """The SHA-256 by key in SHA256SUMS; None where that does not name the set."""
        if self.month.sums is None:
            return self.month.catalogue.sums(self.records)
        return self.month.sums.by_set.get(self.key)

    @property
    def sums_fault(self) -> ArchiverError | None:
        """Why SHA256SUMS, or a line of it, cannot be read."""
        return self.month.sums_fault

    @property
    def is_as_catalogued(self) -> bool:
        """Whether its catalogue knows all that is in it: records, and objects of their sizes, which
        SHA256SUMS names; and earlier verifies saw nothing else."""
        catalogue, catalogued = self.month.catalogue, self.catalogued
        if not catalogued or len(self.entries) != 2 * len(catalogued):
            return False
        for entry in catalogued:
            there = self.entries.get(entry.object_key)
            if there is None or not there.is_file or there.size != entry.size:
                return False
            if not catalogue.is_sealed(entry.key):
                return False
        if not self.results:
            return True
        sums = self.sums or {}
        return all(
            key in sums and one.sha256 in (None, sums[key]) and one.wrong_at is None
            for key, one in self.results.items()
        )

    @property
    def expected(self) -> NodesExpected | None:
        """How many nodes it should have, where its catalogue knows."""
        said = (entry.nodes_expected for entry in self.catalogued)
        return next((one for one in said if one is not None), None)

    @property
    def is_standard(self) -> bool:
        """Whether it is a standard instance's: one file in its month."""
        return not any(map(layout.is_in_folder, self.entries or self.results))

    def lines(self) -> Mapping[str, str] | None:
        """``sums``. Raises BadDocument or UnreadableObject where a line that cannot be read may be
        one of this set."""
        if (doubt := self.doubt) is not None:
            raise doubt.with_traceback(None)  # of the last time that it was raised
        return self.sums

    @property
    def doubt(self) -> ArchiverError | None:
        """Why ``sums`` may lack a line of this set: SHA256SUMS cannot be read, and a file that is
        here has no line, or a cluster's file that is gone may have had one; or as ``lost_line``."""
        if self.month.sums is None or self.month.sums.fault is None:
            return self.lost_line
        named = {layout.stem_of(key) for key in self.sums or ()}
        name, damaged = self.key.rpartition("/")[2], self.month.sums.damaged
        is_certain = named.issuperset(map(layout.stem_of, self.records)) and (
            self.is_standard or not damaged.may_name(name, self.month.listed)
        )
        return None if is_certain else self.month.sums.fault

    @property
    def lost_line(self) -> ArchiverError | None:
        """Why SHA256SUMS, which can be read, lacks a line of a record that is here: an earlier
        verify saw one."""
        sums = self.sums or () if self.results else ()
        for key, result in self.results.items():
            record = layout.record_key(layout.stem_of(key))
            if result.named and key not in sums and record in self.entries:
                month = layout.month_of(self.key)
                fault = f"it does not name {key[len(month) + 1 :]}, and did at an earlier verify"
                return BadDocument(layout.sums_key(month), fault, hint=_HINT)
        return None

    def at_odds(self, record: Described) -> IntegrityError | None:
        """Why SHA256SUMS or an earlier verify contradicts one of its records, if one does."""
        return at_odds(record, self.sums, self.results)

    def by(self, catalogue: Catalogue, sums: MonthSums | None = None) -> "SetFiles":
        """The same, by another catalogue of its month, and by its SHA256SUMS as it was read now, if
        it was."""
        month = replace(self.month, catalogue=catalogue, sums=sums or self.month.sums)
        return replace(self, month=month)

    async def document(self, store: Store, key: str) -> bytes | None:
        """One of its documents, read ahead or now. Raises as :meth:`Store.read`."""
        if key not in self.documents:
            return await store.read(key)
        found = self.documents[key]
        if isinstance(found, ArchiverError):
            raise found.with_traceback(None)  # of the last time that it was raised
        return found

    def unrecorded(self) -> "dict[str, Unrecorded]":
        """Files that are or were in it and have no record: those that SHA256SUMS or an earlier
        verify names, and objects. By the key that each lacks: that of its record, or of the file
        itself where it is no backup's (pure)."""
        found: dict[str, Unrecorded] = {}

        def note(key: str, why: str, hint: str = _HINT, *, was_recorded: bool = True) -> None:
            lacks = layout.record_key(layout.stem_of(key)) if layout.is_object(key) else key
            if lacks not in self.entries and lacks not in found:
                kind = IntegrityError if was_recorded else BackupFailed
                error = kind(f"{key}: {why}", hint=hint)
                found[lacks] = Unrecorded(key, error, was_recorded=was_recorded)

        for key in self.sums or ():
            note(key, "SHA256SUMS names it, but it has no record")
        for key, result in self.results.items():
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
    """The key of a record, usable or not, and the set that it is in."""

    key: str
    files: SetFiles


@dataclass(frozen=True, slots=True)
class Unrecorded:
    """A file that has no record, a SHA256SUMS that cannot be read or has lost a line, or a folder
    that cannot be listed; ``error`` says why.

    ``was_recorded``: something says that it had a record. Otherwise it is a file that will get one:
    a pull is at work, or was interrupted. ``hides_sets``: nobody knows which sets it holds or
    names.
    """

    key: str
    error: ArchiverError
    was_recorded: bool = True
    hides_sets: bool = False


async def walk(
    store: Store, prefix: str, wants: Callable[[str], bool]
) -> AsyncGenerator[Recorded | Unrecorded, None]:
    """The records below ``prefix``, usable or not, and what has none. ``wants`` says which sets and
    folders of sets are meant.

    Files without a record come at the end: a pull at work may have written it meanwhile. Raises
    StoreError.
    """
    doubted: dict[str, Unrecorded] = {}
    async with aclosing(sets_below(store, prefix, wants, reads=wants)) as sets:
        async for one in sets:
            if isinstance(one, Unrecorded):
                yield one
                continue
            for key in one.records:
                yield Recorded(key, one)
            doubted |= one.unrecorded()
    for lacking, unrecorded in doubted.items():
        try:
            came = await store.size(lacking) is not None
        except UnreadableObject as error:
            yield Unrecorded(lacking, error)
        else:
            if not came:
                yield unrecorded
            elif layout.is_record(lacking):
                yield Recorded(lacking, SetFiles(layout.set_of(lacking), {}))


async def instances(store: Store) -> list[str]:
    """The instances that an archive has, or had when it was verified, sorted. Raises StoreError."""
    found = {name for name in await store.folders() if layout.may_hold_sets(name)}
    found |= {month.partition("/")[0] for month in await results_below(store, "")}
    return sorted(found)


async def record_of(store: Store, one: SetFiles, key: str) -> Record | None:
    """The record under a key of a set; None when there is none.

    Raises BadDocument for one that must not be used, UnreadableObject, StoreError.
    """
    data = await one.document(store, key)
    return None if data is None else decode_record(key, data)


async def described(store: Store, one: SetFiles, key: str) -> Described | None:
    """What a record says: as this run wrote it, or by the catalogue if that has it, otherwise as
    :func:`record_of`."""
    return one.written.get(key) or one.known.get(key) or await record_of(store, one, key)


def _all(_: str) -> bool:
    return True


async def sets_below(
    store: Store,
    prefix: str,
    wants: Callable[[str], bool] = _all,
    *,
    reads: Callable[[str], bool] | None = None,
) -> AsyncGenerator[SetFiles | Unrecorded, None]:
    """The sets below a prefix, month by month, one instance after the other: those of the listing,
    and those that only an earlier verify or SHA256SUMS names. Folders that cannot be listed come as
    Unrecorded, and so does a SHA256SUMS that cannot be read, before the sets of its month: it may
    have named others.

    ``wants`` says which keys are meant. The records of the sets that ``reads`` says are read ahead,
    many at once, unless a catalogue knows them. Raises StoreError.
    """
    results = await results_below(store, prefix)
    below = _Below(store, prefix, wants, reads, results)
    batch, weight = list[Month](), 0
    async with aclosing(_with_gone(_months(store, prefix), results)) as listing:
        async for one in listing:
            if isinstance(one, Unrecorded):
                below.hidden.append(one.key)
                if wants(one.key):
                    yield one
                continue
            batch.append(one)
            weight += _MONTH_WEIGHT + one.weight
            if weight >= _ENTRIES_AT_ONCE:
                for found in await below.sets_of(batch):
                    yield found
                batch, weight = [], 0
    for found in await below.sets_of(batch):
        yield found


async def _with_gone(
    listing: AsyncGenerator["Month | Unrecorded", None], months: Iterable[str]
) -> AsyncGenerator["Month | Unrecorded", None]:
    """The same, and those of the ``months`` of which nothing is listed any more: after the others
    of their instance."""
    left: dict[str, set[str]] = {}
    for month in months:
        left.setdefault(month.partition("/")[0], set()).add(month)
    instance_id = ""
    async with aclosing(listing):
        async for one in listing:
            if not one.key.startswith(f"{instance_id}/"):
                for gone in sorted(left.pop(instance_id, ())):
                    yield Month(gone)
                instance_id = one.key.partition("/")[0]
            left.get(instance_id, set()).discard(one.key)
            yield one
    for gone in sorted(itertools.chain(*left.values())):
        yield Month(gone)


@dataclass(slots=True)
class Month:
    """A month as a listing shows it: the files of its sets by key, and by set; its ``index`` and
    its SHA256SUMS, if there is one."""

    key: str
    entries: dict[str, Entry] = field(default_factory=dict)
    sets: dict[str, dict[str, Entry]] = field(default_factory=dict)
    index: Entry | None = None
    sums: Entry | None = None

    @property
    def weight(self) -> int:
        """How many entries of a listing it counts for: its documents may name far more than is
        left of it."""
        documents = [one.size for one in (self.index, self.sums) if one is not None]
        return len(self.entries) + sum(documents) // _ENTRY_BYTES

    @property
    def has_readable_index(self) -> bool:
        """Whether there is a catalogue, and it is no larger than one of these records can be. Where
        there is no SHA256SUMS it may be of any size: it alone may tell what else was here."""
        if self.index is None or not self.index.is_file:
            return False
        most = _INDEX_BYTES + _ENTRY_BYTES * len(self.entries)
        return self.sums is None or self.index.size <= most

    def take(self, entry: Entry) -> None:
        """Note one of its entries."""
        key = entry.key
        if layout.is_of_a_month(key):
            if key == layout.sums_key(self.key):
                self.sums = entry
            else:
                self.index = entry
        else:
            self.entries[key] = entry
            set_key = layout.set_of(key)
            if set_key in self.sets:
                self.sets[set_key][key] = entry
            else:
                self.sets[set_key] = {key: entry}


async def overviews(
    store: Store, months: Sequence[Month], verified_months: Collection[str]
) -> list[Overview]:
    """What is known of these months, in order; ``verified_months`` as in :func:`results_below`.
    Raises StoreError."""
    keys = [layout.index_key(month.key) for month in months if month.has_readable_index]
    indexes = await store.read_many(keys)
    catalogues = [_catalogue(month, indexes.get(layout.index_key(month.key))) for month in months]
    wanted: list[str] = []
    for month, catalogue in zip(months, catalogues, strict=True):
        if month.sums is not None and not catalogue.has_sums:
            wanted.append(layout.sums_key(month.key))
        if month.key in verified_months:
            wanted.append(results_key(month.key))
    documents = await store.read_many(wanted)
    found = []
    for month, catalogue in zip(months, catalogues, strict=True):
        data = documents.get(layout.sums_key(month.key))
        sums = None if data is None else await salvaged_sums(store, month.key, data)
        kept = documents.get(results_key(month.key)) if month.key in verified_months else None
        results = decode_if_any(month.key, kept)
        if month.sums is None and _had_sums(month, catalogue, results):
            key = layout.sums_key(month.key)
            sums = MonthSums(fault=BadDocument(key, "it was here, and is gone", hint=_NO_SUMS_HINT))
        index = indexes.get(layout.index_key(month.key))
        is_unread = isinstance(index, UnreadableObject) and not _is_readable(month, sums)
        if is_unread and month.sums is None and isinstance(index, UnreadableObject):
            sums = MonthSums(fault=index)
        names = frozenset(key[len(month.key) + 1 :] for key in month.sets)
        found.append(Overview(catalogue, results, sums, names, is_unread))
    return found


def _is_readable(month: Month, sums: MonthSums | None) -> bool:
    """Whether there is a SHA256SUMS, and all of it can be read; ``sums`` is what was read of it."""
    return month.sums is not None and sums is not None and sums.fault is None


def _catalogue(month: Month, data: bytes | ArchiverError | None) -> Catalogue:
    if not isinstance(data, bytes):
        return EMPTY
    return read_catalogue(month.key, data, month.entries, month.sums)


def _had_sums(month: Month, catalogue: Catalogue, results: Mapping[str, Result]) -> bool:
    """Whether a month had a SHA256SUMS when its catalogue was written, or it was verified. Where
    nothing else is left of it, the results name each file."""
    was_seen = bool(month.entries) and any(result.named for result in results.values())
    return catalogue.lacks_sums or was_seen


async def with_records(
    store: Store, sets: Sequence[SetFiles], reads: Callable[[str], bool] = _all
) -> list[SetFiles]:
    """The same sets, with the records read that neither a catalogue nor this run knows, many at
    once; only of the sets that ``reads`` says by their key. Raises StoreError."""
    unknown = [_unread(one) if reads(one.key) else [] for one in sets]
    documents = await store.read_many(list(itertools.chain(*unknown)))
    return [
        replace(one, documents={**one.documents, **{key: documents[key] for key in keys}})
        if keys
        else one
        for one, keys in zip(sets, unknown, strict=True)
    ]


def _unread(one: SetFiles) -> list[str]:
    """The keys of its records that nothing is known of."""
    known, written, read = one.known, one.written, one.documents
    unknown = [key for key in one.entries if key not in known and key not in written]
    return [key for key in unknown if key not in read and key.endswith(layout.RECORD_SUFFIX)]


async def results_below(store: Store, prefix: str) -> set[str]:
    """The months below a prefix of which there are results of verifies. Raises StoreError."""
    instance_id, slash, _ = prefix.partition("/")
    found = set[str]()
    async for entry in store.entries(f"{verified.PREFIX}{instance_id}{slash}"):
        month = verified.month_of(entry.key)
        if month is not None and (f"{month}/".startswith(prefix) or prefix.startswith(f"{month}/")):
            found.add(month)
    return found


@dataclass(frozen=True, slots=True)
class _Below:
    """The arguments of :func:`sets_below`; ``verified_months`` as in :func:`results_below`, and
    ``hidden`` the folders that cannot be listed."""

    store: Store
    prefix: str
    wants: Callable[[str], bool]
    reads: Callable[[str], bool] | None
    verified_months: Collection[str]
    hidden: list[str] = field(default_factory=list)

    async def sets_of(self, months: Sequence[Month]) -> list[SetFiles | Unrecorded]:
        """The sets of these months, those that are gone at the end of each; and before them its
        SHA256SUMS if that cannot be read, or has lost a line of one of them."""
        found: list[SetFiles | Unrecorded] = []
        known = await overviews(self.store, months, self.verified_months)
        for month, overview in zip(months, known, strict=True):
            results = overview.results_by_set()
            gone = sorted({*results, *overview.sets_in_sums} - month.sets.keys())
            sets = [
                SetFiles(key, month.sets.get(key, {}), results.get(key, {}), overview)
                for key in (*filter(self.wants, month.sets), *filter(self._is_gone, gone))
            ]
            why = overview.sums_fault
            if overview.has_lost_lines:
                why = next((lost for one in sets if (lost := one.lost_line)), why)
            if why is not None and self.wants(month.key):
                hides_sets = overview.sums_fault is not None
                found.append(Unrecorded(layout.sums_key(month.key), why, hides_sets=hides_sets))
            found += sets
        if self.reads is None:
            return found
        sets = [one for one in found if isinstance(one, SetFiles)]
        read = iter(await with_records(self.store, sets, self.reads))
        return [next(read) if isinstance(one, SetFiles) else one for one in found]

    def _is_gone(self, set_key: str) -> bool:
        """Whether a set that is not listed is wanted, and lies in no hidden folder."""
        is_hidden = any(f"{set_key}/".startswith(f"{one}/") for one in self.hidden)
        return f"{set_key}/".startswith(self.prefix) and self.wants(set_key) and not is_hidden


@dataclass(slots=True)
class MonthView:
    """A month as it is listed, what is known of it before its records are read, and the keys of all
    that is ``there``."""

    listed: Month
    overview: Overview
    there: frozenset[str]

    @property
    def key(self) -> str:
        return self.listed.key

    @property
    def sets(self) -> list[SetFiles]:
        """The sets that the listing shows."""
        results = self.overview.results_by_set()
        return [
            SetFiles(key, entries, results.get(key, {}), self.overview)
            for key, entries in self.listed.sets.items()
        ]

    def wrote_sums(self, sums: Entry, lines: Mapping[str, str]) -> None:
        """SHA256SUMS was just written, with these lines by key."""
        self.listed.sums = sums
        self.overview = replace(self.overview, sums=MonthSums.of(lines))


async def view_month(
    store: Store, month: str, verified_months: Collection[str] | None = None
) -> MonthView:
    """``<instance>/<yyyy>/<mm>`` as it is listed now; ``verified_months`` as in
    :func:`results_below`, if they are known. Raises StoreError."""
    if verified_months is None:
        verified_months = await results_below(store, f"{month}/")
    [view] = await view_months(store, [month], verified_months)
    return view


async def view_months(
    store: Store, months: Iterable[str], verified_months: Collection[str]
) -> list[MonthView]:
    """The same of several months, which are listed and read together."""
    entries = await listings(store, months)
    listed = [Month(month) for month in entries]
    for one in listed:
        for entry in entries[one.key]:
            if layout.is_of_a_set(entry.key) or layout.is_of_a_month(entry.key):
                one.take(entry)
    looks = await overviews(store, listed, verified_months)
    return [
        MonthView(one, look, frozenset(entry.key for entry in entries[one.key]))
        for one, look in zip(listed, looks, strict=True)
    ]


async def set_of(store: Store, set_key: str) -> SetFiles:
    """A set as it is listed now, and what is known of its month. Raises StoreError."""
    view = await view_month(store, layout.month_of(set_key))
    results = view.overview.results_by_set().get(set_key, {})
    return SetFiles(set_key, view.listed.sets.get(set_key, {}), results, view.overview)


async def listings(store: Store, months: Iterable[str]) -> dict[str, list[Entry]]:
    """The entries of these months, many of which are listed at once; those of an instance by one
    listing of all of it, if that is short. Raises StoreError."""
    found: dict[str, list[Entry]] = {month: [] for month in months}
    by_instance = defaultdict[str, list[str]](list)
    for month in found:
        by_instance[month.partition("/")[0]].append(month)

    async def list_month(month: str) -> None:
        found[month] = [entry async for entry in store.entries(f"{month}/")]

    async def list_instance(instance_id: str) -> None:
        own = by_instance[instance_id]
        entries = await _short_listing(store, f"{instance_id}/") if len(own) > 1 else None
        if entries is None:
            await for_each(own, list_month, _LISTED_AT_ONCE)
        for entry in entries or ():
            if (month := layout.month_of(entry.key)) in found:
                found[month].append(entry)

    await for_each(by_instance, list_instance, _LISTED_AT_ONCE)
    return found


async def _short_listing(store: Store, prefix: str) -> list[Entry] | None:
    """All entries below ``prefix``; None where there are many, or something hides some: then that
    is seen in a listing of what it hides."""
    found: list[Entry] = []
    async with aclosing(store.entries(prefix)) as listing:
        async for entry in listing:
            found.append(entry)
            if len(found) == _SHORT_LISTING or entry.hides is not None:
                return None
    return found


async def _months(store: Store, prefix: str) -> AsyncGenerator[Month | Unrecorded, None]:
    """The months of a listing, and folders that cannot be listed."""
    month: Month | None = None
    below = ""
    async with aclosing(store.entries(prefix)) as listing:
        async for entry in listing:
            if not layout.is_of_a_set(entry.key) and not layout.is_of_a_month(entry.key):
                if entry.hides is not None and layout.may_hold_sets(entry.key):
                    yield Unrecorded(entry.key, entry.hides, hides_sets=True)
                continue
            if month is None or not entry.key.startswith(below):
                if month is not None:
                    yield month
                month = Month(layout.month_of(entry.key))
                below = f"{month.key}/"
            month.take(entry)
    if month is not None:
        yield month
