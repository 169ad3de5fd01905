"""The chain: the first step that is configured gives the key, and goes on giving it."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import aiohttp
import anyio

from archiver.errors import ArchiverError, NoCredentials
from archiver.sources.credentials import environment, files, metadata
from archiver.sources.credentials.roles import Context
from archiver.sources.rpc import Credentials

# The vendor's SDKs renew temporary credentials that long before they expire.
REFRESH_AHEAD = timedelta(minutes=15)

# None when this step is not configured; an error when it is, and broken: a key that somebody
# set up must not be passed over in silence for another one.
Step = Callable[[], Awaitable[Credentials | None]]


@dataclass(frozen=True, slots=True)
class NamedStep:
    """A step, and what it looks at, for the error that names all of them."""

    looks_at: str
    ask: Step


class CredentialChain:
    """Asks its steps in order, keeps what it got, and asks again before that expires."""

    def __init__(self, steps: Sequence[NamedStep], clock: Callable[[], float] = time.time) -> None:
        self._steps: Final = steps
        self._clock: Final = clock
        self._asking: Final = anyio.Lock()
        self._held: Credentials | None = None

    async def get(self) -> Credentials:
        """Credentials that are good for now.

        Raises NoCredentials when no step is configured, and what a broken step raises.
        """
        held = self._held
        if held is not None and self._remaining(held) > REFRESH_AHEAD.total_seconds():
            return held
        async with self._asking:
            held = self._held
            if held is not None and self._remaining(held) > REFRESH_AHEAD.total_seconds():
                return held  # another task renewed them meanwhile
            try:
                self._held = await self._ask()
            except ArchiverError:
                # Those held still work for a while: the next call tries again.
                if held is None or self._remaining(held) <= 0:
                    raise
                return held
            return self._held

    def _remaining(self, credentials: Credentials) -> float:
        if credentials.expires_at is None:
            return float("inf")
        return credentials.expires_at.timestamp() - self._clock()

    async def _ask(self) -> Credentials:
        for step in self._steps:
            credentials = await step.ask()
            if credentials is not None:
                return credentials
        looked = ", ".join(step.looks_at for step in self._steps)
        raise NoCredentials(
            f"no access key: looked at {looked}",
            hint="set ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET",
        )


def static_chain(credentials: Credentials) -> CredentialChain:
    """A chain of one step that always gives the same."""

    async def given() -> Credentials:
        return credentials

    return CredentialChain([NamedStep("the given key", given)])


def default_chain(
    session: aiohttp.ClientSession,
    environ: Mapping[str, str],
    home: Path,
    *,
    metadata_url: str = metadata.ECS_METADATA_URL,
    sts_endpoint: str | None = None,
    clock: Callable[[], float] = time.time,
) -> CredentialChain:
    """The vendor's six steps, in its order but for one: ALIBABA_CLOUD_CREDENTIALS_URI, when it
    is set, is asked before the metadata service of ECS, which is only guessed to be there."""
    context = Context(session, environ, home, metadata_url, sts_endpoint)
    steps = {
        "ALIBABA_CLOUD_ACCESS_KEY_ID": environment.access_key,
        "ALIBABA_CLOUD_OIDC_TOKEN_FILE": environment.oidc,
        "~/.aliyun/config.json": files.cli_profile,
        "~/.alibabacloud/credentials.ini": files.credentials_ini,
        "ALIBABA_CLOUD_CREDENTIALS_URI": metadata.credentials_uri,
        "the ECS RAM role": metadata.ecs_role_of_this_host,
    }

    def bound(ask: Callable[[Context], Awaitable[Credentials | None]]) -> Step:
        return lambda: ask(context)

    return CredentialChain([NamedStep(name, bound(ask)) for name, ask in steps.items()], clock)
