"""The two compact encodings that we have to decode: LZF strings and listpacks."""

from typing import Final

# Three bytes of LZF expand to at most 264: a length byte and a two-byte offset (liblzf, lzf_d.c).
MOST_LZF_GROWTH: Final = 88

_LISTPACK_HEADER_BYTES = 6
_LISTPACK_END = 0xFF


def expand_lzf(packed: bytes, size: int) -> bytes:
    """Decompress ``packed``, which must expand to exactly ``size`` bytes.

    Raises:
        ValueError: It expands to more or fewer bytes, or is not valid LZF.
    """
    out = bytearray()
    position = 0
    try:
        while position < len(packed) and len(out) <= size:
            control = packed[position]
            position += 1
            if control < 0x20:
                out += packed[position : position + control + 1]
                position += control + 1
                continue
            length = control >> 5
            if length == 7:
                length += packed[position]
                position += 1
            distance = ((control & 0x1F) << 8 | packed[position]) + 1
            position += 1
            _repeat(out, distance, length + 2)
    except IndexError:
        raise ValueError("it is cut short") from None
    if position > len(packed) or len(out) != size:
        raise ValueError(f"{len(out)} bytes instead of {size}")
    return bytes(out)


def _repeat(out: bytearray, distance: int, length: int) -> None:
    """Append ``length`` bytes from ``distance`` bytes back; source and target may overlap."""
    if distance > len(out):
        raise ValueError("it refers to bytes before its beginning")
    piece = out[-distance:][:length]
    times, rest = divmod(length, len(piece))
    out += piece * times + piece[:rest]


def count_expiring(listpack: bytes) -> int:
    """Count the fields with an expiry in the listpack of a hash (Redis 7.4, t_hash.c).

    The listpack is a sequence of field, value and expiry (ms; 0 for none).

    Raises:
        ValueError: It is not such a listpack.
    """
    position, index, count = _LISTPACK_HEADER_BYTES, 0, 0
    try:
        while listpack[position] != _LISTPACK_END:
            # A field without an expiry has the integer 0 here, which takes one byte.
            if index % 3 == 2 and listpack[position] != 0:
                count += 1
            position += _element_size(listpack, position)
            index += 1
    except IndexError:
        raise ValueError("a listpack is cut short") from None
    if index % 3 or position != len(listpack) - 1:
        raise ValueError("a listpack has the wrong number of elements")
    return count


def _element_size(listpack: bytes, position: int) -> int:
    """Return the bytes of one element, with the length for reading backwards (listpack.c)."""
    first = listpack[position]
    if first < 0x80:
        size = 1
    elif first < 0xC0:
        size = 1 + (first & 0x3F)
    elif first < 0xE0:
        size = 2
    elif first < 0xF0:
        size = 2 + ((first & 0x0F) << 8 | listpack[position + 1])
    elif first == 0xF0:
        size = 5 + int.from_bytes(listpack[position + 1 : position + 5], "little")
    elif first <= 0xF4:
        size = (3, 4, 5, 9)[first - 0xF1]
    else:
        raise ValueError(f"0x{first:02x} is not the start of a listpack element")
    backwards = 1 + sum(size >= limit for limit in (2**7, 2**14 - 1, 2**21 - 1, 2**28 - 1))
    return size + backwards
