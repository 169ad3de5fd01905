"""What the kernel says of one process, and signals that reach that process only."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from archiver.commands.drill import reachable
from archiver.commands.drill.identity import Identity
from archiver.commands.drill.reachable import Listening

_LOOK_SECONDS = 20.0


class Pid:
    """One process. Signals go through a pidfd where the kernel has them (5.3), so that they cannot
    hit another process to which the number has passed on.

    All but ``signal`` and ``close`` read /proc: call them in a thread.
    """

    def __init__(self, number: int, owner: Identity | None = None) -> None:
        """``owner`` is who it runs as, where that is somebody else than this process."""
        self.number = number
        self._owner = owner
        self._birth = _birth(number)
        self._descriptor: int | None = None
        with contextlib.suppress(OSError, AttributeError):
            self._descriptor = os.pidfd_open(number)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens when the process is gone."""
        with contextlib.suppress(ProcessLookupError):
            if self._descriptor is not None:
                signal.pidfd_send_signal(self._descriptor, number)
            elif not self.gone():
                os.kill(self.number, number)

    def gone(self) -> bool:
        """Whether the process has ended and was waited for."""
        birth = _birth(self.number)
        return birth is None or birth != self._birth

    def memory(self) -> int:
        """Resident bytes, and those swapped out; 0 when it is gone."""
        total = 0
        for line in _read(f"/proc/{self.number}/status").splitlines():
            if line.startswith(("VmRSS:", "VmSwap:")):
                total += int(line.split()[1]) * 1024
        return total

    def listening(self) -> Listening:
        """The TCP sockets on which the process listens."""
        seen = reachable.listening(self.number)
        if self._owner is not None and None in (seen.own_network, seen.ports):
            # In a container root may lack the right to look at others: their owner has it.
            return _seen_by(self._owner, self.number) or seen
        return seen

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _seen_by(owner: Identity, number: int) -> Listening | None:
    """What the owner of a process sees of it, in a program of its own; None if that fails."""
    command = [sys.executable, "-I", "-S", reachable.__file__, str(number), str(owner)]
    with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):
        done = subprocess.run(  # noqa: S603 - our own program
            command, capture_output=True, timeout=_LOOK_SECONDS, check=True
        )
        own, ports = json.loads(done.stdout)
        return Listening(own, None if ports is None else tuple(ports))
    return None


def available_memory() -> int | None:
    """Bytes that could still be used, by the machine and by the control group; None if unknown."""
    lines = _read("/proc/meminfo").splitlines()
    known = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    limit, used = (_read(f"/sys/fs/cgroup/memory.{name}").strip() for name in ("max", "current"))
    if limit.isdigit() and used.isdigit():
        known.append(max(0, int(limit) - int(used)))
    return min(known, default=None)


def _birth(number: int) -> str | None:
    """When the process began, in ticks since boot (proc_pid_stat(5), field 22)."""
    stat = _read(f"/proc/{number}/stat")
    # The second field is a name in parentheses, with anything in it.
    return stat.rpartition(")")[2].split()[19] if stat else None


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
