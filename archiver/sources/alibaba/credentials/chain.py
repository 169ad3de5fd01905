"""The credential chain: the first step that is configured gives the key, and renews it."""

import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
import anyio

from archiver.errors import ArchiverError, BadCredentials, NoCredentials, SourceUnavailable
from archiver.proxies import Proxies
from archiver.retry import RETRIES
from archiver.sources.alibaba.credentials import cli_config, environment, ini_file, metadata
from archiver.sources.alibaba.credentials.context import Context
from archiver.sources.alibaba.rpc import Credentials
from archiver.times import format_iso

# Temporary credentials are renewed this many seconds before they expire, as the SDKs do.
REFRESH_AHEAD: Final = 15 * 60
# The pause between renewals while the old credentials are valid: the service may be down, or give
# keys that are valid for less than REFRESH_AHEAD.
RENEWAL_PAUSE: Final = RETRIES.renewed_credentials.wait

# Returns None when the step is not configured, and raises when it is configured but broken: a key
# that somebody set up must not be skipped silently.
Step = Callable[[], Awaitable[Credentials | None]]


@dataclass(frozen=True, slots=True)
class NamedStep:
    """A step, and what it looks at; for errors."""

    looks_at: str
    get: Step


class CredentialChain:
    """Tries its steps in order, caches the credentials, and renews them by the same step.

    ``clock`` returns seconds since the epoch. Tasks that need credentials at the same time share
    one request.
    """

    def __init__(self, steps: Sequence[NamedStep], clock: Callable[[], float] = time.time) -> None:
        self._steps: Final = steps
        self._clock: Final = clock
        self._renewing: Final = anyio.Lock()
        self._cached: Credentials | None = None
        self._chosen: NamedStep | None = None
        self._next_renewal_at = -math.inf

    async def get(self) -> Credentials:
        """Valid credentials.

        Raises NoCredentials when no step is configured, the error of a broken step, and
        SourceUnavailable when the step that gave the key gives none any more.
        """
        if (cached := self._usable()) is not None:
            return cached
        async with self._renewing:
            if (cached := self._usable()) is not None:
                return cached  # another task renewed them meanwhile
            return await self._renewed()

    def _usable(self) -> Credentials | None:
        """The cached credentials, unless they should be renewed now."""
        cached = self._cached
        if cached is None:
            return None
        left = self._seconds_left(cached)
        was_just_renewed = left > 0 and self._clock() < self._next_renewal_at
        return cached if left > REFRESH_AHEAD or was_just_renewed else None

    async def _renewed(self) -> Credentials:
        cached = self._cached
        try:
            self._cached = renewed = await self._from_steps()
        except ArchiverError:
            if cached is None or self._seconds_left(cached) <= 0:
                raise
            renewed = cached  # still valid; a later call tries again
        self._next_renewal_at = self._clock() + RENEWAL_PAUSE
        return renewed

    async def _from_steps(self) -> Credentials:
        if self._chosen is not None:
            credentials = await self._chosen.get()
            if credentials is None:
                # Not the next step: a run must not change its identity half-way.
                raise SourceUnavailable(f"{self._chosen.looks_at} no longer gives an access key")
            return self._checked(credentials)
        for step in self._steps:
            credentials = await step.get()
            if credentials is not None:
                checked = self._checked(credentials)
                self._chosen = step
                return checked
        looked = ", ".join(step.looks_at for step in self._steps)
        raise NoCredentials(
            f"no access key found in {looked}",
            hint="set ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET",
        )

    def _checked(self, credentials: Credentials) -> Credentials:
        if credentials.expires_at is not None and self._seconds_left(credentials) <= 0:
            raise BadCredentials(
                f"{credentials.origin}: the access key expired at "
                f"{format_iso(credentials.expires_at)}",
                hint="renew it, or set the clock of this machine",
            )
        return credentials

    def _seconds_left(self, credentials: Credentials) -> float:
        """Seconds until the credentials expire."""
        if credentials.expires_at is None:
            return math.inf
        return credentials.expires_at.timestamp() - self._clock()


def static_chain(credentials: Credentials) -> CredentialChain:
    """A chain of one step that always returns ``credentials``."""

    async def given() -> Credentials:
        return credentials

    return CredentialChain([NamedStep("the given key", given)])


def default_chain(
    session: aiohttp.ClientSession,
    environ: Mapping[str, str],
    home: Path | None,
    *,
    metadata_url: str = metadata.ECS_METADATA_URL,
    sts_endpoint: str | None = None,
    clock: Callable[[], float] = time.time,
    proxies: Proxies | None = None,
) -> CredentialChain:
    """The six steps of the vendor's SDKs, in their order but for one.

    ALIBABA_CLOUD_CREDENTIALS_URI comes before the metadata service of ECS: it was set on purpose,
    and on an ECS instance with a role the vendor's order would never reach it. The metadata service
    is contacted only when no other step is configured, or a profile names it.

    Nothing is read or sent before the first ``get``. ``home`` is None for a user without a home
    folder. The caller closes ``session``. ``sts_endpoint`` is a host or URL to use instead of the
    vendor's STS. Without ``proxies`` those of ``environ`` are used.
    """
    proxies = proxies or Proxies.from_environment(environ)
    context = Context(
        session, environ, home, metadata_url.rstrip("/"), sts_endpoint, clock, proxies
    )
    steps = {
        "ALIBABA_CLOUD_ACCESS_KEY_ID": environment.access_key,
        "ALIBABA_CLOUD_OIDC_TOKEN_FILE": environment.oidc,
        "~/.aliyun/config.json": cli_config.cli_profile,
        "~/.alibabacloud/credentials.ini": ini_file.credentials_ini,
        "ALIBABA_CLOUD_CREDENTIALS_URI": metadata.credentials_uri,
        "the ECS RAM role": metadata.ecs_role_of_this_host,
    }

    def bound(get: Callable[[Context], Awaitable[Credentials | None]]) -> Step:
        return lambda: get(context)

    return CredentialChain([NamedStep(name, bound(get)) for name, get in steps.items()], clock)
