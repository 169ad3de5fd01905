"""Step 4: the credentials file of the vendor's SDKs, ``~/.alibabacloud/credentials.ini``."""

import configparser
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from archiver.errors import NoCredentials, UsageError
from archiver.sources.alibaba.credentials.context import Context, Profile, read_text
from archiver.sources.alibaba.credentials.modes import MODES
from archiver.sources.alibaba.rpc import Credentials

_MODE_OF_TYPE: Final[Mapping[str, str]] = {
    "access_key": "AK",
    "sts": "StsToken",
    "ram_role_arn": "RamRoleArn",
    "ecs_ram_role": "EcsRamRole",
    "oidc_role_arn": "OIDC",
    "credentials_uri": "CredentialsURI",
}
# Settings that have another name in the CLI's configuration.
_CLI_NAMES: Final[Mapping[str, str]] = {
    "security_token": "sts_token",
    "role_arn": "ram_role_arn",
    "role_session_name": "ram_session_name",
    "role_name": "ram_role_name",
    "oidc_token_file_path": "oidc_token_file",
}


def credentials_path(context: Context) -> Path | None:
    """ALIBABA_CLOUD_CREDENTIALS_FILE, or the file in the home folder; None without either."""
    given = context.variable("CREDENTIALS_FILE")
    return context.path(given) if given else context.in_home(".alibabacloud", "credentials.ini")


async def credentials_ini(context: Context) -> Credentials | None:
    """The section ALIBABA_CLOUD_PROFILE, or ``default``, of the credentials file.

    Raises NoCredentials when the file that ALIBABA_CLOUD_CREDENTIALS_FILE names does not exist,
    UsageError for an invalid file or section, and what the section's type raises.
    """
    path = credentials_path(context)
    text = await read_text(path)
    if path is None or text is None:
        if context.variable("CREDENTIALS_FILE"):
            raise NoCredentials(f"ALIBABA_CLOUD_CREDENTIALS_FILE: {path} does not exist")
        return None
    parser = _parsed(text)
    if parser is None:
        raise UsageError(f"{path} is not an ini file")
    name = context.variable("PROFILE") or "default"
    if not parser.has_section(name):
        raise UsageError(f"{path} has no section [{name}]", hint="set ALIBABA_CLOUD_PROFILE")
    settings = {_CLI_NAMES.get(key, key): _unquoted(value) for key, value in parser[name].items()}
    profile = Profile(f"section [{name}] of {path}", settings)
    kind = profile.get("type") or "access_key"
    if kind not in _MODE_OF_TYPE:
        raise UsageError(
            f"{profile.origin}: type {kind!r} is not supported",
            hint=f"use one of {', '.join(_MODE_OF_TYPE)}",
        )
    return await MODES[_MODE_OF_TYPE[kind]](context, profile)


def _parsed(text: str) -> configparser.ConfigParser | None:
    """None for an invalid ini file: the parser's error would quote a line, with its key."""
    parser = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=("#",))
    try:
        parser.read_string(text)
    except configparser.Error:
        return None
    return parser


def _unquoted(value: str) -> str:
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
    return value[1:-1] if quoted else value
