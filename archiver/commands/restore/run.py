"""Backups as a server wants to find them: ``restore`` and what it leaves in a directory.

DIR/<node>/dump.rdb                                  or, for a log of commands,
DIR/<node>/appendonlydir/appendonly.aof.1.base.aof   with appendonly.aof.manifest beside it
DIR/<node>/record.json                               the archive's record of the file
DIR/<node>/RESTORE.txt                               the command, and what it needs

A standard instance is its own node: DIR/<instance>/dump.rdb. No file of a set has its name before
all of them are here and checked.
"""

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final

from archiver import events
from archiver.archive.archive import Archive
from archiver.archive.backupsets import BackupSet, Damage, exit_code_of, named_set
from archiver.archive.record import Record
from archiver.commands.restore.choice import (
    DamagedSet,
    before,
    damaged_set,
    newest_at,
    none_is_whole,
    partial_hint,
)
from archiver.commands.restore.files import (
    Copied,
    Staged,
    put_beside,
    replace_beside,
    stage,
    staged_size,
)
from archiver.commands.restore.inspection import inspect_file
from archiver.commands.restore.instructions import (
    LOG,
    LOGS,
    command,
    is_place_of_log,
    needs,
    node_folder,
)
from archiver.commands.restore.instructions import text as instructions
from archiver.concurrency import in_thread
from archiver.errors import EXIT_OK, IntegrityError, NoSpace, UnreadableObject, UsageError
from archiver.ids import safe
from archiver.logs import OF_WORK, logged
from archiver.model import Kind
from archiver.rdb import Inspection
from archiver.stores.local import disk, reading

DUMP: Final = "dump.rdb"
_LOG_BASE = f"{LOG}.1.base.aof"
_MANIFEST = f"file {_LOG_BASE} seq 1 type b\n".encode()
_FIRST_PORT = 6379

