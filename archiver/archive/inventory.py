"""What an archive holds, as one run sees it: each month of an instance is listed once, and what its
catalogue knows is not read."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from archiver.archive import layout
from archiver.archive.catalogue import NOTHING_KNOWN, CatalogueSet, Described
from archiver.archive.consistency import apart
from archiver.archive.contents import Month, overviews, results_below
from archiver.archive.reading import read_record, read_sums
from archiver.errors import ArchiverError, BadDocument, NoDocument, UnreadableObject
from archiver.model import Backup, Kind, Named, Transfer
from archiver.stores.base import Entry, Store
from archiver.times import format_month

# Months of listings in memory: a backup's own, and those beside it.
_MONTHS_KEPT = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """What the archive says of a backup: held with its record, or to be transferred.

    ``damage`` says why a record that is there does not count, ``unreadable`` why nobody knows
    whether one is there, or counts. ``in_the_way`` are keys that the backup's files are to have,
    and something that is no such file has.
    """

    transfer: Transfer
    record: Described | None
    damage: str | None = None
    unreadable: ArchiverError | None = None
    in_the_way: tuple[str, ...] = ()


@dataclass(slots=True)
class _Month:
    """The sets of an instance's month: sizes of their files by key, and of each job the folders,
    so that a cluster's nodes come to lie together. ``promised`` counts, by folder, the
    backups that are to come; ``no_files`` have the names of files, and are something
    else, as it says; ``seen`` are the
    stems that verifies saw; ``hidden`` are keys of which nobody sees what they are, or what lies
    below them, with the reason. ``known`` is what its catalogue says of its sets."""

    files: dict[str, dict[str, int]]
    folders: defaultdict[str, set[str]]
    promised: Counter[str]
    no_files: dict[str, str]
    seen: frozenset[str]
    hidden: dict[str, ArchiverError]
    known: Mapping[str, CatalogueSet]


class Difference(StrEnum):
    """How an archive holds what a record of another one describes."""

    NONE = "the same"
    MISSING = "missing"
    OTHER = "another"  # a record of the same backup that names other bytes
    DAMAGED = "damaged"  # no readable record, or no object of its size


@dataclass(frozen=True, slots=True)
class Compared:
    """How an archive holds what a record of another one describes, and where that is not the same
    or missing, why."""

    difference: Difference
    why: str | None = None


class Inventory:
    """A view of a store, for who lets nobody else write to the same instance meanwhile."""

    def __init__(self, store: Store, preferred: Collection[str] = ()) -> None:
        """``preferred`` are keys without suffix, and folders of sets, that are to be repaired: of
        several places where a backup may lie, it belongs there."""
        self._store: Final = store
        self._preferred: Final = preferred
        # Months whose catalogue did not know all that was asked for.
        self.unknown_months: Final[set[str]] = set()
        # Newest last: a listing goes through months one after the other.
        self._months: Final[dict[str, _Month]] = {}
        # Of the instance that was asked about last.
        self._results: Final[dict[str, Mapping[str, Entry]]] = {}
        # Of the set that was asked about last.
        self._sums: Final[dict[str, Mapping[str, str] | None]] = {}
        # By month, the folders that were named for sets of which nothing is here yet.
        self._named: Final[defaultdict[str, set[str]]] = defaultdict(set)

    def look_again(self) -> None:
        """List anew what is asked about, and read its catalogue anew: others may have written until
        now. Months whose catalogue did not know all stay ``unknown_months``."""
        self._months.clear()
        self._results.clear()
        self._sums.clear()

    async def find(self, backup: Backup) -> Finding:
        """Whether this backup is held. Raises UnsafeInput for ids that must not make a path."""
        month, folder = await self._folder(backup)
        stem = layout.stem(folder, backup)
        there = month.files.get(folder, {})
        records = sum(key.endswith(layout.RECORD_SUFFIX) for key in there)
        transfer = Transfer(
            backup,
            stem,
            records + month.promised[folder],
            layout.sums_key(folder) in there,
            _is_known(month, stem),
            {key: there[key] for key in _keys(stem) & there.keys() if layout.is_object(key)},
        )
        if (hiding := _hiding(month, *_keys(stem))) is not None:
            return Finding(transfer, None, unreadable=hiding)
        finding = await self._finding(transfer, month)
        if finding.record is not None and backup.is_standard:
            agrees = await self.is_in_sums(finding.record, finding.record.folder)
            finding = replace(finding, transfer=replace(transfer, set_sealed=agrees))
        if finding.record is None:
            month.promised[folder] += 1
            names = {*_keys(stem), layout.sums_key(folder)}
            finding = _with_obstacles(
                finding, {k: month.no_files[k] for k in names & month.no_files.keys()}
            )
        return finding

    async def folder_for(self, record: Described) -> str:
        """Where a record of another archive belongs here: the set may have its folder's name from
        another node. Raises UnsafeInput, and what hides the folder."""
        month, folder = await self._folder(record, record.folder)
        _check_seen(month, folder)
        return folder

    async def folders_like(self, folder: str) -> list[str]:
        """Where the set may lie here that another archive has in ``folder``: most likely first,
        ``folder`` itself where it lies nowhere. Raises what hides it, where no other is seen."""
        start = layout.set_start(folder)
        if start is None or apart(folder, start) is None:
            return [folder]  # no set belongs there
        near, hidden = await self._near(folder, layout.job_of(folder), start)
        if not near:
            _check_seen(*(hidden or (await self._month_of(folder), folder)))
            return [folder]
        ranked = sorted(near, key=lambda one: (one[1] != folder, *_likelihood(*one)))
        seen = [one for month, one in ranked if _hiding(month, one) is None]
        if not seen:
            _check_seen(*ranked[0])
        return seen

    async def compare(self, record: Described, folder: str) -> Compared:
        """Whether the same is held in ``folder``, by names, sizes and the record's SHA-256.

        Raises UnreadableObject when the store does not give the record that is here, what hides
        the folder or a file, StoreError.
        """
        key = f"{folder}/{record.key.rpartition('/')[2]}"
        month = await self._month_of(folder)
        _check_seen(month, *_keys(layout.stem_of(key)))
        there = month.files.get(folder, {})
        if key not in there:
            if taken := _keys(layout.stem_of(key)) & month.no_files.keys():
                what = month.no_files[min(taken)]
                return Compared(Difference.DAMAGED, f"{what} is in its place")
            is_there = await self.has_object(layout.stem_of(key))
            return Compared(Difference.MISSING, "its record is not there" if is_there else None)
        try:
            own = await self._described(month, key)
        except BadDocument as error:
            return Compared(Difference.DAMAGED, f"its record: {error.fault}")
        if own is None:
            return Compared(Difference.MISSING)
        if (own.sha256, own.size) != (record.sha256, record.size):
            return Compared(Difference.OTHER, "the two records name other bytes")
        wrong = _wrong_size(own, month)
        return Compared(Difference.DAMAGED if wrong else Difference.NONE, wrong)

    async def compared(self, record: Described) -> Compared:
        """The same in the folder where a record of another archive belongs here. Raises
        UnsafeInput as well."""
        return await self.compare(record, await self.folder_for(record))

    async def lacking(self, record: Described) -> Compared:
        """Whether nothing here has the name of another archive's record."""
        lacks = await self.lacks(record, await self.folder_for(record))
        return Compared(Difference.MISSING if lacks else Difference.NONE)

    async def in_its_place(self, stem: str) -> str | None:
        """What has a name of the files of ``stem`` and is no file, in a line; None if nothing."""
        taken = (await self._month_of(stem.rpartition("/")[0])).no_files
        return _what_is_there({key: taken[key] for key in _keys(stem) & taken.keys()})

    async def has_object(self, stem: str) -> bool:
        """Whether there is an object of this name, recorded or not."""
        folder = stem.rpartition("/")[0]
        there = (await self._month_of(folder)).files.get(folder, {})
        return any(f"{stem}.{kind}" in there for kind in Kind)

    async def knows(self, stem: str) -> bool:
        """Whether something here may say which bytes the file of ``stem`` has."""
        return _is_known(await self._month_of(stem.rpartition("/")[0]), stem)

    async def lacks(self, record: Described, folder: str) -> bool:
        """Whether nothing in ``folder`` has the name of this record."""
        month = await self._month_of(folder)
        key = f"{folder}/{record.key.rpartition('/')[2]}"
        return key not in month.files.get(folder, {}) and key not in month.no_files

    async def is_sealed(self, folder: str) -> bool:
        """Whether the set in ``folder`` has its SHA256SUMS here."""
        there = (await self._month_of(folder)).files.get(folder, {})
        return layout.sums_key(folder) in there

    async def is_sealed_whole(self, folder: str) -> bool:
        """Whether the catalogue knows all of a set, and a SHA256SUMS that names all of it."""
        month = await self._month_of(folder)
        known = month.known.get(folder, NOTHING_KNOWN)
        records = set(filter(layout.is_record, month.files.get(folder, {})))
        return known.is_sealed and records == known.entries.keys()

    async def sums(self, folder: str) -> Mapping[str, str] | None:
        """The SHA-256 by file name in the SHA256SUMS of a set; None when there is none.

        Raises BadDocument, UnreadableObject, StoreError.
        """
        if folder not in self._sums:
            known = (await self._month_of(folder)).known.get(folder, NOTHING_KNOWN).sums
            if known is None:
                self.unknown_months.add(layout.month_of(folder))
            self._sums.clear()
            self._sums[folder] = known or await read_sums(self._store, folder)
        return self._sums[folder]

    async def _described(self, month: _Month, key: str) -> Described | None:
        """What a record says, by the catalogue if that knows. Raises as :func:`read_record`."""
        known = month.known.get(key.rpartition("/")[0], NOTHING_KNOWN)
        if (entry := known.entries.get(key)) is not None:
            return entry
        self.unknown_months.add(layout.month_of(key))
        return await read_record(self._store, key)

    async def is_in_sums(self, record: Described, folder: str) -> bool:
        """Whether the SHA256SUMS in ``folder`` says of a record's object what the record does."""
        try:
            sums = await self.sums(folder)
        except (BadDocument, UnreadableObject):
            return False
        return sums is not None and sums.get(record.name) == record.sha256

    async def _month_of(self, folder: str) -> _Month:
        return await self._month(f"{folder.rpartition('/')[0]}/")

    async def _finding(self, transfer: Transfer, month: _Month) -> Finding:
        key = layout.record_key(transfer.stem)
        there = month.files.get(transfer.set_key, {})
        try:
            record = await self._described(month, key) if key in there else None
        except BadDocument as error:
            in_the_way = (key,) if isinstance(error, NoDocument) else ()
            return Finding(transfer, None, error.message, in_the_way=in_the_way)
        except UnreadableObject as error:
            return Finding(transfer, None, unreadable=error)
        if record is None:
            return Finding(transfer, None)
        wrong = _wrong_size(record, month)
        return Finding(
            transfer, None if wrong else record, wrong and f"{record.object_key}: {wrong}"
        )

    async def _folder(self, backup: Named, new: str | None = None) -> tuple[_Month, str]:
        """The set's folder, and the month it is in: that of a node archived before, or a new one,
        which has its name from ``new`` or the backup."""
        own = new or layout.set_key(backup)
        if backup.is_standard:
            return await self._month_of(own), own
        near, hidden = await self._near(own, layout.job_name(backup), backup.started_at)
        if not near:
            if hidden is not None:
                return hidden  # it may be there
            month = await self._month_of(own)
            month.folders[layout.job_name(backup)].add(own)
            self._named[f"{own.rpartition('/')[0]}/"].add(own)
            return month, own
        name = layout.stem("", backup)
        return min(
            near,
            key=lambda one: (
                one[1] + name not in self._preferred,
                one[1] not in self._preferred,
                *_likelihood(*one),
            ),
        )

    async def _near(
        self, own: str, job: str, started_at: datetime
    ) -> tuple[list[tuple[_Month, str]], tuple[_Month, str] | None]:
        """The folders of a job that began near ``started_at``, each with its month; and a month
        that may have such a one, and nobody sees into, with the folder's name there.

        The nodes of a cluster begin their backups seconds apart; the first one found names the
        folder for all of the same job. Somebody may have made a double of it, or brought a part of
        it from another archive.
        """
        first, _, name = own.rpartition("/")
        instance_id = first.partition("/")[0]
        month = await self._month_of(own)
        near = [(month, folder) for folder in month.folders[job]]
        # A set that began before midnight at the end of a month, or is named after it.
        hour = timedelta(hours=1)
        beside = {
            f"{instance_id}/{format_month(at)}" for at in (started_at - hour, started_at + hour)
        }
        hidden = None
        for prefix in sorted(beside - {first}):
            other = await self._month(f"{prefix}/")
            near += [(other, folder) for folder in other.folders[job]]
            if _hiding(other, prefix) is not None:
                hidden = other, f"{prefix}/{name}"
        return [one for one in near if apart(one[1], started_at) is not None], hidden

    async def _results_of(self, instance_id: str) -> Mapping[str, Entry]:
        """The entries of what verifies left of the months of an instance."""
        if instance_id not in self._results:
            self._results.clear()
            self._results[instance_id] = await results_below(self._store, f"{instance_id}/")
        return self._results[instance_id]

    async def _month(self, prefix: str) -> _Month:
        """What is below ``prefix``, read once for all backups of that month."""
        month = self._months.pop(prefix, None)
        if month is None:
            listed = Month(prefix.rstrip("/"))
            month = _Month({}, defaultdict(set), Counter(), {}, frozenset(), {}, {})
            async for entry in self._store.entries(prefix):
                folder = entry.key.rpartition("/")[0]
                if layout.is_of_a_set(entry.key) or layout.is_index(entry.key):
                    listed.take(entry)
                if entry.hides is not None:
                    month.hidden[entry.key] = entry.hides
                    folder = folder if layout.is_of_a_set(entry.key) else entry.key
                elif entry.is_file:
                    month.files.setdefault(folder, {})[entry.key] = entry.size
                else:
                    month.no_files[entry.key] = entry.what
                month.folders[layout.job_of(folder)].add(folder)
            for folder in self._named[prefix]:
                month.folders[layout.job_of(folder)].add(folder)
            results = await self._results_of(prefix.partition("/")[0])
            [overview] = await overviews(self._store, [listed], results)
            month.known = overview.catalogue.sets
            month.seen = frozenset(map(layout.stem_of, overview.seen))
        self._months[prefix] = month
        while len(self._months) > _MONTHS_KEPT:
            del self._months[next(iter(self._months))]
        return month


def _wrong_size(record: Described, month: _Month) -> str | None:
    """What is listed in the place of a record's object that cannot be it, if so."""
    size = month.files.get(record.folder, {}).get(record.object_key)
    if size == record.size:
        return None
    if record.object_key in month.no_files:
        return f"{month.no_files[record.object_key]} is in its place"
    return "it is missing" if size is None else f"it has {size:,} of {record.size:,} bytes"


def _likelihood(month: _Month, folder: str) -> tuple[int, int, str]:
    """Sorts the folder first that has most of a set: backups with their records, by their names;
    then most records. The same for all nodes, so that they come to lie together."""
    there = month.files.get(folder, {})
    records = [layout.stem_of(key) for key in there if layout.is_named_as_record(key)]
    whole = sum(any(f"{stem}.{kind}" in there for kind in Kind) for stem in records)
    return -whole, -len(records), folder


def _is_known(month: _Month, stem: str) -> bool:
    """By its record, its set's SHA256SUMS, or an earlier verify."""
    folder = stem.rpartition("/")[0]
    there = month.files.get(folder, {})
    return (
        stem in month.seen or layout.record_key(stem) in there or layout.sums_key(folder) in there
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
