"""Locks that are lent: workers in other processes write under a lock that their coordinator holds.

A worker asks its coordinator again and again. The answer says for how many seconds from the
question on the lock is certainly held, and the worker writes nothing after that. Both count by
their own clocks, and the question comes before the answer, so no clocks are compared and a slow
message only shortens the time.

A coordinator that dies leaves workers that may write for so many seconds more. So its lock says
that it is lent, and whoever takes it next waits as long before, even where it is known at once that
the holder is dead. A request that was sent in time may still arrive later. It does no harm: the
worker writes verified bytes under the key that they would have anyway, and the object before its
record.
"""

import math
import threading
import time
from typing import Final, NamedTuple

from archiver.concurrency import pause
from archiver.errors import ArchiverError, LockLost

# For how many seconds a lock is lent at a time.
LOAN_SECONDS: Final = 5.0
# For how long the next holder waits for the workers of a dead one.
AFTER_DEATH_SECONDS: Final = 1.5 * LOAN_SECONDS
# For how long a worker waits for an answer before it gives up what it does.
PATIENCE_SECONDS: Final = 3 * LOAN_SECONDS
_LOOK_SECONDS: Final = 0.1


def boot_clock() -> float:
    """A clock in seconds that also counts while this machine sleeps."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


class Loan(NamedTuple):
    """What a holder says of its lock: the ``name`` that it wrote into it, and for how many more
    ``seconds`` nobody else can take it."""

    name: str
    seconds: float


class LoanLapsed(LockLost):
    """The coordinator does not answer any more: it may be dead, and another may hold the lock."""


class Borrowed:
    """Implements Lock in a worker. ``is_certain``: the kernel tells which process of this machine
    has a file open."""

    was_left = True
    is_certain = False

    def __init__(self) -> None:
        self._until = -math.inf
        self._heard_at = time.monotonic()
        self._lost: ArchiverError | None = None
        self._guard: Final = threading.Lock()

    def extend(self, until: float) -> None:
        """The coordinator has answered: the lock is held until then, by :func:`boot_clock`."""
        with self._guard:
            self._until = max(self._until, until)
            self._heard_at = time.monotonic()

    def lose(self, error: ArchiverError) -> None:
        """The lock is not held any more."""
        self._lost = error

    @property
    def is_valid(self) -> bool:
        return boot_clock() < self._until

    def check(self) -> None:
        """Return while the lock is certainly held; wait for an answer that says so, as long as
        there are answers. Raises LoanLapsed, and what the holder met."""
        while self._lost is not None or not self.is_valid:
            if self._lost is not None:
                raise self._lost
            silent = time.monotonic() - self._heard_at
            if silent > PATIENCE_SECONDS or not pause(_LOOK_SECONDS):
                raise LoanLapsed("the coordinator of this worker does not answer any more")
