"""Over which network a backup's bytes come, and its URL while that one works."""

import threading
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

import anyio

from archiver import events
from archiver.concurrency import until_cancelled
from archiver.errors import (
    ArchiverError,
    BackupFailed,
    IntegrityError,
    SourceUnavailable,
    UnsafeInput,
    UrlRefused,
)
from archiver.model import Backup, Network
from archiver.network import dial, is_metadata, resolve
from archiver.proxies import Proxies
from archiver.secret import SignedUrl
from archiver.transfer.http.connection import Place
from archiver.transfer.http.response import address

# A URL about to expire is renewed first: a part takes seconds, a signed request is checked once.
REFRESH_AHEAD = timedelta(seconds=60)
# 403s in a row, each answered by listing again, without a byte in between.
MOST_REFUSALS = 4
_PROBE_SECONDS = 2.0

Relist = Callable[[Backup], Awaitable[Backup]]


class NetworkChoice(StrEnum):
    """``auto`` tries the intranet once a run for each host, then stays with what it found."""

    AUTO = "auto"
    INTRANET = "intranet"
    PUBLIC = "public"


class Route:
    """Chooses the network, once for each intranet host in a run."""

    def __init__(
        self, choice: NetworkChoice, observer: events.Observer, proxies: Proxies | None = None
    ) -> None:
        self._choice: Final = choice
        self._observer: Final = observer
        self._proxies: Final = proxies or Proxies()
        self._reachable: Final[dict[str, bool]] = {}
        self._proven: Final[set[str]] = set()
        self._probing: Final = anyio.Lock()

    async def choose(self, backup: Backup) -> tuple[Network, SignedUrl]:
        """The network and URL to fetch ``backup`` from.

        Raises BackupFailed when the wanted network has no URL, UnsafeInput for one that must
        not be fetched.
        """
        public, intranet = (
            self._url(backup, network) for network in (Network.PUBLIC, Network.INTRANET)
        )
        if self._choice is not NetworkChoice.PUBLIC and intranet is not None:
            required = self._choice is NetworkChoice.INTRANET or public is None
            if required or await self._is_reachable(intranet):
                return Network.INTRANET, intranet
        if self._choice is NetworkChoice.INTRANET or public is None:
            raise BackupFailed(f"{backup}: the API gave no {self._choice} download URL")
        return Network.PUBLIC, public

    def _url(self, backup: Backup, network: Network) -> SignedUrl | None:
        """The URL for a network, if there is one that is not ruled out anyway."""
        if self._choice not in (NetworkChoice.AUTO, network.value):
            return None
        if (why := backup.refused.get(network)) is not None:
            raise UnsafeInput(f"{backup}: {why}")
        given = backup.urls.get(network)
        return None if given is None else SignedUrl.parse(given.reveal())

    async def _is_reachable(self, url: SignedUrl) -> bool:
        async with self._probing:
            if url.host not in self._reachable:
                place, _ = address(url)
                proxy = self._proxies.between(place.scheme, place.host, place.port)
                if proxy is not None:
                    # That the proxy answers says nothing of who is behind it.
                    reachable, why = False, f"the proxy {proxy} is on the way"
                else:
                    reachable = await _answers(place)
                    why = "it answers" if reachable else "no answer"
                self._settle(url.host, why, reachable=reachable)
            return self._reachable[url.host]

    def _settle(self, host: str, why: str, *, reachable: bool) -> None:
        self._reachable[host] = reachable
        network = Network.INTRANET if reachable else Network.PUBLIC
        self._observer(events.RouteChosen(host, network, why))

    def proved(self, url: SignedUrl) -> None:
        """This host gave bytes, or refused them as an object store does."""
        self._proven.add(url.host)

    def gave_up(self, url: SignedUrl, error: ArchiverError) -> bool:
        """A fetch failed. An intranet host that never gave a byte is given up for this run, as
        something else may answer in its name; whether that is so now."""
        if url.host in self._proven or not self._reachable.get(url.host):
            return False
        self._settle(url.host, f"it answers, but not as it should: {error}", reachable=False)
        return True


async def _answers(place: Place) -> bool:
    def knock(stop: threading.Event) -> bool:
        def check() -> None:
            if stop.is_set():
                raise ConnectionAbortedError

        until = time.monotonic() + _PROBE_SECONDS
        try:
            found = resolve(place.host, place.port, check, _PROBE_SECONDS)
            if any(is_metadata(address[4][0]) for address in found):
                return False
            opened, _ = dial(found, check, until - time.monotonic())
        except (OSError, UnicodeError):
            return False
        opened.close()
        return True

    return await until_cancelled(knock)


def _expires_soon(url: SignedUrl) -> bool:
    return url.expires_at is not None and url.expires_at - datetime.now(UTC) < REFRESH_AHEAD


class Location:
    """Where one backup is, by a URL that is renewed when it expires or is refused."""

    def __init__(
        self, backup: Backup, route: Route, relist: Relist, observer: events.Observer
    ) -> None:
        self.backup = backup
        self._route: Final = route
        self._relist: Final = relist
        self._observer: Final = observer
        self._renewing: Final = anyio.Lock()
        self._refusals = 0
        self._renews_ahead = True

    async def url(self) -> tuple[Network, SignedUrl]:
        """A URL that should work now. Raises what listing and choosing raise."""
        network, url = await self._route.choose(self.backup)
        if self._renews_ahead and _expires_soon(url):
            await self._renew(url)
            network, url = await self._route.choose(self.backup)
            # Where a fresh URL lives shorter than that, or our clock is wrong, 403 must do.
            self._renews_ahead = not _expires_soon(url)
        return network, url

    def worked(self, url: SignedUrl) -> None:
        """Bytes came."""
        self._refusals = 0
        self._route.proved(url)

    def proved(self, url: SignedUrl) -> None:
        """It was an object store that refused."""
        self._route.proved(url)

    def gave_up(self, url: SignedUrl, error: ArchiverError) -> bool:
        """Whether this failure of ``url`` moves the run to the other network."""
        return self._route.gave_up(url, error)

    async def refused(self, url: SignedUrl, error: UrlRefused) -> None:
        """Answer a 403 by listing again. Raises the error after MOST_REFUSALS without a byte."""
        await self._renew(url, error)

    async def _renew(self, used: SignedUrl, error: UrlRefused | None = None) -> None:
        async with self._renewing:
            _, current = await self._route.choose(self.backup)
            if current != used:
                return  # another part renewed it meanwhile, or the route changed
            if error is not None:
                self._refusals += 1
                if self._refusals > MOST_REFUSALS:
                    raise error
            listed = await self._relist(self.backup)
            if (listed.size, listed.started_at) != (self.backup.size, self.backup.started_at):
                raise IntegrityError(f"{self.backup}: listed again, it is another backup")
            if not listed.urls:
                raise SourceUnavailable(f"{self.backup}: listed again, without a download URL")
            self.backup = listed
            self._observer(events.UrlRefreshed(listed))
