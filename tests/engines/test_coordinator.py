"""What the coordinator makes of tasks that end without a result, with workers that are made up."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import anyio
import distributed  # noqa: F401 - it reads files, so not in the event loop
import pytest

from archiver import events
from archiver.archive.archive import Archive
from archiver.concurrency import task_group
from archiver.engines.dask import coordinator
from archiver.engines.dask.coordinator import Coordinator
from archiver.engines.dask.line import Line
from archiver.engines.dask.messages import Result, Task
from archiver.engines.dask.places import Place
from archiver.engines.dask.pulling import Dask
from archiver.errors import BackupFailed, ClusterLost
from archiver.model import Backup, BackupType, SourceName, Status, Transfer
from archiver.retry import RETRIES
from archiver.stores.local.store import LocalStore
from archiver.transfer.engine import TransferOptions
from tests.conftest import INSTANCE

BACKUP = Backup(
    SourceName("any", "List"), INSTANCE, INSTANCE, "1", None, datetime(2026, 11, 1, tzinfo=UTC),
    Status.SUCCESS, BackupType.FULL,
)  # fmt: skip
GIVEN_UP, DIED = Result(is_abandoned=True), None


def transfer_of(name: str) -> Transfer:
    stem = f"{INSTANCE}/2026/11/{name}"
    return Transfer(replace(BACKUP, backup_id=name), stem, stem)


class Scripted(Coordinator):
    """Its workers end their tasks as a script says, and then with what they should."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.script: dict[str, list[Result | None]] = {}
        self.opened: list[Place] = []
        self.lines: dict[str, list[Line | None]] = {}
        self.goes_on: Final[dict[str, anyio.Event]] = {}

    async def _opened(self, place: Place) -> Line:
        self.opened.append(place)
        return Line()

    async def _result_at(self, place: Place, task: Task) -> Result | None:
        [transfer] = task.job.transfers
        name = transfer.backup.backup_id
        self.lines.setdefault(name, []).append(place.line)
        if name in self.goes_on:
            await self.goes_on[name].wait()
        if script := self.script.get(name):
            return script.pop(0)
        stored: Any = SimpleNamespace()
        return Result((transfer, stored))


@pytest.fixture
def seen() -> list[events.Event]:
    return []


@pytest.fixture
def engine(tmp_path: Path, seen: list[events.Event]) -> Dask:
    relist: Any = None
    archive = Archive(LocalStore(tmp_path / "archive"))
    return Dask(relist, archive, TransferOptions(), 2, seen.append)


@pytest.fixture
def cluster(engine: Dask, seen: list[events.Event]) -> Scripted:
    client = SimpleNamespace(status="running", scheduler_comm=object())
    engine.coordinator = made = Scripted(client, engine, seen.append, None)
    made.places.update({"a": 2})
    return made


def attempts(seen: Iterable[events.Event]) -> list[int]:
    return [event.attempt for event in seen if isinstance(event, events.Retrying)]


async def test_what_a_worker_gave_up_is_tried_again_and_blames_no_backup(
    engine: Dask, cluster: Scripted, seen: list[events.Event]
) -> None:
    given_up = 2 * RETRIES.lost_worker.attempts
    cluster.script["x"] = [DIED, DIED] + [GIVEN_UP] * given_up
    transfer, _ = await engine.one(transfer_of("x"))
    assert transfer.backup.backup_id == "x"
    assert attempts(seen) == [1, 2] + [2] * given_up


async def test_deaths_are_counted(engine: Dask, cluster: Scripted) -> None:
    cluster.script["x"] = [DIED] * RETRIES.lost_worker.attempts
    with pytest.raises(BackupFailed, match="3 workers died"):
        await engine.one(transfer_of("x"))


async def test_a_run_that_no_worker_hears_ends(
    engine: Dask, cluster: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter(range(0, 10_000, 100))
    monkeypatch.setattr(coordinator, "boot_clock", lambda: next(now))
    cluster.script["x"] = [GIVEN_UP] * 3  # for 200 s
    await engine.one(transfer_of("x"))
    cluster.script["x"] = [GIVEN_UP] * 3
    await engine.one(transfer_of("x"))
    cluster.script["x"] = [GIVEN_UP] * 10
    with pytest.raises(ClusterLost, match="no worker hears this process"):
        await engine.one(transfer_of("x"))
    assert len(cluster.script["x"]) == 5


async def test_a_worker_is_opened_anew_once_for_all_that_it_gave_up(
    engine: Dask, cluster: Scripted
) -> None:
    """Opening it stops what it does."""
    cluster.script = {"x": [GIVEN_UP], "y": [GIVEN_UP]}
    cluster.goes_on["y"] = anyio.Event()
    async with task_group() as group:
        group.start_soon(engine.one, transfer_of("y"))
        await anyio.wait_all_tasks_blocked()
        await engine.one(transfer_of("x"))
        cluster.goes_on["y"].set()
    first, second = cluster.lines["x"]
    assert cluster.lines["y"] == [first, second]
    assert len(cluster.opened) == 2


async def test_a_connection_that_dask_has_made_anew_ends_the_run(
    engine: Dask, cluster: Scripted
) -> None:
    """The scheduler has forgotten the tasks, and who listens to the workers."""
    cluster._client.scheduler_comm = object()
    with pytest.raises(ClusterLost):
        await engine.one(transfer_of("x"))


async def test_a_cluster_whose_workers_cannot_be_reached_has_none(
    cluster: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ncores() -> dict[str, int]:
        return {"a": 2}

    cluster._client.scheduler = SimpleNamespace(ncores=ncores)
    cluster.places.all[0].gone.set()
    at_once = replace(RETRIES, no_worker=replace(RETRIES.no_worker, total=0.0))
    monkeypatch.setattr(coordinator, "RETRIES", at_once)
    monkeypatch.setattr(coordinator, "_LOOK_SECONDS", 0.01)
    with anyio.fail_after(10):
        await cluster._watch()
    with pytest.raises(ClusterLost, match="the cluster has no worker"):
        cluster._check()


async def test_the_work_of_a_worker_that_asks_nothing_is_given_to_others(cluster: Scripted) -> None:
    cluster._group = SimpleNamespace(start_soon=lambda *_: None)  # type: ignore[misc,assignment]
    cluster.places.update({"a": 1, "b": 1, "c": 1})
    silent, asking, idle = cluster.places.all
    for place in (silent, asking):
        place.at_work, place.line = 1, Line()
    for _ in range(coordinator._MOST_SILENT_LOOKS + 1):
        assert not silent.gone.is_set()
        asked = {"run": cluster._run, "worker": asking.address, "question": b""}
        cluster._heard((0.0, asked))
        cluster._leave_the_silent()
    assert [place.gone.is_set() for place in (silent, asking, idle)] == [True, False, False]
