"""Steps 3 and 4: the vendor CLI's profiles, and the SDKs' credentials file."""

import configparser
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import aiofiles

from archiver.errors import NoCredentials, UsageError
from archiver.secret import Secret
from archiver.sources.credentials.metadata import ecs_role, from_uri
from archiver.sources.credentials.roles import (
    Context,
    assume_role,
    assume_role_with_oidc,
    read_time,
)
from archiver.sources.rpc import Credentials

Settings = Mapping[str, Any]
Mode = Callable[[Context, Settings, str], Awaitable[Credentials]]


async def cli_profile(context: Context) -> Credentials | None:
    """The profile ``current``, or ALIBABA_CLOUD_PROFILE, in ``~/.aliyun/config.json``."""
    path = context.home / ".aliyun" / "config.json"
    text = await _read(path)
    if text is None:
        return None
    try:
        config = json.loads(text)
        profiles = {profile["name"]: profile for profile in config["profiles"]}
        name = context.variable("PROFILE") or config.get("current") or "default"
    except (ValueError, KeyError, TypeError, AttributeError):
        # The parser's own words would quote the file, keys and all.
        raise UsageError(f"{path} is not a configuration of the vendor's CLI") from None
    if name not in profiles:
        raise UsageError(f"{path} has no profile {name!r}", hint="set ALIBABA_CLOUD_PROFILE")
    return await _from_profile(context, profiles, name, path)


async def _from_profile(
    context: Context, profiles: Mapping[str, Settings], name: str, path: Path
) -> Credentials:
    profile = profiles[name]
    origin = f"profile {name!r} of {path}"
    mode = profile.get("mode") or "AK"
    if mode == "ChainableRamRoleArn":
        source = str(profile.get("source_profile"))
        # One link: a profile that names itself, or a ring of them, has no end.
        if source not in profiles or profiles[source].get("mode") == mode:
            raise UsageError(f"{origin}: source_profile {source!r} cannot be used")
        by = await _from_profile(context, profiles, source, path)
        return await assume_role(
            context, by, _need(profile, "ram_role_arn", origin), profile, origin
        )
    if mode not in _CLI_MODES:
        raise UsageError(
            f"{origin}: mode {mode!r} is not supported",
            hint=f"use one of {', '.join(_CLI_MODES)}, ChainableRamRoleArn",
        )
    settings = {**profile, "role_session_name": profile.get("ram_session_name")}
    return await _CLI_MODES[mode](context, settings, origin)


async def credentials_ini(context: Context) -> Credentials | None:
    """A section of ``~/.alibabacloud/credentials.ini`` or ALIBABA_CLOUD_CREDENTIALS_FILE."""
    given = context.variable("CREDENTIALS_FILE")
    path = Path(given) if given else context.home / ".alibabacloud" / "credentials.ini"
    text = await _read(path)
    if text is None:
        if given:
            raise NoCredentials(f"ALIBABA_CLOUD_CREDENTIALS_FILE: {path} does not exist")
        return None
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(text)
    except configparser.Error:
        raise UsageError(f"{path} is not an ini file") from None
    name = context.variable("PROFILE") or "default"
    if not parser.has_section(name):
        raise UsageError(f"{path} has no section [{name}]", hint="set ALIBABA_CLOUD_PROFILE")
    section = parser[name]
    origin = f"section [{name}] of {path}"
    kind = section.get("type", "access_key")
    if kind not in _INI_TYPES:
        raise UsageError(
            f"{origin}: type {kind!r} is not supported", hint=f"use one of {', '.join(_INI_TYPES)}"
        )
    return await _INI_TYPES[kind](context, _with_cli_names(section), origin)


def _with_cli_names(section: Mapping[str, str]) -> Settings:
    """The ini file's names as the CLI's, where they differ."""
    names = {
        "security_token": "sts_token",
        "role_arn": "ram_role_arn",
        "role_name": "ram_role_name",
        "oidc_token_file_path": "oidc_token_file",
    }
    return {names.get(key, key): value.strip("\"'") for key, value in section.items()}


async def _access_key(_: Context, settings: Settings, origin: str) -> Credentials:
    return Credentials(
        Secret(_need(settings, "access_key_id", origin)),
        Secret(_need(settings, "access_key_secret", origin)),
        origin=origin,
    )


async def _sts_token(_: Context, settings: Settings, origin: str) -> Credentials:
    expiration = settings.get("sts_expiration")
    try:
        expires_at = read_time(str(expiration)) if expiration else None
    except ValueError:
        raise UsageError(f"{origin}: sts_expiration {expiration!r} is not a time") from None
    return Credentials(
        Secret(_need(settings, "access_key_id", origin)),
        Secret(_need(settings, "access_key_secret", origin)),
        Secret(_need(settings, "sts_token", origin)),
        expires_at,
        origin,
    )


async def _role(context: Context, settings: Settings, origin: str) -> Credentials:
    by = await (_sts_token if settings.get("sts_token") else _access_key)(context, settings, origin)
    return await assume_role(context, by, _need(settings, "ram_role_arn", origin), settings, origin)


async def _ecs(context: Context, settings: Settings, origin: str) -> Credentials:
    return await ecs_role(context, settings.get("ram_role_name"), origin)


async def _oidc(context: Context, settings: Settings, origin: str) -> Credentials:
    return await assume_role_with_oidc(
        context,
        _need(settings, "ram_role_arn", origin),
        _need(settings, "oidc_provider_arn", origin),
        Path(_need(settings, "oidc_token_file", origin)),
        settings,
        origin,
    )


async def _uri(context: Context, settings: Settings, origin: str) -> Credentials:
    return await from_uri(context, _need(settings, "credentials_uri", origin), origin)


_CLI_MODES: Final[Mapping[str, Mode]] = {
    "AK": _access_key,
    "StsToken": _sts_token,
    "RamRoleArn": _role,
    "EcsRamRole": _ecs,
    "OIDC": _oidc,
    "CredentialsURI": _uri,
}
_INI_TYPES: Final[Mapping[str, Mode]] = {
    "access_key": _access_key,
    "sts": _sts_token,
    "ram_role_arn": _role,
    "ecs_ram_role": _ecs,
    "oidc_role_arn": _oidc,
    "credentials_uri": _uri,
}


def _need(settings: Settings, key: str, origin: str) -> str:
    value = settings.get(key)
    if not value or not isinstance(value, str):
        raise UsageError(f"{origin}: {key} is missing")
    return value


async def _read(path: Path) -> str | None:
    try:
        async with aiofiles.open(path, encoding="utf-8") as file:
            return str(await file.read())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read ({type(error).__name__})") from None
