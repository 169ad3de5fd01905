"""One thread that keeps alive all locks, or leases, that a store holds."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

# Shows that a holder is alive. Returns the seconds until the next beat, None if there is none.
Beat = Callable[[], float | None]


@dataclass(eq=False, slots=True)
class _Kept:
    beat: Beat
    due: float
    is_called: bool = False  # it is, or soon will be
    is_beating: bool = False


class Heartbeat:
    """Calls each beat when it is due; up to ``at_once`` of those that are due, at the same time."""

    def __init__(self, at_once: int = 1) -> None:
        self._at_once: Final = at_once
        self._kept: Final[set[_Kept]] = set()
        self._changed: Final = threading.Condition()
        self._thread: threading.Thread | None = None

    @contextmanager
    def keeping(self, beat: Beat, after: float) -> Iterator[None]:
        """Have ``beat`` called after so many seconds, and then after as many as it returns, while
        in this context. Leaving waits for a call that is under way; none follows, and the thread
        ends with the last of them."""
        kept = _Kept(beat, time.monotonic() + after)
        with self._changed:
            self._kept.add(kept)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        try:
            yield
        finally:
            ended = None
            with self._changed:
                self._kept.discard(kept)
                while kept.is_beating:
                    self._changed.wait()
                if not self._kept:  # the last one
                    ended, self._thread = self._thread, None
                self._changed.notify_all()
            if ended is not None:
                ended.join()

    def _run(self) -> None:
        if self._at_once == 1:
            while (one := self._next()) is not None:
                self._call(one)
            return
        with ThreadPoolExecutor(self._at_once, "heartbeat") as threads:
            while (one := self._next()) is not None:
                threads.submit(self._call, one)

    def _next(self) -> _Kept | None:
        """The one that is to be called next, once it is due; None when this thread is to end."""
        with self._changed:
            while self._thread is threading.current_thread():
                waiting = [one for one in self._kept if not one.is_called]
                first = min(waiting, key=lambda one: one.due, default=None)
                wait = None if first is None else first.due - time.monotonic()
                if first is not None and wait is not None and wait <= 0:
                    first.is_called = True
                    return first
                self._changed.wait(wait)
            return None

    def _call(self, one: _Kept) -> None:
        with self._changed:
            if one not in self._kept:
                return
            one.is_beating = True
        wait: float | None = None
        try:
            wait = one.beat()
        except Exception:  # noqa: BLE001 - a fault in one of them must not end the beats of others
            threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), self._thread)))
        finally:
            with self._changed:
                one.is_called = one.is_beating = False
                if wait is None:
                    self._kept.discard(one)
                else:
                    one.due = time.monotonic() + wait
                self._changed.notify_all()
