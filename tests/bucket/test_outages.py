"""A bucket that does not respond for a while: every request waits for it, and that is said once."""

import asyncio
import json
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import anyio
import pytest

from archiver import Archive, LocalStore, verify
from archiver.commands.copy.run import copy
from archiver.commands.copy.selection import CopyOptions
from archiver.commands.restore.run import restore
from archiver.concurrency import in_thread, in_thread_shielded
from archiver.emulator import Emulator
from archiver.errors import ArchiveBusy, ArchiverError, LockLost, StoreError
from archiver.retry import RetryPolicy
from archiver.stores.loans import boot_clock
from archiver.stores.s3 import S3Options, S3Store, lease, outages
from archiver.stores.s3.bucket import Bucket
from archiver.stores.s3.capabilities import Capabilities, ConditionalPuts
from archiver.stores.s3.checksums import ChecksumKind
from archiver.stores.s3.lease import Lease, hold
from archiver.stores.s3.outages import OutageBudget
from archiver.stores.s3.writing import VerifiedWriter
from examples.sample_rdb import write_rdb
from tests.bucket.conftest import MIB, PREFIX
from tests.bucket.test_odd_servers import whole
from tests.bucket.test_pull import bring
from tests.conftest import INSTANCE
from tests.servers.gateway import (
    Answer,
    Fault,
    Request,
    cut_download,
    error,
    gateway,
    silence,
    slow_down,
)
from tests.servers.oddstore import BUCKET, OddStore, object_of

PLACE = f"s3://{BUCKET}/{PREFIX}"
LEASE = f".staging/{INSTANCE}/lock"
KEY = f"{INSTANCE}/2026/11/SHA256SUMS"
WRITING = {
    "PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload",
    "AbortMultipartUpload", "CopyObject", "DeleteObject",
}  # fmt: skip
# As the default, and quick.
HASTY = RetryPolicy(first_wait=0.001, max_wait=0.002, give_up_after=60.0)
# Longer than any test, once the bucket has answered.
FOR_EVER = RetryPolicy(give_up_after=36_000.0)
CAPABILITIES = Capabilities(ChecksumKind.MD5, ConditionalPuts.QUOTED)


def store_on(odd: OddStore, policy: RetryPolicy = HASTY, **given: object) -> S3Store:
    return S3Store(PLACE, S3Options(endpoint=odd.endpoint), retry=policy, **given)  # type: ignore[arg-type]


def bucket_on(odd: OddStore, policy: RetryPolicy = HASTY) -> Bucket:
    given = S3Options(endpoint=odd.endpoint)
    return Bucket(BUCKET, f"{PREFIX}/", given, OutageBudget(policy))


@dataclass
class Flaky:
    """One request of seven succeeds. ``lost`` are the kinds of those that did not."""

    count: int = 0
    lost: set[str] = field(default_factory=set)

    def __call__(self, request: Request) -> bool:
        self.count += 1
        if self.count % 7 == 0:
            return False
        self.lost.add(request.kind)
        return True


@pytest.fixture
def two(files: Path) -> dict[str, bytes]:
    """A file of two parts and a small one."""
    return {
        name: write_rdb(files / INSTANCE / f"{name}_202611{day}021500.rdb", size, day)
        for day, (name, size) in enumerate((("large", 6 * MIB), ("small", 20_000)), 10)
    }


async def test_nothing_ends_by_it(
    emulator: Emulator,
    odd: OddStore,
    two: dict[str, bytes],
    tmp_path: Path,
) -> None:
    """More failures than any client retries by itself, at every request of every command."""
    flaky = Flaky()
    odd.add(replace(silence(), wanted=flaky))
    assert (await bring(emulator, Archive(store_on(odd)))).failures == []
    whole(odd, two)
    assert (await verify(Archive(store_on(odd)))).findings == []
    restored = await restore(Archive(store_on(odd)), tmp_path / "restored", instance_id=INSTANCE)
    assert restored.exit_code == 0
    there = Archive(LocalStore(tmp_path / "copy"))
    assert (await copy(Archive(store_on(odd)), there, CopyOptions())).failures == []
    odd.objects.clear()
    assert (await copy(there, Archive(store_on(odd)), CopyOptions())).failures == []
    whole(odd, two)
    assert flaky.lost >= {
        "GetObject", "HeadObject", "PutObject", "ListObjectsV2", "ListMultipartUploads",
        "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "DeleteObject",
    }  # fmt: skip


