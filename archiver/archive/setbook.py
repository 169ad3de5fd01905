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

    def listed(self, transfer: Transfer) -> None:
        """A backup of this set was listed."""
        if not transfer.backup.is_standard:
            tally = self._sets.setdefault(_folder(transfer), SetTally())
            tally.nodes.add(transfer.backup.node_id)
            tally.files += 1

    async def held(self, transfer: Transfer, *, fresh: bool) -> int:
        """A backup of this set is in the archive now; files in the set when that completes it."""
        folder = _folder(transfer)
        if not transfer.backup.is_standard:
            self._sets[folder].held += 1
            self._sets[folder].fresh |= fresh
            return 0
        if fresh and transfer.first_of_set:
            return 1  # sealed along with its record
        if fresh or not await self._archive.is_sealed(folder):
            return await self._archive.seal(folder)
        return 0

    async def close(self) -> AsyncGenerator[tuple[str, int, str | None], None]:
        """Seal what is complete. Gives each set's key, its files, and why it is not complete."""
        in_time = dict(sorted(self._sets.items()))  # folders begin with year, month and start
        unfinished = incomplete(in_time)
        for folder, tally in in_time.items():
            why = unfinished.get(folder)
            if why is not None:
                yield folder, tally.held, why
            elif tally.fresh or not await self._archive.is_sealed(folder):
                yield folder, await self._archive.seal(folder), None


def _folder(transfer: Transfer) -> str:
    return transfer.stem.rpartition("/")[0]
