"""Counts keys and expiries while a dump is read. The memory does not grow with the file."""

from array import array
from collections import Counter
from itertools import accumulate
from types import MappingProxyType
from typing import Final

from archiver.rdb.contents import Contents, Database, Expiries, Module
from archiver.rdb.values import ALWAYS, TYPE_NAMES
from archiver.rdb.window import UnsupportedType

MOST_DATABASES: Final = 1024
MOST_MODULES: Final = 1024
MOST_AUX: Final = 256
MOST_EXACT_TIMES: Final = 2**18
MOST_BUCKETS: Final = 2**17
MINUTE: Final = 60_000  # ms

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


class Times:
    """Expiry times in ms since the epoch: exact, or counted in buckets."""

    def __init__(self) -> None:
        self.exact = array("q")
        self.buckets: Counter[int] = Counter()

    def fold(self, width: int) -> None:
        """Move the exact times into buckets of ``width`` ms."""
        self.buckets.update(time // width for time in self.exact)
        self.exact = array("q")

    def widen(self) -> None:
        """Merge every two buckets."""
        wider: Counter[int] = Counter()
        for bucket, count in self.buckets.items():
            wider[bucket // 2] += count
        self.buckets = wider

    def frozen(self, width: int) -> Expiries:
        buckets = sorted((self.buckets or Counter(self.exact)).items())
        return Expiries(
            width=width,
            starts=array("q", (max(start * width, ALWAYS) for start, _ in buckets)),
            totals=array("q", accumulate(count for _, count in buckets)),
        )


class DatabaseTally:
    """The counts of one database."""

    def __init__(self) -> None:
        self.keys = [0] * 256  # by type of value
        self.module_keys: Counter[str] = Counter()
        self.expiries = Times()
        self.first_fields = Times()  # when the first field of a hash expires
        self.hint: tuple[int, int] | None = None


class ModuleTally:
    """The counts of one module type."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.keys = 0
        self.aux_records = 0


class Tally:
    """The counts of a dump. Database 0 is selected at first."""

    def __init__(
        self, most_exact_times: int = MOST_EXACT_TIMES, most_buckets: int = MOST_BUCKETS
    ) -> None:
        self._most_exact_times = most_exact_times
        self._most_buckets = most_buckets
        self._databases: dict[int, DatabaseTally] = {}
        self._modules: dict[str, ModuleTally] = {}
        self._recent = 0  # times that are in no bucket yet
        self._width = 1
        self.selected = DatabaseTally()
        self.aux: dict[str, str] = {}
        self.functions = 0
        self.expiring_fields = 0
        self.slots = 0

    def select(self, number: int, offset: int) -> None:
        """Count the keys that follow for database ``number``.

        Raises:
            UnsupportedType: There are more databases than we count.
        """
        if number not in self._databases and len(self._databases) == MOST_DATABASES:
            raise UnsupportedType(offset, f"more than {MOST_DATABASES} databases")
        if not self._databases:
            self._databases[number] = self.selected
        self.selected = self._databases.setdefault(number, DatabaseTally())

    def module(self, identity: int, offset: int) -> tuple[str, ModuleTally]:
        """Return the name and the counts of a module type.

        ``identity`` is its 64-bit id: nine letters of 6 bits, a version of 10 bits (module.c).

        Raises:
            UnsupportedType: There are more module types than we count.
        """
        name = "".join(_LETTERS[identity >> (10 + 6 * digit) & 0x3F] for digit in range(8, -1, -1))
        if name not in self._modules:
            if len(self._modules) == MOST_MODULES:
                raise UnsupportedType(offset, f"more than {MOST_MODULES} module types")
            self._modules[name] = ModuleTally(identity & 0x3FF)
        return name, self._modules[name]

    def expires(self, time: int) -> None:
        """Note that a key of the selected database expires at ``time`` (ms since the epoch)."""
        self._note(self.selected.expiries, time)

    def fields_expire(self, fields: int, first: int) -> None:
        """Note that so many ``fields`` of a hash expire, the earliest at ``first``."""
        self.expiring_fields += fields
        self._note(self.selected.first_fields, first)

    def _note(self, times: Times, time: int) -> None:
        times.exact.append(time)
        self._recent += 1
        if self._recent >= self._most_exact_times:
            self._fold()

    def _fold(self) -> None:
        """Move the times into buckets, and widen these until they are few enough."""
        self._width = max(self._width, MINUTE)
        all_times = self._all_times()
        for times in all_times:
            times.fold(self._width)
        self._recent = 0
        while sum(len(times.buckets) for times in all_times) > self._most_buckets:
            self._width *= 2
            for times in all_times:
                times.widen()

    def _all_times(self) -> list[Times]:
        databases = self._databases.values() or [self.selected]
        return [times for one in databases for times in (one.expiries, one.first_fields)]

    def contents(self, *, is_complete: bool) -> Contents:
        """Return all counts, frozen."""
        if self._width > 1:
            self._fold()
        numbered = self._databases or {0: self.selected}
        return Contents(
            is_complete=is_complete,
            aux=MappingProxyType(self.aux),
            databases=tuple(
                self._database(number, database)
                for number, database in sorted(numbered.items())
                if any(database.keys) or database.module_keys
            ),
            modules=MappingProxyType(
                {
                    name: Module(module.version, module.keys, module.aux_records)
                    for name, module in self._modules.items()
                }
            ),
            functions=self.functions,
            expiring_fields=self.expiring_fields,
            slots=self.slots,
        )

    def _database(self, number: int, database: DatabaseTally) -> Database:
        keys = Counter(database.module_keys)
        for code, count in enumerate(database.keys):
            if count:
                keys[TYPE_NAMES[code]] += count
        return Database(
            number=number,
            keys=MappingProxyType(dict(keys)),
            expiries=database.expiries.frozen(self._width),
            first_field_expiries=database.first_fields.frozen(self._width),
            hint=database.hint,
        )
