"""Reading a file that was laid out, for what it holds."""

from pathlib import Path
from threading import Event
from typing import Final

from archiver.rdb import Inspection, Readable, inspect
from archiver.stores import disk
from archiver.threads import until_cancelled


async def inspect_file(path: Path, *, is_log: bool) -> Inspection:
    """As :func:`archiver.rdb.inspect`; ends at once when it is cancelled. Raises StoreError."""
    return await until_cancelled(lambda stop: _inspect(path, stop, is_log=is_log))


class _Stoppable:
    """A file to read that ends at once when it is told to."""

    def __init__(self, file: Readable, stop: Event) -> None:
        self._file: Final = file
        self._stop: Final = stop

    def readinto(self, buffer: memoryview, /) -> int | None:
        # Nobody will see what a file cut like this is found to be: the reading was cancelled.
        return 0 if self._stop.is_set() else self._file.readinto(buffer)


def _inspect(path: Path, stop: Event, *, is_log: bool) -> Inspection:
    with disk.store_errors(path), path.open("rb", buffering=0) as file:
        return inspect(_Stoppable(file, stop), is_log=is_log)
