"""Which proxy to use for a host. Pure.

The variables are those of curl and requests: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY; the
lower-case name has precedence. The connection to the proxy itself is plain HTTP: for https it gets
a CONNECT request, for http a request with the whole URL.
"""

import base64
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

from archiver.errors import (
    ArchiverError,
    ProxyDenied,
    ProxyRefused,
    SourceUnavailable,
    SourceUnreachable,
    UsageError,
)
from archiver.network import is_metadata
from archiver.secret import Secret

DIRECT: Final = "none"
_PORTS: Final = {"http": 80, "https": 443}
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy; prints without user and password. ``host`` has no brackets, also for IPv6."""

    host: str
    port: int
    authorization: Secret | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, text: str, origin: str) -> "Proxy":
        """Parse ``http://user:password@host:port``. Scheme and port may be missing; the default
        port is 80. ``origin`` names, in errors, the option or variable. Raises UsageError, which
        does not quote what may hold a password."""
        try:
            split = urlsplit(text if "://" in text else f"http://{text}")
            host, port = split.hostname, split.port
        except ValueError:
            raise _invalid(origin, "it is not a URL") from None
        if split.scheme.lower() != "http":
            raise _invalid(origin, f"its scheme is {split.scheme[:20]!r}")
        if not host or not _is_host(host):
            raise _invalid(origin, "it has no host")
        if split.path.strip("/") or split.query or split.fragment:
            raise _invalid(origin, "it continues after the host and port")
        return cls(host, port or _PORTS["http"], _authorization(split.username, split.password))

    @property
    def url(self) -> str:
        """The URL without user and password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        """The header fields for the proxy itself. They may hold a secret."""
        if self.authorization is None:
            return {}
        return {"Proxy-Authorization": self.authorization.reveal()}

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True, slots=True)
class _Exemption:
    """An entry of NO_PROXY: a domain with its subdomains, or a network; for one port or all."""

    name: str
    network: _Network | None
    port: int | None

    @classmethod
    def parse(cls, entry: str) -> "_Exemption":
        port: int | None = None
        bare = entry
        # A port follows a name, an IPv4 address or brackets: fd00::1 has none.
        if found := re.fullmatch(r"(\[[^\]]*\]|[^:]*):(\d{1,5})", entry):
            bare, port = found[1], int(found[2])
        bare = bare.strip("[]")
        try:
            network: _Network | None = ipaddress.ip_network(bare, strict=False)
        except ValueError:
            network = None
        return cls(bare.removeprefix("*").strip(".").lower(), network, port)

    def covers(self, host: str, port: int) -> bool:
        if self.port is not None and self.port != port:
            return False
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            is_name = bool(self.name) and self.network is None
            return is_name and (host == self.name or host.endswith(f".{self.name}"))
        return self.network is not None and address in self.network


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxy for each scheme, None for none, and the hosts that are contacted directly."""

    http: Proxy | None = None
    https: Proxy | None = None
    exempt: tuple[_Exemption, ...] = ()
    exempt_all: bool = False

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "Proxies":
        """The proxies that environment variables set. Raises UsageError for an invalid one."""
        entries = [one for one in re.split(r"[,\s]+", _variable(environ, "NO_PROXY")[1]) if one]
        return cls(
            http=_proxy_of(environ, "HTTP_PROXY"),
            https=_proxy_of(environ, "HTTPS_PROXY"),
            exempt=tuple(_Exemption.parse(one) for one in entries if one != "*"),
            exempt_all="*" in entries,
        )

    @classmethod
    def given(cls, text: str, origin: str = "--proxy") -> "Proxies":
        """One proxy for all hosts, instead of those of the environment; ``none`` for no proxy.
        Raises UsageError."""
        if text.strip().lower() == DIRECT:
            return cls()
        proxy = Proxy.parse(text.strip(), origin)
        return cls(http=proxy, https=proxy)

    def between(self, scheme: str, host: str, port: int | None = None) -> Proxy | None:
        """The proxy to use for a host; None for a direct connection. Metadata services are always
        contacted directly: they answer for the machine that asks, and the proxy is another one."""
        bare = host.strip("[]").rstrip(".").lower()
        proxy = self.https if scheme == "https" else self.http
        if proxy is None or self.exempt_all or is_metadata(bare):
            return None
        port = port or _PORTS.get(scheme, 0)
        return None if any(one.covers(bare, port) for one in self.exempt) else proxy


def via(proxy: Proxy | None) -> str:
    """The proxy, to follow the name of a host in an error message; empty without one."""
    return "" if proxy is None else f" through the proxy {proxy}"


def refusal(proxy: Proxy, status: int, target: str) -> ArchiverError:
    """The error for a proxy that answers a CONNECT to ``target`` (host:port) with ``status``."""
    what = f"the proxy {proxy} refused to connect to {target}: status {status}"
    if status == 407:
        return denial(f"the proxy {proxy}")
    if status >= 500 or status in (408, 429):
        return SourceUnavailable(what, hint="check that the proxy can reach it")
    return ProxyRefused(what, hint="allow the host in the proxy, or add it to NO_PROXY")


def denial(what: str) -> ProxyDenied:
    """The error for status 407: the proxy requires a user and password, or other ones."""
    return ProxyDenied(
        f"{what} requires a user and password, or others than those given (407)",
        hint="write the proxy as http://USER:PASSWORD@HOST:PORT, percent-encoded",
    )


def unreachable(proxy: Proxy, why: str) -> SourceUnreachable:
    """The error for a proxy that cannot be connected to."""
    error = SourceUnreachable(
        f"cannot connect to the proxy {proxy}: {why}",
        hint="check it, or use --proxy none to connect directly",
    )
    error.was_sent = False
    return error


def _proxy_of(environ: Mapping[str, str], name: str) -> Proxy | None:
    for candidate in (name, "ALL_PROXY"):
        # A web server sets it to the Proxy header of any request (httpoxy).
        if candidate == "HTTP_PROXY" and "REQUEST_METHOD" in environ:
            environ = {key: value for key, value in environ.items() if key != candidate}
        variable, value = _variable(environ, candidate)
        if value:
            return Proxy.parse(value, variable)
    return None


def _variable(environ: Mapping[str, str], name: str) -> tuple[str, str]:
    """The variable that is set, and its value; the lower-case one counts, even if it is empty."""
    for candidate in (name.lower(), name):
        if candidate in environ:
            return candidate, environ[candidate].strip()
    return name, ""


def _authorization(user: str | None, password: str | None) -> Secret | None:
    if user is None and password is None:
        return None
    pair = f"{unquote(user or '')}:{unquote(password or '')}"
    return Secret(f"Basic {base64.b64encode(pair.encode()).decode()}")


def _is_host(host: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9._:%-]+", host) is not None


def _invalid(origin: str, why: str) -> UsageError:
    return UsageError(f"{origin}: invalid proxy: {why}", hint="write http://HOST:PORT")
