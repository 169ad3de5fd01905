"""The parts of one file, and how far each of them is."""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final

import anyio
from anycrc import Model

from archiver.model import Part
from archiver.stores.base import Resumable

# What a kill may cost for each connection; and what a store without files holds in memory.
DEFAULT_PART_SIZE = 8 * 2**20
MAX_PARTS = 10_000  # the limit of a multipart upload

_CRC64_XZ = Model("CRC64-XZ")


def plan_parts(size: int, part_size: int) -> tuple[Part, ...]:
    """Equal parts that cover ``size`` bytes once, in order; an empty file has one empty part."""
    if size == 0:
        return (Part(0, 0, 0),)
    return tuple(
        Part(index, start, min(start + part_size, size))
        for index, start in enumerate(range(0, size, part_size))
    )


def fitting_part_size(size: int, wanted: int) -> int:
    """``wanted`` bytes, doubled until a file of ``size`` has at most MAX_PARTS parts."""
    while -(-size // wanted) > MAX_PARTS:
        wanted *= 2
    return wanted


def fold_crc64(parts: Iterable[tuple[int, int]]) -> int:
    """The CRC-64/XZ of a whole from (CRC-64/XZ, size) of each part, in order."""
    whole = 0
    for crc, size in parts:
        whole = _CRC64_XZ.combine(whole, crc, size)
    return whole


class FileParts:
    """Keeps the state of a file's parts: queued, staged, measured, kept for a later run."""

    def __init__(self, size: int, part_size: int) -> None:
        self._size: Final = size
        # The CRC-64/XZ of each staged part, by its index.
        self.crcs: Final[dict[int, int]] = {}
        # Bytes of each part that a later run can resume from, by the part's index.
        self._kept: Final[dict[int, int]] = {}
        # Of parts that an earlier run staged in part: (bytes, their CRC-64/XZ).
        self._begun: Final[dict[int, tuple[int, int]]] = {}
        self.plan(part_size)

    def plan(self, part_size: int) -> None:
        """Cut the file into parts of ``part_size`` bytes and queue them all."""
        self.part_size = part_size
        self.all = plan_parts(self._size, part_size)
        self.queue = deque(self.all)
        self._staged = [anyio.Event() for _ in self.all]
        self._measured = [anyio.Event() for _ in self.all]

    def resume(self, resumable: Resumable) -> Mapping[int, int]:
        """Take over what an earlier run staged; returns its bytes by part index."""
        self.plan(resumable.part_size)
        self.crcs.update(resumable.crcs)
        self._begun.update(resumable.partial)
        self.queue = deque(part for part in self.all if part.index not in self.crcs)
        for index in self.crcs:
            self._kept[index] = self.all[index].size
            self._staged[index].set()
        for index, (size, _) in self._begun.items():
            self._kept[index] = size
        return self._kept

    def take_begun(self, part: Part) -> tuple[int, int]:
        """Bytes of a part that an earlier run staged, and their CRC-64/XZ; once for each part."""
        return self._begun.pop(part.index, (0, 0))

    def mark_staged(self, part: Part, crc: int) -> None:
        """Note that all bytes of a part are staged; ``crc`` is their CRC-64/XZ."""
        self.crcs[part.index] = crc
        self._staged[part.index].set()

    def mark_measured(self, part: Part) -> None:
        """Note that the file was measured up to the end of this part."""
        self._measured[part.index].set()

    def mark_kept(self, part: Part, size: int) -> None:
        """Note that a later run finds the first ``size`` bytes of a part. A file of one part has
        no journal: nothing of it is kept."""
        if len(self.all) > 1:
            self._kept[part.index] = max(size, self._kept.get(part.index, 0))

    async def until_staged(self, part: Part) -> None:
        """Wait for :meth:`mark_staged`."""
        await self._staged[part.index].wait()

    async def until_measured(self, part: Part) -> None:
        """Wait for :meth:`mark_measured`."""
        await self._measured[part.index].wait()

    @property
    def kept_bytes(self) -> int:
        """How many bytes a later run need not download again."""
        return sum(self._kept.values())

    def crc64(self) -> int:
        """The CRC-64/XZ of the whole file."""
        return fold_crc64((self.crcs[part.index], part.size) for part in self.all)
