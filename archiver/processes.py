"""Identifies a process across its lifetime, and says whether it has ended.

A number alone does not identify a process: the kernel reuses numbers, and each PID namespace has
its own. An identity therefore includes when the process started, and the machine, the boot and the
namespaces in which that number and time are valid. Whether the process has ended can be known only
there: in another container or on another machine, the same number is another process. Host names do
not help, because containers and cloned machines share them.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

_MACHINE_ID = Path("/etc/machine-id")
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_MAX_PID: Final = 2**22
_ENDED: Final = frozenset("ZX")  # states of a process that has ended: zombie and dead


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process. A field is empty (0 for ``pid``) if it is unknown.

    ``started`` is in clock ticks since the boot.
    """

    machine: str
    boot: str
    pid_namespace: str
    time_namespace: str
    pid: int
    started: str

    @classmethod
    def current(cls) -> "ProcessIdentity":
        """Return the identity of this process. Blocks."""
        stat = read_stat(os.getpid())
        return cls(
            machine=_read(_MACHINE_ID),
            boot=boot_id(),
            pid_namespace=_namespace("pid"),
            time_namespace=_namespace("time"),
            pid=os.getpid(),
            started="" if stat is None else stat.started,
        )

    @classmethod
    def from_fields(cls, fields: Mapping[str, object]) -> "ProcessIdentity":
        """Read an identity that another process wrote; a field of a wrong type is unknown."""
        machine, boot, pid_namespace, time_namespace, started = (
            value if isinstance(value := fields.get(name), str) else ""
            for name in ("machine", "boot", "pid_namespace", "time_namespace", "started")
        )
        pid = fields.get("pid")
        if not isinstance(pid, int) or not 0 < pid <= _MAX_PID:
            pid = 0
        return cls(machine, boot, pid_namespace, time_namespace, pid, started)

    @property
    def scope(self) -> tuple[str, ...]:
        """Where the number and the start time identify a process."""
        return (self.machine, self.boot, self.pid_namespace, self.time_namespace)

    def is_visible(self) -> bool:
        """Whether this process sees the same processes, and can say whether that one has ended."""
        own = ProcessIdentity.current().scope
        return (
            all(own)
            and self.scope == own
            and self.pid > 0
            and self.started != ""
            and _proc_is_of_our_namespace()
        )

    def has_ended(self) -> bool:
        """Whether the process has certainly ended. False if it runs, or if that is unknown."""
        if not self.is_visible():
            return False
        stat = read_stat(self.pid)
        if stat is None:
            return not _exists(self.pid)
        return stat.state in _ENDED or stat.started != self.started


class Stat(NamedTuple):
    """The state of a process, and when it started in clock ticks since the boot."""

    state: str
    started: str


def read_stat(pid: int) -> Stat | None:
    """Read fields 3 and 22 of proc_pid_stat(5); None if there is no such process, or it is hidden.

    An ended process has a stat until its parent has waited for it.
    """
    # The second field is a name in parentheses, which may contain anything.
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return Stat(fields[0], fields[19]) if len(fields) > 19 else None


def boot_id() -> str:
    """Return the id of the current boot of this machine; empty if unknown."""
    return _read(_BOOT_ID)


def _namespace(kind: str) -> str:
    try:
        return str(Path(f"/proc/self/ns/{kind}").readlink())
    except OSError:
        # Kernels before 5.6 have no time namespaces.
        return "none" if kind == "time" and Path("/proc/self/ns/pid").is_symlink() else ""


def _proc_is_of_our_namespace() -> bool:
    """Whether /proc shows our own PID namespace; it may have been mounted in another one."""
    try:
        return str(Path("/proc/self").readlink()) == str(os.getpid())
    except OSError:
        return False


def _exists(pid: int) -> bool:
    """Whether there is such a process, even if /proc hides it from us."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""
