"""Running a command's coroutine: signals, errors, exit code."""

import asyncio
import io
import os
import re
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable
from typing import NoReturn

import anyio

from archiver.errors import EXIT_INTERRUPTED, EXIT_UNREAD, ArchiverError

# Whatever an unforeseen error quotes: the query of a URL is what grants access.
_QUERY = re.compile(r"(\w+://[^\s'\"?]+)\?[^\s'\")\]]+")


def run(command: Callable[[], Awaitable[int]], *, verbose: int, on_interrupt: str) -> NoReturn:
    """Run to the end and exit with the code that the command returns or its error stands for.

    Ctrl-C or SIGTERM once stops cleanly, with ``on_interrupt`` said; twice, at once.
    """
    # A file may have a name that is no text: it is told all the same.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = anyio.run(_interruptible, command, on_interrupt)
        # From here on there is nothing left to interrupt.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED  # a second one, while the first was being answered
    except ArchiverError as error:
        say(f"archiver: {error}")
        code = error.exit_code
        _trace(verbose)
    except BrokenPipeError:
        # Nobody reads stdout any more; what is still buffered for it must not be said at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_UNREAD
    except Exception as error:  # noqa: BLE001 - the last resort, told in one line
        say(f"archiver: unexpected {type(error).__name__}: {error}; -vv shows where")
        code = 1
        _trace(verbose)
    sys.exit(code)


def say(text: str) -> None:
    """A line for people, on stderr, with nothing in it that grants access."""
    print(_QUERY.sub(r"\1?***", text), file=sys.stderr, flush=True)  # noqa: T201


async def _interruptible(command: Callable[[], Awaitable[int]], on_interrupt: str) -> int:
    loop = asyncio.get_running_loop()
    with anyio.CancelScope() as scope:

        def stop() -> None:
            if scope.cancel_called:
                os._exit(EXIT_INTERRUPTED)
            say(f"archiver: stopping; {on_interrupt} (again to stop at once)")
            scope.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        return await command()
    return EXIT_INTERRUPTED


def _trace(verbose: int) -> None:
    if verbose > 1:
        say(traceback.format_exc().rstrip())
