"""What may stand between a client and an S3 server: a proxy that does to requests what it is told.

It passes every header on as it came, Host too, which is what a signature covers. A gateway lives
in a thread of its own, so that blocking clients may use it from a test's event loop.
"""

import asyncio
import contextlib
import re
import ssl
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

_CHUNK: Final = 64 * 1024
_LINGER: Final = 10.0  # seconds
# By method and, if any, what the query holds; the first that fits.
_KINDS: Final = (
    ("PUT", "partNumber", "UploadPart"),
    ("PUT", "retention", "PutObjectRetention"),
    ("PUT", None, "PutObject"),
    ("POST", "uploads", "CreateMultipartUpload"),
    ("POST", "uploadId", "CompleteMultipartUpload"),
    ("POST", "delete", "DeleteObjects"),
    ("GET", "uploadId", "ListParts"),
    ("GET", "uploads", "ListMultipartUploads"),
    ("GET", "list-type", "ListObjectsV2"),
    ("GET", None, "GetObject"),
    ("HEAD", None, "HeadObject"),
    ("DELETE", "uploadId", "AbortMultipartUpload"),
    ("DELETE", None, "DeleteObject"),
)

Fields = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a request. ``kind`` is the name of the S3 operation."""

    method: str
    target: str
    fields: Fields

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    @property
    def path(self) -> str:
        """With the bucket, when that is not in the host."""
        return unquote(urlsplit(self.target).path)

    @property
    def headers(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.fields}

    @property
    def kind(self) -> str:
        query = self.query
        for method, key, kind in _KINDS:
            if method == self.method and (key is None or key in query):
                if kind == "PutObject" and "x-amz-copy-source" in self.headers:
                    return "CopyObject"
                return kind
        return self.method

    @property
    def part(self) -> int | None:
        number = self.query.get("partNumber")
        return int(number) if number else None


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer; its length is added when it is sent."""

    status: int
    fields: Fields = ()
    body: bytes = b""


def error(status: int, code: str, message: str = "of the gateway", **more: str) -> Answer:
    """An answer as S3 words its errors; ``more`` are further elements."""
    elements = {"Code": code, "Message": message, **more}
    inner = "".join(f"<{name}>{value}</{name}>" for name, value in elements.items())
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inner}</Error>'
    return Answer(status, [("Content-Type", "application/xml")], body.encode())


@dataclass(slots=True)
class Fault:
    """What to do to the next ``times`` requests of ``kind`` (any, if None) that are ``wanted``.

    ``body`` may change a piece of the upload's body: its offset, and the bytes. After ``cut``
    bytes of it both connections end. ``instead`` answers and asks no server (None: nobody does),
    ``early`` before the body came. ``change`` sees the server's answer; None for no answer.
    ``met`` counts.
    """

    kind: str | None = None
    times: int | None = 1
    wanted: Callable[[Request], bool] = lambda _: True
    body: Callable[[int, bytes], bytes] | None = None
    cut: int | None = None
    instead: Callable[[Request], Answer | None] | None = None
    early: bool = False
    change: Callable[[Request, Answer], Answer | None] | None = None
    wait: float = 0.0
    met: int = 0

    def takes(self, request: Request) -> bool:
        if self.kind not in (None, request.kind) or self.times == 0 or not self.wanted(request):
            return False
        self.times = None if self.times is None else self.times - 1
        self.met += 1
        return True


def flip_byte(at: int = 0, *, kind: str = "UploadPart", part: int | None = None) -> Fault:
    """One byte of an upload is another when it comes to the server."""

    def flip(offset: int, data: bytes) -> bytes:
        if not offset <= at < offset + len(data):
            return data
        changed = bytearray(data)
        changed[at - offset] ^= 0xFF
        return bytes(changed)

    return Fault(kind, wanted=_of_part(part), body=flip)


def cut_upload(
    after: int, *, kind: str = "UploadPart", part: int | None = None, times: int | None = 1
) -> Fault:
    """Both connections end after that many bytes of the body."""
    return Fault(kind, times, _of_part(part), cut=after)


