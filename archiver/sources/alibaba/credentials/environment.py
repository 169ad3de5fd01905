"""Steps 1 and 2: an access key or an OIDC role in the environment."""

from archiver.errors import NoCredentials, UsageError
from archiver.sources.alibaba.credentials import keys
from archiver.sources.alibaba.credentials.context import Context, Profile
from archiver.sources.alibaba.credentials.roles import assume_role_with_oidc
from archiver.sources.alibaba.rpc import Credentials

_KEY = (
    "ALIBABA_CLOUD_ACCESS_KEY_ID", "ALIBABA_CLOUD_ACCESS_KEY_SECRET",
    "ALIBABA_CLOUD_SECURITY_TOKEN",
)  # fmt: skip
_OIDC = {
    "ram_role_arn": "ROLE_ARN",
    "oidc_provider_arn": "OIDC_PROVIDER_ARN",
    "oidc_token_file": "OIDC_TOKEN_FILE",
}


async def access_key(context: Context) -> Credentials | None:
    """``ALIBABA_CLOUD_ACCESS_KEY_ID``, ``…_SECRET`` and, for STS, ``…_SECURITY_TOKEN``.

    Raises NoCredentials for half a key, BadCredentials for an impossible one.
    """
    key_id, secret, token = (context.environ.get(name, "").strip() or None for name in _KEY)
    if key_id is None and secret is None:
        return None
    if key_id is None or secret is None:
        missing = "ACCESS_KEY_ID" if key_id is None else "ACCESS_KEY_SECRET"
        raise NoCredentials(f"half an access key is set: ALIBABA_CLOUD_{missing} is missing")
    return keys.access_key(key_id, secret, token, "the environment", names=_KEY)


async def oidc(context: Context) -> Credentials | None:
    """RRSA on Kubernetes: needs role, provider and token file.

    A role alone is not enough (other steps use it, too). Raises UsageError for two of three, and
    what :func:`~archiver.sources.alibaba.credentials.roles.assume_role_with_oidc` raises.
    """
    given = {key: context.variable(name) for key, name in _OIDC.items()}
    if given["oidc_provider_arn"] is None and given["oidc_token_file"] is None:
        return None
    missing = [f"ALIBABA_CLOUD_{_OIDC[key]}" for key, value in given.items() if value is None]
    if missing:
        raise UsageError(f"the OIDC role in the environment lacks {', '.join(missing)}")
    return await assume_role_with_oidc(context, Profile("the OIDC role in the environment", given))
