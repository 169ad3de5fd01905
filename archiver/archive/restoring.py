"""Backups as a server wants to find them: ``restore`` and what it leaves in a directory.

DIR/<node>/dump.rdb                                  or, for a log of commands,
DIR/<node>/appendonlydir/appendonly.aof.1.base.aof   with appendonly.aof.manifest beside it
DIR/<node>/record.json                               the archive's record of the file
DIR/<node>/RESTORE.txt                               the command, and what it needs

A standard instance is its own node: DIR/<instance>/dump.rdb.
"""

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from archiver.archive import layout
from archiver.archive.archive import Archive
from archiver.archive.backupsets import BackupSet, named_set, newest_first
from archiver.archive.copyout import Copied, copy_out, put_beside, replace_beside
from archiver.archive.record import Record
from archiver.errors import EXIT_OK, IntegrityError, NoSpace, UsageError
from archiver.model import Kind
from archiver.rdb import releases
from archiver.rdb.magic import rdb_version
from archiver.stores import disk
from archiver.threads import in_thread

DUMP: Final = "dump.rdb"
LOGS: Final = "appendonlydir"
LOG: Final = "appendonly.aof"
_LOG_BASE = f"{LOG}.1.base.aof"
_MANIFEST = f"file {_LOG_BASE} seq 1 type b\n".encode()
_FIRST_PORT = 6379


@dataclass(frozen=True, slots=True)
class RestoredFile:
    """One node's file in its place; ``command`` starts a server on it, ``needs`` says which.

    There is no command for a file that no server loads as it is.
    """

    node_id: str
    record: Record
    copied: Copied
    command: str | None
    needs: str


@dataclass(frozen=True, slots=True)
class Restored:
    """A set in a directory.

    ``left_out`` are further files of its nodes, ``passed_over`` newer sets that are not complete.
    ``damaged`` says of each node whose file is wrong, and is not here, why.
    """

    backup_set: BackupSet
    files: tuple[RestoredFile, ...]
    left_out: tuple[Record, ...]
    passed_over: tuple[BackupSet, ...]
    damaged: Mapping[str, str]

    @property
    def exit_code(self) -> int:
        """3 for damage, in a set that was passed over, too; 1 when it is not whole, or a file of
        it is for no server."""
        if self.damaged or any(one.damage for one in self.passed_over):
            return IntegrityError.exit_code
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
    progress: Callable[[Record, int], None] | None = None,
) -> Restored:
    """Lay out the newest complete set of ``instance_id`` at or before ``at``, or the set named.

    Run again, it goes on: what is there is checked and stays. ``partial`` takes what there is of
    a named set that lacks nodes, or has damaged ones.

    Raises:
        UsageError: No such instance or set, none is complete, or something is in the way.
        IntegrityError: The set, or a file of it, is not what its records say.
        NoSpace, StoreError: The disk, or the store.
    """
    backup_set, passed_over = await _choose(archive, instance_id, at, set_key, partial=partial)
    # The commands are for any working directory.
    target = await in_thread(lambda: Path(directory).expanduser().absolute())
    damaged = dict(backup_set.damage)
    chosen = [record for record in backup_set.chosen() if record.node_id not in damaged]
    await in_thread(lambda: check_space(target, _still_to_come(target, chosen)))
    files = list[RestoredFile]()
    for record in chosen:
        try:
            copied = await lay_out(archive, record, target, progress=progress)
            files.append(await in_thread(_document, record, copied, len(files)))
        except IntegrityError as error:
            if not partial:
                raise
            damaged[record.node_id] = error.message
    if not files:
        raise IntegrityError(f"{backup_set.key}: {'; '.join(damaged.values())}")
    others = [one for one in backup_set.records if one not in chosen]
    left_out = tuple(one for one in others if one.node_id not in damaged)
    return Restored(backup_set, tuple(files), left_out, passed_over, damaged)


async def lay_out(
    archive: Archive,
    record: Record,
    directory: Path,
    *,
    progress: Callable[[Record, int], None] | None = None,
) -> Copied:
    """Put one file where a server finds it, below ``directory``. Raises as :func:`restore`."""
    place = file_place(record, directory)

    def tell(position: int) -> None:
        if progress is not None:
            progress(record, position)

    copied = await copy_out(archive.store, record, place, progress=tell)
    if _recorded_kind(record) is Kind.AOF:
        await in_thread(put_beside, place.with_name(f"{LOG}.manifest"), _MANIFEST)
    return copied


