"""Reads the commands of an AOF: RESP arrays with annotations between them (Redis, aof.c)."""

from typing import Final

from archiver.rdb.contents import CommandLog
from archiver.rdb.window import MARGIN, InvalidData, UnexpectedEnd, Window

COMMAND: Final = ord("*")
ANNOTATION: Final = ord("#")
_ARGUMENT = ord("$")
_CRLF = b"\r\n"
_CR, _LF = _CRLF
_ZERO = ord("0")
_MOST_HEADER_BYTES = 24  # a sign, a number of 64 bits, CR LF
_MOST_ANNOTATION_BYTES = 1024  # a server's limit
_MOST_WORD_BYTES = 32
_MOST_DATABASES = 1024


class CommandReader:
    """Reads commands from the window's position to the end of the stream."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._commands = 0
        self._good_commands = 0
        self._databases: set[int] = set()
        self._good_until = window.offset
        self._timestamp: int | None = None
        self._in_transaction = False

    def read(self) -> None:
        """Read to the end.

        Raises:
            ParseError: A command is cut short or malformed.
        """
        window = self._window
        while not window.at_end():
            sign = window.buffer[window.position]
            if sign == COMMAND:
                self._command()
            elif sign == ANNOTATION:
                self._annotation()
            else:
                raise InvalidData(window.offset, f"byte 0x{sign:02x} is not the start of a command")
            if not self._in_transaction:
                self._good_until = window.offset
                self._good_commands = self._commands
        if self._in_transaction:
            raise UnexpectedEnd(window.offset, "a transaction has no EXEC")

    def log(self) -> CommandLog:
        """Return what was counted so far."""
        return CommandLog(
            self._good_commands, tuple(sorted(self._databases)), self._good_until, self._timestamp
        )

    def _command(self) -> None:
        start = self._window.offset
        count = self._header(COMMAND)
        if count == 0:
            raise InvalidData(start, "a command without a name")
        name = self._word().upper()
        if name == b"SELECT" and count == 2:
            self._select(start)
        else:
            self._arguments(count - 1)
        if name == b"MULTI":
            self._in_transaction = True
        elif name == b"EXEC":
            self._in_transaction = False
        self._commands += 1

    def _select(self, start: int) -> None:
        number = self._word()
        if not number.isdigit():
            raise InvalidData(start, "SELECT without a database number")
        if len(self._databases) < _MOST_DATABASES:
            self._databases.add(int(number))

    def _annotation(self) -> None:
        """Read ``#TS:<seconds>``; skip any other annotation."""
        window = self._window
        line = bytearray()
        start = window.offset
        while not line.endswith(_CRLF):
            if len(line) > _MOST_ANNOTATION_BYTES:
                raise InvalidData(start, "an annotation does not end")
            line.append(window.byte())
        seconds = line[4:-2]
        if line.startswith(b"#TS:") and seconds.isdigit() and len(seconds) < 20:
            self._timestamp = int(seconds)

    def _header(self, sign: int) -> int:
        """Read ``sign``, a number and the end of the line; return the number."""
        window = self._window
        if window.end - window.position < MARGIN:
            window.fill()
        buffer, position = window.buffer, window.position
        # Most numbers have one digit, and need no search.
        digit = buffer[position + 1] - _ZERO
        is_short = buffer[position + 2] == _CR and buffer[position + 3] == _LF
        if is_short and 0 <= digit <= 9 and buffer[position] == sign:
            window.position = position + 4
            return digit
        return self._longer_header(sign)

    def _longer_header(self, sign: int) -> int:
        window, buffer, position = self._window, self._window.buffer, self._window.position
        stop = buffer.find(_CRLF, position, position + _MOST_HEADER_BYTES)
        if position >= window.end or (stop < 0 and window.end - position < _MOST_HEADER_BYTES):
            raise UnexpectedEnd(window.offset, "the file ends")
        if stop < 0 or buffer[position] != sign or not buffer[position + 1 : stop].isdigit():
            raise InvalidData(window.offset, f"no number after {chr(sign)!r}")
        window.position = stop + 2
        return int(buffer[position + 1 : stop])

    def _word(self) -> bytes:
        """Read an argument; return it empty if it is longer than any that we look for."""
        window = self._window
        size = self._header(_ARGUMENT)
        stop = window.position + size
        if size <= _MOST_WORD_BYTES and self._ends_at(stop):
            word = bytes(window.buffer[window.position : stop])
            window.position = stop + 2
            return word
        word = b""
        if size <= _MOST_WORD_BYTES:
            word = window.take(size)
        else:
            window.skip(size)
        self._line_end()
        return word

    def _ends_at(self, stop: int) -> bool:
        """Whether the window has an argument that ends at ``stop``, and its CR LF."""
        window, buffer = self._window, self._window.buffer
        return stop + 2 <= window.end and buffer[stop] == _CR and buffer[stop + 1] == _LF

    def _line_end(self) -> None:
        offset = self._window.offset
        if self._window.take(2) != _CRLF:
            raise InvalidData(offset, "an argument does not have the length that precedes it")

    def _arguments(self, count: int) -> None:
        """Skip ``count`` arguments. Most of the time of reading a log is spent here."""
        window, buffer = self._window, self._window.buffer
        while count > 0:
            size = self._header(_ARGUMENT)
            stop = window.position + size
            # The same as _ends_at, without the call.
            if stop + 2 <= window.end and buffer[stop] == _CR and buffer[stop + 1] == _LF:
                window.position = stop + 2
            else:
                window.skip(size)
                self._line_end()
            count -= 1
