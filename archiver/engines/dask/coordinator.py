"""The coordinator's side: hands out tasks, answers workers, and counts those that die."""

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Hashable, Mapping
from concurrent.futures import CancelledError as FutureCancelled
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, Protocol, TypeVar

import anyio
from anyio.abc import TaskGroup
from cryptography.exceptions import InvalidTag

from archiver import events
from archiver.concurrency import shielded, task_group
from archiver.engines.dask.cluster import Cluster
from archiver.engines.dask.line import Line
from archiver.engines.dask.messages import (
    TOPIC,
    Answer,
    OpenTasks,
    Question,
    Requested,
    Result,
    Settings,
    Task,
)
from archiver.engines.dask.places import Place, Places
from archiver.engines.dask.worker import ANSWER, STOP, greet, open_run, work
from archiver.errors import ArchiverError, BackupFailed, ClusterLost, UnusableCluster
from archiver.logs import REQUESTS, record_request
from archiver.retry import RETRIES
from archiver.stores.loans import LOAN_SECONDS, boot_clock
from archiver.version import __version__

T = TypeVar("T")

# How often the scheduler is asked for its workers.
_LOOK_SECONDS: Final = 0.5
# After so many looks without a question a worker is out of reach, or frozen: it has given up its
# work by then, if it can. Looks are counted, since this process may have been stopped.
_MOST_SILENT_LOOKS: Final = 60
# For how long a worker may take to end what is under way, when the run is over.
_STOP_SECONDS: Final = 5.0


class Side(Protocol):
    """What one kind of run adds. ``own`` are the subjects that a worker has tasks about, with what
    the coordinator knows of them."""

    def opens(self, place: Place) -> OpenTasks:
        """What a worker opens to do tasks. It may hold secrets."""
        ...

    async def answer(self, asked: Any, own: Mapping[Hashable, Any]) -> Any:  # noqa: ANN401
        """The answer to what a worker asks."""
        ...

    def relay(self, event: Any, own: Mapping[Hashable, Any]) -> bool:  # noqa: ANN401
        """Pass on what happened in a worker. Returns whether it is progress of what it has."""
        ...

    def doubt(self, subjects: Mapping[Hashable, Any]) -> None:
        """Take note that a task about these may have ended halfway."""
        ...


