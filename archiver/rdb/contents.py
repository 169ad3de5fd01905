"""What an inspection found, frozen. Sizes and offsets are bytes, times as named."""

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
    """Whether the bytes are those that a server wrote, all of them and no others."""

    INTACT = "intact"
    OPAQUE = "opaque"  # intact by its checksum, but of a version or with types that we don't know
    PADDED = "padded"  # whole, with bytes behind the end that are not part of it
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    UNPROVEN = "unproven"  # not ours to read, and it carries no checksum either
    EMPTY = "empty"  # no byte at all
    FOREIGN = "foreign"  # neither RDB nor AOF


@dataclass(frozen=True, slots=True)
class Expiries:
    """When the keys of a database, or fields of its hashes, expire.

    Exact (``width`` 1) up to a number of keys that bounds memory; beyond it the times are counted
    in buckets of ``width`` milliseconds: a minute, or more where they lie far apart.
    ``starts`` are the buckets in order, in ms since the epoch; ``totals`` the keys up to and with
    each. Not to be changed.
    """

    width: int
    starts: "array[int]" = field(repr=False)
    totals: "array[int]" = field(repr=False)

    @property
    def count(self) -> int:
        """Keys with an expiry."""
        return self.totals[-1] if self.totals else 0

    def expired_at(self, moment: datetime) -> tuple[int, int]:
        """At least and at most how many of the keys have expired at an aware ``moment``.

        A server drops a key at load when its time lies before the server's (Redis, rdb.c); one of
        that very millisecond stays. The two are the same where the times are exact.
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

    ``keys`` by what TYPE answers for them: string, list, set, zset, hash, stream, or the nine
    letters of a module's type. ``hint`` is what the server said before its keys: how many keys,
    and how many with an expiry; it is none of the evidence. ``first_field_expiries`` say of each
    hash that has fields with an expiry when the first of them goes: before, none of it is gone.
    """

    number: int
    keys: Mapping[str, int]
    expiries: Expiries
    first_field_expiries: Expiries
    hint: tuple[int, int] | None

    @property
    def total(self) -> int:
        """Keys of all types."""
        return sum(self.keys.values())

    @property
    def hashes_with_expiring_fields(self) -> int:
        return self.first_field_expiries.count


@dataclass(frozen=True, slots=True)
class Module:
    """What a dump holds of one module type, and the version of its encoding."""

    version: int
    keys: int
    aux_records: int


@dataclass(frozen=True, slots=True)
class Contents:
    """What a dump holds. Unless ``is_complete``, only what came before the reading stopped, or
    of a version whose types may mean something else: its counts prove nothing.

    ``aux`` are the fields at the beginning (``redis-ver``, ``ctime``, …), without those that are
    too long to be of use. ``slots`` is how many cluster slots were described.
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
        """Keys of all types, in all databases."""
        return sum(database.total for database in self.databases)

    @property
    def keys(self) -> Mapping[str, int]:
        """Keys by type, over all databases."""
        counts: dict[str, int] = {}
        for database in self.databases:
            for name, count in database.keys.items():
                counts[name] = counts.get(name, 0) + count
        return counts

    def expired_at(self, moment: datetime) -> tuple[int, int]:
        """At least and at most how many keys have expired; see :meth:`Expiries.expired_at`."""
        bounds = [database.expiries.expired_at(moment) for database in self.databases]
        return sum(low for low, _ in bounds), sum(high for _, high in bounds)


@dataclass(frozen=True, slots=True)
class CommandLog:
    """The commands of an AOF, those behind its preamble if it has one.

    ``good_until`` is the offset behind the last command that a server would keep, ``commands`` how
    many it would: not one that is cut, nor a transaction without its EXEC. ``databases`` are the
    numbers that SELECT named. ``timestamp`` is the last annotation's, in seconds since the epoch.
    """

    commands: int
    databases: tuple[int, ...]
    good_until: int
    timestamp: int | None


@dataclass(frozen=True, slots=True)
class Inspection:
    """What :func:`archiver.rdb.inspect` found in a file of ``size`` bytes.

    ``reason`` is one line, ``offset`` the byte that it speaks of. ``padding`` are the bytes behind
    the end of a padded file. ``magic`` and ``contents`` are an RDB's, or a preamble's.
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
        """A log that ends within a command. A server cuts it back to the last whole one, and
        serves (aof-load-truncated); one that ends within its preamble it refuses."""
        return self.verdict is Verdict.TRUNCATED and self.log is not None

    @property
    def is_intact(self) -> bool:
        """Nothing is missing, changed or added, whether or not we can read it."""
        return self.verdict in {Verdict.INTACT, Verdict.OPAQUE}
