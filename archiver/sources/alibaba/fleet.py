"""Instances of several regions as one source.

Each region is asked at its own endpoint, and fails alone. They share one session, one chain of
credentials and one count of calls.
"""

import logging
import math
import os
import time
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

import aiohttp

from archiver import events
from archiver.concurrency import for_each, in_thread_shielded
from archiver.errors import (
    ArchiverError,
    PermissionDenied,
    SourceError,
    UnknownInstance,
    UsageError,
)
from archiver.model import Backup, InstanceDescription, Page, Query
from archiver.proxies import Proxies
from archiver.retry import RetryPolicy
from archiver.sources.alibaba.api import GetCredentials
from archiver.sources.alibaba.cache import Cache, Owner
from archiver.sources.alibaba.describing import describe
from archiver.sources.alibaba.instances import Instance
from archiver.sources.alibaba.policies import BackupPolicy
from archiver.sources.alibaba.quotas import Quotas
from archiver.sources.alibaba.region import Region
from archiver.sources.alibaba.regions import host_of, read_regions
from archiver.sources.alibaba.rpc import CENTRAL_HOST
from archiver.sources.alibaba.selection import Selection
from archiver.sources.alibaba.source import TairSource
from archiver.sources.session import open_session

_LOG: Final = logging.getLogger("archiver")
# Policies that are asked for at once; how fast is a matter of the quota.
_POLICIES_AT_ONCE: Final = 16
# So many that are denied, and nothing else, stand for all of a region.
_DENIALS: Final = 3


@dataclass(frozen=True, slots=True)
class Found:
    """What a selection came to: the instances, by region and id, and why regions could not be
    listed. ``refused`` are errors of entries that cannot be read. ``unlisted`` are ids that were
    named and that no region shows; they can be asked for all the same. ``whole`` are the ids of all
    instances of the regions that were listed without leaving any out. ``unused`` is what chooses
    among all instances and fits none; it is empty where some could not be listed."""

    instances: tuple[Instance, ...] = ()
    failures: Mapping[str, ArchiverError] = field(default_factory=dict)
    refused: tuple[ArchiverError, ...] = ()
    unlisted: tuple[str, ...] = ()
    whole: Mapping[str, frozenset[str]] = field(default_factory=dict)
    unused: Sequence[tuple[str, str]] = ()


