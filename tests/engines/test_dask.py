"""Pulls by a dask cluster: the same archive, whoever dies in the middle."""

import asyncio
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio
import pytest

from archiver.emulator import Emulator, Faults
from tests.conftest import INSTANCE, KEY_ID, KEY_SECRET
from tests.engines.conftest import FILES, Start
from tests.servers.dask import DaskCluster
from tests.servers.seaweedfs import SeaweedFS
from tests.sweeps import FULL, extent

pytestmark = pytest.mark.timeout(1700 if FULL else 300)

# Bytes a second of each connection, so that something is under way when somebody is killed.
SLOW = Faults(rate=extent(400_000, 20_000_000, on_budget=400_000))
FEW, HALF = FILES // 12, FILES // 2
# A few small files come all at once.
MIDDLE = extent(FEW, HALF, on_budget=FEW)

# What differs between two pulls of the same backups.
_VARIES = ("started_at", "finished_at", "attempts", "bytes_fetched_again", "bytes_fetched")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def tree(place: Path) -> dict[str, Any]:
    """What a directory archive holds, without the times of its transfers."""
    found: dict[str, Any] = {}
    for path in sorted(place.rglob("*")):
        key = path.relative_to(place).as_posix()
        # These say when something was done or learned.
        has_times = key.endswith(("index.jsonl", "archive.json")) or key.startswith("instances/")
        if not path.is_file() or has_times:
            found[key] = None
        elif path.suffix == ".json":
            record = json.loads(path.read_bytes())
            for name in _VARIES:
                record["transfer"].pop(name)
            found[key] = record
        else:
            found[key] = sha256(path.read_bytes())
    return found


def assert_whole(place: Path, originals: dict[str, str]) -> None:
    """Each file is here once with its record, all are named in SHA256SUMS, and nothing else."""
    kept = [sha256(path.read_bytes()) for path in place.rglob("*.rdb")]
    assert sorted(kept) == sorted(originals.values())
    assert len(list(place.glob("r-*/**/*Z-*.json"))) == len(originals)
    [sums] = place.rglob("SHA256SUMS")
    assert len(sums.read_text().splitlines()) == len(originals)
    subprocess.run(["sha256sum", "-c", "--quiet", sums.name], cwd=sums.parent, check=True)
    assert list((place / ".staging").iterdir()) == []
    assert not (place / ".quarantine").exists()


async def assert_bucket_is_whole(
    seaweed: SeaweedFS, bucket: str, originals: dict[str, str]
) -> None:
    """The same of a bucket."""

    def objects() -> dict[str, tuple[str, int]]:
        client, found = seaweed.client(), {}
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        for key in [one["Key"] for page in pages for one in page.get("Contents", ())]:
            data = client.get_object(Bucket=bucket, Key=key)["Body"].read()
            found[key] = sha256(data), len(data.splitlines())
        return found

    found = await asyncio.to_thread(objects)
    rdb = [digest for key, (digest, _) in found.items() if key.endswith(".rdb")]
    assert sorted(rdb) == sorted(originals.values())
    assert sum(bool(re.search(r"Z-.*\.json$", key)) for key in found) == len(originals)
    [lines] = [lines for key, (_, lines) in found.items() if key.endswith("SHA256SUMS")]
    assert lines == len(originals)
    assert {key for key in found if "/." in key} == {"redis/.staging/probe"}


async def test_processes_of_its_own_make_the_same_archive(
    originals: dict[str, str], start: Start, tmp_path: Path
) -> None:
    inline, by_dask = tmp_path / "inline", tmp_path / "dask"
    one = await start(inline)
    assert (await one.end())[0] == 0
    other = await start(by_dask, "--engine", "dask", "--processes", "2")
    code, err = await other.end()
    assert code == 0, err
    assert tree(by_dask) == tree(inline)
    assert_whole(by_dask, originals)
    kinds = ("planned", "archived", "set_completed", "failed")
    assert [other.count(kind) for kind in kinds] == [one.count(kind) for kind in kinds]
    [by_one], [by_others] = (
        [line for line in pull.lines if "exit_code" in line] for pull in (one, other)
    )
    assert {name for name in by_one if by_one[name] != by_others[name]} <= {"time", "seconds"}


