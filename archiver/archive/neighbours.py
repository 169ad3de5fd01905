"""The sets of an instance around others, by the names in the archive's listing alone."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from archiver.archive import layout
from archiver.archive.archive import Archive
from archiver.archive.completeness import REACH, SetNodes
from archiver.ids import safe
from archiver.model import Kind
from archiver.times import format_month

_KINDS: Final = frozenset(Kind)


async def sets_around(
    archive: Archive, instance_id: str, starts: Iterable[datetime]
) -> list[SetNodes]:
    """The sets that are compared with those that began at ``starts``, these among them.

    Lists some five months of the instance, one after the other, and keeps the nodes of each set.
    Raises StoreError.
    """
    moments = sorted(starts)
    found: list[SetNodes] = []
    if not moments:
        return found
    names: dict[frozenset[str], frozenset[str]] = {}  # most sets have the same nodes
    until = max(moments[-1], min(moments[-1] + REACH, datetime.now(UTC)))
    for month in _months(moments[0] - REACH, until):
        keys: dict[str, list[str]] = defaultdict(list)
        async for entry in archive.store.entries(f"{safe(instance_id)}/{month}/"):
            if layout.is_of_a_set(entry.key):
                keys[layout.set_of(entry.key)].append(entry.key)
        for set_key, there in keys.items():
            if (one := listed_set(set_key, there)) is not None:
                nodes = names.setdefault(one.nodes, one.nodes)
                found.append(SetNodes(one.key, one.started_at, nodes, one.is_full))
    return found


def listed_set(set_key: str, keys: Iterable[str]) -> SetNodes | None:
    """The set that has these ``keys``; None where ``set_key`` cannot be the key of a set (pure).

    Its nodes are those of its records, by their keys; a standard instance is its own node. A file
    beside a cluster's folder that is called like the set has none. A set is of logs when all of its
    files have that suffix.
    """
    started_at = layout.set_start(set_key)
    if started_at is None:
        return None
    there = list(keys)
    suffixes = {key.rpartition(".")[2] for key in there} & _KINDS
    records = [key for key in there if key.endswith(layout.RECORD_SUFFIX)]
    nodes = frozenset(map(layout.node_of, records))
    nodes = nodes - {set_key.partition("/")[0]} or nodes
    return SetNodes(set_key, started_at, nodes, suffixes != {Kind.AOF})


def _months(first: datetime, last: datetime) -> Iterable[str]:
    """``yyyy/mm`` of every month from ``first`` to ``last``."""
    day = first.replace(day=1)
    while (day.year, day.month) <= (last.year, last.month):
        yield format_month(day)
        day = (day + timedelta(days=31)).replace(day=1)
