"""Progress of a command: bars on a terminal, a plain line now and then elsewhere."""

import itertools
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NoReturn, Protocol

from archiver import events
from archiver.cli.run import Printed, say
from archiver.cli.streams import plain
from archiver.cli.words import size, times
from archiver.model import Backup

if TYPE_CHECKING:
    from tqdm import tqdm

LOG_SECONDS = 30.0
_NAME_SIZE = 32  # characters before a bar


def _bar(
    name: str, total: int, row: int, unit: str = "B", *, leave: bool | None = None
) -> "tqdm[NoReturn]":
    from tqdm import tqdm

    return tqdm(
        desc=plain(name)[-_NAME_SIZE:],
        total=total,
        position=row,
        leave=row == 0 if leave is None else leave,
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


def _skip(bar: "tqdm[NoReturn]", count: int) -> None:
    """Move a bar past what an earlier run has done: the rate is of this run alone."""
    bar.n += count
    bar.initial += count
    bar.last_print_n += count


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


class _Jobs:
    """The backups that are being made on demand: state and percent by instance."""

    def __init__(self) -> None:
        self._under_way: Final[dict[str, tuple[str, int]]] = {}
        self._made = 0

    def observe(self, event: events.Event) -> None:
        match event:
            case events.BackupAdvanced(instance_id, _, state, percent):
                self._under_way[instance_id] = state, percent
            case events.BackupMade(instance_id):
                self._made += 1
                self._under_way.pop(instance_id, None)
            case events.Failed(instance_id):
                self._under_way.pop(instance_id, None)
            case _:
                pass

    def __str__(self) -> str:
        """While at least one is under way."""
        if len(self._under_way) == 1 and not self._made:
            [(name, (state, percent))] = self._under_way.items()
            return f"{name}: {state}, {percent}%"
        percents = [percent for _, percent in self._under_way.values()]
        far = " to ".join(f"{one}%" for one in sorted({min(percents), max(percents)}))
        return f"{times(self._made, 'backup')} made, {len(percents):,} under way at {far}"


class LogProgress:
    """A line every LOG_SECONDS while bytes are moving, or backups are being made."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._bytes: Final = _Bytes()
        self._jobs: Final = _Jobs()
        self._clock: Final = clock
        self._began = self._printed_at = clock()

    def __call__(self, event: events.Event) -> None:
        self._bytes.observe(event)
        self._jobs.observe(event)
        now = self._clock()
        if now - self._printed_at < LOG_SECONDS:
            return
        if isinstance(event, events.BackupAdvanced):
            self._printed_at = now
            self.say(f"{self._jobs}; {now - self._began:.0f} s")
        elif isinstance(event, events.Advanced):
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
    """A bar for the total of all files, one for each active file, and one for each backup that is
    being made. The total is shown from the start, or with the first file if not
    ``is_only_bytes``."""

    def __init__(self, *, is_only_bytes: bool = True) -> None:
        self._bytes: Final = _Bytes()
        # Of files by their identity, of backups that are being made by their instance.
        self._bars: Final[dict[tuple[str, ...], tqdm[NoReturn]]] = {}
        self._total: tqdm[NoReturn] | None = _bar("all", 0, 0) if is_only_bytes else None

    def __call__(self, event: events.Event) -> None:
        self._bytes.observe(event)
        skipped = 0
        match event:
            case events.Started(backup, position, whole):
                self._add(backup.identity, str(backup), whole)
                _skip(self._bars[backup.identity], position)
                skipped = position
            case events.Advanced(backup, position):
                _move(self._bars[backup.identity], position)
            case events.Archived(backup) | events.Failed(_, _, backup) if backup is not None:
                self._remove(backup.identity)
            case events.BackupAdvanced(instance_id, _, _, percent):
                if (instance_id,) not in self._bars:
                    self._add((instance_id,), instance_id, 100, "%")
                _move(self._bars[instance_id,], percent)
            case events.BackupMade(instance_id) | events.Failed(instance_id):
                self._remove((instance_id,))
            case _:
                pass
        if self._total is None and self._bytes.files:
            self._total = _bar("all", 0, self._row(0), leave=True)
        if self._total is not None:
            self._total.total = self._bytes.planned
            _skip(self._total, skipped)
            _move(self._total, self._bytes.position)

    def _add(self, key: tuple[str, ...], name: str, whole: int, unit: str = "B") -> None:
        first = 0 if self._total is None else 1
        self._bars[key] = _bar(name, whole, self._row(first), unit, leave=False)

    def _remove(self, key: tuple[str, ...]) -> None:
        if (bar := self._bars.pop(key, None)) is not None:
            bar.close()

    def _row(self, first: int) -> int:
        """The first row from ``first`` on that no bar has."""
        bars = [*self._bars.values(), *([] if self._total is None else [self._total])]
        taken = {-bar.pos for bar in bars}
        return next(row for row in itertools.count(first) if row not in taken)

    def say(self, text: str) -> Printed:
        return say(text)

    def close(self) -> None:
        _close((*self._bars.values(), *([] if self._total is None else [self._total])))


class WorkProgress(Protocol):
    """An observer of work on an archive's files that shows progress until it is closed."""

    def __call__(self, event: events.Work) -> None: ...

    def say(self, text: str) -> None: ...

    def close(self) -> None:
        """Remove everything from the screen; further events show it again."""
        ...


class _Sets:
    """Progress within the sets that are under way, in bytes: each step of a file counts for its
    share. There is one at a time, unless several processes drill."""

    def __init__(self) -> None:
        self.name = ""
        self.doing = ""
        # By the keys of sets and files: a set whose worker died begins anew.
        self._sizes: Final[dict[str, int]] = {}
        self._done: Final[dict[str, float]] = {}

    @property
    def size(self) -> int:
        return sum(self._sizes.values())

    @property
    def position(self) -> int:
        return min(self.size, int(sum(self._done.values())))

    def observe(self, event: events.Work) -> None:
        match event:
            case events.SetBegun(key, number, of, _, size):
                if self.position == self.size:
                    self._sizes.clear()
                    self._done.clear()
                self.name = f"set {number} of {of}" if of > 1 else "all"
                self._sizes[key], self.doing = size, ""
            case events.FileWorkedOn(key, size, step, number, of, position, total):
                self.doing = f"{step} {key}"
                self._done[key] = size * (number - 1 + position / max(total, 1)) / of
            case events.FileLeft(key, size):
                self._done[key], self.doing = size, ""


class WorkLog:
    """A line every LOG_SECONDS during work; if ``quiet``, only the lines passed to ``say``."""

    def __init__(self, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._quiet: Final = quiet
        self._set: Final = _Sets()
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
        self._set: Final = _Sets()
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
        say(text)

    def close(self) -> None:
        _close(reversed(self._bars))
        self._bars.clear()
        self._step = None


def choose_work_progress(*, quiet: bool, wanted: bool) -> WorkProgress:
    """Bars for a terminal, lines for a log."""
    if quiet or not wanted:
        return WorkLog(quiet=True)
    return WorkBars() if sys.stderr.isatty() else WorkLog()


def choose_progress(*, quiet: bool, wanted: bool, is_only_bytes: bool = True) -> Progress:
    """Bars for a terminal, lines for a log."""
    if quiet or not wanted:
        return NoProgress()
    return BarProgress(is_only_bytes=is_only_bytes) if sys.stderr.isatty() else LogProgress()
