"""An archive in a store: planning against it, recording into it, reading it."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

import anyio

from archiver import events
from archiver.archive import layout
from archiver.archive.record import encode, new_document
from archiver.concurrency import for_each
from archiver.documents import parse
from archiver.errors import (
    ArchiveBusy,
    ArchiverError,
    BadDocument,
    DamagedArchive,
    InstanceForbidden,
    StoreError,
    StoreForbidden,
    UnreadableObject,
    UnsupportedFormat,
    UsageError,
)
from archiver.logs import record
from archiver.model import Stored, Transfer
from archiver.retry import RETRIES
from archiver.stores.base import Leftover, Store
from archiver.stores.scope import WHOLE, other_archive
from archiver.times import format_iso
from archiver.version import __version__

TOOL = f"archiver {__version__}"
# Between two looks whether the one that writes is done.
_LOOK_SECONDS = RETRIES.archive_lock.wait
# How long another run is waited for that holds a lock for a moment: it begins the archive, or
# sweeps what earlier runs left.
_MOMENT_SECONDS = 10.0
# How many scopes are swept at once when a run ends; and for how long those are watched whose
# holders may be alive: a lease may be taken over after 30 seconds.
_SWEPT_AT_ONCE = 64
_WATCHED_SECONDS = 45.0


class Beginning(StrEnum):
    """Whether to begin an archive where there is none and this run found none before."""

    NEVER = "never"
    IF_EMPTY = "if empty"  # nor where a disk is missing that should be mounted there
    ALWAYS = "always"


class Archive:
    """Backups, each with its record, in a store.

    Who wants to write waits up to ``lock_wait`` seconds for others to be done. ``beginning`` says
    whether an archive is begun where there is none.
    """

    def __init__(
        self, store: Store, *, lock_wait: float = 0.0, beginning: Beginning = Beginning.IF_EMPTY
    ) -> None:
        self.store: Final = store
        self._lock_wait: Final = lock_wait
        self._beginning: Final = beginning
        # Whether this run found an archive here, if only to read it. If it is gone later, as with a
        # disk that is not mounted any more, none is begun in its place.
        self._was_here = False
        # The document that says what archive it is, as the run has read it.
        self._format: bytes | None = None
        # One task of this process at a time: they need not wait for each other's lock.
        self._at_beginning: Final = asyncio.Lock()

    @asynccontextmanager
    async def writing(
        self, scope: str, observer: events.Observer = events.ignore, *, waits: bool = True
    ) -> AsyncGenerator[list[Leftover], None]:
        """Be the one writer of an instance, or with ``WHOLE`` of what concerns the whole archive
        (:mod:`archiver.stores.scope`). Gives what was swept there. Waits for others only if it
        ``waits``.

        Raises ArchiveBusy, StoreError; and before anything is written UnsupportedFormat,
        DamagedArchive, and UsageError where there is no archive and none may be begun.
        """
        await self.begin(observer)
        lock = self.alone(scope, observer)
        if not waits:
            lock = self.store.exclusive(scope, watch=False, briefly=True)
        async with lock:
            yield await self.store.sweep(scope)

    def alone(
        self, scope: str, observer: events.Observer = events.ignore
    ) -> AbstractAsyncContextManager[None]:
        """Hold the lock of a scope, whether or not there is an archive, and begin none. Raises
        ArchiveBusy, StoreError."""
        return self._locked(scope, self._lock_wait, observer)

    async def for_each(
        self,
        instances: Iterable[str],
        work: Callable[[str], Awaitable[object]],
        observer: events.Observer = events.ignore,
    ) -> dict[str, ArchiverError]:
        """Do ``work`` for each instance, as its one writer. Returns those that another process
        writes to, or that this user may not write to; the others are done all the same. Otherwise
        raises as :meth:`writing` does."""
        left: dict[str, ArchiverError] = {}
        for instance_id in instances:
            try:
                async with self.writing(instance_id, observer):
                    await work(instance_id)
            except (ArchiveBusy, InstanceForbidden) as error:
                left[instance_id] = error
        return left

    async def tidy(self, observer: events.Observer = events.ignore) -> None:
        """Sweep what earlier runs left of instances that nobody writes to any more, and of the
        whole archive. What another run may use stays, and so does what cannot be swept, which is
        logged: the run that ends with this has done its work.

        Where it is unknown whether a holder is alive it is watched, for less than a minute.
        """
        try:
            is_here = self._was_here or await self.check_format()
            scopes = await self.store.leftovers() if is_here else []
        except ArchiverError as error:
            _log_unswept(None, error)
            return
        busy: dict[str, ArchiveBusy] = {}
        await self._sweep_each(scopes, busy, observer, watch=False)
        with anyio.move_on_after(_WATCHED_SECONDS):
            await self._sweep_each(list(busy)[:_SWEPT_AT_ONCE], busy, observer, watch=True)
        for scope in sorted(busy):
            _log_unswept(scope, busy[scope])

    async def _sweep_each(
        self,
        scopes: Iterable[str],
        busy: dict[str, ArchiveBusy],
        observer: events.Observer,
        *,
        watch: bool,
    ) -> None:
        """Sweep many at once. ``busy`` gets those that others hold, or may hold."""

        async def sweep(scope: str) -> None:
            try:
                async with self.store.exclusive(scope, watch=watch, briefly=True):
                    busy.pop(scope, None)
                    tell_swept(await self.store.sweep(scope), observer)
            except ArchiveBusy as error:
                busy[scope] = error
            except ArchiverError as error:
                busy.pop(scope, None)
                _log_unswept(scope, error)

        await for_each(scopes, sweep, _SWEPT_AT_ONCE)

    async def begin(
        self,
        observer: events.Observer = events.ignore,
        is_needed: Callable[[], Awaitable[bool]] | None = None,
    ) -> bool:
        """Begin an archive, unless there is one, or ``is_needed`` says then that none is; whether
        there is one now. Raises as :meth:`writing` does."""
        if await self.check_place():
            return True
        if is_needed is not None and not await is_needed():
            return False
        # Another run that begins it holds the lock for a moment only.
        seconds = max(self._lock_wait, _MOMENT_SECONDS)
        async with self._at_beginning, self._locked(WHOLE, seconds, events.ignore):
            if not await self.check_format():
                observer(events.ArchiveBegun(str(self.store)))
                now = format_iso(datetime.now(UTC))
                made = {"format": layout.FORMAT, "created_by": TOOL, "created_at": now}
                await self.store.put(layout.FORMAT_KEY, f"{json.dumps(made, indent=2)}\n".encode())
                self._was_here = True
            tell_swept(await self.store.sweep(WHOLE), observer)
        return True

    @asynccontextmanager
    async def _locked(
        self, scope: str, seconds: float, observer: events.Observer
    ) -> AsyncGenerator[None, None]:
        """Hold the lock of a scope, once others release it within so many ``seconds``."""
        began = anyio.current_time()
        announced = False
        async with AsyncExitStack() as stack:
            while True:
                try:
                    await stack.enter_async_context(self.store.exclusive(scope))
                    break
                except ArchiveBusy as busy:
                    most = max(seconds, _MOMENT_SECONDS) if busy.ends_soon else seconds
                    left = began + most - anyio.current_time()
                    if left <= 0:
                        raise
                    if seconds and not announced:
                        observer(events.WaitingForLock(str(self.store), busy, seconds))
                    announced = True
                await anyio.sleep(min(_LOOK_SECONDS, left))
            yield

    async def check_place(self) -> bool:
        """Whether there is an archive here. Raises UsageError where there is none and none may be
        begun, UnsupportedFormat, DamagedArchive, StoreError where there was one before."""
        if await self.check_format():
            return True
        if self._was_here:
            raise StoreError(
                f"{self.store}: the archive that was here is gone", hint=self.store.missing_hint
            )
        why_not = await self._why_none_may_be_begun()
        if why_not is None:
            return False
        if await self.check_format():
            return True  # another run began it since, and may be what was in the way
        raise why_not

    async def _why_none_may_be_begun(self) -> UsageError | None:
        if self._beginning is Beginning.NEVER:
            return UsageError(
                f"{self.store}: there is no archive here, and one is required",
                hint=f"{self.store.missing_hint}, or leave out --require-archive to create one",
            )
        if (other := await self.store.nearest_above(layout.FORMAT_KEY, is_format)) is not None:
            return UsageError(
                f"{self.store}: cannot create an archive inside another: {other} is one",
                hint="choose a place outside of it",
            )
        if self._beginning is Beginning.IF_EMPTY:
            obstacle = await self.store.obstacle()
            if obstacle is not None:
                return UsageError(
                    f"{self.store}: there is no archive here, and {obstacle}",
                    hint="use --create to create one anyway",
                )
        return None

    async def expect(self) -> None:
        """Raises UsageError where there is no archive, UnsupportedFormat, DamagedArchive,
        StoreError."""
        if await self.check_format():
            return
        obstacle = await self.store.obstacle()
        if obstacle is None:
            raise UsageError(
                f"{self.store}: there is no archive here", hint=self.store.missing_hint
            )
        raise UsageError(
            f"{self.store}: there is no archive here, and {obstacle}",
            hint=f"where only {layout.FORMAT_KEY} was lost, a pull with --create writes it again",
        )

    async def check_same(self) -> None:
        """In another process than that of the run, which sent this archive there. Raises
        UnusableCluster for another archive than the run's, StoreError."""
        if await self.store.read(layout.FORMAT_KEY) != self._format:
            raise other_archive(self.store)

    def __reduce__(self) -> tuple[Callable[..., "Archive"], tuple[object, ...]]:
        """For another process, which only reads it."""
        return _elsewhere, (self.store.elsewhere(), self._format)

    async def check_format(self) -> bool:
        """Whether there is an archive here. Raises UnsupportedFormat for one that this version
        does not know, DamagedArchive, StoreError."""
        try:
            data = await self.store.read(layout.FORMAT_KEY)
            if data is None:
                return False
            self._format = data
            number = parse(layout.FORMAT_KEY, data).number("format", least=1)
        except BadDocument as error:
            raise DamagedArchive(
                f"{self.store}: {layout.FORMAT_KEY} does not say what archive this is: "
                f"{error.fault}",
                hint="find out what changed it, then move it out of the archive: a pull with "
                f'--create writes it again, or write {{"format": {layout.FORMAT}}} into a new one',
            ) from None
        except UnreadableObject as error:
            is_denied = isinstance(error.__cause__, PermissionError)
            kind = StoreForbidden if is_denied else StoreError
            raise kind(error.message, hint=error.hint) from None
        if number < layout.FORMAT:
            raise UnsupportedFormat(
                f"{self.store}: this archive is of format {number}, which was never released, and "
                f"this version reads format {layout.FORMAT}",
                hint="pull into a new archive, while the vendor still has the backups",
            )
        if number > layout.FORMAT:
            raise UnsupportedFormat(
                f"{self.store}: this archive is of format {number}, and this version reads up to "
                f"{layout.FORMAT}",
                hint="use a newer archiver",
            )
        self._was_here = True
        return True

    def documents(self, transfer: Transfer, stored: Stored) -> list[tuple[str, bytes]]:
        """What is written about a durable object: its record, from which on the archive holds
        it."""
        document = new_document(transfer.backup, stored, TOOL)
        return [(layout.record_key(transfer.stem), encode(document))]


