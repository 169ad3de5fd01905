"""The sets that a run sees, so that those whose files are all here get their SHA256SUMS."""

from dataclasses import dataclass
from typing import Final

from archiver.archive import layout
from archiver.archive.archive import Archive, Mending
from archiver.archive.completeness import SetTally, incomplete
from archiver.archive.consistency import apart
from archiver.archive.inventory import Inventory
from archiver.archive.neighbours import sets_around
from archiver.model import Transfer


@dataclass(frozen=True, slots=True)
class SeenSet:
    """A set that may not be sealed: ``held`` files of it are here, which may be all that were
    listed (``has_all``), and ``why`` it is not complete, if it is not.

    A set that has all may lack a node all the same, by the sets around it. It is sealed, since
    that may be found out, or turn out to be otherwise, at any time later.
    """

    key: str
    held: int
    has_all: bool
    why: str | None


class SetBook:
    """The sets of one instance, as its listing goes by.

    A standard instance's set is one file, complete when that is held; nothing is kept of it.
    Of the sets in ``doubted`` (folders), which a repair is about, SHA256SUMS may be wrong as well.
    """

    def __init__(
        self, archive: Archive, inventory: Inventory, doubted: frozenset[str] = frozenset()
    ) -> None:
        self._archive: Final = archive
        self._inventory: Final = inventory
        self._doubted: Final = doubted
        self._confirmed: Final[set[str]] = set()
        # Sets that this run has added files to.
        self._changed: Final[set[str]] = set()
        self._sets: Final[dict[str, SetTally]] = {}
        self.instance_id = ""
        # Sets of a standard instance that are not sealed along with their only record.
        self._unsealed: Final[set[str]] = set()

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
        is_doubted = transfer.set_key in self._doubted
        if fresh and is_doubted:
            self._confirmed.add(transfer.stem)
        if not transfer.backup.is_standard:
            self._sets[transfer.set_key].held += 1
            self._changed.update({transfer.set_key} if fresh else ())
            return 0
        alone = transfer.set_records == (0 if fresh else 1)
        if alone and fresh is not transfer.set_sealed and not is_doubted:
            return int(fresh)  # sealed along with its record, now or by an earlier run
        self._unsealed.add(transfer.set_key)
        self._changed.add(transfer.set_key)
        return 0

    async def sets(self) -> list[SeenSet]:
        """The sets that may not be sealed, once all is held that will be. Raises StoreError."""
        seen = [SeenSet(folder, 1, has_all=True, why=None) for folder in sorted(self._unsealed)]
        starts = [tally.started_at for tally in self._sets.values()]
        around = await sets_around(self._archive, self.instance_id, starts)
        unfinished = incomplete(self._sets, around)
        for folder, tally in sorted(self._sets.items()):
            has_all = tally.held == tally.files and not self._lies_elsewhere_too(folder)
            seen.append(SeenSet(folder, tally.held, has_all, unfinished.get(folder)))
        return seen

    def _lies_elsewhere_too(self, folder: str) -> bool:
        """Whether nodes of this set were listed for another folder, as when parts of it are
        repaired in two: then what was listed for this one is not all of it."""
        return any(
            other != folder
            and layout.job_of(other) == layout.job_of(folder)
            and apart(folder, tally.started_at) is not None
            for other, tally in self._sets.items()
        )

    async def is_to_be_sealed(self, folder: str) -> bool:
        """See :meth:`Archive.is_to_be_sealed`. Nothing is read of a set that is sealed by its
        catalogue, and that nothing was added to."""
        if await self._is_known_to_be_sealed(folder):
            return False
        return await self._archive.is_to_be_sealed(
            folder, confirmed=self._confirmed, mending=self._mending(folder)
        )

    async def seal(self, folder: str) -> int:
        """See :meth:`Archive.seal`, and :meth:`is_to_be_sealed`."""
        if await self._is_known_to_be_sealed(folder):
            return 0
        return await self._archive.seal(
            folder, confirmed=self._confirmed, mending=self._mending(folder)
        )

    async def _is_known_to_be_sealed(self, folder: str) -> bool:
        is_as_it_was = folder not in self._changed and folder not in self._doubted
        return is_as_it_was and await self._inventory.is_sealed_whole(folder)

    def _mending(self, folder: str) -> Mending | None:
        return Mending(is_whole=True) if folder in self._doubted else None
