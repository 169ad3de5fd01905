"""What is to be done about a backup that is listed, by what the archive says of it. Pure."""

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum

from archiver.archive.inventory import Finding
from archiver.errors import UsageError
from archiver.model import Backup, BackupMode, BackupType, Status
from archiver.transfer.engine import TransferOptions
from archiver.transfer.receipt import empty_dump


@dataclass(frozen=True, slots=True)
class PullOptions:
    """Which backups to download, and how many at once.

    Empty ``types`` or ``modes`` mean all. ``workers`` is the number of large files at once; beside
    them, files of up to 256 KiB are downloaded in batches, or SMALL_FOR_LARGE times as many. For a
    repair, ``again`` are the stems (keys without suffix) of backups to download though the archive
    has them, and ``repaired`` the sets whose documents may be wrong and are written again.
    """

    types: frozenset[BackupType] = frozenset()
    modes: frozenset[BackupMode] = frozenset()
    workers: int = 4
    dry_run: bool = False
    again: frozenset[str] = frozenset()
    repaired: frozenset[str] = frozenset()
    transfer: TransferOptions = field(default_factory=TransferOptions)

    def __post_init__(self) -> None:
        """Raises UsageError for a word that no backup has: it would leave all of them out."""
        for words, known in ((self.types, BackupType), (self.modes, BackupMode)):
            if unknown := sorted(words - set(known)):
                raise UsageError(f"{unknown[0]!r} is not one of {', '.join(known)}")

    def wants(self, backup: Backup) -> bool:
        """Whether the type and mode of a backup are among those asked for."""
        return (not self.types or backup.type in self.types) and (
            not self.modes or backup.mode in self.modes
        )


class Action(StrEnum):
    """What is to be done about a backup."""

    FETCH = "fetch"
    HELD = "held"  # nothing: the archive has it
    UNFINISHED = "unfinished"  # nothing yet: the vendor is still making it
    FAILED = "failed"  # nothing can be: the vendor failed to make it
    EMPTY = "empty"  # a full backup cannot have 0 bytes
    DUPLICATE = "duplicate"  # another query listed it, too, and this run fetches it for that one
    UNREADABLE = "unreadable"  # nobody can see whether the archive has it


def decide(finding: Finding, options: PullOptions, fetched: Collection[str]) -> Action:
    """What to do about one listed backup, given what the archive has of it; ``fetched`` are the
    stems of those that this run downloads already."""
    transfer = finding.transfer
    backup = transfer.backup
    if finding.unreadable is not None and transfer.set_key not in options.repaired:
        return Action.UNREADABLE
    if finding.record is not None and transfer.stem not in options.again:
        return Action.HELD
    if backup.status is Status.UNFINISHED:
        return Action.UNFINISHED
    if backup.status is Status.FAILED:
        return Action.FAILED
    if empty_dump(backup, backup.size) is not None:
        return Action.EMPTY
    return Action.DUPLICATE if transfer.stem in fetched else Action.FETCH
