"""A pull from files that are there already: in a directory, or in a bucket."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from archiver import events
from archiver.archive.archive import Archive, check_apart, is_format
from archiver.archive.layout import FORMAT_KEY
from archiver.commands.pull.plan import PullOptions
from archiver.commands.pull.run import pull
from archiver.commands.summary import Summary
from archiver.concurrency import in_thread
from archiver.engines.inline import Inline
from archiver.errors import BackupGone, CorruptFile, FileChanged, IntegrityError, UsageError
from archiver.model import Kind, Provenance, Query, Receipt, Transfer
from archiver.sources.files.source import FileSource
from archiver.stores.base import Staging, Store
from archiver.times import EVERYTHING_FROM
from archiver.transfer.download_url import Relist
from archiver.transfer.engine import Engine, TransferOptions, shared_resources
from archiver.transfer.from_store import StoreOrigin
from archiver.transfer.origin import Origin
from archiver.transfer.resources import SharedResources


async def adopt(
    place: Store,
    archive: Archive,
    instance_id: str,
    patterns: Sequence[str] = (),
    options: PullOptions | None = None,
    observer: events.Observer = events.ignore,
) -> Summary:
    """Archive every dump and log in ``place`` that the archive does not hold, as backups of
    ``instance_id``. Nothing in ``place`` is changed.

    ``patterns`` say what the names mean (:mod:`archiver.sources.files.names`). Raises UsageError
    for one that cannot be any, and where ``place`` does not exist, is an archive, or lies in one or
    around it; and what :func:`~archiver.commands.pull.run.pull` raises.
    """
    options = options or PullOptions()
    source = FileSource(place, patterns, observer)
    await _check_place(place, archive)
    # A listing of files has no range: all of them are listed.
    query = Query(instance_id, EVERYTHING_FROM, EVERYTHING_FROM)
    return await pull(source, archive, [query], options, observer, partial(_open_engine, source))


async def _check_place(place: Store, archive: Archive) -> None:
    await place.check_exists()
    if await Archive(place).check_format():
        raise UsageError(f"{place}: this is an archive", hint="archiver copy takes from it")
    above = await place.nearest_above(FORMAT_KEY, is_format)
    if above is not None:
        raise UsageError(f"{place}: this is inside an archive, {above}")
    await check_apart(Archive(place), archive)


@asynccontextmanager
async def _open_engine(
    source: FileSource,
    relist: Relist,
    archive: Archive,
    options: TransferOptions,
    workers: int,
    observer: events.Observer,
) -> AsyncGenerator[Inline, None]:
    """An OpenEngine, once it has its source; nothing has to be listed again for it."""
    engine = _FileEngine(source, shared_resources(options, workers, observer))
    yield Inline(archive, engine, workers, observer)


class _FileEngine(Engine):
    """Transfers files of a directory or bucket."""

    def __init__(self, source: FileSource, shared: SharedResources) -> None:
        super().__init__(shared)
        self._source: Final = source

    def _origin(self, transfer: Transfer, size: int) -> Origin:
        backup, source = transfer.backup, self._source
        provenance = Provenance(source.url(backup), None)
        return StoreOrigin(backup, partial(source.open, backup), source.pin(backup), provenance)

    async def sized(self, transfer: Transfer) -> tuple[Transfer, int]:
        """See Engine: as listed."""
        return transfer, self._source.pin(transfer.backup).total

    async def transfer(self, transfer: Transfer, size: int, staging: Staging) -> Receipt:
        """See Engine. What is not taken is not kept either, also not in quarantine: its file stays
        where it is, and a later run of it, once it was written again, has another name."""
        url = self._source.url(transfer.backup)
        try:
            receipt = await super().transfer(transfer, size, staging)
        except CorruptFile as error:
            await in_thread(staging.restart)
            raise IntegrityError(f"{url}: it was cut off or damaged: {error.message}") from None
        except (FileChanged, BackupGone):
            await in_thread(staging.restart)
            raise
        if receipt.kind is Kind.UNKNOWN:
            await in_thread(staging.restart)
            raise IntegrityError(f"{url}: it is neither a dump nor a log of commands")
        return receipt
