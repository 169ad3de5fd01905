"""Connections that are kept, and small objects that are asked for ahead over them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from itertools import count

import pytest

from archiver.errors import SourceUnavailable
from archiver.secret import SignedUrl
from archiver.transfer.http.burst import ReadObject
from archiver.transfer.http.client import HttpFetcher, open_fetcher
from archiver.transfer.http.connection import HttpConnection
from archiver.transfer.limits import MinimumRate
from tests.transfer.test_client import answer

DATA = bytes(range(256)) * 4
# A body that passes for an answer to the next request, where nobody has read it.
FORGED = answer("200 OK", bytes(len(DATA)))

Serve = Callable[..., Awaitable[tuple[SignedUrl, "Served"]]]


class Served:
    """The answers in turn, whatever is asked, and the number of each request's connection."""

    def __init__(self, answers: tuple[bytes, ...]) -> None:
        self.connections: list[int] = []
        self._answers = iter(answers)
        self._numbers = count()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = next(self._numbers)
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.connections.append(number)
                head, _, body = next(self._answers).partition(b"\r\n\r\n")
                writer.write(head + b"\r\n\r\n")
                await asyncio.sleep(0.1)  # so that the head comes alone
                writer.write(body)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    talks: set[asyncio.Task[None]] = set()
    async with AsyncExitStack() as stack:

        async def start(*answers: bytes) -> tuple[SignedUrl, Served]:
            served = Served(answers)

            async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                talks.add(asyncio.current_task())  # type: ignore[arg-type]
                await served.talk(reader, writer)

            server = await asyncio.start_server(talk, "127.0.0.1", 0)
            await stack.enter_async_context(server)
            port = server.sockets[0].getsockname()[1]
            return SignedUrl.parse(f"http://127.0.0.1:{port}/b/k?Signature=s"), served

        yield start
        for task in talks:
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)


@pytest.fixture
async def fetcher() -> AsyncIterator[HttpFetcher]:
    async with open_fetcher(2, MinimumRate(1000, 5.0)) as fetcher:
        yield fetcher


async def burst(fetcher: HttpFetcher, url: SignedUrl, times: int = 1) -> list[bytes | str]:
    """What each read of a burst gave, or why it failed."""

    def work(reads: Iterator[ReadObject]) -> list[bytes | str]:
        found: list[bytes | str] = []
        for read in reads:
            block = memoryview(bytearray(len(DATA)))
            try:
                read(block, 5.0)
                found.append(bytes(block))
            except SourceUnavailable as error:
                found.append(str(error))
        return found

    return await fetcher.burst([url] * times, 60.0, work)


async def whole(fetcher: HttpFetcher, url: SignedUrl) -> bytes:
    data, block = bytearray(), memoryview(bytearray(len(DATA)))
    async with fetcher.open(url, 0, len(DATA), None) as body:
        while size := await body.readinto(block):
            data += block[:size]
    return bytes(data)


async def test_a_burst_and_what_follows_it_share_a_connection(
    serve: Serve, fetcher: HttpFetcher
) -> None:
    url, served = await serve(*[answer("200 OK", DATA)] * 3)
    assert await burst(fetcher, url) == [DATA]
    assert await burst(fetcher, url) == [DATA]
    assert await whole(fetcher, url) == DATA
    assert served.connections == [0, 0, 0]


@pytest.mark.parametrize("body", [DATA[:-1], DATA + b"x", b""], ids=["short", "long", "empty"])
async def test_an_answer_of_another_length(serve: Serve, fetcher: HttpFetcher, body: bytes) -> None:
    url, served = await serve(answer("200 OK", body), answer("200 OK", DATA))
    [why] = await burst(fetcher, url)
    assert "another length" in str(why)
    assert await burst(fetcher, url) == [DATA]
    assert served.connections == [0, 1]


async def test_a_body_that_a_burst_left_unread(serve: Serve, fetcher: HttpFetcher) -> None:
    url, served = await serve(answer("503 Busy", FORGED), *[answer("200 OK", DATA)] * 2)
    [why] = await burst(fetcher, url)
    assert "503" in str(why)
    assert await burst(fetcher, url) == [DATA]
    assert served.connections == [0, 1]


async def test_a_body_that_was_left_unread(
    serve: Serve, fetcher: HttpFetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the rest of it comes so late that nothing is to be seen of it yet."""
    monkeypatch.setattr(HttpConnection, "is_reusable", property(lambda self: self.is_connected))
    first = answer("200 OK", DATA[:10] + FORGED)
    url, served = await serve(first, *[answer("200 OK", DATA)] * 2)
    async with fetcher.open(url, 0, 10, None) as body:
        assert await body.readinto(memoryview(bytearray(10))) == 10
    assert await whole(fetcher, url) == DATA
    assert served.connections == [0, 1]


@pytest.mark.parametrize(("connection", "asked"), [("keep-alive", [0, 0]), ("close", [0, 1])])
async def test_an_empty_object(
    serve: Serve, fetcher: HttpFetcher, connection: str, asked: list[int]
) -> None:
    url, served = await serve(*[answer("200 OK", b"", Connection=connection)] * 2)
    for _ in range(2):
        async with fetcher.open(url, 0, 0, None) as body:
            assert await body.readinto(memoryview(bytearray(1))) == 0
    assert served.connections == asked
