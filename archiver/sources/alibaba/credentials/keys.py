"""Checks access keys from variables, files and services, and wraps them as secrets."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from archiver.errors import BadCredentials
from archiver.secret import Secret
from archiver.sources.alibaba.rpc import Credentials
from archiver.stray_characters import access_key_problem
from archiver.times import parse_iso

NAMES: Final = ("the access key id", "the access key secret", "the security token")


def access_key(
    key_id: str,
    secret: str,
    token: str | None,
    origin: str,
    expires_at: datetime | None = None,
    names: tuple[str, str, str] = NAMES,
) -> Credentials:
    """Credentials of an access key, with token and expiry when it is temporary.

    ``names`` are those of its parts, for errors. Raises BadCredentials for an impossible key.
    """
    return Credentials(
        _clean(key_id, names[0], origin),
        _clean(secret, names[1], origin),
        None if token is None else _clean(token, names[2], origin),
        expires_at,
        origin,
    )


def temporary(answer: object, origin: str) -> Credentials:
    """Credentials from AccessKeyId, AccessKeySecret, SecurityToken, Expiration and, optionally,
    Code, as STS, the metadata service of ECS and a credentials URI send them.

    Raises BadCredentials.
    """
    given = answer if isinstance(answer, Mapping) else {}
    names = ("AccessKeyId", "AccessKeySecret", "SecurityToken", "Expiration")
    texts = [text for name in names if isinstance(text := given.get(name), str) and text.strip()]
    expires_at = read_time(texts[-1]) if len(texts) == len(names) else None
    if expires_at is None or given.get("Code", "Success") != "Success":
        raise BadCredentials(f"{origin}: the response holds no temporary credentials")
    return access_key(texts[0], texts[1], texts[2], origin, expires_at)


def read_time(text: str) -> datetime | None:
    """A time in ISO 8601, or in seconds since the epoch; None for anything else."""
    try:
        if text.isdecimal():
            return datetime.fromtimestamp(int(text), UTC)
        return parse_iso(text)
    except (ValueError, OverflowError, OSError):
        return None


def _clean(text: str, what: str, origin: str) -> Secret:
    """One part of a key, without the line break that a mounted secret or a shell leaves."""
    text = text.strip()
    if (problem := access_key_problem(text)) is not None:
        raise BadCredentials(f"{origin}: {what}: {problem}", hint="copy it again")
    return Secret(text)
