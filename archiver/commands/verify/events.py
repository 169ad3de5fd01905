"""What happens while an archive is verified or repaired, as frozen types."""

from collections.abc import Callable
from dataclasses import dataclass

from archiver import events
from archiver.commands.verify.findings import Finding
from archiver.errors import ArchiverError


@dataclass(frozen=True, slots=True)
class ToRead:
    """So many more files, of so many bytes together, will be read."""

    files: int
    size: int


@dataclass(frozen=True, slots=True)
class Advanced:
    """So many more bytes were read."""

    size: int


@dataclass(frozen=True, slots=True)
class Verified:
    """An object is what everything written about it says."""

    key: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Found:
    """Something is wrong."""

    finding: Finding


@dataclass(frozen=True, slots=True)
class Noted:
    """Something that is no fault, and that people may want to know."""

    key: str
    text: str


@dataclass(frozen=True, slots=True)
class ResultsKept:
    """What was verified so far is noted in the archive: so many files since the last time."""

    files: int


@dataclass(frozen=True, slots=True)
class ResultsNotKept:
    """The archive does not take the results, as one that is mounted read-only."""

    why: str


@dataclass(frozen=True, slots=True)
class Repaired:
    """An object, a record or a SHA256SUMS is right again."""

    key: str
    origin: str


@dataclass(frozen=True, slots=True)
class NotRepaired:
    """``key`` stays as it is."""

    key: str
    error: ArchiverError


ScrubEvent = (
    ToRead
    | Advanced
    | Verified
    | Found
    | Noted
    | ResultsKept
    | ResultsNotKept
    | Repaired
    | NotRepaired
    | events.Event  # of the pull that a repair from the source is
)
Observer = Callable[[ScrubEvent], None]


def ignore(_: ScrubEvent) -> None:
    """The observer that looks away."""
