"""Reading the small documents of an archive that a repair takes from, or mends."""

from collections.abc import Generator
from contextlib import contextmanager

from archiver.archive.reading import month_sums
from archiver.errors import (
    BackupFailed,
    StoreError,
    StoreForbidden,
)
from archiver.stores.base import Store


@contextmanager
def elsewhere() -> Generator[None, None, None]:
    """What the other store does not give is missed there; the run and our store are well."""
    try:
        yield
    except (StoreError, StoreForbidden) as error:
        raise BackupFailed(f"the other archive cannot be read: {error}") from None


async def sums_if_any(store: Store, month: str) -> dict[str, str]:
    """The SHA-256 by key in a month's SHA256SUMS, as far as it can be read; where it gives several
    for a file, all of them as one text (:func:`.as_one`)."""
    by_set = (await month_sums(store, month)).by_set
    return {key: sha256 for lines in by_set.values() for key, sha256 in lines.items()}
