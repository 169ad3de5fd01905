"""Task groups that raise one error, and blocking work in threads that survives cancellation.

A cancellation may come from an anyio scope or from asyncio itself (``task.cancel()``,
``asyncio.timeout()``), and more than once; anyio's shields do not stop the latter. Work that was
started is always waited for, and then the CancelledError is raised unchanged. Nothing here calls
``uncancel()``, so that the timeout or task group that cancelled recognises its own cancellation.

Blocking work that has to wait calls :func:`pause`, which returns when the work is cancelled. Work
that cleans up after a cancellation does not wait at all.

A cancellation waits for the running threads. One that waits for an unresponsive server may take
minutes: :func:`abort_pending_calls` makes such calls fail at once, as they would in the end.
"""

import asyncio
import concurrent.futures
import contextlib
import contextvars
import math
import threading
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from contextvars import ContextVar
from typing import Any, Final, ParamSpec, TypeVar

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup

from archiver.errors import ArchiverError

P = ParamSpec("P")
T = TypeVar("T")

_ABORTS: set[weakref.WeakMethod[Callable[[], object]]] = set()
_LOCK = threading.Lock()
# Set when the work in this thread was cancelled: its result is not used.
_cancelled_in_thread: ContextVar[threading.Event | None] = ContextVar("cancelled", default=None)


def pause(seconds: float) -> bool:
    """Wait in blocking work. Returns False, early, when the work is cancelled and should end."""
    cancelled = _cancelled_in_thread.get() or threading.Event()
    return not cancelled.wait(seconds)


def thread_is_cancelled() -> bool:
    """Whether the work in this thread was cancelled, or cleans up after a cancellation."""
    cancelled = _cancelled_in_thread.get()
    return cancelled is not None and cancelled.is_set()


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run ``work`` in a thread and return its result. A cancellation before it has started prevents
    that; a later one waits for its end."""
    ended: concurrent.futures.Future[None] = concurrent.futures.Future()
    cancelled = _cancelled_in_thread.get() or threading.Event()

    def run() -> T:
        _cancelled_in_thread.set(cancelled)
        if not ended.set_running_or_notify_cancel():
            raise RuntimeError("cancelled before it started; the caller has left")
        try:
            return work(*args, **kwargs)
        finally:
            ended.set_result(None)

    try:
        # anyio must not wait for the thread, or a cancelled scope would not be noticed here.
        return await to_thread.run_sync(run, abandon_on_cancel=True)
    except asyncio.CancelledError:
        if not ended.cancel():
            cancelled.set()
            await _wait_for_end(asyncio.wrap_future(ended))
        raise


async def in_thread_shielded(work: Callable[[], T]) -> T:
    """Run ``work``, which cleans up, in a thread and return its result. A cancellation neither
    prevents nor interrupts it; it is raised afterwards."""
    cancelled = _new_cancelled()
    future = _start(work, cancelled)
    await _wait_for_end(future, cancelled.set)
    return future.result()


async def interruptible(future: "asyncio.Future[T]", interrupt: Callable[[], object]) -> T:
    """The result of work in a thread. A cancellation calls ``interrupt`` and waits for its end."""
    try:
        await asyncio.wait([future])
    except asyncio.CancelledError:
        interrupt()
        try:
            await _wait_for_end(future)
        finally:
            if future.done() and not future.cancelled():
                future.exception()  # an error that the interruption caused is dropped
        raise
    return future.result()


async def in_cancellable_thread(work: Callable[[threading.Event], T]) -> T:
    """Run ``work`` in a thread and return its result. A cancellation sets its event and waits for
    its end."""
    stop = threading.Event()
    return await interruptible(_start(lambda: work(stop), stop), stop.set)


async def shielded(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work``, which cleans up, in a task of its own. A cancellation waits for its end.

    If ``work`` opens something for the caller, it must hand it over in another way than by its
    result, which a cancellation replaces.
    """
    cancelled, context = _new_cancelled(), contextvars.copy_context()
    context.run(_cancelled_in_thread.set, cancelled)
    task = asyncio.get_running_loop().create_task(work, context=context)
    await _wait_for_end(task, cancelled.set)
    return task.result()


@asynccontextmanager
async def entered(
    context: AbstractContextManager[T], interrupt: Callable[[], object] = lambda: None
) -> AsyncGenerator[T, None]:
    """Enter and leave a context manager in threads. Once entered it is left, despite any
    cancellation.

    A cancellation while it is being entered calls ``interrupt``, which may speed that up.
    """
    cancelled = threading.Event()
    entering = _start(context.__enter__, cancelled)

    def stop_entering() -> None:
        cancelled.set()
        interrupt()

    try:
        value = await interruptible(entering, stop_entering)
    except asyncio.CancelledError as error:
        if entering.exception() is None:
            await _leave(context, error)
        raise
    try:
        yield value
    except BaseException as error:
        await _leave(context, error)
        raise
    else:
        await in_thread_shielded(lambda: context.__exit__(None, None, None))


