"""Steps 5 and 6: a credentials URI, and the metadata service of an ECS instance."""

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
from archiver.network import TRUST_HINT, failure_in_words
from archiver.proxies import denial, via
from archiver.retry import RETRIES
from archiver.sources.alibaba.credentials.context import Context
from archiver.sources.alibaba.credentials.keys import temporary
from archiver.sources.alibaba.rpc import Credentials
from archiver.sources.session import send

ECS_METADATA_URL: Final = "http://100.100.100.200"
_ROLES: Final = "/latest/meta-data/ram/security-credentials/"
_TTL_SECONDS: Final = "21600"
_ROLE_NAME: Final = re.compile(r"[\w.@-]{1,128}", re.ASCII)
# Outside ECS there is no response at that address, and a person waits for the timeout.
_ECS_TIMEOUT: Final = aiohttp.ClientTimeout(total=RETRIES.metadata_service.timeout, connect=1)
_URI_TIMEOUT: Final = aiohttp.ClientTimeout(total=RETRIES.credentials_uri.timeout, connect=5)
_MAX_BYTES: Final = 64 * 1024


class _NoConnection(SourceUnavailable):
    """No connection: if it is to the metadata service, this host is no ECS instance."""


async def ecs_role_of_this_host(context: Context) -> Credentials | None:
    """Credentials of the RAM role of this ECS instance; None if it has none, or is none.

    Unless ALIBABA_CLOUD_ECS_METADATA is set, no connection or no role means that this step is not
    configured. Raises SourceUnavailable when the service is there and fails.
    """
    if context.is_true("ECS_METADATA_DISABLED"):
        return None
    try:
        return await ecs_role(context, None, "the RAM role of this ECS instance")
    except (_NoConnection, NoCredentials):
        if context.variable("ECS_METADATA") is not None:
            raise
        return None


async def ecs_role(context: Context, role: str | None, origin: str) -> Credentials:
    """Credentials of an instance's role, by IMDSv2.

    The role is ``role``, else ALIBABA_CLOUD_ECS_METADATA, else the one that the instance has.
    Raises NoCredentials when there is none, BadCredentials, SourceUnavailable, UsageError.
    """
    if context.is_true("ECS_METADATA_DISABLED"):
        raise UsageError(f"{origin}: ALIBABA_CLOUD_ECS_METADATA_DISABLED is true")
    base = context.metadata_url
    wanted = {"X-aliyun-ecs-metadata-token-ttl-seconds": _TTL_SECONDS}
    token = await _request(context, "PUT", f"{base}/latest/api/token", wanted, origin)
    with_token = {"X-aliyun-ecs-metadata-token": token.strip()}
    role = role or context.variable("ECS_METADATA")
    if role is None:
        listed = await _request(context, "GET", f"{base}{_ROLES}", with_token, origin)
        role = listed.strip().partition("\n")[0].strip()
    if not _ROLE_NAME.fullmatch(role) or not role.strip("."):
        raise NoCredentials(f"{origin}: {role[:64]!r} is not a valid role name")
    return _read(
        await _request(context, "GET", f"{base}{_ROLES}{role}", with_token, origin), origin
    )


async def credentials_uri(context: Context) -> Credentials | None:
    """Credentials from ALIBABA_CLOUD_CREDENTIALS_URI; raises what :func:`from_uri` raises."""
    uri = context.variable("CREDENTIALS_URI")
    if uri is None:
        return None
    return await from_uri(context, uri, "ALIBABA_CLOUD_CREDENTIALS_URI")


async def from_uri(context: Context, uri: str, origin: str) -> Credentials:
    """Temporary credentials, as JSON from an http or https URI.

    Raises NoCredentials, BadCredentials, SourceUnavailable, UsageError.
    """
    try:
        url = URL(uri)
        usable = url.scheme in ("http", "https") and bool(url.host)
    except ValueError:
        usable = False
    if not usable:
        raise UsageError(f"{origin}: the URI is not an http or https URL")
    text = await _request(context, "GET", uri, {}, origin, _URI_TIMEOUT, is_secret=True)
    return _read(text, origin)


async def _request(
    context: Context,
    method: str,
    url: str,
    headers: Mapping[str, str],
    origin: str,
    timeout: aiohttp.ClientTimeout = _ECS_TIMEOUT,
    *,
    is_secret: bool = False,
) -> str:
    """The text of a response. A URI may itself be a secret: errors name the origin only."""
    target = URL(url)
    proxy = context.proxies.between(target.scheme, target.raw_host or "", target.port)
    try:
        response = await send(
            context.session,
            method,
            target,
            headers,
            proxy,
            timeout=timeout,
            read=_read_bounded,
            is_secret=is_secret,
        )
        status, body, failure = response.status, response.body, None
    except aiohttp.ClientHttpProxyError as error:
        status, body, failure = error.status, b"", None
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        status, body, failure = 0, b"", _no_response_error(error, f"{origin}{via(proxy)}")
    # Raised outside the handler: aiohttp's errors hold the request with headers and URL.
    if failure is not None:
        raise failure
    if status == 407:
        raise denial(f"{origin}: the proxy {proxy}")
    if status >= 500 or status == 429:
        raise SourceUnavailable(f"{origin}{via(proxy)}: responded with status {status}")
    if status != 200:
        raise NoCredentials(f"{origin}{via(proxy)}: responded with status {status}")
    return body.decode("utf-8", "replace")


def _no_response_error(error: Exception, request: str) -> SourceError:
    why = failure_in_words(error)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return UntrustedSource(f"{request}: the certificate is not trusted", hint=TRUST_HINT)
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return _NoConnection(f"{request}: no connection: {why}")
    return SourceUnavailable(f"{request}: no response: {why}")


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > _MAX_BYTES:
            raise ValueError("too large for a key")
    return bytes(body)


def _read(text: str, origin: str) -> Credentials:
    try:
        answer: object = json.loads(text)
    except (ValueError, RecursionError):
        answer = None
    return temporary(answer, origin)
