"""Work in threads: waited for, whatever cancels and however often."""

import asyncio
import re
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from archiver import concurrency
from archiver.concurrency import (
    Turns,
    entered,
    for_each,
    in_cancellable_thread,
    in_thread,
    in_thread_shielded,
    shielded,
    task_group,
)
from archiver.errors import StoreError


class Gate:
    """Work that has begun, and ends when it is let."""

    def __init__(self) -> None:
        self.begun, self.let, self.ended = threading.Event(), threading.Event(), False

    def __call__(self) -> str:
        self.begun.set()
        self.let.wait(30)
        self.ended = True
        return "done"


async def turns(number: int = 5) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def has_begun(gate: Gate) -> None:
    while not gate.begun.is_set():
        await asyncio.sleep(0.001)


async def shielded_coroutine(gate: Gate) -> None:
    """Clean-up that is a coroutine."""

    async def work() -> None:
        await in_thread(gate)
        await turns()

    await shielded(work())


@pytest.mark.parametrize("wait", [in_thread, in_thread_shielded, shielded_coroutine])
@pytest.mark.parametrize("times", [1, 3])
async def test_a_cancelled_task_waits_for_the_thread(
    wait: Callable[[Gate], Awaitable[object]], times: int
) -> None:
    gate = Gate()

    async def work() -> None:
        await wait(gate)

    task = asyncio.create_task(work())
    await has_begun(gate)
    for _ in range(times):
        task.cancel()
        await turns()
    assert not task.done()
    gate.let.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gate.ended
    assert task.cancelling() == times


async def test_a_timeout_knows_its_own_cancellation() -> None:
    gate = Gate()
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_later(0.1, gate.let.set)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await in_thread(gate)
    assert gate.ended
    assert task.cancelling() == 0
    await asyncio.sleep(0)  # no cancellation is left over


async def test_a_task_group_ends_its_tasks_and_their_threads() -> None:
    gate = Gate()

    async def fail() -> None:
        await has_begun(gate)
        asyncio.get_running_loop().call_later(0.05, gate.let.set)
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            group.create_task(in_thread(gate))
    assert isinstance(caught.value.exceptions[0], ZeroDivisionError)
    assert gate.ended


async def test_what_has_not_begun_does_not_begin() -> None:
    gate = Gate()
    task = asyncio.create_task(in_thread(gate))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not gate.begun.is_set()


async def test_cleaning_up_begins_though_it_is_cancelled_before() -> None:
    gate = Gate()
    gate.let.set()

    async def clean_up() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await in_thread_shielded(gate)

    task = asyncio.create_task(clean_up())
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gate.ended


@pytest.mark.parametrize("scope", [True, False], ids=["anyio", "asyncio"])
async def test_a_cancellation_tells_the_work_and_waits_for_it(scope: bool) -> None:
    begun, ended = threading.Event(), threading.Event()

    def work(stop: threading.Event) -> None:
        begun.set()
        stop.wait(30)
        ended.set()

    if scope:
        with anyio.move_on_after(0.05) as limit:
            await in_cancellable_thread(work)
        assert limit.cancelled_caught
    else:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await in_cancellable_thread(work)
    assert ended.is_set()


async def test_results_and_errors_come_through_as_they_are() -> None:
    assert await in_cancellable_thread(lambda stop: stop.is_set()) is False

    def fail(_: threading.Event) -> None:
        raise OSError("as it is")

    with pytest.raises(OSError, match="as it is"):
        await in_cancellable_thread(fail)


async def test_what_was_entered_while_it_was_cancelled_is_left() -> None:
    gate, left, hurried = Gate(), list[type[BaseException] | None](), threading.Event()

    @contextmanager
    def context() -> Iterator[None]:
        gate()
        try:
            yield
        except BaseException as error:
            left.append(type(error))
            raise

    async def work() -> None:
        async with entered(context(), hurried.set):
            pytest.fail("it was cancelled before")

    task = asyncio.create_task(work())
    await has_begun(gate)
    task.cancel()
    await turns()
    task.cancel()
    await turns()
    assert hurried.is_set()
    gate.let.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left == [asyncio.CancelledError]


