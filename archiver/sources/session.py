"""Requests by aiohttp that go the way that downloads go: proxies, names, authorities."""

import asyncio
import socket
from collections.abc import Mapping
from typing import Final, TypedDict

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from archiver.errors import ArchiverError, SourceUnreachable, UntrustedSource
from archiver.network import TRUST_OTHERS, lookup, tls_context
from archiver.proxies import Proxy, refusal, unreachable, via

# Names are the system's to remember, and to forget.
_CACHE_SECONDS: Final = 10


def open_session() -> aiohttp.ClientSession:
    """A session to enter. Raises UsageError for authorities that cannot be read."""
    connector = aiohttp.TCPConnector(
        resolver=_Resolver(), ssl=tls_context(), ttl_dns_cache=_CACHE_SECONDS
    )
    return aiohttp.ClientSession(connector=connector)


class Way(TypedDict):
    """What a request of aiohttp's is given, to go the way that it should."""

    headers: Mapping[str, str]
    proxy: str | None
    proxy_headers: Mapping[str, str] | None


def through(proxy: Proxy | None, url: URL, headers: Mapping[str, str]) -> Way:
    """A request through a proxy, or not. It is the CONNECT that has the proxy's own headers where
    there is one, and the request itself where there is none."""
    if proxy is None:
        return Way(headers=headers, proxy=None, proxy_headers=None)
    if url.scheme == "https":
        return Way(headers=headers, proxy=proxy.url, proxy_headers=proxy.headers)
    return Way(headers={**headers, **proxy.headers}, proxy=proxy.url, proxy_headers=None)


def no_answer(error: Exception, url: URL, proxy: Proxy | None) -> ArchiverError:
    """Why nothing came. The library's message may quote the URL, and with it the request: of that
    only the kind is named, and what the system says."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        why = getattr(error.certificate_error, "verify_message", "it cannot be verified")
        return UntrustedSource(
            f"the certificate of {url.authority}{via(proxy)} is not good: {why}",
            hint=TRUST_OTHERS,
        )
    if isinstance(error, aiohttp.ClientHttpProxyError) and proxy is not None:
        return refusal(proxy, error.status, f"{url.host}:{url.port}")
    why = type(error).__name__
    if isinstance(error, aiohttp.ClientConnectorError):
        why = f"{why}: {error.os_error.strerror or error.os_error}"
    if isinstance(error, aiohttp.ClientProxyConnectionError) and proxy is not None:
        return unreachable(proxy, why)
    return SourceUnreachable(
        f"no answer from {url.authority}{via(proxy)} ({why})",
        hint="check the network, the region and the endpoint",
    )


class _Resolver(AbstractResolver):
    """Asks in threads that the end of the loop does not wait for, unlike asyncio's own."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        # Others may wait for the same lookup: waiting, unlike awaiting it, never cancels it.
        looked_up = asyncio.wrap_future(lookup(host, port))
        # Nor is it news when it fails, and nobody waits any more.
        looked_up.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        await asyncio.wait([looked_up])
        found = looked_up.result()
        return [
            ResolveResult(
                hostname=host,
                host=address[0],
                port=address[1],
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in found
            if family in (socket.AF_UNSPEC, kind)
        ]

    async def close(self) -> None:
        """Nothing is open."""
