"""Transfers the backups of a run; what the commands use of this package."""

import abc
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Final

from anyio import to_thread

from archiver import events
from archiver.model import Backup, Measured, Pin, Receipt, Transfer
from archiver.proxies import Proxies
from archiver.retry import RETRIES, RetryPolicy
from archiver.stores.base import Staging
from archiver.transfer.download import download_file
from archiver.transfer.download_url import DownloadUrl, NetworkChoice, NetworkSelector, Relist
from archiver.transfer.http.burst import MAX_REQUESTS_AHEAD
from archiver.transfer.http.client import Fetcher, open_fetcher
from archiver.transfer.limits import Hedge, MinimumRate, RateLimit
from archiver.transfer.origin import SOURCE_ERRORS, HttpOrigin, Origin
from archiver.transfer.parts import DEFAULT_PART_SIZE
from archiver.transfer.receipt import TransferStats, is_proven, receipt_for, with_listed_crc
from archiver.transfer.resources import BufferPool, ConnectionBudget, SharedResources
from archiver.transfer.small import OnResult, StoreBatch, download_small, is_small


@dataclass(frozen=True, slots=True)
class TransferOptions:
    """How to download. Sizes in bytes, rates in bytes per second, times in seconds.

    ``connections`` is the most ranges of one file that are requested at once. ``memory`` bounds
    the buffers of all files together, and with them how many connections are at work on large
    files. Without ``proxies`` those of the environment are used.
    """

    network: NetworkChoice = NetworkChoice.AUTO
    connections: int = 4
    part_size: int = DEFAULT_PART_SIZE
    memory: int = 32 * 2**20
    limit_rate: int | None = None
    minimum_rate: MinimumRate = field(default_factory=MinimumRate)
    retry: RetryPolicy = field(default_factory=RETRIES.part.policy)
    proxies: Proxies | None = None


def shared_resources(
    options: TransferOptions, files: int, observer: events.Observer, *, hedge: bool = False
) -> SharedResources:
    """What the transfers of a run share when ``files`` of them run at once. With ``hedge``, slow
    connections are overtaken by a second one."""
    return SharedResources(
        buffers=BufferPool(options.memory),
        limit=RateLimit(options.limit_rate),
        hedge=Hedge(enabled=hedge),
        retry=options.retry,
        connections=ConnectionBudget(files, options.connections),
        part_size=options.part_size,
        observer=observer,
    )


class Engine(abc.ABC):
    """Transfers backups, any number at once, from where a source has their files."""

    def __init__(self, shared: SharedResources) -> None:
        self._shared: Final = shared

    @abc.abstractmethod
    def _origin(self, transfer: Transfer, size: int) -> Origin:
        """Where the ``size`` bytes of a backup come from."""

    @abc.abstractmethod
    async def sized(self, transfer: Transfer) -> tuple[Transfer, int]:
        """The size of a backup's file in bytes, as listed or as its server says, and the transfer
        with the URLs that were needed to ask. Raises as :meth:`transfer` does."""

    async def transfer(self, transfer: Transfer, size: int, staging: Staging) -> Receipt:
        """Download one backup of ``size`` bytes into ``staging``. The receipt proves that every
        check passed.

        Raises CorruptFile for bytes that stay wrong, BackupFailed, IntegrityError, SourceError,
        StoreError.
        """
        return await download_file(self._shared, self._origin(transfer, size), staging)

    async def receipt_for_present(self, transfer: Transfer, measured: Measured) -> Receipt | None:
        """A receipt for an object in the archive that has no record; None where the source does
        not prove that it is the backup. Asks for one byte. Raises as :meth:`transfer` does."""
        stats = TransferStats(0)
        pin = await self._request_pin(self._origin(transfer, measured.size), stats)
        pin = with_listed_crc(transfer.backup, pin)
        if not is_proven(measured, pin):
            return None
        return receipt_for(measured, pin, max(1, measured.size), stats)

    async def _request_pin(self, origin: Origin, stats: TransferStats) -> Pin:
        """What the source says of the object."""
        attempts = self._shared.attempts(origin.backup)
        while True:
            route = await origin.route()
            try:
                async with route.open(0, min(1, origin.size), None) as body:
                    stats.provenance = route.provenance
                    return body.response.pin
            except SOURCE_ERRORS as error:
                stats.attempts += 1
                await route.recover(error, attempts)

    def limit_to(self, rate: int | None) -> None:
        """From now on download so many bytes per second; None for no limit."""
        self._shared.limit.rate = rate

    def is_small(self, backup: Backup) -> bool:
        """Whether :meth:`transfer_small` is to take this backup."""
        return False

    async def transfer_small(
        self, transfers: Sequence[Transfer], store_batch: StoreBatch, on_result: OnResult
    ) -> None:
        """Download and store small backups, many within one thread.

        ``on_result`` is called with the result of each, in order, also while a cancellation waits
        for those being stored. It gets None for a backup that met an obstacle at the source or is
        in the archive already: pass that one to :meth:`transfer`. Raises StoreError.
        """
        raise RuntimeError("this engine takes no backup for small")


