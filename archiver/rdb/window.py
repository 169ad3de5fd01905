"""A sliding window over a stream that decodes RDB lengths and strings and computes the CRC-64.

One buffer is reused for the whole stream. A skip only moves the position, even past the end of the
window; the bytes in between are read and checksummed block by block. MARGIN zeros follow the last
byte of the stream, so that a header can be decoded without a bounds check per byte: after a read
into the zeros the position lies beyond the end, and the next :meth:`Window.fill` raises.
"""

from collections.abc import Container
from dataclasses import dataclass
from typing import Final, Protocol

from anycrc import Model

from archiver.rdb.packed import MOST_LZF_GROWTH, expand_lzf

BLOCK_SIZE: Final = 2**20
MARGIN: Final = 64  # bytes; larger than any header that is decoded at once
FOOTER_BYTES: Final = 8
EOF_OPCODE: Final = 0xFF

_CRC64_REDIS = Model("CRC64-REDIS")
_TAIL_BYTES = 1 + FOOTER_BYTES  # the EOF opcode and the footer of an RDB, never dropped


class ParseError(Exception):
    """Reading stopped at byte ``offset``. Stays inside the package: callers get a verdict."""

    def __init__(self, offset: int, why: str) -> None:
        super().__init__(offset, why)
        self.offset = offset
        self.why = why


class UnexpectedEnd(ParseError):
    """The stream ends in the middle of the format."""


class InvalidData(ParseError):
    """The bytes are none that a server writes."""


class UnsupportedType(ParseError):
    """A type or opcode that we cannot skip: a newer one, or a vendor's own."""


class Readable(Protocol):
    """A blocking stream, such as io.RawIOBase or io.BufferedIOBase."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill the front of ``buffer``; return the number of bytes, 0 at the end."""


@dataclass(frozen=True, slots=True)
class Ending:
    """The last nine bytes of a stream of ``size`` bytes, read as an RDB's EOF opcode and footer.

    ``opcode`` is None for a stream of fewer than nine bytes; ``written`` is the CRC-64 in the
    footer, ``computed`` that of everything before it.
    """

    size: int
    opcode: int | None
    written: int
    computed: int

    @property
    def has_valid_checksum(self) -> bool:
        """Whether the stream ends like an RDB whose checksum is right.

        Zero does not count: it means "disabled". The CRC-64 of an intact dump with its footer is
        zero, and stays zero when zeros are appended.
        """
        return self.opcode == EOF_OPCODE and self.written != 0 and self.written == self.computed

    @property
    def has_no_checksum(self) -> bool:
        """Whether the stream ends like an RDB that was written with checksums disabled."""
        return self.opcode == EOF_OPCODE and self.written == 0


