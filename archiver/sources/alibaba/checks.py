"""Checks the way to a region's API and what the access key may do there, for ``archiver doctor``.

Each check needs what was checked before it, so that the first failure is the cause of the others.
"""

import math
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import aiohttp

from archiver.errors import (
    AccessError,
    ArchiverError,
    ClockSkew,
    PermissionDenied,
    ProxyDenied,
    RequestRejected,
    UsageError,
)
from archiver.findings import Finding, Verdict
from archiver.model import Backup, Query
from archiver.proxies import Proxies
from archiver.retry import RetryPolicy
from archiver.secret import masked
from archiver.sources.alibaba import clusters, topology
from archiver.sources.alibaba.api import VERSION, Api
from archiver.sources.alibaba.credentials import CredentialChain, identity
from archiver.sources.alibaba.instances import Instance, read_instances
from archiver.sources.alibaba.policies import read_policy
from archiver.sources.alibaba.quotas import Quotas
from archiver.sources.alibaba.regions import host_of, read_regions
from archiver.sources.alibaba.rpc import Credentials, RpcClient
from archiver.sources.alibaba.source import TairSource
from archiver.times import TimeRange, format_iso

# The gateway refuses requests whose time differs by more than 15 minutes.
_MOST_AHEAD: Final = 15 * 60
_NOTEWORTHY_AHEAD: Final = 60
# As far back as backups are looked for: weekly ones are among them.
_LISTED: Final = timedelta(days=31)
_KEY: Final = "access key"
_PERMISSIONS: Final = "permissions"


