"""What can come back from an endpoint, and the error each becomes."""

import traceback
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import anyio
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
    UsageError,
)
from archiver.retry import retry_after_seconds
from archiver.secret import Secret
from archiver.sources.alibaba import rpc
from archiver.sources.alibaba.rpc import Credentials, RpcClient
from tests.conftest import KEY_ID, KEY_SECRET, credentials

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[..., Awaitable[RpcClient]]
NOW = 1_795_478_400.0  # 2026-11-24T00:00:00Z
WHOLE_MINUTE = aiohttp.ClientTimeout(total=60)


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """A client of a server that answers with the given handler."""
    runners: list[web.AppRunner] = []
    async with aiohttp.ClientSession() as session:

        async def start(
            handler: Handler, timeout: aiohttp.ClientTimeout = WHOLE_MINUTE
        ) -> RpcClient:
            app = web.Application()
            app.router.add_route("*", "/{tail:.*}", handler)
            runner = web.AppRunner(app, shutdown_timeout=0.1)
            await runner.setup()
            runners.append(runner)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}"
            return RpcClient(session, endpoint, "2015-01-01", lambda: NOW, timeout=timeout)

        yield start
    for runner in runners:
        await runner.cleanup()


async def ask(client: RpcClient, by: Credentials | None = None) -> dict[str, object]:
    return await client.call(
        "DescribeBackups",
        {"InstanceId": "r-x"},
        by or credentials(),
        subject="the instance r-x",
        resource="acs:r-x",
    )


def answering(status: int, body: str, **headers: str) -> Handler:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=status, text=body, headers=headers)

    return handler


def fault(code: str) -> str:
    return f'{{"Code": "{code}", "Message": "some\\nwords", "RequestId": "R-1", "HostId": "h"}}'


@pytest.mark.parametrize(
    ("code", "status", "kind", "exit_code"),
    [
        ("InvalidInstanceId.NotFound", 400, UnknownInstance, 1),
        ("InvalidPageSize.Malformed", 400, RequestRejected, 2),
        ("SignatureDoesNotMatch", 400, BadCredentials, 4),
        ("InvalidTimeStamp.Expired", 400, ClockSkew, 4),
        ("Forbidden.RAM", 403, PermissionDenied, 4),
        ("Throttling.User", 400, Throttled, 5),
        ("ServiceUnavailable", 503, SourceUnavailable, 5),
    ],
)
async def test_a_code_becomes_its_error(
    serve: Serve, code: str, status: int, kind: type[ArchiverError], exit_code: int
) -> None:
    client = await serve(answering(status, fault(code)))
    with pytest.raises(ArchiverError) as caught:
        await ask(client)
    assert type(caught.value) is kind
    assert caught.value.exit_code == exit_code
    said = str(caught.value)
    assert said.startswith(f"the instance r-x: {code}: some words [DescribeBackups: {status}")
    assert "R-1" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (502, "<html>Bad Gateway</html>", SourceUnavailable),
        (200, "<html>Welcome to the hotel</html>", SourceError),
        (200, "[1]", SourceError),
        (404, "", SourceError),
        (429, "slow down", Throttled),
        (408, "", SourceUnavailable),
        (500, "{}", SourceUnavailable),
        (200, "[" * 100_000, SourceError),
        (400, '{"Code": 5}', SourceError),
    ],
)
async def test_answers_that_are_not_from_the_api(
    serve: Serve, status: int, body: str, kind: type[ArchiverError]
) -> None:
    client = await serve(answering(status, body))
    with pytest.raises(ArchiverError) as caught:
        await ask(client)
    assert type(caught.value) is kind
    assert caught.value.exit_code == 5
    assert "\n" not in str(caught.value)


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
        client = RpcClient(session, "http://someone:hunter2@127.0.0.1:1/x?y", "2015-01-01")
        with pytest.raises(
            SourceUnavailable, match=r"no response from 127\.0\.0\.1:1: connection refused"
        ) as caught:
            await ask(client)
    assert caught.value.hint == "check --region and --endpoint, and the network"
    trace = "".join(traceback.format_exception(caught.value))
    for hidden in (KEY_ID, KEY_SECRET, "Signature", "hunter2"):
        assert hidden not in trace
    # The library's error would hold the request, and with it the signature.
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


