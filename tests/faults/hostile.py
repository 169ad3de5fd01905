"""An object server that keeps to HTTP only as far as it is told to."""

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from itertools import count

from fastcrc import crc64

_RANGE = re.compile(rb"\r\nRange: bytes=(\d+)-(\d+)", re.IGNORECASE)
_IF_MATCH = re.compile(rb"\r\nIf-Match: (\S+)", re.IGNORECASE)


@dataclass(frozen=True)
class Asked:
    """A request, and what an honest answer to it would be."""

    start: int
    stop: int
    data: bytes
    etag: str
    crc: int
    number: int

    @property
    def body(self) -> bytes:
        return self.data[self.start : self.stop]

    def answer(
        self, body: bytes | None = None, status: str = "206 Partial Content", **changed: object
    ) -> bytes:
        """The honest answer with fields changed; None takes one away."""
        body = self.body if body is None else body
        fields: dict[str, object] = {
            "Content-Length": len(body),
            "Content-Range": f"bytes {self.start}-{self.stop - 1}/{len(self.data)}",
            "ETag": self.etag,
            "x-oss-hash-crc64ecma": self.crc,
        }
        fields |= {name.replace("_", "-"): value for name, value in changed.items()}
        lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
        return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode() + body


# Writes an answer; what it raises, or returning True, ends the connection.
Fault = Callable[[Asked, asyncio.StreamWriter], "object"]


@dataclass
class Hostile:
    """Serves ``data``; request number n (from 0) meets ``faults[n]``, or an honest answer."""

    data: bytes
    faults: dict[int, Fault] = field(default_factory=dict)
    always: Fault | None = None
    etag: str = '"E1"'
    port: int = 0
    requests: int = 0
    bodies: int = 0

    @contextlib.asynccontextmanager
    async def serve(self, tls: ssl.SSLContext | None = None) -> AsyncIterator["Hostile"]:
        talks: set[asyncio.Task[None]] = set()
        numbers = count()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            talks.add(asyncio.current_task())  # type: ignore[arg-type]
            try:
                while await self._one(reader, writer, numbers.__next__):
                    pass
            except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=tls)
        async with server:
            self.port = server.sockets[0].getsockname()[1]
            yield self
            for task in talks:
                task.cancel()
            await asyncio.gather(*talks, return_exceptions=True)

    async def _one(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: Callable[[], int]
    ) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        self.requests += 1
        span = _RANGE.search(head)
        start, stop = (int(span[1]), int(span[2]) + 1) if span else (0, len(self.data))
        asked = Asked(start, stop, self.data, self.etag, crc64.xz(self.data), number())
        wanted = _IF_MATCH.search(head)
        if wanted and wanted[1].decode() != self.etag:
            writer.write(b"HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\n\r\n")
            return True
        fault = self.faults.get(asked.number, self.always)
        if fault is not None:
            ends = fault(asked, writer)
            if asyncio.iscoroutine(ends):
                ends = await ends
            await writer.drain()
            return not ends
        self.bodies += len(asked.body)
        writer.write(asked.answer())
        await writer.drain()
        return True
