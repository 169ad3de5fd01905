"""The chain: the first step that is configured gives the key, and goes on giving it."""

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
from archiver.sources.alibaba.credentials import cli_config, environment, ini_file, metadata
from archiver.sources.alibaba.credentials.context import Context
from archiver.sources.alibaba.rpc import Credentials

# The vendor's SDKs renew temporary credentials that long (seconds) before they expire.
REFRESH_AHEAD: Final = 15 * 60
# While those held still work, whoever gives them is asked no more often than that (seconds):
# it may be down, or give keys that live no longer than REFRESH_AHEAD.
ASK_AGAIN: Final = 60

# None when this step is not configured; an error when it is, and broken: a key that somebody
# set up must not be passed over in silence for another one.
Step = Callable[[], Awaitable[Credentials | None]]


@dataclass(frozen=True, slots=True)
class NamedStep:
    """A step, and what it looks at, for the error that names all of them."""

    looks_at: str
    ask: Step


class CredentialChain:
    """Asks its steps in order, keeps what it got, and asks the same step before that expires.

    ``clock`` gives seconds since the epoch. Tasks that want credentials at the same time share
    one request.
    """

    def __init__(self, steps: Sequence[NamedStep], clock: Callable[[], float] = time.time) -> None:
        self._steps: Final = steps
        self._clock: Final = clock
        self._asking: Final = anyio.Lock()
        self._held: Credentials | None = None
        self._giver: NamedStep | None = None
        self._ask_again_at = -math.inf

    async def get(self) -> Credentials:
        """Credentials that are good for now.

        Raises NoCredentials when no step is configured, what a broken step raises, and
        SourceUnavailable when the step that gave the key before gives none any more.
        """
        if (held := self._good_for_now()) is not None:
            return held
        async with self._asking:
            if (held := self._good_for_now()) is not None:
                return held  # another task renewed them meanwhile
            return await self._renewed()

    def _good_for_now(self) -> Credentials | None:
        held = self._held
        if held is None:
            return None
        left = self._left(held)
        asked_just_now = left > 0 and self._clock() < self._ask_again_at
        return held if left > REFRESH_AHEAD or asked_just_now else None

    async def _renewed(self) -> Credentials:
        held = self._held
        try:
            self._held = renewed = await self._ask()
        except ArchiverError:
            if held is None or self._left(held) <= 0:
                raise
            renewed = held  # still works for a while, and a later call tries again
        self._ask_again_at = self._clock() + ASK_AGAIN
        return renewed

    async def _ask(self) -> Credentials:
        if self._giver is not None:
            credentials = await self._giver.ask()
            if credentials is None:
                # Not on to the next step: a run must not change its identity half-way.
                raise SourceUnavailable(f"{self._giver.looks_at} gives no access key any more")
            return self._checked(credentials)
        for step in self._steps:
            credentials = await step.ask()
            if credentials is not None:
                checked = self._checked(credentials)
                self._giver = step
                return checked
        looked = ", ".join(step.looks_at for step in self._steps)
        raise NoCredentials(
            f"no access key: looked at {looked}",
            hint="set ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET",
        )

    def _checked(self, credentials: Credentials) -> Credentials:
        if credentials.expires_at is not None and self._left(credentials) <= 0:
            raise BadCredentials(
                f"{credentials.origin}: the access key expired at "
                f"{credentials.expires_at:%Y-%m-%dT%H:%M:%SZ}",
                hint="renew it, or set this machine's clock",
            )
        return credentials

    def _left(self, credentials: Credentials) -> float:
        """Seconds until the credentials expire."""
        if credentials.expires_at is None:
            return math.inf
        return credentials.expires_at.timestamp() - self._clock()


def static_chain(credentials: Credentials) -> CredentialChain:
    """A chain of one step that always gives the same: for a key one has at hand."""

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
    """The vendor's six steps, in its order but for one.

    ALIBABA_CLOUD_CREDENTIALS_URI, when it is set, is asked before the metadata service of ECS:
    somebody set the one, the other is only guessed to be there, and on an ECS instance that has a
    role the vendor's order would never come to the URI. Nothing is sent to the metadata service
    unless no other step is configured, or a profile asks for it.

    Nothing is read or sent before the first ``get``. ``home`` is None for a user that has no home
    folder; ``session`` stays the caller's to close;
    ``sts_endpoint`` is a host or URL to ask in place of the vendor's STS; ``proxies`` None are
    those of ``environ``.
    """
    proxies = proxies or Proxies.of(environ)
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

    def bound(ask: Callable[[Context], Awaitable[Credentials | None]]) -> Step:
        return lambda: ask(context)

    return CredentialChain([NamedStep(name, bound(ask)) for name, ask in steps.items()], clock)
