"""A server's process: signals, memory, the ports it listens on, and a guard for its memory.

This module is also a program (``python -I -S process.py PID USER:GROUP``) that switches to that
user and prints the ports as JSON, so it imports only the standard library at run time. Root in a
container may lack the right to look at another user's process; that user has it.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from archiver.commands.drill.launch import Identity

_LISTEN = "0A"  # TCP_LISTEN, in /proc/net/tcp
_SOCKET = "socket:["
_LOOK_SECONDS = 20.0
_GUARD_SECONDS = 0.05  # between two looks
_MEMORY_SHARE = 0.8  # of the available memory, if no limit is given


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a process can be reached over TCP.

    ``own_network`` says whether it has its own network namespace. ``ports`` are its listening
    sockets as ``/proc`` has them (hex). None if unknown.
    """

    own_network: bool | None
    ports: tuple[str, ...] | None


class ServerProcess:
    """A running process. Signals use a pidfd if the kernel has them (5.3), so that they cannot hit
    another process that got the same number.

    All methods but ``signal`` and ``close`` read /proc: call them in a thread.
    """

    def __init__(self, pid: int, owner: "Identity | None" = None) -> None:
        """``owner`` is the user that it runs as, if it is not that of this process."""
        self.pid = pid
        self._owner = owner
        self._started = _start_time(pid)
        self._descriptor: int | None = None
        with contextlib.suppress(OSError, AttributeError):
            self._descriptor = os.pidfd_open(pid)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; do nothing if the process is gone."""
        with contextlib.suppress(ProcessLookupError):
            if self._descriptor is not None:
                signal.pidfd_send_signal(self._descriptor, number)
            elif not self.gone():
                os.kill(self.pid, number)

    def gone(self) -> bool:
        """Whether the process has ended and its parent has waited for it."""
        started = _start_time(self.pid)
        return started is None or started != self._started

    def memory(self) -> int:
        """Return its resident and swapped memory in bytes, 0 if it is gone."""
        total = 0
        for line in _read(f"/proc/{self.pid}/status").splitlines():
            if line.startswith(("VmRSS:", "VmSwap:")):
                total += int(line.split()[1]) * 1024
        return total

    def listening(self) -> Listening:
        """Return the TCP sockets on which the process listens."""
        seen = listening(self.pid)
        if self._owner is not None and None in (seen.own_network, seen.ports):
            return _listening_as(self._owner, self.pid) or seen
        return seen

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class MemoryGuard:
    """Kills a process that uses more memory than ``limit``, because a file may exceed the machine.

    It runs in a thread, so that it works even while the event loop is busy. RLIMIT_AS is no
    alternative: it counts address space, of which an allocator reserves more than it uses. Without
    a limit, it uses a share of the available memory, where ``share`` servers run at once; if that
    is unknown, there is no guard.
    """

    def __init__(self, process: ServerProcess, limit: int | None, share: int = 1) -> None:
        self.limit = limit or 0
        self.exceeded: int | None = None  # bytes in use when the process was killed
        self._process = process
        self._share = share
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory guard", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop watching. Blocks until the thread has ended."""
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        if not self.limit:
            available = available_memory()
            if available is None:
                return
            self.limit = int(available * _MEMORY_SHARE / self._share)
        while not self._stopped.wait(_GUARD_SECONDS):
            used = self._process.memory()
            if used > self.limit:
                self.exceeded = used
                self._process.signal(signal.SIGKILL)
                return


def available_memory() -> int | None:
    """Return the bytes that are free on the machine and in the control group; None if unknown."""
    lines = _read("/proc/meminfo").splitlines()
    known = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    limit, used = (_read(f"/sys/fs/cgroup/memory.{name}").strip() for name in ("max", "current"))
    if limit.isdigit() and used.isdigit():
        known.append(max(0, int(limit) - int(used)))
    return min(known, default=None)


def listening(pid: int) -> Listening:
    """Return the TCP sockets on which a process listens, as far as this process may see them."""
    own: bool | None = None
    with contextlib.suppress(OSError):
        mine, theirs = (os.readlink(f"/proc/{who}/ns/net") for who in ("self", pid))  # noqa: PTH115
        own = mine != theirs
    listeners = {}
    for family in ("tcp", "tcp6"):
        for line in _read(f"/proc/{pid}/net/{family}").splitlines()[1:]:
            _, address, _, state, _, _, _, _, _, inode, *_ = line.split()
            if state == _LISTEN:
                listeners[inode] = address
    try:
        inodes = _sockets(pid)
    except OSError:
        # Alone in its network, so all sockets of the network are its own.
        return Listening(own, tuple(listeners.values()) if own else None)
    return Listening(own, tuple(listeners[inode] for inode in inodes if inode in listeners))


def _listening_as(owner: "Identity", pid: int) -> Listening | None:
    """Run this module as the owner of the process; None if that fails."""
    command = [sys.executable, "-I", "-S", __file__, str(pid), str(owner)]
    with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):
        done = subprocess.run(  # noqa: S603 - our own program
            command, capture_output=True, timeout=_LOOK_SECONDS, check=True
        )
        own, ports = json.loads(done.stdout)
        return Listening(own, None if ports is None else tuple(ports))
    return None


def main(pid: int, user: int, group: int) -> None:
    """Print what the user sees."""
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    seen = listening(pid)
    sys.stdout.write(json.dumps([seen.own_network, seen.ports]))


def _sockets(pid: int) -> list[str]:
    """Return the inodes of the open sockets of a process. Raises OSError."""
    directory = f"/proc/{pid}/fd"
    links = []
    for name in os.listdir(directory):  # noqa: PTH208 - /proc has no tree of files
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(f"{directory}/{name}"))  # noqa: PTH115
    return [link[len(_SOCKET) : -1] for link in links if link.startswith(_SOCKET)]


def _start_time(pid: int) -> str | None:
    """Return when the process started, in ticks since boot (proc_pid_stat(5), field 22)."""
    # The second field is a name in parentheses, which may contain anything.
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 else None


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


if __name__ == "__main__":
    main(int(sys.argv[1]), *map(int, sys.argv[2].split(":")))
