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
from archiver.transfer.http.client import Body, Fetcher
from archiver.transfer.route import Location

# What may go wrong between us and where the bytes are; the errors of who takes them pass by.
AT_THE_SOURCE = (SourceError, IntegrityError, BackupFailed, ProxyDenied)


class Way(Protocol):
    """One way to the bytes, good for one try."""

    @property
    def provenance(self) -> Provenance: ...

    def open(self, start: int, stop: int, pin: Pin | None) -> AbstractAsyncContextManager[Body]:
        """As Fetcher.open."""
        ...

    def worked(self) -> None:
        """Bytes came."""
        ...

    async def recover(self, error: ArchiverError, attempts: Attempts) -> None:
        """Make another try possible, or raise the error."""
        ...


class Origin(Protocol):
    """Finds the way for each try."""

    @property
    def backup(self) -> Backup: ...

    async def way(self) -> Way:
        """Raises one of AT_THE_SOURCE when there is none."""
        ...


class HttpOrigin:
    """An object behind a signed URL."""

    def __init__(self, location: Location, fetcher: Fetcher) -> None:
        self._location: Final = location
        self._fetcher: Final = fetcher

    @property
    def backup(self) -> Backup:
        return self._location.backup

    async def way(self) -> Way:
        network, url = await self._location.url()
        return _HttpWay(self._location, self._fetcher, network, url)


class _HttpWay:
    def __init__(
        self, location: Location, fetcher: Fetcher, network: Network, url: SignedUrl
    ) -> None:
        self._location: Final = location
        self._fetcher: Final = fetcher
        self._url: Final = url
        self.provenance: Final = Provenance(str(url), network)

    def open(self, start: int, stop: int, pin: Pin | None) -> AbstractAsyncContextManager[Body]:
        return self._fetcher.open(self._url, start, stop, pin)

    def worked(self) -> None:
        self._location.worked(self._url)

    async def recover(self, error: ArchiverError, attempts: Attempts) -> None:
        if error.by_object_store:
            self._location.proved(self._url)
        elif self._location.gave_up(self._url, error):
            return  # the other network from here on
        if isinstance(error, UrlRefused):
            await self._location.refused(self._url, error)
        else:
            await attempts.failed(error)
