"""The multi-part AOF of Redis 7: a manifest, and the files that are one log when joined in its
order."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from archiver.stores.base import Entry, Opened

MANIFEST: Final = ".manifest"
MAX_MANIFEST_BYTES: Final = 64 * 1024
_OF: Final = re.compile(r"\.(manifest|[0-9]+\.(base|incr|history)\.(rdb|aof))", re.IGNORECASE)
_LINE: Final = re.compile(r'file ([^\s"/\\]+) seq ([0-9]+) type ([bih])')


@dataclass(frozen=True, slots=True)
class Joined:
    """``entry`` is the log as a whole, with the name of its ``manifest``; ``parts`` are its files,
    in order."""

    entry: Entry
    manifest: Entry
    parts: tuple[Entry, ...]


def is_manifest(entry: Entry) -> bool:
    """Whether an entry is the manifest of a log, and not one that is still being written."""
    name = entry.key.rpartition("/")[2]
    is_named = name.endswith(f".aof{MANIFEST}") and not name.startswith("temp-")
    return entry.is_file and is_named


def files_of(manifest: str, keys: Iterable[str]) -> list[str]:
    """Which of the keys are of files of the log that has this manifest, and the manifest itself."""
    stem = manifest.removesuffix(MANIFEST)
    return [one for one in keys if one.startswith(f"{stem}.") and _OF.fullmatch(one, len(stem))]


def names_in(manifest: bytes) -> list[str] | None:
    """The names of the files that a manifest joins, in order: a base, if there is one, and what was
    appended to it. None for a manifest of another form. What it calls history is none of them."""
    base, appended, last = list[str](), list[str](), 0
    for line in manifest.decode("utf-8", "replace").splitlines():
        if not line or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line)
        if found is None:
            return None
        if found[3] == "b":
            base.append(found[1])
        elif found[3] == "i":
            if int(found[2]) <= last:
                return None
            last = int(found[2])
            appended.append(found[1])
    names = base + appended
    return names if len(base) <= 1 and 0 < len(names) == len(set(names)) else None


def join(manifest: Entry, parts: Sequence[Entry]) -> Joined:
    """All of a log as one entry: it is another version once any of its files is."""
    every = (manifest, *parts)
    versions = "\n".join(f"{one.key} {one.size} {one.version}" for one in every)
    times = [one.modified for one in every if one.modified is not None]
    is_known = len(times) == len(every) and all(one.version for one in every)
    entry = Entry(
        manifest.key,
        sum(one.size for one in parts),
        version=hashlib.sha256(versions.encode()).hexdigest() if is_known else "",
        modified=max(times, default=None),
    )
    return Joined(entry, manifest, tuple(parts))


class JoinedFiles:
    """Reads files one after the other, as if they were one. Implements Opened."""

    def __init__(self, parts: Sequence[Opened]) -> None:
        self.size: Final = sum(one.size for one in parts)
        self._parts: Final = parts

    def read(self, offset: int, block: memoryview) -> int:
        count = start = 0
        for part in self._parts:
            position = offset + count - start
            if position < part.size and count < len(block):
                count += part.read(position, block[count:])
            start += part.size
        return count
