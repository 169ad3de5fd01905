"""A night of a large fleet: calls, time and memory of one ``pull --instance all``.

    python -m benchmarks.night PLACE [--instances 10000] [--shards 8] [--rate 200]

An emulator of the vendor's API lists cloud-native clusters, a backup of each shard, a few hundred
bytes long: the transfer is as good as none, and the listing, the plan, the records and the closing
are real. The pull has no quota, so that it ends in minutes; a second one finds nothing new. The
table has the calls by action, how long a quota of ``--rate`` calls a minute would make them take,
and the peak memory of the pull.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path

import anyio

from archiver.emulator import Emulator
from examples.sample_rdb import rdb

KEY = {"ALIBABA_CLOUD_ACCESS_KEY_ID": "LTAIbench", "ALIBABA_CLOUD_ACCESS_KEY_SECRET": "bench"}
REGIONS = ("cn-hangzhou", "cn-shanghai", "cn-beijing", "ap-southeast-1")


def make_fleet(root: Path, instances: int, shards: int) -> None:
    """``instances`` clusters of ``shards`` nodes, a backup of last night for each node."""
    data = rdb(1000)
    name = f"backup_{datetime.now(UTC) - timedelta(hours=5):%Y%m%d%H%M%S}.rdb"
    described = {}
    for number in range(instances):
        instance = f"r-bp1{number:012x}"
        described[instance] = {
            "RegionId": REGIONS[number % len(REGIONS)],
            "ArchitectureType": "cluster",
            "ComputingType": "Ecs",
            "ShardCount": shards,
        }
        for shard in range(shards):
            folder = root / instance / f"{instance}-db-{shard}"
            folder.mkdir(parents=True)
            (folder / name).write_bytes(data)
    (root / "instances.json").write_text(json.dumps({"instances": described}))


def serve_fleet(root: Path, pipe: Connection) -> None:
    """Serve it until an empty text comes; any other is answered by the calls of each action since
    the last one."""

    async def serve() -> None:
        key, secret = KEY.values()
        async with Emulator(root, access_key_id=key, access_key_secret=secret) as emulator:
            pipe.send(emulator.endpoint)
            while await anyio.to_thread.run_sync(pipe.recv):
                pipe.send(dict(emulator.tally.calls_by_action))
                emulator.tally.calls_by_action.clear()

    anyio.run(serve)


@contextmanager
def fleet(root: Path) -> Iterator[tuple[str, Connection]]:
    """The endpoint of an emulator in a process of its own, and the pipe to ask it for its calls."""
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve_fleet, args=(root, theirs))
    server.start()
    try:
        yield ours.recv(), ours
    finally:
        ours.send("")
        server.join()


def pulled(endpoint: str, archive: Path) -> tuple[float, float, float]:
    """One pull of everything: seconds of wall and of CPU, and the peak memory in MB."""
    command = [
        sys.executable, "-m", "archiver", "pull", "--instance", "all", "--region", "all",
        "--endpoint", endpoint, "--api-rate", "100000", "--refresh", "-q", "--to", str(archive),
    ]  # fmt: skip
    began = time.monotonic()
    with subprocess.Popen(command, env=os.environ | KEY) as run:
        _, status, usage = os.wait4(run.pid, 0)
        run.returncode = os.waitstatus_to_exitcode(status)
    if run.returncode:
        sys.exit(f"the pull ended with exit code {run.returncode}")
    cpu = usage.ru_utime + usage.ru_stime
    return time.monotonic() - began, cpu, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("place", type=Path)
    parser.add_argument("--instances", type=int, default=10_000)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--rate", type=int, default=200)
    given = parser.parse_args()
    root = given.place / "fleet"
    make_fleet(root, given.instances, given.shards)
    print("| night | calls | minutes under the quota | s | CPU s | MB |\n|---|---|---|---|---|---|")
    with fleet(root) as (endpoint, pipe):
        for night in ("first", "nothing new"):
            wall, cpu, memory = pulled(endpoint, given.place / "archive")
            pipe.send("calls")
            calls = Counter(pipe.recv())
            # Each region has a quota of its own; the regions of this fleet are of one size.
            minutes = max(calls.values()) / len(REGIONS) / given.rate
            said = ", ".join(f"{action} {count}" for action, count in calls.most_common())
            print(f"| {night} | {said} | {minutes:.1f} | {wall:.1f} | {cpu:.1f} | {memory:.0f} |")
    print(f"{sum(1 for _ in (given.place / 'archive').rglob('*.rdb'))} files in the archive")


if __name__ == "__main__":
    main()
