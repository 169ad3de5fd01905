"""What CreateBackup and DescribeBackupTasks (R-kvstore, 2015-01-01) say of the jobs that make
backups, and which files are theirs. Pure."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from archiver.errors import SourceError
from archiver.model import Backup
from archiver.sources.base import Job, JobProgress
from archiver.times import parse_document_time

# In the order in which a job goes through them. Any other word, or none, is for the listing to
# explain: no word for a job that failed is documented.
_UNDER_WAY: Final = ("NoStart", "Preparing", "Waiting", "Uploading", "Checking")
_FINISHED: Final = "Finished"
_MANUAL: Final = ("Manual", "TempBackupTask")
# Jobs of the nodes of one old cluster begin together.
_TOGETHER: Final = timedelta(minutes=1)


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
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
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
    first = first_of(running)
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
    return Job(instance_id, in_order(ids), first, instead)


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
        began_at=first_of(tasks),
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


def first_of(tasks: Iterable[Task]) -> datetime | None:
    """When the first of them began."""
    return min((task.began_at for task in tasks if task.began_at is not None), default=None)


def in_order(ids: Iterable[str]) -> tuple[str, ...]:
    """The ids of jobs, the smallest first."""
    return tuple(sorted(ids, key=int))
