"""Backups on demand: CreateBackup copies each node's newest dump, once the job's time is over."""

import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from archiver.emulator.backup import job_of, manual_name
from archiver.emulator.catalogue import Catalogue
from archiver.emulator.gateway import ApiError
from archiver.emulator.instances import Instance
from archiver.errors import UsageError
from archiver.times import format_iso

_DAY_SECONDS = 24 * 3600
_MOST_A_DAY = 30
# Until which part of its time a job has which status.
_STATUSES = (
    (0.05, "NoStart"),
    (0.1, "Preparing"),
    (0.2, "Waiting"),
    (0.9, "Uploading"),
    (1.0, "Checking"),
)


@dataclass(frozen=True, slots=True)
class Job:
    """A backup on demand; ``sources`` are the files to copy, by node, ``started`` is in epoch
    seconds, ``seconds`` is how long it takes."""

    instance: Instance
    file_name: str
    sources: Mapping[str, Path]
    started: float
    seconds: float

    @property
    def ids(self) -> list[int]:
        """One for all nodes, or in old clusters one each."""
        return sorted({self.id_of(node) for node in self.sources})

    @property
    def start_time(self) -> str:
        return format_iso(datetime.fromtimestamp(int(self.started), UTC))

    def id_of(self, node: str) -> int:
        return job_of(self.instance, node, self.file_name)

    def progress(self, now: float) -> int:
        """In percent."""
        passed = max(0.0, now - self.started)
        return 100 if passed >= self.seconds else int(100 * passed / self.seconds)

    def status(self, now: float) -> str:
        done = self.progress(now) / 100
        return next((status for until, status in _STATUSES if done < until), "Finished")


class Jobs:
    """The jobs since the start, for all instances. Thread-safe.

    Each takes ``seconds`` of ``clock`` (epoch seconds), and its files appear with the first request
    after that.
    """

    def __init__(self, catalogue: Catalogue, clock: Callable[[], float], seconds: float) -> None:
        self._catalogue: Final = catalogue
        self._clock: Final = clock
        self._seconds: Final = seconds
        self._lock: Final = threading.Lock()
        self._jobs: Final[dict[str, list[Job]]] = {}
        self._pending: Final[dict[str, Job]] = {}

    def create(self, instance: Instance, days: int | None) -> Job:
        """Start a backup that is kept for so many days; see :func:`manual_name`. Raises
        ApiError."""
        with self._lock:
            now = self._clock()
            if instance.id in self._pending:
                raise ApiError(400, "BackupJobExists", "The instance is being backed up already.")
            earlier = self._jobs.setdefault(instance.id, [])
            if sum(now - job.started < _DAY_SECONDS for job in earlier) >= _MOST_A_DAY:
                raise ApiError(
                    400, "BackupTimesExceeded", f"At most {_MOST_A_DAY} manual backups a day."
                )
            sources = self._sources(instance)
            if not sources:  # the vendor would back up whatever there is
                raise ApiError(400, "InvalidEmulatorFile", "There is no dump yet to copy.")
            # Two backups never have the same file name.
            second = max([now, *(int(job.started) + 1 for job in earlier)])
            name = manual_name(datetime.fromtimestamp(second, UTC), days)
            job = Job(instance, name, sources, second, self._seconds)
            earlier.append(job)
            self._pending[instance.id] = job
            return job

    def of(self, instance: Instance) -> list[Job]:
        """All jobs of an instance since the start, oldest first."""
        with self._lock:
            return list(self._jobs.get(instance.id, ()))

    def pending(self, instance: Instance) -> Job | None:
        """The job that is under way."""
        with self._lock:
            return self._pending.get(instance.id)

    def finish_due(self) -> None:
        """Write the files of jobs whose time is over. Blocks. Raises UsageError."""
        with self._lock:
            now = self._clock()
            due = [job for job in self._pending.values() if job.progress(now) == 100]
            for job in due:
                del self._pending[job.instance.id]
                for source in job.sources.values():
                    _copy(source, source.parent / job.file_name)

    def _sources(self, instance: Instance) -> dict[str, Path]:
        """The newest dump of each node."""
        newest: dict[str, Path] = {}
        for backup in self._catalogue.backups(instance):
            if not backup.incremental:
                newest.setdefault(backup.node, backup.path)
        return newest


def _copy(source: Path, target: Path) -> None:
    part = target.with_name(f".{target.name}.part")  # hidden: no backup before it is whole
    try:
        shutil.copyfile(source, part)
        part.replace(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UsageError(f"{target} cannot be written: {error.strerror}") from None
