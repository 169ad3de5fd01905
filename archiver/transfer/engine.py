"""What all transfers of a run share: connections, memory, the rate, and the way to the source."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from archiver import events
from archiver.errors import ObjectChanged
from archiver.model import Receipt, Transfer
from archiver.retry import RetryPolicy
from archiver.stores.base import Staging
from archiver.transfer.buffers import Blocks
from archiver.transfer.fetch import Fetcher, open_fetcher
from archiver.transfer.file import FileTransfer, Shared
from archiver.transfer.pace import LeastRate, RateLimit
from archiver.transfer.parts import DEFAULT_PART_SIZE
from archiver.transfer.route import NetworkChoice, Relist, Route


@dataclass(frozen=True, slots=True)
class TransferOptions:
    """How to fetch. Sizes in bytes, rates in bytes per second, times in seconds.

    ``connections`` is how many ranges of one file come at once; ``memory`` bounds the buffers of
    all files together, and with them how many connections are at work.
    """

    network: NetworkChoice = NetworkChoice.AUTO
    connections: int = 4
    part_size: int = DEFAULT_PART_SIZE
    memory: int = 32 * 2**20
    limit_rate: int | None = None
    least: LeastRate = field(default_factory=LeastRate)
    retry: RetryPolicy = field(default_factory=RetryPolicy)


class Engine:
    """Transfers backups, any number at once."""

    def __init__(
        self,
        fetcher: Fetcher,
        relist: Relist,
        options: TransferOptions,
        observer: events.Observer,
    ) -> None:
        self._shared: Final = Shared(
            fetcher=fetcher,
            route=Route(options.network, observer),
            relist=relist,
            blocks=Blocks(options.memory),
            limit=RateLimit(options.limit_rate),
            retry=options.retry,
            connections=options.connections,
            part_size=options.part_size,
            observer=observer,
        )

    async def transfer(self, transfer: Transfer, staging: Staging) -> Receipt:
        """Fetch one backup into ``staging``; the receipt is proof of every check.

        Raises CorruptFile for bytes that stay wrong, BackupFailed, IntegrityError, SourceError,
        StoreError.
        """
        try:
            return await FileTransfer(self._shared, transfer, staging).run()
        except ObjectChanged:
            # What is staged belongs to an object that is no more. Once, from the start.
            await staging.restart()
            return await FileTransfer(self._shared, transfer, staging).run()


@asynccontextmanager
async def open_engine(
    relist: Relist, workers: int, options: TransferOptions, observer: events.Observer
) -> AsyncGenerator[Engine, None]:
    """An engine over HTTP for ``workers`` files at once."""
    async with open_fetcher(workers * options.connections, options.least) as fetcher:
        yield Engine(fetcher, relist, options, observer)
