"""Each instance has a backup made, which is waited for; a pull archives it.

While some are still being made, others are archived: one pull follows the other, each of all that
is made by then.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from archiver import events
from archiver.archive.archive import Archive
from archiver.commands.backup.waiting import Clock, Made, until_made
from archiver.commands.pull.plan import PullOptions
from archiver.commands.pull.run import pull
from archiver.concurrency import task_group
from archiver.errors import ArchiverError, BackupFailed, UsageError, others_not_asked
from archiver.ids import is_instance_id
from archiver.logs import OF_RUNS, logged
from archiver.model import Backup, Page, Query, Status
from archiver.retry import RETRIES
from archiver.sources.base import BackupMaker, Job, Source
from archiver.times import TimeRange

FOREVER: Final = -1
# The vendor's limits.
RETENTION_DAYS: Final = range(7, 731)
# Backups that are waited for at once. Each takes a call every few seconds.
MOST_AT_ONCE: Final = 64


@dataclass(frozen=True, slots=True)
class BackupOptions:
    """``retention_days`` None is what the policy of the instance says, FOREVER as long as it lives.
    Each backup is waited for at most ``timeout`` seconds. Raises UsageError."""

    retention_days: int | None = None
    timeout: float = RETRIES.backup_job.total

    def __post_init__(self) -> None:
        days = self.retention_days
        if days is not None and days != FOREVER and days not in RETENTION_DAYS:
            raise UsageError(f"a backup on demand is kept for 7 to 730 days, not for {days}")


@dataclass(frozen=True, slots=True)
class Home:
    """Where what is made is pulled to; ``source`` lists it."""

    source: Source
    archive: Archive
    options: PullOptions


async def backup(
    maker: BackupMaker,
    left: dict[str, tuple[str, ...]],
    options: BackupOptions | None = None,
    observer: events.Observer = events.ignore,
    home: Home | None = None,
    clock: Clock | None = None,
) -> None:
    """Have a backup made of each instance, wait for it, and pull it into the archive.

    ``left`` has, by instance, the ids of the jobs that an earlier run began, or none for a backup
    that is to be made. It is kept up to date, also when this is cancelled: what is done is removed,
    and so is what was refused, and a later run can go on with the rest, also with a backup of which
    something is missing. What fails for one instance
    is an event Failed, and the others go on. Raises UsageError, and what ends a pull.
    """
    for instance_id in left:
        if not is_instance_id(instance_id):
            raise UsageError(f"there is no instance {instance_id[:80]!a}")
    if home is not None:
        await home.archive.check_place()  # before a backup is made for it
    observer = logged(observer, OF_RUNS)
    run = _Run(maker, left, options or BackupOptions(), observer, home, clock or Clock())
    await run.all()


class _Run:
    def __init__(
        self,
        maker: BackupMaker,
        left: dict[str, tuple[str, ...]],
        options: BackupOptions,
        observer: events.Observer,
        home: Home | None,
        clock: Clock,
    ) -> None:
        self._maker: Final = maker
        self._left: Final = left
        self._options: Final = options
        self._observer: Final = observer
        self._home: Final = home
        self._clock: Final = clock
        self._not_begun = len(left)
        self._is_over = False

    async def all(self) -> None:
        """The instances into the queue when they are made, and all of them into the archive."""
        send, receive = anyio.create_memory_object_stream[Made](len(self._left))
        async with receive, task_group() as group:
            group.start_soon(self._make_all, send)
            async for made in receive:
                await self._bring_home([made, *_at_hand(receive)])

    async def _make_all(self, send: MemoryObjectSendStream[Made]) -> None:
        free = anyio.Semaphore(MOST_AT_ONCE)

        async def make(instance_id: str, job_ids: tuple[str, ...]) -> None:
            try:
                await self._make(instance_id, job_ids, send)
            finally:
                free.release()

        async with send, task_group() as group:
            for instance_id, job_ids in list(self._left.items()):
                await free.acquire()
                if self._is_over:
                    return
                self._not_begun -= 1
                group.start_soon(make, instance_id, job_ids)

    async def _make(
        self, instance_id: str, job_ids: tuple[str, ...], send: MemoryObjectSendStream[Made]
    ) -> None:
        """One backup, from its beginning until it is listed."""
        began = self._clock.now()
        try:
            job = Job(instance_id, job_ids) if job_ids else await self._begin(instance_id)
        except ArchiverError as error:
            del self._left[instance_id]
            self._failed(instance_id, error)
            return
        try:
            made = await until_made(
                self._maker, job, self._options.timeout, self._observer, self._clock
            )
        except ArchiverError as error:
            self._failed(instance_id, error)
            return
        self._report(made, self._clock.now() - began)
        if self._home is not None:
            await send.send(made)
        elif made.lacks is None:
            del self._left[instance_id]

    async def _begin(self, instance_id: str) -> Job:
        days = self._options.retention_days
        job = await self._maker.begin(instance_id, days)
        self._left[instance_id] = job.ids
        instead = job.instead
        if instead is not None and days is not None:
            instead += "; how long it is kept was settled when it began"
        self._observer(events.BackupBegun(instance_id, job.ids, job.began_at, instead))
        return job

    def _report(self, made: Made, seconds: float) -> None:
        instance_id = made.job.instance_id
        whole = tuple(one for one in made.backups if one.status is Status.SUCCESS)
        if whole:
            self._observer(events.BackupMade(instance_id, made.job.ids, whole, seconds))
        if made.lacks is not None:
            self._failed(instance_id, BackupFailed(made.lacks))
        if self._home is None:  # or the pull says so
            for one in made.backups:
                if one.status is Status.FAILED:
                    error = BackupFailed(
                        f"{one}: this backup failed at the vendor: there is no file"
                    )
                    self._failed(str(one), error, one)

    def _failed(self, subject: str, error: ArchiverError, failed: Backup | None = None) -> None:
        if error.concerns_all:
            self._is_over = True
            if self._not_begun:
                error.message += f"; {others_not_asked(self._not_begun, 'backed up')}"
        self._observer(events.Failed(subject, error, failed))

    async def _bring_home(self, batch: Sequence[Made]) -> None:
        home = self._home
        if home is None:
            return
        made = {one.job.instance_id: one.backups for one in batch}
        start, end = TimeRange.everything(datetime.now(UTC)).query_bounds()
        queries = [Query(instance_id, start, end) for instance_id in made]
        source = _Listed(home.source, made)
        summary = await pull(source, home.archive, queries, home.options, self._observer)
        for one in batch:
            instance_id = one.job.instance_id
            if one.lacks is None and not any(_is_of(instance_id, f) for f in summary.failures):
                del self._left[instance_id]


class _Listed:
    """A source of nothing but the backups that were made, as they were listed."""

    def __init__(self, source: Source, made: Mapping[str, Sequence[Backup]]) -> None:
        self._source: Final = source
        self._made: Final = dict(made)

    async def pages(self, query: Query) -> AsyncGenerator[Page, None]:
        backups = tuple(self._made[query.instance_id])
        yield Page(1, len(backups), len(backups), backups)

    async def again(self, backup: Backup) -> Backup:
        return await self._source.again(backup)


def _is_of(instance_id: str, failure: events.Failed) -> bool:
    """Whether something of an instance failed that a later run may mend: the instance, one of its
    backups or sets, or a document of one of its months."""
    one = failure.backup
    if one is not None:
        return one.instance_id == instance_id and one.status is not Status.FAILED
    subject = failure.subject.removeprefix("the sets of ")
    return subject == instance_id or subject.startswith(f"{instance_id}/")


def _at_hand(receive: MemoryObjectReceiveStream[Made]) -> list[Made]:
    """What can be had without waiting."""
    taken = list[Made]()
    while True:
        try:
            taken.append(receive.receive_nowait())
        except (anyio.WouldBlock, anyio.EndOfStream):
            return taken
