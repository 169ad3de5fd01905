"""What the coordinator and its workers send each other: flat data."""

from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from archiver import events
from archiver.errors import ArchiverError
from archiver.model import Backup, Stored, Transfer
from archiver.stores.loans import Loan

if TYPE_CHECKING:
    from archiver.stores.base import Store
    from archiver.transfer.engine import TransferOptions

# Of all runs in a cluster: the scheduler keeps the last 1,000 events of each topic.
TOPIC: Final = "archiver"

Identity: TypeAlias = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Settings:
    """What a worker needs for a run, once. ``workers`` are the large files that it downloads at
    once. ``logs_requests``: it tells of its requests."""

    open_store: "Callable[[], Store]"
    options: "TransferOptions"
    workers: int
    logs_requests: bool = False


@dataclass(frozen=True, slots=True)
class Requested:
    """A request that a worker has made, as it is logged (:mod:`archiver.logs`)."""

    text: str
    fields: Mapping[str, Any]


Happened: TypeAlias = events.Event | Requested


@dataclass(frozen=True, slots=True)
class Work:
    """A task: one backup, or a batch of small ones, without their URLs."""

    run: str
    transfers: tuple[Transfer, ...]
    is_batch: bool


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a task. ``homes`` are in its order, None for what is not stored; after an
    ``error`` some at the end are missing. ``is_abandoned``: the worker gave it up, because it heard
    no more of its coordinator, or the run is over."""

    homes: tuple[tuple[Transfer, Stored] | None, ...] = ()
    error: ArchiverError | None = None
    happened: tuple[Happened, ...] = ()
    is_abandoned: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """A worker wants to know for how long the locks of ``scopes`` are lent to it, and the URLs of
    the backups that are ``wanted``: new ones if it ``renews`` them. It also tells what happened."""

    number: int
    scopes: tuple[str, ...]
    wanted: tuple[Identity, ...]
    renews: bool
    happened: tuple[Happened, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to the question of this ``number``; an error in place of what cannot be given.
    ``rate`` is the worker's share of the limit, in bytes per second."""

    number: int
    loans: Mapping[str, Loan | ArchiverError]
    backups: Mapping[Identity, Backup | ArchiverError]
    rate: int | None


def without_urls(transfer: Transfer) -> Transfer:
    """A transfer as a task may hold it."""
    return replace(transfer, backup=replace(transfer.backup, urls={}))


@dataclass(slots=True)
class Outbox:
    """An observer that keeps events until they are sent. ``requests`` are kept as well, from any
    thread."""

    requests: deque[Requested] = field(default_factory=deque)
    _events: list[events.Event] = field(default_factory=list)

    def __call__(self, event: events.Event) -> None:
        self._events.append(event)

    def take(self, of: Collection[Identity] | None = None) -> tuple[Happened, ...]:
        """What happened since the last time, or only the requests and what happened to some
        backups. Of the progress of a file, which may be one event for each MiB, the sum is left."""
        given, self._events = self._events, []
        if of is not None:
            self._events = [event for event in given if _identity(event) not in of]
            given = [event for event in given if _identity(event) in of]
        taken: list[Happened] = [self.requests.popleft() for _ in range(len(self.requests))]
        advances: dict[Identity, int] = {}
        for event in map(_small, given):
            backup = getattr(event, "backup", None)
            at = None if backup is None else advances.pop(backup.identity, None)
            if isinstance(event, events.Advanced):
                before = None if at is None else taken[at]
                if isinstance(before, events.Advanced) and before.network is event.network:
                    taken[at or 0] = replace(event, fetched=before.fetched + event.fetched)
                    advances[event.backup.identity] = at or 0
                    continue
                advances[event.backup.identity] = len(taken)
            taken.append(event)
        return tuple(taken)


def _identity(event: events.Event) -> Identity | None:
    backup = getattr(event, "backup", None)
    return None if backup is None else backup.identity


def _small(event: events.Event) -> events.Event:
    """An event whose backup has no URLs, nor what the source sent."""
    backup = getattr(event, "backup", None)
    if backup is None:
        return event
    return replace(event, backup=replace(backup, urls={}, received={}))
