"""What the coordinator and its workers send each other: flat data."""

from collections import deque
from collections.abc import Awaitable, Callable, Collection, Hashable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, TypeAlias

from archiver.errors import ArchiverError
from archiver.model import Transfer

# Of all runs in a cluster: the scheduler keeps the last 1,000 events of each topic.
TOPIC: Final = "archiver"


@dataclass(frozen=True, slots=True)
class Requested:
    """A request that a worker has made, as it is logged (:mod:`archiver.logs`)."""

    text: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Task:
    """A task. The worker gets its ``job``. ``subjects`` are what it is about, with what the
    coordinator knows of each; its ``name`` is seen in the cluster. ``is_alone``: its worker must
    have no other."""

    name: str
    job: Any
    subjects: Mapping[Any, Any]
    instance_id: str | None = None
    is_alone: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a task: a value, or an error. ``is_abandoned``: the worker gave it up, because
    it heard no more of its coordinator, or the run is over. ``unforeseen``: any other error."""

    value: Any = None
    error: ArchiverError | None = None
    happened: tuple[Any, ...] = ()
    is_abandoned: bool = False
    unforeseen: str | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """What a worker wants to know, if anything, and what happened there."""

    number: int
    asked: Any
    happened: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to the question of this ``number``."""

    number: int
    given: Any


class Tasks(Protocol):
    """Does the tasks of a run in a worker."""

    async def do(self, job: Any) -> Any:  # noqa: ANN401 - of whatever kind of run
        """Do a task. Raises LoanLapsed to give it up, and the ArchiverError that is its result."""
        ...

    def wonders(self) -> Any:  # noqa: ANN401
        """What to ask the coordinator, at intervals."""
        ...

    def hear(self, given: Any, asked_at: float) -> None:  # noqa: ANN401
        """Take note of an answer to a question that was asked then, by boot_clock."""
        ...


@dataclass(frozen=True, slots=True)
class Contact:
    """A worker's contact to its coordinator: takes events, and asks."""

    observer: Callable[[Any], None]
    ask: Callable[[Any], Awaitable[Any]]


# Opens in a worker what does tasks there. It is sent sealed, and may hold secrets.
OpenTasks: TypeAlias = Callable[[Contact], AbstractAsyncContextManager[Tasks]]


@dataclass(frozen=True, slots=True)
class Settings:
    """What a worker needs for a run, once. ``logs_requests``: it tells of its requests."""

    open_tasks: OpenTasks
    logs_requests: bool = False


def without_urls(transfer: Transfer) -> Transfer:
    """A transfer as a task may hold it."""
    return replace(transfer, backup=replace(transfer.backup, urls={}))


class Outbox:
    """An observer that keeps events until they are sent. ``requests`` are kept as well, from any
    thread."""

    def __init__(self) -> None:
        self.requests: Final[deque[Requested]] = deque()
        self._events: list[Any] = []

    def __call__(self, event: Any) -> None:  # noqa: ANN401 - of whatever kind of run
        self._events.append(event)

    def take(self, of: Collection[Hashable] | None = None) -> tuple[Any, ...]:
        """What happened since the last time, or only the requests and what happened to some
        backups, and to none. Of progress, which may be one event for each MiB, the sum is left."""
        given, self._events = self._events, []
        if of is not None:
            those = {None, *of}
            self._events = [event for event in given if _identity(event) not in those]
            given = [event for event in given if _identity(event) in those]
        taken: list[Any] = [self.requests.popleft() for _ in range(len(self.requests))]
        last: dict[Hashable, int] = {}
        for event in map(_small, given):
            at = last.get(_identity(event))
            after = getattr(event, "after", None)
            both = None if at is None or after is None else after(taken[at])
            if at is None or both is None:
                last[_identity(event)] = len(taken)
                taken.append(event)
            else:
                taken[at] = both
        return tuple(taken)


def _identity(event: Any) -> Hashable:  # noqa: ANN401
    backup = getattr(event, "backup", None)
    return None if backup is None else backup.identity


def _small(event: Any) -> Any:  # noqa: ANN401
    """An event whose backup has no URLs, nor what the source sent."""
    backup = getattr(event, "backup", None)
    if backup is None or not hasattr(backup, "urls"):
        return event
    return replace(event, backup=replace(backup, urls={}, received={}))
