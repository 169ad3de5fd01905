"""Progress of a command: bars on a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NoReturn, Protocol

from archiver import events
from archiver.cli.run import Printed, say
from archiver.cli.streams import plain
from archiver.cli.words import size
from archiver.model import Backup

if TYPE_CHECKING:
    from tqdm import tqdm

LOG_SECONDS = 30.0
_NAME_SIZE = 32  # characters before a bar


def _bar(name: str, total: int, row: int, unit: str = "B") -> "tqdm[NoReturn]":
    from tqdm import tqdm

    return tqdm(
        desc=plain(name)[-_NAME_SIZE:],
        total=total,
        position=row,
        leave=row == 0,
        unit=unit,
        unit_scale=True,
        unit_divisor=1024 if unit == "B" else 1000,
        dynamic_ncols=True,
        file=sys.stderr,
    )


def _close(bars: "Iterable[tqdm[NoReturn]]") -> None:
    """Close bars, the lowest first. What is written to stdout next begins a line of its own."""
    for bar in bars:
        bar.close()
    with suppress(OSError):  # a terminal that is gone
        sys.stderr.flush()


def _move(bar: "tqdm[NoReturn]", position: int) -> None:
    # A part that is downloaded again moves a bar back, never past its end.
    bar.update(position - bar.n)


class Progress(Protocol):
    """An observer of a transfer's events that shows progress until it is closed."""

    def __call__(self, event: events.Event) -> None: ...

    def say(self, text: str) -> Printed: ...

    def close(self) -> None: ...


class _Bytes:
    """Bytes done and planned over all files; the former never exceeds the latter."""

    def __init__(self) -> None:
        self.planned = 0
        self.files = 0
        self._done = 0
        self._active: Final[dict[tuple[str, str], int]] = {}
        # Of files whose source listed no size, once it is known.
        self._sizes: Final[dict[tuple[str, str], int]] = {}

    def _found(self, backup: Backup, whole: int) -> None:
        """The size of a file whose source listed none."""
        if backup.size is None and backup.identity not in self._sizes:
            self._sizes[backup.identity] = whole
            self.planned += whole

    @property
    def position(self) -> int:
        return self._done + sum(self._active.values())

    def observe(self, event: events.Event) -> None:
        match event:
            case events.Planned(backup):
                self.planned += backup.size or 0
                self.files += 1
            case events.Started(backup, position, whole):
                self._active[backup.identity] = position
                self._found(backup, whole)
            case events.Advanced(backup, position):
                self._active[backup.identity] = position
            case events.Archived(backup, size=whole):
                self._active.pop(backup.identity, None)
                self._found(backup, whole)
                self._sizes.pop(backup.identity, None)
                self._done += whole
            case events.Failed(_, _, backup) if backup is not None:
                # A failed file counts neither as planned nor as done.
                if self._active.pop(backup.identity, None) is not None:
                    self.planned -= self._sizes.pop(backup.identity, backup.size or 0)
                    self.files -= 1
            case _:
                pass


class LogProgress:
    """A line every LOG_SECONDS while bytes are moving."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._bytes: Final = _Bytes()
        self._clock: Final = clock
        self._began = self._printed_at = clock()

    def __call__(self, event: events.Event) -> None:
        self._bytes.observe(event)
        now = self._clock()
        if isinstance(event, events.Advanced) and now - self._printed_at >= LOG_SECONDS:
            self._printed_at = now
            at, of = self._bytes.position, self._bytes.planned
            self.say(f"{size(at)} of {size(of)} ({at / max(of, 1):.0%}), {now - self._began:.0f} s")

    def say(self, text: str) -> Printed:
        return say(text)

    def close(self) -> None:
        pass


class NoProgress:
    """Only the lines passed to ``say``."""

    def __call__(self, event: events.Event) -> None:
        pass

    def say(self, text: str) -> Printed:
        return say(text)

    def close(self) -> None:
        pass


class BarProgress:
    """A bar for the total and one for each active file."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self._tqdm: Final = tqdm
        self._bytes: Final = _Bytes()
        self._bars: Final[dict[tuple[str, str], tqdm[NoReturn]]] = {}
        self._total = _bar("all", 0, 0)

    def __call__(self, event: events.Event) -> None:
        self._bytes.observe(event)
        match event:
            case events.Started(backup, position, whole):
                taken = {bar.pos for bar in self._bars.values()}
                row = next(row for row in range(1, len(taken) + 2) if -row not in taken)
                bar = _bar(str(backup), whole, row)
                self._bars[backup.identity] = bar
                _move(bar, position)
            case events.Advanced(backup, position):
                _move(self._bars[backup.identity], position)
            case events.Archived(backup) | events.Failed(_, _, backup) if backup is not None:
                if (done := self._bars.pop(backup.identity, None)) is not None:
                    done.close()
            case _:
                pass
        self._total.total = self._bytes.planned
        _move(self._total, self._bytes.position)

    def say(self, text: str) -> Printed:
        with self._tqdm.external_write_mode(file=sys.stderr):
            return say(text)

    def close(self) -> None:
        _close((*self._bars.values(), self._total))


