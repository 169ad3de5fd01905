"""No damage is called intact, and no bytes at all make the inspection fail."""

from functools import cache
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archiver.model import Footer, Kind
from archiver.rdb import Verdict, inspect
from tests.conftest import DATA
from tests.rdb.dumps import inspected, sealed
from tests.rdb.test_files import CHECKSUM_DISABLED, INTACT, NO_FOOTER
from tests.sweeps import extent

DUMPS = [*INTACT, "librdb__redis_ent_opcode_ram_lru.rdb"]
SEALED = [name for name in DUMPS if name not in NO_FOOTER | CHECKSUM_DISABLED]


@cache
def data_of(name: str) -> bytes:
    return (DATA / name).read_bytes()


@pytest.mark.parametrize("name", DUMPS)
def test_no_prefix_is_intact(name: str) -> None:
    data = data_of(name)
    step = 1 + len(data) // extent(400, 3000)
    for size in range(0, len(data), step):
        found = inspected(data[:size])
        assert not found.is_intact, size
        assert found.size == size
        if name in INTACT:
            assert found.verdict is (Verdict.TRUNCATED if size else Verdict.EMPTY), size


@pytest.mark.parametrize("name", SEALED)
def test_no_flipped_bit_leaves_it_intact(name: str) -> None:
    data = bytearray(data_of(name))
    step = 1 + len(data) // extent(300, 2000)
    for place in range(0, len(data), step):
        for bit in (1, 128):
            data[place] ^= bit
            assert not inspected(bytes(data)).is_intact, place
            data[place] ^= bit


@given(st.sampled_from(SEALED), st.data())
@settings(max_examples=300)
def test_no_changed_bytes_leave_it_intact(name: str, draw: st.DataObject) -> None:
    data = bytearray(data_of(name))
    for _ in range(draw.draw(st.integers(1, 4))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    assert inspected(bytes(data)).is_intact == (bytes(data) == data_of(name))


@given(st.sampled_from(list(INTACT)), st.binary(min_size=1, max_size=500))
@settings(max_examples=300)
def test_junk_behind_the_end_is_counted(name: str, junk: bytes) -> None:
    found = inspected(data_of(name) + junk)
    assert (found.verdict, found.padding) == (Verdict.PADDED, len(junk))
    assert str(len(data_of(name))) in found.reason


@pytest.mark.parametrize("count", range(1, 20))
@pytest.mark.parametrize("name", SEALED)
def test_zeros_behind_the_end_do_not_pass_for_a_checksum(name: str, count: int) -> None:
    """A CRC-64 that begins at zero is zero behind its own footer, and stays so over zeros."""
    found = inspected(data_of(name) + bytes(count))
    assert not found.is_intact
    if name in INTACT:
        assert found.verdict is Verdict.PADDED


@given(
    st.sampled_from([b"", b"REDIS0003", b"REDIS0011", b"REDIS0012", b"VALKEY080", b"*3\r\n$3\r\n"]),
    st.binary(max_size=2000),
)
@settings(max_examples=500)
def test_random_bytes_get_a_verdict(start: bytes, rest: bytes) -> None:
    found = inspected(start + rest)
    assert found.size == len(start + rest)
    assert "\n" not in found.reason
    assert len(found.reason) < 200


@given(st.binary(min_size=1, max_size=60))
def test_a_right_checksum_is_believed_whatever_lies_before_it(body: bytes) -> None:
    found = inspected(sealed(body))
    assert found.is_intact or (found.verdict is Verdict.PADDED and b"\xff" in body)


@pytest.mark.parametrize(
    ("data", "verdict", "says"),
    [
        (b"", Verdict.EMPTY, "the file is empty"),
        (b"<?xml version='1.0'?><Error/>", Verdict.FOREIGN, "XML"),
        (b"\n <!DOCTYPE html><html></html>", Verdict.FOREIGN, "HTML"),
        (b"\x1f\x8b\x08\x00" + bytes(90), Verdict.FOREIGN, "gzip"),
        (bytes(5000), Verdict.FOREIGN, "zeros"),
        (b"Salted__" * 40, Verdict.FOREIGN, "encrypted"),
        (b"REDISX", Verdict.FOREIGN, "neither"),
        (b"REDI", Verdict.TRUNCATED, "byte 4"),
        (b"VALKEY08", Verdict.TRUNCATED, "byte 8"),
        (b"*3\r", Verdict.TRUNCATED, "byte 3"),
        (b"REDIS0011", Verdict.TRUNCATED, "byte 9"),
        (b"REDIS0011\xff" + bytes(8), Verdict.INTACT, "no checksum"),
        (b"REDIS0011\xff" + bytes(7), Verdict.TRUNCATED, "byte 17"),
        (b"REDIS0011\xff" + bytes(9), Verdict.PADDED, "byte 18"),
        (b"REDIS0011\x60\x00\xff" + bytes(8), Verdict.UNPROVEN, "96"),
        (b"REDIS0099\xff" + bytes(8), Verdict.UNPROVEN, "REDIS0099"),
        (b"REDIS0003\x60\x00\xff", Verdict.CORRUPT, "byte 9"),
        (sealed(b"\x06\x01k\x00" + b"whatever"), Verdict.OPAQUE, "byte 9"),
        (sealed(b"\xf3\x01\x00\x00"), Verdict.OPAQUE, "243"),
    ],
)
def test_small_files(data: bytes, verdict: Verdict, says: str) -> None:
    found = inspected(data)
    assert found.verdict is verdict
    assert says in found.reason
    if verdict in {Verdict.EMPTY, Verdict.FOREIGN}:
        assert (found.kind, found.footer) == (Kind.UNKNOWN, Footer.NONE)


def test_a_stream_that_does_not_block_is_refused() -> None:
    class NonBlocking(BytesIO):
        def readinto(self, _buffer: object, /) -> int:
            return None  # type: ignore[return-value]

    with pytest.raises(BlockingIOError):
        inspect(NonBlocking())
