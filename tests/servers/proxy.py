"""A proxy in threads: CONNECT and the absolute form, with a user and password where it wants them.

It counts what went through, and can be told to refuse, to hang up, or to ask for a password.
"""

import base64
import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_HOP = (b"proxy-authorization", b"proxy-connection", b"connection", b"keep-alive")


@dataclass
class Proxy:
    """``refuses`` is a status to answer everything with; ``hangs_up`` answers nothing at all.

    ``tunnels`` are the targets of CONNECT, ``forwarded`` the URLs of what came in the absolute
    form, without their query; ``hosts`` are names that it knows, with where they lead."""

    user: str | None = None
    password: str = ""
    refuses: int | None = None
    hangs_up: bool = False
    hosts: dict[str, int] = field(default_factory=dict)
    tunnels: list[str] = field(default_factory=list)
    forwarded: list[str] = field(default_factory=list)
    denied: int = 0
    bytes_back: int = 0

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """Without its user and password."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def url_with_password(self) -> str:
        return f"http://{self.user}:{self.password}@127.0.0.1:{self.port}"

    @property
    def count(self) -> int:
        """Requests that went through."""
        return len(self.tunnels) + len(self.forwarded)

    @contextlib.contextmanager
    def serving(self) -> Iterator["Proxy"]:
        self._start(self._accept)
        try:
            yield self
        finally:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            for one in list(self._sockets):
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            for thread in list(self._threads):
                thread.join(10.0)

    def _start(self, work: object, *args: object) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            upstream: tuple[str, socket.socket] | None = None
            try:
                while (head := _head(client)) is not None:
                    lines = head.split(b"\r\n")
                    method, target, _ = lines[0].split(b" ")
                    if self.hangs_up:
                        return
                    status = self._status(lines)
                    if status is not None:
                        what = f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n"
                        client.sendall(what.encode())
                        return
                    if method == b"CONNECT":
                        self._tunnel(client, target.decode())
                        return
                    upstream = self._forward(client, upstream, method, target.decode(), lines)
            finally:
                if upstream is not None:
                    upstream[1].close()

    def _status(self, lines: list[bytes]) -> int | None:
        if self.user is not None:
            pair = base64.b64encode(f"{self.user}:{self.password}".encode())
            if b"proxy-authorization: basic " + pair.lower() not in [one.lower() for one in lines]:
                self.denied += 1
                return 407
        return self.refuses

    def _dial(self, host: str, port: int) -> socket.socket:
        upstream = socket.create_connection(("127.0.0.1", self.hosts.get(host, port)), 10.0)
        self._sockets.append(upstream)
        return upstream

    def _tunnel(self, client: socket.socket, target: str) -> None:
        host, _, port = target.rpartition(":")
        with self._dial(host.strip("[]"), int(port)) as upstream:
            self.tunnels.append(target)
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=self._pipe, args=(upstream, client), daemon=True)
            back.start()
            with contextlib.suppress(OSError):
                while data := client.recv(65536):
                    upstream.sendall(data)
            with contextlib.suppress(OSError):
                upstream.shutdown(socket.SHUT_RDWR)
            back.join(10.0)

    def _pipe(self, upstream: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := upstream.recv(65536):
                with self._lock:
                    self.bytes_back += len(data)
                client.sendall(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)

    def _forward(
        self,
        client: socket.socket,
        upstream: tuple[str, socket.socket] | None,
        method: bytes,
        target: str,
        lines: list[bytes],
    ) -> tuple[str, socket.socket]:
        """One request in the absolute form, and its answer; bodies only with a length."""
        split = urlsplit(target)
        self.forwarded.append(f"{split.scheme}://{split.netloc}{split.path}")
        if upstream is None or upstream[0] != split.netloc:
            if upstream is not None:
                upstream[1].close()
            upstream = split.netloc, self._dial(split.hostname or "", split.port or 80)
        path = f"{split.path or '/'}{'?' if split.query else ''}{split.query}"
        kept = [line for line in lines[1:] if line.lower().partition(b":")[0] not in _HOP]
        first = b" ".join((method, path.encode(), b"HTTP/1.1"))
        upstream[1].sendall(b"\r\n".join([first, *[one for one in kept if one], b"", b""]))
        head = _head(upstream[1])
        if head is None:
            raise ConnectionResetError
        client.sendall(head)
        left = _length(head)
        while left > 0 and (data := upstream[1].recv(min(left, 65536))):
            left -= len(data)
            with self._lock:
                self.bytes_back += len(data)
            client.sendall(data)
        if left > 0:
            raise ConnectionResetError
        return upstream


def _head(peer: socket.socket) -> bytes | None:
    """A head with the empty line at its end; byte by byte, so that nothing behind it is taken."""
    received = bytearray()
    while not received.endswith(b"\r\n\r\n"):
        piece = peer.recv(1)
        if not piece:
            return None
        received += piece
    return bytes(received)


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    return 0
