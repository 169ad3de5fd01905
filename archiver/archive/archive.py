"""An archive in a store: planning against it, recording into it, reading it."""

import json
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

from archiver.archive import layout
from archiver.archive.record import Record, make_record
from archiver.errors import UnsupportedFormat
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
        """Whether there is an archive here. Raises UnsupportedFormat for one we cannot read."""
        data = await self.store.read(layout.FORMAT_KEY)
        if data is None:
            return False
        try:
            written = json.loads(data)["format"]
        except (ValueError, KeyError, TypeError):
            written = None
        if not isinstance(written, int) or not 1 <= written <= layout.FORMAT:
            raise UnsupportedFormat(
                f"{self.store}: an archive of format {written!r}; "
                f"this version knows up to {layout.FORMAT}",
                hint="use a newer archiver",
            )
        return True

    def documents(self, transfer: Transfer, stored: Stored) -> list[tuple[str, bytes]]:
        """What is written about a durable object: its record, from which on the archive holds
        it; and for the single file of a standard instance's set, the SHA256SUMS."""
        record = make_record(layout.record_key(transfer.stem), transfer.backup, stored, TOOL)
        documents = [(record.key, record.encode())]
        if transfer.set_records == 0 and transfer.backup.is_standard:
            documents.append((layout.sums_key(record.folder), _sums([record])))
        return documents

    async def seal(self, folder: str) -> int:
        """Write the SHA256SUMS of a complete set, unless it is there as it should be.

        How many files it names, 0 if nothing was written. Raises IntegrityError at a record that
        cannot be read.
        """
        records = [record async for record in self.records(f"{folder}/")]
        key, text = layout.sums_key(folder), _sums(records)
        if await self.store.read(key) == text:
            return 0
        await self.store.put(key, text)
        return len(records)

    async def records(self, prefix: str = "") -> AsyncGenerator[Record, None]:
        """All records below a prefix. Raises IntegrityError at one that cannot be read."""
        async for key in self.record_keys(prefix):
            data = await self.store.read(key)
            if data is not None:
                yield Record.decode(key, data)

    async def record_keys(self, prefix: str = "") -> AsyncGenerator[str, None]:
        """The keys of all records below a prefix, readable or not."""
        async for entry in self.store.entries(prefix):
            if layout.is_record(entry.key):
                yield entry.key


def _sums(records: Iterable[Record]) -> bytes:
    """What ``sha256sum -c`` reads."""
    lines = sorted((record.object_key.rpartition("/")[2], record.sha256) for record in records)
    return "".join(f"{sha256}  {name}\n" for name, sha256 in lines).encode()


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
