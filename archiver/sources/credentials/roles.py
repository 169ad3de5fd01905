"""Temporary credentials from STS: AssumeRole and AssumeRoleWithOIDC (Sts, 2015-04-01)."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiofiles
import aiohttp

from archiver.errors import BadCredentials, NoCredentials
from archiver.secret import Secret
from archiver.sources.rpc import Credentials, RpcClient

_VERSION = "2015-04-01"
_DURATION_SECONDS = "3600"


@dataclass(frozen=True, slots=True)
class Context:
    """What the steps look at: the environment, the home folder, and ways to ask others."""

    session: aiohttp.ClientSession
    environ: Mapping[str, str]
    home: Path
    metadata_url: str
    sts_endpoint: str | None

    def variable(self, name: str) -> str | None:
        """``ALIBABA_CLOUD_<name>``, None when unset or empty."""
        return self.environ.get(f"ALIBABA_CLOUD_{name}") or None

    def sts(self, region: str | None = None) -> RpcClient:
        """A client of STS, in a region where one is set."""
        return RpcClient(self.session, self.sts_endpoint or self._sts_host(region), _VERSION)

    def _sts_host(self, region: str | None) -> str:
        region = region or self.variable("STS_REGION")
        if region is None:
            return "sts.aliyuncs.com"
        in_vpc = (self.variable("VPC_ENDPOINT_ENABLED") or "").lower() == "true"
        return f"sts{'-vpc' if in_vpc else ''}.{region}.aliyuncs.com"


async def assume_role(
    context: Context,
    by: Credentials,
    role_arn: str,
    settings: Mapping[str, Any],
    origin: str,
) -> Credentials:
    """Credentials of a role that ``by`` may assume. ``settings``: role_session_name, policy,
    external_id, sts_region. Raises what an RPC call raises."""
    params = {
        "RoleArn": role_arn,
        "RoleSessionName": settings.get("role_session_name") or _session_name(),
        "DurationSeconds": _DURATION_SECONDS,
    }
    for name, key in (("Policy", "policy"), ("ExternalId", "external_id")):
        if settings.get(key):
            params[name] = str(settings[key])
    client = context.sts(settings.get("sts_region"))
    answer = await client.call("AssumeRole", params, by, resource=role_arn)
    return temporary(answer.get("Credentials"), origin)


async def assume_role_with_oidc(
    context: Context,
    role_arn: str,
    provider_arn: str,
    token_file: Path,
    settings: Mapping[str, Any],
    origin: str,
) -> Credentials:
    """Credentials of a role for a token that Kubernetes keeps fresh in a file; unsigned."""
    try:
        async with aiofiles.open(token_file, encoding="utf-8") as file:
            token = (await file.read()).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise NoCredentials(
            f"{origin}: cannot read the OIDC token file {token_file} ({type(error).__name__})"
        ) from None
    params = {
        "RoleArn": role_arn,
        "OIDCProviderArn": provider_arn,
        "OIDCToken": token,
        "RoleSessionName": settings.get("role_session_name") or _session_name(),
        "DurationSeconds": _DURATION_SECONDS,
    }
    client = context.sts(settings.get("sts_region"))
    answer = await client.call("AssumeRoleWithOIDC", params, None, resource=role_arn)
    return temporary(answer.get("Credentials"), origin)


def temporary(answer: object, origin: str) -> Credentials:
    """Read AccessKeyId, AccessKeySecret, SecurityToken, Expiration. Raises BadCredentials."""
    try:
        if not isinstance(answer, Mapping):
            raise TypeError  # noqa: TRY301
        return Credentials(
            Secret(str(answer["AccessKeyId"])),
            Secret(str(answer["AccessKeySecret"])),
            Secret(str(answer["SecurityToken"])),
            read_time(str(answer["Expiration"])),
            origin,
        )
    except (KeyError, TypeError, ValueError):
        raise BadCredentials(f"{origin}: the answer holds no temporary credentials") from None


def read_time(text: str) -> datetime:
    """An ISO 8601 time, UTC where it does not say. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def _session_name() -> str:
    return f"archiver-{secrets.token_hex(4)}"
