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
    read_catalogue,
)
from archiver.archive.reading import MonthSums, decode_record, salvaged_sums
from archiver.archive.record import Record
from archiver.archive.sums import may_be_of
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


@dataclass(frozen=True, slots=True)
class SetFiles:
    """A set as a listing shows it, its files by key. ``seen`` are files that earlier verifies saw,
    who may be all there is to tell of them; ``known`` is what the month's catalogue says of it;
    ``sums`` what SHA256SUMS does, by key, None where it does not name it; ``sums_fault`` why that
    cannot be read, or a line of it, ``damaged_lines`` are these; ``beside`` are the names of
    the sets of the month that are there. ``documents`` are those that were read ahead, each as
    :meth:`Store.read_many` gives it."""

    key: str
    entries: Mapping[str, Entry]
    seen: Mapping[str, Result] = field(default_factory=dict)
    known: CatalogueSet = NOTHING_KNOWN
    sums: Mapping[str, str] | None = None
    sums_fault: ArchiverError | None = None
    damaged_lines: Sequence[str] = ()
    beside: frozenset[str] = frozenset()
    documents: Mapping[str, bytes | ArchiverError | None] = field(default_factory=dict, repr=False)

    @property
    def records(self) -> Iterable[str]:
        """The keys of its records, usable or not."""
        return (key for key in self.entries if key.endswith(layout.RECORD_SUFFIX))

    @property
    def is_as_catalogued(self) -> bool:
        """Whether there is nothing in it but what its catalogue knows, whole: records and objects
        of their sizes, which SHA256SUMS names; and what verifies saw is the same."""
        known = self.known.entries
        if not self.known.is_sealed or len(self.entries) != 2 * len(known):
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
    def is_standard(self) -> bool:
        """Whether it is a standard instance's: one file in its month."""
        return not any(map(layout.is_in_folder, self.entries or self.seen))

    def lines(self) -> Mapping[str, str] | None:
        """What SHA256SUMS says of it, by key; None where it does not name it. Raises BadDocument
        and UnreadableObject where a line that cannot be read may be of this set."""
        if (doubt := self.doubt) is not None:
            raise doubt.with_traceback(None)  # of the last time that it was raised
        return self.sums

    @property
    def doubt(self) -> ArchiverError | None:
        """Why SHA256SUMS cannot be read, where what it says may be of this set: a file that is here
        has no line, or one of a cluster's that is gone may have had one. Or why it is not what it
        was: an earlier verify saw a line that it has no more."""
        if self.sums_fault is None:
            return self._lost_line()
        named = {layout.stem_of(key) for key in self.sums or ()}
        name = self.key.rpartition("/")[2]
        is_certain = named.issuperset(map(layout.stem_of, self.records)) and (
            self.is_standard
            or not any(may_be_of(line, name, self.beside) for line in self.damaged_lines)
        )
        return None if is_certain else self.sums_fault

    def _lost_line(self) -> ArchiverError | None:
        for key, result in self.seen.items():
            if result.named and key not in (self.sums or ()):
                month = layout.month_of(self.key)
                fault = f"it does not name {key[len(month) + 1 :]}, and did at an earlier verify"
                return BadDocument(layout.sums_key(month), fault, hint=_HINT)
        return None

    def with_sums(self, sums: MonthSums) -> "SetFiles":
        """The same, with what SHA256SUMS says of it as it was read."""
        return replace(
            self,
            sums=sums.by_set.get(self.key),
            sums_fault=sums.fault,
            damaged_lines=sums.damaged,
        )

    def with_documents(self, documents: Mapping[str, bytes]) -> "SetFiles":
        """The same, with those of its ``documents`` that a listing shows. They are newer than what
        a catalogue knows."""
        given = {
            key: documents[key]
            for key in documents.keys() & self.entries.keys()
            if len(documents[key]) == self.entries[key].size
        }
        return replace(self, documents={**self.documents, **given}) if given else self

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
        verify names, and objects. By the key that each lacks: a backup's file its record, any other
        name the file itself (pure)."""
        found: dict[str, Unrecorded] = {}

        def note(key: str, why: str, hint: str = _HINT, *, was_recorded: bool = True) -> None:
            lacks = layout.record_key(layout.stem_of(key)) if layout.is_object(key) else key
            if lacks not in self.entries and lacks not in found:
                kind = IntegrityError if was_recorded else BackupFailed
                error = kind(f"{key}: {why}", hint=hint)
                found[lacks] = Unrecorded(key, error, was_recorded=was_recorded)

        for key in self.sums or ():
            note(key, "SHA256SUMS names it, but it has no record")
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
    """The key of a record, usable or not, and the set that it is in."""

    key: str
    files: SetFiles


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
    """The instances of which an archive has something, or had when it was verified, sorted. Raises
    StoreError."""
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
    """The sets below a prefix, month by month: those of the listing, and those that only an earlier
    verify or SHA256SUMS names. Folders that cannot be listed come as Unrecorded, and so does a
    SHA256SUMS that cannot be read, before the sets of its month: it may have named others.

    ``wants`` says which keys are meant. The records of the sets that ``reads`` says are read ahead,
    many at once, unless a catalogue knows them. Raises StoreError.
    """
    below = _Below(store, prefix, wants, reads, await results_below(store, prefix))
    listed, batch, weight = set[str](), list[Month](), 0
    async with aclosing(_months(store, prefix)) as listing:
        async for one in listing:
            if isinstance(one, Unrecorded):
                below.hidden.append(one.key)
                if wants(one.key):
                    yield one
                continue
            listed.add(one.key)
            batch.append(one)
            weight += _MONTH_WEIGHT + len(one.entries)
            if weight >= _ENTRIES_AT_ONCE:
                for found in await below.sets_of(batch):
                    yield found
                batch, weight = [], 0
    # Months of which nothing is listed any more, and of which an earlier verify saw something.
    batch += [Month(month) for month in sorted(below.results.keys() - listed)]
    for first in range(0, len(batch), _MONTHS_AT_ONCE):
        for found in await below.sets_of(batch[first : first + _MONTHS_AT_ONCE]):
            yield found


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
    def has_readable_index(self) -> bool:
        """Whether there is a catalogue, and it is no larger than one of these records can be."""
        most = _INDEX_BYTES + _ENTRY_BYTES * len(self.entries)
        return self.index is not None and self.index.is_file and self.index.size <= most

    def take(self, entry: Entry) -> None:
        """Note one of its entries."""
        if not layout.is_of_a_month(entry.key):
            self.entries[entry.key] = entry
            self.sets.setdefault(layout.set_of(entry.key), {})[entry.key] = entry
        elif entry.key == layout.sums_key(self.key):
            self.sums = entry
        else:
            self.index = entry


@dataclass(frozen=True, slots=True)
class Overview:
    """What is known of a month before any of its records is read: by its catalogue, from earlier
    verifies, and by its SHA256SUMS. ``listed`` are the names of the sets that are there."""

    catalogue: Catalogue = EMPTY
    seen: Mapping[str, Result] = field(default_factory=dict)
    sums: MonthSums | None = None
    listed: frozenset[str] = frozenset()

    def files(
        self, set_key: str, entries: Mapping[str, Entry], seen: Mapping[str, Result]
    ) -> SetFiles:
        """A set of the month: what the listing shows of it, and earlier verifies saw."""
        known = self.catalogue.of(set_key)
        if self.sums is None:
            lines = known.sums if known.has_sums else None
            return SetFiles(set_key, entries, seen, known, lines, beside=self.listed)
        return SetFiles(set_key, entries, seen, known, beside=self.listed).with_sums(self.sums)

    def seen_by_set(self) -> dict[str, dict[str, Result]]:
        """What earlier verifies saw, by the key of the set."""
        found: dict[str, dict[str, Result]] = defaultdict(dict)
        for key, result in self.seen.items():
            found[layout.set_of(key)][key] = result
        return found

    @property
    def sums_fault(self) -> ArchiverError | None:
        """Why SHA256SUMS, or a line of it, cannot be read, as far as it was."""
        return None if self.sums is None else self.sums.fault

    @property
    def sets_in_sums(self) -> Iterable[str]:
        """The sets that SHA256SUMS names, as far as it was read."""
        return self.sums.by_set if self.sums is not None else ()


async def overviews(
    store: Store, months: Sequence[Month], results: Mapping[str, Entry]
) -> list[Overview]:
    """What is known of these months, in order; ``results`` are the entries of what verifies left,
    by month. Raises StoreError."""
    keys = [layout.index_key(month.key) for month in months if month.has_readable_index]
    indexes = await store.read_many(keys)
    catalogues = [_catalogue(month, indexes.get(layout.index_key(month.key))) for month in months]
    wanted: list[str] = []
    for month, catalogue in zip(months, catalogues, strict=True):
        if month.sums is not None and not catalogue.has_sums:
            wanted.append(layout.sums_key(month.key))
        if month.key in results and not _says_all(catalogue, month, results[month.key]):
            wanted.append(results_key(month.key))
    documents = await store.read_many(wanted)
    found = []
    for month, catalogue in zip(months, catalogues, strict=True):
        data = documents.get(layout.sums_key(month.key))
        sums = None if data is None else await salvaged_sums(store, month.key, data)
        kept = documents.get(results_key(month.key)) if month.key in results else None
        seen = decode_if_any(month.key, kept)
        if month.sums is None and month.entries and _had_sums(catalogue, seen):
            key = layout.sums_key(month.key)
            sums = MonthSums(fault=BadDocument(key, "it was here, and is gone", hint=_HINT))
        names = frozenset(key[len(month.key) + 1 :] for key in month.sets)
        found.append(Overview(catalogue, seen, sums, names))
    return found


def _catalogue(month: Month, data: bytes | ArchiverError | None) -> Catalogue:
    if not isinstance(data, bytes):
        return EMPTY
    return read_catalogue(month.key, data, month.entries, month.sums)


def _had_sums(catalogue: Catalogue, seen: Mapping[str, Result]) -> bool:
    """Whether a month had a SHA256SUMS when its catalogue was written, or it was verified."""
    return catalogue.lacks_sums or any(result.named for result in seen.values())


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


async def with_records(
    store: Store, sets: Sequence[SetFiles], reads: Callable[[str], bool] = _all
) -> list[SetFiles]:
    """The same sets; those that ``reads`` says by their key with the records that no catalogue
    knows, and that are not among their documents, read many at once. Raises StoreError."""
    unknown = [
        [k for k in one.records if k not in one.known.entries and k not in one.documents]
        if reads(one.key)
        else []
        for one in sets
    ]
    documents = await store.read_many(list(itertools.chain(*unknown)))
    return [
        replace(one, documents={**one.documents, **{key: documents[key] for key in keys}})
        if keys
        else one
        for one, keys in zip(sets, unknown, strict=True)
    ]


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


@dataclass(frozen=True, slots=True)
class _Below:
    """The arguments of :func:`sets_below`; ``results`` are the entries of what verifies left, by
    month, and ``hidden`` the folders that cannot be listed."""

    store: Store
    prefix: str
    wants: Callable[[str], bool]
    reads: Callable[[str], bool] | None
    results: Mapping[str, Entry]
    hidden: list[str] = field(default_factory=list)

    async def sets_of(self, months: Sequence[Month]) -> list[SetFiles | Unrecorded]:
        """The sets of these months, those that are gone at the end of each; and before them its
        SHA256SUMS if that cannot be read."""
        found: list[SetFiles | Unrecorded] = []
        known = await overviews(self.store, months, self.results)
        for month, overview in zip(months, known, strict=True):
            if overview.sums_fault is not None and self.wants(month.key):
                found.append(Unrecorded(layout.sums_key(month.key), overview.sums_fault))
            seen = overview.seen_by_set()
            gone = sorted({*seen, *overview.sets_in_sums} - month.sets.keys())
            for key in (*filter(self.wants, month.sets), *filter(self._is_gone, gone)):
                entries = month.sets.get(key, {})
                found.append(overview.files(key, entries, seen.get(key, {})))
        if self.reads is None:
            return found
        sets = [one for one in found if isinstance(one, SetFiles)]
        read = iter(await with_records(self.store, sets, self.reads))
        return [next(read) if isinstance(one, SetFiles) else one for one in found]

    def _is_gone(self, set_key: str) -> bool:
        """Whether a set of which nothing is listed is meant, and lies in no hidden folder."""
        is_hidden = any(f"{set_key}/".startswith(f"{one}/") for one in self.hidden)
        return f"{set_key}/".startswith(self.prefix) and self.wants(set_key) and not is_hidden


@dataclass(slots=True)
class MonthView:
    """A month as one look shows it: its listing, what is known of it before its records are read,
    the entry of what verifies left of it, and the keys of all that is there."""

    listed: Month
    overview: Overview
    results: Entry | None
    there: frozenset[str]

    @property
    def key(self) -> str:
        return self.listed.key

    @property
    def sets(self) -> list[SetFiles]:
        """The sets that the listing shows."""
        seen = self.overview.seen_by_set()
        return [
            self.overview.files(key, entries, seen.get(key, {}))
            for key, entries in self.listed.sets.items()
        ]

    def wrote_sums(self, sums: Entry, lines: Mapping[str, str]) -> None:
        """SHA256SUMS was just written, with these lines by key."""
        self.listed.sums = sums
        self.overview = replace(self.overview, sums=MonthSums.of(lines))


async def view_month(store: Store, month: str, results: Mapping[str, Entry]) -> MonthView:
    """``<instance>/<yyyy>/<mm>`` as it is listed now; ``results`` are the entries of what verifies
    left, by month. Raises StoreError."""
    listed, there = Month(month), set[str]()
    async for entry in store.entries(f"{month}/"):
        there.add(entry.key)
        if layout.is_of_a_set(entry.key) or layout.is_of_a_month(entry.key):
            listed.take(entry)
    [overview] = await overviews(store, [listed], results)
    return MonthView(listed, overview, results.get(month), frozenset(there))


async def set_of(store: Store, set_key: str) -> SetFiles:
    """A set as it is listed now, and what is known of its month. Raises StoreError."""
    month = layout.month_of(set_key)
    view = await view_month(store, month, await results_below(store, f"{month}/"))
    seen = view.overview.seen_by_set().get(set_key, {})
    return view.overview.files(set_key, view.listed.sets.get(set_key, {}), seen)


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
    """The months that a listing shows, and folders that nobody sees into."""
    month: Month | None = None
    below = ""
    async with aclosing(store.entries(prefix)) as listing:
        async for entry in listing:
            if not layout.is_of_a_set(entry.key) and not layout.is_of_a_month(entry.key):
                if entry.hides is not None and layout.may_hold_sets(entry.key):
                    yield Unrecorded(entry.key, entry.hides)
                continue
            if month is None or not entry.key.startswith(below):
                if month is not None:
                    yield month
                month = Month(layout.month_of(entry.key))
                below = f"{month.key}/"
            month.take(entry)
    if month is not None:
        yield month
