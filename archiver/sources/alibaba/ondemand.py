"""Backups on demand: CreateBackup and DescribeBackupTasks (R-kvstore, 2015-01-01).

CreateBackup is sent once. Where its answer is lost, DescribeBackupTasks shows whether there is a
job that was not there before.
"""

import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

import anyio

from archiver.errors import (
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
from archiver.sources.base import Job, JobProgress, Source
from archiver.times import TimeRange, parse_document_time

# In the order in which a job goes through them. Any other word, or none, is for the listing to
# explain: no word for a job that failed is documented.
_UNDER_WAY: Final = ("NoStart", "Preparing", "Waiting", "Uploading", "Checking")
_FINISHED: Final = "Finished"
_MANUAL: Final = ("Manual", "TempBackupTask")
_RESOURCE: Final = "acs:kvstore:*:*:instance/{}"
# Jobs of the nodes of one old cluster begin together.
_TOGETHER: Final = timedelta(minutes=1)
_DAY: Final = timedelta(days=1)

EXISTS: Final = "the vendor makes one backup at a time, and no new one was begun"
LOST: Final = "the answer to CreateBackup was lost, and it may be this one or another"


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


@dataclass(frozen=True, slots=True)
class Task:
    """The job of one node, as DescribeBackupTasks shows it. ``percent`` is 0 where it says none."""

    job_id: str
    node_id: str
    state: str
    percent: int
    began_at: datetime | None
    is_manual: bool

    @property
    def is_under_way(self) -> bool:
        return self.state in _UNDER_WAY


def read_job_ids(instance_id: str, answer: Mapping[str, Any]) -> tuple[str, ...]:
    """The ids in an answer to CreateBackup, which may have quotes around them. Raises SourceError
    if there are none."""
    # The vendor's example has quotes within the text: "\"1022,2480\"".
    found = re.findall(r"[0-9]+", str(answer.get("BackupJobID", "")))
    if not found:
        raise SourceError(f"{instance_id}: the answer to CreateBackup names no job")
    return tuple(dict.fromkeys(found))


def read_tasks(instance_id: str, answer: Mapping[str, Any]) -> list[Task]:
    """The tasks in an answer to DescribeBackupTasks. Raises SourceError."""
    try:
        return [_task(item) for item in answer.get("BackupJobs") or []]
    except (AttributeError, KeyError, TypeError, ValueError):
        raise SourceError(
            f"{instance_id}: the answer to DescribeBackupTasks cannot be read",
            hint="is --endpoint the R-kvstore API?",
        ) from None


def _task(item: Mapping[str, Any]) -> Task:
    began_at = item.get("StartTime")
    percent = re.match(r"[0-9]{1,3}", str(item.get("Progress") or item.get("Process") or ""))
    words = (item.get("JobMode"), item.get("TaskAction"))
    return Task(
        job_id=str(int(item["BackupJobID"])),
        node_id=str(item.get("NodeId") or ""),
        state=str(item.get("BackupProgressStatus") or ""),
        percent=min(100, int(percent[0])) if percent else 0,
        began_at=parse_document_time(began_at) if began_at else None,
        is_manual=any(word in _MANUAL for word in words),
    )


def job_under_way(instance_id: str, tasks: Iterable[Task], instead: str) -> Job | None:
    """The backup that the tasks show to be in the making, a manual one rather than another, with
    those of its jobs that have ended already; None if there is none."""
    tasks = list(tasks)
    running = [task for task in tasks if task.is_under_way]
    running = [task for task in running if task.is_manual] or running
    if not running:
        return None
    first = _first(running)
    ids = {
        task.job_id
        for task in tasks
        if task in running
        or (
            first is not None
            and task.began_at is not None
            and abs(task.began_at - first) <= _TOGETHER
            and task.is_manual == running[0].is_manual
            and task.node_id not in {one.node_id for one in running}
        )
    }
    return Job(instance_id, _sorted(ids), first, instead)


def progress_of(tasks: Collection[Task]) -> JobProgress:
    """The tasks of one backup together: the state of the node that is least far."""
    if not tasks:
        return JobProgress("not shown", 0, is_under_way=False)
    running = [task.state for task in tasks if task.is_under_way]
    other = [task.state for task in tasks if task.state != _FINISHED]
    state = min(running, key=_UNDER_WAY.index) if running else next(iter(other), _FINISHED)
    return JobProgress(
        state,
        sum(task.percent for task in tasks) // len(tasks),
        is_under_way=bool(running),
        began_at=_first(tasks),
        nodes=frozenset(task.node_id for task in tasks if task.node_id),
    )


def made_by(job: Job, backups: Iterable[Backup]) -> list[Backup]:
    """Those that a job made: by the id of the job; where the listing does not have it, the set that
    began when the job did, or next."""
    backups = list(backups)
    named = [one for one in backups if _job_id(one) in job.ids]
    if named or job.began_at is None:
        return named
    nameless = [one for one in backups if _job_id(one) is None and one.set_id is not None]
    later = [one for one in nameless if _began_then(one.started_at, job.began_at)]
    first = min(later, key=lambda one: one.started_at, default=None)
    return [one for one in nameless if first is not None and one.set_id == first.set_id]


def _began_then(started_at: datetime, job_began_at: datetime) -> bool:
    """Whether a set began when a job did, or later; the listing may have whole minutes only."""
    is_whole_minute = started_at.second == 0
    floor = job_began_at.replace(second=0) if is_whole_minute else job_began_at
    return started_at >= floor


def _job_id(backup: Backup) -> str | None:
    job_id = backup.received.get("BackupJobID", backup.received.get("BackupJobId"))
    return None if job_id in (None, "", 0, "0") else str(job_id)


def _first(tasks: Iterable[Task]) -> datetime | None:
    """When the first of them began."""
    return min((task.began_at for task in tasks if task.began_at is not None), default=None)


def _sorted(ids: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(ids, key=int))


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


class TairMaker:
    """Makes backups at one endpoint; ``source`` lists them. ``sleep`` and ``clock`` are in
    seconds."""

    def __init__(
        self,
        call: CallApi,
        source: Source,
        *,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._call: Final = call
        self._source: Final = source
        self._sleep: Final = sleep
        self._clock: Final = clock

    async def begin(self, instance_id: str, retention_days: int | None) -> Job:
        """See :meth:`BackupMaker.begin`. What may not be listed is not begun either."""
        now = datetime.now(UTC)
        await self._list(_around(instance_id, now, now))
        known = {task.job_id for task in await self._tasks(instance_id)}
        refused: BackupUnderWay | None = None
        async for _ in self._looks():
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
        """The job that appeared, or that is under way. Raises BackupFailed if there is none."""
        async for _ in self._looks():
            tasks = await self._tasks(instance_id)
            new = [task for task in tasks if task.job_id not in known]
            if new:
                return Job(instance_id, _sorted({task.job_id for task in new}), _first(new), LOST)
            under_way = job_under_way(instance_id, tasks, LOST)
            if under_way is not None:
                return under_way
        raise BackupFailed(
            f"{error.message}; DescribeBackupTasks shows no job that began since",
            hint="the vendor may still make a backup; see with archiver ls before asking again",
        )

    async def _looks(self) -> AsyncIterator[None]:
        """Again and again, with growing waits, until the time is over."""
        began, wait = self._clock(), RETRIES.backup_begun.wait
        while True:
            yield
            if self._clock() - began >= RETRIES.backup_begun.total:
                return
            await self._sleep(wait)
            wait = min(2 * wait, RETRIES.backup_begun.max_wait)

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
