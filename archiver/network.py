"""Resolves host names, connects to the addresses, and makes the TLS context.

The system's resolver cannot be interrupted. It is called in daemon threads, so that neither an
interruption nor the end of the process waits for it.
"""

import concurrent.futures
import ipaddress
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain, zip_longest
from typing import Any, Final

from archiver.errors import UsageError
from archiver.retry import RETRIES
from archiver.stray_characters import clean_variable

CONNECT_SECONDS: Final = RETRIES.connect.timeout
# The next address is tried as well when one has not answered by then (RFC 8305, section 5).
_NEXT_SECONDS: Final = RETRIES.connect.wait
# How often a waiting thread calls ``check``, which may end its wait.
_CHECK_SECONDS: Final = 0.1
# Where clouds give the credentials and secrets of a machine to any process on it.
_METADATA: Final = frozenset(
    map(ipaddress.ip_address, ("100.100.100.200", "169.254.169.254", "fd00:ec2::254"))
)

# The hint for a certificate that is not trusted.
TRUST_HINT: Final = "set SSL_CERT_FILE to trust other authorities"

# An entry of socket.getaddrinfo.
Address = tuple[int, int, int, str, Any]
# Called while waiting; raises when the work was cancelled.
Check = Callable[[], None]


def is_metadata(host: str) -> bool:
    """Whether ``host`` is the address of a metadata service or link-local, in any notation."""
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped or address
    return address.is_link_local or address in _METADATA


def resolve(
    host: str, port: int, check: Check, seconds: float = CONNECT_SECONDS
) -> Sequence[Address]:
    """The addresses of a host, within ``seconds``. Blocks.

    Raises OSError, UnicodeError, and what ``check`` raises.
    """
    try:
        return _getaddrinfo(host, port, socket.AI_NUMERICHOST)
    except socket.gaierror:
        found = lookup(host, port)
    until = time.monotonic() + seconds
    while not found.done():
        check()
        if time.monotonic() >= until:
            raise TimeoutError(f"{host} was not resolved within {seconds:.0f} s")
        concurrent.futures.wait([found], _CHECK_SECONDS)
    return found.result()


_lookups: Final[dict[tuple[str, int], "concurrent.futures.Future[Sequence[Address]]"]] = {}
_lookups_lock: Final = threading.Lock()


def lookup(host: str, port: int) -> "concurrent.futures.Future[Sequence[Address]]":
    """A future of the addresses of a host. Callers that ask for the same host share one lookup, so
    that a dead resolver blocks no more threads than there are hosts."""
    with _lookups_lock:
        found = _lookups.get((host, port))
        if found is None:
            found = _lookups[host, port] = concurrent.futures.Future()
            found.set_running_or_notify_cancel()  # no caller can cancel it for the others
            threading.Thread(
                target=_look_up, args=(host, port, found), name="lookup", daemon=True
            ).start()
    return found


def _look_up(host: str, port: int, found: "concurrent.futures.Future[Sequence[Address]]") -> None:
    addresses: Sequence[Address] = ()
    failure: BaseException | None = None
    try:
        addresses = _getaddrinfo(host, port)
    except BaseException as error:  # noqa: BLE001 - raised to the waiting caller
        failure = error
    with _lookups_lock:
        del _lookups[host, port]
    if failure is None:
        found.set_result(addresses)
    else:
        found.set_exception(failure)


def _getaddrinfo(host: str, port: int, flags: int = 0) -> Sequence[Address]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)


def connect(
    addresses: Sequence[Address], check: Check, seconds: float = CONNECT_SECONDS
) -> tuple[socket.socket, Address]:
    """Connect to the first address that accepts; returns a non-blocking socket and the address.

    A dead address costs a quarter of a second, not the whole timeout: the next one is tried at the
    same time. Blocks; raises OSError, and what ``check`` raises.
    """
    race = _Race(addresses, time.monotonic() + seconds)
    try:
        while race.is_open:
            check()
            race.start_next()
            if (winner := race.winner()) is not None:
                return winner
        raise race.last_error
    finally:
        race.close()


