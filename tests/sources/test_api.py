"""Calls of the API: what is retried, and what each call waits for."""

from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web

from archiver import events
from archiver.errors import BadCredentials, SourceUnavailable, SourceUnreachable, Throttled
from archiver.secret import Secret
from archiver.sources.alibaba.api import VERSION, Api
from archiver.sources.alibaba.quotas import Quotas
from archiver.sources.alibaba.rpc import Credentials, RpcClient
from tests.conftest import QUICK

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Counted(Quotas):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, str]] = []
        self.refused: list[tuple[str, str, float | None]] = []

    async def take(self, region: str, action: str) -> None:
        self.calls.append((region, action))

    def throttled(self, region: str, action: str, seconds: float | None) -> None:
        self.refused.append((region, action, seconds))


class Vendor:
    """Gives the answers in turn, and the last one for ever."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.seen: list[events.Event] = []
        self.requests = 0
        self.quotas = Counted()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        return await (self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])(request)


@pytest.fixture
def vendor() -> Vendor:
    return Vendor()


async def credentials() -> Credentials:
    return Credentials(Secret("a"), Secret("b"))


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def endpoint(vendor: Vendor) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/", vendor.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


def api_at(
    endpoint: str, session: aiohttp.ClientSession, vendor: Vendor, region: str = "cn-beijing"
) -> Api:
    return Api(
        RpcClient(session, endpoint, VERSION),
        credentials,
        region=region,
        quotas=vendor.quotas,
        retry=QUICK,
        observer=vendor.seen.append,
    )


@pytest.fixture
def api(endpoint: str, session: aiohttp.ClientSession, vendor: Vendor) -> Api:
    return api_at(endpoint, session, vendor)


async def good(_: web.Request) -> web.StreamResponse:
    return web.json_response({"RequestId": "r"})


async def throttled(_: web.Request) -> web.StreamResponse:
    headers = {"x-acs-retry-after": "10"}
    return web.json_response({"Code": "Throttling.User"}, status=400, headers=headers)


async def broken(_: web.Request) -> web.StreamResponse:
    return web.json_response({"Code": "InternalError"}, status=500)


async def lost(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def test_each_attempt_is_counted(api: Api, vendor: Vendor) -> None:
    vendor.answers = [throttled, broken, good]
    assert await api.call("Do", {}, subject="it") == {"RequestId": "r"}
    assert vendor.quotas.calls == [("cn-beijing", "Do")] * 3
    assert vendor.quotas.refused == [("cn-beijing", "Do", 0.01)]


async def test_without_a_region_an_endpoint_has_quotas_of_its_own(
    endpoint: str, session: aiohttp.ClientSession, vendor: Vendor
) -> None:
    vendor.answers = [good]
    await api_at(endpoint, session, vendor, region="").call("Do", {}, subject="it")
    assert vendor.quotas.calls == [("127.0.0.1", "Do")]


@pytest.mark.parametrize("instance", ["r-x", None])
async def test_a_retry_tells_what_it_is_about(
    api: Api, vendor: Vendor, instance: str | None
) -> None:
    vendor.answers = [broken, good]
    await api.call("Do", {"InstanceId": instance} if instance else {}, subject="it")
    [retrying] = [event for event in vendor.seen if isinstance(event, events.Retrying)]
    assert (retrying.subject, retrying.instance_id) == ("it", instance)


async def test_a_change_is_made_again_where_it_was_throttled(api: Api, vendor: Vendor) -> None:
    vendor.answers = [throttled, good]
    await api.call("Do", {}, subject="it", changes=True)
    assert vendor.requests == 2


@pytest.mark.parametrize(
    ("answer", "error"), [(broken, SourceUnavailable), (lost, SourceUnreachable)]
)
async def test_a_change_is_not_made_twice(
    api: Api, vendor: Vendor, answer: Answer, error: type[SourceUnavailable]
) -> None:
    vendor.answers = [answer, good]
    with pytest.raises(error, match="it is not known whether Do was carried out"):
        await api.call("Do", {}, subject="it", changes=True)
    assert vendor.requests == 1


async def test_what_changes_nothing_is_asked_again(api: Api, vendor: Vendor) -> None:
    vendor.answers = [lost, broken, good]
    await api.call("Do", {}, subject="it")
    assert vendor.requests == 3


async def test_a_change_at_an_endpoint_that_cannot_be_connected_to(
    session: aiohttp.ClientSession, vendor: Vendor
) -> None:
    api = api_at("http://127.0.0.1:1", session, vendor)
    with pytest.raises(SourceUnreachable, match="check --region and --endpoint, and the network"):
        await api.call("Do", {}, subject="it", changes=True)
    assert len(vendor.quotas.calls) == QUICK.attempts


async def test_a_change_without_credentials_was_not_made(
    endpoint: str, session: aiohttp.ClientSession, vendor: Vendor
) -> None:
    """Those of STS may be had at the second attempt."""
    failures = [SourceUnavailable("STS is busy")]

    async def late() -> Credentials:
        if failures:
            raise failures.pop()
        return await credentials()

    vendor.answers = [good]
    rpc = RpcClient(session, endpoint, VERSION)
    api = Api(rpc, late, region="", quotas=vendor.quotas, retry=QUICK, observer=vendor.seen.append)
    await api.call("Do", {}, subject="it", changes=True)
    assert vendor.requests == 1


async def test_what_no_retry_can_help_is_raised(api: Api, vendor: Vendor) -> None:
    async def refused(_: web.Request) -> web.StreamResponse:
        return web.json_response({"Code": "SignatureDoesNotMatch"}, status=400)

    vendor.answers = [refused]
    with pytest.raises(BadCredentials, match="does not belong"):
        await api.call("Do", {}, subject="it", changes=True)
    assert vendor.requests == 1


async def test_throttled_for_ever(api: Api, vendor: Vendor) -> None:
    vendor.answers = [throttled]
    with pytest.raises(Throttled):
        await api.call("Do", {}, subject="it")
    assert len(vendor.quotas.refused) == QUICK.attempts
