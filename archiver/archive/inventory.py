"""What an archive holds, as one run sees it: each month of an instance is listed once, and what its
catalogue knows is not read."""

from collections import defaultdict
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from archiver.archive import layout
from archiver.archive.catalogue import Described
from archiver.archive.consistency import apart
from archiver.archive.contents import (
    Month,
    Overview,
    Recorded,
    SetFiles,
    Unrecorded,
    listings,
    overviews,
    results_below,
)
from archiver.archive.reading import read_record, wrong_size
from archiver.archive.verified import Result, found_wrong
from archiver.concurrency import for_each
from archiver.errors import (
    ArchiverError,
    BadDocument,
    IntegrityError,
    NoDocument,
    UnreadableObject,
)
from archiver.model import Backup, Kind, Named, Transfer
from archiver.stores.base import Entry, Store
from archiver.times import format_month

# Months of listings in memory: a backup's own, and those beside it.
_MONTHS_KEPT = 3
# Months that are looked at together, and records of another archive that are held meanwhile.
_MONTHS_AT_ONCE = 16
_RECORDS_AT_ONCE = 2000


@dataclass(frozen=True, slots=True)
class Finding:
    """What the archive says of a backup: held with its record, or to be transferred.

    ``damage`` says why a record that is there does not count (``is_record_bad``: itself, not its
    object), ``unreadable`` why nobody knows whether one is there, or counts. ``in_the_way`` are
    keys that the backup's files are to have, and something that is no such file has.
    ``found_wrong``: a verify says so of the file of the ``record``.
    """

    transfer: Transfer
    record: Described | None
    damage: str | None = None
    unreadable: ArchiverError | None = None
    in_the_way: tuple[str, ...] = ()
    found_wrong: ArchiverError | None = None
    is_record_bad: bool = False


@dataclass(slots=True)
class _Month:
    """The sets of an instance's month: their files by key, and of each name the keys of the sets
    that have it, so that a cluster's nodes come to lie together. ``no_files`` have the names of
    files, and are something else, as it says; ``hidden``
    are keys of which nobody sees what they are, or what lies below them, with the reason.
    ``overview`` is what its catalogue and its SHA256SUMS say."""

    files: dict[str, dict[str, Entry]]
    named: defaultdict[str, set[str]]
    no_files: dict[str, str]
    hidden: dict[str, ArchiverError]
    overview: Overview
    results: Mapping[str, Mapping[str, Result]] = field(default_factory=dict)

    def of(self, set_key: str) -> SetFiles:
        """One set."""
        files, results = self.files.get(set_key, {}), self.results.get(set_key, {})
        return SetFiles(set_key, files, results, self.overview)


class Difference(StrEnum):
    """How an archive holds what a record of another one describes."""

    NONE = "the same"
    MISSING = "missing"
    OTHER = "another"  # a record of the same backup that names other bytes
    DAMAGED = "damaged"  # no readable record, or no object of its size


@dataclass(frozen=True, slots=True)
class Compared:
    """How an archive holds what a record of another one describes, and where that is not the same
    or missing, why. ``is_named``: SHA256SUMS is known to say the same. ``found_wrong`` is what a
    verify found wrong with its object since."""

    difference: Difference
    why: str | None = None
    is_named: bool = False
    found_wrong: IntegrityError | None = None


