"""Reads one object after the other, and judges them: in this process, or in others."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

from archiver.archive.archive import Archive
from archiver.archive.measure import measure, new_block
from archiver.archive.reading import read_record
from archiver.commands.verify import events
from archiver.commands.verify.findings import Fault, Finding
from archiver.commands.verify.judge import judge
from archiver.commands.verify.statements import Statements
from archiver.concurrency import in_thread
from archiver.errors import BadDocument, ObjectMissing, StoreError
from archiver.jobs import Workplace
from archiver.stores.base import Store


@dataclass(frozen=True, slots=True)
class Right:
    """An object that agrees with everything that is written about it; ``is_named`` in
    SHA256SUMS."""

    size: int
    sha256: str
    is_named: bool


@dataclass(frozen=True, slots=True)
class Reading:
    """What came of reading an object: ``files`` is how often it was read to its end, with
    ``size`` bytes in total."""

    findings: tuple[Finding, ...] = ()
    right: Right | None = None
    files: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True)
class OpenReader:
    """An OpenWork that reads objects of an archive."""

    archive: Archive

    @asynccontextmanager
    async def __call__(self, place: Workplace) -> AsyncGenerator["Reader", None]:
        if place.is_elsewhere:
            await self.archive.check_same()
        yield Reader(self.archive.store, place.observer)


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads objects, any number at once, each into 1 MiB of memory that is used again."""

    store: Store
    observer: Callable[[events.Advanced], None]
    _blocks: list[memoryview] = field(default_factory=list)

    async def __call__(self, statements: Statements) -> Reading:
        """Read one object, and judge it; read it again if it was replaced meanwhile."""
        block = self._blocks.pop() if self._blocks else await in_thread(new_block)
        try:
            reading = await self._read(statements, block)
            now = await self._replaced(statements) if reading.findings else None
            if now is None:
                return reading
            again = await self._read(now, block)
            return replace(again, files=reading.files + again.files, size=reading.size + again.size)
        finally:
            self._blocks.append(block)

    async def _read(self, statements: Statements, block: memoryview) -> Reading:
        key, size = statements.key, statements.record.size
        try:
            measured = await measure(
                self.store, key, size, block, self._advanced, is_log=statements.record.is_log
            )
        except ObjectMissing as error:
            instead = error.message.partition("there is no such object: ")[2]
            text = f"its record is here, and {instead or 'it is not'}"
            return Reading((Finding(key, Fault.MISSING, text),))
        except StoreError as error:
            return Reading((Finding(key, Fault.UNREADABLE, error.message),))
        found = tuple(judge(statements, measured))
        is_named = statements.sums is not None
        right = None if found else Right(measured.size, measured.sha256, is_named)
        return Reading(found, right, 1, measured.size)

    async def _replaced(self, statements: Statements) -> Statements | None:
        """What is written about it now, if a pull has replaced it since it was surveyed."""
        with suppress(BadDocument, StoreError):
            record = await read_record(self.store, statements.record.key)
            if record is not None and record != statements.record:
                return Statements(record, None, statements.verified, statements.others)
        return None

    def _advanced(self, size: int) -> None:
        self.observer(events.Advanced(size))
