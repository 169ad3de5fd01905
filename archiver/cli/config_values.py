"""The values of ``archiver.toml``: what an option may be set to, checked by its own click type."""

import re
from datetime import date, datetime, time
from typing import Final

import click

from archiver.cli.config_keys import is_count, is_list, is_switch, key_of
from archiver.cli.params import AssertionText, ProxyUrl
from archiver.stray_characters import stray_characters_in

Value = str | bool | int | tuple[str, ...]

# Keys that somebody tries for a secret.
KEYS_OF_SECRETS: Final = re.compile(r"secret|passw|token|credential|access_?-?key", re.IGNORECASE)
_USER_IN_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#\s]*@", re.IGNORECASE)
# IDs of access keys of Alibaba Cloud and AWS.
_KEY_ID = re.compile(r"\b(LTAI[0-9A-Za-z]{12,}|(AKIA|ASIA)[0-9A-Z]{16})\b")
_HOSTS: Final = {"URL", "HOST", "ADDRESS"}


class Wrong(ValueError):
    """Why a value is refused."""


def checked(param: click.Parameter, value: object) -> Value:
    """``value`` as the texts, switch or count that ``param`` takes. Raises Wrong."""
    if is_switch(param):
        if not isinstance(value, bool):
            raise Wrong("must be true or false, without quotes")
        return value
    if is_count(param):
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise Wrong("must be a whole number, 0 or more")
        return value
    if not is_list(param):
        return _text(param, value)
    values = value if isinstance(value, list) else [value]
    if not values:
        raise Wrong("the list is empty; leave the key out instead")
    return tuple(_text(param, one) for one in values)


def secret_in(value: object) -> str | None:
    """Why a value, which is not quoted, must not be in the file; None if it may be."""
    if isinstance(value, str) and _USER_IN_URL.search(value):
        return "a URL with a user or password is a secret; set it in the environment"
    if isinstance(value, str) and _KEY_ID.search(value):
        return "access keys are not kept in this file; set them in the environment"
    return None


def _text(param: click.Parameter, value: object) -> str:
    """One value as it would be typed. Raises Wrong."""
    if isinstance(value, list):
        raise Wrong("takes one value, not a list")
    if isinstance(value, dict | bool):
        kind = "a table" if isinstance(value, dict) else "true or false"
        raise Wrong(f"must be {_wanted(param)}, not {kind}")
    text = value.isoformat() if isinstance(value, date | datetime | time) else str(value)
    if (secret := _secret(param, text)) is not None:
        raise Wrong(secret)
    if not text:
        raise Wrong("is empty; leave the key out instead")
    quotes_at_end = isinstance(param.type, AssertionText)
    if (stray := stray_characters_in(text, quotes_at_end=quotes_at_end)) is not None:
        raise Wrong(stray)
    try:
        param.type(text, param, None)
    except click.BadParameter as error:
        raise Wrong(error.message) from None
    return text


def _secret(param: click.Parameter, text: str) -> str | None:
    """As ``secret_in``, and what to set in the environment instead."""
    is_host = isinstance(param, click.Option) and param.metavar in _HOSTS
    if not (secret_in(text) or (is_host and "@" in text)):
        return None
    if isinstance(param.type, ProxyUrl):
        return "a proxy with a user or password is a secret; set HTTPS_PROXY in the environment"
    if _KEY_ID.search(text):
        return secret_in(text)
    return f"a URL with a user or password is a secret; set {param.envvar} in the environment"


def _wanted(param: click.Parameter) -> str:
    """What the option takes, for an error message."""
    if isinstance(param.type, click.Choice):
        return f"one of {', '.join(map(str, param.type.choices))}"
    if isinstance(param.type, click.IntRange | click.FloatRange):
        return "a number"
    shown = param.metavar or param.type.name.upper()
    return f"a text for {key_of(param)} ({shown})"