async def test_silence_ends_in_time(serve: Serve) -> None:
    async def handler(_: web.Request) -> web.Response:
        await anyio.sleep(30)
        return web.Response()

    client = await serve(handler, timeout=aiohttp.ClientTimeout(total=0.1))
    said = r"it did not answer in time \(check the network\)"  # somebody is there
    with anyio.fail_after(5), pytest.raises(SourceUnavailable, match=said):
        await ask(client)


async def test_a_connection_that_breaks(serve: Serve) -> None:
    async def handler(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    client = await serve(handler)
    with pytest.raises(SourceUnavailable, match="no response"):
        await ask(client)


async def test_cancellation_is_not_translated(serve: Serve) -> None:
    async def handler(_: web.Request) -> web.Response:
        await anyio.sleep(30)
        return web.Response()

    client = await serve(handler)
    with anyio.move_on_after(0.1) as scope:
        await ask(client)
    assert scope.cancelled_caught


@pytest.mark.parametrize(
    "endpoint", ["", "https://", "http://[::1", "host:port", "ftp://host", "file:///x"]
)
async def test_endpoints_that_are_none(endpoint: str) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(UsageError, match="endpoint"):
            RpcClient(session, endpoint, "2015-01-01")


async def test_the_request(serve: Serve) -> None:
    seen: list[web.Request] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request)
        assert await request.read() == b""
        return web.json_response({"RequestId": "R-1"})

    client = await serve(handler)
    assert await ask(client) == {"RequestId": "R-1"}
    await ask(client)
    first, second = seen
    assert (first.method, first.path_qs) == ("POST", "/?InstanceId=r-x")
    assert first.headers["x-acs-action"] == "DescribeBackups"
    assert first.headers["x-acs-version"] == "2015-01-01"
    assert first.headers["x-acs-date"] == "2026-11-24T00:00:00Z"
    assert len({request.headers["x-acs-signature-nonce"] for request in seen}) == 2
    assert second.headers["Authorization"] != first.headers["Authorization"]


async def test_unsigned(serve: Serve) -> None:
    seen: list[web.Request] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request)
        return web.json_response({})

    client = await serve(handler)
    await client.call("A", {"OIDCToken": Secret("j w+t")}, None, subject="s", resource="r")
    assert "Authorization" not in seen[0].headers
    assert seen[0].query["OIDCToken"] == "j w+t"


async def test_an_error_that_quotes_the_request_is_cleaned(serve: Serve) -> None:
    async def handler(request: web.Request) -> web.Response:
        quoted = f"{request.raw_path} {dict(request.query)} {dict(request.headers)}"
        body = {"Code": "SignatureDoesNotMatch", "Message": f"we got {quoted}"}
        return web.json_response(body, status=400)

    client = await serve(handler)
    by = Credentials(Secret("STS.hunter2"), Secret("hunter2-s"), Secret("hunter2/t=="))
    with pytest.raises(BadCredentials, match="we got") as caught:
        await client.call("A", {"P": Secret("hunter2/p+")}, by, subject="s", resource="r")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("broken", ["a\nb", "a\rb", "a\0b"])
async def test_a_key_with_a_control_character(serve: Serve, broken: str) -> None:
    client = await serve(answering(200, "{}"))
    for by in (
        Credentials(Secret(broken), Secret("s"), origin="my file"),
        Credentials(Secret("a"), Secret("s"), Secret(broken), origin="my file"),
    ):
        with pytest.raises(BadCredentials, match=r"\(my file\) contains a control") as caught:
            await ask(client, by)
        assert broken not in str(caught.value)


async def test_an_endless_answer_is_cut(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "MAX_RESPONSE_BYTES", 10_000)
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
    assert retry_after_seconds(headers, lambda: NOW) == seconds


async def test_the_wait_reaches_the_error(serve: Serve) -> None:
    client = await serve(answering(400, fault("Throttling.User"), **{"x-acs-retry-after": "250"}))
    with pytest.raises(Throttled) as caught:
        await ask(client)
    assert caught.value.retry_after == 0.25
