"""The instances that a run may write to: their locks, and what is under way for each."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from types import TracebackType
from typing import Final, Self

import anyio

from archiver import events
from archiver.archive.archive import Archive, tell_swept
from archiver.concurrency import Turns, task_group
from archiver.errors import ArchiveBusy, ArchiverError, InstanceForbidden, LockLost, StoreError

# Instances whose locks are held, or waited for, at once: two batches of small backups, each of
# another instance. Each takes some descriptors, and in a bucket three requests every ten seconds.
MOST_INSTANCES = 64


class Locks:
    """The locks of a run's instances. An instance that is done releases its own; those that are
    left are released with this context, which must be left after all workers have ended.

    A cancellation, or an error of one instance, ends a run while threads still write for others:
    their locks are held for as long.
    """

    def __init__(self) -> None:
        self._held: Final[set[AsyncExitStack]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        async with task_group() as group:
            for lock in self._held:
                group.start_soon(lock.__aexit__, kind, error, traceback)

    def new(self) -> AsyncExitStack:
        """What an instance enters its lock into."""
        lock = AsyncExitStack()
        self._held.add(lock)
        return lock

    async def release(self, lock: AsyncExitStack) -> None:
        """Release it now: nothing is under way that needs it."""
        await lock.aclose()
        self._held.discard(lock)


class InstanceWriter:
    """The lock of an instance, which is taken when there is something to write, and released when
    the instance is done. After an error, ``locks`` release it.

    Where another process is the writer the instance fails, once, and ``is_busy`` is set: nothing is
    to be written then, and the run goes on with others. The same goes for an instance whose lock
    is lost: the store refuses each of its writes from then on, so all of its transfers end.
    """

    def __init__(
        self,
        archive: Archive,
        instance_id: str,
        turns: Turns,
        locks: Locks,
        observer: events.Observer,
    ) -> None:
        self.is_writer = False
        self.is_busy = False
        # Transfers that were handed to workers, and have not ended.
        self.under_way = 0
        self._archive: Final = archive
        self._id: Final = instance_id
        self._turns: Final = turns
        self._observer: Final = observer
        self._none_under_way = anyio.Event()
        self._locks: Final = locks
        self._lock: Final = locks.new()

    async def release(self) -> None:
        """Release the lock, if it was taken. Nothing is under way any more."""
        with self.while_held():
            await self._locks.release(self._lock)

    @contextmanager
    def while_held(self) -> Iterator[None]:
        """What is done for the instance: it ends without an error where the lock is lost."""
        try:
            yield
        except (InstanceForbidden, LockLost) as error:
            self._fail(error)

    def _fail(self, why: ArchiverError) -> None:
        if not self.is_busy:
            self._observer(events.Failed(self._id, why))
        self.is_writer, self.is_busy = False, True

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[None, None]:
        """Be the instance that is listed: one is, at a time."""
        await self._turns.take()
        try:
            yield
        finally:
            self._turns.give()

    async def begin(self) -> bool:
        """Take the lock, unless it is taken; whether this run is the writer now. Raises StoreError
        and what else :meth:`Archive.writing` raises."""
        if self.is_writer or self.is_busy:
            return self.is_writer
        try:
            await self._take(waits=True)
        except (ArchiveBusy, StoreError) as error:
            if error.ends_run and not isinstance(error, ArchiveBusy):
                raise
            self._fail(error)
        return self.is_writer

    async def begin_if_free(self) -> bool:
        """The same for what a later run, or the writer that is at work now, can do as well: nobody
        is waited for, and it is no failure that the instance is busy."""
        if not self.is_writer and not self.is_busy:
            with suppress(ArchiveBusy):
                await self._take(waits=False)
        return self.is_writer

    async def _take(self, *, waits: bool) -> None:
        swept = await self._lock.enter_async_context(
            self._archive.writing(self._id, self._observer, waits=waits)
        )
        self.is_writer = True
        tell_swept(swept, self._observer)

    async def begin_out_of_turn(self) -> bool:
        """The same within :meth:`turn`, and let others be listed meanwhile: it may take long."""
        self._turns.give()
        try:
            return await self.begin()
        finally:
            # A cancellation that comes here ends the whole run: nothing is listed any more.
            await self._turns.take(again=True)

    def ended_one(self) -> None:
        """One that was under way has ended, whatever came of it."""
        self.under_way -= 1
        if not self.under_way:
            self._none_under_way.set()
            self._none_under_way = anyio.Event()

    async def nothing_under_way(self) -> None:
        """Wait until all has ended."""
        while self.under_way:
            await self._none_under_way.wait()
