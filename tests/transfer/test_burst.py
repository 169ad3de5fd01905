"""Small objects asked for ahead of their turns: what one meets is its own affair."""

import asyncio
import gzip
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import anyio
import pytest

from archiver.errors import ArchiverError, SourceError, SourceUnavailable
from archiver.proxies import Proxies
from archiver.secret import SignedUrl
from archiver.transfer.http import burst as burst_module
from archiver.transfer.http.burst import Burst, ReadObject
from archiver.transfer.http.client import open_fetcher
from archiver.transfer.http.connection import Endpoint, HttpConnection
from archiver.transfer.http.pool import ConnectionPool
from archiver.transfer.limits import MinimumRate
from tests.transfer.scripted import Reply, Scripted, Talk, answer, body

AHEAD = 16
# Far more than any of this takes, and less than what it takes to give up on silence.
SOON = 8.0


@pytest.fixture
def server() -> Iterator[Scripted]:
    with Scripted().serving() as server:
        yield server


@pytest.fixture
def pool() -> Iterator[ConnectionPool]:
    with closing(ConnectionPool(MinimumRate(), Proxies())) as pool:
        yield pool


def endpoint(server: Scripted) -> Endpoint:
    return Endpoint("http", "127.0.0.1", server.port)


def kept(pool: ConnectionPool, server: Scripted) -> list[HttpConnection]:
    """Those that wait for a next request, taken out and closed."""
    found = []
    while (connection := pool.take_idle(endpoint(server))) is not None:
        found.append(connection)
        connection.close()
    return found


def one(read: ReadObject, size: int, seconds: float = 10.0) -> bytes | ArchiverError:
    block = bytearray(size)
    try:
        read(memoryview(block), seconds)
    except ArchiverError as error:
        return error
    return bytes(block)


def all_of(
    burst: Burst, sizes: list[int], seconds: float = 10.0
) -> Iterator[bytes | ArchiverError]:
    with closing(burst.reads()) as reads:
        for read, size in zip(reads, sizes, strict=True):
            yield one(read, size, seconds)


def fetched(pool: ConnectionPool, server: Scripted, *numbers: int) -> list[bytes | ArchiverError]:
    burst = Burst(pool, [server.url(number) for number in numbers])
    return list(all_of(burst, [len(body(number)) for number in numbers]))


def honest(*numbers: int) -> list[bytes]:
    return [body(number) for number in numbers]


@pytest.mark.parametrize("quick", [True, False])
def test_sixteen_are_asked_ahead_where_they_come_quickly(
    server: Scripted, pool: ConnectionPool, monkeypatch: pytest.MonkeyPatch, quick: bool
) -> None:
    """On a slow line, one after the other, once that is seen; how slow an answer's head is does
    not count."""
    monkeypatch.setattr(burst_module, "_FAST_BODY_SECONDS", 60.0 if quick else -1.0)
    count, results = 40, []
    burst = Burst(pool, server.urls(count), is_slow=not quick)
    with closing(burst.reads()) as reads:
        for number, read in enumerate(reads):
            asked = min(number + (AHEAD if quick else 1), count)
            assert server.until_asked(asked)
            assert len(server.asked) == asked
            results.append(one(read, len(body(number))))
    assert results == honest(*range(count))
    assert server.connections == (AHEAD if quick else 1)
    assert sorted(number for _, number in server.asked) == list(range(count))
    assert burst.is_slow is not quick


def test_answers_that_take_their_time_are_asked_for_ahead(
    server: Scripted, pool: ConnectionPool
) -> None:
    def late(talk: Talk) -> None:
        time.sleep(0.4)
        talk.peer.sendall(talk.honest)

    for number in range(3):
        server.replies[number] = [late]
    burst = Burst(pool, server.urls(3))
    assert list(all_of(burst, [len(body(number)) for number in range(3)])) == honest(0, 1, 2)
    assert not burst.is_slow


