"""The modes of the vendor's CLI: how a profile gets its key."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from archiver.errors import UsageError
from archiver.sources.alibaba.credentials import keys
from archiver.sources.alibaba.credentials.context import Context, Profile
from archiver.sources.alibaba.credentials.metadata import ecs_role, from_uri
from archiver.sources.alibaba.credentials.roles import assume_role, assume_role_with_oidc
from archiver.sources.alibaba.rpc import Credentials

Mode = Callable[[Context, Profile], Awaitable[Credentials]]


async def _access_key(_: Context, profile: Profile) -> Credentials:
    return keys.access_key(
        profile.need("access_key_id"), profile.need("access_key_secret"), None, profile.origin
    )


async def _sts_token(_: Context, profile: Profile) -> Credentials:
    expiration = profile.get("sts_expiration") or "0"  # in seconds; the CLI writes 0 if unknown
    expires_at = keys.read_time(expiration)
    if expires_at is None:
        raise UsageError(f"{profile.origin}: sts_expiration is not a time")
    return keys.access_key(
        profile.need("access_key_id"),
        profile.need("access_key_secret"),
        profile.need("sts_token"),
        profile.origin,
        None if expiration == "0" else expires_at,
    )


async def _role(context: Context, profile: Profile) -> Credentials:
    by = _sts_token if profile.get("sts_token") else _access_key
    return await assume_role(context, await by(context, profile), profile)


async def _ecs(context: Context, profile: Profile) -> Credentials:
    return await ecs_role(context, profile.get("ram_role_name"), profile.origin)


async def _uri(context: Context, profile: Profile) -> Credentials:
    return await from_uri(context, profile.need("credentials_uri"), profile.origin)


# Not External, which runs a command, and not CloudSSO and OAuth, which need a browser.
MODES: Final[Mapping[str, Mode]] = {
    "AK": _access_key,
    "StsToken": _sts_token,
    "RamRoleArn": _role,
    "EcsRamRole": _ecs,
    "OIDC": assume_role_with_oidc,
    "CredentialsURI": _uri,
}
