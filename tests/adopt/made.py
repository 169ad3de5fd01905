"""Dumps with a time of their own, and a place whose files somebody else writes to."""

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from anycrc import Model

from archiver import LocalStore
from archiver.stores.base import OpenedObject
from examples.sample_rdb import rdb

_CRC = Model("CRC64-REDIS")
NOW = datetime.now(UTC)
LOG = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n" * 100


def dump(size: int, seed: int = 0, *, ctime: datetime | None = None) -> bytes:
    """A dump; with ``ctime`` it says when it was made, in some bytes more."""
    data = rdb(size, seed)
    if ctime is None:
        return data
    seconds = int(ctime.timestamp()).to_bytes(4, "little")
    body = data[:9] + b"\xfa\x05ctime\xc2" + seconds + data[9:-8]
    checksum: int = _CRC.calc(body)
    return body + checksum.to_bytes(8, "little")


def put(path: Path, data: bytes, *, age: timedelta = timedelta(hours=2)) -> bytes:
    """Write a file that was last changed so long ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    at = int((datetime.now(UTC) - age).timestamp() * 1000) * 10**6
    os.utime(path, ns=(at, at))
    return data


def seen(root: Path) -> dict[str, tuple[bytes, int]]:
    """All files below a folder, with their times."""
    return {
        path.relative_to(root).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file()
    }


class Disturbed(LocalStore):
    """A directory in which ``act`` happens to the file ``key``: once, before the read from
    ``offset`` on (None: before it is opened)."""

    def __init__(
        self, root: Path, key: str, act: Callable[[Path], object], offset: int | None
    ) -> None:
        super().__init__(root)
        self._place = root
        self._key = key
        self._act: Callable[[Path], object] | None = act
        self._offset = offset

    def disturb(self, key: str, offset: int | None) -> None:
        if self._act is not None and key == self._key and offset == self._offset:
            act, self._act = self._act, None
            act(self._place / key)

    @contextmanager
    def open(self, key: str) -> Generator[OpenedObject, None, None]:
        self.disturb(key, None)
        with super().open(key) as opened:
            yield _Disturbed(self, key, opened)


class _Disturbed:
    def __init__(self, store: Disturbed, key: str, opened: OpenedObject) -> None:
        self.size = opened.size
        self._store = store
        self._key = key
        self._opened = opened

    @property
    def version(self) -> str:
        return self._opened.version

    def read(self, offset: int, block: memoryview) -> int:
        self._store.disturb(self._key, offset)
        return self._opened.read(offset, block)
