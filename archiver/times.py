"""Ranges of time as people write them and as DescribeBackups takes them."""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from archiver.errors import UsageError

ALL = "all"
_LAST = re.compile(r"last-(\d{1,6})([dh])")
_WEEK = re.compile(r"\d{4}-?W")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}|\d{8}")
_LATEST = datetime.max.replace(tzinfo=UTC) - timedelta(minutes=1)  # widening must fit
_FORMS = "START..END, START.., 2026-11-01, last-7d, last-36h or all; times are UTC"
# Before the vendor had the service. Backups are kept for up to 730 days, or as long as their
# instance lives; a listing costs no more requests for a start that is earlier than all of them.
_FIRST = datetime(2010, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class TimeRange:
    """From ``start`` to ``end``, aware UTC, ``start`` before ``end``."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start.tzinfo is None or self.end.tzinfo is None:
            raise UsageError("a time range needs times with a time zone")
        if self.end > _LATEST:
            raise UsageError("a time range must end before the last minute of year 9999")
        if self.end <= self.start:
            raise UsageError(
                f"the range's end ({_wire(self.end)}) is not after its start ({_wire(self.start)})"
            )

    @classmethod
    def parse(cls, text: str, now: datetime) -> "TimeRange":
        """Read one of START..END, START.., a date, ``last-7d``, ``last-36h``, ``all``.

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
                raise UsageError(f"range {text!r} reaches back before year 1") from None
        start, dots, end = text.partition("..")
        if not dots:
            if not _DATE.fullmatch(text):
                raise UsageError(f"range {text!r} cannot be read", hint=f"write {_FORMS}")
            return cls(_moment(text, text), _end(text, text))
        if not start:
            raise UsageError(f"range {text!r} has no start", hint=f"write {_FORMS}")
        return cls._between(_moment(start, text), _end(end, text) if end else now, text)

    @classmethod
    def _between(cls, start: datetime, end: datetime, text: str) -> "TimeRange":
        """Raises UsageError in the words of who typed ``text``."""
        if end > start:
            return cls(start, end)
        if text.endswith(".."):
            raise UsageError(f"range {text!r} begins in the future: it is {_wire(end)} now")
        raise UsageError(f"range {text!r}: its end is not after its start")

    @classmethod
    def everything(cls, now: datetime) -> "TimeRange":
        """All that a source still lists."""
        return cls(_FIRST, now)

    def on_the_wire(self) -> tuple[str, str]:
        """StartTime and EndTime: whole minutes, widened and never narrowed."""
        start = self.start.astimezone(UTC).replace(second=0, microsecond=0)
        end = self.end.astimezone(UTC)
        if end.second or end.microsecond:
            end = end.replace(second=0, microsecond=0) + timedelta(minutes=1)
        return _wire(start), _wire(end)

    def __str__(self) -> str:
        return "..".join(self.on_the_wire())


def parse_moment(text: str) -> datetime:
    """A moment as people write it, aware UTC; a date is its last moment. Raises UsageError."""
    try:
        if _DATE.fullmatch(text):
            return datetime.combine(date.fromisoformat(text), time.max, UTC)
        if _WEEK.match(text):
            raise ValueError  # noqa: TRY301 - first or last moment: it does not say
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise UsageError(
            f"{text!r} is not a time", hint="write 2026-11-01 or 2026-11-01T02:15Z; UTC"
        ) from None


def _wire(moment: datetime) -> str:
    # Not strftime: it writes a year before 1000 in fewer than four digits.
    return f"{moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='minutes')}Z"


# The start of everything, as a query has it.
EVERYTHING_FROM = _wire(_FIRST)


def _end(text: str, whole: str) -> datetime:
    """The end of a range; a date means the whole of that day."""
    moment = _moment(text, whole)
    if not _DATE.fullmatch(text):
        return moment
    try:
        return moment + timedelta(days=1)
    except OverflowError:
        raise UsageError(f"range {whole!r} reaches beyond year 9999") from None


def _moment(text: str, whole: str) -> datetime:
    try:
        if _DATE.fullmatch(text):
            return datetime.combine(date.fromisoformat(text), time.min, UTC)
        if _WEEK.match(text):
            raise ValueError  # noqa: TRY301 - its end would be the first moment of that day
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise UsageError(
            f"{text!r} in range {whole!r} is not a time", hint=f"write {_FORMS}"
        ) from None
