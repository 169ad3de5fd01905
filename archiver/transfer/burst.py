"""Small objects, each as a whole, one after the other in one thread.

They are asked for ahead of their turns, so that the way there and back is spent reading others;
but one after the other where their bytes come slowly: what shares a slow line only comes later.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from itertools import islice
from typing import Final

from archiver.errors import ArchiverError, SourceUnavailable
from archiver.secret import SignedUrl
from archiver.transfer.http.connection import Head, Place, Wire
from archiver.transfer.http.pool import Wires
from archiver.transfer.http.response import (
    FAULTS,
    HEADERS,
    Answer,
    address,
    naming,
    read_answer,
    unavailable,
)

# Most connections that are asked before the first of them is read.
MOST_AHEAD = 16
# Seconds that a body may take after its head for others to be asked for meanwhile.
_QUICK_SECONDS = 0.25
# Seconds from a request to the head of its answer.
_HEAD_SECONDS = 3.0
_GLANCE_SECONDS = 0.05

# Fills a block with the object, which must have that size, within so many seconds. Blocks, and
# raises as Fetcher.open does.
Read = Callable[[memoryview, float], Answer]


class Burst:
    """GETs of ``urls``, in order, over at most ``most`` connections, or one while ``is_slow``.

    None is asked for when ``seconds`` have passed, or when an answer did not come at all. All but
    ``interrupt`` is for one thread, and blocks.
    """

    def __init__(
        self,
        wires: Wires,
        urls: Sequence[SignedUrl],
        *,
        most: int = MOST_AHEAD,
        seconds: float = math.inf,
        is_slow: bool = False,
    ) -> None:
        self.is_slow = is_slow
        self._wires: Final = wires
        self._urls: Final = urls
        self._most: Final = most
        self._seconds: Final = seconds
        self._asked: Final[deque[_Asked]] = deque()
        self._reading: _Asked | None = None
        # Why no more connections to a place are tried: each of the others would wait as long.
        self._in_vain: Final[dict[Place, Exception]] = {}
        self._interrupted = False

    def reads(self) -> Generator[Read, None, None]:
        """A read for each URL that was asked for, at least one. Close the iterator, also when it
        was not taken to its end."""
        rest, until, silent = iter(self._urls), time.monotonic() + self._seconds, False
        try:
            while True:
                if self._reading is None or (time.monotonic() < until and not silent):
                    ahead = 1 if self.is_slow else self._most
                    for url in islice(rest, max(0, ahead - len(self._asked))):
                        self._ask(url)
                        if time.monotonic() >= until:
                            break  # those that were asked wait already
                if not self._asked:
                    return
                # Both for a moment, so that an interruption finds it in one of them.
                self._reading = self._asked[0]
                self._asked.popleft()
                yield self._reading.read
                self._put_back(self._reading)
                silent = silent or self._reading.was_silent
                if self._reading.body_took is not None:
                    self.is_slow = self._reading.body_took > _QUICK_SECONDS
        finally:
            while self._asked:
                self._asked.popleft().wire.close()
            if self._reading is not None and not self._reading.settled:
                self._put_back(self._reading)

    def interrupt(self) -> None:
        """Wake the thread that reads, and let it read no more; from another thread."""
        self._interrupted = True
        for asked in [*self._asked, self._reading]:
            if asked is not None:
                asked.wire.interrupt()

    def _ask(self, url: SignedUrl) -> None:
        place, target = address(url)
        kept = self._wires.idle(place)
        asked = _Asked(url, target, kept or self._wires.new(place), self._in_vain)
        # An interruption comes before this, and is seen below, or after it, and finds the wire.
        self._asked.append(asked)
        if self._interrupted:
            asked.wire.interrupt()
        try:
            asked.send()
        except (*FAULTS, ArchiverError) as error:
            asked.failure = error

    def _put_back(self, asked: "_Asked") -> None:
        if asked.reusable and asked.wire.connected:
            self._wires.keep(asked.wire)
        else:
            asked.wire.close()
        asked.settled = True


class _Asked:
    """A request that was sent; ``reusable`` once its answer was read."""

    def __init__(
        self, url: SignedUrl, target: str, wire: Wire, in_vain: dict[Place, Exception]
    ) -> None:
        self.wire: Final = wire
        self.failure: Exception | None = None
        self.reusable = False
        self.settled = False
        self.was_silent = False
        self.body_took: float | None = None  # seconds after the head
        self._sent_at = 0.0
        self._url: Final = url
        self._target: Final = target
        self._was_kept: Final = wire.connected
        self._in_vain: Final = in_vain

    def send(self) -> None:
        if not self.wire.connected:
            self._connect()
        self.wire.send(self._target, HEADERS)
        self._sent_at = time.monotonic()

    def _connect(self) -> None:
        if self.wire.place in self._in_vain:
            raise self._in_vain[self.wire.place]
        try:
            self.wire.connect()
        except (*FAULTS, ArchiverError) as error:
            self._in_vain[self.wire.place] = error
            raise

    def read(self, data: memoryview, seconds: float) -> Answer:
        until = time.monotonic() + seconds
        asked = naming(self._url, self.wire)
        try:
            head = self._head(until)
            began = time.monotonic()
            if head.status != 200:
                raise SourceUnavailable(f"{asked}: {head.status}")
            answer = read_answer(asked, head.status, head.fields, 0, len(data))
            if answer.pin.total != len(data):
                raise SourceUnavailable(f"{asked}: an answer of another length")
            _fill(self.wire, data, until)
            self.body_took = time.monotonic() - began
        except FAULTS as error:
            unavailable(asked, error)
        self.reusable = head.keeps_alive
        return answer

    def _head(self, until: float) -> Head:
        """The answer's head. A server may close a connection that was kept at any time: then the
        request is sent anew, once."""
        try:
            if self.failure is not None:
                raise self.failure
            return self._answered(until)
        except FAULTS:
            if not self._was_kept or self.was_silent:
                raise
        self.wire.close()
        self.send()
        return self._answered(until)

    def _answered(self, until: float) -> Head:
        # Others were read meanwhile: what is there already is looked at, however late it is.
        patience = max(self._sent_at + _HEAD_SECONDS, time.monotonic() + _GLANCE_SECONDS)
        try:
            return self.wire.head(min(until, patience))
        except TimeoutError:
            self.was_silent = True
            raise


def _fill(wire: Wire, data: memoryview, until: float) -> None:
    filled = 0
    while filled < len(data):
        filled += wire.read(data[filled:], len(data) - filled, until)
