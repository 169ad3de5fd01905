"""Measures a file while it is downloaded, front to back.

Data that arrives in order passes the meter on its way to the store. Data that does not, and what
an earlier run staged, is read back from the store, and must have the CRC-64 that it arrived with.
"""

from collections.abc import Awaitable, Callable
from copy import copy
from typing import Final

from fastcrc import crc64

from archiver.concurrency import in_thread
from archiver.errors import ObjectChanged, StoreError
from archiver.model import Part
from archiver.rdb.meter import FileMeter
from archiver.retry import RETRIES
from archiver.stores.base import Staging
from archiver.transfer.origin import Origin
from archiver.transfer.parts import FileParts
from archiver.transfer.resources import BufferPool


class Measuring:
    """The meter of one file; ``refetch`` downloads a part again that reads back wrong."""

    def __init__(
        self,
        origin: Origin,
        staging: Staging,
        parts: FileParts,
        buffers: BufferPool,
        refetch: Callable[[Part], Awaitable[object]],
    ) -> None:
        self._origin: Final = origin
        self._staging: Final = staging
        self._parts: Final = parts
        self._buffers: Final = buffers
        self._refetch: Final = refetch
        self.restart()

    def restart(self) -> None:
        """Measure from the first byte again."""
        self.meter = FileMeter(self._origin.size, portable=not self._staging.can_read_back)

    def resume(self, state: str) -> None:
        """Continue from the state of an earlier run. Raises ObjectChanged, after which the
        download starts over, for an invalid state."""
        try:
            self.meter = FileMeter.resume(self._origin.size, state)
        except ValueError as error:
            raise ObjectChanged(f"{self._origin.backup}: {error}") from None

    def meter_for(self, part: Part, staged: int) -> FileMeter | None:
        """A copy of the meter for a part of which ``staged`` bytes are here, if that part is the
        next to be measured and begins from its first byte; else None."""
        in_order = staged == 0 and self.meter.position == part.start
        return copy(self.meter) if in_order else None

    async def advance(self, part: Part, meter: FileMeter) -> None:
        """Continue from ``meter``, which has measured the file up to the end of ``part``."""
        self.meter = meter
        if not self._staging.can_read_back:
            await in_thread(self._staging.save_hash_state, part, meter.state())

    async def measure_all(self) -> None:
        """Wait for the parts in order and read back those that did not pass the meter."""
        for part in self._parts.all:
            await self._parts.until_staged(part)
            if self.meter.position == part.start and part.size > 0:
                await self.advance(part, await self._read_back(part, self.meter))
            self._parts.mark_measured(part)

    async def _read_back(self, part: Part, before: FileMeter) -> FileMeter:
        """The meter after ``part``, once the part reads back as it was downloaded.

        Raises StoreError when it does not, after it was downloaded again and again.
        """
        for _ in range(RETRIES.part_reads_back_wrong.attempts):
            meter = copy(before)
            async with self._buffers.lend() as buffer:
                crc = await in_thread(self._feed, part, meter, buffer)
            if self._parts.crcs[part.index] == crc:
                return meter
            await self._refetch(part)
            if self.meter.position == part.stop:
                return self.meter
        raise StoreError(
            f"{self._origin.backup}: bytes {part.start}-{part.stop - 1} read back differently than "
            "they were written",
            hint="check the disk before you trust it",
        )

    def _feed(self, part: Part, meter: FileMeter, buffer: memoryview) -> int:
        """Read one part from the store into the meter, in a worker thread; its CRC-64/XZ."""
        crc, position = 0, part.start
        while position < part.stop:
            size = self._staging.read(position, buffer[: part.stop - position])
            if size == 0:
                break  # shorter than noted: the CRC will differ
            crc = int(crc64.xz(buffer[:size], crc))
            meter.feed(buffer[:size])
            position += size
        return crc
