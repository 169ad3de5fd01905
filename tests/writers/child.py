"""One of several processes that write to one archive, driven from outside.

    python -m tests.writers.child VENDOR PLACE ENDPOINT LOCK_WAIT INSTANCE...

It has the vendor's files served to itself, and pulls. With its first bytes it says ``at work`` and
goes on when it is given a line; it says ``waiting`` while it waits for a lock. Its last line is
JSON: how many backups it ``archived`` and ``held``, whether it ``begun`` the archive, and by
subject the exit code and text of each failure.
"""

import json
import sys
from pathlib import Path

import anyio

from archiver import Archive, LocalStore, PullOptions, pull
from archiver.commands.summary import Summary
from archiver.emulator.server import Emulator
from archiver.events import ArchiveBegun, Event, Started, WaitingForLock
from archiver.stores.base import Store
from archiver.stores.s3 import S3Options, S3Store
from tests.conftest import KEY_ID, KEY_SECRET, everything, source_of


class Watcher:
    def __init__(self) -> None:
        self.begun = 0
        self.is_at_work = False

    def __call__(self, event: Event) -> None:
        if isinstance(event, ArchiveBegun):
            self.begun += 1
        elif isinstance(event, WaitingForLock):
            print("waiting", flush=True)
        elif isinstance(event, Started) and not self.is_at_work:
            self.is_at_work = True
            print("at work", flush=True)
            sys.stdin.readline()


def store_at(place: str, endpoint: str) -> Store:
    if place.startswith("s3://"):
        return S3Store(place, S3Options(endpoint=endpoint), beat=1.0)
    return LocalStore(Path(place))


async def work(*given: str) -> tuple[Watcher, Summary]:
    vendor, place, endpoint, lock_wait, *instances = given
    archive = Archive(store_at(place, endpoint), lock_wait=float(lock_wait))
    watcher = Watcher()
    async with (
        Emulator(vendor, access_key_id=KEY_ID, access_key_secret=KEY_SECRET) as emulator,
        source_of(emulator) as source,
    ):
        queries = [everything(instance) for instance in instances]
        return watcher, await pull(source, archive, queries, PullOptions(), watcher)


if __name__ == "__main__":
    watched, summary = anyio.run(work, *sys.argv[1:])
    said = {
        "archived": summary.archived,
        "held": summary.held,
        "begun": watched.begun,
        "failed": {one.subject: [one.error.exit_code, str(one.error)] for one in summary.failures},
    }
    print(json.dumps(said), flush=True)
