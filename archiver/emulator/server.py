"""One port for both: the API at ``/``, objects at ``/bucket/key``."""

import asyncio
import os
import ssl
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Self

from aiohttp import web
from aiohttp.typedefs import Handler
from anyio import to_thread

from archiver.emulator.api import Api, Hosts
from archiver.emulator.catalogue import Catalogue
from archiver.emulator.faults import Dice, Fate, Faults
from archiver.emulator.gateway import ApiError, Authenticator, Key
from archiver.emulator.objects import Objects, server_headers
from archiver.emulator.oss import OssError
from archiver.emulator.tally import Tally
from archiver.emulator.wire import rpc_request
from archiver.errors import UsageError
from archiver.secret import Secret

_DOCUMENTATION = "https://api.aliyun.com/troubleshoot"


class Emulator:
    """Serves ``directory`` while in its context; see :mod:`archiver.emulator.catalogue`.

    The access key is the only one let in; with ``security_token``, requests must carry it, too.
    ``port`` 0 takes a free one. ``public_host`` and ``intranet_host`` are the ``host:port`` of the
    download URLs, by default the emulator's own. ``retention_days`` is how long the vendor keeps
    a backup. ``clock`` gives epoch seconds. With ``tls`` it speaks https alone. ``faults`` may be
    replaced while it serves.

    Entering raises UsageError for a directory that is none or holds no instance, a backups.json
    that cannot be read, a port that is taken or not ours to take.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        access_key_id: str,
        access_key_secret: str,
        security_token: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        public_host: str | None = None,
        intranet_host: str | None = None,
        retention_days: int = 7,
        faults: Faults | None = None,
        clock: Callable[[], float] = time.time,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        token = None if security_token is None else Secret(security_token)
        self._directory: Final = Path(directory)
        self._key: Final = Key(access_key_id, Secret(access_key_secret), token)
        self._host: Final = host
        self._asked_port: Final = port
        self._public_host: Final = public_host
        self._intranet_host: Final = intranet_host
        self._retention: Final = timedelta(days=retention_days)
        self._clock: Final = clock
        self._tls: Final = tls
        self._scheme: Final = "http" if tls is None else "https"
        self._dice = Dice(faults or Faults())
        self._authenticator: Final = Authenticator(self._key, clock)
        self._under_way: Final[set[asyncio.Task[Any]]] = set()
        self.tally: Final = Tally()
        self.port = 0

    @property
    def endpoint(self) -> str:
        return f"{self._scheme}://{self._own_host()}"

    @property
    def faults(self) -> Faults:
        return self._dice.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._dice = Dice(faults)

    async def __aenter__(self) -> Self:
        catalogue = await to_thread.run_sync(Catalogue, self._directory, self._retention)
        app = web.Application(client_max_size=2**20, middlewares=[self._watched])
        app.router.add_route("*", "/", self._serve_api)
        app.router.add_route("*", "/{resource:.+}", self._serve_object)
        self._objects = Objects(catalogue, self._key, self._clock, self.tally)
        # A body that drips must not keep the emulator from ending.
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        try:
            await self._listen()
        except BaseException:
            await self._runner.cleanup()
            raise
        own = self._own_host()
        hosts = Hosts(self._public_host or own, self._intranet_host or own, self._scheme)
        self._api = Api(catalogue, self._key, hosts, self._clock)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
        # The runner forgets those whose client has left, and waits for nobody: files may be open.
        for task in self._under_way:
            if not task.cancelling():  # twice, and it would not even close its file
                task.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way)

    @web.middleware
    async def _watched(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        task = asyncio.current_task()
        if task is not None:
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        try:
            return await handler(request)
        except ConnectionResetError:  # the client left before it was answered
            return web.Response()

    def _own_host(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{host}:{self.port}"

    async def _listen(self) -> None:
        try:
            await web.TCPSite(
                self._runner, self._host, self._asked_port, ssl_context=self._tls
            ).start()
        except (OSError, OverflowError) as error:
            why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error
            raise UsageError(f"cannot listen on {self._host}:{self._asked_port}: {why}") from None
        self.port = int(self._runner.addresses[0][1])

    async def _serve_api(self, request: web.Request) -> web.Response:
        self.tally.api_calls += 1
        dice = self._dice
        await asyncio.sleep(dice.faults.latency)
        try:
            decoded = await rpc_request(request)
            self._authenticator.check(decoded)
            _fail(dice.fate(decoded.action or ""))
            self.tally.calls_by_action[decoded.action or ""] += 1
            answer = await to_thread.run_sync(self._api.answer, decoded, dice.faults.expire_after)
        except ApiError as error:
            self.tally.refused[error.code] += 1
            return self._api_error(error)
        return web.json_response(answer)

    def _api_error(self, error: ApiError) -> web.Response:
        page = {
            "RequestId": str(uuid.uuid4()).upper(),
            "HostId": self._own_host(),
            "Code": error.code,
            "Message": error.message,
            "Recommend": f"{_DOCUMENTATION}?q={error.code}&product=R-kvstore",
        }
        return web.json_response(page, status=error.status)

    async def _serve_object(self, request: web.Request) -> web.StreamResponse:
        self.tally.object_requests += 1
        dice = self._dice
        await asyncio.sleep(dice.faults.latency)
        try:
            return await self._objects.answer(request, dice)
        except OssError as error:
            self.tally.refused[error.code] += 1
            headers = server_headers()
            return web.Response(
                status=error.status,
                text=error.xml(headers["x-oss-request-id"], request.host),
                content_type="application/xml",
                headers=headers,
            )


def _fail(fate: Fate) -> None:
    if fate.throttled:
        raise ApiError(400, "Throttling.User", "Request was denied due to user flow control.")
    if fate.server_error:
        raise ApiError(503, "ServiceUnavailable", "The request has failed due to a fault.")
