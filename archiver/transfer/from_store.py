"""An object that a store can open as the origin of a transfer: of another archive, or a file."""

from collections.abc import AsyncGenerator, Callable
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
)
from typing import Final

from archiver.concurrency import entered, in_thread
from archiver.errors import (
    ArchiverError,
    IntegrityError,
    ObjectChanged,
    SourceUnavailable,
    StoreError,
    StoreForbidden,
    UnreadableObject,
)
from archiver.model import Backup, Pin, Provenance
from archiver.retry import Attempts
from archiver.stores.base import Opened
from archiver.transfer.http.client import Body
from archiver.transfer.http.response import ObjectResponse
from archiver.transfer.origin import Route


class StoreOrigin:
    """What ``opening`` opens; ``pin`` is what it should be, by its record or by the listing."""

    def __init__(
        self,
        backup: Backup,
        opening: Callable[[], AbstractContextManager[Opened]],
        pin: Pin,
        provenance: Provenance,
    ) -> None:
        self.backup: Final = backup
        self.size: Final = pin.total
        self.provenance: Final = provenance
        self._opening: Final = opening
        self._pin: Final = pin

    async def route(self) -> Route:
        return self

    def open(self, start: int, stop: int, pin: Pin | None) -> AbstractAsyncContextManager[Body]:
        if self._pin.etag is not None and pin not in (None, self._pin):
            raise ObjectChanged(f"{self.backup}: what an earlier run left is of another object")
        return self._open(start, stop)

    @asynccontextmanager
    async def _open(self, start: int, stop: int) -> AsyncGenerator[Body, None]:
        async with AsyncExitStack() as stack:
            try:
                opened = await stack.enter_async_context(entered(self._opening()))
            except StoreError as error:
                raise _source_error(error) from None
            if opened.size != self._pin.total:
                raise IntegrityError(
                    f"{self.backup}: its file has {opened.size:,} bytes, and should have "
                    f"{self._pin.total:,}"
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
