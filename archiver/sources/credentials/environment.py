"""Steps 1 and 2: an access key or an OIDC role in the environment."""

from pathlib import Path

from archiver.errors import NoCredentials
from archiver.secret import Secret
from archiver.sources.credentials.roles import Context, assume_role_with_oidc
from archiver.sources.rpc import Credentials

_OIDC = ("ROLE_ARN", "OIDC_PROVIDER_ARN", "OIDC_TOKEN_FILE")


async def access_key(context: Context) -> Credentials | None:
    """``ALIBABA_CLOUD_ACCESS_KEY_ID``, ``…_SECRET`` and, for STS, ``…_SECURITY_TOKEN``."""
    key_id = context.variable("ACCESS_KEY_ID")
    secret = context.variable("ACCESS_KEY_SECRET")
    if key_id is None and secret is None:
        return None
    if key_id is None or secret is None:
        missing = "ACCESS_KEY_ID" if key_id is None else "ACCESS_KEY_SECRET"
        raise NoCredentials(f"half an access key is set: ALIBABA_CLOUD_{missing} is missing")
    token = context.variable("SECURITY_TOKEN")
    return Credentials(
        Secret(key_id), Secret(secret), Secret(token) if token else None, None, "the environment"
    )


async def oidc(context: Context) -> Credentials | None:
    """RRSA on Kubernetes: role, provider and token file, all three."""
    role, provider, token_file = (context.variable(name) for name in _OIDC)
    if role is None or provider is None or token_file is None:
        return None
    return await assume_role_with_oidc(
        context,
        role,
        provider,
        Path(token_file),
        {"role_session_name": context.variable("ROLE_SESSION_NAME")},
        "the OIDC role in the environment",
    )
