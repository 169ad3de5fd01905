"""The instances and backups in a directory of files, as they are at each moment.

DIRECTORY/<instance>/<file>                 a backup of a standard instance
DIRECTORY/<instance>/<node>/<file>          one of a cluster; files of the same name form a set
DIRECTORY/<instance>/backups.json           {"<file>": {"<API field>": value, …}}, overrides

Hidden files, ``*.json`` and links that lead outside are not backups. Every listing checks every
file (25 ms for 12,000), so it is never out of date; descriptions are cached until a file changes.
"""

import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from archiver.emulator.backup import (
    EmulatedBackup,
    FileStamp,
    Numbers,
    SeenFile,
    describe,
    with_overrides,
)
from archiver.errors import UsageError

_OVERRIDES = "backups.json"


class Catalogue:
    """The instances below ``directory``. Files may be added and removed at any time.

    All methods block and may be called from several threads. Raises UsageError when ``directory``
    is not a directory or has no instance, or a backups.json cannot be read.
    """

    def __init__(self, directory: Path, retention: timedelta) -> None:
        if not directory.is_dir():
            raise UsageError(f"{directory} is not a directory")
        self._directory: Final = directory.resolve()
        self._retention: Final = retention
        self._buckets: Final = Numbers()
        self._instances: Final[dict[str, _Instance]] = {}
        self._lock: Final = threading.Lock()
        names = self._names()
        if not names:
            raise UsageError(
                f"{directory} contains no instance", hint="put files into DIRECTORY/<instance id>/"
            )
        for name in names:
            _read_overrides(self._directory / name / _OVERRIDES)

    def backups(self, instance_id: str) -> Sequence[EmulatedBackup] | None:
        """All backups of an instance, newest first; None when there is no such instance."""
        with self._lock:
            instance = self._known_instances().get(instance_id)
            return None if instance is None else instance.listed()

    def find(self, resource: str) -> Path | None:
        """The file of ``/bucket/key``; None when there is none within the directory."""
        bucket = resource.split("/")[1]
        with self._lock:
            for instance in self._known_instances().values():
                if instance.bucket == bucket:
                    path = instance.find(resource)
                    return path if path and _is_within(path, self._directory) else None
        return None

    def _names(self) -> list[str]:
        with os.scandir(self._directory) as entries:
            return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))

    def _known_instances(self) -> "dict[str, _Instance]":
        names = self._names()
        for gone in self._instances.keys() - set(names):
            del self._instances[gone]
        for name in names:
            if name not in self._instances:
                bucket = f"custins{self._buckets.of(name)}"
                self._instances[name] = _Instance(name, bucket, self._directory, self._retention)
        return self._instances


class _Instance:
    """The files of one instance."""

    def __init__(
        self, instance_id: str, bucket: str, directory: Path, retention: timedelta
    ) -> None:
        self.bucket: Final = bucket
        self._id: Final = instance_id
        self._directory: Final = directory
        self._folder: Final = directory / instance_id
        self._retention: Final = retention
        self._backup_ids: Final = Numbers()
        self._described: dict[str, tuple[FileStamp, EmulatedBackup]] = {}
        self._overrides: Mapping[str, Mapping[str, Any]] = {}
        self._listed: Sequence[EmulatedBackup] = ()
        self._paths: dict[str, Path] = {}

    def listed(self) -> Sequence[EmulatedBackup]:
        """All backups, newest first. Reads only files that changed since the last call."""
        overrides = _read_overrides(self._folder / _OVERRIDES)
        seen = list(_files(self._id, self._folder, self._directory))
        described = {file.name: self._describe(file) for file in seen}
        if described != self._described or overrides != self._overrides:
            self._described, self._overrides = described, overrides
            self._list()
        return self._listed

    def find(self, resource: str) -> Path | None:
        if resource not in self._paths:
            self.listed()  # nothing was listed yet since the emulator started
        return self._paths.get(resource)

    def _describe(self, file: SeenFile) -> tuple[FileStamp, EmulatedBackup]:
        known = self._described.get(file.name)
        if known is not None and known[0] == file.stamp:
            return known
        backup_id = self._backup_ids.of(f"{self._id}/{file.name}")
        return file.stamp, describe(self._id, file, self.bucket, backup_id, self._retention)

    def _list(self) -> None:
        backups = []
        for name, (_, backup) in self._described.items():
            override = self._overrides.get(name)
            backups.append(
                with_overrides(backup, override, self._retention) if override else backup
            )
        backups.sort(key=lambda backup: (backup.started_at, backup.resource), reverse=True)
        # A changed file may have a new key. Earlier URLs still lead to it.
        here = {backup.path for backup in backups}
        older = {resource: path for resource, path in self._paths.items() if path in here}
        self._paths = older | {backup.resource: backup.path for backup in backups}
        self._listed = backups


def _files(instance_id: str, folder: Path, directory: Path) -> Iterator[SeenFile]:
    """Every backup file of an instance, sorted by name. Its subdirectories are its nodes."""
    for entry in _visible(folder, directory):
        if not entry.is_dir():
            yield from _file(entry, "", instance_id)
        else:
            for inner in _visible(Path(entry.path), directory):
                yield from _file(inner, f"{entry.name}/", entry.name)


def _file(entry: "os.DirEntry[str]", prefix: str, node: str) -> Iterator[SeenFile]:
    if entry.name.endswith(".json") or not entry.is_file():
        return
    try:
        stat = entry.stat()
    except OSError:  # removed since the directory was read
        return
    yield SeenFile(f"{prefix}{entry.name}", node, entry.path, FileStamp.of(stat))


def _visible(folder: Path, directory: Path) -> "list[os.DirEntry[str]]":
    """Sorted by name, so that ids do not depend on the order of the file system."""
    try:
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):  # removed since it was listed
        return []
    inside = [e for e in visible if not e.is_symlink() or _is_within(Path(e.path), directory)]
    return sorted(inside, key=lambda entry: entry.name)


def _is_within(path: Path, directory: Path) -> bool:
    """Whether a file is in the directory once links are resolved."""
    try:
        return path.resolve(strict=True).is_relative_to(directory)
    except (OSError, RuntimeError):  # a broken link, or a loop
        return False


def _read_overrides(path: Path) -> Mapping[str, Mapping[str, Any]]:
    try:
        overrides = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(overrides, dict) or not all(isinstance(v, dict) for v in overrides.values()):
        raise UsageError(f'{path} must be {{"<file>": {{"<API field>": value}}}}')
    return overrides
