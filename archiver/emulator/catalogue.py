"""The instances and backups in a directory of files, as they are at each moment.

DIRECTORY/<instance>/<file>                 a backup of a standard instance
DIRECTORY/<instance>/<node>/<file>          one of a cluster; files of the same name form a set
DIRECTORY/<instance>/backups.json           {"<file>": {"<API field>": value, …}}, overrides
DIRECTORY/instances.json                    what the instances are; see archiver.emulator.instances

Hidden files, ``*.json`` and links that lead outside are not backups. Every listing checks every
file (25 ms for 12,000), so it is never out of date; descriptions are cached until a file changes.
"""

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
from archiver.emulator.instances import INSTANCES, Described, Instance, read_instances, read_json
from archiver.errors import UsageError

_OVERRIDES = "backups.json"


class Catalogue:
    """The instances below ``directory``. Files may be added and removed at any time.

    All methods block and may be called from several threads. Raises UsageError when ``directory``
    is not a directory or has no instance, or a backups.json or instances.json cannot be read.
    """

    def __init__(self, directory: Path, retention: timedelta) -> None:
        if not directory.is_dir():
            what = "is not a directory" if directory.exists() else "does not exist"
            raise UsageError(f"{directory} {what}")
        self._directory: Final = directory.resolve()
        self._retention: Final = retention
        self._buckets: Final = Numbers()
        self._folders: Final[dict[str, _Folder]] = {}
        self._by_bucket: Final[dict[str, str]] = {}
        self._described: tuple[FileStamp | None, Described] = (None, Described())
        self._lock: Final = threading.Lock()
        names = self._known_names()
        if not names:
            raise UsageError(
                f"{directory} contains no instance", hint="put files into DIRECTORY/<instance id>/"
            )
        for name in names:
            _read_overrides(self._directory / name / _OVERRIDES)

    def instance(self, instance_id: str) -> Instance | None:
        """None when there is no such instance."""
        with self._lock:
            return self._instance(instance_id) if self._is_known(instance_id) else None

    def instances(self) -> list[Instance]:
        """All instances, sorted by id."""
        with self._lock:
            described = self._current().instances
            return [self._made(name, described) for name in self._known_names()]

    def regions(self) -> Mapping[str, Mapping[str, Any]]:
        """What instances.json says of regions, by their ids."""
        with self._lock:
            return self._current().regions

    def backups(self, instance: Instance) -> Sequence[EmulatedBackup]:
        """All backups of an instance, newest first."""
        with self._lock:
            return self._folder(instance.id).listed(instance)

    def overrides(self, instance: Instance) -> Mapping[str, Mapping[str, Any]]:
        """What its backups.json says, by file."""
        return _read_overrides(self._directory / instance.id / _OVERRIDES)

    def find(self, resource: str) -> Path | None:
        """The file of ``/bucket/key``; None when there is none within the directory."""
        bucket = resource.split("/")[1]
        with self._lock:
            name = self._name_of(bucket)
            path = name and self._folder(name).find(resource, self._instance(name))
            return path if path and _is_within(path, self._directory) else None

    def _name_of(self, bucket: str) -> str | None:
        """The instance of a bucket. Only a bucket that was never listed takes a look at all."""
        if bucket not in self._by_bucket:
            for name in self._known_names():
                self._folder(name)
        return self._by_bucket.get(bucket)

    def _current(self) -> Described:
        path = self._directory / INSTANCES
        try:
            stamp = FileStamp.of(path.stat())
        except FileNotFoundError:
            stamp = None
        if stamp != self._described[0]:
            self._described = stamp, read_instances(path) if stamp else Described()
        return self._described[1]

    def _instance(self, name: str) -> Instance:
        return self._made(name, self._current().instances)

    def _made(self, name: str, described: Mapping[str, Mapping[str, Any]]) -> Instance:
        def list_nodes() -> list[str]:
            folder = self._directory / name
            return [e.name for e in _visible(folder, self._directory) if e.is_dir()]

        return Instance(name, described.get(name, {}), list_nodes, self._retention)

    def _folder(self, name: str) -> "_Folder":
        if name not in self._folders:
            bucket = f"custins{self._buckets.of(name)}"
            self._folders[name] = _Folder(name, bucket, self._directory)
            self._by_bucket[bucket] = name
        return self._folders[name]

    def _known_names(self) -> list[str]:
        with os.scandir(self._directory) as entries:
            folders = [e.name for e in entries if e.is_dir() and not e.name.startswith(".")]
        return sorted({*folders, *self._current().instances})

    def _is_known(self, name: str) -> bool:
        """Without a look at all the others: there may be thousands."""
        if name in self._current().instances:
            return True
        if not name or name.startswith(".") or "/" in name:
            return False
        try:
            return (self._directory / name).is_dir()
        except (OSError, ValueError):  # too long for a folder's name, or with a NUL
            return False