@dataclass(slots=True)
class SourceChecks:
    """Checks of one region; ``region`` may be "" where ``endpoint`` is given. ``instance_id`` is
    the instance that is asked about; None takes the first of each kind that is listed.

    ``backup`` is a backup with a URL, once one was listed.
    """

    session: aiohttp.ClientSession
    chain: CredentialChain
    proxies: Proxies
    quotas: Quotas
    region: str
    endpoint: str | None
    retry: RetryPolicy
    instance_id: str | None = None
    allow_hosts: tuple[str, ...] = ()
    backup: Backup | None = field(default=None, init=False)

    async def findings(self) -> AsyncGenerator[Finding, None]:
        """Check one thing after the other, until something fails that all the others need."""
        try:
            endpoint = self.endpoint or await host_of(self.region, self.proxies)
            rpc = RpcClient(self.session, endpoint, VERSION, proxies=self.proxies)
        except UsageError as error:
            yield Finding.of("endpoint", error)
            return
        proxy = self.proxies.between(rpc.origin.scheme, rpc.host, rpc.origin.port)
        way = "none is used" if proxy is None else f"{proxy} is used"
        yield Finding("proxy", Verdict.OK, f"{way} for {rpc.host}")
        credentials = None
        try:
            credentials = await self.chain.get()
        except ArchiverError as error:
            yield Finding.of("credentials", error)
        else:
            yield _of_credentials(credentials)
        for found in (await _answers(rpc, self._subject), clock(rpc.seconds_ahead)):
            yield found
            if found.has_failed:
                credentials = None
                break
        if credentials is None:
            yield Finding(_PERMISSIONS, Verdict.SKIP, "not checked, because of the above")
            return
        if rpc.host.endswith(".aliyuncs.com"):  # no other host is of an account that STS knows
            found = await self._identity(credentials)
            yield found
            if found.has_failed:
                return
        source = TairSource(
            endpoint, self.chain.get, session=self.session, region=self.region,
            quotas=self.quotas, retry=self.retry,
            proxies=self.proxies, allow_hosts=self.allow_hosts,
        )  # fmt: skip
        async with source, aclosing(self._permissions(source.api)) as permissions:
            async for found in permissions:
                yield found

    @property
    def _subject(self) -> str:
        return self.region or "the API"

    async def _identity(self, credentials: Credentials) -> Finding:
        try:
            name = await identity.caller(self.session, credentials, self.region, self.proxies)
        except ArchiverError as error:
            is_key = isinstance(error, AccessError)
            return Finding.of("identity", error, Verdict.FAIL if is_key else Verdict.WARN)
        return Finding("identity", Verdict.OK, f"the access key is that of {name}")

    async def _permissions(self, api: Api) -> AsyncGenerator[Finding, None]:
        async with aclosing(self._general(api)) as general:
            chosen: list[Instance] = []
            async for found, instances in general:
                yield found
                if found.has_failed and found.check in (_KEY, "DescribeRegions"):
                    return
                chosen = instances
        if not chosen:
            text = "not checked: there is no instance to ask about"
            yield Finding("DescribeBackups", Verdict.SKIP, text, "name one with --instance")
        for instance in chosen:
            name = instance.instance_id
            yield await self._helpful(api, "DescribeBackupPolicy", name, _schedule)
            if instance.is_classic_cluster:
                yield await self._helpful(api, topology.ACTION, name, _shards)
            yield await self._backups(api, instance)

    async def _general(self, api: Api) -> AsyncGenerator[tuple[Finding, list[Instance]], None]:
        """What is asked of the region, and the instances to ask about further."""
        yield await self._regions(api), []
        named = [] if self.instance_id is None else [Instance(self.instance_id, self.region)]
        params = {"PageSize": "50", "PageNumber": "1"}
        params |= {"RegionId": api.region} if api.region else {}
        params |= {"InstanceIds": self.instance_id} if self.instance_id else {}
        resource = f"acs:kvstore:{api.region or '*'}:*:instance/*"
        check = "DescribeInstances"
        try:
            answer = await api.call(check, params, subject=self._subject, resource=resource)
            listed, _, total = read_instances(answer)
        except ArchiverError as error:
            # An instance that is named can be pulled without.
            is_needed = not (named and isinstance(error, PermissionDenied))
            yield Finding.of(check, error, Verdict.FAIL if is_needed else Verdict.WARN), named
            return
        if named and not listed:
            hint = "check --region, and the account of the access key"
            text = f"{self.instance_id} is not listed"
            yield Finding(check, Verdict.WARN, text, hint), named
            return
        yield Finding(check, Verdict.OK, f"{total:,} listed"), _one_of_each_kind(listed)

    async def _regions(self, api: Api) -> Finding:
        check = "DescribeRegions"
        try:
            answer = await api.call(check, {}, subject=self._subject)
            endpoints, refused = read_regions(answer, api.origin)
        except PermissionDenied as error:
            error.hint = f"{error.hint}; only --region all needs it"
            return Finding.of(check, error, Verdict.WARN)
        except AccessError as error:
            return Finding.of(_KEY, error)
        except ArchiverError as error:
            return Finding.of(check, error)
        if self.region and self.region not in (*endpoints, *refused):
            wrong = UsageError(
                f"{self.region} is not among the {len(endpoints)} regions that the API names",
                hint=f"use one of {', '.join(sorted(endpoints))}",
            )
            return Finding.of(check, wrong)
        where = f", {self.region} among them" if self.region else ""
        return Finding(check, Verdict.OK, f"{len(endpoints):,} listed{where}")

    async def _helpful(
        self, api: Api, check: str, instance_id: str, read: Callable[[str, Mapping[str, Any]], str]
    ) -> Finding:
        """An action that a pull can do without: it tells what should be there. ``read`` says what
        is in its answer."""
        resource = f"acs:kvstore:{api.region or '*'}:*:instance/{instance_id}"
        params = {"InstanceId": instance_id}
        try:
            answer = await api.call(check, params, subject=instance_id, resource=resource)
            return Finding(check, Verdict.OK, f"{instance_id}: {read(instance_id, answer)}")
        except ArchiverError as error:
            return Finding.of(check, error, Verdict.WARN)

    async def _backups(self, api: Api, instance: Instance) -> Finding:
        """List backups as a pull does, up to the first page with a URL."""
        instance_id = instance.instance_id
        check = clusters.ACTION if instance.lists_cluster_backups else "DescribeBackups"
        now = datetime.now(UTC)
        start, end = TimeRange(now - _LISTED, now).query_bounds()
        source = TairSource(
            str(api.origin), self.chain.get, session=self.session, region=self.region,
            instances={instance_id: instance}, quotas=self.quotas, proxies=self.proxies,
            retry=self.retry, allow_hosts=self.allow_hosts,
        )  # fmt: skip
        query = Query(instance_id, start, end, need_aof=False, region=self.region)
        found: list[Backup] = []
        try:
            async with source, aclosing(source.pages(query)) as pages:
                async for page in pages:
                    found += page.backups
                    if any(one.urls for one in found):
                        break
        except ArchiverError as error:
            return Finding.of(check, error)
        if not found:
            text = f"{instance_id}: no backup of the last {_LISTED.days} days is listed"
            return Finding(check, Verdict.WARN, text, "see its backup policy: archiver instances")
        with_url = [self.backup] if self.backup else []
        with_url += [one for one in found if one.urls or one.refused]
        self.backup = max(with_url, key=lambda one: one.size or 0, default=None)
        newest = max(one.started_at for one in found)
        return Finding(check, Verdict.OK, f"{instance_id}: newest backup {format_iso(newest)}")


