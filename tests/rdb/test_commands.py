"""Logs of commands, alone and behind a preamble."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.model import Footer, Kind
from archiver.rdb import CommandLog, Inspection, Verdict
from tests.rdb.dumps import inspected, sealed, string


def command(*words: bytes) -> bytes:
    pieces = [b"$%d\r\n%s\r\n" % (len(word), word) for word in words]
    return b"*%d\r\n" % len(words) + b"".join(pieces)


SET = command(b"SET", b"key", b"value")
LOG = command(b"SELECT", b"0") + SET + b"#TS:1700000000\r\n" + command(b"select", b"12") + SET


def log_of(found: Inspection) -> CommandLog:
    assert found.log is not None
    return found.log


def test_a_whole_log() -> None:
    found = inspected(LOG)
    assert (found.verdict, found.kind, found.footer) == (Verdict.INTACT, Kind.AOF, Footer.NONE)
    assert found.log == CommandLog(4, (0, 12), len(LOG), 1_700_000_000)
    assert inspected(b"#TS:1\r\n" + LOG).verdict is Verdict.INTACT


def test_every_prefix_says_where_the_last_good_command_ends() -> None:
    ends = {log_of(inspected(LOG[:size])).good_until for size in range(30, len(LOG))}
    for size in range(1, len(LOG)):
        found = inspected(LOG[:size])
        if size in ends:
            assert found.verdict is Verdict.INTACT
        else:
            assert found.verdict is Verdict.TRUNCATED, (size, found.reason)
            if found.log:
                assert found.log.good_until <= size
                assert inspected(LOG[: found.log.good_until]).is_intact or size < 30


def test_a_transaction_without_its_end_is_dropped_whole() -> None:
    begun = SET + command(b"MULTI") + SET + SET
    found = inspected(begun)
    assert found.verdict is Verdict.TRUNCATED
    assert (log_of(found).good_until, log_of(found).commands) == (len(SET), 1)
    assert inspected(begun + command(b"exec")).verdict is Verdict.INTACT


@pytest.mark.parametrize(
    "junk",
    [
        b"junk",
        b"\x00\x00\x00",
        b"*x\r\n" + b" " * 30,
        b"*0\r\n",
        b"*1\r\n:1\r\n" + b" " * 30,
        b"*2\r\n$3\r\nSET\r\n$1\r\nabc" + b" " * 30,
        b"*2\r\n$6\r\nSELECT\r\n$1\r\nx\r\n",
        b"*1\r\n$+3\r\nSET\r\n",
        b"#" + b"x" * 2000,
    ],
)
def test_what_is_not_a_command_is_found_where_it_is(junk: bytes) -> None:
    found = inspected(LOG + junk)
    assert found.verdict is Verdict.CORRUPT
    assert found.offset >= len(LOG)
    assert log_of(found).good_until == len(LOG)
    assert found.size == len(LOG + junk)


def test_a_count_is_never_trusted() -> None:
    assert inspected(b"*9999999999999999999\r\n$3\r\nSET\r\n").verdict is Verdict.TRUNCATED
    assert inspected(b"*2\r\n$9999999999999999999\r\nSET\r\n").verdict is Verdict.TRUNCATED


@given(st.lists(st.lists(st.binary(max_size=700), min_size=1, max_size=5), min_size=1, max_size=9))
def test_any_words_make_a_log(commands: list[list[bytes]]) -> None:
    data = b"".join(command(b"X", *words) for words in commands)
    found = inspected(data)
    assert (found.verdict, log_of(found).commands) == (Verdict.INTACT, len(commands))


def preamble(field: bytes) -> bytes:
    return sealed(b"\xfa" + string(field) + b"\xc0\x01" + b"\xfe\x00\x00\x01k\x01v")


@pytest.mark.parametrize("field", [b"aof-preamble", b"aof-base"])
def test_commands_behind_a_preamble(field: bytes) -> None:
    head = preamble(field)
    found = inspected(head + LOG)
    assert (found.verdict, found.kind, found.footer) == (Verdict.INTACT, Kind.AOF, Footer.OK)
    assert found.contents is not None
    assert found.contents.keys == {"string": 1}
    assert found.contents.is_complete
    assert log_of(found).good_until == found.size == len(head + LOG)
    cut = inspected((head + LOG)[:-3])
    assert cut.verdict is Verdict.TRUNCATED
    assert log_of(cut).good_until == len(head + LOG) - len(SET)
    assert inspected(head).kind is Kind.RDB


def test_a_preamble_is_checked_too() -> None:
    head = bytearray(preamble(b"aof-base"))
    head[-12] ^= 1
    found = inspected(bytes(head) + LOG)
    assert (found.verdict, found.footer) == (Verdict.CORRUPT, Footer.MISMATCH)


def test_commands_behind_a_dump_that_is_not_a_preamble_are_padding() -> None:
    found = inspected(sealed(b"\xfe\x00") + LOG)
    assert (found.verdict, found.padding) == (Verdict.PADDED, len(LOG))
