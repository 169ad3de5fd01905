"""Jobs of a run that reads an archive, and who does them: this process, or others.

What does the jobs is opened once in each process that takes part. It can be pickled until then, so
it names what it needs (a store, programs) and opens that by itself. Jobs and results are flat data.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

from archiver.errors import ArchiverError

J = TypeVar("J")
R = TypeVar("R")
J_contra = TypeVar("J_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Workplace:
    """A process that does jobs: who observes what happens there, how many ``processes`` of this
    machine do jobs of the same run, and whether it is another process than the run's."""

    observer: Callable[[Any], None]
    processes: int = 1
    is_elsewhere: bool = False


class OpenWork(Protocol[J_contra, R_co]):
    """Opens what does jobs, one after the other or several at once. It can be pickled."""

    def __call__(
        self, place: Workplace
    ) -> AbstractAsyncContextManager[Callable[[J_contra], Awaitable[R_co]]]: ...


class Crew(Protocol[J_contra, R_co]):
    """Does jobs: give it up to ``at_once`` calls at once, each with up to ``batch_size`` of them if
    they are small."""

    @property
    def at_once(self) -> int: ...

    @property
    def batch_size(self) -> int: ...

    async def do(self, jobs: Mapping[str, J_contra]) -> Mapping[str, R_co | ArchiverError]:
        """Do jobs, each under a name that is no secret. Returns their results; an error in place of
        that of a job which kills the processes that do it. Raises what their work raises."""
        ...


class OpenCrew(Protocol):
    """Opens a crew that does ``workers`` jobs at once, or one in each process if that is None."""

    def __call__(
        self,
        open_work: OpenWork[J, R],
        workers: int | None,
        observer: Callable[[Any], None],
    ) -> AbstractAsyncContextManager[Crew[J, R]]: ...


class _Here(Generic[J, R]):
    """Implements Crew."""

    batch_size: Final = 1

    def __init__(self, work: Callable[[J], Awaitable[R]], at_once: int) -> None:
        self.at_once: Final = at_once
        self._work: Final = work

    async def do(self, jobs: Mapping[str, J]) -> Mapping[str, R | ArchiverError]:
        return {name: await self._work(job) for name, job in jobs.items()}


@asynccontextmanager
async def here(
    open_work: OpenWork[J, R], workers: int | None, observer: Callable[[Any], None]
) -> AsyncGenerator[Crew[J, R], None]:
    """An OpenCrew: this process does the jobs."""
    async with open_work(Workplace(observer)) as work:
        yield _Here(work, workers or 1)
