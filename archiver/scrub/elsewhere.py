"""Reading the small documents of an archive that a repair takes from, or mends."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager

from archiver.archive import layout
from archiver.archive.record import Record
from archiver.archive.sums import parse_sums
from archiver.errors import (
    BackupFailed,
    IntegrityError,
    StoreError,
    StoreForbidden,
    UnsupportedFormat,
)
from archiver.stores.base import Store


@contextmanager
def elsewhere() -> Generator[None, None, None]:
    """What the other store does not give is missed there; the run and our store are well."""
    try:
        yield
    except (StoreError, StoreForbidden) as error:
        raise BackupFailed(f"the other archive cannot be read: {error}") from None


async def folder_there(store: Store, folder: str) -> str:
    """The set's folder in another archive: of the same name, or of the same job.

    A cluster's folder is named after whichever node an archive saw first.
    """
    month, _, name = folder.rpartition("/")
    job, alike = name.partition("-")[2], folder
    async for entry in store.entries(f"{month}/"):
        found = entry.key.rpartition("/")[0]
        if found == folder:
            return folder
        if found.rpartition("/")[2].partition("-")[2] == job:
            alike = found
    return alike


async def read_record(store: Store, key: str) -> Record | None:
    data = await store.read(key)
    return Record.decode(key, data) if data is not None else None


async def read_sums(store: Store, folder: str) -> dict[str, str]:
    """The SHA-256 by name in a set's SHA256SUMS; nothing if there is none to be read."""
    data = await store.read(layout.sums_key(folder))
    return (parse_sums(data) if data is not None else None) or {}


async def differs(store: Store, record_key: str, sums: Mapping[str, str]) -> bool:
    """Whether a record is missing, or names other bytes than these ``sums`` of another archive."""
    try:
        record = await read_record(store, record_key)
    except (IntegrityError, UnsupportedFormat):
        return True
    if record is None:
        return True
    name = record.object_key.rpartition("/")[2]
    return sums.get(name, record.sha256) != record.sha256
