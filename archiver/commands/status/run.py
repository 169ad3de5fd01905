"""``archiver status``: facts of each instance, and what they come to."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from archiver.archive.archive import Archive
from archiver.archive.descriptions import merge
from archiver.commands.ls.listing import State, compared_rows
from archiver.commands.status.facts import all_facts
from archiver.commands.status.judge import (
    InstanceFacts,
    Judgement,
    Limits,
    Unarchived,
    judge,
    worst_first,
)
from archiver.errors import ArchiverError
from archiver.model import Backup, InstanceDescription


@dataclass(frozen=True, slots=True)
class Remote:
    """What the source says now: its backups by instance, of those that it listed, descriptions, and
    ``wrong``: what it could not be asked for."""

    backups: Mapping[str, Collection[Backup]] = field(default_factory=dict)
    described: Mapping[str, InstanceDescription] = field(default_factory=dict)
    wrong: Collection[ArchiverError] = ()


@dataclass(slots=True)
class Status:
    """How the instances of an archive are, worst first, and what could not be read besides."""

    archive: Archive
    judgements: list[Judgement] = field(default_factory=list)
    wrong: list[ArchiverError] = field(default_factory=list)


async def status(
    archive: Archive,
    limits: Limits,
    now: datetime,
    instances: Iterable[str] = (),
    remote: Remote | None = None,
) -> Status:
    """How some instances are, or all that the archive or the source knows.

    Raises UsageError where there is no archive, StoreError.
    """
    await archive.expect()
    found = Status(archive)
    names = list(dict.fromkeys(instances))
    facts = [one async for one in all_facts(archive, found.wrong, names)]
    if remote is not None:
        facts = await _compared(archive, facts, remote)
        found.wrong += remote.wrong
    found.judgements = worst_first([judge(one, limits, now) for one in facts])
    return found


def _described(one: InstanceFacts, remote: Remote) -> InstanceDescription | None:
    """What the source says of an instance now, and of its schedule what the archive knows."""
    now = remote.described.get(one.instance_id)
    return one.described if now is None else merge(one.described, now)


async def _compared(
    archive: Archive, facts: list[InstanceFacts], remote: Remote
) -> list[InstanceFacts]:
    """The facts, with what the source says, and those of instances that it alone has."""
    known = {one.instance_id for one in facts}
    facts = facts + [InstanceFacts(name) for name in sorted(remote.described.keys() - known)]
    listed = [backup for of_one in remote.backups.values() for backup in of_one]
    missing: dict[str, list[Unarchived]] = defaultdict(list)
    for row in await compared_rows(archive, listed):
        if row.state is State.MISSING and row.started_at is not None:
            missing[row.instance_id].append(Unarchived(row.started_at, row.expires_at))
    return [
        replace(
            one,
            described=_described(one, remote),
            unarchived=tuple(missing[one.instance_id])
            if one.instance_id in remote.backups
            else None,
        )
        for one in facts
    ]
