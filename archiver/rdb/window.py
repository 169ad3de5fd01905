"""A window that slides over a stream once: lengths and strings of the RDB format, and the CRC-64.

One reused buffer holds the window. Skipping moves the position, past the window's end if need be;
the bytes in between are read and checksummed block by block, and never held. Behind the last byte
of the stream lie MARGIN zeros, so that a header can be read without asking byte by byte whether
it is all there: whoever read into the zeros stands beyond the end, and is told so by the next
:meth:`Window.fill`.
"""

from collections.abc import Container
from dataclasses import dataclass
from typing import Final, Protocol

from anycrc import Model

from archiver.rdb.fault import Damaged, Ended
from archiver.rdb.packed import MOST_LZF_GROWTH, expand_lzf

BLOCK_SIZE: Final = 2**20
MARGIN: Final = 64  # bytes; more than any header that is read in one go
FOOTER_BYTES: Final = 8
EOF_OPCODE: Final = 0xFF

_CRC64_REDIS = Model("CRC64-REDIS")
_TAIL_BYTES = 1 + FOOTER_BYTES  # kept at hand: the EOF opcode and the footer of an RDB


class Readable(Protocol):
    """A blocking stream, such as io.RawIOBase or io.BufferedIOBase."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Put bytes at the front of ``buffer``; how many, 0 at the end of the stream."""


@dataclass(frozen=True, slots=True)
class Ending:
    """The last nine bytes of a stream of ``size`` bytes, and the CRC-64 of all before the footer.

    ``mark`` is the byte where an RDB has its EOF opcode; None if the stream is shorter than that.
    """

    size: int
    mark: int | None
    written: int
    computed: int

    @property
    def agrees(self) -> bool:
        """Whether the stream ends as an RDB with a checksum, and the checksum is right.

        Zeros do not count: they stand for "no checksum", and a CRC-64 that starts at zero stays
        zero over zeros that were appended to a whole file.
        """
        return self.mark == EOF_OPCODE and self.written != 0 and self.written == self.computed

    @property
    def has_no_checksum(self) -> bool:
        """Whether the stream ends as an RDB of a server that computes none."""
        return self.mark == EOF_OPCODE and self.written == 0


class Window:
    """A stream from its first byte on, ``block_size`` bytes at a time."""

    def __init__(self, stream: Readable, block_size: int = BLOCK_SIZE) -> None:
        self._stream = stream
        self._capacity: Final = max(block_size, 2 * MARGIN)
        self.buffer: Final = bytearray(self._capacity + MARGIN)
        self._view: Final = memoryview(self.buffer)
        self._base = 0  # the offset of buffer[0] in the stream
        self._crc = 0  # of everything before buffer[0]
        self.position = 0  # in the buffer
        self.end = 0  # of the bytes in the buffer
        self.ended = False  # the stream has no more

    @property
    def offset(self) -> int:
        """Where in the stream the next byte lies."""
        return self._base + self.position

    @property
    def is_overrun(self) -> bool:
        """The position lies beyond the last byte of the stream."""
        return self.ended and self.position > self.end

    def fill(self, need: int = MARGIN) -> None:
        """Bring ``need`` bytes (MARGIN at most) into the window, or all that are left.

        Raises:
            Ended: the position lies beyond the end of the stream.
            OSError: from the stream.
        """
        while not self.ended and self.end - self.position < need:
            self._slide()
        if self.position > self.end:
            raise Ended(self._base + self.end, "the file ends")

    def _slide(self) -> None:
        """Checksum and drop what lies behind, read on."""
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
        """Whether no byte is left.

        Raises:
            Ended: the position lies beyond the end already.
        """
        self.fill(1)
        return self.position >= self.end

    def next_is(self, values: Container[int]) -> bool:
        """Whether the next byte, not read yet, is one of ``values``."""
        return not self.at_end() and self.buffer[self.position] in values

    def checksum(self) -> int:
        """CRC-64/Jones of everything before the position."""
        crc: int = _CRC64_REDIS.calc(self._view[: self.position], self._crc)
        return crc

    def drain(self) -> Ending:
        """Read to the end, whatever the rest is."""
        while not self.ended:
            self.position = self.end
            self._slide()
        cut = max(0, self.end - FOOTER_BYTES)
        computed: int = _CRC64_REDIS.calc(self._view[:cut], self._crc)
        written = int.from_bytes(self._view[cut : self.end], "little")
        mark = self.buffer[cut - 1] if cut else None
        return Ending(self._base + self.end, mark, written, computed)

    def byte(self) -> int:
        """The next byte.

        Raises:
            Ended: there is none.
        """
        if self.position >= self.end and self.at_end():
            raise Ended(self.offset, "the file ends")
        self.position += 1
        return self.buffer[self.position - 1]

    def skip(self, count: int) -> None:
        """Pass over ``count`` bytes; whether they are there shows at the next read."""
        self.position += count

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes, which the caller has bounded.

        Raises:
            Ended: fewer are left.
        """
        pieces = []
        while count:
            if self.at_end():
                raise Ended(self.offset, "the file ends")
            stop = min(self.position + count, self.end)
            pieces.append(bytes(self._view[self.position : stop]))
            count -= stop - self.position
            self.position = stop
        return b"".join(pieces)

    def integer(self, size: int) -> int:
        """A signed little-endian number of ``size`` bytes."""
        if self.end - self.position < MARGIN:
            self.fill()
        position = self.position
        self.position = position + size
        return int.from_bytes(self.buffer[position : position + size], "little", signed=True)

    def length(self) -> int:
        """A length or number of rdbSaveLen: 6, 14, 32 or 64 bits, the longer ones big-endian.

        Raises:
            Damaged: the byte begins no length.
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
            raise Damaged(self.offset, f"0x{first:02x} begins no length")
        size = 4 if first == 0x80 else 8
        self.position = position + 1 + size
        return int.from_bytes(buffer[position + 1 : position + 1 + size], "big")

    def strings(self, count: int, trailer: int = 0) -> None:
        """Skip ``count`` strings, each with ``trailer`` bytes behind it.

        The loop that most of a dump is spent in: it works on local variables, and ``count`` may be
        any number that a file claims, for each turn moves on by a byte at least.

        Raises:
            Ended, Damaged.
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
        """A string with a 32- or 64-bit length, an integer, or one that is compressed."""
        if first in {0xC0, 0xC1, 0xC2}:
            self.position += 1 + (1 << (first - 0xC0))
        elif first == 0xC3:
            packed, _ = self._lzf_lengths()
            self.position += packed
        else:
            size = self.length()  # which moves the position: not to be read before
            self.position += size

    def _lzf_lengths(self) -> tuple[int, int]:
        """The sizes of a compressed string, packed and expanded."""
        start = self.offset
        self.position += 1
        packed, expanded = self.length(), self.length()
        if not 0 < expanded <= packed * MOST_LZF_GROWTH and not self.is_overrun:
            raise Damaged(start, f"{packed} compressed bytes cannot hold {expanded}")
        return packed, expanded

    def string(self, most: int) -> bytes | None:
        """A string of up to ``most`` bytes, expanded; None (skipped) for a longer one.

        Raises:
            Ended, Damaged.
        """
        if self.at_end():
            raise Ended(self.offset, "the file ends")
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
            raise Damaged(start, f"a compressed string does not expand: {error}") from None
