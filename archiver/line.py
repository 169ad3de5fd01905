"""THE LINE.

A source streams pages of backups; a plan drops what the archive already holds; a bounded queue
feeds workers; each worker transfers one backup in parts and gets a receipt from the verified
bytes; the store commits; the archive records.
"""

import functools
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Final

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from archiver import events
from archiver.archive.archive import Archive
from archiver.archive.inventory import Inventory
from archiver.archive.setbook import SetBook
from archiver.crew import crew
from archiver.errors import (
    EXIT_OK,
    EXIT_PRECEDENCE,
    ArchiverError,
    BackupFailed,
    CorruptFile,
    IntegrityError,
)
from archiver.model import Backup, Network, Page, Query, Status, Stored, Transfer
from archiver.sources.base import Source
from archiver.stores.commit import Commit
from archiver.threads import entered, in_thread
from archiver.transfer.engine import Engine, TransferOptions, open_engine
from archiver.transfer.small import Fill

# Workers for small backups, for each of those for large ones, where a store takes small files one
# by one: they wait for it most of the time. Where it takes many together, one does it all: two
# would wait for the interpreter lock of each other.
SMALL_FOR_LARGE = 4


@dataclass(frozen=True, slots=True)
class PullOptions:
    """Which backups, and how many files at once: ``workers`` large ones, and beside them as many
    of up to 256 KiB as the store takes together. Empty ``types`` or ``modes`` mean all. ``again``
    are the stems (keys without suffix) of backups to bring home though the archive holds them."""

    types: frozenset[str] = frozenset()
    modes: frozenset[str] = frozenset()
    workers: int = 4
    dry_run: bool = False
    again: frozenset[str] = frozenset()
    transfer: TransferOptions = field(default_factory=TransferOptions)

    def wants(self, backup: Backup) -> bool:
        """Whether the type and mode of a backup are among those asked for."""
        return (not self.types or backup.type in self.types) and (
            not self.modes or backup.mode in self.modes
        )


@dataclass(slots=True)
class Summary:
    """What a pull came to, told by its events; bytes as they came over each network."""

    held: int = 0
    planned: int = 0
    archived: int = 0
    unfinished: int = 0
    bytes_planned: int = 0
    bytes_archived: int = 0
    bytes_fetched: dict[Network, int] = field(default_factory=dict)
    failures: list[events.Failed] = field(default_factory=list)
    incomplete: list[events.SetIncomplete] = field(default_factory=list)

    def __call__(self, event: events.Event) -> None:
        """Observe."""
        match event:
            case events.Held():
                self.held += 1
            case events.Planned(backup):
                self.planned += 1
                self.bytes_planned += backup.size
            case events.Unfinished():
                self.unfinished += 1
            case events.Failed():
                self.failures.append(event)
            case events.SetIncomplete():
                self.incomplete.append(event)
            case events.Archived():
                self.archived += 1
                self.bytes_archived += event.size
            case events.Advanced() if event.network is not None:
                so_far = self.bytes_fetched.get(event.network, 0)
                self.bytes_fetched[event.network] = so_far + event.fetched
            case _:
                pass

    @property
    def exit_code(self) -> int:
        """0, or the worst of what failed (README, *Exit codes*). One backup's trouble is 1, but
        for its integrity, which is 3; a set that lacks files is 1."""
        codes = {_exit_code(failure) for failure in self.failures}
        codes |= {BackupFailed.exit_code for _ in self.incomplete}
        return next((code for code in EXIT_PRECEDENCE if code in codes), EXIT_OK)


async def pull(
    source: Source,
    archive: Archive,
    queries: Sequence[Query],
    options: PullOptions | None = None,
    observer: events.Observer = events.ignore,
) -> Summary:
    """Bring home every backup that the queries list and the archive does not hold.

    What fails for one backup or one instance is in the summary's ``failures``, and the others go
    on. Raises StoreError, ArchiveBusy and UnsupportedFormat, which end the run.
    """
    run = _Run(source, archive, options or PullOptions(), observer)
    async with aclosing(run.listing(queries)) as listing:
        # Nothing is written before the source has answered.
        first = await anext(listing, None)
        if first is not None and run.options.dry_run:
            await archive.check_format()
            await run.rehearse(first, listing)
        elif first is not None:
            async with archive.writing() as swept:
                for leftover in swept:
                    observer(events.Swept(leftover.key, leftover.why))
                await run.bring_home(first, listing)
    return run.summary


Listed = tuple[SetBook, Page]
Planned = tuple[SetBook, Transfer]


