"""What a server may answer to a range, and what becomes of it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from archiver.errors import (
    ArchiverError,
    BackupGone,
    IntegrityError,
    ObjectChanged,
    SourceError,
    SourceUnavailable,
    Stalled,
    Throttled,
    UrlRefused,
)
from archiver.model import Pin
from archiver.secret import SignedUrl
from archiver.transfer.http.client import open_fetcher
from archiver.transfer.http.response import ObjectResponse
from archiver.transfer.limits import MinimumRate

DATA = bytes(range(256)) * 4
Serve = Callable[..., Awaitable[SignedUrl]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """A raw server that reads a request and answers with the given bytes, then hangs up."""
    talks: set[asyncio.Task[None]] = set()
    async with AsyncExitStack() as stack:

        async def start(answer: bytes, linger: float = 0.0) -> SignedUrl:
            async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                talks.add(asyncio.current_task())  # type: ignore[arg-type]
                try:
                    await reader.readuntil(b"\r\n\r\n")
                    writer.write(answer)
                    await writer.drain()
                    await asyncio.sleep(linger)
                finally:
                    writer.close()

            server = await asyncio.start_server(talk, "127.0.0.1", 0)
            await stack.enter_async_context(server)
            port = server.sockets[0].getsockname()[1]
            return SignedUrl.parse(f"http://127.0.0.1:{port}/b/k?Signature=SECRET")

        yield start
        for task in talks:
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)


def answer(status: str, body: bytes = b"", **headers: object) -> bytes:
    named = {"Content-Length": len(body)} | {k.replace("_", "-"): v for k, v in headers.items()}
    lines = [f"{name}: {value}" for name, value in named.items() if value is not None]
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode() + body


async def fetched(
    url: SignedUrl, start: int, stop: int, pin: Pin | None = None, window: float = 5.0
) -> tuple[ObjectResponse, bytes]:
    """What the answer said, and its body, read in blocks of odd sizes."""
    async with (
        open_fetcher(2, MinimumRate(1000, window)) as fetcher,
        fetcher.open(url, start, stop, pin) as body,
    ):
        data, block = bytearray(), memoryview(bytearray(100))
        while size := await body.readinto(block[: 1 + len(data) % 99]):
            data += block[:size]
        return body.response, bytes(data)


async def test_a_range(serve: Serve) -> None:
    url = await serve(
        answer(
            "206 Partial Content",
            DATA[100:200],
            Content_Range=f"bytes 100-199/{len(DATA)}",
            ETag='"E"',
            x_oss_hash_crc64ecma="42",
        )
    )
    seen, data = await fetched(url, 100, 200)
    assert data == DATA[100:200]
    assert seen == ObjectResponse(100, Pin(len(DATA), '"E"', 42), is_whole=False)


async def test_blanks_around_the_fields_of_a_head(serve: Serve) -> None:
    """They are no part of what a field says (RFC 9112 §5)."""
    url = await serve(
        answer(
            "206 Partial Content",
            DATA[100:200],
            Content_Length=" 100 ",
            Content_Range=f"\tbytes 100-199/{len(DATA)} ",
            Content_Encoding="identity\t ",
            ETag='  "E" ',
        )
    )
    seen, data = await fetched(url, 100, 200)
    assert data == DATA[100:200]
    assert seen == ObjectResponse(100, Pin(len(DATA), '"E"', None), is_whole=False)


async def test_the_whole_object_for_a_range(serve: Serve) -> None:
    seen, data = await fetched(await serve(answer("200 OK", DATA)), 100, 200)
    assert (seen.start, seen.is_whole, data) == (0, True, DATA)


OF = f"/{len(DATA)}"


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (
            answer("206 Partial Content", DATA[:100], Content_Range="bytes 0-99" + OF),
            IntegrityError,
        ),
        (
            answer("206 Partial Content", DATA[:50], Content_Range="bytes 100-149" + OF),
            IntegrityError,
        ),
        (
            answer("206 Partial Content", DATA[:99], Content_Range="bytes 100-199" + OF),
            IntegrityError,
        ),
        (answer("206 Partial Content", DATA[:100], Content_Range="lines 1-2/3"), SourceError),
        (answer("206 Partial Content", DATA[:100]), SourceError),
        (answer("200 OK", DATA, Content_Encoding="gzip"), SourceError),
        (answer("200 OK", DATA, Content_Length=None), SourceError),
        (answer("200 OK", b"", Transfer_Encoding="chunked", Content_Length=None), SourceError),
        (answer("200 OK", DATA, x_oss_hash_crc64ecma="many"), SourceError),
        (answer("200 OK", b"<html>", Content_Type="text/html"), SourceUnavailable),
        (answer("301 Moved", b"", Location="http://elsewhere/"), SourceError),
        (answer("403 Forbidden", b"<Error><Code>AccessDenied</Code></Error>"), UrlRefused),
        (answer("404 Not Found", b"<Error><Code>NoSuchKey</Code></Error>"), BackupGone),
        (answer("408 Request Timeout"), SourceUnavailable),
        (answer("412 Precondition Failed"), ObjectChanged),
        (answer("416 Range Not Satisfiable"), SourceError),
        (answer("429 Too Many Requests"), Throttled),
        (answer("500 Internal"), SourceUnavailable),
        (answer("503 Unavailable"), SourceUnavailable),
        (answer("200 OK", DATA, Transfer_Encoding="chunked"), SourceUnavailable),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", SourceUnavailable),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1_0\r\n\r\n", SourceUnavailable),
        (b"HTTP/1.1 200 OK\r\nContent-Length : 9\r\n\r\n", SourceUnavailable),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n", SourceUnavailable),
        (answer("101 Switching Protocols", Connection="upgrade", Upgrade="h2c"), SourceUnavailable),
        (b"", SourceUnavailable),
        (b"SSH-2.0-OpenSSH_9.2\r\n", SourceUnavailable),
        (b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 100_000, SourceUnavailable),
    ],
)
async def test_what_is_refused(serve: Serve, reply: bytes, kind: type[ArchiverError]) -> None:
    with pytest.raises(ArchiverError) as caught:
        await fetched(await serve(reply), 100, 200)
    assert type(caught.value) is kind
    assert "SECRET" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


async def test_the_code_and_the_wait_are_reported(serve: Serve) -> None:
    page = b"<Error><Code>DownloadTrafficRateLimitExceeded</Code><EC>0048-1</EC></Error>"
    url = await serve(answer("503 Unavailable", page, Retry_After="9"))
    with pytest.raises(SourceUnavailable, match=r"503 DownloadTraffic.* 0048-1") as caught:
        await fetched(url, 0, 10)
    assert caught.value.retry_after == 9


async def test_a_body_that_ends_early(serve: Serve) -> None:
    url = await serve(answer("200 OK", DATA[:500], Content_Length=len(DATA)))
    with pytest.raises(SourceUnavailable):
        await fetched(url, 0, len(DATA))


async def test_a_body_that_is_longer_than_it_says(serve: Serve) -> None:
    url = await serve(answer("200 OK", DATA + b"more", Content_Length=len(DATA)))
    try:
        _, data = await fetched(url, 0, len(DATA))
    except SourceUnavailable:
        return  # the client saw what came after the end, and says so
    assert data == DATA


async def test_silence_is_a_stall(serve: Serve) -> None:
    url = await serve(answer("200 OK", DATA[:10], Content_Length=len(DATA)), 30.0)
    with pytest.raises((SourceUnavailable, Stalled)):
        await fetched(url, 0, len(DATA), window=0.2)


@pytest.mark.parametrize(
    "seen",
    [
        {"ETag": '"other"', "Content_Range": f"bytes 0-9/{len(DATA)}"},
        {"ETag": '"E"', "Content_Range": "bytes 0-9/999"},
        {"Content_Range": f"bytes 0-9/{len(DATA)}", "x_oss_hash_crc64ecma": "43"},
    ],
)
async def test_another_object_than_before(serve: Serve, seen: dict[str, str]) -> None:
    url = await serve(answer("206 Partial Content", DATA[:10], **seen))
    with pytest.raises(ObjectChanged):
        await fetched(url, 0, 10, Pin(len(DATA), '"E"', 42))


async def test_only_what_the_signature_allows_is_sent() -> None:
    asked: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer("206 P", DATA[5:9], Content_Range=f"bytes 5-8/{len(DATA)}", ETag='"E"'))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        query = "Expires=1&OSSAccessKeyId=a&Signature=a%2Bb%2F%3D"
        url = SignedUrl.parse(f"http://127.0.0.1:{port}/b/k%20%2B?{query}")
        await fetched(url, 5, 9, Pin(len(DATA), '"E"', None))
    lines = asked[0].decode().split("\r\n")
    assert lines[0] == f"GET /b/k%20%2B?{query} HTTP/1.1"
    names = {line.partition(":")[0].lower() for line in lines[1:] if line}
    assert names == {"host", "accept", "accept-encoding", "user-agent", "range", "if-match"}
    assert "Range: bytes=5-8" in lines
    assert 'If-Match: "E"' in lines
