"""The evidence of a drill as frozen dataclasses. Their fields are those of the JSON, in its order.

Times are aware UTC, sizes are in bytes, durations in seconds. ``schema/evidence-2.json``, which is
published with the package, describes every field; a test compares the two. ``None`` always means
*unknown* or *not reached*, never zero and never yes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from urllib.parse import urlsplit, urlunsplit

from archiver.model import Footer, Kind, Network
from archiver.report.limits import Count, Crc64, DrillId, Fraction, Seconds, Sha256

# The newest format; ``acknowledged`` is new in it. A document without that field has format 1.
FORMAT = 2
KIND = "drill"


class Verdict(StrEnum):
    """The verdict on a backup set or on a drill, from the best to the worst."""

    PASS = "pass"  # noqa: S105 - a word, not a password
    UNLOADABLE = "unloadable"  # intact, but needs Tair's modules or a newer server
    PARTIAL = "partial"  # nodes are missing or were not tried
    FAIL = "fail"


class Outcome(StrEnum):
    """The outcome of one file. ``untried`` is never a pass."""

    PASS = "pass"  # noqa: S105 - a word, not a password
    UNLOADABLE = "unloadable"
    UNTRIED = "untried"
    FAIL = "fail"


class Mode(StrEnum):
    """How the sets were chosen."""

    LATEST = "latest"
    AT = "at"
    RANDOM = "random"
    STRATIFIED = "stratified"
    NAMED = "named"


@dataclass(frozen=True, slots=True)
class Tool:
    """The program that wrote the evidence; ``runtime`` is its interpreter and system."""

    name: str
    version: str
    runtime: str


@dataclass(frozen=True, slots=True)
class Who:
    """The user and the host of the drill; ``None`` if withheld."""

    user: str | None
    host: str | None


@dataclass(frozen=True, slots=True)
class ArchivePlace:
    """The archive. Raises ValueError for a URL with a user, a query or a fragment."""

    where: str
    format: Count

    def __post_init__(self) -> None:
        if self.where != without_secrets(self.where):
            raise ValueError("the archive's address has credentials or a query")


@dataclass(frozen=True, slots=True)
class Range:
    """From ``start`` (included) to ``end`` (excluded)."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Selection:
    """How the sets were chosen, so that somebody else can repeat the choice."""

    mode: Mode
    seed: str | None
    at: datetime | None
    instances: tuple[str, ...]
    range: Range | None
    available: Count
    available_sha256: Sha256 | None
    chosen: Count


@dataclass(frozen=True, slots=True)
class Targets:
    """The targets of the drill; ``tolerance`` is a fraction of the keys.

    Gaps between sets count for the RPO if they ended in the last ``rpo_window_seconds``.
    """

    rto_seconds: Seconds | None
    rpo_seconds: Seconds | None
    rpo_window_seconds: Seconds
    tolerance: Fraction


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The result of the drill; see :func:`archiver.report.verdict.conclude`."""

    verdict: Verdict
    passed: bool
    targets_met: bool | None
    sets: Mapping[str, Count]
    exit_code: Count


@dataclass(frozen=True, slots=True)
class Nodes:
    """The nodes that the set has files of; ``expected`` is ``None`` if the number is unknown."""

    expected: Count | None
    present: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Phases:
    """Wall time of each phase, summed over the files of the set, in the order they run."""

    read: Seconds | None
    verify: Seconds | None
    lay_out: Seconds | None
    start: Seconds | None
    load: Seconds | None
    census: Seconds | None
    assertions: Seconds | None
    tear_down: Seconds | None


# The phases that a real recovery needs. The others only check it and do not count for the RTO.
RECOVERY_PHASES = ("read", "verify", "lay_out", "start", "load")


@dataclass(frozen=True, slots=True)
class Rto:
    """How long the recovery took; see :func:`archiver.report.verdict.measure_rto`."""

    seconds: Seconds | None
    target_seconds: Seconds | None
    met: bool | None


@dataclass(frozen=True, slots=True)
class Gap:
    """The time between the starts of two consecutive complete sets of one instance."""

    seconds: Seconds
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Rpo:
    """How much data could be lost; see :func:`archiver.report.verdict.measure_rpo`."""

    age_seconds: Seconds
    newest_age_seconds: Seconds | None
    largest_gap: Gap | None
    target_seconds: Seconds | None
    met: bool | None


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the file was downloaded from (the URL has no query), and when."""

    network: Network
    url: str
    fetched_at: datetime


