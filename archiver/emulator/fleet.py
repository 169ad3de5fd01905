"""The actions that describe instances and regions."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from archiver.emulator.backup import number_of
from archiver.emulator.call import Call, malformed
from archiver.emulator.gateway import missing
from archiver.emulator.instances import DEFAULT_REGION, Instance
from archiver.times import parse_iso

_MOST_INSTANCE_IDS = 30
_MOST_TAGS = 5
_LARGEST_PAGE = 50  # newer metadata says 1000, the documentation does not
_TAG = re.compile(r"Tag\.(\d+)\.(Key|Value)", re.ASCII)
_EQUAL = (
    "InstanceStatus",
    "ChargeType",
    "NetworkType",
    "EngineVersion",
    "InstanceClass",
    "VpcId",
    "VSwitchId",
    "InstanceType",
    "ArchitectureType",
    "ZoneId",
    "ResourceGroupId",
    "EditionType",
    "NodeType",
    "PrivateIp",
)


def describe_instances(call: Call) -> dict[str, Any]:
    page = call.page(lambda size: size <= _LARGEST_PAGE)
    ids, tags = instance_ids(call.params.get("InstanceIds", "")), _tags(call)
    region = call.params.get("RegionId")
    matches = _field_filter(call)
    found = [
        instance
        for instance in call.catalogue.instances()
        if (not ids or instance.id in ids)
        and (not region or instance.region == region)
        and _has_tags(instance, tags)
        and (matches is None or matches(instance.fields()))
    ]
    return {
        **page.fields(),
        "TotalCount": len(found),
        "Instances": {"KVStoreInstance": [instance.fields() for instance in page.of(found)]},
    }


def _field_filter(call: Call) -> Callable[[Mapping[str, Any]], bool] | None:
    """Whether the fields of an instance are those asked for; None if none are: fields of thousands
    take a while. Raises ApiError."""
    wanted = {name: value for name in _EQUAL if (value := call.params.get(name))}
    search = call.params.get("SearchKey", "")
    expired = call.one_of("Expired", ("true", "false"))
    if not (wanted or search or expired):
        return None
    return lambda fields: (
        all(str(fields.get(name)) == value for name, value in wanted.items())
        and (search in fields["InstanceId"] or search in fields["InstanceName"])
        and (expired is None or _is_expired(fields, call) == (expired == "true"))
    )


def instance_ids(text: str) -> list[str]:
    """The ids in an InstanceIds parameter. Raises ApiError."""
    ids = text.split(",") if text else []
    if len(ids) > _MOST_INSTANCE_IDS or not all(ids):
        raise malformed("InstanceIds")
    return ids


def _tags(call: Call) -> dict[str, str | None]:
    """The tags in Tag.N.Key and Tag.N.Value; None for any value."""
    parts: dict[str, dict[str, str]] = {}
    for name, value in call.params.items():
        if match := _TAG.fullmatch(name):
            parts.setdefault(match[1], {})[match[2]] = value
    if parts and not call.params.get("RegionId"):
        raise missing("RegionId")
    if len(parts) > _MOST_TAGS or not all(part.get("Key") for part in parts.values()):
        raise malformed("Tag")
    return {part["Key"]: part.get("Value") for part in parts.values()}


def _has_tags(instance: Instance, wanted: dict[str, str | None]) -> bool:
    tags = instance.given.get("Tags", {})
    return all(
        key in tags and (value is None or tags[key] == value) for key, value in wanted.items()
    )


def _is_expired(fields: Mapping[str, Any], call: Call) -> bool:
    end = fields.get("EndTime", "")
    return end != "" and parse_iso(end) < call.moment


def describe_regions(call: Call) -> dict[str, Any]:
    """The regions of the instances, those of instances.json, and the default one. The endpoint of
    each is the emulator's, unless instances.json names another."""
    given = call.catalogue.regions()
    used = {instance.region for instance in call.catalogue.instances()}
    return {
        "RegionIds": {
            "KVStoreRegion": [
                {
                    "RegionId": region,
                    "RegionEndpoint": call.endpoint,
                    "LocalName": region,
                    "ZoneIds": f"{region}-a",
                    "ZoneIdList": {"ZoneId": [f"{region}-a"]},
                    **given.get(region, {}),
                }
                for region in sorted({DEFAULT_REGION, *used, *given})
            ]
        }
    }


def describe_backup_policy(call: Call) -> dict[str, Any]:
    return call.instance.policy(call.moment)


def describe_logic_instance_topology(call: Call) -> dict[str, Any]:
    """A standard instance has no shards and no proxies here."""
    instance = call.instance
    nodes = [] if instance.architecture == "standard" else instance.nodes
    limits = {"Capacity": "1024", "Connection": "10000", "Bandwidth": "96"}
    shards = [
        {"NodeId": _node_id(node), "NodeType": "db", "SubInstanceType": "master", **limits}
        for node in nodes
    ]
    proxies = [
        {"NodeId": _node_id(f"{instance.id}-proxy-{number}"), "NodeType": "proxy", **limits}
        for number in range(len(nodes))
    ]
    return {
        "InstanceId": instance.id,
        "RedisShardList": {"NodeInfo": shards},
        "RedisProxyList": {"NodeInfo": proxies},
    }


def _node_id(name: str) -> str:
    return f"{name}#{number_of(name)}"


def describe_tde_status(call: Call) -> dict[str, Any]:
    return {"TDEStatus": call.instance.given.get("TDEStatus", "Disabled")}
