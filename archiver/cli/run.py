"""Running a command's coroutine: signals, errors, exit code."""

import asyncio
import contextlib
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Final, NoReturn

import anyio
import click

from archiver.cli import streams
from archiver.errors import EXIT_INTERRUPTED, EXIT_UNREAD, ArchiverError
from archiver.stores import disk

# Whatever an unforeseen error quotes: the query of a URL is what grants access. What follows s3://
# is the name of a place, and may have a question mark in it.
_QUERY = re.compile(r"(\b(?!s3://)\w+://[^\s'\"?]+)\?[^\s'\")\]]+")
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# timeout(1) signals its child and then its group, docker and systemd may do the like: what comes
# so soon after the first is the same wish.
_ECHO_SECONDS = 1.0


def run(command: Callable[[], Awaitable[int]], *, verbose: int, on_interrupt: str) -> NoReturn:
    """Run to the end and exit with the code that the command returns or its error stands for.

    Ctrl-C, SIGTERM or SIGHUP stops cleanly, with ``on_interrupt`` said; once more, a second later
    or after that, at once.
    """
    interruption = _Interruption(on_interrupt)
    try:
        code = anyio.run(_interruptible, command, interruption)
        sys.stdout.flush()  # it may wait for a reader, and be interrupted
    except ArchiverError as error:
        say(f"archiver: {error}")
        code = error.exit_code
        _trace(verbose)
    except BrokenPipeError:
        streams.forget_stdout()
        code = EXIT_UNREAD
    except Exception as error:  # noqa: BLE001 - the last resort, told in one line
        say(f"archiver: unexpected {type(error).__name__}: {error}; -vv shows where")
        code = 1
        _trace(verbose)
    _tell_what_is_not_synced()
    # From here on there is nothing left to interrupt.
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    sys.exit(code)


def say(text: str) -> None:
    """A line for people, on stderr, with nothing in it that grants access."""
    with contextlib.suppress(OSError):  # a terminal that is gone
        print(_QUERY.sub(r"\1?***", text), file=sys.stderr, flush=True)  # noqa: T201


class _Interruption:
    """What the signals ask for, from the first moment to the last: also while there is no loop."""

    def __init__(self, on_interrupt: str) -> None:
        self._on_interrupt: Final = on_interrupt
        self._first: float | None = None
        self._stop: Callable[[], object] | None = None
        self._terminals: Final = [number for number in (1, 2) if os.isatty(number)]
        for number in _SIGNALS:
            # Under nohup a hangup is ignored, and stays so.
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._caught)

    def attach(self, loop: asyncio.AbstractEventLoop, scope: anyio.CancelScope) -> None:
        """Have the command's scope cancelled, now if it was asked for before."""

        def stop() -> None:
            say(f"archiver: stopping; {self._on_interrupt} (again to stop at once)")
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
            if self._stop is not None:
                self._stop()
        elif now - self._first >= _ECHO_SECONDS:
            os._exit(EXIT_INTERRUPTED)

    def _leave_terminals(self) -> None:
        """The terminal is gone: what would be written to it must not become an error."""
        nothing = os.open(os.devnull, os.O_WRONLY)
        for number in self._terminals:
            os.dup2(nothing, number)
        os.close(nothing)


async def _interruptible(command: Callable[[], Awaitable[int]], interruption: _Interruption) -> int:
    with anyio.CancelScope() as scope:
        interruption.attach(asyncio.get_running_loop(), scope)
        try:
            return await command()
        finally:
            interruption.detach()
    return EXIT_INTERRUPTED


def _tell_what_is_not_synced() -> None:
    """Once a run, of what it wrote to."""
    context = click.get_current_context(silent=True)
    if context is None or not context.params.get("quiet"):
        for text in disk.what_is_not_synced():
            say(f"note: {text}")


def _trace(verbose: int) -> None:
    if verbose > 1:
        say(traceback.format_exc().rstrip())
