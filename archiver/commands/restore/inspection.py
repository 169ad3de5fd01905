"""Inspects a restored file in a thread, with progress and cancellation."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Final

from archiver.concurrency import in_cancellable_thread
from archiver.rdb import Inspection, Readable, inspect
from archiver.stores.local import disk


async def inspect_file(
    path: Path, *, is_log: bool, progress: Callable[[int], None] = lambda _: None
) -> Inspection:
    """Run :func:`archiver.rdb.inspect` on a file; a cancellation ends it at once.

    ``progress`` is called on the event loop with the number of bytes so far. Raises StoreError.
    """
    loop = asyncio.get_running_loop()

    def report(position: int) -> None:
        loop.call_soon_threadsafe(progress, position)

    return await in_cancellable_thread(lambda stop: _inspect(path, stop, report, is_log=is_log))


class _StoppableFile:
    """Reports the position, and pretends to end as soon as ``stop`` is set."""

    def __init__(self, file: Readable, stop: Event, report: Callable[[int], None]) -> None:
        self._file: Final = file
        self._stop: Final = stop
        self._report: Final = report
        self._position = 0

    def readinto(self, buffer: memoryview, /) -> int | None:
        # The inspection was cancelled then, so nobody sees the verdict on the cut file.
        count = 0 if self._stop.is_set() else self._file.readinto(buffer)
        self._position += count or 0
        self._report(self._position)
        return count


def _inspect(path: Path, stop: Event, report: Callable[[int], None], *, is_log: bool) -> Inspection:
    with disk.store_errors(path), path.open("rb", buffering=0) as file:
        return inspect(_StoppableFile(file, stop, report), is_log=is_log)