async def test_the_log_has_the_requests_of_workers(
    originals: dict[str, str], start: Start, cluster: DaskCluster, tmp_path: Path
) -> None:
    cluster.start_worker()

    async def requests(name: str, *args: str) -> list[dict[str, Any]]:
        log = tmp_path / f"{name}.log"
        logs = "-vv", "--log-file", str(log), "--log-format", "json"
        pull = await start(tmp_path / name, *logs, *args)
        code, err = await pull.end()
        assert code == 0, err
        assert "Signature=" not in log.read_text()
        lines = map(json.loads, log.read_text().splitlines())
        return [line for line in lines if line["event"] == "request"]

    inline = await requests("inline")
    by_dask = await requests("dask", "--engine", "dask", "--scheduler", cluster.address)
    of_worker = [one for one in by_dask if "worker" in one]
    assert all(one["message"].endswith(f", by {one['worker']}") for one in of_worker)
    downloads = [one["path"] for one in inline if one["path"].endswith(".rdb")]
    assert len(set(downloads)) == FILES
    assert {one["path"] for one in of_worker} == set(downloads)


async def test_workers_that_are_killed_cost_a_retry(
    originals: dict[str, str], emulator: Emulator, seaweed: SeaweedFS, bucket: str,
    s3_writer: None, start: Start, cluster: DaskCluster,
) -> None:  # fmt: skip
    for _ in range(3):
        cluster.start_worker()
    emulator.faults = SLOW
    pull = await start(
        f"s3://{bucket}/redis", "--s3-endpoint", seaweed.endpoint,
        "--engine", "dask", "--scheduler", cluster.address, "--workers", "6",
    )  # fmt: skip
    await pull.until("archived", FEW)
    cluster.workers[0].kill()
    await pull.until("archived", HALF)
    cluster.workers[1].kill()
    code, err = await pull.end()
    assert code == 0, err + cluster.log
    assert pull.count("archived") == FILES
    await assert_bucket_is_whole(seaweed, bucket, originals)


async def test_a_lost_scheduler_ends_the_run_and_the_next_goes_on(
    originals: dict[str, str], emulator: Emulator, seaweed: SeaweedFS, bucket: str,
    s3_writer: None, start: Start, cluster: DaskCluster,
) -> None:  # fmt: skip
    place = f"s3://{bucket}/redis", "--s3-endpoint", seaweed.endpoint, "--workers", "6"
    for _ in range(3):
        cluster.start_worker()
    emulator.faults = SLOW
    pull = await start(*place, "--engine", "dask", "--scheduler", cluster.address)
    await pull.until("archived", MIDDLE)
    assert cluster.scheduler is not None
    cluster.scheduler.kill()
    code, err = await pull.end()
    assert code == 5, err
    assert "the connection to the scheduler was lost" in err
    assert MIDDLE <= pull.count("archived") < FILES
    cluster.start_scheduler()
    for _ in range(3):
        cluster.start_worker()
    rest = await start(*place, "--engine", "dask", "--scheduler", cluster.address)
    code, err = await rest.end()
    assert code == 0, err
    assert 0 < rest.count("archived") <= FILES - MIDDLE
    await assert_bucket_is_whole(seaweed, bucket, originals)


async def test_a_killed_coordinator_ends_its_workers_and_the_next_run_goes_on(
    originals: dict[str, str], emulator: Emulator, seaweed: SeaweedFS, bucket: str,
    s3_writer: None, start: Start, cluster: DaskCluster,
) -> None:  # fmt: skip
    for _ in range(3):
        cluster.start_worker()
    emulator.faults = SLOW
    args = (
        f"s3://{bucket}/redis", "--s3-endpoint", seaweed.endpoint, "--workers", "6",
        "--engine", "dask", "--scheduler", cluster.address,
    )  # fmt: skip
    pull = await start(*args)
    await pull.until("archived", MIDDLE)
    pull.process.kill()
    await pull.process.wait()
    rest = await start(*args)
    code, err = await rest.end()
    assert code == 0, err
    assert 0 < rest.count("archived") <= FILES - MIDDLE
    await assert_bucket_is_whole(seaweed, bucket, originals)


POISON = """
import os
from archiver.engines import inline

def deadly(name):
    harmless = getattr(inline.Inline, name)
    async def run(self, first, *rest):
        transfers = first if isinstance(first, list) else [first]
        if any("{poison}" in one.stem for one in transfers):
            os.kill(os.getpid(), 9)
        return await harmless(self, first, *rest)
    setattr(inline.Inline, name, run)

deadly("one")
deadly("together")
"""


