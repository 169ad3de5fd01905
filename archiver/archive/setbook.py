"""The sets that a run sees, so that the complete ones get their SHA256SUMS."""

from collections.abc import AsyncGenerator
from typing import Final

from archiver.archive.archive import Archive
from archiver.archive.sets import SetTally, incomplete
from archiver.model import Transfer


class SetBook:
    """The sets of one instance, as its listing goes by.

    A standard instance's set is one file, complete when that is held; nothing is kept of it.
    """

    def __init__(self, archive: Archive) -> None:
        self._archive: Final = archive
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
        if not transfer.backup.is_standard:
            self._sets[transfer.set_key].held += 1
            return 0
        alone = transfer.set_records == (0 if fresh else 1)
        if alone and (fresh or transfer.set_sealed):
            return int(fresh)  # sealed along with its record, now or by an earlier run
        self._unsealed.add(transfer.set_key)
        return 0

    async def close(self) -> AsyncGenerator[tuple[str, int, str | None], None]:
        """Seal what is complete. Gives each set's key, its files (0 if it was sealed
        before), and why it is not complete."""
        for folder in sorted(self._unsealed):
            yield folder, await self._archive.seal(folder), None
        in_time = dict(sorted(self._sets.items()))  # folders begin with year, month and start
        unfinished = incomplete(in_time)
        for folder, tally in in_time.items():
            why = unfinished.get(folder)
            if why is None:
                yield folder, await self._archive.seal(folder), None
            else:
                yield folder, tally.held, why
