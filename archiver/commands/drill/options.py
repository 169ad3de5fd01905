"""What the caller of a drill can choose."""

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from archiver.commands.drill.assertions import Assertion
from archiver.report.evidence import Mode
from archiver.shards import UNDIVIDED, Shard


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which sets to drill.

    LATEST and AT choose the newest set of each instance, even if it is incomplete: a drill is meant
    to find that. RANDOM draws ``number`` sets from all, STRATIFIED draws them from the instances in
    turn; both need a ``seed``. NAMED chooses ``sets`` by their keys. ``instances`` and ``shard``
    restrict all modes; without instances, those of the whole archive are meant.
    """

    mode: Mode = Mode.LATEST
    instances: tuple[str, ...] = ()
    at: datetime | None = None
    number: int = 0
    seed: str | None = None
    sets: tuple[str, ...] = ()
    shard: Shard = UNDIVIDED


@dataclass(frozen=True, slots=True)
class DrillOptions:
    """The sets to drill, the conditions for a pass, and the limits. Times in seconds.

    wanted: Which sets to drill.
    assertions: What must be true of each set.
    tolerance: By which fraction of the keys the server's counts may differ from the parser's,
        beyond keys that have expired.
    max_change: By which fraction the number of an instance's keys may differ from that in its last
        drill; None: by any.
    allow_empty: A set without keys may pass.
    show_values: The evidence may contain values that ``get`` returned.
    rto_seconds, rpo_seconds: The targets; None: no target.
    rpo_window_seconds: Gaps between sets count for the RPO if they ended so recently.
    server_memory: The limit for one server, in bytes.
    scratch: The directory to restore into (default: the system's temporary directory).
    sample_above: Databases with more keys are counted by a sample.
    load_seconds: The time limit for loading one file.
    withhold_identity: The evidence must not name the user and the host.
    lock_wait: How long to wait for another process that is writing to the archive.
    """

    wanted: Wanted = field(default_factory=Wanted)
    assertions: tuple[Assertion, ...] = ()
    tolerance: float = 0.0
    max_change: float | None = None
    allow_empty: bool = False
    show_values: bool = False
    rto_seconds: float | None = None
    rpo_seconds: float | None = None
    rpo_window_seconds: float = 30 * 86_400.0
    server_memory: int | None = None
    scratch: Path | None = None
    sample_above: int | None = None
    load_seconds: float = 3600.0
    withhold_identity: bool = False
    lock_wait: float = 600.0