class FleetSource:
    """A source of several ``regions``; use as an async context manager.

    None are all that DescribeRegions names. ``endpoint`` is a host or URL that is asked for each of
    the given regions, or for all of them; without it each is asked at its own. A region of ""
    stands for whatever the endpoint has. ``cache_folder`` keeps what is listed for the day;
    ``refresh``: what is kept there is not used. The other arguments are those of TairSource.
    """

    def __init__(
        self,
        credentials: GetCredentials,
        regions: Sequence[str] | None,
        *,
        endpoint: str | None = None,
        session: aiohttp.ClientSession | None = None,
        quotas: Quotas | None = None,
        retry: RetryPolicy | None = None,
        observer: events.Observer = events.ignore,
        proxies: Proxies | None = None,
        allow_hosts: Iterable[str] = (),
        cache_folder: Path | None = None,
        refresh: bool = False,
    ) -> None:
        self._credentials: Final = credentials
        self._given_regions: Final = regions
        self._endpoint: Final = endpoint
        self._given_session: Final = session
        self._session = session
        self._quotas: Final = quotas or Quotas()
        self._retry: Final = retry
        self._observer: Final = observer
        self._proxies: Final = proxies or Proxies.from_environment(os.environ)
        self._allow_hosts: Final = tuple(allow_hosts)
        self._cache_folder: Final = cache_folder
        self._refresh: Final = refresh
        self._regions: dict[str, Region] = {}
        # The region of each instance that is known.
        self._home: Final[dict[str, str]] = {}
        self._policies: Final[dict[str, BackupPolicy]] = {}
        self._refused: Mapping[str, ArchiverError] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Raises what DescribeRegions does, where all regions are meant, and UsageError for an
        invalid region id."""
        async with AsyncExitStack() as stack:
            if self._session is None:
                self._session = await stack.enter_async_context(open_session())
            for name, endpoint in (await self._endpoints()).items():
                known: dict[str, Instance] = {}
                source = self._source(endpoint, name, known)
                self._regions[name] = Region(await stack.enter_async_context(source), known)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await in_thread_shielded(self._save)
        finally:
            await self._stack.aclose()

    async def _endpoints(self) -> dict[str, str]:
        """The endpoint of each region."""
        if self._given_regions is not None:
            return {
                name: self._endpoint or await host_of(name, self._proxies)
                for name in dict.fromkeys(self._given_regions)
            }
        async with self._source(self._endpoint or CENTRAL_HOST, "", {}) as source:
            api = source.api
            answer = await api.call("DescribeRegions", {}, subject="DescribeRegions")
        endpoints, self._refused = read_regions(answer, api.origin)
        return endpoints

    def _source(self, endpoint: str, region: str, known: Mapping[str, Instance]) -> TairSource:
        return TairSource(
            endpoint,
            self._credentials,
            session=self._session,
            region=region,
            quotas=self._quotas,
            retry=self._retry,
            observer=self._observer,
            proxies=self._proxies,
            allow_hosts=self._allow_hosts,
            instances=known,
        )

    async def find(self, selection: Selection, *, must_know: bool = False) -> Found:
        """The instances that are selected. What fails for one region is in the answer's
        ``failures``. That instances are named, and cannot be looked up, is one only with
        ``must_know``: they can be pulled without, and what else is wrong is told then. Raises what
        the credentials do."""
        failures = dict(self._refused)
        must_know = must_know or selection.is_all
        await self._credentials()

        async def learn(name: str) -> None:
            try:
                await self._learn(name, selection, must_know=must_know)
            except ArchiverError as error:
                self._regions[name].failure = error
                if must_know:
                    failures[name] = error
                else:
                    _LOG.debug("the instances that are named are not looked up: %s", error)

        await for_each(self._regions, learn, len(self._regions) or 1)
        known = [one for region in self._regions.values() for one in region.known.values()]
        for name, region in self._regions.items():
            self._home.update(dict.fromkeys(region.known, name))
        refused = tuple(error for region in self._regions.values() for error in region.refused)
        return Found(
            tuple(selection.chosen(known)),
            failures,
            refused,
            tuple(one for one in selection.ids if one not in self._home),
            self._whole(failures) if selection.is_unfiltered else {},
            [] if failures or refused else selection.unused(known),
        )

    def _whole(self, failures: Collection[str]) -> dict[str, frozenset[str]]:
        """The ids of all instances of each region, by the region's id as its instances have it."""
        whole: dict[str, set[str]] = defaultdict(set)
        for name, region in self._regions.items():
            if name not in failures and not region.refused:
                whole[name].update(region.known)
                for one in region.known.values():
                    whole[one.region].add(one.instance_id)
        return {name: frozenset(ids) for name, ids in whole.items() if name}

    async def _learn(self, name: str, selection: Selection, *, must_know: bool) -> None:
        region = self._regions[name]
        owner = Owner.of(await self._credentials(), str(region.source.api.origin), name)
        region.cache = Cache(self._cache_folder, owner, fresh=self._refresh)
        await region.cache.load()
        try:
            await region.learn(selection, must_know=must_know)
        finally:
            await in_thread_shielded(region.cache.save)

    async def policies(
        self, instances: Iterable[Instance]
    ) -> dict[str, BackupPolicy | ArchiverError]:
        """The backup policy of each instance that was found, by id, or why there is none."""
        found: dict[str, BackupPolicy | ArchiverError] = {}

        async def ask(instance_id: str) -> None:
            try:
                region = self._regions[self._home[instance_id]]
                found[instance_id] = policy = await region.policy(instance_id)
                self._policies[instance_id] = policy
            except ArchiverError as error:
                found[instance_id] = error

        ids = [one.instance_id for one in instances]
        try:
            await for_each(ids, ask, _POLICIES_AT_ONCE)
        finally:  # what took long to ask for is kept though the run is interrupted
            await in_thread_shielded(self._save)
        return found

    async def learn_policies(self, instances: Iterable[Instance]) -> None:
        """Ask for the policies of instances that were found, for their descriptions. A region that
        denies the first few is asked for no more today. Raises nothing: they are not needed."""
        by_region: dict[str, list[Instance]] = defaultdict(list)
        for one in instances:
            if one.why_no_backups is None:
                by_region[self._home[one.instance_id]].append(one)

        async def ask(region: str) -> None:
            first, others = by_region[region][:_DENIALS], by_region[region][_DENIALS:]
            if self._regions[region].denies_policies:
                return
            found = await self.policies(first)
            if not all(isinstance(one, PermissionDenied) for one in found.values()):
                await self.policies(others)
            elif len(first) == _DENIALS:
                self._regions[region].note_denied_policies()

        await for_each(by_region, ask, len(by_region) or 1)

    def descriptions(self, instances: Iterable[Instance]) -> list[InstanceDescription]:
        """What an archive should keep of instances that were found, each with its schedule where
        its policy is known by now."""
        seen_at = datetime.fromtimestamp(min(self.asked_at, time.time()), UTC)
        return [describe(one, self._policies.get(one.instance_id), seen_at) for one in instances]

    def _save(self) -> None:
        for region in self._regions.values():
            region.cache.save()

    def calls_for_policies(self, instances: Iterable[Instance]) -> int:
        """How many policies the region is asked for that is asked for most."""
        homes = [(self._home[one.instance_id], one.instance_id) for one in instances]
        unknown = [home for home, name in homes if not self._regions[home].knows_policy(name)]
        return max(Counter(unknown).values(), default=0)

    @property
    def asked_at(self) -> float:
        """When the oldest answer of what is known was given, in seconds since the epoch."""
        return min((region.oldest for region in self._regions.values()), default=math.inf)

    async def call(
        self,
        action: str,
        params: Mapping[str, str],
        *,
        subject: str,
        resource: str = "*",
        changes: bool = False,
    ) -> dict[str, Any]:
        """Send an action about ``params["InstanceId"]`` to the region of that instance. Raises what
        :meth:`home_of` and Api.call do."""
        api = self.home_of(params["InstanceId"]).source.api
        return await api.call(action, params, subject=subject, resource=resource, changes=changes)

    def home_of(self, instance_id: str) -> Region:
        """The only region that can have an instance, after :meth:`find`. Raises UnknownInstance
        where none has it, UsageError where it is not known which one has, and what kept the region
        from being asked, if that concerns all of its instances."""
        homes = self._homes(instance_id)
        able = {name: one for name, one in homes.items() if instance_id not in one.lacks}
        if not able:
            raise _nowhere(instance_id, [])
        if len(able) > 1:
            raise UsageError(
                f"{instance_id}: it is not known which of {', '.join(able)} has it",
                hint="give the --region that has it, and no other",
            )
        [home] = able.values()
        if home.failure is not None and home.failure.concerns_all:
            raise home.failure
        return home

    @property
    def regions(self) -> Collection[str]:
        """The ids of the regions that are asked; "" for whatever an endpoint has."""
        return self._regions.keys()

    def region_of(self, instance_id: str) -> str:
        """The region that has an instance; empty where none is known to."""
        return self._home.get(instance_id, "")

    async def pages(self, query: Query) -> AsyncGenerator[Page, None]:
        """See :meth:`TairSource.pages`; an instance of which no region is known is looked for in
        all of them. Raises UnknownInstance where none of them has it or lists a backup of it."""
        instance_id = query.instance_id
        failures: list[ArchiverError] = []
        homes = self._homes(instance_id)
        for name, region in homes.items():
            try:
                async with aclosing(region.pages(query)) as pages:
                    async for page in pages:
                        if page.backups or page.refused:
                            self._home[instance_id] = name
                        elif instance_id in region.lacks:
                            continue  # no answer that an archive would be begun for
                        yield page
            except ArchiverError as error:
                if self.region_of(instance_id) == name:
                    raise
                failures.append(error)
            else:
                if self.region_of(instance_id) == name:
                    return
        is_lacking = all(instance_id in region.lacks for region in homes.values())
        told = [error for error in failures if not isinstance(error, UnknownInstance)]
        # A region that knows it may list no backups of it. That is no failure, unless it may be in
        # a region that could not be asked.
        if is_lacking or told or len(failures) == len(homes):
            raise _nowhere(instance_id, failures)

    async def again(self, backup: Backup) -> Backup:
        """See :meth:`TairSource.again`."""
        failures: list[ArchiverError] = []
        for region in self._homes(backup.instance_id).values():
            try:
                return await region.again(backup)
            except ArchiverError as error:
                failures.append(error)
        raise _nowhere(backup.instance_id, failures)

    def _homes(self, instance_id: str) -> dict[str, Region]:
        """The region of an instance; all of them where it is not known."""
        home = self._home.get(instance_id)
        return self._regions if home is None else {home: self._regions[home]}


def _nowhere(instance_id: str, failures: Sequence[ArchiverError]) -> ArchiverError:
    """The error for an instance that no region lists: of several, the first that says more than
    that it is not there, as one about this instance alone."""
    if len(failures) == 1:
        return failures[0]
    told = [error for error in failures if not isinstance(error, UnknownInstance)]
    if not told:
        return UnknownInstance(
            f"{instance_id}: no region that was asked has it", hint="check --region"
        )
    if told[0].concerns_all:
        return SourceError(f"{instance_id}: {told[0].message}", hint=told[0].hint)
    return told[0]