class _HttpEngine(Engine):
    """Transfers backups from behind their URLs."""

    def __init__(
        self,
        fetcher: Fetcher,
        relist: Relist,
        options: TransferOptions,
        files: int,
        observer: events.Observer,
        proxies: Proxies,
    ) -> None:
        super().__init__(
            shared_resources(options, files, observer, hedge=options.limit_rate is None)
        )
        self._fetcher: Final = fetcher
        self._selector: Final = NetworkSelector(options.network, observer, proxies)
        self._relist: Final = relist

    async def sized(self, transfer: Transfer) -> tuple[Transfer, int]:
        """See Engine."""
        if transfer.backup.size is not None:
            return transfer, transfer.backup.size
        url = self._download_url(transfer)
        # Asks without a range, and hangs up after the head of the response: an object that may be
        # empty has no range to ask for, and a server that ignores ranges responds the same.
        origin = HttpOrigin(url, 0, self._fetcher)
        size = (await self._request_pin(origin, TransferStats(0))).total
        return replace(transfer, backup=url.backup), size

    def is_small(self, backup: Backup) -> bool:
        """See Engine."""
        return is_small(backup, self._shared.part_size, self._shared.limit)

    async def transfer_small(
        self, transfers: Sequence[Transfer], store_batch: StoreBatch, on_result: OnResult
    ) -> None:
        """See Engine."""
        small = [(transfer, self._download_url(transfer)) for transfer in transfers]
        await download_small(self._shared, small, self._fetcher, store_batch, on_result)

    def _download_url(self, transfer: Transfer) -> DownloadUrl:
        return DownloadUrl(transfer.backup, self._selector, self._relist, self._shared.observer)

    def _origin(self, transfer: Transfer, size: int) -> Origin:
        return HttpOrigin(self._download_url(transfer), size, self._fetcher)


@asynccontextmanager
async def open_engine(
    relist: Relist, options: TransferOptions, files: int, small: int, observer: events.Observer
) -> AsyncGenerator[Engine, None]:
    """An engine over HTTP that transfers ``files`` large and ``small`` small files at once."""
    connections = files * options.connections
    # A second connection may overtake each; each may also occupy a thread that writes to the
    # store, and a store may occupy another while it sends.
    threads = 2 * (connections + small)
    limiter = to_thread.current_default_thread_limiter()
    limiter.total_tokens = max(limiter.total_tokens, threads)
    proxies = options.proxies or Proxies.from_environment(os.environ)
    max_ahead = min(MAX_REQUESTS_AHEAD, connections)
    async with open_fetcher(threads, options.minimum_rate, max_ahead, proxies) as fetcher:
        yield _HttpEngine(fetcher, relist, options, files, observer, proxies)
