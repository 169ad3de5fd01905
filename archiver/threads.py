"""Blocking work in worker threads, never left half done by a cancellation."""

import contextlib
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from typing import ParamSpec, TypeVar

import anyio
import anyio.lowlevel
from anyio import to_thread

from archiver.errors import ArchiverError

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What ``work`` returns. A cancellation waits for its end."""
    return await to_thread.run_sync(lambda: work(*args, **kwargs))


async def until_cancelled(work: Callable[[threading.Event], T]) -> T:
    """What ``work`` returns, in a thread. A cancellation sets its event and waits for its end."""
    stop = threading.Event()
    results: list[T] = []
    errors: list[Exception] = []

    async def watch() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            stop.set()

    def attempt() -> None:
        try:
            results.append(work(stop))
        except Exception as error:  # noqa: BLE001 - raised below, as it is and in no group
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        await to_thread.run_sync(attempt)
        tasks.cancel_scope.cancel()
    await anyio.lowlevel.checkpoint_if_cancelled()  # what was told to stop has found nothing
    for error in errors:
        raise error
    return results[0]


@asynccontextmanager
async def entered(context: AbstractContextManager[T]) -> AsyncGenerator[T, None]:
    """A context whose entering and leaving block."""
    value = await in_thread(context.__enter__)
    try:
        yield value
    except BaseException as error:
        with anyio.CancelScope(shield=True), contextlib.suppress(ArchiverError):
            # What the leaving says is of no account now, least of all in a cancellation's place.
            await in_thread(context.__exit__, type(error), error, error.__traceback__)
        raise
    else:
        with anyio.CancelScope(shield=True):
            await in_thread(context.__exit__, None, None, None)
