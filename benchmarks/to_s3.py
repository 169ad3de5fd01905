"""Our pull into a bucket beside ``rclone copy`` of the same files: ``python -m benchmarks.to_s3``.

Files behind nginx on loopback, into one SeaweedFS, both interleaved. Our pull checks the source's
CRC-64 where there is one, the dump's own checksum and SHA-256 on the way, and has the store check
every part; rclone compares nothing over plain http.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from benchmarks.run import MIB, Sample, Workload, make_files, timed
from benchmarks.servers import INSTANCE, Site, serve
from tests.servers.seaweedfs import WRITER, SeaweedFS, seaweedfs

WORKLOADS = (
    Workload("4 × 512 MiB, http → S3", (512 * MIB,) * 4),
    Workload("500 × 1 MiB, http → S3", (MIB,) * 500),
)
Command = Callable[[Site, SeaweedFS, str, Path], str]


def archiver(site: Site, server: SeaweedFS, bucket: str, _: Path) -> str:
    return (
        f"{sys.executable} -m archiver pull --instance {INSTANCE} -q --endpoint {site.endpoint} "
        f"--allow-host localhost --range 2000-01-01.. --to s3://{bucket}/redis "
        f"--s3-endpoint {server.endpoint}"
    )


def rclone(site: Site, server: SeaweedFS, bucket: str, place: Path) -> str:
    names = place.parent / "names"
    names.write_text("".join(f"{file.name}\n" for file in site.files))
    program = Path(sys.executable).with_name("rclone")
    remote = f":s3,provider=SeaweedFS,env_auth,endpoint='{server.endpoint}':{bucket}/redis"
    return (
        f'{program} --config /dev/null -q copy :http: "{remote}" --http-url {site.base} '
        f"--files-from-raw {names} --no-traverse --transfers 4"
    )


COMMANDS: dict[str, Command] = {"archiver": archiver, "rclone": rclone}


def measure(workload: Workload, runs: int, place: Path) -> dict[str, list[Sample]]:
    samples: dict[str, list[Sample]] = {name: [] for name in COMMANDS}
    with ExitStack() as stack:
        memory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm")))
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=place)))
        site = stack.enter_context(serve(make_files(workload, memory), memory))
        server = stack.enter_context(seaweedfs(work / "server", volumes=40, volume_megabytes=1024))
        os.environ |= {
            "AWS_ACCESS_KEY_ID": WRITER.key_id,
            "AWS_SECRET_ACCESS_KEY": WRITER.secret,
        }
        for run in range(runs):
            for name, command in COMMANDS.items():
                bucket = server.make_bucket(f"{name}-{run}")
                sample = timed(command(site, server, bucket, work / "out"), work / "out")
                sent = sum(server.objects(bucket, "").values())
                if sent < site.size:
                    sys.exit(f"{name}: {sent:,} of {site.size:,} bytes came")
                server.remove_bucket(bucket)
                samples[name].append(sample)
                print(f"  {name:10} {sample.wall:7.2f} s", file=sys.stderr, flush=True)
    return samples


def report(workload: Workload, samples: dict[str, list[Sample]]) -> str:
    size = sum(workload.sizes) / 1e9
    rows = [
        f"\n### {workload.name}\n",
        "| command | wall s | CPU s/GB | peak RSS MB |",
        "|---|---|---|---|",
    ]
    for name, taken in samples.items():
        wall = statistics.median(sample.wall for sample in taken)
        cpu = statistics.median(sample.cpu for sample in taken) / size
        rss = max(sample.rss for sample in taken) / 1e6
        rows.append(f"| {name} | {wall:.2f} | {cpu:.2f} | {rss:.0f} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--place", type=Path, default=Path.cwd())
    given = parser.parse_args()
    subprocess.run(["sync"], check=True)
    for workload in WORKLOADS:
        print(report(workload, measure(workload, given.runs, given.place)), flush=True)


if __name__ == "__main__":
    main()
