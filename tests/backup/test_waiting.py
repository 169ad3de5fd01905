"""Waiting for one backup, with a source that answers as it is told."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import pytest

from archiver import events
from archiver.commands.backup.waiting import Made, lacking, until_made
from archiver.errors import BackupFailed, SourceUnavailable
from archiver.model import Backup, NodesExpected, Status
from archiver.retry import RETRIES
from archiver.sources.base import Job, JobProgress
from tests.backup.made import START, Time, a_backup

JOB = Job("r-x", ("5",))
RUNNING = JobProgress("Uploading", 45, is_under_way=True, began_at=START)
ENDED = JobProgress("Finished", 100, is_under_way=False)


@dataclass
class Told:
    """A source that makes backups; ``script`` has, by the second from which it is so, how far the
    job is and what is listed."""

    time: Time
    script: dict[float, tuple[JobProgress, Sequence[Backup]]]
    asked_with: datetime | None = None

    def _now(self) -> tuple[JobProgress, Sequence[Backup]]:
        return self.script[max(second for second in self.script if second <= self.time.passed)]

    async def begin(self, instance_id: str, retention_days: int | None) -> Job:
        raise NotImplementedError

    async def progress(self, job: Job) -> JobProgress:
        return self._now()[0]

    async def listed(self, job: Job) -> list[Backup]:
        self.asked_with = job.began_at
        return list(self._now()[1])


async def wait(time: Time, told: Told, timeout: float = 7200) -> tuple[Made, list[events.Event]]:
    seen: list[events.Event] = []
    return await until_made(told, JOB, timeout, seen.append, time.clock), seen


async def test_until_it_is_listed() -> None:
    time = Time()
    one = a_backup()
    told = Told(time, {0: (RUNNING, []), 60: (ENDED, []), 90: (ENDED, [one])})
    made, seen = await wait(time, told)
    assert (made.backups, made.lacks) == ((one,), None)
    assert 90 <= time.passed < 90 + RETRIES.backup_job.max_wait
    assert seen[0] == events.BackupAdvanced("r-x", ("5",), "Uploading", 45)
    assert seen[-1] == events.BackupAdvanced("r-x", ("5",), "Finished", 100)
    # When it began is remembered though the source says it no more.
    assert told.asked_with == made.job.began_at == START


async def test_looks_become_rarer() -> None:
    time = Time()
    await wait(time, Told(time, {0: (RUNNING, []), 3600: (ENDED, [a_backup()])}))
    assert time.slept[0] == RETRIES.backup_job.wait
    assert time.slept == sorted(time.slept)
    assert max(time.slept) == RETRIES.backup_job.max_wait
    assert len(time.slept) < 260


async def test_a_job_that_does_not_end() -> None:
    time = Time()
    with pytest.raises(BackupFailed, match="r-x: job 5: Uploading, 45% after 100 s: gave up"):
        await wait(time, Told(time, {0: (RUNNING, [])}), timeout=100)
    assert time.passed == 100


async def test_it_is_looked_at_once_more_at_the_end() -> None:
    time = Time()
    made, _ = await wait(
        time, Told(time, {0: (RUNNING, []), 100: (ENDED, [a_backup()])}), timeout=100
    )
    assert made.lacks is None


@pytest.mark.parametrize("state", ["Finished", "not shown", "Failed"])
async def test_a_backup_that_never_appears(state: str) -> None:
    time = Time()
    progress = JobProgress(state, 0, is_under_way=False)
    with pytest.raises(BackupFailed, match="job 5: it has ended, and no file of it is listed"):
        await wait(time, Told(time, {0: (RUNNING, []), 50: (progress, [])}))
    assert 50 + RETRIES.backup_listed.total <= time.passed < 700


async def test_a_job_that_is_shown_late() -> None:
    """The time for the listing begins anew when the job is seen to be under way."""
    time = Time()
    unseen = JobProgress("not shown", 0, is_under_way=False)
    script = {0: (unseen, []), 500: (RUNNING, []), 1000: (ENDED, []), 1500: (ENDED, [a_backup()])}
    made, _ = await wait(time, Told(time, {at: (p, b) for at, (p, b) in script.items()}))
    assert made.lacks is None


async def test_some_files_never_appear() -> None:
    time = Time()
    ended = JobProgress("Finished", 100, is_under_way=False, nodes=frozenset({"db-0", "db-1"}))
    made, _ = await wait(time, Told(time, {0: (ended, [a_backup("db-0")])}))
    assert [one.node_id for one in made.backups] == ["db-0"]
    assert made.lacks == (
        "r-x: job 5: it has ended, and files of 1 of 2 nodes are listed: db-1 missing"
    )


async def test_a_file_that_is_never_finished() -> None:
    time = Time()
    half = a_backup(status=Status.UNFINISHED)
    with pytest.raises(BackupFailed, match="it has ended, and r-x-1 not finished"):
        await wait(time, Told(time, {0: (ENDED, [half])}))


async def test_a_failed_file_is_not_waited_for() -> None:
    time = Time()
    made, _ = await wait(time, Told(time, {0: (ENDED, [a_backup(status=Status.FAILED)])}))
    assert (made.lacks, time.passed) == (None, 0)


@pytest.mark.parametrize(
    ("nodes", "jobs", "listed", "lacks"),
    [
        ((), ("5",), ["r-x"], None),
        (("master", "replica"), ("5",), ["r-x"], None),  # a standard instance has one file
        (("a", "b"), ("5",), ["a", "b"], None),
        (("1", "2"), ("5",), ["a", "b"], None),  # named in another way
        (("1", "2"), ("5",), ["a"], "files of 1 of 2 nodes are listed"),
        ((), ("5", "6"), ["a"], "files of 1 of 2 nodes are listed"),  # a job for each node
        ((), ("5", "6"), ["a", "a"], "files of 1 of 2 nodes are listed"),
        (("a", "b"), ("5",), [], "no file of it is listed"),
    ],
)
def test_what_is_lacking(
    nodes: Sequence[str], jobs: tuple[str, ...], listed: list[str], lacks: str | None
) -> None:
    progress = JobProgress("Finished", 100, is_under_way=False, nodes=frozenset(nodes))
    backups = [a_backup(node, str(number)) for number, node in enumerate(listed)]
    assert lacking(Job("r-x", jobs), progress, backups) == lacks


def test_the_listing_may_say_how_many_nodes_there_are() -> None:
    one = replace(a_backup("a"), nodes_expected=NodesExpected(3, "a test"))
    progress = JobProgress("Finished", 100, is_under_way=False)
    assert lacking(JOB, progress, [one]) == "files of 1 of 3 nodes are listed"


async def test_an_error_is_the_callers() -> None:
    time = Time()

    class Broken(Told):
        async def progress(self, job: Job) -> JobProgress:
            raise SourceUnavailable("gone")

    with pytest.raises(SourceUnavailable, match="gone"):
        await wait(time, Broken(time, {}))