async def test_bytes_of_a_document_that_break_off_are_asked_for_again(odd: OddStore) -> None:
    store = store_on(odd)
    odd.objects[f"{PREFIX}/a.json"] = object_of(b"{}" * 500)
    broken = odd.add(cut_download(100, times=3))
    assert await store.read("a.json") == b"{}" * 500
    assert broken.met == 3
    odd.add(cut_download(100, times=None))
    with pytest.raises(StoreError, match="broke off"):
        await store.read("a.json")


async def test_an_outage_is_said_once(odd: OddStore) -> None:
    told: list[str] = []
    store = store_on(odd, on_wait=told.append)
    for _ in range(2):
        odd.add(silence(20))
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(store.read, "archive.json")
        odd.forget()
        assert await store.read("archive.json") is None
    assert told == ["the connection broke off"] * 2
    odd.add(silence(2))
    assert await store.read("archive.json") is None
    assert len(told) == 2


@pytest.mark.parametrize("answered", [False, True])
async def test_one_that_answered_is_waited_for_longer(
    odd: OddStore, monkeypatch: pytest.MonkeyPatch, answered: bool
) -> None:
    """Without any response it gives up after FIRST_RESPONSE_SECONDS: the endpoint may be wrong."""
    monkeypatch.setattr(outages, "FIRST_RESPONSE_SECONDS", 0.0)
    store = store_on(odd)
    if answered:
        await store.read("archive.json")
    odd.add(silence(5))
    if answered:
        assert await store.read("archive.json") is None
    else:
        with pytest.raises(StoreError, match="whether it is reachable"):
            await store.read("archive.json")


async def test_an_end_is_an_end(odd: OddStore) -> None:
    """No retry of a refused request, nor of one whose outage exceeds the budget."""
    store = store_on(odd, replace(HASTY, give_up_after=0.05))
    await store.read("archive.json")
    gone = odd.add(silence())
    with pytest.raises(StoreError):
        await store.read("archive.json")
    before = gone.met
    with pytest.raises(StoreError):
        await store.read("archive.json")
    assert (before > 1, gone.met - before) == (True, 1)


async def test_a_cancellation_ends_the_wait(odd: OddStore) -> None:
    store = store_on(odd, FOR_EVER)
    await store.read("archive.json")
    gone = odd.add(silence())
    async with anyio.create_task_group() as group:
        group.start_soon(store.read, "archive.json")
        while not gone.met:
            await anyio.sleep(0.001)
        group.cancel_scope.cancel()


async def test_cleaning_up_after_a_cancellation_waits_no_more(odd: OddStore) -> None:
    store = store_on(odd, FOR_EVER)
    await store.read("archive.json")
    gone = odd.add(silence())
    with anyio.CancelScope() as scope:
        scope.cancel()
        for _ in range(2):
            with pytest.raises(StoreError):
                await in_thread_shielded(lambda: store.bucket.get("archive.json"))
    assert gone.met == 1  # and while nobody answers, nobody is asked


async def test_ctrl_c_ends_the_wait_for_a_bucket(
    odd: OddStore, environ: dict[str, str], tmp_path: Path
) -> None:
    gone = odd.add(slow_down(None))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "archiver", "ls", PLACE, "--s3-endpoint", odd.endpoint,
        "--retry-for", "10h", env=environ, cwd=tmp_path, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    line = (await process.stderr.readline()).decode()
    assert line == f"waiting for the bucket: {PLACE}: 503 SlowDown\n"
    assert gone.met == 3
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(20):
        assert await process.wait() == 130


# The lease


class Clock:
    """A clock in place of waiting."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(lease, "boot_clock", lambda: self.now)


def test_a_lease_is_looked_at_before_anything_is_written(
    odd: OddStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an outage another process may have it; until that is known, writes wait."""
    clock = Clock(monkeypatch)
    one = Lease(bucket_on(odd), CAPABILITIES, 5.0, INSTANCE)
    assert one.take(None) is None
    clock.now += 13.0
    paused: list[float] = []

    def answers(seconds: float) -> bool:
        paused.append(seconds)
        if len(paused) == 3:
            one._seen_at = clock.now
        return True

    monkeypatch.setattr(lease, "pause", answers)
    one.check()
    assert len(paused) == 3


