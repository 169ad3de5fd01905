"""The main job from end to end, against the emulator: ``make demo``.

Real Redis dumps and a large one made here are served as the vendor would serve them; they are
pulled, with an interruption, listed, checked with nothing but ``sha256sum``, and copied into a
bucket of a real S3 server. Then, with the vendor gone, a cluster is restored, and a drill proves
that the newest backups load.
"""

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from archiver.stores.local.layout import JOURNAL
from examples.sample_rdb import write_rdb
from tests.servers.seaweedfs import WRITER, seaweedfs

INSTANCE = "r-bp1zxszhcgatnx"
CLUSTER = "r-bp1clusterdemo0"
HERE = Path(__file__).parent.parent
WORK = HERE / ".demo"
MIB = 2**20
# Dumps of the samples that are damaged on purpose.
DAMAGED = ("invalid_chksum", "future_v19")


def main() -> None:
    began = time.monotonic()
    shutil.rmtree(WORK, ignore_errors=True)
    lay_out_vendor(WORK / "vendor")
    key = {
        "ALIBABA_CLOUD_ACCESS_KEY_ID": f"LTAI{secrets.token_hex(10)}",
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET": secrets.token_hex(15),
    }
    environ = {**os.environ, **key}
    say("The emulator serves them as the vendor's API and object store, 20 MB/s a connection.")
    with subprocess.Popen(
        [*ARCHIVER, "emulate", str(WORK / "vendor"), "--port", "0", "--rate", "20M"],
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
    ) as emulator:
        try:
            ready = emulator.stdout.readline() if emulator.stdout else ""
            endpoint = re.findall(r"--endpoint (\S+)", ready)[0]
            asked = {
                f"ARCHIVER_{command}_{option}": value
                for command in ("PULL", "LS")
                for option, value in (("ENDPOINT", endpoint), ("RANGE", "last-30d"))
            }
            rehearse({**environ, **asked})
        finally:
            emulator.terminate()
    check_with_sha256sum(WORK / "archive")
    copy_offsite(WORK / "archive")
    say("The vendor is gone. The cluster's newest backup, laid out for redis-server:")
    restore = ["restore", str(WORK / "archive"), "--instance", CLUSTER]
    run([*ARCHIVER, *restore, "--to", str(WORK / "restored"), "--quiet"])
    say("A drill: the newest backup of each instance into throwaway servers, counted and judged.")
    drill = ["drill", str(WORK / "archive"), "--assert", "dbsize >= 3", "--rto", "5m"]
    evidence = run([*ARCHIVER, *drill]).strip()
    say(f"The evidence: {evidence} (and .html, .md, .xml beside it)")
    say(f"Done in {time.monotonic() - began:.0f} s. The archive is in {WORK / 'archive'}.")


def lay_out_vendor(directory: Path) -> None:
    """Files as instances have them: real dumps, a large one, and a cluster of three nodes."""
    say("Real Redis dumps, one of 384 MiB, and a cluster of three nodes.")
    newest, age = datetime.now(UTC) - timedelta(hours=1), 0
    for path in sorted((HERE / "tests" / "data" / "rdb").glob("*.rdb")):
        if not any(name in path.name for name in DAMAGED):
            age = age % 20 + 1
            at = newest - timedelta(days=age)
            target = directory / INSTANCE / f"{path.stem}_{at:%Y%m%d%H%M%S}.rdb"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    write_rdb(directory / INSTANCE / f"large_{newest:%Y%m%d%H%M%S}.rdb", 384 * MIB)
    for node in range(3):
        folder = directory / CLUSTER / f"{CLUSTER}-db-{node}"
        write_rdb(folder / f"dump_{newest:%Y%m%d%H%M%S}.rdb", 8 * MIB, node)


def rehearse(environ: dict[str, str]) -> None:
    """Pull, interrupted once and then to the end; list; pull again."""
    pull = ["pull", "--instance", INSTANCE, "--instance", CLUSTER, "--to", str(WORK / "archive")]
    say("A pull, interrupted with Ctrl-C while it downloads the large file.")
    process = started([*pull, "--no-progress"], environ)
    until_parts_are_kept(process)
    process.send_signal(signal.SIGINT)
    expect_line(process, 130, "kept: ")
    say("The same command again: it goes on where it stopped.")
    expect_line(started([*pull, "--no-progress"], environ), 0, "resuming: ")
    say("What the archive holds, beside what the vendor has.")
    listing = ["ls", str(WORK / "archive"), "--remote"]
    for instance in (INSTANCE, CLUSTER):
        listing += ["--instance", instance]
    shown = subprocess.run(
        [*ARCHIVER, *listing], env=environ, check=True, stdout=subprocess.PIPE, text=True
    ).stdout.splitlines()
    print("\n".join([*shown[:4], f"… {len(shown) - 8} more …", *shown[-4:]]))
    say("A pull that finds nothing new.")
    expect(subprocess.run([*ARCHIVER, *pull], env=environ, check=False).returncode, 0)


def started(words: list[str], environ: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen([*ARCHIVER, *words], env=environ, stderr=subprocess.PIPE, text=True)


def expect_line(process: subprocess.Popen[str], code: int, start: str) -> None:
    """Show the command's stderr once it has ended; exit unless a line of it has this start."""
    _, told = process.communicate()
    print(told, end="", file=sys.stderr, flush=True)
    expect(process.returncode, code)
    if not any(line.startswith(start) for line in told.splitlines()):
        sys.exit(f"demo: no line begins with {start!r}")


def until_parts_are_kept(process: subprocess.Popen[str]) -> None:
    """Wait until the journal of the large file names a part that is on the disk."""
    until, area = time.monotonic() + 60, WORK / "archive" / ".staging" / INSTANCE
    while not any(path.read_bytes().count(b"\n") > 1 for path in area.rglob(f"*{JOURNAL}")):
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            sys.exit("demo: the pull kept no part")
        time.sleep(0.02)


def check_with_sha256sum(archive: Path) -> None:
    """What somebody with nothing but coreutils would do."""
    found = sorted(archive.rglob("SHA256SUMS"))
    for sums in found:
        subprocess.run(["sha256sum", "-c", "--quiet", sums.name], cwd=sums.parent, check=True)
    say(f"sha256sum -c: all files of {len(found)} months are as they were pulled.")


def copy_offsite(archive: Path) -> None:
    """Into a bucket of a real S3 server, and read back from there."""
    say("An offsite copy into a bucket, verified there.")
    with seaweedfs(WORK / "bucket") as server:
        place = f"s3://{server.make_bucket('offsite')}/redis"
        environ = {
            **os.environ,
            "AWS_ENDPOINT_URL_S3": server.endpoint,
            "AWS_ACCESS_KEY_ID": WRITER.key_id,
            "AWS_SECRET_ACCESS_KEY": WRITER.secret,
        }
        for command in (["copy", str(archive), place], ["verify", place]):
            expect(subprocess.run([*ARCHIVER, *command], env=environ, check=False).returncode, 0)


def run(command: list[str]) -> str:
    """What the command says on stdout, shown here, too."""
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    print(done.stdout, end="", flush=True)
    expect(done.returncode, 0)
    return done.stdout


def expect(code: int, wanted: int) -> None:
    if code != wanted:
        sys.exit(f"demo: exit code {code} instead of {wanted}")


def say(text: str) -> None:
    print(f"\n== {text}", flush=True)


ARCHIVER = [sys.executable, "-m", "archiver"]

if __name__ == "__main__":
    main()
