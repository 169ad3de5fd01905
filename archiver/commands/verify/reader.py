"""Reads one object after the other, and judges them."""

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from anyio.streams.memory import MemoryObjectReceiveStream

from archiver.archive.measure import measure, new_block
from archiver.archive.reading import read_record
from archiver.commands.verify import events
from archiver.commands.verify.findings import Fault, Finding
from archiver.commands.verify.judge import judge
from archiver.commands.verify.model import VerifySummary
from archiver.commands.verify.results import Results
from archiver.commands.verify.statements import Statements
from archiver.concurrency import in_thread
from archiver.errors import BadDocument, ObjectMissing, StoreError
from archiver.stores.base import Store

Due = tuple[str, Statements]  # a file to read: its month, and what is written about it


class Reader:
    """Reads files for all workers of a run."""

    def __init__(
        self,
        store: Store,
        results: Results,
        summary: VerifySummary,
        found: Callable[[Finding], None],
        observer: events.Observer,
    ) -> None:
        self._store: Final = store
        self._results: Final = results
        self._summary: Final = summary
        self._found: Final = found
        self._observer: Final = observer

    async def work(self, queue: MemoryObjectReceiveStream[Due]) -> None:
        """Work as one worker, with one block of memory, until the queue ends."""
        async with queue:
            block = await in_thread(new_block)
            async for month, statements in queue:
                await self._verify(month, statements, block)

    async def _verify(self, month: str, statements: Statements, block: memoryview) -> None:
        """Read one object and report what is wrong; read it again if it was replaced meanwhile."""
        found = await self._read(month, statements, block)
        if found:
            now = await self._replaced(statements)
            if now is not None:
                found = await self._read(month, now, block)
        for finding in found:
            self._found(finding)
        if found:
            await self._results.wrong(month, statements.key, found[0].fault)

    async def _read(self, month: str, statements: Statements, block: memoryview) -> list[Finding]:
        key, size = statements.key, statements.record.size
        try:
            measured = await measure(
                self._store, key, size, block, self._advanced, is_log=statements.record.is_log
            )
        except ObjectMissing as error:
            instead = error.message.partition("there is no such object: ")[2]
            text = f"its record is here, and {instead or 'it is not'}"
            return [Finding(key, Fault.MISSING, text)]
        except StoreError as error:
            return [Finding(key, Fault.UNREADABLE, error.message)]
        self._summary.read += 1
        self._summary.bytes_read += measured.size
        found = judge(statements, measured)
        if not found:
            self._observer(events.Verified(key, measured.size, measured.sha256))
            is_named = statements.sums is not None
            await self._results.right(month, key, measured.size, measured.sha256, named=is_named)
        return found

    async def _replaced(self, statements: Statements) -> Statements | None:
        """What is written about it now, if a pull has replaced it since it was surveyed."""
        with suppress(BadDocument, StoreError):
            record = await read_record(self._store, statements.record.key)
            if record is not None and record != statements.record:
                return Statements(record, None, statements.verified, statements.others)
        return None

    def _advanced(self, size: int) -> None:
        self._observer(events.Advanced(size))