class Window:
    """Reads a stream from its first byte, ``block_size`` bytes at a time."""

    def __init__(self, stream: Readable, block_size: int = BLOCK_SIZE) -> None:
        self._stream = stream
        self._capacity: Final = max(block_size, 2 * MARGIN)
        self.buffer: Final = bytearray(self._capacity + MARGIN)
        self._view: Final = memoryview(self.buffer)
        self._base = 0  # offset of buffer[0] in the stream
        self._crc = 0  # of everything before buffer[0]
        self.position = 0  # in the buffer
        self.end = 0  # of the valid bytes in the buffer
        self.ended = False  # the stream has no more bytes

    @property
    def offset(self) -> int:
        """Offset of the next byte in the stream."""
        return self._base + self.position

    @property
    def is_overrun(self) -> bool:
        """Whether the position is beyond the last byte of the stream."""
        return self.ended and self.position > self.end

    def fill(self, need: int = MARGIN) -> None:
        """Read until ``need`` bytes (at most MARGIN), or all that are left, are in the window.

        Raises UnexpectedEnd if the position is beyond the end of the stream, OSError.
        """
        while not self.ended and self.end - self.position < need:
            self._slide()
        if self.position > self.end:
            raise UnexpectedEnd(self._base + self.end, "the file ends")

    def _slide(self) -> None:
        """Checksum and drop the bytes before the position, then fill the buffer."""
        gone = max(0, min(self.position, self.end - _TAIL_BYTES))
        self._crc = _CRC64_REDIS.calc(self._view[:gone], self._crc)
        self._view[: self.end - gone] = self._view[gone : self.end]
        self._base += gone
        self.position -= gone
        self.end -= gone
        while self.end < self._capacity:
            count = self._stream.readinto(self._view[self.end : self._capacity])
            if count is None:
                raise BlockingIOError("inspect needs a blocking stream")
            if count == 0:
                self.ended = True
                self._view[self.end : self.end + MARGIN] = bytes(MARGIN)
                break
            self.end += count

    def at_end(self) -> bool:
        """Whether no byte is left. Raises UnexpectedEnd if the position is beyond the end."""
        self.fill(1)
        return self.position >= self.end

    def next_is(self, values: Container[int]) -> bool:
        """Whether the next byte is one of ``values``, without reading it."""
        return not self.at_end() and self.buffer[self.position] in values

    def checksum(self) -> int:
        """Return the CRC-64/Jones of everything before the position."""
        crc: int = _CRC64_REDIS.calc(self._view[: self.position], self._crc)
        return crc

    def drain(self) -> Ending:
        """Read to the end of the stream, whatever the bytes are."""
        while not self.ended:
            self.position = self.end
            self._slide()
        cut = max(0, self.end - FOOTER_BYTES)
        computed: int = _CRC64_REDIS.calc(self._view[:cut], self._crc)
        written = int.from_bytes(self._view[cut : self.end], "little")
        opcode = self.buffer[cut - 1] if cut else None
        return Ending(self._base + self.end, opcode, written, computed)

    def byte(self) -> int:
        """Read the next byte.

        Raises:
            UnexpectedEnd: There is none.
        """
        if self.position >= self.end and self.at_end():
            raise UnexpectedEnd(self.offset, "the file ends")
        self.position += 1
        return self.buffer[self.position - 1]

    def skip(self, count: int) -> None:
        """Skip ``count`` bytes. The next read raises if they are not there."""
        self.position += count

    def take(self, count: int) -> bytes:
        """Read the next ``count`` bytes into memory; the caller bounds the number.

        Raises:
            UnexpectedEnd: Fewer are left.
        """
        pieces = []
        while count:
            if self.at_end():
                raise UnexpectedEnd(self.offset, "the file ends")
            stop = min(self.position + count, self.end)
            pieces.append(bytes(self._view[self.position : stop]))
            count -= stop - self.position
            self.position = stop
        return b"".join(pieces)

    def integer(self, size: int) -> int:
        """Read a signed little-endian number of ``size`` bytes."""
        if self.end - self.position < MARGIN:
            self.fill()
        position = self.position
        self.position = position + size
        return int.from_bytes(self.buffer[position : position + size], "little", signed=True)

    def length(self) -> int:
        """Read a length as rdbSaveLen writes it: 6, 14, 32 or 64 bits, big-endian.

        Raises:
            InvalidData: The byte is not the start of a length.
        """
        if self.end - self.position < MARGIN:
            self.fill()
        buffer, position = self.buffer, self.position
        first = buffer[position]
        if first < 0x40:
            self.position = position + 1
            return first
        if first < 0x80:
            self.position = position + 2
            return (first & 0x3F) << 8 | buffer[position + 1]
        if first > 0x81:
            raise InvalidData(self.offset, f"0x{first:02x} is not the start of a length")
        size = 4 if first == 0x80 else 8
        self.position = position + 1 + size
        return int.from_bytes(buffer[position + 1 : position + 1 + size], "big")

    def strings(self, count: int, trailer: int = 0) -> None:
        """Skip ``count`` strings, each followed by ``trailer`` bytes.

        Most of the time of reading a dump is spent in this loop, so it works on local variables.
        ``count`` may be any number that a file claims: each turn moves on by at least one byte.

        Raises:
            UnexpectedEnd, InvalidData.
        """
        buffer, position, safe = self.buffer, self.position, self.end - MARGIN
        while count > 0:
            if position > safe:
                self.position = position
                self.fill()
                position, safe = self.position, self.end - MARGIN
            first = buffer[position]
            if first < 0x40:
                position += 1 + first + trailer
            elif first < 0x80:
                position += 2 + ((first & 0x3F) << 8 | buffer[position + 1]) + trailer
            else:
                self.position = position
                self._skip_long_string(first)
                position = self.position + trailer
                safe = self.end - MARGIN
            count -= 1
        self.position = position

    def _skip_long_string(self, first: int) -> None:
        """Skip a string with a 32- or 64-bit length, an integer, or a compressed string."""
        if first in {0xC0, 0xC1, 0xC2}:
            self.position += 1 + (1 << (first - 0xC0))
        elif first == 0xC3:
            packed, _ = self._lzf_lengths()
            self.position += packed
        else:
            size = self.length()  # moves the position, so call it first
            self.position += size

    def _lzf_lengths(self) -> tuple[int, int]:
        """Read the packed and the expanded size of a compressed string."""
        start = self.offset
        self.position += 1
        packed, expanded = self.length(), self.length()
        if not 0 < expanded <= packed * MOST_LZF_GROWTH and not self.is_overrun:
            raise InvalidData(start, f"{packed} compressed bytes cannot hold {expanded}")
        return packed, expanded

    def string(self, most: int) -> bytes | None:
        """Read and expand a string of up to ``most`` bytes; skip a longer one and return None.

        Raises:
            UnexpectedEnd, InvalidData.
        """
        if self.at_end():
            raise UnexpectedEnd(self.offset, "the file ends")
        start, first = self.offset, self.buffer[self.position]
        if first in {0xC0, 0xC1, 0xC2}:
            self.position += 1
            return b"%d" % self.integer(1 << (first - 0xC0))
        if first == 0xC3:
            packed, expanded = self._lzf_lengths()
            if max(packed, expanded) <= most:
                return self._expanded(start, self.take(packed), expanded)
            self.position += packed
            return None
        size = self.length()
        if size <= most:
            return self.take(size)
        self.position += size
        return None

    @staticmethod
    def _expanded(start: int, packed: bytes, size: int) -> bytes:
        try:
            return expand_lzf(packed, size)
        except ValueError as error:
            raise InvalidData(start, f"a compressed string cannot be expanded: {error}") from None
