"""What runs in a worker: for each run a thread, in whose event loop all its transfers are.

Dask's own loop only passes messages on. If it were held up, its worker would be taken for dead. So
what is imported here is light: the rest comes with the thread.
"""

import asyncio
import itertools
import logging
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from contextlib import AsyncExitStack, contextmanager
from contextvars import ContextVar
from typing import Any, Final, NamedTuple

from cryptography.exceptions import InvalidTag

from archiver.engines.dask.line import Line
from archiver.engines.dask.messages import (
    TOPIC,
    Answer,
    Contact,
    Outbox,
    Question,
    Requested,
    Result,
    Settings,
    Tasks,
)
from archiver.errors import ArchiverError, UnusableCluster
from archiver.logs import REQUESTS
from archiver.stores.loans import PATIENCE_SECONDS, LoanLapsed, boot_clock
from archiver.version import __version__

# Names of handlers of a worker.
ANSWER: Final = "archiver_answer"
STOP: Final = "archiver_stop"
# How often a worker asks how long the locks are lent to it, and tells what happened.
_PULSE_SECONDS: Final = 0.5

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
) -> bytes | None:
    """Begin to take part in a run, with the coordinator's end of the line and packed settings.
    Returns a packed error where this worker cannot."""
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
        return line.pack(error)
    return None


def _told(error: BaseException) -> str:
    """An error that nobody foresaw, in a line."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"


def work(run: str, sealed: bytes) -> bytes:
    """The task: do what is in it, and return its sealed result; nothing if it was given up.
    Blocks."""
    from distributed import get_worker  # noqa: PLC0415 - only a worker has it

    opened = _RUNS.get((run, get_worker().address))
    return b"" if opened is None else opened.work(sealed)


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
    given: "asyncio.Future[Any]"


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
        self._tasks: Final[set[asyncio.Task[Any]]] = set()
        self._outbox: Final = Outbox()
        threading.Thread(target=self._work, args=(settings,), name="archiver", daemon=True).start()

    def work(self, sealed: bytes) -> bytes:
        # Whatever is raised comes back sealed: it may quote secrets, and if dask returned it, some
        # errors would stop its client or its worker.
        try:
            job, subjects = self._line.unpack(sealed)
            doing = asyncio.run_coroutine_threadsafe(self._do(job, subjects), self._loop)
            either: list[Future[Any]] = [doing, self.ended]
            # What was called in the moment of the end never runs.
            wait(either, return_when=FIRST_COMPLETED)
            return self._line.pack(doing.result()) if doing.done() else b""
        except InvalidTag:  # for this worker before it opened the run anew
            return b""
        except BaseException as error:  # noqa: BLE001 - the coordinator gets it
            if self._loop.is_closed() and isinstance(error, CancelledError | RuntimeError):
                return b""
            return self._line.pack(Result(unforeseen=_told(error)))

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
                is_told = isinstance(error, ArchiverError)
                self.ready.set_exception(error if is_told else UnusableCluster(_told(error)))
        finally:
            self._forget(self)
            self.ended.set_result(None)

    async def _main(self, packed: bytes) -> None:
        settings: Settings = self._line.unpack(packed)
        opened = settings.open_tasks(Contact(self._outbox, self._ask))
        async with AsyncExitStack() as stack:
            if settings.logs_requests:
                stack.enter_context(_Requests(self, self._outbox.requests).installed())
            self._does: Tasks = await stack.enter_async_context(opened)
            self.ready.set_result(None)
            pulse = asyncio.create_task(self._pulse())
            await self._over.wait()
            ending = [pulse, *self._tasks]
            for task in ending:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)

    # Questions

    async def _pulse(self) -> None:
        """Ask at intervals; without an answer for long, end the run here."""
        try:
            while True:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await self._ask(self._does.wonders())
                await asyncio.sleep(_PULSE_SECONDS)
        finally:
            self._over.set()

    async def _ask(self, asked: Any) -> Any:  # noqa: ANN401 - of whatever kind of run
        number = next(self._numbers)
        waiting = self._asked[number] = _Asked(boot_clock(), self._loop.create_future())
        self._tell(Question(number, asked, self._outbox.take()))
        try:
            return await waiting.given
        finally:
            del self._asked[number]

    def _take(self, answer: Answer) -> None:
        asked = self._asked.get(answer.number)
        if asked is not None and not asked.given.done():
            self._does.hear(answer.given, asked.at)
            asked.given.set_result(answer.given)

    # Tasks

    async def _do(self, job: Any, subjects: frozenset[Any]) -> Result:  # noqa: ANN401
        if self._over.is_set():
            return Result(is_abandoned=True)
        _RUN.set(self)
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        value, error, unforeseen = None, None, None
        try:
            value = await self._does.do(job)
        except LoanLapsed:
            return Result(is_abandoned=True)
        except ArchiverError as raised:
            error = raised
        except BaseException as raised:
            if self._over.is_set():
                raise
            unforeseen = _told(raised)
        # Not what happened to the subjects of other tasks: their results may arrive earlier.
        return Result(value, error, self._outbox.take(subjects), unforeseen=unforeseen)