async def _leave(context: AbstractContextManager[object], error: BaseException) -> None:
    # ``error`` is raised in any case: an error on leaving must not replace it.
    with contextlib.suppress(ArchiverError):
        await in_thread_shielded(lambda: context.__exit__(type(error), error, error.__traceback__))


def _is_cancelled() -> bool:
    """Whether the running task was cancelled, by an anyio scope or by asyncio."""
    task = asyncio.current_task()
    by_asyncio = task is not None and task.cancelling() > 0
    return by_asyncio or anyio.current_effective_deadline() == -math.inf


def _new_cancelled() -> threading.Event:
    """The event for work that starts now; set if the running task was cancelled already."""
    cancelled = threading.Event()
    inherited = _cancelled_in_thread.get()
    if _is_cancelled() or (inherited is not None and inherited.is_set()):
        cancelled.set()
    return cancelled


def _start(work: Callable[[], T], cancelled: threading.Event) -> "asyncio.Future[T]":
    """Start ``work`` in a new thread, which does not depend on a pool having a free one."""
    future: concurrent.futures.Future[T] = concurrent.futures.Future()
    future.set_running_or_notify_cancel()  # from now on it cannot be cancelled

    def run() -> None:
        _cancelled_in_thread.set(cancelled)
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - raised to the waiting caller
            future.set_exception(error)
        else:
            future.set_result(result)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,))
    thread.start()
    return asyncio.wrap_future(future)


async def _wait_for_end(
    future: "asyncio.Future[T]", interrupt: Callable[[], object] = lambda: None
) -> None:
    """Wait for the end, despite cancellations; call ``interrupt`` at each, then raise the first."""
    cancelled: asyncio.CancelledError | None = None
    if not _is_cancelled():
        try:  # without a shield, which would hide the cancellation of a scope
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
            interrupt()
    with anyio.CancelScope(shield=True):
        while not future.done():
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError as error:
                cancelled = cancelled or error
                interrupt()
    if cancelled is not None:
        if not future.cancelled():
            future.exception()  # marked as retrieved, or asyncio would log it
        raise cancelled


class Turns:
    """So many have their turn at once; who had it before comes first again."""

    def __init__(self, at_once: int = 1) -> None:
        self._free = at_once
        self._waiting: Final[deque[anyio.Event]] = deque()

    async def take(self, *, again: bool = False) -> None:
        """Wait for it."""
        if self._free:
            self._free -= 1
            return
        ours = anyio.Event()
        (self._waiting.appendleft if again else self._waiting.append)(ours)
        try:
            await ours.wait()
        except BaseException:
            if ours.is_set():
                self.give()
            else:
                self._waiting.remove(ours)
            raise

    def give(self) -> None:
        """Let the next one have it."""
        if self._waiting:
            self._waiting.popleft().set()
        else:
            self._free += 1


@asynccontextmanager
async def task_group() -> AsyncGenerator[TaskGroup, None]:
    """A task group that raises one ArchiverError as itself, not wrapped in an exception group.

    If several tasks failed, the worst error is raised: one that ends the run takes precedence over
    the others, and over the failures that it caused. Otherwise a group that holds anything but
    ArchiverErrors is raised as it is. A cancellation by asyncio takes precedence over all of them:
    it comes only once, and its sender waits for it.
    """
    task = asyncio.current_task()
    cancellations = task.cancelling() if task is not None else 0
    try:
        async with anyio.create_task_group() as group:
            yield group
    except BaseExceptionGroup as failures:
        # An anyio scope, which may be what cancels here, cancels again at the next await.
        by_scope = anyio.current_effective_deadline() == -math.inf
        if task is not None and task.cancelling() > cancellations and not by_scope:
            raise asyncio.CancelledError from failures
        leaves = list(_leaves(failures))
        errors = [leaf for leaf in leaves if isinstance(leaf, ArchiverError)]
        fatal = any(error.ends_run for error in errors)
        if len(errors) < len(leaves) and not fatal:
            raise
        raise max(errors, key=lambda error: error.ends_run) from None


async def for_each(items: Iterable[T], work: Callable[[T], Awaitable[object]], most: int) -> None:
    """Do ``work`` for each of the items, ``most`` of them at once, begun in order. Raises as
    :func:`task_group` does; none is begun after an error."""
    every = list(items)
    waiting = iter(every)

    async def do() -> None:
        for item in waiting:
            await work(item)

    async with task_group() as tasks:
        for _ in every[:most]:
            tasks.start_soon(do)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for inner in group.exceptions:
        if isinstance(inner, BaseExceptionGroup):
            yield from _leaves(inner)
        else:
            yield inner


def on_abort(abort: Callable[[], object]) -> None:
    """Register a bound method for :func:`abort_pending_calls`, for as long as its object lives."""
    with _LOCK:
        _ABORTS.add(weakref.WeakMethod(abort, _ABORTS.discard))


def abort_pending_calls() -> None:
    """Call all methods registered with :func:`on_abort`: their objects make no more calls."""
    with _LOCK:
        calls = [call() for call in list(_ABORTS)]
    for abort in calls:
        if abort is not None:
            abort()
