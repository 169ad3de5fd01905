"""Downloads backups in this process."""

import functools
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from archiver import events
from archiver.archive.archive import Archive
from archiver.archive.replacing import (
    Witnesses,
    is_confirmed,
    measure_present,
    prepare_replacement,
)
from archiver.concurrency import entered, in_thread
from archiver.engines.base import Settled
from archiver.engines.batch import download_together
from archiver.errors import CorruptFile, UnreadableObject
from archiver.model import Backup, Receipt, Stored, Transfer
from archiver.stores.base import Staging
from archiver.stores.commit import Commit
from archiver.transfer import engine as transfers
from archiver.transfer.download_url import Relist
from archiver.transfer.engine import TransferOptions, open_engine
from archiver.transfer.receipt import empty_dump
from archiver.transfer.small import SMALL_FOR_LARGE


class Inline:
    """Implements Engine."""

    def __init__(
        self,
        archive: Archive,
        engine: transfers.Engine,
        workers: int,
        observer: events.Observer,
    ) -> None:
        self._archive: Final = archive
        self._engine: Final = engine
        self._observer: Final = observer
        self._witnesses: Final = Witnesses(archive.store)
        self.batch_size: Final = archive.store.batch_size
        # Where a store takes many files together, two batches would wait for the interpreter lock
        # of each other.
        self.batches: Final = workers * SMALL_FOR_LARGE if self.batch_size == 1 else 1

    def is_small(self, backup: Backup) -> bool:
        return self._engine.is_small(backup)

    def limit_to(self, rate: int | None) -> None:
        """From now on download so many bytes per second."""
        self._engine.limit_to(rate)

    async def together(self, transfers: Sequence[Transfer], settled: Settled) -> None:
        download = functools.partial(download_together, self._archive)
        await self._engine.transfer_small(transfers, download, settled)

    async def one(self, transfer: Transfer) -> tuple[Transfer, Stored]:
        store = self._archive.store
        transfer, size = await self._engine.sized(transfer)
        if (empty := empty_dump(transfer.backup, size)) is not None:
            raise empty
        staged = store.stage(transfer.stem, size, transfer.present)
        async with entered(staged) as staging:
            commit = await self._commit(transfer, size, staging)
            [stored] = await in_thread(store.finish, [commit])
        return transfer, stored

    async def _commit(self, transfer: Transfer, size: int, staging: Staging) -> Commit:
        """What archives one backup: an object that lies there unrecorded, if the source proves
        it, or what is fetched into ``staging``."""
        documents = functools.partial(self._archive.documents, transfer)
        present = await measure_present(self._archive.store, staging, is_log=transfer.backup.is_log)
        for key, measured in present.items():
            # Where the source lists another size than its file has, a transfer says so.
            if measured.size == size and key == f"{transfer.stem}.{measured.kind}":
                receipt = await self._engine.receipt_for_present(transfer, measured)
                if receipt is not None and await self._is_this_one(transfer, receipt):
                    return staging.record(key, receipt, documents)
        try:
            receipt = await self._engine.transfer(transfer, size, staging)
            kept = list[tuple[str, str]]()
            if transfer.is_known or staging.existing:
                kept = await prepare_replacement(
                    self._witnesses, transfer.stem, staging, present, receipt
                )
        except CorruptFile as error:
            at = await in_thread(staging.quarantine, str(error))
            kept_in = "its bytes are not kept" if at is None else f"its bytes are kept in {at}"
            raise CorruptFile(f"{error}; {kept_in}") from None
        except UnreadableObject:
            await in_thread(staging.restart)  # the disk does not give back what it was given
            raise
        for key, at in kept:
            self._observer(events.KeptAside(key, at))
        return staging.commit(receipt, documents)

    async def _is_this_one(self, transfer: Transfer, receipt: Receipt) -> bool:
        """Whether it is the backup's own object, and not another whole dump of its size: by the
        source's CRC-64, or by what the archive says of it."""
        if receipt.crc64_declared is not None:
            return True
        return await is_confirmed(self._witnesses, transfer.stem, receipt.sha256)


@asynccontextmanager
async def inline(
    relist: Relist,
    archive: Archive,
    options: TransferOptions,
    workers: int,
    observer: events.Observer,
) -> AsyncGenerator[Inline, None]:
    """An OpenEngine."""
    small = workers * SMALL_FOR_LARGE
    async with open_engine(relist, options, workers, small, observer) as engine:
        yield Inline(archive, engine, workers, observer)
