"""Events of a run, as frozen types. The library passes them to observers; it never prints."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Self

from archiver.errors import ArchiverError
from archiver.model import Backup, Kind, Named, Network, Stored


@dataclass(frozen=True, slots=True)
class PageListed:
    """A page of the listing arrived; ``total`` is how many backups the source says it has, if it
    does."""

    instance_id: str
    number: int
    backups: int
    total: int | None


@dataclass(frozen=True, slots=True)
class NothingListed:
    """The source lists no backup of this instance in the range, which is rarely intended."""

    instance_id: str
    start: str
    end: str


@dataclass(frozen=True, slots=True)
class Selected:
    """So many ``instances`` are selected; the oldest list that names them is ``seconds`` old."""

    instances: int
    seconds: float


@dataclass(frozen=True, slots=True)
class NothingSelected:
    """No instance of this region is selected, though it was named: perhaps a typo."""

    region: str


@dataclass(frozen=True, slots=True)
class NothingFits:
    """The ``value`` of an option that chooses among all instances fits none of those listed."""

    option: str
    value: str


@dataclass(frozen=True, slots=True)
class NotBackedUp:
    """The source makes no backups of this instance, and ``why``. That is no failure."""

    instance_id: str
    why: str


@dataclass(frozen=True, slots=True)
class RangeNarrowed:
    """The source rejects ranges that start before all backups; ``start`` is used instead."""

    start: str


@dataclass(frozen=True, slots=True)
class Held:
    """The archive holds this backup already."""

    backup: Named


@dataclass(frozen=True, slots=True)
class Planned:
    """This backup will be downloaded (or would be, in a dry run)."""

    backup: Backup


@dataclass(frozen=True, slots=True)
class Unfinished:
    """The source has not finished this backup; a later run will download it."""

    backup: Backup


@dataclass(frozen=True, slots=True)
class NotTaken:
    """A file, or a folder of files, that is no backup yet or none at all; ``why`` says which."""

    instance_id: str
    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Damaged:
    """A record that cannot be used, or whose object is missing or has another size. ``cure`` says
    what is done about it."""

    backup: Backup
    why: str
    cure: str


@dataclass(frozen=True, slots=True)
class FoundWrong:
    """A backup that is held, and that an earlier verify found wrong: it stays as it is."""

    backup: Named
    error: ArchiverError


@dataclass(frozen=True, slots=True)
class RouteChosen:
    """The network that is used for a host's files, and why."""

    host: str
    network: Network
    why: str


@dataclass(frozen=True, slots=True)
class Started:
    """A transfer started; ``resumed`` bytes of ``size`` were staged by an earlier run."""

    backup: Backup
    resumed: int
    size: int


@dataclass(frozen=True, slots=True)
class Advanced:
    """``fetched`` more bytes arrived over ``network`` (None: from an archive or a file), and now
    ``position`` bytes of the file are staged. That decreases when a part is downloaded again."""

    backup: Backup
    position: int
    fetched: int
    network: Network | None

    def after(self, before: object) -> Self | None:
        """One event in place of two; None if they cannot be one."""
        if not isinstance(before, Advanced) or before.network is not self.network:
            return None
        return replace(self, fetched=before.fetched + self.fetched)


@dataclass(frozen=True, slots=True)
class Retrying:
    """Something failed and will be retried after ``wait`` seconds."""

    subject: str
    error: ArchiverError
    attempt: int
    wait: float
    instance_id: str | None = None


@dataclass(frozen=True, slots=True)
class WaitingForSource:
    """The source does not respond, and is retried for at most ``seconds``. Sent once an outage."""

    error: ArchiverError
    seconds: float


@dataclass(frozen=True, slots=True)
class Hedged:
    """A connection is much slower than usual; a second one overtakes it from ``position`` on."""

    backup: Backup
    position: int


@dataclass(frozen=True, slots=True)
class UrlRefreshed:
    """A signed URL had expired, or was about to, and was renewed."""

    backup: Backup


@dataclass(frozen=True, slots=True)
class Mending:
    """The file's CRC-64 differs from the declared one: parts are downloaded again, one by one."""

    backup: Backup