def test_a_lease_that_is_anothers_after_an_outage(
    odd: OddStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    one, other = (Lease(bucket_on(odd), CAPABILITIES, 0.01, INSTANCE) for _ in range(2))
    assert one.take(None) is None
    etag = bucket_on(odd).get(LEASE)
    assert etag is not None
    assert other.take(etag[1]) is None
    clock.now += 13.0
    beating = threading.Thread(target=one.renew)
    beating.start()
    with pytest.raises(LockLost, match=f"the lock of {INSTANCE} in this archive"):
        one.check()
    beating.join()


def test_a_lease_that_cannot_be_renewed_ends_the_run(
    odd: OddStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    one = Lease(bucket_on(odd), CAPABILITIES, 5.0, INSTANCE)
    assert one.take(None) is None
    clock.now += 13.0

    def passes(seconds: float) -> bool:
        clock.now += seconds
        return True

    monkeypatch.setattr(lease, "pause", passes)
    with pytest.raises(StoreError, match=r"could not be renewed for 7[0-9] s"):
        one.check()
    began = clock.now
    with pytest.raises(StoreError, match="could not be renewed"):
        one.check()  # what cleans up does not wait for all of it again
    assert clock.now - began < 15.0


def test_a_lease_outlives_an_outage(odd: OddStore) -> None:
    """Its beat continues, and soon."""
    bucket = bucket_on(odd)
    with hold(bucket, CAPABILITIES, 0.05) as one:
        gone = odd.add(silence())
        while not gone.met or boot_clock() - one._seen_at <= one._may_be_silent:
            one._stop.wait(0.01)
        checked = threading.Thread(target=one.check)
        checked.start()
        odd.forget()
        checked.join()
        assert one._lost is None
        assert boot_clock() - one._seen_at <= one._may_be_silent
        assert gone.met


def test_who_watches_a_lease_counts_no_outage(
    odd: OddStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its holder could not renew it, either, and gets the time to do so."""
    there = bucket_on(odd, replace(HASTY, give_up_after=2000.0))
    now, looks = 0.0, 0

    def get(key: str) -> tuple[bytes, str]:
        nonlocal now, looks
        looks += 1
        now += 1000.0 if looks == 2 else 0.001
        beat = 1 if looks < 4 else 2
        return json.dumps({"host": "another", "pid": 1, "name": "n", "beat": beat}).encode(), str(
            beat
        )

    monkeypatch.setattr(there, "get", get)
    monkeypatch.setattr("archiver.stores.s3.lease.time.monotonic", lambda: now)
    with pytest.raises(ArchiveBusy):
        lease._free_etag(there, 0.02, threading.Event(), INSTANCE)
    assert looks == 4


@pytest.mark.parametrize(("look", "ends"), [(6.0, "taken"), (60.0, "too slowly to tell")])
def test_who_watches_a_lease_in_a_slow_bucket_comes_to_an_end(
    odd: OddStore, monkeypatch: pytest.MonkeyPatch, look: float, ends: str
) -> None:
    """Only the time of slow reads is not counted; and the reason of the wait is reported."""
    now, told = 0.0, list[str]()
    given = S3Options(endpoint=odd.endpoint)
    there = Bucket(BUCKET, f"{PREFIX}/", given, OutageBudget(on_wait=told.append))
    body = json.dumps({"host": "db", "pid": 7, "name": "n", "beat": 1}).encode()

    def get(_: str) -> tuple[bytes, str]:
        nonlocal now
        now += look
        return body, "seen"

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            nonlocal now
            now += timeout or 0.0
            return False

    monkeypatch.setattr(there, "get", get)
    monkeypatch.setattr("archiver.stores.s3.lease.time.monotonic", lambda: now)
    if ends == "taken":
        assert lease._free_etag(there, 10.0, Stop(), INSTANCE) == "seen"
    else:
        with pytest.raises(ArchiveBusy, match=f"process 7 on db has the lease.*{ends}"):
            lease._free_etag(there, 10.0, Stop(), INSTANCE)
    assert told == [f"it took {look:.0f} s to read the lease"]
    assert now < 500.0


def test_who_waits_for_a_lease_says_so(odd: OddStore, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, told = Clock(monkeypatch), list[str]()
    given = S3Options(endpoint=odd.endpoint)
    one = Lease(
        Bucket(BUCKET, f"{PREFIX}/", given, OutageBudget(on_wait=told.append)), CAPABILITIES, 5.0
    )
    assert one.take(None) is None
    clock.now += 13.0
    pauses = iter([True, True, False])
    monkeypatch.setattr(lease, "pause", lambda _: next(pauses))
    with pytest.raises(StoreError):
        one.check()
    assert told == ["the lease could not be renewed for 13 s"]


def test_a_lease_that_went_away_is_not_taken_again_by_a_beat(odd: OddStore) -> None:
    """Another process had and released it meanwhile: what we know of the archive is outdated."""
    bucket = bucket_on(odd)
    one = Lease(bucket, CAPABILITIES, 5.0, INSTANCE)
    assert one.take(None) is None
    found = bucket.get(LEASE)
    assert found is not None
    bucket.delete(LEASE)
    assert one.take(found[1]) is not None
    assert bucket.get(LEASE) is None


def writes(bucket: Bucket) -> list[Callable[[], object]]:
    """Each kind of request that changes something."""
    writer = VerifiedWriter(bucket, CAPABILITIES)
    return [
        lambda: writer.put_document(KEY, b"of the first"),
        lambda: writer.put(f"{INSTANCE}/a.rdb", b"bytes"),
        lambda: bucket.multipart.create(f"{INSTANCE}/b.rdb"),
        lambda: bucket.multipart.upload_part(f"{INSTANCE}/c.rdb", "id", 1, bytearray(b"x")),
        lambda: bucket.multipart.complete(f"{INSTANCE}/c.rdb", "id", ["etag"]),
        lambda: bucket.multipart.abort(f"{INSTANCE}/c.rdb", "id"),
        lambda: bucket.copy(KEY, f"{INSTANCE}/d.rdb", 3),
        lambda: bucket.delete_if_allowed(KEY),
    ]


async def test_who_was_cut_off_writes_nothing_over_the_next_writer(odd: OddStore) -> None:
    """Each waits in an outage of its own; another process takes the lease before that ends."""
    with gateway(odd.port) as way:
        cut_off = S3Store(PLACE, S3Options(endpoint=way.endpoint), retry=HASTY, beat=0.2)
        failures = list[ArchiverError]()

        async def ask(write: Callable[[], object]) -> None:
            with pytest.raises(LockLost, match=f"the lock of {INSTANCE} in this archive") as caught:
                await in_thread(write)
            failures.append(caught.value)

        async with cut_off.exclusive(INSTANCE), anyio.create_task_group() as group:
            await cut_off.put(KEY, b"before")
            way.forget()
            way.add(silence())
            for write in writes(cut_off.bucket):
                group.start_soon(ask, write)
            while not set(way.counts) >= WRITING:
                await anyio.sleep(0.005)
            second = store_on(odd, beat=0.2)
            async with second.exclusive(INSTANCE):
                await second.put(KEY, b"of the second")
                way.forget()
                while len(failures) < len(WRITING) + 1:
                    await anyio.sleep(0.005)
        assert odd.objects[f"{PREFIX}/{KEY}"].data == b"of the second"
        assert set(way.counts) <= {"GetObject"}


async def test_a_document_takes_the_place_of_the_first_that_was_seen_alone(odd: OddStore) -> None:
    """A document that appears during our retry is another writer's."""
    others = iter([b"one", b"two", b"three"])

    def overtaken(_: Request) -> Answer:
        odd.objects[f"{PREFIX}/{KEY}"] = object_of(next(others))
        return error(412, "PreconditionFailed")

    odd.add(Fault("PutObject", 2, instead=overtaken))
    with pytest.raises(StoreError, match="it keeps changing"):
        await in_thread(
            lambda: VerifiedWriter(bucket_on(odd), CAPABILITIES).put_document(KEY, b"ours")
        )
    assert odd.objects[f"{PREFIX}/{KEY}"].data == b"two"


async def test_a_lease_that_was_lost_before_the_answer_came(odd: OddStore) -> None:
    """As after a sleep of the machine: the write may have replaced another writer's object."""
    checks: list[ArchiveBusy | None] = [None, ArchiveBusy("it is another's")]

    def check(_: str) -> None:
        if (lost := checks.pop(0)) is not None:
            raise lost

    bucket = bucket_on(odd)
    bucket.before_each_write(check)
    with pytest.raises(ArchiveBusy, match="another's"):
        await in_thread(lambda: VerifiedWriter(bucket, CAPABILITIES).put_document(KEY, b"ours"))
    assert f"{PREFIX}/{KEY}" in odd.objects
