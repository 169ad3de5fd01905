"""Reads an archive's records and SHA256SUMS, for every command alike.

A record counts when it can be read, belongs where it lies and agrees with itself: what one command
refuses, all of them do. Only a verify reads records itself, to say what is wrong with them.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

from archiver.archive import layout
from archiver.archive.catalogue import Described
from archiver.archive.consistency import contradictions
from archiver.archive.record import Record
from archiver.archive.sums import DamagedLines, as_one, parse_sums, salvage_sums
from archiver.archive.verified import Result
from archiver.errors import ArchiverError, BadDocument, IntegrityError, UnreadableObject
from archiver.model import Kind
from archiver.stores.base import Entry, Store
from archiver.words import times

_HINT = "run verify, then repair"


async def read_record(store: Store, key: str) -> Record | None:
    """The record under ``key``; None when there is none.

    Raises BadDocument for one that must not be used, UnreadableObject, StoreError.
    """
    data = await store.read(key)
    return None if data is None else decode_record(key, data)


def decode_record(key: str, data: bytes) -> Record:
    """The record in a document. Raises BadDocument for one that must not be used."""
    record = Record.decode(key, data)
    if wrong := contradictions(record):
        raise BadDocument(
            key,
            f"this record contradicts {'its place' if wrong[0].is_misplaced else 'itself'}: "
            f"{wrong[0].text}",
            hint="somebody moved or edited it: run verify, then repair",
        )
    return record


@dataclass(frozen=True, slots=True)
class MonthSums:
    """What the SHA256SUMS of a month says: by set, the SHA-256 by key.

    ``fault`` says why it, or a line of it, cannot be read; the rest is what can be. Where it names
    a file twice, ``by_set`` has a text that no SHA-256 equals (:func:`.as_one`). ``damaged`` are
    the lines that cannot be read, or name what is not there and is no backup's file."""

    by_set: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    fault: ArchiverError | None = None
    damaged: DamagedLines = field(default_factory=DamagedLines)

    @classmethod
    def of(
        cls,
        lines: Mapping[str, str],
        fault: ArchiverError | None = None,
        damaged: Iterable[str] = (),
    ) -> Self:
        """The same by set, from the SHA-256 by key. Lines of what is not called like a backup's
        file are left out: they say nothing of a set."""
        by_set: dict[str, dict[str, str]] = {}
        for key, sha256 in lines.items():
            if layout.is_object(key):
                by_set.setdefault(layout.set_of(key), {})[key] = sha256
        return cls(by_set, fault, DamagedLines(damaged))


async def read_sums(store: Store, month: str) -> dict[str, str] | None:
    """The SHA-256 by key in the SHA256SUMS of a month; None when there is none.

    Raises BadDocument, UnreadableObject, StoreError.
    """
    data = await store.read(layout.sums_key(month))
    return None if data is None else await decode_sums(store, month, data)


async def decode_sums(
    store: Store, month: str, data: bytes, *, hint: str = "a repair rewrites it"
) -> dict[str, str]:
    """The SHA-256 by key in a SHA256SUMS of a month. Raises as :func:`read_sums`, also where it
    names what is not there and cannot be a backup's file: that may be what is left of a name. Other
    files that are there do no harm."""
    sums = parse_sums(data)
    if sums is None:
        raise BadDocument(layout.sums_key(month), "it cannot be read", hint=hint)
    found = {f"{month}/{name}": sha256 for name, sha256 in sums.items()}
    for key in await _odd(store, month, found):
        name = key.removeprefix(f"{month}/")
        fault = f"it names {name[:120]!a}, which is not the name of a backup's file"
        raise BadDocument(layout.sums_key(month), fault, hint=hint)
    return found


async def month_sums(store: Store, month: str) -> MonthSums:
    """What can be read of the SHA256SUMS of a month, and what cannot. Raises StoreError."""
    key = layout.sums_key(month)
    data = (await store.read_many([key]))[key]
    return MonthSums() if data is None else await salvaged_sums(store, month, data)


async def salvaged_sums(store: Store, month: str, data: bytes | ArchiverError) -> MonthSums:
    """The same of one that was read already, as :meth:`Store.read_many` gave it."""
    if isinstance(data, ArchiverError):
        return MonthSums(fault=data)
    try:
        return MonthSums.of(await decode_sums(store, month, data))
    except (BadDocument, UnreadableObject) as error:
        salvage = salvage_sums(data)
        lines = {f"{month}/{name}": as_one(hashes) for name, hashes in salvage.sums.items()}
        odd = await _odd(store, month, lines)
        damaged = [f"{lines[key]}  {key.removeprefix(f'{month}/')}" for key in odd]
        return MonthSums.of(lines, error, [*salvage.unreadable, *damaged])


async def _odd(store: Store, month: str, keys: Iterable[str]) -> list[str]:
    """The keys of those that are not there and cannot be a backup's file."""
    found: list[str] = []
    for key in keys:
        if layout.is_object(key) or key == layout.sums_key(month):
            continue
        with suppress(UnreadableObject):
            if await store.size(key) is None:
                found.append(key)
    return found


def at_odds(
    record: Described, sums: Mapping[str, str] | None, seen: Mapping[str, Result] | None = None
) -> IntegrityError | None:
    """Why SHA256SUMS (the SHA-256 by key) contradicts a record, if it does: it has another SHA-256
    of the object, or names an object of the same backup with another suffix. Or why what earlier
    verifies have ``seen`` does, unless SHA256SUMS agrees with the record (pure)."""
    sums, seen = sums or {}, seen or {}
    keys = [f"{layout.stem_of(record.object_key)}.{kind}" for kind in Kind]
    said = [("SHA256SUMS says", key, sums.get(key)) for key in keys]
    if sums.get(record.object_key) != record.sha256:
        said += [("an earlier verify saw", key, seen[key].sha256) for key in keys if key in seen]
    for who, key, sha256 in said:
        if sha256 is not None and (key, sha256) != (record.object_key, record.sha256):
            return IntegrityError(
                f"{record.object_key}: {who} {sha256} of {key}, and its record says "
                f"{record.sha256}",
                hint="one of them was changed: run verify, then repair",
            )
    return None


def unsealed(*, is_of_cluster: bool) -> str:
    """Why SHA256SUMS does not name a set (pure)."""
    if is_of_cluster:
        return "SHA256SUMS does not name it: a pull adds it when all of its files are here"
    return "SHA256SUMS does not name it; its record proves the bytes, and a pull or repair adds it"


async def check_object(store: Store, record: Described, entries: Mapping[str, Entry]) -> None:
    """Compare a record with the size of its object, by a listing's ``entries``.

    Raises IntegrityError where they differ, UnreadableObject where the store does not say,
    StoreError.
    """
    key = record.object_key
    entry = entries.get(key)
    if entry is not None and not entry.is_file:
        raise entry.hides or IntegrityError(f"{key}: {entry.what} is in its place")
    if entry is not None and entry.size == record.size:
        return
    size = await store.size(key)  # it may have come since
    if size is None:
        raise IntegrityError(f"{key}: it is missing", hint=_HINT)
    if size != record.size:
        raise IntegrityError(f"{key}: {wrong_size(size, record.size)}", hint=_HINT)


def wrong_size(size: int, expected: int) -> str:
    """``it has 144 bytes, 142 expected``."""
    return f"it has {times(size, 'byte')}, {expected:,} expected"
