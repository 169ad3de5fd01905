"""Parameter types: sizes, ranges, instance ids."""

import re
from datetime import UTC, datetime, timedelta

import click

from archiver.errors import UsageError
from archiver.timerange import TimeRange

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)
_SPAN = re.compile(r"(\d{1,5})([dh])")
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_INSTANCE = re.compile(r"[a-z]{1,4}-[A-Za-z0-9-]{1,60}")


class Size(click.ParamType[int]):
    """Bytes, as ``16MiB``, ``64M`` or ``1000000``; units are powers of 1024."""

    name = "size"

    def __init__(self, least: int = 1) -> None:
        self._least = least

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            self.fail(f"{value!r} is not a size; write 16MiB, 64M or 1000000", param, ctx)
        size = int(float(match[1]) * 1024 ** _POWERS[match[2].lower()])
        if size < self._least:
            self.fail(f"{value!r} is less than {self._least:,} bytes", param, ctx)
        return size


class Range(click.ParamType[TimeRange]):
    """A range of time, in UTC."""

    name = "range"

    def convert(
        self, value: str | TimeRange, param: click.Parameter | None, ctx: click.Context | None
    ) -> TimeRange:
        if isinstance(value, TimeRange):
            return value
        try:
            return TimeRange.parse(value, datetime.now(UTC))
        except UsageError as error:
            self.fail(str(error), param, ctx)


class Span(click.ParamType[timedelta]):
    """A length of time, as ``30d`` or ``36h``."""

    name = "span"

    def convert(
        self, value: str | timedelta, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        if isinstance(value, timedelta):
            return value
        match = _SPAN.fullmatch(value.strip())
        if match is None:
            self.fail(f"{value!r} is no length of time; write 30d or 36h", param, ctx)
        amount = int(match[1])
        return timedelta(days=amount) if match[2] == "d" else timedelta(hours=amount)


class InstanceId(click.ParamType[str]):
    """An instance id like ``r-bp1zxszhcgatnx``."""

    name = "id"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not _INSTANCE.fullmatch(value):
            self.fail(
                f"{value!r} is not an instance id; they look like r-bp1zxszhcgatnx", param, ctx
            )
        return value
