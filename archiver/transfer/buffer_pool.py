"""The one budget of memory: blocks that are lent out, reused, and never more than agreed."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import anyio

BLOCK_BYTES = 2**20


class Blocks:
    """Lends blocks of ``size`` bytes, as many as fit in ``budget`` bytes, at least one.

    Whoever holds a block has a connection at work, or a burst of small requests, so this bounds
    those, too.
    """

    def __init__(self, budget: int, size: int = BLOCK_BYTES) -> None:
        self._size: Final = size
        self._free: Final[list[bytearray]] = []
        self._room: Final = anyio.Semaphore(max(1, budget // size))

    @asynccontextmanager
    async def lend(self) -> AsyncGenerator[memoryview, None]:
        """One block, awaited for when all are out."""
        async with self._room:
            # Reused, since fresh memory costs a page fault for every 4 KiB.
            block = self._free.pop() if self._free else bytearray(self._size)
            try:
                yield memoryview(block)
            finally:
                self._free.append(block)
