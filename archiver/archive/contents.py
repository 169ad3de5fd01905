"""What an archive holds, set by set: what its listing shows, and what earlier verifies saw. Every
command that lists, copies, compares or restores goes by this, so that they agree, and nothing that
is or was there is passed over in silence."""

from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from archiver.archive import layout, verified
from archiver.archive.reading import read_sums
from archiver.archive.verified import Result, results_if_any
from archiver.errors import (
    ArchiverError,
    BackupFailed,
    BadDocument,
    IntegrityError,
    UnreadableObject,
)
from archiver.stores.base import Entry, Store
from archiver.times import format_day

_HINT = "run verify, and repair it"
_COMING_HINT = "run pull again, which finishes what was interrupted, or repair from another archive"
_REMOVED_HINT = (
    f"{_HINT}; removed on purpose? then remove the month's document under {verified.PREFIX}, too"
)


@dataclass(frozen=True, slots=True)
class SetFiles:
    """A set as a listing shows it, by key; and of its files those that earlier verifies ``seen``,
    who may be all there is to tell of it."""

    folder: str
    entries: Mapping[str, Entry]
    seen: Mapping[str, Result] = field(default_factory=dict)

    @property
    def records(self) -> Iterable[str]:
        """The keys of its records, usable or not."""
        return filter(layout.is_record, self.entries)

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
    """The key of a record, usable or not, and what the SHA256SUMS of its set says by file name;
    None where there is none, or none that can be used. ``is_unsealed``: there is none."""

    key: str
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
    async with aclosing(sets_below(store, prefix, wants)) as sets:
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
                yield Recorded(key, sums, layout.sums_key(one.folder) not in one.entries)
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
                yield Recorded(lacking, None)


async def sums_of(store: Store, one: SetFiles) -> dict[str, str] | None:
    """The SHA-256 by file name in a set's SHA256SUMS; None when the listing shows none.

    Raises BadDocument, UnreadableObject, StoreError.
    """
    return (
        await read_sums(store, one.folder) if layout.sums_key(one.folder) in one.entries else None
    )


def _all(_: str) -> bool:
    return True


async def sets_below(
    store: Store, prefix: str, wants: Callable[[str], bool] = _all
) -> AsyncGenerator[SetFiles | Unrecorded, None]:
    """One set after the other: those of the listing, and those of which only an earlier verify
    tells. And folders that nobody sees into. Raises StoreError."""
    seen = _Seen(store, prefix, wants)
    async with aclosing(_listed(store, prefix, wants)) as listing:
        async for one in listing:
            if isinstance(one, Unrecorded):
                seen.hidden.append(one.key)
                yield one
                continue
            month = one.folder.rpartition("/")[0]
            if month != seen.month:
                for gone in seen.left():
                    yield gone
                await seen.turn_to(month)
            yield SetFiles(one.folder, one.entries, seen.take(one.folder))
    for gone in seen.left():
        yield gone
    async for month in seen.other_months():
        await seen.turn_to(month)
        for gone in seen.left():
            yield gone


class _Seen:
    """What earlier verifies saw, a month at a time, as the listing goes by."""

    def __init__(self, store: Store, prefix: str, wants: Callable[[str], bool]) -> None:
        self.hidden: Final[list[str]] = []
        self.month = ""
        self._store: Final = store
        self._prefix: Final = prefix
        self._wants: Final = wants
        self._months: Final[set[str]] = set()
        self._sets: dict[str, dict[str, Result]] = {}

    async def turn_to(self, month: str) -> None:
        self.month = month
        self._months.add(month)
        sets: dict[str, dict[str, Result]] = defaultdict(dict)
        if month.count("/") == layout.RECORD_DEPTH - 2:
            for key, result in (await results_if_any(self._store, month)).items():
                sets[key.rpartition("/")[0]][key] = result
        self._sets = sets

    def take(self, folder: str) -> dict[str, Result]:
        return self._sets.pop(folder, {})

    def left(self) -> Iterable[SetFiles]:
        """Sets of the month that no listing showed, and that nothing hides."""
        for folder, seen in sorted(self._sets.items()):
            hidden = any(f"{folder}/".startswith(f"{one}/") for one in self.hidden)
            if f"{folder}/".startswith(self._prefix) and self._wants(folder) and not hidden:
                yield SetFiles(folder, {}, seen)
        self._sets = {}

    async def other_months(self) -> AsyncGenerator[str, None]:
        """Months of which the listing showed nothing."""
        instance_id, slash, _ = self._prefix.partition("/")
        async for entry in self._store.entries(f"{verified.PREFIX}{instance_id}{slash}"):
            month = verified.month_of(entry.key)
            if month is None or month in self._months:
                continue
            if f"{month}/".startswith(self._prefix) or self._prefix.startswith(f"{month}/"):
                yield month


async def _listed(
    store: Store, prefix: str, wants: Callable[[str], bool]
) -> AsyncGenerator[SetFiles | Unrecorded, None]:
    folder, entries = "", dict[str, Entry]()
    async with aclosing(store.entries(prefix)) as listing:
        async for entry in listing:
            if entry.hides is not None and layout.may_hold_sets(entry.key):
                if wants(entry.key):
                    yield Unrecorded(entry.key, entry.hides)
                continue
            if not layout.is_of_a_set(entry.key):
                continue
            current = entry.key.rpartition("/")[0]
            if current != folder:
                if entries and wants(folder):
                    yield SetFiles(folder, entries)
                folder, entries = current, {}
            entries[entry.key] = entry
    if entries and wants(folder):
        yield SetFiles(folder, entries)
