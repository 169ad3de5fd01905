"""Options that several commands have, and the source that they describe."""

import functools
import os
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from archiver.cli.params import Duration, InstanceId, ProxyUrl, Range
from archiver.errors import UsageError
from archiver.events import Observer
from archiver.model import Query
from archiver.proxies import Proxies
from archiver.retry import RetryPolicy
from archiver.sources.endpoints import endpoint_of
from archiver.timerange import TimeRange

if TYPE_CHECKING:
    from archiver.sources.tair import TairSource

F = TypeVar("F", bound=Callable[..., Any])

EPILOG = "Every option can be set in the environment, as ARCHIVER_ and its long name."
SETTINGS = {"help_option_names": ["-h", "--help"], "show_default": True}


class _EnvironmentOption(click.Option):
    """An option that may also be set as ``ARCHIVER_`` and its long name."""

    def __init__(self, declarations: Sequence[str], **attributes: Any) -> None:
        longest = max(re.split(r"[/\s]", " ".join(declarations)), key=lambda name: name[:2] == "--")
        variable = f"ARCHIVER_{longest.lstrip('-').replace('-', '_').upper()}"
        super().__init__(declarations, **{"envvar": variable, **attributes})


option = functools.partial(click.option, cls=_EnvironmentOption)


@dataclass(frozen=True, slots=True)
class Way:
    """How to get to the vendor, and how patiently."""

    proxies: Proxies
    retry: RetryPolicy
    allow_hosts: tuple[str, ...]

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "Way":
        """What the options say, and the environment where they do not. Raises UsageError."""
        return cls(
            given["proxies"] or Proxies.of(os.environ),
            RetryPolicy(lasting=given["retry_for"]),
            given.get("allow_hosts", ()),
        )


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """Which instances at which endpoint, over which range."""

    instances: tuple[str, ...]
    range: TimeRange
    region: str | None
    endpoint: str | None
    aof: bool
    way: "Way"

    def queries(self) -> list[Query]:
        """One query an instance, each instance once."""
        start, end = self.range.on_the_wire()
        return [
            Query(instance, start, end, need_aof=self.aof)
            for instance in dict.fromkeys(self.instances)
        ]

    @asynccontextmanager
    async def open(self, observer: Observer) -> AsyncGenerator["TairSource", None]:
        """The source, with credentials from the vendor's default chain."""
        from archiver.sources.credentials import default_chain
        from archiver.sources.session import open_session
        from archiver.sources.tair import TairSource

        way = self.way
        async with open_session() as session:
            chain = default_chain(session, os.environ, _home(), proxies=way.proxies)
            async with TairSource(
                self._endpoint(),
                chain.get,
                session=session,
                retry=way.retry,
                observer=observer,
                proxies=way.proxies,
                allow_hosts=way.allow_hosts,
            ) as source:
                yield source

    def _endpoint(self) -> str:
        if self.endpoint:
            return self.endpoint
        region = self.region or os.environ.get("ALIBABA_CLOUD_REGION_ID")
        if not region:
            raise UsageError("no region is given", hint="give --region, or --endpoint")
        return endpoint_of(region)


def _home() -> Path | None:
    """None for a user that only has a number, where HOME is not set."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def source_options(command: F) -> F:
    """Options of everything that asks the vendor."""
    for declared in reversed(
        (
            option(
                "--instance",
                "instances",
                type=InstanceId(),
                multiple=True,
                help="Instance whose backups are meant; may be given again.",
            ),
            option(
                "--range",
                "time_range",
                type=Range(),
                default="last-7d",
                help="START..END, START.., 2026-11-01, last-7d or last-36h; UTC.",
            ),
            option("--region", help="Region of the instances, like cn-hangzhou."),
            option("--endpoint", help="Host or URL of the API, instead of the region's."),
            option("--aof", is_flag=True, help="List AOF (incremental) backups, too."),
        )
    ):
        command = declared(command)
    return way_options(command)


def way_options(command: F) -> F:
    """How to get to the vendor."""
    for declared in (
        option(
            "--proxy",
            "proxies",
            type=ProxyUrl(),
            metavar="URL",
            help="Instead of HTTPS_PROXY and the like; none for no proxy.",
        ),
    ):
        command = declared(command)
    return command


# Of all that asks the vendor, or may ask a bucket.
retry_option = option(
    "--retry-for",
    type=Duration(),
    default="5m",
    help="Wait so long for a vendor or a bucket that does not answer any more.",
)

allow_host_option = option(
    "--allow-host",
    "allow_hosts",
    multiple=True,
    metavar="HOST",
    help="Fetch from this host, too, when the API names it; .example.com for all below it.",
)


def output_options(command: F) -> F:
    """How loud, and in which form."""
    for declared in reversed(
        (
            option("--json", "as_json", is_flag=True, help="One JSON object a line on stdout."),
            option("-q", "--quiet", is_flag=True, help="Errors only."),
            option("-v", "--verbose", count=True, help="More; -vv with tracebacks."),
        )
    ):
        command = declared(command)
    return command
