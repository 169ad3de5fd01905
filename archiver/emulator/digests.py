"""MD5 and CRC-64 of whole files, measured once for as long as a file does not change."""

import asyncio
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from anyio import to_thread
from fastcrc import crc64

from archiver.emulator.backup import FileStamp

_HASH_BLOCK = 2**20


@dataclass(frozen=True, slots=True)
class ObjectMeta:
    """``etag`` with its quotes, ``crc64`` as CRC-64/XZ, ``modified`` in epoch seconds."""

    stamp: FileStamp
    etag: str
    crc64: int

    @property
    def size(self) -> int:
        return self.stamp.size

    @property
    def modified(self) -> float:
        return self.stamp.modified_ns / 1e9


class Digests:
    """Measures in a thread when an object is first asked for."""

    def __init__(self) -> None:
        self._known: Final[dict[Path, ObjectMeta]] = {}
        self._locks: Final[dict[Path, asyncio.Lock]] = {}

    async def of(self, path: Path) -> ObjectMeta:
        """Raises FileNotFoundError."""
        # Many ranges of a file are asked for at once: one reads it, the others wait.
        async with self._locks.setdefault(path, asyncio.Lock()):
            known = self._known.get(path)
            self._known[path] = meta = await to_thread.run_sync(_current, path, known)
            return meta


def _current(path: Path, known: ObjectMeta | None) -> ObjectMeta:
    if known is not None and FileStamp.of(path.stat()) == known.stamp:
        return known
    return _measured(path)


def _measured(path: Path) -> ObjectMeta:
    md5, crc = hashlib.md5(usedforsecurity=False), 0
    with path.open("rb") as file:
        stamp = FileStamp.of(os.fstat(file.fileno()))
        while block := file.read(_HASH_BLOCK):
            md5.update(block)
            crc = crc64.xz(block, crc)
    return ObjectMeta(stamp, f'"{md5.hexdigest().upper()}"', crc)
