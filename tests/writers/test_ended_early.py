"""A run that is cancelled, or ended by one instance: the locks of the others are held until no
thread writes for them any more."""

import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import to_thread

from archiver import Archive, LocalStore, TairSource, pull
from archiver.commands.copy.run import copy
from archiver.errors import ArchiveBusy, StoreError
from archiver.model import Stored
from archiver.stores.commit import Commit
from archiver.stores.local.lock import hold, lock_path
from tests.conftest import everything
from tests.writers.test_writing import NAMES, serve

WRITTEN, OTHER = NAMES[:2]


class Blocked(LocalStore):
    """Commits only once the lock of that instance was released, or was not within half a second.
    With ``fails``, the lock of the other instance cannot be taken meanwhile, which ends the run."""

    def __init__(self, root: Path, *, fails: bool) -> None:
        super().__init__(root)
        self.at_work, self.was_released = threading.Event(), threading.Event()
        self.seen: list[str] = []
        self._fails = fails

    @asynccontextmanager
    async def exclusive(
        self, scope: str, *, watch: bool = True, briefly: bool = False
    ) -> AsyncGenerator[None, None]:
        if scope == OTHER:
            await to_thread.run_sync(self.at_work.wait, 20, abandon_on_cancel=True)
            if self._fails:
                raise StoreError("the disk is gone")
        try:
            async with super().exclusive(scope, watch=watch, briefly=briefly):
                yield
        finally:
            if scope == WRITTEN:
                self.was_released.set()

    def finish(self, commits: Iterable[Commit]) -> list[Stored]:
        self.at_work.set()
        self.was_released.wait(0.5)
        try:
            with hold(lock_path(self.root, WRITTEN)):
                self.seen.append("free")
        except ArchiveBusy:
            self.seen.append("held")
        return super().finish(commits)


Work = Callable[[Archive], Coroutine[Any, Any, object]]


@pytest.fixture(params=["pull", "copy"])
async def work(request: pytest.FixtureRequest, source: TairSource, tmp_path: Path) -> Work:
    async def pulls(archive: Archive) -> object:
        return await pull(source, archive, [everything(name) for name in NAMES[:2]])

    async def copies(archive: Archive) -> object:
        here = Archive(LocalStore(tmp_path / "here"))
        await pulls(here)
        return await copy(here, archive)

    return pulls if request.param == "pull" else copies


@pytest.mark.parametrize("by", ["a cancellation", "an error"])
@pytest.mark.parametrize("size", [3_000, 900_000])
async def test_a_lock_is_held_while_a_thread_commits(
    files: Path, tmp_path: Path, work: Work, size: int, by: str
) -> None:
    serve(files, NAMES[:2], size)
    store = Blocked(tmp_path / "archive", fails=by == "an error")
    if by == "an error":
        with pytest.raises(StoreError, match="the disk is gone"):
            await work(Archive(store))
    else:
        async with anyio.create_task_group() as group:
            group.start_soon(work, Archive(store))
            while not store.at_work.is_set():
                await anyio.sleep(0.01)
            group.cancel_scope.cancel()
    assert store.seen[0] == "held"
    assert store._locks == {}
    assert len(list((store.root / WRITTEN).rglob("*.json"))) == 1
    async with LocalStore(store.root).exclusive(WRITTEN):
        pass
