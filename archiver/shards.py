"""Divides instances among machines that do not know of each other. Pure."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from archiver.errors import NoSuchBackup, UsageError

_SHARD: Final = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")


class EmptyShard(NoSuchBackup):
    """No instance is in this shard, though others have some: nothing is wrong."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One of ``count`` shards, counted from 0. Each instance is in exactly one of them.

    The shard of an instance is the SHA-256 of its ID, read as a big-endian number, modulo
    ``count``. That never changes, because runs of different versions may share an archive.
    """

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """From ``0/3``. Raises UsageError."""
        match = _SHARD.fullmatch(text)
        if match is None:
            raise UsageError(f"invalid shard {text!r} (use 0/3, 1/3 and 2/3 for three shards)")
        index, count = int(match[1]), int(match[2])
        if count == 0:
            raise UsageError(f"there is no shard {text} (use 0/3, 1/3 and 2/3 for three shards)")
        if index >= count:
            raise UsageError(
                f"there is no shard {text}: the last of {count} is {count - 1}/{count}"
            )
        return cls(index, count)

    @property
    def is_all(self) -> bool:
        """Whether it is the only shard, so that nothing is divided."""
        return self.count == 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def owns(self, instance_id: str) -> bool:
        # A folder in an archive can have a name that is not valid UTF-8.
        digest = hashlib.sha256(instance_id.encode(errors="surrogateescape")).digest()
        return int.from_bytes(digest, "big") % self.count == self.index

    def own(self, instances: Iterable[str]) -> tuple[str, ...]:
        """Those of these instances that are in this shard, each once, in the same order."""
        return tuple(one for one in dict.fromkeys(instances) if self.owns(one))

    def empty(self, where: str) -> str:
        """The line that says that nothing is to be done; ``where`` the instances were looked for,
        e.g. ``among those requested``."""
        return f"shard {self} has no instance {where}: nothing to do"


# What is not divided.
UNDIVIDED: Final = Shard(0, 1)
