"""What sources have said of the instances in an archive, so that it can be judged without them.

    instances/<instance>.json

format       1
tool         name and version of what wrote it
and the fields of :class:`~archiver.model.InstanceDescription`

A pull writes them, without a lock: each is written as a whole, and the later one counts. They are
no witness of any file: where they are wrong, ``status`` expects the wrong backups, and that is all.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from archiver.archive.archive import TOOL
from archiver.concurrency import for_each
from archiver.documents import Fields, parse
from archiver.errors import ArchiverError, BadDocument, NewerDocument
from archiver.ids import is_instance_id, safe
from archiver.model import Engine, InstanceDescription, Schedule
from archiver.stores.base import Store
from archiver.times import format_iso

PREFIX: Final = "instances/"
_FORMAT: Final = 1
_SUFFIX: Final = ".json"
_PUT_AT_ONCE: Final = 16
# Documents that are read at once.
_READ_AT_ONCE: Final = 256
# One that says the same is written again after this time: it shows that the source was asked.
_SAME_FOR: Final = timedelta(hours=20)
_TIMES: Final = ("created_at", "ends_at", "deleted_at", "gone_at")
_TEXTS: Final = ("source", "region", "name", "architecture")
_DAY_MINUTES: Final = 24 * 60
_MOST_DAYS: Final = 36500


def description_key(instance_id: str) -> str:
    """Where the description of an instance is. Raises UnsafeInput."""
    return f"{PREFIX}{safe(instance_id)}{_SUFFIX}"


async def read_descriptions(
    store: Store, instances: Iterable[str] | None = None
) -> tuple[dict[str, InstanceDescription], list[ArchiverError]]:
    """The descriptions, by instance, of some ``instances`` or of all, and why others cannot be
    read. Raises StoreError."""
    found: dict[str, InstanceDescription] = {}
    wrong: list[ArchiverError] = []
    wanted = None if instances is None else {description_key(one) for one in instances}
    left = list[str]()
    async for entry in store.entries(PREFIX):
        if entry.hides is not None:
            wrong.append(entry.hides)
        elif entry.key.endswith(_SUFFIX) and (wanted is None or entry.key in wanted):
            left.append(entry.key)
    while left:
        some, left = left[:_READ_AT_ONCE], left[_READ_AT_ONCE:]
        for key, data in (await store.read_many(some)).items():
            if isinstance(data, ArchiverError):
                wrong.append(data)
            elif data is not None:
                try:
                    one = decode(key, data)
                except BadDocument as error:
                    wrong.append(error)
                else:
                    found[one.instance_id] = one
    return found, wrong


async def keep(store: Store, described: Iterable[InstanceDescription]) -> None:
    """Write what is new or has changed, and not older than what is there. Raises StoreError."""
    now = {one.instance_id: one for one in described}
    before, wrong = await read_descriptions(store, now) if now else ({}, [])
    newer = {error.key for error in wrong if isinstance(error, NewerDocument)}
    merged = {
        name: merge(before.get(name), one)
        for name, one in now.items()
        if name not in before or before[name].seen_at <= one.seen_at
    }

    async def put(name: str) -> None:
        key = description_key(name)
        if key not in newer and _is_news(before.get(name), merged[name]):
            await store.put(key, encode(merged[name]))

    await for_each(merged, put, _PUT_AT_ONCE)


async def keep_gone(
    store: Store,
    whole: Mapping[str, frozenset[str]],
    named: Iterable[str],
    regions: Collection[str],
    asked_at: datetime,
) -> None:
    """Note which instances their source has no more: those that are ``named``, of the ``regions``
    that were asked ("" for any), and those whose region was listed as a ``whole``, without them, at
    ``asked_at``. Raises StoreError."""
    named = frozenset(named)
    if not (whole or named):
        return
    known, _ = await read_descriptions(store)

    def is_gone(one: InstanceDescription) -> bool:
        if one.gone_at is not None or one.seen_at >= asked_at:
            return False
        is_listed = one.instance_id in whole.get(one.region, (one.instance_id,))
        is_asked = "" in (one.region, *regions) or one.region in regions
        return (one.instance_id in named and is_asked) or not is_listed

    gone = [replace(one, gone_at=asked_at) for one in known.values() if is_gone(one)]

    async def put(one: InstanceDescription) -> None:
        await store.put(description_key(one.instance_id), encode(one))

    await for_each(gone, put, _PUT_AT_ONCE)


def merge(before: InstanceDescription | None, now: InstanceDescription) -> InstanceDescription:
    """What is known after a source was asked again. Pure."""
    if before is None:
        return now
    was, is_ = before.schedule, now.schedule
    if is_ is None:
        return replace(now, schedule=was)  # it was not told this time
    if was is None:
        return now
    is_same = (was.weekdays, was.minute) == (is_.weekdays, is_.minute)
    return replace(now, schedule=replace(is_, since=was.since if is_same else now.seen_at))


def _is_news(before: InstanceDescription | None, now: InstanceDescription) -> bool:
    if before is None or now.seen_at - before.seen_at >= _SAME_FOR:
        return True
    return replace(before, seen_at=now.seen_at) != now


def encode(one: InstanceDescription) -> bytes:
    """The document, which can be read back."""
    schedule = one.schedule and {
        "weekdays": list(one.schedule.weekdays),
        "minute": one.schedule.minute,
        "kept_days": one.schedule.kept_days,
        "since": one.schedule.since and format_iso(one.schedule.since),
    }
    document: dict[str, Any] = {
        "format": _FORMAT,
        "tool": TOOL,
        "instance_id": one.instance_id,
        "seen_at": format_iso(one.seen_at),
        **{name: getattr(one, name) for name in _TEXTS},
        "shards": one.shards,
        "engine": one.engine and {"name": one.engine.name, "version": one.engine.version},
        "tags": dict(sorted(one.tags.items())),
        **{name: (at := getattr(one, name)) and format_iso(at) for name in _TIMES},
        "schedule": schedule,
        "no_backups": one.no_backups,
    }
    return f"{json.dumps(document, indent=2)}\n".encode("ascii")


def decode(key: str, data: bytes) -> InstanceDescription:
    """Read one. Raises BadDocument, also where it has the key of another."""
    fields = parse(key, data)
    fields.format("format", _FORMAT)
    instance_id = fields.line("instance_id")
    if not is_instance_id(instance_id) or description_key(instance_id) != key:
        fields.refuse("instance_id", "is not what the document's name says")
    source, region, name, architecture = map(fields.line, _TEXTS)
    created_at, ends_at, deleted_at, gone_at = (
        None if fields.is_null(time) else fields.moment(time) for time in _TIMES
    )
    tags = fields.within("tags")
    return InstanceDescription(
        instance_id=instance_id,
        seen_at=fields.moment("seen_at"),
        source=source,
        region=region,
        name=name,
        architecture=architecture,
        shards=None if fields.is_null("shards") else fields.number("shards", 1),
        engine=None if fields.is_null("engine") else _engine(fields.within("engine")),
        tags={key: tags.line(key) for key in tags.values},
        created_at=created_at,
        ends_at=ends_at,
        deleted_at=deleted_at,
        gone_at=gone_at,
        schedule=None if fields.is_null("schedule") else _schedule(fields.within("schedule")),
        no_backups=None if fields.is_null("no_backups") else fields.line("no_backups"),
    )


def _engine(fields: Fields) -> Engine:
    found = (None if fields.is_null(name) else fields.line(name) for name in ("name", "version"))
    return Engine(*found)


def _schedule(fields: Fields) -> Schedule:
    days = fields.items("weekdays")
    if not all(type(day) is int and 0 <= day <= 6 for day in days):
        fields.refuse("weekdays", "are not numbers from 0 to 6")
    return Schedule(
        tuple(sorted(set(days))),
        fields.number("minute", most=_DAY_MINUTES - 1),
        None if fields.is_null("kept_days") else fields.number("kept_days", most=_MOST_DAYS),
        None if fields.is_null("since") else fields.moment("since"),
    )
