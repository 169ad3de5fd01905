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
