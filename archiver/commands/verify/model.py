"""What to verify, and what that came to."""

from dataclasses import dataclass, field
from datetime import timedelta

from archiver.archive import layout
from archiver.commands.verify import events
from archiver.commands.verify.findings import Finding
from archiver.commands.verify.sample import Sample
from archiver.errors import BackupFailed, IntegrityError, StoreError, worst_exit_code
from archiver.events import Acknowledged
from archiver.report.evidence import Link
from archiver.times import TimeRange


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """What to look at, and how.

    ``instances``, ``range`` (of the sets' starts) and ``sets`` (keys of sets, or of months with all
    of theirs) narrow it; empty means all. ``sample`` reads a part of the files; ``since_verified``
    passes over those that were right so recently. ``anchors`` are ids and hashes of drill evidence
    that were kept elsewhere. ``workers`` files are read at once, with 1 MiB each; results are kept
    every ``keep_every`` seconds.
    """

    instances: tuple[str, ...] = ()
    range: TimeRange | None = None
    sets: frozenset[str] = frozenset()
    sample: Sample | None = None
    since_verified: timedelta | None = None
    anchors: tuple[Link, ...] = ()
    workers: int = 4
    keep_every: float = 30.0

    def wants(self, set_key: str) -> bool:
        """Whether a set is among those asked for. One whose name gives no time is."""
        if self.sets and self.sets.isdisjoint((set_key, layout.month_of(set_key))):
            return False
        return layout.began_in(set_key, self.range)

    def reaches(self, key: str) -> bool:
        """Whether what lies where no set is may be one that is asked for, or keep some from being
        seen."""
        if self.sets and not any(f"{one}/".startswith(f"{key}/") for one in self.sets):
            return False
        return layout.began_in(key, self.range)


@dataclass(slots=True)
class VerifySummary:
    """What a verify came to. ``files`` and ``size`` are of all objects that were looked at; of
    these, ``read`` were read, ``recent`` were verified recently and not read, and the others were
    compared by name, size and record alone. ``strata`` are the months of instances.

    ``repaired`` are findings that a repair put right, and ``acknowledged`` incomplete sets that
    somebody has taken note of; they are not in ``findings``. ``notes`` are no faults."""

    files: int = 0
    size: int = 0
    read: int = 0
    bytes_read: int = 0
    recent: int = 0
    bytes_recent: int = 0
    strata: int = 0
    findings: list[Finding] = field(default_factory=list)
    repaired: list[Finding] = field(default_factory=list)
    not_repaired: list[events.NotRepaired] = field(default_factory=list)
    results_not_kept: str | None = None
    acknowledged: list[Acknowledged] = field(default_factory=list)
    notes: list[events.Noted] = field(default_factory=list)

    @property
    def verified_nothing(self) -> bool:
        """Whether there was no backup, and nothing wrong either: that is not "all is well"."""
        return not (self.files or self.findings or self.repaired or self.acknowledged)

    @property
    def exit_code(self) -> int:
        """1 when there was nothing to verify, or nothing worse than sets that lack files and what
        is no file of a backup; 3 when bytes are wrong, 6 when a store did not give something and
        nothing that it gave was; of what kept a repair from its work, the worst."""
        codes = {finding.exit_code for finding in self.findings}
        if IntegrityError.exit_code in codes:
            codes.discard(StoreError.exit_code)  # an outage proves nothing, and hides nothing
        codes |= {failed.error.exit_code for failed in self.not_repaired if self.findings}
        if self.verified_nothing:
            codes = {BackupFailed.exit_code}
        return worst_exit_code(codes)
