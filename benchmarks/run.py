"""Our pull beside the peers on this machine, doing the same work: ``make bench``.

The same work is download, SHA-256 verification, and data on stable storage. Where a peer does not
verify or sync, ``sync`` and ``sha256sum`` run after it within the timed command. Runs are
interleaved (A B C A B C …); figures are medians.

    python -m benchmarks.run [--only a-http,c,…] [--runs 5] [--place DIRECTORY] [--report FILE]
"""

import argparse
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.servers import INSTANCE, KEY, Site, serve
from examples.sample_rdb import write_rdb

MIB = 2**20
MOST_DELETED = 1000
Command = Callable[[Site, Path], str]


@dataclass(frozen=True, slots=True)
class Workload:
    """Files of these sizes behind nginx with these limits; ``connections`` for who can choose."""

    name: str
    sizes: tuple[int, ...]
    https: bool = False
    limits: str = ""
    http: str = ""
    resumed: bool = False


WORKLOADS = {
    "a-http": Workload("8 × 512 MiB, http", (512 * MIB,) * 8),
    "a-https": Workload("8 × 512 MiB, https", (512 * MIB,) * 8, https=True),
    "b": Workload("64 × 32 MiB, http", (32 * MIB,) * 64),
    "c": Workload("5,000 × 64 KiB, http", (64 * 1024,) * 5000),
    "d": Workload("1 × 4 GiB, http", (4096 * MIB,)),
    "e": Workload(
        "8 unequal files, 20 MB/s a connection",
        tuple(MIB * n for n in (512, 256, 128, 128, 64, 64, 32, 16)),
        limits="limit_rate 20m;",
    ),
    "f": Workload(
        "16 × 32 MiB, one connection in ten drips at 1 MB/s",
        (32 * MIB,) * 16,
        limits="limit_rate $drip;",
        http="map $connection $drip { ~7$ 1m; default 0; }",
    ),
    "r": Workload(
        "8 × 512 MiB, 10 MB/s a connection, killed at 60 %",
        (512 * MIB,) * 8,
        limits="limit_rate 10m;",
        resumed=True,
    ),
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One run: seconds of wall and of CPU, peak memory of its largest process in bytes."""

    wall: float
    cpu: float
    rss: int


def archiver(site: Site, place: Path) -> str:
    certificate = f"SSL_CERT_FILE={site.certificate} " if site.certificate else ""
    return (
        f"{certificate}{sys.executable} -m archiver pull --instance {INSTANCE} -q "
        f"--endpoint {site.endpoint} --allow-host localhost --range 2000-01-01.. "
        f"--to {place}/archive "
        f"&& test $(find {place}/archive -name '*.rdb' | wc -l) -eq {len(site.files)}"
    )


def then_verify(site: Site, place: Path) -> str:
    """What a peer leaves undone: sync, and every file's SHA-256, on both cores."""
    sums = site.files[0].parent.parent / "SUMS"
    return (
        f"&& sync -f {place} && cd {place} && xargs -P 2 -a {sums} -d '\\n' -n 64 "
        'sh -c \'printf "%s\\n" "$@" | sha256sum -c --quiet\' sh'
    )


def urls(site: Site, place: Path) -> Path:
    path = place.parent / "urls"
    path.write_text("".join(f"{site.base}{file.name}\n" for file in site.files))
    return path


def curl(site: Site, place: Path) -> str:
    trust = f"--cacert {site.certificate}" if site.certificate else ""
    return (
        f"cd {place} && sed 's/.*/url = \"&\"\\nremote-name/' {urls(site, place)} | curl {trust} "
        f"-s --no-progress-meter --fail --parallel --parallel-max 8 -K - {then_verify(site, place)}"
    )


def wget2(site: Site, place: Path) -> str:
    trust = f"--ca-certificate={site.certificate}" if site.certificate else ""
    return (
        f"wget2 {trust} -q --no-check-hostname --max-threads=8 -P {place} -i {urls(site, place)} "
        f"{then_verify(site, place)}"
    )


def aria2c(site: Site, place: Path) -> str:
    trust = f"--ca-certificate={site.certificate}" if site.certificate else ""
    return (
        f"aria2c {trust} -q -j 8 -d {place} -i {urls(site, place)} --file-allocation=none "
        f"{then_verify(site, place)}"
    )


def rclone(site: Site, place: Path) -> str:
    trust = f"--ca-cert {site.certificate}" if site.certificate else ""
    names = place.parent / "names"
    names.write_text("".join(f"{file.name}\n" for file in site.files))
    program = Path(sys.executable).with_name("rclone")
    return (
        f"{program} --config /dev/null {trust} -q copy :http: {place} --http-url {site.base} "
        f"--files-from-raw {names} --no-traverse --transfers 8 {then_verify(site, place)}"
    )


COMMANDS: dict[str, Command] = {
    "archiver": archiver,
    "curl": curl,
    "wget2": wget2,
    "aria2c": aria2c,
    "rclone": rclone,
}


def installed() -> dict[str, Command]:
    beside = Path(sys.executable).parent
    return {
        name: command
        for name, command in COMMANDS.items()
        if shutil.which(name) or (beside / name).exists()
    }


def timed(command: str, place: Path, *, fresh: bool = True) -> Sample:
    """Run once, into an empty place if ``fresh``. Exits the benchmark when the command fails."""
    if fresh:
        empty(place)
    os.sync()
    began = time.monotonic()
    process = subprocess.Popen(["sh", "-c", command], env={**os.environ, **KEY})
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"exit code {process.returncode}: {command}")
    return Sample(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def empty(place: Path) -> None:
    """Make an empty ``place``.

    Large files that are in it are deleted. Many small ones are put aside until the benchmark ends:
    ext4 looks at every inode deleted in the last minutes before it makes a new one
    (recently_deleted in fs/ext4/ialloc.c), which would cost the next command seconds.
    """
    if place.exists() and sum(1 for _ in place.rglob("*")) > MOST_DELETED:
        place.rename(place.with_name(f"{place.name}-{time.monotonic_ns()}"))
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()


def write_all(files: list[Path], sizes: tuple[int, ...]) -> None:
    for number, (path, size) in enumerate(zip(files, sizes, strict=True)):
        write_rdb(path, size, number)


def make_files(workload: Workload, folder: Path) -> list[Path]:
    """Real dumps in memory, and their checksums beside them."""
    (folder / "files").mkdir(parents=True)
    files = [
        folder / "files" / f"dump{number}_20261101{number:06d}.rdb"
        for number in range(len(workload.sizes))
    ]
    # In a process of its own: what it takes would count as every command's peak memory.
    writer = multiprocessing.get_context("spawn").Process(
        target=write_all, args=(files, workload.sizes)
    )
    writer.start()
    writer.join()
    with (folder / "SUMS").open("w") as sums:
        names = [path.name for path in files]
        for start in range(0, len(names), 1000):
            subprocess.run(
                ["sha256sum", *names[start : start + 1000]],
                cwd=folder / "files", stdout=sums, check=True,
            )  # fmt: skip
    return files


def measure(workload: Workload, runs: int, place: Path) -> Iterator[tuple[str, list[Sample]]]:
    """All commands in turn, ``runs`` times after a warm-up."""
    commands = installed()
    samples: dict[str, list[Sample]] = {name: [] for name in commands}
    with ExitStack() as stack:
        memory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm")))
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=place)))
        files = make_files(workload, memory)
        site = stack.enter_context(
            serve(files, memory, https=workload.https, limits=workload.limits, http=workload.http)
        )
        for run in range(runs + 1):
            for name, command in commands.items():
                sample = timed(command(site, work / "out"), work / "out")
                if run:
                    samples[name].append(sample)
                    print(f"  {name:10} {sample.wall:7.2f} s", file=sys.stderr, flush=True)
    yield from samples.items()


