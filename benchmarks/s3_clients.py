"""Ways to bring a file from http to S3, side by side: two of 512 MiB, in parts of 16 MiB.

The source is on loopback and from memory. What they upload to is a sink that answers as S3 does
and keeps nothing, or SeaweedFS, where the server is the limit: compare the CPU there. Each
run is a fresh process; runs are interleaved.

    python -m benchmarks.s3_clients [--runs 2] [--megabytes 512] [--to sink,seaweedfs]
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import multiprocessing
import os
import queue
import re
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from fastcrc import crc64

MIB = 2**20
PART = 16 * MIB
LANES = 4
FILES = 2
BUCKET = "bench"
KEY_ID, SECRET, REGION = "AKIAWRITERWRITERWRIT", "secret-of-the-writer", "us-east-1"
_END = b"\r\n\r\n"
# The sink's ETag: it hashes nothing.
_NO_DIGEST = "0" * 32


@dataclass(frozen=True, slots=True)
class Job:
    """Files ``0`` … below ``source``, each of ``size`` bytes, to ``endpoint``."""

    source: str
    endpoint: str
    size: int

    @property
    def parts(self) -> list[tuple[int, int, int]]:
        """Number, start and stop (excluded) of each part."""
        starts = range(0, self.size, PART)
        return [(n, start, min(start + PART, self.size)) for n, start in enumerate(starts, 1)]


# The clients. Each imports what it needs only when it runs.


def with_aiobotocore(job: Job) -> None:
    """aiohttp reads a part, aiobotocore sends it. Over plain http it hashes what it signs."""
    import aiohttp
    from aiobotocore.config import AioConfig
    from aiobotocore.session import get_session

    async def run() -> None:
        config = AioConfig(
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        access = {"aws_access_key_id": KEY_ID, "aws_secret_access_key": SECRET}
        async with (
            aiohttp.ClientSession(read_bufsize=MIB) as session,
            get_session().create_client(
                "s3", endpoint_url=job.endpoint, region_name=REGION, config=config, **access
            ) as s3,
        ):
            await asyncio.gather(*(file(session, s3, n) for n in range(FILES)))

    async def file(session: aiohttp.ClientSession, s3: Any, number: int) -> None:
        named = {"Bucket": BUCKET, "Key": f"{number}"}
        named["UploadId"] = (await s3.create_multipart_upload(**named))["UploadId"]
        left, parts = iter(job.parts), []

        async def lane() -> None:
            for part, start, stop in left:
                ranges = {"Range": f"bytes={start}-{stop - 1}"}
                async with session.get(f"{job.source}{number}", headers=ranges) as answer:
                    data = await answer.read()
                await asyncio.to_thread(crc64.xz, data)
                sent = await s3.upload_part(**named, PartNumber=part, Body=data)
                parts.append({"PartNumber": part, "ETag": sent["ETag"]})

        await asyncio.gather(*(lane() for _ in range(LANES // FILES)))
        parts.sort(key=lambda part: part["PartNumber"])
        await s3.complete_multipart_upload(**named, MultipartUpload={"Parts": parts})

    asyncio.run(run())


def with_obstore(job: Job) -> None:
    """A stream from its own http store into its own S3 store; no CRC on the way."""
    import obstore
    from obstore.store import HTTPStore, S3Store

    async def run() -> None:
        source = HTTPStore.from_url(job.source, client_options={"allow_http": True})
        target = S3Store(
            BUCKET,
            endpoint=job.endpoint,
            region=REGION,
            access_key_id=KEY_ID,
            secret_access_key=SECRET,
            virtual_hosted_style_request=False,
            client_options={"allow_http": True},
        )

        async def file(number: int) -> None:
            stream = await obstore.get_async(source, f"{number}")
            await obstore.put_async(
                target, f"{number}", stream, chunk_size=PART, max_concurrency=LANES // FILES
            )

        await asyncio.gather(*(file(n) for n in range(FILES)))

    asyncio.run(run())


def with_threads(job: Job) -> None:
    """Blocking sockets, a reused buffer for each thread, botocore's signer alone."""
    ByHand(job, signer(), with_md5=False).run()


