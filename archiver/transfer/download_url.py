"""Which network a backup is downloaded over, and the signed URL while that is valid."""

import threading
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

import anyio

from archiver import events
from archiver.concurrency import in_cancellable_thread
from archiver.errors import (
    ArchiverError,
    BackupFailed,
    IntegrityError,
    SourceUnavailable,
    UnsafeInput,
    UrlRefused,
)
from archiver.model import Backup, Network
from archiver.network import connect, is_metadata, resolve
from archiver.proxies import Proxies
from archiver.retry import RETRIES
from archiver.secret import SignedUrl
from archiver.transfer.http.connection import Endpoint
from archiver.transfer.http.response import endpoint_and_target

# A URL that expires this soon is renewed before it is used. A part takes seconds, and a signature
# is checked when the request arrives.
REFRESH_AHEAD = timedelta(seconds=60)

Relist = Callable[[Backup], Awaitable[Backup]]


class NetworkChoice(StrEnum):
    """``auto`` probes the intranet once a run for each host and remembers the result."""

    AUTO = "auto"
    INTRANET = "intranet"
    PUBLIC = "public"


class NetworkSelector:
    """Chooses the network for each host, once a run."""

    def __init__(
        self, choice: NetworkChoice, observer: events.Observer, proxies: Proxies | None = None
    ) -> None:
        self._choice: Final = choice
        self._observer: Final = observer
        self._proxies: Final = proxies or Proxies()
        self._reachable: Final[dict[str, bool]] = {}
        self._confirmed: Final[set[str]] = set()
        self._probing: Final = anyio.Lock()

    async def choose(self, backup: Backup) -> tuple[Network, SignedUrl]:
        """The network and URL to download ``backup`` from.

        Raises BackupFailed when the chosen network has no URL, UnsafeInput for a URL that must
        not be requested.
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
        """The backup's URL for a network; None if there is none or the choice excludes it."""
        if self._choice not in (NetworkChoice.AUTO, network.value):
            return None
        if (why := backup.refused.get(network)) is not None:
            raise UnsafeInput(f"{backup}: {why}")
        given = backup.urls.get(network)
        return None if given is None else SignedUrl.parse(given.reveal())

    async def _is_reachable(self, url: SignedUrl) -> bool:
        async with self._probing:
            if url.host not in self._reachable:
                endpoint, _ = endpoint_and_target(url)
                proxy = self._proxies.between(endpoint.scheme, endpoint.host, endpoint.port)
                if proxy is not None:
                    # A response of the proxy says nothing about the host behind it.
                    is_reachable, why = False, f"the proxy {proxy} is used"
                else:
                    is_reachable = await _accepts_connections(endpoint)
                    why = "it is reachable" if is_reachable else "it is not reachable"
                self._decide(url.host, why, is_reachable=is_reachable)
            return self._reachable[url.host]

    def _decide(self, host: str, why: str, *, is_reachable: bool) -> None:
        self._reachable[host] = is_reachable
        network = Network.INTRANET if is_reachable else Network.PUBLIC
        self._observer(events.RouteChosen(host, network, why))

    def confirm(self, url: SignedUrl) -> None:
        """Note that this host delivered bytes, or an error of an object store."""
        self._confirmed.add(url.host)

    def abandon(self, url: SignedUrl, error: ArchiverError) -> bool:
        """Abandon an intranet host for the rest of the run, after a download from it failed.

        Returns False, and changes nothing, for a host that was ever confirmed. One that was not
        may belong to somebody else who uses the same address.
        """
        if url.host in self._confirmed or not self._reachable.get(url.host):
            return False
        self._decide(url.host, f"it is reachable, but downloads fail: {error}", is_reachable=False)
        return True


async def _accepts_connections(endpoint: Endpoint) -> bool:
    def probe(stop: threading.Event) -> bool:
        def raise_if_stopped() -> None:
            if stop.is_set():
                raise ConnectionAbortedError

        seconds = RETRIES.intranet_probe.timeout
        until = time.monotonic() + seconds
        try:
            found = resolve(endpoint.host, endpoint.port, raise_if_stopped, seconds)
            if any(is_metadata(address[4][0]) for address in found):
                return False
            connected, _ = connect(found, raise_if_stopped, until - time.monotonic())
        except (OSError, UnicodeError):
            return False
        connected.close()
        return True

    return await in_cancellable_thread(probe)


def _expires_soon(url: SignedUrl) -> bool:
    return url.expires_at is not None and url.expires_at - datetime.now(UTC) < REFRESH_AHEAD


class DownloadUrl:
    """The URL of one backup, renewed by listing the backup again when it expires or is refused."""

    def __init__(
        self, backup: Backup, selector: NetworkSelector, relist: Relist, observer: events.Observer
    ) -> None:
        self.backup = backup
        self._selector: Final = selector
        self._relist: Final = relist
        self._observer: Final = observer
        self._renewing: Final = anyio.Lock()
        self._refusals = 0
        self._renews_ahead = True

    async def current(self) -> tuple[Network, SignedUrl]:
        """A URL that should be valid now. Raises what listing and choosing raise."""
        if not self.backup.urls:
            await self._find()
        network, url = await self._selector.choose(self.backup)
        if self._renews_ahead and _expires_soon(url):
            await self._renew(url)
            network, url = await self._selector.choose(self.backup)
            # A new URL that expires as soon (or a wrong clock) is renewed after a 403 only.
            self._renews_ahead = not _expires_soon(url)
        return network, url

    def succeeded(self, url: SignedUrl) -> None:
        """Note that bytes arrived from ``url``."""
        self._refusals = 0
        self._selector.confirm(url)

    def confirm_host(self, url: SignedUrl) -> None:
        """Note that an object store sent the error."""
        self._selector.confirm(url)

    def abandon_host(self, url: SignedUrl, error: ArchiverError) -> bool:
        """Whether this failure of ``url`` moves the run to the other network."""
        return self._selector.abandon(url, error)

    async def renew_refused(self, url: SignedUrl, error: UrlRefused) -> None:
        """List the backup again after a 403. Raises the error once that has happened as often as
        the retry table allows, without a byte in between."""
        await self._renew(url, error)

    async def _find(self) -> None:
        """Get the first URL from a source that gives it for one file at a time."""
        async with self._renewing:
            if not self.backup.urls:
                self.backup = await self._listed_again()

    async def _renew(self, used: SignedUrl, error: UrlRefused | None = None) -> None:
        async with self._renewing:
            _, current = await self._selector.choose(self.backup)
            if current != used:
                return  # another part renewed it meanwhile, or the network changed
            if error is not None:
                self._refusals += 1
                if self._refusals >= RETRIES.refused_url.attempts:
                    raise error
            self.backup = await self._listed_again()
            self._observer(events.UrlRefreshed(self.backup))

    async def _listed_again(self) -> Backup:
        """The same backup with URLs. Raises IntegrityError, SourceUnavailable, and what listing
        raises."""
        listed = await self._relist(self.backup)
        if (listed.size, listed.started_at) != (self.backup.size, self.backup.started_at):
            raise IntegrityError(f"{self.backup}: the source now lists another backup of this id")
        if not listed.urls:
            raise SourceUnavailable(f"{self.backup}: the source now lists it without a URL")
        return listed
