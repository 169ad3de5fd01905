"""Downloading small backups together, in one thread."""

import functools
from collections.abc import Iterator
from contextlib import ExitStack

from archiver.archive.archive import Archive
from archiver.errors import ArchiverError, LockLost
from archiver.model import Stored, Transfer
from archiver.stores.commit import Commit
from archiver.transfer.small import Fill


def download_together(
    archive: Archive, fills: Iterator[tuple[Transfer, int, Fill]]
) -> list[Stored | None]:
    """Fill a staging with each, then commit all of them; None for one that is not stored.

    Blocks, and raises what ends the run. Anything else is left to who tries it again, alone: a lock
    that was lost, too, which ends the transfers of one instance among those of a batch.
    """
    commits: list[Commit | None] = []
    stems: set[str] = set()
    with ExitStack() as stagings:
        for transfer, size, fill in fills:
            if transfer.stem in stems:
                commits.append(None)  # listed twice: two stagings would be of one file
                continue
            stems.add(transfer.stem)
            try:
                commits.append(_filled(archive, transfer, size, fill, stagings))
            except ArchiverError as error:
                _raise_what_ends_all(error)
                commits.append(None)
        try:
            stored = iter(archive.store.finish(one for one in commits if one is not None))
        except ArchiverError as error:
            _raise_what_ends_all(error)
            return [None for _ in commits]
        return [None if one is None else next(stored) for one in commits]


def _raise_what_ends_all(error: ArchiverError) -> None:
    if error.ends_run and not isinstance(error, LockLost):
        raise error


def _filled(
    archive: Archive, transfer: Transfer, size: int, fill: Fill, stagings: ExitStack
) -> Commit | None:
    staged = archive.store.stage(transfer.stem, size, transfer.present)
    staging = stagings.enter_context(staged)
    receipt = fill(staging)
    if receipt is None:
        return None
    return staging.commit(receipt, functools.partial(archive.documents, transfer))
