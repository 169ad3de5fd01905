"""The status of instances as Prometheus metrics."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from archiver.commands.status.judge import Judgement, SetState
from archiver.commands.status.run import Status

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_LABELS: Final = ("archive", "instance", "region")


def _newest(one: Judgement) -> float | None:
    newest = one.facts.newest
    return None if newest is None else newest.started_at.timestamp()


def _verified(one: Judgement) -> float | None:
    at = one.facts.verified_at
    return None if at is None else at.timestamp()


def _drilled(one: Judgement) -> float | None:
    return None if one.facts.drill is None else one.facts.drill.at.timestamp()


def _passed(one: Judgement) -> float | None:
    return None if one.facts.passed is None else one.facts.passed.at.timestamp()


def _verdict(one: Judgement) -> float | None:
    return None if one.facts.drill is None else float(one.facts.drill.passed)


def _recovery(one: Judgement) -> float | None:
    return None if one.facts.passed is None else one.facts.passed.seconds


def _loss(one: Judgement) -> float | None:
    return None if one.loss_at is None else one.loss_at.timestamp()


def _unarchived(one: Judgement) -> float | None:
    return None if one.facts.unarchived is None else len(one.facts.unarchived)


# What nobody knows, or never was, has no series: it is neither 0 nor 1970.
_GAUGES: Final[tuple[tuple[str, str, Callable[[Judgement], float | None]], ...]] = (
    ("status", "How it is: 0 ok, 1 warning, 2 critical.", lambda one: float(one.level)),
    ("newest_backup_timestamp_seconds", "When the newest complete set began.", _newest),
    (
        "expected_interval_seconds",
        "Usual time between the backups that are expected.",
        lambda one: one.rhythm.interval.total_seconds(),
    ),
    ("loss_timestamp_seconds", "When the source deletes what the archive lacks.", _loss),
    ("unarchived_backups", "Backups that the source has and the archive has not.", _unarchived),
    ("gaps", "Moments of the last 30 days without the backup expected.", lambda o: len(o.gaps)),
    ("verified_timestamp_seconds", "When the newest set had been verified.", _verified),
    ("drill_timestamp_seconds", "When it was drilled last.", _drilled),
    ("drill_passed", "Whether the newest drill passed: 1 or 0.", _verdict),
    ("drill_passed_timestamp_seconds", "When it last passed a drill.", _passed),
    ("drill_recovery_seconds", "How long the recovery took that passed last.", _recovery),
    ("size_bytes", "Size of its sets of dumps.", lambda o: sum(s.size for s in o.facts.sets)),
)


def add(registry: "CollectorRegistry", found: Sequence[Status]) -> None:
    """Add the series of the instances of archives."""
    from prometheus_client import Gauge

    labelled = [
        ((str(status.archive.store), one.instance_id, _region(one)), one)
        for status in found
        for one in status.judgements
    ]
    for name, what, value_of in _GAUGES:
        gauge = Gauge(f"archiver_instance_{name}", what, _LABELS, registry=registry)
        for labels, one in labelled:
            if (value := value_of(one)) is not None:
                gauge.labels(*labels).set(value)
    sets = Gauge("archiver_instance_sets", "Sets of dumps.", (*_LABELS, "state"), registry=registry)
    for labels, one in labelled:
        states = Counter(each.state for each in one.facts.sets)
        for state in SetState:
            sets.labels(*labels, state).set(states[state])


def text(found: Sequence[Status]) -> str:
    """The same as text."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    add(registry, found)
    return generate_latest(registry).decode()


def _region(one: Judgement) -> str:
    return one.facts.described.region if one.facts.described else ""