def refuse(
    status: int,
    code: str,
    *,
    kind: str | None = None,
    times: int | None = 1,
    early: bool = False,
    **headers: str,
) -> Fault:
    """An error and no server asked; ``early`` before the body came, as a busy S3 does."""
    fields = [(name.replace("_", "-"), value) for name, value in headers.items()]

    def answer(_: Request) -> Answer:
        refused = error(status, code)
        return replace(refused, fields=[*refused.fields, *fields])

    return Fault(kind, times, instead=answer, early=early)


def silence(times: int | None = None, *, kind: str | None = None) -> Fault:
    """The server is asked nothing, and the connection ends without an answer."""
    return Fault(kind, times, instead=lambda _: None)


def slow_down(times: int | None = 1, *, kind: str | None = None, early: bool = False) -> Fault:
    return refuse(503, "SlowDown", kind=kind, times=times, early=early)


def no_space(times: int | None = None, *, code: str = "QuotaExceeded", status: int = 403) -> Fault:
    """A quota or disk that is full, for what writes; others: 507 InsufficientStorage, 507
    XMinioStorageFull, 403 QuotaExceeded (Ceph)."""
    fault = refuse(status, code, times=times)
    fault.wanted = lambda request: request.method in {"PUT", "POST"}
    return fault


def refuse_headers(*patterns: str, times: int | None = None) -> Fault:
    """501 for requests with any of these, as ``x-amz-checksum-*``."""

    def wanted(request: Request) -> bool:
        return any(
            fnmatch(name, pattern.lower()) for name in request.headers for pattern in patterns
        )

    def answer(_: Request) -> Answer:
        return error(501, "NotImplemented", "A header you provided implies functionality that is "
                     "not implemented.")  # fmt: skip

    return Fault(None, times, wanted, instead=answer)


def refuse_chunked() -> Fault:
    """What OSS says to ``aws-chunked`` bodies and to trailers."""

    def wanted(request: Request) -> bool:
        headers = request.headers
        return (
            "aws-chunked" in headers.get("content-encoding", "")
            or headers.get("x-amz-content-sha256", "").startswith("STREAMING-")
            or "x-amz-trailer" in headers
        )

    def answer(_: Request) -> Answer:
        return error(400, "InvalidArgument", "aws-chunked encoding is not supported with the "
                     "specified x-amz-content-sha256 value.", EC="0017-00000804")  # fmt: skip

    return Fault(None, None, wanted, instead=answer)


def empty_etag(kind: str = "CompleteMultipartUpload", times: int | None = 1) -> Fault:
    """Done, and the answer holds an empty ETag, in its header and its body."""

    def change(_: Request, answer: Answer) -> Answer:
        fields = [(n, "" if n.lower() == "etag" else value) for n, value in answer.fields]
        return replace(answer, fields=fields, body=_ETAG.sub(b"<ETag></ETag>", answer.body))

    return Fault(kind, times, change=change)


def error_in_200(code: str = "InternalError", *, done: bool = False) -> Fault:
    """What S3 says when completing takes long and fails: 200, spaces, and an error; with
    ``done``, the server has completed all the same."""

    def answer(_: Request) -> Answer:
        failed = error(200, code)
        return replace(failed, body=failed.body.replace(b"\n", b"\n" + b" " * 20))

    if done:
        return Fault("CompleteMultipartUpload", change=lambda request, _: answer(request))
    return Fault("CompleteMultipartUpload", instead=answer)


def duplicate_parts(times: int | None = None) -> Fault:
    """ListParts names every part twice, first with the ETag of an upload before."""

    def change(_: Request, answer: Answer) -> Answer:
        def twice(part: re.Match[bytes]) -> bytes:
            return _ETAG.sub(b"<ETag>&#34;%s&#34;</ETag>" % (b"0" * 32), part[0]) + part[0]

        return replace(answer, body=_PART.sub(twice, answer.body))

    return Fault("ListParts", times, change=change)


def drop_answer(kind: str, times: int | None = 1) -> Fault:
    """The server has done it; the connection ends and nobody hears."""
    return Fault(kind, times, change=lambda *_: None)


def delay(seconds: float, kind: str, times: int | None = 1) -> Fault:
    """The server has done it; the answer comes late."""
    return Fault(kind, times, change=lambda _, answer: answer, wait=seconds)


def cut_download(after: int, *, kind: str = "GetObject", times: int | None = 1) -> Fault:
    """The answer promises all and ends after that many bytes."""

    def change(_: Request, answer: Answer) -> Answer:
        length = ("Content-Length", str(len(answer.body)))
        return replace(answer, fields=[*answer.fields, length], body=answer.body[:after])

    return Fault(kind, times, change=change)


