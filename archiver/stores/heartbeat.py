"""The threads that keep alive the locks, or leases, that a process holds: one for each."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def beating(beat: Callable[[], float | None], after: float) -> Iterator[None]:
    """Have ``beat`` called after so many seconds, while in this context. It shows that a holder is
    alive, and returns the seconds from its start to that of the next beat, None if there is none.

    Leaving waits for a call that is under way; none follows. Raises RuntimeError if no thread can
    be started.
    """
    left = threading.Event()

    def run() -> None:
        began, wait = time.monotonic(), after
        while not left.wait(max(0.0, began + wait - time.monotonic())):
            began = time.monotonic()
            if (then := beat()) is None:
                return
            wait = then

    thread = threading.Thread(target=run, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join()
