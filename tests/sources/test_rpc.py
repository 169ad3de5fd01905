"""What can come back from an endpoint, and the error each becomes."""

import traceback
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web

from archiver.errors import (
    AccessError,
    ArchiverError,
    BadCredentials,
    ClockSkew,
    PermissionDenied,
    RequestRejected,
    SourceError,
    SourceUnavailable,
    Throttled,
    UnknownInstance,
)
from archiver.secret import Secret
from archiver.sources import rpc
from archiver.sources.rpc import Credentials, RpcClient
from archiver.wait import wait_asked
from tests.conftest import KEY_ID, KEY_SECRET, credentials

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[Handler], Awaitable[RpcClient]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """A client of a server that answers with the given handler."""
    runners: list[web.AppRunner] = []
    async with aiohttp.ClientSession() as session:

        async def start(handler: Handler) -> RpcClient:
            app = web.Application()
            app.router.add_route("*", "/{tail:.*}", handler)
            runner = web.AppRunner(app, shutdown_timeout=0.1)
            await runner.setup()
            runners.append(runner)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            return RpcClient(session, f"http://127.0.0.1:{runner.addresses[0][1]}", "2015-01-01")

        yield start
    for runner in runners:
        await runner.cleanup()


async def ask(client: RpcClient, by: Credentials | None = None) -> dict[str, object]:
    return await client.call(
        "DescribeBackups", {"InstanceId": "r-x"}, by or credentials(), resource="the instance r-x"
    )


def answering(status: int, body: str, **headers: str) -> Handler:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=status, text=body, headers=headers)

    return handler


def fault(code: str) -> str:
    return f'{{"Code": "{code}", "Message": "some\\nwords", "RequestId": "R-1", "HostId": "h"}}'


@pytest.mark.parametrize(
    ("code", "status", "kind", "hint"),
    [
        ("InvalidStartTime.Malformed", 400, RequestRejected, "2026-11-01T00:00Z"),
        ("InvalidEndTime.Malformed", 400, RequestRejected, "2026-11-02T00:00Z"),
        ("InvalidStartTimeAndEndTime.Malformed", 400, RequestRejected, "later than its start"),
        ("InvalidEngineVersion.Malformed", 400, RequestRejected, "engine version"),
        ("InvalidPageSize.Malformed", 400, RequestRejected, "30, 50, 100, 200 and 300"),
        ("InvalidInstanceId.NotFound", 400, UnknownInstance, "--region"),
        ("MissingParameter.StartTime", 400, RequestRejected, "parameter"),
        ("InvalidTimeStamp.Expired", 400, ClockSkew, "clock"),
        ("SignatureNonceUsed", 400, SourceUnavailable, ""),
        ("SignatureDoesNotMatch", 400, BadCredentials, "secret"),
        ("SignatureDoesNotMatch", 403, BadCredentials, "secret"),
        ("InvalidAccessKeyId.NotFound", 404, BadCredentials, "access key"),
        ("InvalidAccessKeyId.NotFound", 400, BadCredentials, "access key"),
        ("InvalidSecurityToken.Expired", 400, BadCredentials, "token"),
        ("Forbidden.RAM", 403, PermissionDenied, "kvstore:DescribeBackups on the instance r-x"),
        ("NoPermission", 403, PermissionDenied, "kvstore:DescribeBackups on the instance r-x"),
        ("Throttling", 400, Throttled, "later"),
        ("Throttling.User", 400, Throttled, "later"),
        ("Throttling.Api", 400, Throttled, "later"),
        ("ServiceUnavailable", 503, SourceUnavailable, ""),
        ("InternalError", 500, SourceUnavailable, ""),
        ("SomethingNew", 400, RequestRejected, ""),
        ("SomethingNew", 500, SourceUnavailable, ""),
        ("SomethingNew", 429, Throttled, ""),
    ],
)
async def test_every_code_has_its_error(
    serve: Serve, code: str, status: int, kind: type[ArchiverError], hint: str
) -> None:
    client = await serve(answering(status, fault(code)))
    with pytest.raises(ArchiverError) as caught:
        await ask(client)
    assert type(caught.value) is kind
    assert code in str(caught.value)
    assert hint in (caught.value.hint or "")
    assert "\n" not in str(caught.value)
    assert "R-1" in str(caught.value)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (502, "<html>Bad Gateway</html>", SourceUnavailable),
        (200, "<html>Welcome to the hotel</html>", SourceError),
        (200, "[1]", SourceError),
        (404, "", SourceError),
        (429, "slow down", SourceUnavailable),
    ],
)
async def test_answers_that_are_no_api(
    serve: Serve, status: int, body: str, kind: type[ArchiverError]
) -> None:
    client = await serve(answering(status, body))
    with pytest.raises(ArchiverError) as caught:
        await ask(client)
    assert type(caught.value) is kind


async def test_a_redirect_is_not_followed(serve: Serve) -> None:
    asked = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=302, headers={"Location": "/elsewhere"})

    client = await serve(handler)
    with pytest.raises(SourceError):
        await ask(client)
    assert asked == ["/"]


async def test_nobody_there_says_where_and_leaks_nothing() -> None:
    async with aiohttp.ClientSession() as session:
        client = RpcClient(session, "http://127.0.0.1:1", "2015-01-01")
        with pytest.raises(SourceUnavailable, match=r"127\.0\.0\.1:1") as caught:
            await ask(client)
    trace = "".join(traceback.format_exception(caught.value))
    assert KEY_ID not in trace
    assert KEY_SECRET not in trace
    assert "Signature" not in trace


async def test_an_endless_answer_is_cut(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "MOST_ANSWER_BYTES", 10_000)
    client = await serve(answering(200, "x" * 20_000))
    with pytest.raises(SourceError, match="larger"):
        await ask(client)


async def test_a_token_is_sent_and_signed(serve: Serve) -> None:
    seen: dict[str, str] = {}

    async def handler(request: web.Request) -> web.Response:
        seen.update({name.lower(): value for name, value in request.headers.items()})
        return web.json_response({})

    client = await serve(handler)
    await ask(client, Credentials(Secret(KEY_ID), Secret(KEY_SECRET), Secret("token")))
    assert seen["x-acs-security-token"] == "token"
    assert "x-acs-security-token" in seen["authorization"]


async def test_the_denied_action_is_the_vendors_word(serve: Serve) -> None:
    detail = '{"AuthAction": "kvstore:X"}'
    body = f'{{"Code": "Forbidden.RAM", "Message": "m", "AccessDeniedDetail": {detail}}}'
    client = await serve(answering(403, body))
    with pytest.raises(AccessError, match="grant the RAM action kvstore:X"):
        await ask(client)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "Tue, 24 Nov 2026 00:00:10 GMT"}, 10),
        ({"Retry-After": "Mon, 23 Nov 2026 00:00:00 GMT"}, 0),
        ({"Retry-After": "soon"}, None),
        ({"x-acs-retry-after": "1500"}, 1.5),
        ({"x-acs-retry-after": "inf"}, None),
    ],
)
def test_the_wait_that_is_asked_for(headers: dict[str, str], seconds: float | None) -> None:
    now = 1795478400.0  # 2026-11-24T00:00:00Z
    assert wait_asked(headers, lambda: now) == seconds


async def test_the_wait_reaches_the_error(serve: Serve) -> None:
    client = await serve(answering(400, fault("Throttling.User"), **{"x-acs-retry-after": "250"}))
    with pytest.raises(Throttled) as caught:
        await ask(client)
    assert caught.value.retry_after == 0.25
