"""Which endpoint a region has."""

import asyncio
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from yarl import URL

from archiver.errors import ArchiverError, SourceError
from archiver.network import CONNECT_SECONDS, lookup
from archiver.proxies import Proxies
from archiver.sources.alibaba.rpc import CENTRAL_HOST, endpoint_of, is_api_host

# Where the vendor's SDK and the API's metadata disagree whether these have a host of their own, or
# share the central one.
_DISPUTED: Final = frozenset(
    {
        "cn-beijing",
        "cn-hangzhou",
        "cn-heyuan",
        "cn-qingdao",
        "cn-shanghai",
        "cn-shenzhen",
        "cn-wulanchabu",
    }
)

_NO_SUCH_NAME: Final = (socket.EAI_NONAME, socket.EAI_NODATA)


def read_regions(
    answer: Mapping[str, Any], asked: URL
) -> tuple[dict[str, str], dict[str, ArchiverError]]:
    """The endpoints by region in an answer of DescribeRegions, and the errors of the others.

    Requests carry tokens, so only hosts of this API are used, over https, and the host that was
    ``asked``, with its scheme. Anybody can have another host of the vendor's domain: a bucket is
    one. Raises SourceError for what is no answer of DescribeRegions.
    """
    endpoints: dict[str, str] = {}
    refused: dict[str, ArchiverError] = {}
    try:
        for item in answer["RegionIds"]["KVStoreRegion"]:
            region, host = str(item["RegionId"]), str(item.get("RegionEndpoint") or "")
            try:
                endpoints[region] = _checked(host or endpoint_of(region), asked)
            except ArchiverError as error:
                error.message = f"{region[:80]!a}: {error.message}"
                refused[region] = error
    except (KeyError, TypeError, AttributeError):
        raise SourceError(
            "the answer to DescribeRegions names no regions",
            hint="is --endpoint the R-kvstore API?",
        ) from None
    return endpoints, refused


def _checked(host: str, asked: URL) -> str:
    """The URL of an endpoint. Raises SourceError for a host that must not be asked."""
    with suppress(ValueError):
        is_asked = URL(f"//{host}").raw_host == asked.raw_host
        endpoint = URL(f"{asked.scheme if is_asked else 'https'}://{host}")
        if endpoint == endpoint.origin() and (is_asked or is_api_host(endpoint.raw_host or "")):
            return str(endpoint)
    raise SourceError(f"DescribeRegions names {host[:80]!a} as its endpoint, which is not asked")


async def host_of(region: str, proxies: Proxies) -> str:
    """The host of a region's API. Where the vendor's documents disagree, the first whose name
    resolves; a proxy resolves names itself. Raises UsageError for an invalid region id."""
    first = endpoint_of(region)
    if region not in _DISPUTED and "finance" not in region:
        return first
    both = (first, f"r-kvstore.{region}.aliyuncs.com" if first == CENTRAL_HOST else CENTRAL_HOST)
    if proxies.between("https", first, None) is not None:
        return first
    for host in both:
        if await _resolves(host):
            return host
    return first


async def _resolves(host: str) -> bool:
    """False only where there is no such name: a resolver that fails may know it the next time."""
    found = asyncio.wrap_future(lookup(host, 443))
    # Mark an error as retrieved even if this task is cancelled.
    found.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    await asyncio.wait([found], timeout=CONNECT_SECONDS)
    error = found.exception() if found.done() else None
    return not (isinstance(error, socket.gaierror) and error.errno in _NO_SUCH_NAME)
