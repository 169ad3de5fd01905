"""One port for both: the API at ``/``, objects at ``/bucket/key``."""

import asyncio
import contextlib
import email.utils
import hashlib
import secrets
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn, Self
from urllib.parse import unquote

import aiofiles
from aiohttp import web
from anyio import to_thread

from archiver.emulator.api import Api, ApiError, Authenticator, Hosts, Key, Request, decode_query
from archiver.emulator.catalogue import Catalogue
from archiver.emulator.faults import Dice, Faults
from archiver.emulator.oss import (
    Metadata,
    ObjectMeta,
    OssError,
    check_url,
    precondition,
    satisfiable,
)
from archiver.errors import UsageError

_BLOCK = 256 * 1024


@dataclass(slots=True)
class Tally:
    """What was asked for, for tests and rehearsals."""

    api_calls: int = 0
    object_requests: int = 0
    object_bytes: int = 0
    refused: list[str] = field(default_factory=list)


class Emulator:
    """Serves ``directory`` while in its context; see :mod:`archiver.emulator.catalogue`.

    ``port`` 0 takes a free one. ``intranet_host`` is the ``host:port`` of intranet URLs, by
    default the emulator's own. Raises UsageError for a directory without instances, a port that
    is taken.
    """

    def __init__(
        self,
        directory: Path,
        *,
        access_key_id: str,
        access_key_secret: str,
        security_token: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        intranet_host: str | None = None,
        faults: Faults | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._directory: Final = directory
        self._key: Final = Key(access_key_id, access_key_secret, security_token)
        self._host: Final = host
        self._asked_port: Final = port
        self._intranet_host: Final = intranet_host
        self._clock: Final = clock
        self._metadata: Final = Metadata()
        self._dice = Dice(faults or Faults())
        self._runner: web.AppRunner | None = None
        self._authenticator: Final = Authenticator(self._key, clock)
        self.tally: Final = Tally()
        self.port = 0

    @property
    def endpoint(self) -> str:
        return f"http://{self._host}:{self.port}"

    @property
    def faults(self) -> Faults:
        return self._dice.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._dice = Dice(faults)

    async def __aenter__(self) -> Self:
        self._catalogue = await to_thread.run_sync(Catalogue, self._directory)
        app = web.Application(client_max_size=2**20)
        app.router.add_route("*", "/", self._serve_api)
        app.router.add_route("*", "/{bucket}/{key:.+}", self._serve_object)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        self._runner = runner
        site = web.TCPSite(runner, self._host, self._asked_port)
        try:
            await site.start()
        except OSError as error:
            await runner.cleanup()
            raise UsageError(
                f"cannot listen on {self._host}:{self._asked_port}: {error.strerror}"
            ) from None
        self.port = int(runner.addresses[0][1])
        own = f"{self._host}:{self.port}"
        hosts = Hosts(own, self._intranet_host or own)
        self._api = Api(self._catalogue, self._key, hosts, self._clock)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _serve_api(self, request: web.Request) -> web.Response:
        self.tally.api_calls += 1
        await asyncio.sleep(self.faults.latency)
        try:
            decoded = await _decode(request)
            self._authenticator.check(decoded)
            self._fail_at_times()
            answer = await to_thread.run_sync(self._api.answer, decoded, self.faults.expire_after)
        except ApiError as error:
            self.tally.refused.append(error.code)
            return self._api_error(error)
        return web.json_response(answer)

    def _fail_at_times(self) -> None:
        if self._dice.falls(self.faults.throttle):
            raise ApiError(400, "Throttling.User", "Request was denied due to user flow control.")
        if self._dice.falls(self.faults.server_errors):
            raise ApiError(503, "ServiceUnavailable", "The request has failed due to a fault.")

    def _api_error(self, error: ApiError) -> web.Response:
        page = {
            "RequestId": str(uuid.uuid4()).upper(),
            "HostId": f"{self._host}:{self.port}",
            "Code": error.code,
            "Message": error.message,
        }
        return web.json_response(page, status=error.status)

    async def _serve_object(self, request: web.Request) -> web.StreamResponse:
        self.tally.object_requests += 1
        await asyncio.sleep(self.faults.latency)
        try:
            return await self._object(request)
        except OssError as error:
            self.tally.refused.append(error.code)
            request_id = secrets.token_hex(12).upper()
            return web.Response(
                status=error.status,
                text=error.xml(request_id, request.host),
                content_type="application/xml",
                headers={"x-oss-request-id": request_id, "Server": "AliyunOSS"},
            )

    async def _object(self, request: web.Request) -> web.StreamResponse:
        bucket, key = request.match_info["bucket"], request.match_info["key"]
        headers = {name.lower(): value for name, value in request.headers.items()}
        check_url(
            self._key,
            request.method,
            f"/{bucket}/{key}",
            decode_query(request.rel_url.raw_query_string.replace("+", "%2B")),
            headers,
            self._clock(),
        )
        if self._dice.falls(self.faults.server_errors):
            raise OssError(503, "ServiceUnavailable", "Please try again later.", "0010-00000002")
        path = await to_thread.run_sync(self._catalogue.find, bucket, unquote(key))
        if path is None:
            _no_such_key()
        try:
            meta = await to_thread.run_sync(self._metadata.of, path)
        except FileNotFoundError:
            _no_such_key()
        status = precondition(headers, meta)
        if status == 412:
            raise OssError(412, "PreconditionFailed", "If-Match does not hold.", "0021-00000001")
        if status == 304:
            return web.Response(status=304, headers={"ETag": meta.etag})
        return await self._send(request, path, meta, satisfiable(headers.get("range"), meta.size))

    async def _send(
        self, request: web.Request, path: Path, meta: ObjectMeta, span: tuple[int, int] | None
    ) -> web.StreamResponse:
        start, stop = span or (0, meta.size)
        response = web.StreamResponse(status=206 if span else 200)
        response.content_type = "application/octet-stream"
        response.content_length = stop - start
        response.headers.update(
            {
                "Accept-Ranges": "bytes",
                "ETag": meta.etag,
                "Last-Modified": email.utils.formatdate(meta.modified, usegmt=True),
                "Server": "AliyunOSS",
                "x-oss-hash-crc64ecma": str(meta.crc64),
                "x-oss-object-type": "Normal",
                "x-oss-request-id": secrets.token_hex(12).upper(),
            }
        )
        if span:
            response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{meta.size}"
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):  # the client left
            await self._send_body(request, response, path, start, stop)
        return response

    async def _send_body(
        self,
        request: web.Request,
        response: web.StreamResponse,
        path: Path,
        start: int,
        stop: int,
    ) -> None:
        faults, dice = self.faults, self._dice
        flip = start + dice.somewhere(stop - start) if dice.falls(faults.corrupt) else None
        cut = start + dice.somewhere(stop - start) if dice.falls(faults.drop) else None
        # A slow body comes in small steps, so that it drips as a slow network does.
        block = _BLOCK if faults.rate is None else max(1, min(_BLOCK, faults.rate // 10))
        async with aiofiles.open(path, "rb") as file:
            await file.seek(start)
            position = start
            while position < stop:
                data = bytearray(await file.read(min(block, stop - position)))
                if not data:
                    return  # the file shrank meanwhile: the length promised will not come
                if flip is not None and position <= flip < position + len(data):
                    data[flip - position] ^= 0x01
                if cut is not None and position + len(data) > cut:
                    await response.write(data[: cut - position])
                    if request.transport is not None:
                        request.transport.abort()
                    return
                await response.write(data)
                position += len(data)
                self.tally.object_bytes += len(data)
                if faults.rate is not None:
                    await asyncio.sleep(len(data) / faults.rate)


async def _decode(request: web.Request) -> Request:
    body = await request.read()
    params = decode_query(request.rel_url.raw_query_string)
    if request.content_type == "application/x-www-form-urlencoded":
        params |= decode_query(body.decode("utf-8", "replace"))
    return Request(
        method=request.method,
        params=params,
        headers={name.lower(): value for name, value in request.headers.items()},
        body_sha256=hashlib.sha256(body).hexdigest(),
    )


def _no_such_key() -> NoReturn:
    raise OssError(404, "NoSuchKey", "The specified key does not exist.", "0026-00000001")