class Inventory:
    """A view of a store, for who lets nobody else write to the same instance meanwhile."""

    def __init__(self, store: Store, preferred: Collection[str] = ()) -> None:
        """``preferred`` are keys without suffix, and those of sets, that are to be repaired: of
        several places where a backup may lie, it belongs there."""
        self._store: Final = store
        self._preferred: Final = preferred
        # Months whose catalogue did not know all that was asked for.
        self.unknown_months: Final[set[str]] = set()
        # Newest last: a listing goes through months one after the other.
        self._months: Final[dict[str, _Month]] = {}
        self._expected: list[str] = []
        # By instance, the months of which verifies left results.
        self._results: Final[dict[str, Collection[str]]] = {}
        # By month, the keys that were given to sets of which nothing is here yet.
        self._named: Final[defaultdict[str, set[str]]] = defaultdict(set)

    def look_again(self) -> None:
        """List anew what is asked about, and read its catalogue anew: others may have written until
        now. Months whose catalogue did not know all stay ``unknown_months``."""
        self._months.clear()

    def expect(self, months: Collection[str]) -> None:
        """What is asked next is about these months: the first time that one of them is not known,
        all of them are looked at together."""
        self._expected = [f"{month}/" for month in sorted(months)]

    async def find(self, backup: Backup) -> Finding:
        """Whether this backup is held. Raises UnsafeInput for ids that must not make a path."""
        month, set_key = await self._set(backup)
        stem = layout.stem(set_key, backup)
        transfer = Transfer(
            backup,
            set_key,
            stem,
            is_known=_is_known(month, stem),
            present=_present(month, stem),
        )
        if (hiding := _hiding(month, *_keys(stem))) is not None:
            return Finding(transfer, None, unreadable=hiding)
        finding = await self._finding(transfer, month)
        if finding.record is not None:
            is_named = await self.is_in_sums(finding.record, set_key)
            return replace(
                finding,
                transfer=replace(transfer, is_named=is_named),
                found_wrong=found_wrong(finding.record.object_key, month.of(set_key).results),
            )
        obstacles = {k: month.no_files[k] for k in _keys(stem) & month.no_files.keys()}
        return _with_obstacles(finding, obstacles)

    async def set_for(self, record: Described) -> str:
        """The key of the set that a record of another archive belongs to here: the set may have its
        name from another node. Raises UnsafeInput, and what hides it."""
        month, set_key = await self._set(record, record.set_key)
        _check_seen(month, set_key)
        return set_key

    async def sets_like(self, set_key: str) -> list[str]:
        """The keys that the set may have here that another archive has as ``set_key``: most likely
        first, ``set_key`` itself where it lies nowhere. Raises what hides it, where no other is
        seen."""
        start = layout.set_start(set_key)
        if start is None or apart(set_key, start) is None:
            return [set_key]  # no set belongs there
        near, hidden = await self._near(set_key, layout.name_of_set(set_key), start)
        if not near:
            _check_seen(*(hidden or (await self._month_of(set_key), set_key)))
            return [set_key]
        ranked = sorted(near, key=lambda one: (one[1] != set_key, *_likelihood(*one)))
        seen = [one for month, one in ranked if _hiding(month, one) is None]
        if not seen:
            _check_seen(*ranked[0])
        return seen

    async def compare(self, record: Described, set_key: str) -> Compared:
        """Whether the same is held in the set ``set_key``, by names, sizes and the record's
        SHA-256.

        Raises UnreadableObject when the store does not give the record that is here, what hides
        the set or a file, StoreError.
        """
        key = layout.moved(record.key, set_key)
        month = await self._month_of(set_key)
        _check_seen(month, *_keys(layout.stem_of(key)))
        there = month.files.get(set_key, {})
        if key not in there:
            if taken := _keys(layout.stem_of(key)) & month.no_files.keys():
                what = month.no_files[min(taken)]
                return Compared(Difference.DAMAGED, f"{what} is in its place")
            is_there = await self.present(layout.stem_of(key))
            return Compared(Difference.MISSING, "its record is not there" if is_there else None)
        try:
            own = await self._described(month, key)
        except BadDocument as error:
            return Compared(Difference.DAMAGED, f"its record: {error.fault}")
        if own is None:
            return Compared(Difference.MISSING)
        if (own.sha256, own.size) != (record.sha256, record.size):
            return Compared(Difference.OTHER, "the two records name different bytes")
        wrong = _wrong_size(own, month)
        seen = found_wrong(own.object_key, month.of(set_key).results)
        return Compared(Difference.DAMAGED if wrong else Difference.NONE, wrong, found_wrong=seen)

    async def compared(self, record: Described) -> Compared:
        """The same in the set that a record of another archive belongs to here. Raises UnsafeInput
        as well."""
        return await self.compare(record, await self.set_for(record))

    async def lacking(self, record: Described) -> Compared:
        """Whether nothing here has the name of another archive's record."""
        lacks = await self.lacks(record, await self.set_for(record))
        return Compared(Difference.MISSING if lacks else Difference.NONE)

    async def in_its_place(self, stem: str) -> str | None:
        """What has a name of the files of ``stem`` and is no file, in a line; None if nothing."""
        taken = (await self._month_of(stem)).no_files
        return _what_is_there({key: taken[key] for key in _keys(stem) & taken.keys()})

    async def present(self, stem: str) -> dict[str, int]:
        """The objects of this name, recorded or not: their sizes in bytes, by key."""
        return _present(await self._month_of(stem), stem)

    async def knows(self, stem: str) -> bool:
        """Whether something here may say which bytes the file of ``stem`` has."""
        return _is_known(await self._month_of(stem), stem)

    async def lacks(self, record: Described, set_key: str) -> bool:
        """Whether nothing in the set ``set_key`` has the name of this record."""
        month = await self._month_of(set_key)
        key = layout.moved(record.key, set_key)
        return key not in month.files.get(set_key, {}) and key not in month.no_files

    async def is_sealed_whole(self, set_key: str) -> bool:
        """Whether the catalogue knows all of a set, and that SHA256SUMS names all of it."""
        return (await self._month_of(set_key)).of(set_key).is_as_catalogued

    async def set_of(self, set_key: str) -> SetFiles:
        """What is there of a set, by its key."""
        month = await self._month_of(set_key)
        if month.overview.sums is not None:  # it was read: the catalogue does not know it
            self.unknown_months.add(layout.month_of(set_key))
        return month.of(set_key)

    async def _described(self, month: _Month, key: str) -> Described | None:
        """What a record says, by the catalogue if that knows. Raises as :func:`read_record`."""
        if (entry := month.overview.catalogue.entries.get(key)) is not None:
            return entry
        self.unknown_months.add(layout.month_of(key))
        return await read_record(self._store, key)

    async def is_in_sums(self, record: Described, set_key: str) -> bool:
        """Whether SHA256SUMS says of a record's object, in the set ``set_key``, what the record
        does."""
        try:
            sums = (await self.set_of(set_key)).lines()
        except (BadDocument, UnreadableObject):
            return False
        return (sums or {}).get(layout.moved(record.object_key, set_key)) == record.sha256

    async def _month_of(self, key: str) -> _Month:
        return await self._month(f"{layout.month_of(key)}/")

    async def _finding(self, transfer: Transfer, month: _Month) -> Finding:
        key = layout.record_key(transfer.stem)
        there = month.files.get(transfer.set_key, {})
        try:
            record = await self._described(month, key) if key in there else None
        except BadDocument as error:
            in_the_way = (key,) if isinstance(error, NoDocument) else ()
            return Finding(transfer, None, error.message, in_the_way=in_the_way, is_record_bad=True)
        except UnreadableObject as error:
            return Finding(transfer, None, unreadable=error)
        if record is None:
            return Finding(transfer, None)
        wrong = _wrong_size(record, month)
        return Finding(
            transfer, None if wrong else record, wrong and f"{record.object_key}: {wrong}"
        )

    async def _set(self, backup: Named, new: str | None = None) -> tuple[_Month, str]:
        """The set's key, and the month it is in: that of a node archived before, or a new one,
        which has its name from ``new`` or the backup."""
        own = new or layout.new_set_key(backup)
        if backup.is_standard:
            return await self._month_of(own), own
        name = layout.set_name(backup)
        near, hidden = await self._near(own, name, backup.started_at)
        if not near:
            if hidden is not None:
                return hidden  # it may be there
            month = await self._month_of(own)
            month.named[name].add(own)
            self._named[f"{layout.month_of(own)}/"].add(own)
            return month, own
        return min(
            near,
            key=lambda one: (
                layout.stem(one[1], backup) not in self._preferred,
                one[1] not in self._preferred,
                *_likelihood(*one),
            ),
        )

    async def _near(
        self, own: str, set_name: str, started_at: datetime
    ) -> tuple[list[tuple[_Month, str]], tuple[_Month, str] | None]:
        """The sets of a name that began near ``started_at``, each with its month; and a month
        that may have such a one, and nobody sees into, with the set's key there.

        The nodes of a cluster begin their backups seconds apart; the first one found names the
        set for all of them. Somebody may have made a double of it, or brought a part of
        it from another archive.
        """
        first, _, name = own.rpartition("/")
        instance_id = first.partition("/")[0]
        month = await self._month_of(own)
        near = [(month, one) for one in month.named[set_name]]
        # A set that began before midnight at the end of a month, or is named after it.
        hour = timedelta(hours=1)
        beside = {
            f"{instance_id}/{format_month(at)}" for at in (started_at - hour, started_at + hour)
        }
        hidden = None
        for prefix in sorted(beside - {first}):
            other = await self._month(f"{prefix}/")
            near += [(other, one) for one in other.named[set_name]]
            if _hiding(other, prefix) is not None:
                hidden = other, f"{prefix}/{name}"
        return [one for one in near if apart(one[1], started_at) is not None], hidden

    async def _results_of(self, instance_id: str) -> None:
        """Note the entries of what verifies left of the months of an instance."""
        if instance_id not in self._results:
            self._results[instance_id] = await results_below(self._store, f"{instance_id}/")

    async def _month(self, prefix: str) -> _Month:
        """What is below ``prefix``, read once for all backups of that month."""
        if prefix not in self._months:
            some = self._expected if prefix in self._expected else [prefix]
            await self._look_at([one for one in some if one not in self._months])
        month = self._months[prefix] = self._months.pop(prefix)
        while len(self._months) > _MONTHS_KEPT + len(self._expected):
            del self._months[next(iter(self._months))]
        return month

    async def _look_at(self, prefixes: Sequence[str]) -> None:
        """List these months, and read what is known of them, all at once."""
        instances = {prefix.partition("/")[0] for prefix in prefixes}
        await for_each(instances, self._results_of, _MONTHS_AT_ONCE)
        entries = await listings(self._store, [prefix.rstrip("/") for prefix in prefixes])
        results = set[str]().union(*(self._results[one] for one in instances))
        listed = [Month(key) for key in entries]
        months = [self._seen(one, entries[one.key]) for one in listed]
        known = await overviews(self._store, listed, results)
        for one, month, overview in zip(listed, months, known, strict=True):
            month.overview = overview
            month.results = overview.results_by_set()
            self._months[f"{one.key}/"] = month

    def _seen(self, listed: Month, entries: Sequence[Entry]) -> _Month:
        """A month by its entries, all of which are noted in ``listed`` as well."""
        month = _Month({}, defaultdict(set), {}, {}, Overview())
        for entry in entries:
            is_of_a_set = layout.is_of_a_set(entry.key)
            if is_of_a_set or layout.is_of_a_month(entry.key):
                listed.take(entry)
            set_key = layout.set_of(entry.key) if is_of_a_set else entry.key
            if entry.hides is not None:
                month.hidden[entry.key] = entry.hides
            elif not entry.is_file:
                month.no_files[entry.key] = entry.what
            elif is_of_a_set:
                month.files.setdefault(set_key, {})[entry.key] = entry
            month.named[layout.name_of_set(set_key)].add(set_key)
        for set_key in self._named[f"{listed.key}/"]:
            month.named[layout.name_of_set(set_key)].add(set_key)
        return month


