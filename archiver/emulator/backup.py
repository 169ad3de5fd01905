"""Describes a file as a backup, with every field of DescribeBackups."""

import dataclasses
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from archiver.emulator.instances import Instance
from archiver.times import format_iso, parse_iso

_STAMP = re.compile(r"(20\d{6})T?(\d{6})Z?", re.ASCII)
_MANUAL = re.compile(r"manual_\d{14}_(?:(\d{1,3})d|(forever)|policy)\.rdb", re.ASCII)
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")
DURATION = timedelta(seconds=60)
# By RDB version, a server that writes it (RDB_VERSION in rdb.h of Redis).
_ENGINE_VERSIONS = {6: "2.8", 7: "3.2", 8: "4.0", 9: "5.0", 10: "7.0", 11: "7.0", 12: "7.0"}
_ENGINE_VERSION = "5.0"


class FileStamp(NamedTuple):
    """Identifies the contents of a file: it changes whenever they do."""

    inode: int
    changed_ns: int
    modified_ns: int
    size: int

    @classmethod
    def of(cls, stat: os.stat_result) -> "FileStamp":
        return cls(stat.st_ino, stat.st_ctime_ns, stat.st_mtime_ns, stat.st_size)


class SeenFile(NamedTuple):
    """A backup file; ``name`` is its path relative to the instance's directory, with ``/``."""

    name: str
    node: str
    path: str
    stamp: FileStamp


@dataclass(frozen=True, slots=True)
class EmulatedBackup:
    """A backup; ``fields`` are those of DescribeBackups without the URLs, with ``overrides``
    applied. ``node`` is the name of its folder, ``resource`` is /bucket/key, ``size`` is in bytes,
    ``retention`` None is for as long as the instance lives."""

    path: Path
    node: str
    resource: str
    started_at: datetime
    incremental: bool
    size: int
    retention: timedelta | None
    fields: Mapping[str, Any]
    overrides: Mapping[str, Any]


class Numbers:
    """Gives each name a stable and unique number of ten digits, like the vendor's ids."""

    def __init__(self) -> None:
        self._given: dict[str, int] = {}
        self._taken: set[int] = set()

    def of(self, name: str) -> int:
        if name not in self._given:
            number, salt = number_of(name), 0
            while number in self._taken:
                salt += 1
                number = number_of(f"{name}\0{salt}")
            self._given[name] = number
            self._taken.add(number)
        return self._given[name]


def number_of(text: str) -> int:
    """A number of ten digits that depends only on the text."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
    return 10**9 + int.from_bytes(digest[:4], "big")


def job_of(instance: Instance, node: str, file_name: str) -> int:
    """The id of the job that made a file. Files of the same name on several nodes belong to one
    job, except in old clusters."""
    part = f"{node}/{file_name}" if instance.has_job_per_shard else file_name
    return number_of(f"{instance.id}\0{part}")


def manual_name(started: datetime, days: int | None) -> str:
    """The file name of a backup that CreateBackup makes. ``days`` are those it is kept: -1 for
    as long as the instance lives, None for what the policy says."""
    kept = "policy" if days is None else "forever" if days < 0 else f"{days}d"
    return f"manual_{started:%Y%m%d%H%M%S}_{kept}.rdb"


def _retention(manual: re.Match[str] | None, instance: Instance) -> timedelta | None:
    if manual is None or not (manual[1] or manual[2]):
        return instance.retention
    return timedelta(days=int(manual[1])) if manual[1] else None


def describe(instance: Instance, file: SeenFile, bucket: str, backup_id: int) -> EmulatedBackup:
    """A file as a backup. Reads its first bytes."""
    path = Path(file.path)
    manual = _MANUAL.fullmatch(path.name)
    retention = _retention(manual, instance)
    started = _start(path.name, file.stamp.modified_ns)
    incremental = path.suffix == ".aof"
    suffix = path.suffix if _SUFFIX.fullmatch(path.suffix) else ".rdb"
    key = f"hins{number_of(file.node)}_data_{started:%Y%m%d%H%M%S}_{backup_id}{suffix}"
    return EmulatedBackup(
        path=path,
        node=file.node,
        resource=f"/{bucket}/{key}",
        started_at=started,
        incremental=incremental,
        size=file.stamp.size,
        retention=retention,
        overrides={},
        fields={
            "BackupId": backup_id,
            "BackupJobID": job_of(instance, file.node, path.name),
            "NodeInstanceId": file.node,
            "BackupStatus": "Success",
            **_times(started, retention),
            "BackupType": "IncrementalBackup" if incremental else "FullBackup",
            "BackupMode": "Manual" if manual else "Automated",
            "BackupMethod": "Physical",
            "BackupDBNames": "all",
            "EngineVersion": _engine_version(path),
            "BackupSize": file.stamp.size,
            "RecoverConfigMode": "",
        },
    )


def with_overrides(backup: EmulatedBackup, overrides: Mapping[str, Any]) -> EmulatedBackup:
    """The backup with some fields replaced, whatever their values.

    A valid BackupStartTime moves the backup in time; an invalid one is only served.
    """
    started, times = backup.started_at, {}
    try:
        started = parse_iso(overrides.get("BackupStartTime", ""))
        times = _times(started, backup.retention)
    except (TypeError, ValueError, OverflowError):
        started = backup.started_at
    fields = {**backup.fields, **times, **overrides}
    return dataclasses.replace(
        backup,
        started_at=started,
        incremental=fields["BackupType"] == "IncrementalBackup",
        fields=fields,
        overrides=overrides,
    )


def _times(started: datetime, retention: timedelta | None) -> dict[str, str]:
    times = {"BackupStartTime": started, "BackupEndTime": started + DURATION}
    if retention is not None:
        times["ExpectExpireTime"] = started + retention
    return {name: format_iso(time) for name, time in times.items()}


def _start(name: str, modified_ns: int) -> datetime:
    for stamp in _STAMP.finditer(name):
        try:
            return datetime.strptime(stamp[1] + stamp[2], "%Y%m%d%H%M%S").replace(tzinfo=UTC)
        except ValueError:
            continue
    return datetime.fromtimestamp(modified_ns // 10**9, UTC)


def _engine_version(path: Path) -> str:
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError:  # missing or unreadable: its download reports it
        return _ENGINE_VERSION
    is_rdb = head[:5] == b"REDIS" and head[5:9].isdigit()
    return _ENGINE_VERSIONS.get(int(head[5:9]), _ENGINE_VERSION) if is_rdb else _ENGINE_VERSION
