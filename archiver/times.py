"""Parses, formats and measures times, and parses time ranges. Every datetime is aware UTC."""

import re
from collections import defaultdict
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from archiver.errors import UsageError

ALL = "all"
_LAST = re.compile(r"last-(\d{1,6})([dh])")
_WEEK = re.compile(r"\d{4}-?W")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}|\d{8}")
_COMPACT_TIME = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_LATEST = datetime.max.replace(tzinfo=UTC) - timedelta(minutes=1)  # rounding up must fit
_FORMS = "START..END, START.., 2026-11-01, last-7d, last-36h or all; times are UTC"
# Before the vendor had the service. Backups are kept for up to 730 days, or as long as their
# instance lives; a listing costs no more requests for a start that is earlier than all of them.
_FIRST = datetime(2010, 1, 1, tzinfo=UTC)
# The years of times in documents and names: four digits, also for a year before and after.
_FIRST_YEAR, _LAST_YEAR = 1970, 9998


def parse_iso(text: str) -> datetime:
    """A time in ISO 8601; UTC where it has no offset. Raises ValueError."""
    try:
        return _as_utc(datetime.fromisoformat(text))
    except OverflowError:
        raise ValueError(f"{text:.40} is not a valid time") from None


def parse_document_time(text: str) -> datetime:
    """As :func:`parse_iso`; raises ValueError also for a time that no document can have."""
    return document_time(parse_iso(text))


def parse_compact(text: str) -> datetime:
    """A time like 20261124T021500Z, as the names of sets have it. Raises ValueError, also for one
    that no document can have."""
    if _COMPACT_TIME.fullmatch(text) is None:
        raise ValueError(text)
    # Twenty times as fast as strptime: listings have many.
    return document_time(datetime.fromisoformat(text))


def document_time(moment: datetime) -> datetime:
    """The same moment. Raises ValueError where nothing can be added to it, or subtracted, so that
    no document can have it."""
    if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        raise ValueError(f"{format_iso(moment)} is too far in the past or in the future")
    return moment


def format_iso(moment: datetime, timespec: str = "seconds") -> str:
    """2026-11-24T02:15:00Z; ``timespec`` as that of datetime.isoformat."""
    # Not strftime: it writes a year before 1000 in fewer than four digits.
    return f"{moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec=timespec)}Z"


def format_compact(moment: datetime) -> str:
    """20261124T021500Z, for names of files and folders."""
    return format_iso(moment).replace("-", "").replace(":", "")


def format_minute(moment: datetime) -> str:
    """2026-11-24 02:15, for people; UTC."""
    return moment.astimezone(UTC).isoformat(" ", "minutes")[:16]


def format_day(moment: datetime) -> str:
    """2026-11-24; UTC."""
    return f"{moment.astimezone(UTC):%Y-%m-%d}"


def format_month(moment: datetime) -> str:
    """2026/11, the folders of a month; UTC."""
    return format_iso(moment)[:7].replace("-", "/")


