"""What lies in an archive, read from the disk by code of the test's own."""

import contextlib
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from archiver.archive.layout import FORMAT as FORMAT_NUMBER
from tests.stateful.truth import SUFFIXES, Backup

SUMS = "SHA256SUMS"
FORMAT = "archive.json"
LOCK, LOCKS = ".lock", ".locks"
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


@dataclass(frozen=True)
class Seen:
    """One backup in one archive.

    ``sets`` are the keys of those that hold its true bytes under a final name; ``other`` what
    else has such a name, by SHA-256. ``record`` is None without one, "" for a right one, else what
    is wrong. ``line`` is of SHA256SUMS: None without one, else whether it is right.
    ``set_aside``: the true bytes lie in quarantine. ``is_named``: something of its size has the
    name that a right record gives; ``is_sealed``: SHA256SUMS has a line of its set, whatever that
    says.
    """

    sets: tuple[str, ...] = ()
    is_named: bool = False
    is_sealed: bool = False
    other: frozenset[str] = frozenset()
    record: str | None = None
    line: bool | None = None
    set_aside: bool = False

    @property
    def is_there(self) -> bool:
        return bool(self.sets)

    @property
    def is_home(self) -> bool:
        return self.is_there and self.is_named and self.record == ""

    @property
    def is_whole(self) -> bool:
        """In a set that is sealed."""
        return self.is_home and self.line is True

    @property
    def left_a_trace(self) -> bool:
        """Whether the archive ever had it, as far as its month shows."""
        return self.is_there or bool(self.other) or self.record is not None or self.line is not None


@dataclass(frozen=True)
class Look:
    """An archive at one moment: its files by key with their SHA-256 (links, folders in odd places
    and the like with what they are), and of each backup what there is."""

    files: Mapping[str, str] = field(default_factory=dict)
    backups: Mapping[Backup, Seen] = field(default_factory=dict)
    # What lines of SHA256SUMS name, as keys; and what of it is not there.
    named: frozenset[str] = frozenset()
    hollow: frozenset[str] = frozenset()
    # Those SHA256SUMS that are not lines from end to end.
    torn: frozenset[str] = frozenset()

    @property
    def is_archive(self) -> bool:
        return FORMAT in self.files


def look(root: Path, backups: Sequence[Backup]) -> Look:
    files = dict(_files(root))
    sums = {key: _sums(root / key) for key in files if key.endswith(f"/{SUMS}")}
    named = {f"{key.removesuffix(SUMS)}{name}" for key, lines in sums.items() for name in lines}
    return Look(
        files,
        {backup: _seen(root, backup, files, sums) for backup in backups},
        frozenset(named),
        frozenset(named - files.keys()),
        frozenset(key for key in sums if _is_torn(root / key)),
    )


def _files(root: Path) -> Iterator[tuple[str, str]]:
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            key = path.relative_to(root).as_posix()
            with contextlib.suppress(FileNotFoundError):  # a thread that was left alone works on
                if key != LOCK and not key.startswith(f"{LOCKS}/"):
                    yield key, digest(path)


def digest(path: Path) -> str:
    """The SHA-256 of a file; of anything else what it is. Never opens a FIFO."""
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return f"link to {path.readlink()}"
    if not stat.S_ISREG(mode):
        return "no file"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _is_torn(path: Path) -> bool:
    if not stat.S_ISREG(path.lstat().st_mode):
        return True
    *lines, rest = path.read_bytes().decode("utf-8", "replace").split("\n")
    return rest != "" or not all(map(_LINE.fullmatch, lines))


def _sums(path: Path) -> dict[str, str]:
    """The SHA-256 by name; nothing of what is no SHA256SUMS."""
    if not stat.S_ISREG(path.lstat().st_mode):
        return {}
    lines = path.read_bytes().decode("utf-8", "replace").split("\n")
    return {found[2]: found[1] for found in map(_LINE.fullmatch, lines) if found}


def _seen(
    root: Path, backup: Backup, files: Mapping[str, str], sums: Mapping[str, Mapping[str, str]]
) -> Seen:
    month = rf"({re.escape(backup.instance)}/[0-9]{{4}}/[0-9]{{2}})"
    place = re.compile(rf"{month}/{backup.place}\.({'|'.join(SUFFIXES)}|json)")
    sets, other, record, is_named = list[str](), set[str](), None, False
    for key, sha256 in files.items():
        found = place.fullmatch(key)
        if found is None:
            continue
        if found[3] == backup.content.suffix:
            is_named |= (root / key).lstat().st_size == len(backup.data)
        if found[3] == "json":
            wrong = wrong_in(root / key, backup)
            record = wrong if record is None else min(record, wrong)
        elif sha256 == backup.sha256:
            sets.append(f"{found[1]}/{found[2]}")
        else:
            other.add(sha256)
    lines = [
        (name, sha256)
        for key in sums
        if re.fullmatch(f"{month}/{SUMS}", key)
        for name, sha256 in sums[key].items()
    ]
    own = re.compile(rf"{backup.place}\.({'|'.join(SUFFIXES)})")
    named = {sha256 == backup.sha256 for name, sha256 in lines if own.fullmatch(name)}
    line = (True in named) if named else None
    is_sealed = line is not None or any(f"-{backup.job}/" in name for name, _ in lines)
    kept = any(
        sha256 == backup.sha256 for key, sha256 in files.items() if key.startswith(".quarantine/")
    )
    return Seen(tuple(sets), is_named, is_sealed, frozenset(other), record, line, kept)


def wrong_in(path: Path, backup: Backup) -> str:
    """What a record does not say as it should; "" when it is right."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return "it is no file"
        document = json.loads(path.read_bytes())
        expected = _expected(backup)
        said = _said(document)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "it cannot be read"
    for name, value in expected.items():
        if said[name] != value:
            return f"its {name}"
    if document["crc64ecma_declared"] not in (None, backup.crc64):
        return "its crc64ecma_declared"
    return "its repairs" if not isinstance(document.get("repairs", []), list) else ""


def _expected(backup: Backup) -> dict[str, object]:
    return {
        "format": FORMAT_NUMBER,
        "ids": (backup.instance, backup.node, backup.backup_id, backup.job),
        "start": (f"{backup.started:%Y-%m-%dT%H:%M:%SZ}",) * 2,
        "type": (
            ("full", "FullBackup")
            if backup.content.is_full
            else ("incremental", "IncrementalBackup")
        ),
        "object": backup.object,
        "size": (len(backup.data), len(backup.data)),
        "sha256": backup.sha256,
        "crc64ecma": backup.crc64,
        "footer": backup.content.footer,
        "source": (True, True, True),
    }


def _said(document: dict[str, Any]) -> dict[str, object]:
    ids = ("instance_id", "node_id", "backup_id", "set_id")
    return {
        "format": document["format"],
        "ids": tuple(document[name] for name in ids),
        "start": (document["started_at"], document["received"]["BackupStartTime"]),
        "type": (document["type"], document["received"]["BackupType"]),
        "object": document["object"],
        "size": (document["size"], document["received"]["BackupSize"]),
        "sha256": document["sha256"],
        "crc64ecma": document["crc64ecma"],
        "footer": document["rdb"]["footer"],
        "source": (
            isinstance(document["source"]["kind"], str),
            isinstance(document["transfer"]["origin"], str),
            isinstance(document["transfer"]["finished_at"], str),
        ),
    }
