"""The events of a drill, frozen. Only the command line prints them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from archiver.events import Retrying, Work
from archiver.report.chain import Finding
from archiver.report.evidence import FileEvidence, SetEvidence


@dataclass(frozen=True, slots=True)
class Chosen:
    """The sets were chosen, from ``available`` sets."""

    keys: tuple[str, ...]
    available: int


@dataclass(frozen=True, slots=True)
class ChainFault:
    """There is a fault in the evidence of earlier drills."""

    finding: Finding


@dataclass(frozen=True, slots=True)
class ArchiveNotWritable:
    """Before the drill, the archive cannot be written.

    The evidence will be written to the directory ``instead`` (None: there is no such directory).
    """

    why: str
    instead: Path | None


@dataclass(frozen=True, slots=True)
class ChainUnreadable:
    """The evidence of earlier drills cannot be read."""

    why: str


@dataclass(frozen=True, slots=True)
class WaitingForLock:
    """The drill waits for another process that is writing to the archive."""

    why: str


@dataclass(frozen=True, slots=True)
class EvidenceIncomplete:
    """The evidence could not be written everywhere; it is only in ``stores``."""

    why: str
    stores: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ScratchRemoved:
    """The directory of a killed drill was removed."""

    directory: Path


@dataclass(frozen=True, slots=True)
class ScratchNotRemoved:
    """A directory that looks like that of a killed drill was not removed."""

    directory: Path
    why: str


@dataclass(frozen=True, slots=True)
class Trying:
    """A file is about to be restored; ``size`` in bytes."""

    object_key: str
    size: int


@dataclass(frozen=True, slots=True)
class FileTried:
    """A file was tried."""

    file: FileEvidence


@dataclass(frozen=True, slots=True)
class SetJudged:
    """A set was judged."""

    evidence: SetEvidence


@dataclass(frozen=True, slots=True)
class NotCompared:
    """The number of keys was to be compared with an earlier drill, and there is none."""

    instance_id: str
    why: str


@dataclass(frozen=True, slots=True)
class FromTheFuture:
    """A set started ``seconds`` after the drill, by this machine's clock. Its age is unknown."""

    key: str
    seconds: float


@dataclass(frozen=True, slots=True)
class ClockSetBack:
    """This machine's clock was set back during the drill."""

    seconds: float


@dataclass(frozen=True, slots=True)
class ServerIsRoot:
    """A server runs as root, because it could not be run as nobody."""


# All events except progress.
DrillEvent = (
    Chosen
    | ChainFault
    | ArchiveNotWritable
    | ChainUnreadable
    | WaitingForLock
    | EvidenceIncomplete
    | ScratchRemoved
    | ScratchNotRemoved
    | Trying
    | FileTried
    | SetJudged
    | NotCompared
    | FromTheFuture
    | ClockSetBack
    | ServerIsRoot
    | Retrying
)
Observer = Callable[[DrillEvent | Work], None]
