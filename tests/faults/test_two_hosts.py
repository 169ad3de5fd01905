"""Two hosts, each in namespaces of its own, pull into one archive at the same time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from examples.sample_rdb import write_rdb
from tests.conftest import INSTANCE, KEY_ID, KEY_SECRET
from tests.faults.test_disk import STAMP, assert_converged

# A host: its own name, its own network with nothing but a loopback, and a vendor on it.
HOST = """
hostname "$0" && ip link set lo up || exit 99
"$1" -m archiver emulate "$2" --port 0 --rate 400000 >"$3.ready" 2>"$3.emulator" & vendor=$!
for _ in $(seq 100); do grep -q endpoint "$3.ready" && break; sleep 0.1; done
endpoint=$(sed -n 's/.*--endpoint \\([^ ]*\\).*/\\1/p' "$3.ready" | head -1)
code=7
for _ in $(seq 60); do
    "$1" -m archiver pull --instance "$4" --to "$5" --endpoint "$endpoint" -q \\
        --range 2000-01-01..2099-12-31 --part-size 64KiB 2>>"$3.err"
    code=$?
    [ $code -eq 7 ] || break
    sleep 0.2
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


@pytest.mark.skipif(not namespaces_allowed(), reason="NEEDS ROOT and iproute2 for namespaces")
def test_two_hosts(files: Path, tmp_path: Path) -> None:
    originals = {
        name: write_rdb(files / INSTANCE / f"{name}_{STAMP}.rdb", size, size)
        for name, size in (("large", 900_000), ("middle", 300_000), ("small", 20_000))
    }
    place = tmp_path / "archive"
    key = {"ALIBABA_CLOUD_ACCESS_KEY_ID": KEY_ID, "ALIBABA_CLOUD_ACCESS_KEY_SECRET": KEY_SECRET}
    hosts = [
        subprocess.Popen(
            ["unshare", "--net", "--uts", "sh", "-c", HOST, name,
             sys.executable, str(files), str(tmp_path / name), INSTANCE, str(place)],
            env={**os.environ, **key},
        )
        for name in ("host-a", "host-b")
    ]  # fmt: skip
    assert [host.wait(timeout=100) for host in hosts] == [0, 0]
    assert_converged(place, originals)
    refused = (tmp_path / "host-a.err").read_text() + (tmp_path / "host-b.err").read_text()
    assert "host-a" in refused or "host-b" in refused, "nobody met the other"
