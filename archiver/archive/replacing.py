"""What has a file's name already, and whether it may make way for what was brought in its place.

An object under its final name may be the only copy of the right bytes, whatever its record says or
whether there is one. So it is read before anything replaces it. Witnesses decide: its record,
SHA256SUMS, what an earlier verify saw.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final

from archiver.archive import layout
from archiver.archive.measure import measure, new_block
from archiver.archive.reading import read_record, read_sums
from archiver.archive.verified import results_if_any
from archiver.errors import (
    BadDocument,
    CorruptFile,
    IntegrityError,
    StoreError,
    UnreadableObject,
)
from archiver.model import Footer, Kind, Measured, Receipt
from archiver.stores.base import Staging, Store
from archiver.threads import in_thread

RECORD: Final = "its record"
SUMS: Final = "SHA256SUMS"
VERIFY: Final = "an earlier verify"


async def measure_present(store: Store, staging: Staging, *, is_log: bool) -> dict[str, Measured]:
    """What the objects are that have the names of a staged file, by key; without those that cannot
    be read."""
    found: dict[str, Measured] = {}
    if not staging.present:
        return found
    block = await in_thread(new_block)
    for key, size in staging.present.items():
        try:
            found[key] = await measure(store, key, size, block, lambda _: None, is_log=is_log)
        except (IntegrityError, StoreError):
            continue
    return found


async def witnesses(store: Store, stem: str) -> dict[str, str]:
    """Who says which SHA-256 the object of ``stem`` has. Raises StoreError."""
    said: dict[str, str] = {}
    with suppress(BadDocument, UnreadableObject):
        record = await read_record(store, layout.record_key(stem))
        if record is not None:
            said[RECORD] = record.sha256
    folder, _, name = stem.rpartition("/")
    sums: dict[str, str] = {}
    with suppress(BadDocument, UnreadableObject):
        sums = await read_sums(store, folder) or {}
    known = await results_if_any(store, "/".join(stem.split("/")[:3]))
    for kind in Kind:
        if (sha256 := sums.get(f"{name}.{kind}")) is not None:
            said[SUMS] = sha256
        if (seen := known.get(f"{stem}.{kind}")) is not None and seen.sha256 is not None:
            said[VERIFY] = seen.sha256
    return said


async def make_way(
    store: Store,
    stem: str,
    staging: Staging,
    present: Mapping[str, Measured],
    receipt: Receipt,
    *,
    forced: bool = False,
) -> list[tuple[str, str]]:
    """Before what is staged replaces ``present`` objects: keep aside what may be right, or whole.

    Returns the keys of those, and where they are kept. Raises CorruptFile where a witness speaks
    for an object that is there and none for what was brought; ``forced`` by who knows better.
    """
    if not staging.present:
        return []
    said = await witnesses(store, stem)
    for_new = [who for who, sha256 in said.items() if sha256 == receipt.sha256]
    kept: list[tuple[str, str]] = []
    for key, size in staging.present.items():
        own = present.get(key)
        speakers = [who for who, sha256 in said.items() if own and sha256 == own.sha256]
        if speakers and not for_new and not forced:
            raise CorruptFile(
                f"{key}: other bytes came for it (SHA-256 {receipt.sha256}) than the archive has, "
                f"for which {' and '.join(speakers)} speak",
                hint="what is here stays; verify it, and look what changed at the source",
            )
        if _may_be_wanted(own, size, receipt, is_witnessed=bool(for_new)):
            why = "it had this name when other bytes came, and nothing proves that it was wrong"
            kept.append((key, await in_thread(staging.keep_aside, key, why)))
    return kept


def _may_be_wanted(
    own: Measured | None, size: int, receipt: Receipt, *, is_witnessed: bool
) -> bool:
    """Whether bytes that are to be replaced may be missed."""
    if size == 0 or (own is not None and own.sha256 == receipt.sha256):
        return False
    if own is None or not (is_witnessed or receipt.rdb.footer is Footer.OK):
        return True
    # A dump that is broken by its own checksum is no other backup's either.
    return own.rdb.footer is not Footer.MISMATCH


@asynccontextmanager
async def dropping_refused(staging: Staging) -> AsyncGenerator[None, None]:
    """What was brought and is refused is not gone on with."""
    try:
        yield
    except CorruptFile:
        await in_thread(staging.restart)
        raise
