"""Whose an access key is, as STS says."""

from typing import Final

import aiohttp

from archiver.errors import SourceError
from archiver.proxies import Proxies
from archiver.retry import RETRIES
from archiver.sources.alibaba.rpc import Credentials, RpcClient

_VERSION: Final = "2015-04-01"
_TIMEOUT: Final = aiohttp.ClientTimeout(total=RETRIES.sts_call.timeout)


async def caller(
    session: aiohttp.ClientSession,
    credentials: Credentials,
    region: str,
    proxies: Proxies,
    endpoint: str | None = None,
) -> str:
    """The name (ARN) of the user or role, which holds the account's id. GetCallerIdentity needs no
    permission. ``endpoint`` None is STS in the region. Raises what RpcClient.call raises."""
    host = endpoint or (f"sts.{region}.aliyuncs.com" if region else "sts.aliyuncs.com")
    client = RpcClient(
        session, host, _VERSION, service="sts", timeout=_TIMEOUT, proxies=proxies
    )  # fmt: skip
    action = "GetCallerIdentity"
    answer = await client.call(action, {}, credentials, subject=credentials.origin, resource="*")
    arn = answer.get("Arn")
    if not isinstance(arn, str) or not arn.isprintable():
        raise SourceError(f"{host}: the answer to {action} has no Arn")
    return arn
