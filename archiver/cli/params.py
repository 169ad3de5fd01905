"""Parameter types: sizes, ranges, times, durations, percentages, instance IDs."""

import os
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import click

from archiver.cli.usage import nearest
from archiver.documents import is_key
from archiver.errors import UsageError
from archiver.ids import is_instance_id
from archiver.proxies import Proxies
from archiver.shards import Shard
from archiver.stray_characters import stray_characters_in
from archiver.times import ALL, MOMENTS, TimeRange, parse_moment

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST = 36500 * 86400
_SHARE = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*(%?)")
_ANCHOR = re.compile(r"(\d{8}T\d{6}Z-[0-9a-f]{6}):([0-9a-fA-F]{64})")
_WAIT_FOR = re.compile(r"([a-z]{1,4}-[A-Za-z0-9-]{1,60}):(\d{1,19}(?:,\d{1,19})*)", re.ASCII)


LATEST = "latest"
FOREVER = "forever"
ALL_INSTANCES = "all"


class CleanPath(click.Path):
    """A path without blanks, quotes or control characters around it."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        if (wrong := stray_characters_in(os.fspath(value))) is not None:
            self.fail(f"{os.fspath(value)!a}: {wrong}", param, ctx)
        return super().convert(value, param, ctx)


class Word(click.Choice[str]):
    """One of a few words in lower case, which may be given in any case. For another one, the error
    names the nearest of them."""

    def __init__(self, words: Iterable[str]) -> None:
        super().__init__([str(word) for word in words], case_sensitive=False)

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if (word := value.casefold()) not in self.choices:
            known = ", ".join(self.choices)
            near = nearest(value, self.choices)
            self.fail(f"{value!r} is not one of {known}{near}", param, ctx)
        return word


class Count(click.IntRange):
    """A whole number within a range."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return int(super().convert(value, param, ctx))
        except click.BadParameter:
            self.fail(f"{value!r} is not a whole number {_within(self.min, self.max)}", param, ctx)


class Real(click.FloatRange):
    """A number within a range, with or without decimals."""

    name = "number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            return float(super().convert(value, param, ctx))
        except click.BadParameter:
            self.fail(f"{value!r} is not a number {_within(self.min, self.max)}", param, ctx)


def _within(least: float | None, most: float | None) -> str:
    return f"from {least:g} on" if most is None else f"from {least:g} to {most:g}"