def report(workload: Workload, runs: int, place: Path) -> str:
    """A Markdown table of one workload."""
    size = sum(workload.sizes) / 1e9
    rows = [
        f"\n### {workload.name}\n",
        "| command | wall s | GB/s | × archiver | CPU s/GB | peak RSS MB |",
        "|---|---|---|---|---|---|",
    ]
    ours = 0.0
    for name, samples in measure(workload, runs, place):
        wall = statistics.median(sample.wall for sample in samples)
        ours = ours or wall
        cpu = statistics.median(sample.cpu for sample in samples) / size
        rss = max(sample.rss for sample in samples) / 1e6
        figures = (f"{wall:.2f}", f"{size / wall:.2f}", f"{wall / ours:.2f}", f"{cpu:.2f}")
        rows.append(f"| {' | '.join((name, *figures, f'{rss:.0f}'))} |")
    return "\n".join(rows)


def resumed(workload: Workload, runs: int, place: Path) -> str:
    """Killed at 60 %, then finished: what was fetched in all, beside what there is."""
    shares = []
    with ExitStack() as stack:
        memory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm")))
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=place)))
        files = make_files(workload, memory)
        site = stack.enter_context(serve(files, memory, limits=workload.limits))
        for _ in range(runs):
            kill_at(site, work / "out", 0.6)
            timed(archiver(site, work / "out"), work / "out", fresh=False)
            shares.append(site.sent_since() / site.size)
            print(f"  fetched {shares[-1]:.4f}", file=sys.stderr, flush=True)
    return (
        f"\n### {workload.name}\n\nBytes fetched in all ÷ bytes of the files, {runs} runs: "
        f"median {statistics.median(shares):.4f}, worst {max(shares):.4f}."
    )


def kill_at(site: Site, place: Path, share: float) -> None:
    """Pull, and SIGKILL it when so much of the files was sent."""
    empty(place)
    site.sent_since()
    before = on_disk(place)
    words = archiver(site, place).partition(" && ")[0]
    process = subprocess.Popen(["sh", "-c", f"exec {words}"], env={**os.environ, **KEY})
    while on_disk(place) - before < share * site.size and process.poll() is None:
        time.sleep(0.02)
    process.kill()
    process.wait()


def on_disk(place: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in place.rglob("*") if path.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(WORKLOADS))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--place", type=Path, default=Path.cwd())
    parser.add_argument("--report", type=Path)
    given = parser.parse_args()
    for name in given.only.split(","):
        print(name, file=sys.stderr, flush=True)
        made = resumed if WORKLOADS[name].resumed else report
        table = made(WORKLOADS[name], given.runs, given.place)
        print(table, flush=True)
        if given.report:
            with given.report.open("a") as out:
                out.write(f"{table}\n")


if __name__ == "__main__":
    main()
