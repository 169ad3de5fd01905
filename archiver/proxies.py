"""Which proxy stands between us and a host. Pure.

The variables are those of curl and requests: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, in
lower case first. A proxy is spoken to in plain HTTP: it is asked to CONNECT for https, and for the
whole URL for http.
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
    """Prints without its user and password. ``host`` without brackets."""

    host: str
    port: int
    authorization: Secret | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, text: str, named: str) -> "Proxy":
        """Read ``http://user:password@host:port``; the scheme may be left out, and the port is
        80 then. ``named`` says, in errors, who gave it. Raises UsageError, and does not quote what
        may hold a password."""
        try:
            split = urlsplit(text if "://" in text else f"http://{text}")
            host, port = split.hostname, split.port
        except ValueError:
            raise _unusable(named, "it is no URL") from None
        if split.scheme.lower() != "http":
            raise _unusable(named, f"its scheme is {split.scheme[:20]!r}")
        if not host or not _is_host(host):
            raise _unusable(named, "it names no host")
        if split.path.strip("/") or split.query or split.fragment:
            raise _unusable(named, "there is something after the host and port")
        return cls(host, port or _PORTS["http"], _authorization(split.username, split.password))

    @property
    def url(self) -> str:
        """Without user and password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        """For the proxy itself. A secret may be among them."""
        if self.authorization is None:
            return {}
        return {"Proxy-Authorization": self.authorization.reveal()}

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True, slots=True)
class _Exemption:
    """An entry of NO_PROXY: a name and what is below it, or a network; for one port, or all."""

    name: str
    network: _Network | None
    port: int | None

    @classmethod
    def parse(cls, entry: str) -> "_Exemption":
        port: int | None = None
        bare = entry
        # A port stands after a name, an IPv4 address, or brackets: fd00::1 has none.
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
            named = bool(self.name) and self.network is None
            return named and (host == self.name or host.endswith(f".{self.name}"))
        return self.network is not None and address in self.network


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxy for each scheme, None for none, and who is spoken to directly all the same."""

    http: Proxy | None = None
    https: Proxy | None = None
    exempt: tuple[_Exemption, ...] = ()
    exempt_all: bool = False

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "Proxies":
        """What an environment says. Raises UsageError for a proxy that cannot be used."""
        entries = [one for one in re.split(r"[,\s]+", _variable(environ, "NO_PROXY")[1]) if one]
        return cls(
            http=_proxy_of(environ, "HTTP_PROXY"),
            https=_proxy_of(environ, "HTTPS_PROXY"),
            exempt=tuple(_Exemption.parse(one) for one in entries if one != "*"),
            exempt_all="*" in entries,
        )

    @classmethod
    def given(cls, text: str, named: str = "--proxy") -> "Proxies":
        """One proxy for everything, whatever the environment says; ``none`` for no proxy. Raises
        UsageError."""
        if text.strip().lower() == DIRECT:
            return cls()
        proxy = Proxy.parse(text.strip(), named)
        return cls(http=proxy, https=proxy)

    def between(self, scheme: str, host: str, port: int | None = None) -> Proxy | None:
        """The proxy on the way to a host. There is none on the way to a metadata service: what
        it says is for this machine, and the proxy is another one."""
        bare = host.strip("[]").rstrip(".").lower()
        proxy = self.https if scheme == "https" else self.http
        if proxy is None or self.exempt_all or is_metadata(bare):
            return None
        port = port or _PORTS.get(scheme, 0)
        return None if any(one.covers(bare, port) for one in self.exempt) else proxy


def via(proxy: Proxy | None) -> str:
    """For errors: what to put behind the name of what was asked for."""
    return "" if proxy is None else f" through the proxy {proxy}"


def refusal(proxy: Proxy, status: int, where: str) -> ArchiverError:
    """What it means that a proxy does not connect us to ``where``."""
    what = f"the proxy {proxy} does not connect us to {where}: it answers {status}"
    if status == 407:
        return denial(f"the proxy {proxy}")
    if status >= 500 or status in (408, 429):
        return SourceUnavailable(what, hint="can the proxy reach it?")
    return ProxyRefused(what, hint="allow it there, or name the host in NO_PROXY")


def denial(what: str) -> ProxyDenied:
    """407: a proxy wants a user and password, or other ones."""
    return ProxyDenied(
        f"{what} wants a user and a password, or others than it was given (407)",
        hint="write the proxy as http://USER:PASSWORD@HOST:PORT, percent-encoded",
    )


def unreachable(proxy: Proxy, why: str) -> SourceUnreachable:
    """There is nobody where the proxy should be."""
    return SourceUnreachable(
        f"the proxy {proxy} does not answer ({why})",
        hint="check it, or --proxy none to do without",
    )


def _proxy_of(environ: Mapping[str, str], name: str) -> Proxy | None:
    for candidate in (name, "ALL_PROXY"):
        # A web server puts the header Proxy of any stranger there (httpoxy).
        if candidate == "HTTP_PROXY" and "REQUEST_METHOD" in environ:
            environ = {key: value for key, value in environ.items() if key != candidate}
        variable, value = _variable(environ, candidate)
        if value:
            return Proxy.parse(value, variable)
    return None


def _variable(environ: Mapping[str, str], name: str) -> tuple[str, str]:
    """The name as it is set, and its value; the lower-case one counts, also when it is empty."""
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


def _unusable(named: str, why: str) -> UsageError:
    return UsageError(f"{named}: this proxy cannot be used: {why}", hint="write http://HOST:PORT")
