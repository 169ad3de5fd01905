"""The command line, killed by SIGKILL at one call that changes the file system.

    python -m tests.faults.killed_at CALL NUMBER ARGUMENT…     killed at that call, counted from 1
    python -m tests.faults.killed_at count FILE ARGUMENT…      writes how often each is called

Counted over all threads, which strace's ``when=`` does not do.
"""

import json
import os
import signal
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from archiver.cli import main
from archiver.stores.local import syncing

# What changes a file system, or makes a change durable.
SYNC = "_syncfs"  # of archiver.stores.local.syncing; the others are os.*
CALLS = ("mkdir", "pwrite", "fsync", "fdatasync", "replace", "unlink", "ftruncate", SYNC)


def counted(name: str, counts: Counter[str], kill_at: tuple[str, int]) -> None:
    """Put a counter in front of ``os.<name>``, or of that one sync for many files."""
    where = syncing if name == SYNC else os
    call, lock = getattr(where, name), threading.Lock()

    def in_front(*args: Any, **kwargs: Any) -> Any:
        with lock:
            counts[name] += 1
            if (name, counts[name]) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **kwargs)

    setattr(where, name, in_front)


def run() -> None:
    counts: Counter[str] = Counter()
    what, where = sys.argv[1:3]
    kill_at = (what, 0 if what == "count" else int(where))
    for name in CALLS:
        counted(name, counts, kill_at)
    try:
        main(sys.argv[3:], prog_name="archiver")
    finally:
        if what == "count":
            Path(where).write_text(json.dumps(counts))


if __name__ == "__main__":
    run()
