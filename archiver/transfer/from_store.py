"""Bytes that another archive holds, as an origin like any."""

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Final

from archiver.concurrency import entered, in_thread
from archiver.errors import (
    ArchiverError,
    IntegrityError,
    SourceUnavailable,
    StoreError,
    UnreadableObject,
)
from archiver.model import Backup, Pin, Provenance
from archiver.retry import Attempts
from archiver.stores.base import Opened, Store
from archiver.transfer.http.client import Body
from archiver.transfer.http.response import Answer
from archiver.transfer.origin import Way


class StoreOrigin:
    """An object of ``store``; ``pin`` has the size and CRC-64/XZ that its record gives."""

    def __init__(
        self, backup: Backup, store: Store, key: str, pin: Pin, provenance: Provenance
    ) -> None:
        self.backup: Final = backup
        self.provenance: Final = provenance
        self._store: Final = store
        self._key: Final = key
        self._pin: Final = pin

    async def way(self) -> Way:
        return self

    def open(self, start: int, stop: int, _: Pin | None) -> AbstractAsyncContextManager[Body]:
        return self._open(start, stop)

    @asynccontextmanager
    async def _open(self, start: int, stop: int) -> AsyncGenerator[Body, None]:
        async with AsyncExitStack() as stack:
            try:
                opened = await stack.enter_async_context(entered(self._store.open(self._key)))
            except StoreError as error:
                raise _failure(error) from None
            if opened.size != self._pin.total:
                raise IntegrityError(
                    f"{self._store}: {self._key} has {opened.size:,} bytes, "
                    f"its record says {self._pin.total:,}"
                )
            yield _StoreBody(opened, Answer(start, self._pin, whole=False), stop)

    def worked(self) -> None:
        """Nothing to learn from it."""

    async def recover(self, error: ArchiverError, attempts: Attempts) -> None:
        await attempts.failed(error)


class _StoreBody:
    def __init__(self, opened: Opened, answer: Answer, stop: int) -> None:
        self.answer: Final = answer
        self._opened: Final = opened
        self._position = answer.start
        self._stop: Final = stop

    async def readinto(self, block: memoryview) -> int:
        wanted = block[: self._stop - self._position]
        try:
            size = await in_thread(self._opened.read, self._position, wanted)
        except StoreError as error:
            raise _failure(error) from None
        self._position += size
        return size


def _failure(error: StoreError) -> ArchiverError:
    """What the store keeps back is not to be had by asking again: that fails alone. All else may
    be over soon."""
    return error if isinstance(error, UnreadableObject) else SourceUnavailable(str(error))
