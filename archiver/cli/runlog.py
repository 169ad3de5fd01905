"""The log of a run (``--log-file``, ``--log-format``), and requests on stderr (``-vv``).

The file gets everything that :mod:`archiver.logs` logs at INFO and above; with ``-vv`` at DEBUG
and above, which includes requests. ``--quiet`` and ``-v`` do not change it. The first line says
that the run began, the last one how it ended, and every line has the run's id.

Each line is one append, so several runs can share a file. A file that logrotate renamed or removed
is opened again. A failed write is reported once on stderr, and never ends a run.
"""

import contextlib
import json
import logging
import math
import os
import secrets
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Protocol

import click

from archiver.cli import jsonlines, streams
from archiver.errors import EXIT_INTERRUPTED, EXIT_OK, UsageError
from archiver.logs import EVENTS, REQUESTS, record
from archiver.times import format_compact, format_iso
from archiver.version import __version__

TEXT, JSON = FORMATS = ("text", "json")
Say = Callable[[str], object]


class RunLog(Protocol):
    """Takes the last line of a run."""

    def ended(self, code: int, why: str | None, last: jsonlines.LastLine) -> None:
        """Write the last line, once: the exit code, why it is not 0, and the summary."""
        ...


class NoLog:
    """For a run without ``--log-file``."""

    def ended(self, code: int, why: str | None, last: jsonlines.LastLine) -> None:
        pass


class Ends:
    """What several make of the end of a run."""

    def __init__(self, logs: Sequence[RunLog]) -> None:
        self._logs: Final = logs

    def ended(self, code: int, why: str | None, last: jsonlines.LastLine) -> None:
        for log in self._logs:
            log.ended(code, why, last)


@contextlib.contextmanager
def logging_to(given: Mapping[str, Any], command: str, say: Say) -> Iterator[RunLog]:
    """Install the handlers that the options ask for, until the context ends.

    ``say`` prints a line on stderr. Raises UsageError if the file cannot be opened, and for a
    format without a file.
    """
    path, is_debug = given.get("log_file"), given.get("verbose", 0) > 1
    if path is None and given.get("log_format") is not None:
        raise UsageError("--log-format needs --log-file")
    levels = [(logger, logger.level) for logger in (EVENTS, REQUESTS)]
    handlers = list[tuple[logging.Logger, logging.Handler]]()
    log: RunLog = NoLog()
    if path is not None:
        log = file = opened(path, given["log_format"] or TEXT, command, say)
        file.setLevel(logging.DEBUG if is_debug else logging.INFO)
        EVENTS.setLevel(file.level)
        handlers.append((EVENTS, file))
    REQUESTS.setLevel(logging.DEBUG if is_debug else logging.INFO)
    if is_debug:
        handlers.append((REQUESTS, _OnStderr(say)))
    try:
        for logger, handler in handlers:
            logger.addHandler(handler)
        if path is not None:
            fields = {"version": __version__, "pid": os.getpid()}
            text = f"archiver {__version__} {command} began, process {os.getpid()}"
            record(logging.INFO, "began", text, None, fields)
        yield log
    finally:
        for logger, handler in handlers:
            logger.removeHandler(handler)
            handler.close()
        for logger, level in levels:
            logger.setLevel(level)


def opened(path: Path, format_: str, command: str, say: Say) -> "LogFile":
    """Open the log ``path``, or create it. Raises UsageError."""
    from archiver.cli.places import archive_around

    if (archive := archive_around(path)) is not None:
        raise UsageError(
            f"--log-file {path}: that is inside an archive, {archive}",
            hint="choose a place outside of it",
        )
    try:
        return LogFile(path, format_, command, say)
    except OSError as error:
        raise UsageError(
            f"--log-file {path}: it cannot be written: {error.strerror}",
            hint="name a file that can be written, in an existing folder",
        ) from None