class WorkProgress(Protocol):
    """An observer of work on an archive's files that shows progress until it is closed."""

    def __call__(self, event: events.Work) -> None: ...

    def say(self, text: str) -> None: ...

    def close(self) -> None:
        """Remove everything from the screen; further events show it again."""
        ...


class _Set:
    """Progress within the current set, in bytes: each step of a file counts for its share."""

    def __init__(self) -> None:
        self.name = ""
        self.size = 0
        self.doing = ""
        self._left = 0
        self._share = 0.0

    @property
    def position(self) -> int:
        return min(self.size, self._left + int(self._share))

    def observe(self, event: events.Work) -> None:
        match event:
            case events.SetBegun(_, number, of, _, size):
                self.name = f"set {number} of {of}" if of > 1 else "all"
                self.size, self._left, self._share, self.doing = size, 0, 0.0, ""
            case events.FileWorkedOn(key, size, step, number, of, position, total):
                self.doing = f"{step} {key}"
                self._share = size * (number - 1 + position / max(total, 1)) / of
            case events.FileLeft(_, size):
                self._left += size
                self._share, self.doing = 0.0, ""


class WorkLog:
    """A line every LOG_SECONDS during work; if ``quiet``, only the lines passed to ``say``."""

    def __init__(self, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._quiet: Final = quiet
        self._set: Final = _Set()
        self._clock: Final = clock
        self._began = self._printed_at = clock()

    def __call__(self, event: events.Work) -> None:
        self._set.observe(event)
        now = self._clock()
        if not self._quiet and self._set.doing and now - self._printed_at >= LOG_SECONDS:
            self._printed_at = now
            at, of = self._set.position, self._set.size
            far = f"{size(at)} of {size(of)} ({at / max(of, 1):.0%})"
            self.say(f"{self._set.name}: {far}, {now - self._began:.0f} s; {self._set.doing}")

    def say(self, text: str) -> None:
        say(text)

    def close(self) -> None:
        pass


class WorkBars:
    """A bar for the set and one for the current step of a file."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self._tqdm: Final = tqdm
        self._set: Final = _Set()
        self._bars: Final[list[tqdm[NoReturn]]] = []
        self._step: tuple[str, str] | None = None

    def __call__(self, event: events.Work) -> None:
        self._set.observe(event)
        if isinstance(event, events.SetBegun):
            self.close()
        if not self._bars:
            self._bars.append(_bar(self._set.name, self._set.size, 0))
        if isinstance(event, events.FileWorkedOn):
            self._show(event)
        elif len(self._bars) > 1:
            self._bars.pop().close()
            self._step = None
        _move(self._bars[0], self._set.position)

    def _show(self, event: events.FileWorkedOn) -> None:
        if self._step != (event.key, event.step):
            if len(self._bars) > 1:
                self._bars.pop().close()
            self._step = event.key, event.step
            end = event.key.rpartition("/")[2][len(event.step) - _NAME_SIZE + 1 :]
            name = f"{event.step} {end}"
            self._bars.append(_bar(name, event.total, 1, event.unit))
        self._bars[1].total = event.total
        _move(self._bars[1], event.position)

    def say(self, text: str) -> None:
        self._tqdm.write(plain(text), file=sys.stderr)

    def close(self) -> None:
        _close(reversed(self._bars))
        self._bars.clear()
        self._step = None


def choose_work_progress(*, quiet: bool, wanted: bool) -> WorkProgress:
    """Bars for a terminal, lines for a log."""
    if quiet or not wanted:
        return WorkLog(quiet=True)
    return WorkBars() if sys.stderr.isatty() else WorkLog()


def choose_progress(*, quiet: bool, wanted: bool) -> Progress:
    """Bars for a terminal, lines for a log."""
    if quiet or not wanted:
        return NoProgress()
    return BarProgress() if sys.stderr.isatty() else LogProgress()
