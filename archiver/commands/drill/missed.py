"""Lists the targets that a drill missed: by how much, and why. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from archiver.archive.layout import set_start
from archiver.report.evidence import Evidence, Gap, SetEvidence
from archiver.report.words import duration
from archiver.times import format_minute

_MOST_NOTES = 3  # per missed target; more would be unreadable


@dataclass(frozen=True, slots=True)
class MissedTarget:
    """A missed ``target`` (rpo or rto) of an instance, measured on the set ``set_key``.

    ``seconds`` is None if unknown. ``acknowledged`` has notes of people that may explain a gap; the
    target is missed nevertheless.
    """

    target: str
    instance_id: str
    set_key: str
    seconds: float | None
    target_seconds: float
    why: str
    acknowledged: tuple[str, ...] = ()

    def __str__(self) -> str:
        notes = "; ".join(("", *self.acknowledged[:_MOST_NOTES]))
        if (more := len(self.acknowledged) - _MOST_NOTES) > 0:
            notes += f"; and {more:,} more"
        return f"{self.target}: {self.instance_id}: {self.why}, {self._compared()}{notes}"

    def _compared(self) -> str:
        target = _span(self.target_seconds)
        if self.seconds is not None and _span(self.seconds) == target:
            return (
                f"{duration(self.seconds - self.target_seconds)} more than the target of {target}"
            )
        return f"target {target}"


def missed(evidence: Evidence) -> list[MissedTarget]:
    """List the missed targets, each once per instance even if several sets show it."""
    found = dict[tuple[str, str, str], MissedTarget]()
    for one in evidence.sets:
        for each in (*_recoveries(one), *_exposures(one, evidence)):
            found.setdefault((each.target, each.instance_id, each.why), each)
    return list(found.values())


def _recoveries(one: SetEvidence) -> Iterator[MissedTarget]:
    seconds, target = one.rto.seconds, one.rto.target_seconds
    if one.rto.met is not False or target is None:
        return
    why = f"recovery of {one.key} "
    why += "did not end" if seconds is None else f"took {_span(seconds)}"
    yield MissedTarget("rto", one.instance_id, one.key, seconds, target, why)


def _exposures(one: SetEvidence, evidence: Evidence) -> Iterator[MissedTarget]:
    """The age of the newest set, the largest gap, or both."""
    target, age, gap = one.rpo.target_seconds, one.rpo.newest_age_seconds, one.rpo.largest_gap
    if one.rpo.met is not False or target is None:
        return
    if age is None:
        why = "no complete backup set of known age"
        yield MissedTarget("rpo", one.instance_id, one.key, None, target, why)
    elif age > target:
        why = f"the newest complete backup set started {_span(age)} before the drill"
        notes = tuple(_acknowledged(evidence, one.instance_id, None, age))
        yield MissedTarget("rpo", one.instance_id, one.key, age, target, why, notes)
    if gap is not None and gap.seconds > target:
        start, end = format_minute(gap.start), format_minute(gap.end)
        why = f"gap of {_span(gap.seconds)} between {start} and {end} UTC"
        notes = tuple(_acknowledged(evidence, one.instance_id, gap, 0.0))
        yield MissedTarget("rpo", one.instance_id, one.key, gap.seconds, target, why, notes)


def _acknowledged(
    evidence: Evidence, instance_id: str, gap: Gap | None, age: float
) -> Iterator[str]:
    """Yield the notes on sets and backups within a gap, or since the newest set.

    The key of a set tells when it started. For a failed backup, only the time of the note is known,
    which is later.
    """
    start = evidence.reference_clock.timestamp() - age if gap is None else gap.start.timestamp()
    end = evidence.reference_clock.timestamp() if gap is None else gap.end.timestamp()
    # Those that are certainly within it come first.
    for one in sorted(evidence.acknowledged, key=lambda one: set_start(one.subject) is None):
        if not one.subject.startswith((f"{instance_id}/", f"{instance_id}-")):
            continue
        began = set_start(one.subject)
        if began is not None and start < began.timestamp() < end:
            yield f"acknowledged: {one.subject} ({one.reason})"
        elif began is None and one.at.timestamp() > start:
            yield f"acknowledged since: {one.subject} ({one.reason})"


def _span(seconds: float) -> str:
    """Format one to three days in hours, as targets are given: ``48 h``, ``26 h 30 min``."""
    if not 86_400 <= seconds < 3 * 86_400:
        return duration(seconds)
    hours, minutes = divmod(int(seconds) // 60, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
