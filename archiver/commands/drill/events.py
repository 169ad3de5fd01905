"""What a drill tells those who watch it, frozen. The core never prints."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from archiver.events import Work
from archiver.report.chain import Finding
from archiver.report.evidence import FileEvidence, SetEvidence


@dataclass(frozen=True, slots=True)
class Chosen:
    """The sets were chosen, ``available`` of them to choose from."""

    keys: tuple[str, ...]
    available: int


@dataclass(frozen=True, slots=True)
class ChainFault:
    """Something is wrong with the evidence of earlier drills."""

    finding: Finding


@dataclass(frozen=True, slots=True)
class ArchiveRefuses:
    """The archive cannot be written, as it is before the drill. The evidence goes ``instead``
    into a directory, if one was given."""

    why: str
    instead: Path | None


@dataclass(frozen=True, slots=True)
class ChainUnseen:
    """The evidence of earlier drills cannot be seen."""

    why: str


@dataclass(frozen=True, slots=True)
class WaitingForLock:
    """Somebody else writes to the archive: it is waited for."""

    why: str


@dataclass(frozen=True, slots=True)
class EvidenceElsewhere:
    """The evidence is not in all the places that it should be in; ``places`` have it."""

    why: str
    places: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Swept:
    """The directory of a drill that was killed was removed."""

    directory: Path


@dataclass(frozen=True, slots=True)
class LeftAlone:
    """A directory that looks like one of those was not."""

    directory: Path
    why: str


@dataclass(frozen=True, slots=True)
class Trying:
    """A file is being restored; ``size`` in bytes."""

    object_key: str
    size: int


@dataclass(frozen=True, slots=True)
class FileTried:
    """What became of a file."""

    file: FileEvidence


@dataclass(frozen=True, slots=True)
class SetJudged:
    """What became of a set."""

    evidence: SetEvidence


@dataclass(frozen=True, slots=True)
class NotCompared:
    """A bound on the change of an instance's keys was given, and there is no drill to compare
    with."""

    instance_id: str
    why: str


@dataclass(frozen=True, slots=True)
class FromTheFuture:
    """A set began ``seconds`` after the drill did, by this machine's clock: its age is unknown."""

    key: str
    seconds: float


@dataclass(frozen=True, slots=True)
class ClockSetBack:
    """This machine's clock was set back by so many seconds during the drill."""

    seconds: float


@dataclass(frozen=True, slots=True)
class ServerIsRoot:
    """This process is root, and a server could not be made nobody: it is root, too."""


# All but how far it is.
Told = (
    Chosen
    | ChainFault
    | ArchiveRefuses
    | ChainUnseen
    | WaitingForLock
    | EvidenceElsewhere
    | Swept
    | LeftAlone
    | Trying
    | FileTried
    | SetJudged
    | NotCompared
    | FromTheFuture
    | ClockSetBack
    | ServerIsRoot
)
Happened = Told | Work
Watcher = Callable[[Happened], None]
