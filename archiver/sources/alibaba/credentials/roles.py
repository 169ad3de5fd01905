"""Temporary credentials from STS: AssumeRole and AssumeRoleWithOIDC (Sts, 2015-04-01)."""

import re
import secrets
from collections.abc import Mapping
from typing import Final

import aiohttp

from archiver.errors import BadCredentials, NoCredentials, RequestRejected, UsageError
from archiver.retry import RETRIES
from archiver.secret import Secret
from archiver.sources.alibaba.credentials.context import Context, Profile, read_text
from archiver.sources.alibaba.credentials.keys import temporary
from archiver.sources.alibaba.rpc import Credentials, RpcClient

_VERSION: Final = "2015-04-01"
_DURATION_SECONDS: Final = 3600
_MIN_SECONDS: Final = 900  # STS rejects less
# Shorter than that of other calls: tasks wait for a renewal while the old key is still valid.
_TIMEOUT: Final = aiohttp.ClientTimeout(total=RETRIES.sts_call.timeout, connect=5)
_REGION: Final = re.compile(r"[a-z0-9-]+")


async def assume_role(context: Context, by: Credentials, profile: Profile) -> Credentials:
    """Credentials of the profile's ram_role_arn, which ``by`` is allowed to assume.

    Raises BadCredentials, PermissionDenied, UsageError, and what an RPC call raises.
    """
    params = _request(context, profile)
    if external_id := profile.get("external_id"):
        params["ExternalId"] = external_id
    return await _call(context, profile, "AssumeRole", params, by)


async def assume_role_with_oidc(context: Context, profile: Profile) -> Credentials:
    """Credentials of the profile's ram_role_arn for the token in its oidc_token_file.

    Kubernetes renews that token, so the file is read every time. The request is unsigned.
    Raises NoCredentials when the token file is missing or empty, UsageError when it cannot be
    read, and what :func:`assume_role` raises.
    """
    params: dict[str, str | Secret] = {**_request(context, profile)}
    params["OIDCProviderArn"] = profile.need("oidc_provider_arn")
    path = context.path(profile.need("oidc_token_file"))
    token = (await read_text(path) or "").strip()
    if not token:
        raise NoCredentials(f"{profile.origin}: the OIDC token file {path} is missing or empty")
    params["OIDCToken"] = Secret(token)
    return await _call(context, profile, "AssumeRoleWithOIDC", params, None)


def _request(context: Context, profile: Profile) -> dict[str, str]:
    """The parameters that both actions have."""
    seconds = profile.get("expired_seconds") or "0"
    if not seconds.isdecimal() or 0 < int(seconds) < _MIN_SECONDS:
        raise UsageError(f"{profile.origin}: expired_seconds must be {_MIN_SECONDS} or more")
    session_name = profile.get("ram_session_name") or context.variable("ROLE_SESSION_NAME")
    params = {
        "RoleArn": profile.need("ram_role_arn"),
        "RoleSessionName": session_name or f"archiver-{secrets.token_hex(4)}",
        "DurationSeconds": str(int(seconds) or _DURATION_SECONDS),
    }
    if policy := profile.get("policy"):
        params["Policy"] = policy
    return params


async def _call(
    context: Context,
    profile: Profile,
    action: str,
    params: Mapping[str, str | Secret],
    by: Credentials | None,
) -> Credentials:
    client = RpcClient(
        context.session,
        context.sts_endpoint or _host(context, profile),
        _VERSION,
        context.clock,
        service="sts",
        timeout=_TIMEOUT,
        proxies=context.proxies,
    )
    try:
        role = profile.need("ram_role_arn")
        answer = await client.call(action, params, by, subject=role, resource=role)
    except RequestRejected as error:
        # An unknown role, provider or token is a matter of credentials, not of options.
        raise BadCredentials(
            f"{profile.origin}: {error.message}",
            hint="check the role, and for OIDC the provider and the age of the token",
        ) from None
    return temporary(answer.get("Credentials"), profile.origin)


def _host(context: Context, profile: Profile) -> str:
    """The host of STS: of a region, in the VPC if configured, or the central one."""
    region = profile.get("sts_region") or context.variable("STS_REGION")
    if region is None:
        return "sts.aliyuncs.com"
    if not _REGION.fullmatch(region):
        raise UsageError(f"{profile.origin}: the STS region {region!r} is not a region id")
    in_vpc = profile.flag("enable_vpc")
    if in_vpc is None:
        in_vpc = context.is_true("VPC_ENDPOINT_ENABLED")
    return f"sts{'-vpc' if in_vpc else ''}.{region}.aliyuncs.com"
