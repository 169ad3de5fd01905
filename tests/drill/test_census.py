"""Counting: exact, by database, type and time to live; sampled only when asked."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from archiver.commands.drill import ServerProgram
from archiver.commands.drill.census import TypeCount, take_census
from archiver.commands.drill.client import Client
from archiver.commands.drill.programs import read_dump_file
from archiver.commands.drill.server import Server, running
from tests.conftest import DATA
from tests.drill.conftest import program

FILL = """
for i = 1, ARGV[1] do
  if i % 4 == 0 then redis.call('SET', 'string:' .. i, i, 'EX', 10000)
  elseif i % 4 == 1 then redis.call('HSET', 'hash:' .. i, 'field', i)
  else redis.call('SADD', 'set:' .. i, i) end
end
"""


async def fill(server: Server, database: int, keys: int) -> None:
    await server.client(database).ask("EVAL", FILL, 0, keys)


@pytest.mark.parametrize("release", [("redis", 7, 0), ("redis", 8, 2), ("valkey", 9, 1)])
async def test_every_key_is_counted(release: tuple[str, int, int], place: Path) -> None:
    which = await program(*release)
    async with running(
        which, await read_dump_file(DATA / "librdb__ziplist_v3.rdb"), directory=place
    ) as server:
        assert await server.load()
        await fill(server, 3, 10_000)
        await fill(server, 900, 4)
        census = await take_census(server)
    assert [database.number for database in census.databases] == [0, 3, 900]
    third = census.databases[1]
    assert third.keys == third.seen == 10_000
    assert third.types == (
        TypeCount("hash", 2500, 0),
        TypeCount("set", 5000, 0),
        TypeCount("string", 2500, 2500),
    )
    assert third.expiring == 2500
    assert third.consistent
    assert not census.sampled
    assert census.keys == 10_005
    assert census.began <= census.ended
    assert census.began.tzinfo is not None
    assert census.memory_peak > 0
    assert (census.libraries, census.functions) == (0, 0)


async def test_a_sample_says_so(valkey: ServerProgram, place: Path) -> None:
    async with running(
        valkey, await read_dump_file(DATA / "librdb__empty.rdb"), directory=place
    ) as server:
        assert await server.load()
        await fill(server, 0, 10_000)
        await fill(server, 1, 500)
        census = await take_census(server, sample_above=2000)
    sampled, whole = census.databases
    assert sampled.sampled
    assert sampled.keys == 10_000
    assert 2000 <= sampled.seen < 5000
    assert (whole.sampled, whole.seen) == (False, 500)
    assert census.sampled


@pytest.mark.parametrize("release", [("redis", 8, 2), ("valkey", 9, 1)])
async def test_functions_are_counted(release: tuple[str, int, int], place: Path) -> None:
    which = await program(*release)
    async with running(
        which, await read_dump_file(DATA / "librdb__function.rdb"), directory=place
    ) as server:
        assert await server.load()
        census = await take_census(server)
    assert census.databases == ()
    assert census.libraries == 1
    assert census.functions is not None
    assert census.functions >= 1


class Scripted:
    """A server that answers as told, and names a key twice the first time."""

    def __init__(self, *sizes: int) -> None:
        self.sizes: Iterator[int] = iter(sizes)
        self.passes = 0

    def client(self, database: int = 0) -> Client:
        return self  # type: ignore[return-value]

    async def ask(self, command: str, *_: Any) -> Any:
        match command:
            case "DBSIZE":
                return next(self.sizes)
            case "INFO":
                sizes = {f"used_memory{what}": 1 for what in ("", "_peak", "_rss")}
                return {"db0": {"keys": 10}, "db0_distrib_strings_sizes": {}, **sizes}
            case "TIME":
                return [b"1760000000", b"5"]
            case "EVAL":
                self.passes += 1
                return [b"0", b"string", 11 if self.passes == 1 else 10, 0]
            case _:
                return [b"engines", []]


async def test_keys_named_twice_are_counted_again() -> None:
    server = Scripted(10, 10, 10, 9)
    (database,) = (await take_census(server)).databases
    assert server.passes == 2
    assert (database.keys, database.seen) == (10, 10)
    assert database.consistent


async def test_what_never_agrees_says_so() -> None:
    server = Scripted(*[9, 9] * 3)
    (database,) = (await take_census(server)).databases
    assert server.passes == 3
    assert not database.consistent
