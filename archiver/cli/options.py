"""Options that several commands have, and the source that they describe."""

import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from archiver.cli.params import InstanceId, Range
from archiver.errors import UsageError
from archiver.events import Observer
from archiver.model import Query
from archiver.sources.endpoints import endpoint_of
from archiver.stores.local import LocalStore
from archiver.timerange import TimeRange

if TYPE_CHECKING:
    from archiver.sources.tair import TairSource

F = TypeVar("F", bound=Callable[..., Any])

# Every option also from the environment, as ARCHIVER_ and its name.
SETTINGS = {
    "help_option_names": ["-h", "--help"],
    "auto_envvar_prefix": "ARCHIVER",
    "show_default": True,
    "max_content_width": 100,
}


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """Which instances at which endpoint, over which range."""

    instances: tuple[str, ...]
    range: TimeRange
    region: str | None
    endpoint: str | None
    aof: bool

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
        import aiohttp

        from archiver.sources.credentials import default_chain
        from archiver.sources.tair import TairSource

        async with aiohttp.ClientSession() as session:
            chain = default_chain(session, os.environ, Path.home())
            async with TairSource(
                self._endpoint(), chain.get, session=session, observer=observer
            ) as source:
                yield source

    def _endpoint(self) -> str:
        if self.endpoint:
            return self.endpoint
        region = self.region or os.environ.get("ALIBABA_CLOUD_REGION_ID")
        if not region:
            raise UsageError("no region is given", hint="give --region, or --endpoint")
        return endpoint_of(region)


def source_options(command: F) -> F:
    """Options of everything that asks the vendor."""
    for option in reversed(
        (
            click.option(
                "--instance",
                "instances",
                type=InstanceId(),
                multiple=True,
                envvar="ARCHIVER_INSTANCE",
                help="Instance whose backups are meant; may be given again.",
            ),
            click.option(
                "--range",
                "time_range",
                type=Range(),
                default="last-7d",
                help="START..END, START.., 2026-11-01, last-7d or last-36h; UTC.",
            ),
            click.option("--region", help="Region of the instances, like cn-hangzhou."),
            click.option("--endpoint", help="Host or URL of the API, instead of the region's."),
            click.option("--aof", is_flag=True, help="List AOF (incremental) backups, too."),
        )
    ):
        command = option(command)
    return command


def output_options(command: F) -> F:
    """How loud, and in which form."""
    for option in reversed(
        (
            click.option(
                "--json", "as_json", is_flag=True, help="One JSON object a line on stdout."
            ),
            click.option("-q", "--quiet", is_flag=True, help="Errors only."),
            click.option("-v", "--verbose", count=True, help="More; -vv with tracebacks."),
        )
    ):
        command = option(command)
    return command


def local_store(place: str) -> LocalStore:
    """The store an archive's place names. Raises UsageError."""
    scheme, separator, _ = place.partition("://")
    if separator:
        raise UsageError(
            f"{scheme}:// archives are not known to this version", hint="name a directory"
        )
    return LocalStore(Path(place).expanduser().absolute())