class Coordinator:
    """Has the workers of a cluster do tasks. Each is about some subjects, of which it is known how
    many workers died with them."""

    def __init__(
        self,
        client: Any,  # noqa: ANN401 - of a package that may not be installed
        side: Side,
        observer: Callable[[Any], None],
        group: TaskGroup,
    ) -> None:
        self._run: Final = secrets.token_hex(8)
        self._client: Final = client
        self._side: Final = side
        self._observer: Final = observer
        self._group: Final = group
        self.places: Final = Places()
        self._why_over: ArchiverError | None = None
        self._over: Final = asyncio.Event()
        self._begun: Final = asyncio.Event()
        # By a worker's address: the subjects that it has now, and until when, by boot_clock, it may
        # write without hearing more.
        self._at_work: Final[dict[str, dict[Hashable, Any]]] = {}
        self._lent_until: Final[dict[str, float]] = {}
        self._lines: Final[dict[str, Line]] = {}
        self._silent_looks: Final[Counter[str]] = Counter()
        # How many workers died with a subject.
        self._deaths: Final[Counter[Hashable]] = Counter()
        # When, by boot_clock, a worker first gave its work up after the last progress of any.
        self._unheard_since: float | None = None
        self._connection: Final = client.scheduler_comm

    # Tasks

    async def result(self, task: Task) -> Result:
        """What came of a task, which is tried again if its worker dies. Raises BackupFailed for one
        that kills its workers, and what ends the run."""
        [subject] = task.subjects
        while (result := await self.attempt(task)) is None or result.is_abandoned:
            self._give_up_or_retry(task, subject, has_died=result is None)
        self._deaths.pop(subject, None)
        return result

    def _give_up_or_retry(self, task: Task, subject: Hashable, *, has_died: bool) -> None:
        """After its worker died, or gave it up. Raises BackupFailed after too many deaths."""
        deaths = self._deaths[subject]
        if deaths >= RETRIES.lost_worker.attempts:
            del self._deaths[subject]
            raise BackupFailed(
                f"{task.name}: {deaths} workers died while they worked on it",
                hint="their logs may say why; the next run tries it again",
            )
        why = BackupFailed(
            "its worker died" if has_died else "its worker heard no more of this run"
        )
        self._observer(events.Retrying(task.name, why, max(1, deaths), 0.0, task.instance_id))

    async def attempt(self, task: Task) -> Result | None:
        """What came of a task; None if its worker died. Raises what ends the run."""
        subjects = task.subjects
        alone = task.is_alone or any(self._deaths[subject] for subject in subjects)
        place = await self._place(alone=alone)
        own, line = self._at_work.setdefault(place.address, {}), place.line
        own |= subjects
        try:
            result = await self._result_at(place, task)
            for event in () if result is None else result.happened:
                self._relay(event, own, place.address)
        finally:
            for subject in subjects:
                own.pop(subject, None)
            self.places.give(place)
        if result is None or result.is_abandoned:
            if place.line is line:  # else it was opened anew, since a neighbour was given up
                place.line = None
            self._side.doubt(subjects)
            if result is not None:
                self._given_up()
                return result
            self._deaths.update(subjects.keys())
            # It may not be dead, but out of reach.
            await self._unless_over(self._lapsed([place.address]))
            return None
        self._unheard_since = None
        if result.error is not None:
            self._side.doubt(subjects)
        return result

    def _given_up(self) -> None:
        """A worker heard nothing of this process for long, which is no fault of its task: this
        process may have been stopped, or held up. Ends the run where that goes on for too long."""
        now = boot_clock()
        since = self._unheard_since = self._unheard_since or now
        if now - since > RETRIES.unheard.total:
            self._end(ClusterLost("no worker hears this process", hint="run the command again"))

    async def _place(self, *, alone: bool) -> Place:
        """A worker that takes part in this run: it is asked to before its first task. Raises
        UnusableCluster, and what ends the run."""
        while True:
            place = await self._unless_over(self.places.take(alone=alone))
            try:
                async with place.opening:
                    place.line = place.line or await self._opened(place)
            finally:
                if place.line is None:
                    self.places.give(place)
            if place.line is not None:
                return place

    async def _result_at(self, place: Place, task: Task) -> Result | None:
        """What a worker returns; None if it dies first."""
        line = place.line
        if line is None:
            raise RuntimeError("a task for a worker that does not take part")
        sealed = line.pack((task.job, frozenset(task.subjects)))
        future = self._client.submit(
            work, self._run, sealed, key=f"archiver-{task.name}-{secrets.token_hex(4)}",
            workers=[place.address], allow_other_workers=False, pure=False, retries=0,
        )  # fmt: skip
        try:
            returned = await self._unless_gone(place, future.result())
        finally:
            future.release()
        if returned is None:
            return None
        result: Result = line.unpack(returned) if returned else Result(is_abandoned=True)
        if result.unforeseen is not None:
            raise RuntimeError(f"{result.unforeseen}, in the worker {place.address}")
        return result

    async def _opened(self, place: Place) -> Line | None:
        """Have a worker take part in this run; the line to it, None if it dies. Raises
        UnusableCluster."""
        line = Line()
        settings = Settings(self._side.opens(place), REQUESTS.isEnabledFor(logging.DEBUG))
        greeting = await self._call(place, greet)
        if greeting is None:
            return None
        version, public = greeting
        if version != __version__:
            raise UnusableCluster(
                f"the worker {place.address} has archiver {version}, and this is {__version__}",
                hint="install the same version in both",
            )
        line.connect(public)
        self._lines[place.address] = line
        error = await self._call(place, open_run, line.public, line.pack(settings))
        if error is not None:
            why = line.unpack(error)
            raise UnusableCluster(f"the worker {place.address} cannot take part: {why}")
        return None if place.gone.is_set() else line

    async def _call(self, place: Place, function: Callable[..., object], *args: object) -> Any:  # noqa: ANN401
        """What a function returns that a worker runs in its event loop; None if it dies. Raises
        UnusableCluster where it does not have the function."""
        run = self._client.run(
            function, self._run, *args, workers=[place.address], on_error="return"
        )
        answers = await self._unless_gone(place, run)
        answer = None if answers is None else answers[place.address]
        if answers is None or isinstance(answer, OSError):
            place.gone.set()
            return None
        if isinstance(answer, Exception) and not isinstance(answer, ArchiverError):
            raise UnusableCluster(
                f"the worker {place.address} cannot take part: {type(answer).__name__}: {answer}",
                hint="install archiver[dask] there",
            )
        return answer

    # Waiting

    async def _unless_over(self, work: Awaitable[T]) -> T:
        """Its result. Raises what ends the run, as soon as that is known."""
        result = await self._first(work, self._over)
        self._check()
        [value] = result
        return value

    async def _unless_gone(self, place: Place, work: Awaitable[T]) -> T | None:
        """Its result; None if the worker dies first, or dask gives it up."""
        result = await self._first(work, self._over, place.gone)
        self._check()
        return result[0] if result else None

    async def _first(self, work: Awaitable[T], *ends: asyncio.Event) -> list[T]:
        """Its result in a list; none if one of the events comes first, or dask cancels it."""
        from distributed import KilledWorker  # noqa: PLC0415 - it is there by now

        doing = asyncio.ensure_future(work)
        waiting = [asyncio.ensure_future(event.wait()) for event in ends]
        try:
            await asyncio.wait([doing, *waiting], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in (doing, *waiting):
                one.cancel()
        if not doing.done() or doing.cancelled():
            return []
        error = doing.exception()
        if error is None:
            return [doing.result()]
        if isinstance(error, OSError | TimeoutError | FutureCancelled | KilledWorker):
            return []
        raise error

    def _check(self) -> None:
        """Raises what ends the run."""
        # Dask connects again by itself, and has forgotten the tasks then.
        is_same = self._client.scheduler_comm is self._connection
        if self._client.status != "running" or not is_same:
            self._end(_lost("it closed the connection"))
        if self._why_over is not None:
            raise self._why_over

    def _end(self, why: ArchiverError) -> None:
        self._why_over = self._why_over or why
        self._over.set()

    async def _lapsed(self, addresses: Collection[str]) -> None:
        """Wait until these workers stop to write, if they hear nothing more."""
        until = max((self._lent_until.get(address, 0.0) for address in addresses), default=0.0)
        await anyio.sleep(max(0.0, until - boot_clock()))

    # The cluster

    async def begin(self) -> None:
        """Wait until there is a worker. Raises ClusterLost."""
        self._client.subscribe_topic(TOPIC, self._heard)
        self._group.start_soon(self._watch)
        await self._unless_over(self._begun.wait())

    async def _watch(self) -> None:
        """Look which workers there are, as long as the run lasts."""
        since = anyio.current_time()
        while self._why_over is None:
            try:
                with anyio.fail_after(RETRIES.cluster.timeout):
                    threads = await self._client.scheduler.ncores()
            except (OSError, TimeoutError) as error:
                self._end(_lost(str(error)))
                return
            self.places.update(dict(threads))
            self._leave_the_silent()
            now = anyio.current_time()
            if any(not place.gone.is_set() for place in self.places.all):
                since = now
                self._begun.set()
            if now - since > RETRIES.no_worker.total:
                self._end(ClusterLost("the cluster has no worker", hint="start some: dask worker"))
            with suppress(ArchiverError):
                self._check()
            await anyio.sleep(_LOOK_SECONDS)

    def _leave_the_silent(self) -> None:
        """Give the work of workers that ask nothing to others: dask waits for up to ten minutes."""
        for place in self.places.all:
            at_work = place.at_work > 0 and place.line is not None
            looks = self._silent_looks[place.address] + 1 if at_work else 0
            self._silent_looks[place.address] = looks
            if looks > _MOST_SILENT_LOOKS:
                place.gone.set()

    def _heard(self, event: tuple[float, Mapping[str, Any]]) -> None:
        """Handle an event of the topic."""
        message = event[1]
        if message.get("run") == self._run:
            self._silent_looks[message["worker"]] = 0
            self._group.start_soon(self._reply, message["worker"], message["question"])

    async def _reply(self, address: str, packed: bytes) -> None:
        line = self._lines.get(address)
        if line is None:
            return
        try:
            question: Question = line.unpack(packed)
        except InvalidTag:
            return  # of a run that this worker has lost
        own = dict(self._at_work.get(address, {}))
        if own:
            self._lent_until[address] = boot_clock() + LOAN_SECONDS
        for event in question.happened:
            self._relay(event, own, address)
        given = await self._side.answer(question.asked, own)
        await self._send(ANSWER, [address], answer=line.pack(Answer(question.number, given)))

    def _relay(self, event: Any, own: Mapping[Hashable, Any], address: str) -> None:  # noqa: ANN401
        if isinstance(event, Requested):
            record_request(f"{event.text}, by {address}", {**event.fields, "worker": address})
        elif self._side.relay(event, own):
            self._unheard_since = None

    async def _send(self, name: str, addresses: Collection[str], **given: object) -> set[str]:
        """Send a message to workers; the addresses of those that have handled it."""
        message = {"op": name, "run": self._run, **given}
        try:
            answers = await self._client.scheduler.broadcast(
                msg=message, workers=list(addresses), on_error="ignore"
            )
        except (OSError, TimeoutError):
            return set()  # who watches finds out
        return {address for address, answer in answers.items() if answer is True}

    async def close(self) -> None:
        """End what is under way, and return when no worker writes any more."""
        open_ = [place.address for place in self.places.all if place.line is not None]
        if self._why_over is None and open_:
            with anyio.move_on_after(_STOP_SECONDS):
                for address in await self._send(STOP, open_):
                    self._lent_until.pop(address, None)
        await self._lapsed(self._lent_until.keys())


def _lost(why: str) -> ClusterLost:
    return ClusterLost(
        f"the connection to the scheduler was lost: {why}",
        hint="what is archived stays; run the command again",
    )


def value_of(result: Result) -> Any:  # noqa: ANN401 - of whatever kind of task
    """What a task returned. Raises its error."""
    if result.error is not None:
        raise result.error
    return result.value


@asynccontextmanager
async def coordinating(
    cluster: Cluster, workers: int | None, side: Side, observer: Callable[[Any], None]
) -> AsyncGenerator[Coordinator, None]:
    """A coordinator of a cluster, for ``workers`` tasks at once, as soon as it has a worker. Raises
    UsageError, ClusterLost."""
    async with cluster.connected(workers) as client, task_group() as group:
        coordinator = Coordinator(client, side, observer, group)
        try:
            await coordinator.begin()
            yield coordinator
        finally:
            await shielded(coordinator.close())
            group.cancel_scope.cancel()
