"""Leases that come and go while other processes come, and what a key that may not delete leaves."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

import anyio
import pytest

from archiver import Archive
from archiver.concurrency import in_thread
from archiver.errors import ArchiveBusy
from archiver.stores.s3 import S3Options, S3Store
from archiver.stores.s3.bucket import Bucket
from archiver.stores.s3.capabilities import Capabilities, ConditionalPuts, probe
from archiver.stores.s3.checksums import ChecksumKind
from archiver.stores.s3.journal import parse
from archiver.stores.s3.layout import is_journal
from archiver.stores.s3.lease import Lease, hold
from archiver.stores.s3.outages import ONE_TRY, OutageBudget
from tests.bucket.conftest import PREFIX
from tests.conftest import INSTANCE
from tests.servers.gateway import Answer, Fault, Request, refuse
from tests.servers.oddstore import AWS, BUCKET, OddStore, object_of
from tests.stores.conformance import PART, STEM, file_of, leave
from tests.stores.test_oddstore import place_in

KEY = f"{PREFIX}/.staging/{INSTANCE}/lock"
NEWCOMER = json.dumps({"host": "other", "pid": 1, "name": "newcomer", "beat": 1}).encode()
FORMS = [ConditionalPuts.QUOTED, ConditionalPuts.NONE]


def bucket_on(odd: OddStore, outages: OutageBudget | None = None) -> Bucket:
    given = S3Options(endpoint=odd.endpoint)
    return Bucket(BUCKET, f"{PREFIX}/", given, outages or OutageBudget(ONE_TRY))


def comes(odd: OddStore) -> None:
    """Another process takes the lease."""
    odd.objects[KEY] = object_of(NEWCOMER)


def taken(odd: OddStore, form: ConditionalPuts = ConditionalPuts.QUOTED) -> Lease:
    lease = Lease(bucket_on(odd), Capabilities(ChecksumKind.MD5, form), 10.0, INSTANCE)
    assert lease.take(None) is None
    return lease


@pytest.mark.parametrize("form", FORMS)
def test_a_newcomer_after_a_deletion_whose_answer_was_lost(
    odd: OddStore, form: ConditionalPuts
) -> None:
    def lost(*_: object) -> None:
        comes(odd)

    lease = taken(odd, form)
    fault = odd.add(Fault("DeleteObject", change=lost))
    lease.release()
    assert fault.met == 1
    assert odd.objects[KEY].data == NEWCOMER


def test_a_deletion_whose_answer_was_lost_is_one(odd: OddStore) -> None:
    odd.add(Fault("DeleteObject", change=lambda *_: None))
    with hold(bucket_on(odd), Capabilities(ChecksumKind.MD5, FORMS[0]), 10.0, scope=INSTANCE):
        pass
    assert KEY not in odd.objects


def test_a_lease_that_others_may_take_is_renewed_before_it_is_deleted(
    odd: OddStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a sleep of the machine: a deletion has no condition."""

    def change(_: Request, answer: Answer) -> Answer:
        comes(odd)
        return answer

    real, lease = time.clock_gettime, taken(odd)
    odd.add(Fault("GetObject", change=change))
    monkeypatch.setattr(time, "clock_gettime", lambda clock: real(clock) + 20)
    lease.release()
    assert odd.objects[KEY].data == NEWCOMER


def test_a_lease_that_was_just_renewed_is_deleted_at_once(odd: OddStore) -> None:
    lease = taken(odd)
    odd.forget()
    lease.release()
    assert odd.counts == {"GetObject": 1, "DeleteObject": 1}


def test_a_renewal_takes_three_requests(odd: OddStore) -> None:
    """The arithmetic at the head of lease.py counts on it."""
    lease = taken(odd)
    odd.forget()
    assert lease.renew() == 10.0
    assert odd.counts == {"GetObject": 2, "PutObject": 1}


async def test_one_that_does_not_watch_learns_at_once(odd: OddStore) -> None:
    comes(odd)
    store = S3Store(f"s3://{BUCKET}/{PREFIX}", S3Options(endpoint=odd.endpoint), beat=3600.0)
    with anyio.fail_after(60), pytest.raises(ArchiveBusy, match="process 1 on other"):
        async with store.exclusive(INSTANCE, watch=False):
            pass


class Settling(threading.Event):
    """Notes how long is waited, and calls ``then``."""

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.then, self.waits = then, list[float | None]()

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout)
        self.then()
        return False


@pytest.mark.parametrize(("took", "waits"), [(0.0, 2.0), (1.0, 6.0), (60.0, 10.0)])
def test_without_conditions_the_last_put_decides(
    odd: OddStore, monkeypatch: pytest.MonkeyPatch, took: float, waits: float
) -> None:
    """Whoever saw no lease, either, has written its own by then."""
    now = [1000.0]
    monkeypatch.setattr("archiver.stores.s3.lease.boot_clock", lambda: now[0])

    def put(_: Request, answer: Answer) -> Answer:
        now[0] += took
        return answer

    odd.add(Fault("PutObject", None, change=put))
    capabilities = Capabilities(ChecksumKind.MD5, ConditionalPuts.NONE)
    settling = Settling(lambda: comes(odd))
    lease = Lease(bucket_on(odd), capabilities, 10.0, INSTANCE, stop=settling)
    assert (lease.take(None) or {}).get("name") == "newcomer"
    assert settling.waits == [waits]


