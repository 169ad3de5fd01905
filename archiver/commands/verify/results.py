"""Writes the results of a verify into the archive (:mod:`archiver.archive.verified`).

The documents are written without the archive's lock, because a long verify must not keep a pull
out. Each is written as a whole, and what another verify wrote meanwhile is merged; a run that has
replaced or moved what a verify found wrong notes that in them. Between reading a document and
writing it, milliseconds later, another one may write it: what that wrote is lost then, until the
next verify reads those files again. A ``put`` that fails because of a running pull's sweep is tried
again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final, TypeVarTuple

import anyio

from archiver.archive import layout
from archiver.archive.contents import view_month
from archiver.archive.indexing import not_written, write_index
from archiver.archive.verified import Result, encode, is_key, read_results, results_key
from archiver.commands.verify import events
from archiver.commands.verify.findings import Fault
from archiver.concurrency import for_each
from archiver.errors import (
    ArchiverError,
    BadDocument,
    InstanceForbidden,
    NewerDocument,
    StoreError,
    UnreadableObject,
)
from archiver.events import Cleared
from archiver.retry import RETRIES
from archiver.stores.base import Store

# How many results are in memory before they are written.
_MOST_PENDING = 1000
# Documents that are merged and written at once, and months whose listings and records are held
# while their catalogues are made.
_PUT_AT_ONCE = 16
_INDEXED_AT_ONCE = 4
Ts = TypeVarTuple("Ts")
_TRIES = RETRIES.verify_results.attempts


class Results:
    """Collects the results of one run and writes them from time to time. ``not_kept`` is the reason
    if the store does not accept them, or those of one instance."""

    def __init__(self, store: Store, observer: events.Observer, every: float) -> None:
        self._store: Final = store
        self._observer: Final = observer
        self._every: Final = every
        self._pending: dict[str, dict[str, Result]] = {}
        self._count = 0
        self._written_at = anyio.current_time()
        self._writing: Final = anyio.Lock()
        self.not_kept: str | None = None
        self._is_over = False

    async def right(self, month: str, key: str, size: int, sha256: str, *, named: bool) -> None:
        """Note a right object; ``named``: SHA256SUMS names it."""
        await self._note(month, key, Result(datetime.now(UTC), size, sha256, named=named))

    async def wrong(self, month: str, key: str, fault: Fault) -> None:
        """Note a wrong object."""
        await self._note(month, key, Result(wrong_at=datetime.now(UTC), fault=fault))

    async def _note(self, month: str, key: str, result: Result) -> None:
        if self._is_over or not is_key(key.removeprefix(f"{month}/")):
            return
        self._pending.setdefault(month, {})[key] = result
        self._count += 1
        due = anyio.current_time() - self._written_at >= self._every
        if (due or self._count >= _MOST_PENDING) and not self._writing.locked():
            await self.keep()

    async def keep(self) -> None:
        """Write the pending results; report once if the store does not accept them."""
        async with self._writing:
            pending, self._pending = self._pending, {}
            count, self._count = self._count, 0

            async def put(month: str) -> None:
                nonlocal count
                try:
                    await _with_retries(self._put, month, pending[month])
                except (UnreadableObject, NewerDocument):
                    # Reported when the month was surveyed: the document stays.
                    count -= len(pending[month])
                except InstanceForbidden as error:  # those of others may be stored
                    count -= len(pending[month])
                    self._tell(error)
                del pending[month]

            try:
                await for_each(pending, put, _PUT_AT_ONCE)
            except asyncio.CancelledError:
                # The last call of ``keep``, which is shielded, writes these, too.
                for month, noted in pending.items():
                    self._pending[month] = noted | self._pending.get(month, {})
                self._count += count
                raise
            except StoreError as error:
                self._give_up(error)
                return
            self._written_at = anyio.current_time()
            if count:
                self._observer(events.ResultsKept(count))

    async def index(self, months: Iterable[str]) -> None:
        """Write the catalogues of these months anew, from the records. That needs no lock, because
        the next run that writes to the month writes its catalogue anew as well."""

        async def write(month: str) -> None:
            try:
                if not self._is_over:
                    await _with_retries(self._index, month)
            except InstanceForbidden as error:
                not_written(month, error)
            except StoreError as error:
                self._give_up(error)

        await for_each(sorted(months), write, _INDEXED_AT_ONCE)

    def _give_up(self, error: ArchiverError) -> None:
        self._is_over = True
        self._tell(error)

    def _tell(self, error: ArchiverError) -> None:
        """Report once that the store does not accept results."""
        if self.not_kept is None:
            self.not_kept = str(error)
            self._observer(events.ResultsNotKept(str(error)))

    async def _index(self, month: str) -> None:
        await self._store.put(layout.index_key(month), b"")
        await write_index(self._store, await view_month(self._store, month, ()))

    async def _put(self, month: str, noted: Mapping[str, Result]) -> None:
        """Merge results into a month's document. Raises UnreadableObject and NewerDocument if that
        may be valuable and cannot be read."""
        known = await self._known(month)
        for key, result in noted.items():
            known[key] = _merged(known.get(key), result)
        await self._store.put(results_key(month), encode(month, known))

    async def _known(self, month: str) -> dict[str, Result]:
        """What earlier runs found, if that can be read; room for it, if not."""
        key = results_key(month)
        try:
            return await read_results(self._store, month)
        except NewerDocument:
            raise
        except BadDocument:  # reported when the month was surveyed
            kept = await self._store.clear(key)
            if kept is not None:
                self._observer(Cleared(key, kept))
            return {}


async def _with_retries(write: Callable[[*Ts], Awaitable[None]], *args: *Ts) -> None:
    for left in reversed(range(_TRIES)):
        try:
            await write(*args)
        except StoreError:
            if not left:
                raise
        else:
            return


def _merged(before: Result | None, now: Result) -> Result:
    """Keep what was right once: it shows later that a file was changed, or that SHA256SUMS lost a
    line."""
    if before is None:
        return now
    if now.at is not None:
        return replace(now, named=now.named or before.named)
    if before.wrong_at is not None and now.fault == Fault.UNREADABLE:
        return before  # it says more
    return replace(before, wrong_at=now.wrong_at, fault=now.fault)
