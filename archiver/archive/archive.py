"""An archive in a store: planning against it, recording into it, reading it."""

import json
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from archiver.archive import layout
from archiver.archive.record import Record, make_record
from archiver.errors import IntegrityError, UnsupportedFormat
from archiver.model import Backup, Stored, Transfer
from archiver.stores.base import Leftover, Store
from archiver.version import __version__

TOOL = f"archiver {__version__}"


@dataclass(frozen=True, slots=True)
class Finding:
    """What the archive says of a backup: held with its record, or to be transferred.

    ``damage`` says why a record that is there does not count.
    """

    transfer: Transfer
    record: Record | None
    damage: str | None = None


class Archive:
    """Backups, each with its record, in a store."""

    def __init__(self, store: Store) -> None:
        self.store: Final = store
        # Folder of each cluster's set by (instance, job), so that its nodes come to lie together.
        self._folders: Final[dict[tuple[str, str], str]] = {}
        self._months_read: Final[set[str]] = set()

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

    async def find(self, backup: Backup) -> Finding:
        """Whether this backup is held. Raises UnsafeInput for ids that must not make a path."""
        folder = await self._folder(backup)
        stem = layout.stem(folder, backup)
        there = {entry.key: entry.size async for entry in self.store.entries(f"{folder}/")}
        records = sum(key.endswith(layout.RECORD_SUFFIX) for key in there)
        transfer = Transfer(backup, stem, records, layout.sums_key(folder) in there)
        key = layout.record_key(stem)
        data = await self.store.read(key) if key in there else None
        if data is None:
            return Finding(transfer, None)
        try:
            record = Record.decode(key, data)
        except IntegrityError as error:
            return Finding(transfer, None, str(error))
        size = there.get(record.object_key)
        if size != record.size:
            found = "is missing" if size is None else f"has {size:,} of {record.size:,} bytes"
            return Finding(transfer, None, f"{record.object_key} {found}")
        return Finding(transfer, record)

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
            if entry.key.endswith(layout.RECORD_SUFFIX) and entry.key != layout.FORMAT_KEY:
                yield entry.key

    async def _folder(self, backup: Backup) -> str:
        """The set's folder: that of a node archived before, or a new one.

        The nodes of a cluster begin their backups seconds apart; the first one found names the
        folder for all of the same job.
        """
        own = layout.set_key(backup)
        if backup.is_standard:
            return own
        await self._read_month(layout.month_prefix(backup))
        if backup.started_at.day == 1 or backup.started_at.day >= 28:
            # A set that began before midnight at the end of a month, or will be named after it.
            for hours in (-1, 1):
                near = backup.started_at + timedelta(hours=hours)
                await self._read_month(f"{backup.instance_id}/{near:%Y/%m}/")
        return self._folders.setdefault((backup.instance_id, layout.job_name(backup)), own)

    async def _read_month(self, prefix: str) -> None:
        if prefix in self._months_read:
            return
        self._months_read.add(prefix)
        instance_id = prefix.partition("/")[0]
        async for entry in self.store.entries(prefix):
            folder = entry.key.rpartition("/")[0]
            job = folder.rpartition("/")[2].partition("-")[2]
            self._folders.setdefault((instance_id, job), folder)


def _sums(records: Iterable[Record]) -> bytes:
    """What ``sha256sum -c`` reads."""
    lines = sorted((record.object_key.rpartition("/")[2], record.sha256) for record in records)
    return "".join(f"{sha256}  {name}\n" for name, sha256 in lines).encode()


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
