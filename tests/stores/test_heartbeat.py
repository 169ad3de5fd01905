"""The threads that beat."""

import threading
from collections.abc import Callable
from contextlib import ExitStack
from types import SimpleNamespace

import pytest

from archiver.stores import heartbeat
from archiver.stores.heartbeat import beating

SOON = 0.001


def beats(enough: int) -> tuple[Callable[[], float], threading.Event]:
    """A beat, and what is set after so many."""
    count, reached = [0], threading.Event()

    def beat() -> float:
        count[0] += 1
        if count[0] == enough:
            reached.set()
        return SOON

    return beat, reached


def threads() -> int:
    return [one.name for one in threading.enumerate()].count("heartbeat")


def test_one_that_is_over_is_not_called_again() -> None:
    calls, (other, later) = list[int](), beats(20)
    with beating(lambda: calls.append(1), SOON), beating(other, SOON):
        assert later.wait(10)
    assert calls == [1]
    assert threads() == 0


def test_leaving_waits_for_the_beat_that_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it writes comes before the lock is given back."""
    begun, go_on, order = threading.Event(), threading.Event(), list[str]()

    def beat() -> None:
        begun.set()
        go_on.wait(10)
        order.append("beat")

    join = threading.Thread.join

    def joins(thread: threading.Thread, timeout: float | None = None) -> None:
        go_on.set()
        join(thread, timeout)

    monkeypatch.setattr(threading.Thread, "join", joins)
    with beating(beat, 0.0):
        assert begun.wait(10)
    order.append("left")
    go_on.set()
    assert order == ["beat", "left"]


def test_slow_beats_do_not_wait_for_each_other() -> None:
    """Or 64 leases behind a slow network would not be renewed in time."""
    all_of_them, reached = threading.Barrier(64), threading.Event()

    def beat() -> None:
        all_of_them.wait(30)
        reached.set()

    with ExitStack() as kept:
        for _ in range(64):
            kept.enter_context(beating(beat, 0.0))
        assert reached.wait(30)


def test_the_next_beat_is_due_from_the_begin_of_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a beat takes is not added to its interval."""
    now, waits, over = [100.0], list[float](), threading.Event()

    class Left(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout or 0.0)
            return False

    def beat() -> float | None:
        now[0] += 3.0
        if len(waits) < 3:
            return 10.0
        over.set()
        return None

    fakes = SimpleNamespace(Event=Left, Thread=threading.Thread)
    monkeypatch.setattr(heartbeat, "threading", fakes)
    monkeypatch.setattr(heartbeat, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with beating(beat, 5.0):
        assert over.wait(10)
    assert waits == [5.0, 7.0, 7.0]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_fault_in_one_does_not_end_the_others() -> None:
    told, (other, later) = list[BaseException | None](), beats(20)

    def faulty() -> float:
        raise ZeroDivisionError

    before, threading.excepthook = threading.excepthook, lambda one: told.append(one.exc_value)
    try:
        with beating(faulty, SOON), beating(other, SOON):
            assert later.wait(10)
    finally:
        threading.excepthook = before
    assert [type(one) for one in told] == [ZeroDivisionError]
