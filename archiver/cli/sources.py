"""Which instances of the vendor a command is about, and how they are reached."""

import logging
import os
import time
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio

from archiver.cli.options import Way, endpoint_option, option, range_option, way_options
from archiver.cli.params import ALL_INSTANCES, InstanceId, InstanceIdOrAll, Tag
from archiver.concurrency import task_group
from archiver.errors import ArchiverError, NoInstances, UsageError
from archiver.events import Failed, NotBackedUp, NothingFits, NothingSelected, Observer, Selected
from archiver.logs import record
from archiver.model import InstanceDescription, Query
from archiver.retry import RETRIES
from archiver.shards import UNDIVIDED, Shard
from archiver.stray_characters import clean_variable
from archiver.times import TimeRange

if TYPE_CHECKING:
    from archiver.archive.archive import Archive
    from archiver.sources.alibaba.fleet import FleetSource, Found
    from archiver.sources.alibaba.instances import Instance
    from archiver.sources.alibaba.selection import Selection

F = TypeVar("F", bound=Callable[..., Any])

ALL_REGIONS: Final = "all"
# How long answers about policies are waited for when everything else is done.
_POLICY_SECONDS: Final = 60.0
# Options that choose among all instances, by their parameters.
_NARROWING: Final = {
    "tags": "--tag",
    "names": "--name",
    "resource_group": "--resource-group",
    "excluded": "--exclude",
}


region_option = option(
    "--region",
    "regions",
    metavar="ID",
    multiple=True,
    help="Region of the instances, e.g. cn-hangzhou (repeatable); 'all' for every region.",
)
refresh_option = option(
    "--refresh", is_flag=True, help="Ask again for what was asked within the last 20 hours."
)


def selection_options(command: F) -> F:
    """Options that choose instances."""
    for declared in reversed(
        (
            option(
                "--instance",
                "instances",
                type=InstanceIdOrAll(),
                multiple=True,
                help="Instance ID (repeatable), or 'all' for every instance of the regions.",
            ),
            option(
                "--tag",
                "tags",
                type=Tag(),
                multiple=True,
                help="Of all instances, only those with this tag (repeatable: with every one).",
            ),
            option(
                "--name",
                "names",
                metavar="GLOB",
                multiple=True,
                help="Of all instances, only those whose name matches, e.g. 'prod-*' (repeatable).",
            ),
            option(
                "--resource-group",
                metavar="ID",
                help="Of all instances, only those in this resource group.",
            ),
            option(
                "--exclude",
                "excluded",
                type=InstanceId(),
                multiple=True,
                help="Of all instances, not this one (repeatable).",
            ),
            refresh_option,
        )
    ):
        command = declared(command)
    return command


def source_options(command: F) -> F:
    """Options of every command that lists the vendor's backups."""
    for declared in reversed(
        (
            selection_options,
            range_option("Only backups that started in this range"),
            region_option,
            endpoint_option,
            option("--aof", is_flag=True, help="Also list AOF (incremental) backups."),
            way_options,
        )
    ):
        command = declared(command)
    return command


