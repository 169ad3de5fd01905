"""The lease of an archive in a bucket: a live holder keeps it, whatever its host is called and
whichever responses of the store are lost."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
from anyio import to_thread

from archiver.errors import ArchiveBusy, StoreError
from archiver.retry import RetryPolicy
from archiver.stores.s3 import S3Options, S3Store
from archiver.stores.s3.capabilities import probe
from archiver.stores.s3.lease import Lease, hold
from tests.bucket.conftest import PREFIX
from tests.servers import gateway as gates
from tests.servers.gateway import Gateway, Request
from tests.servers.seaweedfs import SeaweedFS
from tests.stores.test_holder import CONTAINER, in_containers

KEY = f"{PREFIX}/.staging/r-x/lock"
HOLD = """
import sys, time
from archiver.stores.s3 import S3Options
from archiver.stores.s3.bucket import Bucket
from archiver.stores.s3.capabilities import probe
from archiver.stores.s3.lease import hold

bucket = Bucket(sys.argv[1], sys.argv[2], S3Options(endpoint=sys.argv[3]))
with hold(bucket, probe(bucket), float(sys.argv[4]), scope="r-x"):
    print("held", flush=True)
    time.sleep(float(sys.argv[5]))
"""


def store(bucket: str, endpoint: str, beat: float, retry: RetryPolicy | None = None) -> S3Store:
    given = S3Options(endpoint=endpoint)
    return S3Store(f"s3://{bucket}/{PREFIX}", given, beat=beat, retry=retry)


def is_lease(request: Request) -> bool:
    return request.path.endswith("/.staging/r-x/lock")


@contextmanager
def held_in_a_container(bucket: str, endpoint: str) -> Iterator["subprocess.Popen[str]"]:
    given = [bucket, f"{PREFIX}/", endpoint, "0.5", "600"]
    with subprocess.Popen(
        [*CONTAINER, sys.executable, "-c", HOLD, *given], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        try:
            yield holder
        finally:
            holder.kill()


@in_containers
@pytest.mark.parametrize("newcomer", ["in a container", "outside"])
async def test_a_living_holder_in_another_container(
    seaweed: SeaweedFS, bucket: str, s3_writer: None, newcomer: str
) -> None:
    """Two containers with one host name: the same process ids mean different processes."""

    def contend() -> None:
        with held_in_a_container(bucket, seaweed.endpoint) as holder:
            given = [bucket, f"{PREFIX}/", seaweed.endpoint, "3", "0"]
            inside = CONTAINER if newcomer == "in a container" else []
            came = subprocess.run(
                [*inside, sys.executable, "-c", HOLD, *given],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert "ArchiveBusy" in came.stderr, came.stdout
            assert holder.poll() is None

    await to_thread.run_sync(contend)


async def test_a_lease_of_an_earlier_version_is_watched(
    seaweed: SeaweedFS, bucket: str, s3_writer: None
) -> None:
    """It has no namespaces: by its host name alone it would look dead here."""
    old = {
        "host": socket.gethostname(), "pid": 2**22 - 1, "started": "1", "name": "n",
        "boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
    }  # fmt: skip

    def beat(number: int) -> None:
        body = json.dumps({**old, "beat": number}).encode()
        seaweed.client().put_object(Bucket=bucket, Key=KEY, Body=body)

    await to_thread.run_sync(beat, 0)
    over = anyio.Event()

    async def beat_on() -> None:
        number = 0
        while not over.is_set():
            number += 1
            await to_thread.run_sync(beat, number)
            await anyio.sleep(0.2)

    async with anyio.create_task_group() as group:
        group.start_soon(beat_on)
        with pytest.raises(ArchiveBusy):
            async with store(bucket, seaweed.endpoint, 5.0).exclusive("r-x"):
                pass
        over.set()


@pytest.mark.parametrize("times", [1, 3, 4], ids=lambda n: f"{n}-answers-lost")
async def test_a_beat_whose_answer_was_lost(gate: Gateway, bucket: str, times: int) -> None:
    """All three tries of one beat fail, so the next beat finds a lease that it did not expect."""

    def lose_answers() -> int:
        client = store(bucket, gate.endpoint, 0.2).bucket
        with hold(client, probe(client), 0.2, scope="r-x") as lease:
            fault = gates.drop_answer("PutObject", times)
            fault.wanted = is_lease
            gate.add(fault)
            while fault.times:
                lease._stop.wait(0.01)
            before = lease._beats
            while lease._beats < before + 3 and lease._lost is None:
                lease._stop.wait(0.01)
            assert lease._lost is None
            return fault.met

    assert await to_thread.run_sync(lose_answers) == times


async def test_a_first_answer_that_was_lost(gate: Gateway, bucket: str) -> None:
    fault = gates.drop_answer("PutObject", 3)
    fault.wanted = is_lease
    gate.add(fault)
    async with store(bucket, gate.endpoint, 5.0).exclusive("r-x"):
        assert fault.met == 3


async def test_somebody_elses_lease_is_not_believed_to_be_ours(
    seaweed: SeaweedFS, bucket: str, s3_writer: None
) -> None:
    def contend() -> None:
        client = store(bucket, seaweed.endpoint, 5.0).bucket
        first, second = (Lease(client, probe(client), 5.0, "r-x") for _ in range(2))
        assert first.take(None) is None
        holder = second.take(None)
        assert holder is not None
        assert holder["name"] == first._name

    await to_thread.run_sync(contend)


async def test_looking_whether_a_holder_lives_ends_with_a_cancellation(
    seaweed: SeaweedFS, bucket: str, s3_writer: None
) -> None:
    body = b'{"host": "another", "pid": 1}'
    await to_thread.run_sync(lambda: seaweed.client().put_object(Bucket=bucket, Key=KEY, Body=body))
    with anyio.move_on_after(1) as scope:
        async with store(bucket, seaweed.endpoint, 200.0).exclusive("r-x"):
            pass
    assert scope.cancelled_caught


async def test_a_holder_that_leaves_while_another_comes(gate: Gateway, bucket: str) -> None:
    """AWS responds 404 to a condition on an object that does not exist any more."""

    def come() -> None:
        client = store(bucket, gate.endpoint, 5.0).bucket
        first, second = (Lease(client, probe(client), 5.0, "r-x") for _ in range(2))
        assert first.take(None) is None
        found = client.get(".staging/r-x/lock")
        assert found is not None
        first.release()
        gone = gates.refuse(404, "NoSuchKey", kind="PutObject")
        gone.wanted = is_lease
        gate.add(gone)
        assert second.take(found[1]) is None
        assert gone.met == 1

    await to_thread.run_sync(come)


async def test_a_lease_is_lost_while_the_machine_sleeps(
    gate: Gateway, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No thread ran and others saw no beat: the clock includes the time asleep."""
    real = time.clock_gettime

    def slept(clock: int) -> float:
        return real(clock) + (3_600 if clock == time.CLOCK_BOOTTIME else 0)

    def sleep() -> None:
        client = store(bucket, gate.endpoint, 5.0, RetryPolicy(give_up_after=0.0)).bucket
        lease = Lease(client, probe(client), 5.0, "r-x")
        assert lease.take(None) is None
        lease.check()
        monkeypatch.setattr(time, "clock_gettime", slept)
        with pytest.raises(StoreError, match="3600 s"):
            lease.check()

    await to_thread.run_sync(sleep)