class _Run:
    def __init__(
        self, source: Source, archive: Archive, options: PullOptions, observer: events.Observer
    ) -> None:
        self.options: Final = options
        self.summary: Final = Summary()
        self._source: Final = source
        self._archive: Final = archive
        self._inventory: Final = Inventory(archive.store)
        self._tell: Final = observer
        self._books: Final[list[SetBook]] = []
        self._large: Final = anyio.Semaphore(options.workers)
        # By their stems, the backups that this run planned, and whether they are home.
        self._home: Final[dict[str, bool]] = {}
        self._twice: Final[list[Planned]] = []

    async def listing(self, queries: Iterable[Query]) -> AsyncGenerator[Listed, None]:
        """The pages of all queries, one at a time; an instance that cannot be listed fails."""
        for query in queries:
            book = SetBook(self._archive, self.options.again)
            listed = 0
            try:
                async with aclosing(self._source.pages(query)) as pages:
                    async for page in pages:
                        listed += len(page.backups) + len(page.refused)
                        yield book, page
                if listed == 0:
                    nothing = events.NothingListed(query.instance_id, query.start, query.end)
                    self._observer(nothing)
            except ArchiverError as error:
                self._failed(query.instance_id, error)
            self._books.append(book)

    async def rehearse(self, first: Listed, listing: AsyncGenerator[Listed, None]) -> None:
        """The plan, and nothing done about it."""
        async with aclosing(self._plan(first, listing)) as plan:
            async for _ in plan:
                pass

    async def bring_home(self, first: Listed, listing: AsyncGenerator[Listed, None]) -> None:
        """The plan into the queue, the queue into workers, and the sets closed at the end."""
        workers, options = self.options.workers, self.options.transfer
        together = self._archive.store.together
        small_workers = max(1, workers * SMALL_FOR_LARGE // together)
        send, receive = anyio.create_memory_object_stream[Planned](workers)
        send_small, receive_small = anyio.create_memory_object_stream[Planned](2 * together)
        async with open_engine(
            self._source.again, options, workers, small_workers, self._observer
        ) as engine:
            async with crew() as group:
                for _ in range(workers):
                    group.start_soon(self._work, receive.clone(), engine)
                for _ in range(small_workers):
                    group.start_soon(self._work_small, receive_small.clone(), engine)
                receive.close()
                receive_small.close()
                async with send, send_small, aclosing(self._plan(first, listing)) as plan:
                    await self._enqueue(
                        plan, lambda backup: send_small if engine.is_small(backup) else send
                    )
            for book, transfer in self._twice:
                if self._home[transfer.stem]:
                    self._observer(events.Held(transfer.backup))
                    self._held(book, transfer, fresh=False)
            for book in self._books:
                await self._close(book)

    async def _enqueue(
        self,
        plan: AsyncGenerator[Planned, None],
        queue_for: Callable[[Backup], MemoryObjectSendStream[Planned]],
    ) -> None:
        async for planned in plan:
            try:
                await queue_for(planned[1].backup).send(planned)
            except anyio.BrokenResourceError:
                return  # no worker is left: what ended the last one is what will be raised

    async def _work(self, queue: MemoryObjectReceiveStream[Planned], engine: Engine) -> None:
        async with queue:
            async for book, transfer in queue:
                await self._bring_one(book, transfer, engine)

    async def _work_small(self, queue: MemoryObjectReceiveStream[Planned], engine: Engine) -> None:
        async with queue:
            async for first in queue:
                batch = [first, *_at_hand(queue, self._archive.store.together - 1)]
                while batch:
                    stored = await engine.at_once(
                        [transfer for _, transfer in batch], functools.partial(self._bring, batch)
                    )
                    async with crew() as group:
                        for (book, transfer), one in zip(batch, stored, strict=False):
                            if one is not None:
                                self._archived(book, transfer, one)
                            else:
                                group.start_soon(self._bring_one, book, transfer, engine)
                    batch = batch[len(stored) :]

    def _bring(self, batch: Sequence[Planned], fills: Iterator[Fill]) -> list[Stored | None]:
        """Small backups home, as many as there are fills; blocks."""
        store = self._archive.store
        commits: list[Commit | None] = []
        stems: set[str] = set()
        with ExitStack() as stack:
            for (_, transfer), fill in zip(batch, fills, strict=False):
                if transfer.stem in stems:
                    commits.append(None)  # queries overlap: it is looked at when the first is here
                    continue
                stems.add(transfer.stem)
                staging = stack.enter_context(store.stage(transfer.stem, transfer.backup.size))
                receipt = fill(staging)
                documents = functools.partial(self._archive.documents, transfer)
                commits.append(staging.commit(receipt, documents) if receipt else None)
            finished = iter(store.finish(commit for commit in commits if commit is not None))
            return [next(finished) if commit is not None else None for commit in commits]

    async def _bring_one(self, book: SetBook, transfer: Transfer, engine: Engine) -> None:
        backup, store = transfer.backup, self._archive.store
        with self._naming(str(backup), backup):
            async with self._large, entered(store.stage(transfer.stem, backup.size)) as staging:
                try:
                    receipt = await engine.transfer(transfer, staging)
                except CorruptFile as error:
                    kept = await in_thread(staging.quarantine, str(error))
                    raise CorruptFile(f"{error}; its bytes are kept in {kept}") from None
                documents = functools.partial(self._archive.documents, transfer)
                [stored] = await in_thread(store.finish, [staging.commit(receipt, documents)])
            self._archived(book, transfer, stored)

    def _archived(self, book: SetBook, transfer: Transfer, stored: Stored) -> None:
        receipt = stored.receipt
        self._home[transfer.stem] = True
        self._observer(
            events.Archived(
                transfer.backup,
                stored.key,
                receipt.size,
                receipt.sha256,
                receipt.provenance.network,
                receipt.bytes_fetched,
                receipt.bytes_fetched_again,
                receipt.is_vouched_for,
                receipt.kind,
                (receipt.finished_at - receipt.started_at).total_seconds(),
            )
        )
        self._held(book, transfer, fresh=True)

    async def _plan(
        self, first: Listed, listing: AsyncGenerator[Listed, None]
    ) -> AsyncGenerator[Planned, None]:
        """Of all that is listed, what the archive does not hold."""
        book, page = first
        while True:
            for error in page.refused:
                self._failed("a listed entry", error)
            for backup in page.backups:
                transfer = await self._needed(book, backup) if self.options.wants(backup) else None
                if transfer is not None:
                    yield book, transfer
            try:
                book, page = await anext(listing)
            except StopAsyncIteration:
                return

    async def _needed(self, book: SetBook, backup: Backup) -> Transfer | None:
        """The transfer a backup needs; None when it is held or cannot be had."""
        try:
            finding = await self._inventory.find(backup)
        except ArchiverError as error:
            if error.ends_run:
                raise
            self._failed(str(backup), error, backup)
            return None
        if finding.damage is not None:
            self._observer(events.Damaged(backup, finding.damage))
        book.listed(finding.transfer)
        if finding.record is not None and finding.transfer.stem not in self.options.again:
            self._observer(events.Held(backup))
            if not self.options.dry_run:
                self._held(book, finding.transfer, fresh=False)
        elif backup.status is Status.UNFINISHED:
            self._observer(events.Unfinished(backup))
        elif backup.status is Status.FAILED:
            why = f"{backup}: this backup failed at the vendor: there is no file"
            self._failed(str(backup), BackupFailed(why), backup)
        elif backup.size == 0 and backup.type == "FullBackup":
            why = f"{backup}: a full backup of 0 bytes is none"
            self._failed(str(backup), IntegrityError(why), backup)
        elif finding.transfer.stem in self._home:
            # Listed by another query, too: two at work on one file would pull it from each other.
            self._twice.append((book, finding.transfer))
        else:
            self._home[finding.transfer.stem] = False
            self._observer(events.Planned(backup))
            return finding.transfer
        return None

    def _held(self, book: SetBook, transfer: Transfer, *, fresh: bool) -> None:
        files = book.held(transfer, fresh=fresh)
        if files:
            self._observer(events.SetCompleted(transfer.set_key, files))

    async def _close(self, book: SetBook) -> None:
        for key, held, why in book.sets():
            if why is not None:
                self._observer(events.SetIncomplete(key, held, why))
                continue
            with self._naming(key):
                files = await book.seal(key)
                if files:
                    self._observer(events.SetCompleted(key, files))

    @contextmanager
    def _naming(self, subject: str, backup: Backup | None = None) -> Iterator[None]:
        """What fails here fails for ``subject`` alone, unless it ends the run."""
        try:
            yield
        except ArchiverError as error:
            if error.ends_run:
                raise
            self._failed(subject, error, backup)

    def _failed(self, subject: str, error: ArchiverError, backup: Backup | None = None) -> None:
        self._observer(events.Failed(subject, error, backup))

    def _observer(self, event: events.Event) -> None:
        self.summary(event)
        self._tell(event)


def _at_hand(queue: MemoryObjectReceiveStream[Planned], most: int) -> list[Planned]:
    """What can be had without waiting."""
    taken: list[Planned] = []
    while len(taken) < most:
        try:
            taken.append(queue.receive_nowait())
        except (anyio.WouldBlock, anyio.EndOfStream):
            break
    return taken


def _exit_code(failure: events.Failed) -> int:
    code = failure.error.exit_code
    return 1 if failure.backup is not None and code != 3 else code
