"""What the instances are, by their folders and ``DIRECTORY/instances.json``.

{"instances": {"<id>": {"<field of DescribeInstances>": value, …}}, "regions": {"<id>": {…}}}

Every field is optional, and one that is not named here is served as it is. ``Tags`` is an object
of texts. ``BackupPolicy`` has fields of DescribeBackupPolicy, ``TDEStatus`` is that of
DescribeInstanceTDEStatus. ``ShardCount`` says how many shards there should be, also where the
vendor's listing does not tell. An instance needs no folder, and a folder needs no entry. The fields
of a region are those of DescribeRegions.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from archiver.errors import UsageError
from archiver.times import parse_iso

INSTANCES = "instances.json"
DEFAULT_REGION = "cn-hangzhou"
# Clusters created earlier have one backup job per shard.
_ONE_JOB_SINCE = parse_iso("2023-12-05T00:00:00Z")
_NO_REPLICA = ("STAND_ALONE", "single")
_OURS = ("BackupPolicy", "TDEStatus", "Tags", "ShardCount")
_TEXTS = ("InstanceName", "RegionId", "ArchitectureType", "ComputingType", "CreateTime", "EndTime")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_POLICY: Mapping[str, Any] = {
    "PreferredBackupPeriod": ",".join(_DAYS),
    "PreferredBackupTime": "02:00Z-03:00Z",
    "EnableBackupLog": 0,
    "DbsInstance": "0",
}


@dataclass(frozen=True, slots=True)
class Described:
    """The contents of instances.json."""

    instances: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    regions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class Instance:
    """One instance. ``list_nodes`` returns the names of its node folders, ``retention`` is that of
    an instance whose policy says nothing else."""

    def __init__(
        self,
        instance_id: str,
        given: Mapping[str, Any],
        list_nodes: Callable[[], list[str]],
        retention: timedelta,
    ) -> None:
        self.id: Final = instance_id
        self.given: Final = given
        self.region: Final[str] = given.get("RegionId", DEFAULT_REGION)
        self._list_nodes: Final = list_nodes
        self._retention: Final = retention

    @cached_property
    def _folders(self) -> list[str]:
        return self._list_nodes()

    @property
    def architecture(self) -> str:
        return self.given.get("ArchitectureType") or ("cluster" if self._folders else "standard")

    @property
    def is_cloud_native_cluster(self) -> bool:
        return self.architecture == "cluster" and self.given.get("ComputingType") == "Ecs"

    @property
    def has_backups(self) -> bool:
        return self.given.get("NodeType") not in _NO_REPLICA

    @property
    def shards(self) -> int:
        """How many shards it should have, at least one."""
        return self.given.get("ShardCount") or len(self._folders) or 1

    @property
    def nodes(self) -> list[str]:
        """The ids of its data nodes: its node folders, or made-up ids where they are too few."""
        made_up = (f"{self.id}-db-{number}" for number in range(self.shards))
        more = [name for name in made_up if name not in self._folders]
        return self._folders + more[: max(0, self.shards - len(self._folders))]

    @property
    def has_job_per_shard(self) -> bool:
        created = self.given.get("CreateTime")
        return created is not None and (
            self.architecture == "cluster" and parse_iso(created) < _ONE_JOB_SINCE
        )

    @property
    def retention(self) -> timedelta:
        """How long its backups are kept."""
        days = self.given.get("BackupPolicy", {}).get("BackupRetentionPeriod")
        return self._retention if days is None else timedelta(days=int(days))

    def fields(self) -> dict[str, Any]:
        """Its entry in DescribeInstances."""
        tags = self.given.get("Tags", {})
        fields = {
            "InstanceId": self.id,
            "InstanceName": self.id,
            "RegionId": self.region,
            "ZoneId": f"{self.region}-a",
            "InstanceStatus": "Normal",
            "InstanceType": "Redis",
            "EditionType": "Community",
            "EngineVersion": "5.0",
            "ArchitectureType": self.architecture,
            "ComputingType": "Machine",
            "NodeType": "double",
            "NetworkType": "VPC",
            "ChargeType": "PostPaid",
            "CreateTime": "2024-01-01T00:00:00Z",
            "Capacity": 1024,
            "Port": 6379,
            "ConnectionDomain": f"{self.id}.redis.rds.aliyuncs.com",
            "ResourceGroupId": "rg-default",
            **{name: value for name, value in self.given.items() if name not in _OURS},
            "Tags": {"Tag": [{"Key": key, "Value": value} for key, value in tags.items()]},
        }
        if self.is_cloud_native_cluster or self.architecture == "rwsplit":
            fields["ShardCount"] = self.shards
        return fields

    def policy(self, now: datetime) -> dict[str, Any]:
        """The fields of DescribeBackupPolicy."""
        policy = {
            "BackupRetentionPeriod": str(self.retention.days),
            **_POLICY,
            **self.given.get("BackupPolicy", {}),
        }
        following = _next_backup(
            policy["PreferredBackupPeriod"], policy["PreferredBackupTime"], now
        )
        return {"PreferredNextBackupTime": f"{following:%Y-%m-%dT%H:%MZ}", **policy}


def _next_backup(days: str, span: str, now: datetime) -> datetime:
    """When the next backup starts: ``span`` is like 02:00Z-03:00Z."""
    hour, minute = int(span[:2]), int(span[3:5])
    first = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    candidates = (first + timedelta(days=number) for number in range(8))
    wanted = days.split(",")
    return next(t for t in candidates if t > now and _DAYS[t.weekday()] in wanted)


def read_json(path: Path, default: object = None) -> Any:  # noqa: ANN401 - any JSON
    """What a JSON file says; ``default``, if there is one, where there is no file. Raises
    UsageError."""
    try:
        return json.loads(path.read_text("utf-8"))
    except OSError as error:
        if default is not None and isinstance(error, FileNotFoundError | NotADirectoryError):
            return default
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise UsageError(f"{path} cannot be read: it is not JSON") from None


def read_instances(path: Path) -> Described:
    """The contents of an instances.json; nothing when there is no such file. Raises UsageError."""
    document = read_json(path, {})
    parts = document if isinstance(document, dict) else {"": document}
    if parts.keys() - {"instances", "regions"} or not all(map(_is_table, parts.values())):
        raise UsageError(f'{path} must be {{"instances": {{"<id>": {{…}}}}, "regions": {{…}}}}')
    for instance_id, given in parts.get("instances", {}).items():
        try:
            _check(instance_id, given)
        except (ValueError, TypeError, AttributeError, StopIteration) as error:
            raise UsageError(f"{path}, {instance_id}: {error}") from None
    return Described(**parts)


def _is_table(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(entry, dict) for entry in value.values())


def _check(instance_id: str, given: Mapping[str, Any]) -> None:
    """Use everything that is interpreted, so that a mistake shows at the start."""
    if instance_id.startswith(".") or "/" in instance_id or not instance_id:
        raise ValueError("it must be a name that a folder can have")
    shards, tags = given.get("ShardCount", 1), given.get("Tags", {})
    if not isinstance(shards, int) or isinstance(shards, bool) or not 1 <= shards <= 1024:
        raise ValueError("ShardCount must be a number from 1 to 1024")
    texts = {name: given.get(name, "") for name in _TEXTS}
    for name, value in {**texts, **tags}.items():
        if not isinstance(value, str):
            raise TypeError(f"{name} must be a text")
    if texts["EndTime"]:
        parse_iso(texts["EndTime"])
    instance = Instance(instance_id, given, list, timedelta(days=7))
    _ = instance.has_job_per_shard
    instance.policy(parse_iso("2026-01-01T00:00:00Z"))
