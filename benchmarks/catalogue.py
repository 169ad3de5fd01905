"""What it takes to know what an archive holds: time, memory and requests.

    python -m benchmarks.catalogue PLACE [--backups 100000] [--instances 250]

Makes an archive in a directory of its own (records of backups that were never pulled, and objects
of a few bytes), and prints a table: each command, with the catalogue and without.
"""

import argparse
import asyncio
import os
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

from fastcrc import crc64

from archiver.archive import layout
from archiver.archive.contents import view_month
from archiver.archive.indexing import write_index
from archiver.archive.record import encode, new_document
from archiver.archive.sums import format_sums
from archiver.model import (
    Backup,
    BackupMode,
    BackupType,
    Kind,
    Network,
    Provenance,
    Receipt,
    SourceName,
    Status,
    Stored,
)
from archiver.rdb.meter import FileMeter
from archiver.stores.local.store import LocalStore
from examples.sample_rdb import rdb

NEWEST = datetime(2026, 11, 30, 2, 15, tzinfo=UTC)
_DATA = rdb(300)
_SHA256 = sha256(_DATA).hexdigest()


def backup(instance: int, number: int) -> Backup:
    """The ``number``-th backup of an instance, a day before the one after it."""
    name = f"r-bp1{instance:012x}"
    return Backup(
        source=SourceName("alibaba", "DescribeBackups 2015-01-01"),
        instance_id=name,
        node_id=name,
        backup_id=str(10_000_000 + number),
        set_id=str(20_000_000 + number),
        started_at=NEWEST - timedelta(days=number),
        status=Status.SUCCESS,
        type=BackupType.FULL,
        mode=BackupMode.AUTOMATED,
        size=len(_DATA),
        received={
            "BackupId": 10_000_000 + number,
            "BackupJobID": 20_000_000 + number,
            "BackupType": "FullBackup",
            "BackupMode": "Automated",
            "BackupStatus": "Success",
            "BackupSize": len(_DATA),
            "BackupStartTime": f"{NEWEST - timedelta(days=number):%Y-%m-%dT%H:%M:%SZ}",
            "NodeInstanceId": name,
        },
    )


def receipt() -> Receipt:
    """The same of all of them."""
    meter = FileMeter(len(_DATA))
    meter.feed(memoryview(_DATA))
    kind, verdict = meter.verdict(is_log=False)
    return Receipt(
        size=len(_DATA),
        sha256=_SHA256,
        crc64=crc64.xz(_DATA),
        crc64_declared=crc64.xz(_DATA),
        etag=None,
        kind=kind,
        rdb=verdict,
        provenance=Provenance("http://oss.example/a.rdb", Network.PUBLIC),
        part_size=2**24,
        started_at=NEWEST,
        finished_at=NEWEST,
        attempts=1,
        bytes_fetched=len(_DATA),
        bytes_fetched_again=0,
    )


def files(instances: int, backups: int) -> Iterator[tuple[str, bytes]]:
    """All files of an archive, keys and contents."""
    yield layout.FORMAT_KEY, b'{"format": %d}\n' % layout.FORMAT
    proven = receipt()
    sums = defaultdict[str, dict[str, str]](dict)
    for instance in range(instances):
        for number in range(backups // instances):
            one = backup(instance, number)
            stem = layout.stem(layout.new_set_key(one), one)
            stored = Stored(f"{stem}.{Kind.RDB}", proven)
            yield stored.key, _DATA
            yield layout.record_key(stem), encode(new_document(one, stored, "benchmark"))
            sums[layout.month_of(stem)][stored.key.rpartition("/")[2]] = _SHA256
    for month, names in sums.items():
        yield layout.sums_key(month), format_sums(names)


def make(root: Path, instances: int, backups: int) -> None:
    """Write an archive, and its catalogues."""
    made = set[str]()
    for key, data in files(instances, backups):
        path = root / key
        if (parent := key.rpartition("/")[0]) not in made:
            path.parent.mkdir(parents=True, exist_ok=True)
            made.add(parent)
        path.write_bytes(data)
    months = sorted({layout.month_of(folder) for folder in made if folder})

    async def index() -> None:
        store = LocalStore(root)
        for month in months:
            await write_index(store, await view_month(store, month, {}))

    asyncio.run(index())


def measured(root: Path, *words: str) -> str:
    """Of one command: seconds, those of CPU among them, and the most memory in MB."""
    given = [str(root) if word == "@" else word for word in words]
    command = [sys.executable, "-m", "archiver", *given]
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = 0
    seconds, busy = time.monotonic() - began, usage.ru_utime + usage.ru_stime
    return f"{seconds:.2f} | {busy:.2f} | {usage.ru_maxrss / 1024:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("place", type=Path)
    parser.add_argument("--backups", type=int, default=100_000)
    parser.add_argument("--instances", type=int, default=250)
    given = parser.parse_args()
    if not given.place.exists():
        make(given.place, given.instances, given.backups)
    one = f"r-bp1{7:012x}"
    commands = {
        "ls": ("ls", "@"),
        "ls of one instance": ("ls", "@", "--instance", one),
        "restore --list": ("restore", "@", "--list", "--instance", one),
    }
    print(f"| {given.backups:,} backups of {given.instances} | s | CPU s | MB |\n|---|---|---|---|")
    for name, words in commands.items():
        print(f"| {name} | {measured(given.place, *words)} |", flush=True)
    indexes = list(given.place.glob(f"*/*/*/{layout.INDEX_NAME}"))
    for path in indexes:
        path.rename(path.with_suffix(".away"))
    try:
        print(f"| ls, without a catalogue | {measured(given.place, 'ls', '@')} |")
    finally:
        for path in indexes:
            path.with_suffix(".away").rename(path)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
