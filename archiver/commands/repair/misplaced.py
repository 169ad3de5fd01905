"""Moves misplaced records into quarantine, as they are after a copy by hand or a renamed folder.

A misplaced record is a duplicate if the archive has the same record in the right set, and the
object there has the bytes that both name. Then it is moved, together with an object that belongs
to no other record, whatever bytes that has. Nothing is deleted. A misplaced record that is no
duplicate may be the only copy: it stays, and the repair reports where it belongs.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from archiver import events as pull_events
from archiver.archive import layout
from archiver.archive.archive import Archive
from archiver.archive.consistency import apart
from archiver.archive.inventory import Inventory
from archiver.archive.measure import measure, new_block
from archiver.archive.reading import read_record, read_sums
from archiver.archive.record import Record
from archiver.archive.sums import format_sums
from archiver.archive.verified import forget
from archiver.commands.verify import events
from archiver.commands.verify.findings import Fault, Finding
from archiver.concurrency import in_thread
from archiver.errors import (
    ArchiverError,
    BadDocument,
    ObjectMissing,
    StoreForbidden,
    UnreadableObject,
)
from archiver.model import Backup, Kind
from archiver.stores.scope import scope_of


def _may_lie_at(backup: Backup, stem: str) -> bool:
    """Whether a backup may be stored under ``stem``, by its metadata from the source. A cluster's
    set may have two folders, and either may be right."""
    set_key = layout.set_of(layout.record_key(stem))
    return (
        not backup.is_standard
        and set_key.partition("/")[0] == backup.instance_id
        and layout.name_of_set(set_key) == layout.set_name(backup)
        and stem == layout.stem(set_key, backup)
        and apart(set_key, backup.started_at) is not None
    )


@dataclass(slots=True)
class Moved:
    """What was moved: ``stems`` (keys without suffix), and the ``sets`` that they were in.

    ``belongs`` are misplaced backups that were not moved: the right set, by stem. ``busy`` are the
    instances that are not written to, and why.
    """

    stems: set[str] = field(default_factory=set)
    sets: set[str] = field(default_factory=set)
    belongs: dict[str, str] = field(default_factory=dict)
    busy: Mapping[str, ArchiverError] = field(default_factory=dict)


async def move_duplicates(
    archive: Archive, findings: Iterable[Finding], observer: events.Observer
) -> Moved:
    """Move the misplaced duplicates among the findings away. Raises StoreError."""
    keys = sorted({f.key for f in findings if f.fault is Fault.MISPLACED})
    if not keys:
        return Moved()
    block, moved = await in_thread(new_block), Moved()

    async def move(instance_id: str) -> None:
        mover = _Mover(archive, observer, block, moved)
        for key in keys:
            if scope_of(key) == instance_id:
                await mover.move_if_duplicate(key)
        await mover.forget_moved()

    moved.busy = await archive.for_each(sorted({scope_of(key) for key in keys}), move, observer)
    return moved


class _Mover:
    """Moves the misplaced duplicates of one instance."""

    def __init__(
        self, archive: Archive, observer: events.Observer, block: memoryview, moved: Moved
    ) -> None:
        self._moved: Final = moved
        self._store: Final = archive.store
        self._inventory: Final = Inventory(archive.store)
        self._observer: Final = observer
        self._block: Final = block
        # The SHA-256 in the record of each key that was moved.
        self._sha256: Final[dict[str, str]] = {}

    async def move_if_duplicate(self, key: str) -> None:
        """Move one misplaced record if it is a duplicate."""
        try:
            data = await self._store.read(key)
            if data is None:
                return
            record = Record.decode(key, data)
            backup = record.backup
            own = await self._inventory.find(backup)
            right = None if own.record is None else await read_record(self._store, own.record.key)
        except ArchiverError as error:
            if error.ends_run:
                raise
            return  # the supplier reports it
        stem = layout.stem_of(key)
        if own.transfer.stem == stem or _may_lie_at(backup, stem):
            return  # it is in the right place, and edited: the supplier repairs it
        if (
            right is None
            or right.sha256 != record.sha256
            or not await self._has_bytes_of(right, right.object_key)
        ):
            self._moved.belongs[stem] = own.transfer.set_key
            return
        try:
            for object_key in await self._objects(record, right):
                if await self._store.size(object_key) is not None:
                    await self._move(object_key)
                self._sha256[object_key] = record.sha256
            await self._move(key)
        except StoreForbidden as error:  # continue with the others
            self._observer(events.NotRepaired(key, error))
            return
        self._sha256[key] = record.sha256
        self._moved.sets.add(record.set_key)
        self._moved.stems.add(stem)

    async def forget_moved(self) -> None:
        """Remove what SHA256SUMS and earlier verifies say only of files that were moved."""
        for month in sorted({layout.month_of(key) for key in self._sha256}):
            with suppress(BadDocument, UnreadableObject, StoreForbidden):
                await self._remove_lines(month)
        stems = {layout.stem_of(key) for key in self._sha256}
        await forget(self._store, {stem for stem in stems if not await self._has_object(stem)})

    async def _remove_lines(self, month: str) -> None:
        """Remove the lines of moved files from SHA256SUMS, unless they give another SHA-256."""
        sums = await read_sums(self._store, month)
        if sums is None:
            return
        left = {key: sha256 for key, sha256 in sums.items() if self._sha256.get(key) != sha256}
        if not left:
            # The catalogue would tell that there was one.
            if await self._store.size(layout.index_key(month)) is not None:
                await self._store.put(layout.index_key(month), b"")
            await self._move(layout.sums_key(month))
        elif len(left) < len(sums):
            names = {key.removeprefix(f"{month}/"): sha256 for key, sha256 in left.items()}
            await self._store.put(layout.sums_key(month), format_sums(names))

    async def _objects(self, record: Record, right: Record) -> list[str]:
        """The objects to move with a misplaced record: the one that it names, if it belongs to no
        other record, and one that was renamed with it, if it has the right bytes."""
        own = [record.object_key] if await self._is_its_own(record, right) else []
        suffix = right.object_key.rpartition(".")[2]
        beside = f"{layout.stem_of(record.key)}.{suffix}"
        if beside != record.object_key and await self._has_bytes_of(right, beside):
            own.append(beside)
        return own

    async def _is_its_own(self, record: Record, right: Record) -> bool:
        """Whether the object that a misplaced record names belongs to no other record. It does if
        it has another backup's name, or a usable record beside it."""
        stem = layout.stem_of(record.object_key)
        if layout.backup_name(right.object_key) != layout.backup_name(record.object_key):
            return False
        try:
            await self._store.size(record.object_key)
            return await read_record(self._store, layout.record_key(stem)) is None
        except BadDocument:
            return True
        except UnreadableObject:
            return False

    async def _has_object(self, stem: str) -> bool:
        """Whether there still is an object that an earlier verify may have seen."""
        try:
            return any([await self._store.size(f"{stem}.{kind}") is not None for kind in Kind])
        except UnreadableObject:
            return True

    async def _has_bytes_of(self, record: Record, key: str) -> bool:
        try:
            if await self._store.size(key) != record.size:
                return False
            self._observer(events.ToRead(1, record.size))
            measured = await measure(
                self._store, key, record.size, self._block,
                lambda size: self._observer(events.Advanced(size)), is_log=record.is_log,
            )  # fmt: skip
        except (ObjectMissing, UnreadableObject):
            return False
        return measured.sha256 == record.sha256

    async def _move(self, key: str) -> None:
        kept = await self._store.move_to_quarantine(key)
        self._observer(pull_events.Cleared(key, kept))