# Asked when a set is damaged: that one, and the next complete one. Whether to take that.
Ask = Callable[[BackupSet, BackupSet], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class RestoredFile:
    """One node's file in its place; ``command`` starts a server on it, ``needs`` says which.

    There is no command for a file that no server loads as it is. ``log`` is what was read of a log
    of commands: how much of it is whole.
    """

    node_id: str
    record: Record
    copied: Copied
    command: str | None
    needs: str
    log: Inspection | None


@dataclass(frozen=True, slots=True)
class Restored:
    """A set in a directory.

    ``left_out`` are further files of its nodes, ``passed_over`` newer sets that are not complete,
    or damaged. ``damage`` is what is wrong with files that are not here.
    """

    backup_set: BackupSet
    files: tuple[RestoredFile, ...]
    left_out: tuple[Record, ...]
    passed_over: tuple[BackupSet, ...]
    damage: tuple[Damage, ...] = ()

    @property
    def damaged(self) -> Mapping[str, str]:
        """Of each node whose file is wrong, and is not here, why."""
        return {one.node_id: one.why for one in self.damage}

    @property
    def exit_code(self) -> int:
        """3 for damage, in a set that was passed over, too, or 6 when all of that is what the store
        does not give; 1 when it is not whole, or a file of it is for no server."""
        damage = [*self.damage, *(d for one in self.passed_over for d in one.damage)]
        if damage:
            return exit_code_of(damage)
        whole = self.backup_set.is_complete and all(file.command for file in self.files)
        return EXIT_OK if whole else 1


async def restore(
    archive: Archive,
    directory: Path | str,
    *,
    instance_id: str | None = None,
    at: datetime | None = None,
    set_key: str | None = None,
    partial: bool = False,
    skip_damaged: bool = False,
    ask: Ask | None = None,
    observer: events.WorkObserver = events.ignore,
) -> Restored:
    """Lay out the newest complete set of ``instance_id`` at or before ``at``, or the set named.

    Run again, it goes on: what is there is checked and stays. ``partial`` takes what there is of
    a named set that lacks nodes, or has damaged ones. When the newest complete set is damaged,
    ``skip_damaged`` takes the next one, and the next; otherwise ``ask`` is asked. ``observer`` is
    told how far it is.

    Raises:
        NoSuchBackup: No such instance or set, or none is complete.
        UsageError: No archive, a name that no set can have, or something is in the way.
        DamagedSet: The set, or a file of it, is not what its records say, or the store does not
            give it (UnreadableSet). Nothing of it is left.
        IntegrityError: No set can be restored whole, and one is damaged.
        NoSpace, StoreError: The disk, or the store.
    """
    await archive.expect()
    if (set_key is None) is (instance_id is None):
        raise UsageError("name an instance, or a backup set", hint="--instance or --set")
    if skip_damaged and (partial or set_key is not None):
        raise UsageError("--skip-damaged looks for another set: it goes with --instance alone")
    # The commands are for any working directory.
    target = await in_thread(disk.absolute, directory)
    work = _Work(archive, target, logged(observer, OF_WORK), partial=partial)
    if set_key is not None:
        return await _named(work, set_key)
    return await _newest(work, str(instance_id), at, ask, skip_damaged=skip_damaged)


async def _named(work: "_Work", set_key: str) -> Restored:
    found = await named_set(work.archive, set_key)
    if found.damage and not (work.partial and found.records):
        raise await _named_damaged(work.archive, found)
    if not found.records or not (found.is_complete or work.partial):
        raise none_is_whole([found])
    try:
        return await work.lay_out(found, ())
    except DamagedSet as error:
        raise await _named_damaged(work.archive, error.damaged) from None


async def _named_damaged(archive: Archive, found: BackupSet) -> DamagedSet:
    other = await before(archive, found)
    hints = [f"--set {other.key} restores that one" if other else None, partial_hint(found)]
    return damaged_set(found, other, "; ".join(filter(None, hints)) or None)


async def _newest(
    work: "_Work", instance_id: str, at: datetime | None, ask: Ask | None, *, skip_damaged: bool
) -> Restored:
    """The newest complete set whose bytes are those recorded, as far back as may be gone."""
    passed_over: list[BackupSet] = []
    agreed: BackupSet | None = None
    async with newest_at(work.archive, instance_id, at) as sets:
        while (found := await sets.take()) is not None:
            if found.is_complete:
                try:
                    return await work.lay_out(found, tuple(passed_over))
                except DamagedSet as error:
                    found = error.damaged
            passed_over.append(found)
            if not found.damage or skip_damaged:
                continue
            following = await sets.next_complete()
            if following is not None and following is agreed:
                continue
            if following is None or ask is None or not await ask(found, following):
                raise damaged_set(found, following, _hint(found, following))
            agreed = following
    raise none_is_whole(passed_over)


def _hint(found: BackupSet, following: BackupSet | None) -> str | None:
    skip = "--skip-damaged restores it, and checks its bytes" if following is not None else None
    return "; ".join(filter(None, [skip, partial_hint(found)])) or None


@dataclass(frozen=True, slots=True)
class _Work:
    """Where a set comes from and goes to."""

    archive: Archive
    target: Path
    observer: events.WorkObserver
    partial: bool

    async def lay_out(self, found: BackupSet, passed_over: tuple[BackupSet, ...]) -> Restored:
        """Every node's file: all of them copied and checked, then all of them named.

        Raises DamagedSet, with nothing left of the set.
        """
        damage = list(found.damage)
        wrong = {one.node_id for one in damage}
        chosen = [record for record in found.chosen() if record.node_id not in wrong]
        await in_thread(lambda: check_space(self.target, _still_to_come(self.target, chosen)))
        total = sum(record.size for record in chosen)
        self.observer(events.SetBegun(found.key, 1, 1, len(chosen), total))
        made = await in_thread(_to_be_made, [file_place(one, self.target) for one in chosen])
        files = list[RestoredFile]()
        async with AsyncExitStack() as stack:
            staged = await self._stage(stack, chosen, damage)
            if staged and (self.partial or not damage):
                for number, (record, one) in enumerate(staged):
                    files.append(await _settle(record, one, number))
            else:
                for _, one in staged:
                    await in_thread(one.discard)
        if not files:
            await in_thread(_remove_empty, made)
            raise damaged_set(replace(found, damage=tuple(damage)), None, None)
        others = [one for one in found.records if one not in chosen]
        wrong = {one.node_id for one in damage}
        left_out = tuple(one for one in others if one.node_id not in wrong)
        return Restored(found, tuple(files), left_out, passed_over, tuple(damage))

    async def _stage(
        self, stack: AsyncExitStack, chosen: Sequence[Record], damage: list[Damage]
    ) -> list[tuple[Record, Staged]]:
        """Copy and check, until one is damaged; with ``partial`` those, too, that come after."""
        staged = list[tuple[Record, Staged]]()
        for record in chosen:
            place = file_place(record, self.target)
            copying = stage(
                self.archive.store, record, place, progress=_telling(self.observer, record)
            )
            try:
                staged.append((record, await stack.enter_async_context(copying)))
                self.observer(events.FileLeft(record.object_key, record.size))
            except (IntegrityError, UnreadableObject) as error:
                damage.append(Damage(record.node_id, error.message, error.exit_code))
                if not self.partial:
                    break
        return staged


async def lay_out(
    archive: Archive,
    record: Record,
    directory: Path,
    *,
    progress: Callable[[int], None] | None = None,
) -> Copied:
    """Put one file where a server finds it, below ``directory``; ``progress`` is told the bytes so
    far. Raises as :func:`restore`."""
    place = file_place(record, directory)
    async with stage(archive.store, record, place, progress=progress) as staged:
        return await in_thread(_name, staged)


def file_place(record: Record, directory: Path) -> Path:
    """Where the file of ``record`` is laid out. Raises UnsafeInput for an id that leads away."""
    node = directory / safe(record.node_id)
    # A log that begins as a dump is read whole as a log alone: as a dump, its commands are lost.
    is_log = record.is_log or record.object_key.endswith(f".{Kind.AOF}")
    return node / LOGS / _LOG_BASE if is_log else node / DUMP


def check_space(directory: Path, wanted: int) -> None:
    """Whether ``wanted`` bytes fit below ``directory``, which need not exist. Blocks.

    Raises NoSpace, StoreError.
    """
    there = directory
    while not there.exists() and there != there.parent:
        there = there.parent
    with disk.store_errors(there):
        space = os.statvfs(there)
    free = space.f_bavail * space.f_frsize
    if wanted > free:
        raise NoSpace(
            f"{directory}: no space: {wanted:,} bytes are to come and {free:,} are free",
            hint="free some space, or name another directory",
        )


def _still_to_come(directory: Path, records: Sequence[Record]) -> int:
    return sum(
        max(0, record.size - staged_size(place))
        for record in records
        if not (place := file_place(record, directory)).exists()
    )


def _to_be_made(places: Sequence[Path]) -> list[Path]:
    """The directories that are not there yet, the innermost first. Blocks."""
    above = {folder for place in places for folder in place.parents}
    return sorted((one for one in above if not one.exists()), key=lambda one: -len(one.parts))


def _remove_empty(directories: Sequence[Path]) -> None:
    for one in directories:
        with suppress(OSError):  # another process may have put something there
            one.rmdir()


def _telling(observer: events.WorkObserver, record: Record) -> Callable[[int], None]:
    key, size = record.object_key, record.size

    def tell(position: int) -> None:
        observer(events.FileWorkedOn(key, size, "restoring", 1, 1, position, size))

    tell(0)
    return tell


async def _settle(record: Record, staged: Staged, number: int) -> RestoredFile:
    """Name the file, and write beside it what somebody needs who finds it."""
    copied = await in_thread(_name, staged)
    log = None
    if is_place_of_log(copied.path) and copied.kind is not Kind.UNKNOWN:
        log = await inspect_file(copied.path, is_log=record.is_log)
    line, needed = command(copied, log, _FIRST_PORT + number), needs(record, copied, log)
    said = instructions(record, line, needed, log)
    # What is said of the same dump may have changed since: a repair adds to its record.
    for name, data in (("record.json", record.encode()), ("RESTORE.txt", said.encode())):
        await in_thread(_replace_ours, node_folder(copied.path) / name, data, record)
    return RestoredFile(record.node_id, record, copied, line, needed, log)


def _replace_ours(path: Path, data: bytes, record: Record) -> None:
    """Write what is said of a dump, over what an earlier restore said of the same alone. Blocks.

    Raises UsageError, StoreError.
    """
    there = reading.read_document(path)
    about = record.object_key.rpartition("/")[2].rpartition(".")[0].encode()
    if there is not None and about not in there:
        raise UsageError(
            f"{path}: something else has this name, and it is not overwritten",
            hint="move it away, or name another directory",
        )
    replace_beside(path, data)


def _name(staged: Staged) -> Copied:
    copied = staged.settle()
    if is_place_of_log(copied.path):
        put_beside(copied.path.with_name(f"{LOG}.manifest"), _MANIFEST)
    return copied
