"""Steps 5 and 6: the metadata service of an ECS instance, and a URI of one's own."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import aiohttp

from archiver.errors import BadCredentials, NoCredentials, SourceUnavailable
from archiver.sources.credentials.roles import Context, temporary
from archiver.sources.rpc import Credentials

ECS_METADATA_URL = "http://100.100.100.200"
_ROLES = "/latest/meta-data/ram/security-credentials/"
_METADATA_TTL = "21600"
# On a host that is no ECS instance nobody answers at that address, and a person waits.
_ECS_TIMEOUT = aiohttp.ClientTimeout(total=5, connect=1)
_URI_TIMEOUT = aiohttp.ClientTimeout(total=10, connect=5)
_MOST_BYTES = 64 * 1024


async def ecs_role_of_this_host(context: Context) -> Credentials | None:
    """The RAM role of the ECS instance we are on, if we are on one and it has one."""
    if (context.variable("ECS_METADATA_DISABLED") or "").lower() == "true":
        return None
    named = context.variable("ECS_METADATA")
    try:
        return await ecs_role(context, named, "the RAM role of this ECS instance")
    except (SourceUnavailable, NoCredentials):
        if named is not None:
            raise
        return None


async def ecs_role(context: Context, role: str | None, origin: str) -> Credentials:
    """Credentials of an instance's role, by IMDSv2. Raises NoCredentials when there is none."""
    base, ttl = context.metadata_url, {"X-aliyun-ecs-metadata-token-ttl-seconds": _METADATA_TTL}
    token = await _ask(context, "PUT", f"{base}/latest/api/token", ttl, origin)
    with_token = {"X-aliyun-ecs-metadata-token": token.strip()}
    if not role:
        role = (await _ask(context, "GET", f"{base}{_ROLES}", with_token, origin)).strip()
        role = role.partition("\n")[0]
    text = await _ask(context, "GET", f"{base}{_ROLES}{quote(role)}", with_token, origin)
    return _checked(text, origin)


async def credentials_uri(context: Context) -> Credentials | None:
    """Whatever answers at ALIBABA_CLOUD_CREDENTIALS_URI."""
    uri = context.variable("CREDENTIALS_URI")
    if uri is None:
        return None
    return await from_uri(context, uri, "ALIBABA_CLOUD_CREDENTIALS_URI")


async def from_uri(context: Context, uri: str, origin: str) -> Credentials:
    """Temporary credentials as JSON from a URI. Raises NoCredentials, BadCredentials,
    SourceUnavailable."""
    return _checked(await _ask(context, "GET", uri, {}, origin, _URI_TIMEOUT), origin)


async def _ask(
    context: Context,
    method: str,
    url: str,
    headers: Mapping[str, str],
    origin: str,
    timeout: aiohttp.ClientTimeout = _ECS_TIMEOUT,
) -> str:
    try:
        async with context.session.request(
            method, url, headers=headers, timeout=timeout, allow_redirects=False
        ) as answer:
            if answer.status >= 500:
                raise SourceUnavailable(f"{origin}: answered {answer.status}")
            if answer.status != 200:
                raise NoCredentials(f"{origin}: answered {answer.status}")
            return (await answer.content.read(_MOST_BYTES)).decode("utf-8", "replace")
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        raise SourceUnavailable(f"{origin}: no answer ({type(error).__name__})") from None


def _checked(text: str, origin: str) -> Credentials:
    try:
        answer: Any = json.loads(text)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict) or answer.get("Code", "Success") != "Success":
        raise BadCredentials(f"{origin}: the answer holds no temporary credentials")
    return temporary(answer, origin)
