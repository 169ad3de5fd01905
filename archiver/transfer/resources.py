"""What all transfers of a run share: memory, connections, the rate limit and the retry state."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import anyio

from archiver import events
from archiver.errors import ArchiverError
from archiver.model import Backup
from archiver.retry import Attempts, Outage, RetryPolicy
from archiver.transfer.limits import Hedge, RateLimit

BUFFER_BYTES = 2**20


class BufferPool:
    """Lends buffers of ``size`` bytes: as many as fit in ``budget`` bytes, and at least one.

    Each connection at work and each burst of small requests holds one buffer, so the pool bounds
    their number, too.
    """

    def __init__(self, budget: int, size: int = BUFFER_BYTES) -> None:
        self._size: Final = size
        self._free: Final[list[bytearray]] = []
        self._available: Final = anyio.Semaphore(max(1, budget // size))

    @asynccontextmanager
    async def lend(self) -> AsyncGenerator[memoryview, None]:
        """Lend one buffer; wait while all of them are in use."""
        async with self._available:
            # Buffers are reused because fresh memory costs a page fault for every 4 KiB.
            buffer = self._free.pop() if self._free else bytearray(self._size)
            try:
                yield memoryview(buffer)
            finally:
                self._free.append(buffer)


class ConnectionBudget:
    """Counts the connections at work over all files of a run.

    ``files`` are downloaded at the same time, each over at most ``per_file`` connections.

    Data that arrives over one connection passes the file's meter on its way to the disk. Over
    several connections it arrives out of order, and most of it is read back to be measured: a
    fifth more time and CPU over https (benchmarks/README.md). So a file gets more connections only
    while the connections, not this machine, are the bottleneck.
    """

    def __init__(self, files: int, per_file: int) -> None:
        self.per_file: Final = per_file
        # With fewer connections than this the machine is idle, however fast each one is.
        self._wanted: Final = max(files, per_file)
        self._at_work = 0

    def opened(self) -> None:
        """Count one more connection."""
        self._at_work += 1

    def closed(self) -> None:
        """Count one connection less."""
        self._at_work -= 1

    @property
    def has_room(self) -> bool:
        """Whether one more connection helps even if all of them are fast."""
        return self._at_work < self._wanted

    @property
    def is_exceeded(self) -> bool:
        """Whether there are more connections than help, unless they are slow."""
        return self._at_work > self._wanted


@dataclass(frozen=True, slots=True)
class SharedResources:
    """What all transfers of a run have in common; sizes in bytes."""

    buffers: BufferPool
    limit: RateLimit
    hedge: Hedge
    retry: RetryPolicy
    connections: ConnectionBudget
    part_size: int
    observer: events.Observer
    outage: Outage = field(default_factory=Outage)

    def attempts(self, backup: Backup) -> Attempts:
        """The attempts at one backup; the observer gets each wait between them."""

        def retrying(error: ArchiverError, attempt: int, wait: float) -> None:
            self.observer(events.Retrying(str(backup), error, attempt, wait, backup.instance_id))

        def waiting_for_source(error: ArchiverError, seconds: float) -> None:
            self.observer(events.WaitingForSource(error, seconds))

        return Attempts(self.retry, retrying, outage=self.outage, on_outage=waiting_for_source)
