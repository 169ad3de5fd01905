"""How far a pull is: bars on a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NoReturn, Protocol

from archiver import events
from archiver.cli.run import Told, say
from archiver.cli.words import size

if TYPE_CHECKING:
    from tqdm import tqdm

LOG_SECONDS = 30.0


class Progress(Protocol):
    """An observer with an end."""

    def __call__(self, event: events.Event) -> None: ...

    def say(self, text: str) -> Told: ...

    def close(self) -> None: ...


class _Bytes:
    """The sum over all files, which never passes what was planned."""

    def __init__(self) -> None:
        self.planned = 0
        self.files = 0
        self._done = 0
        self._active: Final[dict[tuple[str, str], int]] = {}

    @property
    def position(self) -> int:
        return self._done + sum(self._active.values())

    def observe(self, event: events.Event) -> None:
        match event:
            case events.Planned(backup):
                self.planned += backup.size
                self.files += 1
            case events.Started(backup, position) | events.Advanced(backup, position):
                self._active[backup.identity] = position
            case events.Archived(backup):
                self._active.pop(backup.identity, None)
                self._done += backup.size
            case events.Failed(_, _, backup) if backup is not None:
                # What failed is no longer to come, nor did it.
                if self._active.pop(backup.identity, None) is not None:
                    self.planned -= backup.size
                    self.files -= 1
            case _:
                pass


class LogProgress:
    """A line every LOG_SECONDS while bytes are moving."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._bytes: Final = _Bytes()
        self._clock: Final = clock
        self._began = self._told = clock()

    def __call__(self, event: events.Event) -> None:
        self._bytes.observe(event)
        now = self._clock()
        if isinstance(event, events.Advanced) and now - self._told >= LOG_SECONDS:
            self._told = now
            at, of = self._bytes.position, self._bytes.planned
            self.say(f"{size(at)} of {size(of)} ({at / max(of, 1):.0%}), {now - self._began:.0f} s")

    def say(self, text: str) -> Told:
        return say(text)

    def close(self) -> None:
        pass


class NoProgress:
    """Nothing but what is said."""

    def __call__(self, event: events.Event) -> None:
        pass

    def say(self, text: str) -> Told:
        return say(text)

    def close(self) -> None:
        pass


class BarProgress:
    """A bar for all and one for each file at work."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self._tqdm: Final = tqdm
        self._bytes: Final = _Bytes()
        self._bars: Final[dict[tuple[str, str], tqdm[NoReturn]]] = {}
        self._total = self._bar("all", 0, 0)

    def __call__(self, event: events.Event) -> None:
        self._bytes.observe(event)
        match event:
            case events.Started(backup, position):
                taken = {bar.pos for bar in self._bars.values()}
                row = next(row for row in range(1, len(taken) + 2) if -row not in taken)
                bar = self._bar(str(backup), backup.size, row)
                self._bars[backup.identity] = bar
                self._move(bar, position)
            case events.Advanced(backup, position):
                self._move(self._bars[backup.identity], position)
            case events.Archived(backup) | events.Failed(_, _, backup) if backup is not None:
                if (done := self._bars.pop(backup.identity, None)) is not None:
                    done.close()
            case _:
                pass
        self._total.total = self._bytes.planned
        self._move(self._total, self._bytes.position)

    def say(self, text: str) -> Told:
        with self._tqdm.external_write_mode(file=sys.stderr):
            return say(text)

    def close(self) -> None:
        for bar in (*self._bars.values(), self._total):
            bar.close()

    def _bar(self, name: str, total: int, row: int) -> "tqdm[NoReturn]":
        return self._tqdm(
            desc=name[-32:],
            total=total,
            position=row,
            leave=row == 0,
            unit="B",
            unit_scale=True,
            unit_divisor=1024,
            dynamic_ncols=True,
            file=sys.stderr,
        )

    @staticmethod
    def _move(bar: "tqdm[NoReturn]", position: int) -> None:
        # A part that is fetched again moves a bar back, and never past its end.
        bar.update(position - bar.n)


def choose_progress(*, quiet: bool, wanted: bool) -> Progress:
    """Bars for a terminal, lines for a log."""
    if quiet or not wanted:
        return NoProgress()
    return BarProgress() if sys.stderr.isatty() else LogProgress()
