"""Cutting and folding."""

from itertools import pairwise

from fastcrc import crc64
from hypothesis import given
from hypothesis import strategies as st

from archiver.transfer.parts import MAX_PARTS, fitting_part_size, fold_crc64, plan_parts


@given(st.integers(0, 10**6), st.integers(100, 10**6))
def test_parts_cover_every_byte_once(size: int, part_size: int) -> None:
    parts = plan_parts(size, part_size)
    assert parts[0].start == 0
    assert parts[-1].stop == size
    assert all(a.stop == b.start for a, b in pairwise(parts))
    assert [part.index for part in parts] == list(range(len(parts)))
    assert all(part.size == part_size for part in parts[:-1])
    assert size == 0 or all(part.size > 0 for part in parts)


@given(st.integers(0, 2**50), st.integers(2**16, 2**30))
def test_the_part_size_fits(size: int, wanted: int) -> None:
    fitting = fitting_part_size(size, wanted)
    assert -(-size // fitting) <= MAX_PARTS
    assert fitting >= wanted


@given(st.lists(st.binary(max_size=300), max_size=8))
def test_folding_is_the_checksum_of_the_whole(pieces: list[bytes]) -> None:
    folded = fold_crc64((crc64.xz(piece), len(piece)) for piece in pieces)
    assert folded == crc64.xz(b"".join(pieces))


def test_the_check_value() -> None:
    assert crc64.xz(b"123456789") == 11051210869376104954
    assert fold_crc64([(crc64.xz(b"1234"), 4), (crc64.xz(b"56789"), 5)]) == 11051210869376104954
