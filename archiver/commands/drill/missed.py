"""Which targets a drill missed: of what, by how much, and why. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from archiver.archive.layout import set_start
from archiver.report.evidence import Acknowledged, Evidence, Gap, SetEvidence
from archiver.report.words import duration
from archiver.times import format_minute

# More of them would hide what they are to explain.
_MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Missed:
    """``target`` (rpo or rto) of an instance, as ``set_key`` shows it. ``seconds`` are None where
    nobody knows how many they are. ``acknowledged``: what somebody has taken note of that a gap
    may be for; it is a gap all the same."""

    target: str
    instance_id: str
    set_key: str
    seconds: float | None
    target_seconds: float
    why: str
    acknowledged: tuple[str, ...] = ()

    def __str__(self) -> str:
        known = "; ".join(("", *self.acknowledged[:_MOST_NAMED]))
        if (more := len(self.acknowledged) - _MOST_NAMED) > 0:
            known += f"; and {more:,} more"
        return f"{self.target}: {self.instance_id}: {self.why}, {self._held_against()}{known}"

    def _held_against(self) -> str:
        target = _span(self.target_seconds)
        if self.seconds is not None and _span(self.seconds) == target:
            return (
                f"{duration(self.seconds - self.target_seconds)} more than the target of {target}"
            )
        return f"target {target}"


def missed(evidence: Evidence) -> list[Missed]:
    """Each target that was missed; what is of an instance once, however many sets show it."""
    found = dict[tuple[str, str, str], Missed]()
    for one in evidence.sets:
        for each in (*_recoveries(one), *_exposures(one, evidence)):
            found.setdefault((each.target, each.instance_id, each.why), each)
    return list(found.values())


def _recoveries(one: SetEvidence) -> Iterator[Missed]:
    seconds, target = one.rto.seconds, one.rto.target_seconds
    if one.rto.met is not False or target is None:
        return
    why = f"recovering {one.key} "
    why += "did not end" if seconds is None else f"took {_span(seconds)}"
    yield Missed("rto", one.instance_id, one.key, seconds, target, why)


def _exposures(one: SetEvidence, evidence: Evidence) -> Iterator[Missed]:
    """Of the newest set and of the widest gap, either or both."""
    target, age, gap = one.rpo.target_seconds, one.rpo.newest_age_seconds, one.rpo.largest_gap
    if one.rpo.met is not False or target is None:
        return
    if age is None:
        why = "there is no complete backup set whose age is known"
        yield Missed("rpo", one.instance_id, one.key, None, target, why)
    elif age > target:
        why = f"the newest complete backup set began {_span(age)} before the drill"
        known = tuple(_acknowledged(evidence, one.instance_id, None, age))
        yield Missed("rpo", one.instance_id, one.key, age, target, why, known)
    if gap is not None and gap.seconds > target:
        why = f"gap of {_span(gap.seconds)} between {_minute(gap.start)} and {_minute(gap.end)} UTC"
        known = tuple(_acknowledged(evidence, one.instance_id, gap, 0.0))
        yield Missed("rpo", one.instance_id, one.key, gap.seconds, target, why, known)


def _acknowledged(
    evidence: Evidence, instance_id: str, gap: Gap | None, age: float
) -> Iterator[str]:
    """What was acknowledged of a gap, or of the time since the newest set. Of a set its name tells
    when it began. Of a backup nothing does: it was acknowledged after that, at least."""
    start = evidence.reference_clock.timestamp() - age if gap is None else gap.start.timestamp()
    end = evidence.reference_clock.timestamp() if gap is None else gap.end.timestamp()
    # What surely lies in it comes first.
    for one in sorted(evidence.acknowledged, key=lambda one: set_start(one.subject) is None):
        if not one.subject.startswith((f"{instance_id}/", f"{instance_id}-")):
            continue
        began = set_start(one.subject)
        if began is not None and start < began.timestamp() < end:
            yield f"acknowledged: {_named(one)}"
        elif began is None and one.at.timestamp() > start:
            yield f"acknowledged since: {_named(one)}"


def _named(one: Acknowledged) -> str:
    return f"{one.subject} ({one.reason})"


def _minute(moment: datetime) -> str:
    return format_minute(moment)


def _span(seconds: float) -> str:
    """As people set targets: ``48 h``, ``26 h 30 min``; what is shorter or longer as elsewhere."""
    if not 86_400 <= seconds < 3 * 86_400:
        return duration(seconds)
    hours, minutes = divmod(int(seconds) // 60, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
