"""Reads a file of /etc/cron.d as cron does: crontab(5) of Debian."""

import re
from dataclasses import dataclass
from pathlib import Path

# Debian's cron passes over files of /etc/cron.d with any other name.
_FILE = re.compile(r"[A-Za-z0-9_-]+")
_SETTING = re.compile(r"\s*(\w+|'[^']*'|\"[^\"]*\")\s*=\s*(.*?)\s*")
_FIELDS = (
    ("minute", 0, 59, ""),
    ("hour", 0, 23, ""),
    ("day of month", 1, 31, ""),
    ("month", 1, 12, "jan feb mar apr may jun jul aug sep oct nov dec"),
    ("day of week", 0, 7, "sun mon tue wed thu fri sat"),
)
_NICKNAMES = ("@reboot", "@yearly", "@annually", "@monthly", "@weekly", "@daily", "@hourly")


class BadCrontab(ValueError):
    """Cron would refuse the file, pass over it, or do something else than it seems to say."""


@dataclass(frozen=True)
class Entry:
    """What cron runs: ``sh -c command`` with ``stdin``, as ``user``, with ``environ``."""

    user: str
    command: str
    stdin: str
    environ: dict[str, str]


def read(path: Path) -> list[Entry]:
    """The entries of a file for /etc/cron.d. Raises BadCrontab."""
    if not _FILE.fullmatch(path.name):
        raise BadCrontab(f"{path.name}: cron passes over a file of this name")
    text = path.read_text()
    if not text.endswith("\n"):
        raise BadCrontab(f"{path.name}: the last line has no end, and cron ignores it")
    # What cron sets by itself: nothing of the login shell of the user.
    environ = {"SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}
    entries = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if (setting := _SETTING.fullmatch(line)) is not None:
            environ[_unquoted(setting[1])] = _unquoted(setting[2])
            continue
        if line.endswith("\\"):
            raise BadCrontab(f"{path.name}:{number}: cron knows no lines that go on")
        try:
            entries.append(_entry(line, dict(environ)))
        except ValueError as error:
            raise BadCrontab(f"{path.name}:{number}: {error}") from None
    return entries


def check_schedule(text: str) -> None:
    """Raises ValueError unless these are five fields of a crontab."""
    fields = text.split()
    if len(fields) != len(_FIELDS):
        raise ValueError(f"{text!r} has {len(fields)} fields, not five")
    for value, (name, least, most, words) in zip(fields, _FIELDS, strict=True):
        for part in value.split(","):
            _check_part(part, name, least, most, words.split())
    if fields[2] != "*" and fields[4] != "*":
        raise ValueError(f"{text!r} restricts both days: cron runs it on either")


def _entry(line: str, environ: dict[str, str]) -> Entry:
    if line.lstrip().startswith("@"):
        nickname, user, command = line.split(None, 2)
        if nickname not in _NICKNAMES:
            raise ValueError(f"{nickname} is no nickname")
    else:
        *fields, user, command = line.split(None, 6)
        check_schedule(" ".join(fields))
    if not re.fullmatch(r"[a-z_][a-z0-9_-]*", user):
        raise ValueError(f"{user!r} is no user: a file of /etc/cron.d has a column for it")
    # The first % that has no backslash before it ends the command; the rest is its input, where
    # each further % is the end of a line. A backslash before a % is removed.
    first, *rest = re.split(r"(?<!\\)%", command)
    stdin = "\n".join(rest)
    return Entry(user, first.replace("\\%", "%"), stdin.replace("\\%", "%"), environ)


def _check_part(part: str, name: str, least: int, most: int, words: list[str]) -> None:
    span, slash, step = part.partition("/")
    if slash and not (step.isdigit() and int(step) > 0):
        raise ValueError(f"{part!r} is no step of the {name}")
    if span == "*":
        return
    for end in span.split("-"):
        is_number = end.isdigit() and least <= int(end) <= most
        if not is_number and end.lower() not in words:
            raise ValueError(f"{part!r} is no {name}")


def _unquoted(text: str) -> str:
    is_quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    return text[1:-1] if is_quoted else text
