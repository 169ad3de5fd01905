"""Counting while a dump is read, in memory that the file's size does not change."""

from array import array
from collections import Counter
from itertools import accumulate
from types import MappingProxyType
from typing import Final

from archiver.rdb.contents import Contents, Database, Expiries, Module
from archiver.rdb.fault import Unknown
from archiver.rdb.values import ALWAYS, TYPE_NAMES

MOST_DATABASES: Final = 1024
MOST_MODULES: Final = 1024
MOST_AUX: Final = 256
MOST_EXACT_TIMES: Final = 2**18
MOST_BUCKETS: Final = 2**17
MINUTE: Final = 60_000  # ms

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


class Times:
    """Moments, ms since the epoch: exact, or so many in each bucket."""

    def __init__(self) -> None:
        self.exact = array("q")
        self.buckets: Counter[int] = Counter()

    def fold(self, width: int) -> None:
        """Put the exact ones into buckets of ``width`` ms."""
        self.buckets.update(time // width for time in self.exact)
        self.exact = array("q")

    def widen(self) -> None:
        """Make each two buckets one."""
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
        self.first_fields = Times()  # of hashes: when the first of their fields expires
        self.hint: tuple[int, int] | None = None


class ModuleTally:
    """The counts of one module type."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.keys = 0
        self.aux_records = 0


class Tally:
    """The counts of a dump. Database 0 is selected until another is."""

    def __init__(
        self, most_exact_times: int = MOST_EXACT_TIMES, most_buckets: int = MOST_BUCKETS
    ) -> None:
        self._most_exact_times = most_exact_times
        self._most_buckets = most_buckets
        self._databases: dict[int, DatabaseTally] = {}
        self._modules: dict[str, ModuleTally] = {}
        self._recent = 0  # times that no bucket holds yet
        self._width = 1
        self.selected = DatabaseTally()
        self.aux: dict[str, str] = {}
        self.functions = 0
        self.expiring_fields = 0
        self.slots = 0

    def select(self, number: int, offset: int) -> None:
        """Count for database ``number`` from here on.

        Raises:
            Unknown: one database more than we keep count of.
        """
        if number not in self._databases and len(self._databases) == MOST_DATABASES:
            raise Unknown(offset, f"more than {MOST_DATABASES} databases")
        if not self._databases:
            self._databases[number] = self.selected
        self.selected = self._databases.setdefault(number, DatabaseTally())

    def module(self, identity: int, offset: int) -> tuple[str, ModuleTally]:
        """The module type of a 64-bit id: nine letters of 6 bits, a version of 10 (module.c).

        Raises:
            Unknown: one type more than we keep count of.
        """
        name = "".join(_LETTERS[identity >> (10 + 6 * place) & 0x3F] for place in range(8, -1, -1))
        if name not in self._modules:
            if len(self._modules) == MOST_MODULES:
                raise Unknown(offset, f"more than {MOST_MODULES} module types")
            self._modules[name] = ModuleTally(identity & 0x3FF)
        return name, self._modules[name]

    def expires(self, time: int) -> None:
        """A key of the selected database expires at ``time``, ms since the epoch."""
        self._note(self.selected.expiries, time)

    def fields_expire(self, fields: int, first: int) -> None:
        """So many fields of a hash of the selected database do, the first of them at ``first``."""
        self.expiring_fields += fields
        self._note(self.selected.first_fields, first)

    def _note(self, times: Times, time: int) -> None:
        times.exact.append(time)
        self._recent += 1
        if self._recent >= self._most_exact_times:
            self._fold()

    def _fold(self) -> None:
        """Put the times into buckets, and widen these until they are few enough."""
        self._width = max(self._width, MINUTE)
        every = self._every()
        for times in every:
            times.fold(self._width)
        self._recent = 0
        while sum(len(times.buckets) for times in every) > self._most_buckets:
            self._width *= 2
            for times in every:
                times.widen()

    def _every(self) -> list[Times]:
        databases = self._databases.values() or [self.selected]
        return [times for one in databases for times in (one.expiries, one.first_fields)]

    def contents(self, *, is_complete: bool) -> Contents:
        """All of it, frozen."""
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
