"""Tasks that fail as one, and blocking work in threads that no cancellation leaves half done.

A cancellation may come from an anyio scope or from asyncio itself (``task.cancel()``,
``asyncio.timeout()``), and more than once; against the latter anyio's shields do nothing. What was
begun is waited for in all cases, and then the CancelledError goes on its way as it came: nobody
calls ``uncancel()`` here, so that the timeout or task group which asked for it still knows its own.

Work that waits for something does so in :func:`pause`, which ends when it is cancelled. In what
cleans up after a cancellation nothing is waited for at all.

A cancellation waits for the threads at work. A thread that waits for a server which does not answer
may do so for minutes, and whoever cancelled may not want to: :func:`hurry` tells such calls to give
up, and they fail as they would in the end.
"""

import asyncio
import concurrent.futures
import contextlib
import contextvars
import math
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup

from archiver.errors import ArchiverError

P = ParamSpec("P")
T = TypeVar("T")

_CALLS: set[weakref.WeakMethod[Callable[[], object]]] = set()
_LOCK = threading.Lock()
# Set when nobody waits any more for what the work in this thread comes to.
_abandoned: ContextVar[threading.Event | None] = ContextVar("abandoned", default=None)


def pause(seconds: float) -> bool:
    """Wait, in blocking work; False as soon as that is cancelled: then it is to come to its end."""
    abandoned = _abandoned.get() or threading.Event()
    return not abandoned.wait(seconds)


