"""What must be there after a cut: what was told, noted, right before, or there at exit."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from tests.faults.facts import (
    ARCHIVE,
    DESCRIPTIONS,
    QUARANTINE,
    STAGING,
    Facts,
    Truth,
    archive_of,
    noted_parts,
    own,
    parsed,
    stem_of,
)
from tests.faults.posix import FileSystem
from tests.faults.syscalls import Moment


class Promises:
    """What must be there after a cut, as of the moment that was last told to ``add``."""

    def __init__(self, truth: Truth, before: Facts, otherwise: frozenset[str]) -> None:
        self._truth: Final = truth
        self._journalled: Final = truth.objects.keys() - otherwise
        self._recorded: Final = set(before.recorded)
        self._right: Final = set(before.right)
        self._sealed: Final = set[str]()
        self._noted: Final[dict[str, dict[int, int]]] = {}
        self._journals: Final[dict[str, bytes]] = {}
        self._at_exit: dict[str, bytes] = {}
        self._line = b""
        self.counts: Final = Counter[str]()

    def add(self, moment: Moment, system: FileSystem) -> None:
        self._at_exit = {}
        self._told(moment.said)
        for key in self._journalled:
            self._journal(key, system)

    def _told(self, said: bytes) -> None:
        *lines, self._line = (self._line + said).split(b"\n")
        for line in lines:
            event = parsed(line)
            kind = event.get("event") if isinstance(event, dict) else None
            key = event.get("key") if kind in ("archived", "repaired", "set_completed") else None
            if key in self._truth.objects:
                self._recorded.add(key)
            elif f"{key}.rdb" in self._truth.objects:  # a standard instance's record proves it
                self._recorded.add(f"{key}.rdb")
            elif isinstance(key, str):
                self._sealed.add(key.removesuffix("/SHA256SUMS"))
            self.counts[str(kind)] += 1

    def _journal(self, key: str, system: FileSystem) -> None:
        """What is durable, and what another line was written behind, was noted."""
        path = f"{ARCHIVE}/{own(STAGING, stem_of(key))}.journal"
        inode = system.lookup(path)
        if inode is None:
            self._journals.pop(key, None)
            return
        now, before = system.content(inode), self._journals.get(key, b"")
        self._journals[key] = now
        noted = system.durable_content(inode)
        if now != before and now.startswith(before) and len(before) > len(noted):
            noted = before
        _, parts = noted_parts(noted, len(self._truth.objects[key]))
        known = self._noted.setdefault(key, {})
        for part, size in parts.items():
            if known.get(part, 0) < size:
                known[part] = size
                self.counts["noted"] += 1

    def exited(self, system: FileSystem) -> None:
        """All that a reader sees is to stay, and what was put aside with it; but descriptions of
        instances: one that a killed run left is not written again, and the next day's pull makes
        it anew if it is lost."""
        self._at_exit = {
            key: data
            for key, data in archive_of(system.visible()).items()
            if not key.startswith((".", DESCRIPTIONS)) or key.startswith(QUARANTINE)
        }

    def broken(self, files: Mapping[str, bytes], facts: Facts) -> Iterator[str]:
        for key in sorted(self._recorded - facts.recorded):
            what = "has no record" if key in facts.right else "is gone"
            yield f"durable: {key} was told, and {what}"
        for key in sorted(self._right - facts.right):
            yield f"durable: {key} was right before"
        for key in sorted(self._sealed - facts.sealed):
            yield f"durable: {key} was told as complete, and SHA256SUMS does not name all of it"
        for key, data in self._at_exit.items():
            if files.get(key) != data:
                yield f"durable: {key} was there at exit"
        for key, parts in self._noted.items():
            if key in facts.right:
                continue
            noted = facts.noted.get(key, {})
            for part, size in parts.items():
                if noted.get(part, 0) < size:
                    yield f"durable: {key}: part {part} was noted, and is not any more"
