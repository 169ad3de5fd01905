"""An archive in a store: planning against it, recording into it, reading it."""

import json
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

from archiver.archive import layout
from archiver.archive.reading import read_record, read_sums
from archiver.archive.record import Record, make_record
from archiver.archive.sums import format_sums
from archiver.documents import parse
from archiver.errors import (
    BadDocument,
    IntegrityError,
    StoreError,
    UnreadableObject,
    UnsupportedFormat,
)
from archiver.model import Stored, Transfer
from archiver.stores.base import Leftover, Store
from archiver.version import __version__

TOOL = f"archiver {__version__}"


class Archive:
    """Backups, each with its record, in a store."""

    def __init__(self, store: Store) -> None:
        self.store: Final = store

    @asynccontextmanager
    async def writing(self) -> AsyncGenerator[list[Leftover], None]:
        """Be the one writer. Gives what was swept.

        Raises ArchiveBusy, StoreError, and UnsupportedFormat before anything is written.
        """
        await self.check_format()
        async with self.store.exclusive():
            if not await self.check_format():
                made = {"format": layout.FORMAT, "created_by": TOOL, "created_at": _now()}
                await self.store.put(layout.FORMAT_KEY, f"{json.dumps(made, indent=2)}\n".encode())
            yield await self.store.sweep()

    async def check_format(self) -> bool:
        """Whether there is an archive here. Raises UnsupportedFormat for one that this version
        does not know, StoreError."""
        try:
            data = await self.store.read(layout.FORMAT_KEY)
            if data is None:
                return False
            parse(layout.FORMAT_KEY, data).format("format", layout.FORMAT)
        except BadDocument as error:
            raise UnsupportedFormat(
                f"{self.store}: {layout.FORMAT_KEY} does not say what archive this is: "
                f"{error.fault}",
                hint=error.hint or f'this version writes {{"format": {layout.FORMAT}}} into it',
            ) from None
        except UnreadableObject as error:
            raise StoreError(error.message, hint=error.hint) from None
        return True

    def documents(self, transfer: Transfer, stored: Stored) -> list[tuple[str, bytes]]:
        """What is written about a durable object: its record, from which on the archive holds
        it; and for the single file of a standard instance's set, the SHA256SUMS, unless there
        is one: :meth:`seal` compares it."""
        record = make_record(layout.record_key(transfer.stem), transfer.backup, stored, TOOL)
        documents = [(record.key, record.encode())]
        if transfer.set_records == 0 and transfer.backup.is_standard and not transfer.set_sealed:
            sums = format_sums({_name(record): record.sha256})
            documents.append((layout.sums_key(record.folder), sums))
        return documents

    async def seal(
        self,
        folder: str,
        *,
        confirmed: Collection[str] = (),
        gone: Collection[str] = (),
        repairing: bool = False,
    ) -> int:
        """Write the SHA256SUMS of a complete set, unless it is there as it should be.

        What it names it goes on naming, with the SHA-256 that it gives: a record that says
        otherwise may have been changed. Only of the stems in ``confirmed``, whose bytes were just
        fetched or compared by a repair, is the record believed; and only those in ``gone``, which
        have no record and which nobody has, are named no more. One that the store does not give
        is replaced only when ``repairing``.

        How many files it names, 0 if nothing was written. Raises IntegrityError at a record that
        must not be used, whose object is not there, or that names another SHA-256; and
        UnreadableObject.
        """
        key, recorded = layout.sums_key(folder), dict[str, str]()
        sums = await self._named(folder, repairing=repairing)
        sizes = {entry.key: entry.size async for entry in self.store.entries(f"{folder}/")}
        for record_key in filter(layout.is_record, sizes):
            record = await read_record(self.store, record_key)
            if record is None:
                continue
            if sizes.get(record.object_key) != record.size:
                raise IntegrityError(
                    f"{record.object_key}: it is not there as its record says",
                    hint="SHA256SUMS stays: run verify, then repair",
                )
            name = _name(record)
            recorded[name] = record.sha256
            said = sums.get(name, record.sha256)
            if said != record.sha256 and layout.stem_of(record.object_key) not in confirmed:
                raise IntegrityError(
                    f"{record.object_key}: SHA256SUMS says {said}, and its record {record.sha256}",
                    hint="one of them was changed; SHA256SUMS stays: run verify, then repair",
                )
        doubted = {*confirmed, *gone}
        kept = {n: s for n, s in sums.items() if layout.stem_of(f"{folder}/{n}") not in doubted}
        if not (named := kept | recorded) or named == sums:
            return 0
        await self.store.clear(key)
        await self.store.put(key, format_sums(named))
        return len(named)

    async def _named(self, folder: str, *, repairing: bool) -> dict[str, str]:
        """What the SHA256SUMS of a set names; nothing, when that is to be written anew."""
        try:
            return await read_sums(self.store, folder) or {}
        except BadDocument:
            return {}
        except UnreadableObject:
            if not repairing:
                raise
            return {}

    async def record_keys(self, prefix: str = "") -> AsyncGenerator[str, None]:
        """The keys of all records below a prefix, readable or not."""
        async for entry in self.store.entries(prefix):
            if layout.is_record(entry.key):
                yield entry.key


def _name(record: Record) -> str:
    """The object's name in SHA256SUMS."""
    return record.object_key.rpartition("/")[2]


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
