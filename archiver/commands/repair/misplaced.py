"""Records that lie where they do not belong, as after a copy by hand or a renamed folder.

Where the archive has the same record at its own place, and the object there has the bytes that
both name, the misplaced one says nothing more: it is moved into quarantine, and an object that is
its alone with it, whatever bytes that has. What is right stays where it is, also in the same
folder. Nothing is deleted. Where its own place lacks it, it may be the only copy: it stays, and
whoever looks is told where it belongs.
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
    ArchiveBusy,
    ArchiverError,
    BadDocument,
    ObjectMissing,
    StoreForbidden,
    UnreadableObject,
)
from archiver.model import Backup, Kind
from archiver.stores.scope import scope_of


def _may_lie_at(backup: Backup, stem: str) -> bool:
    """Whether a backup may have that place, by what the source said of it: of a cluster's set
    with two folders, either may be."""
    set_key = layout.set_of(layout.record_key(stem))
    return (
        not backup.is_standard
        and set_key.partition("/")[0] == backup.instance_id
        and layout.name_of_set(set_key) == layout.set_name(backup)
        and stem == layout.stem(set_key, backup)
        and (apart(set_key, backup.started_at) is not None)
    )


@dataclass(slots=True)
class Sorted:
    """The sets that doubles were moved out of; of misplaced backups that stay, by key without
    suffix, the set that each belongs in; and the instances that another process writes to."""

    # By key without suffix, those that were moved.
    stems: set[str] = field(default_factory=set)
    sets: set[str] = field(default_factory=set)
    belongs: dict[str, str] = field(default_factory=dict)
    busy: Mapping[str, ArchiveBusy] = field(default_factory=dict)


async def move_doubles(
    archive: Archive, findings: Iterable[Finding], observer: events.Observer
) -> Sorted:
    """Move away the misplaced of whatever is right at its own place. Raises StoreError."""
    keys = sorted({f.key for f in findings if f.fault is Fault.MISPLACED})
    if not keys:
        return Sorted()
    block, done = await in_thread(new_block), Sorted()

    async def move(instance_id: str) -> None:
        sorting = _Sorting(archive, observer, block, done)
        for key in keys:
            if scope_of(key) == instance_id:
                await sorting.take(key)
        await sorting.end()

    done.busy = await archive.for_each(sorted({scope_of(key) for key in keys}), move, observer)
    return done


class _Sorting:
    """The misplaced of one instance."""

    def __init__(
        self, archive: Archive, observer: events.Observer, block: memoryview, done: Sorted
    ) -> None:
        self._done: Final = done
        self._store: Final = archive.store
        self._inventory: Final = Inventory(archive.store)
        self._tell: Final = observer
        self._block: Final = block
        # Of what was moved, SHA-256 by key.
        self._moved: Final[dict[str, str]] = {}

    async def take(self, key: str) -> None:
        """One misplaced record."""
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
            return  # whoever repairs it says what is wrong
        stem = layout.stem_of(key)
        if own.transfer.stem == stem or _may_lie_at(backup, stem):
            return  # it belongs here and says otherwise: whoever brings the right one mends it
        if (
            right is None
            or right.sha256 != record.sha256
            or not await self._has_bytes_of(right, right.object_key)
        ):
            self._done.belongs[stem] = own.transfer.set_key
            return
        try:
            for object_key in await self._objects(record, right):
                if await self._store.size(object_key) is not None:
                    await self._move(object_key)
                self._moved[object_key] = record.sha256
            await self._move(key)
        except StoreForbidden as error:  # it stays, and keeps nothing else from being mended
            self._tell(events.NotRepaired(key, error))
            return
        self._moved[key] = record.sha256
        self._done.sets.add(record.set_key)
        self._done.stems.add(stem)

    async def end(self) -> None:
        """What told of nothing but what was moved goes the same way."""
        for month in sorted({layout.month_of(key) for key in self._moved}):
            with suppress(BadDocument, UnreadableObject, StoreForbidden):
                await self._take_out_lines(month)
        stems = {layout.stem_of(key) for key in self._moved}
        await forget(self._store, {stem for stem in stems if not await self._has_object(stem)})

    async def _take_out_lines(self, month: str) -> None:
        """Of what was moved away from a month, the lines in SHA256SUMS that say the same."""
        sums = await read_sums(self._store, month)
        if sums is None:
            return
        left = {key: sha256 for key, sha256 in sums.items() if self._moved.get(key) != sha256}
        if not left:
            await self._move(layout.sums_key(month))
        elif len(left) < len(sums):
            names = {key.removeprefix(f"{month}/"): sha256 for key, sha256 in left.items()}
            await self._store.put(layout.sums_key(month), format_sums(names))

    async def _objects(self, record: Record, right: Record) -> list[str]:
        """The objects that go with a misplaced record: the one that it names, if that is its alone,
        and one that was renamed with it, if it has the right bytes."""
        own = [record.object_key] if await self._is_its_own(record, right) else []
        suffix = right.object_key.rpartition(".")[2]
        beside = f"{layout.stem_of(record.key)}.{suffix}"
        if beside != record.object_key and await self._has_bytes_of(right, beside):
            own.append(beside)
        return own

    async def _is_its_own(self, record: Record, right: Record) -> bool:
        """Whether the object that a misplaced record names goes with it. It does not where it has
        another backup's name, or a record beside it that can be used, as the right one has."""
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
        """Whether an object stays of which an earlier verify may have said something."""
        try:
            return any([await self._store.size(f"{stem}.{kind}") is not None for kind in Kind])
        except UnreadableObject:
            return True

    async def _has_bytes_of(self, record: Record, key: str) -> bool:
        try:
            if await self._store.size(key) != record.size:
                return False
            self._tell(events.ToRead(1, record.size))
            measured = await measure(
                self._store, key, record.size, self._block,
                lambda size: self._tell(events.Advanced(size)), is_log=record.is_log,
            )  # fmt: skip
        except (ObjectMissing, UnreadableObject):
            return False
        return measured.sha256 == record.sha256

    async def _move(self, key: str) -> None:
        kept = await self._store.move_to_quarantine(key)
        self._tell(pull_events.Cleared(key, kept))
