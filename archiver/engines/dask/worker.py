"""What runs in a worker: for each run a thread, in whose event loop all its transfers are.

Dask's own loop only passes messages on. If it were held up, its worker would be taken for dead. So
what is imported here is light: the rest comes with the thread.
"""

import asyncio
import itertools
import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from contextlib import AsyncExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, Final, NamedTuple, TypeVar

from archiver.concurrency import entered, for_each
from archiver.engines.dask.line import Line
from archiver.engines.dask.messages import (
    TOPIC,
    Answer,
    Identity,
    Outbox,
    Question,
    Requested,
    Result,
    Settings,
    Work,
    without_urls,
)
from archiver.errors import ArchiverError, UnusableCluster
from archiver.logs import REQUESTS
from archiver.model import Backup, Stored, Transfer
from archiver.stores.loans import PATIENCE_SECONDS, Borrowed, LoanLapsed, boot_clock
from archiver.stores.scope import scope_of
from archiver.version import __version__

T = TypeVar("T")

# Names of handlers of a worker.
ANSWER: Final = "archiver_answer"
STOP: Final = "archiver_stop"
# How often a worker asks how long the locks are lent to it, and tells what happened.
_PULSE_SECONDS: Final = 0.5
# So many locks are kept at hand, and more only while there is work for all of them: who comes back
# to an instance need not look at its lock again.
_MOST_LENT: Final = 64

# By the id of the run and the worker's address: a process may have several workers.
_RUNS: Final[dict[tuple[str, str], "_Run"]] = {}
_LINES: Final[dict[tuple[str, str], Line]] = {}


# What the coordinator calls


def greet(run: str, dask_worker: Any) -> tuple[str, bytes]:  # noqa: ANN401
    """The version of this worker, and its end of a line for a run."""
    line = _LINES[run, dask_worker.address] = Line()
    return __version__, line.public


async def open_run(
    run: str,
    public: bytes,
    settings: bytes,
    dask_worker: Any,  # noqa: ANN401
) -> ArchiverError | None:
    """Begin to take part in a run, with the coordinator's end of the line and packed settings.
    Returns an error where this worker cannot."""
    address, loop = dask_worker.address, asyncio.get_running_loop()
    line = _LINES.pop((run, address))
    line.connect(public)

    def tell(question: Question) -> None:
        message = {"run": run, "worker": address, "question": line.pack(question)}
        loop.call_soon_threadsafe(dask_worker.log_event, TOPIC, message)

    def answer(run: str, answer: bytes) -> None:
        if (opened := _RUNS.get((run, address))) is not None:
            opened.answered(answer)

    async def stop(run: str) -> bool:
        """End what is under way; True once nothing is."""
        if (opened := _RUNS.get((run, address))) is not None:
            opened.stop()
            await asyncio.wrap_future(opened.ended)
        return True

    def forget(ended: _Run) -> None:
        if _RUNS.get((run, address)) is ended:
            del _RUNS[run, address]

    if (earlier := _RUNS.get((run, address))) is not None:
        earlier.stop()  # the coordinator gives its work to others
        await asyncio.wrap_future(earlier.ended)
    opened = _RUNS[run, address] = _Run(line, settings, tell, forget)
    dask_worker.handlers[ANSWER] = answer
    dask_worker.handlers[STOP] = stop
    try:
        await asyncio.wrap_future(opened.ready)
    except ArchiverError as error:
        return error
    return None


def fetch(work: Work) -> Result:
    """The task: bring home what is in it. Blocks."""
    from distributed import get_worker  # noqa: PLC0415 - only a worker has it

    run = _RUNS.get((work.run, get_worker().address))
    return Result(is_abandoned=True) if run is None else run.fetch(work)


# In the thread of the run

# The run whose code this is.
_RUN: Final[ContextVar["_Run | None"]] = ContextVar("run", default=None)


class _Requests(logging.Handler):
    """Keeps what a run logs of its requests."""

    def __init__(self, run: "_Run", requests: deque[Requested]) -> None:
        super().__init__()
        self._run: Final = run
        self._requests: Final = requests

    def emit(self, record: logging.LogRecord) -> None:
        if _RUN.get() is self._run:  # there may be others in this process
            self._requests.append(Requested(record.getMessage(), vars(record)["fields"]))

    @contextmanager
    def installed(self) -> Iterator[None]:
        REQUESTS.addHandler(self)
        REQUESTS.setLevel(logging.DEBUG)
        try:
            yield
        finally:
            REQUESTS.removeHandler(self)
            if not any(isinstance(one, _Requests) for one in REQUESTS.handlers):
                REQUESTS.setLevel(logging.NOTSET)


