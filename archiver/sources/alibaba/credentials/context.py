"""What the steps of the chain look at, and what they ask others with."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from archiver.errors import UsageError
from archiver.proxies import Proxies
from archiver.stray_characters import clean_variable


@dataclass(frozen=True, slots=True)
class Context:
    """The environment, the home folder (None for a user that has none), a session, and a clock in
    seconds since the epoch."""

    session: aiohttp.ClientSession
    environ: Mapping[str, str] = field(repr=False)
    home: Path | None
    metadata_url: str
    sts_endpoint: str | None = None
    clock: Callable[[], float] = time.time
    proxies: Proxies = field(default_factory=Proxies)

    def variable(self, name: str) -> str | None:
        """``ALIBABA_CLOUD_<name>``, None when unset or blank; without the line break that a mounted
        file or a shell leaves. Raises UsageError for what else one leaves."""
        name = f"ALIBABA_CLOUD_{name}"
        return clean_variable({name: self.environ.get(name, "").strip()}, name)

    def is_true(self, name: str) -> bool:
        """Whether ``ALIBABA_CLOUD_<name>`` is ``true``, as the vendor's SDKs read it."""
        return (self.variable(name) or "").lower() == "true"

    def path(self, text: str) -> Path:
        """A path as people set it: a leading ``~/`` is the home folder. Raises UsageError."""
        if not text.startswith("~/"):
            return Path(text)
        if self.home is None:
            raise UsageError(f"{text}: there is no home folder", hint="set HOME")
        return self.home / text[2:]

    def in_home(self, *parts: str) -> Path | None:
        return None if self.home is None else self.home.joinpath(*parts)
