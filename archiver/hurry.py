"""What is given up when somebody wants the process to end: answers that do not come.

A cancellation waits for the threads at work. One that waits for a server which does not answer may
do so for minutes; whoever cancelled may not want to. What waits so is told to give up: it then
fails, as it would in the end.
"""

import threading
import weakref
from collections.abc import Callable

_CALLS: set[weakref.WeakMethod[Callable[[], object]]] = set()
_LOCK = threading.Lock()


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
