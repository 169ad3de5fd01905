"""Small backups, many at once: fetched, measured and brought home within one thread.

What passes between threads costs 0.2 ms each time, which is more than the bytes of a small file
do; and what is durable together needs one sync. This is their first try only: whatever is in the
way of one of them, the patient walk of :mod:`archiver.transfer.download` begins anew.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from fastcrc import crc64

from archiver import events
from archiver.errors import ArchiverError
from archiver.model import Backup, Network, Provenance, Receipt, Stored, Transfer
from archiver.rdb.meter import FileMeter
from archiver.secret import SignedUrl
from archiver.stores.base import Staging
from archiver.transfer.burst import Read
from archiver.transfer.http.client import Fetcher
from archiver.transfer.origin import AT_THE_SOURCE
from archiver.transfer.part import Shared
from archiver.transfer.receipt import Cost, vouch
from archiver.transfer.route import Location

SMALL_BYTES: Final = 256 * 1024
# Seconds that such a file may take before it gets the patience of a large one; little is fetched
# twice then, on any line that backups come over.
_AT_ONCE_SECONDS = 10.0
# Seconds after which those that were fetched go home before others are asked for.
_TOGETHER_SECONDS = 2.0

# Fills a staging with its backup; None where something was in the way, or it is here already.
# Blocks, and raises StoreError.
Fill = Callable[[Staging], Receipt | None]
# Brings home what it is given, each with how to fill its staging; as many results. Blocks.
Bring = Callable[[Iterator[tuple[Transfer, Fill]]], list[Stored | None]]
# Takes the result of each, in order; None for one that is not home.
Settled = Callable[[Stored | None], None]


@dataclass(frozen=True, slots=True)
class _Wanted:
    transfer: Transfer
    location: Location
    network: Network
    url: SignedUrl
    failures: list[ArchiverError] = field(default_factory=list)


def is_small(backup: Backup, shared: Shared) -> bool:
    """Whether a backup may be fetched so: it comes in one part, and fast enough."""
    most = min(SMALL_BYTES, shared.part_size, shared.limit.most_at_once(SMALL_BYTES))
    return 0 < backup.size <= most


async def fetch_at_once(
    shared: Shared,
    small: Sequence[tuple[Transfer, Location]],
    fetcher: Fetcher,
    bring: Bring,
    settled: Settled,
) -> None:
    """See Engine.at_once."""
    while small:
        wanted = await _located(shared, small)
        if wanted:
            small = small[await _round(shared, wanted, fetcher, bring, settled) :]
        else:
            settled(None)  # there is no URL; the patient walk will say why
            small = small[1:]


async def _round(
    shared: Shared, wanted: Sequence[_Wanted], fetcher: Fetcher, bring: Bring, settled: Settled
) -> int:
    """The first of them, at least one: as many as come while it is worth to wait for more."""
    await shared.limit.take(sum(one.transfer.backup.size for one in wanted))
    stored: list[Stored | None] = []
    try:
        async with shared.blocks.lend() as block:
            await fetcher.burst(
                [one.url for one in wanted],
                _TOGETHER_SECONDS,
                lambda reads: stored.extend(
                    bring(
                        (one.transfer, partial(_fill, one, read, block))
                        for one, read in zip(wanted, reads, strict=False)
                    )
                ),
            )
    finally:  # what came home before a cancellation is told, too
        for one, result in zip(wanted, stored, strict=False):
            backup = one.transfer.backup
            if result is not None:
                one.location.worked(one.url)
                shared.outage.ended()
                shared.observer(events.Started(backup, 0))
                shared.observer(events.Advanced(backup, backup.size, backup.size, one.network))
            elif one.failures:
                shared.observer(events.Retrying(str(backup), one.failures[0], 1, 0.0))
            settled(result)
    return len(stored)


async def _located(shared: Shared, small: Sequence[tuple[Transfer, Location]]) -> list[_Wanted]:
    """The first of them, as far as the rate allows, and up to one that has no URL."""
    wanted: list[_Wanted] = []
    size = 0
    most = shared.limit.most_at_once(len(small) * SMALL_BYTES)
    for transfer, location in small:
        size += transfer.backup.size
        if wanted and size > most:
            break
        try:
            network, url = await location.url()
        except ArchiverError:
            break
        wanted.append(_Wanted(transfer, location, network, url))
    return wanted


def _fill(wanted: _Wanted, read: Read, block: memoryview, staging: Staging) -> Receipt | None:
    if staging.resumable is not None or staging.present:
        return None
    backup = wanted.transfer.backup
    cost = Cost(backup.size, fetched=backup.size)
    cost.provenance = Provenance(str(wanted.url), wanted.network)
    data = block[: backup.size]
    try:
        pin = read(data, _AT_ONCE_SECONDS).pin
        meter = FileMeter(backup.size)
        meter.feed(data)
        crc = int(crc64.xz(data))
        receipt = vouch(backup, pin, meter, crc, backup.size, cost)
    except AT_THE_SOURCE as error:
        wanted.failures.append(error)
        return None
    staging.write(0, data)
    return receipt
