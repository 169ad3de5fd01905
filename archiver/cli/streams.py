"""Reliable stdin, stdout and stderr, whatever they are connected to.

A night's backup must not end because the disk with its log is full. A failed write to stdout is
reported once on stderr, and is exit code 6; a failed write to stderr cannot be reported. A reader
that went away (EPIPE) is handled in ``run``.
"""

import contextlib
import errno
import io
import os
import re
import select
import sys
from typing import TYPE_CHECKING, Final

import click

from archiver.errors import EXIT_INTERRUPTED, StoreError, worst_exit_code

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_STDIN, _STDOUT, _STDERR = range(3)
# Whatever an unforeseen error quotes: the query of a URL is what grants access. What follows s3://
# is the name of a place, and may have a question mark in it.
_QUERY: Final = re.compile(r"(\b(?!s3://)\w+://[^\s'\"?]+)\?[^\s'\")\]]+")


class _Out(io.FileIO):
    """A descriptor whose errors do not reach the writer: from then on it is ``lost``."""

    def __init__(self, descriptor: int, *, lost: bool) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.lost = lost
        self.trouble: OSError | None = None
        self._descriptor: Final = descriptor

    def write(self, data: "ReadableBuffer") -> int:
        if self.lost and self.trouble is None and self._descriptor == _STDOUT:
            # It was closed from the start; only now is something lost.
            self.trouble = OSError(errno.EBADF, "it is closed")
            _say_that_it_is_lost(self.trouble)
        elif not self.lost:
            try:
                return self._written(data)
            except BrokenPipeError:
                if self._descriptor == _STDOUT:
                    raise
                self.lost = True
            except OSError as error:
                self.lost, self.trouble = True, error
                if self._descriptor == _STDOUT:
                    _say_that_it_is_lost(error)
        return memoryview(data).nbytes

    def _written(self, data: "ReadableBuffer") -> int:
        """Raises OSError."""
        # Whoever has the other end may have made it one that nobody waits for.
        while (count := self._write_now(data)) is None:
            select.select([], [self._descriptor], [])
        return count

    def _write_now(self, data: "ReadableBuffer") -> int | None:
        return super().write(data)


_guarded: Final[dict[int, _Out]] = {}


def guard() -> None:
    """Route stdout and stderr through this module from now on. Closed descriptors are opened on
    /dev/null, so that no file of the archive gets their numbers."""
    closed = {descriptor for descriptor in (_STDIN, _STDOUT, _STDERR) if not _is_open(descriptor)}
    for _ in closed:
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # noqa: FBT003 - the lowest number
    if sys.stdin is None:
        sys.stdin = open(_STDIN, closefd=False, encoding="utf-8")  # noqa: SIM115
    for descriptor, stream in ((_STDOUT, sys.stdout), (_STDERR, sys.stderr)):
        if descriptor in _guarded or stream not in (None, sys.__stdout__, sys.__stderr__):
            continue  # a test looks on
        out = _Out(descriptor, lost=descriptor in closed)
        _guarded[descriptor] = out
        text = io.TextIOWrapper(
            io.BufferedWriter(out),
            encoding=getattr(stream, "encoding", "utf-8"),
            errors="backslashreplace",  # a file may have a name that is no text
            line_buffering=getattr(stream, "line_buffering", False),
        )
        if descriptor == _STDOUT:
            sys.stdout = text
        else:
            sys.stderr = text


def plain(text: str) -> str:
    """``text`` as one line that is safe on a terminal: control characters, characters that change
    the direction of writing, and undecodable bytes are escaped."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )


def without_queries(text: str) -> str:
    """``text`` with nothing in it that grants access."""
    return _QUERY.sub(r"\1?***", text)


def safe(text: str) -> str:
    """``text`` as people may see it: see :func:`plain` and :func:`without_queries`."""
    return plain(without_queries(text))


def show(*lines: str) -> None:
    """Print lines for people on stdout."""
    click.echo("\n".join(map(plain, lines)))


def write(text: str) -> bool:
    """Write to stdout; returns whether all was written. A reader that went away is no error."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        forget_stdout()
        return False
    out = _guarded.get(_STDOUT)
    return out is None or not out.lost


def forget_stdout() -> None:
    """Stop writing to stdout, whose reader went away; what is buffered must not fail at exit."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)


def ended_with(code: int) -> int:
    """The exit code of a command that ended with ``code``, after flushing stdout."""
    write("")
    out = _guarded.get(_STDOUT)
    if out is None or out.trouble is None or code == EXIT_INTERRUPTED:
        return code
    return worst_exit_code({code, StoreError.exit_code})


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _say_that_it_is_lost(error: OSError) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(
            f"archiver: cannot write to stdout: {error.strerror}; nothing more is written to it\n"
        )
        sys.stderr.flush()
