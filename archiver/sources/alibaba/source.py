"""ApsaraDB for Redis / Tair: backups as DescribeBackups lists them, and those of cloud-native
clusters as DescribeClusterBackupList does."""

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

import aiohttp

from archiver import events
from archiver.errors import BackupGone, RequestRejected, SourceError, UnknownInstance, UsageError
from archiver.logs import OF_RUNS, logged
from archiver.model import Backup, Page, Query
from archiver.proxies import Proxies
from archiver.retry import RETRIES, RetryPolicy
from archiver.sources.alibaba import clusters
from archiver.sources.alibaba.api import VERSION, Api, GetCredentials
from archiver.sources.alibaba.fields import SOURCE
from archiver.sources.alibaba.hosts import AllowedHosts
from archiver.sources.alibaba.instances import Instance
from archiver.sources.alibaba.listing import read_page
from archiver.sources.alibaba.quotas import Quotas
from archiver.sources.alibaba.rpc import RpcClient, region_of
from archiver.sources.session import open_session
from archiver.times import EVERYTHING_FROM, TimeRange

PAGE_SIZES = (30, 50, 100, 200, 300)
_BACKUPS: Final = SOURCE.action.partition(" ")[0]
# Backup sets a page: of the largest clusters, more would not fit into an answer.
_MOST_SETS: Final = 50

# A listing of several pages is read again until a whole reading finds nothing new. That many
# readings without an end are no listing any more.
MOST_READINGS = RETRIES.changing_listing.attempts

# The longest retention that can be set, and a day. A manual backup may be kept for longer.
LONGEST_RETENTION = timedelta(days=731)