def flip_download(at: int = 0, *, kind: str = "GetObject") -> Fault:
    """One byte of what is read is another."""

    def change(_: Request, answer: Answer) -> Answer:
        body = bytearray(answer.body)
        body[at] ^= 0xFF
        return replace(answer, body=bytes(body))

    return Fault(kind, change=change)


_ETAG: Final = re.compile(rb"<ETag>.*?</ETag>")
_PART: Final = re.compile(rb"<Part>.*?</Part>", re.DOTALL)


def _of_part(part: int | None) -> Callable[[Request], bool]:
    return lambda request: part in (None, request.part)


@dataclass
class Gateway:
    """``faults`` in order: the first that takes a request is what happens to it.

    ``counts`` are requests by kind, ``bytes_up`` and ``bytes_down`` the bodies' bytes by kind,
    ``requests`` every head with the status it was answered with (0: none).
    """

    upstream: tuple[str, int]
    scheme: str = "http"
    port: int = 0
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[Request, int]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    bytes_up: Counter[str] = field(default_factory=Counter)
    bytes_down: Counter[str] = field(default_factory=Counter)
    continues: bool = True  # answers Expect: 100-continue

    @property
    def endpoint(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def add(self, *faults: Fault) -> Fault:
        """More of them; returns the last, whose ``met`` tells how often it was."""
        self.faults.extend(faults)
        return faults[-1]

    def forget(self) -> None:
        """No faults and no counts."""
        for each in (self.faults, self.requests, self.counts, self.bytes_up, self.bytes_down):
            each.clear()

    async def serve(
        self, stop: asyncio.Event, ready: Callable[[], None], tls: ssl.SSLContext | None
    ) -> None:
        talks: set[asyncio.Task[None]] = set()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            if task is not None:
                talks.add(task)
                task.add_done_callback(talks.discard)
            with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
                while await self._one(reader, writer):
                    pass
            if stop.is_set():
                writer.transport.abort()
            writer.close()

        server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=tls, limit=_CHUNK)
        async with server:
            self.port = server.sockets[0].getsockname()[1]
            ready()
            await stop.wait()
            for task in talks:
                task.cancel()
            await asyncio.gather(*talks, return_exceptions=True)

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether the connection goes on."""
        line, fields = await _head(reader)
        method, target, _ = line.split(" ")
        request = Request(method, target, fields)
        self.counts[request.kind] += 1
        fault = next((fault for fault in self.faults if fault.takes(request)), None)
        answer: Answer | None = None
        try:
            answer = await self._answer(request, fault, reader, writer)
        finally:
            # Before anybody hears of it, and asks here.
            self.requests.append((request, 0 if answer is None else answer.status))
        if answer is None:
            return False
        self.bytes_down[request.kind] += len(answer.body)
        if fault is not None and fault.early:
            last = replace(answer, fields=[*answer.fields, ("Connection", "close")])
            await _send(writer, request, last)
            await _linger(reader)
            return False
        return await _send(writer, request, answer)

    async def _answer(
        self,
        request: Request,
        fault: Fault | None,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> Answer | None:
        """What the client is told, or None for nothing."""
        if fault is not None and fault.instead is not None and fault.early:
            return fault.instead(request)
        if self.continues and request.headers.get("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = _body(reader, request.headers)
        if fault is not None and fault.instead is not None:
            async for _ in body:
                pass
            return fault.instead(request)
        answer = await self._ask(request, body, fault)
        if answer is not None and fault is not None and fault.change is not None:
            answer = fault.change(request, answer)
            await asyncio.sleep(fault.wait)
        return answer

    async def _ask(
        self, request: Request, body: AsyncIterator[bytes], fault: Fault | None
    ) -> Answer | None:
        """The server's answer; None when the connection is to be cut. Raises OSError, EOFError."""
        reader, writer = await asyncio.open_connection(*self.upstream, limit=_CHUNK)
        try:
            fields = [(n, value) for n, value in request.fields if n.lower() != "expect"]
            line = f"{request.method} {request.target} HTTP/1.1"
            writer.write(_bytes_of(line, fields))
            if not await self._pass_up(request, body, fault, writer):
                return None
            return await _read_answer(reader, request.method)
        finally:
            writer.transport.abort()

    async def _pass_up(
        self,
        request: Request,
        body: AsyncIterator[bytes],
        fault: Fault | None,
        writer: asyncio.StreamWriter,
    ) -> bool:
        chunked = "chunked" in request.headers.get("transfer-encoding", "")
        offset = 0
        async for data in body:
            sent = data
            if fault is not None and fault.cut is not None and offset + len(data) >= fault.cut:
                writer.write(data[: fault.cut - offset])
                await writer.drain()
                return False
            if fault is not None and fault.body is not None:
                sent = fault.body(offset, data)
            writer.write(b"%x\r\n%s\r\n" % (len(sent), sent) if chunked else sent)
            await writer.drain()
            offset += len(data)
            self.bytes_up[request.kind] += len(data)
        if chunked:
            writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


