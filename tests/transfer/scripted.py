"""A server in threads, on raw sockets, that answers to the letter what it is told to."""

import contextlib
import socket
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from archiver.secret import SignedUrl

# Bytes to send; None hangs up; or something of its own, after which it hangs up if that is True.
Reply = bytes | None | Callable[["Talk"], bool | None]


def body(number: int) -> bytes:
    """What lies under ``number``: each its own bytes, in one of three sizes."""
    return bytes([number % 251]) * (1000, 70_000, 13)[number % 3]


def answer(data: bytes, status: str = "200 OK", **headers: object) -> bytes:
    named = {"Content-Length": len(data)} | {k.replace("_", "-"): v for k, v in headers.items()}
    lines = [f"{name}: {value}" for name, value in named.items() if value is not None]
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode() + data


@dataclass
class Talk:
    """One request on one connection; both numbered from 0."""

    connection: int
    number: int
    peer: socket.socket

    @property
    def honest(self) -> bytes:
        return answer(body(self.number))


class Scripted:
    """``replies`` holds what comes for a number before the honest answer does, one each time."""

    def __init__(self) -> None:
        self.replies: dict[int, list[Reply]] = defaultdict(list)
        # Requests as they came: which connection, which number.
        self.asked: list[tuple[int, int]] = []
        self.ended: set[int] = set()
        # Nothing is answered before.
        self.may_answer = threading.Event()
        self.may_answer.set()
        self._changed = threading.Condition()
        self._peers: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]

    @property
    def connections(self) -> int:
        return len(self._peers)

    def url(self, number: int) -> SignedUrl:
        return SignedUrl.parse(f"http://127.0.0.1:{self.port}/{number}?Signature=SECRET")

    def urls(self, count: int) -> list[SignedUrl]:
        return [self.url(number) for number in range(count)]

    def until(self, condition: Callable[[], bool]) -> bool:
        """Wait for something to become true here; whether it did."""
        with self._changed:
            return self._changed.wait_for(condition, 10.0)

    def until_asked(self, times: int) -> bool:
        """Wait for so many requests; whether they came."""
        return self.until(lambda: len(self.asked) >= times)

    @contextlib.contextmanager
    def serving(self) -> Iterator["Scripted"]:
        self._start(self._accept)
        try:
            yield self
        finally:
            self.may_answer.set()
            self.refuse()
            for peer in self._peers:
                with contextlib.suppress(OSError):
                    peer.shutdown(socket.SHUT_RDWR)
            for thread in self._threads:
                thread.join(10.0)

    def refuse(self) -> None:
        """No more connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes who accepts
        self._listener.close()

    def _start(self, work: Callable[..., None], *args: object) -> None:
        self._threads.append(threading.Thread(target=work, args=args, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                with self._changed:
                    self._peers.append(peer)
                    self._changed.notify_all()
                self._start(self._talk, len(self._peers) - 1, peer)

    def _talk(self, connection: int, peer: socket.socket) -> None:
        with peer, contextlib.suppress(OSError):
            while (number := _request(peer)) is not None:
                with self._changed:
                    self.asked.append((connection, number))
                    self._changed.notify_all()
                self.may_answer.wait()
                talk = Talk(connection, number, peer)
                reply = self.replies[number].pop(0) if self.replies[number] else talk.honest
                if callable(reply):
                    if reply(talk):
                        break
                elif reply is None:
                    break
                else:
                    peer.sendall(reply)
        with self._changed:
            self.ended.add(connection)
            self._changed.notify_all()


def _request(peer: socket.socket) -> int | None:
    received = b""
    while b"\r\n\r\n" not in received:
        piece = peer.recv(4096)
        if not piece:
            return None
        received += piece
    path = received.split(b" ")[1]
    return int(path.split(b"?")[0].lstrip(b"/"))
