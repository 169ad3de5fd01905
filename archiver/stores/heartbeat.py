"""The threads that keep alive all locks, or leases, that a store holds."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

# Shows that a holder is alive. Returns the seconds from its start to that of the next beat, None if
# there is none.
Beat = Callable[[], float | None]


@dataclass(eq=False, slots=True)
class _Kept:
    beat: Beat
    due: float
    is_beating: bool = False


class Heartbeat:
    """Calls each beat when it is due, in as many threads as there are beats, but in no more than
    ``at_once``."""

    def __init__(self, at_once: int = 1) -> None:
        self._at_once: Final = at_once
        self._kept: Final[set[_Kept]] = set()
        self._changed: Final = threading.Condition()
        self._threads: list[threading.Thread] = []

    @contextmanager
    def keeping(self, beat: Beat, after: float) -> Iterator[None]:
        """Have ``beat`` called after so many seconds, and then after as many as it returns, while
        in this context. Leaving waits for a call that is under way; none follows, and the threads
        end with the last of them. Raises RuntimeError if no thread can be started."""
        kept = _Kept(beat, time.monotonic() + after)
        with self._changed:
            self._start_thread()
            self._kept.add(kept)
            self._changed.notify_all()
        try:
            yield
        finally:
            ended: list[threading.Thread] = []
            with self._changed:
                self._kept.discard(kept)
                while kept.is_beating:
                    self._changed.wait()
                if not self._kept:  # the last one
                    ended, self._threads = self._threads, []
                self._changed.notify_all()
            for thread in ended:
                thread.join()

    def _start_thread(self) -> None:
        """Start one for another beat. Where there are some already, they can do without it."""
        if len(self._threads) >= min(self._at_once, len(self._kept) + 1):
            return
        thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            if not self._threads:
                raise
        else:
            self._threads.append(thread)

    def _run(self) -> None:
        while (one := self._next()) is not None:
            self._call(one)

    def _next(self) -> _Kept | None:
        """The one that is to be called next, once it is due; None when this thread is to end."""
        with self._changed:
            while threading.current_thread() in self._threads:
                waiting = [one for one in self._kept if not one.is_beating]
                first = min(waiting, key=lambda one: one.due, default=None)
                wait = None if first is None else first.due - time.monotonic()
                if first is not None and wait is not None and wait <= 0:
                    first.is_beating = True
                    return first
                self._changed.wait(wait)
            return None

    def _call(self, one: _Kept) -> None:
        began = time.monotonic()
        wait: float | None = None
        try:
            wait = one.beat()
        except Exception:  # noqa: BLE001 - a fault in one of them must not end the beats of others
            thread = threading.current_thread()
            threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), thread)))
        finally:
            with self._changed:
                one.is_beating = False
                if wait is None:
                    self._kept.discard(one)
                else:
                    one.due = began + wait
                self._changed.notify_all()
