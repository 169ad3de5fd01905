"""Locks that are lent to workers: for how long, and who waits for them after a death."""

import multiprocessing
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from archiver.concurrency import in_thread
from archiver.errors import ArchiveBusy, LockLost, StoreError, UnusableCluster
from archiver.stores import loans
from archiver.stores.base import Store
from archiver.stores.loans import LOAN_SECONDS, Borrowed, LoanLapsed, boot_clock
from archiver.stores.local.lock import hold, lock_path
from archiver.stores.local.store import LocalStore
from archiver.stores.s3 import S3Options, S3Store
from archiver.stores.s3 import lease as leases
from archiver.stores.scope import NotHeld
from tests.conftest import INSTANCE
from tests.servers.seaweedfs import SeaweedFS

STEM = f"{INSTANCE}/2026/11/20261101T000000Z-1"


@pytest.fixture(params=["directory", "bucket"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    """Opens the same archive."""
    if request.param == "directory":
        return lambda: LocalStore(tmp_path / "archive")
    seaweed: SeaweedFS = request.getfixturevalue("seaweed")
    request.getfixturevalue("s3_writer")
    url = f"s3://{request.getfixturevalue('bucket')}/redis"
    return lambda: S3Store(url, S3Options(endpoint=seaweed.endpoint))


async def test_a_worker_writes_while_the_lock_is_lent_to_it(
    open_store: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loans, "PATIENCE_SECONDS", 0.0)
    holder = open_store()
    holder.lend()
    async with holder.exclusive(INSTANCE):
        await in_thread(_borrow_of, holder)


def _borrow_of(holder: Store) -> None:
    loan = holder.loan(INSTANCE)
    assert 0 < loan.seconds <= LOAN_SECONDS
    worker, lock = holder.elsewhere()(), Borrowed()
    with worker.borrowed(INSTANCE, loan.name, lock):
        with pytest.raises(LoanLapsed), worker.stage(STEM, 10):
            pass
        lock.extend(boot_clock() + LOAN_SECONDS)
        with worker.stage(STEM, 10) as staging:
            staging.write(0, memoryview(b"0123456789"))
            lock.lose(LockLost("somebody took it"))
            with pytest.raises(LockLost, match="somebody took it"):
                staging.restart()
    with pytest.raises(NotHeld), worker.stage(STEM, 10):
        pass


def test_another_archive_than_the_holders_is_not_written(
    open_store: Callable[[], Store],
) -> None:
    worker = open_store()
    with (
        pytest.raises(UnusableCluster, match="another archive"),
        worker.borrowed(INSTANCE, "name", Borrowed()),
    ):
        pass
    with pytest.raises(NotHeld):
        worker.loan(INSTANCE)


def test_a_loan_that_is_extended_in_time_goes_on() -> None:
    lock = Borrowed()
    timer = threading.Timer(0.2, lambda: lock.extend(boot_clock() + LOAN_SECONDS))
    timer.start()
    lock.check()
    lock.extend(boot_clock() - 1)  # an answer that is late shortens nothing
    lock.check()
    timer.join()


@pytest.fixture
def of_the_dead(tmp_path: Path) -> Callable[[bool], Path]:
    """The lock of a process that was killed."""

    def left(lent: bool) -> Path:
        path = tmp_path / "lock"
        context = multiprocessing.get_context("fork")
        dead = context.Process(target=_die_with, args=(path, lent))
        dead.start()
        dead.join()
        return path

    return left


def _die_with(path: Path, lent: bool) -> None:
    import os

    with hold(path, lent=lent):
        os._exit(9)


class Stop(threading.Event):
    """Notes for how long it is waited for, and does not wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waited: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waited.append(timeout)
        return False


@pytest.mark.parametrize("lent", [False, True])
def test_who_takes_a_lent_lock_of_a_dead_holder_waits_for_its_workers(
    of_the_dead: Callable[[bool], Path], lent: bool
) -> None:
    path, stop = of_the_dead(lent), Stop()
    if lent:
        with pytest.raises(ArchiveBusy), hold(path, stop=stop, watch=False):
            pass
    with hold(path, stop=stop):
        assert (stop.waited == [loans.AFTER_DEATH_SECONDS]) is lent
    with hold(path, stop=stop):  # it was released: nobody is left
        assert len(stop.waited) == lent


@pytest.mark.parametrize("lent", [False, True])
def test_so_does_who_takes_a_lease(
    seaweed: SeaweedFS, bucket: str, s3_writer: None, lent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = S3Store(f"s3://{bucket}/redis", S3Options(endpoint=seaweed.endpoint))
    dead = leases.Lease(store.bucket, store._verified_writer().capabilities, 10.0, "r-a", lent=lent)
    assert dead.take(None) is None
    monkeypatch.setattr(leases, "is_dead", lambda _: True)
    stop = Stop()
    if lent:
        with pytest.raises(ArchiveBusy):
            leases._free_etag(store.bucket, 10.0, stop, "r-a", watch=False)
    assert leases._free_etag(store.bucket, 10.0, stop, "r-a")
    assert (stop.waited == [loans.AFTER_DEATH_SECONDS]) is lent


def test_the_lock_of_a_folder_that_others_mount_is_lent_until_they_may_take_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("archiver.stores.local.lock.flock_is_reliable", lambda _: False)
    path = lock_path(tmp_path, "")
    with hold(path, 0.01, lent=True) as held:
        assert held.loan().seconds == LOAN_SECONDS
        held._beaten_at = boot_clock() - 14.0  # it could not change the file
        assert held.loan().seconds <= 1.0


def test_an_answer_that_lends_nothing_is_a_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    now, waits = [100.0], list[float]()
    monkeypatch.setattr(loans, "boot_clock", lambda: now[0])
    monkeypatch.setattr("archiver.stores.loans.time.monotonic", lambda: now[0])
    lock = Borrowed()

    def pause(seconds: float) -> bool:
        now[0] += 0.9 * loans.PATIENCE_SECONDS
        waits.append(seconds)
        lock.extend(now[0] if len(waits) < 4 else now[0] + LOAN_SECONDS)
        return True

    monkeypatch.setattr(loans, "pause", pause)
    lock.check()
    assert len(waits) == 4


def test_a_lease_that_could_not_be_renewed_is_lent_for_less(
    seaweed: SeaweedFS, bucket: str, s3_writer: None
) -> None:
    store = S3Store(f"s3://{bucket}/redis", S3Options(endpoint=seaweed.endpoint))
    lease = leases.Lease(store.bucket, store._verified_writer().capabilities, 10.0, "r-a")
    for silent, most in ((0.0, LOAN_SECONDS), (24.0, 1.0), (26.0, 0.0)):
        lease._seen_at = boot_clock() - silent
        assert 0 <= lease.loan().seconds <= most
    lease._seen_at = boot_clock() - 330.0
    with pytest.raises(StoreError, match="could not be renewed for 330 s"):
        lease.loan()
