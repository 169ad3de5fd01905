"""What an archive knows of each instance, for :mod:`.judge`. The source is not asked."""

from collections import defaultdict
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import PurePosixPath
from typing import Final

from archiver.archive import layout
from archiver.archive.acknowledged import Acknowledged
from archiver.archive.archive import Archive
from archiver.archive.completeness import SetNodes, parts_of_backups
from archiver.archive.descriptions import read_descriptions
from archiver.archive.verified import Result, decode_if_any, results_key
from archiver.commands.ls.listing import Row, State, rows_by_instance, with_acknowledgements
from archiver.commands.status.judge import DrillFacts, InstanceFacts, SetFacts, SetState
from archiver.errors import ArchiverError
from archiver.ids import is_instance_id
from archiver.report import chain
from archiver.report.document import decode
from archiver.report.evidence import Evidence, SetEvidence, Verdict
from archiver.report.words import loaded_keys
from archiver.stores.base import Store
from archiver.times import format_compact, parse_compact

# The documents of drills that are read: so many at once, and of the newest so many at least; more
# where they are of these days before the newest, since each instance may have its own. Of what is
# older, each instance has a note on the last drill that it passed.
_DRILLS_READ: Final = 100
_MOST_DRILLS: Final = 2000
_DRILL_DAYS: Final = timedelta(days=100)
# Instances whose results of verifies are read at once.
_AT_ONCE: Final = 64


@dataclass(slots=True)
class Drills:
    """The newest drill of each instance, and the newest that it passed."""

    newest: dict[str, DrillFacts] = field(default_factory=dict)
    passed: dict[str, DrillFacts] = field(default_factory=dict)
    # Keys of notes on the last drill that an instance passed.
    notes: set[str] = field(default_factory=set)

    def add(self, evidence: Evidence) -> None:
        """Take a drill; newer ones first."""
        of_instance: dict[str, list[SetEvidence]] = defaultdict(list)
        for one in evidence.sets:
            of_instance[one.instance_id].append(one)
        for name, sets in of_instance.items():
            # Of several sets of an instance, the worst counts.
            worst = min(sets, key=lambda one: one.verdict is Verdict.PASS)
            facts = DrillFacts(
                id=evidence.id,
                at=evidence.finished_at,
                passed=worst.verdict is Verdict.PASS,
                verdict=worst.why,
                seconds=worst.rto.seconds,
                keys=loaded_keys(worst.files),
            )
            self.newest.setdefault(name, facts)
            if facts.passed:
                self.passed.setdefault(name, facts)


async def all_facts(
    archive: Archive, wrong: list[ArchiverError], instances: Collection[str] = ()
) -> AsyncGenerator[InstanceFacts, None]:
    """The facts of some instances, or of all that the archive has backups or a description of.

    ``wrong`` gets what cannot be read beside backups. Raises StoreError.
    """
    described, bad = await read_descriptions(archive.store)
    drills = await _read_drills(archive.store, wrong)
    wrong += bad
    acknowledged = Acknowledged(archive)
    seen, held = set[str](), list[tuple[InstanceFacts, Sequence[Row]]]()
    async for rows in rows_by_instance(archive, instances):
        if not rows or not is_instance_id(name := rows[0].instance_id):
            continue
        seen.add(name)
        known = await with_acknowledgements(rows, acknowledged)
        facts = InstanceFacts(
            name,
            sets=set_facts(known),
            damage=other_damage(known),
            described=described.get(name),
            drill=drills.newest.get(name),
            passed=drills.passed.get(name) or await _noted(archive.store, name, drills),
        )
        held.append((facts, known))
        if len(held) == _AT_ONCE:
            for one in await _verified(archive.store, held):
                yield one
            held.clear()
    for one in await _verified(archive.store, held):
        yield one
    wrong += acknowledged.bad.values()
    for name in sorted((set(instances) or described.keys()) - seen):
        yield InstanceFacts(name, described=described.get(name))


def set_facts(rows: Sequence[Row]) -> tuple[SetFacts, ...]:
    """The sets of dumps that an instance's rows are of, oldest first. Pure.

    A set of which each shard has a folder is one, by its first folder.
    """
    by_key: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_key[row.set_key].append(row)
    nodes = [
        SetNodes(
            key,
            began,
            frozenset(row.node_id for row in of_set if row.node_id),
            not all(row.is_log for row in of_set),
        )
        for key, of_set in by_key.items()
        if (began := layout.set_start(key)) is not None
    ]
    parts = parts_of_backups(nodes)
    joined: dict[str, list[Row]] = defaultdict(list)
    for one in sorted(nodes, key=lambda one: (one.started_at, one.key)):
        if one.is_full:
            joined[parts.get(one.key, (one.key,))[0]] += by_key[one.key]
    return tuple(_set_facts(key, of_set) for key, of_set in joined.items())


