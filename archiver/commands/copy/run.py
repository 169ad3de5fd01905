"""From one archive to another, whatever each is kept in.

The records are copied as they are: what a backup is, and where it came from, does not change with
the place. What is read is held against its record, what is written is checked as in a pull.
"""

from collections.abc import Iterable, Sequence
from contextlib import aclosing, nullcontext
from typing import Final

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from archiver import events
from archiver.archive import descriptions, layout
from archiver.archive.acknowledged import (
    Acknowledged,
    Copied,
    copy_acknowledged,
    differing,
)
from archiver.archive.archive import Archive, check_apart
from archiver.archive.contents import Recorded, instances, walk
from archiver.archive.descriptions import keep, read_descriptions
from archiver.archive.indexing import Indexing
from archiver.commands.copy.instance import InstanceCopy, Planned, Shared, nothing_of
from archiver.commands.copy.selection import CopyOptions, identity
from archiver.commands.summary import Summary
from archiver.commands.writer import MOST_INSTANCES
from archiver.concurrency import task_group
from archiver.errors import ArchiveBusy, ArchiverError, BackupFailed, NoSpace
from archiver.logs import OF_RUNS, logged
from archiver.stores.scope import WHOLE
from archiver.transfer.small import SMALL_BYTES, SMALL_FOR_LARGE

# A disk that is not mounted looks like this, too: it is no success.
NOTHING_SELECTED = "no backup matches the request"


async def copy(
    source: Archive,
    target: Archive,
    options: CopyOptions | None = None,
    observer: events.Observer = events.ignore,
) -> Summary:
    """Bring to ``target`` every backup of ``source`` that it does not hold, or holds damaged.

    What fails for one backup is in the summary's ``failures``, and the others go on; so does an
    instance that another process writes to in the target, as ArchiveBusy, or whose lock is lost, as
    LockLost. Raises StoreError and UnsupportedFormat, which end the run; and before anything is
    written UsageError where the two are one archive, or one lies in the other.
    """
    observer = logged(observer, OF_RUNS)
    await check_apart(source, target)
    options = options or CopyOptions()
    shared = Shared(source, target, options, observer, Indexing(target.store))
    run = _Copying(shared)
    if not await target.begin(shared.observer, run.has_something):
        return shared.summary
    await run.all()
    await target.tidy(shared.observer)
    return shared.summary


class _Copying:
    """A run: the instances into the plan, the plan into the queue, the queue into workers."""

    def __init__(self, shared: Shared) -> None:
        self._shared: Final = shared
        self._source: Final = shared.source
        self._selection: Final = shared.options.selection
        self._large: Final = anyio.Semaphore(shared.options.workers)

    async def all(self) -> None:
        """Each instance from its records to its sealed sets; then what was acknowledged."""
        send, receive = anyio.create_memory_object_stream[Planned](self._shared.options.workers)
        async with self._shared.locks, task_group() as group:
            for _ in range(self._shared.options.workers * SMALL_FOR_LARGE):
                group.start_soon(self._work, receive.clone())
            receive.close()
            async with send:
                await self._instances(send)
        if self._shared.full is not None:
            raise self._shared.full
        self._report_if_nothing()
        await self._copy_acknowledgements()
        await self._copy_descriptions()

    async def _instances(self, send: MemoryObjectSendStream[Planned]) -> None:
        free = anyio.Semaphore(MOST_INSTANCES)

        async def run(instance_id: str, prefixes: Sequence[str]) -> None:
            try:
                await InstanceCopy(self._shared, instance_id, prefixes, send).run()
            finally:
                free.release()

        async with task_group() as group:
            for instance_id, prefixes in (await self._prefixes()).items():
                await free.acquire()
                if self._shared.full is not None:
                    return
                group.start_soon(run, instance_id, prefixes)

    async def _prefixes(self) -> dict[str, list[str]]:
        """Where to look for each instance that is meant."""
        chosen = self._selection.prefixes
        if chosen == [""]:
            chosen = [f"{one}/" for one in await instances(self._source.store)]
        found: dict[str, list[str]] = {}
        for prefix in chosen:
            found.setdefault(prefix.partition("/")[0], []).append(prefix)
        return found

    async def _work(self, queue: MemoryObjectReceiveStream[Planned]) -> None:
        async with queue:
            async for one in queue:
                try:
                    await self._copy(one)
                except NoSpace as error:
                    self._shared.full = self._shared.full or error
                except ArchiverError as error:
                    if error.ends_run:
                        raise
                    self._shared.observer(events.Failed(one.record.key, error, one.record.backup))
                finally:
                    one.instance.writer.ended_one()

    async def _copy(self, one: Planned) -> None:
        """One backup, unless the target is full by now, or the lock of its instance is lost."""
        is_small = one.record.size <= SMALL_BYTES
        async with nullcontext() if is_small else self._large:
            if self._shared.full is None and not one.instance.writer.is_busy:
                with one.instance.writer.while_held():
                    await one.instance.copy(one)

    async def _copy_acknowledgements(self) -> None:
        """What somebody has taken note of goes along with what it is about."""
        chosen = self._selection
        source, target = self._source, self._shared.target
        given = chosen.instances, chosen.set_keys
        async with aclosing(differing(Acknowledged(source), Acknowledged(target), *given)) as found:
            lacking = [one async for one in found]
        if all(one.bad is not None for one in lacking):
            self._report_acknowledgements(lacking)
            return
        try:
            async with (
                target.writing(WHOLE, self._shared.observer),
                aclosing(
                    copy_acknowledged(source, target, *given, self._shared.observer)
                ) as copied,
            ):
                async for one in copied:
                    self._report_acknowledgements([one])
        except ArchiveBusy as busy:
            self._shared.observer(events.Failed(layout.ACKNOWLEDGED, busy))

    async def _copy_descriptions(self) -> None:
        """What the vendor said of the instances, so that the copy can be judged by itself."""
        is_all = self._selection.prefixes == [""]
        names = None if is_all else (await self._prefixes()).keys()
        try:
            found, _ = await read_descriptions(self._source.store, names)
            await keep(self._shared.target.store, found.values())
        except ArchiverError as error:
            self._shared.observer(events.Failed(descriptions.PREFIX, error))

    def _report_acknowledgements(self, copied: Iterable[Copied]) -> None:
        for one in copied:
            if one.bad is None:
                self._shared.observer(events.AcknowledgementCopied(one.key))
            else:
                self._shared.observer(events.Failed(one.key, one.bad))

    def _report_if_nothing(self) -> None:
        if not (
            self._shared.summary.held
            or self._shared.summary.planned
            or self._shared.summary.failures
        ):
            nothing = BackupFailed(f"{self._source.store}: {NOTHING_SELECTED}; nothing was copied")
            self._shared.observer(events.Failed(str(self._source.store), nothing))

    async def has_something(self) -> bool:
        """Whether there is a record to copy; if not, what there is instead is reported.

        By one look: a record that comes after it is for the next run, since this one has no lock
        to write with.
        """
        selection = self._selection
        failures: list[events.Failed] = []
        for prefix in selection.prefixes:
            found = set[tuple[str, str]]()
            async with aclosing(walk(self._source.store, prefix, selection.reaches)) as walked:
                async for one in walked:
                    if isinstance(one, Recorded):
                        return True
                    found.add(identity(layout.set_of(one.key)))
                    failures.append(events.Failed(one.key, one.error))
            failures += await nothing_of(self._source, selection, prefix, found)
        for failed in failures:
            self._shared.observer(failed)
        self._report_if_nothing()
        return False