def with_threads_and_md5(job: Job) -> None:
    """The same, and an MD5 of each part, which the answer's ETag must be."""
    ByHand(job, signer(), with_md5=True).run()


Sign = Callable[[str, str], Mapping[str, str]]


def signer() -> Sign:
    """Gives the header fields for a method and a URL."""
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    class Unsigned(S3SigV4Auth):  # type: ignore[misc]
        """The payload is not hashed for the signature, over plain http neither."""

        def payload(self, request: AWSRequest) -> str:
            return "UNSIGNED-PAYLOAD"

    auth = Unsigned(Credentials(KEY_ID, SECRET), "s3", REGION)

    def sign(method: str, url: str) -> Mapping[str, str]:
        request = AWSRequest(method, url)
        auth.add_auth(request)
        return dict(request.headers.items())

    return sign


class ByHand:
    """A multipart upload of each file, its parts on as many threads as there are lanes."""

    def __init__(self, job: Job, sign: Sign, *, with_md5: bool) -> None:
        self._job = job
        self._sign = sign
        self._with_md5 = with_md5
        self._todo: queue.SimpleQueue[tuple[int, str, tuple[int, int, int]]] = queue.SimpleQueue()
        self._done: dict[int, dict[int, str]] = {n: {} for n in range(FILES)}

    def run(self) -> None:
        with Connection(self._job.endpoint) as target:
            uploads = [self._create(target, number) for number in range(FILES)]
            for part in self._job.parts:
                for number, upload in enumerate(uploads):
                    self._todo.put((number, upload, part))
            threads = [threading.Thread(target=self._lane) for _ in range(LANES)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            for number, upload in enumerate(uploads):
                self._complete(target, number, upload)

    def _lane(self) -> None:
        buffer = memoryview(bytearray(min(PART, self._job.size)))
        with (
            Connection(self._job.source) as source,
            Connection(self._job.endpoint) as target,
            contextlib.suppress(queue.Empty),
        ):
            while True:
                number, upload, part = self._todo.get_nowait()
                self._carry(source, target, number, upload, part, buffer)

    def _carry(
        self,
        source: "Connection",
        target: "Connection",
        number: int,
        upload: str,
        part: tuple[int, int, int],
        buffer: memoryview,
    ) -> None:
        index, start, stop = part
        source.send("GET", f"/{number}", {"Range": f"bytes={start}-{stop - 1}"})
        data = buffer[: source.answer()[1]]
        source.fill(data)
        crc64.xz(data)
        digest = hashlib.md5(data).hexdigest() if self._with_md5 else None
        path = f"/{BUCKET}/{number}?partNumber={index}&uploadId={upload}"
        etag = _found(rb"(?i)\r\netag: (\S+)", self._ask(target, "PUT", path, data))
        if digest is not None and etag.strip('"') not in {digest, _NO_DIGEST}:
            raise RuntimeError(f"part {index} came as another")
        self._done[number][index] = etag

    def _create(self, target: "Connection", number: int) -> str:
        answer = self._ask(target, "POST", f"/{BUCKET}/{number}?uploads=")
        return _found(rb"<UploadId>(.*?)<", answer)

    def _complete(self, target: "Connection", number: int, upload: str) -> None:
        parts = "".join(
            f"<Part><PartNumber>{index}</PartNumber><ETag>{etag}</ETag></Part>"
            for index, etag in sorted(self._done[number].items())
        )
        body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
        self._ask(target, "POST", f"/{BUCKET}/{number}?uploadId={upload}", body)

    def _ask(
        self, target: "Connection", method: str, path: str, body: bytes | memoryview = b""
    ) -> bytes:
        """The head and the body of the answer."""
        target.send(method, path, self._sign(method, f"{self._job.endpoint}{path}"), body)
        head, length = target.answer()
        answer = bytearray(length)
        target.fill(memoryview(answer))
        return head + _END + answer


CLIENTS: Mapping[str, tuple[Callable[[Job], None], str]] = {
    "aiobotocore": (with_aiobotocore, "import aiohttp, aiobotocore.session"),
    "obstore": (with_obstore, "from obstore.store import HTTPStore, S3Store"),
    "threads, signed by hand": (
        with_threads,
        "import botocore.auth, botocore.awsrequest, botocore.credentials",
    ),
    "threads, and MD5": (
        with_threads_and_md5,
        "import botocore.auth, botocore.awsrequest, botocore.credentials",
    ),
}


class Connection:
    """As much of HTTP/1.1 as the servers here speak, over a blocking socket."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host = parts.netloc
        self._socket = socket.create_connection((parts.hostname, parts.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._ahead = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(
        self, method: str, path: str, fields: Mapping[str, str], body: bytes | memoryview = b""
    ) -> None:
        given = {"Host": self._host, "Content-Length": f"{len(body)}", **fields}
        lines = [f"{method} {path} HTTP/1.1", *(f"{n}: {v}" for n, v in given.items()), "", ""]
        self._socket.sendall("\r\n".join(lines).encode())
        self._socket.sendall(body)

    def answer(self) -> tuple[bytes, int]:
        """The head, and the length of the body that follows."""
        head = self._ahead
        while _END not in head:
            data = self._socket.recv(64 * 1024)
            if not data:
                raise EOFError
            head += data
        head, _, self._ahead = head.partition(_END)
        if not head.startswith(b"HTTP/1.1 2"):
            raise RuntimeError(head.decode() + self._ahead.decode())
        return head, int(_found(rb"(?i)\r\ncontent-length: (\d+)", head))

    def fill(self, block: memoryview) -> None:
        taken = min(len(block), len(self._ahead))
        block[:taken] = self._ahead[:taken]
        self._ahead = self._ahead[taken:]
        while taken < len(block):
            size = self._socket.recv_into(block[taken:])
            if not size:
                raise EOFError
            taken += size


# The servers


def serve(talk: Callable[[socket.socket], None], ports: Any) -> None:
    """A thread for each connection; runs until it is killed."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        ports.put(server.getsockname()[1])
        while True:
            client, _ = server.accept()
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=talk, args=(client,), daemon=True).start()


