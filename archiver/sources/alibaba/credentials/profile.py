"""One profile: settings under the names of the vendor's CLI, and where they come from."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from archiver.errors import UsageError


@dataclass(frozen=True, slots=True)
class Profile:
    """``origin`` names file and profile in errors; the settings hold keys and do not print."""

    origin: str
    settings: Mapping[str, object] = field(repr=False)

    def get(self, key: str) -> str | None:
        """A setting as text, None when it is missing or blank."""
        value = self.settings.get(key)
        if isinstance(value, bool) or not isinstance(value, str | int):
            return None
        return str(value).strip() or None

    def need(self, key: str) -> str:
        """A setting as text. Raises UsageError when it is missing or blank."""
        value = self.get(key)
        if value is None:
            raise UsageError(f"{self.origin}: {key} is missing")
        return value

    def flag(self, key: str) -> bool | None:
        """A switch, None when it is not set."""
        value = self.settings.get(key)
        return value if isinstance(value, bool) else None
