"""Reading the small documents of an archive that a repair takes from, or mends."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager

from archiver.archive.reading import read_record, read_sums
from archiver.errors import (
    BackupFailed,
    BadDocument,
    StoreError,
    StoreForbidden,
    UnreadableObject,
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


async def sums_if_any(store: Store, folder: str) -> dict[str, str]:
    """The SHA-256 by name in a set's SHA256SUMS; nothing if there is none to be read."""
    try:
        return await read_sums(store, folder) or {}
    except (BadDocument, UnreadableObject):
        return {}


async def differs(store: Store, record_key: str, sums: Mapping[str, str]) -> bool:
    """Whether a record is missing, or names other bytes than these ``sums`` of another archive."""
    try:
        record = await read_record(store, record_key)
    except (BadDocument, UnreadableObject):
        return True
    if record is None:
        return True
    name = record.object_key.rpartition("/")[2]
    return sums.get(name, record.sha256) != record.sha256
