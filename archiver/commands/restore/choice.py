"""Chooses the set to restore, and builds the errors for sets that cannot be restored."""

import re
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from typing import Final

from archiver.archive.archive import Archive
from archiver.archive.backupsets import BackupSet, exit_code_of, read_set
from archiver.archive.folders import list_folders
from archiver.errors import IntegrityError, NoSuchBackup, StoreError, UnreadableObject

_OTHER_DIGEST: Final = re.compile(r"SHA-256 is [0-9a-f]{64}, its record says [0-9a-f]{64}")


class DamagedSet(IntegrityError):
    """The chosen set is damaged: the message says how in brief, ``damaged.why_not`` in full.

    ``following`` is the next older set that is complete by its records, if there is one. Its bytes
    have not been verified.
    """

    def __init__(self, damaged: BackupSet, following: BackupSet | None, hint: str | None) -> None:
        super().__init__(f"{damaged.key} {damaged.fault}: {brief(damaged)}", hint=hint)
        self.damaged: Final = damaged
        self.following: Final = following


class UnreadableSet(DamagedSet):
    """The chosen set may be intact, but the store cannot read some of it."""

    exit_code = StoreError.exit_code


def damaged_set(damaged: BackupSet, following: BackupSet | None, hint: str | None) -> DamagedSet:
    """Return the error for a damaged or unreadable set."""
    is_unread = exit_code_of(damaged.damage) == UnreadableSet.exit_code
    return (UnreadableSet if is_unread else DamagedSet)(damaged, following, hint)


class Candidates:
    """Iterates over sets, and reads each one when it is needed. Close it with ``aclose``."""

    def __init__(self, sets: AsyncGenerator[BackupSet, None]) -> None:
        self._sets: Final = sets
        self._ahead: Final = deque[BackupSet]()

    async def aclose(self) -> None:
        await self._sets.aclose()

    async def take(self) -> BackupSet | None:
        """Return the next set; None after the last."""
        return self._ahead.popleft() if self._ahead else await anext(self._sets, None)

    async def next_complete(self) -> BackupSet | None:
        """Return the next set that is complete by its records, without taking it."""
        for one in self._ahead:
            if one.is_complete:
                return one
        async for one in self._sets:
            self._ahead.append(one)
            if one.is_complete:
                return one
        return None


async def next_older(archive: Archive, named: BackupSet) -> BackupSet | None:
    """Return the newest complete set of the same instance that started before ``named``."""
    folders = await list_folders(archive, [named.folder.instance_id])
    for folder in reversed(folders):
        if folder.is_full and folder.started_at < named.folder.started_at:
            found = await read_set(archive, folder, folders)
            if found.is_complete:
                return found
    return None


def older(damaged: BackupSet, following: BackupSet) -> str:
    """Format how much older the second set is: ``24 h older``."""
    minutes = (damaged.folder.started_at - following.folder.started_at).total_seconds() / 60
    if minutes < 120:
        return f"{minutes:.0f} min older"
    if minutes < 72 * 60:
        return f"{minutes / 60:.0f} h older"
    return f"{minutes / 60 / 24:.0f} days older"


def brief(damaged: BackupSet) -> str:
    """Return what is wrong with a set first of all, without its key and without digests."""
    instance, (first, *others) = damaged.folder.instance_id, damaged.damaged
    own = rf"\S*{re.escape(damaged.key)}(?:\.(?!json:)\w+: |/(?:{re.escape(instance)}-)?)"
    text = _OTHER_DIGEST.sub("wrong SHA-256", re.sub(own, "", first))
    return f"{text}; and {len(others):,} more" if others else text


def older_set_hint(option: str, damaged: BackupSet, following: BackupSet | None) -> str | None:
    """Return the hint on the option that restores the next complete set, or without one on the
    intact nodes."""
    if following is None:
        return partial_hint(damaged)
    return f"{option} restores one {older(damaged, following)}"


def partial_hint(one: BackupSet) -> str | None:
    """Return the hint on restoring the intact nodes of a damaged cluster set, if it has any."""
    if len(one.nodes) < 2:
        return None
    return f"--set {one.key} --partial restores the other nodes"


def no_complete_set(
    sets: Sequence[BackupSet],
) -> IntegrityError | UnreadableObject | NoSuchBackup:
    """Return the error for when no set can be restored completely."""
    if damaged := [one for one in sets if one.damage]:
        which = "" if len(sets) == 1 else f"none of {len(sets)} sets can be restored; "
        first = damaged[0]
        is_unread = exit_code_of(d for one in sets for d in one.damage) == StoreError.exit_code
        return (UnreadableObject if is_unread else IntegrityError)(
            f"{which}{first.key} {first.fault}: {first.why_not}", hint=partial_hint(first)
        )
    newest = sets[0]
    what = f"the set {newest.key} is not complete"
    if len(sets) > 1:
        what = f"none of {len(sets)} sets is complete; the newest is {newest.key}"
    return NoSuchBackup(
        f"{what}: {newest.why_not}",
        hint=f"--set {newest.key} --partial restores the nodes that it has",
    )
