"""The metadata service of ECS, and a URI that gives credentials."""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import anyio
import pytest
from aiohttp import web

from archiver.errors import (
    ArchiverError,
    BadCredentials,
    NoCredentials,
    SourceUnavailable,
    UsageError,
)
from archiver.sources.alibaba.credentials import default_chain
from archiver.sources.alibaba.rpc import Credentials
from tests.sources.test_credentials_services import STS, TEMPORARY, Ask, Vendor, asking, revealed


@pytest.fixture
async def vendor() -> AsyncIterator[Vendor]:
    async with Vendor().serving() as vendor:
        yield vendor


@pytest.fixture
async def ask(vendor: Vendor, tmp_path: Path) -> AsyncIterator[Ask]:
    async with asking(vendor, tmp_path) as ask:
        yield ask


async def test_the_role_of_the_ecs_instance(ask: Ask, vendor: Vendor) -> None:
    assert revealed(await ask()) == STS
    assert [params["role"] for _, params in vendor.asked] == ["", "the-role"]
    vendor.asked.clear()
    assert revealed(await ask(ALIBABA_CLOUD_ECS_METADATA="the-role")) == STS
    assert [params["role"] for _, params in vendor.asked] == ["the-role"]


async def test_an_ecs_instance_without_the_role_that_is_named(ask: Ask) -> None:
    with pytest.raises(
        NoCredentials, match="RAM role of this ECS instance: responded with status 404"
    ):
        await ask(ALIBABA_CLOUD_ECS_METADATA="another-role")
    with pytest.raises(NoCredentials, match="not a valid role name"):
        await ask(ALIBABA_CLOUD_ECS_METADATA="../../user-data")


@pytest.mark.parametrize("status", [500, 429])
async def test_a_metadata_service_that_fails_is_not_passed_over(
    ask: Ask, vendor: Vendor, status: int
) -> None:
    vendor.metadata_status = status
    with pytest.raises(SourceUnavailable, match=f"ECS instance: responded with status {status}"):
        await ask()


async def test_nobody_at_the_metadata_address(tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as session:

        async def ask(**environ: str) -> Credentials:
            nobody = "http://127.0.0.1:1"
            return await default_chain(session, environ, tmp_path, metadata_url=nobody).get()

        with pytest.raises(NoCredentials, match="no access key found in"):
            await ask()
        with pytest.raises(SourceUnavailable, match="no connection"):
            await ask(ALIBABA_CLOUD_ECS_METADATA="named")


async def test_the_metadata_service_can_be_switched_off(ask: Ask, vendor: Vendor) -> None:
    with pytest.raises(NoCredentials):
        await ask(ALIBABA_CLOUD_ECS_METADATA_DISABLED="TRUE", ALIBABA_CLOUD_ECS_METADATA="the-role")
    assert vendor.asked == []


async def test_a_credentials_uri(ask: Ask, vendor: Vendor) -> None:
    given = {"ALIBABA_CLOUD_CREDENTIALS_URI": f"{vendor.endpoint}/uri"}
    assert revealed(await ask(**given)) == STS
    # Set by somebody, so asked before the metadata service, which is only guessed at.
    assert vendor.asked_for() == ["uri"]


async def test_a_line_break_at_the_end_is_not_part_of_a_key(ask: Ask, vendor: Vendor) -> None:
    vendor.keys |= {name: f"{value}\n" for name, value in TEMPORARY.items() if name != "Expiration"}
    assert revealed(await ask()) == STS


@pytest.mark.parametrize(
    "keys",
    [
        {"Code": "Failed"},
        {"AccessKeyId": None},
        {"AccessKeySecret": ""},
        {"SecurityToken": None},
        {"Expiration": "soon"},
        {"Expiration": None},
        {"AccessKeyId": "two\nlines"},
    ],
)
async def test_answers_that_are_not_a_key(
    ask: Ask, vendor: Vendor, keys: dict[str, str | None]
) -> None:
    vendor.keys |= keys
    with pytest.raises(BadCredentials, match=r"^ALIBABA_CLOUD_CREDENTIALS_URI: ") as caught:
        await ask(ALIBABA_CLOUD_CREDENTIALS_URI=f"{vendor.endpoint}/uri")
    assert "\n" not in str(caught.value)


async def test_a_key_that_has_expired(ask: Ask, vendor: Vendor) -> None:
    vendor.keys["Expiration"] = "2026-11-24T00:00:00Z"
    with pytest.raises(BadCredentials, match="expired at 2026-11-24T00:00:00Z"):
        await ask()


@pytest.mark.parametrize("uri", ["file:///etc/passwd", "127.0.0.1/uri", "http://", "http://[::1"])
async def test_uris_that_are_none(ask: Ask, uri: str) -> None:
    with pytest.raises(UsageError, match="not an http or https URL"):
        await ask(ALIBABA_CLOUD_CREDENTIALS_URI=uri)


async def raw(answer: list[bytes], ask: Ask) -> Credentials:
    """What comes of an answer sent in pieces."""

    async def handle(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            for piece in answer:
                await stream.send(piece)
                await anyio.sleep(0.05)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, handle)
        try:
            return await ask(ALIBABA_CLOUD_CREDENTIALS_URI=f"http://127.0.0.1:{port}/hunter2")
        except ArchiverError as error:
            caught = error
        finally:
            group.cancel_scope.cancel()
    raise caught


async def test_an_answer_in_pieces_is_read_whole(ask: Ask) -> None:
    body = web.json_response(TEMPORARY).body
    assert isinstance(body, bytes)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    assert revealed(await raw([head + body[:20], body[20:]], ask)) == STS


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200_000, SourceUnavailable),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", BadCredentials),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n", NoCredentials),
        (b"nonsense\r\n\r\n", SourceUnavailable),
        (b"", SourceUnavailable),
    ],
)
async def test_uris_that_answer_something_else(
    ask: Ask, answer: bytes, kind: type[ArchiverError]
) -> None:
    with pytest.raises(kind, match=r"^ALIBABA_CLOUD_CREDENTIALS_URI: ") as caught:
        await raw([answer], ask)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__context__ is None
