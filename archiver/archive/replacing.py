"""Replacing the object under a final name: which bytes are believed, and which are kept.

An object under its final name may be the only copy of the right bytes, whatever its record says. So
it is read before anything replaces it, and witnesses decide: its record, SHA256SUMS, and what an
earlier verify saw.
"""

from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final

from archiver.archive import layout
from archiver.archive.catalogue import Described
from archiver.archive.measure import measure, new_block
from archiver.archive.reading import MonthSums, month_sums, read_record
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
# Months of which SHA256SUMS and the results of verifies are kept in memory.
_MOST_KEPT: Final = 4


async def measure_present(store: Store, staging: Staging, *, is_log: bool) -> dict[str, Measured]:
    """The objects that have the names of a staged file, measured, by key; without those that cannot
    be read."""
    found: dict[str, Measured] = {}
    if not staging.existing:
        return found
    block = await in_thread(new_block)
    for key, size in staging.existing.items():
        with suppress(IntegrityError, StoreError):
            found[key] = await measure(store, key, size, block, lambda _: None, is_log=is_log)
    return found


class Witnesses:
    """Which SHA-256 an object of ``store`` should have, and who says so."""

    def __init__(self, store: Store) -> None:
        self.store: Final = store
        self._months: Final[dict[str, tuple[MonthSums, Mapping[str, Result]]]] = {}

    def look_again(self) -> None:
        """Read anew what is asked about: others may have written until now."""
        self._months.clear()

    async def record(self, stem: str) -> Record | None:
        """The record of ``stem``, if it can be used. Raises StoreError."""
        with suppress(BadDocument, UnreadableObject):
            return await read_record(self.store, layout.record_key(stem))
        return None

    async def of(self, stem: str, record: Described | None) -> dict[str, str]:
        """The SHA-256 of the object of ``stem``, by who says so; ``record`` is its record, if that
        can be used. Raises StoreError."""
        said: dict[str, str] = {} if record is None else {RECORD: record.sha256}
        sums, seen = await self._of_month(layout.month_of(stem))
        for kind in Kind:
            key = f"{stem}.{kind}"
            given = {SUMS: sums.by_set.get(layout.set_of(key), {}).get(key)}
            given[VERIFY] = seen[key].sha256 if key in seen else None
            for who, sha256 in given.items():
                # Where one names two suffixes, the SHA-256 counts that contradicts the record.
                if sha256 is not None and said.get(who) in (None, said.get(RECORD)):
                    said[who] = sha256
        return said

    async def seen_in(self, month: str) -> Mapping[str, Result]:
        """What earlier verifies saw in a month, by key. Raises StoreError."""
        return (await self._of_month(month))[1]

    async def _of_month(self, month: str) -> tuple[MonthSums, Mapping[str, Result]]:
        found = self._months.get(month)
        if found is None:
            sums = await month_sums(self.store, month)
            self._months[month] = found = sums, await results_if_any(self.store, month)
            if len(self._months) > _MOST_KEPT:
                del self._months[next(iter(self._months))]
        return found


async def prepare_replacement(
    witnesses: Witnesses,
    stem: str,
    staging: Staging,
    present: Mapping[str, Measured],
    receipt: Receipt,
    *,
    forced: bool = False,
) -> list[tuple[str, str]]:
    """Compare a staged file with what the ``witnesses`` say, before it takes its name. Copy to
    quarantine what is ``present`` and may be right, or is whole.

    Returns the keys of those, and where their copies are. Raises CorruptFile where the archive says
    that other bytes are right, unless ``forced``.
    """
    record = await witnesses.record(stem)
    # A dump that is broken by its own checksum was never archived: a witness that has its SHA-256
    # was changed, unless a verify found it right. Its bytes are kept all the same.
    broken = {one.sha256 for one in present.values() if one.rdb.footer is Footer.MISMATCH}
    everyone = await witnesses.of(stem, record)
    trusted = everyone if VERIFY in everyone else {}
    said = {who: sha256 for who, sha256 in everyone.items() if sha256 not in broken} | trusted
    for_new = [who for who, sha256 in said.items() if sha256 == receipt.sha256]
    if record is not None and said.keys() == {RECORD} and _has_crc(record, receipt):
        for_new.append("the CRC-64 in its record")  # its SHA-256 alone was changed
    own = {measured.sha256 for measured in present.values()}
    if said and not for_new and not forced and _are_believed(said, own, receipt):
        raise CorruptFile(
            f"{stem}: what was downloaded (SHA-256 {receipt.sha256}) differs from what was "
            f"archived, which {' and '.join(said)} {'confirm' if len(said) > 1 else 'confirms'}",
            hint="the archived file stays; verify it, and find out what changed at the source",
        )
    proven = bool(for_new) or (not said and receipt.rdb.footer is Footer.OK)
    is_certain = proven and said.keys() == everyone.keys()
    kept: list[tuple[str, str]] = []
    for key, size in staging.existing.items():
        if _may_be_wanted(present.get(key), size, receipt, is_certain=is_certain):
            why = "other bytes replaced it, and nothing proves that it was wrong"
            kept.append((key, await in_thread(staging.copy_to_quarantine, key, why)))
    return kept


def _are_believed(said: Mapping[str, str], own: Collection[str], receipt: Receipt) -> bool:
    """Whether witnesses that all contradict what came are believed: a record is, and so are two
    that agree, and one that has the SHA-256 of what is here (``own``). Otherwise what came is
    believed when it is a dump with its own right checksum, or, where nothing is here to be lost,
    has the checksum that its source declared."""
    agreed = len(set(said.values())) < len(said)
    for_own = any(sha256 in own for sha256 in said.values())
    is_whole = receipt.rdb.footer is Footer.OK or (receipt.is_vouched_for and not own)
    return RECORD in said or agreed or for_own or not is_whole


def _has_crc(record: Record, receipt: Receipt) -> bool:
    return str(record.document.get("crc64ecma")) == str(receipt.crc64)


async def is_confirmed(witnesses: Witnesses, stem: str, sha256: str) -> bool:
    """Whether the archive says that an object of ``stem`` has this SHA-256, and nothing else."""
    said = await witnesses.of(stem, await witnesses.record(stem))
    return set(said.values()) == {sha256}


def _may_be_wanted(own: Measured | None, size: int, receipt: Receipt, *, is_certain: bool) -> bool:
    """Whether bytes that are to be replaced may be needed."""
    if size == 0 or (own is not None and own.sha256 == receipt.sha256):
        return False
    if own is None or not is_certain:
        return True
    # A dump that is broken by its own checksum is no other backup's either.
    return own.rdb.footer is not Footer.MISMATCH


@asynccontextmanager
async def restarting_if_refused(staging: Staging) -> AsyncGenerator[None, None]:
    """Discard what was staged where it is refused: no later run continues it."""
    try:
        yield
    except CorruptFile:
        await in_thread(staging.restart)
        raise
