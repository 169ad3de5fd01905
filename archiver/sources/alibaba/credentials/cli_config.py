"""Step 3: the configuration of the vendor's CLI, ``~/.aliyun/config.json``."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from archiver.errors import NoCredentials, UsageError
from archiver.sources.alibaba.credentials import ini_file
from archiver.sources.alibaba.credentials.context import Context, Profile, read_text
from archiver.sources.alibaba.credentials.modes import MODES
from archiver.sources.alibaba.credentials.roles import assume_role
from archiver.sources.alibaba.rpc import Credentials

_CHAINED: Final = "ChainableRamRoleArn"


@dataclass(frozen=True, slots=True)
class _Config:
    path: Path
    current: str
    profiles: Mapping[str, Mapping[str, object]] = field(repr=False)

    def profile(self, name: str) -> Profile:
        settings = self.profiles[name]
        # The CLI writes ram_session_name; the SDKs read role_session_name in OIDC profiles.
        session = settings.get("ram_session_name") or settings.get("role_session_name")
        return Profile(
            f"profile {name!r} of {self.path}", {**settings, "ram_session_name": session}
        )


async def cli_profile(context: Context) -> Credentials | None:
    """The profile ALIBABA_CLOUD_PROFILE, or ``current``, of ``~/.aliyun/config.json``.

    ALIBABA_CLOUD_CONFIG_FILE names another file (the vendor's Go SDK reads it), and
    ALIBABA_CLOUD_CLI_PROFILE_DISABLED=true skips the step. Raises NoCredentials when the named
    file does not exist, UsageError for an invalid file or profile, and what the profile's mode
    raises.
    """
    if context.is_true("CLI_PROFILE_DISABLED"):
        return None
    given = context.variable("CONFIG_FILE")
    path = context.path(given) if given else context.in_home(".aliyun", "config.json")
    text = await read_text(path)
    if path is None or text is None:
        if given:
            raise NoCredentials(f"ALIBABA_CLOUD_CONFIG_FILE: {path} does not exist")
        return None
    config = _parsed(text, path)
    if config is None:
        raise UsageError(f"{path} is not a configuration of the vendor's CLI (JSON with profiles)")
    return await _chosen(context, config)


async def _chosen(context: Context, config: _Config) -> Credentials | None:
    wanted = context.variable("PROFILE")
    name = wanted or config.current
    if name not in config.profiles:
        # The variable applies to both files: it may name a profile of the other one.
        if wanted and await read_text(ini_file.credentials_path(context)) is not None:
            return None
        raise UsageError(f"{config.path} has no profile {name!r}", hint="set ALIBABA_CLOUD_PROFILE")
    profile = config.profile(name)
    keyless = not profile.get("access_key_id") and not profile.get("access_key_secret")
    if keyless and not wanted and (profile.get("mode") or "AK") == "AK":
        return None  # the CLI writes this on its first run, before it is configured
    return await _credentials(context, config, name, ())


async def _credentials(
    context: Context, config: _Config, name: str, through: tuple[str, ...]
) -> Credentials:
    """The key of a profile. A chained profile assumes its role with the key of another one;
    ``through`` are the profiles on the way to this one."""
    profile = config.profile(name)
    mode = profile.get("mode") or "AK"
    if mode == _CHAINED:
        source, through = profile.need("source_profile"), (*through, name)
        if source not in config.profiles:
            raise UsageError(f"{profile.origin}: there is no source_profile {source!r}")
        if source in through:
            raise UsageError(f"{profile.origin}: source_profile {source!r} refers back to itself")
        by = await _credentials(context, config, source, through)
        return await assume_role(context, by, profile)
    if mode not in MODES:
        raise UsageError(
            f"{profile.origin}: mode {mode!r} is not supported",
            hint=f"use one of {', '.join([*MODES, _CHAINED])}, "
            "or set ALIBABA_CLOUD_CLI_PROFILE_DISABLED=true",
        )
    return await MODES[mode](context, profile)


def _parsed(text: str, path: Path) -> _Config | None:
    """None for an invalid file: the parser's error would contain the text, with its keys."""
    try:
        config = json.loads(text)
        profiles = {str(profile["name"]): dict(profile) for profile in config["profiles"]}
        return _Config(path, str(config.get("current") or "default"), profiles)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
