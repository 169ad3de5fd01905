"""From files in a directory to backups as DescribeBackups lists them.

DIRECTORY/<instance>/<file>                 a standard instance's backup
DIRECTORY/<instance>/<node>/<file>          a cluster's; files of one name form a set
DIRECTORY/<instance>/backups.json           {"<file>": {"<API field>": value, …}}, laid over
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from archiver.errors import UsageError

RETENTION = timedelta(days=7)  # the vendor's default
_OVERRIDES = "backups.json"
_STAMP = re.compile(r"(20\d{6})T?(\d{6})Z?")
# A dump's version → a server that writes it (RDB_VERSION in Redis' rdb.h).
_ENGINE_VERSIONS = {6: "2.8", 7: "3.2", 8: "4.0", 9: "5.0", 10: "7.0", 11: "7.0", 12: "7.0"}


@dataclass(frozen=True, slots=True)
class EmulatedBackup:
    """One file; ``fields`` as the API gives them, without the URLs."""

    path: Path
    object_key: str
    started_at: datetime
    incremental: bool
    fields: Mapping[str, Any]


class Catalogue:
    """The instances below ``directory``; files may come and go while it serves."""

    def __init__(self, directory: Path) -> None:
        self.directory: Final = directory.resolve()
        if not self.directory.is_dir():
            raise UsageError(f"{directory} is not a directory")
        if not self._instances():
            raise UsageError(
                f"{directory} holds no instance", hint="put files into DIRECTORY/<instance id>/"
            )
        self._known: Final[dict[tuple[Path, int, int], EmulatedBackup]] = {}
        self._objects: Final[dict[tuple[str, str], Path]] = {}

    def _instances(self) -> list[str]:
        with os.scandir(self.directory) as entries:
            return [entry.name for entry in entries if entry.is_dir()]

    def has(self, instance_id: str) -> bool:
        return instance_id in self._instances()

    def backups(self, instance_id: str) -> list[EmulatedBackup]:
        """All backups of an instance, newest first, as the files are at this moment; blocks."""
        folder = self.directory / instance_id
        overrides = _read_overrides(folder / _OVERRIDES)
        found = [
            self._backup(instance_id, node, entry, overrides)
            for node, entry in _files(instance_id, folder)
        ]
        return sorted(found, key=lambda b: (b.started_at, b.object_key), reverse=True)

    def find(self, bucket: str, key: str) -> Path | None:
        """The file behind an object; None when there is none. Blocks."""
        if (bucket, key) not in self._objects:
            # A URL from before a restart: nothing was listed yet.
            for instance_id in self._instances():
                if bucket_of(instance_id) == bucket:
                    self.backups(instance_id)
        path = self._objects.get((bucket, key))
        return path if path is not None and _is_within(path, self.directory) else None

    def _backup(
        self,
        instance_id: str,
        node: str,
        entry: "os.DirEntry[str]",
        overrides: Mapping[str, Mapping[str, Any]],
    ) -> EmulatedBackup:
        path, stat = Path(entry.path), entry.stat()
        known = (path, stat.st_mtime_ns, stat.st_size)
        backup = self._known.get(known)
        if backup is None:
            backup = self._known[known] = _describe(instance_id, node, path, stat)
            self._objects[bucket_of(instance_id), backup.object_key] = path
        name = path.relative_to(self.directory / instance_id).as_posix()
        override = overrides.get(name)
        if override is None:
            return backup
        started = override.get("BackupStartTime")
        return EmulatedBackup(
            path=path,
            object_key=backup.object_key,
            started_at=datetime.fromisoformat(started) if started else backup.started_at,
            incremental=override.get("BackupType", backup.fields["BackupType"]) != "FullBackup",
            fields={**backup.fields, **override},
        )


def bucket_of(instance_id: str) -> str:
    """The bucket that an instance's objects are in, named as the vendor names them."""
    return f"custins{_number(instance_id)}"


def _files(instance_id: str, folder: Path) -> Iterator[tuple[str, "os.DirEntry[str]"]]:
    """(node, file) for every backup file of an instance."""
    for entry in _visible(folder):
        if entry.is_dir(follow_symlinks=False):
            for inner in _visible(Path(entry.path)):
                if inner.is_file():
                    yield entry.name, inner
        elif entry.is_file() and not entry.name.endswith(".json"):
            yield instance_id, entry


def _visible(folder: Path) -> "list[os.DirEntry[str]]":
    with os.scandir(folder) as entries:
        return [entry for entry in entries if not entry.name.startswith(".")]


def _describe(instance_id: str, node: str, path: Path, stat: os.stat_result) -> EmulatedBackup:
    started = _start(path.name, stat.st_mtime)
    incremental = path.suffix == ".aof"
    # Files of one name on several nodes are one job; a standard instance's file is its own.
    job = _number(f"{instance_id}/{path.name}")
    suffix = path.suffix or ".rdb"
    key = f"hins{_number(node)}_data_{started:%Y%m%d%H%M%S}_{_number(path.name)}{suffix}"
    return EmulatedBackup(
        path=path,
        object_key=key,
        started_at=started,
        incremental=incremental,
        fields={
            "BackupId": _number(f"{instance_id}/{node}/{path.name}"),
            "BackupJobID": job,
            "NodeInstanceId": node,
            "BackupStatus": "Success",
            "BackupStartTime": f"{started:%Y-%m-%dT%H:%M:%SZ}",
            "BackupEndTime": f"{started + timedelta(seconds=60):%Y-%m-%dT%H:%M:%SZ}",
            "BackupType": "IncrementalBackup" if incremental else "FullBackup",
            "BackupMode": "Automated",
            "BackupMethod": "Logical" if incremental else "Physical",
            "BackupDBNames": "all",
            "EngineVersion": _engine_version(path),
            "BackupSize": stat.st_size,
            "ExpectExpireTime": f"{started + RETENTION:%Y-%m-%dT%H:%M:%SZ}",
            "RecoverConfigMode": "",
        },
    )


def _start(name: str, mtime: float) -> datetime:
    for stamp in _STAMP.finditer(name):
        try:
            return datetime.strptime(stamp[1] + stamp[2], "%Y%m%d%H%M%S").replace(tzinfo=UTC)
        except ValueError:
            continue
    return datetime.fromtimestamp(int(mtime), UTC)


def _engine_version(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(9)
    version = int(head[5:9]) if head[:5] == b"REDIS" and head[5:9].isdigit() else 0
    return _ENGINE_VERSIONS.get(version, "5.0")


def _number(text: str) -> int:
    """A stable number of nine or ten digits, like the vendor's ids."""
    return 10**9 + int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def _read_overrides(path: Path) -> Mapping[str, Mapping[str, Any]]:
    try:
        overrides = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}") from None
    return overrides if isinstance(overrides, dict) else {}


def _is_within(path: Path, directory: Path) -> bool:
    """Whether a file lies in the directory, links followed."""
    return path.resolve().is_relative_to(directory)
