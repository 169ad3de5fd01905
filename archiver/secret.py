"""Values that cannot print themselves: keys, tokens and the signed part of a URL."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, NoReturn
from urllib.parse import parse_qs, unquote, urlsplit

from archiver.errors import UnsafeInput
from archiver.times import parse_compact


class Secret:
    """A string that prints as ``***``; only :meth:`reveal` returns it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value: Final = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled")


def masked(key_id: str) -> str:
    """The ends of an access key's id, by which its owner knows it."""
    return f"{key_id[:4]}…{key_id[-4:]}" if len(key_id) > 12 else "…"


@dataclass(frozen=True, slots=True)
class SignedUrl:
    """The URL of one object, whose query grants access to it until it expires.

    It prints without the query. ``path`` is percent-decoded and has no leading slash.
    """

    scheme: str
    host: str
    path: str
    expires_at: datetime | None
    _secret: Secret = field(repr=False)

    @classmethod
    def parse(cls, url: str) -> "SignedUrl":
        """Parse a download URL as the API gives it.

        Raises UnsafeInput for anything but http and https with a host.
        """
        try:
            split = urlsplit(url)
            host, port = split.hostname, split.port
        except ValueError:
            host, port, split = None, None, urlsplit("")
        if split.scheme not in ("http", "https") or not host:
            raise UnsafeInput(
                f"the API gave a download URL with scheme {split.scheme[:20]!r}; "
                "only http and https URLs with a host are requested"
            )
        host = f"[{host}]" if ":" in host else host
        return cls(
            scheme=split.scheme,
            host=f"{host}:{port}" if port else host,
            path=unquote(split.path).lstrip("/"),
            expires_at=_expiry(split.query),
            _secret=Secret(url),
        )

    def reveal(self) -> str:
        return self._secret.reveal()

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}/{self.path}"


def _expiry(query: str) -> datetime | None:
    """When a signed URL expires, from OSS V1 ``Expires``, or V4 ``x-oss-date`` and
    ``x-oss-expires``; None if it does not say."""
    values = {name.lower(): given[0] for name, given in parse_qs(query).items()}
    try:
        if "expires" in values:
            return datetime.fromtimestamp(int(values["expires"]), UTC)
        if "x-oss-date" in values and "x-oss-expires" in values:
            signed = parse_compact(values["x-oss-date"])
            return signed + timedelta(seconds=int(values["x-oss-expires"]))
    except (ValueError, OverflowError, OSError):
        return None
    return None