@dataclass(frozen=True, slots=True)
class RdbFacts:
    """What the header and the footer of the file say."""

    magic: str | None
    version: Count | None
    redis_ver: str | None
    ctime: datetime | None
    footer: Footer


@dataclass(frozen=True, slots=True)
class Database:
    """The keys of one logical database; ``types`` maps a type's name to its number of keys.

    If ``sampled``, ``with_expiry`` and ``types`` count only the keys of a sample.
    """

    index: Count
    keys: Count
    with_expiry: Count
    types: Mapping[str, Count]
    sampled: bool


@dataclass(frozen=True, slots=True)
class Server:
    """The server that loaded the file; ``executable`` is its file name without the path."""

    flavour: str
    version: str
    executable: str


@dataclass(frozen=True, slots=True)
class Difference:
    """The keys of the server minus the keys that our parser counted, and the explanation."""

    keys: int
    explanation: str
    beyond_tolerance: bool


@dataclass(frozen=True, slots=True)
class FileEvidence:
    """One file of a set, and the outcome of restoring it."""

    node_id: str
    backup_id: str
    object_key: str
    kind: Kind
    size: Count
    sha256: Sha256
    crc64ecma: Crc64
    verified: bool
    origin: Origin | None
    rdb: RdbFacts
    parsed: tuple[Database, ...] | None
    server: Server | None
    outcome: Outcome
    reason: str
    loaded: tuple[Database, ...] | None
    keys_loaded: Count | None
    keys_expired: Count | None
    difference: Difference | None
    peak_memory_bytes: Count | None
    modules_needed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The keys of the set compared with those in the last drill of the same instance."""

    previous_id: DrillId
    keys_then: Count
    keys_now: Count
    change: int
    change_fraction: float | None
    within_tolerance: bool


@dataclass(frozen=True, slots=True)
class Assertion:
    """An assertion of the user. ``holds`` is ``None`` if it was not evaluated, which is no pass."""

    text: str
    node_id: str | None
    holds: bool | None
    seen: str


@dataclass(frozen=True, slots=True)
class Teardown:
    """Whether the drill left anything behind. ``proven``: this was checked, not assumed."""

    processes_gone: bool
    directories_gone: bool
    proven: bool

    @property
    def is_clean(self) -> bool:
        return self.processes_gone and self.directories_gone and self.proven


@dataclass(frozen=True, slots=True)
class SetEvidence:
    """One backup set: its verdict, how long the recovery took, how old it is."""

    key: str
    instance_id: str
    started_at: datetime
    nodes: Nodes
    verdict: Verdict
    why: str
    phases: Phases
    rto: Rto
    rpo: Rpo
    files: tuple[FileEvidence, ...]
    comparison: Comparison | None
    assertions: tuple[Assertion, ...]
    teardown: Teardown


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A person's note on a set that lacks files, or on a backup that failed at the vendor.

    ``subject`` is the key of the set or backup; ``by`` is ``None`` if withheld.
    """

    subject: str
    at: datetime
    by: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Link:
    """A reference to another document: its id, and the SHA-256 of its stored bytes."""

    id: DrillId
    sha256: Sha256


@dataclass(frozen=True, slots=True)
class Evidence:
    """One drill.

    ``previous`` is ``None`` for the first drill of an archive. ``acknowledged`` has the notes on
    the drilled instances that were still valid when the drill began.
    """

    id: DrillId
    tool: Tool
    who: Who
    started_at: datetime
    finished_at: datetime
    archive: ArchivePlace
    selection: Selection
    reference_clock: datetime
    targets: Targets
    conclusion: Conclusion
    sets: tuple[SetEvidence, ...]
    previous: Link | None
    acknowledged: tuple[Acknowledged, ...] = ()


def without_secrets(where: str) -> str:
    """Return a URL without user, password, query and fragment; a path is returned as it is."""
    if "://" not in where:
        return where
    url = urlsplit(where)
    return urlunsplit((url.scheme, url.netloc.rpartition("@")[2], url.path, "", ""))
