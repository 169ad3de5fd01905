"""How old the newest complete backup of an instance is, and whether that is too old."""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from archiver.archive import layout
from archiver.archive.archive import Archive
from archiver.commands.ls.listing import Row, State, archived_rows
from archiver.commands.summary import add_start
from archiver.ids import safe
from archiver.times import TimeRange, format_iso
from archiver.words import age, span

# So far a clock may be off before the vendor refuses what it signs.
_CLOCKS_DIFFER: Final = timedelta(minutes=15)
# The vendor makes them once a day or less often, and once a week at least.
_SELDOM: Final = timedelta(hours=50)
_SELDOMEST: Final = timedelta(days=8)
_HERE: Final = (State.ARCHIVED, State.LISTED)


@dataclass(frozen=True, slots=True)
class Overdue:
    """An instance without a complete backup that is younger than ``most``. ``newest`` is when the
    newest that it has began."""

    instance_id: str
    where: str
    newest: datetime | None
    most: timedelta
    now: datetime

    def __str__(self) -> str:
        if self.newest is None:
            return f"overdue: {self.instance_id} has no complete backup {self.where}"
        said = f"overdue: the newest complete backup of {self.instance_id} {self.where} started"
        if self.newest > self.now:
            at = format_iso(self.newest, "minutes")
            return f"{said} {at}, in the future: is the clock right?"
        most = span(self.most.total_seconds())
        return f"{said} {age(self.now - self.newest)} ago, more than {most}"


@dataclass(frozen=True, slots=True)
class Late:
    """An instance whose newest backup is older than they usually get."""

    instance_id: str
    newest: datetime
    usual: timedelta | None
    now: datetime

    def __str__(self) -> str:
        usual = "" if self.usual is None else f", and they usually start {age(self.usual)} apart"
        return (
            f"note: the newest backup of {self.instance_id} started "
            f"{age(self.now - self.newest)} ago{usual}: is the vendor still making them?"
        )


def late(starts: Mapping[str, Sequence[datetime]], now: datetime) -> list[Late]:
    """Of instances with when their last sets began, the newest last, those that have had none for
    twice as long as usual (pure)."""
    found = list[Late]()
    for instance_id, began in starts.items():
        gaps = sorted(after - before for before, after in itertools.pairwise(began))
        usual = gaps[len(gaps) // 2] if gaps else None
        most = max(2 * usual, _SELDOM) if usual is not None else _SELDOMEST
        if now - began[-1] > most:
            found.append(Late(instance_id, began[-1], usual, now))
    return found


def late_rows(rows: Iterable[Row], instances: Iterable[str], now: datetime) -> list[Late]:
    """The same of what is listed (pure)."""
    starts: dict[str, list[datetime]] = {name: [] for name in instances}
    for row in rows if starts else ():
        began = starts.get(row.instance_id)
        if began is not None and row.state in _HERE and row.started_at and not row.is_log:
            add_start(began, row.started_at)
    return late({name: began for name, began in starts.items() if began}, now)


async def held(archive: Archive, instances: Iterable[str]) -> set[str]:
    """Of which instances the archive has anything at all. Raises StoreError."""
    found = set[str]()
    for name in instances:
        async with aclosing(archive.store.entries(f"{safe(name)}/")) as entries:
            async for entry in entries:
                if layout.is_record(entry.key):
                    found.add(name)
                    break
    return found


async def overdue(
    archive: Archive, instances: Iterable[str], most: timedelta, now: datetime
) -> list[Overdue]:
    """Which instances have nothing complete in the archive that is young enough. Raises
    StoreError."""
    names = list(instances)
    young = await archived_rows(archive, names, TimeRange(now - most, now + _CLOCKS_DIFFER))
    late = [one.instance_id for one in overdue_rows(young, names, "", most, now)]
    # How old it is, then, takes all of them to be looked at.
    rows = await archived_rows(archive, late) if late else []
    return overdue_rows(rows, late, f"in {archive.store}", most, now)


def overdue_rows(
    rows: Sequence[Row], instances: Iterable[str], where: str, most: timedelta, now: datetime
) -> list[Overdue]:
    """The same of what is listed already (pure)."""
    newest = newest_complete(rows)
    found = [Overdue(name, where, newest.get(name), most, now) for name in instances]
    return [one for one in found if not _is_young(one)]


def newest_complete(rows: Sequence[Row]) -> dict[str, datetime]:
    """When the newest set of dumps began of which every file is here, by instance (pure)."""
    sets: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        sets[row.instance_id, row.set_key].append(row)
    found: dict[str, datetime] = {}
    for (instance_id, _), files in sets.items():
        is_complete = all(row.state in _HERE and row.set_note is None for row in files)
        began = [row.started_at for row in files if row.started_at is not None]
        if is_complete and began and not all(row.is_log for row in files):
            found[instance_id] = max(min(began), found.get(instance_id, min(began)))
    return found


def _is_young(one: Overdue) -> bool:
    return one.newest is not None and one.now - one.most <= one.newest <= one.now + _CLOCKS_DIFFER