def test_silence_is_waited_for_once(
    server: Scripted, pool: ConnectionPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that were asked meanwhile are read, and no others are asked for."""
    monkeypatch.setattr(burst_module, "_HEAD_SECONDS", 0.5)
    ended = threading.Event()

    def silent(_: Talk) -> None:
        ended.wait(30)

    for number in range(0, AHEAD, 2):
        server.replies[number] = [silent]
    began = time.monotonic()
    with closing(Burst(pool, server.urls(40)).reads()) as reads:
        results = [one(read, len(body(number))) for number, read in enumerate(reads)]
    ended.set()
    assert time.monotonic() - began < SOON
    assert len(results) == AHEAD
    assert [number for number, one in enumerate(results) if isinstance(one, bytes)] == [
        *range(1, AHEAD, 2)
    ]


def test_no_more_connections_than_may_be(server: Scripted, pool: ConnectionPool) -> None:
    with closing(Burst(pool, server.urls(10), max_ahead=1).reads()) as reads:
        results = [one(read, len(body(number))) for number, read in enumerate(reads)]
    assert results == honest(*range(10))
    assert server.connections == 1


def test_none_is_asked_when_time_is_up_but_all_that_were_are_read(
    server: Scripted, pool: ConnectionPool
) -> None:
    def late(talk: Talk) -> None:
        time.sleep(0.4)
        talk.peer.sendall(talk.honest)

    server.replies[0] = [late]
    with closing(Burst(pool, server.urls(40), seconds=0.3).reads()) as reads:
        results = [one(read, len(body(number))) for number, read in enumerate(reads)]
    assert results == honest(*range(AHEAD))
    assert len(server.asked) == AHEAD


def test_slow_dialling_does_not_hold_up_the_first(
    server: Scripted, pool: ConnectionPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where there is no time at all, one is asked for."""
    connect = HttpConnection.connect

    def connects(connection: HttpConnection) -> None:
        time.sleep(0.1)
        connect(connection)

    monkeypatch.setattr(HttpConnection, "connect", connects)
    for seconds, most in ((0.0, 1), (0.15, 2)):
        with closing(Burst(pool, server.urls(40), seconds=seconds).reads()) as reads:
            results = [one(read, len(body(number))) for number, read in enumerate(reads)]
        assert 1 <= len(results) <= most
        assert results == honest(*range(len(results)))
        assert len(kept(pool, server)) == len(results)


def test_answers_are_read_in_the_order_of_their_urls(
    server: Scripted, pool: ConnectionPool
) -> None:
    others = threading.Semaphore(0)

    def last(talk: Talk) -> None:
        for _ in range(AHEAD - 1):
            others.acquire(timeout=10)
        talk.peer.sendall(talk.honest)

    def before(talk: Talk) -> None:
        talk.peer.sendall(talk.honest)
        others.release()

    server.replies[0] = [last]
    for number in range(1, AHEAD):
        server.replies[number] = [before]
    assert fetched(pool, server, *range(AHEAD)) == honest(*range(AHEAD))


def test_no_urls(pool: ConnectionPool) -> None:
    assert list(all_of(Burst(pool, []), [])) == []


def test_connections_are_kept_for_the_next(server: Scripted, pool: ConnectionPool) -> None:
    assert fetched(pool, server, *range(5)) == honest(*range(5))
    assert fetched(pool, server, *range(5, 10)) == honest(*range(5, 10))
    assert server.connections == 5
    assert len(kept(pool, server)) == 5


def test_a_kept_connection_that_was_closed_meanwhile(
    server: Scripted, pool: ConnectionPool
) -> None:
    def answers_and_leaves(talk: Talk) -> bool:
        talk.peer.sendall(talk.honest)
        return True

    server.replies[0] = [answers_and_leaves]
    assert fetched(pool, server, 0) == honest(0)
    assert server.until(lambda: server.ended == {0})
    assert fetched(pool, server, 1) == honest(1)
    assert server.connections == 2


def test_a_kept_connection_that_is_closed_at_the_request(
    server: Scripted, pool: ConnectionPool
) -> None:
    """Asked anew, once: a server that hangs up on that, too, will do so again."""
    assert fetched(pool, server, 0, 1) == honest(0, 1)
    server.replies[2] = [None]
    server.replies[3] = [None, None]
    results = fetched(pool, server, 2, 3, 4)
    assert isinstance(results[1], SourceUnavailable)
    assert [results[0], results[2]] == honest(2, 4)
    assert sorted(number for _, number in server.asked) == [0, 1, 2, 2, 3, 3, 4]


def test_a_new_connection_that_is_closed_is_not_asked_anew(
    server: Scripted, pool: ConnectionPool
) -> None:
    server.replies[0] = [None]
    [result] = fetched(pool, server, 0)
    assert isinstance(result, SourceUnavailable)
    assert server.asked == [(0, 0)]


def test_a_server_that_cannot_be_reached_is_tried_once(
    server: Scripted, pool: ConnectionPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixteen that each wait for their connection would take minutes. Other servers are tried."""
    connect, tried = HttpConnection.connect, []

    def connects(connection: HttpConnection) -> None:
        tried.append(connection.endpoint.port)
        if connection.endpoint.port == 1:
            raise TimeoutError("timed out")
        connect(connection)

    monkeypatch.setattr(HttpConnection, "connect", connects)
    dead = [SignedUrl.parse(f"http://127.0.0.1:1/{n}") for n in range(40)]
    urls = [dead[0], server.url(0), *dead[1:], server.url(1)]
    results = list(all_of(Burst(pool, urls), [1000] * 41 + [70_000]))
    assert tried.count(1) == 1
    assert [results[1], results[-1]] == honest(0, 1)
    assert sum(isinstance(result, SourceUnavailable) for result in results) == 40


def test_kept_connections_that_are_closed_where_no_new_one_is_had(
    server: Scripted, pool: ConnectionPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that goes away is dialled again once, and not for each of them."""
    assert fetched(pool, server, *range(AHEAD)) == honest(*range(AHEAD))
    tried = []

    def connects(connection: HttpConnection) -> None:
        tried.append(connection)
        raise TimeoutError("timed out")

    monkeypatch.setattr(HttpConnection, "connect", connects)
    numbers = range(AHEAD, 2 * AHEAD)
    server.replies |= {number: [None] for number in numbers}
    assert all(isinstance(one, SourceUnavailable) for one in fetched(pool, server, *numbers))
    assert len(tried) == 1


def test_a_kept_connection_works_on_where_no_new_one_is_had(
    server: Scripted, pool: ConnectionPool
) -> None:
    assert fetched(pool, server, 0) == honest(0)
    server.refuse()
    results = fetched(pool, server, *range(AHEAD + 3))
    # The first goes over the one there is, and then the one that is asked for in its place.
    assert [n for n, result in enumerate(results) if isinstance(result, bytes)] == [0, AHEAD]
    assert server.connections == 1


@pytest.mark.parametrize(
    "url",
    ["http://a..b/0", f"http://{'x' * 70}.example/0", "http://127.0.0.1:1/0\u00e4"],
    ids=["a host of no name", "a long label", "not ASCII"],
)
def test_an_address_that_is_none_fails_alone(
    server: Scripted, pool: ConnectionPool, url: str
) -> None:
    burst = Burst(pool, [server.url(0), SignedUrl.parse(url), server.url(1)])
    first, second, third = all_of(burst, [1000, 1000, 70_000])
    assert [first, third] == honest(0, 1)
    assert isinstance(second, SourceUnavailable)


def cut(talk: Talk) -> bool:
    talk.peer.sendall(talk.honest[:-10])
    return True


def chunked(talk: Talk) -> None:
    data = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body(talk.number)), body(talk.number))
    talk.peer.sendall(answer(data, Content_Length=None, Transfer_Encoding="chunked"))


