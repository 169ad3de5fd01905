"""Waiting for one backup on demand: its job until it ends, and then the listing until it has the
files."""

import time
from collections.abc import Awaitable, Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import Final

import anyio

from archiver import events
from archiver.errors import BackupFailed
from archiver.model import Backup, Status
from archiver.retry import RETRIES
from archiver.sources.base import BackupMaker, Job, JobProgress
from archiver.words import job_names, span

_GROWTH: Final = 1.5


@dataclass(frozen=True, slots=True)
class Clock:
    """The passing of time, in seconds, which tests replace."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep


@dataclass(frozen=True, slots=True)
class Made:
    """What the listing has of a job that has ended: its files, also those that failed or never were
    finished, and in ``lacks`` what is missing, in words."""

    job: Job
    backups: tuple[Backup, ...]
    lacks: str | None = None


async def until_made(
    maker: BackupMaker, job: Job, timeout: float, observer: events.Observer, clock: Clock
) -> Made:
    """Wait until a backup is made and listed, for at most ``timeout`` seconds.

    Raises BackupFailed when the time is over, or when the job has ended and no file of it appears,
    and what ``maker`` raises.
    """
    began, ended = clock.now(), None
    for wait in _waits():
        progress = await maker.progress(job)
        job = replace(job, began_at=progress.began_at or job.began_at)
        observer(events.BackupAdvanced(job.instance_id, job.ids, progress.state, progress.percent))
        now = clock.now()
        backups = list[Backup]()
        if progress.is_under_way:
            ended = None
        else:
            ended = now if ended is None else ended
            backups = await maker.listed(job)
            if (lacks := lacking(job, progress, backups)) is None:
                return Made(job, tuple(backups))
            is_late = now - ended >= RETRIES.backup_listed.total
            if is_late or now - began >= timeout:
                return _given_up(job, backups, lacks)
        if now - began >= timeout:
            raise BackupFailed(
                f"{job.instance_id}: {job_names(job.ids)}: {progress.state}, {progress.percent}% "
                f"after {span(round(timeout))}: gave up waiting; the vendor goes on with it"
            )
        await clock.sleep(max(0.0, min(wait, began + timeout - now)))
    raise AssertionError  # the waits have no end


def lacking(job: Job, progress: JobProgress, backups: Collection[Backup]) -> str | None:
    """What the listing still lacks of a job that has ended, in words; None if nothing."""
    unfinished = [str(one) for one in backups if one.status is Status.UNFINISHED]
    if unfinished:
        return f"{', '.join(sorted(unfinished))} not finished"
    if not backups:
        return "no file of it is listed"
    if all(one.is_standard for one in backups):
        return None
    nodes = {one.node_id for one in backups}
    listed = [one.nodes_expected.count for one in backups if one.nodes_expected is not None]
    expected = max(len(progress.nodes), len(job.ids), *listed)
    if len(nodes) >= expected:
        return None
    names = progress.nodes - nodes if progress.nodes & nodes else frozenset()
    which = f": {', '.join(sorted(names))} missing" if names else ""
    return f"files of {len(nodes)} of {expected} nodes are listed{which}"


def _given_up(job: Job, backups: Collection[Backup], lacks: str) -> Made:
    """What there is of a backup whose rest never came. Raises BackupFailed if that is nothing."""
    text = f"{job.instance_id}: {job_names(job.ids)}: it has ended, and {lacks}"
    if all(one.status is Status.UNFINISHED for one in backups):
        raise BackupFailed(text, hint="see what the vendor has with archiver ls")
    return Made(job, tuple(backups), text)


def _waits() -> Iterator[float]:
    """The seconds between two looks: backups take seconds or hours, and calls are counted."""
    wait = RETRIES.backup_job.wait
    while True:
        yield wait
        wait = min(_GROWTH * wait, RETRIES.backup_job.max_wait)