class TairSource:
    """A source over one kept session and one TLS context; use as an async context manager.

    ``endpoint`` is a host or URL, ``region`` the id of its region: the backups of cloud-native
    clusters cannot be listed without it. ``credentials`` is called before each request and gives a
    key that is still good. ``instances`` is what is known of some, by their ids. ``quotas`` None
    are its own, with the default rate. ``allow_hosts`` are more hosts that files may be fetched
    from, beside the vendor's and the endpoint's own; ``proxies`` None are those of the environment.
    """

    def __init__(
        self,
        endpoint: str,
        credentials: GetCredentials,
        *,
        region: str = "",
        instances: Mapping[str, Instance] | None = None,
        quotas: Quotas | None = None,
        session: aiohttp.ClientSession | None = None,
        page_size: int = max(PAGE_SIZES),
        retry: RetryPolicy | None = None,
        observer: events.Observer = events.ignore,
        proxies: Proxies | None = None,
        allow_hosts: Iterable[str] = (),
    ) -> None:
        if page_size not in PAGE_SIZES:
            raise UsageError(f"page size {page_size} is not one of {PAGE_SIZES}")
        self._endpoint: Final = endpoint
        self._credentials: Final = credentials
        self._region = region
        self._instances: Final = {} if instances is None else instances
        self._found: Final[dict[str, str]] = {}
        # Files are fetched over http where the API is, and otherwise never from a cluster's list.
        self._is_plain: Final = endpoint.lower().startswith("http://")
        self._quotas: Final = quotas or Quotas()
        self._given_session: Final = session
        self._page_size: Final = page_size
        self._retry: Final = retry or RETRIES.api_call.policy()
        self._observer: Final = logged(observer, OF_RUNS)
        self._proxies: Final = proxies
        self._allow_hosts: Final = tuple(allow_hosts)
        self._hosts = AllowedHosts("", self._allow_hosts)
        self._earliest = EVERYTHING_FROM
        self._stack: Final = AsyncExitStack()
        self._api: Api | None = None

    async def __aenter__(self) -> Self:
        session = self._given_session
        if session is None:
            session = await self._stack.enter_async_context(open_session())
        rpc = RpcClient(session, self._endpoint, VERSION, proxies=self._proxies)
        self._region = self._region or region_of(rpc.host)
        self._api = Api(
            rpc,
            self._credentials,
            region=self._region,
            quotas=self._quotas,
            retry=self._retry,
            observer=self._observer,
        )
        self._hosts = AllowedHosts(rpc.host, self._allow_hosts)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def api(self) -> Api:
        """The endpoint that is asked, once this is entered."""
        if self._api is None:
            raise RuntimeError("TairSource is used before it was entered")
        return self._api

    async def pages(self, query: Query) -> AsyncGenerator[Page, None]:
        """Stream the listing, one page held at a time, each backup once.

        An instance has its backups in one of two listings. Where the first lists nothing, the other
        one is asked for; where one lists something, it is the only one for the rest of the run.
        """
        actions = self._actions(query.instance_id)
        for action in actions:
            is_it = False
            try:
                async with aclosing(self._settled(query, action)) as pages:
                    async for page in pages:
                        is_it = is_it or bool(page.backups or page.refused)
                        yield page
            except UnknownInstance:
                # DescribeBackups says whether there is no such instance, or only no such cluster.
                if action != clusters.ACTION or len(actions) == 1 or is_it:
                    raise
            if is_it:
                self._found[query.instance_id] = action
                return

    def _actions(self, instance_id: str) -> tuple[str, ...]:
        """The listings that may have the backups of an instance, the likely one first."""
        if instance_id in self._found:
            return (self._found[instance_id],)
        if not self._region_of(instance_id):
            return (_BACKUPS,)  # the other one needs a region
        described = self._instances.get(instance_id)
        if described is not None and described.lists_cluster_backups:
            return clusters.ACTION, _BACKUPS
        return _BACKUPS, clusters.ACTION

    def _region_of(self, instance_id: str) -> str:
        described = self._instances.get(instance_id)
        return (described.region if described else "") or self._region

    async def _settled(self, query: Query, action: str) -> AsyncGenerator[Page, None]:
        """Pages are numbered by position, so a backup that disappears moves all that follow it one
        place up, one of them past the page boundary being read; and one that appears moves them
        down. A listing that took more than one page is therefore read until a whole reading
        shows nothing new. What is remembered of a backup is one 64-bit number.
        """
        seen: set[int] = set()
        for _ in range(MOST_READINGS):
            found = pages = 0
            async for page in self._one_reading(query, action):
                fresh = [b for b in page.backups if hash(b.identity) not in seen]
                fresh = list({b.identity: b for b in fresh}.values())
                seen.update(hash(backup.identity) for backup in fresh)
                refused = tuple(one for one in page.refused if hash(one.identity) not in seen)
                seen.update(hash(one.identity) for one in refused)
                found += len(fresh) + len(refused)
                pages += 1
                yield replace(page, backups=tuple(fresh), refused=refused)
            if pages == 1 or not found:
                return
        raise SourceError(
            f"{query.instance_id}: the listing still changed after {MOST_READINGS} readings",
            hint="run again, with a range that ends in the past",
        )

    async def _one_reading(self, query: Query, action: str) -> AsyncGenerator[Page, None]:
        number, count, before = 1, 0, list[object]()
        is_last: bool | None = False
        while True:
            page = await self._page(query, action, number)
            self._observer(
                events.PageListed(query.instance_id, number, len(page.backups), page.total)
            )
            shown: list[object] = [one.identity for one in page.backups]
            shown += [one.identity for one in page.refused]
            if is_last is None and not shown:
                return  # the one before was the last
            yield page
            count += len(shown)
            # What is shown counts: pages may be smaller than was asked for, and than they say.
            is_last = page.is_last if page.total is None else count >= page.total
            if not shown or is_last:
                return
            if shown == before:  # the source ignores the number
                if page.total is None:
                    return
                raise SourceError(f"{query.instance_id}: page {number} is page {number - 1}")
            number, before = number + 1, shown

    async def again(self, backup: Backup) -> Backup:
        """The same backup, listed anew by its BackupId, or that of its cluster's backup.

        Raises BackupGone when it is no longer listed, and what ``pages`` raises.
        """
        day = timedelta(days=1)
        ended_at = max(backup.ended_at or backup.started_at, backup.started_at)
        around = TimeRange(backup.started_at - day, ended_at + day)
        start, end = around.query_bounds()
        query = Query(backup.instance_id, start, end, need_aof=True, backup_id=backup.backup_id)
        action = _BACKUPS
        if backup.source == clusters.SOURCE:
            query, action = replace(query, set_id=backup.set_id), clusters.ACTION
        async for page in self._one_reading(query, action):
            for listed in page.backups:
                if listed.identity == backup.identity:
                    return listed
        raise BackupGone(f"{backup}: the vendor no longer lists this backup")

    async def _page(self, query: Query, action: str, number: int) -> Page:
        """A page; where the API refuses to be asked for everything, of all that the vendor's
        retention can be set to."""
        if query.start != EVERYTHING_FROM:
            return await self._page_from(query.start, query, action, number)
        try:
            return await self._page_from(self._earliest, query, action, number)
        except RequestRejected:
            if self._earliest != EVERYTHING_FROM:
                raise
            now = datetime.now(UTC)
            earliest, _ = TimeRange(now - LONGEST_RETENTION, now).query_bounds()
        page = await self._page_from(earliest, query, action, number)
        self._earliest = earliest
        self._observer(events.RangeNarrowed(earliest))
        return page

    async def _page_from(self, start: str, query: Query, action: str, number: int) -> Page:
        params = {
            "InstanceId": query.instance_id,
            "StartTime": start,
            "EndTime": query.end,
            "PageNumber": str(number),
        }
        if action == clusters.ACTION:
            page = await self._page_of_sets(params, query)
        else:
            page = await self._page_of_backups(params, query)
        return replace(page, backups=tuple(map(self._hosts.marked, page.backups)))

    async def _page_of_backups(self, params: dict[str, str], query: Query) -> Page:
        params |= {"PageSize": str(self._page_size), "NeedAof": "1" if query.need_aof else "0"}
        if query.backup_id is not None:
            params["BackupId"] = query.backup_id
        if query.set_id is not None:
            params["BackupJobId"] = query.set_id
        return read_page(query.instance_id, await self._call(_BACKUPS, params))

    async def _page_of_sets(self, params: dict[str, str], query: Query) -> Page:
        instance_id = query.instance_id
        params |= {
            "RegionId": self._region_of(instance_id),
            "PageSize": str(min(self._page_size, _MOST_SETS)),
        }
        if query.set_id is not None:
            params["ClusterBackupId"] = query.set_id
        described = self._instances.get(instance_id)
        expected = described.nodes_expected if described else None
        answer = await self._call(clusters.ACTION, params)
        page = clusters.read_cluster_page(instance_id, answer, expected)
        wanted = [b for b in page.backups if query.backup_id in (None, b.backup_id)]
        if not self._is_plain:
            wanted = [clusters.over_tls(backup) for backup in wanted]
        return replace(page, backups=tuple(wanted))

    async def _call(self, action: str, params: Mapping[str, str]) -> dict[str, Any]:
        """Send an action about ``params["InstanceId"]`` and return its decoded answer."""
        instance_id = params["InstanceId"]
        return await self.api.call(
            action,
            params,
            subject=instance_id,
            resource=f"acs:kvstore:{self._region_of(instance_id) or '*'}:*:instance/{instance_id}",
        )