class Anchor(click.ParamType[tuple[str, str]]):
    """The ID and SHA-256 of drill evidence, as ``20261124T021500Z-3f9a1c:9f86…``."""

    name = "anchor"

    def convert(
        self, value: str | tuple[str, str], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        match = _ANCHOR.fullmatch(value.strip())
        if match is None:
            self.fail(
                f"invalid anchor {value!r} (use DRILL_ID:SHA256)",
                param,
                ctx,
            )
        return match[1], match[2].lower()


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
            self.fail(f"invalid size {value!r} (use 16MiB, 64M or 1000000)", param, ctx)
        size = int(float(match[1]) * 1024 ** _POWERS[match[2].lower()])
        if size < self._least:
            self.fail(f"{value!r} is below the minimum of {self._least:,} bytes", param, ctx)
        return size


class Range(click.ParamType[TimeRange | None]):
    """A time range in UTC; None for ``all``, the default of every command."""

    name = "range"

    def convert(
        self, value: str | TimeRange, param: click.Parameter | None, ctx: click.Context | None
    ) -> TimeRange | None:
        if isinstance(value, TimeRange):
            return value
        if value == ALL:
            return None
        try:
            return TimeRange.parse(value, datetime.now(UTC))
        except UsageError as error:
            self.fail(str(error), param, ctx)


class Moment(click.ParamType[datetime | str]):
    """``latest``, or a time in UTC; a date means its last moment."""

    name = "time"

    def convert(
        self, value: str | datetime, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime | str:
        if isinstance(value, datetime) or value == LATEST:
            return value
        try:
            return parse_moment(value)
        except UsageError as error:
            self.fail(f"{error.message} (write {LATEST}, {MOMENTS})", param, ctx)


class Duration(click.ParamType[float]):
    """Seconds, as ``90s``, ``15m``, ``26h`` or ``2d``."""

    name = "duration"

    def convert(
        self, value: str | float, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, int | float):
            return float(value)
        match = _DURATION.fullmatch(value.strip())
        if match is None:
            self.fail(f"invalid duration {value!r} (use 90s, 15m, 26h or 2d)", param, ctx)
        seconds = float(match[1]) * _SECONDS[match[2]]
        if seconds > _LONGEST:
            self.fail(f"{value!r} is more than a hundred years", param, ctx)
        return seconds


class Share(click.ParamType[Fraction]):
    """A fraction, as ``0.1%`` or ``0.001``; ``above_zero``: 0 is refused."""

    name = "share"

    def __init__(self, *, above_zero: bool = False) -> None:
        self._above_zero = above_zero

    def convert(
        self, value: str | Fraction, param: click.Parameter | None, ctx: click.Context | None
    ) -> Fraction:
        if isinstance(value, Fraction):
            return value
        match = _SHARE.fullmatch(value.strip())
        if match is None:
            self.fail(f"invalid percentage {value!r} (use 5%, 0.1% or 0.001)", param, ctx)
        share = Fraction(match[1]) / (100 if match[2] else 1)
        if share > 1:
            meant = "" if match[2] or share > 100 else f" (did you mean {match[1]}%?)"
            self.fail(f"{value!r} is more than 100%{meant}", param, ctx)
        if self._above_zero and not share:
            self.fail(f"{value!r} must be more than 0%", param, ctx)
        return share


class AssertionText(click.ParamType[str]):
    """An assertion; in the environment, ``;`` separates several."""

    name = "text"
    envvar_list_splitter = ";"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from archiver.commands.drill.assertions import parse

        try:
            parse(value)
        except UsageError as error:
            self.fail(str(error), param, ctx)
        return value


class ProxyUrl(click.ParamType[Proxies]):
    """A proxy, or ``none``. Errors do not quote the value: it may contain a password."""

    name = "proxy"

    def convert(
        self, value: str | Proxies, param: click.Parameter | None, ctx: click.Context | None
    ) -> Proxies:
        if isinstance(value, Proxies):
            return value
        try:
            return Proxies.given(value)
        except UsageError as error:
            self.fail(error.message.partition(": ")[2], param, ctx)


class OneShard(click.ParamType[Shard]):
    """A shard, as ``0/3``."""

    name = "i/n"

    def convert(
        self, value: str | Shard, param: click.Parameter | None, ctx: click.Context | None
    ) -> Shard:
        if isinstance(value, Shard):
            return value
        try:
            return Shard.parse(value)
        except UsageError as error:
            self.fail(str(error), param, ctx)


class SetKey(click.ParamType[str]):
    """A backup set, by its key in the archive, like ``r-x/2026/11/20261124T021500Z-1``."""

    name = "key"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        key = value.removesuffix("/")
        if not is_key(key):
            self.fail(f"{value!a} is not the key of a set in an archive", param, ctx)
        return key


class InstanceId(click.ParamType[str]):
    """An instance ID like ``r-bp1zxszhcgatnx``, or what else an instance of an archive may be
    called."""

    name = "id"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value == ALL_INSTANCES:
            self.fail("'all' is not possible here: name each instance by its ID", param, ctx)
        if not is_instance_id(value):
            self.fail(
                f"invalid instance ID {value!a:.100} (expected e.g. r-bp1zxszhcgatnx)", param, ctx
            )
        return value


class WaitFor(click.ParamType[tuple[str, tuple[str, ...]]]):
    """An instance and the jobs of its backup, as ``r-bp1zxszhcgatnx:1022,2480``."""

    name = "instance:job"

    def convert(
        self,
        value: str | tuple[str, tuple[str, ...]],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[str, tuple[str, ...]]:
        if isinstance(value, tuple):
            return value
        match = _WAIT_FOR.fullmatch(value)
        if match is None:
            self.fail(f"invalid job {value!r} (use INSTANCE:JOB, or INSTANCE:JOB,JOB)", param, ctx)
        return match[1], tuple(match[2].split(","))


class Retention(click.ParamType[int]):
    """Days from 7 to 730; ``forever`` is -1."""

    name = "days"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        if value.casefold() == FOREVER:
            return -1
        if not (value.isascii() and value.isdecimal() and 7 <= int(value[:9]) <= 730):
            self.fail(
                f"{value!r} is neither a number of days from 7 to 730 nor forever", param, ctx
            )
        return int(value)


class InstanceIdOrAll(InstanceId):
    """An instance ID, or ``all``."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return value if value == ALL_INSTANCES else super().convert(value, param, ctx)


class Tag(click.ParamType[tuple[str, str]]):
    """A tag of an instance, as ``env=prod``; the value may be empty."""

    name = "key=value"

    def convert(
        self, value: str | tuple[str, str], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        key, is_there, wanted = value.partition("=")
        if not key or not is_there:
            self.fail(f"invalid tag {value!r} (use KEY=VALUE)", param, ctx)
        return key, wanted
