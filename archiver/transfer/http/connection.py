"""One HTTP/1.1 connection, for GET requests whose responses declare their length.

Worker threads read from it into the caller's buffers. Receiving, and decrypting for https, then
releases the interpreter lock, so that several connections use several cores.
benchmarks/README.md compares this with aiohttp.
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

from archiver import proxies
from archiver.errors import SourceError, SourceUnavailable, UnsafeInput
from archiver.logs import Request
from archiver.network import (
    CONNECT_SECONDS,
    Address,
    connect,
    failure_in_words,
    is_metadata,
    resolve,
)
from archiver.proxies import Proxy
from archiver.retry import RETRIES
from archiver.transfer.http.head import MalformedResponse, ResponseHead, parse_head
from archiver.transfer.limits import MinimumRate, StallDetector

# An object store sends its first byte far sooner; the minimum rate applies to what follows.
RESPONSE_SECONDS = RETRIES.http_request.timeout
# A read returns what it has after this long, so that slow progress is visible.
_SLOW_READ_SECONDS = 0.5
_HEAD_READ_BYTES = 16 * 1024
_MAX_HEAD_BYTES = 64 * 1024
# Reads and writes are tried before they are waited for: small objects have mostly arrived.
_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_INTERRUPTED = "the connection was interrupted"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server to connect to. ``host`` has no brackets around an IPv6 address."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """Host and port as the Host header has them (RFC 9110 §7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.scheme == "https" else 80
        return host if self.port == default else f"{host}:{self.port}"


class HttpConnection:
    """One connection. All methods but ``interrupt`` block, within the timeouts set here.

    They raise OSError, ssl.SSLError, MalformedResponse, SourceUnavailable when the response ends
    early, the error of :func:`archiver.proxies.refusal` when a proxy refuses, and UnsafeInput for
    an endpoint that must not be contacted.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        minimum: MinimumRate,
        tls: ssl.SSLContext | None,
        proxy: Proxy | None = None,
    ) -> None:
        self.endpoint: Final = endpoint
        self.proxy: Final = proxy
        self._minimum: Final = minimum
        self._tls: Final = tls
        self._socket: socket.socket | None = None
        self._interrupted = False
        self._received = memoryview(b"")  # the start of the body, received along with the head
        self._failure: Exception | None = None
        self._stall = StallDetector(minimum)
        self._request: Request | None = None  # the current one, if requests are logged

    @property
    def is_connected(self) -> bool:
        return self._socket is not None and not self._interrupted

    @property
    def is_reusable(self) -> bool:
        """Whether there is nothing to read. A closed connection is readable, too, and the rest of
        one response must never be taken for the next."""
        if self._socket is None or self._received:
            return False
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            return False
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return not poll.poll(0)

    def connect(self) -> None:
        """Connect to the endpoint, or to the proxy in front of it, and set up TLS."""
        self._request = Request.begun("CONNECT", self.endpoint.authority, "")
        try:
            self._connect_and_secure()
        except BaseException as error:
            self.log_end(error)
            raise
        self._request = None  # only requests over the connection are logged

    def _connect_and_secure(self) -> None:
        try:
            addresses = list(self._addresses())
        except (OSError, UnicodeError) as error:
            raise self._unreachable(error) from None
        while True:
            address = self._connect_to(addresses)
            try:
                self._raise_if_interrupted()
                if self._tls is not None:
                    self._open_tunnel()
                    self._start_tls(self._tls)
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
        """The addresses to connect to.

        Metadata services are refused here because they answer with this machine's secrets, and a
        host name in a download URL may resolve to one.
        """
        peer = self.proxy or self.endpoint
        found = resolve(peer.host, peer.port, self._raise_if_interrupted)
        if self.proxy is None and any(is_metadata(address[4][0]) for address in found):
            raise UnsafeInput(f"{self.endpoint.authority} is a link-local or metadata address")
        return found

    def _connect_to(self, addresses: Sequence[Address]) -> Address:
        try:
            self._socket, address = connect(addresses, self._raise_if_interrupted)
        except OSError as error:
            raise self._unreachable(error) from None
        return address

    def _unreachable(self, error: Exception) -> Exception:
        """The error for a failed connect; it names the proxy where there is one."""
        if self.proxy is None or self._interrupted:
            return error
        return proxies.unreachable(self.proxy, failure_in_words(error))

    def _open_tunnel(self) -> None:
        """Ask the proxy to connect to the endpoint."""
        if self.proxy is None:
            return
        host = f"[{self.endpoint.host}]" if ":" in self.endpoint.host else self.endpoint.host
        where = f"{host}:{self.endpoint.port}"
        self._send_request(f"CONNECT {where} HTTP/1.1", {"Host": where, **self.proxy.headers})
        head = self.read_head()
        if not 200 <= head.status < 300:
            raise proxies.refusal(self.proxy, head.status, where)
        if self._received:
            raise MalformedResponse(f"the proxy {self.proxy} sent data after its response")

    def _start_tls(self, tls: ssl.SSLContext) -> None:
        plain = self._open_socket
        plain.settimeout(CONNECT_SECONDS)
        # Stored before the handshake, so that an interruption reaches it.
        self._socket = secured = tls.wrap_socket(
            plain, server_hostname=self.endpoint.host, do_handshake_on_connect=False
        )
        self._raise_if_interrupted()
        secured.do_handshake()
        secured.settimeout(0.0)

    def request(self, target: str, headers: Mapping[str, str]) -> ResponseHead:
        """Send a GET request and read the head of its response."""
        self.send(target, headers)
        return self.read_head()

    def send(self, target: str, headers: Mapping[str, str]) -> None:
        """Send a GET request; :meth:`read_head` reads the head of its response."""
        authority = self.endpoint.authority
        self._request = Request.begun("GET", authority, target)
        if self.proxy is not None and self._tls is None:
            # A proxy forwards a request whose target is the whole URL (RFC 9112 §3.2.2).
            target = f"http://{authority}{target}"
            headers = {**headers, **self.proxy.headers}
        try:
            self._send_request(f"GET {target} HTTP/1.1", {"Host": authority, **headers})
        except BaseException as error:
            self.log_end(error)
            raise

    def _send_request(self, first: str, headers: Mapping[str, str]) -> None:
        lines = [first, *(f"{name}: {value}" for name, value in headers.items())]
        request = memoryview("\r\n".join([*lines, "", ""]).encode("ascii"))
        until = time.monotonic() + min(RESPONSE_SECONDS, self._minimum.window)
        while request:
            try:
                request = request[self._open_socket.send(request) :]
            except _WOULD_BLOCK as error:
                self._wait(error, until, select.POLLOUT)

    def read_head(self, until: float = math.inf) -> ResponseHead:
        """Read the head of the response, before ``until`` on the monotonic clock."""
        try:
            head = self._receive_head(until)
        except BaseException as error:
            self.log_end(error)
            raise
        if self._request is not None:
            self._request.status = head.status
        return head

    def _receive_head(self, until: float) -> ResponseHead:
        until = min(until, time.monotonic() + min(RESPONSE_SECONDS, self._minimum.window))
        received, piece = bytearray(), bytearray(_HEAD_READ_BYTES)
        while (end := received.find(b"\r\n\r\n")) < 0:
            if len(received) > _MAX_HEAD_BYTES:
                raise MalformedResponse("the response head is too long")
            size = self._receive(memoryview(piece), until)
            if size == 0:
                raise ConnectionResetError("closed without a response")
            received += piece[:size]
        self._received = memoryview(bytes(received[end + 4 :]))
        self._stall = StallDetector(self._minimum)
        return parse_head(bytes(received[: end + 4]))

    def read(self, buffer: memoryview, limit: int, until: float = math.inf) -> int:
        """Read at most ``limit`` bytes of the body into ``buffer``, before ``until``.

        Returns their number: fewer than fit when they arrive slowly, so that progress is visible.
        """
        began = time.monotonic()
        wanted = buffer[:limit]
        filled = min(len(self._received), len(wanted))
        wanted[:filled] = self._received[:filled]
        self._received = self._received[filled:]
        if self._failure is not None:
            raise self._failure
        while filled < len(wanted):
            try:
                filled += self._read_some(wanted[filled:], until)
                if time.monotonic() - began > _SLOW_READ_SECONDS:
                    break
            except (OSError, SourceError) as error:
                if filled == 0:
                    self.log_end(error)
                    raise
                self._failure = error  # raised by the next call: this one returns what arrived
                break
        if self._request is not None:
            self._request.size += filled
        return filled

    def _read_some(self, buffer: memoryview, until: float) -> int:
        began = time.monotonic()
        size = self._receive(buffer, min(until, began + self._minimum.window))
        if size == 0:
            raise SourceUnavailable(
                f"{self.endpoint.authority}: the response ended early{proxies.via(self.proxy)}"
            )
        self._stall.record(time.monotonic() - began, size)
        return size

    def _receive(self, buffer: memoryview, until: float) -> int:
        """Receive what is there, or arrives before ``until``; returns 0 when the connection ended.
        Raises TimeoutError."""
        while True:
            if time.monotonic() >= until:
                raise TimeoutError
            try:
                return self._open_socket.recv_into(buffer)
            except _WOULD_BLOCK as error:
                self._wait(error, until, select.POLLIN)

    def _wait(self, error: OSError, until: float, event: int) -> None:
        """Wait until the socket is ready for ``event``; TLS may need the other direction."""
        if isinstance(error, ssl.SSLWantReadError):
            event = select.POLLIN
        elif isinstance(error, ssl.SSLWantWriteError):
            event = select.POLLOUT
        poll = select.poll()
        poll.register(self._open_socket, event)
        if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
            raise TimeoutError

    def interrupt(self) -> None:
        """Wake a thread that is blocked in a method of this connection; called by another one."""
        self._interrupted = True
        opened = self._socket  # that thread may close it at any time
        if opened is not None:
            with contextlib.suppress(OSError):
                # Not SSLSocket.shutdown: after it, ciphertext would be read as if it were the body.
                socket.socket.shutdown(opened, socket.SHUT_RDWR)

    def _raise_if_interrupted(self) -> None:
        if self._interrupted:
            raise ConnectionAbortedError(_INTERRUPTED)

    def log_end(self, error: BaseException | None = None) -> None:
        """Log the current request, whose response was read or failed with ``error``."""
        if self._request is not None:
            self._request.ended(error or self._failure)
            self._request = None

    def close(self) -> None:
        """Close the connection; it may be connected again."""
        self.log_end()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    @property
    def _open_socket(self) -> socket.socket:
        if self._socket is None or self._interrupted:
            raise ConnectionAbortedError(_INTERRUPTED)
        return self._socket
