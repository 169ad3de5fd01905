"""The result of an inspection, frozen. Sizes and offsets are in bytes."""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from archiver.model import Footer, Kind

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


class Verdict(StrEnum):
    """Whether the file is exactly what a server wrote."""

    INTACT = "intact"
    OPAQUE = "opaque"  # the checksum is right, but we do not know its version or a type in it
    PADDED = "padded"  # complete, with bytes after its end that are not part of it
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    UNPROVEN = "unproven"  # we cannot parse it, and it has no checksum
    EMPTY = "empty"  # zero bytes
    FOREIGN = "foreign"  # neither RDB nor AOF


@dataclass(frozen=True, slots=True)
class Expiries:
    """When the keys of a database, or the fields of its hashes, expire.

    To bound memory, the times are exact (``width`` 1) only up to a number of keys; beyond it they
    are counted in buckets of ``width`` milliseconds: a minute, or more if they are far apart.
    ``starts`` are the sorted starts of the buckets in ms since the epoch, ``totals`` the number of
    keys up to and including each bucket. Do not modify them.
    """

    width: int
    starts: "array[int]" = field(repr=False)
    totals: "array[int]" = field(repr=False)

    @property
    def count(self) -> int:
        """The number of keys with an expiry."""
        return self.totals[-1] if self.totals else 0

    def expired_at(self, moment: datetime) -> tuple[int, int]:
        """Return the least and the greatest number of keys that have expired at ``moment``.

        A server drops a key at load if its time is before the server's (Redis, rdb.c); a key of the
        same millisecond stays. The two numbers are equal where the times are exact.
        """
        now = (moment - _EPOCH) // _MILLISECOND
        surely = bisect_right(self.starts, now - self.width)
        perhaps = bisect_left(self.starts, now)
        return self._keys(surely), self._keys(perhaps)

    def _keys(self, buckets: int) -> int:
        return self.totals[buckets - 1] if buckets else 0


@dataclass(frozen=True, slots=True)
class Database:
    """One numbered database of a dump.

    ``keys`` counts keys by what TYPE returns: string, list, set, zset, hash, stream, or the nine
    letters of a module type. ``hint`` is what the server wrote before the keys (the number of keys
    and of those with an expiry); nothing is concluded from it. ``first_field_expiries`` has for
    each hash with field expiry the time at which its first field expires.
    """

    number: int
    keys: Mapping[str, int]
    expiries: Expiries
    first_field_expiries: Expiries
    hint: tuple[int, int] | None

    @property
    def total(self) -> int:
        """The number of keys of all types."""
        return sum(self.keys.values())


@dataclass(frozen=True, slots=True)
class Module:
    """The data of one module type in a dump, and the version of its encoding."""

    version: int
    keys: int
    aux_records: int


@dataclass(frozen=True, slots=True)
class Contents:
    """What a dump holds.

    The counts prove nothing unless ``is_complete``: parsing stopped early, or the dump is of a
    version whose types may mean something else. ``aux`` has the fields of the header
    (``redis-ver``, ``ctime``, …) except very long ones. ``slots`` is the number of cluster slots
    that are described.
    """

    is_complete: bool
    aux: Mapping[str, str]
    databases: tuple[Database, ...]
    modules: Mapping[str, Module]
    functions: int
    expiring_fields: int
    slots: int

    @property
    def total(self) -> int:
        """The number of keys of all types in all databases."""
        return sum(database.total for database in self.databases)

    @property
    def keys(self) -> Mapping[str, int]:
        """The number of keys by type, over all databases."""
        counts: dict[str, int] = {}
        for database in self.databases:
            for name, count in database.keys.items():
                counts[name] = counts.get(name, 0) + count
        return counts

    def expired_at(self, moment: datetime) -> tuple[int, int]:
        """Return the least and the greatest number of expired keys, as :class:`Expiries` does."""
        bounds = [database.expiries.expired_at(moment) for database in self.databases]
        return sum(low for low, _ in bounds), sum(high for _, high in bounds)


@dataclass(frozen=True, slots=True)
class CommandLog:
    """The commands of an AOF, without its preamble.

    ``commands`` is the number of commands that a server would keep, and ``good_until`` the offset
    after the last of them: a server drops a command that is cut short and a transaction without
    EXEC. ``databases`` are the arguments of SELECT. ``timestamp`` is that of the last annotation,
    in seconds since the epoch.
    """

    commands: int
    databases: tuple[int, ...]
    good_until: int
    timestamp: int | None


@dataclass(frozen=True, slots=True)
class Inspection:
    """What :func:`archiver.rdb.inspect` found in a file of ``size`` bytes.

    ``reason`` is one line, ``offset`` the byte that it refers to. ``padding`` is the number of
    bytes after the end of a padded dump. ``magic`` and ``contents`` are those of an RDB or of a
    log's preamble.
    """

    verdict: Verdict
    reason: str
    offset: int
    size: int
    kind: Kind
    magic: str | None = None
    version: int | None = None
    footer: Footer = Footer.NONE
    padding: int = 0
    contents: Contents | None = None
    log: CommandLog | None = None

    @property
    def is_log_cut_short(self) -> bool:
        """Whether this is a log that ends within a command.

        A server truncates it to the last complete command (aof-load-truncated). It refuses a log
        that ends within its preamble, for which this is False.
        """
        return self.verdict is Verdict.TRUNCATED and self.log is not None

    @property
    def is_intact(self) -> bool:
        """Whether nothing is missing, changed or added, even if we cannot parse it."""
        return self.verdict in {Verdict.INTACT, Verdict.OPAQUE}