class _Asked(NamedTuple):
    at: float
    answer: "asyncio.Future[Answer]"


class _Lent(NamedTuple):
    """A lock that is lent to this worker, and the store's context for it."""

    name: str
    lock: Borrowed
    stack: AsyncExitStack


class _Run:
    """A run, in one worker."""

    def __init__(
        self,
        line: Line,
        settings: bytes,
        tell: Callable[[Question], None],
        forget: Callable[["_Run"], None],
    ) -> None:
        self.ready: Final[Future[None]] = Future()
        self.ended: Final[Future[None]] = Future()
        self._line: Final = line
        self._tell: Final = tell
        self._forget: Final = forget
        self._loop: Final = asyncio.new_event_loop()
        self._over: Final = asyncio.Event()
        self._numbers: Final = itertools.count()
        self._asked: Final[dict[int, _Asked]] = {}
        # By scope, how many transfers are under way, and what is lent.
        self._scopes: Counter[str] = Counter()
        self._lent: Final[dict[str, _Lent]] = {}
        self._lending: Final = asyncio.Lock()
        self._tasks: Final[set[asyncio.Task[Any]]] = set()
        self._outbox: Final = Outbox()
        threading.Thread(target=self._work, args=(settings,), name="archiver", daemon=True).start()

    def fetch(self, work: Work) -> Result:
        try:
            result = asyncio.run_coroutine_threadsafe(self._fetch(work), self._loop)
            either: list[Future[Any]] = [result, self.ended]
            # What was called in the moment of the end never runs.
            wait(either, return_when=FIRST_COMPLETED)
            return result.result() if result.done() else Result(is_abandoned=True)
        except (CancelledError, RuntimeError) as error:  # of a loop that is closed
            if isinstance(error, RuntimeError) and not self._loop.is_closed():
                raise
            return Result(is_abandoned=True)
        except OSError as error:  # dask raises such ones itself, for a worker that died
            raise RuntimeError(repr(error)) from error

    def answered(self, answer: bytes) -> None:
        self._call(lambda: self._take(self._line.unpack(answer)))

    def stop(self) -> None:
        self._call(self._over.set)

    def _call(self, function: Callable[[], object]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function)

    def _work(self, settings: bytes) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._main(settings))
        except BaseException as error:  # noqa: BLE001 - the coordinator gets it
            if not self.ready.done():
                # An OSError would be taken for the death of this worker.
                why = UnusableCluster(repr(error)) if isinstance(error, OSError) else error
                self.ready.set_exception(why)
        finally:
            self._forget(self)
            self.ended.set_result(None)

    async def _main(self, packed: bytes) -> None:
        from archiver.archive.archive import Archive  # noqa: PLC0415
        from archiver.engines.inline import inline  # noqa: PLC0415

        settings: Settings = self._line.unpack(packed)
        archive = Archive(settings.open_store())
        opened = inline(self._renewed, archive, settings.options, settings.workers, self._outbox)
        async with AsyncExitStack() as stack:
            if settings.logs_requests:
                stack.enter_context(_Requests(self, self._outbox.requests).installed())
            self._engine, self._store = await stack.enter_async_context(opened), archive.store
            self.ready.set_result(None)
            pulse = asyncio.create_task(self._pulse())
            await self._over.wait()
            ending = [pulse, *self._tasks]
            for task in ending:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)
            for lent in self._lent.values():
                await lent.stack.aclose()

    # Questions

    async def _pulse(self) -> None:
        """Ask at intervals; without an answer for long, end the run here."""
        try:
            while True:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await self._ask()
                await asyncio.sleep(_PULSE_SECONDS)
        finally:
            self._over.set()

    async def _ask(self, wanted: Iterable[Identity] = (), *, renews: bool = False) -> Answer:
        number = next(self._numbers)
        asked = self._asked[number] = _Asked(boot_clock(), self._loop.create_future())
        scopes = tuple(self._scopes)
        self._tell(Question(number, scopes, tuple(wanted), renews, self._outbox.take()))
        try:
            return await asked.answer
        finally:
            del self._asked[number]

    def _take(self, answer: Answer) -> None:
        asked = self._asked.get(answer.number)
        if asked is None or asked.answer.done():
            return
        for scope, loan in answer.loans.items():
            lent = self._lent.get(scope)
            if lent is None:
                continue
            if isinstance(loan, ArchiverError):
                lent.lock.lose(loan)
            elif loan.name == lent.name:
                lent.lock.extend(asked.at + loan.seconds)
        self._engine.limit_to(answer.rate)
        asked.answer.set_result(answer)

    async def _renewed(self, backup: Backup) -> Backup:
        """A Relist that asks the coordinator."""
        answer = await self._ask([backup.identity], renews=True)
        return _given(answer, backup.identity)

    # Tasks

    async def _fetch(self, work: Work) -> Result:
        if self._over.is_set():
            return Result(is_abandoned=True)
        _RUN.set(self)
        scopes = [scope_of(transfer.stem) for transfer in work.transfers]
        self._scopes.update(scopes)
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        homes: list[tuple[Transfer, Stored] | None] = []
        error: ArchiverError | None = None
        try:
            await self._bring(await self._begin(work, set(scopes)), homes, is_batch=work.is_batch)
        except LoanLapsed:
            return Result(is_abandoned=True)
        except ArchiverError as raised:
            error = raised
        finally:
            self._scopes -= Counter(scopes)
        # Not those of other tasks: their results may arrive earlier.
        own = {transfer.backup.identity for transfer in work.transfers}
        return Result(tuple(homes), error, self._outbox.take(own))

    async def _begin(self, work: Work, scopes: set[str]) -> list[Transfer]:
        """The transfers with their URLs, once their locks are lent to this worker."""
        at = boot_clock()
        answer = await self._ask(transfer.backup.identity for transfer in work.transfers)
        for scope in scopes:
            await self._borrow(scope, answer, at)
        found = []
        for transfer in work.transfers:
            given = answer.backups.get(transfer.backup.identity)
            if isinstance(given, Backup):
                own = replace(transfer.backup, urls=given.urls, refused=given.refused)
                transfer = replace(transfer, backup=own)  # noqa: PLW2901
            found.append(transfer)  # without URLs it is asked for once more, by itself
        return found

    async def _borrow(self, scope: str, answer: Answer, at: float) -> None:
        loan = answer.loans.get(scope)
        if loan is None:
            raise LoanLapsed(f"the coordinator does not hold the lock of {scope}")
        if isinstance(loan, ArchiverError):
            raise loan
        async with self._lending:
            lent = self._lent.get(scope)
            if lent is not None and lent.name == loan.name:
                return
            idle = [one for one in self._lent if one not in self._scopes]
            for one in idle[: max(0, len(self._lent) - _MOST_LENT)] + [scope] * (lent is not None):
                await self._lent.pop(one).stack.aclose()
            lock, stack = Borrowed(), AsyncExitStack()
            lock.extend(at + loan.seconds)
            await stack.enter_async_context(entered(self._store.borrowed(scope, loan.name, lock)))
            self._lent[scope] = _Lent(loan.name, lock, stack)

    async def _bring(
        self,
        transfers: list[Transfer],
        homes: list[tuple[Transfer, Stored] | None],
        *,
        is_batch: bool,
    ) -> None:
        """Add to ``homes`` what is stored, in order."""
        if not is_batch:
            transfer, stored = await self._engine.one(transfers[0])
            homes.append((without_urls(transfer), stored))
            return
        size = self._engine.batch_size
        settled: dict[int, list[Stored | None]] = {at: [] for at in range(0, len(transfers), size)}

        async def bring(at: int) -> None:
            await self._engine.together(transfers[at : at + size], settled[at].append)

        try:
            await for_each(settled, bring, self._engine.batches)
        finally:
            for at, own in settled.items():
                part = transfers[at : at + size]
                for transfer, one in zip(part, own, strict=False):
                    homes.append(None if one is None else (without_urls(transfer), one))
                if len(own) < len(part):
                    break


def _given(answer: Answer, identity: Identity) -> Backup:
    """A backup with its URLs. Raises what the source said."""
    given = answer.backups.get(identity)
    if given is None:
        raise LoanLapsed("the coordinator does not expect this backup here any more")
    if isinstance(given, ArchiverError):
        raise given
    return given