def test_the_next_beat_is_due_from_the_first_put(
    odd: OddStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting for others takes nothing from the time in which a lease must be renewed."""
    now = [1000.0]
    monkeypatch.setattr("archiver.stores.s3.lease.boot_clock", lambda: now[0])
    due = list[float]()

    @contextmanager
    def beating(_: object, after: float) -> Iterator[None]:
        due.append(after)
        yield

    monkeypatch.setattr("archiver.stores.s3.lease.beating", beating)

    def settled() -> None:
        now[0] += 6.0

    capabilities = Capabilities(ChecksumKind.MD5, ConditionalPuts.NONE)
    with hold(bucket_on(odd), capabilities, 10.0, Settling(settled), INSTANCE):
        assert due == [4.0]


async def test_one_that_holds_it_for_a_moment_says_so(odd: OddStore) -> None:
    def store() -> S3Store:
        return S3Store(f"s3://{BUCKET}/{PREFIX}", S3Options(endpoint=odd.endpoint))

    for briefly in (True, False):
        async with store().exclusive(INSTANCE, briefly=briefly):
            with pytest.raises(ArchiveBusy) as busy:
                async with store().exclusive(INSTANCE, watch=False):
                    pass
        assert busy.value.ends_soon == briefly


async def test_what_a_killed_pod_left_is_swept_by_a_run_on_another_host(odd: OddStore) -> None:
    """Its lease stays, and nothing new comes for its instance."""
    place = place_in(odd, beat=0.05)
    async with place.open() as store, Archive(store).writing("r-y"):
        pass
    await leave(place, file_of(2 * PART), kept={0})
    odd.open_uploads.clear()
    [journal] = [key for key in odd.objects if "/.staging/r-x/" in key]
    odd.objects[f"{journal.rpartition('/')[0]}/lock"] = object_of(NEWCOMER)
    async with place.open() as store:
        assert await store.leftovers() == ["r-x"]
        await Archive(store).tidy()
        assert await store.leftovers() == []


# Requests that met another about the same object


@pytest.mark.parametrize("code", ["ConditionalRequestConflict", "OperationAborted"])
def test_a_probe_that_meets_another_tries_again(
    odd: OddStore, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setattr("archiver.stores.s3.outages.pause", lambda _: True)
    bucket = bucket_on(odd, OutageBudget())
    assert probe(bucket).conditional_puts is ConditionalPuts.QUOTED
    conditional = list[Fault]()
    for header in ("if-match", "if-none-match"):
        fault = odd.add(refuse(409, code, kind="PutObject", times=3))
        fault.wanted = given(header)
        conditional.append(fault)
    assert probe(bucket).conditional_puts is ConditionalPuts.QUOTED
    assert [fault.met for fault in conditional] == [3, 3]


def given(header: str) -> Callable[[Request], bool]:
    return lambda request: header in request.headers


def test_a_renewal_that_meets_another_keeps_its_condition(odd: OddStore) -> None:
    lease = taken(odd)
    fault = odd.add(refuse(409, "ConditionalRequestConflict", kind="PutObject", times=3))
    for _ in range(3):
        assert lease.renew() == 2.0  # soon
    assert lease.renew() == 10.0
    assert (fault.met, lease._capabilities.conditional_puts) == (3, ConditionalPuts.QUOTED)


# What may not be deleted


async def test_a_journal_that_may_not_be_deleted_is_swept_once(odd: OddStore) -> None:
    """Or each run would take the lock of its instance, for ever."""
    place = place_in(odd)
    await leave(place, file_of(2 * PART), kept={0})
    odd.open_uploads.clear()
    odd.habits = replace(AWS, forbids=frozenset(["DeleteObject"]))
    async with place.open() as store, store.exclusive("r-x"):
        [swept] = await store.sweep("r-x")
        assert swept.why == "a journal without its upload"
        assert await store.sweep("r-x") == []
    assert await store.leftovers() == []


async def test_an_upload_is_aborted_once(odd: OddStore) -> None:
    """One listing of all uploads serves the sweeps of a run."""
    async with place_in(odd).open() as store, store.exclusive("r-x"):
        odd.habits = replace(AWS, initiated="2020-01-01T00:00:00.000Z")
        assert isinstance(store, S3Store)
        await in_thread(store.bucket.multipart.create, f"{STEM}.rdb")
        [swept] = await store.sweep("r-x")
        assert swept.key == f"{STEM}.rdb"
        assert await store.sweep("r-x") == []
        assert await store.leftovers() == []


@pytest.mark.parametrize("uploads", ["listed", "by exact key", "not implemented"])
async def test_an_upload_of_a_run_that_was_killed_before_it_noted_its_id(
    odd: OddStore, uploads: Literal["listed", "by exact key", "not implemented"]
) -> None:
    """It was begun after all uploads were listed."""
    odd.habits = replace(AWS, uploads=uploads)
    place = place_in(odd)
    async with place.open() as store:
        async with store.exclusive("r-y"):
            assert await store.sweep("r-y") == []
        await leave(place, file_of(2 * PART), kept={0})
        [journal] = [key for key in odd.objects if is_journal(key.partition("redis/")[2])]
        noted = parse(odd.objects[journal].data)
        assert noted is not None
        odd.objects[journal] = object_of(replace(noted, upload_id="").encode())
        async with store.exclusive("r-x"):
            swept = [one.key for one in await store.sweep("r-x")]
    assert swept[-1:] == [journal.partition("redis/")[2]]
    if uploads == "not implemented":  # nothing can tell
        odd.open_uploads.clear()
    assert not odd.open_uploads
