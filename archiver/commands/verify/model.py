"""The options and the summary of a verify."""

from dataclasses import dataclass, field
from datetime import timedelta

from archiver.archive import layout
from archiver.commands.verify import events
from archiver.commands.verify.findings import Finding
from archiver.commands.verify.sample import Sample
from archiver.errors import BackupFailed, IntegrityError, StoreError, worst_exit_code
from archiver.events import Acknowledged
from archiver.report.evidence import Link
from archiver.shards import UNDIVIDED, Shard
from archiver.times import TimeRange


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """What to verify, and how.

    ``instances``, ``range`` (of the sets' starts) and ``sets`` (keys of sets, or of months with all
    of theirs) restrict it; empty means all. ``shard`` divides the instances; what belongs to none
    of them, such as the evidence of drills, is checked with shard 0. ``sample`` reads a part of the
    files; ``since_verified`` skips those that were found right so recently. ``anchors`` are ids and
    hashes of drill evidence from another place. ``workers`` files are read at once, with 1 MiB of
    memory each; results are stored every ``keep_every`` seconds.
    """

    instances: tuple[str, ...] = ()
    range: TimeRange | None = None
    sets: frozenset[str] = frozenset()
    shard: Shard = UNDIVIDED
    sample: Sample | None = None
    since_verified: timedelta | None = None
    anchors: tuple[Link, ...] = ()
    workers: int = 4
    keep_every: float = 30.0

    def wants(self, set_key: str) -> bool:
        """Whether a set is wanted. One whose name has no time is."""
        if self.sets and self.sets.isdisjoint((set_key, layout.month_of(set_key))):
            return False
        return layout.began_in(set_key, self.range)

    def reaches(self, key: str) -> bool:
        """Whether an entry that belongs to no set may be, or hide, a wanted one."""
        if self.sets and not any(f"{one}/".startswith(f"{key}/") for one in self.sets):
            return False
        return layout.began_in(key, self.range)


@dataclass(slots=True)
class VerifySummary:
    """The result of a verify. ``files`` and ``size`` are those of all objects that were checked:
    ``read`` of them were read, ``recent`` were verified recently and not read, and the others were
    compared by name, size and record only. ``strata`` is the number of months of instances.

    ``repaired`` are findings that a repair removed, and ``acknowledged`` incomplete sets that
    somebody has acknowledged; they are not in ``findings``. ``notes`` are no faults.
    ``empty_shard`` says that no instance is in the shard, though others have some."""

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
    empty_shard: bool = False

    @property
    def verified_nothing(self) -> bool:
        """Whether there was no backup, and nothing wrong either, which is not a success."""
        found = self.files or self.findings or self.repaired or self.acknowledged
        return not (found or self.empty_shard)

    @property
    def exit_code(self) -> int:
        """3 if bytes are wrong, otherwise 6 if the store could not read something; 1 if there are
        only incomplete sets and stray files, or nothing to verify. The worst error of a repair
        counts, too."""
        codes = {finding.exit_code for finding in self.findings}
        if IntegrityError.exit_code in codes:
            codes.discard(StoreError.exit_code)  # wrong bytes matter more than an outage
        codes |= {failed.error.exit_code for failed in self.not_repaired if self.findings}
        if self.verified_nothing:
            codes = {BackupFailed.exit_code}
        return worst_exit_code(codes)