class _Folder:
    """The files of one instance."""

    def __init__(self, instance_id: str, bucket: str, directory: Path) -> None:
        self.bucket: Final = bucket
        self._id: Final = instance_id
        self._directory: Final = directory
        self._folder: Final = directory / instance_id
        self._backup_ids: Final = Numbers()
        self._described: dict[str, tuple[FileStamp, EmulatedBackup]] = {}
        self._given: Mapping[str, Any] = {}
        self._overrides: Mapping[str, Mapping[str, Any]] = {}
        self._listed: Sequence[EmulatedBackup] = ()
        self._paths: dict[str, Path] = {}

    def listed(self, instance: Instance) -> Sequence[EmulatedBackup]:
        """All backups, newest first. Reads only files that changed since the last call."""
        overrides = _read_overrides(self._folder / _OVERRIDES)
        if instance.given != self._given:  # jobs and expiry depend on it
            self._given, self._described = instance.given, {}
        seen = list(_files(self._id, self._folder, self._directory))
        described = {file.name: self._describe(instance, file) for file in seen}
        if described != self._described or overrides != self._overrides:
            self._described, self._overrides = described, overrides
            self._list()
        return self._listed

    def find(self, resource: str, instance: Instance) -> Path | None:
        if resource not in self._paths:
            self.listed(instance)  # nothing was listed yet since the emulator started
        return self._paths.get(resource)

    def _describe(self, instance: Instance, file: SeenFile) -> tuple[FileStamp, EmulatedBackup]:
        known = self._described.get(file.name)
        if known is not None and known[0] == file.stamp:
            return known
        backup_id = self._backup_ids.of(f"{self._id}/{file.name}")
        return file.stamp, describe(instance, file, self.bucket, backup_id)

    def _list(self) -> None:
        backups = []
        for name, (_, backup) in self._described.items():
            override = self._overrides.get(name)
            backups.append(with_overrides(backup, override) if override else backup)
        backups.sort(key=lambda backup: (backup.started_at, backup.resource), reverse=True)
        # A changed file may have a new key. Earlier URLs still lead to it.
        here = {backup.path for backup in backups}
        older = {resource: path for resource, path in self._paths.items() if path in here}
        self._paths = older | {backup.resource: backup.path for backup in backups}
        self._listed = backups


def odd_files(directory: Path) -> list[str]:
    """A line about each link that is not served, and about each empty file, which is."""
    root = directory.resolve()
    lines = []
    for path in sorted([*root.glob("*/*"), *root.glob("*/*/*")]):
        if any(part.startswith(".") for part in path.relative_to(root).parts):
            continue
        if path.is_symlink() and not _is_within(path, root):
            lines.append(f"not served: {path}: a link that leads to no file in {directory}")
        elif path.is_file() and path.stat().st_size == 0:
            lines.append(f"served: {path}: it has 0 bytes")
    return lines


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
    overrides = read_json(path, {})
    if not isinstance(overrides, dict) or not all(isinstance(v, dict) for v in overrides.values()):
        raise UsageError(f'{path} must be {{"<file>": {{"<API field>": value}}}}')
    return overrides
