"""Where the bytes of one file come from."""

from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

from archiver.errors import (
    ArchiverError,
    BackupFailed,
    IntegrityError,
    ProxyDenied,
    SourceError,
    UrlRefused,
)
from archiver.model import Backup, Network, Pin, Provenance
from archiver.retry import Attempts
from archiver.secret import SignedUrl
from archiver.transfer.download_url import DownloadUrl
from archiver.transfer.http.client import Body, Fetcher

# Failures at the source or on the way to it, as opposed to those of the store.
SOURCE_ERRORS = (SourceError, IntegrityError, BackupFailed, ProxyDenied)


class Route(Protocol):
    """One way to reach the bytes, for one attempt."""

    @property
    def provenance(self) -> Provenance: ...

    def open(self, start: int, stop: int, pin: Pin | None) -> AbstractAsyncContextManager[Body]:
        """As Fetcher.open."""
        ...

    def succeeded(self) -> None:
        """Called when bytes arrived."""
        ...

    async def recover(self, error: ArchiverError, attempts: Attempts) -> None:
        """Prepare another attempt after ``error``, or raise it."""
        ...


class Origin(Protocol):
    """One file at a source; finds a route for each attempt."""

    @property
    def backup(self) -> Backup: ...

    @property
    def size(self) -> int:
        """The size of the object in bytes, as the source listed it, or as its server says."""
        ...

    async def route(self) -> Route:
        """Raises one of SOURCE_ERRORS when there is none."""
        ...


class HttpOrigin:
    """An object behind a signed URL."""

    def __init__(self, url: DownloadUrl, size: int, fetcher: Fetcher) -> None:
        self.size: Final = size
        self._url: Final = url
        self._fetcher: Final = fetcher

    @property
    def backup(self) -> Backup:
        return self._url.backup

    async def route(self) -> Route:
        network, url = await self._url.current()
        return _HttpRoute(self._url, self._fetcher, network, url)


class _HttpRoute:
    def __init__(
        self, source: DownloadUrl, fetcher: Fetcher, network: Network, url: SignedUrl
    ) -> None:
        self._source: Final = source
        self._fetcher: Final = fetcher
        self._url: Final = url
        self.provenance: Final = Provenance(str(url), network)

    def open(self, start: int, stop: int, pin: Pin | None) -> AbstractAsyncContextManager[Body]:
        return self._fetcher.open(self._url, start, stop, pin)

    def succeeded(self) -> None:
        self._source.succeeded(self._url)

    async def recover(self, error: ArchiverError, attempts: Attempts) -> None:
        if error.by_object_store:
            self._source.confirm_host(self._url)
        elif self._source.abandon_host(self._url, error):
            return  # later attempts use the other network
        if isinstance(error, UrlRefused):
            await self._source.renew_refused(self._url, error)
        else:
            await attempts.failed(error)