def file_place(record: Record, directory: Path) -> Path:
    """Where the file of ``record`` is laid out. Raises UnsafeInput for an id that leads away."""
    node = directory / layout.safe(record.node_id)
    if _recorded_kind(record) is Kind.AOF:
        return node / LOGS / _LOG_BASE
    return node / DUMP


def command(copied: Copied, port: int) -> str | None:
    """What starts a server on the file: for a shell, from any directory (pure)."""
    if copied.kind is Kind.UNKNOWN:
        return None
    # Without --save "" the server writes over the copy when it is stopped.
    words = ["redis-server", "--port", str(port), "--databases", str(releases.DATABASES)]
    words += ["--save", ""]
    if copied.kind is Kind.AOF:
        folder = copied.path.parent.parent
        words += ["--dir", str(folder), "--appendonly", "yes"]
        words += ["--appenddirname", LOGS, "--appendfilename", LOG]
    else:
        words += ["--dir", str(copied.path.parent), "--dbfilename", copied.path.name]
    return shlex.join(words)


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


async def _choose(
    archive: Archive,
    instance_id: str | None,
    at: datetime | None,
    set_key: str | None,
    *,
    partial: bool,
) -> tuple[BackupSet, tuple[BackupSet, ...]]:
    """The set to restore, and those passed over for it."""
    if not await archive.check_format():
        raise UsageError(f"{archive.store}: there is no archive here")
    if (set_key is None) is (instance_id is None):
        raise UsageError("name an instance, or a backup set", hint="--instance or --set")
    if set_key is not None:
        found = await named_set(archive, set_key)
        if found.damage and not (partial and found.records):
            raise _damaged(found)
        if not found.records or not (found.is_complete or partial):
            raise _incomplete([found])
        return found, ()
    passed_over: list[BackupSet] = []
    async for found in newest_first(archive, str(instance_id), at):
        if found.is_complete:
            return found, tuple(passed_over)
        passed_over.append(found)
    if damaged := [one for one in passed_over if one.damage]:
        raise _damaged(damaged[0])
    raise _incomplete(passed_over)


def _damaged(one: BackupSet) -> IntegrityError:
    return IntegrityError(
        f"{one.key}: {one.why_not}",
        hint=f"--set {one.key} --partial restores its other nodes" if len(one.nodes) > 1 else None,
    )


def _incomplete(sets: Sequence[BackupSet]) -> UsageError:
    newest = sets[0]
    which = "the set" if len(sets) == 1 else f"none of {len(sets)} sets is complete; the newest"
    return UsageError(
        f"{which}, {newest.key}, is not complete: {newest.why_not}",
        hint=f"--set {newest.key} --partial restores what there is of it",
    )


def _still_to_come(directory: Path, records: Sequence[Record]) -> int:
    return sum(record.size for record in records if not file_place(record, directory).exists())


def _document(record: Record, copied: Copied, number: int) -> RestoredFile:
    """Write beside the file what somebody needs who finds it. Blocks."""
    done = RestoredFile(
        record.node_id,
        record,
        copied,
        command(copied, _FIRST_PORT + number),
        _needs(copied),
    )
    node = copied.path.parent.parent if copied.kind is Kind.AOF else copied.path.parent
    # What is said of the same dump may have changed since: a repair adds to its record.
    for name, data in (("record.json", record.encode()), ("RESTORE.txt", _text(done).encode())):
        replace_beside(node / name, data)
    return done


def _needs(copied: Copied) -> str:
    magic = copied.rdb.version
    if copied.kind is Kind.UNKNOWN:
        return (
            "to be decrypted or converted first: by its first bytes it is no dump, and no server "
            "that we know of loads it"
        )
    return releases.needed(magic, None if magic is None else rdb_version(magic.encode()))


def _text(done: RestoredFile) -> str:
    record = done.record
    how = (
        f"No command starts a server on it. It needs {done.needs}.\n"
        if done.command is None
        else f"    {done.command}\n\n"
        f'It needs {done.needs}. If the server\'s log says "no matching module type", the dump\n'
        "has types of Tair, and only Tair, or a server with those modules, loads it. Stop the\n"
        "server with SHUTDOWN NOSAVE to leave the file as it is: a save replaces it.\n"
    )
    return (
        f"{record.object_key}\n"
        f"node {record.node_id}, backup {record.backup_id}, "
        f"begun {record.started_at:%Y-%m-%dT%H:%M:%SZ}\n"
        f"{record.size} bytes, SHA-256 {record.sha256}\n\n{how}"
    )


def _recorded_kind(record: Record) -> Kind:
    suffix = record.object_key.rpartition(".")[2]
    return Kind(suffix) if suffix in set(Kind) else Kind.UNKNOWN
