"""Progress of reading files: one bar on a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Callable
from typing import Final

from archiver.cli.progress import LOG_SECONDS
from archiver.cli.run import Printed, say
from archiver.cli.words import size


class ByteLog:
    """A line every LOG_SECONDS; if ``quiet``, only the lines passed to ``say``."""

    def __init__(self, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._quiet: Final = quiet
        self._clock: Final = clock
        self._began = self._printed_at = clock()
        self._total = self._done = 0

    def add(self, count: int) -> None:
        """Add ``count`` bytes to read."""
        self._total += count

    def advance(self, count: int) -> None:
        """Add ``count`` bytes read."""
        self._done += count
        now = self._clock()
        if not self._quiet and now - self._printed_at >= LOG_SECONDS:
            self._printed_at = now
            self.say(f"read {size(self._done)} in {now - self._began:.0f} s")

    def say(self, text: str) -> Printed:
        return say(text)

    def close(self) -> None:
        pass


class ByteBar:
    """A bar whose total grows as files are found."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self._tqdm: Final = tqdm
        self._total = self._done = 0
        self._bar: Final = tqdm(
            desc="read", total=0, unit="B", unit_scale=True, unit_divisor=1024,
            dynamic_ncols=True, file=sys.stderr,
        )  # fmt: skip

    def add(self, count: int) -> None:
        self._total += count
        self._bar.total = self._total
        self._bar.refresh()

    def advance(self, count: int) -> None:
        # An object may be longer than its listing said.
        self._done += count
        self._total = max(self._total, self._done)
        self._bar.total = self._total
        self._bar.update(count)

    def say(self, text: str) -> Printed:
        with self._tqdm.external_write_mode(file=sys.stderr):
            return say(text)

    def close(self) -> None:
        self._bar.close()


def choose_bar(*, quiet: bool, wanted: bool) -> ByteBar | ByteLog:
    """A bar for a terminal, lines for a log."""
    if quiet or not wanted:
        return ByteLog(quiet=True)
    return ByteBar() if sys.stderr.isatty() else ByteLog()
