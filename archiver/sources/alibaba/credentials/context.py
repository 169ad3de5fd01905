"""What the steps of the credential chain read: variables, small files and profiles."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aiofiles
import aiohttp

from archiver.errors import UsageError
from archiver.proxies import Proxies
from archiver.stray_characters import clean_variable


@dataclass(frozen=True, slots=True)
class Context:
    """Environment, home folder (None for a user without one), aiohttp session, and a clock in
    seconds since the epoch."""

    session: aiohttp.ClientSession
    environ: Mapping[str, str] = field(repr=False)
    home: Path | None
    metadata_url: str
    sts_endpoint: str | None = None
    clock: Callable[[], float] = time.time
    proxies: Proxies = field(default_factory=Proxies)

    def variable(self, name: str) -> str | None:
        """``ALIBABA_CLOUD_<name>``; None when unset or blank.

        A line break at its end, as a mounted file or a shell leaves it, is removed. Raises
        UsageError for other stray characters.
        """
        name = f"ALIBABA_CLOUD_{name}"
        return clean_variable({name: self.environ.get(name, "").strip()}, name)

    def is_true(self, name: str) -> bool:
        """Whether ``ALIBABA_CLOUD_<name>`` is ``true``, as the vendor's SDKs read it."""
        return (self.variable(name) or "").lower() == "true"

    def path(self, text: str) -> Path:
        """A path from a setting; a leading ``~/`` is the home folder. Raises UsageError."""
        if not text.startswith("~/"):
            return Path(text)
        if self.home is None:
            raise UsageError(f"{text}: there is no home folder", hint="set HOME")
        return self.home / text[2:]

    def in_home(self, *parts: str) -> Path | None:
        """A path in the home folder; None if there is none."""
        return None if self.home is None else self.home.joinpath(*parts)


@dataclass(frozen=True, slots=True)
class Profile:
    """Settings under the names of the vendor's CLI. ``origin`` names file and profile in errors.

    The settings hold keys and are not printed.
    """

    origin: str
    settings: Mapping[str, object] = field(repr=False)

    def get(self, key: str) -> str | None:
        """A setting as text; None when it is missing or blank."""
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
        """A boolean setting; None when it is not set."""
        value = self.settings.get(key)
        return value if isinstance(value, bool) else None


async def read_text(path: Path | None) -> str | None:
    """The text of a file; None when there is none. Raises UsageError when it cannot be read."""
    if path is None:
        return None
    try:
        # Editors on Windows write a byte order mark, which no parser accepts.
        async with aiofiles.open(path, encoding="utf-8-sig") as file:
            return str(await file.read())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        why = error.strerror or "it cannot be opened"
    except ValueError:
        why = "it is not UTF-8"
    # Not raised in the handler: a decoding error holds the bytes of the file.
    raise UsageError(f"{path} cannot be read: {why}")
