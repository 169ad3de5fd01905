"""The object of another archive as the origin of a transfer."""

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Final

from archiver.concurrency import entered, in_thread
from archiver.errors import (
    ArchiverError,
    IntegrityError,
    SourceUnavailable,
    StoreError,
    StoreForbidden,
    UnreadableObject,
)
from archiver.model import Backup, Pin, Provenance
from archiver.retry import Attempts
from archiver.stores.base import Opened, Store
from archiver.transfer.http.client import Body
from archiver.transfer.http.response import ObjectResponse
from archiver.transfer.origin import Route


class StoreOrigin:
    """An object of ``store``; ``pin`` has the size and CRC-64/XZ from its record."""

    def __init__(
        self, backup: Backup, store: Store, key: str, pin: Pin, provenance: Provenance
    ) -> None:
        self.backup: Final = backup
        self.size: Final = pin.total
        self.provenance: Final = provenance
        self._store: Final = store
        self._key: Final = key
        self._pin: Final = pin

    async def route(self) -> Route:
        return self

    def open(self, start: int, stop: int, _: Pin | None) -> AbstractAsyncContextManager[Body]:
        return self._open(start, stop)

    @asynccontextmanager
    async def _open(self, start: int, stop: int) -> AsyncGenerator[Body, None]:
        async with AsyncExitStack() as stack:
            try:
                opened = await stack.enter_async_context(entered(self._store.open(self._key)))
            except StoreError as error:
                raise _source_error(error) from None
            if opened.size != self._pin.total:
                raise IntegrityError(
                    f"{self._store}: {self._key} has {opened.size:,} bytes, "
                    f"its record says {self._pin.total:,}"
                )
            yield _StoreBody(opened, ObjectResponse(start, self._pin, is_whole=False), stop)

    def succeeded(self) -> None:
        """Nothing to note."""

    async def recover(self, error: ArchiverError, attempts: Attempts) -> None:
        await attempts.failed(error)


class _StoreBody:
    def __init__(self, opened: Opened, response: ObjectResponse, stop: int) -> None:
        self.response: Final = response
        self._opened: Final = opened
        self._position = response.start
        self._stop: Final = stop

    async def readinto(self, buffer: memoryview) -> int:
        wanted = buffer[: self._stop - self._position]
        try:
            size = await in_thread(self._opened.read, self._position, wanted)
        except StoreError as error:
            raise _source_error(error) from None
        self._position += size
        return size


def _source_error(error: StoreError) -> ArchiverError:
    """A store's error as one of a source. An object that the store does not give fails alone and
    is not retried; anything else may be over soon."""
    is_final = isinstance(error, StoreForbidden | UnreadableObject)
    return error if is_final else SourceUnavailable(str(error))
