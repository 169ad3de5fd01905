"""Names into addresses, addresses into connections, and whom TLS trusts.

The system's resolver cannot be interrupted. It is asked in threads that nobody waits for, so that
an interruption, or the end of the process, need not wait for it either.
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
from archiver.stray_characters import clean_variable

CONNECT_SECONDS: Final = 10.0
# A next address is tried beside one that has not answered so soon (RFC 8305, section 5).
_NEXT_SECONDS: Final = 0.25
# Somebody may give up while we wait: we look so often.
_LOOK_SECONDS: Final = 0.1
# Where clouds hand out credentials and secrets of a machine to whoever asks from there.
_METADATA: Final = frozenset(
    map(ipaddress.ip_address, ("100.100.100.200", "169.254.169.254", "fd00:ec2::254"))
)

# The hint where a certificate is not good.
TRUST_OTHERS: Final = "SSL_CERT_FILE names other authorities to trust"

# What socket.getaddrinfo gives.
Address = tuple[int, int, int, str, Any]
# Raises what ends the work, when somebody has given it up.
Check = Callable[[], None]


def is_metadata(host: str) -> bool:
    """Whether an address is a metadata service's, or link-local, in whatever form it is written."""
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
    """The addresses of a host. Blocks; raises OSError, UnicodeError, and what ``check`` raises."""
    try:
        return _ask(host, port, socket.AI_NUMERICHOST)
    except socket.gaierror:
        found = lookup(host, port)
    until = time.monotonic() + seconds
    while not found.done():
        check()
        if time.monotonic() >= until:
            raise TimeoutError(f"no address of {host} was found in {seconds:.0f} s")
        concurrent.futures.wait([found], _LOOK_SECONDS)
    return found.result()


_lookups: Final[dict[tuple[str, int], "concurrent.futures.Future[Sequence[Address]]"]] = {}
_looking: Final = threading.Lock()


def lookup(host: str, port: int) -> "concurrent.futures.Future[Sequence[Address]]":
    """The addresses of a host, in time. Those who ask for the same wait for one answer: a dead
    resolver holds no more threads than there are hosts."""
    with _looking:
        found = _lookups.get((host, port))
        if found is None:
            found = _lookups[host, port] = concurrent.futures.Future()
            found.set_running_or_notify_cancel()  # nobody can cancel it for the others
            threading.Thread(
                target=_look_up, args=(host, port, found), name="lookup", daemon=True
            ).start()
    return found


def _look_up(host: str, port: int, found: "concurrent.futures.Future[Sequence[Address]]") -> None:
    addresses: Sequence[Address] = ()
    failure: BaseException | None = None
    try:
        addresses = _ask(host, port)
    except BaseException as error:  # noqa: BLE001 - raised where it is waited for
        failure = error
    with _looking:
        del _lookups[host, port]
    if failure is None:
        found.set_result(addresses)
    else:
        found.set_exception(failure)


def _ask(host: str, port: int, flags: int = 0) -> Sequence[Address]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)


def dial(
    addresses: Sequence[Address], check: Check, seconds: float = CONNECT_SECONDS
) -> tuple[socket.socket, Address]:
    """A connection that does not block, and the address it is to: the first that takes one.

    A dead address costs a quarter of a second, not the whole wait: the next is tried beside it.
    Blocks; raises OSError, and what ``check`` raises.
    """
    race = _Race(addresses, time.monotonic() + seconds)
    try:
        while race.goes_on:
            check()
            race.begin_next()
            if (first := race.first()) is not None:
                return first
        raise race.failure
    finally:
        race.close()


class _Race:
    """Attempts at several addresses, each begun while those before it have not answered."""

    def __init__(self, addresses: Sequence[Address], until: float) -> None:
        self.failure: OSError = OSError("no address")
        self._waiting: Final = _alternating(addresses)
        self._begun: Final[dict[int, tuple[socket.socket, Address]]] = {}
        self._poll: Final = select.poll()
        self._until: Final = until
        self._next_at = 0.0

    @property
    def goes_on(self) -> bool:
        return bool(self._waiting or self._begun)

    def begin_next(self) -> None:
        """Begin at the next address, when it is time to; one after the other where they fail."""
        while self._waiting and (not self._begun or time.monotonic() >= self._next_at):
            address = self._waiting.pop(0)
            self._next_at = time.monotonic() + _NEXT_SECONDS
            try:
                self._begin(address)
            except OSError as error:
                self.failure = error

    def _begin(self, address: Address) -> None:
        family, kind, protocol, _, where = address
        attempt = socket.socket(family, kind, protocol)
        self._begun[attempt.fileno()] = attempt, address
        try:
            attempt.settimeout(0.0)
            attempt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            attempt.connect(where)
        except BlockingIOError:
            pass
        except OSError:
            self._drop(attempt)
            raise
        self._poll.register(attempt, select.POLLOUT)

    def first(self) -> tuple[socket.socket, Address] | None:
        """The first that is connected by now; waits for it a moment."""
        now = time.monotonic()
        if now >= self._until:
            raise TimeoutError("no connection in time")
        wait = min(_LOOK_SECONDS, self._until - now)
        if self._waiting:
            wait = min(wait, max(0.0, self._next_at - now))
        for number, _ in self._poll.poll(wait * 1000 + 1) if self._begun else ():
            attempt, address = self._begun[number]
            code = attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self._poll.unregister(attempt)
            if code == 0:
                del self._begun[number]
                return attempt, address
            self.failure = OSError(code, os.strerror(code))
            self._drop(attempt)
        return None

    def _drop(self, attempt: socket.socket) -> None:
        del self._begun[attempt.fileno()]
        attempt.close()

    def close(self) -> None:
        for attempt, _ in self._begun.values():
            attempt.close()


def _alternating(addresses: Sequence[Address]) -> list[Address]:
    """One of each family in turn, beginning with the first one's: a family may be dead as such."""
    own = [address for address in addresses if address[0] == addresses[0][0]]
    others = [address for address in addresses if address[0] != addresses[0][0]]
    pairs = chain.from_iterable(zip_longest(own, others))
    return [address for address in pairs if address is not None]


def tls_context() -> ssl.SSLContext:
    """Trust in the system's authorities, or those of SSL_CERT_FILE.

    Raises UsageError when none can be read from that: OpenSSL would pass over it in silence.
    """
    return _trusting("SSL_CERT_FILE", clean_variable(os.environ, "SSL_CERT_FILE"), _folder())


def check_authorities(file: str, variable: str) -> str:
    """``file``, which ``variable`` names. Raises UsageError when no certificates are in it."""
    _trusting(variable, file, _folder())
    return file


def _folder() -> str | None:
    return clean_variable(os.environ, "SSL_CERT_DIR")


@lru_cache(4)
def _trusting(variable: str, named: str | None, _: str | None) -> ssl.SSLContext:
    """One for all: reading the authorities takes some hundredths of a second. OpenSSL itself looks
    at SSL_CERT_FILE and SSL_CERT_DIR."""
    context = ssl.create_default_context()
    if named:
        try:
            context.load_verify_locations(cafile=named)
        except OSError as error:  # ssl.SSLError is one
            why = os.strerror(error.errno) if error.errno and error.errno > 0 else ""
            why = "it holds no certificates" if isinstance(error, ssl.SSLError) else why
            raise UsageError(
                f"{variable}: {named}: {why}", hint="name a file of certificates in PEM"
            ) from None
    return context