def selection_of(given: Mapping[str, Any], *, is_all: bool = False) -> "Selection":
    """The instances that the options choose; with ``is_all``, every one if they choose none. Raises
    UsageError for options that contradict each other."""
    from archiver.sources.alibaba.selection import Selection

    named = tuple(dict.fromkeys(one for one in given["instances"] if one != ALL_INSTANCES))
    narrowing = [name for param, name in _NARROWING.items() if given[param]]
    of_all = ALL_INSTANCES in given["instances"]
    if narrowing and named and not of_all:
        raise UsageError(
            f"{narrowing[0]} chooses among all instances, but --instance names some",
            hint="leave out one of the two, or add --instance all",
        )
    if len(tags := dict(given["tags"])) < len(set(given["tags"])):
        raise UsageError("--tag: an instance has one value for each key, and two are asked for")
    if both := sorted({*named} & {*given["excluded"]}):
        raise UsageError(f"--exclude {both[0]}: --instance names it, too")
    return Selection(
        named,
        is_all=of_all or bool(narrowing) or (is_all and not named),
        tags=tags,
        names=given["names"],
        resource_group=given["resource_group"],
        excluded=frozenset(given["excluded"]),
    )


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """Which instances, of which regions or at which endpoint, in which range; a range of None means
    everything listed."""

    selection: "Selection"
    range: TimeRange | None
    regions: tuple[str, ...]
    endpoint: str | None
    aof: bool
    way: Way
    refresh: bool = False

    @classmethod
    def of(cls, given: Mapping[str, Any], selection: "Selection") -> "SourceOptions":
        """From the options of a command, of which it need not have all. Raises UsageError."""
        options = cls(
            selection,
            given.get("time_range"),
            given["regions"],
            given["endpoint"],
            given.get("aof", False),
            Way.of(given),
            given.get("refresh", False),
        )
        options.asked_regions()
        return options

    def asked_regions(self) -> tuple[str, ...] | None:
        """The regions to ask; None for all. Raises UsageError."""
        if ALL_REGIONS in self.regions:
            return None
        from archiver.sources.alibaba.rpc import endpoint_of  # with aiohttp, which takes long

        own = clean_variable(os.environ, "ALIBABA_CLOUD_REGION_ID")
        regions = tuple(dict.fromkeys(self.regions or ([own] if own else ())))
        if not regions and self.endpoint:
            return ("",)
        if not regions:
            raise UsageError("missing option: --region ID, or --endpoint HOST")
        for region in regions:
            endpoint_of(region)  # raises for what is no region
        return regions

    @asynccontextmanager
    async def open(self, observer: Observer) -> AsyncGenerator["FleetSource", None]:
        """The source, with credentials from the vendor's default chain."""
        from archiver.sources.alibaba.cache import cache_folder
        from archiver.sources.alibaba.credentials import default_chain
        from archiver.sources.alibaba.fleet import FleetSource
        from archiver.sources.alibaba.quotas import Quotas
        from archiver.sources.session import open_session

        way, folder = self.way, home()
        async with open_session() as session:
            chain = default_chain(session, os.environ, folder, proxies=way.proxies)
            async with FleetSource(
                chain.get,
                self.asked_regions(),
                endpoint=self.endpoint,
                session=session,
                quotas=Quotas(way.api_rate),
                retry=RETRIES.api_call.policy(way.retry_for),
                observer=observer,
                proxies=way.proxies,
                allow_hosts=way.allow_hosts,
                cache_folder=cache_folder(os.environ, folder),
                refresh=self.refresh,
            ) as source:
                yield source

    async def find(
        self, source: "FleetSource", observer: Observer, *, must_know: bool = False
    ) -> "Found":
        """The instances that are selected; what cannot be listed is observed. Raises NoInstances
        where none is selected though all could be listed. See :meth:`FleetSource.find`."""
        found = await source.find(self.selection, must_know=must_know)
        for name, error in found.failures.items():
            observer(Failed(name, error))
        for error in found.refused:
            observer(Failed("a listed instance", error))
        if not (found.instances or found.unlisted or found.failures):
            regions = ", ".join(filter(None, self.asked_regions() or ()))
            raise NoInstances(
                f"no instance {f'of {regions} ' if regions else ''}is selected",
                hint="check --region, the options that choose instances, and the access key",
            )
        for option_name, value in found.unused:
            observer(NothingFits(option_name, value))
        if self.selection.is_all:
            filled = {source.region_of(one.instance_id) for one in found.instances}
            # That a region of all has nothing is usual; one that is named may be misspelt.
            for region in self.asked_regions() or ():
                if region and region not in filled and region not in found.failures:
                    observer(NothingSelected(region))
        return found

    def queries(
        self,
        source: "FleetSource",
        found: "Found",
        observer: Observer,
        shard: Shard = UNDIVIDED,
    ) -> list[Query]:
        """A query for each instance that was found in the shard and that the vendor makes backups
        of."""
        ids = dict.fromkeys(self.selection.ids)
        own = [one for one in found.instances if shard.owns(one.instance_id)]
        for one in own:
            if one.why_no_backups is not None:
                observer(NotBackedUp(one.instance_id, one.why_no_backups))
            else:
                ids[one.instance_id] = None
        if self.selection.is_all and found.instances:
            observer(Selected(len(own), time.time() - source.asked_at))
        range_ = self.range or TimeRange.everything(datetime.now(UTC))
        start, end = range_.query_bounds()
        return [
            Query(one, start, end, need_aof=self.aof, region=source.region_of(one)) for one in ids
        ]


@asynccontextmanager
async def learning_policies(
    source: "FleetSource", instances: "Iterable[Instance]"
) -> AsyncGenerator[None, None]:
    """Ask for the policies of instances while in this context, and for a minute more: what takes
    longer is not worth the wait, and asked for by the next run."""
    is_done = anyio.Event()

    async def learn() -> None:
        await source.learn_policies(instances)
        is_done.set()

    async with task_group() as group:
        group.start_soon(learn)
        yield
        with anyio.move_on_after(_POLICY_SECONDS):
            await is_done.wait()
        group.cancel_scope.cancel()


async def keep_descriptions(
    archive: "Archive",
    described: Sequence[InstanceDescription],
    whole: Mapping[str, frozenset[str]],
    gone: Sequence[str],
    regions: Collection[str],
    asked_at: float,
) -> None:
    """Keep in the archive, if there is one, what the source said of instances, and which are gone.
    That this fails costs no backup: it is logged."""
    from archiver.archive.descriptions import keep, keep_gone

    at = datetime.fromtimestamp(min(asked_at, time.time()), UTC)
    try:
        if await archive.check_format():
            await keep(archive.store, described)
            await keep_gone(archive.store, whole, gone, regions, at)
    except ArchiverError as error:
        text = f"what the source says of the instances was not kept: {error}"
        record(logging.WARNING, "not_described", text, None, {"error": str(error)})


def home() -> Path | None:
    """The home directory; None for a user without a name if HOME is not set."""
    try:
        return Path.home()
    except RuntimeError:
        return None