async def test_a_backup_that_kills_workers_is_named_and_the_others_come(
    originals: dict[str, str], start: Start, cluster: DaskCluster, tmp_path: Path
) -> None:
    place, preload = tmp_path / "archive", tmp_path / "poison.py"
    [poison, *_] = originals
    preload.write_text(POISON.format(poison=f"{poison[:8]}T{poison[8:]}Z"))
    for _ in range(2):  # nannies start them again
        cluster.start_worker("--preload", str(preload))
    pull = await start(place, "--engine", "dask", "--scheduler", cluster.address)
    code, err = await pull.end()
    assert code == 1, err + cluster.log
    assert "3 workers died while they worked on it" in err
    assert pull.count("failed") == 1
    assert pull.count("archived") == FILES - 1
    del originals[poison]
    assert_whole(place, originals)


async def test_a_worker_of_another_version(
    originals: dict[str, str], start: Start, cluster: DaskCluster, tmp_path: Path
) -> None:
    preload = tmp_path / "older.py"
    preload.write_text("from archiver.engines.dask import worker\nworker.__version__ = '0.0.1'\n")
    cluster.start_worker("--no-nanny", "--preload", str(preload))
    pull = await start(tmp_path / "archive", "--engine", "dask", "--scheduler", cluster.address)
    code, err = await pull.end()
    assert code == 2, err
    assert "has archiver 0.0.1, and this is" in err
    assert pull.count("archived") == 0


NO_ARCHIVE = """
from archiver.stores.local.store import LocalStore

def refused(*_):
    raise PermissionError(13, "refused")

LocalStore.__init__ = refused
"""


async def test_a_worker_that_fails_to_open_the_archive_is_not_waited_for(
    originals: dict[str, str], start: Start, cluster: DaskCluster, tmp_path: Path
) -> None:
    preload = tmp_path / "refused.py"
    preload.write_text(NO_ARCHIVE)
    cluster.start_worker("--no-nanny", "--preload", str(preload))
    pull = await start(tmp_path / "archive", "--engine", "dask", "--scheduler", cluster.address)
    code, err = await pull.end()
    assert code == 2, err
    assert "cannot take part: PermissionError: [Errno 13] refused" in err


async def test_an_interrupt_ends_what_the_workers_do(
    originals: dict[str, str], emulator: Emulator, start: Start, cluster: DaskCluster,
    tmp_path: Path,
) -> None:  # fmt: skip
    place = tmp_path / "archive"
    cluster.start_worker()
    emulator.faults = SLOW
    pull = await start(place, "--engine", "dask", "--scheduler", cluster.address)
    await pull.until("archived", FEW)
    pull.process.send_signal(signal.SIGINT)
    code, err = await pull.end()
    assert code == 130, err
    emulator.faults = Faults()
    rest = await start(place)  # at once: no lock is left, and no worker writes any more
    assert (await rest.end())[0] == 0
    assert rest.count("archived") + rest.count("held") == FILES
    assert_whole(place, originals)


async def test_processes_of_its_own_end_with_an_interrupt(
    originals: dict[str, str], emulator: Emulator, start: Start, tmp_path: Path
) -> None:
    place = tmp_path / "archive"
    emulator.faults = SLOW
    pull = await start(place, "--engine", "dask", "--processes", "2")
    await pull.until("archived", FEW)
    os.killpg(pull.process.pid, signal.SIGINT)  # as a terminal does
    code, err = await pull.end()
    assert code == 130, err
    assert "Traceback" not in err
    with anyio.fail_after(30):  # the last of them may still be on their way out
        while any(not state.startswith("Z") for state in states_of(pull.process.pid)):
            await anyio.sleep(0.05)


def states_of(session: int) -> list[str]:
    """The states and commands of all processes of a session."""
    ps = ["ps", "-o", "stat=,args=", "-s", str(session)]
    return subprocess.run(ps, check=False, capture_output=True, text=True).stdout.splitlines()


