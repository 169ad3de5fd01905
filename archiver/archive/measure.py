"""Reading one object from its first byte to its last, in one reused block."""

import copy
import time
from collections.abc import Callable, Generator
from typing import Final

from fastcrc import crc64

from archiver.concurrency import in_thread, in_thread_shielded
from archiver.model import Measured
from archiver.rdb.meter import FileMeter
from archiver.stores.base import Store

BLOCK_BYTES: Final = 2**20
# Read between two looks at the event loop, and the longest that Ctrl-C waits: a tenth of a second's
# work of a quick disk, and of a slow one as much as comes in two tenths.
_STRIDE_BYTES = 64 * 2**20
_STRIDE_SECONDS = 0.2


def new_block() -> memoryview:
    """What one worker reads into, file after file."""
    return memoryview(bytearray(BLOCK_BYTES))


async def measure(
    store: Store,
    key: str,
    expected: int,
    block: memoryview,
    advanced: Callable[[int], None],
    *,
    is_log: bool,
) -> Measured:
    """Read the whole object at ``key``; ``expected`` is its recorded size in bytes, ``is_log``
    whether its record says that it is a log of commands.

    ``advanced`` is called with the number of bytes that came, now and then. A cancellation waits
    for the stride that is being read. Raises ObjectMissing, StoreError.
    """
    reading = _reading(store, key, expected, block, is_log=is_log)
    position = 0
    try:
        while not isinstance(step := await in_thread(next, reading), Measured):
            advanced(step - position)
            position = step
    except BaseException:
        await in_thread_shielded(reading.close)
        raise
    return step


def _reading(
    store: Store, key: str, expected: int, block: memoryview, *, is_log: bool
) -> Generator[int | Measured, None, None]:
    """Yields the position after each stride, and what was measured at the end."""
    beginning = None
    crc = position = reported = 0
    begun = time.monotonic()
    with store.open(key) as opened:
        meter = FileMeter(opened.size)
        while True:
            wanted = len(block) if position >= expected else min(len(block), expected - position)
            size = opened.read(position, block[:wanted])
            if size == 0:
                break
            piece = block[:size]
            crc = int(crc64.xz(piece, crc))
            meter.feed(piece)
            position += size
            if position == expected < opened.size:
                beginning = copy.copy(meter).sha256()
            is_long = time.monotonic() - begun >= _STRIDE_SECONDS
            if position - reported >= _STRIDE_BYTES or is_long:
                reported = position
                yield position
                begun = time.monotonic()
    yield position
    kind, rdb = meter.verdict(is_log=is_log)
    yield Measured(position, meter.sha256(), crc, kind, rdb, beginning)
