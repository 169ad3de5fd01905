"""``GET /bucket/key``: serves the files of a catalogue as objects."""

import asyncio
import contextlib
import email.utils
import hashlib
import os
import secrets
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiofiles
from aiofiles.threadpool.binary import AsyncBufferedReader
from aiohttp import web
from anyio import to_thread
from fastcrc import crc64

from archiver.emulator.backup import FileStamp
from archiver.emulator.catalogue import Catalogue
from archiver.emulator.faults import Dice, Fate
from archiver.emulator.gateway import Key, decode_query, headers_of
from archiver.emulator.oss import OssError, check_url, no_such_key, precondition, satisfiable
from archiver.errors import UsageError

# A file that has changed at each of so many looks is being written, and is not served.
_MAX_LOOKS = 5
_HASH_BLOCK_BYTES = 2**20
_BODY_BLOCK_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class ObjectMeta:
    """``etag`` has its quotes, ``crc64`` is CRC-64/XZ, ``modified`` is in epoch seconds, ``size``
    in bytes."""

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
    """MD5 and CRC-64 of whole files, computed at first use and cached until a file changes."""

    def __init__(self) -> None:
        self._known: Final[dict[Path, ObjectMeta]] = {}
        self._locks: Final[dict[Path, asyncio.Lock]] = {}

    async def of(self, path: Path) -> ObjectMeta:
        """Raises FileNotFoundError."""
        # Clients request many ranges of a file at once: one request reads it, the others wait.
        async with self._locks.setdefault(path, asyncio.Lock()):
            known = self._known.get(path)
            self._known[path] = meta = await to_thread.run_sync(_current_meta, path, known)
            return meta


class Objects:
    """Serves the files of a catalogue as objects. ``count_bytes`` is called with the number of
    bytes of each piece of a body that is sent."""

    def __init__(
        self,
        catalogue: Catalogue,
        key: Key,
        clock: Callable[[], float],
        count_bytes: Callable[[int], None],
    ) -> None:
        self._catalogue: Final = catalogue
        self._key: Final = key
        self._clock: Final = clock
        self._count_bytes: Final = count_bytes
        self._digests: Final = Digests()

    async def respond(self, request: web.Request, dice: Dice) -> web.StreamResponse:
        """Send the object, or 304. Raises OssError."""
        resource = request.path
        # A plus in this query means itself: signatures are base64, and may come unencoded.
        query = decode_query(request.rel_url.raw_query_string.replace("+", "%2B"))
        check_url(self._key, request.method, resource, query, headers_of(request), self._clock())
        try:
            path = await to_thread.run_sync(self._catalogue.find, resource)
        except UsageError as error:  # a file was broken while the emulator is running
            raise OssError(400, "InvalidEmulatorFile", error.message, "0000-00000000") from None
        if path is None:
            raise no_such_key()
        # By file name, not by key: a key may contain the time at which a file was written.
        fate = dice.fate(f"{path.parent.name}/{path.name} {request.headers.get('Range')}")
        if fate.server_error:
            raise OssError(503, "ServiceUnavailable", "Please try again later.", "0010-00000002")
        try:
            for _ in range(_MAX_LOOKS):
                meta = await self._digests.of(path)
                async with _opened(path) as file:
                    if FileStamp.of(os.fstat(file.fileno())) == meta.stamp:
                        return await self._send(request, file, meta, fate)
        except FileNotFoundError:
            raise no_such_key() from None
        raise OssError(503, "ServiceUnavailable", "The object is changing.", "0010-00000002")

    async def _send(
        self, request: web.Request, file: AsyncBufferedReader, meta: ObjectMeta, fate: Fate
    ) -> web.StreamResponse:
        headers = headers_of(request)
        status = precondition(headers, meta.etag)
        if status == 412:
            raise OssError(
                412, "PreconditionFailed", "At least one condition did not hold.", "0021-00000001"
            )
        if status == 304:
            return web.Response(status=304, headers=_headers(meta))
        span = satisfiable(headers.get("range"), meta.size)
        start, stop = span or (0, meta.size)
        response = web.StreamResponse(status=206 if span else 200, headers=_headers(meta))
        response.content_type = "application/octet-stream"
        response.content_length = stop - start
        if span:
            response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{meta.size}"
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):  # the client left
            is_whole = await self._send_body(response, file, start, stop, fate)
            if not is_whole and request.transport is not None:
                request.transport.close()  # not abort: what was written before still arrives
        return response

    async def _send_body(
        self,
        response: web.StreamResponse,
        file: AsyncBufferedReader,
        start: int,
        stop: int,
        fate: Fate,
    ) -> bool:
        """Write the bytes ``start`` to ``stop``, with the faults of this request; False when the
        connection must be closed before the end."""
        rate, length = fate.faults.rate, stop - start
        flip = None if fate.flip is None else start + int(fate.flip * length)
        end = stop if fate.cut is None else start + int(fate.cut * length)
        # A slow body is sent in small steps, as in a slow network.
        block = _BODY_BLOCK_BYTES if rate is None else max(1, min(_BODY_BLOCK_BYTES, rate // 10))
        clock = asyncio.get_running_loop().time
        started, position = clock(), start
        await file.seek(start)
        while position < end:
            data = bytearray(await file.read(min(block, end - position)))
            if not data:
                return False  # the file became shorter than the announced length
            if flip is not None and position <= flip < position + len(data):
                data[flip - position] ^= 0x01
            position += len(data)
            if rate is not None:
                # Until the time when it is due: pauses are inexact, and would add up.
                await asyncio.sleep(started + (position - start) / rate - clock())
            await response.write(data)
            self._count_bytes(len(data))
        return end == stop


async def _open(path: Path) -> AsyncBufferedReader:
    return await aiofiles.open(path, "rb")


@contextlib.asynccontextmanager
async def _opened(path: Path) -> AsyncGenerator[AsyncBufferedReader, None]:
    """A file for reading. It is closed also where the client goes away while it is opened."""
    opening = asyncio.ensure_future(_open(path))
    try:
        file = await asyncio.shield(opening)
    except asyncio.CancelledError:
        with contextlib.suppress(OSError):
            await (await opening).close()
        raise
    try:
        yield file
    finally:
        await file.close()


def _current_meta(path: Path, known: ObjectMeta | None) -> ObjectMeta:
    if known is not None and FileStamp.of(path.stat()) == known.stamp:
        return known
    return _compute_meta(path)


def _compute_meta(path: Path) -> ObjectMeta:
    md5, crc = hashlib.md5(usedforsecurity=False), 0
    with path.open("rb") as file:
        stamp = FileStamp.of(os.fstat(file.fileno()))
        while block := file.read(_HASH_BLOCK_BYTES):
            md5.update(block)
            crc = crc64.xz(block, crc)
    return ObjectMeta(stamp, f'"{md5.hexdigest().upper()}"', crc)


def _headers(meta: ObjectMeta) -> dict[str, str]:
    return {
        **server_headers(),
        "Accept-Ranges": "bytes",
        "ETag": meta.etag,
        "Last-Modified": email.utils.formatdate(meta.modified, usegmt=True),
        "x-oss-hash-crc64ecma": str(meta.crc64),  # of the whole object, for a range as well
        "x-oss-object-type": "Normal",
        "x-oss-storage-class": "Standard",
    }


def server_headers() -> dict[str, str]:
    """The headers of every response of the object store."""
    return {"Server": "AliyunOSS", "x-oss-request-id": secrets.token_hex(12).upper()}
