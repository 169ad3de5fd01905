"""The threads that beat for all."""

import threading
from collections.abc import Callable
from contextlib import ExitStack
from types import SimpleNamespace

import pytest

from archiver.stores import heartbeat
from archiver.stores.heartbeat import Heartbeat

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


@pytest.mark.parametrize("at_once", [1, 4])
def test_all_of_them_beat(at_once: int) -> None:
    heart = Heartbeat(at_once)
    (one, first), (other, second) = beats(20), beats(20)
    with heart.keeping(one, SOON), heart.keeping(other, SOON):
        assert first.wait(10)
        assert second.wait(10)
    assert heart._kept == set()


@pytest.mark.parametrize("at_once", [1, 4])
def test_one_that_is_over_is_not_called_again(at_once: int) -> None:
    heart, calls = Heartbeat(at_once), list[int]()
    other, later = beats(20)
    with heart.keeping(lambda: calls.append(1), SOON), heart.keeping(other, SOON):
        assert later.wait(10)
    assert calls == [1]


def test_leaving_waits_for_the_beat_that_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it writes comes before the lock is given back. The thread goes on for another lock, so
    that its end is not what is waited for."""
    heart, begun, go_on = Heartbeat(), threading.Event(), threading.Event()
    order = list[str]()

    class Changed(threading.Condition):
        def wait(self, timeout: float | None = None) -> bool:
            if threading.current_thread() is leaving:
                go_on.set()
            return super().wait(timeout)

    def beat() -> None:
        begun.set()
        go_on.wait(10)
        order.append("beat")

    def leave() -> None:
        with heart.keeping(beat, 0.0):
            begun.wait(10)
        order.append("left")
        go_on.set()

    monkeypatch.setattr(heart, "_changed", Changed())
    leaving = threading.Thread(target=leave)
    with heart.keeping(lambda: None, 600):
        leaving.start()
        leaving.join(10)
    assert order == ["beat", "left"]


def test_as_many_slow_beats_at_once_as_there_are_locks() -> None:
    """With fewer threads, 64 leases behind a slow network would not be renewed in time."""
    heart, all_of_them = Heartbeat(at_once=64), threading.Barrier(64)
    reached = threading.Event()

    def beat() -> None:
        all_of_them.wait(30)
        reached.set()

    with ExitStack() as kept:
        for _ in range(64):
            kept.enter_context(heart.keeping(beat, 0.0))
        assert reached.wait(30)
    assert heart._threads == []


def test_a_thread_for_each_lock_and_no_more() -> None:
    heart = Heartbeat(at_once=3)
    with ExitStack() as kept:
        for most in (1, 2, 3, 3):
            kept.enter_context(heart.keeping(lambda: None, 600))
            assert len(heart._threads) == most


def test_the_next_beat_is_due_from_the_begin_of_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a beat takes is not added to its interval."""
    now = [100.0]

    def beat() -> float:
        now[0] += 3.0
        return 10.0

    monkeypatch.setattr(heartbeat, "time", SimpleNamespace(monotonic=lambda: now[0]))
    kept = heartbeat._Kept(beat, 100.0)
    Heartbeat()._call(kept)
    assert kept.due == 110.0


def test_without_another_thread_those_that_are_there_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    heart = Heartbeat(at_once=2)
    (one, first), (other, second) = beats(20), beats(20)
    with heart.keeping(one, SOON):
        monkeypatch.setattr(threading.Thread, "start", fails)
        with heart.keeping(other, SOON):
            assert first.wait(10)
            assert second.wait(10)


def test_slow_beats_do_not_wait_for_each_other() -> None:
    heart, both = Heartbeat(at_once=2), threading.Barrier(2)

    def beat() -> None:
        both.wait(10)

    with heart.keeping(beat, 0.05), heart.keeping(beat, 0.05):
        while heart._kept:
            threading.Event().wait(SOON)
    assert not both.broken


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_fault_in_one_does_not_end_the_others() -> None:
    heart, told = Heartbeat(), list[BaseException | None]()
    other, later = beats(20)

    def faulty() -> float:
        raise ZeroDivisionError

    before, threading.excepthook = threading.excepthook, lambda one: told.append(one.exc_value)
    try:
        with heart.keeping(faulty, SOON), heart.keeping(other, SOON):
            assert later.wait(10)
    finally:
        threading.excepthook = before
    assert [type(one) for one in told] == [ZeroDivisionError]
