"""``GET /bucket/key``: from a request to an object's answer."""

import contextlib
import email.utils
import os
import secrets
from collections.abc import Callable
from typing import Final

import aiofiles
from aiofiles.threadpool.binary import AsyncBufferedReader
from aiohttp import web
from anyio import to_thread

from archiver.emulator.backup import FileStamp
from archiver.emulator.body import send_body
from archiver.emulator.catalogue import Catalogue
from archiver.emulator.digests import Digests, ObjectMeta
from archiver.emulator.faults import Dice, Fate
from archiver.emulator.gateway import Key, decode_query
from archiver.emulator.oss import (
    OssError,
    check_url,
    no_such_key,
    precondition,
    satisfiable,
)
from archiver.emulator.tally import Tally
from archiver.emulator.wire import headers_of

# A file that is another one each time we look is being written: none of it is worth serving.
_MOST_LOOKS = 5


class Objects:
    """Serves the files of a catalogue as objects."""

    def __init__(
        self, catalogue: Catalogue, key: Key, clock: Callable[[], float], tally: Tally
    ) -> None:
        self._catalogue: Final = catalogue
        self._key: Final = key
        self._clock: Final = clock
        self._tally: Final = tally
        self._digests: Final = Digests()

    async def answer(self, request: web.Request, dice: Dice) -> web.StreamResponse:
        """The object, or that it did not change; written as it is read. Raises OssError."""
        resource = request.path
        # In this query a plus is a plus: the signature is base64, and may come unencoded.
        query = decode_query(request.rel_url.raw_query_string.replace("+", "%2B"))
        check_url(self._key, request.method, resource, query, headers_of(request), self._clock())
        path = await to_thread.run_sync(self._catalogue.find, resource)
        if path is None:
            raise no_such_key()
        # The file's name, not its key: a key may hold the time at which a file was written.
        fate = dice.fate(f"{path.parent.name}/{path.name} {request.headers.get('Range')}")
        if fate.server_error:
            raise OssError(503, "ServiceUnavailable", "Please try again later.", "0010-00000002")
        try:
            for _ in range(_MOST_LOOKS):
                meta = await self._digests.of(path)
                async with aiofiles.open(path, "rb") as file:
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
            whole = await send_body(response, file, start, stop, fate, self._tally)
            if not whole and request.transport is not None:
                request.transport.close()  # not abort: what was written before the cut arrives
        return response


def _headers(meta: ObjectMeta) -> dict[str, str]:
    return {
        **server_headers(),
        "Accept-Ranges": "bytes",
        "ETag": meta.etag,
        "Last-Modified": email.utils.formatdate(meta.modified, usegmt=True),
        "x-oss-hash-crc64ecma": str(meta.crc64),  # the whole object's, on a part of it, too
        "x-oss-object-type": "Normal",
        "x-oss-storage-class": "Standard",
    }


def server_headers() -> dict[str, str]:
    """What every answer of the object store has."""
    return {"Server": "AliyunOSS", "x-oss-request-id": secrets.token_hex(12).upper()}