async def expecting(
    walked: AsyncGenerator[Recorded | Unrecorded, None], *inventories: Inventory
) -> AsyncGenerator[Recorded | Unrecorded, None]:
    """The same that is walked through in another archive. The inventories learn of some months
    at a time that these come next."""
    async with aclosing(_in_windows(walked)) as windows:
        async for some in windows:
            months = {layout.month_of(one.key) for one in some if isinstance(one, Recorded)}
            for inventory in inventories:
                inventory.expect(months)
            for one in some:
                yield one


async def _in_windows(
    walked: AsyncGenerator[Recorded | Unrecorded, None],
) -> AsyncGenerator[list[Recorded | Unrecorded], None]:
    some, months = list[Recorded | Unrecorded](), set[str]()
    async with aclosing(walked):
        async for one in walked:
            if isinstance(one, Recorded):
                months.add(layout.month_of(one.key))
            if len(months) > _MONTHS_AT_ONCE or len(some) == _RECORDS_AT_ONCE:
                yield some
                some, months = [], {layout.month_of(one.key)}
            some.append(one)
    yield some


def _wrong_size(record: Described, month: _Month) -> str | None:
    """What is listed in the place of a record's object that cannot be it, if so."""
    entry = month.files.get(record.set_key, {}).get(record.object_key)
    if entry is not None and entry.size == record.size:
        return None
    if record.object_key in month.no_files:
        return f"{month.no_files[record.object_key]} is in its place"
    return "it is missing" if entry is None else wrong_size(entry.size, record.size)


