"""What happened, as frozen types. The core tells observers; it never prints."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from archiver.errors import ArchiverError
from archiver.model import Backup, Kind, Network


@dataclass(frozen=True, slots=True)
class PageListed:
    """A page of the listing arrived; ``total`` is the API's TotalCount."""

    instance_id: str
    number: int
    backups: int
    total: int


@dataclass(frozen=True, slots=True)
class NothingListed:
    """The vendor has no backup of this instance in the range: seldom what somebody wants."""

    instance_id: str
    start: str
    end: str


@dataclass(frozen=True, slots=True)
class RangeNarrowed:
    """The source does not take a range that begins before all backups: ``start`` is the earliest
    that is asked for."""

    start: str


@dataclass(frozen=True, slots=True)
class Held:
    """The archive holds this backup already."""

    backup: Backup


@dataclass(frozen=True, slots=True)
class Planned:
    """This backup will be fetched (or would be, in a dry run)."""

    backup: Backup


@dataclass(frozen=True, slots=True)
class Unfinished:
    """The vendor is still making this backup; a later run will find it."""

    backup: Backup


@dataclass(frozen=True, slots=True)
class Damaged:
    """A record without its object, or one of another size: it is fetched again."""

    backup: Backup
    why: str


@dataclass(frozen=True, slots=True)
class RouteChosen:
    """Which network a host's files are fetched over, and why."""

    host: str
    network: Network
    why: str


@dataclass(frozen=True, slots=True)
class Started:
    """A transfer began; ``resumed`` bytes of ``backup.size`` were here already."""

    backup: Backup
    resumed: int


@dataclass(frozen=True, slots=True)
class Advanced:
    """``position`` bytes of the file are in place, ``fetched`` more over ``network``, which is None
    for bytes of another archive. The position may go back, when a part is fetched again."""

    backup: Backup
    position: int
    fetched: int
    network: Network | None


@dataclass(frozen=True, slots=True)
class Retrying:
    """Something failed and is tried again after ``wait`` seconds."""

    subject: str
    error: ArchiverError
    attempt: int
    wait: float


@dataclass(frozen=True, slots=True)
class WaitingForSource:
    """Nothing has come from the source, try after try; it is waited for, ``seconds`` at most. Told
    once each time."""

    error: ArchiverError
    seconds: float


@dataclass(frozen=True, slots=True)
class Hedged:
    """A connection is much slower than usual: a second one overtakes it from ``position`` on."""

    backup: Backup
    position: int


@dataclass(frozen=True, slots=True)
class UrlRefreshed:
    """The signed URL had expired, or was about to, and was listed again."""

    backup: Backup


@dataclass(frozen=True, slots=True)
class Mending:
    """The whole does not have the declared CRC-64: parts are fetched again, one by one."""

    backup: Backup


@dataclass(frozen=True, slots=True)
class Archived:
    """Object and record are durable. ``vouched_for`` is False when neither the source nor the file
    has a checksum to hold it against."""

    backup: Backup
    key: str
    size: int
    sha256: str
    network: Network
    bytes_fetched: int
    bytes_fetched_again: int
    vouched_for: bool
    kind: Kind
    seconds: float


@dataclass(frozen=True, slots=True)
class KeptAside:
    """Other bytes replace an object; its own are kept under ``kept``, since they may be missed."""

    key: str
    kept: str


@dataclass(frozen=True, slots=True)
class Failed:
    """``subject`` (a backup, an instance) could not be brought home."""

    subject: str
    error: ArchiverError
    backup: Backup | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """A transfer came to no end; at least ``size`` bytes of it are kept, and need not be fetched
    again."""

    backup: Backup
    size: int


@dataclass(frozen=True, slots=True)
class SetCompleted:
    """Every file of this backup set is here; its SHA256SUMS is written."""

    key: str
    files: int


@dataclass(frozen=True, slots=True)
class SetIncomplete:
    """A backup set lacks files of some nodes."""

    key: str
    files: int
    why: str


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A backup set that lacks files, or a ``backup`` that the vendor failed (``why``), and somebody
    has written into the archive that they know, of ``subject``: it is no failure."""

    subject: str
    why: str
    at: datetime
    by: str
    reason: str
    backup: Backup | None = None


@dataclass(frozen=True, slots=True)
class AcknowledgementCopied:
    """What somebody has taken note of is written into another archive, too."""

    key: str


@dataclass(frozen=True, slots=True)
class SetUnsealed:
    """A backup set that is copied has no SHA256SUMS, or is not all in it; ``why`` says more."""

    key: str
    why: str


@dataclass(frozen=True, slots=True)
class WaitingForLock:
    """Somebody else writes to ``archive``; it is waited for, ``seconds`` at most."""

    archive: str
    error: ArchiverError
    seconds: float


@dataclass(frozen=True, slots=True)
class ArchiveBegun:
    """There was no archive here: this is a new one."""

    archive: str


@dataclass(frozen=True, slots=True)
class Swept:
    """A leftover of an earlier run was removed."""

    key: str
    why: str


@dataclass(frozen=True, slots=True)
class Cleared:
    """What had the name of an object or document, and was none, lies under ``kept`` now."""

    key: str
    kept: str


@dataclass(frozen=True, slots=True)
class SetBegun:
    """A backup set of an archive is being restored or drilled, the ``number``-th of ``of``: so
    many files, of ``size`` bytes together."""

    key: str
    number: int
    of: int
    files: int
    size: int


@dataclass(frozen=True, slots=True)
class FileWorkedOn:
    """How far a file of that set is. ``step`` is what is being done to it (``restoring``), the
    ``number``-th of ``of`` steps, and at ``position`` of ``total``, which are bytes or keys, as
    ``unit`` says. ``size`` is that of the file in bytes."""

    key: str
    size: int
    step: str
    number: int
    of: int
    position: int
    total: int
    unit: str = "B"


@dataclass(frozen=True, slots=True)
class FileLeft:
    """Nothing more is done to a file, however it went."""

    key: str
    size: int


# What tells how far a restore or a drill is.
Work = SetBegun | FileWorkedOn | FileLeft
WorkObserver = Callable[[Work], None]

Event = (
    PageListed
    | NothingListed
    | RangeNarrowed
    | Held
    | Planned
    | Unfinished
    | Damaged
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
)
Observer = Callable[[Event], None]


def ignore(_: Event | Work) -> None:
    """The observer that looks away."""
