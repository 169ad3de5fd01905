"""Steps 5 and 6: the metadata service of an ECS instance, and a URI of one's own."""

import json
import re
from collections.abc import Mapping
from typing import Final

import aiohttp
from yarl import URL

from archiver.errors import (
    NoCredentials,
    SourceError,
    SourceUnavailable,
    UntrustedSource,
    UsageError,
)
from archiver.network import TRUST_OTHERS
from archiver.proxies import denial, via
from archiver.sources.alibaba.credentials.context import Context
from archiver.sources.alibaba.credentials.keys import temporary
from archiver.sources.alibaba.rpc import Credentials
from archiver.sources.session import through

ECS_METADATA_URL: Final = "http://100.100.100.200"
_ROLES: Final = "/latest/meta-data/ram/security-credentials/"
_TTL_SECONDS: Final = "21600"
_ROLE_NAME: Final = re.compile(r"[\w.@-]{1,128}", re.ASCII)
# On a host that is no ECS instance nobody answers at that address, and a person waits.
_ECS_TIMEOUT: Final = aiohttp.ClientTimeout(total=5, connect=1)
_URI_TIMEOUT: Final = aiohttp.ClientTimeout(total=10, connect=5)
_MOST_BYTES: Final = 64 * 1024


class _NobodyThere(SourceUnavailable):
    """No connection at all: for the metadata service, we are on no ECS instance."""


async def ecs_role_of_this_host(context: Context) -> Credentials | None:
    """The RAM role of the ECS instance we are on, if we are on one and it has one.

    The only step that guesses: without ALIBABA_CLOUD_ECS_METADATA, no connection and no role
    mean that it is not configured. Raises SourceUnavailable when the service is there and fails.
    """
    if context.is_true("ECS_METADATA_DISABLED"):
        return None
    try:
        return await ecs_role(context, None, "the RAM role of this ECS instance")
    except (_NobodyThere, NoCredentials):
        if context.variable("ECS_METADATA") is not None:
            raise
        return None


async def ecs_role(context: Context, role: str | None, origin: str) -> Credentials:
    """Credentials of an instance's role by IMDSv2: the given, ALIBABA_CLOUD_ECS_METADATA's or
    the one it has.

    Raises NoCredentials when there is none, BadCredentials, SourceUnavailable, UsageError.
    """
    if context.is_true("ECS_METADATA_DISABLED"):
        raise UsageError(f"{origin}: ALIBABA_CLOUD_ECS_METADATA_DISABLED is true")
    base = context.metadata_url
    wanted = {"X-aliyun-ecs-metadata-token-ttl-seconds": _TTL_SECONDS}
    token = await _ask(context, "PUT", f"{base}/latest/api/token", wanted, origin)
    with_token = {"X-aliyun-ecs-metadata-token": token.strip()}
    role = role or context.variable("ECS_METADATA")
    if role is None:
        listed = await _ask(context, "GET", f"{base}{_ROLES}", with_token, origin)
        role = listed.strip().partition("\n")[0].strip()
    if not _ROLE_NAME.fullmatch(role) or not role.strip("."):
        raise NoCredentials(f"{origin}: {role[:64]!r} is not the name of a role")
    return _read(await _ask(context, "GET", f"{base}{_ROLES}{role}", with_token, origin), origin)


async def credentials_uri(context: Context) -> Credentials | None:
    """Whatever answers at ALIBABA_CLOUD_CREDENTIALS_URI; raises what :func:`from_uri` raises."""
    uri = context.variable("CREDENTIALS_URI")
    if uri is None:
        return None
    return await from_uri(context, uri, "ALIBABA_CLOUD_CREDENTIALS_URI")


async def from_uri(context: Context, uri: str, origin: str) -> Credentials:
    """Temporary credentials as JSON from an http or https URI.

    Raises NoCredentials, BadCredentials, SourceUnavailable, UsageError.
    """
    try:
        url = URL(uri)
        usable = url.scheme in ("http", "https") and bool(url.host)
    except ValueError:
        usable = False
    if not usable:
        raise UsageError(f"{origin}: the URI is none of http or https")
    return _read(await _ask(context, "GET", uri, {}, origin, _URI_TIMEOUT), origin)


async def _ask(
    context: Context,
    method: str,
    url: str,
    headers: Mapping[str, str],
    origin: str,
    timeout: aiohttp.ClientTimeout = _ECS_TIMEOUT,
) -> str:
    """One answer's text. The URI may be a secret in itself: errors name the origin only."""
    target = URL(url)
    proxy = context.proxies.between(target.scheme, target.raw_host or "", target.port)
    try:
        async with context.session.request(
            method,
            target,
            timeout=timeout,
            allow_redirects=False,
            **through(proxy, target, headers),
        ) as answer:
            status, body, failure = answer.status, await _bounded(answer.content), None
    except aiohttp.ClientHttpProxyError as error:
        status, body, failure = error.status, b"", None
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        status, body, failure = 0, b"", _no_answer(error, f"{origin}{via(proxy)}")
    # Raised out here: the library's errors carry the request, its headers and its URL.
    if failure is not None:
        raise failure
    if status == 407:
        raise denial(f"{origin}: the proxy {proxy}")
    if status >= 500 or status == 429:
        raise SourceUnavailable(f"{origin}{via(proxy)}: answered {status}")
    if status != 200:
        raise NoCredentials(f"{origin}{via(proxy)}: answered {status}")
    return body.decode("utf-8", "replace")


def _no_answer(error: Exception, asked: str) -> SourceError:
    kind = type(error).__name__
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return UntrustedSource(f"{asked}: its certificate is not good", hint=TRUST_OTHERS)
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return _NobodyThere(f"{asked}: no connection ({kind})")
    return SourceUnavailable(f"{asked}: no answer ({kind})")


async def _bounded(content: aiohttp.StreamReader) -> bytes:
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > _MOST_BYTES:
            raise ValueError("too large for a key")
    return bytes(body)


def _read(text: str, origin: str) -> Credentials:
    try:
        answer: object = json.loads(text)
    except (ValueError, RecursionError):
        answer = None
    return temporary(answer, origin)
