"""ApsaraDB for Redis / Tair: backups as DescribeBackups lists them."""

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

import aiohttp

from archiver import events
from archiver.errors import BackupGone, RequestRejected, SourceError, UsageError
from archiver.logs import OF_RUNS, logged
from archiver.model import Backup, Page, Query
from archiver.proxies import Proxies
from archiver.retry import RETRIES, RetryPolicy
from archiver.sources.alibaba.api import VERSION, Api, GetCredentials
from archiver.sources.alibaba.hosts import AllowedHosts
from archiver.sources.alibaba.listing import read_page
from archiver.sources.alibaba.quotas import Quotas
from archiver.sources.alibaba.rpc import RpcClient
from archiver.sources.session import open_session
from archiver.times import EVERYTHING_FROM, TimeRange

PAGE_SIZES = (30, 50, 100, 200, 300)

# A listing of several pages is read again until a whole reading finds nothing new. That many
# readings without an end are no listing any more.
MOST_READINGS = RETRIES.changing_listing.attempts

# The longest retention that can be set, and a day. A manual backup may be kept for longer.
LONGEST_RETENTION = timedelta(days=731)


class TairSource:
    """A source over one kept session and one TLS context; use as an async context manager.

    ``endpoint`` is a host or URL, ``region`` the id of its region; ``credentials`` is called before
    each request and gives a key that is still good. ``quotas`` None are its own, with the default
    rate. ``allow_hosts`` are more hosts that files may be fetched from, beside the vendor's and the
    endpoint's own; ``proxies`` None are those of the environment.
    """

    def __init__(
        self,
        endpoint: str,
        credentials: GetCredentials,
        *,
        region: str = "",
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
        self._region: Final = region
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

        Pages are numbered by position, so a backup that disappears moves all that follow it one
        place up, one of them past the page boundary being read; and one that appears moves them
        down. A listing that took more than one page is therefore read until a whole reading
        shows nothing new. What is remembered of a backup is one 64-bit number.
        """
        seen: set[int] = set()
        for _ in range(MOST_READINGS):
            found = pages = 0
            async for page in self._one_reading(query):
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

    async def _one_reading(self, query: Query) -> AsyncGenerator[Page, None]:
        number = 1
        while True:
            page = await self._page(query, number)
            self._observer(
                events.PageListed(query.instance_id, number, len(page.backups), page.total)
            )
            yield page
            empty = not page.backups and not page.refused
            # The answer's own page size counts: it need not be the one asked for.
            if empty or number * max(page.size, 1) >= page.total:
                return
            number += 1

    async def again(self, backup: Backup) -> Backup:
        """The same backup, listed anew by its BackupId.

        Raises BackupGone when it is no longer listed, and what ``pages`` raises.
        """
        day = timedelta(days=1)
        ended_at = max(backup.ended_at or backup.started_at, backup.started_at)
        around = TimeRange(backup.started_at - day, ended_at + day)
        start, end = around.query_bounds()
        query = Query(backup.instance_id, start, end, need_aof=True, backup_id=backup.backup_id)
        async for page in self._one_reading(query):
            for listed in page.backups:
                if listed.identity == backup.identity:
                    return listed
        raise BackupGone(f"{backup}: the vendor no longer lists this backup")

    async def _page(self, query: Query, number: int) -> Page:
        """A page; where the API refuses to be asked for everything, of all that the vendor's
        retention can be set to."""
        if query.start != EVERYTHING_FROM:
            return await self._page_from(query.start, query, number)
        try:
            return await self._page_from(self._earliest, query, number)
        except RequestRejected:
            if self._earliest != EVERYTHING_FROM:
                raise
            now = datetime.now(UTC)
            earliest, _ = TimeRange(now - LONGEST_RETENTION, now).query_bounds()
        page = await self._page_from(earliest, query, number)
        self._earliest = earliest
        self._observer(events.RangeNarrowed(earliest))
        return page

    async def _page_from(self, start: str, query: Query, number: int) -> Page:
        params = {
            "InstanceId": query.instance_id,
            "StartTime": start,
            "EndTime": query.end,
            "PageSize": str(self._page_size),
            "PageNumber": str(number),
            "NeedAof": "1" if query.need_aof else "0",
        }
        if query.backup_id is not None:
            params["BackupId"] = query.backup_id
        page = read_page(query.instance_id, await self._call("DescribeBackups", params))
        return replace(page, backups=tuple(map(self._hosts.marked, page.backups)))

    async def _call(self, action: str, params: Mapping[str, str]) -> dict[str, Any]:
        """Send an action about ``params["InstanceId"]`` and return its decoded answer."""
        instance_id = params["InstanceId"]
        return await self.api.call(
            action,
            params,
            subject=instance_id,
            resource=f"acs:kvstore:{self._region or '*'}:*:instance/{instance_id}",
        )
