"""THE LINE.

A source streams pages of backups; a plan drops what the archive already holds; a bounded queue
feeds workers; each worker transfers one backup in parts and gets a receipt from the verified
bytes; the store commits; the archive records.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

import anyio
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream

from archiver import events
from archiver.archive.acknowledged import Acknowledged
from archiver.archive.archive import Archive
from archiver.archive.indexing import Indexing
from archiver.commands.pull.instance import InstancePull, Planned, Shared, instances_of
from archiver.commands.pull.plan import PullOptions
from archiver.commands.summary import Summary
from archiver.commands.writer import MOST_INSTANCES
from archiver.concurrency import task_group
from archiver.engines.base import Engine, OpenEngine
from archiver.engines.inline import inline
from archiver.errors import UsageError
from archiver.ids import is_instance_id
from archiver.logs import OF_RUNS, logged
from archiver.model import Query, Stored
from archiver.sources.base import Source
from archiver.transfer.small import SMALL_FOR_LARGE

# So many batches are listed ahead, some 4 KB a backup: the listing goes on meanwhile.
_BATCHES_AHEAD = 32


async def pull(
    source: Source,
    archive: Archive,
    queries: Sequence[Query],
    options: PullOptions | None = None,
    observer: events.Observer = events.ignore,
    engine: OpenEngine = inline,
) -> Summary:
    """Archive every backup that the queries list and the archive does not hold. ``engine``
    downloads them: by default in this process.

    What fails for one backup or one instance is in the summary's ``failures``, and the others go
    on; so does an instance that another process writes to, as ArchiveBusy, or whose lock is lost,
    as LockLost. Raises StoreError, UnsupportedFormat, and UsageError where no archive may be begun,
    which end the run.
    """
    for query in queries:
        if not is_instance_id(query.instance_id):
            raise UsageError(f"there is no instance {query.instance_id[:80]!a}")
    observer = logged(observer, OF_RUNS)
    run = _Run(source, archive, queries, options or PullOptions(), observer)
    await archive.check_place()  # before the vendor is asked
    if run.shared.options.dry_run:
        await run.rehearse(queries)
    else:
        await run.download(queries, engine)
        await archive.tidy(run.shared.observer)
    return run.shared.summary


class _Run:
    def __init__(
        self,
        source: Source,
        archive: Archive,
        queries: Sequence[Query],
        options: PullOptions,
        observer: events.Observer,
    ) -> None:
        acknowledged, index = Acknowledged(archive), Indexing(archive.store)
        by_region = Counter(query.region for query in queries)
        self.shared: Final = Shared(
            source, archive, options, observer, acknowledged, index, by_region
        )
        self._archive: Final = archive
        # Small backups that are tried again by themselves.
        self._alone: Final = anyio.Semaphore(options.workers * SMALL_FOR_LARGE)

    async def rehearse(self, queries: Sequence[Query]) -> None:
        """The plan, and nothing done about it."""

        async def never(_: Planned) -> None:
            raise RuntimeError("a rehearsal fetches nothing")

        for instance_id, own in instances_of(queries).items():
            await InstancePull(self.shared, instance_id, own, never).run()

    async def download(self, queries: Sequence[Query], open_engine: OpenEngine) -> None:
        """The instances into the plan, the plan into the queue, the queue into workers."""
        shared, options = self.shared, self.shared.options
        opened = open_engine(
            shared.source.again, self._archive, options.transfer, options.workers, shared.observer
        )
        async with shared.locks, opened as engine:
            send, receive = anyio.create_memory_object_stream[Planned](options.workers)
            send_small, receive_small = anyio.create_memory_object_stream[Planned](
                _BATCHES_AHEAD * engine.batch_size
            )
            async with task_group() as group:
                for _ in range(options.workers):
                    group.start_soon(self._work, receive.clone(), engine)
                for _ in range(engine.batches):
                    group.start_soon(self._work_small, receive_small.clone(), engine, group)
                receive.close()
                receive_small.close()

                async def enqueue(one: Planned) -> None:
                    # What came for others is held against what is known here, one by one.
                    is_small = engine.is_small(one.transfer.backup) and not one.transfer.is_known
                    try:
                        await (send_small if is_small else send).send(one)
                    except anyio.BrokenResourceError:
                        one.ended()  # no worker is left: what ended the last one will be raised

                async with send, send_small:
                    await self._instances(queries, enqueue)
            if self.shared.full is not None:
                raise self.shared.full
            for key, bad in self.shared.acknowledged.bad.items():
                self.shared.failed(key, bad)

    async def _instances(
        self, queries: Sequence[Query], enqueue: Callable[[Planned], Awaitable[None]]
    ) -> None:
        """Each from its listing to its sets, and then let go of."""
        free = anyio.Semaphore(MOST_INSTANCES)

        async def run(instance_id: str, own: Sequence[Query]) -> None:
            try:
                await InstancePull(self.shared, instance_id, own, enqueue).run()
            finally:
                free.release()

        async with task_group() as group:
            for instance_id, own in instances_of(queries).items():
                await free.acquire()
                if self.shared.full is not None:
                    return
                group.start_soon(run, instance_id, own)

    async def _work(self, queue: MemoryObjectReceiveStream[Planned], engine: Engine) -> None:
        async with queue:
            async for planned in queue:
                await self._download_one(planned, engine)

    async def _work_small(
        self, queue: MemoryObjectReceiveStream[Planned], engine: Engine, group: TaskGroup
    ) -> None:
        """Batches of what is at hand, of however many instances."""
        async with queue:
            async for first in queue:
                async with self._alone:
                    pass  # those that are not archived have all begun: they do not pile up
                batch = [first, *_at_hand(queue, engine.batch_size - 1)]
                await self._download_batch(batch, engine, group)

    async def _download_batch(
        self, batch: Sequence[Planned], engine: Engine, group: TaskGroup
    ) -> None:
        """Whatever of a batch is not archived is tried again by itself, and holds up no other batch
        unless many are."""
        left = list(reversed(batch))

        def settled(stored: Stored | None) -> None:
            planned = left.pop()
            if stored is not None:
                planned.archived(stored)
                planned.ended()
            else:
                group.start_soon(self._download_alone, planned, engine)

        try:
            if self.shared.full is None:
                with self.shared.draining():
                    await engine.together([planned.transfer for planned in batch], settled)
        finally:
            for planned in left:  # the disk is full
                planned.ended()

    async def _download_alone(self, planned: Planned, engine: Engine) -> None:
        async with self._alone:
            await self._download_one(planned, engine)

    async def _download_one(self, planned: Planned, engine: Engine) -> None:
        """One backup, unless the disk is full by now, or the lock of its instance is lost."""
        backup, writer = planned.transfer.backup, planned.instance.writer
        try:
            if self.shared.full is not None or writer.is_busy:
                return
            naming = self.shared.naming(str(backup), backup)
            with self.shared.draining(), writer.while_held(), naming:
                transfer, stored = await engine.one(planned.transfer)
                replace(planned, transfer=transfer).archived(stored)
        finally:
            planned.ended()


def _at_hand(queue: MemoryObjectReceiveStream[Planned], most: int) -> list[Planned]:
    """What can be had without waiting."""
    taken: list[Planned] = []
    while len(taken) < most:
        try:
            taken.append(queue.receive_nowait())
        except (anyio.WouldBlock, anyio.EndOfStream):
            break
    return taken
