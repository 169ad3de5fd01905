"""What all transfers of a run share: connections, memory, the rate, and the way to the source."""

import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from anyio import to_thread

from archiver import events
from archiver.model import Backup, Measured, Receipt, Transfer
from archiver.proxies import Proxies
from archiver.retry import RetryPolicy
from archiver.stores.base import Staging
from archiver.transfer.buffer_pool import Blocks
from archiver.transfer.burst import MOST_AHEAD
from archiver.transfer.connection_share import Lanes
from archiver.transfer.download import carry
from archiver.transfer.http.client import Fetcher, open_fetcher
from archiver.transfer.limits import Hedge, LeastRate, RateLimit
from archiver.transfer.origin import HttpOrigin
from archiver.transfer.part import Shared
from archiver.transfer.parts import DEFAULT_PART_SIZE
from archiver.transfer.recognise import recognise
from archiver.transfer.route import Location, NetworkChoice, Relist, Route
from archiver.transfer.small import Bring, Settled, fetch_at_once, is_small


@dataclass(frozen=True, slots=True)
class TransferOptions:
    """How to fetch. Sizes in bytes, rates in bytes per second, times in seconds.

    ``connections`` is how many ranges of one file come at once, at most; ``memory`` bounds the
    buffers of all files together, and with them how many connections of large ones are at work.
    ``proxies`` None are those of the environment.
    """

    network: NetworkChoice = NetworkChoice.AUTO
    connections: int = 4
    part_size: int = DEFAULT_PART_SIZE
    memory: int = 32 * 2**20
    limit_rate: int | None = None
    least: LeastRate = field(default_factory=LeastRate)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    proxies: Proxies | None = None


def share(
    options: TransferOptions, files: int, observer: events.Observer, *, hedge: bool = False
) -> Shared:
    """What the transfers of a run have in common, so many ``files`` of it at once. ``hedge``:
    chase slow lanes."""
    return Shared(
        blocks=Blocks(options.memory),
        limit=RateLimit(options.limit_rate),
        hedge=Hedge(enabled=hedge),
        retry=options.retry,
        lanes=Lanes(files, options.connections),
        part_size=options.part_size,
        observer=observer,
    )


class Engine:
    """Transfers backups, any number at once."""

    def __init__(
        self,
        fetcher: Fetcher,
        relist: Relist,
        options: TransferOptions,
        files: int,
        observer: events.Observer,
        proxies: Proxies,
    ) -> None:
        self._fetcher: Final = fetcher
        self._route: Final = Route(options.network, observer, proxies)
        self._relist: Final = relist
        self._shared: Final = share(options, files, observer, hedge=options.limit_rate is None)

    async def transfer(self, transfer: Transfer, staging: Staging) -> Receipt:
        """Fetch one backup into ``staging``; the receipt is proof of every check.

        Raises CorruptFile for bytes that stay wrong, BackupFailed, IntegrityError, SourceError,
        StoreError.
        """
        return await carry(
            self._shared, HttpOrigin(self._location(transfer), self._fetcher), staging
        )

    async def recognise(self, transfer: Transfer, measured: Measured) -> Receipt | None:
        """A receipt for an object of this measure that is in the backup's place; None where the
        source does not prove it. Raises as :meth:`transfer` does."""
        origin = HttpOrigin(self._location(transfer), self._fetcher)
        return await recognise(self._shared, origin, measured)

    def is_small(self, backup: Backup) -> bool:
        """Whether :meth:`at_once` may be asked for this backup."""
        return is_small(backup, self._shared)

    async def at_once(self, transfers: Sequence[Transfer], bring: Bring, settled: Settled) -> None:
        """Fetch small backups and bring them home, many within one thread; ``settled`` is called
        with the result of each, in order, also while a cancellation waits for those on their way.

        None for one when something at the source was in the way, or it is here already: then it
        is for :meth:`transfer`. Raises StoreError.
        """
        small = [(transfer, self._location(transfer)) for transfer in transfers]
        await fetch_at_once(self._shared, small, self._fetcher, bring, settled)

    def _location(self, transfer: Transfer) -> Location:
        return Location(transfer.backup, self._route, self._relist, self._shared.observer)


@asynccontextmanager
async def open_engine(
    relist: Relist, options: TransferOptions, files: int, small: int, observer: events.Observer
) -> AsyncGenerator[Engine, None]:
    """An engine over HTTP for so many ``files`` at once, and so many ``small`` ones."""
    connections = files * options.connections
    # Each connection may be overtaken by a second one; each may hold another thread while it
    # writes, and a store while it sends.
    threads = 2 * (connections + small)
    limiter = to_thread.current_default_thread_limiter()
    limiter.total_tokens = max(limiter.total_tokens, threads)
    proxies = options.proxies or Proxies.of(os.environ)
    ahead = min(MOST_AHEAD, connections)
    async with open_fetcher(threads, options.least, ahead, proxies) as fetcher:
        yield Engine(fetcher, relist, options, files, observer, proxies)