def tell_swept(swept: Iterable[Leftover], observer: events.Observer) -> None:
    """What was swept, as events."""
    for leftover in swept:
        observer(events.Swept(leftover.key, leftover.why))


def _log_unswept(scope: str | None, error: ArchiverError) -> None:
    text = f"what earlier runs left of {scope or 'the archive'} was not removed: {error}"
    level = logging.INFO if isinstance(error, ArchiveBusy) else logging.WARNING
    record(level, "not_swept", text, scope or None, {"error": str(error)})


def is_format(data: bytes) -> bool:
    """Whether a document says that an archive is there, whatever its format."""
    try:
        return parse(layout.FORMAT_KEY, data).number("format", least=1) > 0
    except BadDocument:
        return False


def _elsewhere(open_store: Callable[[], Store], read: bytes | None) -> Archive:
    archive = Archive(open_store())
    archive._format = read  # noqa: SLF001
    return archive


async def check_apart(source: Archive, target: Archive) -> None:
    """Raises UsageError where two archives are one, or one lies in the other: what is written to
    one would be read as the other's."""
    one, other = await source.store.location(), await target.store.location()
    if one == other:
        raise UsageError(f"{source.store} and {target.store} are the same archive")
    if one[: len(other)] == other or other[: len(one)] == one:
        raise UsageError(
            f"{source.store} and {target.store}: one lies inside the other",
            hint="choose a place outside of it",
        )