async def test_leaving_is_not_cut_short_by_a_second_cancellation() -> None:
    leaving, inside = Gate(), asyncio.Event()

    @contextmanager
    def context() -> Iterator[None]:
        try:
            yield
        finally:
            leaving()

    async def work() -> None:
        async with entered(context()):
            inside.set()
            await asyncio.sleep(30)

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    await has_begun(leaving)
    task.cancel()
    await turns()
    assert not task.done()
    leaving.let.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert leaving.ended


async def test_a_task_group_that_fails_while_it_is_cancelled_is_cancelled() -> None:
    begun = asyncio.Event()

    async def fail_when_cancelled() -> None:
        begun.set()
        try:
            await asyncio.sleep(30)
        finally:
            raise StoreError("the disk is full, too")

    async def work() -> None:
        async with task_group() as group:
            group.start_soon(fail_when_cancelled)

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_there_is_one_way_into_a_thread_and_one_shield() -> None:
    """anyio's shields do nothing against asyncio's cancellations, nor do its threads wait."""
    house = Path(concurrency.__file__).parent
    elsewhere = re.compile(r"shield=True|to_thread\.run_sync|asyncio\.shield|asyncio\.to_thread")
    found = [
        path.relative_to(house).as_posix()
        for path in house.rglob("*.py")
        if "emulator" not in path.parts and elsewhere.search(path.read_text())
    ]
    assert found == ["concurrency.py"]


async def test_who_had_a_turn_before_comes_first_again() -> None:
    turns, order = Turns(), list[str]()

    async def one(name: str) -> None:
        await turns.take()
        order.append(name)
        turns.give()

    await turns.take()
    async with anyio.create_task_group() as group:
        for name in ("first", "second", "third"):
            group.start_soon(one, name)
            await anyio.wait_all_tasks_blocked()
        turns.give()
        await turns.take(again=True)
        order.append("again")
        turns.give()
    assert order == ["first", "again", "second", "third"]


async def test_several_turns_at_once() -> None:
    turns, order = Turns(2), list[str]()

    async def one(name: str) -> None:
        await turns.take()
        order.append(name)

    async with anyio.create_task_group() as group:
        for name in ("first", "second", "third"):
            group.start_soon(one, name)
        await anyio.wait_all_tasks_blocked()
        assert order == ["first", "second"]
        turns.give()
    assert order == ["first", "second", "third"]


async def test_each_is_worked_on_and_no_more_than_so_many_at_once() -> None:
    begun, let = list[int](), anyio.Event()

    async def work(item: int) -> None:
        begun.append(item)
        await let.wait()

    async with anyio.create_task_group() as group:
        group.start_soon(for_each, range(5), work, 3)
        await anyio.wait_all_tasks_blocked()
        assert begun == [0, 1, 2]
        let.set()
    assert begun == [0, 1, 2, 3, 4]


async def test_none_is_begun_after_an_error() -> None:
    begun = list[int]()

    async def work(item: int) -> None:
        begun.append(item)
        raise StoreError("full")

    with pytest.raises(StoreError, match="full"):
        await for_each(range(3), work, 1)
    assert begun == [0]


async def test_a_turn_that_is_not_waited_for_any_more_goes_to_the_next() -> None:
    turns, order = Turns(), list[str]()

    async def one(name: str) -> None:
        await turns.take()
        order.append(name)
        turns.give()

    await turns.take()
    async with anyio.create_task_group() as group:
        with anyio.move_on_after(0.01):
            await turns.take()
        group.start_soon(one, "next")
        await anyio.wait_all_tasks_blocked()
        waiting = asyncio.ensure_future(turns.take())
        await anyio.wait_all_tasks_blocked()
        turns.give()
        await anyio.wait_all_tasks_blocked()
        assert waiting.done()
        turns.give()
    await one("after")
    assert order == ["next", "after"]
