"""Jobs that the workers of a cluster do: a run that reads an archive, over many processes."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from archiver.concurrency import task_group
from archiver.engines.dask.cluster import Cluster
from archiver.engines.dask.coordinator import Coordinator, coordinating, value_of
from archiver.engines.dask.messages import Contact, Task
from archiver.engines.dask.places import Place
from archiver.errors import BackupFailed
from archiver.jobs import Crew, OpenCrew, OpenWork, Workplace

_BATCH_SIZE: Final = 32
# Where each process does one job at a time, at most so many do.
_MOST_PROCESSES: Final = 256


@dataclass(frozen=True, slots=True)
class _OpenJobs:
    """An OpenTasks."""

    open_work: OpenWork[Any, Any]
    processes: int

    @asynccontextmanager
    async def __call__(self, contact: Contact) -> AsyncGenerator["_Jobs", None]:
        place = Workplace(contact.observer, self.processes, is_elsewhere=True)
        async with self.open_work(place) as work:
            yield _Jobs(work)


@dataclass(frozen=True, slots=True)
class _Jobs:
    """Implements Tasks: each is one job, or a batch of small ones."""

    work: Callable[[Any], Awaitable[Any]]

    async def do(self, job: tuple[Any, ...]) -> list[Any]:
        return [await self.work(one) for one in job]

    def wonders(self) -> None:
        return None

    def hear(self, given: None, asked_at: float) -> None:
        pass


class _Crew:
    """Implements Crew, and Side."""

    batch_size: Final = _BATCH_SIZE
    coordinator: Coordinator

    def __init__(
        self, open_work: OpenWork[Any, Any], workers: int | None, observer: Callable[[Any], None]
    ) -> None:
        self.at_once: Final = _MOST_PROCESSES if workers is None else workers
        self._is_alone: Final = workers is None
        self._open_work: Final = open_work
        self._observer: Final = observer

    async def do(self, jobs: Mapping[str, Any]) -> Mapping[str, Any]:
        if len(jobs) > 1:
            result = await self.coordinator.attempt(self._task(jobs))
            if result is not None and not result.is_abandoned:
                return dict(zip(jobs, value_of(result), strict=True))
        # Or the worker of a batch died: one of its jobs may have killed it.
        done: dict[str, Any] = {}

        async def alone(name: str) -> None:
            try:
                result = await self.coordinator.result(self._task({name: jobs[name]}))
                [done[name]] = value_of(result)
            except BackupFailed as error:
                done[name] = error

        async with task_group() as group:
            for name in jobs:
                group.start_soon(alone, name)
        return done

    def _task(self, jobs: Mapping[str, Any]) -> Task:
        first = next(iter(jobs))
        name = first if len(jobs) == 1 else f"{first}-and-{len(jobs) - 1}-more"
        instance_id = first.partition("/")[0]
        return Task(name, tuple(jobs.values()), jobs, instance_id, is_alone=self._is_alone)

    def opens(self, place: Place) -> _OpenJobs:
        return _OpenJobs(self._open_work, self.coordinator.places.on_machine_of(place))

    async def answer(self, asked: None, own: Mapping[Hashable, Any]) -> None:
        pass

    def relay(self, event: Any, own: Mapping[Hashable, Any]) -> bool:  # noqa: ANN401
        self._observer(event)
        return True

    def doubt(self, subjects: Mapping[Hashable, Any]) -> None:
        pass


def dask_crew(cluster: Cluster) -> OpenCrew:
    """What opens a crew in a cluster."""

    @asynccontextmanager
    async def opened(
        open_work: OpenWork[Any, Any], workers: int | None, observer: Callable[[Any], None]
    ) -> AsyncGenerator[Crew[Any, Any], None]:
        crew = _Crew(open_work, workers, observer)
        async with coordinating(cluster, workers, crew, observer) as crew.coordinator:
            yield crew

    return opened
