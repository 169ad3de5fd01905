"""THE LINE.

A source streams pages of backups; a plan drops what the archive already holds; a bounded queue
feeds workers; each worker transfers one backup in parts and gets a receipt from the verified
bytes; the store commits; the archive records.
"""

import functools
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Final

import anyio
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from archiver import events
from archiver.archive import layout
from archiver.archive.acknowledged import Acknowledged, Acknowledgement
from archiver.archive.archive import Archive
from archiver.archive.indexing import Indexing
from archiver.archive.inventory import Finding, Inventory
from archiver.archive.replacing import make_way, measure_present, speaks_for
from archiver.commands.pull.batch import bring_together
from archiver.commands.pull.sets import SeenSet, SetBook
from archiver.commands.summary import Summary
from archiver.concurrency import entered, in_thread, task_group
from archiver.errors import (
    ArchiverError,
    BackupFailed,
    CorruptFile,
    IntegrityError,
    NoSpace,
    UnreadableObject,
    UsageError,
    others_not_asked,
)
from archiver.ids import check_backup
from archiver.logs import OF_RUNS, logged
from archiver.model import (
    Backup,
    BackupMode,
    BackupType,
    Page,
    Query,
    Receipt,
    Status,
    Stored,
    Transfer,
)
from archiver.sources.base import Source
from archiver.stores.base import Staging
from archiver.stores.commit import Commit
from archiver.transfer.engine import Engine, TransferOptions, open_engine

# Small backups at once in the place of a large one, where a store takes them one by one: they wait
# for it most of the time. Where it takes many together, one worker does it all: two would wait for
# the interpreter lock of each other.
SMALL_FOR_LARGE = 4
# So many batches are listed ahead, some 4 KB a backup: the listing goes on while others come home.
_BATCHES_AHEAD = 32

# To one backup that the vendor failed: it will never come.
NEVER_MADE_HINT = (
    "archiver ack takes note of it by this name, or of its set with the nodes that it lacks by the "
    "sets around it, so that it is no failure any more"
)
# To one in a set that somebody has taken note of: nobody knew of this node then.
NOT_MEANT_HINT = (
    "what was acknowledged of its set does not name this node: archiver ack takes note of it by "
    "this name"
)


@dataclass(frozen=True, slots=True)
class PullOptions:
    """Which backups, and how many files at once: ``workers`` large ones; and beside them, of up to
    256 KiB, as many as the store takes together, or SMALL_FOR_LARGE times as many. Empty ``types``
    or ``modes`` mean all. For a repair, ``again`` are the stems (keys without suffix) of backups to
    bring home though the archive holds them, and ``repaired`` the sets (folders) whose documents
    may be wrong, or not given by the store: they are written anew."""

    types: frozenset[BackupType] = frozenset()
    modes: frozenset[BackupMode] = frozenset()
    workers: int = 4
    dry_run: bool = False
    again: frozenset[str] = frozenset()
    repaired: frozenset[str] = frozenset()
    transfer: TransferOptions = field(default_factory=TransferOptions)

    def __post_init__(self) -> None:
        """Raises UsageError for a word that no backup has: it would leave all of them out."""
        for words, known in ((self.types, BackupType), (self.modes, BackupMode)):
            if unknown := sorted(words - set(known)):
                raise UsageError(f"{unknown[0]!r} is not one of {', '.join(known)}")

    def wants(self, backup: Backup) -> bool:
        """Whether the type and mode of a backup are among those asked for."""
        return (not self.types or backup.type in self.types) and (
            not self.modes or backup.mode in self.modes
        )


async def pull(
    source: Source,
    archive: Archive,
    queries: Sequence[Query],
    options: PullOptions | None = None,
    observer: events.Observer = events.ignore,
) -> Summary:
    """Bring home every backup that the queries list and the archive does not hold.

    What fails for one backup or one instance is in the summary's ``failures``, and the others go
    on. Raises StoreError, ArchiveBusy, UnsupportedFormat, and UsageError where no archive may be
    begun, which end the run.
    """
    observer = logged(observer, OF_RUNS)
    times = Counter(query.instance_id for query in queries)
    listed_again = frozenset(instance for instance in times if times[instance] > 1)
    run = _Run(source, archive, listed_again, options or PullOptions(), observer)
    await archive.check_place()  # before the vendor is asked
    async with aclosing(run.listing(queries)) as listing:
        # Nothing is written before the source has answered.
        first = await anext(listing, None)
        if first is not None and run.options.dry_run:
            await run.rehearse(first, listing)
        elif first is not None:
            async with archive.writing(observer) as swept:
                for leftover in swept:
                    observer(events.Swept(leftover.key, leftover.why))
                await run.bring_home(first, listing)
    return run.summary


