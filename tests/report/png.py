"""Enough of PNG to look at a screenshot: 8-bit RGB or RGBA, not interlaced (the PNG standard)."""

import struct
import zlib
from collections import Counter

Colour = tuple[int, int, int]


def colours(data: bytes) -> Counter[Colour]:
    """How often each colour occurs."""
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, depth, packed = 0, 0, b""
    at = 8
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        name, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        if name == b"IHDR":
            width, _, bits, kind, _, _, interlaced = struct.unpack(">IIBBBBB", body)
            assert (bits, interlaced) == (8, 0)
            depth = {2: 3, 6: 4}[kind]
        elif name == b"IDAT":
            packed += body
        at += length + 12
    found: Counter[Colour] = Counter()
    for row in _rows(zlib.decompress(packed), width * depth, depth):
        found.update(zip(row[0::depth], row[1::depth], row[2::depth], strict=True))
    return found


def _rows(data: bytes, stride: int, depth: int) -> list[bytes]:
    rows: list[bytes] = []
    above = bytes(stride)
    for start in range(0, len(data), stride + 1):
        row = bytearray(data[start + 1 : start + 1 + stride])
        _unfilter(data[start], row, above, depth)
        above = bytes(row)
        rows.append(above)
    return rows


def _unfilter(kind: int, row: bytearray, above: bytes, depth: int) -> None:
    if kind == 0:
        return
    if kind == 2:
        row[:] = bytes((value + up) & 255 for value, up in zip(row, above, strict=True))
        return
    for i, value in enumerate(row):
        left = row[i - depth] if i >= depth else 0
        corner = above[i - depth] if i >= depth else 0
        if kind == 1:
            guess = left
        elif kind == 3:
            guess = (left + above[i]) // 2
        else:
            guess = _paeth(left, above[i], corner)
        row[i] = (value + guess) & 255


def _paeth(left: int, up: int, corner: int) -> int:
    estimate = left + up - corner
    return min((left, up, corner), key=lambda one: abs(estimate - one))