class _Race:
    """Connection attempts at several addresses, each started while those before it are pending."""

    def __init__(self, addresses: Sequence[Address], until: float) -> None:
        self.last_error: OSError = OSError("no address")
        self._untried: Final = _alternating(addresses)
        self._pending: Final[dict[int, tuple[socket.socket, Address]]] = {}
        self._poll: Final = select.poll()
        self._until: Final = until
        self._next_at = 0.0

    @property
    def is_open(self) -> bool:
        return bool(self._untried or self._pending)

    def start_next(self) -> None:
        """Start an attempt at the next address when it is due; and more where they fail at once."""
        while self._untried and (not self._pending or time.monotonic() >= self._next_at):
            address = self._untried.pop(0)
            self._next_at = time.monotonic() + _NEXT_SECONDS
            try:
                self._start(address)
            except OSError as error:
                self.last_error = error

    def _start(self, address: Address) -> None:
        family, kind, protocol, _, target = address
        attempt = socket.socket(family, kind, protocol)
        self._pending[attempt.fileno()] = attempt, address
        try:
            attempt.settimeout(0.0)
            attempt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            attempt.connect(target)
        except BlockingIOError:
            pass
        except OSError:
            self._drop(attempt)
            raise
        self._poll.register(attempt, select.POLLOUT)

    def winner(self) -> tuple[socket.socket, Address] | None:
        """The first attempt that is connected; waits a moment, then returns None."""
        now = time.monotonic()
        if now >= self._until:
            raise TimeoutError("no connection within the timeout")
        wait = min(_CHECK_SECONDS, self._until - now)
        if self._untried:
            wait = min(wait, max(0.0, self._next_at - now))
        for number, _ in self._poll.poll(wait * 1000 + 1) if self._pending else ():
            attempt, address = self._pending[number]
            code = attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self._poll.unregister(attempt)
            if code == 0:
                del self._pending[number]
                return attempt, address
            self.last_error = OSError(code, os.strerror(code))
            self._drop(attempt)
        return None

    def _drop(self, attempt: socket.socket) -> None:
        del self._pending[attempt.fileno()]
        attempt.close()

    def close(self) -> None:
        for attempt, _ in self._pending.values():
            attempt.close()


def _alternating(addresses: Sequence[Address]) -> list[Address]:
    """Alternate between address families, beginning with the first one's: a whole family may be
    unreachable."""
    first = [address for address in addresses if address[0] == addresses[0][0]]
    others = [address for address in addresses if address[0] != addresses[0][0]]
    pairs = chain.from_iterable(zip_longest(first, others))
    return [address for address in pairs if address is not None]


def failure_in_words(error: BaseException) -> str:
    """Why a connection or a request failed, without the name of a class, an address or a URL."""
    error = getattr(error, "os_error", error)  # aiohttp wraps the system's
    number = getattr(error, "errno", None)
    match error:
        case TimeoutError():
            return "it did not answer in time"
        case socket.gaierror() | UnicodeError():
            return "its name cannot be resolved"
        case ssl.SSLError():
            return "the TLS handshake failed"
        case OSError() if number is not None and number > 0:
            return os.strerror(number).lower()
    return "the connection broke off"


def tls_context() -> ssl.SSLContext:
    """A context that trusts the system's authorities, and those of SSL_CERT_FILE.

    Raises UsageError when that file cannot be read, which OpenSSL would ignore silently.
    """
    return _context("SSL_CERT_FILE", clean_variable(os.environ, "SSL_CERT_FILE"), _folder())


def authorities() -> str:
    """Where the authorities are that are trusted."""
    file, default = clean_variable(os.environ, "SSL_CERT_FILE"), ssl.get_default_verify_paths()
    return f"the system and {file}" if file else default.cafile or default.capath or "the system"


def check_authorities(file: str, variable: str) -> str:
    """Returns ``file``, the value of ``variable``. Raises UsageError if it has no certificates."""
    _context(variable, file, _folder())
    return file


def _folder() -> str | None:
    return clean_variable(os.environ, "SSL_CERT_DIR")


@lru_cache(4)
def _context(variable: str, file: str | None, _: str | None) -> ssl.SSLContext:
    """Cached, because loading the authorities takes some hundredths of a second. OpenSSL itself
    reads SSL_CERT_FILE and SSL_CERT_DIR."""
    context = ssl.create_default_context()
    if file:
        try:
            context.load_verify_locations(cafile=file)
        except OSError as error:  # ssl.SSLError is one
            why = os.strerror(error.errno) if error.errno and error.errno > 0 else ""
            why = "it holds no certificates" if isinstance(error, ssl.SSLError) else why
            raise UsageError(
                f"{variable}: {file}: {why}", hint="use a file of certificates in PEM"
            ) from None
    return context
