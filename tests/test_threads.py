"""Work in threads that a cancellation ends."""

import threading

import anyio
import pytest

from archiver.threads import until_cancelled


async def test_a_cancellation_tells_the_work_and_waits_for_it() -> None:
    ended = threading.Event()

    def work(stop: threading.Event) -> None:
        stop.wait(30)
        ended.set()

    with anyio.move_on_after(0.05) as scope:
        await until_cancelled(work)
    assert scope.cancelled_caught
    assert ended.is_set()


async def test_results_and_errors_come_through_as_they_are() -> None:
    assert await until_cancelled(lambda stop: stop.is_set()) is False

    def fail(_: threading.Event) -> None:
        raise OSError("as it is")

    with pytest.raises(OSError, match="as it is"):
        await until_cancelled(fail)