def other_damage(rows: Sequence[Row]) -> tuple[str, ...]:
    """Why what is in no set of dumps does not count: a log, a month's SHA256SUMS, or a folder that
    nobody sees into. Pure."""
    dumps = {row.set_key for row in rows if not row.is_log and layout.set_start(row.set_key)}
    return tuple(
        row.error.message for row in rows if row.error is not None and row.set_key not in dumps
    )


def _set_facts(key: str, rows: Sequence[Row]) -> SetFacts:
    began = min(row.started_at for row in rows if row.started_at is not None)
    errors = [row.error.message for row in rows if row.error is not None]
    lacks = [row.set_note for row in rows if row.set_note is not None]
    lacks += [f"{row.node_id}-{row.backup_id} is {row.state}" for row in rows if _is_away(row)]
    state = SetState.DAMAGED if errors else SetState.INCOMPLETE if lacks else SetState.COMPLETE
    return SetFacts(
        key=key,
        started_at=began,
        size=sum(row.size or 0 for row in rows),
        state=state,
        why=next(iter([*errors, *lacks]), ""),
        is_acknowledged=all(row.acknowledged is not None for row in rows if row.set_note),
    )


def _is_away(row: Row) -> bool:
    return row.state not in (State.ARCHIVED, State.DAMAGED) and row.set_note is None


async def _verified(
    store: Store, held: Sequence[tuple[InstanceFacts, Sequence[Row]]]
) -> list[InstanceFacts]:
    """The facts, with when the newest complete set of each instance was verified."""
    months = {layout.month_of(facts.newest.key) for facts, _ in held if facts.newest is not None}
    keys = {results_key(month): month for month in months}
    documents = await store.read_many(list(keys))
    results = {
        layout.stem_of(key): one
        for document, month in keys.items()
        for key, one in decode_if_any(month, documents[document]).items()
    }
    return [replace(facts, verified_at=_verified_at(facts, rows, results)) for facts, rows in held]


def _verified_at(
    facts: InstanceFacts, rows: Sequence[Row], results: Mapping[str, Result]
) -> datetime | None:
    """When all files of the newest complete set had been verified; None where one never was."""
    newest = facts.newest
    if newest is None:
        return None
    stems = [
        layout.stem_of_node(row.set_key, row.node_id, row.backup_id)
        for row in rows
        if row.set_key == newest.key and row.backup_id
    ]
    times = [one.at for stem in stems if (one := results.get(stem)) is not None]
    found = [at for at in times if at is not None]
    return min(found) if found and len(found) == len(stems) else None


async def _read_drills(store: Store, wrong: list[ArchiverError]) -> Drills:
    """What the newest drills say. What cannot be read is for ``drill`` to report as a fault."""
    drills = Drills()
    keys = list[str]()
    async for entry in store.entries(chain.PREFIX):
        if chain.is_evidence_key(entry.key):
            keys.append(entry.key)
        elif entry.key.startswith(f"{chain.PREFIX}last/"):
            drills.notes.add(entry.key)
        elif entry.hides is not None:
            wrong.append(entry.hides)
    newest = recent_drills(keys)
    for first in range(0, len(newest), _DRILLS_READ):
        some = newest[first : first + _DRILLS_READ]
        found = await store.read_many(some)
        for key in some:
            if (one := _evidence(key, found[key], wrong)) is not None:
                drills.add(one)
    return drills


def recent_drills(keys: Iterable[str]) -> list[str]:
    """The keys of the documents to read, newest first. Pure."""
    newest = sorted(keys, reverse=True)[:_MOST_DRILLS]
    if not newest:
        return []
    since = format_compact(_at(newest[0]) - _DRILL_DAYS)
    return newest[:_DRILLS_READ] + [
        key for key in newest[_DRILLS_READ:] if PurePosixPath(key).name >= since
    ]


def _at(key: str) -> datetime:
    """When a drill ended, by the key of its document."""
    return parse_compact(PurePosixPath(key).name.partition("-")[0])


def _evidence(
    key: str, data: bytes | ArchiverError | None, wrong: list[ArchiverError]
) -> Evidence | None:
    try:
        if isinstance(data, ArchiverError):
            raise data
        return None if data is None else decode(data, key)
    except ArchiverError as error:
        wrong.append(error)
        return None


async def _noted(store: Store, instance_id: str, read: Drills) -> DrillFacts | None:
    """The last drill that an instance passed, by the note on it: older than those that were
    read."""
    key, drills = chain.last_key(instance_id), Drills()
    if key not in read.notes:
        return None
    with suppress(ArchiverError):
        data = (await store.read_many([key]))[key]
        if isinstance(data, bytes):
            noted = chain.evidence_key(chain.last_id(key, data))
            evidence = _evidence(noted, (await store.read_many([noted]))[noted], [])
            if evidence is not None:
                drills.add(evidence)
    return drills.passed.get(instance_id)
