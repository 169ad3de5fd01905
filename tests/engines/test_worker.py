"""A run in a worker, with a coordinator in this process."""

import asyncio
import contextvars
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import Future
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from archiver.concurrency import in_thread
from archiver.engines.dask import downloading, worker
from archiver.engines.dask.downloading import Download, Downloads, Given, OpenDownloads
from archiver.engines.dask.line import Line
from archiver.engines.dask.messages import Answer, Question, Requested, Result, Settings
from archiver.engines.dask.worker import _Run
from archiver.errors import BackupGone
from archiver.logs import REQUESTS, record_request
from archiver.model import Backup, BackupType, SourceName, Status, Transfer
from archiver.stores.local.store import LocalStore
from archiver.transfer.engine import TransferOptions

BACKUP = Backup(
    SourceName("any", "List"), "r-0", "r-0", "1", None, datetime(2026, 11, 1, tzinfo=UTC),
    Status.SUCCESS, BackupType.FULL,
)  # fmt: skip


class Coordinator:
    """Lends its locks, and says of each backup that it is gone."""

    def __init__(self, store: LocalStore) -> None:
        self._store = store
        self._answering: list[asyncio.Task[None]] = []
        self._line, other, self._is_made = Line(), Line(), threading.Event()
        self._line.connect(other.public)
        other.connect(self._line.public)
        settings = Settings(OpenDownloads(store.elsewhere(), TransferOptions(), 1))
        self.run = _Run(other, self._line.pack(settings), self._tell, lambda _: None)
        self._is_made.set()

    def _tell(self, question: Question) -> None:
        self._answering.append(asyncio.create_task(in_thread(self._answer, question)))

    def _answer(self, question: Question) -> None:
        self._is_made.wait()
        asked = question.asked
        loans = {scope: self._store.loan(scope) for scope in asked.scopes}
        gone = {identity: BackupGone("gone") for identity in asked.backups}
        given = Given(loans, gone, None)
        self.run.answered(self._line.pack(Answer(question.number, given)))

    async def fetch(self, instance: str) -> Result:
        stem = f"{instance}/2026/11/20261101T000000Z-1"
        backup = replace(BACKUP, instance_id=instance)
        job = Download((Transfer(backup, stem, stem),), is_batch=False)
        sealed = self._line.pack((job, frozenset([backup.identity])))
        returned = await in_thread(self.run.work, sealed)
        result: Result = self._line.unpack(returned) if returned else Result(is_abandoned=True)
        return result


@pytest.fixture
async def coordinator(tmp_path: Path) -> AsyncIterator[Coordinator]:
    store = LocalStore(tmp_path / "archive")
    store.lend()
    async with AsyncExitStack() as locks:
        for number in range(4):
            await locks.enter_async_context(store.exclusive(f"r-{number}"))
        made = Coordinator(store)
        await asyncio.wrap_future(made.run.ready)
        yield made
        made.run.stop()
        await asyncio.wrap_future(made.run.ended)


async def test_what_is_known_of_instances_that_are_done_is_bounded(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloading, "_MOST_LENT", 2)
    for number in (0, 1, 2, 3, 2, 0):
        result = await coordinator.fetch(f"r-{number}")
        assert isinstance(result.error, BackupGone)
    downloads = coordinator.run._does
    assert isinstance(downloads, Downloads)
    assert list(downloads._lent) == ["r-2", "r-3", "r-0"]
    assert not downloads._scopes


async def test_a_task_that_comes_in_the_moment_of_the_end_does_not_wait_for_ever(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = Future[Result]()
    far_off = threading.Timer(20, never.set_result, [Result()])

    def begin(coroutine: Coroutine[None, None, Result], _: object) -> Future[Result]:
        coroutine.close()
        coordinator.run.stop()
        far_off.start()
        return never

    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", begin)
    result = await coordinator.fetch("r-0")
    far_off.cancel()
    assert result.is_abandoned


async def test_an_unforeseen_error_is_not_taken_for_a_death(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> object:
        raise TimeoutError("unforeseen")

    monkeypatch.setattr(coordinator.run, "_do", fail)
    result = await coordinator.fetch("r-0")
    assert (result.unforeseen or "").startswith("TimeoutError: unforeseen (")


@pytest.mark.parametrize(
    "error",
    [RecursionError, SystemExit, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit, OSError],
)
async def test_whatever_is_raised_comes_back(
    error: type[BaseException], coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> object:
        raise error("unforeseen")

    monkeypatch.setattr(coordinator.run._does, "do", fail)
    result = await coordinator.fetch("r-0")
    assert (result.unforeseen or "").startswith(f"{error.__name__}: unforeseen (")
    assert not coordinator.run.ended.done()  # the next task finds its loop


async def test_each_run_keeps_its_own_requests(coordinator: Coordinator) -> None:
    ours, theirs = deque[Requested](), deque[Requested]()
    with (
        worker._Requests(coordinator.run, ours).installed(),
        worker._Requests(_Run.__new__(_Run), theirs).installed(),
    ):
        context = contextvars.copy_context()
        context.run(worker._RUN.set, coordinator.run)
        context.run(record_request, "100 % of it", {"bytes": 1})
        record_request("of nobody", {})
    assert not REQUESTS.isEnabledFor(logging.DEBUG)
    record_request("afterwards", {})
    assert list(ours) == [Requested("100 % of it", {"bytes": 1})]
    assert not theirs
