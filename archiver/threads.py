"""Blocking work in worker threads, never left half done by a cancellation."""

import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from typing import ParamSpec, TypeVar

import anyio
from anyio import to_thread

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What ``work`` returns. A cancellation waits for its end."""
    return await to_thread.run_sync(lambda: work(*args, **kwargs))


async def until_cancelled(work: Callable[[threading.Event], T]) -> T:
    """What ``work`` returns, in a thread. A cancellation sets its event and waits for its end."""
    stop = threading.Event()

    async def watch() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            stop.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        result = await to_thread.run_sync(work, stop)
        tasks.cancel_scope.cancel()
    return result


@asynccontextmanager
async def entered(context: AbstractContextManager[T]) -> AsyncGenerator[T, None]:
    """A context whose entering and leaving block."""
    value = await in_thread(context.__enter__)
    try:
        yield value
    except BaseException as error:
        with anyio.CancelScope(shield=True):
            suppressed = await in_thread(context.__exit__, type(error), error, error.__traceback__)
        if not suppressed:
            raise
    else:
        with anyio.CancelScope(shield=True):
            await in_thread(context.__exit__, None, None, None)