async def test_a_worker_that_wakes_after_its_coordinator_died_writes_nothing(
    originals: dict[str, str], emulator: Emulator, seaweed: SeaweedFS, bucket: str,
    s3_writer: None, start: Start, cluster: DaskCluster,
) -> None:  # fmt: skip
    worker = cluster.start_worker()
    emulator.faults = Faults(rate=100_000)
    place = (f"s3://{bucket}/redis", "--s3-endpoint", seaweed.endpoint)
    pull = await start(*place, "--engine", "dask", "--scheduler", cluster.address)
    await pull.until("archived", 3)
    os.kill(worker.pid, signal.SIGSTOP)
    pull.process.kill()
    await pull.process.wait()
    emulator.faults = Faults()
    rest = await start(*place)
    assert (await rest.end())[0] == 0
    await assert_bucket_is_whole(seaweed, bucket, originals)

    def written() -> dict[str, object]:
        pages = seaweed.client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return {
            one["Key"]: (one["ETag"], one["LastModified"])
            for page in pages
            for one in page["Contents"]
        }

    before = await asyncio.to_thread(written)
    os.kill(worker.pid, signal.SIGCONT)
    await ask(cluster, _UNTIL_NO_RUN)
    assert await asyncio.to_thread(written) == before


_UNTIL_NO_RUN = """
import sys, time
from distributed import Client
from archiver.engines.dask import worker
client = Client(sys.argv[1])
while any(client.run(lambda: list(worker._RUNS)).values()):
    time.sleep(0.2)
"""


async def ask(cluster: DaskCluster, script: str, *args: str) -> bytes:
    """What a client of the cluster prints."""
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, cluster.address, *args, env=cluster.environ, stdout=-1
    )
    out, _ = await client.communicate()
    assert client.returncode == 0
    return out


_WHAT_THE_SCHEDULER_KNOWS = """
import sys
from distributed import Client
client = Client(sys.argv[1])
client.dump_cluster_state(sys.argv[2], format="yaml")
print(client.run_on_scheduler(
    lambda dask_scheduler: [
        (key, task.run_spec, task.run_spec.data if hasattr(task.run_spec, "data") else "")
        for key, task in dask_scheduler.tasks.items()
    ]
))
print(client.get_events())
"""


async def test_nothing_secret_is_in_a_log_or_in_what_the_scheduler_knows(
    originals: dict[str, str], emulator: Emulator, start: Start, cluster: DaskCluster,
    tmp_path: Path,
) -> None:  # fmt: skip
    cluster.start_worker()
    dump = tmp_path / "dump"
    emulator.faults = SLOW
    pull = await start(tmp_path / "archive", "--engine", "dask", "--scheduler", cluster.address)
    await pull.until("archived", FEW)
    known = await ask(cluster, _WHAT_THE_SCHEDULER_KNOWS, str(dump))
    assert (await pull.end())[0] == 0
    seen = known + dump.with_suffix(".yaml").read_bytes() + cluster.log.encode()
    assert INSTANCE.encode() in known
    for secret in (KEY_ID, KEY_SECRET, "Signature=", "OSSAccessKeyId", "security-token"):
        assert secret.encode() not in seen, seen[
            (at := seen.index(secret.encode())) - 400 : at + 200
        ]


@pytest.mark.parametrize(
    ("args", "code", "why"),
    [
        (("--engine", "dask"), 2, "needs either --scheduler or --processes"),
        (("--engine", "dask", "--scheduler", "x", "--processes", "2"), 2, "needs either"),
        (("--processes", "2"), 2, "need --engine dask"),
        (("--engine", "dask", "--scheduler", "no://where"), 2, "--scheduler no://where"),
        (("--engine", "dask", "--scheduler", "tcp://127.0.0.1:9"), 5, "no scheduler answers"),
    ],
)
async def test_what_cannot_be_used(
    args: tuple[str, ...], code: int, why: str, start: Start, tmp_path: Path
) -> None:
    pull = await start(tmp_path / "archive", *args)
    ended, err = await pull.end()
    assert (ended, "Traceback" in err) == (code, False)
    assert why in err
    assert not pull.count("page_listed")


async def test_the_rate_limit_is_shared(
    originals: dict[str, str], files: Path, start: Start, tmp_path: Path
) -> None:
    size = sum(path.stat().st_size for path in (files / INSTANCE).iterdir())
    rate = size // 4
    pull = await start(
        tmp_path / "archive", "--engine", "dask", "--processes", "2", "--limit-rate", str(rate)
    )
    assert (await pull.end())[0] == 0
    began, *_, ended = (
        datetime.fromisoformat(line["time"])
        for line in pull.lines
        if line["event"] in {"planned", "archived"}
    )
    assert (ended - began).total_seconds() > 0.75 * size / rate
