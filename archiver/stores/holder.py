"""Who holds a lock or a lease: what a holder writes about itself, and whether it has ended.

Only somebody who sees the same processes can tell that a holder is dead: on the same machine, since
the same boot, in the same PID namespace. Containers and cloned machines share names, so the host
name is only for people. When any of this is missing, on either side, the holder may be alive.
"""

import os
import socket
from pathlib import Path
from typing import Any, TypeAlias

from archiver import documents
from archiver.errors import BadDocument

# As it was read. Another version or another program may have written it, so check each field.
Holder: TypeAlias = dict[str, Any]

_MACHINE_ID = Path("/etc/machine-id")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# A namespace that the kernel does not have counts as the same for all processes.
_NAMESPACES = {"pid_namespace": "pid", "time_namespace": "time"}
_PROCESS_TABLE = ("machine", "boot", *_NAMESPACES)
_MAX_PID = 2**22
# Locks are read often and hold a few fields.
_MAX_BYTES = 4096


def ourselves(name: str, beat: int) -> Holder:
    """What this process writes. ``name`` is unique; a new ``beat`` shows that it is alive."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": _started("self"),
        **_process_table(),
        "name": name,
        "beat": beat,
    }


def parse(data: bytes) -> Holder:
    """What a holder wrote: printable texts, integers and booleans by name. Empty when there is
    nothing, or anything else."""
    try:
        values = documents.parse("the lock", data, _MAX_BYTES).values
    except BadDocument:
        return {}
    plain = all(
        isinstance(value, int | None) or (isinstance(value, str) and documents.is_clean(value))
        for value in values.values()
    )
    return dict(values) if plain else {}


def is_dead(holder: Holder) -> bool:
    """Whether a holder has certainly ended. False when it is alive, or that is unknown."""
    ours, pid, started = _process_table(), holder.get("pid"), holder.get("started")
    if not all(ours.values()) or any(holder.get(key) != ours[key] for key in _PROCESS_TABLE):
        return False
    if not isinstance(pid, int) or not 0 < pid <= _MAX_PID or not isinstance(started, str):
        return False
    if not started or not _sees_own_processes():
        return False
    found = _started(str(pid))
    return found != started and (bool(found) or _is_gone(pid))


def ran_under_this_kernel(holder: Holder) -> bool:
    """Whether a holder ran on this machine since it booted. If so, the kernel knows its locks."""
    boot = _boot()
    return bool(boot) and holder.get("boot") == boot


def words(holder: Holder) -> str:
    """A holder for messages, such as ``process 12 on db-host``."""
    pid, host = holder.get("pid"), holder.get("host")
    if not isinstance(pid, int) or not isinstance(host, str):
        return "another process"
    return f"process {pid} on {''.join(filter(str.isprintable, host))[:100]}"


def _process_table() -> dict[str, str]:
    """Identifies the process table that this process sees. Unknown parts are empty."""
    place = {"machine": _text(_MACHINE_ID), "boot": _boot()}
    for key, kind in _NAMESPACES.items():
        try:
            place[key] = str(Path(f"/proc/self/ns/{kind}").readlink())
        except OSError:
            missing = kind == "time" and Path("/proc/self/ns/pid").is_symlink()
            place[key] = "none" if missing else ""
    return place


def _boot() -> str:
    return _text(_BOOT_ID)


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""


def _sees_own_processes() -> bool:
    """Whether /proc shows our own PID namespace. It may have been mounted in another one."""
    try:
        return str(Path("/proc/self").readlink()) == str(os.getpid())
    except OSError:
        return False


def _started(pid: str) -> str:
    """When a process started, in the kernel's ticks; ``ended`` for a zombie; empty when there is no
    such process, or it is hidden."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        return "ended" if fields[0] in ("Z", "X") else fields[19]
    except (OSError, IndexError):
        return ""


def _is_gone(pid: int) -> bool:
    """Whether there is no such process. One that /proc hides from us exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
