"""``restore``: chooses a backup set and writes its files, verified, to a directory.

    restored = await restore(archive, "to", instance_id="r-bp1")

The newest complete set is restored. If it turns out to be damaged, an older one is restored only if
the caller agrees: nobody should get older data without knowing it.
"""

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import datetime
from pathlib import Path

from archiver import events
from archiver.archive.archive import Archive
from archiver.archive.backupsets import BackupSet, named_set, newest_first
from archiver.commands.restore.choice import (
    Candidates,
    DamagedSet,
    damaged_set,
    next_older,
    no_complete_set,
    older_set_hint,
)
from archiver.commands.restore.writer import Restored, SetWriter
from archiver.concurrency import in_thread
from archiver.errors import UsageError
from archiver.logs import OF_WORK, logged
from archiver.stores.local import disk

# Called with a damaged set and the next complete one; returns whether to restore the latter.
Ask = Callable[[BackupSet, BackupSet], Awaitable[bool]]


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
    """Restore the newest complete set of ``instance_id`` at or before ``at``, or a given set.

    A second run continues the first: files that exist are verified and kept. With ``partial``, a
    given set may lack nodes or have damaged ones. If the newest complete set is damaged,
    ``skip_damaged`` tries the next older one, and so on; without it, ``ask`` decides. ``observer``
    is told the progress.

    Raises:
        NoSuchBackup: There is no such instance or set, or no complete set.
        UsageError: There is no archive, no set can have this name, or a target file exists.
        DamagedSet: A file of the set differs from its record, or the store cannot read it
            (UnreadableSet). Nothing of the set is restored.
        IntegrityError: No set can be restored, and one is damaged.
        NoSpace, StoreError: The disk or the store failed.
    """
    await archive.expect()
    if set_key is None and instance_id is None:
        raise UsageError("name an instance or a backup set", hint="--instance or --set")
    if set_key is not None and instance_id is not None:
        raise UsageError("a set is of one instance: leave out --instance or --set")
    if skip_damaged and (partial or set_key is not None):
        raise UsageError("--skip-damaged can only be used with --instance, without --partial")
    # The printed commands must work from any directory.
    target = await in_thread(disk.absolute, directory)
    writer = SetWriter(archive, target, logged(observer, OF_WORK), partial=partial)
    if set_key is not None:
        return await _restore_given(writer, set_key)
    return await _restore_newest(writer, str(instance_id), at, ask, skip_damaged=skip_damaged)


async def _restore_given(writer: SetWriter, set_key: str) -> Restored:
    found = await named_set(writer.archive, set_key)
    if found.damage and not (writer.partial and found.records):
        raise await _given_set_damaged(writer.archive, found)
    if not found.records or not (found.is_complete or writer.partial):
        raise no_complete_set([found])
    try:
        return await writer.write(found, ())
    except DamagedSet as error:
        raise await _given_set_damaged(writer.archive, error.damaged) from None


async def _given_set_damaged(archive: Archive, found: BackupSet) -> DamagedSet:
    other = await next_older(archive, found)
    option = "" if other is None else f"--set {other.key}"
    return damaged_set(found, other, older_set_hint(option, found, other))


async def _restore_newest(
    writer: SetWriter,
    instance_id: str,
    at: datetime | None,
    ask: Ask | None,
    *,
    skip_damaged: bool,
) -> Restored:
    """Restore the newest complete set; go back to older ones as far as the caller allows."""
    passed_over: list[BackupSet] = []
    agreed: BackupSet | None = None
    newest = Candidates(newest_first(writer.archive, instance_id, at))
    async with aclosing(newest) as sets:
        while (found := await sets.take()) is not None:
            if found.is_complete:
                try:
                    return await writer.write(found, tuple(passed_over))
                except DamagedSet as error:
                    found = error.damaged
            passed_over.append(found)
            if not found.damage or skip_damaged:
                continue
            following = await sets.next_complete()
            if following is not None and following is agreed:
                continue
            if following is None or ask is None or not await ask(found, following):
                hint = older_set_hint("--skip-damaged", found, following)
                raise damaged_set(found, following, hint)
            agreed = following
    raise no_complete_set(passed_over)