def _as_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class TimeRange:
    """From ``start`` to ``end``, aware UTC, ``start`` before ``end``."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start.tzinfo is None or self.end.tzinfo is None:
            raise UsageError("the times of a range need a time zone")
        if self.end > _LATEST:
            raise UsageError("a time range must end before the last minute of year 9999")
        if self.end <= self.start:
            start, end = format_iso(self.start, "minutes"), format_iso(self.end, "minutes")
            raise UsageError(f"the range's end ({end}) is not after its start ({start})")

    @classmethod
    def parse(cls, text: str, now: datetime) -> "TimeRange":
        """Parse one of START..END, START.., a date, ``last-7d``, ``last-36h``, ``all``.

        A date as START is its first moment, as END its last, alone the whole day. Times may be
        ISO 8601 in the extended (2026-11-01T02:15Z) or the basic form (20261101T0215Z); without
        an offset they are UTC. Raises UsageError.
        """
        if text == ALL:
            return cls.everything(now)
        if last := _LAST.fullmatch(text):
            amount, unit = int(last[1]), last[2]
            if amount == 0:
                raise UsageError(f"range {text!r} is empty", hint="ask for at least last-1h")
            span = timedelta(days=amount) if unit == "d" else timedelta(hours=amount)
            try:
                return cls(now - span, now)
            except OverflowError:
                raise UsageError(f"range {text!r} starts before year 1") from None
        start, dots, end = text.partition("..")
        if not dots:
            if not _DATE.fullmatch(text):
                raise UsageError(f"invalid range {text!r}", hint=f"write {_FORMS}")
            return cls(_start(text, text), _end(text, text))
        if not start:
            raise UsageError(f"range {text!r} has no start", hint=f"write {_FORMS}")
        return cls._between(_start(start, text), _end(end, text) if end else now, text)

    @classmethod
    def _between(cls, start: datetime, end: datetime, text: str) -> "TimeRange":
        """Raises UsageError that quotes ``text``, as it was typed."""
        if end > start:
            return cls(start, end)
        if text.endswith(".."):
            now = format_iso(end, "minutes")
            raise UsageError(f"range {text!r} starts in the future: it is {now} now")
        raise UsageError(f"range {text!r}: its end is not after its start")

    @classmethod
    def everything(cls, now: datetime) -> "TimeRange":
        """All that a source still lists."""
        return cls(_FIRST, now)

    def query_bounds(self) -> tuple[str, str]:
        """Start and end for a query, in whole minutes; rounded outwards, never inwards."""
        start = self.start.astimezone(UTC).replace(second=0, microsecond=0)
        end = self.end.astimezone(UTC)
        if end.second or end.microsecond:
            end = end.replace(second=0, microsecond=0) + timedelta(minutes=1)
        return format_iso(start, "minutes"), format_iso(end, "minutes")

    def __str__(self) -> str:
        return "..".join(self.query_bounds())


# The start of ``TimeRange.everything``, as in a query.
EVERYTHING_FROM = format_iso(_FIRST, "minutes")

# How people may write a moment.
MOMENTS = "2026-11-01 or 2026-11-01T02:15Z, in UTC"


def parse_moment(text: str) -> datetime:
    """A moment as people write it, aware UTC; a date is its last moment. Raises UsageError."""
    try:
        if _DATE.fullmatch(text):
            return datetime.combine(date.fromisoformat(text), time.max, UTC)
        return _parse_time(text)
    except (ValueError, OverflowError):
        raise UsageError(f"invalid time {text!r}", hint=f"write {MOMENTS}") from None


def _parse_time(text: str) -> datetime:
    if _WEEK.match(text):
        raise ValueError("a week does not say whether its first or its last moment is meant")
    return _as_utc(datetime.fromisoformat(text))


def _start(text: str, whole: str) -> datetime:
    """A time of the range ``whole``; a date is its first moment."""
    try:
        if _DATE.fullmatch(text):
            return datetime.combine(date.fromisoformat(text), time.min, UTC)
        return _parse_time(text)
    except (ValueError, OverflowError):
        raise UsageError(
            f"invalid time {text!r} in range {whole!r}", hint=f"write {_FORMS}"
        ) from None


def _end(text: str, whole: str) -> datetime:
    """The end of a range; a date includes the whole of that day."""
    moment = _start(text, whole)
    if not _DATE.fullmatch(text):
        return moment
    try:
        return moment + timedelta(days=1)
    except OverflowError:
        raise UsageError(f"range {whole!r} ends after year 9999") from None


class Stopwatch:
    """Sums up the ``seconds`` that named steps take, including those that fail."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.seconds: Final = defaultdict[str, float](float)
        self._clock: Final = clock

    @contextmanager
    def measure(self, step: str) -> Generator[None, None, None]:
        """Add the time until the end of the block."""
        began = self._clock()
        try:
            yield
        finally:
            self.seconds[step] += max(0.0, self._clock() - began)
