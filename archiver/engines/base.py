"""What an engine must do: archive the backups that a pull has planned.

The pull lists, plans, holds the locks, and writes what concerns a whole set or month. An engine
downloads one backup, or a batch of small ones, and stores them with their records.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from archiver.archive.archive import Archive
from archiver.events import Observer
from archiver.model import Backup, Stored, Transfer
from archiver.transfer.download_url import Relist
from archiver.transfer.engine import TransferOptions

# Called with the result of each of a batch, in order; None for one that was not stored.
Settled = Callable[[Stored | None], None]


class Engine(Protocol):
    """Archives backups, any number at once. The locks of their instances are held."""

    @property
    def batches(self) -> int:
        """How many batches of small backups should be under way at once."""
        ...

    @property
    def batch_size(self) -> int:
        """How many small backups a batch should have at most."""
        ...

    def is_small(self, backup: Backup) -> bool:
        """Whether :meth:`together` takes this backup."""
        ...

    async def one(self, transfer: Transfer) -> tuple[Transfer, Stored]:
        """Download and store one backup. Returns it as the source listed it last, and what was
        stored. Raises CorruptFile for bytes that stay wrong, BackupFailed, IntegrityError,
        SourceError, StoreError, LockLost."""
        ...

    async def together(self, transfers: Sequence[Transfer], settled: Settled) -> None:
        """Download and store small backups. What met an obstacle, or may be in the archive already,
        is not stored: pass it to :meth:`one`. Raises StoreError that ends the run."""
        ...


class OpenEngine(Protocol):
    """Opens an engine for a run that writes to ``archive``, ``workers`` large files at once.
    ``relist`` asks the source for a backup again."""

    def __call__(
        self,
        relist: Relist,
        archive: Archive,
        options: TransferOptions,
        workers: int,
        observer: Observer,
    ) -> AbstractAsyncContextManager[Engine]: ...
