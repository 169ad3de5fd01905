"""One region of a fleet: its source, and what is known of its instances."""

import dataclasses
import logging
import math
import time
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Any, Final

import orjson

from archiver.errors import ArchiverError, PermissionDenied
from archiver.model import Backup, Page, Query
from archiver.sources.alibaba import topology
from archiver.sources.alibaba.cache import COMPARED, Cache, Entry
from archiver.sources.alibaba.instances import Instance, describe_instances
from archiver.sources.alibaba.policies import BackupPolicy, read_policy
from archiver.sources.alibaba.selection import Selection
from archiver.sources.alibaba.source import TairSource
from archiver.sources.alibaba.topology import Topology, is_shard, read_nodes

_LOG: Final = logging.getLogger("archiver")
_TOPOLOGY_DENIED: Final = f"denied:{topology.ACTION}"
_DENIED: Final = "denied:DescribeInstances"
_DENIED_POLICIES: Final = "denied:DescribeBackupPolicy"


class Region:
    """``known`` are the instances that were listed or looked up, by id; ``source`` reads it, too.
    ``lacks`` are ids that were looked up and that it does not have, ``failure`` is why it could not
    be asked. ``oldest`` is when the oldest answer was given that was used, in seconds since the
    epoch."""

    def __init__(self, source: TairSource, known: dict[str, Instance]) -> None:
        self.source: Final = source
        self.known: Final = known
        self.lacks: Final[set[str]] = set()
        self.failure: ArchiverError | None = None
        self.cache = Cache(None, None)
        self.oldest = math.inf
        self.refused: list[ArchiverError] = []
        # When the newest backup began for which the shards of a cluster were asked for in this run.
        self._asked: Final[dict[str, float]] = {}

    async def learn(self, selection: Selection, *, must_know: bool) -> None:
        """List what may be selected, and look up what is named. Raises what DescribeInstances
        does; without ``must_know`` it is not asked again today for what it denied or did not have.
        """
        if selection.is_all:
            await self._list(selection)
        named = [one for one in selection.ids if one not in self.known]
        await self._look_up(named, must_know=must_know)

    async def _list(self, selection: Selection) -> None:
        tags, group = dict(sorted(selection.tags.items())), selection.resource_group
        name = f"instances:{orjson.dumps([tags, group]).decode()}"
        found = self._remembered(name)
        if found is None:
            found = await self._ask(tags=tags, resource_group=group)
            if not self.refused:
                self._remember(name, found)
        self.known.update((one.instance_id, one) for one in found)

    async def _look_up(self, ids: Sequence[str], *, must_know: bool) -> None:
        new = []
        for one in ids:
            found = self._remembered(f"instance:{one}")
            if found is None or (must_know and not found):  # it may have been created since
                new.append(one)
            else:
                self._looked_up(one, found)
        if not new or (self.cache.get(_DENIED) is not None and not must_know):
            return
        try:
            found = await self._ask(ids=new)
        except PermissionDenied:
            self.cache.put(_DENIED, value=True)
            raise
        for one in new:
            shown = [each for each in found if each.instance_id == one]
            self._looked_up(one, shown)
            self._remember(f"instance:{one}", shown)

    def _looked_up(self, instance_id: str, found: Sequence[Instance]) -> None:
        self.known.update((each.instance_id, each) for each in found)
        if not found:
            self.lacks.add(instance_id)

    async def _ask(self, **filters: Any) -> list[Instance]:  # noqa: ANN401 - those it takes
        api, told = self.source.api, self.refused.append
        return [one async for one in describe_instances(api, on_refused=told, **filters)]

    def _remember(self, name: str, found: Collection[Instance]) -> None:
        self._use(self.cache.put(name, [_kept(one) for one in found]))

    def _remembered(self, name: str) -> list[Instance] | None:
        """What was listed before; None where nothing was, or by a version with other fields."""
        entry = self.cache.get(name)
        if entry is None:
            return None
        try:
            found = [_restored(one) for one in entry.value]
        except (TypeError, KeyError):
            return None
        self._use(entry)
        return found

    def _use(self, entry: Entry) -> None:
        self.oldest = min(self.oldest, entry.at)

    def knows_policy(self, instance_id: str) -> bool:
        """Whether the policy of an instance was asked for before."""
        return self.cache.get(_policy(instance_id)) is not None

    @property
    def denies_policies(self) -> bool:
        """Whether the policies were denied today."""
        return self.cache.get(_DENIED_POLICIES) is not None

    def note_denied_policies(self) -> None:
        """Do not ask for the policies again today."""
        self.cache.put(_DENIED_POLICIES, value=True)

    async def policy(self, instance_id: str) -> BackupPolicy:
        """The backup policy of an instance. Raises what DescribeBackupPolicy does."""
        name = _policy(instance_id)
        entry = self.cache.get(name)
        if entry is None:
            answer = await self.source.api.call(
                "DescribeBackupPolicy",
                {"InstanceId": instance_id},
                subject=instance_id,
                resource=f"acs:kvstore:*:*:instance/{instance_id}",
            )
            entry = self.cache.put(name, answer)
        self._use(entry)
        return read_policy(instance_id, entry.value)

    async def pages(self, query: Query) -> AsyncGenerator[Page, None]:
        """See :meth:`TairSource.pages`; backups of classic clusters are told their shards."""
        async with aclosing(self.source.pages(query)) as pages:
            async for page in pages:
                backups = await self._with_shards(query.instance_id, page.backups)
                yield dataclasses.replace(page, backups=backups)

    async def again(self, backup: Backup) -> Backup:
        """See :meth:`TairSource.again`."""
        found = await self.source.again(backup)
        [found] = await self._with_shards(backup.instance_id, (found,))
        return found

    async def _with_shards(
        self, instance_id: str, backups: tuple[Backup, ...]
    ) -> tuple[Backup, ...]:
        instance = self.known.get(instance_id)
        starts = [one.started_at for one in backups if is_shard(one)]
        if not starts or instance is None or not instance.is_classic_cluster:
            return backups
        known = await self._topology(instance_id, max(starts).timestamp())
        return backups if known is None else known.told(backups)

    async def _topology(self, instance_id: str, newest: float) -> Topology | None:
        """What is known of a cluster's shards. They are asked for only if a backup is newer
        (``newest``) than the last answer, and than what they were asked for in this run: again for
        one that is made meanwhile. Without a later run that compares, they would be asked for in
        vain."""
        known = _observed(self.cache.get(f"{COMPARED}{instance_id}"))
        is_covered = known is not None and newest <= known.until
        is_denied = self.cache.get(_TOPOLOGY_DENIED) is not None
        was_asked = newest <= self._asked.get(instance_id, -math.inf)
        if is_covered or is_denied or was_asked or not self.cache.is_kept:
            return known
        self._asked[instance_id] = newest
        asked_at = time.time()
        try:
            answer = await self.source.api.call(
                topology.ACTION,
                {"InstanceId": instance_id},
                subject=instance_id,
                resource=f"acs:kvstore:*:*:instance/{instance_id}",
            )
            nodes = read_nodes(instance_id, answer)
        except ArchiverError as error:
            if isinstance(error, PermissionDenied):
                self.cache.put(_TOPOLOGY_DENIED, value=True)
            self._asked[instance_id] = math.inf  # a failure may take minutes
            _LOG.debug("the number of shards of %s is not known: %s", instance_id, error)
            return known
        # What changed while it was asked for is in neither time: the call may have been retried.
        since = known.since if known is not None and known.nodes == nodes else time.time()
        value = {"nodes": sorted(nodes), "since": since, "until": asked_at}
        return _observed(self.cache.put(f"{COMPARED}{instance_id}", value))


def _observed(entry: Entry | None) -> Topology | None:
    """What a cache has of a cluster's shards; None where that is nothing, or unreadable."""
    if entry is None:
        return None
    try:
        kept = entry.value
        return Topology(frozenset(kept["nodes"]), float(kept["since"]), float(kept["until"]))
    except (KeyError, TypeError, ValueError):
        return None


def _policy(instance_id: str) -> str:
    return f"policy:{instance_id}"


_TIMES: Final = ("created_at", "ends_at", "destroyed_at")


def _kept(instance: Instance) -> dict[str, Any]:
    """An instance as a cache keeps it."""
    fields = dataclasses.asdict(instance)
    times = {name: fields[name] and fields[name].isoformat() for name in _TIMES}
    return {**fields, **times}


def _restored(kept: Mapping[str, Any]) -> Instance:
    times = {name: kept[name] and datetime.fromisoformat(kept[name]) for name in _TIMES}
    return Instance(**{**kept, **times})
