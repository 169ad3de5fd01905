"""One region's endpoint of the R-kvstore API: calls within its quotas, and retries."""

import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from yarl import URL

from archiver import events
from archiver.errors import ArchiverError, SourceUnreachable, Throttled
from archiver.retry import RETRIES, Attempts, Outage, RetryPolicy
from archiver.sources.alibaba.quotas import Quotas
from archiver.sources.alibaba.rpc import Credentials, RpcClient

VERSION: Final = "2015-01-01"

# Seconds that an endpoint is waited for which has not answered once: it may well be the wrong one.
FIRST_SECONDS = RETRIES.unreachable_api.total

GetCredentials = Callable[[], Awaitable[Credentials]]


class Api:
    """Signs calls, waits until they may be made, sends and retries them.

    ``rpc`` is for :data:`VERSION`; ``credentials`` is called before each request and gives a key
    that is still good. ``region`` is "" where only an endpoint is known.
    """

    def __init__(
        self,
        rpc: RpcClient,
        credentials: GetCredentials,
        *,
        region: str,
        quotas: Quotas,
        retry: RetryPolicy,
        observer: events.Observer,
    ) -> None:
        self.region: Final = region
        self._rpc: Final = rpc
        self._credentials: Final = credentials
        self._quotas: Final = quotas
        self._counted_for: Final = region or rpc.host
        self._retry: Final = retry
        self._observer: Final = observer
        self._outage: Final = Outage()
        self._was_reached = False

    @property
    def origin(self) -> URL:
        """Scheme, host and port of the endpoint."""
        return self._rpc.origin

    async def call(
        self,
        action: str,
        params: Mapping[str, str],
        *,
        subject: str,
        resource: str = "*",
        changes: bool = False,
    ) -> dict[str, Any]:
        """Send an action and return its decoded answer. Raises what RpcClient.call raises.

        ``subject`` names, in errors, what it is about, ``resource`` names it in RAM policies. An
        action that ``changes`` something is retried only after an error which proves that it was
        not carried out, and never where the answer was lost; the others after every retryable one.
        """

        def waiting(error: ArchiverError, attempt: int, wait: float) -> None:
            self._observer(events.Retrying(subject, error, attempt, wait, params.get("InstanceId")))

        def outage(error: ArchiverError, seconds: float) -> None:
            self._observer(events.WaitingForSource(error, seconds))

        attempts = Attempts(self._retry, waiting, outage=self._outage, on_outage=outage)
        while True:
            await self._quotas.take(self._counted_for, action)
            credentials = None
            try:
                credentials = await self._credentials()
                answer = await self._rpc.call(
                    action, params, credentials, subject=subject, resource=resource
                )
            except ArchiverError as error:
                if isinstance(error, Throttled):
                    self._quotas.throttled(self._counted_for, action, error.retry_after)
                if changes and credentials and error.retryable and not _was_refused(error):
                    error.hint = f"it is not known whether {action} was carried out"
                    raise
                nobody = isinstance(error, SourceUnreachable)
                self._was_reached = self._was_reached or not nobody
                lasting = math.inf if self._was_reached else FIRST_SECONDS
                await attempts.failed(error, lasting)
            else:
                self._was_reached = True
                self._outage.ended()
                return answer


def _was_refused(error: ArchiverError) -> bool:
    """Whether the request was certainly not carried out."""
    return isinstance(error, Throttled) or (
        isinstance(error, SourceUnreachable) and not error.was_sent
    )
