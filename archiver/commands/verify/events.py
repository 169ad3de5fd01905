"""The events of a verify and a repair, frozen."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

from archiver import events
from archiver.commands.verify.findings import Finding
from archiver.errors import ArchiverError


@dataclass(frozen=True, slots=True)
class ToRead:
    """More files will be read, with ``size`` bytes in total."""

    files: int
    size: int


@dataclass(frozen=True, slots=True)
class Advanced:
    """More bytes were read."""

    size: int

    def after(self, before: object) -> Self | None:
        """One event in place of two; None if they cannot be one."""
        return replace(self, size=before.size + self.size) if isinstance(before, Advanced) else None


@dataclass(frozen=True, slots=True)
class Verified:
    """An object agrees with everything that is written about it."""

    key: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Found:
    """Something is wrong."""

    finding: Finding


@dataclass(frozen=True, slots=True)
class Noted:
    """Something that is no fault, but that people may want to know."""

    key: str
    text: str


@dataclass(frozen=True, slots=True)
class ResultsKept:
    """The results of ``files`` more files were stored in the archive."""

    files: int


@dataclass(frozen=True, slots=True)
class ResultsNotKept:
    """The archive does not accept the results, such as one that is mounted read-only."""

    why: str


@dataclass(frozen=True, slots=True)
class Repaired:
    """An object, a record or a SHA256SUMS is right again."""

    key: str
    origin: str


@dataclass(frozen=True, slots=True)
class NotRepaired:
    """``key`` could not be repaired."""

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
    | events.Event  # of the pull of a repair from the source
)
Observer = Callable[[ScrubEvent], None]


def ignore(_: ScrubEvent) -> None:
    """An observer that does nothing."""
