"""Whether files can be fetched from the vendor's object store, over which network, and how fast."""

import time
from typing import Final

import anyio

from archiver import events
from archiver.errors import ArchiverError, Stalled
from archiver.findings import Finding, Verdict
from archiver.model import Backup, Network
from archiver.proxies import Proxies
from archiver.secret import SignedUrl
from archiver.transfer.download_url import NetworkChoice, NetworkSelector
from archiver.transfer.http.client import HttpFetcher, open_fetcher
from archiver.words import size

_CHECK: Final = "download"
_MOST_BYTES: Final = 4 * 2**20
_SECONDS: Final = 3.0
_BLOCK: Final = 2**16


async def check_download(backup: Backup, proxies: Proxies) -> Finding:
    """Fetch the first byte of a backup's file, and then as much as comes within some seconds, a few
    MiB at most. Nothing of it is kept."""
    try:
        selector = NetworkSelector(NetworkChoice.AUTO, events.ignore, proxies)
        network, url = await selector.choose(backup)
        async with open_fetcher(1, proxies=proxies) as fetcher:
            read, seconds = await _read(fetcher, url, backup.size or _MOST_BYTES)
    except ArchiverError as error:
        return Finding.of(_CHECK, error)
    speed = f"{size(read)} at {size(read / seconds)}/s over one connection"
    cost = "" if network is Network.INTRANET else ", which the vendor may charge for"
    return Finding(_CHECK, Verdict.OK, f"{url.host}: {network} network{cost}: {speed}")


async def _read(fetcher: HttpFetcher, url: SignedUrl, whole: int) -> tuple[int, float]:
    """How many bytes were read in how many seconds. Raises SourceError."""
    buffer = memoryview(bytearray(_BLOCK))
    async with fetcher.open(url, 0, min(1, whole), None) as body:
        await body.readinto(buffer)
    read, began = 0, time.monotonic()
    with anyio.move_on_after(_SECONDS):
        async with fetcher.open(url, 0, min(whole, _MOST_BYTES), None) as body:
            while count := await body.readinto(buffer):
                read += count
                if read >= _MOST_BYTES:  # of a file whose size is not listed
                    break
    if whole and not read:
        raise Stalled(f"{url.host}: nothing came within {_SECONDS:.0f} s")
    return read, max(time.monotonic() - began, 0.001)
