"""What one archive has and another has not, or has otherwise."""

from collections.abc import AsyncGenerator, Awaitable, Mapping
from contextlib import aclosing
from dataclasses import dataclass

from archiver.archive import layout
from archiver.archive.acknowledged import Acknowledged, differing
from archiver.archive.archive import Archive, check_apart
from archiver.archive.catalogue import Described
from archiver.archive.contents import Unrecorded, described, walk
from archiver.archive.inventory import Compared, Difference, Inventory, expecting
from archiver.commands.copy.selection import FileIdentity, Selection, file_identity
from archiver.errors import (
    ArchiverError,
    BadDocument,
    IntegrityError,
    StoreError,
    UnreadableObject,
)


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A backup that the two archives do not have alike; ``key`` is its object's, or that of a
    document or folder that cannot be used. ``what`` says how and where, ``why`` what is wrong
    there, and ``error`` the same to who acts on it."""

    key: str
    what: str
    why: str | None = None
    error: ArchiverError | None = None

    def __str__(self) -> str:
        return f"{self.what}: {self.key}{f': {self.why}' if self.why else ''}"

    @property
    def exit_code(self) -> int:
        """3, or 6 when a store did not give what there is to compare."""
        is_unseen = self.error is not None and self.error.exit_code == StoreError.exit_code
        return StoreError.exit_code if is_unseen else IntegrityError.exit_code


async def mismatches(
    source: Archive, target: Archive, selection: Selection
) -> AsyncGenerator[Mismatch, None]:
    """What one archive has and the other has not, or has otherwise; nothing is written.

    Raises StoreError, and UsageError where they are one archive, or one lies in the other.
    """
    await check_apart(source, target)
    reported_here, reported = set[FileIdentity](), set[FileIdentity]()
    both = (
        _of_source(source, target, selection, reported_here, reported),
        _of_target(source, target, selection, reported_here, reported),
    )
    last = None
    for found in both:
        async for one in found:
            if one != last:  # of a set that SHA256SUMS does not name, once
                yield one
            last = one
    given = selection.instances, selection.set_keys
    async for other in differing(Acknowledged(source), Acknowledged(target), *given):
        yield (
            Mismatch(other.key, f"{Difference.MISSING} in {target.store}")
            if other.bad is None
            else _unusable(other.at, other.key, other.bad)
        )


async def _of_source(
    source: Archive,
    target: Archive,
    selection: Selection,
    reported_here: set[FileIdentity],
    reported: set[FileIdentity],
) -> AsyncGenerator[Mismatch, None]:
    """What is wrong in ``source``, and what of it the target has not, or otherwise."""
    here, there = Inventory(source.store), Inventory(target.store)
    async for one in _selected(source, selection, here, there):
        if isinstance(one, Mismatch):
            reported_here.add(file_identity(one.key))
            yield one
            continue
        record = one.record
        if found := await _difference(source, here.compare(record, record.set_key), record):
            yield found
        if found := await _difference(target, there.compared(record), record):
            reported.add(file_identity(found.key))
            yield found
        elif found := await _unsealed(target, there, one):
            yield found


async def _of_target(
    source: Archive,
    target: Archive,
    selection: Selection,
    reported_here: set[FileIdentity],
    reported: set[FileIdentity],
) -> AsyncGenerator[Mismatch, None]:
    """What is wrong in ``target``, and what it has and the source has not, unless ``reported``."""
    here = Inventory(source.store)
    async for one in _selected(target, selection, here):
        if isinstance(one, Mismatch):
            if file_identity(one.key) not in reported:
                yield one
        elif file_identity(one.record.object_key) not in reported_here:
            found = await _difference(source, here.lacking(one.record), one.record)
            if found := found or await _unsealed(source, here, one):
                yield found


async def _difference(
    archive: Archive, finding: Awaitable[Compared], record: Described
) -> Mismatch | None:
    """The difference that is found, if it is one; or why it cannot be."""
    key, where = record.object_key, archive.store
    try:
        found = await finding
    except ArchiverError as error:
        if error.ends_run:
            raise
        return _unusable(archive, key, error)
    if found.difference is Difference.NONE:
        wrong = found.found_wrong
        return None if wrong is None else _unusable(archive, key, wrong)
    return Mismatch(key, f"{found.difference} in {where}", found.why)


async def _unsealed(archive: Archive, inventory: Inventory, one: "_Usable") -> Mismatch | None:
    """Where the other archive's SHA256SUMS names it, whether this one's does; what a line says is
    compared with the record of its own archive."""
    record, where = one.record, f"{Difference.MISSING} in {archive.store}"
    if record.object_key not in (one.sums or {}):
        return None
    try:
        set_key = await inventory.set_for(record)
        sums = (await inventory.set_of(set_key)).lines()
    except (BadDocument, UnreadableObject):
        return None  # named with its month
    if sums is None and not record.is_standard:
        return Mismatch(set_key, where, "its lines in SHA256SUMS are not there")
    if sums is not None and layout.moved(record.object_key, set_key) in sums:
        return None
    return Mismatch(record.object_key, where, "its line in SHA256SUMS is not there")


async def selects_nothing(archive: Archive, selection: Selection) -> bool:
    """Whether an archive has no backup that was asked for. Raises StoreError."""
    async with aclosing(_selected(archive, selection)) as records:
        return await anext(records, None) is None


@dataclass(frozen=True, slots=True)
class _Usable:
    """A record that can be used, and what SHA256SUMS says in its set, if that can be."""

    record: Described
    sums: Mapping[str, str] | None


async def _selected(
    archive: Archive, selection: Selection, *inventories: Inventory
) -> AsyncGenerator[_Usable | Mismatch, None]:
    """The records that are asked for, those of them that cannot be used, and what has none;
    ``inventories`` are those that will be asked about them."""
    for prefix in selection.prefixes:
        walked = walk(archive.store, prefix, selection.reaches)
        async for one in expecting(walked, *inventories):
            if isinstance(one, Unrecorded):
                yield _unusable(archive, one.key, one.error)
                continue
            try:
                record = await described(archive.store, one.files, one.key)
            except (BadDocument, UnreadableObject) as error:
                yield _unusable(archive, one.key, error)
                continue
            if record is None:
                continue
            if (odds := one.files.at_odds(record)) is not None:
                yield _unusable(archive, record.object_key, odds)
            yield _Usable(record, one.files.sums if odds is None else None)


def _unusable(archive: Archive, key: str, error: ArchiverError) -> Mismatch:
    why = error.message
    for place in (f"{archive.store}/", f"{archive.store}: ", f"{key}: ", f"{key} "):
        why = why.removeprefix(place)
    return Mismatch(key, f"{Difference.DAMAGED} in {archive.store}", why, error)