FIFTH = body(5)
IN_THE_WAY: dict[str, Reply] = {
    "403": answer(b"<Error><Code>AccessDenied</Code></Error>", "403 Forbidden"),
    "404": answer(b"<Error><Code>NoSuchKey</Code></Error>", "404 Not Found"),
    "500": answer(FIFTH, "500 Internal"),
    "redirect": answer(b"", "302 Found", Location="/0"),
    "partial": answer(FIFTH, "206 Partial", Content_Range=f"bytes 0-{len(FIFTH) - 1}/99999"),
    "partial, of everything": answer(
        FIFTH, "206 Partial", Content_Range=f"bytes 0-{len(FIFTH) - 1}/{len(FIFTH)}"
    ),
    "100": b"HTTP/1.1 100 Continue\r\n\r\n" + answer(FIFTH),
    "shorter": answer(FIFTH[:-1]),
    "longer": answer(FIFTH + b"x"),
    "no length": answer(FIFTH, Content_Length=None),
    "negative length": answer(FIFTH, Content_Length=-5),
    "encoded": answer(FIFTH, Content_Encoding="gzip"),
    "encoded indeed": answer(gzip.compress(FIFTH), Content_Encoding="gzip"),
    "no CRC": answer(FIFTH, x_oss_hash_crc64ecma="many"),
    "chunked": chunked,
    "cut": cut,
    "hang up": None,
    "rubbish": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "endless head": b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 10_000,
}


