"""A bound on the memory of a server: the file may be larger than the machine."""

import signal
import threading

from archiver.commands.drill.procfs import Pid, available_memory

_EVERY = 0.05  # seconds between looks
_SHARE = 0.8  # of the available memory, when no limit is given


class MemoryGuard:
    """Kills a process that takes more memory than it may.

    A thread, so that it looks even while the event loop is busy. Not RLIMIT_AS: that counts
    addresses, of which an allocator reserves many more than it uses. Without a limit, and where the
    available memory cannot be read, it does not look.
    """

    def __init__(self, pid: Pid, limit: int | None) -> None:
        self.limit = limit or 0
        self.tripped: int | None = None  # bytes in use when it was killed
        self._pid = pid
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory guard", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        if not self.limit:
            available = available_memory()
            if available is None:
                return
            self.limit = int(available * _SHARE)
        while not self._stopped.wait(_EVERY):
            used = self._pid.memory()
            if used > self.limit:
                self.tripped = used
                self._pid.signal(signal.SIGKILL)
                return
