"""What the kernel says of one process, and signals that reach that process only."""

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

_LISTEN = "0A"  # TCP_LISTEN, in /proc/net/tcp
_SOCKET = "socket:["


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a process can be reached over TCP: nowhere, if all is well.

    ``own_network`` says whether it lives in a network namespace of its own. ``ports`` are its
    listening sockets as ``/proc`` writes them (hex). None stands for what cannot be read.
    """

    own_network: bool | None
    ports: tuple[str, ...] | None


class Pid:
    """One process. Signals go through a pidfd where the kernel has them (5.3), so that they cannot
    hit another process to which the number has passed on.

    All but ``signal`` and ``close`` read /proc: call them in a thread.
    """

    def __init__(self, number: int) -> None:
        self.number = number
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
        own: bool | None = None
        with contextlib.suppress(OSError):
            mine, its = (Path(f"/proc/{who}/ns/net").readlink() for who in ("self", self.number))
            own = mine != its
        listeners = {}
        for family in ("tcp", "tcp6"):
            for line in _read(f"/proc/{self.number}/net/{family}").splitlines()[1:]:
                _, address, _, state, _, _, _, _, _, inode, *_ = line.split()
                if state == _LISTEN:
                    listeners[inode] = address
        try:
            inodes = self._sockets()
        except OSError:
            # Alone in its network, all of the network's sockets are its own.
            return Listening(own, tuple(listeners.values()) if own else None)
        return Listening(own, tuple(listeners[inode] for inode in inodes if inode in listeners))

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _sockets(self) -> list[str]:
        directory = f"/proc/{self.number}/fd"
        links = []
        for name in os.listdir(directory):  # noqa: PTH208 - /proc is no tree of files
            with contextlib.suppress(FileNotFoundError):
                links.append(os.readlink(f"{directory}/{name}"))  # noqa: PTH115
        return [link[len(_SOCKET) : -1] for link in links if link.startswith(_SOCKET)]


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
