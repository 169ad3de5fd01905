"""Keys as they come from variables, files and services, checked and wrapped before all else."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from archiver.errors import BadCredentials
from archiver.secret import Secret
from archiver.sources.alibaba.rpc import Credentials
from archiver.stray_characters import flaw_of_key

NAMES: Final = ("the access key id", "the access key secret", "the security token")


def access_key(
    key_id: str,
    secret: str,
    token: str | None,
    origin: str,
    expires_at: datetime | None = None,
    names: tuple[str, str, str] = NAMES,
) -> Credentials:
    """An access key, with token and expiry when it is temporary; ``names`` of its parts are said
    of one that cannot be any. Raises BadCredentials."""
    return Credentials(
        _clean(key_id, names[0], origin),
        _clean(secret, names[1], origin),
        None if token is None else _clean(token, names[2], origin),
        expires_at,
        origin,
    )


def temporary(answer: object, origin: str) -> Credentials:
    """Read AccessKeyId, AccessKeySecret, SecurityToken, Expiration, and Code where it is given.

    STS, the metadata service of ECS and a credentials URI all answer in these. Raises
    BadCredentials.
    """
    given = answer if isinstance(answer, Mapping) else {}
    names = ("AccessKeyId", "AccessKeySecret", "SecurityToken", "Expiration")
    texts = [text for name in names if isinstance(text := given.get(name), str) and text.strip()]
    expires_at = read_time(texts[-1]) if len(texts) == len(names) else None
    if expires_at is None or given.get("Code", "Success") != "Success":
        raise BadCredentials(f"{origin}: the answer holds no temporary credentials")
    return access_key(texts[0], texts[1], texts[2], origin, expires_at)


def read_time(text: str) -> datetime | None:
    """ISO 8601, UTC where it does not say, or seconds since the epoch; None for neither."""
    try:
        if text.isdecimal():
            return datetime.fromtimestamp(int(text), UTC)
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _clean(text: str, what: str, origin: str) -> Secret:
    """Without the line break that a mounted secret or a shell leaves; it would break a header."""
    text = text.strip()
    if (wrong := flaw_of_key(text)) is not None:
        raise BadCredentials(f"{origin}: {what}: {wrong}", hint="copy it again")
    return Secret(text)