async def _answers(rpc: RpcClient, subject: str) -> Finding:
    """Whether the endpoint is the API. The request is not signed, so that a wrong key does not
    matter: the API refuses it in its own words."""
    try:
        await rpc.call("DescribeRegions", {}, None, subject=subject, resource="*")
    except ProxyDenied as error:
        return Finding.of("endpoint", error)
    except (RequestRejected, AccessError):
        pass
    except ArchiverError as error:
        return Finding.of("endpoint", error)
    return Finding("endpoint", Verdict.OK, f"{rpc.origin} answers as the API does")


def clock(seconds_ahead: float) -> Finding:
    """What it means that the clock here is so many seconds ahead of the API's; NaN where the API
    did not tell the time."""
    if math.isnan(seconds_ahead):
        return Finding("clock", Verdict.SKIP, "the endpoint does not tell its time")
    away = abs(seconds_ahead)
    size = f"{away / 60:,.0f} min" if away >= 2 * _NOTEWORTHY_AHEAD else f"{away:.0f} s"
    text = f"{size} {'ahead of' if seconds_ahead > 0 else 'behind'} the endpoint's"
    hint = "set the clock of this machine, e.g. with chrony"
    if away > _MOST_AHEAD:
        wrong = ClockSkew(f"{text}; signed requests are refused", hint=hint)
        return Finding.of("clock", wrong)
    if away > _NOTEWORTHY_AHEAD:
        return Finding("clock", Verdict.WARN, text, hint)
    return Finding("clock", Verdict.OK, f"within {math.ceil(away) or 1} s of the endpoint's")


def _of_credentials(credentials: Credentials) -> Finding:
    key_id = masked(credentials.access_key_id.reveal())
    ends = credentials.expires_at
    until = "" if ends is None else f", valid until {format_iso(ends)}"
    kind = "" if credentials.security_token is None else "temporary "
    text = f"{kind}access key {key_id} of {credentials.origin}{until}"
    return Finding("credentials", Verdict.OK, text)


def _one_of_each_kind(listed: list[Instance]) -> list[Instance]:
    """The first instance with backups of each kind that different actions are needed for."""
    found: dict[tuple[bool, bool], Instance] = {}
    for one in listed:
        if one.why_no_backups is None:
            found.setdefault((one.lists_cluster_backups, one.is_classic_cluster), one)
    return list(found.values())


def _schedule(instance_id: str, answer: Mapping[str, Any]) -> str:
    policy = read_policy(instance_id, answer)
    return f"backups on {', '.join(day[:3] for day in policy.days) or 'no day'} at {policy.time}"


def _shards(instance_id: str, answer: Mapping[str, Any]) -> str:
    return f"{len(topology.read_nodes(instance_id, answer))} shards"
