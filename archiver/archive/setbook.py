"""The sets that a run sees, so that the complete ones get their SHA256SUMS."""

from collections.abc import Iterator
from typing import Final

from archiver.archive.archive import Archive
from archiver.archive.sets import SetTally, incomplete
from archiver.model import Transfer


class SetBook:
    """The sets of one instance, as its listing goes by.

    A standard instance's set is one file, complete when that is held; nothing is kept of it.
    Of the stems ``doubted``, which a repair fetches again, SHA256SUMS may be wrong as well; and
    when ``repairing``, one that the store does not give is replaced.
    """

    def __init__(
        self,
        archive: Archive,
        doubted: frozenset[str] = frozenset(),
        *,
        repairing: bool = False,
    ) -> None:
        self._archive: Final = archive
        self._repairing: Final = repairing
        self._doubted: Final = doubted
        self._confirmed: Final[set[str]] = set()
        self._listed: Final[set[str]] = set()
        self._sets: Final[dict[str, SetTally]] = {}
        # Sets of a standard instance that are not sealed along with their only record.
        self._unsealed: Final[set[str]] = set()

    def listed(self, transfer: Transfer) -> None:
        """A backup of this set was listed."""
        if transfer.stem in self._doubted:
            self._listed.add(transfer.stem)
        if not transfer.backup.is_standard:
            tally = self._sets.setdefault(transfer.set_key, SetTally())
            tally.nodes.add(transfer.backup.node_id)
            tally.files += 1

    def held(self, transfer: Transfer, *, fresh: bool) -> int:
        """A backup of this set is in the archive now; the number of files in the set, if that
        completed it."""
        if fresh and transfer.stem in self._doubted:
            self._confirmed.add(transfer.stem)
        if not transfer.backup.is_standard:
            self._sets[transfer.set_key].held += 1
            return 0
        # What is there may be what is to be mended: it is looked at.
        alone = transfer.set_records == (0 if fresh else 1) and not self._repairing
        if alone and fresh is not transfer.set_sealed:
            return int(fresh)  # sealed along with its record, now or by an earlier run
        self._unsealed.add(transfer.set_key)
        return 0

    def sets(self) -> Iterator[tuple[str, int, str | None]]:
        """Each set that may not be sealed: its key, the files of it that are here, and why it is
        not complete, if it is not."""
        for folder in sorted(self._unsealed):
            yield folder, 1, None
        in_time = dict(sorted(self._sets.items()))  # folders begin with year, month and start
        unfinished = incomplete(in_time)
        for folder, tally in in_time.items():
            yield folder, tally.held, unfinished.get(folder)

    async def seal(self, folder: str) -> int:
        """See :meth:`Archive.seal`."""
        gone = self._doubted - self._listed
        return await self._archive.seal(
            folder, confirmed=self._confirmed, gone=gone, repairing=self._repairing
        )