@dataclass(frozen=True, slots=True)
class Archived:
    """Object and record are durable. ``vouched_for`` is False when neither the source nor the file
    has a checksum to verify it with."""

    backup: Backup
    key: str
    size: int
    sha256: str
    network: Network | None
    bytes_fetched: int
    bytes_fetched_again: int
    vouched_for: bool
    kind: Kind
    seconds: float

    @classmethod
    def of(cls, backup: Backup, stored: Stored) -> Self:
        """What a commit has made durable."""
        receipt = stored.receipt
        return cls(
            backup, stored.key, receipt.size, receipt.sha256, receipt.provenance.network,
            receipt.bytes_fetched, receipt.bytes_fetched_again, receipt.is_vouched_for,
            receipt.kind, (receipt.finished_at - receipt.started_at).total_seconds(),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class KeptAside:
    """An object is replaced by other bytes; its old ones are kept under ``kept``."""

    key: str
    kept: str


@dataclass(frozen=True, slots=True)
class Failed:
    """``subject`` (a backup or an instance) could not be made, listed or downloaded."""

    subject: str
    error: ArchiverError
    backup: Backup | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """A transfer ended early; at least ``size`` bytes of it are kept for a later run."""

    backup: Backup
    size: int


@dataclass(frozen=True, slots=True)
class SetCompleted:
    """All files of this backup set are archived; SHA256SUMS names them, or will at the end of the
    run."""

    key: str
    files: int


@dataclass(frozen=True, slots=True)
class SetIncomplete:
    """A backup set lacks the files of some nodes."""

    key: str
    files: int
    why: str


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A backup set that lacks files, or a ``backup`` that failed at the vendor (``why``), does not
    count as a failure, because somebody acknowledged ``subject`` in the archive."""

    subject: str
    why: str
    at: datetime
    by: str
    reason: str
    backup: Backup | None = None


@dataclass(frozen=True, slots=True)
class AcknowledgementCopied:
    """An acknowledgement was copied into another archive."""

    key: str


@dataclass(frozen=True, slots=True)
class SetUnsealed:
    """SHA256SUMS does not name all files of a copied backup set; ``why`` says more."""

    key: str
    why: str


@dataclass(frozen=True, slots=True)
class WaitingForLock:
    """Another process writes to ``archive``; the run waits for it, ``seconds`` at most."""

    archive: str
    error: ArchiverError
    seconds: float


@dataclass(frozen=True, slots=True)
class ArchiveBegun:
    """A new archive was created."""

    archive: str


@dataclass(frozen=True, slots=True)
class Swept:
    """A leftover of an earlier run was removed."""

    key: str
    why: str


@dataclass(frozen=True, slots=True)
class Cleared:
    """Something with the name of an object or document that was none was moved to ``kept``."""

    key: str
    kept: str


@dataclass(frozen=True, slots=True)
class BackupBegun:
    """The source makes a backup now. ``jobs`` are the ids of its jobs; ``instead``, where it is not
    the one that was asked for, says why it is waited for."""

    instance_id: str
    jobs: tuple[str, ...]
    began_at: datetime | None
    instead: str | None = None


@dataclass(frozen=True, slots=True)
class BackupAdvanced:
    """How far a backup on demand is: ``percent``, and ``state`` in the source's own words."""

    instance_id: str
    jobs: tuple[str, ...]
    state: str
    percent: int


@dataclass(frozen=True, slots=True)
class BackupMade:
    """A backup on demand is listed, ``seconds`` after it was asked for or waited for."""

    instance_id: str
    jobs: tuple[str, ...]
    backups: tuple[Backup, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class SetBegun:
    """The restore or drill of a backup set started, the ``number``-th of ``of``: ``files`` files,
    ``size`` bytes together."""

    key: str
    number: int
    of: int
    files: int
    size: int


@dataclass(frozen=True, slots=True)
class FileWorkedOn:
    """Progress with one file of the set. ``step`` is what is being done (``restoring``), the
    ``number``-th of ``of`` steps; it is at ``position`` of ``total``, in bytes or keys as ``unit``
    says. ``size`` is that of the file in bytes."""

    key: str
    size: int
    step: str
    number: int
    of: int
    position: int
    total: int
    unit: str = "B"

    def after(self, before: object) -> Self | None:
        """One event in place of two; None if they cannot be one."""
        is_same = isinstance(before, FileWorkedOn) and before.key == self.key
        return self if is_same else None


@dataclass(frozen=True, slots=True)
class FileLeft:
    """Work on a file ended, successfully or not."""

    key: str
    size: int


# The progress of a restore or a drill.
Work = SetBegun | FileWorkedOn | FileLeft
WorkObserver = Callable[[Work], None]

Event = (
    PageListed
    | NothingListed
    | Selected
    | NothingSelected
    | NothingFits
    | NotBackedUp
    | RangeNarrowed
    | Held
    | Planned
    | Unfinished
    | NotTaken
    | Damaged
    | FoundWrong
    | RouteChosen
    | Started
    | Advanced
    | Retrying
    | WaitingForSource
    | Hedged
    | UrlRefreshed
    | Mending
    | Archived
    | KeptAside
    | Failed
    | Kept
    | SetCompleted
    | SetIncomplete
    | Acknowledged
    | AcknowledgementCopied
    | SetUnsealed
    | WaitingForLock
    | ArchiveBegun
    | Swept
    | Cleared
    | BackupBegun
    | BackupAdvanced
    | BackupMade
)
Observer = Callable[[Event], None]


def ignore(_: Event | Work) -> None:
    """An observer that does nothing."""
