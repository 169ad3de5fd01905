"""A dask cluster by dask's own commands: a scheduler and workers, as processes of their own."""

import contextlib
import json
import os
import signal
import subprocess
import sysconfig
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

DASK: Final = Path(sysconfig.get_path("scripts")) / "dask"
_READY_SECONDS: Final = 60.0


@dataclass(slots=True)
class DaskCluster:
    """``directory`` gets the logs. The processes have this environment and no other."""

    directory: Path
    environ: Mapping[str, str]
    scheduler: subprocess.Popen[bytes] | None = None
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    address: str = ""

    def start_scheduler(self) -> None:
        """Start one; returns when it can be connected to."""
        if self.scheduler is not None:
            self.scheduler.wait()
        at = self.directory / "scheduler.json"
        at.unlink(missing_ok=True)
        self.scheduler = self._start(
            "scheduler", "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
            "--dashboard-address", "127.0.0.1:0", "--scheduler-file", str(at),
        )  # fmt: skip
        until = time.monotonic() + _READY_SECONDS
        while not (at.exists() and at.read_text().endswith("}")):
            assert self.scheduler.poll() is None, self.log
            assert time.monotonic() < until, self.log
            time.sleep(0.05)
        self.address = json.loads(at.read_text())["address"]

    def start_worker(self, *args: str, threads: int = 2) -> subprocess.Popen[bytes]:
        """Start one, by default without a nanny that starts it again."""
        name = f"worker-{len(self.workers)}"
        worker = self._start(
            name, "worker", self.address, "--host", "127.0.0.1", "--nthreads", str(threads),
            "--no-dashboard", "--dashboard-address", "127.0.0.1:0", "--memory-limit", "0",
            "--local-directory", str(self.directory / name), *(args or ("--no-nanny",)),
        )  # fmt: skip
        self.workers.append(worker)
        return worker

    def _start(self, name: str, *args: str) -> subprocess.Popen[bytes]:
        with (self.directory / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [str(DASK), *args],
                cwd=self.directory, env=dict(self.environ), stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    @property
    def log(self) -> str:
        """What all of them logged."""
        return "\n".join(path.read_text() for path in sorted(self.directory.glob("*.log")))

    def stop(self) -> None:
        for process in (*self.workers, *((self.scheduler,) if self.scheduler else ())):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def dask_cluster(directory: Path, environ: Mapping[str, str]) -> Iterator[DaskCluster]:
    """A cluster with a scheduler, and no workers yet."""
    directory.mkdir(parents=True, exist_ok=True)
    cluster = DaskCluster(directory, environ)
    try:
        cluster.start_scheduler()
        yield cluster
    finally:
        cluster.stop()
