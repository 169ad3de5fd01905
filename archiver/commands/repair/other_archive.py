"""What another archive has of a month that is repaired from it."""

from collections.abc import Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from archiver.archive import layout
from archiver.archive.contents import view_month
from archiver.archive.inventory import Inventory
from archiver.archive.reading import month_sums
from archiver.archive.record import Record
from archiver.commands.verify.statements import Statements
from archiver.documents import Fields
from archiver.errors import ArchiverError, BackupFailed, StoreError
from archiver.model import Footer, Measured, RdbVerdict, Receipt
from archiver.stores.base import Store


@contextmanager
def reading_other() -> Generator[None, None, None]:
    """Turn errors of the other archive's store into BackupFailed: they concern one backup, and end
    neither the run nor the use of our own store."""
    try:
        yield
    except StoreError as error:
        raise BackupFailed(f"the other archive cannot be read: {error}") from None


async def readable_lines(store: Store, month: str) -> dict[str, str]:
    """The SHA-256 by key in a month's SHA256SUMS, as far as it can be read; where it gives several
    for a file, all of them as one text (:func:`.as_one`). Raises StoreError."""
    by_set = (await month_sums(store, month)).by_set
    return {key: sha256 for lines in by_set.values() for key, sha256 in lines.items()}


@dataclass(frozen=True, slots=True)
class OtherMonth:
    """What the other archive has of one of our months, by the keys that it has here.

    ``sums`` is the SHA-256 that its SHA256SUMS gives, ``records`` the key of the record there.
    ``lost_lines`` are files that its SHA256SUMS named at an earlier verify, and no longer does.
    ``unclear`` are sets of which a damaged line may name more files, with the error.
    """

    sums: dict[str, str] = field(default_factory=dict)
    records: dict[str, str] = field(default_factory=dict)
    lost_lines: set[str] = field(default_factory=set)
    unclear: dict[str, ArchiverError] = field(default_factory=dict)


class OtherArchive:
    """Finds our sets in another archive, where the folder of a cluster's set may have another
    name."""

    def __init__(self, store: Store) -> None:
        self.store: Final = store
        self._inventory: Final = Inventory(store)

    async def month(self, ours: Inventory, month: str, sets: Collection[str]) -> OtherMonth:
        """What it has of these ``sets`` of ours, and of any other set of ``month``.

        Where a set is in two folders, as after a copy by hand, the likelier one counts for what
        both have. Raises StoreError, and the error of a folder that hides a set.
        """
        folders = {key: await self._inventory.sets_like(key) for key in sets}
        months = {month, *(layout.month_of(one) for some in folders.values() for one in some)}
        views = {one: await view_month(self.store, one) for one in sorted(months)}
        known = {one for some in folders.values() for one in some}
        for one in views[month].listed.sets:
            if one not in known:
                [our_key, *_] = await ours.sets_like(one)
                folders.setdefault(our_key, [one])
        lines = {one: (await month_sums(self.store, one)).by_set for one in months}
        damaged = [one for view in views.values() for one in view.sets if one.sums_fault]
        doubts = {one.key: one.doubt for one in damaged}
        seen = {one: view.overview.results_by_set() for one, view in views.items()}
        found = OtherMonth()
        for our_key, some in folders.items():
            for one in reversed(some):  # so that the first one counts
                in_month = layout.month_of(one)
                named = lines[in_month].get(one, {})
                found.sums.update((layout.moved(key, our_key), named[key]) for key in named)
                for key in filter(layout.is_record, views[in_month].listed.sets.get(one, {})):
                    found.records[layout.moved(key, our_key)] = key
                for key, result in seen[in_month].get(one, {}).items():
                    if result.named and key not in named:
                        found.lost_lines.add(layout.moved(key, our_key))
                if (doubt := doubts.get(one)) is not None:
                    found.unclear[our_key] = doubt
        return found


def receipt_of(record: Record, measured: Measured) -> Receipt:
    """The receipt of the transfer that a record describes, with what was measured."""
    fields = Fields(record.key, record.document)
    transfer, rdb = fields.within("transfer"), fields.within("rdb")
    return Receipt(
        size=measured.size,
        sha256=measured.sha256,
        crc64=measured.crc64,
        crc64_declared=Statements(record).crc64_declared,
        etag=record.document["etag"],
        kind=measured.kind,
        rdb=RdbVerdict(
            None if rdb.is_null("version") else rdb.line("version"), rdb.word("footer", Footer)
        ),
        provenance=record.provenance,
        part_size=transfer.number("part_size"),
        started_at=transfer.moment("started_at"),
        finished_at=transfer.moment("finished_at"),
        attempts=transfer.number("attempts"),
        bytes_fetched=transfer.number("bytes_fetched"),
        bytes_fetched_again=transfer.number("bytes_fetched_again"),
    )