@contextlib.contextmanager
def gateway(upstream: int, certificates: Path | None = None) -> Iterator[Gateway]:
    """A gateway to the port of a plain-http server on loopback. With ``certificates``, a folder
    that holds server.pem and server.key, its own side speaks https."""
    tls = None
    if certificates is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    made = Gateway(("127.0.0.1", upstream), "https" if tls else "http")
    with serving(made, tls):
        yield made


@contextlib.contextmanager
def serving(made: Gateway, tls: ssl.SSLContext | None = None) -> Iterator[None]:
    """Runs it in a thread of its own."""
    ready = threading.Event()
    loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def run() -> None:
        stop = asyncio.Event()
        loops.append((asyncio.get_running_loop(), stop))
        await made.serve(stop, ready.set, tls)

    thread = threading.Thread(target=asyncio.run, args=(run(),), name="gateway")
    thread.start()
    if not ready.wait(30):
        raise RuntimeError("the gateway does not start")
    try:
        yield
    finally:
        [(loop, stop)] = loops
        loop.call_soon_threadsafe(stop.set)
        thread.join()


async def _head(reader: asyncio.StreamReader) -> tuple[str, Fields]:
    """The first line, and the fields as they came."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    line, *rest = head[:-4].split("\r\n")
    fields = [field.split(":", 1) for field in rest]
    return line, [(name, value.strip()) for name, value in fields]


def _bytes_of(line: str, fields: Fields) -> bytes:
    lines = [line, *(f"{name}: {value}" for name, value in fields), "", ""]
    return "\r\n".join(lines).encode("latin-1")


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> AsyncIterator[bytes]:
    """A body in pieces, without the framing."""
    if "chunked" in headers.get("transfer-encoding", ""):
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            yield await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readuntil(b"\r\n")
        return
    left = int(headers.get("content-length", 0))
    while left > 0:
        data = await reader.read(min(left, _CHUNK))
        if not data:
            raise EOFError
        left -= len(data)
        yield data


async def _linger(reader: asyncio.StreamReader) -> None:
    """Drops what the client still sends: closing at once would reset the connection, and the
    client might lose an answer that it has not read yet."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER):
            while await reader.read(_CHUNK):
                pass


async def _read_answer(reader: asyncio.StreamReader, method: str) -> Answer:
    status = 100
    fields: Fields = ()
    while status < 200:
        line, fields = await _head(reader)
        status = int(line.split(" ")[1])
    body = b""
    if method != "HEAD" and status not in {204, 304}:
        headers = {name.lower(): value for name, value in fields}
        body = b"".join([piece async for piece in _body(reader, headers)])
        framing = ("content-length", "transfer-encoding")
        fields = [(name, value) for name, value in fields if name.lower() not in framing]
    return Answer(status, fields, body)


async def _send(writer: asyncio.StreamWriter, request: Request, answer: Answer) -> bool:
    """Whether the answer was as long as it promised."""
    fields = list(answer.fields)
    promised = {name.lower(): value for name, value in fields}.get("content-length")
    if promised is None and answer.status not in {204, 304}:
        promised = str(len(answer.body))
        fields.append(("Content-Length", promised))
    reason = next((s.phrase for s in HTTPStatus if s == answer.status), "Status")
    writer.write(_bytes_of(f"HTTP/1.1 {answer.status} {reason}", fields) + answer.body)
    await writer.drain()
    return request.method == "HEAD" or promised in (None, str(len(answer.body)))
