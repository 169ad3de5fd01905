"""The actions that list backups: DescribeBackups and DescribeClusterBackupList."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from archiver.emulator.backup import DURATION, EmulatedBackup, number_of
from archiver.emulator.call import PAGE_SIZES, Call
from archiver.emulator.gateway import ApiError
from archiver.emulator.instances import Instance
from archiver.emulator.jobs import Job
from archiver.times import format_iso

_BACKUPS_PAGE_SIZES = (*PAGE_SIZES, 1000)  # the metadata lists 1000, the documentation does not
_CLUSTER_PAGE_SIZES = (5, 10, 15, 20, *PAGE_SIZES)  # older documentation lists the small ones
_SHARD_STATUSES = {"Success": "OK", "Failed": "ERROR"}
_FLAGS = ("true", "false", "True", "False")


def describe_backups(call: Call) -> dict[str, Any]:
    """It lists nothing of a cloud-native cluster."""
    start, end = call.span()
    page = call.page(_BACKUPS_PAGE_SIZES.__contains__)
    backup_id, job_id = call.number("BackupId"), call.number("BackupJobId")
    need_aof = call.one_of("NeedAof", ("0", "1")) == "1"
    instance = call.instance
    listed = [] if instance.is_cloud_native_cluster else _backups(call)
    matching = [
        backup
        for backup in listed
        if start <= backup.started_at <= end
        and (need_aof or not backup.incremental)
        and (backup_id is None or backup.fields.get("BackupId") == backup_id)
        and (job_id is None or backup.fields.get("BackupJobID") == job_id)
    ]
    return {
        **page.fields(),
        "TotalCount": len(matching),
        **_storage(listed),
        "Backups": {"Backup": [_entry(call, backup) for backup in page.of(matching)]},
    }


def _backups(call: Call) -> Sequence[EmulatedBackup]:
    return call.catalogue.backups(call.instance) if call.instance.has_backups else []


def _storage(backups: Sequence[EmulatedBackup]) -> dict[str, int]:
    return {
        "FullStorageSize": sum(b.size for b in backups if not b.incremental),
        "LogStorageSize": sum(b.size for b in backups if b.incremental),
        "FreeSize": 0,
    }


def _entry(call: Call, backup: EmulatedBackup) -> dict[str, Any]:
    """A backup's fields with its URLs, unless the backup failed or the URLs are overridden."""
    if backup.fields.get("BackupStatus") != "Success":
        return dict(backup.fields)
    return {**call.urls(backup.resource), **backup.fields}


def describe_cluster_backup_list(call: Call) -> dict[str, Any]:
    """The sets of a cloud-native cluster. There is no TotalCount, and the response does not name
    the nodes other than by ``InstanceName``."""
    start, end = call.span()
    page = call.page(_CLUSTER_PAGE_SIZES.__contains__)
    without_shards = (call.one_of("NoShardBackup", _FLAGS) or "").lower() == "true"
    instance = call.instance
    if instance.architecture == "standard":
        raise ApiError(
            404, "InvalidClusterInstance.NotFound", "The instance is no cloud-native cluster."
        )
    listed = _backups(call) if instance.is_cloud_native_cluster else []
    sets = [
        found
        for started, found in _sets(call, listed)
        if format_iso(start) <= started <= format_iso(end)
        and call.params.get("ClusterBackupId", "") in ("", found["ClusterBackupId"])
    ]
    shown = page.of(sets)
    return {
        **page.fields(),
        "MaxResults": len(shown),
        **_storage(listed),
        "ClusterBackups": [{**one, "Backups": []} if without_shards else one for one in shown],
    }


def _sets(call: Call, backups: Sequence[EmulatedBackup]) -> list[tuple[str, dict[str, Any]]]:
    """The sets with their start times, newest first, and the one that is under way."""
    by_name: defaultdict[str, list[EmulatedBackup]] = defaultdict(list)
    for backup in backups:
        if not backup.incremental:
            by_name[backup.path.name].append(backup)
    overrides = call.catalogue.overrides(call.instance)
    sets = [_set(call, files, overrides.get(name, {})) for name, files in by_name.items()]
    job = call.jobs.pending(call.instance)
    if job is not None and call.instance.is_cloud_native_cluster:
        sets.append(_running(job, call))
    starts = [(str(found["ClusterBackupStartTime"]), found) for found in sets]
    return sorted(starts, key=lambda pair: pair[0], reverse=True)


def _set(
    call: Call, files: Sequence[EmulatedBackup], overrides: Mapping[str, Any]
) -> dict[str, Any]:
    shards = [_shard(call, backup) for backup in sorted(files, key=lambda file: file.node)]
    is_ok = all(shard["BackupStatus"] == "OK" for shard in shards)
    is_whole = len(shards) >= call.instance.shards
    first = min(files, key=lambda file: file.started_at)
    is_available = is_ok and is_whole and all(shard["IsAvail"] == "1" for shard in shards)
    kept = first.retention
    return {
        "ClusterBackupId": _set_id(call.instance, first.path.name),
        "ClusterBackupStatus": "OK" if is_ok else "ERROR",
        "ClusterBackupMode": first.fields["BackupMode"],
        "ClusterBackupSize": str(sum(file.size for file in files)),
        "ClusterBackupStartTime": format_iso(first.started_at),
        "ClusterBackupEndTime": format_iso(first.started_at + DURATION),
        **({} if kept is None else {"ExpectExpireTime": _minute(first, kept)}),
        "IsAvail": int(is_available),
        "ShardClassMemory": 1024,
        "Backups": shards,
        **overrides,
    }


def _minute(backup: EmulatedBackup, kept: timedelta) -> str:
    return f"{backup.started_at + kept:%Y-%m-%dT%H:%MZ}"


def _shard(call: Call, backup: EmulatedBackup) -> dict[str, Any]:
    """The times have no zone, and the URLs are http:// whatever serves them."""
    fields = backup.fields
    status = _SHARD_STATUSES.get(str(fields["BackupStatus"]), fields["BackupStatus"])
    shard = {
        "BackupId": str(fields["BackupId"]),
        "InstanceName": backup.node,
        "BackupName": backup.path.name,
        "BackupSize": str(fields["BackupSize"]),
        "BackupStartTime": format_iso(backup.started_at).removesuffix("Z"),
        "BackupEndTime": format_iso(backup.started_at + DURATION).removesuffix("Z"),
        "IsAvail": "1" if status == "OK" else "0",
        "Engine": "redis",
        "RecoverConfigMode": "null",
        "ExtraInfo": {"CustinsDbVersion": fields["EngineVersion"]},
        **(call.urls(backup.resource, "http") if status == "OK" else {}),
        **backup.overrides,
    }
    return {**shard, "BackupStatus": status}


def _running(job: Job, call: Call) -> dict[str, Any]:
    return {
        "ClusterBackupId": _set_id(job.instance, job.file_name),
        "ClusterBackupStatus": "RUNNING",
        "ClusterBackupMode": "Manual",
        "ClusterBackupSize": "0",
        "ClusterBackupStartTime": job.start_time,
        "IsAvail": 0,
        "Progress": f"{job.progress(call.now)}%",
        "ShardClassMemory": 1024,
        "Backups": [],
    }


def _set_id(instance: Instance, file_name: str) -> str:
    return f"cb-{number_of(f'{instance.id} {file_name}')}"
