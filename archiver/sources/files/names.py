"""What the name of a file says: whether it is a backup, when it was made, of which node. Pure.

A pattern is a name with placeholders: ``{node}``, ``{set}``, ``{time:%Y%m%d%H%M}`` and ``*``. One
with a slash is held against the whole path below the place, any other against the last part of it.
Without patterns the usual names are known: times and dates in a name, and the shards that
ElastiCache exports (``<snapshot>-0001.rdb``).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from archiver.errors import UsageError
from archiver.times import document_time, format_compact

_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
_DIRECTIVE: Final = re.compile(r"%(.?)")
_DIGITS: Final = {"Y": 4, "m": 2, "d": 2, "H": 2, "M": 2, "S": 2, "j": 3, "y": 2}
_WORD = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
_EXAMPLE = "such as '{node}-{time:%Y%m%d%H%M}.rdb'"

# logrotate and scripts append a date, or a number that is another one after each rotation.
_ENDED = r"(?P<file>.+\.(?:rdb|aof))(?P<after>[-_.][0-9][0-9TZ_.:-]*)?"
_BACKUP: Final = re.compile(_ENDED, re.IGNORECASE)
_NUMBER: Final = re.compile(r"\.[0-9]{1,3}")
# What redis-server calls a file that it has not written to its end; and what others add to a name.
_TEMPORARY: Final = re.compile(r"temp-.*\.(rdb|aof)", re.IGNORECASE)
_SUFFIXED: Final = re.compile(
    rf"(?P<path>{_ENDED})\."
    r"((?P<partial>tmp|temp|part|partial|filepart)|gz|gzip|zst|xz|bz2|lz4|zip)",
    re.IGNORECASE,
)
_MANIFEST: Final = re.compile(r"(?!temp-).+\.aof\.manifest")
_OF_SEVERAL: Final = re.compile(r".+\.(manifest|[0-9]+\.(base|incr|history)\.(rdb|aof))")
_SHARD: Final = re.compile(rf"(?P<set>{_WORD})-(?P<node>0[0-9]{{3}})\.rdb", re.IGNORECASE)
# 20261101, 20261101T0300, 20261101-030000; 2026-11-01, 2026-11-01-03-00, 2026-11-01T03:00:00.
_TIME: Final = re.compile(
    r"(?<![0-9])(?:"
    r"(?P<day>[0-9]{8})(?:[-_.T]?(?P<clock>[0-9]{4}(?:[0-9]{2})?))?"
    r"|(?P<day_>[0-9]{4}([-_.])[0-9]{2}\4[0-9]{2})"
    r"(?:[-_.T](?P<clock_>[0-9]{2}([-_.:])[0-9]{2}(?:\6[0-9]{2})?))?"
    r")(?![0-9])"
)


@dataclass(frozen=True, slots=True)
class Said:
    """What a name says of a backup; None where it does not. ``is_unfinished``: somebody has not
    written it to its end."""

    node: str | None = None
    set_id: str | None = None
    began: datetime | None = None
    is_unfinished: bool = False


@dataclass(frozen=True, slots=True)
class Left:
    """Why a file cannot be used. ``set_id``: the set that lacks it then. ``is_folder``: the same
    goes for what lies beside it. ``is_harmless``: it is no backup of its own."""

    why: str
    set_id: str | None = None
    is_folder: bool = False
    is_harmless: bool = False


class Pattern:
    """One that was given. Raises UsageError for a text that cannot be one."""

    def __init__(self, text: str) -> None:
        self._text: Final = text
        self._formats: Final[list[str]] = []
        regex, at, names = "", 0, list[str]()
        for found in _PLACEHOLDER.finditer(text):
            regex += _literal(text[at : found.start()]) + self._placeholder(found[1])
            at = found.end()
            names.append(found[1].partition(":")[0])
        self._check(text, names)
        self._regex: Final = re.compile(regex + _literal(text[at:]))

    def _check(self, text: str, names: Sequence[str]) -> None:
        wrong = None
        if set(_PLACEHOLDER.sub("", text)) & set("{}"):
            wrong = "a brace has no other one"
        elif max(names.count("node"), names.count("set")) > 1:
            wrong = "a placeholder is there twice"
        elif "set" in names and "node" not in names:
            wrong = "{set} needs {node}: an instance without nodes has no sets of several files"
        elif "node" in names and not {"set", "time"} & set(names):
            wrong = "{node} needs {set} or {time}, or nobody knows which files were made together"
        if wrong is not None:
            raise UsageError(f"--pattern {text!a:.200}: {wrong}")

    def _placeholder(self, content: str) -> str:
        name, _, format_ = content.partition(":")
        if name in ("node", "set") and not format_:
            return f"(?P<{name}>{_WORD})"
        if name == "time" and "%" in format_:
            self._formats.append(format_)
            return f"(?<![0-9])(?P<time{len(self._formats)}>{self._digits(format_)})(?![0-9])"
        raise UsageError(
            f"--pattern {self._text!a:.200}: {{{content}}} is none of {{node}}, {{set}} and "
            f"{{time:FORMAT}}, {_EXAMPLE}"
        )

    def _digits(self, format_: str) -> str:
        regex, at = "", 0
        for found in _DIRECTIVE.finditer(format_):
            if found[1] not in _DIGITS:
                known = ", ".join(f"%{one}" for one in _DIGITS)
                raise UsageError(f"--pattern {self._text!a:.200}: a time is made of {known}")
            regex += re.escape(format_[at : found.start()]) + f"[0-9]{{{_DIGITS[found[1]]}}}"
            at = found.end()
        return regex + re.escape(format_[at:])

    def read(self, path: str) -> Said | Left | None:
        """What the path of a file says; None if it does not match."""
        match = self._regex.fullmatch(path if "/" in self._text else path.rpartition("/")[2])
        if match is None:
            return None
        found, began = match.groupdict(), None
        if self._formats:
            texts = [found[f"time{number}"] for number in range(1, len(self._formats) + 1)]
            began = _time(" ".join(texts), " ".join(self._formats))
            if began is None:
                return Left(f"{' '.join(texts)} is no time")
        return Said(found.get("node"), found.get("set") or _set_of(found.get("node"), began), began)


def read_name(path: str, patterns: Sequence[Pattern]) -> Said | Left | None:
    """What the path of a file says, by the first pattern that matches, or by the usual names; None
    for what is no backup by its name. The manifest of a log of several files stands for that log.
    """
    if _MANIFEST.fullmatch(path.rpartition("/")[2]):
        path = path.rpartition(".")[0]
    suffixed = _SUFFIXED.fullmatch(path)
    meant = suffixed["path"] if suffixed else path
    name = meant.rpartition("/")[2]
    if patterns:
        read = (pattern.read(one) for pattern in patterns for one in (path, meant))
        said = next((one for one in read if one is not None), None)
    else:
        ended = _BACKUP.fullmatch(name)
        said = _usual(ended["file"], ended["after"] or "") if ended else None
    if _OF_SEVERAL.fullmatch(name) and (said is not None or not patterns):
        if name.startswith("temp-"):
            return Left("by its name it is still being written", is_harmless=True)
        return Left(
            "the files of a multi-part AOF (Redis 7) belong together, and the manifest that says "
            "how is not there",
            is_folder=True,
        )
    if not isinstance(said, Said):
        return said
    if suffixed and not suffixed["partial"]:
        return Left("compressed files are not supported: decompress it first", said.set_id)
    return replace(said, is_unfinished=bool(suffixed or _TEMPORARY.fullmatch(name)))


def _usual(name: str, after: str) -> Said | Left | None:
    """By the names that servers, scripts and vendors give, and what follows ``.rdb`` or ``.aof`` in
    them. With other rules, files that an archive has would be other backups, and be taken again.
    """
    if _NUMBER.fullmatch(after):
        return Left(
            "its number is another one after each rotation, so that it would be taken again and "
            "again: have it renamed with a date (logrotate's dateext)",
            is_harmless=True,
        )
    times = [(found, began) for found in _TIME.finditer(name) if (began := _time_of(found))]
    shard = _SHARD.fullmatch(name)
    if after:
        return _dated(shard, after)
    is_clock = shard is not None and any(found.end() > shard.end("set") for found, _ in times)
    if shard is not None and not is_clock:
        return Said(shard["node"], shard["set"])
    return Said(began=times[-1][1] if times else None)


def _dated(shard: re.Match[str] | None, after: str) -> Said | None:
    """A file whose name ends with a time. The shards of one snapshot have the same."""
    found = _TIME.search(after)
    began = None if found is None else _time_of(found)
    if began is None:
        return None
    if shard is None:
        return Said(began=began)
    return Said(shard["node"], f"{shard['set']}-{format_compact(began)}", began)


def _time_of(found: re.Match[str]) -> datetime | None:
    text = f"{found['day'] or found['day_']}{found['clock'] or found['clock_'] or ''}"
    digits = re.sub("[^0-9]", "", text).ljust(14, "0")
    return _time(digits, "%Y%m%d%H%M%S")


def _time(text: str, format_: str) -> datetime | None:
    """A time in UTC; None for a text that is none, such as the 30th of February."""
    try:
        return document_time(datetime.strptime(text, format_).replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        return None


def _set_of(node: str | None, began: datetime | None) -> str | None:
    """Files of several nodes were made together if their names have the same time."""
    return None if node is None or began is None else format_compact(began)


def _literal(text: str) -> str:
    return re.escape(text).replace(r"\*", "[^/]*")
