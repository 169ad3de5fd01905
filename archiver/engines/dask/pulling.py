"""The coordinator's side of a pull."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final

from archiver import events
from archiver.archive.archive import Archive
from archiver.concurrency import in_thread
from archiver.engines.base import OpenEngine, Settled
from archiver.engines.dask.cluster import Cluster
from archiver.engines.dask.coordinator import Coordinator, coordinating, value_of
from archiver.engines.dask.downloading import (
    Download,
    Downloaded,
    Given,
    Home,
    Identity,
    OpenDownloads,
    Wanted,
)
from archiver.engines.dask.messages import Task, without_urls
from archiver.engines.dask.places import Place
from archiver.errors import ArchiverError
from archiver.model import Backup, Stored, Transfer
from archiver.stores.loans import Loan
from archiver.stores.scope import NotHeld
from archiver.transfer.download_url import Relist
from archiver.transfer.engine import TransferOptions
from archiver.transfer.limits import RateLimit
from archiver.transfer.small import is_small

_BATCH_SIZE: Final = 32


class Dask:
    """Implements Engine, and Side: lends the locks that the pull holds, and renews URLs."""

    batch_size: Final = _BATCH_SIZE
    coordinator: Coordinator

    def __init__(
        self,
        relist: Relist,
        archive: Archive,
        options: TransferOptions,
        workers: int,
        observer: events.Observer,
    ) -> None:
        self._relist: Final = relist
        self._store: Final = archive.store
        self._options: Final = options
        self._workers: Final = workers
        self._observer: Final = observer
        self._routes: Final[set[tuple[str, str, str]]] = set()

    @property
    def batches(self) -> int:
        return max(1, len(self.coordinator.places.all))

    def is_small(self, backup: Backup) -> bool:
        return is_small(backup, self._options.part_size, RateLimit(self._options.limit_rate))

    async def one(self, transfer: Transfer) -> tuple[Transfer, Stored]:
        home: Home = value_of(await self.coordinator.result(_task([transfer], is_batch=False)))
        return home

    async def together(self, transfers: Sequence[Transfer], settled: Settled) -> None:
        result = await self.coordinator.attempt(_task(transfers, is_batch=True))
        downloaded = Downloaded((None,) * len(transfers))
        if result is not None and not result.is_abandoned:
            downloaded = value_of(result)
        for home in downloaded.homes:
            settled(None if home is None else home[1])
        if downloaded.error is not None:
            self.doubt({one.backup.identity: one.backup for one in transfers})
            raise downloaded.error

    def opens(self, place: Place) -> OpenDownloads:
        options = replace(self._options, limit_rate=self._share())
        return OpenDownloads(self._store.elsewhere(), options, min(self._workers, place.threads))

    async def answer(self, asked: Wanted, own: Mapping[Any, Backup]) -> Given:
        # Nothing is lent to a worker that is thought dead: its work is given to others.
        scopes = {backup.instance_id for backup in own.values()} & set(asked.scopes)
        loans = {scope: loan for scope in scopes if (loan := await self._loan(scope))}
        backups = {
            identity: await self._backup(own, identity, renews=asked.renews)
            for identity in asked.backups
            if identity in own
        }
        return Given(loans, backups, self._share())

    async def _loan(self, scope: str) -> Loan | ArchiverError | None:
        try:
            return await in_thread(self._store.loan, scope)
        except NotHeld:
            return None
        except ArchiverError as error:
            return error

    async def _backup(
        self, own: Mapping[Any, Backup], identity: Identity, *, renews: bool
    ) -> Backup | ArchiverError:
        """A backup with its URLs, as it was listed, or as the source lists it now."""
        backup = own[identity]
        if backup.urls and not renews:
            return backup
        try:
            return await self._relist(backup)
        except ArchiverError as error:
            return error

    def _share(self) -> int | None:
        """A worker's share of the rate limit."""
        rate = self._options.limit_rate
        return None if rate is None else max(1024, rate // max(1, self.coordinator.places.busy))

    def relay(self, event: events.Event, own: Mapping[Any, Backup]) -> bool:
        """Pass on what happened in a worker, with what is known of the backup here."""
        backup = getattr(event, "backup", None)
        if isinstance(event, events.RouteChosen):
            route = (event.host, event.network, event.why)
            if route not in self._routes:
                self._routes.add(route)
                self._observer(event)
        elif backup is None:
            self._observer(event)
        elif backup.identity in own:
            self._observer(replace(event, backup=own[backup.identity]))  # type: ignore[arg-type]
            return True
        return False

    def doubt(self, subjects: Mapping[Any, Backup]) -> None:
        for scope in {backup.instance_id for backup in subjects.values()}:
            self._store.doubt(scope)


def _task(transfers: Sequence[Transfer], *, is_batch: bool) -> Task:
    first = transfers[0].backup
    name = f"{first}-and-{len(transfers) - 1}-more" if is_batch else str(first)
    job = Download(tuple(map(without_urls, transfers)), is_batch)
    subjects = {one.backup.identity: one.backup for one in transfers}
    return Task(name, job, subjects, first.instance_id)


def dask(cluster: Cluster) -> OpenEngine:
    """What opens an engine in a cluster."""

    @asynccontextmanager
    async def opened(
        relist: Relist,
        archive: Archive,
        options: TransferOptions,
        workers: int,
        observer: events.Observer,
    ) -> AsyncGenerator[Dask, None]:
        archive.store.lend()
        engine = Dask(relist, archive, options, workers, observer)
        async with coordinating(cluster, workers, engine, observer) as engine.coordinator:
            yield engine

    return opened
