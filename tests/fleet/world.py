"""A vendor with instances of every kind in several regions."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from examples.sample_rdb import rdb

REGIONS = ("cn-beijing", "cn-hangzhou", "cn-shanghai", "eu-central-1")
# By kind: the fields of DescribeInstances, and how many files a backup has.
KINDS: Mapping[str, tuple[Mapping[str, Any], int]] = {
    "std": ({"ArchitectureType": "standard"}, 1),
    "classic": ({"ArchitectureType": "cluster", "ShardCount": 2}, 2),
    "cloud": (
        {
            "ArchitectureType": "cluster",
            "ComputingType": "Ecs",
            "ShardCount": 2,
            "InstanceType": "tair_rdb",
            "EngineVersion": "7.0",
        },
        2,
    ),
    "split": ({"ArchitectureType": "rwsplit", "ShardCount": 1}, 1),
    "alone": ({"ArchitectureType": "standard", "NodeType": "STAND_ALONE"}, 0),
}
BACKUP = "dump_20261124021500.rdb"


def kind_of(instance_id: str) -> str:
    return instance_id.split("-")[1]


def files_of(instance_id: str) -> int:
    """How many files the only backup of an instance has."""
    return KINDS[kind_of(instance_id)][1]


def build(folder: Path, count: int) -> dict[str, str]:
    """Write that many instances, and no others, of every kind in every region; returns their
    regions by id."""
    for other in folder.iterdir():
        other.rmdir()
    data = rdb(1000)
    instances: dict[str, dict[str, Any]] = {}
    for number in range(count):
        kind = list(KINDS)[number % len(KINDS)]
        fields, files = KINDS[kind]
        name = f"r-{kind}-{number:04d}"
        region = REGIONS[number // len(KINDS) % len(REGIONS)]
        tags = {"env": "prod" if number % 2 else "test"}
        instances[name] = {
            **fields, "RegionId": region, "InstanceName": f"{tags['env']} {number}", "Tags": tags,
            "ResourceGroupId": f"rg-{number % 3}",
        }  # fmt: skip
        for node in range(files):
            below = folder / name / (f"{name}-db-{node}" if files > 1 else "")
            below.mkdir(parents=True)
            (below / BACKUP).write_bytes(data)
    (folder / "instances.json").write_text(json.dumps({"instances": instances}))
    return {name: str(fields["RegionId"]) for name, fields in instances.items()}
