"""A small backup: fetched, measured and brought home within one thread.

What passes between threads costs 0.2 ms each time, which is more than the bytes of a small file
do. This is its first try only: whatever is in the way, the patient walk of
:mod:`archiver.transfer.file` begins anew.
"""

from collections.abc import Callable

from fastcrc import crc64

from archiver import events
from archiver.errors import CorruptFile, IntegrityError
from archiver.model import Backup, Provenance, Receipt, Stored
from archiver.rdb.meter import FileMeter
from archiver.stores.base import Staging
from archiver.transfer.fetch import Answer, Fetcher
from archiver.transfer.origin import AT_THE_SOURCE
from archiver.transfer.part import Shared
from archiver.transfer.route import Location
from archiver.transfer.vouch import Cost, agrees, vouch

SMALL_BYTES = 256 * 1024
# Seconds that such a file may take before it gets the patience of a large one; little is fetched
# twice then, on any line that backups come over.
_AT_ONCE_SECONDS = 10.0

# Brings home what it is given to fill a staging with; blocks.
Bring = Callable[[Callable[[Staging], Receipt]], Stored]


async def fetch_at_once(
    shared: Shared, location: Location, fetcher: Fetcher, bring: Bring
) -> Stored | None:
    """See Engine.at_once."""
    backup = location.backup
    most = min(SMALL_BYTES, shared.part_size, shared.limit.most_at_once(SMALL_BYTES))
    if not 0 < backup.size <= most:
        return None
    cost = Cost(backup.size, fetched=backup.size)
    try:
        network, url = await location.url()
        cost.provenance = Provenance(str(url), network)
        async with shared.blocks.lend() as block:
            data = block[: backup.size]
            await shared.limit.take(backup.size)
            stored = await fetcher.whole(
                url, data, _AT_ONCE_SECONDS, lambda read: bring(_filler(backup, read, data, cost))
            )
    except AT_THE_SOURCE:
        return None
    location.worked(url)
    shared.observer(events.Started(backup, 0))
    shared.observer(events.Advanced(backup, backup.size, backup.size, network))
    return stored


def _filler(
    backup: Backup, read: Callable[[], Answer], data: memoryview, cost: Cost
) -> Callable[[Staging], Receipt]:
    def fill(staging: Staging) -> Receipt:
        if staging.resumable is not None:
            raise IntegrityError(f"{backup}: what is here already comes first")
        pin = read().pin
        meter = FileMeter(backup.size)
        meter.feed(data)
        crc = int(crc64.xz(data))
        if not agrees(meter, crc, pin.crc64):
            raise CorruptFile(f"{backup}: damaged on its way")
        staging.write(0, data)
        return vouch(backup, pin, meter, crc, backup.size, cost)

    return fill
