"""An object's bytes on their way out, with the faults that happen to bodies."""

import asyncio

from aiofiles.threadpool.binary import AsyncBufferedReader
from aiohttp import web

from archiver.emulator.faults import Fate
from archiver.emulator.tally import Tally

_BLOCK = 256 * 1024


async def send_body(
    response: web.StreamResponse,
    file: AsyncBufferedReader,
    start: int,
    stop: int,
    fate: Fate,
    tally: Tally,
) -> bool:
    """Write bytes ``start`` to ``stop``; whether all went out. If not, cut the connection."""
    rate, length = fate.faults.rate, stop - start
    flip = None if fate.flip is None else start + int(fate.flip * length)
    end = stop if fate.cut is None else start + int(fate.cut * length)
    # A slow body comes in small steps, so that it drips as a slow network does.
    block = _BLOCK if rate is None else max(1, min(_BLOCK, rate // 10))
    clock = asyncio.get_running_loop().time
    began, position = clock(), start
    await file.seek(start)
    while position < end:
        data = bytearray(await file.read(min(block, end - position)))
        if not data:
            return False  # the file shrank: the length that was promised will not come
        if flip is not None and position <= flip < position + len(data):
            data[flip - position] ^= 0x01
        position += len(data)
        if rate is not None:
            # Due by the clock, not one pause after another: pauses are never exact.
            await asyncio.sleep(began + (position - start) / rate - clock())
        await response.write(data)
        tally.object_bytes += len(data)
    return end == stop
