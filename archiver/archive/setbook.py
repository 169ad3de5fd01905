"""The sets that a run sees, so that the complete ones get their SHA256SUMS."""

from collections.abc import Iterator
from typing import Final

from archiver.archive.archive import Archive
from archiver.archive.sets import SetTally, incomplete
from archiver.model import Transfer


class SetBook:
    """The sets of one instance, as its listing goes by.

    A standard instance's set is one file, complete when that is held; nothing is kept of it.
    Of the sets in ``doubted`` (folders), which a repair is about, SHA256SUMS may be wrong as well.
    """

    def __init__(self, archive: Archive, doubted: frozenset[str] = frozenset()) -> None:
        self._archive: Final = archive
        self._doubted: Final = doubted
        self._confirmed: Final[set[str]] = set()
        self._sets: Final[dict[str, SetTally]] = {}
        # Sets of a standard instance that are not sealed along with their only record.
        self._unsealed: Final[set[str]] = set()

    def listed(self, transfer: Transfer) -> None:
        """A backup of this set was listed."""
        if not transfer.backup.is_standard:
            tally = self._sets.setdefault(transfer.set_key, SetTally())
            tally.nodes.add(transfer.backup.node_id)
            tally.files += 1

    def held(self, transfer: Transfer, *, fresh: bool) -> int:
        """A backup of this set is in the archive now; the number of files in the set, if that
        completed it."""
        is_doubted = transfer.set_key in self._doubted
        if fresh and is_doubted:
            self._confirmed.add(transfer.stem)
        if not transfer.backup.is_standard:
            self._sets[transfer.set_key].held += 1
            return 0
        alone = transfer.set_records == (0 if fresh else 1)
        if alone and fresh is not transfer.set_sealed and not is_doubted:
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
        mending = folder in self._doubted
        return await self._archive.seal(folder, confirmed=self._confirmed, mending=mending)
