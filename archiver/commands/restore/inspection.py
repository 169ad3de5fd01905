"""Reading a file that was laid out, for what it holds."""

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
    """As :func:`archiver.rdb.inspect`; ends at once when it is cancelled. ``progress`` is told the
    bytes so far, by the event loop. Raises StoreError."""
    loop = asyncio.get_running_loop()

    def tell(position: int) -> None:
        loop.call_soon_threadsafe(progress, position)

    return await in_cancellable_thread(lambda stop: _inspect(path, stop, tell, is_log=is_log))


class _Stoppable:
    """A file to read that tells how far it was read, and ends at once when it is told to."""

    def __init__(self, file: Readable, stop: Event, tell: Callable[[int], None]) -> None:
        self._file: Final = file
        self._stop: Final = stop
        self._tell: Final = tell
        self._position = 0

    def readinto(self, buffer: memoryview, /) -> int | None:
        # Nobody will see what a file cut like this is found to be: the reading was cancelled.
        count = 0 if self._stop.is_set() else self._file.readinto(buffer)
        self._position += count or 0
        self._tell(self._position)
        return count


def _inspect(path: Path, stop: Event, tell: Callable[[int], None], *, is_log: bool) -> Inspection:
    with disk.store_errors(path), path.open("rb", buffering=0) as file:
        return inspect(_Stoppable(file, stop, tell), is_log=is_log)