def _likelihood(month: _Month, set_key: str) -> tuple[int, int, str]:
    """Sorts the set first of which most is there: backups with their records, by their names;
    then most records. The same for all nodes, so that they come to lie together."""
    there = month.files.get(set_key, {})
    records = [layout.stem_of(key) for key in there if layout.is_named_as_record(key)]
    whole = sum(any(f"{stem}.{kind}" in there for kind in Kind) for stem in records)
    return -whole, -len(records), set_key


def _set_of(stem: str) -> str:
    """The set of a backup, by its key without suffix."""
    return layout.set_of(f"{stem}.{Kind.RDB}")


def _present(month: _Month, stem: str) -> dict[str, int]:
    there = month.files.get(_set_of(stem), {})
    keys = [f"{stem}.{kind}" for kind in Kind]
    return {key: there[key].size for key in keys if key in there}


def _is_known(month: _Month, stem: str) -> bool:
    """By its record, SHA256SUMS, or an earlier verify. Where nobody can read SHA256SUMS, it may."""
    one = month.of(_set_of(stem))
    return (
        stem in map(layout.stem_of, one.results)
        or layout.record_key(stem) in one.entries
        or bool(one.sums)
        or one.sums_fault is not None
    )


def _hiding(month: _Month, *keys: str) -> ArchiverError | None:
    """Why nobody sees what has one of these keys, if so."""
    for hidden, why in month.hidden.items():
        if any(key == hidden or key.startswith(f"{hidden}/") for key in keys):
            return why
    return None


def _check_seen(month: _Month, *keys: str) -> None:
    """Raises what hides one of these keys."""
    if (why := _hiding(month, *keys)) is not None:
        raise why.with_traceback(None)  # of the last time that it was raised


def _keys(stem: str) -> set[str]:
    """The keys that a backup's files may have."""
    return {layout.record_key(stem), *(f"{stem}.{kind}" for kind in Kind)}


def _with_obstacles(finding: Finding, keys: Mapping[str, str]) -> Finding:
    """The same, of a backup whose files cannot have their names; ``keys`` say what has them."""
    if not keys:
        return finding
    damage = finding.damage or _what_is_there(keys)
    return replace(finding, damage=damage, in_the_way=(*finding.in_the_way, *sorted(keys)))


def _what_is_there(keys: Mapping[str, str]) -> str | None:
    return ", and ".join(f"{key}: {keys[key]} is in its place" for key in sorted(keys)) or None
