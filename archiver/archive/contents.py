"""What an archive holds, set by set, as its listing shows it: the records, and what has none. Who
copies or compares goes by this, so that nothing is passed over in silence."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from archiver.archive import layout
from archiver.archive.reading import read_sums
from archiver.errors import ArchiverError, BadDocument, IntegrityError, UnreadableObject
from archiver.model import Kind
from archiver.stores.base import Store

_OBJECT_SUFFIXES = tuple(f".{kind}" for kind in Kind)
_HINT = "verify the archive that it is missing from, and repair it"


@dataclass(frozen=True, slots=True)
class Unrecorded:
    """What is or was in an archive, and has no record to go by: an object, one that SHA256SUMS
    names, what a SHA256SUMS that cannot be read names, what is in a folder that nobody sees into.
    ``error`` says why."""

    key: str
    error: ArchiverError


@dataclass(frozen=True, slots=True)
class _Set:
    folder: str
    keys: Sequence[str]


async def walk(
    store: Store, prefix: str, wants: Callable[[str], bool]
) -> AsyncGenerator[str | Unrecorded, None]:
    """The keys of the records below ``prefix``, readable or not, and what has none. ``wants`` says
    which folders are meant, of sets and of those that may have some in them.

    Files without a record are told of at the end: a pull at work may have brought it meanwhile.
    Raises StoreError.
    """
    doubted: dict[str, Unrecorded] = {}
    async with aclosing(_sets(store, prefix, wants)) as sets:
        async for one in sets:
            if isinstance(one, Unrecorded):
                yield one
                continue
            for key in filter(layout.is_record, one.keys):
                yield key
            try:
                doubted |= await _named_alone(store, one)
            except (BadDocument, UnreadableObject) as error:
                yield Unrecorded(layout.sums_key(one.folder), error)
            doubted |= _objects_alone(store, one)
    for record_key, unrecorded in doubted.items():
        try:
            came = await store.size(record_key) is not None
        except UnreadableObject as error:
            yield Unrecorded(record_key, error)
        else:
            yield record_key if came else unrecorded


async def _sets(
    store: Store, prefix: str, wants: Callable[[str], bool]
) -> AsyncGenerator[_Set | Unrecorded, None]:
    """One set after the other, the keys of all of its files, and folders that nobody sees into."""
    folder, keys = "", list[str]()
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
                if keys and wants(folder):
                    yield _Set(folder, keys)
                folder, keys = current, []
            keys.append(entry.key)
    if keys and wants(folder):
        yield _Set(folder, keys)


def _objects_alone(store: Store, one: _Set) -> dict[str, Unrecorded]:
    """Objects, by the keys of the records that they should have (pure)."""
    found: dict[str, Unrecorded] = {}
    for key in one.keys:
        record_key = layout.record_key(layout.stem_of(key))
        if key.endswith(_OBJECT_SUFFIXES) and record_key not in one.keys:
            error = IntegrityError(f"{store}: {key} has no record", hint=_HINT)
            found[record_key] = Unrecorded(key, error)
    return found


async def _named_alone(store: Store, one: _Set) -> dict[str, Unrecorded]:
    """The same for those that only SHA256SUMS tells of. Raises BadDocument, UnreadableObject."""
    sums_key = layout.sums_key(one.folder)
    names = (await read_sums(store, one.folder) or ()) if sums_key in one.keys else ()
    found: dict[str, Unrecorded] = {}
    for name in names:
        key = f"{one.folder}/{name}"
        record_key = layout.record_key(layout.stem_of(key))
        if record_key not in one.keys:
            error = IntegrityError(
                f"{store}: {sums_key} names {name}, which has no record there", hint=_HINT
            )
            found[record_key] = Unrecorded(key, error)
    return found
