"""Cancelled by asyncio itself, with ``task.cancel()`` and ``asyncio.timeout()``, at every turn of
the event loop: no thread is at work any more when the coroutine has ended, the lock is free, and
the cancellation comes out."""

import asyncio
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from anyio import to_thread

from archiver import (
    Archive,
    LocalStore,
    PullOptions,
    TransferOptions,
    VerifyOptions,
    concurrency,
    pull,
    verify,
)
from archiver.commands.copy.run import copy
from archiver.commands.copy.selection import CopyOptions
from archiver.emulator import Emulator
from archiver.stores.local.lock import hold
from examples.sample_rdb import write_rdb
from tests.conftest import INSTANCE, QUICK, everything, source_of
from tests.sweeps import BUDGET, extent, pairs, strides, within_share

STAMP = "20261124021500"
TRANSFER = TransferOptions(part_size=64 * 1024, connections=2, retry=QUICK)
CODE = str(Path(__file__).parents[2] / "archiver")
# Waiting for what it is to do is no work: these look at nothing and write nothing.
_IDLE = (f"{CODE}/emulator/", concurrency.__file__)

Work = Callable[[Path], Awaitable[object]]
Cancelling = Callable[[Callable[[], Awaitable[object]], int], Awaitable[bool]]


def threads_at_work() -> list[str]:
    """Where other threads are in our code."""
    found = []
    for ident, frame in sys._current_frames().items():
        at = frame if ident != threading.get_ident() else None
        while at is not None:
            name = at.f_code.co_filename
            if name.startswith(CODE) and not name.startswith(_IDLE):
                found.append(f"{name}:{at.f_lineno}")
            at = at.f_back
    return found


def after_turns(turns: int, call: Callable[[], object]) -> None:
    """Call when the loop has gone round so often."""
    loop = asyncio.get_running_loop()
    if turns <= 0:
        call()
    else:
        loop.call_soon(after_turns, turns - 1, call)


def is_free(path: Path) -> None:
    with hold(path):
        pass


async def by_cancel(work: Callable[[], Awaitable[object]], turns: int) -> bool:
    """``task.cancel()``; whether it was still at work."""
    return await _cancelled(work, [turns])


async def by_two_cancels(work: Callable[[], Awaitable[object]], turns: int) -> bool:
    """The same, and again while that is answered."""
    return await _cancelled(work, [turns, turns + 1 + turns % 5])


async def _cancelled(work: Callable[[], Awaitable[object]], moments: list[int]) -> bool:
    late: list[str] = []

    async def watched() -> None:
        try:
            await work()
        finally:
            late.extend(threads_at_work())

    task = asyncio.create_task(watched())
    for turns in moments:
        after_turns(turns, task.cancel)
    try:
        await task
        interrupted = False
    except asyncio.CancelledError:
        interrupted = True
        assert task.cancelled()
    assert late == []
    return interrupted


async def by_timeout(work: Callable[[], Awaitable[object]], turns: int) -> bool:
    """``asyncio.timeout()``, which is to become a TimeoutError here, and nothing else."""
    task = asyncio.current_task()
    assert task is not None
    interrupted, late = False, list[str]()
    try:
        async with asyncio.timeout(None) as limit:
            after_turns(turns, lambda: None if interrupted else limit.reschedule(0))
            try:
                await work()
            finally:
                late = threads_at_work()
            interrupted = True  # it came to its end: no timeout from here on
            limit.reschedule(None)
    except TimeoutError:
        assert task.cancelling() == 0
        assert late == []
        return True
    assert late == []
    return False


@pytest.fixture
def place() -> Iterator[Path]:
    """In memory where there is such a place: the turns of a slow disk's loop are all alike."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


@pytest.fixture
async def works(files: Path, emulator: Emulator, place: Path) -> AsyncIterator[dict[str, Work]]:
    """What writes or reads an archive at the given place."""
    for n, size in enumerate((200_000, 20_000, 70_000)):
        write_rdb(files / INSTANCE / f"{n}_{STAMP}.rdb", size, n)
    async with AsyncExitStack() as stack:
        source = await stack.enter_async_context(source_of(emulator))
        options = PullOptions(workers=2, transfer=TRANSFER)
        whole = Archive(LocalStore(place / "whole"))
        await pull(source, whole, [everything()], options)

        async def pulls(root: Path) -> None:
            async with source_of(emulator) as asked:
                summary = await pull(asked, Archive(LocalStore(root)), [everything()], options)
            assert summary.failures == []

        async def copies(root: Path) -> None:
            target = Archive(LocalStore(root))
            summary = await copy(whole, target, CopyOptions(workers=2, transfer=TRANSFER))
            assert summary.failures == []

        async def verifies(_: Path) -> None:
            summary = await verify(whole, VerifyOptions(workers=2, keep_every=0))
            assert summary.findings == []

        yield {"pull": pulls, "copy": copies, "verify": verifies}


WAYS = (by_cancel, by_timeout, by_two_cancels)
CANCELLED = [
    *(("pull", way) for way in WAYS),
    *pairs(("copy", "verify"), WAYS[::-1]),
]


@pytest.mark.timeout(570)
@pytest.mark.parametrize(("name", "cancelling"), CANCELLED)
async def test_cancelled_at_every_turn(
    works: dict[str, Work], place: Path, name: str, cancelling: Cancelling
) -> None:
    work = works[name]
    tried = 0
    # While a thread is at work the loop goes round many times: the later, the longer strides.
    for turns in within_share(strides(extent(3, 200, on_budget=12))):
        root = place / f"{name}-{turns}"
        at_work = await cancelling(lambda root=root: work(root), turns)  # type: ignore[misc]
        tried += at_work
        for lock in (root / ".lock", root / ".locks" / INSTANCE):
            if lock.exists():
                assert lock.read_bytes() == b"", turns
                await to_thread.run_sync(is_free, lock)
        await work(root)
        if name != "verify":
            assert len(list((root / INSTANCE).rglob("*.rdb"))) == 3, turns
            assert list((root / ".staging").iterdir()) == [], turns
        if not at_work:
            break
    print(f"cancelled at {tried} turns of the loop")
    assert tried > (0 if BUDGET else 5)
