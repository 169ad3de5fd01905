"""The sets that a run lists, so that SHA256SUMS names those whose files are all here."""

from dataclasses import dataclass
from typing import Final

from archiver.archive import layout
from archiver.archive.archive import Archive
from archiver.archive.completeness import SetTally, incomplete
from archiver.archive.consistency import apart
from archiver.archive.contents import MonthView
from archiver.archive.indexing import Indexing
from archiver.archive.inventory import Inventory
from archiver.archive.neighbours import sets_around
from archiver.archive.sealing import SealPlan, SumsRepair, plan_seal
from archiver.model import Transfer


@dataclass(frozen=True, slots=True)
class ListedSet:
    """A cluster's set: ``held`` files of it are here, which may be all that were listed
    (``has_all``), and ``why`` it is not complete, if it is not.

    A set that has all may lack a node all the same, by the sets around it. It is sealed, since
    that may be found out, or turn out to be otherwise, at any time later.
    """

    key: str
    held: int
    has_all: bool
    why: str | None


class ListedSets:
    """The sets of one instance, as its listing goes by.

    A standard instance's set is one file, complete when that is held; nothing is kept of one that
    SHA256SUMS names. ``doubted`` are the sets and months that a repair is about: there SHA256SUMS
    may be wrong as well.
    """

    def __init__(
        self, archive: Archive, inventory: Inventory, doubted: frozenset[str] = frozenset()
    ) -> None:
        self.instance_id = ""
        self._archive: Final = archive
        self._inventory: Final = inventory
        self._doubted: Final = doubted
        self._doubted_months: Final = frozenset(map(layout.month_of, doubted))
        self._confirmed: Final[set[str]] = set()
        # Sets of a cluster that this run has added files to.
        self._changed: Final[set[str]] = set()
        self._sets: Final[dict[str, SetTally]] = {}
        # Months with backups of a standard instance that SHA256SUMS does not name, and the sets of
        # those that an earlier run brought.
        self._unsealed: Final[dict[str, set[str]]] = {}

    def listed(self, transfer: Transfer) -> None:
        """A backup of this set was listed."""
        if not transfer.backup.is_standard:
            began = layout.set_start(transfer.set_key) or transfer.backup.started_at
            tally = self._sets.setdefault(transfer.set_key, SetTally(began))
            self.instance_id = transfer.backup.instance_id
            tally.nodes.add(transfer.backup.node_id)
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

    async def sets(self) -> list[ListedSet]:
        """The sets of a cluster, once all is held that will be. Raises StoreError."""
        found: list[ListedSet] = []
        starts = [tally.started_at for tally in self._sets.values()]
        around = await sets_around(self._archive, self.instance_id, starts)
        unfinished = incomplete(self._sets, around)
        for set_key, tally in sorted(self._sets.items()):
            has_all = tally.held == tally.files and not self._lies_elsewhere_too(set_key)
            found.append(ListedSet(set_key, tally.held, has_all, unfinished.get(set_key)))
        return found

    def _lies_elsewhere_too(self, set_key: str) -> bool:
        """Whether nodes of this set were listed for another one's key, as when parts of it are
        repaired in two: then what was listed for this one is not all of it."""
        return any(
            other != set_key
            and layout.name_of_set(other) == layout.name_of_set(set_key)
            and apart(set_key, tally.started_at) is not None
            for other, tally in self._sets.items()
        )

    async def unsealed(self, sets: list[ListedSet]) -> dict[str, set[str]]:
        """By month, the sets that may lack their lines. Nothing is read of a set that SHA256SUMS
        names by the catalogue, and that nothing was added to. Raises StoreError."""
        found = {month: set(of_it) for month, of_it in self._unsealed.items()}
        for one in sets:
            month = layout.month_of(one.key)
            is_as_it_was = one.key not in self._changed and month not in self._doubted_months
            if not one.has_all or (is_as_it_was and await self._inventory.is_sealed_whole(one.key)):
                continue
            found.setdefault(month, set()).add(one.key)
        return found

    async def plan(self, view: MonthView, sets: set[str], index: Indexing) -> SealPlan:
        """See :func:`plan_seal`; ``index`` knows what this run has written."""
        return await plan_seal(
            self._archive.store,
            view,
            sets,
            confirmed=self._confirmed,
            repair=SumsRepair(knows_all=True) if view.key in self._doubted_months else None,
            written=index.sets(view.key),
            documents=index.documents(view.key),
        )
