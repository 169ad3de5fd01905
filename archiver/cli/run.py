"""Running a command's coroutine: signals, errors, exit code.

Whoever looks at a failure in the morning has stderr and the exit code. So a code other than 0 needs
a line on stderr, and the types enforce it: a command returns None or an ``Ended``, which needs a
``Printed``, which only ``say`` makes.
"""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import FrameType
from typing import Final, NoReturn

import anyio
import click

from archiver.cli import streams
from archiver.cli.jsonlines import LastLine
from archiver.cli.metrics import metrics_to
from archiver.cli.runlog import Ends, NoLog, RunLog, logging_to
from archiver.concurrency import abort_pending_calls
from archiver.errors import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_UNREAD,
    ArchiveBusy,
    ArchiverError,
    StoreError,
    UsageError,
)
from archiver.logs import record
from archiver.stores.local import disk

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# timeout(1) signals its child and then its group; docker and systemd may do the same.
# Signals within this time of the first count as one.
_ECHO_SECONDS = 1.0
# After how many more objects the garbage collector looks for cycles. Listings and catalogues make
# many objects that stay, and hardly a cycle: at the default of 700 that took a tenth of their CPU.
_UNCOLLECTED: Final = 50_000
# Seconds after a signal: when we stop waiting for servers that do not answer, and when we exit
# without what has not ended (a resolver, a dead disk), leaving it to the next run like a kill.
_HURRY_SECONDS, PATIENCE_SECONDS = 1.2, 1.9


