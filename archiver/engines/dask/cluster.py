"""Connects to a cluster, or starts one on this machine."""

import logging
import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import anyio

from archiver.concurrency import shielded
from archiver.errors import ClusterLost, UsageError
from archiver.retry import RETRIES

_CLOSE_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Cluster:
    """The address of a ``scheduler``; or None, and how many ``processes`` to start on this machine.
    Dask's own configuration says which certificates to use for a ``tls://`` address."""

    scheduler: str | None = None
    processes: int = 0

    @asynccontextmanager
    async def connected(self, workers: int | None) -> AsyncGenerator[Any, None]:
        """A dask Client, for ``workers`` tasks at once, or one in each process. Raises UsageError,
        ClusterLost."""
        import distributed  # noqa: PLC0415 - it takes long

        for name in ("distributed", "distributed.client"):  # it prints on stderr
            logging.getLogger(name).setLevel(logging.CRITICAL)
        place: Any = self.scheduler
        cluster = None
        if place is None:
            place = cluster = await self._started(workers)
        try:
            client = distributed.Client(
                place, asynchronous=True, set_as_default=False, timeout=RETRIES.cluster.timeout
            )
            try:
                await _connect(client, self.scheduler)
                yield client
            finally:
                await shielded(_closed(client))
        finally:
            if cluster is not None:
                await shielded(_closed(cluster))

    async def _started(self, workers: int | None) -> Any:  # noqa: ANN401 - a LocalCluster
        """A cluster of our own: only who has its certificates, which are made for it, can connect
        to it. Its workers end with this process."""
        import dask.config  # noqa: PLC0415
        import distributed  # noqa: PLC0415

        dask.config.set({"distributed.worker.profile.enabled": False})
        cluster = distributed.LocalCluster(
            n_workers=self.processes,
            # One more, for a batch of small files.
            threads_per_worker=math.ceil((workers or self.processes) / self.processes) + 1,
            processes=True,
            asynchronous=True,
            security=distributed.Security.temporary(),
            dashboard_address=None,
            memory_limit=0,  # it has limits of its own
            silence_logs=logging.CRITICAL,
            preload=["archiver.engines.dask.preload"],
        )
        try:
            return await cluster
        except BaseException:
            await shielded(_closed(cluster))
            raise


async def _connect(client: Any, scheduler: str | None) -> None:  # noqa: ANN401
    try:
        await client
    except (OSError, TimeoutError) as error:
        raise ClusterLost(
            f"{scheduler}: no scheduler answers: {error}",
            hint="check the address, and that dask-scheduler runs there",
        ) from None
    except (ValueError, ImportError, RuntimeError, TypeError) as error:
        raise UsageError(f"--scheduler {scheduler}: {error}") from None


async def _closed(one: Any) -> None:  # noqa: ANN401 - a Client or a LocalCluster
    with anyio.move_on_after(_CLOSE_SECONDS), suppress(Exception):
        await one.close()