@pytest.mark.parametrize("name", IN_THE_WAY)
def test_what_is_in_the_way_of_one_is_not_in_that_of_others(
    server: Scripted, pool: ConnectionPool, name: str
) -> None:
    server.replies[5] = [IN_THE_WAY[name]]
    results = fetched(pool, server, *range(40))
    failure = results.pop(5)
    assert isinstance(failure, SourceError)
    assert "SECRET" not in str(failure)
    assert results == [body(number) for number in range(40) if number != 5]
    # Its connection holds who knows what: nothing else came over it.
    [its] = [connection for connection, number in server.asked if number == 5]
    assert [number for connection, number in server.asked if connection == its] == [5]


def drips(data: bytes, slowly: bytes) -> Reply:
    def drip(talk: Talk) -> bool:
        talk.peer.sendall(data)
        for byte in slowly:
            talk.peer.sendall(bytes([byte]))
            time.sleep(0.05)
        time.sleep(0.2)
        return True

    return drip


def silence(data: bytes) -> Reply:
    def stall(talk: Talk) -> bool:
        talk.peer.sendall(data)
        return talk.peer.recv(1) == b""

    return stall


WHOLE = answer(body(1))
SLOW = {
    "a body": drips(WHOLE[:-1000], WHOLE[-1000:]),
    "a head": drips(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n" * 500),
    "a silent body": silence(WHOLE[:-1000]),
    "a silent server": silence(b""),
}


@pytest.mark.parametrize("name", SLOW)
def test_one_that_drips_does_not_hold_up_the_others(
    server: Scripted, pool: ConnectionPool, name: str
) -> None:
    server.replies[1] = [SLOW[name]]
    sizes = [len(body(n)) for n in range(3)]
    began = time.monotonic()
    results = list(all_of(Burst(pool, server.urls(3)), sizes, seconds=0.5))
    assert time.monotonic() - began < SOON
    assert isinstance(results[1], SourceUnavailable)
    assert [results[0], results[2]] == honest(0, 2)


def test_an_interruption_wakes_a_read_and_nothing_more_is_read(
    server: Scripted, pool: ConnectionPool
) -> None:
    server.may_answer.clear()
    burst = Burst(pool, server.urls(40))

    def interrupt() -> None:
        server.until(lambda: len(server.asked) == AHEAD)
        burst.interrupt()

    waker = threading.Thread(target=interrupt)
    waker.start()
    began = time.monotonic()
    first = next(results := all_of(burst, [1000] * 40, seconds=60.0))
    assert time.monotonic() - began < SOON
    waker.join()
    server.may_answer.set()
    assert all(isinstance(result, SourceUnavailable) for result in (first, *results))
    assert len(server.asked) == AHEAD
    assert kept(pool, server) == []


@pytest.mark.parametrize("already", [0, AHEAD], ids=["new", "kept"])
@pytest.mark.parametrize("after", [0, 1, AHEAD - 1])
def test_an_interruption_while_requests_are_sent(
    server: Scripted,
    pool: ConnectionPool,
    monkeypatch: pytest.MonkeyPatch,
    after: int,
    already: int,
) -> None:
    """The one that is being sent just then is not read, either; and no connection that was kept is
    dialled anew, with its socket forgotten open."""
    assert fetched(pool, server, *range(already)) == honest(*range(already))
    burst = Burst(pool, server.urls(20))
    send, sent = HttpConnection.send, iter(range(1000))

    def sends(connection: HttpConnection, *args: object) -> None:
        if next(sent) == after:
            burst.interrupt()
        send(connection, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(HttpConnection, "send", sends)
    results = list(all_of(burst, [len(body(n)) for n in range(20)]))
    assert all(isinstance(result, SourceUnavailable) for result in results)
    assert kept(pool, server) == []


def test_what_was_interrupted_after_its_body_is_not_kept(
    server: Scripted, pool: ConnectionPool
) -> None:
    burst = Burst(pool, server.urls(1))
    with closing(burst.reads()) as reads:
        assert one(next(reads), 1000) == body(0)
        burst.interrupt()
    assert kept(pool, server) == []
    assert fetched(pool, server, 1) == honest(1)


def test_a_body_that_was_not_read_is_not_kept(server: Scripted, pool: ConnectionPool) -> None:
    with closing(Burst(pool, server.urls(6)).reads()) as reads:
        for number, read in enumerate(reads):
            if number % 2:
                assert one(read, len(body(number))) == body(number)
    assert len(kept(pool, server)) == 3
    # Of a size that the one left unread has, so that its bytes could pass for it.
    assert fetched(pool, server, 3, 6) == honest(3, 6)


def test_a_connection_that_the_server_will_close_is_not_kept(
    server: Scripted, pool: ConnectionPool
) -> None:
    server.replies[0] = [answer(body(0), Connection="close")]
    assert fetched(pool, server, 0, 1) == honest(0, 1)
    assert len(kept(pool, server)) == 1


@pytest.mark.parametrize("apart", [False, True])
def test_an_answer_too_many_is_not_that_of_the_next(
    server: Scripted, pool: ConnectionPool, apart: bool
) -> None:
    """It has the size of the next one, and a CRC that it agrees with."""

    def twice(talk: Talk) -> None:
        talk.peer.sendall(talk.honest if apart else talk.honest * 2)
        if apart:
            came.wait(10)
            talk.peer.sendall(talk.honest)

    came = threading.Event()
    server.replies[0] = [twice]
    assert fetched(pool, server, 0) == honest(0)
    came.set()
    if apart:
        [connection] = pool._idle[endpoint(server)]
        deadline = time.monotonic() + 10
        while connection.is_reusable and time.monotonic() < deadline:
            time.sleep(0.01)
    assert fetched(pool, server, 3) == honest(3)
    assert server.connections == 2


def test_closed_early_all_sockets_are(server: Scripted, pool: ConnectionPool) -> None:
    reads = Burst(pool, server.urls(40)).reads()
    for number in range(3):
        assert one(next(reads), len(body(number))) == body(number)
    reads.close()
    # Of three that were read two went on to others, which nobody read.
    assert len(kept(pool, server)) == 1
    assert server.until(lambda: len(server.ended) == server.connections == AHEAD)


def test_closed_before_anything_was_read(server: Scripted, pool: ConnectionPool) -> None:
    server.may_answer.clear()
    reads = Burst(pool, server.urls(3)).reads()
    next(reads)
    reads.close()
    server.may_answer.set()
    assert kept(pool, server) == []
    assert server.until(lambda: len(server.ended) == 3)


def test_an_interruption_reaches_a_handshake(server: Scripted) -> None:
    connection = HttpConnection(
        Endpoint("https", "127.0.0.1", server.port), MinimumRate(), ssl.create_default_context()
    )
    errors: list[OSError] = []

    def connect() -> None:
        try:
            connection.connect()
        except OSError as error:
            errors.append(error)

    dialling = threading.Thread(target=connect)
    dialling.start()
    assert server.until(lambda: server.connections == 1)
    deadline = time.monotonic() + 1.0
    while not isinstance(connection._socket, ssl.SSLSocket) and time.monotonic() < deadline:
        time.sleep(0.01)
    connection.interrupt()
    dialling.join(SOON)
    assert not dialling.is_alive()
    assert errors
    connection.close()


async def test_a_cancellation_wakes_the_thread_and_waits_for_it(server: Scripted) -> None:
    """The block that it reads into may be lent to somebody else right after."""
    server.may_answer.clear()
    ended: list[list[bytes | ArchiverError]] = []

    def work(reads: Iterator[ReadObject]) -> None:
        results = [one(read, 1000) for read in reads]
        time.sleep(0.2)
        ended.append(results)

    began = time.monotonic()
    async with open_fetcher(1) as fetcher, anyio.create_task_group() as group:
        group.start_soon(fetcher.burst, server.urls(20), 60.0, work)
        assert await asyncio.to_thread(server.until_asked, 1)
        group.cancel_scope.cancel()
    assert time.monotonic() - began < SOON
    [results] = ended
    assert all(isinstance(result, SourceUnavailable) for result in results)
    assert len(server.asked) == 1
