"""The nouns of a drill's evidence, frozen. The fields are those of the JSON, in its order.

Times are aware UTC, sizes are bytes, durations are seconds, digests are as named. The meaning of
every field is in ``schema/evidence-2.json``, which is published with the package; a test holds
the two together. ``None`` always means *not known* or *not reached*, never zero and never yes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from urllib.parse import urlsplit, urlunsplit

from archiver.model import Footer, Kind, Network
from archiver.report.limits import Count, Crc64, DrillId, Fraction, Seconds, Sha256

# The newest: what is acknowledged is new in it. A document without that is of format 1.
FORMAT = 2
KIND = "drill"


class Verdict(StrEnum):
    """Of a backup set, and of a drill. The better first: the last of several is the worst."""

    PASS = "pass"  # noqa: S105 - a word, not a password
    UNLOADABLE = "unloadable"  # intact, but needs Tair's modules or a newer server
    PARTIAL = "partial"  # nodes are missing, or were not tried
    FAIL = "fail"


class Outcome(StrEnum):
    """Of one file. ``untried`` is never a pass."""

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
    """What made the evidence; ``runtime`` names the interpreter and the system."""

    name: str
    version: str
    runtime: str


@dataclass(frozen=True, slots=True)
class Who:
    """On whose behalf and where. ``None``: withheld."""

    user: str | None
    host: str | None


@dataclass(frozen=True, slots=True)
class ArchivePlace:
    """Which archive. Raises ValueError for a URL that carries a user, a query or a fragment."""

    where: str
    format: Count

    def __post_init__(self) -> None:
        if self.where != without_secrets(self.where):
            raise ValueError("the archive's address carries credentials or a query")


@dataclass(frozen=True, slots=True)
class Range:
    """From ``start`` (included) to ``end`` (excluded)."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Selection:
    """How the sets were chosen, so that somebody else can choose the same again."""

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
    """What was promised; ``tolerance`` is a fraction of the keys. Of the gaps between sets those
    count for the RPO that ended in the last ``rpo_window_seconds``."""

    rto_seconds: Seconds | None
    rpo_seconds: Seconds | None
    rpo_window_seconds: Seconds
    tolerance: Fraction


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The drill in a few words; made by :func:`archiver.report.verdict.conclude`."""

    verdict: Verdict
    passed: bool
    targets_met: bool | None
    sets: Mapping[str, Count]
    exit_code: Count


@dataclass(frozen=True, slots=True)
class Nodes:
    """Whose files the set has. ``expected`` is ``None`` where nothing says how many there were."""

    expected: Count | None
    present: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Phases:
    """Wall time of each phase over the whole set, in the order they run."""

    read: Seconds | None
    verify: Seconds | None
    lay_out: Seconds | None
    start: Seconds | None
    load: Seconds | None
    census: Seconds | None
    assertions: Seconds | None
    tear_down: Seconds | None


# What a real recovery needs too. The rest proves something and does not count towards the RTO.
RECOVERY_PHASES = ("read", "verify", "lay_out", "start", "load")


@dataclass(frozen=True, slots=True)
class Rto:
    """How long the recovery took; made by :func:`archiver.report.verdict.measure_rto`."""

    seconds: Seconds | None
    target_seconds: Seconds | None
    met: bool | None


@dataclass(frozen=True, slots=True)
class Gap:
    """Between the starts of two consecutive complete sets of one instance."""

    seconds: Seconds
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Rpo:
    """How much could be lost; made by :func:`archiver.report.verdict.measure_rpo`."""

    age_seconds: Seconds
    newest_age_seconds: Seconds | None
    largest_gap: Gap | None
    target_seconds: Seconds | None
    met: bool | None


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the archive had the file from: the URL without its query, and when."""

    network: Network
    url: str
    fetched_at: datetime


@dataclass(frozen=True, slots=True)
class RdbFacts:
    """What the file says of itself."""

    magic: str | None
    version: Count | None
    redis_ver: str | None
    ctime: datetime | None
    footer: Footer


@dataclass(frozen=True, slots=True)
class Database:
    """The keys of one logical database; ``types`` maps a type's name to its number of keys.

    ``sampled``: ``with_expiry`` and ``types`` are those of the keys that were looked at, not all.
    """

    index: Count
    keys: Count
    with_expiry: Count
    types: Mapping[str, Count]
    sampled: bool


@dataclass(frozen=True, slots=True)
class Server:
    """The throwaway server that loaded the file; ``executable`` is its name without the path."""

    flavour: str
    version: str
    executable: str


@dataclass(frozen=True, slots=True)
class Difference:
    """Keys that the server has, minus keys that our parser counted, and why."""

    keys: int
    explanation: str
    beyond_tolerance: bool


@dataclass(frozen=True, slots=True)
class FileEvidence:
    """One file: what it is, and what became of it."""

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
    """The set's keys beside those of the last drill of the same instance."""

    previous_id: DrillId
    keys_then: Count
    keys_now: Count
    change: int
    change_fraction: float | None
    within_tolerance: bool


@dataclass(frozen=True, slots=True)
class Assertion:
    """What the user demanded. ``holds`` is ``None`` when it was not evaluated: not a pass."""

    text: str
    node_id: str | None
    holds: bool | None
    seen: str


@dataclass(frozen=True, slots=True)
class Teardown:
    """Whether the drill left anything. ``proven``: looked at afterwards, not assumed."""

    processes_gone: bool
    directories_gone: bool
    proven: bool

    @property
    def is_clean(self) -> bool:
        return self.processes_gone and self.directories_gone and self.proven


@dataclass(frozen=True, slots=True)
class SetEvidence:
    """One backup set: how it fared, how long it took, how old it is."""

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
    """A backup set that lacks files, or a backup that the vendor failed, and who has taken note of
    it, when and why. ``by`` is ``None`` where that is withheld."""

    subject: str
    at: datetime
    by: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Link:
    """Another evidence document: its id, and the SHA-256 of its bytes as stored."""

    id: DrillId
    sha256: Sha256


@dataclass(frozen=True, slots=True)
class Evidence:
    """One drill. ``previous`` is ``None`` for the first of an archive. ``acknowledged`` is what
    stood of that when the drill began, of the instances that were asked for."""

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
    """An archive's address without user, password, query and fragment; a path stays as it is."""
    if "://" not in where:
        return where
    url = urlsplit(where)
    return urlunsplit((url.scheme, url.netloc.rpartition("@")[2], url.path, "", ""))
