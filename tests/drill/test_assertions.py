"""The language of --assert: what it reads, what it refuses and where, what a server says to it."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.commands.drill import Assertion, AssertionSyntax, ServerProgram, parse
from archiver.commands.drill.assertions import (
    _EQUALITY,
    _OPERATORS,
    _PRESENCE,
    _SIZES,
    check,
    write,
)
from archiver.commands.drill.programs import read_dump_file
from archiver.commands.drill.server import running
from archiver.errors import UsageError
from tests.conftest import DATA


@pytest.mark.parametrize(
    ("text", "verb", "database", "key", "operator", "value"),
    [
        ("dbsize>=1000", "dbsize", 0, b"", ">=", b"1000"),
        ("dbsize == 57", "dbsize", 0, b"", "==", b"57"),
        (" DBSIZE[2]>10 ", "dbsize", 2, b"", ">", b"10"),
        ("exists user:1", "exists", 0, b"user:1", "", b""),
        ("exists[3] user:1", "exists", 3, b"user:1", "", b""),
        ("missing >=", "missing", 0, b">=", "", b""),
        ("type user:1 == hash", "type", 0, b"user:1", "==", b"hash"),
        ("ttl session:1 > 0", "ttl", 0, b"session:1", ">", b"0"),
        ("ttl session:1 ==-1", "ttl", 0, b"session:1", "==", b"-1"),
        ("get config:version == 7", "get", 0, b"config:version", "==", b"7"),
        ('get "a b" != "x\\"\\\\\\n\\x00é"', "get", 0, b"a b", "!=", b'x"\\\n\x00\xc3\xa9'),
        ('exists ""', "exists", 0, b"", "", b""),
        ("hlen user:1 >= 3", "hlen", 0, b"user:1", ">=", b"3"),
    ],
)
def test_what_it_reads(
    text: str, verb: str, database: int, key: bytes, operator: str, value: bytes
) -> None:
    assert parse(text) == Assertion(text.strip(), verb, database, key, operator, value)


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("", 0),
        ("  ", 2),
        ("size > 1", 0),
        ("dbsize", 6),
        ("dbsize = 1", 7),
        ("dbsize >= many", 9),
        ("dbsize[99999] > 1", 7),
        ("dbsize > 1 2", 11),
        ("exists", 6),
        ('exists"a"', 6),
        ("exists a b", 9),
        ('exists "a', 7),
        ('exists "a"b', 7),
        ('exists "\\q"', 7),
        ("hlen a>=3", 9),
        ("hlen a >= x", 9),
        ("type a > hash", 7),
        ("get a > b", 7),
    ],
)
def test_what_it_refuses_and_where(text: str, position: int) -> None:
    with pytest.raises(AssertionSyntax) as caught:
        parse(text)
    assert caught.value.position == position
    assert f"character {position + 1}" in str(caught.value)
    assert isinstance(caught.value, UsageError)


WORDS = st.binary(max_size=12)
NUMBERS = st.integers(-(10**18), 10**18).map(lambda number: str(number).encode())


@st.composite
def assertions(draw: st.DrawFn) -> Assertion:
    verb = draw(st.sampled_from(["dbsize", "ttl", "get", "type", *_SIZES, *_PRESENCE]))
    operator, value = "", b""
    if verb not in _PRESENCE:
        operator = draw(st.sampled_from(_EQUALITY if verb == "type" else list(_OPERATORS)))
        free = verb in ("get", "type") and operator in _EQUALITY
        value = draw(WORDS if free else NUMBERS)
    key = b"" if verb == "dbsize" else draw(WORDS)
    return Assertion("", verb, draw(st.integers(0, 1023)), key, operator, value)


@given(assertions())
def test_what_it_writes_it_reads(assertion: Assertion) -> None:
    assert replace(parse(write(assertion)), text="") == assertion


ALPHABET = st.sampled_from(["dbsize", "get", "exists", "[1]", " ", "==", ">", '"', "\\", "x", "7"])


@given(st.one_of(st.text(), st.lists(ALPHABET).map("".join)))
def test_any_text_is_an_assertion_or_an_error_with_a_place(text: str) -> None:
    try:
        parsed = parse(text)
    except AssertionSyntax as error:
        place = error.position
    else:
        place = 0
        assert replace(parse(write(parsed)), text=parsed.text) == parsed
    assert 0 <= place <= len(text)


@pytest.mark.parametrize(
    ("text", "holds", "seen"),
    [
        ("dbsize == 8", True, "8"),
        ("dbsize[1] > 1", False, "1"),
        ("exists user:1", True, "exists"),
        ("exists[1] user:1", False, "missing"),
        ("missing user:1", False, "exists"),
        ("missing user:2", True, "missing"),
        ("type user:1 == hash", True, "hash"),
        ("type user:2 == none", False, "no such key"),
        ("type user:2 != hash", False, "no such key"),
        ("type user:1 != hash", False, "hash"),
        ("ttl session > 0", True, None),
        ("ttl user:1 == -1", True, "-1"),
        ("ttl user:2 < 0", False, "no such key"),
        ("get version == 7", True, "7"),
        ("get version == 07", False, "7"),
        ("get version >= 7", True, "7"),
        ("get version < 7", False, "7"),
        ("get nothing != 7", False, "no such key"),
        ('get "a key" == "a value"', True, '"a value"'),
        ('get "a key" > 1', False, '"a value", which is not an integer'),
        ('get[1] far != "\\x00"', True, "x" * 64 + "…"),
        ("hlen user:1 >= 3", False, "2"),
        ("llen list == 1", True, "1"),
        ("scard set == 1", True, "1"),
        ("zcard sorted == 1", True, "1"),
        ("xlen stream == 1", True, "1"),
        ("strlen version == 1", True, "1"),
        ("llen user:2 == 0", False, "no such key"),
        ("hlen[1] user:1 <= 3", False, "no such key"),
        ("scard user:2 < 1", False, "no such key"),
        ("zcard user:2 != 1", False, "no such key"),
        ("xlen user:2 >= 0", False, "no such key"),
        ("strlen user:2 <= 3", False, "no such key"),
        ("exists expired", False, "missing"),
        ("missing expired", True, "missing"),
        ("hlen expired <= 3", False, "no such key"),
        ("ttl expired <= 0", False, "no such key"),
        ("hlen version == 1", False, "WRONGTYPE"),
        ("get user:1 == 1", False, "WRONGTYPE"),
        ("exists[1023] a", False, "missing"),
    ],
)
async def test_what_a_server_says(
    valkey: ServerProgram, place: Path, text: str, *, holds: bool, seen: str | None
) -> None:
    async with running(
        valkey, await read_dump_file(DATA / "librdb__empty.rdb"), directory=place
    ) as server:
        assert await server.load()
        ask = server.client().ask
        await ask("HSET", "user:1", "a", 1, "b", 2)
        await ask("SET", "session", "x", "EX", 100)
        await ask("SET", "version", "7")
        await ask("SET", "a key", "a value")
        await ask("RPUSH", "list", "x")
        await ask("SADD", "set", "x")
        await ask("ZADD", "sorted", 1, "x")
        await ask("XADD", "stream", "1-1", "x", "y")
        await server.client(1).ask("SET", "far", "x" * 1000)
        await ask("HSET", "expired", "a", 1)
        await ask("PEXPIREAT", "expired", 1)  # which removes it at once
        result = await check(parse(text), server)
    assert result.text == text
    assert result.holds is holds
    assert result.has_key is (seen not in ("missing", "no such key"))
    assert seen is None or result.seen.startswith(seen)