class Source:
    """Answers any GET, with its Range or without, from one block of memory."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __call__(self, client: socket.socket) -> None:
        block = memoryview(hashlib.shake_256(b"source").digest(MIB))
        with client, contextlib.suppress(OSError):
            while head := _read_head(client)[0]:
                span = re.search(rb"(?i)\r\nrange: bytes=(\d+)-(\d+)", head)
                start, stop = (int(span[1]), int(span[2]) + 1) if span else (0, self._size)
                status = "206 Partial Content" if span else "200 OK"
                ranges = f"Content-Range: bytes {start}-{stop - 1}/{self._size}\r\n" if span else ""
                client.sendall(
                    f'HTTP/1.1 {status}\r\nContent-Length: {stop - start}\r\nETag: "E"\r\n'
                    f"{ranges}Last-Modified: Tue, 24 Nov 2026 00:00:00 GMT\r\n\r\n".encode()
                )
                while start < stop:
                    piece = block[start % MIB :][: stop - start]
                    client.sendall(piece)
                    start += len(piece)


def sink(client: socket.socket) -> None:
    """What S3 answers to the calls of a multipart upload; the bytes go nowhere."""
    block = memoryview(bytearray(MIB))
    with client, contextlib.suppress(OSError):
        while True:
            head, ahead = _read_head(client)
            if not head:
                return
            if b"100-continue" in head:
                client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
            left = int(length[1]) - len(ahead) if length else 0
            while left > 0:
                left -= client.recv_into(block[: min(left, MIB)])
            answer = b""
            if head.startswith(b"POST"):
                name = b"Initiate" if b"?uploads" in head else b"Complete"
                answer = (
                    b"<%sMultipartUploadResult><Bucket>b</Bucket><Key>k</Key><UploadId>u</UploadId>"
                    b"<ETag>&quot;e-1&quot;</ETag></%sMultipartUploadResult>" % (name, name)
                )
            client.sendall(
                b'HTTP/1.1 200 OK\r\nETag: "%s"\r\nContent-Length: %d\r\n\r\n%s'
                % (_NO_DIGEST.encode(), len(answer), answer)
            )


def _read_head(client: socket.socket) -> tuple[bytes, bytes]:
    """The head and what came with it; empty at the end."""
    head = b""
    while _END not in head:
        data = client.recv(64 * 1024)
        if not data:
            return b"", b""
        head += data
    head, _, ahead = head.partition(_END)
    return head + b"\r\n", ahead


def _found(pattern: bytes, text: bytes) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise RuntimeError(text.decode(errors="replace"))
    return found[1].decode()


# The measuring


@contextlib.contextmanager
def server(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """One of the servers above in a process of its own; gives its address."""
    context = multiprocessing.get_context("spawn")
    ports = context.Queue()
    process = context.Process(target=serve, args=(talk, ports), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ports.get(timeout=30)}/"
    finally:
        process.kill()
        process.join()


@contextlib.contextmanager
def seaweed() -> Iterator[tuple[str, Callable[[], None]]]:
    """SeaweedFS, and what empties it for the next run."""
    from tests.servers.seaweedfs import seaweedfs

    with tempfile.TemporaryDirectory() as folder, seaweedfs(Path(folder)) as running:
        running.make_bucket(BUCKET)

        def empty() -> None:
            running.remove_bucket(BUCKET)
            running.make_bucket(BUCKET)

        yield running.endpoint, empty


def one_run(name: str, job: Job) -> dict[str, float]:
    """In this process: wall and CPU seconds per GB, MB, and seconds of importing."""
    client, imports = CLIENTS[name]
    started = time.perf_counter()
    exec(imports, {})
    imported = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_SELF)
    client(job)
    wall = time.perf_counter() - imported
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cpu = usage.ru_utime + usage.ru_stime - before.ru_utime - before.ru_stime
    return {
        "wall": wall,
        "cpu": cpu / (FILES * job.size / 1e9),
        "rss": usage.ru_maxrss * 1024 / 1e6,
        "import": imported - started,
    }


def measure(target: str, endpoint: str, source: str, options: argparse.Namespace) -> None:
    for _ in range(options.runs):
        for name in CLIENTS:
            job = [source, endpoint, str(options.megabytes * MIB)]
            command = [sys.executable, "-m", "benchmarks.s3_clients", "--one", name, *job]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            got = json.loads(done.stdout)
            print(
                f"| {target} | {name} | {got['wall']:.1f} | {got['cpu']:.2f} | {got['rss']:.0f} "
                f"| {got['import']:.2f} |",
                flush=True,
            )
            options.empty()


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        name, source, endpoint, size = sys.argv[2:]
        print(json.dumps(one_run(name, Job(source, endpoint.rstrip("/"), int(size)))), flush=True)
        os._exit(0)  # obstore's threads abort the interpreter's own way out
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--megabytes", type=int, default=512)
    parser.add_argument("--to", default="sink,seaweedfs")
    options = parser.parse_args()
    print("| to | client | wall s | CPU s/GB | RSS MB | import s |\n|---|---|---|---|---|---|")
    with server(Source(options.megabytes * MIB)) as source:
        if "sink" in options.to:
            options.empty = lambda: None
            with server(sink) as endpoint:
                measure("sink", endpoint, source, options)
        if "seaweedfs" in options.to:
            with seaweed() as (endpoint, options.empty):
                measure("SeaweedFS", endpoint, source, options)


if __name__ == "__main__":
    main()
