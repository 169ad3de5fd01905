"""Backups on demand: CreateBackup and DescribeBackupTasks (R-kvstore, 2015-01-01).

CreateBackup is sent once. Where its answer is lost, DescribeBackupTasks shows whether there is a
job that was not there before.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

import anyio

from archiver.errors import (
    ArchiverError,
    BackupFailed,
    BackupUnderWay,
    ProxyRefused,
    SourceError,
    SourceUnreachable,
    Throttled,
    UntrustedSource,
)
from archiver.model import Backup, Query
from archiver.retry import RETRIES
from archiver.sources.alibaba.tasks import (
    Task,
    first_of,
    in_order,
    job_under_way,
    made_by,
    progress_of,
    read_job_ids,
    read_tasks,
)
from archiver.sources.base import Job, JobProgress, Source
from archiver.times import TimeRange

_RESOURCE: Final = "acs:kvstore:*:*:instance/{}"
_DAY: Final = timedelta(days=1)

EXISTS: Final = "the vendor makes one backup at a time, and no new one was begun"
LOST: Final = "the answer to CreateBackup was lost, and it may be this one or another"
_MAYBE: Final = "the vendor may still make a backup; see with archiver ls before asking again"


class CallApi(Protocol):
    """Sends an action and returns its decoded answer; see :class:`.api.Api`."""

    async def __call__(
        self,
        action: str,
        params: Mapping[str, str],
        *,
        subject: str,
        resource: str = "*",
        changes: bool = False,
    ) -> dict[str, Any]: ...


def _queries(job: Job, now: datetime) -> list[Query]:
    """What lists the files of a job: all of around the time when it began, or if that is not known,
    those of each job."""
    if job.began_at is not None:
        return [_around(job.instance_id, job.began_at, now)]
    start, end = TimeRange.everything(now + _DAY).query_bounds()
    return [Query(job.instance_id, start, end, set_id=job_id) for job_id in job.ids]


def _around(instance_id: str, began_at: datetime, now: datetime) -> Query:
    """What lists all since a day before, by whatever clock."""
    since = TimeRange(min(began_at, now) - _DAY, now + _DAY)
    return Query(instance_id, *since.query_bounds())


def _was_refused(error: SourceError) -> bool:
    """Whether CreateBackup was certainly not carried out."""
    never_sent = isinstance(error, SourceUnreachable) and not error.was_sent
    return never_sent or isinstance(error, Throttled | UntrustedSource | ProxyRefused)


def _waits() -> list[float]:
    """The seconds to wait before each look for the job of a backup: none before the first."""
    waits, wait = [0.0], RETRIES.backup_begun.wait
    while sum(waits) < RETRIES.backup_begun.total:
        waits.append(wait)
        wait = min(2 * wait, RETRIES.backup_begun.max_wait)
    return waits


class TairMaker:
    """Makes backups at one endpoint; ``source`` lists them."""

    def __init__(
        self,
        call: CallApi,
        source: Source,
        *,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self._call: Final = call
        self._source: Final = source
        self._sleep: Final = sleep

    async def begin(self, instance_id: str, retention_days: int | None) -> Job:
        """See :meth:`BackupMaker.begin`. What may not be listed is not begun either."""
        now = datetime.now(UTC)
        await self._list(_around(instance_id, now, now))
        known = {task.job_id for task in await self._tasks(instance_id)}
        refused: BackupUnderWay | None = None
        for wait in _waits():
            await self._sleep(wait)
            try:
                return Job(instance_id, await self._create(instance_id, retention_days))
            except BackupUnderWay as error:
                # Not carried out: it may be sent again if that other backup has ended by now.
                job = job_under_way(instance_id, await self._tasks(instance_id), EXISTS)
                if job is not None:
                    return job
                refused = error
            except SourceError as error:
                if _was_refused(error):
                    raise
                return await self._lost(instance_id, known, error)
        raise refused or BackupFailed(f"{instance_id}: no backup was begun")

    async def progress(self, job: Job) -> JobProgress:
        return progress_of(await self._tasks_of(job))

    async def listed(self, job: Job) -> list[Backup]:
        """See :meth:`BackupMaker.listed`."""
        queries = _queries(job, datetime.now(UTC))
        return made_by(job, [one for query in queries for one in await self._list(query)])

    async def _list(self, query: Query) -> list[Backup]:
        async with aclosing(self._source.pages(query)) as pages:
            return [one async for page in pages for one in page.backups]

    async def _create(self, instance_id: str, retention_days: int | None) -> tuple[str, ...]:
        params = {"InstanceId": instance_id}
        if retention_days is not None:
            params["BackupRetentionPeriod"] = str(retention_days)
        answer = await self._call(
            "CreateBackup",
            params,
            subject=instance_id,
            resource=_RESOURCE.format(instance_id),
            changes=True,
        )
        return read_job_ids(instance_id, answer)

    async def _lost(self, instance_id: str, known: Collection[str], error: SourceError) -> Job:
        """The job that appeared, or that is under way. Raises BackupFailed if there is none, or if
        nobody says: who runs this again must know that a backup may be made already."""
        before = frozenset[str]()
        for wait in _waits():
            await self._sleep(wait)
            try:
                tasks = await self._tasks(instance_id)
            except ArchiverError as unseen:
                why = f"whether it was carried out cannot be seen: {unseen.message}"
                raise BackupFailed(f"{error.message}; {why}", hint=_MAYBE) from None
            new = [task for task in tasks if task.job_id not in known]
            ids = frozenset(task.job_id for task in new)
            if ids and ids == before:  # those of an old cluster may appear one by one
                return Job(instance_id, in_order(ids), first_of(new), LOST)
            before = ids
            under_way = None if ids else job_under_way(instance_id, tasks, LOST)
            if under_way is not None:
                return under_way
        raise BackupFailed(
            f"{error.message}; DescribeBackupTasks shows no job that began since",
            hint=_MAYBE,
        )

    async def _tasks_of(self, job: Job) -> list[Task]:
        """Each job is asked for by itself: the vendor accepts only one id at a time."""
        found = list[Task]()
        for job_id in job.ids:
            tasks = await self._tasks(job.instance_id, job_id)
            found += [task for task in tasks if task.job_id == job_id]
        return found

    async def _tasks(self, instance_id: str, job_id: str | None = None) -> list[Task]:
        params = {"InstanceId": instance_id}
        if job_id is not None:
            params["BackupJobId"] = job_id
        answer = await self._call("DescribeBackupTasks", params, subject=instance_id)
        return read_tasks(instance_id, answer)
