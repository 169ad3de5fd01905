"""Small backups, many at once: fetched, measured and brought home within one thread.

What passes between threads costs 0.2 ms each time, which is more than the bytes of a small file
do; and what is durable together needs one sync. This is their first try only: whatever is in the
way of one of them, the patient walk of :mod:`archiver.transfer.file` begins anew.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from fastcrc import crc64

from archiver import events
from archiver.errors import ArchiverError
from archiver.model import Backup, Network, Provenance, Receipt, Stored
from archiver.rdb.meter import FileMeter
from archiver.secret import SignedUrl
from archiver.stores.base import Staging
from archiver.transfer.burst import Read
from archiver.transfer.fetch import Fetcher
from archiver.transfer.origin import AT_THE_SOURCE
from archiver.transfer.part import Shared
from archiver.transfer.route import Location
from archiver.transfer.vouch import Cost, agrees, vouch

SMALL_BYTES: Final = 256 * 1024
# Seconds that such a file may take before it gets the patience of a large one; little is fetched
# twice then, on any line that backups come over.
_AT_ONCE_SECONDS = 10.0
# Seconds after which those that were fetched go home before others are.
_TOGETHER_SECONDS = 2.0

# Fills a staging with its backup; None where something was in the way, or it is here already.
# Blocks, and raises StoreError.
Fill = Callable[[Staging], Receipt | None]
# Brings home what it is given to fill stagings with, as far as that goes; blocks.
Bring = Callable[[Iterator[Fill]], list[Stored | None]]


@dataclass(frozen=True, slots=True)
class _Wanted:
    location: Location
    network: Network
    url: SignedUrl

    @property
    def backup(self) -> Backup:
        return self.location.backup


def is_small(backup: Backup, shared: Shared) -> bool:
    """Whether a backup may be fetched so: it comes in one part, and fast enough."""
    most = min(SMALL_BYTES, shared.part_size, shared.limit.most_at_once(SMALL_BYTES))
    return 0 < backup.size <= most


async def fetch_at_once(
    shared: Shared, locations: Sequence[Location], fetcher: Fetcher, bring: Bring
) -> list[Stored | None]:
    """See Engine.at_once."""
    wanted = await _located(shared, locations)
    if not wanted:
        return [None]
    await shared.limit.take(sum(one.backup.size for one in wanted))
    async with shared.blocks.lend() as block:
        stored = await fetcher.burst(
            [one.url for one in wanted], lambda reads: bring(_fills(wanted, reads, block))
        )
    for one, result in zip(wanted, stored, strict=False):
        if result is not None:
            backup = one.backup
            one.location.worked(one.url)
            shared.observer(events.Started(backup, 0))
            shared.observer(events.Advanced(backup, backup.size, backup.size, one.network))
    return stored


async def _located(shared: Shared, locations: Sequence[Location]) -> list[_Wanted]:
    """The first of them, as far as the rate allows, and up to one that has no URL."""
    wanted: list[_Wanted] = []
    size = 0
    most = shared.limit.most_at_once(len(locations) * SMALL_BYTES)
    for location in locations:
        size += location.backup.size
        if wanted and size > most:
            break
        try:
            network, url = await location.url()
        except ArchiverError:
            break  # said again, and answered, when it is its turn
        wanted.append(_Wanted(location, network, url))
    return wanted


def _fills(wanted: Sequence[_Wanted], reads: Iterator[Read], block: memoryview) -> Iterator[Fill]:
    began = time.monotonic()
    for one, read in zip(wanted, reads, strict=True):
        yield partial(_fill, one, read, block)
        if time.monotonic() - began > _TOGETHER_SECONDS:
            return


def _fill(wanted: _Wanted, read: Read, block: memoryview, staging: Staging) -> Receipt | None:
    if staging.resumable is not None:
        return None
    backup = wanted.backup
    cost = Cost(backup.size, fetched=backup.size)
    cost.provenance = Provenance(str(wanted.url), wanted.network)
    data = block[: backup.size]
    try:
        pin = read(data, _AT_ONCE_SECONDS).pin
        meter = FileMeter(backup.size)
        meter.feed(data)
        crc = int(crc64.xz(data))
        if not agrees(meter, crc, pin.crc64):
            return None
        receipt = vouch(backup, pin, meter, crc, backup.size, cost)
    except AT_THE_SOURCE:
        return None
    staging.write(0, data)
    return receipt
