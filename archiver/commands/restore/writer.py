"""Writes a chosen backup set to a directory: files, records and instructions.

Beside the file of :mod:`.target`, DIR/<node>/record.json is the archive's record of it, and
DIR/<node>/RESTORE.txt has the command that starts a server, and its needs. A standard instance is
its own node: DIR/<instance>/dump.rdb. No file gets its final name before all files of the set have
been copied and verified.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from archiver import events
from archiver.archive.archive import Archive
from archiver.archive.backupsets import BackupSet, Damage, exit_code_of
from archiver.archive.record import Record
from archiver.commands.restore.choice import damaged_set
from archiver.commands.restore.files import CopiedFile, VerifiedCopy, verified_copy
from archiver.commands.restore.inspection import inspect_file
from archiver.commands.restore.instructions import needs, restore_text, start_command
from archiver.commands.restore.part import already_exists, overwrite, write_new
from archiver.commands.restore.target import (
    MANIFEST,
    MANIFEST_NAME,
    bytes_to_copy,
    check_space,
    file_path,
    is_log_path,
    missing_directories,
    node_directory,
    remove_empty,
)
from archiver.concurrency import in_thread
from archiver.errors import EXIT_OK, IntegrityError, UnreadableObject
from archiver.model import Kind
from archiver.rdb import Inspection
from archiver.stores.local import reading

_FIRST_PORT: Final = 6379


@dataclass(frozen=True, slots=True)
class RestoredFile:
    """The restored file of one node.

    ``command`` starts a server on it, ``needs`` describes which server. ``command`` is None if no
    server loads the file as it is. ``log`` is the inspection of a log.
    """

    node_id: str
    record: Record
    copied: CopiedFile
    command: str | None
    needs: str
    log: Inspection | None


@dataclass(frozen=True, slots=True)
class Restored:
    """A set that was restored to a directory.

    ``left_out`` are further files of its nodes that are not needed, ``passed_over`` newer sets that
    are incomplete or damaged. ``damage`` describes the files that could not be restored.
    """

    backup_set: BackupSet
    files: tuple[RestoredFile, ...]
    left_out: tuple[Record, ...]
    passed_over: tuple[BackupSet, ...]
    damage: tuple[Damage, ...] = ()

    @property
    def damaged(self) -> Mapping[str, str]:
        """The nodes whose files were not restored, with the reason for each."""
        return {one.node_id: one.why for one in self.damage}

    @property
    def exit_code(self) -> int:
        """3 if a file is damaged (6 if the store merely cannot read it), 1 if the set is incomplete
        or no server loads one of its files. Damage in sets that were passed over counts, too."""
        damage = [*self.damage, *(d for one in self.passed_over for d in one.damage)]
        if damage:
            return exit_code_of(damage)
        complete = self.backup_set.is_complete and all(file.command for file in self.files)
        return EXIT_OK if complete else 1


@dataclass(frozen=True, slots=True)
class SetWriter:
    """Writes a chosen set to the target directory."""

    archive: Archive
    target: Path
    observer: events.WorkObserver
    partial: bool

    async def write(self, found: BackupSet, passed_over: tuple[BackupSet, ...]) -> Restored:
        """Copy and verify all files of the set, then give them their final names.

        Raises DamagedSet, and leaves nothing of the set.
        """
        # 1. The files: one for each node that is not known to be damaged.
        damage = list(found.damage)
        damaged = {one.node_id for one in damage}
        chosen = [record for record in found.chosen() if record.node_id not in damaged]
        # 2. Is there room for them?
        await in_thread(lambda: check_space(self.target, bytes_to_copy(self.target, chosen)))
        total = sum(record.size for record in chosen)
        self.observer(events.SetBegun(found.key, 1, 1, len(chosen), total))
        paths = [file_path(one, self.target) for one in chosen]
        made = await in_thread(missing_directories, paths)
        files = list[RestoredFile]()
        async with AsyncExitStack() as stack:
            # 3. Copy and verify all of them.
            copies = await self._copy(stack, chosen, damage)
            if copies and (self.partial or not damage):
                # 4. Give them their final names, and write the instructions.
                for number, (record, copy) in enumerate(copies):
                    files.append(await _finish(record, copy, number))
            else:
                for _, copy in copies:
                    await in_thread(copy.discard)
        if not files:
            await in_thread(remove_empty, made)
            raise damaged_set(replace(found, damage=tuple(damage)), None, None)
        damaged = {one.node_id for one in damage}
        others = [one for one in found.records if one not in chosen]
        left_out = tuple(one for one in others if one.node_id not in damaged)
        return Restored(found, tuple(files), left_out, passed_over, tuple(damage))

    async def _copy(
        self, stack: AsyncExitStack, chosen: Sequence[Record], damage: list[Damage]
    ) -> list[tuple[Record, VerifiedCopy]]:
        """Copy and verify the files; add to ``damage`` those that are wrong.

        It stops at the first wrong file unless the set may be ``partial``.
        """
        copies = list[tuple[Record, VerifiedCopy]]()
        for record in chosen:
            copying = verified_copy(
                self.archive.store,
                record,
                file_path(record, self.target),
                progress=_progress(self.observer, record),
            )
            try:
                copies.append((record, await stack.enter_async_context(copying)))
                self.observer(events.FileLeft(record.object_key, record.size))
            except (IntegrityError, UnreadableObject) as error:
                damage.append(Damage.of(record.node_id, error))
                if not self.partial:
                    break
        return copies


def _progress(observer: events.WorkObserver, record: Record) -> Callable[[int], None]:
    key, size = record.object_key, record.size

    def report(position: int) -> None:
        observer(events.FileWorkedOn(key, size, "restoring", 1, 1, position, size))

    report(0)
    return report


async def _finish(record: Record, copy: VerifiedCopy, number: int) -> RestoredFile:
    """Give the file its final name, and write its record and instructions beside it."""
    copied = await in_thread(_commit, copy)
    log = None
    if is_log_path(copied.path) and copied.kind is not Kind.UNKNOWN:
        log = await inspect_file(copied.path, is_log=record.is_log)
    command, needed = start_command(copied, log, _FIRST_PORT + number), needs(record, copied, log)
    text = restore_text(record, command, needed, log)
    for name, data in (("record.json", record.encode()), ("RESTORE.txt", text.encode())):
        await in_thread(_replace_own, node_directory(copied.path) / name, data, record)
    return RestoredFile(record.node_id, record, copied, command, needed, log)


def _commit(copy: VerifiedCopy) -> CopiedFile:
    copied = copy.commit()
    if is_log_path(copied.path):
        write_new(copied.path.with_name(MANIFEST_NAME), MANIFEST)
    return copied


def _replace_own(path: Path, data: bytes, record: Record) -> None:
    """Write a file about a dump, replacing only what an earlier restore wrote about the same dump.

    It may differ: a repair adds to the record. Blocks. Raises UsageError, StoreError.
    """
    existing = reading.read_document(path)
    stem = record.object_key.rpartition("/")[2].rpartition(".")[0].encode()
    if existing is not None and stem not in existing:
        raise already_exists(path)
    overwrite(path, data)


async def restore_file(
    archive: Archive,
    record: Record,
    directory: Path,
    *,
    progress: Callable[[int], None] | None = None,
) -> CopiedFile:
    """Restore a single file below ``directory``, without instructions.

    ``progress`` is called with the number of bytes so far. Raises as :func:`verified_copy`.
    """
    path = file_path(record, directory)
    async with verified_copy(archive.store, record, path, progress=progress) as copy:
        return await in_thread(_commit, copy)
