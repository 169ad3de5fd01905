"""The worker's side of a pull: downloads, under locks that are lent to it."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from archiver.concurrency import entered, for_each
from archiver.engines.dask.messages import Contact, without_urls
from archiver.errors import ArchiverError
from archiver.model import Backup, Stored, Transfer
from archiver.stores.loans import Borrowed, Loan, LoanLapsed, boot_clock
from archiver.stores.scope import scope_of

if TYPE_CHECKING:  # here, and not in the event loop of a worker: it takes long
    from archiver.engines.inline import Inline
    from archiver.stores.base import Store
    from archiver.transfer.engine import TransferOptions

# So many locks are kept at hand, and more only while there is work for all of them: who comes back
# to an instance need not look at its lock again.
_MOST_LENT: Final = 64

Identity: TypeAlias = tuple[str, str]
Home: TypeAlias = tuple[Transfer, Stored]


@dataclass(frozen=True, slots=True)
class Download:
    """The job of a task: one backup, or a batch of small ones, without their URLs."""

    transfers: tuple[Transfer, ...]
    is_batch: bool


@dataclass(frozen=True, slots=True)
class Downloaded:
    """What came of a batch. ``homes`` are in its order, None for what is not stored; after an
    ``error`` some at the end are missing."""

    homes: tuple[Home | None, ...]
    error: ArchiverError | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """A worker wants to know for how long the locks of ``scopes`` are lent to it, and the URLs of
    the ``backups``: new ones if it ``renews`` them."""

    scopes: tuple[str, ...]
    backups: tuple[Identity, ...] = ()
    renews: bool = False


@dataclass(frozen=True, slots=True)
class Given:
    """What it gets; an error in place of what cannot be given. ``rate`` is its share of the limit,
    in bytes per second."""

    loans: Mapping[str, Loan | ArchiverError]
    backups: Mapping[Identity, Backup | ArchiverError]
    rate: int | None


@dataclass(frozen=True, slots=True)
class OpenDownloads:
    """An OpenTasks: ``workers`` large files are downloaded at once."""

    open_store: "Callable[[], Store]"
    options: "TransferOptions"
    workers: int

    @asynccontextmanager
    async def __call__(self, contact: Contact) -> AsyncGenerator["Downloads", None]:
        from archiver.archive.archive import Archive  # noqa: PLC0415
        from archiver.engines.inline import inline  # noqa: PLC0415

        archive = Archive(self.open_store())
        downloads = Downloads(contact, archive.store)
        opened = inline(downloads.renewed, archive, self.options, self.workers, contact.observer)
        async with opened as engine:
            downloads.engine = engine
            try:
                yield downloads
            finally:
                await downloads.close()


class _Lent(NamedTuple):
    """A lock that is lent to this worker, and the store's context for it."""

    name: str
    lock: Borrowed
    stack: AsyncExitStack


class Downloads:
    """Implements Tasks."""

    engine: "Inline"

    def __init__(self, contact: Contact, store: "Store") -> None:
        self._contact: Final = contact
        self._store: Final = store
        # By scope, how many transfers are under way, and what is lent.
        self._scopes: Counter[str] = Counter()
        self._lent: Final[dict[str, _Lent]] = {}
        self._lending: Final = asyncio.Lock()

    async def close(self) -> None:
        """Return what is lent."""
        for lent in self._lent.values():
            await lent.stack.aclose()

    # Questions

    def wonders(self) -> Wanted:
        return Wanted(tuple(self._scopes))

    def hear(self, given: Given, asked_at: float) -> None:
        for scope, loan in given.loans.items():
            lent = self._lent.get(scope)
            if lent is None:
                continue
            if isinstance(loan, ArchiverError):
                lent.lock.lose(loan)
            elif loan.name == lent.name:
                lent.lock.extend(asked_at + loan.seconds)
        self.engine.limit_to(given.rate)

    async def _ask(self, backups: Iterable[Identity], *, renews: bool = False) -> Given:
        wanted = Wanted(tuple(self._scopes), tuple(backups), renews)
        given: Given = await self._contact.ask(wanted)
        return given

    async def renewed(self, backup: Backup) -> Backup:
        """A Relist that asks the coordinator."""
        given = (await self._ask([backup.identity], renews=True)).backups.get(backup.identity)
        if given is None:
            raise LoanLapsed("the coordinator does not expect this backup here any more")
        if isinstance(given, ArchiverError):
            raise given
        return given

    # Tasks

    async def do(self, job: Download) -> Home | Downloaded:
        scopes = [scope_of(transfer.stem) for transfer in job.transfers]
        self._scopes.update(scopes)
        try:
            transfers = await self._begin(job, set(scopes))
            if job.is_batch:
                return await self._bring(transfers)
            transfer, stored = await self.engine.one(transfers[0])
            return without_urls(transfer), stored
        finally:
            self._scopes -= Counter(scopes)

    async def _begin(self, job: Download, scopes: set[str]) -> list[Transfer]:
        """The transfers with their URLs, once their locks are lent to this worker."""
        at = boot_clock()
        given = await self._ask(transfer.backup.identity for transfer in job.transfers)
        for scope in scopes:
            await self._borrow(scope, given, at)
        found = []
        for transfer in job.transfers:
            fresh = given.backups.get(transfer.backup.identity)
            if isinstance(fresh, Backup):
                own = replace(transfer.backup, urls=fresh.urls, refused=fresh.refused)
                transfer = replace(transfer, backup=own)  # noqa: PLW2901
            found.append(transfer)  # without URLs it is asked for once more, by itself
        return found

    async def _borrow(self, scope: str, given: Given, at: float) -> None:
        loan = given.loans.get(scope)
        if loan is None:
            raise LoanLapsed(f"the coordinator does not hold the lock of {scope}")
        if isinstance(loan, ArchiverError):
            raise loan
        async with self._lending:
            lent = self._lent.get(scope)
            if lent is not None and lent.name == loan.name:
                return
            idle = [one for one in self._lent if one not in self._scopes]
            for one in idle[: max(0, len(self._lent) - _MOST_LENT)] + [scope] * (lent is not None):
                await self._lent.pop(one).stack.aclose()
            lock, stack = Borrowed(), AsyncExitStack()
            lock.extend(at + loan.seconds)
            await stack.enter_async_context(entered(self._store.borrowed(scope, loan.name, lock)))
            self._lent[scope] = _Lent(loan.name, lock, stack)

    async def _bring(self, transfers: list[Transfer]) -> Downloaded:
        size = self.engine.batch_size
        settled: dict[int, list[Stored | None]] = {at: [] for at in range(0, len(transfers), size)}

        async def bring(at: int) -> None:
            await self.engine.together(transfers[at : at + size], settled[at].append)

        error: ArchiverError | None = None
        try:
            await for_each(settled, bring, self.engine.batches)
        except LoanLapsed:
            raise
        except ArchiverError as raised:
            error = raised
        homes: list[Home | None] = []
        for at, own in settled.items():
            part = transfers[at : at + size]
            for transfer, one in zip(part, own, strict=False):
                homes.append(None if one is None else (without_urls(transfer), one))
            if len(own) < len(part):
                break
        return Downloaded(tuple(homes), error)
