"""What DescribeInstances (R-kvstore, 2015-01-01) says of instances, and how it is listed."""

from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from archiver.documents import cleaned
from archiver.errors import ArchiverError, RequestRejected, SourceError, UnsafeInput
from archiver.ids import is_instance_id
from archiver.model import NodesExpected
from archiver.retry import RETRIES
from archiver.sources.alibaba.api import Api
from archiver.times import parse_document_time

_ACTION: Final = "DescribeInstances"
_PAGE_SIZE: Final = 50
_MOST_IDS: Final = 30
_MOST_TAGS: Final = 5
_MOST_SHARDS: Final = 65536  # far more than a cluster can have
# The vendor's metadata says that the InstanceType "Redis" is the default. Where that hides the
# others, they are found by their own.
_TAIR_TYPES: Final = ("Tair", "tair_rdb", "tair_scm", "tair_essd", "tair_skv")
_WITHOUT_REPLICA: Final = ("STAND_ALONE", "single")

OnRefused = Callable[[ArchiverError], None]


def _ignore(_: ArchiverError) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance as the vendor describes it; texts are the vendor's own words, "" where it says
    nothing.

    ``architecture`` is ``standard``, ``cluster`` or ``rwsplit``; ``engine`` is ``Redis``, or a kind
    of Tair. ``ends_at`` is when a subscription ends, ``destroyed_at`` when the instance is
    released, with its backups.
    """

    instance_id: str
    region: str
    name: str = ""
    status: str = ""
    architecture: str = ""
    is_cloud_native: bool = False
    node_type: str = ""
    shards: int | None = None
    engine: str = ""
    engine_version: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    resource_group: str = ""
    created_at: datetime | None = None
    ends_at: datetime | None = None
    destroyed_at: datetime | None = None

    @property
    def lists_cluster_backups(self) -> bool:
        """Whether its backups are listed by DescribeClusterBackupList, not DescribeBackups."""
        return self.is_cloud_native and self.architecture == "cluster"

    @property
    def is_classic_cluster(self) -> bool:
        """Whether it is a cluster of which ``shards`` is never known."""
        return self.architecture == "cluster" and not self.is_cloud_native

    @property
    def why_no_backups(self) -> str | None:
        """Why the vendor makes no backups of it; None if it does."""
        if self.node_type in _WITHOUT_REPLICA:
            return (
                f"the vendor makes no backups of an instance without a replica ({self.node_type})"
            )
        return None

    @property
    def nodes_expected(self) -> NodesExpected | None:
        """How many nodes a backup of it has files of; None where the vendor does not say."""
        # Of an instance that splits reads and writes, ShardCount counts copies of the same data.
        if not self.lists_cluster_backups or self.shards is None:
            return None
        return NodesExpected(self.shards, f"ShardCount of {_ACTION}")


def read_instances(
    answer: Mapping[str, Any],
) -> tuple[list[Instance], list[ArchiverError], int]:
    """The instances in an answer, an error for each entry without a usable id, and how many
    instances there are on all pages. Pure.

    A field that cannot be read is as one that is missing: the backups of the instance matter more.
    Raises SourceError when the answer has not the shape of a page at all.
    """
    try:
        total = int(answer["TotalCount"])
        items = list(answer["Instances"]["KVStoreInstance"])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise SourceError(
            f"the answer to {_ACTION} is not a page of instances",
            hint="is --endpoint the R-kvstore API?",
        ) from None
    instances: list[Instance] = []
    refused: list[ArchiverError] = []
    for item in items:
        try:
            instances.append(_read_instance(item if isinstance(item, dict) else {}))
        except UnsafeInput as error:
            refused.append(error)
    return instances, refused, total


def _read_instance(item: Mapping[str, Any]) -> Instance:
    instance_id = _text(item.get("InstanceId"))
    if not is_instance_id(instance_id):
        raise UnsafeInput(f"{_ACTION} lists an instance with the id {instance_id[:80]!r}")
    return Instance(
        instance_id=instance_id,
        region=_text(item.get("RegionId")),
        name=_text(item.get("InstanceName")),
        status=_text(item.get("InstanceStatus")),
        architecture=_text(item.get("ArchitectureType")),
        is_cloud_native=item.get("ComputingType") == "Ecs",
        node_type=_text(item.get("NodeType")),
        shards=_count(item.get("ShardCount")),
        engine=_text(item.get("InstanceType")),
        engine_version=_text(item.get("EngineVersion")),
        tags=_tags(item.get("Tags")),
        resource_group=_text(item.get("ResourceGroupId")),
        created_at=_moment(item.get("CreateTime")),
        ends_at=_moment(item.get("EndTime")),
        destroyed_at=_moment(item.get("DestroyTime")),
    )


def _text(value: object) -> str:
    # What makes it unclean is shown as ?: an instance whose name has a tab must still be selected
    # by the rest of its name.
    return cleaned(value) if isinstance(value, str) else ""


def _count(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 < value <= _MOST_SHARDS else None


def _moment(value: object) -> datetime | None:
    try:
        return parse_document_time(_text(value))
    except ValueError:
        return None


def _tags(value: object) -> dict[str, str]:
    tags = value.get("Tag") if isinstance(value, dict) else None
    readable = [tag for tag in tags if isinstance(tag, dict)] if isinstance(tags, list) else []
    return {_text(tag.get("Key")): _text(tag.get("Value")) for tag in readable}


async def describe_instances(
    api: Api,
    *,
    ids: Collection[str] = (),
    tags: Mapping[str, str] | None = None,
    resource_group: str | None = None,
    on_refused: OnRefused = _ignore,
) -> AsyncGenerator[Instance, None]:
    """Stream the instances of the API's region, each once. If given, only those with one of the
    ``ids``, with all of the ``tags``, and in the ``resource_group``.

    ``on_refused`` gets an error for each entry that cannot be used. Raises what Api.call raises.
    """
    tags = tags or {}
    filters = {"RegionId": api.region} if api.region else {}
    if resource_group:
        filters["ResourceGroupId"] = resource_group
    for number, (key, value) in enumerate(list(tags.items())[:_MOST_TAGS], start=1):
        filters |= {f"Tag.{number}.Key": key, f"Tag.{number}.Value": value}
    further = list(tags.items())[_MOST_TAGS:]
    wanted = list(dict.fromkeys(ids))
    for first in range(0, max(1, len(wanted)), _MOST_IDS):
        some = wanted[first : first + _MOST_IDS]
        named = {"InstanceIds": ",".join(some)} if some else {}
        async for instance in _all_types(api, filters | named, len(some), on_refused):
            if all(instance.tags.get(key) == value for key, value in further):
                yield instance


async def _all_types(
    api: Api, filters: Mapping[str, str], named: int, on_refused: OnRefused
) -> AsyncGenerator[Instance, None]:
    """The instances of every type; ``named`` is how many are asked for by their ids, or 0."""
    seen: set[str] = set()
    shows_tair = False
    async for instance in _settled(api, filters, seen, on_refused):
        shows_tair = shows_tair or instance.engine in _TAIR_TYPES
        yield instance
    for kind in _TAIR_TYPES:
        if shows_tair or (named and len(seen) == named):
            return
        try:
            async for instance in _settled(
                api, {**filters, "InstanceType": kind}, seen, on_refused
            ):
                yield instance
        except RequestRejected:  # a type that this endpoint does not know has no instances there
            continue


async def _settled(
    api: Api, filters: Mapping[str, str], seen: set[str], on_refused: OnRefused
) -> AsyncGenerator[Instance, None]:
    """The instances that match and are not ``seen`` yet. Pages are numbered by position, so a
    listing of several pages is read until a whole reading shows nothing new."""
    refused: set[str] = set()
    for _ in range(RETRIES.changing_listing.attempts):
        found = pages = 0
        async for instances, errors in _one_reading(api, filters):
            pages += 1
            for error in errors:
                if str(error) not in refused:
                    refused.add(str(error))
                    on_refused(error)
            for instance in instances:
                if instance.instance_id not in seen:
                    seen.add(instance.instance_id)
                    found += 1
                    yield instance
        if pages == 1 or not found:
            return
    raise SourceError(f"{_subject(api)}: the listing of instances changes faster than it is read")


async def _one_reading(
    api: Api, filters: Mapping[str, str]
) -> AsyncGenerator[tuple[list[Instance], list[ArchiverError]], None]:
    number, count, before = 1, 0, list[str]()
    while True:
        params = {**filters, "PageSize": str(_PAGE_SIZE), "PageNumber": str(number)}
        answer = await api.call(
            _ACTION,
            params,
            subject=_subject(api),
            resource=f"acs:kvstore:{api.region or '*'}:*:instance/*",
        )
        instances, refused, total = read_instances(answer)
        yield instances, refused
        shown = [one.instance_id for one in instances] + [str(error) for error in refused]
        # What is shown counts: pages may be smaller than was asked for, and than they say.
        count += len(shown)
        if count >= total:
            return
        if not shown:
            why = f"{_ACTION} shows {count:,} of the {total:,} instances that it counts"
            yield [], [SourceError(f"{_subject(api)}: {why}")]
            return
        if shown == before:
            raise SourceError(f"{_subject(api)}: page {number} of {_ACTION} is page {number - 1}")
        number, before = number + 1, shown


def _subject(api: Api) -> str:
    return api.region or "listing the instances"
