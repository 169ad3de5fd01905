"""aiohttp sessions with the same proxies, name resolution and authorities as downloads."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypedDict

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from archiver.errors import ArchiverError, SourceUnreachable, UntrustedSource
from archiver.logs import Request
from archiver.network import TRUST_HINT, failure_in_words, lookup, tls_context
from archiver.proxies import Proxy, refusal, unreachable, via

# Short, because caching names is the system's task.
_DNS_CACHE_SECONDS: Final = 10
_NOT_CONNECTED: Final = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


def open_session() -> aiohttp.ClientSession:
    """A session, as a context manager. Raises UsageError for authorities that cannot be read."""
    connector = aiohttp.TCPConnector(
        resolver=_Resolver(), ssl=tls_context(), ttl_dns_cache=_DNS_CACHE_SECONDS
    )
    return aiohttp.ClientSession(connector=connector)


class ProxyArguments(TypedDict):
    """Keyword arguments of an aiohttp request that may go through a proxy."""

    headers: Mapping[str, str]
    proxy: str | None
    proxy_headers: Mapping[str, str] | None


def proxy_arguments(proxy: Proxy | None, url: URL, headers: Mapping[str, str]) -> ProxyArguments:
    """The arguments for a request with ``headers``. The header fields for the proxy itself are
    sent with the CONNECT request, or without one (plain http) with the request."""
    if proxy is None:
        return ProxyArguments(headers=headers, proxy=None, proxy_headers=None)
    if url.scheme == "https":
        return ProxyArguments(headers=headers, proxy=proxy.url, proxy_headers=proxy.headers)
    return ProxyArguments(headers={**headers, **proxy.headers}, proxy=proxy.url, proxy_headers=None)


@dataclass(frozen=True, slots=True)
class Response:
    """A whole response."""

    status: int
    headers: Mapping[str, str]
    body: bytes


async def send(
    session: aiohttp.ClientSession,
    method: str,
    url: URL,
    headers: Mapping[str, str],
    proxy: Proxy | None,
    *,
    timeout: aiohttp.ClientTimeout,
    read: Callable[[aiohttp.ClientResponse], Awaitable[bytes]],
    action: str | None = None,
    is_secret: bool = False,
) -> Response:
    """Send a request and return the whole response; ``read`` reads its body.

    Redirects are not followed. Every aiohttp request is sent and logged here; the log does not
    contain the path of a URL that ``is_secret``. Raises what aiohttp and ``read`` raise.
    """
    path = "/***" if is_secret else url.raw_path
    request = Request.begun(method, url.authority, path, action=action)
    try:
        async with session.request(
            method,
            url,
            allow_redirects=False,
            timeout=timeout,
            **proxy_arguments(proxy, url, headers),
        ) as response:
            if request is not None:
                request.status = response.status
            body = await read(response)
    except BaseException as error:
        if request is not None:
            request.ended(error)
        raise
    if request is not None:
        request.size = len(body)
        request.ended()
    return Response(response.status, response.headers, body)


def no_response_error(
    error: Exception, url: URL, proxy: Proxy | None, chosen_by: str = ""
) -> ArchiverError:
    """The error for a request that got no response; ``chosen_by`` names the options that a wrong
    host may come from. aiohttp's message is not used: it may quote the URL with its query."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        why = getattr(error.certificate_error, "verify_message", "it cannot be verified")
        return UntrustedSource(
            f"the certificate of {url.authority}{via(proxy)} is not trusted: {why}",
            hint=TRUST_HINT,
        )
    if isinstance(error, aiohttp.ClientHttpProxyError) and proxy is not None:
        return refusal(proxy, error.status, f"{url.host}:{url.port}")
    why = failure_in_words(error)
    if isinstance(error, aiohttp.ClientResponseError):
        why = "its response is not HTTP"
    if isinstance(error, aiohttp.ClientProxyConnectionError) and proxy is not None:
        return unreachable(proxy, why)
    was_sent = not isinstance(error, _NOT_CONNECTED)
    wrong_host = f"{chosen_by}, and " if chosen_by and not was_sent else ""
    unreachable_host = SourceUnreachable(
        f"no response from {url.authority}{via(proxy)}: {why}",
        hint=f"check {wrong_host}the network",
    )
    unreachable_host.was_sent = was_sent
    return unreachable_host


class _Resolver(AbstractResolver):
    """Resolves in threads that the end of the event loop does not wait for, unlike asyncio's."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        # Others may share the lookup: asyncio.wait, unlike await, never cancels it.
        found = asyncio.wrap_future(lookup(host, port))
        # Mark an error as retrieved even if the caller was cancelled.
        found.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        await asyncio.wait([found])
        addresses = found.result()
        return [
            ResolveResult(
                hostname=host,
                host=address[0],
                port=address[1],
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in addresses
            if family in (socket.AF_UNSPEC, kind)
        ]

    async def close(self) -> None:
        """Nothing to close."""
