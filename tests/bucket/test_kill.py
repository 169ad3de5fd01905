"""Runs that are killed at random points, and resumed by processes with another home folder."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path

import pytest

from archiver.emulator import Emulator
from archiver.stores.holder import is_dead, parse
from archiver.stores.s3.layout import PROBE_KEY, lease_key
from archiver.stores.scope import WHOLE
from tests.bucket.conftest import MIB, PREFIX
from tests.bucket.test_pull import assert_whole
from tests.conftest import INSTANCE, KEY_ID, KEY_SECRET
from tests.servers.gateway import Gateway
from tests.servers.seaweedfs import SeaweedFS
from tests.sweeps import extent

KILLS = extent(4, 60)
PART = 5 * MIB


def start(emulator: Emulator, endpoint: str, bucket: str, place: Path) -> subprocess.Popen[bytes]:
    """A pull with its own working directory and home folder."""
    place.mkdir()
    return subprocess.Popen(
        [sys.executable, "-m", "archiver", "pull", "--instance", INSTANCE, "-q",
         "--endpoint", emulator.endpoint, "--range", "2000-01-01..2099-12-31",
         "--to", f"s3://{bucket}/{PREFIX}", "--s3-endpoint", endpoint,
         "--part-size", "5MiB", "--connections", "2", "--workers", "2"],
        cwd=place,
        env={
            **os.environ,
            "HOME": str(place),
            "ALIBABA_CLOUD_ACCESS_KEY_ID": KEY_ID,
            "ALIBABA_CLOUD_ACCESS_KEY_SECRET": KEY_SECRET,
            "PYTHONPATH": str(Path(__file__).parents[2]),
        },
        stderr=subprocess.PIPE,
    )  # fmt: skip


def remove_what_the_killed_held(seaweed: SeaweedFS, bucket: str, killed: Collection[int]) -> None:
    """Remove the leases of the runs with these process ids, and their uploads of the probe.

    They do no harm: whoever needs a lease next takes one whose holder is dead, and uploads are
    aborted after a week. The runs that follow may need neither.
    """
    leases = {f"{PREFIX}/{lease_key(scope)}" for scope in (WHOLE, INSTANCE)}
    for key in leases & seaweed.objects(bucket, f"{PREFIX}/.staging/").keys():
        holder = parse(seaweed.content(bucket, key))
        assert holder["pid"] in killed
        assert is_dead(holder)
        seaweed.client().delete_object(Bucket=bucket, Key=key)
    probes = [one for one in seaweed.uploads(bucket) if one[0] == f"{PREFIX}/{PROBE_KEY}"]
    assert len(probes) <= len(killed)
    for key, upload_id in probes:
        seaweed.client().abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload_id)


@pytest.mark.timeout(900)
async def test_killed_again_and_again(
    emulator: Emulator, seaweed: SeaweedFS, gate: Gateway, bucket: str,
    large_originals: dict[str, bytes], tmp_path: Path,
) -> None:  # fmt: skip
    import anyio

    seed = random.randrange(10**6)
    dice = random.Random(seed)
    print(f"seed {seed}")

    def kill_at_random() -> set[int]:
        killed = set()
        for number in range(KILLS):
            process = start(emulator, gate.endpoint, bucket, tmp_path / str(number))
            time.sleep(0.35 + 1.2 * dice.random())
            if process.poll() is None:
                killed.add(process.pid)
            process.kill()
            process.communicate()
        return killed

    killed = await anyio.to_thread.run_sync(kill_at_random)
    last = start(emulator, gate.endpoint, bucket, tmp_path / "last")
    _, err = await anyio.to_thread.run_sync(last.communicate)
    assert last.returncode == 0, err
    await anyio.to_thread.run_sync(remove_what_the_killed_held, seaweed, bucket, killed)
    await assert_whole(seaweed, bucket, large_originals)
    parts = sum(len(data) for data in large_originals.values() if len(data) > PART)
    sent = gate.bytes_up["UploadPart"]
    print(f"killed {len(killed)} times, {sent:,} bytes of {parts:,} sent as parts")
    # Two files and two connections each: so many parts may be under way at a kill.
    assert sent <= parts + len(killed) * 4 * PART
