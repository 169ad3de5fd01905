"""One HTTP/1.1 connection, for GETs whose answers say their length.

Worker threads read from it into the caller's blocks: receiving, and for https decrypting, then
lets go of the interpreter lock, so that several connections use several cores. Measured beside
aiohttp's body path in benchmarks/README.md.
"""

import contextlib
import math
import select
import socket
import ssl
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import httptools

from archiver import proxies
from archiver.errors import SourceError, SourceUnavailable, UnsafeInput
from archiver.network import CONNECT_SECONDS, Address, dial, is_metadata, resolve
from archiver.proxies import Proxy
from archiver.transfer.limits import LeastRate, Pulse

# An object store's first byte takes far less; what follows is held to the least rate.
ANSWER_SECONDS = 15.0
_SLOW_SECONDS = 0.5
_HEAD_BLOCK = 16 * 1024
_MOST_HEAD_BYTES = 64 * 1024
# A read or write is tried before it is waited for: of small objects, most is there already.
_NOT_YET = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_GIVEN_UP = "the connection was given up"


@dataclass(frozen=True, slots=True)
class Place:
    """Where to connect. ``host`` without brackets."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """For the Host header (RFC 9110 §7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.scheme == "https" else 80
        return host if self.port == default else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Head:
    """The status and header fields of an answer, names in lower case."""

    status: int
    fields: Mapping[str, str]
    keeps_alive: bool


class NotHttp(Exception):
    """What came is no answer that can be read."""


class Wire:
    """A connection; all methods but ``interrupt`` block, within the times set here.

    They raise OSError, ssl.SSLError, NotHttp, SourceUnavailable when nothing more comes, what a
    proxy's refusal means, and UnsafeInput for a place that must not be asked."""

    def __init__(
        self,
        place: Place,
        least: LeastRate,
        tls: ssl.SSLContext | None,
        proxy: Proxy | None = None,
    ) -> None:
        self.place: Final = place
        self.proxy: Final = proxy
        self._least: Final = least
        self._tls: Final = tls
        self._socket: socket.socket | None = None
        self._interrupted = False
        self._early = memoryview(b"")  # what of the body came with the head
        self._failure: Exception | None = None
        self._pulse = Pulse(least)

    @property
    def connected(self) -> bool:
        return self._socket is not None and not self._interrupted

    @property
    def is_quiet(self) -> bool:
        """Whether nothing came that nobody asked for. The end of a connection is readable, too;
        and what is left of an answer must never be taken for the next one."""
        if self._socket is None or self._early:
            return False
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            return False
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return not poll.poll(0)

    def connect(self) -> None:
        """Dial the place, or the proxy on the way there, and secure the way."""
        try:
            addresses = list(self._addresses())
        except (OSError, UnicodeError) as error:
            raise self._unreachable(error) from None
        while True:
            address = self._dial(addresses)
            try:
                self._check()
                if self._tls is not None:
                    self._tunnel()
                    self._secure(self._tls)
            except OSError as error:
                self.close()
                addresses.remove(address)
                if isinstance(error, ssl.SSLError) or not addresses:
                    raise
            except BaseException:
                self.close()
                raise
            else:
                return

    def _addresses(self) -> Iterable[Address]:
        """Where to dial. The API's word is not enough to ask a metadata service: what it tells is
        for this machine alone, and a name may stand for it."""
        peer = self.proxy or self.place
        found = resolve(peer.host, peer.port, self._check)
        if self.proxy is None and any(is_metadata(address[4][0]) for address in found):
            raise UnsafeInput(f"{self.place.authority} is a link-local or metadata address")
        return found

    def _dial(self, addresses: Sequence[Address]) -> Address:
        try:
            self._socket, address = dial(addresses, self._check)
        except OSError as error:
            raise self._unreachable(error) from None
        return address

    def _unreachable(self, error: Exception) -> Exception:
        """What went wrong before there was a connection; for a proxy, in its name."""
        if self.proxy is None or self._interrupted:
            return error
        return proxies.unreachable(self.proxy, getattr(error, "strerror", None) or str(error))

    def _tunnel(self) -> None:
        """Have the proxy connect us to the place."""
        if self.proxy is None:
            return
        host = f"[{self.place.host}]" if ":" in self.place.host else self.place.host
        where = f"{host}:{self.place.port}"
        self._transmit(f"CONNECT {where} HTTP/1.1", {"Host": where, **self.proxy.headers})
        head = self.head()
        if not 200 <= head.status < 300:
            raise proxies.refusal(self.proxy, head.status, where)
        if self._early:
            raise NotHttp(f"the proxy {self.proxy} says more than was asked")

    def _secure(self, tls: ssl.SSLContext) -> None:
        plain = self._open
        plain.settimeout(CONNECT_SECONDS)
        # Ours before the handshake, so that an interruption reaches it.
        self._socket = secured = tls.wrap_socket(
            plain, server_hostname=self.place.host, do_handshake_on_connect=False
        )
        self._check()
        secured.do_handshake()
        secured.settimeout(0.0)

    def ask(self, target: str, headers: Mapping[str, str]) -> Head:
        """Send a GET and read the head of the answer."""
        self.send(target, headers)
        return self.head()

    def send(self, target: str, headers: Mapping[str, str]) -> None:
        """Send a GET; :meth:`head` reads the head of its answer."""
        if self.proxy is not None and self._tls is None:
            # A proxy forwards what it is asked for with the whole URL (RFC 9112 §3.2.2).
            target = f"http://{self.place.authority}{target}"
            headers = {**headers, **self.proxy.headers}
        self._transmit(f"GET {target} HTTP/1.1", {"Host": self.place.authority, **headers})

    def _transmit(self, first: str, headers: Mapping[str, str]) -> None:
        lines = [first, *(f"{name}: {value}" for name, value in headers.items())]
        request = memoryview("\r\n".join([*lines, "", ""]).encode("ascii"))
        until = time.monotonic() + min(ANSWER_SECONDS, self._least.window)
        while request:
            try:
                request = request[self._open.send(request) :]
            except _NOT_YET as error:
                self._wait(error, until, select.POLLOUT)

    def head(self, until: float = math.inf) -> Head:
        """The head of the answer to what was sent; all of it, before ``until``."""
        until = min(until, time.monotonic() + min(ANSWER_SECONDS, self._least.window))
        received, piece = bytearray(), bytearray(_HEAD_BLOCK)
        while (end := received.find(b"\r\n\r\n")) < 0:
            if len(received) > _MOST_HEAD_BYTES:
                raise NotHttp("the head of the answer does not end")
            size = self._receive(memoryview(piece), until)
            if size == 0:
                raise ConnectionResetError("closed without an answer")
            received += piece[:size]
        self._early = memoryview(bytes(received[end + 4 :]))
        self._pulse = Pulse(self._least)
        return _parse_head(bytes(received[: end + 4]))

    def read(self, block: memoryview, most: int, until: float = math.inf) -> int:
        """Fill ``block``, with at most ``most`` bytes of the body; how many that were. Fewer than
        there is room for when they come slowly, so that progress is seen. Before ``until``."""
        began = time.monotonic()
        wanted = block[:most]
        filled = min(len(self._early), len(wanted))
        wanted[:filled] = self._early[:filled]
        self._early = self._early[filled:]
        if self._failure is not None:
            raise self._failure
        while filled < len(wanted):
            try:
                filled += self._read_some(wanted[filled:], until)
                if time.monotonic() - began > _SLOW_SECONDS:
                    break
            except (OSError, SourceError) as error:
                if filled == 0:
                    raise
                self._failure = error  # for the next call: what came is not thrown away
                break
        return filled

    def _read_some(self, block: memoryview, until: float) -> int:
        began = time.monotonic()
        size = self._receive(block, min(until, began + self._least.window))
        if size == 0:
            raise SourceUnavailable(
                f"{self.place.authority}: the answer ended early{proxies.via(self.proxy)}"
            )
        self._pulse.beat(time.monotonic() - began, size)
        return size

    def _receive(self, block: memoryview, until: float) -> int:
        """What there is, or comes before ``until``; 0 at the end of the connection."""
        while True:
            if time.monotonic() >= until:
                raise TimeoutError
            try:
                return self._open.recv_into(block)
            except _NOT_YET as error:
                self._wait(error, until, select.POLLIN)

    def _wait(self, error: OSError, until: float, event: int) -> None:
        """Until the socket is ready for what it was not; TLS may want the other direction."""
        if isinstance(error, ssl.SSLWantReadError):
            event = select.POLLIN
        elif isinstance(error, ssl.SSLWantWriteError):
            event = select.POLLOUT
        poll = select.poll()
        poll.register(self._open, event)
        if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
            raise TimeoutError

    def interrupt(self) -> None:
        """Wake whoever is blocked in a call of this connection; from another thread."""
        self._interrupted = True
        opened = self._socket  # that thread may close it meanwhile
        if opened is not None:
            with contextlib.suppress(OSError):
                # Not SSLSocket's own, after which ciphertext would be read as if it was the body.
                socket.socket.shutdown(opened, socket.SHUT_RDWR)

    def _check(self) -> None:
        if self._interrupted:
            raise ConnectionAbortedError(_GIVEN_UP)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    @property
    def _open(self) -> socket.socket:
        if self._socket is None or self._interrupted:
            raise ConnectionAbortedError(_GIVEN_UP)
        return self._socket


class _HeadFields:
    """Takes what the parser finds."""

    __slots__ = ("fields", "whole")

    def __init__(self) -> None:
        self.fields: Final[dict[str, str]] = {}
        self.whole = False

    def on_header(self, name: bytes, value: bytes) -> None:
        # Blanks after a value, which the parser leaves there, are no part of it (RFC 9112 §5).
        self.fields[name.decode("ascii").lower()] = value.decode("latin-1").strip(" \t")

    def on_headers_complete(self) -> None:
        self.whole = True


def _parse_head(head: bytes) -> Head:
    """Read a head, its empty line included. Raises NotHttp, also for a length given twice, or
    beside another framing, either of which could be meant."""
    found = _HeadFields()
    parser = httptools.HttpResponseParser(found)
    try:
        parser.feed_data(head[:-1])
        # At the end of an answer without a body it forgets what the head said of this.
        keeps_alive = parser.should_keep_alive()
        parser.feed_data(head[-1:])
    except httptools.HttpParserError as error:
        raise NotHttp(f"the answer is not HTTP: {error}") from None
    except httptools.HttpParserUpgrade:
        raise NotHttp("the answer changes to another protocol") from None
    status = parser.get_status_code()
    if status < 200 or not found.whole:
        raise NotHttp("the answer does not begin with a response")
    return Head(status, found.fields, keeps_alive=keeps_alive)
