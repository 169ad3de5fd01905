"""Two hosts, each in namespaces of its own, pull into one archive at the same time."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import pytest

from examples.sample_rdb import write_rdb
from tests.conftest import INSTANCE, KEY_ID, KEY_SECRET
from tests.faults.test_disk import STAMP, assert_converged

T = TypeVar("T")

# A host: its own name, its own network with nothing but a loopback, and a vendor on it.
HOST = """
hostname "$0" && ip link set lo up || exit 99
"$1" -m archiver emulate "$2" --port 0 --rate 100000 >"$3.ready" 2>"$3.emulator" & vendor=$!
until grep -q endpoint "$3.ready"; do kill -0 $vendor || exit 98; sleep 0.1; done
endpoint=$(sed -n 's/.*--endpoint \\([^ ]*\\).*/\\1/p' "$3.ready" | head -1)
code=7
while [ $code -eq 7 ]; do
    "$1" -m archiver pull --instance "$4" --to "$5" --endpoint "$endpoint" -q \\
        --range 2000-01-01..2099-12-31 --part-size 64KiB 2>>"$3.err"
    code=$?
done
kill $vendor; wait $vendor
exit $code
"""


def namespaces_allowed() -> bool:
    made = subprocess.run(
        ["unshare", "--net", "--uts", "sh", "-c", "hostname other && ip link set lo up"],
        capture_output=True, check=False,
    )  # fmt: skip
    return made.returncode == 0


@pytest.mark.timeout(400)
@pytest.mark.skipif(not namespaces_allowed(), reason="NEEDS ROOT and iproute2 for namespaces")
def test_two_hosts(files: Path, tmp_path: Path) -> None:
    originals = {
        name: write_rdb(files / INSTANCE / f"{name}_{STAMP}.rdb", size, size)
        for name, size in (("large", 900_000), ("middle", 300_000), ("small", 20_000))
    }
    place = tmp_path / "archive"
    key = {"ALIBABA_CLOUD_ACCESS_KEY_ID": KEY_ID, "ALIBABA_CLOUD_ACCESS_KEY_SECRET": KEY_SECRET}

    def start(name: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            ["unshare", "--net", "--uts", "sh", "-c", HOST, name,
             sys.executable, str(files), str(tmp_path / name), INSTANCE, str(place)],
            env={**os.environ, **key},
        )  # fmt: skip

    def holder() -> int | None:
        with suppress(FileNotFoundError, ValueError):
            return int(json.loads((place / ".locks" / INSTANCE).read_text())["pid"])
        return None

    def is_refused() -> bool:
        return "on host-a is writing" in (tmp_path / "host-b.err").read_text()

    first = start("host-a")
    process = soon(holder)
    # However slow this machine is, the second one comes while the first one writes.
    os.kill(process, signal.SIGSTOP)
    try:
        second = start("host-b")
        soon(is_refused)
    finally:
        os.kill(process, signal.SIGCONT)
    assert [host.wait(timeout=150) for host in (first, second)] == [0, 0]
    assert_converged(place, originals)


def soon(look: Callable[[], T | None]) -> T:
    """What a look finds, once that is something."""
    until = time.monotonic() + 100
    while time.monotonic() < until:
        with suppress(FileNotFoundError):
            if found := look():
                return found
        time.sleep(0.02)
    raise TimeoutError