def is_abandoned() -> bool:
    """Whether the work in this thread is cancelled, or cleans up after a cancellation."""
    abandoned = _abandoned.get()
    return abandoned is not None and abandoned.is_set()


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What ``work`` returns. A cancellation before it has begun keeps it from that; a later one
    waits for its end."""
    ended: concurrent.futures.Future[None] = concurrent.futures.Future()
    abandoned = _abandoned.get() or threading.Event()

    def run() -> T:
        _abandoned.set(abandoned)
        if not ended.set_running_or_notify_cancel():
            raise RuntimeError("it was cancelled before it began; nobody hears this")
        try:
            return work(*args, **kwargs)
        finally:
            ended.set_result(None)

    try:
        # Abandoned by anyio, and not by us: else a scope's cancellation is not heard of here.
        return await to_thread.run_sync(run, abandon_on_cancel=True)
    except asyncio.CancelledError:
        if not ended.cancel():
            abandoned.set()
            await _ended(asyncio.wrap_future(ended))
        raise


async def in_thread_anyway(work: Callable[[], T]) -> T:
    """What ``work`` returns, for cleaning up: no cancellation keeps it from beginning, either."""
    abandoned = _new_abandoned()
    begun = _begin(work, abandoned)
    await _ended(begun, abandoned.set)
    return begun.result()


async def interruptible(begun: "asyncio.Future[T]", interrupt: Callable[[], object]) -> T:
    """What work in a thread comes to. A cancellation calls ``interrupt``, and waits for its end."""
    try:
        await asyncio.wait([begun])
    except asyncio.CancelledError:
        interrupt()
        try:
            await _ended(begun)
        finally:
            if begun.done() and not begun.cancelled():
                begun.exception()  # what an interruption brought about is of no account
        raise
    return begun.result()


async def until_cancelled(work: Callable[[threading.Event], T]) -> T:
    """What ``work`` returns, in a thread. A cancellation sets its event and waits for its end."""
    stop = threading.Event()
    return await interruptible(_begin(lambda: work(stop), stop), stop.set)


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """What ``work`` returns, for cleaning up: a cancellation waits for its end.

    It is a task of its own. What it opens for somebody else must be known to him even when this
    raises: a cancellation takes the place of its result.
    """
    abandoned, context = _new_abandoned(), contextvars.copy_context()
    context.run(_abandoned.set, abandoned)
    task = asyncio.get_running_loop().create_task(work, context=context)
    await _ended(task, abandoned.set)
    return task.result()


@asynccontextmanager
async def entered(
    context: AbstractContextManager[T], interrupt: Callable[[], object] = lambda: None
) -> AsyncGenerator[T, None]:
    """A context whose entering and leaving block: once entered, it is left, whatever cancels.

    A cancellation while it is being entered calls ``interrupt``, which may hurry it.
    """
    abandoned = threading.Event()
    entering = _begin(context.__enter__, abandoned)

    def hurry() -> None:
        abandoned.set()
        interrupt()

    try:
        value = await interruptible(entering, hurry)
    except asyncio.CancelledError as error:
        if entering.exception() is None:
            await _left(context, error)
        raise
    try:
        yield value
    except BaseException as error:
        await _left(context, error)
        raise
    else:
        await in_thread_anyway(lambda: context.__exit__(None, None, None))


async def _left(context: AbstractContextManager[object], error: BaseException) -> None:
    # What the leaving says is of no account now, least of all in a cancellation's place.
    with contextlib.suppress(ArchiverError):
        await in_thread_anyway(lambda: context.__exit__(type(error), error, error.__traceback__))


def _is_cancelled() -> bool:
    """Whether the running task is, by a scope of anyio or by asyncio."""
    task = asyncio.current_task()
    by_asyncio = task is not None and task.cancelling() > 0
    return by_asyncio or anyio.current_effective_deadline() == -math.inf


def _new_abandoned() -> threading.Event:
    """Of work that begins now, which may be in what is cancelled already."""
    abandoned = threading.Event()
    inherited = _abandoned.get()
    if _is_cancelled() or (inherited is not None and inherited.is_set()):
        abandoned.set()
    return abandoned


def _begin(work: Callable[[], T], abandoned: threading.Event) -> "asyncio.Future[T]":
    """Begin it, in a thread of its own: there is always one to be had, however busy others are."""
    promised: concurrent.futures.Future[T] = concurrent.futures.Future()
    promised.set_running_or_notify_cancel()  # from here on nobody can cancel it

    def run() -> None:
        _abandoned.set(abandoned)
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            promised.set_exception(error)
        else:
            promised.set_result(result)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,))
    thread.start()
    return asyncio.wrap_future(promised)


async def _ended(
    begun: "asyncio.Future[T]", interrupt: Callable[[], object] = lambda: None
) -> None:
    """Wait, whatever cancels and however often; then raise the first of these cancellations. It
    calls ``interrupt`` when it comes."""
    cancelled: asyncio.CancelledError | None = None
    if not _is_cancelled():
        try:  # without a shield, which would keep a scope's cancellation from being heard of
            await asyncio.wait([begun])
        except asyncio.CancelledError as error:
            cancelled = error
            interrupt()
    with anyio.CancelScope(shield=True):
        while not begun.done():
            try:
                await asyncio.wait([begun])
            except asyncio.CancelledError as error:
                cancelled = cancelled or error
                interrupt()
    if cancelled is not None:
        if not begun.cancelled():
            begun.exception()  # looked at, so that nobody complains that it was not
        raise cancelled


@asynccontextmanager
async def task_group() -> AsyncGenerator[TaskGroup, None]:
    """Tasks that work on one thing and fail as one: an ArchiverError is raised as itself, not
    wrapped in a group.

    The worst is raised when several failed: one that ends the run before others, and before what
    it brought down with it. Otherwise, anything that is not an ArchiverError comes through as the
    group that it was. A cancellation by asyncio counts for more than all of them: it comes once,
    and who asked for it waits for it.
    """
    task = asyncio.current_task()
    cancellations = task.cancelling() if task is not None else 0
    try:
        async with anyio.create_task_group() as group:
            yield group
    except BaseExceptionGroup as failures:
        # A scope of anyio tells again, at the next await; it may be what cancels here.
        by_scope = anyio.current_effective_deadline() == -math.inf
        if task is not None and task.cancelling() > cancellations and not by_scope:
            raise asyncio.CancelledError from failures
        leaves = list(_leaves(failures))
        errors = [leaf for leaf in leaves if isinstance(leaf, ArchiverError)]
        fatal = any(error.ends_run for error in errors)
        if len(errors) < len(leaves) and not fatal:
            raise
        raise max(errors, key=lambda error: error.ends_run) from None


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for inner in group.exceptions:
        if isinstance(inner, BaseExceptionGroup):
            yield from _leaves(inner)
        else:
            yield inner


def on_hurry(give_up: Callable[[], object]) -> None:
    """Have a bound method called by :func:`hurry`, for as long as its object lives."""
    with _LOCK:
        _CALLS.add(weakref.WeakMethod(give_up, _CALLS.discard))


def hurry() -> None:
    """Tell all of them to give up, now and for good."""
    with _LOCK:
        calls = [call() for call in list(_CALLS)]
    for give_up in calls:
        if give_up is not None:
            give_up()
