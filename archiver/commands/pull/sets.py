"""The sets that a run lists, so that SHA256SUMS names those whose files are all here."""

import sys
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from typing import Final

from archiver.archive import layout
from archiver.archive.archive import Archive
from archiver.archive.completeness import (
    ONE_BACKUP,
    SetNodes,
    SetTally,
    incomplete,
    parts_of_backups,
)
from archiver.archive.consistency import apart
from archiver.archive.contents import MonthView
from archiver.archive.indexing import Indexing
from archiver.archive.inventory import Inventory
from archiver.archive.neighbours import sets_around
from archiver.archive.sealing import SealPlan, SumsRepair, plan_seal
from archiver.errors import ArchiverError, IntegrityError
from archiver.events import SetIncomplete
from archiver.model import Backup, Transfer


class ListedSets:
    """The sets of one instance, as its listing goes by.

    A standard instance's set is one file, complete when that is held; nothing is kept of one that
    SHA256SUMS names. ``doubted`` are the sets and months that a repair is about: there SHA256SUMS
    may be wrong as well. Where not all of the listing could be read (``is_whole``), nobody knows
    which cluster's sets have more files than it shows; where an entry could not be used, it may be
    of those with its id, or that began within an hour of it.
    """

    def __init__(
        self, archive: Archive, inventory: Inventory, doubted: frozenset[str] = frozenset()
    ) -> None:
        self.instance_id = ""
        self.is_whole = True
        self._archive: Final = archive
        self._inventory: Final = inventory
        self._doubted: Final = doubted
        self._doubted_months: Final = frozenset(map(layout.month_of, doubted))
        self._confirmed: Final[set[str]] = set()
        # Sets of a cluster that this run has added files to.
        self._changed: Final[set[str]] = set()
        self._sets: Final[dict[str, SetTally]] = {}
        # Of entries that could not be used.
        self._refused_ids: Final[set[str]] = set()
        self._refused_starts: Final[list[datetime]] = []
        # Months with backups of a standard instance that SHA256SUMS does not name, and the sets of
        # those that an earlier run brought.
        self._unsealed: Final[dict[str, set[str]]] = {}

    def refused(self, set_id: str | None, started_at: datetime | None) -> None:
        """An entry could not be used, of which this is known."""
        if set_id is not None:
            self._refused_ids.add(set_id)
        if started_at is not None and started_at.tzinfo is not None:
            self._refused_starts.append(started_at)
        elif set_id is None:
            self.is_whole = False

    @contextmanager
    def reading(self, backup: Backup) -> Iterator[None]:
        """What fails in this context refuses the entry of a backup."""
        try:
            yield
        except ArchiverError:
            self.refused(backup.set_id, backup.started_at)
            raise

    def listed(self, transfer: Transfer) -> None:
        """A backup of this set was listed."""
        if not transfer.backup.is_standard:
            began = layout.set_start(transfer.set_key) or transfer.backup.started_at
            tally = self._sets.setdefault(transfer.set_key, SetTally(began))
            self.instance_id = transfer.backup.instance_id
            tally.nodes.add(sys.intern(transfer.backup.node_id))  # most sets have the same
            tally.files += 1
            tally.expected = tally.expected or transfer.backup.nodes_expected
            tally.is_full |= not transfer.backup.is_log

    def held(self, transfer: Transfer, *, fresh: bool) -> int:
        """A backup of this set is in the archive now; the number of files in the set, if that
        completed it."""
        month = layout.month_of(transfer.set_key)
        is_doubted = month in self._doubted_months
        if fresh and is_doubted:
            self._confirmed.add(transfer.stem)
        if not transfer.backup.is_standard:
            self._sets[transfer.set_key].held += 1
            self._changed.update({transfer.set_key} if fresh else ())
            return 0
        if fresh:
            self._unsealed.setdefault(month, set())
            return 1
        if is_doubted or not transfer.is_named:
            self._unsealed.setdefault(month, set()).add(transfer.set_key)
        return 0

    async def incomplete(self) -> list[SetIncomplete]:
        """A cluster's sets that are not complete, once all is held that will be. Raises StoreError.

        A set of which all is here that was listed may lack a node all the same, by the sets around
        it. It is sealed, since that may be found out, or turn out to be otherwise, at any time.
        """
        starts = [tally.started_at for tally in self._sets.values()]
        around = await sets_around(self._archive, self.instance_id, starts)
        found = sorted(incomplete(self._sets, around).items())
        return [SetIncomplete(key, self._sets[key].held, why) for key, why in found]

    def lacking(self) -> set[str]:
        """A cluster's sets of which not all is here, or nobody knows whether it is."""
        found = {key for key, tally in self._sets.items() if tally.held != tally.files}
        found |= self._in_two() | self._of_refused()
        for parts in self._backups_in_parts():
            found |= parts if parts & found else set()
        return found if self.is_whole else set(self._sets)

    def _backups_in_parts(self) -> Iterable[set[str]]:
        """The sets that are one backup, where each shard has a set of its own."""
        listed = [
            SetNodes(key, tally.started_at, frozenset(tally.nodes), tally.is_full)
            for key, tally in self._sets.items()
        ]
        return map(set, set(parts_of_backups(listed).values()))

    def _in_two(self) -> set[str]:
        """The sets of which nodes were listed for another one's key, too, as when parts of one are
        repaired in two: then what was listed for each is not all of it."""
        starts = [
            (layout.name_of_set(key), tally.started_at, key) for key, tally in self._sets.items()
        ]
        return {
            key
            for (name, start, one), (other_name, other_start, other) in pairwise(sorted(starts))
            if name == other_name
            for key, elsewhere in ((one, other_start), (other, start))
            if apart(key, elsewhere) is not None
        }

    def _of_refused(self) -> set[str]:
        """The sets that an entry which could not be used may belong to."""
        starts = sorted(self._refused_starts)
        return {
            key
            for key, tally in self._sets.items()
            if layout.name_of_set(key) in self._refused_ids
            or bisect_left(starts, tally.started_at - ONE_BACKUP)
            < bisect_right(starts, tally.started_at + ONE_BACKUP)
        }

    async def unsealed(self, lacking: Collection[str]) -> dict[str, set[str]]:
        """By month, the sets that may lack their lines, but for those that are ``lacking`` files.
        Nothing is read of a set that SHA256SUMS names by the catalogue, and that nothing was added
        to. Raises StoreError."""
        found = {month: set(of_it) for month, of_it in self._unsealed.items()}
        for set_key in sorted(self._sets.keys() - lacking):
            month = layout.month_of(set_key)
            is_as_it_was = set_key not in self._changed and month not in self._doubted_months
            if is_as_it_was and await self._inventory.is_sealed_whole(set_key):
                continue
            found.setdefault(month, set()).add(set_key)
        return found

    async def plan(self, view: MonthView, sets: set[str], index: Indexing) -> SealPlan:
        """See :func:`plan_seal`; ``index`` knows what this run has written. A set also fails with
        IntegrityError where a file of it that was held before is not there now. One whose files are
        there, and not all listed yet, is left to the next run. Raises StoreError."""
        store, written = self._archive.store, index.records(view.key)
        gone, late = dict[str, IntegrityError](), set[str]()
        for set_key in sets:
            there = set(filter(layout.is_record, view.listed.sets.get(set_key, ())))
            if self._why_gone(set_key, there) is None:
                continue
            late.add(set_key)
            unlisted = written.get(set_key, set()) - there
            there |= {one for one in unlisted if await store.size(one) is not None}
            if (error := self._why_gone(set_key, there)) is not None:
                gone[set_key] = error
        plan = await plan_seal(
            store,
            view,
            sets - late,
            confirmed=self._confirmed,
            repair=SumsRepair(knows_all=True) if view.key in self._doubted_months else None,
            written=written,
            known=index.known(view),
        )
        return replace(plan, failed={**plan.failed, **gone})

    def _why_gone(self, set_key: str, records: Collection[str]) -> IntegrityError | None:
        """Why a cluster's set does not have a record for each file that was listed, if so."""
        tally = self._sets.get(set_key)
        if tally is None or (
            len(records) >= tally.files and tally.nodes <= set(map(layout.node_of, records))
        ):
            return None
        return IntegrityError(
            f"{set_key}: {len(records)} of {tally.files} files are left that were here",
            hint="something removed a file or its record meanwhile: run pull again",
        )
