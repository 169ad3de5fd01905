"""What an archive holds, as one run sees it: each month of an instance is listed once."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import Final

from archiver.archive import layout
from archiver.archive.reading import read_record
from archiver.archive.record import Record
from archiver.archive.verified import results_if_any
from archiver.errors import ArchiverError, BadDocument, NoDocument, UnreadableObject
from archiver.fields import read_backup
from archiver.model import Backup, Kind, Transfer
from archiver.stores.base import Store

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
    record: Record | None
    damage: str | None = None
    unreadable: ArchiverError | None = None
    in_the_way: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Month:
    """The sets of an instance's month: sizes of their files by key, and of each job's set the
    folder, so that a cluster's nodes come to lie together. ``promised`` counts, by folder, the
    backups that are to come; ``no_files`` have the names of files, and are something
    else, as it says; ``seen`` are the
    stems that verifies saw; ``hidden`` are keys of which nobody sees what they are, or what lies
    below them, with the reason."""

    files: dict[str, dict[str, int]]
    folders: dict[str, str]
    promised: Counter[str]
    no_files: dict[str, str]
    seen: frozenset[str]
    hidden: dict[str, ArchiverError]


class Difference(StrEnum):
    """How an archive holds what a record of another one describes."""

    NONE = "the same"
    MISSING = "missing"
    OTHER = "another"  # a record of the same backup that names other bytes
    DAMAGED = "damaged"  # no readable record, or no object of its size


class Inventory:
    """A view of a store that nobody else writes to meanwhile."""

    def __init__(self, store: Store) -> None:
        self._store: Final = store
        # Newest last: a listing goes through months one after the other.
        self._months: Final[dict[str, _Month]] = {}

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
        )
        if (hiding := _hiding(month, *_keys(stem))) is not None:
            return Finding(transfer, None, unreadable=hiding)
        finding = await self._finding(transfer, there)
        if finding.record is None:
            month.promised[folder] += 1
            names = {*_keys(stem), layout.sums_key(folder)}
            finding = _with_obstacles(
                finding, {k: month.no_files[k] for k in names & month.no_files.keys()}
            )
        return finding

    async def folder_for(self, record: Record) -> str:
        """Where a record of another archive belongs here: the set may have its folder's name from
        another node. Raises UnsafeInput, and what hides the folder."""
        backup = read_backup(record.instance_id, record.document["api"])
        month, folder = await self._folder(backup, record.folder)
        _check_seen(month, folder)
        return folder

    async def compare(self, record: Record, folder: str) -> Difference:
        """Whether the same is held in ``folder``, by names, sizes and the record's SHA-256.

        Raises UnreadableObject when the store does not give the record that is here, what hides
        the folder or a file, StoreError.
        """
        key = f"{folder}/{record.key.rpartition('/')[2]}"
        month = await self._month_of(folder)
        _check_seen(month, *_keys(layout.stem_of(key)))
        there = month.files.get(folder, {})
        if key not in there:
            taken = _keys(layout.stem_of(key)) & month.no_files.keys()
            return Difference.DAMAGED if taken else Difference.MISSING
        try:
            own = await read_record(self._store, key)
        except BadDocument:
            return Difference.DAMAGED
        if own is None:
            return Difference.MISSING
        if (own.sha256, own.size) != (record.sha256, record.size):
            return Difference.OTHER
        return Difference.NONE if there.get(own.object_key) == own.size else Difference.DAMAGED

    async def in_its_place(self, stem: str) -> str | None:
        """What has a name of the files of ``stem`` and is no file, in a line; None if nothing."""
        taken = (await self._month_of(stem.rpartition("/")[0])).no_files
        return _what_is_there({key: taken[key] for key in _keys(stem) & taken.keys()})

    async def knows(self, stem: str) -> bool:
        """Whether something here may say which bytes the file of ``stem`` has."""
        return _is_known(await self._month_of(stem.rpartition("/")[0]), stem)

    async def lacks(self, record: Record, folder: str) -> bool:
        """Whether nothing in ``folder`` has the name of this record."""
        month = await self._month_of(folder)
        key = f"{folder}/{record.key.rpartition('/')[2]}"
        return key not in month.files.get(folder, {}) and key not in month.no_files

    async def is_sealed(self, folder: str) -> bool:
        """Whether the set in ``folder`` has its SHA256SUMS here."""
        there = (await self._month_of(folder)).files.get(folder, {})
        return layout.sums_key(folder) in there

    async def _month_of(self, folder: str) -> _Month:
        return await self._month(f"{folder.rpartition('/')[0]}/")

    async def _finding(self, transfer: Transfer, there: Mapping[str, int]) -> Finding:
        key = layout.record_key(transfer.stem)
        try:
            record = await read_record(self._store, key) if key in there else None
        except BadDocument as error:
            in_the_way = (key,) if isinstance(error, NoDocument) else ()
            return Finding(transfer, None, error.message, in_the_way=in_the_way)
        except UnreadableObject as error:
            return Finding(transfer, None, unreadable=error)
        if record is None:
            return Finding(transfer, None)
        size = there.get(record.object_key)
        if size != record.size:
            found = "is missing" if size is None else f"has {size:,} of {record.size:,} bytes"
            return Finding(transfer, None, f"{record.object_key} {found}")
        return Finding(transfer, record)

    async def _folder(self, backup: Backup, new: str | None = None) -> tuple[_Month, str]:
        """The set's folder, and the month it is in: that of a node archived before, or a new one.

        The nodes of a cluster begin their backups seconds apart; the first one found names the
        folder for all of the same job, unless ``new`` does.
        """
        own = new or layout.set_key(backup)
        month = await self._month_of(own)
        if backup.is_standard:
            return month, own
        job = layout.job_name(backup)
        if job not in month.folders and (backup.started_at.day == 1 or backup.started_at.day >= 28):
            # A set that began before midnight at the end of a month, or is named after it.
            for hours in (-1, 1):
                near = backup.started_at + timedelta(hours=hours)
                other = await self._month(f"{backup.instance_id}/{near:%Y/%m}/")
                if job in other.folders:
                    return other, other.folders[job]
                unseen = f"{backup.instance_id}/{near:%Y/%m}"
                if _hiding(other, unseen) is not None:  # it may be there
                    return other, f"{unseen}/{own.rpartition('/')[2]}"
        return month, month.folders.setdefault(job, own)

    async def _month(self, prefix: str) -> _Month:
        """What is below ``prefix``, read once for all backups of that month."""
        month = self._months.pop(prefix, None)
        if month is None:
            seen = await results_if_any(self._store, prefix.rstrip("/"))
            month = _Month({}, {}, Counter(), {}, frozenset(map(layout.stem_of, seen)), {})
            async for entry in self._store.entries(prefix):
                folder = entry.key.rpartition("/")[0]
                if entry.hides is not None:
                    month.hidden[entry.key] = entry.hides
                    folder = folder if layout.is_of_a_set(entry.key) else entry.key
                elif entry.is_file:
                    month.files.setdefault(folder, {})[entry.key] = entry.size
                else:
                    month.no_files[entry.key] = entry.what
                job = folder.rpartition("/")[2].partition("-")[2]
                month.folders.setdefault(job, folder)
        self._months[prefix] = month
        while len(self._months) > _MONTHS_KEPT:
            del self._months[next(iter(self._months))]
        return month


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
    named_already = finding.damage is not None and finding.in_the_way
    damage = finding.damage if named_already else _what_is_there(keys)
    return replace(finding, damage=damage, in_the_way=(*finding.in_the_way, *sorted(keys)))


def _what_is_there(keys: Mapping[str, str]) -> str | None:
    return ", and ".join(f"{key}: {keys[key]} is in its place" for key in sorted(keys)) or None