@dataclass(frozen=True, slots=True)
class Printed:
    """A line that was printed on stderr. Only ``say`` makes one."""

    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command failed: its exit code, and the first line that says why."""

    code: int
    why: Printed


Command = Callable[[], Awaitable[Ended | None]]


def run(
    command: Command,
    *,
    verbose: int,
    on_interrupt: str | Callable[[], str],
    patience: float = PATIENCE_SECONDS,
    last: LastLine | None = None,
) -> NoReturn:
    """Run the command and exit with 0, its ``Ended`` code, or that of its error.

    Ctrl-C, SIGTERM or SIGHUP stops it cleanly and prints ``on_interrupt``, or what that returns.
    Another signal, at least a second later, ends the process at once, and so do ``patience``
    seconds. ``last`` is written after everything else, and also ends the log, if there is one.
    """
    context = click.get_current_context(silent=True)
    last = last or LastLine()
    gc.set_threshold(_UNCOLLECTED, 20, 20)
    with contextlib.ExitStack() as stack:
        log: RunLog = NoLog()
        if context is not None:
            given, name = context.params, context.command.name or ""
            try:
                logged = stack.enter_context(logging_to(given, name, say))
                log = Ends((logged, stack.enter_context(metrics_to(given, name, say))))
            except UsageError as error:
                command = _raising(error)
        interruption = _Interruption(on_interrupt, patience, log, last)
        ended = _run(command, interruption, last, verbose)
        code = streams.ended_with(EXIT_OK if ended is None else ended.code)
        log.ended(code, None if ended is None else ended.why.text, last)
    sys.exit(code)


def _raising(error: ArchiverError) -> Command:
    async def raising() -> NoReturn:
        raise error

    return raising


def _run(
    command: Command, interruption: "_Interruption", last: LastLine, verbose: int
) -> Ended | None:
    """How it ended; from then on nothing interrupts."""
    ended: Ended | None = None
    try:
        ended = anyio.run(_to_its_end, command, interruption, last, verbose)
        sys.stdout.flush()  # it may block on a reader, and be interrupted
    except BrokenPipeError:
        streams.forget_stdout()
        ended = ended or Ended(EXIT_UNREAD, say("archiver: the reader of stdout went away"))
    except Exception as error:  # noqa: BLE001 - the last resort, printed in one line
        ended = _unexpected(error, verbose)
    _report_what_is_not_synced()
    # From here on there is nothing left to interrupt.
    interruption.is_over = True
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    return ended


def say(text: str) -> Printed:
    """Print a line for people on stderr, above the bars if there are any, without anything that
    grants access."""
    printed = Printed(streams.safe(text))
    bars = getattr(sys.modules.get("tqdm"), "tqdm", None)  # loaded by who shows bars
    without_bars = bars.external_write_mode(sys.stderr) if bars else contextlib.nullcontext()
    with contextlib.suppress(OSError), without_bars:  # a terminal that is gone
        sys.stderr.write(f"{printed.text}\n")  # in one, since other threads print requests
        sys.stderr.flush()
    return printed


def announce(
    level: int,
    event: str,
    text: str,
    *,
    instance: str | None = None,
    say: Callable[[str], Printed] = say,
    **fields: object,
) -> Printed:
    """Print a line as :func:`say` does, and log it: for what is not an event of its own."""
    record(level, event, text, instance, fields)
    return say(text)


class _Interruption:
    """Handles signals from start to end, also while there is no event loop."""

    def __init__(
        self,
        on_interrupt: str | Callable[[], str],
        patience: float,
        log: RunLog,
        last: LastLine,
    ) -> None:
        self.printed: Printed | None = None
        self.is_over = False
        self._on_interrupt: Final = on_interrupt
        self._patience: Final = patience
        self._log: Final = log
        self._last: Final = last
        self._first: float | None = None
        self._stop: Callable[[], object] | None = None
        self._terminals: Final = [number for number in (1, 2) if os.isatty(number)]
        for number in _SIGNALS:
            # Under nohup SIGHUP is ignored, and stays ignored.
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._caught)

    @property
    def was_asked(self) -> bool:
        return self._first is not None

    def attach(self, loop: asyncio.AbstractEventLoop, scope: anyio.CancelScope) -> None:
        """Have the command's scope cancelled, now if it was asked for before."""

        def stop() -> None:
            next_ = self._on_interrupt
            advice = next_ if isinstance(next_, str) else next_()
            text = f"archiver: stopping; {advice} (again to stop at once)"
            self.printed = announce(logging.WARNING, "stopping", text)
            scope.cancel()

        self._stop = lambda: loop.call_soon_threadsafe(stop)
        if self._first is not None:
            stop()

    def detach(self) -> None:
        """The command has ended: there is nothing to be cancelled any more."""
        self._stop = lambda: None

    def _caught(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._leave_terminals()
        now = time.monotonic()
        if self._first is None:
            self._first = now
            threading.Thread(target=self._see_that_it_ends, daemon=True).start()
            if self._stop is not None:
                self._stop()
        elif now - self._first >= _ECHO_SECONDS:
            # Not by say: whatever was being written when the signal came is still being written.
            with contextlib.suppress(OSError):
                os.write(2, b"archiver: stopped at once\n")
            self._log.ended(EXIT_INTERRUPTED, "archiver: stopped at once", self._last)
            os._exit(EXIT_INTERRUPTED)

    def _see_that_it_ends(self) -> None:
        time.sleep(_HURRY_SECONDS)
        with contextlib.suppress(Exception):  # what comes next must
            abort_pending_calls()
        time.sleep(self._patience - _HURRY_SECONDS)
        if not self.is_over:
            printed = say("archiver: a task does not end; the next run cleans up what it leaves")
            self._log.ended(EXIT_INTERRUPTED, printed.text, self._last)
            os._exit(EXIT_INTERRUPTED)

    def _leave_terminals(self) -> None:
        """The terminal is gone: what would be written to it must not become an error."""
        nothing = os.open(os.devnull, os.O_WRONLY)
        for number in self._terminals:
            os.dup2(nothing, number)
        os.close(nothing)


async def _to_its_end(
    command: Command, interruption: _Interruption, last: LastLine, verbose: int
) -> Ended | None:
    """How the command ended, which its last line says, too."""
    ended: Ended | None
    try:
        ended = await _interruptible(command, interruption)
    except ArchiverError as error:
        if interruption.was_asked and isinstance(error, StoreError | ArchiveBusy):
            # What was given up for it failed, or a lease could not be renewed by then.
            ended = Ended(EXIT_INTERRUPTED, interruption.printed or say("archiver: stopped"))
        else:
            last.ended_by = error
            ended = Ended(error.exit_code, say(f"archiver: {error}"))
        _trace(verbose)
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - printed in one line, and in the last one
        ended = _unexpected(error, verbose)
    last.write(*(EXIT_OK, None) if ended is None else (ended.code, ended.why.text))
    return ended


def _unexpected(error: Exception, verbose: int) -> Ended:
    """In an ``except`` block."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        [error] = error.exceptions
    why = f"archiver: unexpected {type(error).__name__}: {error}; -vv shows where"
    ended = Ended(1, say(why))
    _trace(verbose)
    return ended


async def _interruptible(command: Command, interruption: _Interruption) -> Ended | None:
    with anyio.CancelScope() as scope:
        interruption.attach(asyncio.get_running_loop(), scope)
        try:
            return await command()
        finally:
            interruption.detach()
    return Ended(EXIT_INTERRUPTED, interruption.printed or say("archiver: stopped"))


def _report_what_is_not_synced() -> None:
    """Once a run, of what it wrote to."""
    context = click.get_current_context(silent=True)
    if context is None or not context.params.get("quiet"):
        for text in disk.what_is_not_synced():
            announce(logging.WARNING, "not_synced", f"note: {text}")


def _trace(verbose: int) -> None:
    if verbose > 1:
        for line in traceback.format_exc().splitlines():
            say(line)