Listed = tuple[SetBook, Page]
Planned = tuple[SetBook, Transfer]


class _Run:
    def __init__(
        self,
        source: Source,
        archive: Archive,
        listed_again: frozenset[str],
        options: PullOptions,
        observer: events.Observer,
    ) -> None:
        self.options: Final = options
        self.summary: Final = Summary()
        self._source: Final = source
        self._archive: Final = archive
        self._inventory: Final = Inventory(archive.store, options.again | options.repaired)
        self._acknowledged: Final = Acknowledged(archive)
        self._index: Final = Indexing(archive.store)
        self._tell: Final = observer
        self._books: Final[list[SetBook]] = []
        # Small backups that are tried again by themselves.
        self._alone: Final = anyio.Semaphore(options.workers * SMALL_FOR_LARGE)
        # Instances that several queries list; by their stems, those of their backups that this
        # run planned, and whether they are home.
        self._listed_again: Final = listed_again
        self._home: Final[dict[str, bool]] = {}
        self._twice: Final[list[Planned]] = []
        # The disk is full: what is under way may still fit, and nothing new is begun.
        self._full: NoSpace | None = None

    async def listing(self, queries: Sequence[Query]) -> AsyncGenerator[Listed, None]:
        """The pages of all queries, one at a time; an instance that cannot be listed fails. What
        the source would say of all others, too, is said once, and ends the listing."""
        for left, query in zip(reversed(range(len(queries))), queries, strict=True):
            book = SetBook(self._archive, self._inventory, self.options.repaired)
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
                if error.concerns_all and left:
                    error.message += f"; {others_not_asked(left)}"
                self._failed(query.instance_id, error)
                if error.concerns_all:
                    self._books.append(book)
                    return
            self._books.append(book)

    async def rehearse(self, first: Listed, listing: AsyncGenerator[Listed, None]) -> None:
        """The plan, and nothing done about it."""
        async with aclosing(self._plan(first, listing)) as plan:
            async for _ in plan:
                pass

    async def bring_home(self, first: Listed, listing: AsyncGenerator[Listed, None]) -> None:
        """The plan into the queue, the queue into workers, and the sets closed at the end."""
        workers, options = self.options.workers, self.options.transfer
        together = self._archive.store.batch_size
        small = workers * SMALL_FOR_LARGE
        send, receive = anyio.create_memory_object_stream[Planned](workers)
        send_small, receive_small = anyio.create_memory_object_stream[Planned](
            _BATCHES_AHEAD * together
        )
        async with open_engine(
            self._source.again, options, workers, small, self._observer
        ) as engine:
            async with task_group() as group:
                for _ in range(workers):
                    group.start_soon(self._work, receive.clone(), engine)
                for _ in range(small if together == 1 else 1):
                    group.start_soon(self._work_small, receive_small.clone(), engine, group)
                receive.close()
                receive_small.close()
                async with send, send_small, aclosing(self._plan(first, listing)) as plan:
                    await self._enqueue(
                        plan,
                        # What came for others is held against what is known here, one by one.
                        lambda one: (
                            send_small if engine.is_small(one.backup) and not one.is_known else send
                        ),
                    )
            if self._full is not None:
                raise self._full
            for book, transfer in self._twice:
                if self._home[transfer.stem]:
                    self._observer(events.Held(transfer.backup))
                    self._held(book, transfer, fresh=False)
            for book in self._books:
                await self._close(book)
            for key, bad in self._acknowledged.bad.items():
                self._failed(key, bad)
            await self._index.keep(self._inventory.unknown_months)

    async def _enqueue(
        self,
        plan: AsyncGenerator[Planned, None],
        queue_for: Callable[[Transfer], MemoryObjectSendStream[Planned]],
    ) -> None:
        async for planned in plan:
            if self._full is not None:
                return
            try:
                await queue_for(planned[1]).send(planned)
            except anyio.BrokenResourceError:
                return  # no worker is left: what ended the last one is what will be raised

    async def _work(self, queue: MemoryObjectReceiveStream[Planned], engine: Engine) -> None:
        async with queue:
            async for book, transfer in queue:
                if self._full is None:
                    await self._bring_one(book, transfer, engine)

    async def _work_small(
        self, queue: MemoryObjectReceiveStream[Planned], engine: Engine, group: TaskGroup
    ) -> None:
        """Batches of what is at hand."""
        async with queue:
            async for first in queue:
                async with self._alone:
                    pass  # those that are not home have all begun: they do not pile up
                batch = [first, *_at_hand(queue, self._archive.store.batch_size - 1)]
                if self._full is None:
                    await self._bring_batch(batch, engine, group)

    async def _bring_batch(
        self, batch: Sequence[Planned], engine: Engine, group: TaskGroup
    ) -> None:
        """Whatever of a batch is not home is tried again by itself, and holds up no other batch
        unless many are."""
        planned = iter(batch)

        def settled(stored: Stored | None) -> None:
            book, transfer = next(planned)
            if stored is not None:
                self._archived(book, transfer, stored)
            else:
                group.start_soon(self._bring_alone, book, transfer, engine)

        bring = functools.partial(bring_together, self._archive)
        with self._draining():
            await engine.transfer_small([transfer for _, transfer in batch], bring, settled)

    async def _bring_alone(self, book: SetBook, transfer: Transfer, engine: Engine) -> None:
        async with self._alone:
            if self._full is None:
                await self._bring_one(book, transfer, engine)

    async def _bring_one(self, book: SetBook, transfer: Transfer, engine: Engine) -> None:
        backup, store = transfer.backup, self._archive.store
        with self._draining(), self._naming(str(backup), backup):
            transfer, size = await engine.sized(transfer)
            if (empty := _empty_dump(backup, size)) is not None:
                raise empty
            staged = store.stage(transfer.stem, size, transfer.present)
            async with entered(staged) as staging:
                commit = await self._commit(transfer, size, engine, staging)
                [stored] = await in_thread(store.finish, [commit])
            self._archived(book, transfer, stored)

    async def _commit(
        self, transfer: Transfer, size: int, engine: Engine, staging: Staging
    ) -> Commit:
        """What brings one backup home: an object that lies there unrecorded, if the source proves
        it, or what is fetched into ``staging``."""
        documents = functools.partial(self._archive.documents, transfer)
        present = await measure_present(self._archive.store, staging, is_log=transfer.backup.is_log)
        for key, measured in present.items():
            if key == f"{transfer.stem}.{measured.kind}":
                receipt = await engine.receipt_for_present(transfer, measured)
                if receipt is not None and await self._is_this_one(transfer, receipt):
                    return staging.record(key, receipt, documents)
        try:
            receipt = await engine.transfer(transfer, size, staging)
            kept = list[tuple[str, str]]()
            if transfer.is_known or staging.existing:
                kept = await make_way(self._archive.store, transfer.stem, staging, present, receipt)
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
        return await speaks_for(self._archive.store, transfer.stem, receipt.sha256)

    def _archived(self, book: SetBook, transfer: Transfer, stored: Stored) -> None:
        receipt = stored.receipt
        if transfer.stem in self._home:
            self._home[transfer.stem] = True
        self._index.wrote(self._archive.documents(transfer, stored))
        for key, kept in stored.cleared:
            self._observer(events.Cleared(key, kept))
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
            finding = await self._inventory.find(check_backup(backup))
        except ArchiverError as unsafe:
            if unsafe.ends_run:
                raise
            self._failed(str(backup), unsafe, backup)
            return None
        if finding.damage is not None:
            self._observer(events.Damaged(backup, finding.damage))
        book.listed(finding.transfer)
        is_repaired = finding.transfer.set_key in self.options.repaired
        if finding.unreadable is not None and not is_repaired:
            self._failed(str(backup), finding.unreadable, backup)
            return None
        return await self._unless_held(book, backup, finding)

    async def _unless_held(
        self, book: SetBook, backup: Backup, finding: Finding
    ) -> Transfer | None:
        """The transfer of a backup that is not held, and that there is something to fetch of."""
        if finding.record is not None and finding.transfer.stem not in self.options.again:
            self._observer(events.Held(backup))
            if not self.options.dry_run:
                self._held(book, finding.transfer, fresh=False)
        elif backup.status is Status.UNFINISHED:
            self._observer(events.Unfinished(backup))
        elif backup.status is Status.FAILED:
            await self._never_made(finding.transfer)
        elif (empty := _empty_dump(backup, backup.size)) is not None:
            self._failed(str(backup), empty, backup)
        elif finding.transfer.stem in self._home:
            # Listed by another query, too: two at work on one file would pull it from each other.
            self._twice.append((book, finding.transfer))
        else:
            if backup.instance_id in self._listed_again:
                self._home[finding.transfer.stem] = False
            if not self.options.dry_run:
                # What has an object's name stays until the right bytes are there.
                await self._clear(filter(layout.is_document, finding.in_the_way))
            self._observer(events.Planned(backup))
            return finding.transfer
        return None

    async def _never_made(self, transfer: Transfer) -> None:
        """There is nothing to fetch of a backup that failed at the vendor, which somebody may have
        taken note of, or of its set without this node."""
        backup, folder = transfer.backup, transfer.set_key
        why = f"{backup}: this backup failed at the vendor: there is no file"
        one = await self._acknowledged.of_failed(str(backup), folder, backup.node_id)
        if one is not None:
            self._take_note(one, why, backup)
            return
        is_set_known = await self._acknowledged.of(folder) is not None
        error = BackupFailed(why, hint=NOT_MEANT_HINT if is_set_known else NEVER_MADE_HINT)
        self._failed(str(backup), error, backup)

    async def _is_acknowledged(self, folder: str, why: str) -> bool:
        """Whether somebody has taken note of a set, which is told then."""
        one = await self._acknowledged.of(folder)
        if one is not None:
            self._take_note(one, why)
        return one is not None

    def _take_note(self, one: Acknowledgement, why: str, backup: Backup | None = None) -> None:
        self._observer(events.Acknowledged(one.subject, why, one.at, one.by, one.reason, backup))

    async def _clear(self, keys: Iterable[str]) -> None:
        """Make room for files of this archive where something else has their names."""
        for key in keys:
            kept = await self._archive.store.clear(key)
            if kept is not None:
                self._observer(events.Cleared(key, kept))

    def _held(self, book: SetBook, transfer: Transfer, *, fresh: bool) -> None:
        files = book.held(transfer, fresh=fresh)
        if files:
            self._observer(events.SetCompleted(transfer.set_key, files))

    async def _close(self, book: SetBook) -> None:
        sets = list[SeenSet]()
        with self._naming(f"the sets of {book.instance_id}"):
            sets = await book.sets()
        for one in sets:
            if one.why is not None and not await self._is_acknowledged(one.key, one.why):
                self._observer(events.SetIncomplete(one.key, one.held, one.why))
            if one.has_all:
                with self._naming(one.key):
                    files = await book.seal(one.key)
                    if files and one.why is None:
                        self._observer(events.SetCompleted(one.key, files))

    @contextmanager
    def _draining(self) -> Iterator[None]:
        """A full disk begins nothing more, and ends the run once what is under way has ended."""
        try:
            yield
        except NoSpace as error:
            self._full = self._full or error

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


def _empty_dump(backup: Backup, size: int | None) -> IntegrityError | None:
    """What is wrong with a backup that is called a dump and has no bytes."""
    if size == 0 and backup.type is BackupType.FULL:
        return IntegrityError(f"{backup}: a full backup of 0 bytes is none")
    return None


def _at_hand(queue: MemoryObjectReceiveStream[Planned], most: int) -> list[Planned]:
    """What can be had without waiting."""
    taken: list[Planned] = []
    while len(taken) < most:
        try:
            taken.append(queue.receive_nowait())
        except (anyio.WouldBlock, anyio.EndOfStream):
            break
    return taken
