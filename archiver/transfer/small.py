"""Small backups, many at once: downloaded, measured and stored within one thread.

Passing work between threads costs 0.2 ms each time, more than the bytes of a small file; and files
that become durable together need one sync. This is the first attempt only: a file that meets any
obstacle is left to :mod:`archiver.transfer.download`, which retries.
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
from archiver.retry import RETRIES
from archiver.secret import SignedUrl
from archiver.stores.base import Staging
from archiver.transfer.download_url import DownloadUrl
from archiver.transfer.http.burst import ReadObject
from archiver.transfer.http.client import Fetcher
from archiver.transfer.limits import RateLimit
from archiver.transfer.origin import SOURCE_ERRORS
from archiver.transfer.receipt import TransferStats, verify_download, with_listed_crc
from archiver.transfer.resources import SharedResources

SMALL_BYTES: Final = 256 * 1024
# Small backups at once in the place of a large one, where a store takes them one by one: they wait
# for it most of the time. Where it takes many together, one worker does it all: two would wait for
# the interpreter lock of each other.
SMALL_FOR_LARGE: Final = 4
# After this many seconds the files that were downloaded are stored before more are requested.
_BURST_SECONDS = 2.0

# Downloads a backup into its staging; returns None if there was an obstacle, or the file is in the
# archive already. Blocks, and raises StoreError.
Fill = Callable[[Staging], Receipt | None]
# Stores a batch of files, each given with its size and Fill; returns as many results. Blocks.
StoreBatch = Callable[[Iterator[tuple[Transfer, int, Fill]]], list[Stored | None]]
# Called with the result of each file, in order; None for one that was not stored.
OnResult = Callable[[Stored | None], None]


@dataclass(frozen=True, slots=True)
class _Request:
    transfer: Transfer
    size: int
    location: DownloadUrl
    network: Network
    url: SignedUrl
    failures: list[ArchiverError] = field(default_factory=list)


def is_small(backup: Backup, part_size: int, rate: RateLimit) -> bool:
    """Whether a backup may be downloaded so: it fits in one part and in a moment's rate limit."""
    limit = min(SMALL_BYTES, part_size, rate.max_read(SMALL_BYTES))
    return backup.size is not None and 0 < backup.size <= limit


async def download_small(
    shared: SharedResources,
    small: Sequence[tuple[Transfer, DownloadUrl]],
    fetcher: Fetcher,
    store_batch: StoreBatch,
    on_result: OnResult,
) -> None:
    """See Engine.transfer_small."""
    while small:
        requests = await _prepared(shared, small)
        if requests:
            small = small[await _download(shared, requests, fetcher, store_batch, on_result) :]
        else:
            on_result(None)  # there is no URL: the retrying download will say why
            small = small[1:]


async def _download(
    shared: SharedResources,
    requests: Sequence[_Request],
    fetcher: Fetcher,
    store_batch: StoreBatch,
    on_result: OnResult,
) -> int:
    """Download and store the first of the requested files; returns how many, at least one."""
    await shared.limit.take(sum(one.size for one in requests))
    stored: list[Stored | None] = []
    try:
        async with shared.buffers.lend() as buffer:
            await fetcher.burst(
                [one.url for one in requests],
                _BURST_SECONDS,
                lambda reads: stored.extend(
                    store_batch(
                        (one.transfer, one.size, partial(_fill, one, read, buffer))
                        for one, read in zip(requests, reads, strict=False)
                    )
                ),
            )
    finally:  # files that were stored before a cancellation are reported, too
        for one, result in zip(requests, stored, strict=False):
            backup = one.transfer.backup
            if result is not None:
                one.location.succeeded(one.url)
                shared.outage.ended()
                shared.observer(events.Started(backup, 0, one.size))
                shared.observer(events.Advanced(backup, one.size, one.size, one.network))
            elif one.failures:
                why = one.failures[0]
                shared.observer(events.Retrying(str(backup), why, 1, 0.0, backup.instance_id))
            on_result(result)
    return len(stored)


async def _prepared(
    shared: SharedResources, small: Sequence[tuple[Transfer, DownloadUrl]]
) -> list[_Request]:
    """Requests for the first files: as many as the rate allows, up to one that has no URL."""
    requests: list[_Request] = []
    total = 0
    limit = shared.limit.max_read(len(small) * SMALL_BYTES)
    for transfer, location in small:
        size = transfer.backup.size or 0
        total += size
        if requests and total > limit:
            break
        try:
            network, url = await location.current()
        except ArchiverError:
            break
        requests.append(_Request(transfer, size, location, network, url))
    return requests


def _fill(
    request: _Request, read: ReadObject, buffer: memoryview, staging: Staging
) -> Receipt | None:
    """A Fill function."""
    if staging.resumable is not None or staging.existing:
        return None
    backup, size = request.transfer.backup, request.size
    stats = TransferStats(size, fetched=size)
    stats.provenance = Provenance(str(request.url), request.network)
    data = buffer[:size]
    try:
        pin = with_listed_crc(backup, read(data, RETRIES.small_file.total).pin)
        meter = FileMeter(size)
        meter.feed(data)
        crc = int(crc64.xz(data))
        receipt = verify_download(backup, pin, meter, crc, size, stats)
    except SOURCE_ERRORS as error:
        request.failures.append(error)
        return None
    staging.write(0, data)
    return receipt
