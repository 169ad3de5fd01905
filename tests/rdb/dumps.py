"""Dumps made by hand, and real ones from a server that lives for one test."""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from anycrc import Model

from archiver.rdb import Inspection, inspect

CRC = Model("CRC64-REDIS")


def sealed(body: bytes, magic: bytes = b"REDIS0011") -> bytes:
    """A dump of these records, with its EOF opcode and a right checksum."""
    data = magic + body + b"\xff"
    return data + int(CRC.calc(data)).to_bytes(8, "little")


def length(number: int) -> bytes:
    """As rdbSaveLen writes it."""
    if number < 2**6:
        return bytes([number])
    if number < 2**14:
        return (0x4000 | number).to_bytes(2, "big")
    if number < 2**32:
        return b"\x80" + number.to_bytes(4, "big")
    return b"\x81" + number.to_bytes(8, "big")


def string(data: bytes) -> bytes:
    return length(len(data)) + data


def inspected(data: bytes, block_size: int = 256) -> Inspection:
    """Inspected in small blocks, so that everything lies across an edge sooner or later."""
    return inspect(BytesIO(data), block_size=block_size)


class Server:
    """Just enough of a client; commands as words."""

    def __init__(self, line: socket.socket, directory: Path) -> None:
        self.directory = directory
        self._socket = line
        self._lines = line.makefile("rb")

    def __call__(self, *words: object) -> Any:
        """The answer. Raises RuntimeError for an error."""
        encoded = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        self._socket.sendall(b"*%d\r\n" % len(encoded) + b"".join(map(_bulk, encoded)))
        return self._answer()

    def _answer(self) -> Any:
        line = self._lines.readline()
        sign, rest = line[:1], line[1:-2]
        if sign == b"-":
            raise RuntimeError(rest.decode())
        if sign == b"$":
            return None if rest == b"-1" else self._lines.read(int(rest) + 2)[:-2]
        if sign == b"*":
            return [self._answer() for _ in range(int(rest))]
        return int(rest) if sign == b":" else rest

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


def _bulk(word: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(word), word)


@contextmanager
def running(binary: Path, *options: str) -> Iterator[Server]:
    """A server without a port, in a directory of its own."""
    with TemporaryDirectory(prefix="rdb-") as name:
        directory = Path(name)
        path = directory / "s"
        arguments = ["--port", "0", "--unixsocket", str(path), "--dir", name, "--save", ""]
        with subprocess.Popen(
            [str(binary), *arguments, "--enable-debug-command", "yes", *options],
            stdout=subprocess.DEVNULL,
        ) as process:
            try:
                server = Server(_connected(path), directory)
                yield server
                server.close()
            finally:
                process.kill()


def _connected(path: Path) -> socket.socket:
    """A connection to a server that was just started: its socket has a name before it listens."""
    for _ in range(1000):
        line = socket.socket(socket.AF_UNIX)
        try:
            line.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            line.close()
            time.sleep(0.01)
        else:
            return line
    raise TimeoutError(f"nobody listens at {path}")
