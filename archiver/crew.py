"""Tasks that work on one thing and fail as one."""

import asyncio
import math
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup

from archiver.errors import ArchiverError


@asynccontextmanager
async def crew() -> AsyncGenerator[TaskGroup, None]:
    """A task group that raises an ArchiverError itself, not wrapped in a group.

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