def refused(
    command: click.Command,
    args: Sequence[str],
    code: int,
    why: str,
    defaults: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Log that a command ended before its options were known, if they say where to log, or
    ``defaults`` do, by parameter."""
    with contextlib.suppress(UsageError, ValueError):
        path = _option(command, args, "log_file") or defaults.get("log_file")
        format_ = _option(command, args, "log_format") or defaults.get("log_format")
        if path:
            file = opened(
                Path(path), (format_ or TEXT).casefold(), command.name or "", lambda _: None
            )
            file.ended(code, why, jsonlines.LastLine())
            file.close()


def _option(command: click.Command, args: Sequence[str], name: str) -> str | None:
    """The value of an option on the command line, or else in the environment."""
    declared = next((one for one in command.params if one.name == name), None)
    if declared is None:
        return None
    value = os.environ.get(str(declared.envvar))
    words = iter(args)
    for word in words:
        if word == "--":
            break
        if word in declared.opts:
            value = next(words, None)
        elif word.partition("=")[0] in declared.opts:
            value = word.partition("=")[2]
    return value


class LogFile(logging.Handler):
    """Appends a line per record. Reports its first failure to write, and raises none."""

    def __init__(self, path: Path, format_: str, command: str, say: Say) -> None:
        self._path: Final = os.path.abspath(path)  # noqa: PTH100 - of no file system
        self._descriptor, self._place = _open(self._path)
        super().__init__()  # logging closes at exit what has come so far
        self._is_json: Final = format_ == JSON
        self._command: Final = command
        self._run: Final = f"{format_compact(datetime.now(UTC))}-{secrets.token_hex(3)}"
        self._began: Final = time.monotonic()
        self._say: Final = say
        self._is_ended = self._has_told = self._is_torn = False

    def emit(self, record: logging.LogRecord) -> None:
        if not self._is_ended:
            try:
                self._write(self._line(record))
            except Exception as error:  # noqa: BLE001 - logging must not end what it tells of
                self._trouble(str(error))

    def ended(self, code: int, why: str | None, last: jsonlines.LastLine) -> None:
        """See RunLog. Takes no lock: a signal may have come while one was held."""
        if self._is_ended:
            return
        with contextlib.suppress(Exception):
            self._write(self._line(self._last(code, why, last)))
        self._is_ended = True

    def close(self) -> None:
        super().close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _last(self, code: int, why: str | None, last: jsonlines.LastLine) -> logging.LogRecord:
        seconds = time.monotonic() - self._began
        said = [*([] if why is None else [why]), *last.summary]
        text = f"ended with exit code {code} after {seconds:.1f} s"
        level = logging.ERROR
        if code in (EXIT_OK, EXIT_INTERRUPTED):
            level = logging.INFO if code == EXIT_OK else logging.WARNING
        line = f"{text}: {'; '.join(said)}" if said else text
        fields = {
            **(last.fields or {}),
            "exit_code": code,
            "interrupted": code == EXIT_INTERRUPTED,
            "why": why,
            "summary": list(last.summary),
            "seconds": round(seconds, 3),
        }
        extra = {"event": "ended", "instance": None, "fields": fields}
        return EVENTS.makeRecord(EVENTS.name, level, "", 0, line, (), None, extra=extra)

    def _line(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC)
        when = format_iso(moment, "milliseconds")
        instance = getattr(record, "instance", None)
        message = streams.safe(record.getMessage())
        if not self._is_json:
            begin = f"{when} {record.levelname:<7} {self._run} {self._command}"
            return f"{begin} {streams.safe(instance or '-')} {message}\n"
        fixed = {
            "time": when,
            "level": record.levelname,
            "run": self._run,
            "command": self._command,
            "event": getattr(record, "event", record.name),
            **({} if instance is None else {"instance": instance}),
            "message": message,
        }
        fields = {name: _plain(value) for name, value in getattr(record, "fields", {}).items()}
        return json.dumps(fixed | {k: v for k, v in fields.items() if k not in fixed}) + "\n"

    def _write(self, line: str) -> None:
        data = line.encode("utf-8", "backslashreplace")
        self._follow()
        try:
            # The rest of a line that did not fit must not become the start of the next one.
            data = b"\n" + data if self._is_torn else data
            self._is_torn = os.write(self._descriptor, data) < len(data)
        except OSError as error:
            self._trouble(error.strerror or str(error))
        else:
            if self._is_torn:
                self._trouble("no space for a whole line")

    def _follow(self) -> None:
        """Open the file again if its name means another one now, as WatchedFileHandler does."""
        if self._place is None:
            return
        try:
            found: tuple[int, int] | None = _place(os.stat(self._path))  # noqa: PTH116
        except OSError:
            found = None
        if found == self._place:
            return
        try:
            descriptor, self._place = _open(self._path)
        except OSError as error:
            self._trouble(error.strerror or str(error))  # the old file still works
        else:
            before, self._descriptor, self._is_torn = self._descriptor, descriptor, False
            os.close(before)

    def _trouble(self, why: str) -> None:
        if not self._has_told:
            self._has_told = True
            self._say(
                f"archiver: the log {self._path} could not be written: {why}; the run goes on"
            )


class _OnStderr(logging.Handler):
    """Requests, above the bars where there are any."""

    def __init__(self, say: Say) -> None:
        super().__init__(logging.DEBUG)
        self._say: Final = say

    def emit(self, record: logging.LogRecord) -> None:
        bars = sys.modules.get("tqdm")
        with contextlib.ExitStack() as stack:
            if bars is not None:
                stack.enter_context(bars.tqdm.external_write_mode(file=sys.stderr))
            self._say(record.getMessage())


def _open(path: str) -> tuple[int, tuple[int, int] | None]:
    """A descriptor that appends, and the file's device and inode; None for pipes and devices."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
    # Without O_NONBLOCK, opening a pipe would block until somebody reads it.
    descriptor = os.open(path, flags | os.O_NONBLOCK, 0o666)
    os.set_blocking(descriptor, True)
    status = os.fstat(descriptor)
    return descriptor, _place(status) if stat.S_ISREG(status.st_mode) else None


def _place(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _plain(value: object) -> object:
    """``value`` as JSON, without the queries of URLs."""
    value = jsonlines.plain(value)
    match value:
        case str():
            return streams.without_queries(value)
        case float() if not math.isfinite(value):
            return None
        case bool() | int() | float() | None:
            return value
        case Mapping():
            return {str(name): _plain(inner) for name, inner in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_plain(inner) for inner in value]
        case _:
            return streams.without_queries(str(value))
