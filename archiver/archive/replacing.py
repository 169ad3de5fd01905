"""What has a file's name already, and whether it may make way for what was brought in its place.

An object under its final name may be the only copy of the right bytes, whatever its record says or
whether there is one. So it is read before anything replaces it. Witnesses decide: its record,
SHA256SUMS, what an earlier verify saw.
"""

from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final, TypeVar

from archiver.archive import layout
from archiver.archive.catalogue import Described
from archiver.archive.measure import measure, new_block
from archiver.archive.reading import MonthSums, read_record, salvaged_sums
from archiver.archive.record import Record
from archiver.archive.verified import Result, results_if_any
from archiver.concurrency import in_thread
from archiver.errors import (
    BadDocument,
    CorruptFile,
    IntegrityError,
    StoreError,
    UnreadableObject,
)
from archiver.model import Footer, Kind, Measured, Receipt
from archiver.stores.base import Staging, Store

RECORD: Final = "its record"
SUMS: Final = "SHA256SUMS"
VERIFY: Final = "an earlier verify"
# Months of which what is said is kept in memory.
_MOST_KEPT = 4

T = TypeVar("T")


async def measure_present(store: Store, staging: Staging, *, is_log: bool) -> dict[str, Measured]:
    """What the objects are that have the names of a staged file, by key; without those that cannot
    be read."""
    found: dict[str, Measured] = {}
    if not staging.existing:
        return found
    block = await in_thread(new_block)
    for key, size in staging.existing.items():
        try:
            found[key] = await measure(store, key, size, block, lambda _: None, is_log=is_log)
        except (IntegrityError, StoreError):
            continue
    return found


class Witnesses:
    """Who says which SHA-256 an object of ``store`` has. What is said of a month is read once, and
    kept while others of it are asked for."""

    def __init__(self, store: Store) -> None:
        self.store: Final = store
        self._sums: Final[dict[str, MonthSums]] = {}
        self._seen: Final[dict[str, Mapping[str, Result]]] = {}

    def look_again(self) -> None:
        """Read anew what is asked about: others may have written until now."""
        self._sums.clear()
        self._seen.clear()

    async def of(self, stem: str, record: Described | None) -> dict[str, str]:
        """For the object of ``stem``, and its record if that can be used. Raises StoreError."""
        said: dict[str, str] = {} if record is None else {RECORD: record.sha256}
        month = layout.month_of(stem)
        sums, seen = await self._sums_of(month), await self.seen_in(month)
        for kind in Kind:
            key = f"{stem}.{kind}"
            given = {SUMS: sums.by_set.get(layout.set_of(key), {}).get(key)}
            given[VERIFY] = seen[key].sha256 if key in seen else None
            for who, sha256 in given.items():
                # Of two suffixes that one speaks of, that counts which contradicts the record.
                if sha256 is not None and said.get(who) in (None, said.get(RECORD)):
                    said[who] = sha256
        return said

    async def _sums_of(self, month: str) -> MonthSums:
        if month not in self._sums:
            key = layout.sums_key(month)
            data = (await self.store.read_many([key]))[key]
            self._sums[month] = (
                MonthSums() if data is None else await salvaged_sums(self.store, month, data)
            )
            _forget_all_but(_MOST_KEPT, self._sums)
        return self._sums.get(month, MonthSums())

    async def seen_in(self, month: str) -> Mapping[str, Result]:
        """What earlier verifies saw in a month, by key. Raises StoreError."""
        if month not in self._seen:
            self._seen[month] = await results_if_any(self.store, month)
            _forget_all_but(_MOST_KEPT, self._seen)
        return self._seen.get(month, {})


def _forget_all_but(most: int, kept: dict[str, T]) -> None:
    while len(kept) > most:
        del kept[next(iter(kept))]


async def make_way(
    witnesses: Witnesses,
    stem: str,
    staging: Staging,
    present: Mapping[str, Measured],
    receipt: Receipt,
    *,
    forced: bool = False,
) -> list[tuple[str, str]]:
    """Before what is staged takes its name: hold it against what the archive says, of which
    ``witnesses`` tell, and keep aside what is ``present``, may be right, or is whole.

    Returns the keys of those, and where they are kept. Raises CorruptFile where the archive speaks
    for other bytes and not for what was brought; ``forced`` by who knows better.
    """
    record = None
    with suppress(BadDocument, UnreadableObject):
        record = await read_record(witnesses.store, layout.record_key(stem))
    # A dump that is broken by its own checksum was never archived: whoever speaks for it was
    # changed, unless a verify found it right. Its bytes are kept all the same.
    broken = {one.sha256 for one in present.values() if one.rdb.footer is Footer.MISMATCH}
    everyone = await witnesses.of(stem, record)
    trusted = everyone if VERIFY in everyone else {}
    said = {who: sha256 for who, sha256 in everyone.items() if sha256 not in broken} | trusted
    dismissed = said.keys() != everyone.keys()
    for_new = [who for who, sha256 in said.items() if sha256 == receipt.sha256]
    if record is not None and said.keys() == {RECORD} and _has_crc(record, receipt):
        for_new.append("the CRC-64 in its record")  # its SHA-256 alone was changed
    own = {measured.sha256 for measured in present.values()}
    if said and not for_new and not forced and _outweigh(said, own, receipt):
        raise CorruptFile(
            f"{stem}: what was downloaded (SHA-256 {receipt.sha256}) differs from what was "
            f"archived, which {' and '.join(said)} {'confirm' if len(said) > 1 else 'confirms'}",
            hint="the archived file stays; verify it, and find out what changed at the source",
        )
    kept: list[tuple[str, str]] = []
    for key, size in staging.existing.items():
        proven = bool(for_new) or (not said and receipt.rdb.footer is Footer.OK)
        certain = proven and not dismissed
        if _may_be_wanted(present.get(key), size, receipt, is_certain=certain):
            why = "other bytes replaced it, and nothing proves that it was wrong"
            kept.append((key, await in_thread(staging.copy_to_quarantine, key, why)))
    return kept


def _outweigh(said: Mapping[str, str], own: Collection[str], receipt: Receipt) -> bool:
    """Whether witnesses that all speak against what came are to be believed: a record is, and so
    are two that agree, and one that speaks for what is here. One alone may be what was changed,
    when a dump came that is whole by its own checksum, or, where nothing is here to be lost, what
    is whole by its source's."""
    agreed = len(set(said.values())) < len(said)
    for_own = any(sha256 in own for sha256 in said.values())
    is_whole = receipt.rdb.footer is Footer.OK or (receipt.is_vouched_for and not own)
    return RECORD in said or agreed or for_own or not is_whole


def _has_crc(record: Record, receipt: Receipt) -> bool:
    return str(record.document.get("crc64ecma")) == str(receipt.crc64)


async def speaks_for(witnesses: Witnesses, stem: str, sha256: str) -> bool:
    """Whether the archive says that an object of ``stem`` has this SHA-256, and nothing else."""
    record = None
    with suppress(BadDocument, UnreadableObject):
        record = await read_record(witnesses.store, layout.record_key(stem))
    return set((await witnesses.of(stem, record)).values()) == {sha256}


def _may_be_wanted(own: Measured | None, size: int, receipt: Receipt, *, is_certain: bool) -> bool:
    """Whether bytes that are to be replaced may be missed."""
    if size == 0 or (own is not None and own.sha256 == receipt.sha256):
        return False
    if own is None or not is_certain:
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
