"""Serves both on one port: the API at ``/``, objects at ``/bucket/key``."""

import asyncio
import math
import os
import ssl
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from email.utils import formatdate
from pathlib import Path
from typing import Any, Final, Self

from aiohttp import web
from aiohttp.typedefs import Handler
from anyio import to_thread

from archiver.emulator.api import Api
from archiver.emulator.call import Hosts
from archiver.emulator.catalogue import Catalogue
from archiver.emulator.faults import Dice, Fate, Faults
from archiver.emulator.gateway import ApiError, Authenticator, Key, decode_request
from archiver.emulator.jobs import Jobs
from archiver.emulator.objects import Objects, server_headers
from archiver.emulator.oss import OssError
from archiver.emulator.quotas import Meter, Quota
from archiver.emulator.ram import Policy
from archiver.errors import UsageError
from archiver.secret import Secret

_DOCUMENTATION = "https://api.aliyun.com/troubleshoot"


@dataclass(slots=True)
class Tally:
    """Counters since the start, for tests and rehearsals. Reset them at will.

    api_calls         requests to the API, whatever the response
    calls_by_action   those that were authenticated, by action
    object_requests   requests for objects, whatever the response
    object_bytes      bytes of object bodies passed to the network
    refused           error responses of API and objects, by code
    """

    api_calls: int = 0
    calls_by_action: Counter[str] = field(default_factory=Counter)
    object_requests: int = 0
    object_bytes: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def count_bytes(self, count: int) -> None:
        self.object_bytes += count


class Emulator:
    """Serves ``directory`` while in its context; see :mod:`archiver.emulator.catalogue`.

    Requests must use this access key, with ``security_token`` if it is given, or that of one of the
    ``users``. ``policy`` is what this key may do: everything if there is none. ``port`` 0 picks a
    free one. ``public_host`` and ``intranet_host`` are the ``host:port`` of the download URLs, by
    default the emulator's own. ``retention_days`` is how long the vendor keeps a backup, unless its
    policy says otherwise. A backup on demand takes ``backup_seconds``. ``quotas`` are by (region,
    action), each of which may be ``*``. ``clock`` returns epoch seconds. With ``tls`` it serves
    only https. ``faults`` may be replaced at any time.

    Entering raises UsageError when the directory does not exist or has no instance, a backups.json
    or instances.json cannot be read, or the port cannot be used.
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
        backup_seconds: float = 0.0,
        policy: Policy | None = None,
        users: Sequence[Key] = (),
        quotas: Mapping[tuple[str, str], Quota] | None = None,
        faults: Faults | None = None,
        clock: Callable[[], float] = time.time,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        token = None if security_token is None else Secret(security_token)
        self._directory: Final = Path(directory)
        self._key: Final = Key(access_key_id, Secret(access_key_secret), token, policy)
        self._host: Final = host
        self._requested_port: Final = port
        self._public_host: Final = public_host
        self._intranet_host: Final = intranet_host
        self._retention: Final = timedelta(days=retention_days)
        self._backup_seconds: Final = backup_seconds
        self._meter: Final = Meter(quotas or {}, clock)
        self._clock: Final = clock
        self._tls: Final = tls
        self._scheme: Final = "http" if tls is None else "https"
        self._dice = Dice(faults or Faults())
        self._authenticator: Final = Authenticator((self._key, *users), clock)
        self._running: Final[set[asyncio.Task[Any]]] = set()
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
        app = web.Application(client_max_size=2**20, middlewares=[self._tracked])
        app.router.add_route("*", "/", self._serve_api)
        app.router.add_route("*", "/{resource:.+}", self._serve_object)
        self._objects = Objects(catalogue, self._key, self._clock, self.tally.count_bytes)
        # A slow body must not keep the emulator from ending.
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        try:
            await self._listen()
        except BaseException:
            await self._runner.cleanup()
            raise
        own = self._own_host()
        hosts = Hosts(self._public_host or own, self._intranet_host or own, self._scheme)
        jobs = Jobs(catalogue, self._clock, self._backup_seconds)
        self._api = Api(catalogue, jobs, self._meter, self._key, hosts, own, self._clock)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
        # The runner does not wait for requests whose client has left. They may have files open.
        for task in self._running:
            if not task.cancelling():  # a second one would keep it from closing its file
                task.cancel()
        if self._running:
            await asyncio.wait(self._running)

    @web.middleware
    async def _tracked(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        task = asyncio.current_task()
        if task is not None:
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        try:
            return await handler(request)
        except ConnectionResetError:  # the client left before the response
            return web.Response()

    def _own_host(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{host}:{self.port}"

    async def _listen(self) -> None:
        try:
            await web.TCPSite(
                self._runner, self._host, self._requested_port, ssl_context=self._tls
            ).start()
        except (OSError, OverflowError) as error:
            why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error
            raise UsageError(
                f"cannot listen on {self._host}:{self._requested_port}: {why}"
            ) from None
        self.port = int(self._runner.addresses[0][1])

    async def _serve_api(self, request: web.Request) -> web.Response:
        self.tally.api_calls += 1
        response = await self._respond(request)
        response.headers["Date"] = formatdate(self._clock(), usegmt=True)
        return response

    async def _respond(self, request: web.Request) -> web.Response:
        dice = self._dice
        await asyncio.sleep(dice.faults.latency)
        try:
            decoded = await decode_request(request)
            decoded = self._authenticator.check(decoded)
            _raise_fault(dice.fate(decoded.action or ""))
            self.tally.calls_by_action[decoded.action or ""] += 1
            response = await to_thread.run_sync(
                self._api.respond, decoded, dice.faults.expire_after
            )
        except ApiError as error:
            self.tally.refused[error.code] += 1
            return self._api_error(error)
        return web.json_response(response)

    def _api_error(self, error: ApiError) -> web.Response:
        page = {
            "RequestId": str(uuid.uuid4()).upper(),
            "HostId": self._own_host(),
            "Code": error.code,
            "Message": error.message,
            "Recommend": f"{_DOCUMENTATION}?q={error.code}&product=R-kvstore",
            **error.fields,
        }
        headers = {}
        if error.retry_after is not None:
            headers["x-acs-retry-after"] = str(math.ceil(1000 * error.retry_after))
        return web.json_response(page, status=error.status, headers=headers)

    async def _serve_object(self, request: web.Request) -> web.StreamResponse:
        self.tally.object_requests += 1
        dice = self._dice
        await asyncio.sleep(dice.faults.latency)
        try:
            return await self._objects.respond(request, dice)
        except OssError as error:
            self.tally.refused[error.code] += 1
            headers = server_headers()
            return web.Response(
                status=error.status,
                text=error.xml(headers["x-oss-request-id"], request.host),
                content_type="application/xml",
                headers=headers,
            )


def _raise_fault(fate: Fate) -> None:
    if fate.throttled:
        raise ApiError(400, "Throttling.User", "Request was denied due to user flow control.")
    if fate.server_error:
        raise ApiError(503, "ServiceUnavailable", "The request has failed due to a fault.")
