"""What CreateBackup and DescribeBackupTasks answer, read."""

import math
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from archiver.errors import SourceError
from archiver.model import Backup
from archiver.sources.alibaba.ondemand import EXISTS
from archiver.sources.alibaba.tasks import (
    job_under_way,
    made_by,
    progress_of,
    read_job_ids,
    read_tasks,
)
from archiver.sources.base import Job
from tests.backup.made import START, a_backup, a_task


def tasks(*given: dict[str, Any]) -> Any:
    return read_tasks("r-x", {"BackupJobs": list(given)})


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("4679933", ("4679933",)),
        (4679933, ("4679933",)),
        ("1022,2480", ("1022", "2480")),
        ('"1022,2480"', ("1022", "2480")),  # as in the vendor's example
        ("7, 7", ("7",)),
    ],
)
def test_the_jobs_of_a_new_backup(text: object, ids: tuple[str, ...]) -> None:
    assert read_job_ids("r-x", {"BackupJobID": text}) == ids


@pytest.mark.parametrize("answer", [{}, {"BackupJobID": ""}, {"BackupJobID": None}])
def test_an_answer_without_a_job(answer: dict[str, Any]) -> None:
    with pytest.raises(SourceError, match="r-x: the answer to CreateBackup names no job"):
        read_job_ids("r-x", answer)


def test_a_task() -> None:
    [task] = tasks(a_task(8, "r-x-db-0", "Checking", "95%"))
    assert (task.job_id, task.node_id, task.state, task.percent) == (
        "8", "r-x-db-0", "Checking", 95,
    )  # fmt: skip
    assert (task.began_at, task.is_manual, task.is_under_way) == (START, True, True)
    [sparse] = tasks({"BackupJobID": "9", "Process": "12"})
    assert (sparse.job_id, sparse.percent, sparse.state) == ("9", 12, "")
    assert (sparse.began_at, sparse.is_manual, sparse.is_under_way) == (None, False, False)
    assert read_tasks("r-x", {}) == []


@pytest.mark.parametrize(
    "answer",
    [{"BackupJobs": 3}, {"BackupJobs": ["x"]}, {"BackupJobs": [{}]},
     {"BackupJobs": [a_task(started="yesterday")]}, {"BackupJobs": [{"BackupJobID": math.inf}]}],
)  # fmt: skip
def test_tasks_that_cannot_be_read(answer: dict[str, Any]) -> None:
    with pytest.raises(SourceError, match="r-x: the answer to DescribeBackupTasks"):
        read_tasks("r-x", answer)


def test_nothing_is_under_way() -> None:
    assert job_under_way("r-x", tasks(), EXISTS) is None
    assert job_under_way("r-x", tasks(a_task(state="Finished")), EXISTS) is None


def test_a_manual_backup_is_waited_for_rather_than_another() -> None:
    found = tasks(a_task(7, mode="Automated"), a_task(8), a_task(3, state="Finished"))
    assert job_under_way("r-x", found, EXISTS) == Job("r-x", ("8",), START, EXISTS)
    assert job_under_way("r-x", found[:1], EXISTS) == Job("r-x", ("7",), START, EXISTS)


def test_the_jobs_of_one_backup_are_waited_for_together() -> None:
    """Some have ended already; those of an earlier backup are others."""
    found = tasks(
        a_task(22, "db-0", "Finished", 100),
        a_task(23, "db-1"),
        a_task(24, "db-2", started="2026-11-24T12:00:30Z"),
        a_task(11, "db-0", "Finished", 100, started="2026-11-24T11:50:00Z"),
        a_task(5, "db-0", "Finished", 100, mode="Automated"),
        a_task(12, "db-1", "Finished", 100),
    )
    assert job_under_way("r-x", found, EXISTS) == Job("r-x", ("22", "23", "24"), START, EXISTS)


def test_progress() -> None:
    nodes = frozenset({"db-0", "db-1"})
    both = tasks(a_task(1, "db-0", "Finished", 100), a_task(2, "db-1", "Waiting", 20))
    found = progress_of(both)
    assert (found.state, found.percent, found.is_under_way) == ("Waiting", 60, True)
    assert (found.began_at, found.nodes) == (START, nodes)
    done = progress_of(tasks(a_task(1, "db-0", "Finished", 100)))
    assert (done.state, done.percent, done.is_under_way) == ("Finished", 100, False)
    # A word that is not documented: the listing tells what came of it.
    odd = progress_of(tasks(a_task(1, "db-0", "Finished", 100), a_task(2, "db-1", "Failed", 0)))
    assert (odd.state, odd.is_under_way) == ("Failed", False)
    none = progress_of([])
    assert (none.state, none.is_under_way, none.nodes) == ("not shown", False, frozenset())


def test_what_a_job_made() -> None:
    ours, other = a_backup(job=5), a_backup(backup_id="2", job=6)
    assert made_by(Job("r-x", ("5",)), [other, ours]) == [ours]
    assert made_by(Job("r-x", ("5", "6")), [other, ours]) == [other, ours]
    assert made_by(Job("r-x", ("7",), START), [other, ours]) == []


def a_set(set_id: str, seconds: int) -> list[Backup]:
    at = START + timedelta(seconds=seconds)
    return [a_backup(f"r-x-db-{n}", f"{n}", set_id=set_id, started_at=at) for n in range(2)]


def test_a_set_without_a_job_is_told_by_its_time() -> None:
    before, ours, after = a_set("cb-1", -1), a_set("cb-2", 3), a_set("cb-3", 600)
    job = Job("r-x", ("5",), START)
    assert made_by(job, [*after, *ours, *before]) == ours
    assert made_by(job, before) == []
    assert made_by(replace(job, began_at=None), ours) == []  # nobody knows whose it is
    later = replace(job, began_at=START + timedelta(seconds=30))
    whole_minute = a_set("cb-4", 0)  # as a listing with whole minutes has it
    assert made_by(later, whole_minute) == whole_minute
    assert made_by(later, ours) == []
